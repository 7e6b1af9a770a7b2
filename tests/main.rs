//! Integration tests, one binary. Modules are named after what they prove.

#![expect(clippy::print_stdout, reason = "tests print their figures and what they skip")]

mod batching;
#[path = "../audio/tests/hostile/bombs.rs"]
mod bombs;
#[cfg(feature = "bundled")]
mod bundled;
#[cfg(feature = "bundled")]
mod bundled_translator;
mod bundles;
mod canary;
mod canned_service;
mod cascade;
mod cli;
mod compare;
mod connections;
mod data;
mod decode_worker;
mod digits;
mod distil;
mod fast_conformer;
mod finetune;
mod finetune_conformers;
mod finetune_voice;
mod gpu;
mod gradients;
mod hostile_bundles;
mod http;
mod http2;
mod hub;
mod load;
mod loopback_hub;
mod loopback_server;
mod nemo;
mod parakeet;
mod parity;
mod service;
mod shape;
mod speak;
mod speech;
mod support;
mod tokenizer;
mod training;
mod transcriptions;
mod translation;
mod variable_length;
mod voices;
mod worker;

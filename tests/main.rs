//! Integration tests, one binary. Modules are named after what they prove.

#![expect(clippy::print_stdout, reason = "tests print their figures and what they skip")]

mod batching;
#[path = "../audio/tests/hostile/bombs.rs"]
mod bombs;
mod bundles;
mod cli;
mod decode_worker;
mod digits;
mod gradients;
mod hostile_bundles;
mod hub;
mod loopback_hub;
mod parity;
mod support;
mod tokenizer;

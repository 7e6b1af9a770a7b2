//! Integration tests, one binary. Modules are named after what they prove.

#![expect(clippy::print_stdout, reason = "tests print their figures and what they skip")]

mod batching;
mod bundles;
mod cli;
mod digits;
mod gradients;
mod hostile_bundles;
mod hub;
mod load;
mod loopback_hub;
mod loopback_service;
mod parity;
mod support;
mod tokenizer;

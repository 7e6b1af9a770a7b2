//! Integration tests, one binary. Modules are named after what they prove.

mod batching;
mod cli;
mod digits;
mod gradients;
mod hub;
mod loopback_hub;
mod parity;
mod support;

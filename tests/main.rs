//! Integration tests, one binary. Modules are named after what they prove.

mod batching;
mod digits;
mod gradients;
mod parity;
mod support;

//! Integration tests: one binary, one module per subject.

mod cli;
mod hub;
mod loopback_hub;

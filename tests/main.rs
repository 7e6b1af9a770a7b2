//! Integration tests: one binary, one module per subject.

mod hub;
mod loopback_hub;

//! The speechd server as a library: command line, configuration, decoding of uploads, model registry, rendering.

pub mod cli;
pub mod config;
pub mod decode;
pub mod registry;
pub mod render;

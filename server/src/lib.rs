//! The speechd server as a library: command line, configuration, model registry, rendering.

pub mod cli;
pub mod config;
mod process;
pub mod registry;
pub mod render;

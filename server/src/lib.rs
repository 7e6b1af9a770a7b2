//! The speechd server as a library: command line, configuration, model registry, rendering.

pub mod registry;

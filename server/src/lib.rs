//! The speechd server as a library: command line, configuration, model registry, HTTP service, rendering, voices.

pub mod access;
pub mod auth;
pub mod cascade;
pub mod cli;
pub mod compute;
pub mod config;
pub mod decode;
pub mod engine;
pub mod error;
pub mod listener;
pub mod load;
pub mod metrics;
mod process;
pub mod registry;
pub mod render;
pub mod routes;
pub mod speaking;
mod stall;
pub mod state;
pub mod store;
pub mod unread;
pub mod uploads;

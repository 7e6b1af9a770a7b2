//! The speechd server as a library.

//! The `speechd` program.
fn main() {}

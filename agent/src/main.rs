//! The `bygone` program.
fn main() {}

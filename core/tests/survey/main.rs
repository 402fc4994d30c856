//! Stores that lie, forget and lose, and several machines on one repository: what is noticed, what it is called, and
//! that nothing is lost by it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chains;
mod checkpoints;
#[path = "../common/mod.rs"]
mod common;
mod kit;
mod lists;
mod machines;
mod runs;
mod volumes;

//! Storage that lies, forgets and loses, and several machines on one repository: what is noticed, how it is called, and
//! that nothing is lost by it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chains;
#[path = "../common/mod.rs"]
mod common;
mod kit;
mod lists;
mod machines;
mod volumes;

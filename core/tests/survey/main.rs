//! Storage that lies, forgets and loses objects, and several machines on one repository: every fault is noticed and
//! named, and nothing else is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chains;
#[path = "../common/mod.rs"]
mod common;
mod kit;
mod lists;
mod machines;
mod volumes;

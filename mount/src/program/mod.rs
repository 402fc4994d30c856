//! The program around a mount: command line, background, mounting and unmounting.

pub mod announce;
pub mod cli;
pub mod daemon;
pub mod heap;
pub mod helper;
pub mod mountpoint;
pub mod options;
pub mod reading;
pub mod session;
pub mod signals;
pub mod wanted;

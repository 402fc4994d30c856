//! The program around a mount: its command line, its way to the background, its beginning and its end.

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

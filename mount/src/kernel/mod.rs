//! The kernel's side of the mount: its requests, notifications to it, the log and the counters.

pub mod errno;
pub mod event;
pub mod file_attr;
pub mod fuse;
pub mod log;
pub mod refused_readers;
pub mod stats;
pub mod stats_file;
pub mod watcher;

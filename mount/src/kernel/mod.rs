//! The kernel's side of the mount: its requests, what it is told, and what is logged and counted meanwhile.

pub mod errno;
pub mod event;
pub mod fuse;
pub mod log;
pub mod refused_readers;
pub mod stats;
pub mod stats_file;
pub mod watcher;

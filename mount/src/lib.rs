//! Every snapshot of a repository as a read-only file tree.
//!
//! From the kernel inwards: [`session`] mounts and unmounts; [`fuse`] takes requests; [`tree`] answers those about names
//! and attributes from the catalog, through the [`views`] of one [`views::Moment`]; [`data`] answers reads. Inode numbers
//! carry their meaning ([`inode`]), so nothing here grows with what the kernel has seen.

mod ahead;
mod announce;
pub mod attr;
mod cli;
mod daemon;
pub mod data;
pub mod errno;
pub mod event;
pub mod facts;
pub mod failure;
mod folders;
pub mod fuse;
mod gate;
mod heap;
mod helper;
pub mod inode;
pub mod listing;
mod lock;
pub mod log;
mod made;
pub mod mountpoint;
pub mod naming;
pub mod options;
mod past;
mod push;
pub mod reading;
mod recent;
pub mod refusal;
pub mod session;
pub mod shape;
mod sides;
mod signals;
pub mod stats;
mod stats_file;
mod synthetic;
#[cfg(test)]
mod testing;
pub mod tree;
pub mod trouble;
pub mod views;
mod wanted;
mod watcher;
mod weighted;

pub use cli::run;

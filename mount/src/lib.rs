//! Every snapshot of a repository as a read-only file tree.
//!
//! From the kernel inwards: [`program::session`] mounts and unmounts; [`kernel::fuse`] takes requests; [`tree`] answers
//! those about names and attributes from the catalog, through the connections of one [`tree::moments::Moment`];
//! [`data`] answers reads. Inode numbers carry their meaning ([`tree::inode`]), so nothing here grows with what the
//! kernel has seen.

mod caches;
mod data;
mod kernel;
mod program;
#[cfg(test)]
mod testing;
mod tree;

pub use program::cli::run;

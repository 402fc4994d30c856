//! Every snapshot of a repository as a read-only file tree.
//!
//! From the outside inwards: `program::session` mounts and unmounts; `kernel::fuse` takes requests; `data`
//! answers reads; `tree` answers everything about names and attributes from the catalog, through the connections that
//! `tree::moments` holds. Inode numbers carry their meaning (`tree::inode`), so no table grows with what the kernel
//! has seen.
//!
//! Each room uses only those below it: program > kernel > data > tree > caches.

mod caches;
mod data;
mod kernel;
mod program;
#[cfg(test)]
mod testing;
mod tree;

pub use program::cli::run;

//! Restoring: a snapshot, or part of one, becomes files again.
//!
//! The order of work, and why:
//! 1. One thread walks the snapshot in its own order, makes directories (private as yet) and hands entries to workers,
//!    who write content and set metadata (`walk`, `build`, `work`, `file`, `node`, `meta`).
//! 2. Hard links, when the files are whole (`finish`).
//! 3. Metadata of directories, deepest first, when nothing is made in them any more.
//! 4. Sync: a restore that returns is durable. Then, if wanted, everything is read again and compared (`verify`).
//!
//! **Nothing leaves the target.** No path is ever put together: every call takes an open directory and one [`Name`],
//! which cannot be `..` or have a `/` in it, and follows no symbolic link (`directories`). Symbolic links that were in
//! the target before, or that are put there meanwhile, are obstacles and not ways. Files that were there are never
//! written into, as they may have names elsewhere (`existing`).
//!
//! An entry that cannot be restored is an [`Issue`] in the [`Report`], and the others are restored all the same. Only
//! what concerns all of them (a full disk, an unreadable catalog) ends a restore.
//!
//! [`Name`]: bygone_core::entry::Name

mod directories;
mod files;
mod finish;
mod job;
mod links;
mod meta;
mod node;
mod options;
mod report;
mod run;
mod selection;
mod shared;
mod sys;
#[cfg(test)]
mod tests;
mod walk;

pub use options::Options;
pub use options::Overwrite;
pub use options::OwnerBy;
pub use options::Subject;
pub use report::Issue;
pub use report::Report;
pub use report::Step;
pub use run::restore;
pub use selection::Selection;

//! Restoring: a snapshot, or part of one, becomes files again.
//!
//! The order of work, and why:
//! 1. One thread walks the snapshot in order, creates directories (private at first) and hands entries to workers,
//!    which write content and set metadata (`walk`, `build`, `work`, `file`, `node`, `meta`).
//! 2. Hard links, when the files are complete (`finish`).
//! 3. On request, what only the target has is deleted (`delete`), and what a directory stood in the way of is restored.
//! 4. Metadata of directories, deepest first, when nothing more is created in them.
//! 5. Sync: a restore that returns is durable. Then, on request, everything is read again and compared (`verify`).
//!
//! **Nothing leaves the target.** No path is ever joined: every call takes an open directory and one [`Name`], which
//! cannot be `..` or contain a `/`, and follows no symbolic link (`directories`). Symbolic links that are in the
//! target, or are put there during the restore, are obstacles and never followed. Existing files are never written
//! into, because they may have names elsewhere (`existing`).
//!
//! An entry that cannot be restored is an [`Issue`] in the [`Report`], and the restore goes on with the others. Only a
//! failure that concerns all entries (a full disk, an unreadable catalog) ends a restore.
//!
//! [`Name`]: bygone_core::entry::Name

mod delete;
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

pub use delete::rules::Deletion;
pub use options::Options;
pub use options::Overwrite;
pub use options::OwnerBy;
pub use options::Subject;
pub use report::Issue;
pub use report::Reason;
pub use report::Report;
pub use report::Step;
pub use run::restore;
pub use selection::Selection;

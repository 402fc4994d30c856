//! Why an operation of the mount has no answer.
//!
//! `kernel/errno.rs` maps each variant to an error number. That the program itself cannot start or go on is another
//! thing, `bygone_cli::exit::Failure`.

use std::any::Any;

use bygone_core::entry::Entry;
use bygone_core::entry::Withheld;
use bygone_core::error::Error;

/// Why an operation failed. All but the last three are ordinary answers and are not logged.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The kernel holds a number that leads nowhere any more: its snapshot was removed, or the catalog was rebuilt.
    #[error("it is not in the repository any more")]
    Stale,
    /// It is not a directory.
    #[error("it is not a directory")]
    NotDirectory,
    /// It is not a symbolic link.
    #[error("it is not a symbolic link")]
    NotLink,
    /// It is not a regular file.
    #[error("it is not a regular file")]
    NotFile,
    /// The name is longer than any that can exist.
    #[error("the name is too long")]
    NameTooLong,
    /// It has no extended attribute of this name.
    #[error("it has no such attribute")]
    NoAttribute,
    /// Nothing in the repository has an extended attribute of this name.
    #[error("no such attribute is kept here")]
    NotSupported,
    /// The buffer offered is too small.
    #[error("the answer is longer than the buffer")]
    Range,
    /// The position lies at or beyond the end of the data.
    #[error("there is nothing at this position")]
    Beyond,
    /// The request makes no sense.
    #[error("the request is not valid")]
    Invalid,
    /// It is there, and its content is not.
    #[error("{0}")]
    Withheld(Withheld),
    /// A defect of this program.
    #[error("a defect of bygone-mount: {0}")]
    Defect(String),
    /// The repository failed to deliver it.
    #[error(transparent)]
    Repository(#[from] Error),
}

impl OperationError {
    /// Why the content of `entry` is not there; `otherwise` if it is not withheld.
    pub fn withheld_or(entry: &Entry, otherwise: OperationError) -> OperationError {
        entry.withheld().map_or(otherwise, OperationError::Withheld)
    }

    /// The defect that a caught panic stands for, with its message.
    pub fn defect(panic: &(dyn Any + Send)) -> OperationError {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        OperationError::Defect(text.unwrap_or_else(|| "it gave no reason".to_owned()))
    }
}

//! `--delete`: what the target has and the snapshot does not is deleted, last and with care.
//!
//! - Everything else is restored first. If anything could not be, nothing is deleted: what is in the target may be the
//!   better copy.
//! - Only directories at or below the paths that were backed up are touched, never those that lead to them: of these the
//!   snapshot has only the way, so whatever else they hold looks as if the snapshot lacked it.
//! - What the backup left out by its rules stays, because the snapshot cannot have it ([`Deletion`]).
//! - What the backup could not read stays. The snapshot has an entry in its place, and neither that nor anything below it
//!   is touched; and where a listing broke off, nothing in that directory is deleted.
//! - No border of a file system is crossed, not even that of a bind mount ([`border`]). So nothing behind a mount
//!   is deleted, a mount of bygone included.
//! - The directories of bygone itself stay, and so does any directory that looks like a repository.
//!
//! A directory that stands in the place of another kind of entry is deleted by the same rules, and whole or not at all.

pub(super) mod border;
pub(super) mod remove;
pub(super) mod rules;
pub(super) mod walk;

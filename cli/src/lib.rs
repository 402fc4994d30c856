//! The part of the command line that `bygone` and `bygone-mount` share.
//!
//! Neither program depends on the other. Options, configuration, passphrases, exit codes, messages, signals and the
//! opening of a repository are here, so both programs behave alike.

pub mod access;
pub mod caching;
pub mod clock;
pub mod exit;
pub mod repository;
pub mod settings;
pub mod terminal;
pub mod time;
pub mod when;
pub mod xattrs;

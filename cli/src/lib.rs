//! The part of the command line that `bygone` and `bygone-mount` share.
//!
//! Neither program depends on the other. Options, configuration, passphrases, exit codes, messages, signals and the
//! opening of a repository are here, so both programs behave alike.

pub mod access;
pub mod caching;
pub mod clock;
pub mod configuration;
pub mod environment;
pub mod exit;
pub mod globals;
pub mod output;
pub mod passphrase;
pub mod progress;
pub mod repository;
pub mod settings;
pub mod signals;
pub mod time;
pub mod units;
pub mod when;
pub mod xattrs;

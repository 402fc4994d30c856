//! The agent: the user's files and the command line.

mod access;
pub mod caching;
pub mod commands;
pub mod configuration;
pub mod exit;
pub mod output;
pub mod passphrase;
pub mod progress;
pub mod select;
pub mod settings;
pub mod signals;
pub mod source;
pub mod sys;
pub mod target;
pub mod time;
pub mod when;

pub use commands::main_entry;

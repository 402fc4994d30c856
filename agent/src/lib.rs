//! The agent: the user's files, and the commands of `bygone`.

pub mod backup;
pub mod commands;
pub mod exclude;
pub mod mounts;
pub mod restore;
pub mod select;
pub mod sys;

pub use commands::main_entry;

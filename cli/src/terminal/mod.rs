//! The terminal, or what stands in its place: results and messages, progress, passphrases, and signals.

pub mod output;
pub mod passphrase;
pub mod progress;
pub mod signals;

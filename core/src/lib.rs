//! The repository of bygone: its format, its cryptography, the stores that hold it, the catalog that describes it, and
//! the two rivers that carry data in and out.
//!
//! The modules are floors, lowest first; a module uses only floors below its own (`tests/tidy/structure.rs` enforces
//! it). Nothing here touches the terminal, the environment or the date; docs/ARCHITECTURE.md names the few modules that
//! read a clock which only runs forwards, and the one that reads the user's files through a function of its caller.

// Words.
pub mod attributes;
pub mod diagnosis;
pub mod entry;
pub mod error;
pub mod facts;
pub mod features;
pub mod id;
pub mod limits;
pub mod lock;
#[cfg(any(test, feature = "testing"))]
pub mod noise;
pub mod objects;
pub mod private;
pub mod snapshot;
pub mod watch;
pub mod wire;

// Hands.
mod parallel;

// Transforms.
pub mod compress;
pub mod crypto;
pub mod hash;
pub mod split;

// Codecs.
pub mod commit;
pub mod config;
pub mod frame;
pub mod tree;
pub mod volume;

// Places.
pub mod catalog;
pub mod spool;
pub mod store;

// The handle.
pub mod repo;

// Rivers.
pub mod read;
pub mod write;

// Upkeep.
pub mod check;
pub mod copy;
pub mod recover;
pub mod repair;
pub mod survey;

//! The end-to-end tests, as one binary: what the programs promise to their users.
//!
//! Most of them need root and `/dev/fuse`, for device nodes, owners, `trusted.*` attributes and mounts. Without root
//! they fail and say so, unless `BYGONE_TESTS_WITHOUT_ROOT=1` allows them to skip that part.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod backup_restore;
mod cli;
mod copy;
mod damage;
mod deleting;
mod diagnoses;
mod far_mount;
mod foreign;
mod future;
mod golden;
mod harness_itself;
mod help;
mod install;
mod keys;
mod kill;
mod mount;
mod mount_details;
mod mount_life;
mod mount_pitfalls;
mod mount_start;
mod mount_views;
mod options;
mod passphrases;
mod pin;
mod private;
mod random_histories;
mod real_stores;
mod recover;
mod repair;
mod s3_hostile;
mod s3_kill;
mod s3_parts;
mod s3_store;
mod semantics;
mod site;
mod small_runs;
mod sources;
mod store_link;
mod stored_again;
mod tidy;
mod unreadable;

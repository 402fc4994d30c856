//! Restores single entries: existing entries in their place, writing of content, and the workers.

pub(super) mod big;
pub(super) mod build;
pub(super) mod existing;
pub(super) mod feed;
pub(super) mod file;
pub(super) mod partial;
pub(super) mod queue;
pub(super) mod verify;
pub(super) mod work;

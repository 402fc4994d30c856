//! What becomes of single entries: what is in their place already, how their content is written, and by which workers.

pub(super) mod big;
pub(super) mod build;
pub(super) mod existing;
pub(super) mod feed;
pub(super) mod file;
pub(super) mod partial;
pub(super) mod queue;
pub(super) mod verify;
pub(super) mod work;

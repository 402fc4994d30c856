//! Bounded maps that keep what was used most recently.

pub mod recent;
pub mod weighted;

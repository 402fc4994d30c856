//! Bounded maps: what was used last stays.

pub mod recent;
pub mod weighted;

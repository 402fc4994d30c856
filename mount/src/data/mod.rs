//! Reads: answered from memory or by a pool of decoders, with what is likely to be read next decoded ahead.

pub mod ahead;
pub mod gate;
pub mod pool;
pub mod push;

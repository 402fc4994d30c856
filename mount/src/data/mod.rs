//! Reads: answered from memory or by a pool of decoders, which also decode ahead of sequential readers.

pub mod ahead;
pub mod gate;
pub mod pool;
pub mod push;

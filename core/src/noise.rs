//! Bytes for tests that look random, do not compress, and are the same for the same seed.

/// `length` bytes of noise.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).flat_map(|at| scramble(seed ^ scramble(at)).to_le_bytes());
    words.take(length).collect()
}

/// One step of splitmix64: a random-looking number, always the same for the same `seed`.
pub fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

//! The rolling checksum: where in a shifted file may a block of the previous version lie?
//!
//! It is rsync's weak checksum with both sums kept to 32 bits instead of 16: `s1` adds up the bytes, `s2` adds up `s1`
//! after every byte, which makes the order of the bytes count; the value is `s1 | s2 << 32`. A window slides by one
//! byte with a handful of additions. The checksum proves nothing: matching bytes are hashed before they are trusted. It
//! is not keyed, so it is kept only where the content itself could be (sealed).
//!
//! [`checksum`] of a whole block must cost next to nothing compared with the block's hash, so it is written for the
//! compiler's vectoriser: 32 columns of 16 bits, each with its own two sums, for 16 rows at a time. No column
//! overflows: 16 rows of 255 add up to 4,080, and their running sums to 120 * 255 = 30,600.

/// Columns that are summed side by side.
const COLUMNS: usize = 32;
/// Rows after which the columns are folded together.
const ROWS: usize = 16;
const GROUP_BYTES: usize = COLUMNS * ROWS;

/// The checksum of a whole block.
pub fn checksum(block: &[u8]) -> u64 {
    let (groups, rest) = block.as_chunks::<GROUP_BYTES>();
    let mut sums = Sums::default();
    for group in groups {
        sums.add_group(group);
    }
    for byte in rest {
        sums.add(*byte);
    }
    sums.value()
}

/// The checksum of a window that moves over a file byte by byte.
#[derive(Debug, Clone)]
pub struct Rolling {
    sums: Sums,
    window_bytes: u32,
}

impl Rolling {
    /// Starts at `window`, whose length (less than 4 GiB) it keeps.
    pub fn new(window: &[u8]) -> Rolling {
        let value = checksum(window);
        // Arithmetic is modulo 2^32 throughout, so only the low half of the length counts.
        Rolling { sums: Sums::from_value(value), window_bytes: low_half(window.len() as u64) }
    }

    /// Equal to [`checksum`] of the bytes now in the window.
    pub fn value(&self) -> u64 {
        self.sums.value()
    }

    /// Moves the window by one byte: `out` leaves at its start, `in_` enters at its end.
    pub fn slide(&mut self, out: u8, in_: u8) {
        let sums = &mut self.sums;
        sums.s1 = sums.s1.wrapping_sub(u32::from(out)).wrapping_add(u32::from(in_));
        let leaving = self.window_bytes.wrapping_mul(u32::from(out));
        sums.s2 = sums.s2.wrapping_sub(leaving).wrapping_add(sums.s1);
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    s1: u32,
    s2: u32,
}

impl Sums {
    fn from_value(value: u64) -> Sums {
        Sums { s1: low_half(value), s2: low_half(value >> 32) }
    }

    fn value(self) -> u64 {
        u64::from(self.s1) | u64::from(self.s2) << 32
    }

    fn add(&mut self, byte: u8) {
        self.s1 = self.s1.wrapping_add(u32::from(byte));
        self.s2 = self.s2.wrapping_add(self.s1);
    }

    fn add_group(&mut self, group: &[u8; GROUP_BYTES]) {
        // `total[c]` is the sum of column c so far; `running[c]` that of its totals before each row.
        let mut total = [0u16; COLUMNS];
        let mut running = [0u16; COLUMNS];
        let (rows, _) = group.as_chunks::<COLUMNS>();
        for row in rows {
            for c in 0..COLUMNS {
                running[c] += total[c];
                total[c] += u16::from(row[c]);
            }
        }
        // A byte in row r and column c counts once for itself and once for each later byte of the group: COLUMNS for
        // every later row, COLUMNS - c in its own.
        let (mut sum, mut weighted) = (0u32, 0u32);
        for c in 0..COLUMNS {
            let (total, running) = (u32::from(total[c]), u32::from(running[c]));
            sum += total;
            weighted += running * 32 + total * (32 - c as u32);
        }
        self.s2 = self.s2.wrapping_add(self.s1.wrapping_mul(512)).wrapping_add(weighted);
        self.s1 = self.s1.wrapping_add(sum);
    }
}

const _: () = assert!(COLUMNS == 32 && GROUP_BYTES == 512, "the weights in `add_group` are written out");

/// The low 32 bits.
fn low_half(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, one byte at a time.
    fn naive(bytes: &[u8]) -> u64 {
        let mut sums = Sums::default();
        bytes.iter().for_each(|byte| sums.add(*byte));
        sums.value()
    }

    #[test]
    fn the_columns_do_not_overflow_on_the_largest_bytes() {
        let bytes = vec![0xff; 2 << 20];
        assert_eq!(checksum(&bytes), naive(&bytes));
    }

    proptest! {
        #[test]
        fn the_fast_form_equals_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn sliding_is_restarting(bytes in prop::collection::vec(any::<u8>(), 1..1500), window_bytes in 1usize..700) {
            let window_bytes = window_bytes.min(bytes.len());
            let mut rolling = Rolling::new(&bytes[..window_bytes]);
            for (start, window) in bytes.windows(window_bytes).enumerate() {
                prop_assert_eq!(rolling.value(), naive(window), "window at {}", start);
                if let Some(next) = bytes.get(start + window_bytes) {
                    rolling.slide(bytes[start], *next);
                }
            }
        }
    }
}

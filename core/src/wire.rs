//! The small binary language of all sealed records: fixed-width little-endian integers, LEB128 variable-length
//! integers, and byte strings preceded by their length.
//!
//! Decoding is strict, because records are content-addressed and one value must have one encoding: over-long integers
//! and trailing bytes are errors, and every length is checked against a limit before anything is allocated.

/// Why bytes are not a valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the record does.
    #[error("it ends too early")]
    Short,
    /// Bytes are left over after the record.
    #[error("it has bytes left over")]
    Trailing,
    /// A count or length exceeds its limit.
    #[error("{0} is over the limit")]
    Limit(&'static str),
    /// A field holds a forbidden value.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// A later version wrote the record.
    #[error("it has format version {0}, later than this program knows")]
    TooNew(u8),
}

/// Steps in which padded lengths grow are at least this long, because a short length tells little.
const PADDING_STEP_BYTES_MIN: u64 = 512;

/// `bytes` rounded up as PADME does (Nikitin et al., PETS 2019): the length's floating-point form keeps only as many
/// mantissa bits as its exponent has. Steps have 512 bytes at least and `step_bytes_max` at most.
pub fn padded_bytes(bytes: u64, step_bytes_max: u64) -> u64 {
    let exponent = bytes.max(2).ilog2();
    let step = 1u64 << exponent.saturating_sub(exponent.ilog2() + 1);
    bytes.next_multiple_of(step.clamp(PADDING_STEP_BYTES_MIN, step_bytes_max))
}

/// Appends fields to a buffer.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty record.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// The record's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// An unsigned LEB128 integer.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }

    /// A signed integer, zigzag-coded (0, -1, 1, -2 and so on become 0, 1, 2, 3), as LEB128.
    pub fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Bytes as they are; the reader knows how many.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A byte string: its length as LEB128, then its bytes.
    pub fn string(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// What `write` appends, as a byte string.
    pub fn record(&mut self, write: impl FnOnce(&mut Encoder)) {
        let start = self.bytes.len();
        // Most records are short, so there is room for their length, and they stay where they are.
        self.bytes.push(0);
        write(self);
        let length = (self.bytes.len() - start - 1) as u64;
        match self.bytes.get_mut(start) {
            Some(first) if length < 0x80 => *first = length.to_le_bytes()[0],
            _ => {
                let mut prefix = Encoder::new();
                prefix.varint(length);
                self.bytes.splice(start..=start, prefix.bytes);
            }
        }
    }
}

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// Bytes not yet taken.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Fails unless everything was taken.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    /// The next `count` bytes.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.raw(N)?.try_into().map_err(|_| DecodeError::Short)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 integer in its only (shortest) form.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(DecodeError::Invalid("an integer"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("an integer"))
    }

    /// A zigzag-coded signed integer.
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let coded = self.varint()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// An integer of at most 32 bits.
    pub fn varint32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Limit(what))
    }

    /// A count of at most `max`. Since no item is shorter than a byte, a count beyond the remaining bytes is refused
    /// too, so a short record can never demand a large allocation.
    pub fn count(&mut self, max: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Limit(what))?;
        if count > max {
            return Err(DecodeError::Limit(what));
        }
        if count > self.rest.len() {
            return Err(DecodeError::Short);
        }
        Ok(count)
    }

    /// A byte string of at most `max` bytes.
    pub fn string(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let count = self.count(max, what)?;
        self.raw(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_come_back_as_they_went_in(a: u64, b: i64, c: u8, text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Encoder::new();
            out.varint(a);
            out.signed(b);
            out.u8(c);
            out.u64(a);
            out.string(&text);
            let bytes = out.finish();
            let mut input = Decoder::new(&bytes);
            prop_assert_eq!(input.varint(), Ok(a));
            prop_assert_eq!(input.signed(), Ok(b));
            prop_assert_eq!(input.u8(), Ok(c));
            prop_assert_eq!(input.u64(), Ok(a));
            prop_assert_eq!(input.string(300, "text"), Ok(text.as_slice()));
            prop_assert_eq!(input.end(), Ok(()));
            let mut record = Encoder::new();
            record.u8(c);
            record.record(|out| out.raw(&text));
            let mut whole = Encoder::new();
            whole.u8(c);
            whole.string(&text);
            prop_assert_eq!(record.finish(), whole.finish());
        }

        #[test]
        fn an_integer_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 1..12)) {
            let mut input = Decoder::new(&bytes);
            if let Ok(value) = input.varint() {
                let mut out = Encoder::new();
                out.varint(value);
                prop_assert_eq!(out.finish(), &bytes[..bytes.len() - input.remaining()]);
            }
        }
    }

    #[test]
    fn lengths_are_refused_before_anything_is_allocated() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Decoder::new(&huge).string(10, "name"), Err(DecodeError::Limit("name")));
        assert_eq!(Decoder::new(&[9, 1]).count(100, "items"), Err(DecodeError::Short));
    }
}

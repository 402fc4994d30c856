//! Pieces of volumes: the unit of fetching, keeping and forgetting.
//!
//! A piece is 256 KiB of a stored object, counted from its beginning; the last one of an object is shorter. Frames are
//! not aligned to pieces: neighbours often share one, so fetching one frame usually brings most of the next for
//! nothing.

use std::ops::Range;

use crate::store::ObjectName;

/// Length of a piece.
pub(super) const PIECE_BYTES: u64 = 256 << 10;

/// Names a piece: a volume by its row number in this catalog, and the piece's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PieceAt {
    pub volume: i64,
    pub number: u32,
}

/// A volume as a source of bytes.
#[derive(Debug)]
pub struct Object {
    /// Row number of the volume.
    pub volume: i64,
    /// Its name in the store.
    pub name: ObjectName,
    /// Its length.
    pub bytes: u64,
}

impl Object {
    /// The pieces that contain `range`, which is not empty.
    pub(super) fn pieces(&self, range: &Range<u64>) -> Range<u32> {
        let number = |piece: u64| u32::try_from(piece).unwrap_or(u32::MAX);
        number(range.start / PIECE_BYTES)..number(range.end.div_ceil(PIECE_BYTES))
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.pieces(&(0..self.bytes)).end
    }

    /// The bytes of these pieces. Places beyond the object's end are requested all the same, because the store knows
    /// the real length.
    pub(super) fn span(&self, pieces: &Range<u32>) -> Range<u64> {
        let (start, end) = (u64::from(pieces.start) * PIECE_BYTES, u64::from(pieces.end) * PIECE_BYTES);
        start..end.min(self.bytes.max(start + 1))
    }

    pub(super) fn at(&self, number: u32) -> PieceAt {
        PieceAt { volume: self.volume, number }
    }
}

/// The stretches formed by `pieces`, which are in order. A gap of up to `gap_max` pieces is fetched too if all of it
/// `is_free`: neither present nor under way.
pub(super) fn stretches(
    pieces: impl IntoIterator<Item = u32>,
    gap_max: u32,
    is_free: impl Fn(u32) -> bool,
) -> Vec<Range<u32>> {
    let mut found: Vec<Range<u32>> = Vec::new();
    for piece in pieces {
        match found.last_mut() {
            Some(last) if piece - last.end <= gap_max && (last.end..piece).all(&is_free) => last.end = piece + 1,
            _ => found.push(piece..piece + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_object_is_covered_by_its_pieces_exactly() {
        let name = ObjectName::new("data/one").unwrap();
        for bytes in [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES + 7] {
            let object = Object { volume: 1, name: name.clone(), bytes };
            assert_eq!(object.span(&(0..object.count())), 0..bytes);
            assert_eq!(object.pieces(&(bytes - 1..bytes)), object.count() - 1..object.count());
        }
    }

    proptest! {
        #[test]
        fn stretches_hold_what_is_wanted_and_what_is_free_between(
            wanted in prop::collection::btree_set(0_u32..60, 1..20),
            busy in prop::collection::btree_set(0_u32..60, 0..20),
            gap_max in 0_u32..6,
        ) {
            let busy: BTreeSet<u32> = busy.difference(&wanted).copied().collect();
            let found = stretches(wanted.iter().copied(), gap_max, |piece| !busy.contains(&piece));
            let covered: Vec<u32> = found.iter().cloned().flatten().collect();
            prop_assert!(wanted.iter().all(|piece| covered.contains(piece)));
            prop_assert!(covered.iter().all(|piece| !busy.contains(piece)), "nothing is fetched twice");
            prop_assert!(covered.windows(2).all(|pair| pair[0] < pair[1]), "in order and once");
            for stretch in &found {
                let extra = stretch.clone().filter(|piece| !wanted.contains(piece)).collect::<Vec<_>>();
                let longest = extra.windows(gap_max as usize + 1).any(|run| run[gap_max as usize] == run[0] + gap_max);
                prop_assert!(!longest, "no gap longer than {gap_max} is fetched");
            }
        }
    }
}

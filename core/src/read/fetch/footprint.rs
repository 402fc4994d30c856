//! The space that ranges of volumes take in a cache: whole pieces, each counted once.

use std::collections::HashSet;

use crate::read::fetch::Want;
use crate::read::fetch::pieces::PieceAt;

/// The pieces of all added ranges.
#[derive(Debug, Default)]
pub struct Footprint {
    pieces: HashSet<PieceAt>,
    bytes: u64,
}

impl Footprint {
    pub(in crate::read) fn add(&mut self, wants: &[Want]) {
        for Want { object, range } in wants {
            for piece in object.pieces(range) {
                if self.pieces.insert(object.at(piece)) {
                    let span = object.span(&(piece..piece + 1));
                    self.bytes += span.end - span.start;
                }
            }
        }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Object;
    use super::super::pieces::PIECE_BYTES;
    use super::*;
    use crate::store::ObjectName;
    use std::sync::Arc;

    #[test]
    fn a_piece_counts_once_and_whole() {
        let object = |volume| {
            let name = ObjectName::new("data/one").unwrap();
            Arc::new(Object { volume, name, bytes: 2 * PIECE_BYTES + 5 })
        };
        let want = |volume, range| Want { object: object(volume), range };
        let mut footprint = Footprint::default();
        footprint.add(&[want(1, 0..1), want(1, 100..200)]);
        assert_eq!(footprint.bytes(), PIECE_BYTES);
        footprint.add(&[want(1, PIECE_BYTES - 1..2 * PIECE_BYTES + 1), want(2, 0..1)]);
        assert_eq!(footprint.bytes(), 3 * PIECE_BYTES + 5);
    }
}

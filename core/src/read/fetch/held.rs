//! Pieces in memory: those that are not on a disk of this machine, until newer ones need the room.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::read::fetch::pieces::PieceAt;

/// Part of the result of one request.
#[derive(Debug, Clone)]
pub(super) struct Bytes {
    pub whole: Arc<Vec<u8>>,
    pub part: Range<usize>,
}

impl Bytes {
    pub fn get(&self) -> &[u8] {
        self.whole.get(self.part.clone()).unwrap_or_default()
    }
}

/// The pieces that arrived last.
#[derive(Debug)]
pub(super) struct Held {
    pieces: HashMap<PieceAt, Bytes>,
    order: VecDeque<PieceAt>,
    bytes: usize,
    bytes_max: usize,
}

impl Held {
    pub fn new(bytes_max: usize) -> Held {
        Held { pieces: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub fn get(&self, at: PieceAt) -> Option<&Bytes> {
        self.pieces.get(&at)
    }

    pub fn insert(&mut self, at: PieceAt, bytes: Bytes) {
        self.remove(at);
        self.bytes += bytes.part.len();
        self.order.push_back(at);
        self.pieces.insert(at, bytes);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(oldest);
        }
    }

    pub fn remove(&mut self, at: PieceAt) {
        if self.forget(at) {
            self.order.retain(|other| *other != at);
        }
    }

    fn forget(&mut self, at: PieceAt) -> bool {
        let bytes = self.pieces.remove(&at);
        self.bytes -= bytes.as_ref().map_or(0, |bytes| bytes.part.len());
        bytes.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_pieces_are_held_and_no_more_than_may_be() {
        let mut held = Held::new(1_000);
        let at = |number| PieceAt { volume: 1, number };
        let bytes = |n: u8| Bytes { whole: Arc::new(vec![n; 300]), part: 100..300 };
        for number in 0..20 {
            held.insert(at(number), bytes(number as u8));
            held.insert(at(number), bytes(number as u8));
            assert!(held.bytes <= 1_000 && held.pieces.len() == held.order.len());
        }
        let there: Vec<u32> = (0..20).filter(|number| held.get(at(*number)).is_some()).collect();
        assert_eq!(there, [15, 16, 17, 18, 19]);
        assert_eq!(held.get(at(17)).unwrap().get(), [17; 200]);
        held.remove(at(17));
        assert!(held.get(at(17)).is_none() && held.bytes == 800);
    }
}

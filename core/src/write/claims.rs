//! What a run has stored that the catalog cannot find yet.
//!
//! A block is known to the catalog only once its volume is intended there, which is some time after the writer has given
//! the block away. Until then it stands here, so that the same run does not store it twice.

use std::collections::HashSet;
use std::collections::VecDeque;

use crate::objects::VolumeKind;
use crate::write::keeper::Intended;

/// Blocks of this run that the catalog cannot find yet: ids by volume.
pub(super) struct Claims<'a> {
    intended: &'a Intended,
    /// Ended volumes that may not be in the catalog yet, oldest first, each with its place in the order.
    ended: VecDeque<(u64, HashSet<[u8; 32]>)>,
    ended_count: u64,
    open: [HashSet<[u8; 32]>; 2],
}

impl<'a> Claims<'a> {
    pub fn new(intended: &'a Intended) -> Claims<'a> {
        Claims { intended, ended: VecDeque::new(), ended_count: 0, open: Default::default() }
    }

    pub fn contains(&self, id: &[u8; 32]) -> bool {
        self.open.iter().any(|set| set.contains(id)) || self.ended.iter().any(|(_, set)| set.contains(id))
    }

    pub fn open(&mut self, kind: VolumeKind) -> &mut HashSet<[u8; 32]> {
        let [data, meta] = &mut self.open;
        match kind {
            VolumeKind::Data => data,
            VolumeKind::Meta => meta,
        }
    }

    pub fn volume_ended(&mut self, kind: VolumeKind) {
        let set = std::mem::take(self.open(kind));
        self.ended_count += 1;
        self.ended.push_back((self.ended_count, set));
    }

    /// Forgets volumes that the catalog knows by now. True if there were any.
    pub fn trim(&mut self) -> bool {
        let count = self.intended.count();
        let before = self.ended.len();
        while self.ended.front().is_some_and(|(place, _)| *place <= count) {
            self.ended.pop_front();
        }
        self.ended.len() < before
    }
}

//! The commits for which checkpoints stand, of all chains. A store may list hundreds of thousands of them.

use std::collections::BTreeMap;

use crate::commit::ChainLoss;
use crate::id::ClientId;

/// Ranges of numbers, by chain: the first of each range and its last. No two of them overlap.
#[derive(Default)]
pub(super) struct Covered(BTreeMap<ClientId, BTreeMap<u64, u64>>);

impl Covered {
    /// Adds a range. What overlaps it becomes part of it.
    pub fn add(&mut self, range: ChainLoss) {
        let ChainLoss { client, mut first, mut last } = range;
        let ranges = self.0.entry(client).or_default();
        while let Some((begin, end)) = ranges.range(..=last).next_back().map(|(begin, end)| (*begin, *end)) {
            if end < first {
                break;
            }
            ranges.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        ranges.insert(first, last);
    }

    /// True if a checkpoint stands for this commit.
    pub fn covers(&self, client: ClientId, seq: u64) -> bool {
        let before = self.0.get(&client).and_then(|ranges| ranges.range(..=seq).next_back());
        before.is_some_and(|(_, last)| *last >= seq)
    }

    /// All ranges.
    pub fn ranges(&self) -> impl Iterator<Item = ChainLoss> {
        let of = |(client, ranges): (&ClientId, &BTreeMap<u64, u64>)| {
            let client = *client;
            ranges.iter().map(move |(first, last)| ChainLoss { client, first: *first, last: *last }).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of)
    }
}

impl FromIterator<ChainLoss> for Covered {
    fn from_iter<I: IntoIterator<Item = ChainLoss>>(ranges: I) -> Covered {
        let mut covered = Covered::default();
        ranges.into_iter().for_each(|range| covered.add(range));
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_covered_if_any_range_has_it(
            ranges in prop::collection::vec((0u8..2, 1u64..40, 0u64..9), 0..12)
        ) {
            let ranges: Vec<ChainLoss> = ranges
                .into_iter()
                .map(|(client, first, more)| ChainLoss { client: ClientId([client; 16]), first, last: first + more })
                .collect();
            let covered: Covered = ranges.iter().copied().collect();
            for client in [0, 1, 2].map(|client| ClientId([client; 16])) {
                for seq in 0..60 {
                    let expected = ranges.iter().any(|range| range.covers(client, seq));
                    prop_assert_eq!(covered.covers(client, seq), expected);
                    prop_assert_eq!(covered.ranges().any(|range| range.covers(client, seq)), expected);
                }
            }
        }
    }
}

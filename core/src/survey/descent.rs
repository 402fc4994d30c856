//! Which commits of a chain must be read: from the newest one down to its checkpoint, and on below what that stands
//! for.
//!
//! The newest commit names the checkpoint. If it does not open, earlier ones are tried, more at a time the longer it
//! takes. If a checkpoint does not open, or is not there, everything below it is read: what it stood for may still be
//! there. Reading goes by rounds, because many chains are read at once.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::commit::Checkpoint;

/// The commits of one chain that are listed and not known, and how far reading them has come.
pub(super) struct Descent {
    left: BTreeSet<u64>,
    step: Step,
    opened: BTreeMap<u64, Checkpoint>,
}

#[derive(Clone, Copy)]
enum Step {
    /// Looking for the newest commit that opens, among this many.
    Newest(usize),
    /// Reading everything down to this number, the checkpoint.
    DownTo(u64),
    /// Reading everything that is left.
    Rest,
}

impl Descent {
    /// Begins with these numbers.
    pub fn new(numbers: BTreeSet<u64>) -> Descent {
        Descent { left: numbers, step: Step::Newest(1), opened: BTreeMap::new() }
    }

    /// The numbers to read next; none if all is done.
    pub fn next(&mut self) -> Vec<u64> {
        loop {
            let numbers: Vec<u64> = match self.step {
                Step::Newest(count) => self.left.iter().rev().take(count).copied().collect(),
                Step::DownTo(checkpoint) => self.left.range(checkpoint..).copied().collect(),
                Step::Rest => self.left.iter().copied().collect(),
            };
            if self.left.is_empty() || !numbers.is_empty() {
                for number in &numbers {
                    self.left.remove(number);
                }
                return numbers;
            }
            // The checkpoint and all above it were read or known before.
            self.advance(&[]);
        }
    }

    /// Notes which of the numbers that were read have opened, with what each says of checkpoints.
    pub fn note(&mut self, read: &[u64], opened: BTreeMap<u64, Checkpoint>) {
        self.opened.extend(opened);
        self.advance(read);
    }

    fn advance(&mut self, read: &[u64]) {
        let newest = read.iter().filter_map(|number| Some((*number, *self.opened.get(number)?))).max_by_key(|of| of.0);
        self.step = match (self.step, newest) {
            (Step::Newest(count), None) => Step::Newest(count.saturating_mul(2)),
            (Step::Newest(_), Some((_, Checkpoint::At(number)))) => self.below(number).unwrap_or(Step::DownTo(number)),
            (Step::Newest(_), Some((number, Checkpoint::Here { .. }))) => self.below(number).unwrap_or(Step::Rest),
            (Step::DownTo(number), _) => self.below(number).unwrap_or(Step::Rest),
            (Step::Newest(_), Some((_, Checkpoint::None))) | (Step::Rest, _) => Step::Rest,
        };
    }

    /// Passes over what a checkpoint stands for, if it has been read.
    fn below(&mut self, checkpoint: u64) -> Option<Step> {
        let Some(Checkpoint::Here { first }) = self.opened.get(&checkpoint) else { return None };
        if self.left.range(checkpoint..).next().is_some() {
            return None;
        }
        self.left.retain(|number| number < first);
        Some(Step::Newest(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a chain of which `damaged` does not open, and returns what was read, and in how many rounds.
    fn read(listed: &[u64], checkpoint: impl Fn(u64) -> Checkpoint, damaged: &[u64]) -> (BTreeSet<u64>, u32) {
        let mut descent = Descent::new(listed.iter().copied().collect());
        let (mut all, mut rounds) = (BTreeSet::new(), 0);
        loop {
            let numbers = descent.next();
            if numbers.is_empty() {
                return (all, rounds);
            }
            rounds += 1;
            assert!(numbers.iter().all(|number| all.insert(*number)), "nothing is read twice");
            let opened = numbers.iter().filter(|number| !damaged.contains(number));
            descent.note(&numbers, opened.map(|number| (*number, checkpoint(*number))).collect());
        }
    }

    /// Checkpoints at 10 (of 1 to 9), 20 (of 11 to 19) and 30 (of 1 to 29).
    fn tens(number: u64) -> Checkpoint {
        match number {
            0..10 => Checkpoint::None,
            10 => Checkpoint::Here { first: 1 },
            20 => Checkpoint::Here { first: 11 },
            30 => Checkpoint::Here { first: 1 },
            number => Checkpoint::At(number / 10 * 10),
        }
    }

    fn numbers(ranges: &[std::ops::RangeInclusive<u64>]) -> BTreeSet<u64> {
        ranges.iter().cloned().flatten().collect()
    }

    #[test]
    fn a_chain_is_read_down_to_what_its_checkpoints_stand_for() {
        let all: Vec<u64> = (1..=35).collect();
        let of = |last: u64, damaged: &[u64]| read(all.get(..last as usize).unwrap(), tens, damaged).0;
        assert_eq!(of(7, &[]), numbers(&[1..=7]));
        assert_eq!(of(10, &[]), numbers(&[10..=10]));
        assert_eq!(of(25, &[]), numbers(&[10..=10, 20..=25]));
        assert_eq!(of(35, &[]), numbers(&[30..=35]));
        assert_eq!(of(35, &[33]), numbers(&[30..=35]), "one that is damaged is no reason to read more");
        assert_eq!(of(35, &[34, 35]), numbers(&[30..=35]));
        assert_eq!(of(35, &[30]), numbers(&[1..=35]), "what a lost checkpoint stood for may be there");
        assert_eq!(of(20, &[20]), numbers(&[10..=20]), "the commit before shows the way");
        assert_eq!(read(&all, tens, &all).0, numbers(&[1..=35]));
        assert!(read(&all, tens, &all).1 <= 6, "more at a time the longer it takes");
    }

    #[test]
    fn what_is_not_listed_or_known_already_is_not_read() {
        assert_eq!(read(&[1, 2, 24, 25], tens, &[]).0, BTreeSet::from([1, 2, 24, 25]), "the checkpoint is not there");
        assert_eq!(read(&[34, 35], tens, &[]).0, BTreeSet::from([34, 35]), "the rest was read before");
        assert_eq!(read(&[30, 34], tens, &[]).0, BTreeSet::from([30, 34]));
        assert_eq!(read(&[], tens, &[]), (BTreeSet::new(), 0));
        assert_eq!(read(&[5, 12, 20, 21], tens, &[]).0, BTreeSet::from([5, 20, 21]), "12 is given up, 5 is a stranger");
    }
}

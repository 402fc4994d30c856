//! A map that keeps what was used most recently, within a total weight.
//!
//! It is made for few and heavy values: the order is a list that is searched from its end.

use std::collections::VecDeque;
use std::sync::Mutex;

use bygone_core::lock::lock;

/// The most values that are kept, however light they are.
const VALUES_MAX: usize = 256;

/// A map for several threads. Values are cloned, so they must be cheap to clone.
#[derive(Debug)]
pub struct Weighted<K, V> {
    weight_max: usize,
    kept: Mutex<VecDeque<(K, V, usize)>>,
}

impl<K: Eq + Copy, V: Clone> Weighted<K, V> {
    /// Keeps values of at most `weight_max` in total, and the last one even if it is heavier.
    pub fn new(weight_max: usize) -> Weighted<K, V> {
        Weighted { weight_max, kept: Mutex::default() }
    }

    /// The value of `key`, if it is kept.
    pub fn get(&self, key: K) -> Option<V> {
        let mut kept = lock(&self.kept);
        let place = kept.iter().rposition(|(known, ..)| *known == key)?;
        let found = kept.remove(place)?;
        let value = found.1.clone();
        kept.push_back(found);
        Some(value)
    }

    /// Keeps `value`.
    pub fn insert(&self, key: K, value: V, weight: usize) {
        let mut kept = lock(&self.kept);
        kept.retain(|(known, ..)| *known != key);
        kept.push_back((key, value, weight));
        while kept.len() > 1
            && (kept.len() > VALUES_MAX || kept.iter().map(|(.., weight)| weight).sum::<usize>() > self.weight_max)
        {
            kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_is_bounded_and_the_last_value_stays() {
        let kept = Weighted::new(10);
        (0..5).for_each(|key| kept.insert(key, key, 3));
        assert_eq!([0, 1, 2, 3, 4].map(|key| kept.get(key).is_some()), [false, false, true, true, true]);
        kept.insert(9, 9, 100);
        assert_eq!((kept.get(4), kept.get(9)), (None, Some(9)));
    }
}

//! A bounded map that keeps what was used recently.
//!
//! There are two generations instead of an ordered list. Every used value goes to the young generation. When that holds
//! half the capacity, it becomes the old generation, and the previous old one is dropped. So the values of the last
//! uses, half the capacity of them, are always there, and an operation is one or two lookups.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use bygone_core::lock::lock;

/// A bounded map for several threads. Values are cloned, so they must be cheap to clone.
#[derive(Debug)]
pub struct Recent<K, V> {
    half: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Copy, V: Clone> Recent<K, V> {
    /// Keeps at most `capacity` values.
    pub fn new(capacity: usize) -> Recent<K, V> {
        let generations = Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() });
        Recent { half: (capacity / 2).max(1), generations }
    }

    /// The value of `key`, if it was used recently.
    pub fn get(&self, key: K) -> Option<V> {
        let mut generations = lock(&self.generations);
        if let Some(value) = generations.young.get(&key) {
            return Some(value.clone());
        }
        let value = generations.old.remove(&key)?;
        generations.add(self.half, key, value.clone());
        Some(value)
    }

    /// Keeps `value`.
    pub fn insert(&self, key: K, value: V) {
        lock(&self.generations).add(self.half, key, value);
    }
}

impl<K: Hash + Eq, V> Generations<K, V> {
    fn add(&mut self, half: usize, key: K, value: V) {
        if self.young.len() >= half && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_values_stay_and_the_rest_goes() {
        let recent = Recent::new(8);
        recent.insert(0, "used");
        for key in 1..1_000 {
            recent.insert(key, "new");
            assert_eq!(recent.get(0), Some("used"), "used after every other insertion");
        }
        assert_eq!(recent.get(1), None);
        assert_eq!((996..1_000).filter_map(|key| recent.get(key)).count(), 4, "the last half capacity is always there");
        let generations = lock(&recent.generations);
        assert!(generations.young.len() + generations.old.len() <= 8);
    }

    #[test]
    fn the_newest_value_of_a_key_counts() {
        let recent = Recent::new(2);
        recent.insert(1, "a");
        recent.insert(2, "b");
        recent.insert(1, "c");
        assert_eq!(recent.get(1), Some("c"));
    }
}

//! Stores for tests, and the contract as a suite of tests for every store.
//!
//! Tests of other packages use them too, so they are not behind `cfg(test)` but behind the feature `testing`, which only
//! dev-dependencies and the package of tests ask for: no program that users run contains them.

pub mod contract;
pub mod faulty;
pub mod memory;

//! Stores for tests, and the contract as a test suite for every store.
//!
//! Tests of other packages use them too. So they are not behind `cfg(test)` but behind the feature `testing`, which
//! only dev-dependencies and the tests package enable: no program for users contains them.

pub mod contract;
pub mod faulty;
pub mod memory;

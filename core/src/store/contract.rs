//! The contract as tests.

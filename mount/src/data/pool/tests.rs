//! The pool, reading real repositories in memory.

use std::sync::mpsc;
use std::time::Duration;

use bygone_core::store::testing::faulty::Fault;

use super::*;
use crate::testing::CACHE_BYTES_MAX;
use crate::testing::Node;
use crate::testing::Sample;
use crate::testing::noise;
use crate::tree::Tree;

const BIG: usize = 5_000_000;

struct Fixture {
    sample: Sample,
    tree: Tree,
    pool: Pool,
}

fn fixture(threads: usize) -> Fixture {
    let sample = Sample::new();
    let files = (0..50).map(|i| (format!("f{i:02}"), Node::File(noise(i + 2, 20_000)))).collect::<Vec<_>>();
    let root = std::iter::once(("big".to_owned(), Node::File(noise(1, BIG)))).chain(files).collect();
    sample.backup(1, &[], root);
    let reader = sample.reader();
    let tree = Tree::new(sample.moments(Arc::clone(&reader)), (0, 0));
    let pool = Pool::new(reader, threads, CACHE_BYTES_MAX).unwrap();
    Fixture { sample, tree, pool }
}

impl Fixture {
    fn number(&self, name: &str) -> u64 {
        let root = self.tree.lookup(2, b"1970-01-01T00-00-01Z").unwrap().unwrap().number;
        self.tree.lookup(root, name.as_bytes()).unwrap().unwrap().number
    }

    fn begin(&self, name: &str, offset: u64, length: usize) -> mpsc::Receiver<Result<Vec<u8>, OperationError>> {
        let (sender, receiver) = mpsc::channel();
        let number = self.number(name);
        let map = self.tree.map(number).unwrap();
        self.pool.read(number, map, offset, length, move |read| sender.send(read).unwrap());
        receiver
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, OperationError> {
        self.begin(name, offset, length).recv_timeout(Duration::from_secs(60)).expect("every read is answered")
    }
}

#[test]
fn every_range_reads_as_it_was_written() {
    for threads in [1, 4] {
        let fixture = fixture(threads);
        let expected = noise(1, BIG);
        for (offset, length) in [
            (0, 1),
            (0, BIG),
            (0, BIG + 1),
            (131_071, 2),
            (65_535, 200_000),
            (BIG - 1, 100),
            (BIG, 1),
            (BIG + 9, 1),
            (7, 0),
        ] {
            let end = (offset + length).min(BIG);
            let wanted = expected.get(offset..end).unwrap_or_default();
            assert!(fixture.read("big", offset as u64, length).unwrap() == wanted, "{length} bytes at {offset}");
        }
        assert_eq!(fixture.read("big", u64::MAX, usize::MAX).unwrap(), b"");
        for i in (0..50).rev() {
            assert!(fixture.read(&format!("f{i:02}"), 0, 1 << 20).unwrap() == noise(i + 2, 20_000));
        }
    }
}

#[test]
fn concurrent_readers_get_their_bytes_and_share_frames() {
    let fixture = fixture(4);
    let expected = noise(1, BIG);
    fixture.sample.store.forget_calls();
    // Half of the repository's frames fit into the cache, so the frames read here do too.
    let reads: Vec<_> = (0..64u64).map(|i| (i * 7_919, fixture.begin("big", i * 7_919, 50_000))).collect();
    for (offset, read) in reads {
        let bytes = read.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        assert!(bytes == expected[offset as usize..offset as usize + 50_000], "at {offset}");
    }
    drop(fixture.pool);
    let mut calls: Vec<String> = fixture.sample.store.calls().iter().map(|call| format!("{call:?}")).collect();
    let all = calls.len();
    calls.sort();
    calls.dedup();
    assert_eq!(calls.len(), all, "each range is fetched once");
}

#[test]
fn sequential_reads_are_answered_from_memory() {
    let fixture = fixture(2);
    let mut waited = 0;
    for piece in 0..BIG.div_ceil(100_000) {
        let offset = piece as u64 * 100_000;
        let read = fixture.begin("big", offset, 100_000);
        if read.try_recv().is_err() {
            waited += 1;
            read.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        }
        // A slow reader finds everything decoded ahead.
        let is_busy = || {
            let queues = lock(&fixture.pool.shared.queues);
            !queues.ahead.is_empty() || queues.guessing > 0
        };
        while is_busy() {
            thread::yield_now();
        }
    }
    assert!(waited <= 1, "{waited} of 50 reads had to wait");
}

#[test]
fn a_failing_store_fails_the_read_and_a_retry_may_succeed() {
    let fixture = fixture(2);
    fixture.sample.store.fail_at_random(1, 1_000, &[Fault::Before]);
    let error = fixture.read("big", 0, 4_096).unwrap_err();
    assert!(matches!(error, OperationError::Repository(bygone_core::error::Error::Store { .. })), "{error:?}");
    fixture.sample.store.heal();
    fixture.sample.store.fail_at_random(1, 1_000, &[Fault::Flip]);
    let error = fixture.read("f07", 0, 4_096).unwrap_err();
    assert!(matches!(error, OperationError::Repository(bygone_core::error::Error::Corrupt { .. })), "{error:?}");
    fixture.sample.store.heal();
    assert!(fixture.read("big", 0, 4_096).unwrap() == noise(1, 4_096));
    assert!(fixture.read("f07", 0, 4_096).unwrap() == noise(9, 4_096));
}

#[test]
fn closing_the_pool_drops_waiting_reads_and_never_hangs() {
    let fixture = fixture(1);
    let reads: Vec<_> = (0..100).map(|i| fixture.begin("big", i * 40_000, 1_000)).collect();
    drop(fixture.pool);
    for read in reads {
        // Either answered or dropped. A dropped reply of FUSE sends an error.
        let _ = read.recv_timeout(Duration::from_secs(60));
    }
}

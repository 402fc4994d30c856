//! Fetching from a store that counts requests: against a model, with parallel readers, damage, stalls and deaths.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::read::fetch::pieces::PIECE_BYTES;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::testing::faulty::Fault;
use crate::store::testing::faulty::FaultyStore;
use crate::store::testing::memory::MemoryStore;

struct Far {
    store: Arc<FaultyStore>,
    objects: Vec<(Arc<Object>, Vec<u8>)>,
    messages: Arc<Mutex<Vec<String>>>,
}

impl Far {
    /// A far store of volumes of these lengths.
    fn new(lengths: &[u64]) -> Far {
        Far::on(FaultyStore::new(Arc::new(MemoryStore::new())), lengths)
    }

    fn on(store: FaultyStore, lengths: &[u64]) -> Far {
        let store = Arc::new(store.far());
        let mut objects = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let bytes: Vec<u8> =
                (0..*length).map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8 ^ number as u8 | 1).collect();
            let name = ObjectName::new(&format!("data/00/{number:064x}")).unwrap();
            store.put(&name, Source::Bytes(&bytes)).unwrap();
            objects.push((Arc::new(Object { volume: number as i64, name, bytes: *length }), bytes));
        }
        store.forget_calls();
        Far { store, objects, messages: Arc::default() }
    }

    fn options(&self, dir: Option<&Path>, bytes_max: u64) -> FetchOptions {
        let messages = Arc::clone(&self.messages);
        FetchOptions {
            cache: dir.map(|dir| CacheOptions { dir: dir.to_path_buf(), bytes_max, free_percent_min: 0 }),
            memory_bytes: 8 << 20,
            say: Arc::new(move |text| messages.lock().unwrap().push(text.to_owned())),
            ..FetchOptions::default()
        }
    }

    fn fetch(&self, options: FetchOptions) -> Fetch {
        let store: Arc<dyn Store> = self.store.clone();
        Fetch::new(&store, options, Clock::begin(), Arc::default())
    }

    fn want(&self, number: usize, range: Range<u64>) -> Want {
        Want { object: Arc::clone(&self.objects[number].0), range }
    }

    fn assert_right(&self, fetch: &Fetch, number: usize, range: Range<u64>) {
        let sealed = fetch.bytes(&self.want(number, range.clone())).unwrap();
        assert!(sealed.bytes == self.objects[number].1[range.start as usize..range.end as usize], "{number} {range:?}");
    }

    /// How often each piece was fetched.
    fn fetched(&self) -> HashMap<(String, u64), usize> {
        let mut fetched = HashMap::new();
        for call in self.store.calls() {
            let Some(ByteRange::Part { offset, bytes }) = call.range else { panic!("a whole object was asked for") };
            for piece in offset / PIECE_BYTES..(offset + bytes).div_ceil(PIECE_BYTES) {
                *fetched.entry((call.object.clone(), piece)).or_default() += 1;
            }
        }
        fetched
    }

    fn most_fetched(&self) -> usize {
        self.fetched().into_values().max().unwrap_or(0)
    }
}

const ROOM: u64 = 1 << 30;

#[test]
fn sixteen_readers_fetch_each_piece_once() {
    for with_disk in [true, false] {
        let far = Far::new(&[3_000_000]);
        let dir = TempDir::new().unwrap();
        let fetch = far.fetch(far.options(with_disk.then(|| dir.path()), ROOM));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for start in (0..3_000_000).step_by(100_000) {
                        far.assert_right(&fetch, 0, start..start + 100_000);
                    }
                });
            }
        });
        assert_eq!((far.most_fetched(), far.fetched().len()), (1, 12));
    }
}

#[test]
fn a_guess_with_a_waiter_is_not_pushed_out_by_others() {
    let far = Far::on(FaultyStore::new(Arc::new(MemoryStore::new())).with_connections(1), &[12 * PIECE_BYTES]);
    let fetch = far.fetch(far.options(None, 0));
    let piece = |number: u64| far.want(0, number * PIECE_BYTES..(number + 1) * PIECE_BYTES);
    far.store.stall("data/");
    // A sequential reader gets read-ahead: the next pieces are guesses.
    fetch.bring(&[piece(0), piece(1)], || {});
    for (volume, pieces) in [(7, 256), (8, 252)] {
        let name = ObjectName::new(&format!("data/00/{volume:064x}")).unwrap();
        let object = Arc::new(Object { volume, name, bytes: pieces * PIECE_BYTES });
        fetch.ahead(&[Want { object, range: 0..pieces * PIECE_BYTES }]);
    }
    let (sender, receiver) = crossbeam_channel::bounded(1);
    fetch.bring(&[piece(2)], move || sender.send(()).unwrap());
    far.store.go_on();
    receiver.recv_timeout(Duration::from_secs(20)).expect("it comes");
    far.assert_right(&fetch, 0, 2 * PIECE_BYTES..3 * PIECE_BYTES);
}

#[test]
fn mounts_that_share_a_cache_keep_to_its_size_together() {
    let far = Far::new(&[16 * PIECE_BYTES; 4]);
    let (dir, room) = (TempDir::new().unwrap(), 18 * PIECE_BYTES);
    let mounts: Vec<Fetch> = (0..4).map(|_| far.fetch(far.options(Some(dir.path()), room))).collect();
    for start in 0..16 {
        for (number, fetch) in mounts.iter().enumerate() {
            far.assert_right(fetch, number, start * PIECE_BYTES..(start + 1) * PIECE_BYTES);
        }
    }
    let kept = cache_usage(dir.path()).unwrap().bytes;
    assert!(kept > room / 2 && kept <= room + 4 * 2 * PIECE_BYTES, "{kept} of {room}");
}

#[test]
fn the_disk_cache_serves_later_and_concurrent_mounts() {
    let far = Far::new(&[2_000_000, 70]);
    let dir = TempDir::new().unwrap();
    let first = far.fetch(far.options(Some(dir.path()), ROOM));
    let second = far.fetch(far.options(Some(dir.path()), ROOM));
    far.assert_right(&first, 0, 0..2_000_000);
    far.assert_right(&second, 1, 3..70);
    far.store.forget_calls();
    let third = far.fetch(FetchOptions { is_offline: true, ..far.options(Some(dir.path()), ROOM) });
    for fetch in [&first, &second, &third] {
        far.assert_right(fetch, 0, 1..1_999_999);
        far.assert_right(fetch, 1, 0..70);
        assert!(fetch.is_at_hand(&[far.want(0, 0..2_000_000)]));
    }
    assert!(far.store.calls().is_empty());
    cache_clear(dir.path()).unwrap();
    let error = third.bytes(&far.want(0, 0..1)).err().unwrap().to_string();
    assert!(error.contains("offline") && error.contains("data/00"), "{error}");
    far.assert_right(&first, 0, 0..2_000_000);
    assert!(far.messages.lock().unwrap().is_empty(), "emptying is no damage");
}

#[test]
fn a_spoilt_piece_is_punched_out_and_fetched_again_once() {
    let far = Far::new(&[1_000_000]);
    let dir = TempDir::new().unwrap();
    let fetch = far.fetch(far.options(Some(dir.path()), ROOM));
    far.assert_right(&fetch, 0, 0..1_000_000);
    let path = dir.path().join(far.objects[0].0.name.as_str().rsplit('/').next().unwrap());
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(&[0; 10], 300_000).unwrap();
    far.store.forget_calls();
    let want = far.want(0, 299_000..301_000);
    let sealed = fetch.bytes(&want).unwrap();
    assert!(sealed.was_kept && sealed.bytes != far.objects[0].1[299_000..301_000]);
    fetch.distrust(&want);
    let sealed = fetch.bytes(&want).unwrap();
    assert!(!sealed.was_kept && sealed.bytes == far.objects[0].1[299_000..301_000]);
    far.assert_right(&fetch, 0, 0..1_000_000);
    assert_eq!((far.most_fetched(), far.fetched().len()), (1, 1));
    assert_eq!(far.messages.lock().unwrap().len(), 1);
}

#[test]
fn a_failure_names_the_bytes_and_fails_at_once_for_a_while() {
    let far = Far::new(&[1_000_000]);
    let fetch = far.fetch(far.options(None, 0));
    far.store.fail_call(1, Fault::Before);
    for _ in 0..5 {
        let error = fetch.bytes(&far.want(0, 600_000..600_010)).err().unwrap();
        assert!(FaultyStore::is_injected(&error), "{error}");
        assert!(error.to_string().contains("bytes 524288 to 786432"), "{error}");
    }
    assert_eq!(far.store.calls().len(), 1, "the store is not troubled again");
    far.assert_right(&fetch, 0, 0..1_000);
}

#[test]
fn an_object_that_ends_too_soon_is_read_as_far_as_it_goes() {
    let far = Far::new(&[600_000]);
    let object = Arc::new(Object { volume: 0, name: far.objects[0].0.name.clone(), bytes: 700_000 });
    let fetch = far.fetch(far.options(None, 0));
    let want = |range| Want { object: Arc::clone(&object), range };
    assert!(fetch.bytes(&want(550_000..600_000)).unwrap().bytes == far.objects[0].1[550_000..600_000]);
    assert!(fetch.bytes(&want(550_000..600_001)).is_err());
}

#[test]
fn who_reads_what_is_there_does_not_wait_for_those_who_wait() {
    let far = Far::new(&[300_000, 64 << 18]);
    let fetch = Arc::new(far.fetch(far.options(None, 0)));
    far.assert_right(&fetch, 0, 0..300_000);
    far.store.stall(far.objects[1].0.name.as_str());
    let (sender, arrived) = crossbeam_channel::unbounded();
    for number in 0..40 {
        let sender = sender.clone();
        let start = number * PIECE_BYTES;
        fetch.bring(&[far.want(1, start..start + 1)], move || sender.send(number).unwrap());
    }
    far.assert_right(&fetch, 0, 0..300_000);
    assert!(arrived.is_empty(), "all forty wait");
    far.store.go_on();
    let mut all: Vec<u64> = (0..40).map(|_| arrived.recv().unwrap()).collect();
    all.sort();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
}

#[test]
fn a_stalled_store_fails_at_the_deadline_and_recovers() {
    let far = Far::new(&[300_000]);
    let options = FetchOptions { deadline: Duration::from_millis(1), ..far.options(None, 0) };
    let fetch = far.fetch(options);
    far.store.stall("data/");
    let error = fetch.bytes(&far.want(0, 0..10)).err().unwrap();
    assert!(error.to_string().contains("--read-timeout"), "{error}");
    far.store.go_on();
    // Whatever still fails because it failed just now, what was under way arrives.
    while !fetch.is_at_hand(&[far.want(0, 0..10)]) {
        thread::yield_now();
    }
    far.assert_right(&fetch, 0, 0..10);
}

#[test]
fn the_allowance_limits_fetching_but_not_cached_reads() {
    for with_disk in [true, false] {
        let far = Far::new(&[20 * PIECE_BYTES]);
        let dir = TempDir::new().unwrap();
        let options = FetchOptions { fetched_bytes_max: 3 * PIECE_BYTES + 5, ..far.options(None, 0) };
        let cache = far.options(with_disk.then(|| dir.path()), ROOM).cache;
        let fetch = far.fetch(FetchOptions { cache, ..options });
        let read = |piece: u64| fetch.bytes(&far.want(0, piece * PIECE_BYTES..piece * PIECE_BYTES + 9));
        // A sequential reader asks for more than the allowance; guesses that exceed it are not made.
        let arrived = (0..20).take_while(|piece| read(*piece).is_ok()).count() as u64;
        assert!((1..=3).contains(&arrived), "{arrived}");
        let fetched: usize = far.fetched().values().sum();
        assert!(fetched <= 3, "{fetched} pieces");
        far.store.forget_calls();
        let error = read(19).err().unwrap().to_string();
        assert!(error.contains("--max-fetch") && error.contains("data/00"), "{error}");
        far.assert_right(&fetch, 0, 0..arrived * PIECE_BYTES);
        fetch.ahead(&[far.want(0, 0..20 * PIECE_BYTES)]);
        assert!(far.store.calls().is_empty());
        assert_eq!(far.messages.lock().unwrap().len(), 1);
    }
}

#[test]
fn without_reading_ahead_only_what_is_wanted_is_fetched() {
    let far = Far::new(&[20 * PIECE_BYTES]);
    let fetch = far.fetch(FetchOptions { reads_ahead: false, ..far.options(None, 0) });
    for piece in 0..4 {
        far.assert_right(&fetch, 0, piece * PIECE_BYTES..(piece + 1) * PIECE_BYTES);
    }
    assert_eq!((far.most_fetched(), far.fetched().len()), (1, 4));
}

#[test]
fn a_near_store_is_asked_for_exactly_what_is_wanted() {
    let far = Far::new(&[1_000_000]);
    let near = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    near.put(&far.objects[0].0.name, Source::Bytes(&far.objects[0].1)).unwrap();
    let store: Arc<dyn Store> = near.clone();
    let fetch = Fetch::new(&store, far.options(None, 0), Clock::begin(), Arc::default());
    far.assert_right(&fetch, 0, 5..10);
    assert_eq!(near.calls().last().unwrap().range, Some(ByteRange::Part { offset: 5, bytes: 5 }));
}

#[derive(Debug, Clone)]
enum Step {
    Read(usize, u64, u64),
    Ahead(usize, u64, u64),
    Spoil(usize, u64),
    Truncate(usize, u64),
    Clear,
    Remount,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || (0_usize..3, 0_u64..2_000_000, 1_u64..900_000);
    prop_oneof![
        8 => at().prop_map(|(n, start, length)| Step::Read(n, start, length)),
        2 => at().prop_map(|(n, start, length)| Step::Ahead(n, start, length)),
        2 => at().prop_map(|(n, start, _)| Step::Spoil(n, start)),
        1 => at().prop_map(|(n, start, _)| Step::Truncate(n, start)),
        1 => Just(Step::Clear),
        1 => Just(Step::Remount),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bytes_are_right_whatever_happens_to_the_cache(
        steps in prop::collection::vec(step(), 1..40),
        bytes_max in prop_oneof![Just(0), Just(600_000), Just(2_000_000), Just(ROOM)],
    ) {
        let far = Far::new(&[2_000_000, 1_000_001, 524_288]);
        let dir = TempDir::new().unwrap();
        let open = || far.fetch(far.options(Some(dir.path()), bytes_max));
        let mut fetch = open();
        let clamp = |n: usize, start: u64, length: u64| {
            let bytes = far.objects[n].0.bytes;
            let start = start % bytes;
            start..(start + length).min(bytes)
        };
        let file = |n: usize| {
            let name = far.objects[n].0.name.as_str().rsplit('/').next().unwrap();
            std::fs::File::options().write(true).open(dir.path().join(name))
        };
        for step in steps {
            match step {
                Step::Read(n, start, length) => {
                    // As an authenticating reader does.
                    let range = clamp(n, start, length);
                    let right = &far.objects[n].1[range.start as usize..range.end as usize];
                    let want = far.want(n, range);
                    let mut sealed = fetch.bytes(&want).unwrap();
                    if sealed.bytes != right {
                        prop_assert!(sealed.was_kept, "the store's bytes are right");
                        fetch.distrust(&want);
                        sealed = fetch.bytes(&want).unwrap();
                    }
                    prop_assert!(sealed.bytes == right);
                }
                Step::Ahead(n, start, length) => fetch.ahead(&[far.want(n, clamp(n, start, length))]),
                Step::Spoil(n, start) => {
                    if let Ok(file) = file(n) {
                        let _ = file.write_all_at(&[0; 5], start % (far.objects[n].0.bytes - 5));
                    }
                }
                Step::Truncate(n, start) => {
                    if let Ok(file) = file(n) {
                        file.set_len(start % far.objects[n].0.bytes).unwrap();
                    }
                }
                Step::Clear => _ = cache_clear(dir.path()).unwrap(),
                Step::Remount => fetch = open(),
            }
            let used = cache_usage(dir.path()).unwrap().bytes;
            prop_assert!(bytes_max == ROOM || used <= bytes_max + 8 * PIECE_BYTES, "{used} of {bytes_max}");
        }
    }
}

//! The same work on many items, several at a time, with one thread that takes the results.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::bounded;

use crate::error::Result;

/// Calls `work` on each of the items in `threads` threads and passes the results to `take`, in any order, until `take`
/// returns false or fails. Then no new work starts, and work in progress is waited for. True if everything was taken.
/// At most as many results as there are threads wait to be taken, so a slow `take` slows the work down instead of
/// filling memory.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(R) -> Result<bool>,
) -> Result<bool> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = bounded(threads);
    thread::scope(|scope| {
        // Dropped before the scope joins the threads; otherwise they would wait for a receiver for ever.
        let receiver = receiver;
        for _ in 0..threads.min(items.len()) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send(work(item)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for done in &receiver {
            if !take(done)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::Barrier;

    #[test]
    fn everything_is_done_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 7, 50] {
            for count in [0, 1, 2, 40] {
                let items: Vec<usize> = (0..count).collect();
                let mut taken = Vec::new();
                let push = |item: usize| {
                    taken.push(item);
                    Ok(true)
                };
                assert!(side_by_side(threads, &items, |item| *item, push).unwrap());
                taken.sort_unstable();
                assert_eq!(taken, items, "{threads} threads");
            }
        }
    }

    #[test]
    fn as_many_work_at_a_time_as_there_are_threads() {
        // The barrier opens only when four threads are at it.
        let four = Barrier::new(4);
        assert!(side_by_side(4, &[(); 40], |()| _ = four.wait(), |()| Ok(true)).unwrap());
    }

    #[test]
    fn who_takes_may_end_it_and_nothing_waits_for_ever() {
        let begun = AtomicUsize::new(0);
        let work = |item: &u64| {
            begun.fetch_add(1, Ordering::Relaxed);
            *item
        };
        let items: Vec<u64> = (0..1_000).collect();
        assert!(!side_by_side(3, &items, work, |item| Ok(item > 1_000)).unwrap());
        assert!(begun.swap(0, Ordering::Relaxed) <= 10, "nothing new was begun");
        let failed = side_by_side(3, &items, work, |_| Err(Error::Cancelled));
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert!(begun.into_inner() <= 10, "nothing new was begun");
    }
}

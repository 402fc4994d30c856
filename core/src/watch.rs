//! The counters that a running command shares with its progress display, and the flag that stops it.
//!
//! The counts are atomics that many threads update without a lock. They are only for display and decide nothing, so
//! relaxed order is enough. A command that is asked to stop ends at its next [`Watch::check`]; waiting threads are
//! woken. Trouble that may pass, such as a store that does not answer, is shown here too while it lasts.

use std::fmt;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::lock::lock;

/// Trouble is reported when it occurs this many times in a row: what passes at once concerns nobody.
const TOLD_AT_TRIES: u32 = 3;

/// A report about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// It does not answer, for this reason, and is asked again.
    Trouble(&'a str),
    /// It answers again.
    Over,
}

impl fmt::Display for News<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Trouble(what) => write!(f, "{what}; trying again"),
            News::Over => f.write_str("the store answers again"),
        }
    }
}

/// The function that reports to people.
type Teller = Box<dyn Fn(News<'_>) + Send>;

/// The trouble that is being waited out, and where reports go.
#[derive(Default)]
struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    /// How many callers are in trouble.
    troubled: usize,
    trouble: String,
    is_told: bool,
    teller: Option<Teller>,
    when_cancelled: Vec<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

impl Waiting {
    /// Taken even after a panic elsewhere: it is changed by plain assignments.
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// Progress and cancellation of one command.
#[derive(Debug, Default)]
pub struct Watch {
    cancelled: AtomicBool,
    waiting: Waiting,
    woken: Condvar,
    /// Entries finished, whatever their kind.
    pub entries: AtomicU64,
    /// Files whose content was read because they were new or had changed.
    pub files_new: AtomicU64,
    /// Bytes of source or target processed, including those that did not need reading.
    pub bytes: AtomicU64,
    /// The final value of `bytes`, as far as it is known by now; 0 while unknown.
    pub bytes_total: AtomicU64,
    /// Bytes of content that the repository did not have yet, before compression.
    pub bytes_new: AtomicU64,
    /// Bytes put into the store.
    pub bytes_stored: AtomicU64,
    /// Objects put, or checked.
    pub objects: AtomicU64,
}

impl Watch {
    /// A command that has just begun.
    pub fn new() -> Watch {
        Watch::default()
    }

    /// Asks the command to stop and wakes waiting threads.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.waiting.state().when_cancelled);
        self.woken.notify_all();
        wakers.into_iter().for_each(|wake| wake());
    }

    /// Calls `wake` when the command is asked to stop, or at once if it already was: for threads that cannot wait with
    /// [`Watch::sleep`].
    pub fn when_cancelled(&self, wake: impl FnOnce() + Send + 'static) {
        let mut state = self.waiting.state();
        if self.is_cancelled() {
            drop(state);
            wake();
        } else {
            state.when_cancelled.push(Box::new(wake));
        }
    }

    /// Waits for `time`, or until the command is asked to stop.
    pub fn sleep(&self, time: Duration) {
        let state = self.waiting.state();
        let _ = self.woken.wait_timeout_while(state, time, |_| !self.is_cancelled());
    }

    /// Sets the function that reports lasting trouble and its end.
    pub fn tell_trouble(&self, teller: impl Fn(News<'_>) + Send + 'static) {
        self.waiting.state().teller = Some(Box::new(teller));
    }

    /// One caller is in trouble, for the `tries`-th time in a row, counted from 1.
    pub fn trouble(&self, tries: u32, what: &str) {
        let mut state = self.waiting.state();
        if tries == 1 {
            state.troubled += 1;
        }
        state.trouble = what.to_owned();
        if tries >= TOLD_AT_TRIES && !state.is_told {
            state.is_told = true;
            if let Some(tell) = &state.teller {
                tell(News::Trouble(what));
            }
        }
    }

    /// One caller's trouble is over, whether it succeeded or gave up.
    pub fn trouble_over(&self, is_well: bool) {
        let mut state = self.waiting.state();
        state.troubled = state.troubled.saturating_sub(1);
        if state.troubled == 0
            && std::mem::take(&mut state.is_told)
            && is_well
            && let Some(tell) = &state.teller
        {
            tell(News::Over);
        }
    }

    /// The current trouble of any caller.
    pub fn trouble_now(&self) -> Option<String> {
        let state = self.waiting.state();
        (state.troubled > 0).then(|| state.trouble.clone())
    }

    /// True once the command was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Fails once the command was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_watch_stops_work_for_good() {
        let watch = Watch::new();
        assert!(watch.check().is_ok(), "nobody has cancelled yet");
        std::thread::scope(|scope| {
            scope.spawn(|| watch.cancel());
        });
        assert!(watch.is_cancelled());
        assert!(matches!(watch.check(), Err(Error::Cancelled)), "cancelled by another thread");
        watch.cancel();
        assert!(watch.is_cancelled(), "cancelling twice is cancelling");
    }

    #[test]
    fn cancelling_wakes_whoever_sleeps_and_whoever_asked_for_it() {
        let watch = Watch::new();
        let (woken_in, woken_out) = std::sync::mpsc::channel();
        let early = woken_in.clone();
        watch.when_cancelled(move || early.send("early").unwrap());
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| watch.sleep(Duration::from_secs(3600)));
            watch.cancel();
            sleeper.join().unwrap();
        });
        watch.when_cancelled(move || woken_in.send("late").unwrap());
        assert_eq!(woken_out.iter().collect::<Vec<_>>(), ["early", "late"]);
        watch.sleep(Duration::from_secs(3600));
    }

    #[test]
    fn trouble_that_lasts_is_told_once_and_so_is_its_end() {
        let watch = Watch::new();
        let (told_in, told_out) = std::sync::mpsc::channel();
        watch.tell_trouble(move |news| told_in.send(news.to_string()).unwrap());
        watch.trouble(1, "away");
        assert_eq!(watch.trouble_now().as_deref(), Some("away"));
        watch.trouble_over(true);
        assert_eq!(watch.trouble_now(), None);
        for tries in 1..6 {
            watch.trouble(tries, "away");
            watch.trouble(tries, "gone");
        }
        watch.trouble_over(true);
        assert!(watch.trouble_now().is_some(), "another is still in trouble");
        watch.trouble_over(true);
        watch.trouble(3, "away");
        watch.trouble_over(false);
        let messages: Vec<String> = told_out.try_iter().collect();
        assert_eq!(messages, ["away; trying again", "the store answers again", "away; trying again"]);
    }
}

//! Holds back the end of a listing until the first files of the directory are pushed.
//!
//! A reader that starts before anything is pushed requests one file after another and stays just ahead of the pusher.
//! If it is held for the few microseconds that pushing some files takes, it finds all of them. So the gate is closed
//! only while the pushing thread is sure to open it at once, and never while that thread may wait for data. The gate
//! holds answers, and never a thread that serves the kernel.

use std::sync::Mutex;

use bygone_core::lock::lock;

type Answer = Box<dyn FnOnce() + Send>;

/// The gate; open at first.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// It must not be closed, because the thread that opens it may wait for data.
    is_kept_open: bool,
    held: Vec<Answer>,
}

impl Gate {
    /// Closes the gate, unless it is kept open. The caller must see to it that the gate is opened soon.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = !state.is_kept_open;
    }

    /// Calls `answer` as soon as the gate is open.
    pub fn pass(&self, answer: Answer) {
        let mut state = lock(&self.state);
        if state.is_closed {
            return state.held.push(answer);
        }
        drop(state);
        answer();
    }

    /// Opens the gate.
    pub fn open(&self) {
        self.let_through(false);
    }

    /// Keeps the gate open while `work` runs, which may take a long time.
    pub fn while_open<T>(&self, work: impl FnOnce() -> T) -> T {
        self.let_through(true);
        let kept = Kept(self);
        let done = work();
        drop(kept);
        done
    }

    fn let_through(&self, keep_open: bool) {
        let mut state = lock(&self.state);
        state.is_closed = false;
        state.is_kept_open = keep_open;
        let held = std::mem::take(&mut state.held);
        drop(state);
        held.into_iter().for_each(|answer| answer());
    }
}

/// Lets the gate be closed again when dropped, even if the work panics.
struct Kept<'a>(&'a Gate);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_kept_open = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn answers_at_a_closed_gate_pass_when_it_opens() {
        let (gate, passed) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let pass = || {
            let passed = Arc::clone(&passed);
            gate.pass(Box::new(move || _ = passed.fetch_add(1, Ordering::SeqCst)));
        };
        pass();
        assert_eq!(passed.load(Ordering::SeqCst), 1, "it is open at first");
        gate.close();
        pass();
        pass();
        assert_eq!(passed.load(Ordering::SeqCst), 1, "it is closed");
        gate.open();
        assert_eq!(passed.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn nothing_is_held_while_the_gates_opener_waits() {
        let (gate, passed) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let pass = || {
            let passed = Arc::clone(&passed);
            gate.pass(Box::new(move || _ = passed.fetch_add(1, Ordering::SeqCst)));
        };
        gate.close();
        pass();
        gate.while_open(|| {
            assert_eq!(passed.load(Ordering::SeqCst), 1, "the held answer is let through first");
            gate.close();
            pass();
            assert_eq!(passed.load(Ordering::SeqCst), 2, "it cannot be closed now");
        });
        let fails = std::panic::AssertUnwindSafe(|| gate.while_open(|| panic!("the work fails")));
        assert!(std::panic::catch_unwind(fails).is_err());
        gate.close();
        pass();
        assert_eq!(passed.load(Ordering::SeqCst), 2, "it can again");
    }
}

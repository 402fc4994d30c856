//! Ctrl-C and similar signals: the first asks the command to end cleanly, the second ends the process.
//!
//! SIGHUP has two meanings. If the terminal has gone, it asks the command to end, as the others do. Otherwise it asks to
//! read the configuration again.
//!
//! The signals are blocked before the program has a second thread, so every thread inherits the mask, and one thread
//! waits for them. No code runs inside a signal handler. A signal that was ignored when the program started (`nohup`, a
//! background job of a script) stays ignored; if it were blocked, it would be delivered after all.

use std::fs;
use std::fs::File;
use std::io;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;

use bygone_core::watch::Watch;

use crate::exit::Exit;

/// Signals that ask the program to end.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The signals that end this process and are not ignored.
fn ending() -> SigSet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut set = SigSet::empty();
    ENDING.into_iter().filter(|signal| !is_ignored(&status, *signal)).for_each(|signal| set.add(signal));
    set
}

/// Whether `/proc/PID/status` says that a signal is ignored.
fn is_ignored(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

/// The terminal that this process was started at, if any.
#[derive(Debug)]
pub struct Terminal {
    was_there: bool,
}

impl Terminal {
    /// Checks now whether there is a terminal.
    pub fn here() -> Terminal {
        Terminal { was_there: Terminal::is_there() }
    }

    /// Whether there was a terminal that has gone.
    pub fn has_gone(&self) -> bool {
        if !self.was_there {
            return false;
        }
        // The kernel may send the signal shortly before it removes the terminal.
        thread::sleep(Duration::from_millis(100));
        !Terminal::is_there()
    }

    fn is_there() -> bool {
        File::open("/dev/tty").is_ok()
    }
}

/// Installs the handling of signals: the first signal that asks to end cancels `watch`, the second ends the process, and
/// `reload` is called when the configuration must be read again. Must be called before any thread is started.
pub fn cancel_on_signal(watch: &Arc<Watch>, reload: impl Fn() + Send + 'static) -> io::Result<()> {
    let set = ending();
    set.thread_block()?;
    let terminal = Terminal::here();
    let watch = Arc::clone(watch);
    let wait = move || {
        while let Ok(signal) = set.wait() {
            if signal == Signal::SIGHUP && !terminal.has_gone() {
                reload();
                continue;
            }
            if watch.is_cancelled() {
                process::exit(Exit::Interrupted.code().into());
            }
            watch.cancel();
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(|_| ())
}

/// Runs `start` with the signals unblocked in this thread, because a child process inherits the mask.
pub fn let_through<T>(start: impl FnOnce() -> T) -> T {
    let before = SigSet::thread_get_mask();
    let unblocked = ending().thread_unblock();
    let started = start();
    if let (Ok(before), Ok(())) = (before, unblocked) {
        let _ = before.thread_set_mask();
    }
    started
}

/// Holds ending signals back from this thread while the terminal is in a state that must be undone.
pub struct Held {
    arrived: SignalFd,
    before: SigSet,
}

impl Held {
    /// Holds the signals until this is dropped.
    pub fn new() -> io::Result<Held> {
        let set = ending();
        let before = SigSet::thread_get_mask()?;
        let arrived = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        set.thread_block()?;
        Ok(Held { arrived, before })
    }

    /// True if a signal has arrived since.
    pub fn arrived(&self) -> bool {
        matches!(self.arrived.read_signal(), Ok(Some(_)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_process_status() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(status, Signal::SIGHUP), "signal 1 is the lowest bit");
        assert!(!is_ignored(status, Signal::SIGINT));
        assert!(!is_ignored("", Signal::SIGHUP));
    }

    #[test]
    fn a_child_can_be_interrupted_while_signals_are_held() {
        let held = Held::new().unwrap();
        let sees = || process::Command::new("grep").args(["SigBlk", "/proc/self/status"]).output().unwrap().stdout;
        let through = String::from_utf8(let_through(sees)).unwrap();
        assert_eq!(through.trim(), "SigBlk:\t0000000000000000");
        drop(held);
    }
}

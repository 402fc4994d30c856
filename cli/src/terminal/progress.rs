//! One line at the bottom of the terminal that shows the progress of a command.
//!
//! It is drawn on standard error if that is a terminal, and wiped when the command ends, so it never ends up in a log.
//! A separate thread reads the counters of the [`Watch`]; the work does not know that it is watched.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use nix::libc;

use bygone_core::watch::Watch;

use crate::terminal::output;
use crate::terminal::output::count;
use crate::terminal::output::number;
use crate::terminal::output::size;

const INTERVAL: Duration = Duration::from_millis(200);
/// Commands that end sooner show nothing at all.
const DELAY: Duration = Duration::from_millis(500);
/// Weight of the newest rate in the displayed rate, which follows within a few seconds and does not jump.
const RATE_WEIGHT: f64 = 0.1;
const COLUMNS_DEFAULT: usize = 80;

/// Shows the line until it is dropped.
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows the counters of `watch` if `wanted` is true and there is a terminal.
    pub fn show(watch: &Arc<Watch>, wanted: bool) -> Progress {
        if !wanted || !io::stderr().is_terminal() {
            return Progress { end: None, thread: None };
        }
        let (end, ended) = bounded::<()>(0);
        let watch = Arc::clone(watch);
        let draw = move || {
            let mut meter = Meter::new(Instant::now());
            let mut wait = DELAY;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = INTERVAL;
                let mut line = meter.line(&Counts::of(&watch), Instant::now());
                if let Some(trouble) = watch.trouble_now() {
                    line = format!("{line}  waiting for the store: {}", output::one_line(&trouble));
                }
                put(&fit(&line, columns()));
            }
            put("");
        };
        // If no thread can be started, there is no line, but the work goes on.
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(draw).ok();
        Progress { end: Some(end), thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Replaces the line.
fn put(line: &str) {
    // If the terminal has gone, there is nowhere to report it.
    let _ = io::stderr().lock().write_all(format!("\r\x1b[K{line}").as_bytes());
}

/// `line`, truncated so that it does not wrap.
fn fit(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    entries: u64,
    files_new: u64,
    bytes: u64,
    bytes_total: u64,
    bytes_new: u64,
    bytes_stored: u64,
    objects: u64,
}

impl Counts {
    fn of(watch: &Watch) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            entries: get(&watch.entries),
            files_new: get(&watch.files_new),
            bytes: get(&watch.bytes),
            bytes_total: get(&watch.bytes_total),
            bytes_new: get(&watch.bytes_new),
            bytes_stored: get(&watch.bytes_stored),
            objects: get(&watch.objects),
        }
    }
}

/// Turns counts and time into lines.
struct Meter {
    began: Instant,
    last: (Instant, u64),
    /// Bytes a second, smoothed.
    rate: Option<f64>,
}

impl Meter {
    fn new(began: Instant) -> Meter {
        Meter { began, last: (began, 0), rate: None }
    }

    fn line(&mut self, counts: &Counts, now: Instant) -> String {
        let since = now.duration_since(self.last.0).as_secs_f64();
        if since > 0.0 {
            let rate = counts.bytes.saturating_sub(self.last.1) as f64 / since;
            self.rate = Some(self.rate.map_or(rate, |before| before + (rate - before) * RATE_WEIGHT));
            self.last = (now, counts.bytes);
        }
        let rate = self.rate.unwrap_or(0.0);
        let mut parts = vec![clock(now.duration_since(self.began).as_secs())];
        let mut add = |value: u64, text: String| {
            if value > 0 {
                parts.push(text);
            }
        };
        add(counts.entries, count(counts.entries, "entry", "entries"));
        add(counts.files_new, format!("{} read", number(counts.files_new)));
        let of_total = match counts.bytes_total {
            total if total >= counts.bytes && total > 0 => format!("{} of {}", size(counts.bytes), size(total)),
            _ => size(counts.bytes),
        };
        add(counts.bytes, of_total);
        add(counts.bytes, format!("{}/s", size(rate as u64)));
        add(counts.bytes_new, format!("{} new", size(counts.bytes_new)));
        add(counts.bytes_stored, format!("{} stored", size(counts.bytes_stored)));
        add(counts.objects, count(counts.objects, "object", "objects"));
        let left = counts.bytes_total.saturating_sub(counts.bytes);
        if left > 0 && counts.bytes > 0 && rate >= 1.0 {
            parts.push(format!("{} left", clock((left as f64 / rate) as u64)));
        }
        parts.join("  ")
    }
}

/// Seconds in the form of a clock: 1:02:03.
fn clock(seconds: u64) -> String {
    match seconds {
        0..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
    }
}

mod ioctl {
    use nix::libc;

    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);
}

/// Width of the terminal on standard error.
fn columns() -> usize {
    let mut window = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` where its argument points, and nothing else.
    #[allow(unsafe_code)]
    let asked = unsafe { ioctl::window_size(io::stderr().as_raw_fd(), &mut window) };
    match (asked, window.ws_col) {
        (Ok(_), columns @ 1..) => columns.into(),
        _ => COLUMNS_DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_what_is_known_and_nothing_else() {
        let began = Instant::now();
        let mut meter = Meter::new(began);
        let backup = Counts { entries: 1_234, bytes: 10 << 20, bytes_new: 1 << 20, ..Counts::default() };
        let line = meter.line(&backup, began + Duration::from_secs(2));
        assert_eq!(line, "0:02  1,234 entries  10 MiB  5.0 MiB/s  1.0 MiB new");
        let restore = Counts { bytes: 20 << 20, bytes_total: 40 << 20, ..Counts::default() };
        let line = meter.line(&restore, began + Duration::from_secs(4));
        assert_eq!(line, "0:04  20 MiB of 40 MiB  5.0 MiB/s  0:04 left");
        assert_eq!(Meter::new(began).line(&Counts::default(), began), "0:00");
    }

    #[test]
    fn a_total_that_was_too_low_is_not_shown() {
        let began = Instant::now();
        let counts = Counts { bytes: 2_048, bytes_total: 1_024, ..Counts::default() };
        assert_eq!(Meter::new(began).line(&counts, began + Duration::from_secs(1)), "0:01  2.0 KiB  2.0 KiB/s");
    }

    #[test]
    fn a_line_never_wraps() {
        assert_eq!(fit("abcdef", 4), "abc");
        assert_eq!(fit("abc", 80), "abc");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn a_clock_shows_hours_when_there_are_any() {
        assert_eq!((clock(59), clock(3_599), clock(3_600)), ("0:59".into(), "59:59".into(), "1:00:00".into()));
    }
}

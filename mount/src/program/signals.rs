//! Signals: those that ask the process to end, as events, and the one that asks it to reload its configuration.
//!
//! A signal handler may do very little, so it writes one byte to a pipe, which a thread of ours reads. (Blocking the
//! signals and waiting for them in one thread would not work, because libraries start threads of their own before we
//! could block the signals everywhere.)

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::fd::IntoRawFd;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::Sender;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::SaFlags;
use nix::sys::signal::SigAction;
use nix::sys::signal::SigHandler;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signal::sigaction;
use nix::unistd::pipe2;
use nix::unistd::write;

use bygone_cli::terminal::signals::Terminal;

use crate::kernel::event::Event;

/// The pipe that the handler writes to; -1 before it exists.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The signals that may ask the process to end.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Sends each signal that asks the process to end to `events` from now on. Signals that were ignored when the program
/// was started (`nohup`, a background job of a script) stay ignored. SIGHUP asks to end if `terminal` has gone;
/// otherwise `reload` is called. May be called once in a process.
pub fn forward(
    events: Sender<Event>,
    terminal: Option<Terminal>,
    reload: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    PIPE.store(writer.into_raw_fd(), Ordering::SeqCst);
    let mut reader = File::from(reader);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut byte = [0];
        while reader.read_exact(&mut byte).is_ok() {
            let is_hangup = i32::from(byte[0]) == Signal::SIGHUP as i32;
            if is_hangup && !terminal.as_ref().is_some_and(Terminal::has_gone) {
                reload();
            } else if events.send(Event::Signal).is_err() {
                break;
            }
        }
    })?;
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in ENDING {
        // SAFETY: the handler only calls what is safe in a handler: an atomic load and write(2).
        #[allow(unsafe_code)]
        let before = unsafe { sigaction(signal, &action) }?;
        if matches!(before.handler(), SigHandler::SigIgn) {
            // SAFETY: this puts back what was there.
            #[allow(unsafe_code)]
            unsafe { sigaction(signal, &before) }?;
        }
    }
    Ok(())
}

extern "C" fn on_signal(signal: i32) {
    // The interrupted code must find its own errno unchanged.
    let errno = Errno::last_raw();
    let pipe = PIPE.load(Ordering::SeqCst);
    // SAFETY: the pipe's writing end is opened before the handler is installed and is never closed.
    #[allow(unsafe_code)]
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    // If the pipe is full, enough signals are waiting in it.
    let _ = write(pipe, &[signal as u8]);
    Errno::set_raw(errno);
}

//! Moves the mount to the background. The command returns when the mount is ready, and not before.
//!
//! The process forks early, while it has only one thread. The child does all the work. At first it keeps the terminal,
//! so that its messages are seen and an interrupt ends it. If it fails, the parent ends with the same exit code. If it
//! succeeds, it leaves the terminal and tells the parent through a pipe.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;

use nix::fcntl::OFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use nix::unistd::dup2_stderr;
use nix::unistd::dup2_stdin;
use nix::unistd::dup2_stdout;
use nix::unistd::fork;
use nix::unistd::pipe2;
use nix::unistd::setsid;

/// Which of the two processes this is.
pub enum Side {
    /// The one that was started. It ends with this exit code.
    Parent(u8),
    /// The one that goes on in the background.
    Child(Parent),
}

/// The child's handle of the waiting parent. If it is dropped without `release`, the parent waits for the child to end.
pub struct Parent {
    pipe: File,
}

/// Forks. The process must have only one thread.
pub fn split() -> io::Result<Side> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: after a fork only the calling thread lives on, so locks held by others would stay locked for ever. This
    // is called before the program starts any thread.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Child => Ok(Side::Child(Parent { pipe: File::from(writer) })),
        ForkResult::Parent { child } => {
            drop(writer);
            let mut word = [0];
            match File::from(reader).read_exact(&mut word) {
                Ok(()) => Ok(Side::Parent(0)),
                Err(_) => Ok(Side::Parent(end_of(child))),
            }
        }
    }
}

impl Parent {
    /// Leaves the terminal and lets the parent end with success.
    pub fn release(mut self) -> io::Result<()> {
        setsid()?;
        std::env::set_current_dir("/")?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        self.pipe.write_all(&[1])
    }
}

/// Waits for the child and returns its exit code.
fn end_of(child: Pid) -> u8 {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return u8::try_from(code).unwrap_or(1),
            Ok(WaitStatus::Signaled(_, signal, _)) => return u8::try_from(128 + signal as i32).unwrap_or(1),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

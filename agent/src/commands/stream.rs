//! Streams that are backed up as one file: the standard input, and the output of a program.
//!
//! Both stay cancellable even if nothing ever arrives. A program has to end well: half of a dump is no dump, and its end
//! looks like any other from here. So its last read fails if it ends with anything but 0.

use std::ffi::OsStr;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::signals;
use bygone_core::watch::Watch;

/// How often a silent stream is interrupted to check for cancellation.
const PATIENCE_MS: u16 = 200;
/// How often a program that has closed its output is asked whether it has ended.
const END_PATIENCE: Duration = Duration::from_millis(20);

/// The standard input.
pub(super) struct Stdin<'a> {
    pub(super) watch: &'a Watch,
}

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not through the buffer of `Stdin`, which poll does not see.
        read_patiently(io::stdin().as_fd(), buffer, self.watch)
    }
}

/// The output of a program, which ends with this value if it has not ended before.
pub(super) struct Program<'a> {
    child: Child,
    output: ChildStdout,
    watch: &'a Watch,
}

impl<'a> Program<'a> {
    /// Starts `words`, the first of which is the program.
    pub(super) fn start(words: &[PathBuf], watch: &'a Watch) -> Result<Program<'a>> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(Failure::Usage("--command: write the program after --, such as -- pg_dump shop".into()));
        };
        let failed = |source: io::Error| Failure::machine("run", program.display())(source);
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped());
        // Ctrl-C must reach the program too.
        let mut child = signals::let_through(|| command.spawn()).map_err(failed)?;
        let output = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Program { child, output, watch })
    }

    /// Waits for the end of the program, which must be a good one.
    fn end(&mut self) -> io::Result<()> {
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("it ended with {status}; no snapshot was made"))),
                None => {
                    self.watch.check().map_err(io::Error::other)?;
                    sleep(END_PATIENCE);
                }
            }
        }
    }
}

impl Read for Program<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = read_patiently(self.output.as_fd(), buffer, self.watch)?;
        if got == 0 && !buffer.is_empty() {
            self.end()?;
        }
        Ok(got)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It has nobody to write to any more.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What the stream of a program is called in messages.
pub(super) fn output_of(words: &[PathBuf]) -> String {
    let name = words.first().map(|word| word.as_os_str()).unwrap_or(OsStr::new("nothing"));
    format!("the output of {}", name.to_string_lossy())
}

fn read_patiently(from: BorrowedFd<'_>, buffer: &mut [u8], watch: &Watch) -> io::Result<usize> {
    loop {
        let mut ready = [PollFd::new(from, PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(PATIENCE_MS)) {
            Err(Errno::EINTR) | Ok(0) => watch.check().map_err(io::Error::other)?,
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(nix::unistd::read(from, buffer)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(script: &str) -> io::Result<Vec<u8>> {
        let words = ["sh", "-c", script].map(PathBuf::from);
        let watch = Watch::new();
        let mut bytes = Vec::new();
        Program::start(&words, &watch).unwrap().read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn a_program_must_end_well() {
        assert_eq!(read("printf abc").unwrap(), b"abc");
        assert_eq!(read("printf abc; exec >&-; sleep 0.1").unwrap(), b"abc", "it goes on after its output");
        for script in ["printf abc; exit 3", "false", "printf abc; kill -9 $$", "exec >&-; sleep 0.1; exit 1"] {
            let error = read(script).unwrap_err().to_string();
            assert!(error.contains("it ended with") && error.contains("no snapshot"), "{script}: {error}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        let watch = Watch::new();
        let error = Program::start(&["/absent/program".into()], &watch).err().unwrap().to_string();
        assert!(error.contains("/absent/program"), "{error}");
        assert!(matches!(Program::start(&[], &watch), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_program_ends_when_it_is_not_wanted_any_more() {
        let watch = Watch::new();
        let words = ["sleep", "1000"].map(PathBuf::from);
        let program = Program::start(&words, &watch).unwrap();
        let pid = program.child.id();
        watch.cancel();
        let mut program = program;
        assert!(program.read(&mut [0; 8]).is_err());
        drop(program);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

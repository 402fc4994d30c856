//! The rclone program as a private server.
//!
//! `rclone rcd` listens on a port of this machine that the kernel chooses, asks for a password that only we and it know
//! (passed in its environment, which no other user can read), and answers requests until it is killed. It is killed
//! when the store is dropped, and by the kernel if we die first. Its standard error is kept for messages.
//!
//! The kernel's rule is "when the thread that started it ends", so one thread starts it and stays until its end.

use std::collections::VecDeque;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getpid;
use nix::unistd::getppid;

use crate::lock::lock;

/// The remote that stands for the place of our objects. Rclone's own configuration may name other remotes as it likes.
pub(super) const PLACE: &str = "bygonestore:";

/// The user name for requests.
const USER: &str = "bygone";
/// How long rclone may take to start listening.
const START_MAX: Duration = Duration::from_secs(60);
/// Lines of standard error that are kept.
const LAST_LINES_MAX: usize = 4;
/// Longest line that is shown.
const LINE_BYTES_MAX: usize = 500;

/// Settings in a user's environment that would change the meaning of requests: filters would make lists incomplete.
const NOT_INHERITED: &[&str] = &[
    "RCLONE_DRY_RUN",
    "RCLONE_INTERACTIVE",
    "RCLONE_IMMUTABLE",
    "RCLONE_IGNORE_EXISTING",
    "RCLONE_IGNORE_SIZE",
    "RCLONE_IGNORE_CASE",
    "RCLONE_DELETE_EXCLUDED",
    "RCLONE_EXCLUDE",
    "RCLONE_EXCLUDE_FROM",
    "RCLONE_EXCLUDE_IF_PRESENT",
    "RCLONE_INCLUDE",
    "RCLONE_INCLUDE_FROM",
    "RCLONE_FILTER",
    "RCLONE_FILTER_FROM",
    "RCLONE_FILES_FROM",
    "RCLONE_FILES_FROM_RAW",
    "RCLONE_MIN_AGE",
    "RCLONE_MAX_AGE",
    "RCLONE_MIN_SIZE",
    "RCLONE_MAX_SIZE",
    "RCLONE_MAX_DEPTH",
    "RCLONE_MAX_DELETE",
    "RCLONE_MAX_TRANSFER",
    "RCLONE_MAX_DURATION",
    "RCLONE_BACKUP_DIR",
    "RCLONE_SUFFIX",
    "RCLONE_COMPARE_DEST",
    "RCLONE_COPY_DEST",
    "RCLONE_LOG_FILE",
    "RCLONE_SYSLOG",
    "RCLONE_QUIET",
    "RCLONE_VERBOSE",
    "RCLONE_USE_JSON_LOG",
    "RCLONE_RC_NO_AUTH",
    "RCLONE_RC_HTPASSWD",
    "RCLONE_RC_BASEURL",
    "RCLONE_RC_CERT",
    "RCLONE_RC_KEY",
    "RCLONE_RC_CLIENT_CA",
    "RCLONE_RC_WEB_GUI",
    "RCLONE_RC_FILES",
    "RCLONE_RC_REALM",
];

/// A running rclone.
pub(super) struct Process {
    /// Its URL with the password: for requests, not for messages.
    pub(super) url: String,
    child: Arc<Mutex<Child>>,
    last_lines: Arc<LastLines>,
    keeper: Option<JoinHandle<()>>,
}

/// The last lines on standard error.
#[derive(Default)]
struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = lock(&self.0);
        if lines.len() == LAST_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(LINE_BYTES_MAX).collect());
    }

    fn all(&self) -> String {
        let lines = lock(&self.0);
        lines.iter().cloned().collect::<Vec<_>>().join("; ")
    }
}

impl Process {
    /// Starts `program` for objects below `remote`, and waits until it answers. No cause has the kind `NotFound`.
    pub(super) fn start(program: &str, remote: &str) -> io::Result<Process> {
        let password = password()?;
        let command = command(program, remote, &password);
        let (started, begun) = bounded(1);
        let last_lines = Arc::new(LastLines::default());
        let keeper = thread::Builder::new().name("rclone".to_owned()).spawn({
            let last_lines = Arc::clone(&last_lines);
            move || keep(command, &last_lines, &started)
        })?;
        let child = begun.recv().map_err(io::Error::other)?.map_err(|cause| cannot_start(program, &cause))?;
        let mut process = Process { url: String::new(), child: child.child, last_lines, keeper: Some(keeper) };
        match child.port.recv_timeout(START_MAX) {
            Ok(port) => {
                process.url = format!("http://{USER}:{password}@127.0.0.1:{port}/");
                Ok(process)
            }
            Err(_) => Err(io::Error::other(format!("rclone did not start: {}", process.last_lines()))),
        }
    }

    /// True if it no longer runs.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Its process id, for tests that kill it.
    #[cfg(test)]
    pub(super) fn pid(&self) -> nix::unistd::Pid {
        let child = lock(&self.child);
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap())
    }

    /// Its last words on standard error.
    pub(super) fn last_lines(&self) -> String {
        match self.last_lines.all() {
            last_lines if last_lines.is_empty() => "it said nothing".to_owned(),
            last_lines => format!("it said: {last_lines}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        {
            let mut child = lock(&self.child);
            // All requests have been answered; if one has not, its caller sees a failure.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// A child that was started.
struct Started {
    child: Arc<Mutex<Child>>,
    /// Gets the port once the child has reported it.
    port: crossbeam_channel::Receiver<u16>,
}

/// The thread that starts the child and reads its output until it ends.
fn keep(mut command: Command, last_lines: &LastLines, started: &Sender<io::Result<Started>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(cause) => {
            let _ = started.send(Err(cause));
            return;
        }
    };
    let Some(stderr) = child.stderr.take() else { return };
    let (port_in, port) = bounded(1);
    let _ = started.send(Ok(Started { child: Arc::new(Mutex::new(child)), port }));
    let mut port_in = Some(port_in);
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        match (&port_in, port_in_line(&line)) {
            (Some(sender), Some(port)) => {
                let _ = sender.send(port);
                port_in = None;
            }
            _ => last_lines.push(line.trim()),
        }
    }
}

fn command(program: &str, remote: &str, password: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["rcd", "--rc-serve", "--rc-addr", "127.0.0.1:0", "--ask-password=false", "--log-level", "NOTICE"]);
    // A volume takes as long as the link needs; rclone's own timeouts detect a dead link.
    command.args(["--rc-server-read-timeout", "10000h", "--rc-server-write-timeout", "10000h"]);
    // No read-ahead: nobody has asked for those bytes.
    command.args(["--buffer-size", "0"]);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    command.env("RCLONE_RC_USER", USER).env("RCLONE_RC_PASS", password);
    // An alias, so that no character of the user's address needs quoting in a request.
    command.env("RCLONE_CONFIG_BYGONESTORE_TYPE", "alias").env("RCLONE_CONFIG_BYGONESTORE_REMOTE", remote);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // An interrupt from the terminal is for us: rclone must keep running until we have ended in order.
    command.process_group(0);
    let parent = getpid();
    let die_with_parent = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before that.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are two system calls that allocate
    // nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(die_with_parent);
    }
    command
}

/// The port in `... NOTICE: Serving remote control on http://127.0.0.1:38129/`; later versions put it in brackets.
fn port_in_line(line: &str) -> Option<u16> {
    let (_, after) = line.split_once("Serving remote control on ")?.1.split_once("http://127.0.0.1:")?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    after.get(..digits)?.parse().ok()
}

fn password() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn cannot_start(program: &str, cause: &io::Error) -> io::Error {
    io::Error::other(match cause.kind() {
        io::ErrorKind::NotFound => format!(
            "the program {program} is not installed: install Debian's package rclone, or see https://rclone.org/install"
        ),
        _ => format!("the program {program} does not start: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_what_rclone_says() {
        let cases = [
            ("2026/01/01 01:01:01 NOTICE: Serving remote control on http://127.0.0.1:38129/", Some(38129)),
            ("NOTICE: Serving remote control on [http://127.0.0.1:5572/]", Some(5572)),
            ("NOTICE: Serving remote control on http://127.0.0.1:99999/", None),
            ("NOTICE: Config file not found http://127.0.0.1:5572/", None),
            ("", None),
        ];
        for (line, port) in cases {
            assert_eq!(port_in_line(line), port, "{line}");
        }
    }

    #[test]
    fn a_program_that_is_missing_or_ends_says_why() {
        let complaint = |program| Process::start(program, ":memory:").err().map(|error| error.to_string()).unwrap();
        let missing = complaint("/no/such/rclone");
        assert!(missing.contains("not installed") && missing.contains("rclone.org"), "{missing}");
        let ended = complaint("false");
        assert!(ended.contains("did not start") && ended.contains("said nothing"), "{ended}");
    }
}

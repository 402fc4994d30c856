//! Where a passphrase comes from: a file, a command, a variable, or a prompt on the terminal.
//!
//! - The first source that is given is used. A file that cannot be read is an error, never a reason to try the next one.
//! - One final line end (LF, or CR and LF) is not part of the passphrase, because editors and `echo` add one. Everything
//!   else is.
//! - An empty passphrase is refused, because it is an accident in a script. A new one must be one that can be typed: no
//!   control characters, no byte order mark. If an old one does not open a repository, a hint says what may be wrong
//!   with it.
//! - A prompt uses the terminal, not standard input and output, which may be pipes. It checks for signals while it waits,
//!   so that Ctrl-C leaves a terminal that echoes.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::termios::LocalFlags;
use nix::sys::termios::SetArg;
use nix::sys::termios::Termios;
use nix::sys::termios::tcgetattr;
use nix::sys::termios::tcsetattr;

use bygone_core::error::Error;
use bygone_core::repo::Secret;
use bygone_core::watch::Watch;

use crate::exit::Failure;
use crate::exit::Result;
use crate::terminal::output;
use crate::terminal::signals;

/// Longest passphrase.
const PASSPHRASE_BYTES_MAX: usize = 64 << 10;
/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How often a prompt checks for cancellation.
const PATIENCE_MS: u16 = 100;

/// What the passphrase is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To open a repository: asked for once, because the key slots show whether it is right.
    Open,
    /// To create a key slot: asked for twice, because a typing error would lock everyone out.
    Create,
}

/// The sources that were given for the passphrase, strongest first.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// A file that holds it.
    pub file: Option<PathBuf>,
    /// A shell command that prints it.
    pub command: Option<OsString>,
    /// The passphrase itself.
    pub value: Option<OsString>,
}

/// A passphrase, and why it may not be the one that was meant.
pub struct Given {
    /// The passphrase.
    pub secret: Secret,
    /// What is odd about it, to be told if it opens nothing.
    pub hint: Option<&'static str>,
}

/// Gets the passphrase from the strongest source, or asks for it.
pub fn obtain(sources: &Sources, purpose: Purpose, watch: &Watch, json: bool) -> Result<Given> {
    let bytes = match sources {
        Sources { file: Some(file), .. } => from_file(file, json)?,
        Sources { command: Some(command), .. } => from_command(command, watch)?,
        Sources { value: Some(value), .. } => value.clone().into_vec(),
        _ => prompt(purpose, watch)?,
    };
    if bytes.is_empty() {
        return Err(Failure::Usage("the passphrase is empty: give one with at least one character".into()));
    }
    if purpose == Purpose::Create
        && let Some(what) = untypable(&bytes)
    {
        let why = "it could not be typed at a prompt: choose a passphrase of one line without control characters";
        return Err(Failure::Usage(format!("the new passphrase {what}, so {why}")));
    }
    let hint = hint(&bytes);
    Ok(Given { secret: Secret::new(bytes), hint })
}

/// What nobody could type.
fn untypable(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(BYTE_ORDER_MARK) {
        Some("begins with a byte order mark")
    } else if bytes.contains(&b'\n') {
        Some("has several lines")
    } else if bytes.iter().any(u8::is_ascii_control) {
        Some("has control characters")
    } else {
        None
    }
}

/// What may be wrong with a passphrase that opens nothing.
fn hint(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Some("the passphrase begins with a byte order mark, which some editors add: save its file without");
    }
    if bytes.contains(&b'\n') {
        return Some("the passphrase has several lines: only one line end, the last, is left out");
    }
    if bytes.iter().any(u8::is_ascii_control) {
        return Some("the passphrase has control characters, such as a carriage return");
    }
    let is_blank = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
    if is_blank(bytes.first()) || is_blank(bytes.last()) {
        return Some("the passphrase begins or ends with a blank, which is part of it");
    }
    let note = "the passphrase has letters that can be written in several ways: an accented letter may be one character \
                or two";
    (!bytes.is_ascii()).then_some(note)
}

fn from_file(path: &Path, json: bool) -> Result<Vec<u8>> {
    let failed = |source| Failure::machine("read the passphrase file", path.display())(source);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
        let path = path.display();
        output::warn(json, &format!("every user of this machine can read {path}: run `chmod 600 {path}`"));
    }
    without_line_end(read_bounded(file).map_err(failed)?)
}

fn from_command(command: &OsString, watch: &Watch) -> Result<Vec<u8>> {
    let name = command.to_string_lossy();
    let failed = |source| Failure::machine("run the passphrase command", &name)(source);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdout(Stdio::piped());
    // Ctrl-C must reach the command too, which may be asking something itself.
    let mut child = signals::let_through(|| shell.spawn()).map_err(failed)?;
    let bytes = child.stdout.take().map_or(Ok(Vec::new()), read_bounded).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    watch.check()?;
    if !status.success() {
        let cause = io::Error::other(format!("it ended with {status}"));
        return Err(failed(cause));
    }
    without_line_end(bytes)
}

fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(PASSPHRASE_BYTES_MAX as u64 + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `bytes` without one final line end.
fn without_line_end(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.pop_if(|last| *last == b'\n').is_some() {
        bytes.pop_if(|last| *last == b'\r');
    }
    if bytes.len() > PASSPHRASE_BYTES_MAX {
        return Err(Failure::Usage(format!("the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn prompt(purpose: Purpose, watch: &Watch) -> Result<Vec<u8>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| {
        let ways = "--passphrase-file, --passphrase-command, or the variable BYGONE_PASSPHRASE";
        Failure::Usage(format!("there is no terminal to ask for the passphrase: give it with {ways}"))
    })?;
    match purpose {
        Purpose::Open => ask(&terminal, "Passphrase: ", watch),
        Purpose::Create => {
            let first = ask(&terminal, "New passphrase: ", watch)?;
            if first != ask(&terminal, "Repeat passphrase: ", watch)? {
                return Err(Failure::Usage("the passphrases do not match: try again".into()));
            }
            Ok(first)
        }
    }
}

/// A terminal that does not echo; dropping this restores it.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Quiet<'_> {
    fn new(terminal: &File) -> nix::Result<Quiet<'_>> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        quiet.local_flags.insert(LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        // Input that was typed before the prompt appeared is not meant for it.
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // If the terminal has gone, nothing can be done.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

fn ask(mut terminal: &File, question: &str, watch: &Watch) -> Result<Vec<u8>> {
    let failed = |source: io::Error| Failure::machine("ask for the passphrase on", "the terminal")(source);
    let signals = signals::Held::new().map_err(failed)?;
    let quiet = Quiet::new(terminal).map_err(|errno| failed(errno.into()))?;
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let mut answer = vec![0; PASSPHRASE_BYTES_MAX + 2];
    loop {
        let mut ready = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(PATIENCE_MS)).map_err(|errno| failed(errno.into()))?;
        if watch.is_cancelled() || signals.arrived() {
            drop(quiet);
            let _ = terminal.write_all(b"\n");
            return Err(Error::Cancelled.into());
        }
        if ready.iter().any(|fd| fd.any() == Some(true)) {
            break;
        }
    }
    // A terminal delivers one line at a time.
    let length = terminal.read(&mut answer).map_err(failed)?;
    answer.truncate(length);
    without_line_end(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(content: &[u8]) -> (tempfile::TempDir, Sources) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        fs::write(&path, content).unwrap();
        (directory, Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn one_line_end_is_not_part_of_a_passphrase() {
        for (content, passphrase) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"secret\r", b"secret\r"),
            (b"secret\n\n", b"secret\n"),
            (b"secret\r\n\r\n", b"secret\r\n"),
            (b" two\nlines \n", b" two\nlines "),
            (b"\xff\0", b"\xff\0"),
        ] {
            assert_eq!(without_line_end(content.to_vec()).unwrap(), passphrase);
            let (_directory, sources) = file(content);
            assert_eq!(from_file(sources.file.as_ref().unwrap(), false).unwrap(), passphrase);
        }
    }

    #[test]
    fn a_new_passphrase_can_be_typed_and_an_old_one_gets_a_hint() {
        let odd = [&b"\xef\xbb\xbfx"[..], b"a\nb", b"a\0b", b"a\tb", b"a\r", b"a\x7f"];
        for bytes in odd {
            let (_directory, sources) = file(bytes);
            let made = obtain(&sources, Purpose::Create, &Watch::new(), false);
            assert!(matches!(made, Err(Failure::Usage(_))), "{bytes:?}");
            let opened = obtain(&sources, Purpose::Open, &Watch::new(), false).ok().unwrap();
            assert!(opened.hint.is_some(), "{bytes:?}");
        }
        for (text, has_hint) in [("plain", false), ("two words", false), (" blank", true), ("\u{e9}", true)] {
            let (_directory, sources) = file(text.as_bytes());
            let made = obtain(&sources, Purpose::Create, &Watch::new(), false).ok().unwrap();
            assert_eq!(made.hint.is_some(), has_hint, "{text}");
        }
    }

    #[test]
    fn an_empty_passphrase_is_refused_wherever_it_comes_from() {
        let watch = Watch::new();
        let (_directory, empty_file) = file(b"\n");
        let command = Sources { command: Some("true".into()), ..Sources::default() };
        let value = Sources { value: Some("".into()), ..Sources::default() };
        for sources in [empty_file, command, value] {
            let error = obtain(&sources, Purpose::Open, &watch, false).err().unwrap();
            assert!(matches!(error, Failure::Usage(_)), "{error}");
        }
    }

    #[test]
    fn a_source_that_fails_is_an_error_and_the_next_is_not_tried() {
        let value = Some("value".into());
        let file = Sources { file: Some("/nonexistent/x".into()), value: value.clone(), ..Sources::default() };
        let command = Sources { command: Some("echo x; exit 3".into()), value, ..Sources::default() };
        for sources in [file, command] {
            let error = obtain(&sources, Purpose::Open, &Watch::new(), false).err().unwrap();
            assert!(matches!(error, Failure::Machine { .. }), "{error}");
        }
    }

    #[test]
    fn the_output_of_a_command_is_the_passphrase() {
        let command = OsString::from("printf 'a b\\n'");
        assert_eq!(from_command(&command, &Watch::new()).unwrap(), b"a b");
    }

    #[test]
    fn an_endless_source_is_not_read_forever() {
        let sources = Sources { file: Some("/dev/zero".into()), ..Sources::default() };
        assert!(matches!(obtain(&sources, Purpose::Open, &Watch::new(), false), Err(Failure::Usage(_))));
    }
}

//! The programs as their users run them: as processes, controlled by arguments and environment, judged by output and
//! exit code.
//!
//! A [`Site`] is one machine with one repository: its own home, catalog, cache and configuration, in a directory that
//! is removed with it. Output goes to files, because a mount in the background would keep a pipe open. A program that
//! runs too long is killed, and its test fails.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::fake_s3::ACCESS_KEY;
use crate::fake_s3::SECRET_KEY;

/// The passphrase of every repository made by a [`Site`].
pub const PASSPHRASE: &str = "correct horse battery staple";

/// Options of `init` by which even a small tree fills several volumes.
pub const SMALL_VOLUMES: [&str; 4] = ["--volume-size", "1MiB", "--block-size", "64KiB"];

/// No program of a test may run longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// The paths of the programs under test.
#[derive(Clone)]
pub struct Programs {
    /// `bygone`.
    pub bygone: PathBuf,
    /// `bygone-mount`.
    pub mount: PathBuf,
}

/// One machine with one repository, both new.
pub struct Site {
    dir: TempDir,
    programs: Programs,
    runs: Cell<u32>,
    variables: RefCell<Vec<(String, String)>>,
}

/// The output and the exit code of a program.
#[derive(Debug)]
pub struct Ran {
    /// The command, for messages.
    pub command: String,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error, as text.
    pub err: String,
    /// Exit code; 128 + the signal's number for a program that was killed.
    pub code: i32,
}

impl Site {
    /// A new machine, without a repository yet.
    pub fn new(programs: &Programs) -> Site {
        let dir = tempfile::Builder::new().prefix("bygone-").tempdir().unwrap();
        for folder in ["home", "state", "cache", "config", "output"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        Site { dir, programs: programs.clone(), runs: Cell::new(0), variables: RefCell::default() }
    }

    /// A new machine with a new repository. Its key derivation is as cheap as allowed: tests derive keys all the time.
    pub fn with_repository(programs: &Programs, options: &[&str]) -> Site {
        let site = Site::new(programs);
        site.bygone([&["init", "--kdf-memory", "8MiB"], options].concat()).ok();
        site
    }

    /// Sets this machine's repository to an address in the bucket of a [`FakeS3`].
    ///
    /// [`FakeS3`]: crate::fake_s3::FakeS3
    pub fn set_bucket(&self, address: &str) {
        self.set("BYGONE_REPO", address);
        self.set("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        self.set("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    }

    /// Adds a variable to this machine's environment.
    pub fn set(&self, name: &str, value: &str) {
        self.variables.borrow_mut().push((name.to_owned(), value.to_owned()));
    }

    /// A path on this machine, for fixtures and targets.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The repository's directory.
    pub fn repository(&self) -> PathBuf {
        self.at("repository")
    }

    /// The directory of catalogs, one folder for each repository.
    pub fn catalogs(&self) -> PathBuf {
        self.at("state/bygone")
    }

    /// Backs up `path`, and returns how many bytes of content were new. Lists of objects do not tell that: a little content
    /// lies in one volume with the tree.
    pub fn backup_new_bytes(&self, path: &Path) -> u64 {
        let made = self.bygone(["backup".as_ref(), "--json".as_ref(), path.as_os_str()]).ok().json();
        made["bytes_new"].as_u64().expect("a backup says how much was new")
    }

    /// The objects of the repository below `folder` (all of them if it is empty), by name, with their sizes.
    pub fn objects(&self, folder: &str) -> BTreeMap<String, u64> {
        let top = self.repository();
        let mut found = BTreeMap::new();
        let mut folders = vec![top.join(folder)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&top).unwrap().to_str().unwrap().to_string();
                    found.insert(name, path.metadata().unwrap().len());
                }
            }
        }
        found
    }

    /// Every object of the repository, by name, with its bytes.
    pub fn store(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |name: String| (name.clone(), fs::read(self.repository().join(name)).unwrap());
        self.objects("").into_keys().map(read).collect()
    }

    /// Puts `content` in the place of an object. Stored objects are read-only, so this makes a new file of that name.
    pub fn replace(&self, object: &str, content: &[u8]) {
        let path = self.repository().join(object);
        fs::remove_file(&path).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Waits until a backup has taken its lock and put its marker into the store.
    pub fn wait_until_announced(&self) {
        wait_until("a backup announces itself", || !self.objects("running").is_empty());
    }

    /// `bygone ARGUMENTS`, ready to be started.
    pub fn bygone_command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.command(&self.programs.bygone, arguments)
    }

    /// `program ARGUMENTS` in this machine's environment and in no other.
    pub fn command<A: AsRef<OsStr>>(&self, program: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir(self.dir.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.at("home")).env("LANG", "C.UTF-8").env("RUST_BACKTRACE", "1");
        let places = [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_CONFIG_HOME", "config")];
        command.envs(places.map(|(name, folder)| (name, self.at(folder))));
        command.env("BYGONE_REPO", self.repository()).env("BYGONE_PASSPHRASE", PASSPHRASE);
        command.envs(self.variables.borrow().iter().cloned());
        command
    }

    /// Runs `bygone ARGUMENTS` to its end.
    pub fn bygone<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.run(self.bygone_command(arguments))
    }

    /// Runs `bygone-mount ARGUMENTS` until it ends or has gone to the background.
    pub fn bygone_mount<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.run(self.command(&self.programs.mount, arguments))
    }

    /// Backs `path` up, which must succeed.
    pub fn backup(&self, path: &Path) -> Ran {
        self.bygone([OsStr::new("backup"), path.as_os_str()]).ok()
    }

    /// Restores `what` (a snapshot, or one and a path) into a new directory, which must succeed.
    pub fn restore(&self, what: &str, target: &Path) -> Ran {
        self.bygone([OsStr::new("restore"), OsStr::new(what), OsStr::new("--target"), target.as_os_str()]).ok()
    }

    /// Runs `command` to its end, or kills it if it takes too long.
    pub fn run(&self, command: Command) -> Ran {
        let started = self.start(command);
        started.end()
    }

    /// Starts `command` and returns at once.
    pub fn start(&self, command: Command) -> Started {
        self.start_reading(command, Stdio::null())
    }

    /// Starts `command` with this standard input: a pipe makes it wait for as long as the test likes.
    pub fn start_reading(&self, mut command: Command, stdin: Stdio) -> Started {
        self.runs.set(self.runs.get() + 1);
        let [out, err] = ["out", "err"].map(|name| self.at(format!("output/{}.{name}", self.runs.get())));
        command.stdin(stdin).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let shown: Vec<OsString> = command.get_args().map(OsStr::to_os_string).collect();
        Started { child, command: format!("{:?} {shown:?}", command.get_program()), out, err }
    }

    /// Mounts the repository on a new directory called `name`.
    pub fn mount(&self, name: &str, options: &[&str]) -> Mounted {
        let point = self.at(name);
        fs::create_dir_all(&point).unwrap();
        let mut arguments: Vec<&OsStr> = vec![OsStr::new("--foreground")];
        arguments.extend(options.iter().map(OsStr::new));
        arguments.push(point.as_os_str());
        let mut started = self.start(self.command(&self.programs.mount, arguments));
        let since = Instant::now();
        while !is_mounted(&point) {
            let ended = started.child.try_wait().unwrap().is_some() || since.elapsed() > PATIENCE;
            assert!(!ended, "{} did not mount: {}", started.command, started.complaint());
            sleep(Duration::from_millis(5));
        }
        Mounted { point, started: Some(started) }
    }
}

/// A program that is running.
pub struct Started {
    /// The process.
    pub child: Child,
    command: String,
    out: PathBuf,
    err: PathBuf,
}

impl Started {
    /// Closes its standard input and waits for its end.
    pub fn end(mut self) -> Ran {
        drop(self.child.stdin.take());
        let status = wait(&mut self.child).unwrap_or_else(|| {
            self.child.kill().unwrap();
            panic!("{} has not ended after {PATIENCE:?}: {}", self.command, self.complaint())
        });
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let ran = Ran { command: self.command.clone(), out: fs::read(&self.out).unwrap(), err: self.complaint(), code };
        assert!(!ran.err.contains("panicked at"), "{ran}");
        ran
    }

    /// Its standard error so far.
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }
}

/// Waits for `child`; `None` if it takes too long.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let since = Instant::now();
    let mut pause = Duration::from_micros(200);
    while since.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    None
}

impl Ran {
    /// Panics unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.ended_with(0)
    }

    /// Panics unless it ended with `code`.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Panics unless its standard error contains each of `words`.
    #[track_caller]
    pub fn complains_of(self, words: &[&str]) -> Ran {
        for word in words {
            assert!(self.err.contains(word), "the message should speak of {word:?}: {self}");
        }
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap_or_else(|e| panic!("{e}: {self}"))
    }

    /// Standard output as one JSON value for each line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON: {e}: {line}: {self}"));
        self.text().lines().map(parse).collect()
    }

    /// Standard output as the one JSON value that it must be.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("not JSON: {e}: {self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out = String::from_utf8_lossy(&self.out);
        write!(f, "{} ended with {}\nstdout: {}\nstderr: {}", self.command, self.code, tail(&out), tail(&self.err))
    }
}

/// The end of `text`, short enough to read.
fn tail(text: &str) -> &str {
    let from = text.char_indices().rev().nth(3_000).map_or(0, |(at, _)| at);
    &text[from..]
}

/// A mount that is unmounted when it is dropped, even by a failing test.
pub struct Mounted {
    point: PathBuf,
    started: Option<Started>,
}

impl Mounted {
    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The path of the source directory `source` in the newest snapshot.
    pub fn latest(&self, source: &Path) -> PathBuf {
        self.point.join("latest").join(source.strip_prefix("/").unwrap())
    }

    /// The process that serves it.
    pub fn pid(&self) -> u32 {
        self.started.as_ref().map_or(0, |started| started.child.id())
    }

    /// The standard error of the process that serves it, so far.
    pub fn complaint(&self) -> String {
        self.started.as_ref().map_or_else(String::new, Started::complaint)
    }

    /// Sends a signal, by its name, to the process that serves it.
    pub fn signal(&self, name: &str) {
        crate::tool(Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()));
    }

    /// The output of `bygone-mount --stats`.
    pub fn stats(&self, site: &Site) -> Value {
        site.bygone_mount([OsStr::new("--stats"), OsStr::new("--json"), self.point.as_os_str()]).ok().json()
    }

    /// Waits for the process that serves it to end by itself.
    pub fn end(mut self) -> Ran {
        self.started.take().unwrap().end()
    }

    /// Unmounts and returns how the program ended.
    pub fn unmount(mut self) -> Ran {
        unmount(&self.point);
        self.started.take().unwrap().end()
    }
}

/// Unmounts; panics if the mount stays busy.
///
/// Between fork and exec, a child started by another test holds copies of our open files, including files in the mount,
/// so the mount may be busy for a moment.
pub fn unmount(point: &Path) {
    let begun = Instant::now();
    loop {
        let done = Command::new("umount").arg(point).output().unwrap();
        if done.status.success() {
            return;
        }
        let printed = String::from_utf8_lossy(&done.stderr);
        assert!(begun.elapsed() < Duration::from_secs(30), "umount {}: {printed}", point.display());
        sleep(Duration::from_millis(20));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(mut started) = self.started.take() else { return };
        for option in [&[][..], &["-l"][..]] {
            if is_mounted(&self.point) {
                drop(Command::new("umount").args(option).arg(&self.point).output());
            }
        }
        for _ in 0..200 {
            if matches!(started.child.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        drop(started.child.kill());
        drop(started.child.wait());
    }
}

/// Waits until `holds` is true; panics if that takes too long even for a slow machine.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "still waiting after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// True if something is mounted exactly at `point`.
pub fn is_mounted(point: &Path) -> bool {
    let wanted = point.as_os_str().as_encoded_bytes();
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let mut lines = table.split(|byte| *byte == b'\n');
    lines.any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(wanted))
}

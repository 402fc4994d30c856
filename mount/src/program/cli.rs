//! The command line of `bygone-mount`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use clap::CommandFactory;
use clap::Parser;
use crossbeam_channel::unbounded;

use bygone_cli::clock::now;
use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::settings::Settings;
use bygone_cli::settings::environment::Environment;
use bygone_cli::settings::globals::Globals;
use bygone_cli::terminal::output;
use bygone_cli::terminal::output::Output;
use bygone_cli::terminal::passphrase::Purpose;
use bygone_cli::terminal::signals::Terminal;
use bygone_core::repo::Repository;
use bygone_core::watch::Watch;

use crate::kernel::log::Log;
use crate::kernel::stats::Report;
use crate::program::announce;
use crate::program::announce::Announcer;
use crate::program::announce::PidFile;
use crate::program::daemon;
use crate::program::daemon::Parent;
use crate::program::daemon::Side;
use crate::program::heap;
use crate::program::helper;
use crate::program::mountpoint;
use crate::program::options::Options;
use crate::program::reading::Reading;
use crate::program::session::Links;
use crate::program::session::Session;
use crate::program::signals;
use crate::program::wanted::Wanted;

/// Name of the log in the catalog directory.
const LOG_FILE: &str = "mount.log";

/// Shows every snapshot of a repository as a read-only file tree.
///
/// MOUNTPOINT/latest is the newest snapshot. snapshots/ has all of them, hosts/ and tags/ sort them by host and tag.
/// at/TIME is the newest snapshot not later than TIME: at/2026-03-01, at/3d, at/yesterday. versions/PATH has every
/// version of a file, deleted/PATH the last copy of what has vanished, and changes/SNAPSHOT what a snapshot changed.
/// Files are fetched and decrypted as they are read, and new snapshots appear as they are made. `umount MOUNTPOINT`
/// ends the mount.
#[derive(Debug, Parser)]
#[command(name = "bygone-mount", version)]
#[command(
    after_help = "Exit codes: 0 mounted, or with -f unmounted; 1 failed; 2 usage; 10 no such repository; 12 wrong key;
13 the store disagrees with the catalog; 14 damaged data found; 130 interrupted."
)]
struct Arguments {
    /// An empty directory
    mountpoint: PathBuf,
    /// Stay in the foreground until unmounted or interrupted
    #[arg(short, long)]
    foreground: bool,
    /// Give other users access too, within the permissions in the snapshots (always on when root mounts)
    #[arg(long)]
    allow_other: bool,
    /// Mount options as in /etc/fstab: allow_other, noexec
    #[arg(short = 'o', value_name = "OPT", value_delimiter = ',')]
    options: Vec<String>,
    /// Append errors to FILE [default: mount.log beside the catalog; with -f: standard error]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write one line to file descriptor N when the mount is ready, and close it
    #[arg(long, value_name = "N")]
    ready_fd: Option<i32>,
    /// Write the process ID of the mount to FILE; FILE is removed at the end
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Keep the numbers of --stats up to date in FILE, as JSON
    #[arg(long, value_name = "FILE")]
    stats_file: Option<PathBuf>,
    /// Show what the mount at MOUNTPOINT has done so far, and mount nothing
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    globals: Globals,
}

/// How to mount.
struct Way {
    settings: Settings,
    options: Options,
    log: Option<PathBuf>,
    announcer: Announcer,
    stats_file: Option<PathBuf>,
    /// Cancelled when the mount is to end and a stalled store prevents it.
    watch: Arc<Watch>,
}

/// Runs the program with `arguments` (the first is its name) and returns its exit code. Must be the first thing that a
/// process does, because going to the background forks.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    heap::share();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().map(OsString::as_os_str).unwrap_or_default();
    if helper::is_called_by_mount(name) { run_for_mount(&arguments) } else { run_line(arguments, false) }
}

/// Runs the program when `mount` calls it, with the exit codes that `mount` expects.
fn run_for_mount(arguments: &[OsString]) -> u8 {
    let asked = match helper::translate(arguments, &helper::long_options(&Arguments::command())) {
        Ok(asked) => asked,
        Err(text) => {
            complain(&text);
            return helper::EXIT_USAGE;
        }
    };
    match run_line(asked.arguments, asked.is_fake) {
        0 => 0,
        code if code == Exit::Usage.code() => helper::EXIT_USAGE,
        _ => helper::EXIT_FAILED,
    }
}

/// Runs the program; stops short of mounting if it `is_fake`.
fn run_line(arguments: Vec<OsString>, is_fake: bool) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help is not an error and goes to standard output. If writing fails, there is nowhere to report it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Complete.code() };
        }
    };
    let json = arguments.globals.json;
    match arguments.mount(is_fake) {
        Ok(code) => code,
        Err(failure) if json => {
            output::fail(json, failure.exit(), failure.diagnosis(), &failure.to_string());
            failure.exit().code()
        }
        Err(failure) => {
            complain(&failure.to_string());
            failure.exit().code()
        }
    }
}

fn complain(text: &str) {
    // If standard error cannot be written, there is nowhere to report it.
    let _ = writeln!(io::stderr(), "bygone-mount: {}", output::one_line(text));
}

impl Arguments {
    fn mount(&self, is_fake: bool) -> Result<u8, Failure> {
        // Before anything is opened: see `take_descriptor`.
        let descriptor = self.ready_fd.map(announce::take_descriptor).transpose()?;
        if self.stats {
            return self.show_stats();
        }
        // A program that reads a file should not have to wait a quarter of an hour for an error.
        let retry_for = self.globals.retry_for.or(Some(self.reading.read_timeout));
        let globals = Globals { retry_for, ..self.globals.clone() };
        let settings = Settings::resolve(&globals, Environment::of_this_process())?;
        let locations = settings.locations()?;
        let mut options = Options::parse(self.options.iter().map(String::as_str))?;
        options.allow_other |= self.allow_other;
        self.wanted.shown(now())?;
        let point = mountpoint::check(&self.mountpoint, &locations.directories())?;
        // The background process changes its directory, after which a relative path would lead elsewhere.
        let absolute = |path: &Option<PathBuf>| path.as_deref().map(std::path::absolute).transpose();
        let log = absolute(&self.log).map_err(log_refused)?;
        let here = || Failure::machine("find", "the current directory");
        let announcer = Announcer {
            descriptor,
            socket: settings.environment.notify_socket.clone().map(PathBuf::from),
            pid_file: absolute(&self.pid_file).map_err(here())?.map(PidFile::new),
        };
        let stats_file = absolute(&self.stats_file).map_err(here())?;
        let watch = Arc::new(Watch::new());
        let place = settings.place(&watch)?;
        drop(Repository::find(&place)?);
        let secret = settings.passphrase(Purpose::Open, &watch)?;
        let way = Way { settings: settings.clone(), options, log, announcer, stats_file, watch: Arc::clone(&watch) };
        if self.foreground || is_fake {
            let repository = Repository::open(&place, &secret)?;
            if is_fake {
                return Ok(Exit::Complete.code());
            }
            return self.serve(&repository, &point, way, None);
        }
        // A store may have threads and connections, which do not survive a fork, so the child opens its own.
        drop(place);
        match daemon::split().map_err(Failure::machine("start", "a process"))? {
            Side::Parent(code) => Ok(code),
            Side::Child(parent) => {
                let repository = Repository::open(&settings.place(&watch)?, &secret)?;
                self.serve(&repository, &point, way, Some(parent))
            }
        }
    }

    /// Mounts, and waits until the mount ends.
    fn serve(&self, repository: &Repository, point: &Path, way: Way, parent: Option<Parent>) -> Result<u8, Failure> {
        let Way { settings, options, log, mut announcer, stats_file, watch } = way;
        let log = match (&log, &parent) {
            (Some(path), _) => Log::to_file(path),
            (None, Some(_)) => Log::to_file(&repository.catalog_dir().join(LOG_FILE)),
            (None, None) => Ok(Log::to_stderr()),
        };
        let log = Arc::new(log.map_err(log_refused)?);
        // A background process has left the terminal that it was started from.
        let terminal = parent.is_none().then(Terminal::here);
        let reloaded = settings.clone();
        let reload_log = Arc::clone(&log);
        let reload = move || {
            if let Err(failure) = reloaded.reload_limits() {
                reload_log.line(&format!("the limits stay as they were: {failure}"));
            }
        };
        let events = unbounded();
        // Before mounting, so that a signal right after it does not leave a dead mount.
        let listen = signals::forward(events.0.clone(), terminal, reload);
        listen.map_err(Failure::machine("listen to", "signals"))?;
        let shown = self.wanted.shown(now())?;
        let (cache_base, is_far) = (settings.cache_base()?, repository.store().is_far());
        let reading = self.reading.fetching(&cache_base, repository.catalog_dir(), is_far, &log);
        let links = Links { log, watch, sender: events.0, events: events.1 };
        let mut session = Session::mount(repository, point, options, shown, reading, links)?;
        let address = repository.store().address();
        let ready = stats_file.map_or(Ok(()), |path| {
            let failed = Failure::machine("write", path.display().to_string());
            session.keep_stats_file(path).map_err(failed)
        });
        let ready = ready.and_then(|()| announcer.ready(&address, point)).and_then(|()| {
            self.say(&address, point);
            parent.map_or(Ok(()), Parent::release).map_err(Failure::machine("go to", "the background"))
        });
        if let Err(failure) = ready {
            session.unmount()?;
            return Err(failure);
        }
        session.wait(|| announcer.stopping()).map(|()| Exit::Complete.code())
    }

    /// Shows the numbers of an existing mount.
    fn show_stats(&self) -> Result<u8, Failure> {
        let report = Report::of(&self.mountpoint)?;
        let mut output = Output::new(self.globals.json);
        if self.globals.json {
            output.value(&report)?;
        } else {
            report.lines().iter().try_for_each(|line| output.line(line))?;
        }
        output.flush()?;
        Ok(Exit::Complete.code())
    }

    fn say(&self, address: &str, point: &Path) {
        let mut output = Output::new(self.globals.json);
        let point = point.to_string_lossy();
        let outcome = if self.globals.json {
            output.value(&BTreeMap::from([("repository", address), ("mounted", &*point)]))
        } else if self.globals.quiet {
            Ok(())
        } else {
            output.line(&output::one_line(&format!("mounted {address} at {point}")))
        };
        // The mount works, whether or not its line can be written.
        let _ = outcome.and_then(|()| output.flush());
    }
}

fn log_refused(error: io::Error) -> Failure {
    Failure::Refused(format!("cannot open the log: {error}: choose another file with --log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn mount_options_may_share_one_o_or_have_their_own() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap();
        let arguments = parse("bygone-mount -r /repo -f -o allow_other,noexec -o ro /mnt --quiet");
        assert_eq!(arguments.options, ["allow_other", "noexec", "ro"]);
        assert!(arguments.foreground && arguments.globals.quiet);
        assert_eq!(arguments.mountpoint, Path::new("/mnt"));
    }
}

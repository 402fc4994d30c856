//! The command line of `bygone`: its options and commands, one file each.

mod accept_loss;
mod affected;
mod alarms;
mod backup;
mod cache;
mod cat;
mod check;
mod copy;
mod dump;
mod init;
mod key;
mod lock;
mod ls;
mod pin;
mod recover;
mod repair;
mod restore;
mod snapshots;
mod sources;
mod stream;
mod summary;
#[cfg(test)]
pub(crate) mod testing;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use clap::Parser;
use clap::Subcommand;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;

use bygone_cli::clock;
use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::settings::Settings;
use bygone_cli::settings::environment::Environment;
use bygone_cli::settings::globals::Globals;
use bygone_cli::terminal::output;
use bygone_cli::terminal::output::Output;
use bygone_cli::terminal::progress::Progress;
use bygone_cli::terminal::signals;
use bygone_core::entry::Time;
use bygone_core::read::View;
use bygone_core::repo::Repository;
use bygone_core::snapshot::Snapshot;
use bygone_core::watch::Watch;

/// Memory for decoded frames in restore and cat: blocks read in order need little, hard links and copies profit.
const READ_CACHE_BYTES: usize = 64 << 20;

const AFTER_HELP: &str = "\
SNAP selects a snapshot: the first digits of its id (at least 4), latest, latest~N (the Nth before
the latest), or a time, which selects the newest snapshot that is not later: 2026-03-01,
2026-03-01T10:20, 2026-03-01T10:20:30, or an age such as 90m, 12h, 3d, 2w or 1y. SNAP:PATH selects
a path in that snapshot: latest:/etc.

Exit codes:
   0  complete                      11  locked
   1  failed                        12  wrong key
   2  usage                         13  the store disagrees with the catalog
   3  snapshot made, but some       14  damaged data found
      sources could not be read    130  interrupted
  10  no such repository

Commands keep ending with 13 until the store is intact again or the loss is accepted with
`bygone accept-loss`. A backup that ends with 13 has made a snapshot if its output names one.";

/// Every past version of your files, in a directory.
///
/// A repository is a store of sealed volumes; a catalog on this machine lists what is in them. All times are UTC, in
/// output and in arguments.
#[derive(Debug, Parser)]
#[command(name = "bygone", version, disable_help_subcommand = true)]
#[command(after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    /// If another bygone is using this machine's catalog, wait up to DURATION for it to end: 30s, 10m, 2h (default: do
    /// not wait, end with 11)
    #[arg(long, global = true, value_name = "DURATION", value_parser = lock::parse_wait)]
    #[arg(help_heading = "Global options")]
    wait_lock: Option<Duration>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Backup(sources::Args),
    Snapshots(snapshots::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Restore(restore::Args),
    Pin(pin::Args),
    Cache(cache::Args),
    Check(check::Args),
    Affected(affected::Args),
    Recover(recover::Args),
    AcceptLoss(accept_loss::Args),
    Copy(copy::Args),
    /// Update this machine's catalog from the store, then mirror the repository to a second store, as copy does
    Sync(copy::Args),
    Key(key::Args),
    CatalogDump(dump::Args),
}

/// What every command gets.
pub(crate) struct Context {
    /// What the command line, the configuration and the environment say.
    pub(crate) settings: Settings,
    /// How long to wait for another process that holds the lock.
    pub(crate) wait_lock: Duration,
    /// Where results go.
    pub(crate) output: Output,
    /// Counters of progress, and cancellation.
    pub(crate) watch: Arc<Watch>,
    /// When the command began.
    pub(crate) now: Time,
    /// The same, for measuring durations.
    pub(crate) began: Instant,
}

impl Context {
    /// Opens the repository for reading.
    fn open(&self) -> Result<Repository> {
        self.settings.open(&self.watch)
    }

    /// Shows progress until the returned value is dropped.
    fn progress(&self) -> Progress {
        let Settings { quiet, json, no_progress, .. } = self.settings;
        Progress::show(&self.watch, !quiet && !json && !no_progress)
    }

    /// How long the command has been running.
    fn seconds(&self) -> f64 {
        // To the millisecond: more digits mean nothing.
        (self.began.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0
    }

    /// Writes a warning: it does not stop the command.
    fn warn(&self, text: &str) {
        output::warn(self.settings.json, text);
    }

    /// Writes a line for people, unless the output is quiet or JSON.
    fn say(&mut self, text: &str) -> Result<()> {
        if self.settings.quiet || self.settings.json { Ok(()) } else { self.output.line(text) }
    }
}

/// All snapshots, oldest first.
fn snapshots_of(view: &View) -> Result<Vec<Snapshot>> {
    Ok(view.snapshots()?.into_iter().map(|row| row.snapshot).collect())
}

/// The program: reads the command line of this process and runs it.
pub fn main_entry() -> ExitCode {
    ExitCode::from(run(env::args_os()).code())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => {
            if json {
                let text = error.render().to_string();
                let line = text.lines().next().unwrap_or_default();
                output::fail(json, Exit::Usage, None, line.strip_prefix("error: ").unwrap_or(line));
            } else {
                let _ = error.print();
            }
            return Exit::Usage;
        }
        Err(help) => {
            // A reader may close the help before its end.
            let _ = help.print();
            return Exit::Complete;
        }
    };
    let json = parsed.globals.json;
    let failed = |failure: Failure| {
        output::fail(json, failure.exit(), failure.diagnosis(), &failure.to_string());
        failure.exit()
    };
    let settings = match Settings::resolve(&parsed.globals, Environment::of_this_process()) {
        Ok(settings) => settings,
        Err(failure) => return failed(failure),
    };
    let watch = Arc::new(Watch::new());
    let reloaded = settings.clone();
    let prepared =
        signals::cancel_on_signal(&watch, move || reload(&reloaded)).map_err(Failure::machine("wait for", "signals"));
    raise_descriptor_limit();
    watch.tell_trouble(move |news| output::warn(json, &news.to_string()));
    let (now, began) = (clock::now(), Instant::now());
    let wait_lock = parsed.wait_lock.unwrap_or_default();
    let mut context = Context { output: Output::new(json), settings, wait_lock, watch, now, began };
    let done = prepared.and_then(|()| parsed.command.run(&mut context));
    let flushed = context.output.flush();
    match done.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit,
        Err(failure) => failed(failure),
    }
}

/// Takes the limits from the configuration as it is now; if it cannot be read, they stay as they are.
fn reload(settings: &Settings) {
    if let Err(failure) = settings.reload_limits() {
        output::warn(settings.json, &format!("the limits stay as they were: {failure}"));
    }
}

impl Command {
    fn run(&self, context: &mut Context) -> Result<Exit> {
        match self {
            Command::Init(args) => init::run(args, context),
            Command::Backup(args) => backup::run(args, context),
            Command::Snapshots(args) => snapshots::run(args, context),
            Command::Ls(args) => ls::run(args, context),
            Command::Cat(args) => cat::run(args, context),
            Command::Restore(args) => restore::run(args, context),
            Command::Pin(args) => pin::run(args, context),
            Command::Cache(args) => cache::run(args, context),
            Command::Check(args) => check::run(args, context),
            Command::Affected(args) => affected::run(args, context),
            Command::Recover(args) => recover::run(args, context),
            Command::AcceptLoss(args) => accept_loss::run(args, context),
            Command::Copy(args) => copy::run(args, context),
            Command::Sync(args) => copy::run_sync(args, context),
            Command::Key(args) => key::run(args, context),
            Command::CatalogDump(args) => dump::run(args, context),
        }
    }
}

/// Raises the limit of open files to what the system allows, because a shell's default may be very low.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If this is refused, the limit stays as it is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
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
    fn options_of_every_command_stand_before_and_after_its_name() {
        for line in [["bygone", "-r", "/r", "snapshots"], ["bygone", "snapshots", "-r", "/r"]] {
            let parsed = Arguments::try_parse_from(line).unwrap();
            assert_eq!(parsed.globals.repo, Some("/r".into()));
        }
    }
}

//! The command line of `bygone-mount`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bygone_agent::exit::Exit;
use bygone_agent::exit::Failure;
use bygone_agent::output;
use bygone_agent::output::Output;
use bygone_agent::passphrase::Purpose;
use bygone_agent::settings::Globals;
use bygone_agent::settings::now;
use bygone_agent::signals::Terminal;
use bygone_core::repo::Repository;
use bygone_core::watch::Watch;
use clap::Parser;

use crate::daemon;
use crate::daemon::Parent;
use crate::daemon::Side;
use crate::log::Log;
use crate::mountpoint;
use crate::options::Options;
use crate::session::Session;
use crate::signals;
use crate::trouble::Trouble;
use crate::wanted::Wanted;

/// Name of the log in the catalog directory.
const LOG_FILE: &str = "mount.log";
/// How long a read waits for a store that does not answer, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows every snapshot of a repository as a read-only file tree.
///
/// MOUNTPOINT/latest is the newest snapshot; all are in snapshots/, and by host and tag in hosts/ and tags/. at/TIME is the
/// newest one not later than TIME: at/2026-03-01, at/3d, at/yesterday. versions/PATH has every version of a file,
/// deleted/PATH the last copy of what has vanished, and changes/SNAPSHOT what a snapshot changed. Files are fetched and decrypted as they are read, and new snapshots appear as they are made.
/// `umount MOUNTPOINT` ends it.
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
    /// Let other users look too, as far as the permissions in the snapshots let them (always so for root)
    #[arg(long)]
    allow_other: bool,
    /// Mount options as in /etc/fstab: allow_other, noexec
    #[arg(short = 'o', value_name = "OPT", value_delimiter = ',')]
    options: Vec<String>,
    /// Append trouble to FILE, default mount.log beside the catalog, or standard error in the foreground
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    globals: Globals,
}

/// Runs the program with `arguments` (the first is its name) and returns its exit code. Called first of all in a process,
/// because going to the background forks.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help is no error and goes to standard output. Nobody is left to tell that neither can be written.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.code() } else { Exit::Complete.code() };
        }
    };
    let json = arguments.globals.json;
    match arguments.mount() {
        Ok(code) => code,
        Err(trouble) if json => {
            output::fail(json, trouble.exit(), None, &trouble.to_string());
            trouble.exit().code()
        }
        Err(trouble) => {
            let _ = writeln!(io::stderr(), "bygone-mount: {}", output::one_line(&trouble.to_string()));
            trouble.exit().code()
        }
    }
}

impl Arguments {
    fn mount(&self) -> Result<u8, Trouble> {
        let mut options = Options::parse(self.options.iter().map(String::as_str))?;
        options.allow_other |= self.allow_other;
        self.wanted.shown(now())?;
        let point = mountpoint::check(&self.mountpoint, &self.globals.locations()?.directories())?;
        // A relative path means nothing any more once the process has left its directory.
        let log = self.log.as_deref().map(std::path::absolute).transpose().map_err(log_trouble)?;
        let watch = Arc::new(Watch::new());
        // A program that reads a file cannot be told to wait for a quarter of an hour.
        let retry_for = self.globals.retry_for.or(Some(PATIENCE));
        let globals = Globals { retry_for, ..self.globals.clone() };
        let place = globals.place(&watch)?;
        drop(Repository::find(&place)?);
        let secret = globals.passphrase(Purpose::Open, &watch)?;
        if self.foreground {
            let repository = Repository::open(&place, &secret)?;
            return self.serve(&repository, &point, options, log.as_deref(), None);
        }
        // A store may have threads and connections, which do not survive a fork: the child opens its own.
        drop(place);
        match daemon::split().map_err(Failure::machine("start", "a process"))? {
            Side::Parent(code) => Ok(code),
            Side::Child(parent) => {
                let repository = Repository::open(&globals.place(&watch)?, &secret)?;
                self.serve(&repository, &point, options, log.as_deref(), Some(parent))
            }
        }
    }

    /// Mounts and waits for the end.
    fn serve(
        &self,
        repository: &Repository,
        point: &Path,
        options: Options,
        log: Option<&Path>,
        parent: Option<Parent>,
    ) -> Result<u8, Trouble> {
        let log = match (log, &parent) {
            (Some(path), _) => Log::to_file(path),
            (None, Some(_)) => Log::to_file(&repository.catalog_dir().join(LOG_FILE)),
            (None, None) => Ok(Log::to_stderr()),
        };
        let log = Arc::new(log.map_err(log_trouble)?);
        let session = Session::mount(repository, point, options, self.wanted.shown(now())?, Arc::clone(&log))?;
        // In the background the terminal of the beginning means nothing.
        let terminal = parent.is_none().then(Terminal::here);
        let globals = self.globals.clone();
        let reload = move || {
            if let Err(failure) = globals.set_limits() {
                log.line(&format!("the limits stay as they were: {failure}"));
            }
        };
        let ready = signals::forward(session.sender(), terminal, reload).and_then(|()| {
            self.say(&repository.store().address(), point);
            parent.map_or(Ok(()), Parent::release)
        });
        if let Err(error) = ready {
            session.unmount()?;
            return Err(Failure::machine("go to", "the background")(error).into());
        }
        session.wait().map(|()| Exit::Complete.code())
    }

    fn say(&self, address: &str, point: &Path) {
        let mut output = Output::new(self.globals.json);
        let point = point.to_string_lossy();
        let said = if self.globals.json {
            output.value(&BTreeMap::from([("repository", address), ("mounted", &*point)]))
        } else if self.globals.quiet {
            Ok(())
        } else {
            output.line(&output::one_line(&format!("mounted {address} at {point}")))
        };
        // The mount is there, whether or not it can be said.
        let _ = said.and_then(|()| output.flush());
    }
}

fn log_trouble(error: io::Error) -> Trouble {
    Trouble::Mount(format!("cannot open the log: {error}: choose another file with --log"))
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
    fn mount_options_come_together_or_one_by_one() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap();
        let arguments = parse("bygone-mount -r /repo -f -o allow_other,noexec -o ro /mnt --quiet");
        assert_eq!(arguments.options, ["allow_other", "noexec", "ro"]);
        assert!(arguments.foreground && arguments.globals.quiet);
        assert_eq!(arguments.mountpoint, Path::new("/mnt"));
    }
}

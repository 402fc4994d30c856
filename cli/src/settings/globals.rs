//! The global options, which may stand before or after the name of a command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::settings::units::Parallel;
use crate::settings::units::Rate;
use crate::settings::units::parse_parallel;
use crate::settings::units::parse_patience;
use crate::settings::units::parse_rate;

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Repository: a directory (PATH or file:PATH), a bucket (s3://BUCKET/PREFIX) or rclone:REMOTE:PATH
    /// [env: BYGONE_REPO]
    ///
    /// A bucket's address may end with ?endpoint=URL&region=NAME&style=path|host&profile=NAME&ca=FILE&stall=SECONDS&part=SIZE.
    /// Keys, and settings that the address leaves out, come from the AWS variables and files.
    #[arg(short, long, global = true, value_name = "URL")]
    pub repo: Option<OsString>,
    /// Read the passphrase from a file, without its final line end [env: BYGONE_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "passphrase_command")]
    pub passphrase_file: Option<PathBuf>,
    /// Take the passphrase from the output of a shell command [env: BYGONE_PASSPHRASE_COMMAND]
    ///
    /// If neither this option nor --passphrase-file nor their variables are set, the passphrase is the value of the
    /// variable BYGONE_PASSPHRASE. If that is not set either, bygone asks for it.
    #[arg(long, global = true, value_name = "COMMAND")]
    pub passphrase_command: Option<OsString>,
    /// Keep catalogs under DIR (default: $XDG_STATE_HOME/bygone or ~/.local/state/bygone) [env: BYGONE_CATALOG_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub catalog_dir: Option<PathBuf>,
    /// Keep caches under DIR (default: $XDG_CACHE_HOME/bygone or ~/.cache/bygone) [env: BYGONE_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Take settings that are not given here from [profile.NAME] in ~/.config/bygone/config.toml
    ///
    /// A profile overrides environment variables, and those override the section `defaults` of the same file.
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Send at most RATE bytes a second to the store: 500k, 2M, or none for no limit
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub limit_upload: Option<Rate>,
    /// Fetch at most RATE bytes a second from the store: 500k, 2M, or none for no limit
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub limit_download: Option<Rate>,
    /// Run N transfers at a time, 1 to 32 (default: depends on the store)
    #[arg(long, global = true, value_name = "N", value_parser = parse_parallel)]
    pub parallel: Option<Parallel>,
    /// Keep retrying for TIME during an outage of a store that is not on this machine: 0, 90s, 15m, 2h [default: 15m]
    /// [env: BYGONE_RETRY_FOR]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_patience)]
    pub retry_for: Option<Duration>,
    /// Print only results, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more detail
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print results as JSON on standard output, errors and warnings as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not show progress on the terminal
    #[arg(long, global = true)]
    pub no_progress: bool,
}

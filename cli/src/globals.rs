//! The options of every command, before and after its name.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::units::Parallel;
use crate::units::Rate;
use crate::units::parse_parallel;
use crate::units::parse_patience;
use crate::units::parse_rate;

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Globals {
    /// The repository: a directory, as PATH or file:PATH; a bucket, as s3://BUCKET/PREFIX; or rclone:REMOTE:PATH
    /// [env: BYGONE_REPO]
    ///
    /// A bucket's address may end with ?endpoint=URL&region=NAME&style=path|host&profile=NAME&ca=FILE&stall=SECONDS&part=SIZE.
    /// Keys, and what the address leaves open, come from the AWS variables and files.
    #[arg(short, long, global = true, value_name = "URL")]
    pub repo: Option<OsString>,
    /// Take the passphrase from a file, without its final line end [env: BYGONE_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "passphrase_command")]
    pub passphrase_file: Option<PathBuf>,
    /// Take the passphrase from what a shell command prints [env: BYGONE_PASSPHRASE_COMMAND]
    ///
    /// Without this option, without --passphrase-file and without their variables, the passphrase is that of the
    /// variable BYGONE_PASSPHRASE; without that one it is asked for.
    #[arg(long, global = true, value_name = "COMMAND")]
    pub passphrase_command: Option<OsString>,
    /// Keep catalogs below DIR, default $XDG_STATE_HOME/bygone or ~/.local/state/bygone [env: BYGONE_CATALOG_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub catalog_dir: Option<PathBuf>,
    /// Keep caches below DIR, default $XDG_CACHE_HOME/bygone or ~/.cache/bygone [env: BYGONE_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Take what is not said here from [profile.NAME] in ~/.config/bygone/config.toml
    ///
    /// A profile is stronger than environment variables, and those are stronger than the section "defaults" in the same file.
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Send at most RATE bytes a second to the store: 500k, 2M, or none
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub limit_upload: Option<Rate>,
    /// Fetch at most RATE bytes a second from the store
    #[arg(long, global = true, value_name = "RATE", value_parser = parse_rate)]
    pub limit_download: Option<Rate>,
    /// Make N transfers at a time, 1 to 32; otherwise the store decides
    #[arg(long, global = true, value_name = "N", value_parser = parse_parallel)]
    pub parallel: Option<Parallel>,
    /// How long an outage of a store that is not on this machine may last, such as 90s, 15m or 2h [default: 15m]
    /// [env: BYGONE_RETRY_FOR]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_patience)]
    pub retry_for: Option<Duration>,
    /// Say nothing but results, warnings and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Results as JSON on standard output, errors and warnings as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress on the terminal
    #[arg(long, global = true)]
    pub no_progress: bool,
}

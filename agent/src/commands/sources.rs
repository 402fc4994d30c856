//! What a backup is asked for: the options of `bygone backup`, and what follows from them before anything is opened.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::settings::BackupSettings;
use bygone_cli::settings::units::parse_size;
use bygone_cli::when::parse_instant;
use bygone_core::diagnosis::Diagnosis;
use bygone_core::entry::Name;
use bygone_core::entry::Time;
use bygone_core::error::Error;
use bygone_core::facts::Facts;
use bygone_core::facts::RunRules;
use bygone_core::limits;

use crate::backup::Options;
use crate::backup::Roots;
use crate::backup::Rules;
use crate::commands::Context;
use crate::exclude::BadPattern;
use crate::exclude::Excludes;
use crate::exclude::pattern_lines;
use crate::mounts::mounts;

/// Back up files as a new snapshot
///
/// A PATTERN without a slash matches names at any depth; one that starts with a slash matches paths from the root;
/// `*`, `?` and `[a-z]` match within one name, and `**` matches any number of directories. A match is left out with
/// everything below it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Paths to back up (default: `paths` in the configuration file)
    #[arg(value_name = "PATH", conflicts_with = "stdin")]
    pub(super) paths: Vec<PathBuf>,
    /// Add a tag to the snapshot; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Vec<String>,
    /// Describe the snapshot; `snapshots` shows the text with --verbose and --json
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// Host name to record in the snapshot (default: that of this machine)
    #[arg(long, value_name = "HOST")]
    pub(super) host: Option<String>,
    /// Leave out paths that match PATTERN
    #[arg(long, value_name = "PATTERN")]
    pub(super) exclude: Vec<OsString>,
    /// Leave out paths that match a pattern in FILE: one pattern a line, lines starting with # are ignored
    #[arg(long, value_name = "FILE")]
    pub(super) exclude_file: Vec<PathBuf>,
    /// Stay on the file system of each given path; what another given path names there is taken
    #[arg(short = 'x', long)]
    pub(super) one_file_system: bool,
    /// Leave out the content of directories that a valid CACHEDIR.TAG marks as caches
    #[arg(long)]
    pub(super) exclude_caches: bool,
    /// Leave out the content of directories that contain an entry called NAME
    #[arg(long, value_name = "NAME")]
    pub(super) exclude_if_present: Vec<OsString>,
    /// Leave out files larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) exclude_larger_than: Option<u64>,
    /// Back up standard input as the file NAME in the root of the snapshot
    #[arg(long, value_name = "NAME")]
    pub(super) stdin: Option<OsString>,
    /// Run a program and back up its output as the file NAME: --command dump.sql -- pg_dump shop; no snapshot is made if
    /// the program ends with anything but 0
    #[arg(long, value_name = "NAME", requires = "paths")]
    #[arg(conflicts_with_all = ["stdin", "dry_run"])]
    pub(super) command: Option<OsString>,
    /// Back up a path that is empty now although the snapshot before has something in it
    #[arg(long)]
    pub(super) allow_empty: bool,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "stdin")]
    pub(super) dry_run: bool,
    /// Read every file, even if it has not changed since the parent snapshot
    #[arg(long)]
    pub(super) force: bool,
    /// Take a file as unchanged even if its change time differs
    #[arg(long)]
    pub(super) ignore_ctime: bool,
    /// Take a file as unchanged even if its inode number differs
    #[arg(long)]
    pub(super) ignore_inode: bool,
    /// Compare with this snapshot (default: the newest one of this host and these paths)
    #[arg(long, value_name = "SNAP")]
    pub(super) parent: Option<String>,
    /// Time of the snapshot
    #[arg(long, value_name = "TIME", hide = true, value_parser = parse_instant)]
    pub(super) time: Option<Time>,
}

/// What to back up.
pub(super) enum What {
    Files(Roots, Box<Options>),
    Stdin(Name),
    /// The output of a program.
    Program(Name, Vec<PathBuf>),
}

/// Fails if something that should be mounted is not.
pub(super) fn check_mounts(required: &[PathBuf]) -> Result<()> {
    if required.is_empty() {
        return Ok(());
    }
    let mounts = mounts().map_err(Failure::machine("list", "the mounts of this machine"))?;
    let is_mounted = |path: &PathBuf| {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        mounts.iter().any(|mount| mount.point == real.as_os_str().as_bytes())
    };
    match required.iter().find(|path| !is_mounted(path)) {
        None => Ok(()),
        Some(path) => {
            let detail = "nothing is mounted there, and the configuration requires it (require-mount): mount it; no \
                          snapshot was made";
            Err(Error::disagree(Diagnosis::SourceEmpty, path.display(), detail).into())
        }
    }
}

/// Refuses labels that the format would refuse at the end, before anything is read.
pub(super) fn check_labels(args: &Args) -> Result<()> {
    let too_long = args.tag.iter().chain(&args.host).find(|label| label.len() > limits::LABEL_BYTES_MAX);
    if let Some(label) = too_long {
        let max = limits::LABEL_BYTES_MAX;
        return Err(Failure::Usage(format!(
            "{}...: a tag or host name has at most {max} bytes",
            label.escape_debug().take(20).collect::<String>()
        )));
    }
    let max = limits::DESCRIPTION_BYTES_MAX;
    if args.description.as_ref().is_some_and(|text| text.len() > max) {
        return Err(Failure::Usage(format!("a description has at most {max} bytes")));
    }
    if args.tag.len() > limits::SNAPSHOT_PATHS_MAX {
        return Err(Failure::Usage(format!("a snapshot has at most {} tags", limits::SNAPSHOT_PATHS_MAX)));
    }
    Ok(())
}

pub(super) fn what(args: &Args, context: &Context) -> Result<(What, Facts)> {
    for (option, name) in [("--stdin", &args.stdin), ("--command", &args.command)] {
        let Some(name) = name else { continue };
        let refused = |e| Failure::Usage(format!("{option} {}: {e}", name.to_string_lossy()));
        let facts = Facts { description: args.description.clone(), ..Facts::default() };
        let name = Name::new(name.as_bytes()).map_err(refused)?;
        let what = if args.stdin.is_some() { What::Stdin(name) } else { What::Program(name, args.paths.clone()) };
        return Ok((what, facts));
    }
    let setting = &context.settings.backup;
    let paths = if args.paths.is_empty() { &setting.paths } else { &args.paths };
    if paths.is_empty() {
        let text = "nothing to back up: name a PATH, or set `paths` in the configuration file (see --profile)";
        return Err(Failure::Usage(text.to_owned()));
    }
    let patterns = patterns(args, setting)?;
    let bad = |bad: BadPattern| Error::Invalid { what: bad.to_string() };
    let options = Options {
        rules: Rules {
            excludes: Excludes::new(patterns.iter().map(Vec::as_slice)).map_err(bad)?,
            caches: args.exclude_caches || setting.exclude_caches,
            if_present: args.exclude_if_present.iter().map(|name| name.clone().into_vec()).collect(),
            larger_than: args.exclude_larger_than,
            one_file_system: args.one_file_system || setting.one_file_system,
        },
        force: args.force,
        ignore_ctime: args.ignore_ctime,
        ignore_inode: args.ignore_inode,
        own_directories: context.settings.locations()?.directories(),
    };
    let facts = Facts {
        sources: Some(paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect()),
        excludes: Some(patterns),
        rules: Some(run_rules(&options)),
        description: args.description.clone(),
        ..Facts::default()
    };
    let roots = Roots::new(context.settings.current_directory()?, paths)?.settle();
    Ok((What::Files(roots, Box::new(options)), facts))
}

/// The rules without the patterns, for the snapshot to say.
fn run_rules(options: &Options) -> RunRules {
    let Options { rules, force, ignore_ctime, ignore_inode, own_directories: _ } = options;
    let Rules { excludes: _, caches, if_present, larger_than, one_file_system } = rules;
    RunRules {
        caches: *caches,
        one_file_system: *one_file_system,
        force: *force,
        ignore_ctime: *ignore_ctime,
        ignore_inode: *ignore_inode,
        if_present: if_present.clone(),
        larger_than: *larger_than,
    }
}

/// The patterns of the configuration and of the command line, which adds to those that always apply.
fn patterns(args: &Args, setting: &BackupSettings) -> Result<Vec<Vec<u8>>> {
    let mut patterns: Vec<Vec<u8>> = setting.exclude.iter().map(|pattern| pattern.clone().into_bytes()).collect();
    patterns.extend(args.exclude.iter().map(|pattern| pattern.clone().into_vec()));
    for path in setting.exclude_file.iter().chain(&args.exclude_file) {
        let text = fs::read(path).map_err(Failure::machine("read the exclude file", path.display()))?;
        patterns.extend(pattern_lines(&text).map(<[u8]>::to_vec));
    }
    Ok(patterns)
}

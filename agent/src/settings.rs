//! Where the repository is and how it opens: options of every command, with the environment for what they leave open.
//!
//! The options are the same for `bygone` and `bygone-mount` and stand before or after the command's name. This and
//! `main` are the only places that read the environment or the clock; everything below is told.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use nix::unistd::User;
use nix::unistd::getuid;

use bygone_core::entry::Time;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::Address;
use bygone_core::store::parse_address;
use bygone_core::watch::Watch;

use crate::exit::Failure;
use crate::exit::Result;
use crate::passphrase;
use crate::passphrase::Purpose;
use crate::passphrase::Sources;

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Globals {
    /// The repository: a directory, as PATH or file:PATH [env: BYGONE_REPO]
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

/// Where a repository's parts are, before anything is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locations {
    /// Address of the store.
    pub address: Address,
    /// Where this machine keeps its catalogs.
    pub catalog_base: PathBuf,
    /// Where this machine keeps its caches.
    pub cache_base: PathBuf,
}

impl Locations {
    /// The directories of this machine that belong to bygone: not to be backed up, not to be mounted over.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut directories = vec![self.catalog_base.clone(), self.cache_base.clone()];
        match &self.address {
            Address::Local(store) => directories.push(store.clone()),
            Address::Rclone(_) => {}
        }
        directories
    }
}

/// What the environment says, read once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// BYGONE_REPO.
    pub repo: Option<OsString>,
    /// BYGONE_CATALOG_DIR.
    pub catalog_dir: Option<OsString>,
    /// BYGONE_CACHE_DIR.
    pub cache_dir: Option<OsString>,
    /// BYGONE_PASSPHRASE_FILE.
    pub passphrase_file: Option<OsString>,
    /// BYGONE_PASSPHRASE_COMMAND.
    pub passphrase_command: Option<OsString>,
    /// BYGONE_PASSPHRASE.
    pub passphrase: Option<OsString>,
    /// BYGONE_NEW_PASSPHRASE.
    pub new_passphrase: Option<OsString>,
    /// XDG_STATE_HOME.
    pub state_home: Option<OsString>,
    /// XDG_CACHE_HOME.
    pub cache_home: Option<OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// That of this process. A variable that is empty counts as not set, except for a passphrase: a script whose
    /// passphrase turns out to be empty must not end in a prompt.
    pub fn of_this_process() -> Environment {
        let get = |name| env::var_os(name).filter(|value| !value.is_empty());
        let home = || User::from_uid(getuid()).ok().flatten().map(|user| user.dir);
        Environment {
            repo: get("BYGONE_REPO"),
            catalog_dir: get("BYGONE_CATALOG_DIR"),
            cache_dir: get("BYGONE_CACHE_DIR"),
            passphrase_file: get("BYGONE_PASSPHRASE_FILE"),
            passphrase_command: get("BYGONE_PASSPHRASE_COMMAND"),
            passphrase: env::var_os("BYGONE_PASSPHRASE"),
            new_passphrase: env::var_os("BYGONE_NEW_PASSPHRASE"),
            state_home: get("XDG_STATE_HOME"),
            cache_home: get("XDG_CACHE_HOME"),
            home: get("HOME").map(PathBuf::from).or_else(home),
        }
    }

    /// A directory by our option's variable, by the XDG variable, or below the home directory.
    fn directory(&self, own: Option<&OsString>, xdg: Option<&OsString>, below_home: &str) -> Option<PathBuf> {
        // The XDG specification wants relative paths to be ignored.
        let xdg = xdg.map(Path::new).filter(|path| path.is_absolute()).map(|path| path.join("bygone"));
        let home = || self.home.as_ref().map(|home| home.join(below_home).join("bygone"));
        own.map(PathBuf::from).or(xdg).or_else(home)
    }
}

impl Globals {
    /// Where everything is.
    pub fn locations(&self) -> Result<Locations> {
        self.locations_in(&Environment::of_this_process())
    }

    /// Where everything is, in this environment.
    pub fn locations_in(&self, environment: &Environment) -> Result<Locations> {
        let repo = self.repo.as_ref().or(environment.repo.as_ref()).ok_or_else(|| {
            Failure::Usage("which repository? Name it with -r/--repo or with the variable BYGONE_REPO".into())
        })?;
        let repo = repo.to_str().ok_or_else(|| {
            Failure::Usage(format!("the repository's address {} is not UTF-8", repo.to_string_lossy()))
        })?;
        let state = environment.state_home.as_ref();
        let catalog = || environment.directory(environment.catalog_dir.as_ref(), state, ".local/state");
        let catalog = self.catalog_dir.clone().or_else(catalog).ok_or_else(|| no_home("--catalog-dir"))?;
        let caches = environment.cache_home.as_ref();
        let cache = || environment.directory(environment.cache_dir.as_ref(), caches, ".cache");
        let cache = self.cache_dir.clone().or_else(cache).ok_or_else(|| no_home("--cache-dir"))?;
        let absolute =
            |path: PathBuf| std::path::absolute(&path).map_err(Failure::machine("find the directory", path.display()));
        let address = match parse_address(repo)? {
            Address::Local(path) => Address::Local(absolute(path)?),
            elsewhere @ Address::Rclone(_) => elsewhere,
        };
        Ok(Locations { address, catalog_base: absolute(catalog)?, cache_base: absolute(cache)? })
    }

    /// The repository's place; its store exists.
    pub fn place(&self) -> Result<Place> {
        let Locations { address, catalog_base, .. } = self.locations()?;
        Ok(Place { store: address.open(&Arc::default())?, catalog_base })
    }

    /// The place of a repository that is about to be made; its store is made.
    pub fn new_place(&self) -> Result<Place> {
        let Locations { address, catalog_base, .. } = self.locations()?;
        Ok(Place { store: address.create(&Arc::default())?, catalog_base })
    }

    /// Opens the repository, asking for the passphrase if it must. Ends early if `watch` is cancelled meanwhile.
    pub fn open(&self, watch: &Watch) -> Result<Repository> {
        // First the store: nobody should type a passphrase only to hear that the disk is not there.
        let place = self.place()?;
        Ok(Repository::open(&place, &self.passphrase(Purpose::Open, watch)?)?)
    }

    /// The passphrase that opens the repository, or that a new one shall have.
    pub fn passphrase(&self, purpose: Purpose, watch: &Watch) -> Result<Secret> {
        passphrase::obtain(&self.passphrase_sources(&Environment::of_this_process()), purpose, watch, self.json)
    }

    /// Where the passphrase comes from: the command line is stronger than the environment.
    pub fn passphrase_sources(&self, environment: &Environment) -> Sources {
        let given =
            Sources { file: self.passphrase_file.clone(), command: self.passphrase_command.clone(), value: None };
        if given.file.is_some() || given.command.is_some() {
            return given;
        }
        Sources {
            file: environment.passphrase_file.clone().map(PathBuf::from),
            command: environment.passphrase_command.clone(),
            value: environment.passphrase.clone(),
        }
    }
}

fn no_home(option: &str) -> Failure {
    Failure::Usage(format!("this user has no home directory: say with {option} where to keep things"))
}

/// The clock.
pub fn now() -> Time {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Time { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() },
        // A clock before 1970 is a clock that was never set.
        Err(_) => Time::default(),
    }
}

/// The directory that relative paths are meant from.
pub fn current_directory() -> Result<PathBuf> {
    env::current_dir().map_err(Failure::machine("find", "the current directory"))
}

/// Name of this machine.
pub fn host() -> String {
    let name = fs::read("/proc/sys/kernel/hostname").or_else(|_| fs::read("/etc/hostname")).unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Name of the user who runs this, or their number.
pub fn user() -> String {
    User::from_uid(getuid()).ok().flatten().map_or_else(|| getuid().to_string(), |user| user.name)
}

/// Reads a number of bytes: `123`, `64K`, `64KiB` (powers of 1,024) or `64KB` (powers of 1,000), likewise M, G and T.
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let letter = unit.chars().next().map(|letter| letter.to_ascii_uppercase());
    let power = match letter {
        None | Some('B') => 0,
        Some('K') => 1,
        Some('M') => 2,
        Some('G') => 3,
        Some('T') => 4,
        _ => 5,
    };
    let base = match (power, unit.get(1..).unwrap_or_default()) {
        (0, "") => Some(1u64),
        (1..=4, "" | "iB" | "ib" | "i") => Some(1_024),
        (1..=4, "B" | "b") => Some(1_000),
        _ => None,
    };
    let bytes = base.zip(digits.parse::<u64>().ok());
    let bytes = bytes.and_then(|(base, count)| count.checked_mul(base.checked_pow(power)?));
    bytes.ok_or_else(|| format!("{text:?} is not a size: write 123, 64K, 1MiB or 2G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment { home: Some("/home/u".into()), ..Environment::default() }
    }

    fn globals(repo: &str) -> Globals {
        Globals { repo: Some(repo.into()), ..Globals::default() }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let good = [
            ("0", 0),
            ("123", 123),
            ("5B", 5),
            ("64K", 65_536),
            ("64k", 65_536),
            ("1MiB", 1 << 20),
            ("1 MiB", 1 << 20),
            ("2G", 2 << 30),
            ("3T", 3 << 40),
            ("500MB", 500_000_000),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "K", "-1", "1.5G", "1P", "1KiBs", "1Bx", "18446744073709551616", "99999999999T", "1 2", "\u{e9}"]
        {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_command_line_is_stronger_than_the_environment() {
        let environment = Environment {
            repo: Some("/env".into()),
            catalog_dir: Some("/env-catalog".into()),
            state_home: Some("/state".into()),
            ..environment()
        };
        let store = |globals: &Globals| globals.locations_in(&environment).unwrap().address;
        assert_eq!(store(&Globals::default()), Address::Local("/env".into()));
        assert_eq!(store(&globals("/line")), Address::Local("/line".into()));
        let base = |globals: &Globals| globals.locations_in(&environment).unwrap().catalog_base;
        assert_eq!(base(&Globals::default()), Path::new("/env-catalog"));
        assert_eq!(base(&Globals { catalog_dir: Some("/x".into()), ..Globals::default() }), Path::new("/x"));
    }

    #[test]
    fn catalog_and_cache_have_places_of_their_own_by_default() {
        let at_home = globals("file:/r").locations_in(&environment()).unwrap();
        let directories = ["/home/u/.local/state/bygone", "/home/u/.cache/bygone", "/r"].map(PathBuf::from);
        assert_eq!(at_home.directories(), directories);
        let relative = Environment { state_home: Some("state".into()), ..environment() };
        let base = globals("/r").locations_in(&relative).unwrap().catalog_base;
        assert_eq!(base, Path::new("/home/u/.local/state/bygone"), "a relative XDG variable is ignored");
        let absolute = Environment { state_home: Some("/state".into()), ..environment() };
        assert_eq!(globals("/r").locations_in(&absolute).unwrap().catalog_base, Path::new("/state/bygone"));
    }

    #[test]
    fn what_is_missing_is_asked_for_as_a_mistake_in_usage() {
        let told = Globals::default().locations_in(&environment()).unwrap_err();
        assert!(matches!(&told, Failure::Usage(text) if text.contains("BYGONE_REPO")), "{told}");
        let homeless = globals("/r").locations_in(&Environment::default()).unwrap_err();
        assert!(matches!(&homeless, Failure::Usage(text) if text.contains("--catalog-dir")), "{homeless}");
        assert!(globals("s3://bucket/x").locations_in(&environment()).is_err());
    }

    #[test]
    fn an_option_for_the_passphrase_silences_all_its_variables() {
        let environment = Environment {
            passphrase_file: Some("/file".into()),
            passphrase_command: Some("command".into()),
            passphrase: Some("value".into()),
            ..environment()
        };
        let line = Globals { passphrase_command: Some("pass show x".into()), ..Globals::default() };
        let sources = line.passphrase_sources(&environment);
        assert_eq!((sources.file, sources.value), (None, None), "the variables are weaker");
        assert_eq!(sources.command, Some("pass show x".into()));
        let sources = Globals::default().passphrase_sources(&environment);
        assert_eq!(sources.file, Some("/file".into()));
        assert_eq!(sources.value, Some("value".into()));
    }
}

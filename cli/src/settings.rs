//! Where the repository is and how it opens: options of every command, with the configuration and the environment for
//! what they leave open.
//!
//! The options are the same for `bygone` and `bygone-mount` and stand before or after the command's name. This and
//! `main` are the only places that read the environment or the clock; everything below is told.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use clap::Args;
use nix::unistd::User;
use nix::unistd::getuid;

use bygone_core::entry::Time;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::store::Address;
use bygone_core::store::Store;
use bygone_core::store::Surroundings;
use bygone_core::store::link::Limits;
use bygone_core::store::link::Link;
use bygone_core::store::parse_address;
use bygone_core::store::retry::PATIENCE_DEFAULT;
use bygone_core::watch::Watch;

use crate::access;
use crate::configuration;
use crate::configuration::Configuration;
use crate::configuration::Parallel;
use crate::configuration::Patience;
use crate::configuration::Rate;
use crate::configuration::Section;
use crate::configuration::parse_parallel;
use crate::configuration::parse_rate;
use crate::exit::Failure;
use crate::exit::Result;
use crate::passphrase;
use crate::passphrase::Purpose;
use crate::passphrase::Sources;

/// Options of every command.
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
    /// A profile overrides environment variables, and those override the section [defaults] of the same file.
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
    /// The way to the store: its limits may be changed at any time.
    #[arg(skip)]
    pub link: Arc<Link>,
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
            Address::Rclone(_) | Address::S3(_) => {}
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
    /// BYGONE_RETRY_FOR.
    pub retry_for: Option<OsString>,
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
    /// XDG_CONFIG_HOME.
    pub config_home: Option<OsString>,
    /// NOTIFY_SOCKET, where systemd waits to hear that a service is ready.
    pub notify_socket: Option<OsString>,
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
            retry_for: get("BYGONE_RETRY_FOR"),
            passphrase_file: get("BYGONE_PASSPHRASE_FILE"),
            passphrase_command: get("BYGONE_PASSPHRASE_COMMAND"),
            passphrase: env::var_os("BYGONE_PASSPHRASE"),
            new_passphrase: env::var_os("BYGONE_NEW_PASSPHRASE"),
            state_home: get("XDG_STATE_HOME"),
            cache_home: get("XDG_CACHE_HOME"),
            config_home: get("XDG_CONFIG_HOME"),
            notify_socket: get("NOTIFY_SOCKET"),
            home: get("HOME").map(PathBuf::from).or_else(home),
        }
    }

    /// Bygone's directory of a kind: by the XDG variable, or below the home directory.
    fn directory(&self, xdg: Option<&OsString>, below_home: &str) -> Option<PathBuf> {
        // The XDG specification wants relative paths to be ignored.
        let xdg = xdg.map(Path::new).filter(|path| path.is_absolute()).map(|path| path.join("bygone"));
        xdg.or_else(|| self.home.as_ref().map(|home| home.join(below_home).join("bygone")))
    }
}

impl Globals {
    /// Where everything is.
    pub fn locations(&self) -> Result<Locations> {
        self.locations_in(&Environment::of_this_process())
    }

    /// Where everything is, in this environment.
    pub fn locations_in(&self, environment: &Environment) -> Result<Locations> {
        let Configuration { profile, defaults } = self.configuration_in(environment)?;
        let repo = self.repo.clone().or(profile.repository.map(OsString::from));
        let repo = repo.or_else(|| environment.repo.clone()).or(defaults.repository.map(OsString::from));
        let repo = repo.ok_or_else(|| {
            let places = "-r/--repo, the variable BYGONE_REPO, or `repository` in ~/.config/bygone/config.toml";
            Failure::Usage(format!("no repository given: name it with {places}"))
        })?;
        let repo = repo.to_str().ok_or_else(|| {
            Failure::Usage(format!("the repository's address {} is not UTF-8", repo.to_string_lossy()))
        })?;
        let catalog = self.catalog_dir.clone().or(profile.catalog_dir);
        let catalog = catalog.or_else(|| environment.catalog_dir.clone().map(PathBuf::from)).or(defaults.catalog_dir);
        let catalog = catalog.or_else(|| environment.directory(environment.state_home.as_ref(), ".local/state"));
        let address = match parse_address(repo)? {
            Address::Local(path) => Address::Local(absolute(path)?),
            elsewhere @ (Address::Rclone(_) | Address::S3(_)) => elsewhere,
        };
        let catalog_base = absolute(catalog.ok_or_else(|| no_home("--catalog-dir"))?)?;
        Ok(Locations { address, catalog_base, cache_base: self.cache_base_in(environment)? })
    }

    /// Where this machine keeps its caches, whichever the repository.
    pub fn cache_base(&self) -> Result<PathBuf> {
        self.cache_base_in(&Environment::of_this_process())
    }

    fn cache_base_in(&self, environment: &Environment) -> Result<PathBuf> {
        let Configuration { profile, defaults } = self.configuration_in(environment)?;
        let cache = self.cache_dir.clone().or(profile.cache_dir);
        let cache = cache.or_else(|| environment.cache_dir.clone().map(PathBuf::from)).or(defaults.cache_dir);
        let cache = cache.or_else(|| environment.directory(environment.cache_home.as_ref(), ".cache"));
        absolute(cache.ok_or_else(|| no_home("--cache-dir"))?)
    }

    /// What the configuration file says.
    pub fn configuration(&self) -> Result<Configuration> {
        self.configuration_in(&Environment::of_this_process())
    }

    fn configuration_in(&self, environment: &Environment) -> Result<Configuration> {
        let profile = self.profile.as_deref();
        match environment.directory(environment.config_home.as_ref(), ".config") {
            Some(base) => {
                Configuration::read(&base.join(configuration::FILE_NAME), profile, environment.home.as_deref())
            }
            None if profile.is_some() => {
                let text =
                    "--profile: this user has no home directory: set XDG_CONFIG_HOME to where bygone/config.toml is";
                Err(Failure::Usage(text.to_owned()))
            }
            None => Ok(Configuration::default()),
        }
    }

    /// Sets the limits of the way to the store, as the command line and the configuration have them now.
    pub fn set_limits(&self) -> Result<()> {
        self.link.limit(self.limits_in(&self.configuration()?));
        Ok(())
    }

    /// The limits that count.
    pub fn limits_in(&self, configuration: &Configuration) -> Limits {
        let Configuration { profile, defaults } = configuration;
        let rate = |own: Option<Rate>, key: fn(&Section) -> Option<Rate>| {
            own.or(key(profile)).or(key(defaults)).and_then(|Rate(rate)| rate)
        };
        let parallel = self.parallel.or(profile.parallel).or(defaults.parallel);
        Limits {
            upload: rate(self.limit_upload, |section| section.limit_upload),
            download: rate(self.limit_download, |section| section.limit_download),
            transfers: parallel.map(|Parallel(count)| count),
        }
    }

    /// The repository's place. A directory exists; a bucket was not asked yet.
    pub fn place(&self, watch: &Arc<Watch>) -> Result<Place> {
        self.place_by(watch, Address::open)
    }

    /// The place of a repository that may lack what says that it is one.
    pub fn place_to_repair(&self, watch: &Arc<Watch>) -> Result<Place> {
        self.place_by(watch, Address::open_incomplete)
    }

    /// The place of a repository that is about to be made; a directory is made.
    pub fn new_place(&self, watch: &Arc<Watch>) -> Result<Place> {
        self.place_by(watch, Address::create)
    }

    fn place_by(
        &self,
        watch: &Arc<Watch>,
        open: impl FnOnce(&Address, &Surroundings<'_>) -> bygone_core::error::Result<Arc<dyn Store>>,
    ) -> Result<Place> {
        let Locations { address, catalog_base, .. } = self.locations()?;
        let store = self.store_by(watch, &address, open)?;
        Ok(Place { store, catalog_base })
    }

    /// A store, at the end of this machine's link: its limits count for a second store as well.
    pub fn store_by(
        &self,
        watch: &Arc<Watch>,
        address: &Address,
        open: impl FnOnce(&Address, &Surroundings<'_>) -> bygone_core::error::Result<Arc<dyn Store>>,
    ) -> Result<Arc<dyn Store>> {
        self.set_limits()?;
        let (link, s3_access) = (&self.link, &access::s3_access);
        let environment = Environment::of_this_process();
        let patience = self.patience(&environment, &self.configuration_in(&environment)?)?;
        Ok(open(address, &Surroundings { link, watch, patience, s3_access })?)
    }

    fn patience(&self, environment: &Environment, configuration: &Configuration) -> Result<Duration> {
        let Configuration { profile, defaults } = configuration;
        let of_section = |section: &Section| section.retry_for.map(|Patience(time)| time);
        let variable = || {
            let text = environment.retry_for.as_ref().map(|text| text.to_string_lossy().into_owned());
            text.map(|text| parse_patience(&text).map_err(|why| Failure::Usage(format!("BYGONE_RETRY_FOR: {why}"))))
        };
        let stronger = self.retry_for.or(of_section(profile));
        let said = stronger.map(Ok).or_else(variable).transpose()?.or(of_section(defaults));
        Ok(said.unwrap_or(PATIENCE_DEFAULT))
    }

    /// Opens the repository, asking for the passphrase if it must. Ends early if `watch` is cancelled meanwhile.
    pub fn open(&self, watch: &Arc<Watch>) -> Result<Repository> {
        // First the store: nobody should type a passphrase only to hear that the disk is not there.
        let found = Repository::find(&self.place(watch)?)?;
        Ok(found.open(&self.passphrase(Purpose::Open, watch)?)?)
    }

    /// The passphrase that opens the repository, or that a new one shall have.
    pub fn passphrase(&self, purpose: Purpose, watch: &Watch) -> Result<Secret> {
        let environment = Environment::of_this_process();
        let sources = self.passphrase_sources(&environment, self.configuration_in(&environment)?);
        passphrase::obtain(&sources, purpose, watch, self.json)
    }

    /// Where the passphrase comes from: the first place that names any source is the one.
    pub fn passphrase_sources(&self, environment: &Environment, configuration: Configuration) -> Sources {
        let of = |file: Option<PathBuf>, command: Option<OsString>| Sources { file, command, value: None };
        let of_section = |section: Section| of(section.passphrase_file, section.passphrase_command.map(OsString::from));
        let places = [
            of(self.passphrase_file.clone(), self.passphrase_command.clone()),
            of_section(configuration.profile),
            Sources {
                file: environment.passphrase_file.clone().map(PathBuf::from),
                command: environment.passphrase_command.clone(),
                value: environment.passphrase.clone(),
            },
            of_section(configuration.defaults),
        ];
        places.into_iter().find(|sources| *sources != Sources::default()).unwrap_or_default()
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(Failure::machine("find the directory", path.display()))
}

fn no_home(option: &str) -> Failure {
    Failure::Usage(format!("this user has no home directory: name a directory with {option}"))
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

/// Reads how long an outage may last: `90s`, `15m`, `2h` or `0`.
pub fn parse_patience(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(digits);
    let seconds = match unit {
        "" if digits == "0" => Some(0_u64),
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let time = seconds.zip(digits.parse::<u64>().ok()).and_then(|(unit, count)| unit.checked_mul(count));
    let time = time.filter(|seconds| *seconds <= 366 * 24 * 3_600).map(Duration::from_secs);
    time.ok_or_else(|| format!("{text:?} is not a time: write 90s, 15m, 2h or 0"))
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
mod tests;

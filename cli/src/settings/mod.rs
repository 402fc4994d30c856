//! All settings of one run, resolved once at its start.
//!
//! A setting may be given in several places. The order is: command line, profile, environment, `[defaults]` of the
//! configuration file, built-in default. [`Settings::resolve`] reads all of them, and nothing reads them later, with one
//! exception: on SIGHUP the limits are read again ([`Settings::reload_limits`]).
//!
//! Some commands need no address or home directory, so a missing one is an error only when a command asks for it.

pub mod configuration;
pub mod environment;
pub mod globals;
pub mod units;

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bygone_core::store::Address;
use bygone_core::store::link::Limits;
use bygone_core::store::link::Link;
use bygone_core::store::parse_address;
use bygone_core::store::retry::PATIENCE_DEFAULT;

use crate::exit::Failure;
use crate::exit::Result;
use crate::settings::configuration::Configuration;
use crate::settings::configuration::Section;
use crate::settings::environment::CurrentDirectory;
use crate::settings::environment::Environment;
use crate::settings::globals::Globals;
use crate::settings::units::Parallel;
use crate::settings::units::Patience;
use crate::settings::units::Rate;
use crate::settings::units::parse_patience;
use crate::terminal::passphrase::Sources;

/// The resolved settings.
#[derive(Clone)]
pub struct Settings {
    repository: Option<Address>,
    catalog_base: Option<PathBuf>,
    cache_base: Option<PathBuf>,
    /// Where the passphrase comes from.
    pub passphrase: Sources,
    /// The passphrase that a new key slot gets if no file is named.
    pub new_passphrase: Option<OsString>,
    /// How long an outage of the store may last.
    pub patience: Duration,
    /// The way to the store; its limits may change at any time.
    pub link: Arc<Link>,
    /// Settings of backups from the configuration.
    pub backup: BackupSettings,
    /// Print only results, warnings and errors.
    pub quiet: bool,
    /// Print more detail.
    pub verbose: bool,
    /// Results, errors and warnings are JSON.
    pub json: bool,
    /// Do not show progress.
    pub no_progress: bool,
    /// The environment of the process.
    pub environment: Environment,
    globals: Globals,
}

/// Settings of backups from the profile, or else from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupSettings {
    /// Paths to back up if the command line names none.
    pub paths: Vec<PathBuf>,
    /// Patterns, in addition to those of the command line.
    pub exclude: Vec<String>,
    /// Files of patterns, in addition to those of the command line.
    pub exclude_file: Vec<PathBuf>,
    /// Leave out the content of caches.
    pub exclude_caches: bool,
    /// Stay on the file systems of the sources.
    pub one_file_system: bool,
    /// What must be mounted.
    pub require_mount: Vec<PathBuf>,
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

impl Settings {
    /// Resolves `globals` in `environment`, with the configuration file as it is now.
    pub fn resolve(globals: &Globals, environment: Environment) -> Result<Settings> {
        let configuration = configuration_in(globals, &environment)?;
        let Configuration { profile, defaults } = &configuration;
        let link = Arc::new(Link::default());
        link.limit(limits_in(globals, &configuration));
        let catalog = globals.catalog_dir.clone().or(profile.catalog_dir.clone());
        let catalog = catalog.or_else(|| environment.catalog_dir.clone().map(PathBuf::from));
        let catalog = catalog.or_else(|| defaults.catalog_dir.clone());
        let catalog = catalog.or_else(|| environment.directory(environment.state_home.as_ref(), ".local/state"));
        let cache = globals.cache_dir.clone().or(profile.cache_dir.clone());
        let cache = cache.or_else(|| environment.cache_dir.clone().map(PathBuf::from)).or(defaults.cache_dir.clone());
        let cache = cache.or_else(|| environment.directory(environment.cache_home.as_ref(), ".cache"));
        let Globals { quiet, verbose, json, no_progress, .. } = *globals;
        Ok(Settings {
            repository: repository_in(globals, &environment, &configuration)?,
            catalog_base: catalog.map(absolute).transpose()?,
            cache_base: cache.map(absolute).transpose()?,
            passphrase: passphrase_in(globals, &environment, &configuration),
            new_passphrase: environment.new_passphrase.clone(),
            patience: patience_in(globals, &environment, &configuration)?,
            link,
            backup: BackupSettings::of(&configuration),
            quiet,
            verbose,
            json,
            no_progress,
            environment,
            globals: globals.clone(),
        })
    }

    /// Where everything is. Fails if no repository is named or this user has no place to keep things.
    pub fn locations(&self) -> Result<Locations> {
        let address = self.repository.clone().ok_or_else(|| {
            let places = "-r/--repo, the variable BYGONE_REPO, or `repository` in ~/.config/bygone/config.toml";
            Failure::Usage(format!("no repository given: name it with {places}"))
        })?;
        let catalog_base = self.catalog_base.clone().ok_or_else(|| no_home("--catalog-dir"))?;
        Ok(Locations { address, catalog_base, cache_base: self.cache_base()? })
    }

    /// All directories of this machine in which bygone keeps something of its own, used by this run or not.
    pub fn own_directories(&self) -> Result<Vec<PathBuf>> {
        let Environment { state_home, cache_home, config_home, .. } = &self.environment;
        let places = [(state_home, ".local/state"), (cache_home, ".cache"), (config_home, ".config")];
        let usual = places.into_iter().filter_map(|(xdg, below)| self.environment.directory(xdg.as_ref(), below));
        let mut directories = self.locations()?.directories();
        directories.extend(usual);
        Ok(directories)
    }

    /// Where this machine keeps the caches of all repositories.
    pub fn cache_base(&self) -> Result<PathBuf> {
        self.cache_base.clone().ok_or_else(|| no_home("--cache-dir"))
    }

    /// The directory where relative paths begin.
    pub fn current_directory(&self) -> Result<&Path> {
        let CurrentDirectory(directory) = &self.environment.current_directory;
        directory.as_deref().map_err(|errno| Failure::machine("find", "the current directory")(*errno))
    }

    /// USER@HOST, so that people recognise what was created here.
    pub fn user_at_host(&self) -> String {
        format!("{}@{}", environment::user(), self.environment.host)
    }

    /// Reads the configuration again and applies its limits from now on.
    pub fn reload_limits(&self) -> Result<()> {
        let configuration = configuration_in(&self.globals, &self.environment)?;
        self.link.limit(limits_in(&self.globals, &configuration));
        Ok(())
    }
}

impl BackupSettings {
    fn of(configuration: &Configuration) -> BackupSettings {
        let Configuration { profile, defaults } = configuration;
        let flag = |key: fn(&Section) -> Option<bool>| key(profile).or(key(defaults)).unwrap_or(false);
        fn list<T: Clone>(configuration: &Configuration, key: fn(&Section) -> &Option<Vec<T>>) -> Vec<T> {
            let Configuration { profile, defaults } = configuration;
            key(profile).as_ref().or(key(defaults).as_ref()).cloned().unwrap_or_default()
        }
        BackupSettings {
            paths: list(configuration, |section| &section.paths),
            exclude: list(configuration, |section| &section.exclude),
            exclude_file: list(configuration, |section| &section.exclude_file),
            exclude_caches: flag(|section| section.exclude_caches),
            one_file_system: flag(|section| section.one_file_system),
            require_mount: list(configuration, |section| &section.require_mount),
        }
    }
}

fn configuration_in(globals: &Globals, environment: &Environment) -> Result<Configuration> {
    let profile = globals.profile.as_deref();
    match environment.directory(environment.config_home.as_ref(), ".config") {
        Some(base) => Configuration::read(&base.join(configuration::FILE_NAME), profile, environment.home.as_deref()),
        None if profile.is_some() => {
            let text = "--profile: this user has no home directory: set XDG_CONFIG_HOME to where bygone/config.toml is";
            Err(Failure::Usage(text.to_owned()))
        }
        None => Ok(Configuration::default()),
    }
}

fn repository_in(
    globals: &Globals,
    environment: &Environment,
    configuration: &Configuration,
) -> Result<Option<Address>> {
    let Configuration { profile, defaults } = configuration;
    let of_section = |section: &Section| section.repository.clone().map(OsString::from);
    let repository = globals.repo.clone().or_else(|| of_section(profile));
    let repository = repository.or_else(|| environment.repo.clone()).or_else(|| of_section(defaults));
    let Some(repository) = repository else { return Ok(None) };
    let not_text = || Failure::Usage(format!("the repository's address {} is not UTF-8", repository.to_string_lossy()));
    Ok(Some(match parse_address(repository.to_str().ok_or_else(not_text)?)? {
        Address::Local(path) => Address::Local(absolute(path)?),
        elsewhere @ (Address::Rclone(_) | Address::S3(_)) => elsewhere,
    }))
}

fn limits_in(globals: &Globals, configuration: &Configuration) -> Limits {
    let Configuration { profile, defaults } = configuration;
    let rate = |own: Option<Rate>, key: fn(&Section) -> Option<Rate>| {
        own.or(key(profile)).or(key(defaults)).and_then(|Rate(rate)| rate)
    };
    let parallel = globals.parallel.or(profile.parallel).or(defaults.parallel);
    Limits {
        upload: rate(globals.limit_upload, |section| section.limit_upload),
        download: rate(globals.limit_download, |section| section.limit_download),
        transfers: parallel.map(|Parallel(count)| count),
    }
}

fn patience_in(globals: &Globals, environment: &Environment, configuration: &Configuration) -> Result<Duration> {
    let Configuration { profile, defaults } = configuration;
    let of_section = |section: &Section| section.retry_for.map(|Patience(time)| time);
    let variable = || {
        let text = environment.retry_for.as_ref().map(|text| text.to_string_lossy().into_owned());
        text.map(|text| parse_patience(&text).map_err(|why| Failure::Usage(format!("BYGONE_RETRY_FOR: {why}"))))
    };
    let stronger = globals.retry_for.or(of_section(profile));
    let setting = stronger.map(Ok).or_else(variable).transpose()?.or(of_section(defaults));
    Ok(setting.unwrap_or(PATIENCE_DEFAULT))
}

/// The first place that names any source of a passphrase is used, and no other.
fn passphrase_in(globals: &Globals, environment: &Environment, configuration: &Configuration) -> Sources {
    let of = |file: Option<PathBuf>, command: Option<OsString>| Sources { file, command, value: None };
    let of_section =
        |section: &Section| of(section.passphrase_file.clone(), section.passphrase_command.clone().map(OsString::from));
    let places = [
        of(globals.passphrase_file.clone(), globals.passphrase_command.clone()),
        of_section(&configuration.profile),
        Sources {
            file: environment.passphrase_file.clone().map(PathBuf::from),
            command: environment.passphrase_command.clone(),
            value: environment.passphrase.clone(),
        },
        of_section(&configuration.defaults),
    ];
    places.into_iter().find(|sources| *sources != Sources::default()).unwrap_or_default()
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(Failure::machine("find the directory", path.display()))
}

fn no_home(option: &str) -> Failure {
    Failure::Usage(format!("this user has no home directory: name a directory with {option}"))
}

#[cfg(test)]
mod tests;

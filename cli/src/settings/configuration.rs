//! The configuration file: settings that a user does not want to repeat on every command line.
//!
//! ```toml
//! [defaults]
//! repository = "/mnt/disk/repository"
//! passphrase-file = "~/.bygone-passphrase"
//! limit-upload = "2M"
//!
//! [profile.offsite]
//! repository = "rclone:drive:bygone"
//! passphrase-command = "pass show bygone-offsite"
//! parallel = 8
//! ```
//!
//! It is `$XDG_CONFIG_HOME/bygone/config.toml`, and it is optional. `--profile NAME` selects a profile. If a setting is
//! given in several places, the first of these counts: the command line, the profile, the environment, `[defaults]`. An
//! unknown key is an error, because a misspelt limit must not mean no limit.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;

use bygone_core::store::Address;
use bygone_core::store::parse_address;

use crate::exit::Failure;
use crate::exit::Result;
use crate::settings::units::Parallel;
use crate::settings::units::Patience;
use crate::settings::units::Rate;

/// Name of the file in bygone's configuration directory.
pub const FILE_NAME: &str = "config.toml";

/// The keys of one section, which are the same in `[defaults]` and in a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Section {
    /// Address of the repository.
    pub repository: Option<String>,
    /// As --passphrase-file.
    pub passphrase_file: Option<PathBuf>,
    /// As --passphrase-command.
    pub passphrase_command: Option<String>,
    /// As --catalog-dir.
    pub catalog_dir: Option<PathBuf>,
    /// As --cache-dir.
    pub cache_dir: Option<PathBuf>,
    /// As --limit-upload.
    pub limit_upload: Option<Rate>,
    /// As --limit-download.
    pub limit_download: Option<Rate>,
    /// As --parallel.
    pub parallel: Option<Parallel>,
    /// As --retry-for.
    pub retry_for: Option<Patience>,
    /// What `bygone backup` backs up if its command line names no path.
    pub paths: Option<Vec<PathBuf>>,
    /// As --exclude, for every backup.
    pub exclude: Option<Vec<String>>,
    /// As --exclude-file, for every backup.
    pub exclude_file: Option<Vec<PathBuf>>,
    /// As --exclude-caches.
    pub exclude_caches: Option<bool>,
    /// As --one-file-system.
    pub one_file_system: Option<bool>,
    /// What must be mounted before anything is backed up.
    pub require_mount: Option<Vec<PathBuf>>,
}

/// The file as a whole.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    defaults: Section,
    profile: BTreeMap<String, Section>,
}

/// The two sections in use: a profile is stronger than the environment, the defaults are weaker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The chosen profile, or empty.
    pub profile: Section,
    /// The section for all profiles.
    pub defaults: Section,
}

impl Configuration {
    /// Reads the file at `path`; `~/` in it stands for `home`. If there is no file, nothing is configured and no profile
    /// can be selected.
    pub fn read(path: &Path, profile: Option<&str>, home: Option<&Path>) -> Result<Configuration> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                let Some(name) = profile else { return Ok(Configuration::default()) };
                let text = format!("--profile {name}: there is no configuration file {}", path.display());
                return Err(Failure::Usage(format!("{text}: create it, with a section [profile.{name}]")));
            }
            Err(error) => return Err(Failure::machine("read the configuration", path.display())(error)),
        };
        let at = path.display();
        let mut file = parse(&text).map_err(|wrong| Failure::Usage(format!("{at}: {wrong}")))?;
        let chosen = match profile {
            None => Section::default(),
            Some(name) => file.profile.remove(name).ok_or_else(|| {
                let known: Vec<_> = file.profile.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Failure::Usage(format!("--profile {name}: {at} has no section [profile.{name}]; its profiles: {known}"))
            })?,
        };
        let settle = |section: Section, name: &str| {
            section.settle(home).map_err(|wrong| Failure::Usage(format!("{at}: [{name}]: {wrong}")))
        };
        let profile_name = format!("profile.{}", profile.unwrap_or_default());
        Ok(Configuration { profile: settle(chosen, &profile_name)?, defaults: settle(file.defaults, "defaults")? })
    }
}

/// Parses the file. An error message begins with the line and the key.
fn parse(text: &str) -> std::result::Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let Some(span) = error.span() else { return error.message().to_owned() };
        let before = text.get(..span.start).unwrap_or(text);
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        // Not the value: it may be a command with a secret in it.
        let key = line.split('=').next().unwrap_or_default().trim();
        let message = error.message().lines().next().unwrap_or_default();
        format!("line {number}, {key}: {message}")
    })
}

impl Section {
    /// Checks what the types cannot express, and makes paths absolute.
    fn settle(mut self, home: Option<&Path>) -> std::result::Result<Section, String> {
        if self.passphrase_file.is_some() && self.passphrase_command.is_some() {
            return Err("give passphrase-file or passphrase-command, not both".to_owned());
        }
        let files = self.exclude_file.iter_mut().flatten().map(|path| ("exclude-file", path));
        let paths = self.paths.iter_mut().flatten().map(|path| ("paths", path));
        let mounts = self.require_mount.iter_mut().flatten().map(|path| ("require-mount", path));
        let single = [
            ("passphrase-file", &mut self.passphrase_file),
            ("catalog-dir", &mut self.catalog_dir),
            ("cache-dir", &mut self.cache_dir),
        ];
        let single = single.into_iter().filter_map(|(key, path)| path.as_mut().map(|path| (key, path)));
        for (key, path) in single.chain(files).chain(paths).chain(mounts) {
            let whole = whole(path, home);
            *path = whole.ok_or_else(|| {
                format!(
                    "{key}: {} must begin with / or ~/: a relative path depends on the current directory",
                    path.display()
                )
            })?;
        }
        if let Some(repository) = &mut self.repository
            && let Some(below) = repository.strip_prefix("~/")
        {
            let path = home.map(|home| home.join(below)).and_then(|path| path.to_str().map(str::to_owned));
            *repository = path.ok_or("repository: this user has no home directory, or its name is not UTF-8")?;
        }
        if let Some(repository) = &self.repository
            && matches!(parse_address(repository), Ok(Address::Local(path)) if path.is_relative())
        {
            return Err(format!(
                "repository: {repository} must begin with / or ~/: a relative path depends on the current directory"
            ));
        }
        Ok(self)
    }
}

/// The path with `~/` replaced, or nothing if it is relative.
fn whole(path: &Path, home: Option<&Path>) -> Option<PathBuf> {
    // Not by components: a slash at the end means the directory behind a link.
    match path.as_os_str().as_bytes().strip_prefix(b"~/") {
        Some(below) => home.map(|home| home.join(OsStr::from_bytes(below))),
        None if path == Path::new("~") => home.map(Path::to_owned),
        None => path.is_absolute().then(|| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tempfile::tempdir;

    fn read(text: &str, profile: Option<&str>) -> Result<Configuration> {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join(FILE_NAME);
        fs::write(&path, text).unwrap();
        Configuration::read(&path, profile, Some(Path::new("/home/u")))
    }

    fn message(text: &str) -> String {
        let failure = read(text, Some("p")).unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)), "{failure}");
        failure.to_string()
    }

    #[test]
    fn all_keys_are_read_and_home_is_expanded() {
        let text = r#"
            [defaults]
            repository = "~/repository"
            [profile.p]
            repository = "rclone:r:x"
            passphrase-file = "~/pass"
            catalog-dir = "/catalog"
            cache-dir = "/cache"
            limit-upload = "500k"
            limit-download = 1000
            parallel = 32
            retry-for = "2h"
            paths = ["~/a", "/b"]
            exclude = ["*.o"]
            exclude-file = ["/x"]
            exclude-caches = true
            one-file-system = true
            require-mount = ["~/mnt/"]
        "#;
        let configuration = read(text, Some("p")).unwrap();
        assert_eq!(configuration.defaults.repository.as_deref(), Some("/home/u/repository"));
        let expected = Section {
            repository: Some("rclone:r:x".into()),
            passphrase_file: Some("/home/u/pass".into()),
            passphrase_command: None,
            catalog_dir: Some("/catalog".into()),
            cache_dir: Some("/cache".into()),
            limit_upload: Some(Rate(Some(512_000))),
            limit_download: Some(Rate(Some(1000))),
            parallel: Some(Parallel(32)),
            retry_for: Some(Patience(Duration::from_secs(7_200))),
            paths: Some(vec!["/home/u/a".into(), "/b".into()]),
            exclude: Some(vec!["*.o".into()]),
            exclude_file: Some(vec!["/x".into()]),
            exclude_caches: Some(true),
            one_file_system: Some(true),
            require_mount: Some(vec!["/home/u/mnt/".into()]),
        };
        assert_eq!(configuration.profile, expected);
        assert_eq!(read(text, None).unwrap().profile, Section::default());
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let cases = [
            ("[profile.p]\n\nlimit-uplaod = \"1k\"\n", ["line 3", "limit-uplaod", "unknown field"]),
            ("[profile.p]\nlimit-upload = \"fast\"\n", ["line 2", "limit-upload", "not a rate"]),
            ("[profile.p]\nlimit-upload = 0\n", ["line 2", "limit-upload", "bytes a second"]),
            ("[profile.p]\nlimit-upload = \"0\"\n", ["line 2", "limit-upload", "never end"]),
            ("[profile.p]\nparallel = 33\n", ["line 2", "parallel", "1 to 32"]),
            ("[profile.p]\nparallel = \"x\"\n", ["line 2", "parallel", "invalid type"]),
            ("[profile.p]\nretry-for = \"long\"\n", ["line 2", "retry-for", "not a time"]),
            ("[profile.p]\nretry-for = 90\n", ["line 2", "retry-for", "invalid type"]),
            ("repository = \"/r\"\n[profile.p]\n", ["line 1", "repository", "unknown field"]),
            ("[profile.p]\nrepository = /r\n", ["line 2", "repository", ""]),
            ("[profile.p]\npaths = [\"a\"]\n", ["[profile.p]", "paths", "must begin with /"]),
            ("[defaults]\ncache-dir = \"x\"\n[profile.p]", ["[defaults]", "cache-dir", "must begin with /"]),
            ("[profile.p]\nrepository = \"r\"\n", ["[profile.p]", "repository", "must begin with /"]),
            (
                "[profile.p]\npassphrase-file = \"/f\"\npassphrase-command = \"c\"",
                ["profile.p", "passphrase", "not both"],
            ),
            ("[profile.q]\n[profile.r]\n", ["--profile p", "no section [profile.p]", "q, r"]),
            ("", ["--profile p", "no section", "none"]),
        ];
        for (text, words) in cases {
            let message = message(text);
            assert!(
                message.contains(FILE_NAME) && words.iter().all(|word| message.contains(word)),
                "{text}: {message}"
            );
        }
        let secret = message("[profile.p]\npassphrase-command = hunter2\n");
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn without_a_file_nothing_is_configured_and_profiles_fail() {
        let none = Path::new("/nowhere/config.toml");
        assert_eq!(Configuration::read(none, None, None).unwrap(), Configuration::default());
        let message = Configuration::read(none, Some("p"), None).unwrap_err().to_string();
        assert!(message.contains("/nowhere/config.toml") && message.contains("[profile.p]"), "{message}");
    }
}

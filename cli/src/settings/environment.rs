//! The environment of the process, read once at the start: variables, the current directory, the user, this machine.
//!
//! Nothing reads the environment later, with one exception: the library that finds keys for a bucket reads the AWS
//! variables, files and services again whenever keys have expired.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::User;
use nix::unistd::getuid;

/// Variables that say how to reach a bucket. None of them is a secret: keys are found by a library when they are wanted.
const ACCESS_VARIABLES: [&str; 15] = [
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "HOME",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The environment, read once. It may hold passphrases, so it has no `Debug`.
#[derive(Clone, Default)]
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
    /// NOTIFY_SOCKET, on which systemd waits for a service to be ready.
    pub notify_socket: Option<OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// Where relative paths begin.
    pub current_directory: CurrentDirectory,
    /// Name of this machine.
    pub host: String,
    /// Variables for access to a bucket.
    pub access: BTreeMap<String, String>,
}

/// The current directory, or why it cannot be found: it may have been removed.
#[derive(Debug, Clone)]
pub struct CurrentDirectory(pub Result<PathBuf, Errno>);

impl CurrentDirectory {
    fn of_this_process() -> CurrentDirectory {
        let errno = |error: io::Error| error.raw_os_error().map_or(Errno::ENOENT, Errno::from_raw);
        CurrentDirectory(env::current_dir().map_err(errno))
    }
}

impl Default for CurrentDirectory {
    fn default() -> CurrentDirectory {
        CurrentDirectory(Err(Errno::ENOENT))
    }
}

impl Environment {
    /// The environment of this process. An empty variable counts as not set, except for a passphrase: a script with an
    /// empty passphrase by mistake must not end in a prompt.
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
            current_directory: CurrentDirectory::of_this_process(),
            host: host(),
            access: env::vars_os().filter_map(access_variable).collect(),
        }
    }

    /// Bygone's directory under that of the XDG variable, or else under the home directory.
    pub fn directory(&self, xdg: Option<&OsString>, below_home: &str) -> Option<PathBuf> {
        // The XDG specification wants relative paths to be ignored.
        let xdg = xdg.map(Path::new).filter(|path| path.is_absolute()).map(|path| path.join("bygone"));
        xdg.or_else(|| self.home.as_ref().map(|home| home.join(below_home).join("bygone")))
    }
}

fn access_variable((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
    let is_wanted = ACCESS_VARIABLES.contains(&name.as_str());
    (is_wanted && !value.is_empty()).then_some((name, value))
}

fn host() -> String {
    let name = fs::read("/proc/sys/kernel/hostname").or_else(|_| fs::read("/etc/hostname")).unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Name of the user, or the number of a user without a name. It may be asked of a directory server, so only what needs
/// the name asks.
pub fn user() -> String {
    User::from_uid(getuid()).ok().flatten().map_or_else(|| getuid().to_string(), |user| user.name)
}

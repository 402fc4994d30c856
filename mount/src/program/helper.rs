//! The command line of `mount`, which calls this program as `/sbin/mount.fuse.bygone`, a link to it.
//!
//! `mount -t fuse.bygone URL POINT`, a line of `/etc/fstab` and a mount unit of systemd all result in
//!
//! ```text
//! mount.fuse.bygone SOURCE POINT [-sfnvrw] [-N NAMESPACE] [-o OPTION[,OPTION]...] [-t TYPE]
//! ```
//!
//! which is translated here into our own command line before that is parsed. fstab has only one list of options, so an
//! option with the name of one of our long options becomes that option (`passphrase-file=/root/key`, or with `_`), and
//! every other one stays a mount option. A value in double quotes may contain commas.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use clap::Command;

use crate::program::options;

/// `mount` calls the program by a name with this beginning.
const NAME_PREFIX: &[u8] = b"mount.";

/// Long options that make no sense in fstab, because `mount` must return and expects a mount.
const NOT_FOR_MOUNT: &[&str] = &["help", "version", "foreground", "stats", "repo"];

/// The exit code by which `mount` learns of a wrong command line.
pub const EXIT_USAGE: u8 = 1;
/// The exit code by which `mount` learns that nothing was mounted.
pub const EXIT_FAILED: u8 = 32;

/// The translated command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Translated {
    /// Our command line.
    pub arguments: Vec<OsString>,
    /// `-f`: do everything except mounting.
    pub is_fake: bool,
}

/// True if the program was called by its name for `mount`.
pub fn is_called_by_mount(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name.as_bytes().starts_with(NAME_PREFIX))
}

/// The long options of `command` that are allowed in fstab, and whether each takes a value.
pub fn long_options(command: &Command) -> BTreeMap<String, bool> {
    let long = command.get_arguments().filter_map(|argument| {
        let name = argument.get_long().filter(|name| !NOT_FOR_MOUNT.contains(name))?;
        Some((name.to_owned(), argument.get_action().takes_values()))
    });
    long.collect()
}

/// Translates the command line of `mount` (the first argument is the program's name) into ours, or says what is wrong
/// with it. `long` has our long options and whether each takes a value.
pub fn translate(arguments: &[OsString], long: &BTreeMap<String, bool>) -> Result<Translated, String> {
    let mut given = arguments.iter().map(OsString::as_os_str);
    let name = given.next().unwrap_or_default();
    let mut places = Vec::new();
    let (mut ours, mut rest, mut is_fake) = (Vec::new(), Vec::new(), false);
    while let Some(argument) = given.next() {
        let Some(letters) = argument.as_bytes().strip_prefix(b"-").filter(|letters| !letters.is_empty()) else {
            places.push(argument);
            continue;
        };
        for (at, letter) in letters.iter().enumerate() {
            match letter {
                // Not -s: ignoring unknown options would change what the user gets. There is no mtab, and we are always
                // ro.
                b's' | b'n' | b'r' | b'w' => continue,
                b'f' => is_fake = true,
                b'v' => flag("--verbose", &mut ours),
                b'o' | b't' | b'N' => {
                    let value = match letters.get(at + 1..).unwrap_or_default() {
                        [] => given.next().ok_or_else(|| format!("-{} needs a value", char::from(*letter)))?,
                        attached => OsStr::from_bytes(attached),
                    };
                    match letter {
                        b'o' => sort(value, long, &mut ours, &mut rest),
                        b'N' => {
                            return Err("cannot mount in another namespace (-N): run mount there with nsenter".into());
                        }
                        _ => {}
                    }
                    break;
                }
                _ => return Err(format!("-{} is not an option of mount", letter.escape_ascii())),
            }
        }
    }
    let &[source, point] = places.as_slice() else {
        return Err("usage: mount.fuse.bygone URL MOUNTPOINT [-o OPTION[,OPTION]...]".into());
    };
    if !ours.iter().any(|option| option == "--verbose") {
        // `mount` itself prints nothing when it mounts.
        flag("--quiet", &mut ours);
    }
    let mut all = vec![name.to_owned(), joined(b"--repo=", source.as_bytes())];
    all.append(&mut ours);
    all.extend(rest.into_iter().flat_map(|option| ["-o".into(), option]));
    all.extend(["--".into(), point.to_owned()]);
    Ok(Translated { arguments: all, is_fake })
}

/// Adds each of the options in `list` to `ours` if it is one of `long`, and to `rest` if not.
fn sort(list: &OsStr, long: &BTreeMap<String, bool>, ours: &mut Vec<OsString>, rest: &mut Vec<OsString>) {
    for option in split(list.as_bytes()) {
        let at = option.iter().position(|byte| *byte == b'=');
        let (key, value) = match at {
            Some(at) => (option.get(..at).unwrap_or_default(), option.get(at + 1..)),
            None => (option, None),
        };
        let key = String::from_utf8_lossy(key).replace('_', "-");
        match (long.get(&key), value) {
            (Some(true), Some(value)) => ours.push(joined(format!("--{key}=").as_bytes(), unquoted(value))),
            // A name that is also an option of `mount` itself means that option.
            (Some(false), None) if !options::is_for_mount(&key) => flag(&format!("--{key}"), ours),
            _ => rest.push(OsString::from_vec(option.to_vec())),
        }
    }
}

/// Adds an option without a value, unless it is there already.
fn flag(option: &str, ours: &mut Vec<OsString>) {
    if !ours.iter().any(|there| there == option) {
        ours.push(option.into());
    }
}

/// Cuts at commas, except between double quotes.
fn split(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let cut = move |byte: &u8| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    };
    list.split(cut).filter(|option| !option.is_empty())
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn joined(start: &[u8], end: &[u8]) -> OsString {
    OsString::from_vec([start, end].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &[&str]) -> Result<Translated, String> {
        let long =
            [("passphrase-file", true), ("log", true), ("allow-other", false), ("user", false), ("quiet", false)];
        let long = long.map(|(name, takes_value)| (name.to_owned(), takes_value)).into();
        let name = ["/sbin/mount.fuse.bygone"];
        translate(&name.iter().chain(line).map(OsString::from).collect::<Vec<_>>(), &long)
    }

    #[test]
    fn only_names_for_mount_count_as_such() {
        assert!(is_called_by_mount(OsStr::new("/sbin/mount.fuse.bygone")));
        assert!(is_called_by_mount(OsStr::new("mount.fuse.bygone")));
        assert!(!is_called_by_mount(OsStr::new("/mount.d/bygone-mount")));
        assert!(!is_called_by_mount(OsStr::new("")));
    }

    #[test]
    fn the_command_line_of_mount_becomes_ours() {
        let options = "rw,noauto,passphrase_file=/root/a key,log=\"/x,y\",allow_other,_netdev,user";
        let line = ["/srv/r", "/mnt", "-sv", "-n", "-o", options, "-t", "fuse.bygone"];
        let ours = translated(&line).unwrap();
        let expected = "/sbin/mount.fuse.bygone|--repo=/srv/r|--verbose|--passphrase-file=/root/a key|--log=/x,y|\
                        --allow-other|-o|rw|-o|noauto|-o|_netdev|-o|user|--|/mnt";
        assert_eq!(ours.arguments, expected.split('|').collect::<Vec<_>>());
        assert!(!ours.is_fake && translated(&["/srv/r", "/mnt", "-fv"]).unwrap().is_fake);
        let attached = translated(&["-oro", "s3://b/p?region=x", "/mnt", "-o", "nodev", "-tfuse.bygone"]).unwrap();
        let expected =
            ["/sbin/mount.fuse.bygone", "--repo=s3://b/p?region=x", "--quiet", "-o", "ro", "-o", "nodev", "--", "/mnt"];
        assert_eq!(attached.arguments, expected);
    }

    #[test]
    fn options_lacking_their_value_are_passed_on() {
        let ours = translated(&["/r", "/m", "-o", "log,allow-other=yes,quiet"]).unwrap().arguments;
        assert_eq!(ours[2..], ["--quiet", "-o", "log", "-o", "allow-other=yes", "--", "/m"]);
    }

    #[test]
    fn impossible_command_lines_are_refused() {
        for (line, word) in [
            (&["/r"][..], "usage"),
            (&["/r", "/m", "/n"], "usage"),
            (&["/r", "/m", "-o"], "-o needs"),
            (&["/r", "/m", "-x"], "-x"),
            (&["/r", "/m", "-N", "/proc/1/ns/mnt"], "nsenter"),
        ] {
            let refused = translated(line).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}

//! The options behind `-o`, as `mount` and `/etc/fstab` pass them.
//!
//! Options that are for `mount` itself, or that a read-only file system fulfils anyway, are taken without a word. One
//! that would change what the mount does, and is not known, is refused: whoever wrote it expects something.

use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;

/// What the options ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Other users may look too, as far as the permissions in the snapshot let them.
    pub allow_other: bool,
    /// No program may be started from the mount.
    pub noexec: bool,
}

/// Taken without a word: what fstab says to `mount`, and what always holds here.
const NOISE: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "nodev",
    "nosuid",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "diratime",
    "nodiratime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "async",
    "silent",
    "loud",
    "default_permissions",
    "exec",
];

impl Options {
    /// Reads `texts`, each one option.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Options> {
        let mut options = Options::default();
        for text in texts {
            match text {
                "" => {}
                "allow_other" => options.allow_other = true,
                "noexec" => options.noexec = true,
                "exec" => options.noexec = false,
                noise if is_for_mount(noise) => {}
                "auto_unmount" => {
                    return Err(refuse(text, ": a mount that crashed must not look like an empty directory"));
                }
                "dev" | "suid" => {
                    return Err(refuse(text, ": devices and set-user-id programs of a backup are only shown"));
                }
                "remount" => return Err(refuse(text, ": unmount, and mount again with the new options")),
                _ => {
                    return Err(refuse(
                        text,
                        ": known are allow_other, noexec and those that /etc/fstab has for mount itself",
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// True for what fstab says to `mount`, and for what always holds here.
pub fn is_for_mount(text: &str) -> bool {
    NOISE.contains(&text) || text.starts_with("x-") || text.starts_with("comment=")
}

fn refuse(text: &str, why: &str) -> Failure {
    Failure::Usage(format!("cannot mount with `-o {text}`{why}"))
}

#[cfg(test)]
mod tests {
    use bygone_cli::exit::Exit;

    use super::*;

    #[test]
    fn options_meant_for_mount_are_accepted() {
        let line = "rw,noauto,user,_netdev,x-systemd.automount,comment=backup,defaults,nofail";
        assert_eq!(Options::parse(line.split(',')).unwrap(), Options::default());
    }

    #[test]
    fn options_are_honoured_or_refused() {
        let parse =
            |text: &str| Options::parse(text.split(',')).map_err(|failure| (failure.exit(), failure.to_string()));
        assert_eq!(parse("allow_other,noexec").unwrap(), Options { allow_other: true, noexec: true });
        for refused in ["suid", "dev", "auto_unmount", "uid=5", "max_read=4096", "Allow_other"] {
            let (code, text) = parse(refused).unwrap_err();
            assert!(code == Exit::Usage && text.contains(refused), "{text}");
        }
    }
}

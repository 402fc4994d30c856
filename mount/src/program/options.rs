//! The options behind `-o`, as `mount` and `/etc/fstab` pass them.
//!
//! Options that are meant for `mount` itself, or that a read-only file system fulfils anyway, are accepted silently. An
//! unknown option that might change what the mount does is refused, because its author expects an effect.

use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;

/// The options that have an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Other users have access too, within the permissions in the snapshots.
    pub allow_other: bool,
    /// Programs cannot be started from the mount.
    pub noexec: bool,
}

/// Options that are accepted silently: those that fstab gives to `mount`, and those that always hold here.
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
    /// Parses `texts`, which are one option each.
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
                    return Err(refuse(
                        text,
                        ": devices and set-user-ID programs of a backup are shown but do not work",
                    ));
                }
                "remount" => return Err(refuse(text, ": unmount it and mount it again with the new options")),
                _ => {
                    return Err(refuse(
                        text,
                        ": use allow_other, noexec, or options of /etc/fstab that are meant for mount itself",
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// True for options that fstab gives to `mount`, and for those that always hold here.
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

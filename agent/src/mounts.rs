//! The file systems that are mounted, as this process sees them.

use std::fs;
use std::io;

use nix::sys::stat::makedev;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device number of what is in it.
    pub device: u64,
    /// Where it is mounted, raw bytes.
    pub point: Vec<u8>,
    /// The type of its file system, such as `ext4`.
    pub kind: Vec<u8>,
}

/// All mounts.
pub fn mounts() -> io::Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Reads a line such as `36 35 8:1 / /mnt/a\040b ro,nodev shared:2 - ext4 /dev/sda1 rw`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let numbers = str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = makedev(numbers.0.parse().ok()?, numbers.1.parse().ok()?);
    let point = unescaped(fields.nth(1)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?.to_vec();
    Some(Mount { device, point, kind })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = if *first == b'\\' { after.get(..3) } else { None };
        let octal = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_a_mount() {
        let line = br"36 35 0:52 / /mnt/a\040b\134 ro,nosuid master:1 shared:2 - fuse.bygone /srv/r ro,user_id=0";
        let wanted = Mount { device: makedev(0, 52), point: br"/mnt/a b\".to_vec(), kind: b"fuse.bygone".to_vec() };
        assert_eq!(parse(line), Some(wanted));
        for bad in [&b""[..], b"36 35 x:y / / rw - ext4 d rw", b"36 35 0:52 / / rw", b"36"] {
            assert_eq!(parse(bad), None);
        }
        assert_eq!(unescaped(br"\04\9x\"), br"\04\9x\");
        assert!(mounts().unwrap().iter().any(|mount| mount.point == b"/"));
    }
}

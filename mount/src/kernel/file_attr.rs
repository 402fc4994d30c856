//! Attributes in the terms of fuser.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use fuser::FileAttr;
use fuser::FileType;
use fuser::INodeNo;

use bygone_core::entry;
use bygone_core::entry::Time;

use crate::tree::attr::Attr;
use crate::tree::attr::READ_BYTES;

/// The answer "there is no such name": the number 0.
pub const ABSENT: Attr = Attr {
    number: 0,
    kind: entry::FileType::File,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 0,
    sectors: 0,
    mtime: Time { secs: 0, nanos: 0 },
    ctime: Time { secs: 0, nanos: 0 },
};

/// `attr` in the terms of fuser.
pub fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.number),
        size: attr.size,
        blocks: attr.sectors,
        atime: system_time(attr.mtime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: READ_BYTES,
        flags: 0,
    }
}

/// `kind` in the terms of fuser.
pub fn file_type(kind: entry::FileType) -> FileType {
    match kind {
        entry::FileType::File => FileType::RegularFile,
        entry::FileType::Directory => FileType::Directory,
        entry::FileType::Symlink => FileType::Symlink,
        entry::FileType::Fifo => FileType::NamedPipe,
        entry::FileType::Socket => FileType::Socket,
        entry::FileType::CharDevice => FileType::CharDevice,
        entry::FileType::BlockDevice => FileType::BlockDevice,
    }
}

/// The same time, even before 1970; the beginning of 1970 if the system cannot express it.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let half_past = system_time(Time { secs: -2, nanos: 500_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(half_past).unwrap(), Duration::from_millis(1_500));
        assert_eq!(system_time(Time { secs: 3, nanos: 7 }), UNIX_EPOCH + Duration::new(3, 7));
        for secs in [i64::MIN, i64::MAX] {
            system_time(Time { secs, nanos: 999_999_999 });
        }
    }
}

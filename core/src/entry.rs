//! One path as one snapshot sees it: its name, its metadata and the place of its content.
//!
//! Names are raw bytes. [`Name`] is the only way in: every name from a repository or a disk becomes a `Name` or an
//! error, so no name that contains a `/` or a NUL, or is `.` or `..`, can reach a restore or a mount.
//!
//! An entry may stand for something that cannot be given back: it could not be read when it was backed up, or a newer
//! bygone made it. Such an entry is no less there than any other, and nobody may take it for absent.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::attributes::Attribute;
use crate::attributes::Attributes;
use crate::id::BlockId;
use crate::id::NodeId;
use crate::limits;
use crate::wire::DecodeError;
use crate::wire::Encoder;

/// The name of an entry in its directory: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Name, DecodeError> {
        let bad = bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| *b == b'/' || *b == 0);
        if bad {
            return Err(DecodeError::Invalid("an entry's name"));
        }
        if bytes.len() > limits::NAME_BYTES_MAX {
            return Err(DecodeError::Limit("an entry's name"));
        }
        Ok(Name(bytes.into()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", printable(&self.0))
    }
}

/// `bytes` as text that is safe on a terminal: control characters and invalid UTF-8 become `\xNN`, `\` becomes `\\`.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => c.to_string().bytes().for_each(|b| text.push_str(&format!("\\x{b:02x}"))),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| text.push_str(&format!("\\x{b:02x}")));
    }
    text
}

/// A point in time: seconds since 1970 (negative before) and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub secs: i64,
    /// 0 to 999,999,999, always forward.
    pub nanos: u32,
}

/// The owner of an entry, by number and by name (empty if the system knew no name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// User name, raw bytes.
    pub user: Vec<u8>,
    /// Group name, raw bytes.
    pub group: Vec<u8>,
}

/// One extended attribute; POSIX ACLs and file capabilities are attributes like any other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.comment`.
    pub name: Vec<u8>,
    /// Raw value.
    pub value: Vec<u8>,
}

/// The metadata that entries of every kind have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Permission bits with set-uid, set-gid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// User and group.
    pub owner: Arc<Owner>,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode, for change detection; it cannot be restored.
    pub ctime: Time,
    /// When the inode was made, where the system says so; it cannot be restored.
    pub birth: Option<Time>,
    /// `st_size`: bytes of a file, length of a symbolic link's target, 0 for all else.
    pub size: u64,
    /// Number of hard links when it was read.
    pub nlink: u32,
    /// Device it lay on; `device` and `inode` together identify a file with several names.
    pub device: u64,
    /// Inode number it had.
    pub inode: u64,
    /// Inode flags as `FS_IOC_GETFLAGS` gave them, 0 where unreadable.
    pub flags: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

impl Meta {
    /// The metadata of an entry of which nothing is known: where to start from if only some of it counts.
    pub fn unknown() -> Meta {
        Meta {
            mode: 0,
            owner: Arc::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            birth: None,
            size: 0,
            nlink: 1,
            device: 0,
            inode: 0,
            flags: 0,
            xattrs: Vec::new(),
        }
    }
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Bytes that are a stored block, whole.
    Block {
        /// The block's name.
        id: BlockId,
        /// Its length in bytes, never 0.
        length: u32,
    },
    /// Bytes that are zero because nothing was ever written there.
    Hole {
        /// Its length in bytes, never 0.
        length: u64,
    },
}

impl Extent {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Extent::Block { length, .. } => u64::from(*length),
            Extent::Hole { length } => *length,
        }
    }
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    /// In the entry itself (always so for an empty file).
    Inline(Vec<u8>),
    /// In a few extents.
    Extents(Vec<Extent>),
    /// In more extents than an entry holds.
    List {
        /// The root node of the block list.
        root: NodeId,
        /// Bytes that are not holes.
        allocated: u64,
    },
}

impl Content {
    /// Bytes that are not holes.
    pub fn allocated(&self) -> u64 {
        match self {
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Extents(extents) => extents_allocated(extents),
            Content::List { allocated, .. } => *allocated,
        }
    }
}

/// Bytes of extents that are not holes.
pub fn extents_allocated(extents: &[Extent]) -> u64 {
    extents.iter().filter(|extent| matches!(extent, Extent::Block { .. })).map(Extent::length).sum()
}

/// The file types of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileType {
    /// The type of the entries of a kind, by the number that the kind has in a leaf; `None` for kinds of no type, and
    /// for those of later versions.
    pub fn of_kind(number: u8) -> Option<FileType> {
        match number {
            0..=2 => Some(FileType::File),
            3 => Some(FileType::Directory),
            4 => Some(FileType::Symlink),
            5 => Some(FileType::Fifo),
            6 => Some(FileType::Socket),
            7 => Some(FileType::CharDevice),
            8 => Some(FileType::BlockDevice),
            _ => None,
        }
    }

    /// The lowest number of a kind of this type.
    pub fn kind(self) -> u8 {
        match self {
            FileType::File => 0,
            FileType::Directory => 3,
            FileType::Symlink => 4,
            FileType::Fifo => 5,
            FileType::Socket => 6,
            FileType::CharDevice => 7,
            FileType::BlockDevice => 8,
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File(Content),
    /// A directory: its root node.
    Directory(NodeId),
    /// A symbolic link: its target, raw.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// `st_rdev` as Linux encodes it in 64 bits.
        rdev: u64,
    },
    /// A block device.
    BlockDevice {
        /// `st_rdev` as Linux encodes it in 64 bits.
        rdev: u64,
    },
    /// It was there and could not be read. The metadata is what was last known of it.
    Unreadable {
        /// Linux's number of the error.
        errno: u32,
        /// What it was, if that is known.
        was: Option<FileType>,
    },
    /// A newer bygone made it, and this program does not know what it means: its kind, or a critical attribute.
    Newer {
        /// The number of its kind.
        code: u8,
        /// What follows the metadata, except the attributes of a kind that this program knows.
        body: Vec<u8>,
    },
}

/// Why the content of an entry cannot be given back, though the entry is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// The backup could not read it, with this error number of Linux.
    Unreadable(u32),
    /// Only a newer bygone knows this kind of entry.
    NewerKind(u8),
    /// Only a newer bygone knows this attribute of the entry, and the attribute is critical.
    NewerAttribute(u64),
}

impl Withheld {
    /// What a newer bygone would have to know; `None` if it would be no help.
    pub fn needs(self) -> Option<String> {
        match self {
            Withheld::Unreadable(_) => None,
            Withheld::NewerKind(code) => Some(format!("entries of kind {code}")),
            Withheld::NewerAttribute(tag) => Some(format!("attribute {tag} of entries")),
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Withheld::Unreadable(errno) => {
                let text = io::Error::from_raw_os_error((*errno).cast_signed());
                write!(f, "it could not be read when it was backed up: {text}")
            }
            newer => write!(f, "it needs a newer bygone, which knows {}", newer.needs().unwrap_or_default()),
        }
    }
}

/// One path in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its name in its directory.
    pub name: Name,
    /// Its metadata.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
    /// Whatever else it says, known to this program or not; it is kept as long as the entry is.
    pub attributes: Attributes,
}

/// The attribute of a directory whose listing broke off, so that it may have had other entries too. Its value is
/// Linux's number of the error.
const BROKEN_LISTING: u64 = 1;
/// The attributes of entries that this program knows.
pub(crate) const KNOWN: &[u64] = &[BROKEN_LISTING];

impl Entry {
    /// An entry that says nothing else.
    pub fn new(name: Name, meta: Meta, kind: Kind) -> Entry {
        Entry { name, meta, kind, attributes: Attributes::default() }
    }

    /// What it is, or was when it could not be read; `None` if that is not known.
    pub fn file_type(&self) -> Option<FileType> {
        match &self.kind {
            Kind::File(_) => Some(FileType::File),
            Kind::Directory(_) => Some(FileType::Directory),
            Kind::Symlink(_) => Some(FileType::Symlink),
            Kind::Fifo => Some(FileType::Fifo),
            Kind::Socket => Some(FileType::Socket),
            Kind::CharDevice { .. } => Some(FileType::CharDevice),
            Kind::BlockDevice { .. } => Some(FileType::BlockDevice),
            Kind::Unreadable { was, .. } => *was,
            Kind::Newer { code, .. } => FileType::of_kind(*code),
        }
    }

    /// Why its content cannot be given back; `None` if it can.
    pub fn withheld(&self) -> Option<Withheld> {
        match self.kind {
            Kind::Unreadable { errno, .. } => Some(Withheld::Unreadable(errno)),
            Kind::Newer { code, .. } => {
                Some(self.unknown_attribute().map_or(Withheld::NewerKind(code), Withheld::NewerAttribute))
            }
            _ => None,
        }
    }

    /// The first critical attribute that this program does not know.
    pub fn unknown_attribute(&self) -> Option<u64> {
        self.attributes.unknown_critical(KNOWN)
    }

    /// The attributes that this program does not know.
    pub fn unknown_attributes(&self) -> Attributes {
        self.attributes.unknown(KNOWN)
    }

    /// The attributes of a directory whose listing broke off with this error.
    pub fn broken_listing(errno: u32) -> Attributes {
        let mut value = Encoder::new();
        value.varint(errno.into());
        let mut attributes = Attributes::default();
        attributes.set(Attribute { tag: BROKEN_LISTING, is_critical: false, value: value.finish() });
        attributes
    }

    /// True for a directory that may have had other entries too, because its listing broke off.
    pub fn may_lack_entries(&self) -> bool {
        self.attributes.get(BROKEN_LISTING).is_some()
    }

    /// The node of a directory whose entries are known, `None` for anything else.
    pub fn directory(&self) -> Option<NodeId> {
        match self.kind {
            Kind::Directory(node) => Some(node),
            _ => None,
        }
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// True if the file may have other names too.
    pub fn is_hard_linked(&self) -> bool {
        self.meta.nlink > 1 && self.file_type() != Some(FileType::Directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"..."[..], b"\xff\xfe", b"a\nb", b" ", b"-rf", &[b'x'; 255]] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_type_has_one_number_among_those_of_its_kinds() {
        for number in 0..16 {
            let found = FileType::of_kind(number);
            assert_eq!(found.is_some(), number <= 8, "{number}");
            assert_eq!(found.map(|found| FileType::of_kind(found.kind())), found.map(Some), "{number}");
        }
    }

    #[test]
    fn nothing_printable_controls_a_terminal() {
        assert_eq!(printable(b"a\x1b[2J\xff\\\n\xc3\xa9"), "a\\x1b[2J\\xff\\\\\\n\u{e9}");
    }
}

//! Where objects lie: a place that knows GET, PUT, LIST and DELETE, and is trusted with nothing.
//!
//! Stores differ in everything but the contract of [`Store`], which is written there and tested, sentence by sentence,
//! by `testing::contract`. Code above this floor may rely on the contract and on nothing else. The bytes from a store
//! are never trusted: the floors above authenticate each of them.

pub mod empty;
pub mod link;
pub mod local;
pub mod rclone;
pub mod retry;
pub mod s3;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

mod address;
mod beneath;
mod temporary;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::error::Error;
use crate::error::Result;
use crate::objects::is_at_top;

pub use crate::objects::ObjectName;
pub use address::Address;
pub use address::Surroundings;
pub use address::parse_address;
pub use link::TRANSFERS_MAX;

/// Which bytes of an object are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// All of them, if there are no more than `bytes_max`; otherwise [`Error::Limit`], before anything is allocated.
    Whole {
        /// The longest acceptable object.
        bytes_max: u64,
    },
    /// Exactly these bytes: an object that ends sooner is an error, and so is a part of no bytes.
    Part {
        /// Position of the first byte.
        offset: u64,
        /// How many, at least one.
        bytes: u64,
    },
}

impl ByteRange {
    /// The positions wanted of `name`, which has `object_bytes` bytes, or why they do not exist. For stores that know
    /// an object's size before they read it.
    pub fn within(self, name: &ObjectName, object_bytes: u64) -> Result<Range<u64>> {
        self.check()?;
        match self {
            ByteRange::Whole { bytes_max } if object_bytes > bytes_max => {
                Err(Error::Limit { what: "the size of a stored object", found: object_bytes, max: bytes_max })
            }
            ByteRange::Whole { .. } => Ok(0..object_bytes),
            ByteRange::Part { offset, bytes } => match offset.checked_add(bytes) {
                Some(end) if end <= object_bytes => Ok(offset..end),
                _ => {
                    let cause = format!("it ends at byte {object_bytes}, but {bytes} from {offset} on were requested");
                    Err(Error::store("read", name, io::Error::new(io::ErrorKind::UnexpectedEof, cause)))
                }
            },
        }
    }

    /// Refuses ranges that no store answers: HTTP cannot express a range of no bytes, so stores would differ in
    /// answering it.
    pub fn check(self) -> Result<()> {
        match self {
            ByteRange::Part { bytes: 0, .. } => Err(Error::defect("a part of no bytes was asked for")),
            _ => Ok(()),
        }
    }
}

/// The bytes of an object to be.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// The first `bytes` bytes of a file, wherever its cursor is; the cursor is neither used nor moved. A file that
    /// ends sooner is an error.
    File {
        /// The file, open for reading.
        file: &'a File,
        /// Length of the object.
        bytes: u64,
    },
}

impl Source<'_> {
    /// Length of the object.
    pub fn bytes(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { bytes, .. } => *bytes,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on, or fails: there are no short reads.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes());
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        match self {
            Source::Bytes(bytes) => {
                let part = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
                let part = part.and_then(|(start, end)| bytes.get(start..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(part);
                Ok(())
            }
            Source::File { file, .. } => file.read_exact_at(buffer, offset),
        }
    }

    /// All of it, in memory.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut all = vec![0; usize::try_from(self.bytes()).map_err(|_| io::ErrorKind::OutOfMemory)?];
        self.read_exact_at(&mut all, 0)?;
        Ok(all)
    }
}

/// What a store reports about an object that it has just stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    /// The store's own mark of exactly these bytes, if it keeps such marks: the same mark that [`Listed`] shows.
    pub etag: Option<String>,
}

/// What a store reports about an object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The object's name.
    pub name: ObjectName,
    /// Its size.
    pub bytes: u64,
    /// The store's own mark of its bytes, if it keeps such marks.
    pub etag: Option<String>,
}

/// A place for objects. All methods may be called from many threads at once.
///
/// The contract, of which `testing::contract` tests each sentence that can be tested from outside (a loss of power and
/// a vanished place are tested with the stores that can suffer them):
///
/// 1. **Whole or not at all.** A PUT makes the object visible with all its bytes at once. When it returns, the object
///    is durable: it survives a loss of power of the store. When it fails, the object is there whole or not at all, and
///    a LIST shows nothing else of it; the same PUT may be tried again.
/// 2. **Never overwritten.** A PUT of an existing name succeeds if the bytes are the same (and then they are durable),
///    and is [`Error::Exists`] if they differ, with the old bytes untouched. Of several concurrent writers of one name,
///    one version of the bytes wins. To heal an object, it must be deleted first.
/// 3. **Exact reads.** A GET returns exactly the requested bytes, or an error; see [`ByteRange`].
/// 4. **Absence is unmistakable.** A GET of an absent name is an [`Error::Store`] for which [`Error::is_absent`] holds,
///    and for no other error does it hold. The beginning of a name (`data` of `data/00`) is an absent name.
/// 5. **A list is whole.** A LIST returns every object whose name starts with the prefix, each once, in order of names,
///    or it is an error; it is never a partial list. A prefix is empty or ends with `/`; all else is [`Error::Defect`].
///    The list includes foreign objects with valid names and skips everything without a valid name.
/// 6. **Gone is gone.** A DELETE of an absent name succeeds. When it returns, the object is durably gone, and its name
///    may be used again.
/// 7. **It reads its own writes.** The effect of a PUT or DELETE that has returned is seen by every GET and LIST that
///    begins afterwards, in any thread and any process.
/// 8. **A store that is gone is an error.** If the place itself has vanished (an unmounted disk, a deleted bucket),
///    every call fails, and not as absence; a vanished store is never an empty one.
///
/// Left open: what happens if one object's name is the beginning of another's (`a` and `a/b`), except that no object is
/// damaged by it. Bygone makes no such names.
pub trait Store: Send + Sync {
    /// The place, as a person would write it in a command.
    fn address(&self) -> String;

    /// How many concurrent requests serve this store best.
    fn connections(&self) -> usize;

    /// True if requests are so slow that answers deserve a copy on a local disk, and that fewer and larger requests are
    /// worth some unwanted bytes. False for a local disk, or anything about as near.
    fn is_far(&self) -> bool;

    /// The bytes of an object, or of a part of it.
    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>>;

    /// Makes an object.
    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored>;

    /// All objects whose names start with `prefix`, in order of their names.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>>;

    /// Frees what interrupted PUTs of these names left invisible to a LIST. It touches no object. What cannot be freed
    /// takes up room and does no other harm, so that is not an error.
    fn clear(&self, _names: &[ObjectName]) -> Result<()> {
        Ok(())
    }

    /// Removes an object.
    fn delete(&self, name: &ObjectName) -> Result<()>;
}

/// True for what may lie at the top of an incomplete store, such as an interrupted copy.
fn may_lie_there(name: &str) -> bool {
    is_at_top(name) || name.starts_with('.') || name == "lost+found"
}

/// The error for a place that holds something else.
fn not_a_copy(name: &str, address: &str) -> Error {
    let hint = "it does not belong to a copy of a repository: choose another place, or remove what is in it";
    Error::Exists { what: format!("{name} in {address}"), hint }
}

/// Refuses a prefix that is neither empty nor ends with `/`: only whole segments mean the same in a directory tree and
/// in a bucket.
pub fn check_prefix(prefix: &str) -> Result<()> {
    let directory = prefix.strip_suffix('/');
    if prefix.is_empty() || directory.is_some_and(|directory| ObjectName::new(directory).is_some()) {
        return Ok(());
    }
    Err(Error::defect(format!("{prefix:?} is not a prefix of object names, which end with a slash")))
}

/// The error for a PUT that would replace an object by another.
pub(crate) fn already_there(name: &ObjectName) -> Error {
    let hint = "its bytes differ from those to be stored, and objects are never replaced";
    Error::Exists { what: format!("the object {name}"), hint }
}

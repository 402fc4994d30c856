//! One committed backup as a value.

use crate::attributes::Attributes;
use crate::entry::Entry;
use crate::entry::KNOWN as KNOWN_OF_ENTRIES;
use crate::entry::Kind;
use crate::entry::Meta;
use crate::entry::Name;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::facts;
use crate::facts::Facts;
use crate::id::NodeId;
use crate::id::SnapshotId;

/// The name of the root directory's entry; nobody looks at it.
const ROOT_NAME: &[u8] = b"root";
/// A snapshot that is later than now by more than this was made by a wrong clock.
const FUTURE_SECONDS: i64 = 24 * 60 * 60;

/// Counts of a backup, kept with its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else: symbolic links, devices, pipes, sockets.
    pub others: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
    /// Bytes that were new to the repository, before compression.
    pub bytes_new: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
}

/// One committed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// When the backup began, by the clock of the machine that made it.
    pub time: Time,
    /// Name of that machine.
    pub host: String,
    /// Name of the user who ran the backup.
    pub user: String,
    /// The absolute paths that were asked for, raw bytes.
    pub paths: Vec<Vec<u8>>,
    /// Labels given by the user.
    pub tags: Vec<String>,
    /// The snapshot that the backup compared with, if any.
    pub parent: Option<SnapshotId>,
    /// Version of the program that made it.
    pub program: String,
    /// Metadata of the root directory.
    pub root_meta: Meta,
    /// The root directory.
    pub root: NodeId,
    /// Whatever else the entry of the root directory says.
    pub root_attributes: Attributes,
    /// Counts.
    pub totals: Totals,
    /// Whatever else it says, known to this program or not.
    pub attributes: Attributes,
}

impl Snapshot {
    /// Fails if a newer bygone made it in a way that this program cannot read. Its id, its time and its labels are
    /// what they seem; its tree must not be touched.
    pub fn check_readable(&self) -> Result<()> {
        let of_snapshot =
            self.attributes.unknown_critical(facts::KNOWN).map(|tag| format!("attribute {tag} of snapshots"));
        let of_root = || self.root_attributes.unknown_critical(KNOWN_OF_ENTRIES);
        let needs = of_snapshot.or_else(|| of_root().map(|tag| format!("attribute {tag} of entries")));
        match needs {
            None => Ok(()),
            Some(needs) => Err(Error::Newer { what: format!("snapshot {}", self.id), needs }),
        }
    }

    /// True if this program can read it.
    pub fn is_readable(&self) -> bool {
        self.check_readable().is_ok()
    }

    /// The entry of the root directory, which its record holds.
    pub fn root_entry(&self) -> Option<Entry> {
        let name = Name::new(ROOT_NAME).ok()?;
        let root = Entry::new(name, self.root_meta.clone(), Kind::Directory(self.root));
        Some(Entry { attributes: self.root_attributes.clone(), ..root })
    }

    /// True if it is later than `now` by more than clocks and time zones differ, so the clock of its machine was wrong.
    /// What asks for the newest snapshot passes over it as long as there are others; or else it would be the newest
    /// for years.
    pub fn is_from_the_future(&self, now: Time) -> bool {
        self.time.secs > now.secs.saturating_add(FUTURE_SECONDS)
    }

    /// What it says about its run.
    pub fn facts(&self) -> Facts {
        Facts::of(&self.attributes)
    }
}

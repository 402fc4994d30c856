//! The names of all objects in a store, and the meaning of each name.
//!
//! Names are made and parsed only here, so the code that writes objects and the code that looks for them cannot
//! disagree. A name means one of our objects only if it is, byte for byte, the name that we would give it: a volume in
//! the folder of the other kind, or a commit number without its zeros, is a stranger.
//!
//! The alphabet of names is narrow on purpose: each name is a file name that needs no quoting on any filesystem and a
//! key that needs no escaping in any URL, and no name leads out of the store's directory.

use std::fmt;

use crate::id::ClientId;
use crate::id::RunId;
use crate::id::SlotId;
use crate::id::VolumeName;

/// Name of the description, without which there is no repository.
pub const CONFIG_NAME: &str = "bygone.json";
/// Name of the text for people: the one name with capitals, because people look for such a file.
pub const README_NAME: &str = "README-RECOVER.txt";
/// Folder of the commits, for a LIST.
pub const COMMITS: &str = "commits/";
/// Folder of the key slots, for a LIST.
pub const KEYS: &str = "keys/";
/// Folder of the markers of running backups.
const RUNNING: &str = "running/";

/// Longest name of an object, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// What a volume holds. It is part of every seal in the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// Blocks of file content.
    Data,
    /// Tree nodes.
    Meta,
}

impl VolumeKind {
    /// Both kinds.
    pub const ALL: [VolumeKind; 2] = [VolumeKind::Data, VolumeKind::Meta];

    /// The byte that stands for it in associated data and in the catalog.
    pub fn code(self) -> u8 {
        match self {
            VolumeKind::Data => 0,
            VolumeKind::Meta => 1,
        }
    }

    /// The kind that a byte stands for.
    pub fn from_code(code: u8) -> Option<VolumeKind> {
        VolumeKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Its word in names and dumps.
    pub fn word(self) -> &'static str {
        match self {
            VolumeKind::Data => "data",
            VolumeKind::Meta => "meta",
        }
    }

    /// Folder of the volumes of this kind, for a LIST.
    pub fn folder(self) -> &'static str {
        match self {
            VolumeKind::Data => "data/",
            VolumeKind::Meta => "meta/",
        }
    }
}

/// The name of an object: `/`-separated segments of `a-z`, `0-9`, `.`, `_` and `-`, none of them empty or beginning
/// with a dot, 200 bytes at most; or `README-RECOVER.txt`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// The description.
    Config,
    /// The text for people.
    Readme,
    /// A key slot.
    Slot(SlotId),
    /// The marker of a run of a client, such as a backup.
    Marker(ClientId, RunId),
    /// A commit of a client's chain, and its number.
    Commit(ClientId, u64),
    /// A volume.
    Volume(VolumeKind, VolumeName),
}

/// Name of the object that holds the description.
pub fn config_object() -> ObjectName {
    ObjectName(CONFIG_NAME.to_owned())
}

/// Name of the object that holds the text for people.
pub fn readme_object() -> ObjectName {
    ObjectName(README_NAME.to_owned())
}

/// Name of the object that holds a key slot.
pub fn slot_object(id: SlotId) -> ObjectName {
    ObjectName(format!("{KEYS}{id}"))
}

/// Name of the marker that announces a run of a client. Each run has its own, so the end of one run never takes away
/// the marker of another.
pub fn marker_object(client: ClientId, run: RunId) -> ObjectName {
    ObjectName(format!("{RUNNING}{client}.{run}"))
}

/// Name of the object that holds a commit: its number is padded so that names sort like numbers.
pub fn commit_object(client: ClientId, seq: u64) -> ObjectName {
    ObjectName(format!("{COMMITS}{client}/{seq:016}"))
}

/// How messages refer to a client's whole chain of commits.
pub fn chain_title(client: ClientId) -> String {
    format!("{COMMITS}{client}")
}

/// Name of the object that is a volume.
pub fn volume_object(kind: VolumeKind, name: VolumeName) -> ObjectName {
    let hex = name.to_hex();
    ObjectName(format!("{}{}/{hex}", kind.folder(), hex.get(..2).unwrap_or_default()))
}

/// True for a top-level name that a repository may have besides `bygone.json`: a folder of objects, or the text for
/// people.
pub fn is_at_top(name: &str) -> bool {
    let folders = [VolumeKind::Data.folder(), VolumeKind::Meta.folder(), COMMITS, KEYS, RUNNING];
    name == README_NAME || folders.iter().any(|folder| folder.strip_suffix('/') == Some(name))
}

impl ObjectName {
    /// The name with this text, or `None` if it is not valid.
    pub fn new(text: &str) -> Option<ObjectName> {
        let valid = text.len() <= NAME_BYTES_MAX && text.split('/').all(is_segment);
        (valid || text == README_NAME).then(|| ObjectName(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory (empty at the top) and the last segment.
    pub(crate) fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }

    /// The folder that holds the object, for a LIST: empty at the top, otherwise with its slash.
    pub fn folder(&self) -> &str {
        self.0.rfind('/').and_then(|slash| self.0.get(..=slash)).unwrap_or_default()
    }

    /// True if the object lies in the folder of the key slots, whatever it is called.
    pub fn is_among_keys(&self) -> bool {
        self.0.starts_with(KEYS)
    }

    /// True if the object lies in the folder of the markers, whatever it is called.
    pub fn is_among_markers(&self) -> bool {
        self.0.starts_with(RUNNING)
    }

    /// What the name means; `None` if bygone gives this name to nothing.
    pub fn kind(&self) -> Option<ObjectKind> {
        let parts: Vec<&str> = self.0.split('/').collect();
        let (kind, name) = match parts.as_slice() {
            [CONFIG_NAME] => (ObjectKind::Config, config_object()),
            [README_NAME] => (ObjectKind::Readme, readme_object()),
            ["keys", id] => {
                let id = SlotId::from_hex(id)?;
                (ObjectKind::Slot(id), slot_object(id))
            }
            ["running", marker] => {
                let (client, run) = marker.split_once('.')?;
                let (client, run) = (ClientId::from_hex(client)?, RunId::from_hex(run)?);
                (ObjectKind::Marker(client, run), marker_object(client, run))
            }
            ["commits", client, seq] => {
                let (client, seq) = (ClientId::from_hex(client)?, seq.parse().ok().filter(|seq| *seq > 0)?);
                (ObjectKind::Commit(client, seq), commit_object(client, seq))
            }
            [folder, _, hex] => {
                let kind = VolumeKind::ALL.into_iter().find(|kind| kind.word() == *folder)?;
                let name = VolumeName::from_hex(hex)?;
                (ObjectKind::Volume(kind, name), volume_object(kind, name))
            }
            _ => return None,
        };
        (name == *self).then_some(kind)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_segment(segment: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_made_name_is_valid_and_means_what_it_was_made_for() {
        let (client, slot, volume) = (ClientId([0xab; 16]), SlotId([0x01; 16]), VolumeName([0xcd; 32]));
        let run = RunId([0x23; 16]);
        let made = [
            (config_object(), ObjectKind::Config),
            (readme_object(), ObjectKind::Readme),
            (slot_object(slot), ObjectKind::Slot(slot)),
            (marker_object(client, run), ObjectKind::Marker(client, run)),
            (commit_object(client, 1), ObjectKind::Commit(client, 1)),
            (commit_object(client, u64::MAX), ObjectKind::Commit(client, u64::MAX)),
            (volume_object(VolumeKind::Data, volume), ObjectKind::Volume(VolumeKind::Data, volume)),
            (volume_object(VolumeKind::Meta, volume), ObjectKind::Volume(VolumeKind::Meta, volume)),
        ];
        for (name, kind) in made {
            assert_eq!(ObjectName::new(name.as_str()).as_ref(), Some(&name));
            assert_eq!(name.kind(), Some(kind), "{name}");
            let top = name.as_str().split('/').next().unwrap();
            assert_eq!(is_at_top(top), top != CONFIG_NAME, "{name}");
            assert!(name.as_str().starts_with(name.folder()) && name.folder().matches('/').count() <= 2, "{name}");
        }
    }

    #[test]
    fn only_the_exact_name_means_an_object() {
        let (client, volume) = (ClientId([0xab; 16]), VolumeName([0xcd; 32]));
        let strange = [
            format!("data/00/{volume}"),
            format!("data/{volume}"),
            format!("other/cd/{volume}"),
            format!("data/cd/{}", volume.to_hex().replace('c', "d")),
            format!("commits/{client}/7"),
            format!("commits/{client}/0000000000000000"),
            format!("commits/{client}"),
            "commits/x/0000000000000001".into(),
            "keys/x".into(),
            "running/x".into(),
            format!("running/{client}"),
            format!("running/{client}.x"),
            format!("running/{client}.{client}.{client}"),
            "data/other".into(),
            "keys".into(),
            "x/bygone.json".into(),
            "notes.txt".into(),
        ];
        for text in strange {
            assert_eq!(ObjectName::new(&text).unwrap().kind(), None, "{text}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_or_need_quoting_are_none() {
        let long = "a".repeat(200);
        for good in ["bygone.json", "data/00/ab-c_d.e", "a", "a../b..c", "-", "README-RECOVER.txt", &long] {
            assert_eq!(ObjectName::new(good).map(|name| name.to_string()).as_deref(), Some(good));
        }
        let too_long = "a".repeat(201);
        let bad = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            ".a",
            "a/.tmp",
            "A",
            "a/B",
            "a b",
            "a\\b",
            "a\0",
            "a\n",
            "\u{e4}",
            "lost+found",
            "a/README-RECOVER.txt",
            "README-RECOVER.TXT",
            "a:b",
            "a%2fb",
            &too_long,
        ];
        for text in bad {
            assert_eq!(ObjectName::new(text), None, "{text:?} is no name");
        }
    }

    #[test]
    fn names_split_at_their_last_slash() {
        let split = |text| ObjectName::new(text).map(|name| (name.split().0.to_owned(), name.split().1.to_owned()));
        assert_eq!(split("a/b/c"), Some(("a/b".into(), "c".into())));
        assert_eq!(split("c"), Some((String::new(), "c".into())));
    }
}

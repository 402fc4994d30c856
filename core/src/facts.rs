//! What a snapshot says about the run that made it, besides what every snapshot says: its attributes, decoded.
//!
//! Facts are informative: nothing that reads or restores depends on them. So one that does not decode counts as absent,
//! and one that is far too long is not written.

use crate::attributes::Attribute;
use crate::attributes::Attributes;
use crate::entry::Time;
use crate::limits;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

const SOURCES: u64 = 1;
const EXCLUDES: u64 = 2;
const RULES: u64 = 3;
const END: u64 = 4;
const FILES: u64 = 5;
const CHANGED_WHILE_READ: u64 = 6;
const DESCRIPTION: u64 = 7;
const PROTECTED: u64 = 8;
const ZONE_OFFSET: u64 = 9;
const EXIT: u64 = 10;
const GONE: u64 = 11;

/// The attributes of snapshots that this program knows.
pub(crate) const KNOWN: &[u64] =
    &[SOURCES, EXCLUDES, RULES, END, FILES, CHANGED_WHILE_READ, DESCRIPTION, PROTECTED, ZONE_OFFSET, EXIT, GONE];

/// Rules of a run besides its patterns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunRules {
    /// The content of directories that a valid `CACHEDIR.TAG` marks as caches was left out.
    pub caches: bool,
    /// Other file systems were left out.
    pub one_file_system: bool,
    /// Every file was read, even if it had not changed.
    pub force: bool,
    /// A different change time alone did not count as a change.
    pub ignore_ctime: bool,
    /// A different inode number alone did not count as a change.
    pub ignore_inode: bool,
    /// The content of directories that have one of these names was left out.
    pub if_present: Vec<Vec<u8>>,
    /// Files larger than this were left out.
    pub larger_than: Option<u64>,
}

/// Files by how they compare with the parent snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileCounts {
    /// Files that it does not have.
    pub new: u64,
    /// Files that differ from it.
    pub changed: u64,
    /// Files that were taken from it without reading them.
    pub unchanged: u64,
}

/// What a snapshot says about its run; whatever is absent is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The paths as the user gave them, raw bytes.
    pub sources: Option<Vec<Vec<u8>>>,
    /// The patterns of what was left out, raw bytes, in order.
    pub excludes: Option<Vec<Vec<u8>>>,
    /// The other rules.
    pub rules: Option<RunRules>,
    /// When the last file had been read, by the clock of the machine.
    pub end: Option<Time>,
    /// Counts of files.
    pub files: Option<FileCounts>,
    /// Files that changed while they were read.
    pub changed_while_read: Option<u64>,
    /// A text by the user.
    pub description: Option<String>,
    /// True if it must not be removed without more ado.
    pub is_protected: bool,
    /// The offset of the machine's time zone from UTC when the backup began, in seconds, positive in the east.
    pub zone_offset: Option<i64>,
    /// The exit code of the run.
    pub exit: Option<u8>,
    /// Entries of the parent snapshot that this one lacks, although it covers their place.
    pub gone: Option<u64>,
}

impl Facts {
    /// The attributes that say this.
    pub fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::default();
        let mut add = |tag, encode: &dyn Fn(&mut Encoder)| {
            let mut out = Encoder::new();
            encode(&mut out);
            if out.len() <= limits::FACT_BYTES_MAX {
                attributes.set(Attribute { tag, is_critical: false, value: out.finish() });
            }
        };
        if let Some(sources) = &self.sources {
            add(SOURCES, &|out| strings(out, sources));
        }
        if let Some(excludes) = &self.excludes {
            add(EXCLUDES, &|out| strings(out, excludes));
        }
        if let Some(rules) = &self.rules {
            add(RULES, &|out| rules.encode(out));
        }
        if let Some(end) = self.end {
            add(END, &|out| {
                out.signed(end.secs);
                out.varint(end.nanos.into());
            });
        }
        if let Some(FileCounts { new, changed, unchanged }) = self.files {
            add(FILES, &|out| [new, changed, unchanged].into_iter().for_each(|count| out.varint(count)));
        }
        if let Some(count) = self.changed_while_read {
            add(CHANGED_WHILE_READ, &|out| out.varint(count));
        }
        if let Some(description) = &self.description {
            add(DESCRIPTION, &|out| out.raw(description.as_bytes()));
        }
        if self.is_protected {
            add(PROTECTED, &|_| {});
        }
        if let Some(offset) = self.zone_offset {
            add(ZONE_OFFSET, &|out| out.signed(offset));
        }
        if let Some(exit) = self.exit {
            add(EXIT, &|out| out.u8(exit));
        }
        if let Some(count) = self.gone {
            add(GONE, &|out| out.varint(count));
        }
        attributes
    }

    /// What the attributes say, as far as this program understands it.
    pub fn of(attributes: &Attributes) -> Facts {
        Facts {
            sources: value(attributes, SOURCES, read_strings),
            excludes: value(attributes, EXCLUDES, read_strings),
            rules: value(attributes, RULES, RunRules::decode),
            end: value(attributes, END, |input| {
                let (secs, nanos) = (input.signed()?, input.varint32("a time")?);
                if nanos < 1_000_000_000 { Ok(Time { secs, nanos }) } else { Err(DecodeError::Invalid("a time")) }
            }),
            files: value(attributes, FILES, |input| {
                Ok(FileCounts { new: input.varint()?, changed: input.varint()?, unchanged: input.varint()? })
            }),
            changed_while_read: value(attributes, CHANGED_WHILE_READ, |input| input.varint()),
            description: value(attributes, DESCRIPTION, |input| {
                let bytes = input.raw(input.remaining())?.to_vec();
                String::from_utf8(bytes).map_err(|_| DecodeError::Invalid("a description"))
            }),
            is_protected: value(attributes, PROTECTED, |_| Ok(())).is_some(),
            zone_offset: value(attributes, ZONE_OFFSET, |input| input.signed()),
            exit: value(attributes, EXIT, |input| input.u8()),
            gone: value(attributes, GONE, |input| input.varint()),
        }
    }
}

fn value<T>(
    attributes: &Attributes,
    tag: u64,
    decode: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Option<T> {
    let mut input = Decoder::new(attributes.get(tag)?);
    let value = decode(&mut input).ok()?;
    input.end().ok().map(|()| value)
}

fn strings(out: &mut Encoder, all: &[Vec<u8>]) {
    out.varint(all.len() as u64);
    all.iter().for_each(|one| out.string(one));
}

fn read_strings(input: &mut Decoder<'_>) -> Result<Vec<Vec<u8>>, DecodeError> {
    let count = input.count(input.remaining(), "the number of texts")?;
    (0..count).map(|_| Ok(input.string(input.remaining(), "a text")?.to_vec())).collect()
}

impl RunRules {
    fn encode(&self, out: &mut Encoder) {
        let bits = [self.caches, self.one_file_system, self.force, self.ignore_ctime, self.ignore_inode];
        out.u8(bits.into_iter().rev().fold(0, |all, bit| all << 1 | u8::from(bit)));
        strings(out, &self.if_present);
        // One file may be as long as a number can say, but no rule has to name it.
        out.varint(self.larger_than.map_or(0, |bytes| bytes.saturating_add(1)));
    }

    fn decode(input: &mut Decoder<'_>) -> Result<RunRules, DecodeError> {
        let bits = input.u8()?;
        if bits >= 1 << 5 {
            return Err(DecodeError::Invalid("the rules"));
        }
        let has = |bit: u8| bits & 1 << bit != 0;
        Ok(RunRules {
            caches: has(0),
            one_file_system: has(1),
            force: has(2),
            ignore_ctime: has(3),
            ignore_inode: has(4),
            if_present: read_strings(input)?,
            larger_than: input.varint()?.checked_sub(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Facts {
        Facts {
            sources: Some(vec![b"../x\xff".to_vec(), b"/".to_vec()]),
            excludes: Some(vec![b"*.o".to_vec()]),
            rules: Some(RunRules {
                one_file_system: true,
                ignore_inode: true,
                if_present: vec![b".nobackup".to_vec()],
                larger_than: Some(0),
                ..RunRules::default()
            }),
            end: Some(Time { secs: -1, nanos: 5 }),
            files: Some(FileCounts { new: 1, changed: 2, unchanged: 300 }),
            changed_while_read: Some(7),
            description: Some("before the move".into()),
            is_protected: true,
            zone_offset: Some(-12_600),
            exit: Some(3),
            gone: Some(1_000),
        }
    }

    #[test]
    fn facts_come_back_as_they_went_in() {
        for facts in [sample(), Facts::default(), Facts { excludes: Some(vec![]), ..Facts::default() }] {
            assert_eq!(Facts::of(&facts.attributes()), facts);
        }
        for tag in KNOWN {
            assert!(sample().attributes().get(*tag).is_some(), "{tag}");
        }
    }

    #[test]
    fn a_fact_that_is_broken_or_too_long_is_absent() {
        let mut attributes = sample().attributes();
        for (tag, value) in [(RULES, vec![0x20, 0, 0]), (END, vec![0]), (FILES, vec![1, 2, 3, 4]), (EXIT, vec![3, 0])] {
            attributes.set(Attribute { tag, is_critical: false, value });
        }
        let wanted = Facts { rules: None, end: None, files: None, exit: None, ..sample() };
        assert_eq!(Facts::of(&attributes), wanted);
        let long = Facts { excludes: Some(vec![vec![b'x'; limits::FACT_BYTES_MAX]]), ..sample() };
        assert_eq!(Facts::of(&long.attributes()), Facts { excludes: None, ..sample() });
    }
}

//! A leaf: entries of a directory in byte order of their names.
//!
//! Owners and devices are listed once at the front and entries refer to them by number; rare properties (several links,
//! flags, attributes) cost one bit when absent. Sizes that follow from the content are not written. A list of entries
//! has exactly one encoding, and decoding refuses all others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::entry::Content;
use crate::entry::Entry;
use crate::entry::Extent;
use crate::entry::Kind;
use crate::entry::Meta;
use crate::entry::Name;
use crate::entry::Owner;
use crate::entry::Time;
use crate::entry::Xattr;
use crate::id::BlockId;
use crate::id::NodeId;
use crate::limits;
use crate::tree::TYPE_LEAF;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

const KIND_INLINE: u8 = 0;
const KIND_EXTENTS: u8 = 1;
const KIND_LIST: u8 = 2;
const KIND_DIRECTORY: u8 = 3;
const KIND_SYMLINK: u8 = 4;
const KIND_FIFO: u8 = 5;
const KIND_SOCKET: u8 = 6;
const KIND_CHAR_DEVICE: u8 = 7;
const KIND_BLOCK_DEVICE: u8 = 8;
const KIND_MASK: u8 = 0x0f;
const HAS_LINKS: u8 = 0x10;
const HAS_FLAGS: u8 = 0x20;
const HAS_XATTRS: u8 = 0x40;

/// The bytes of a leaf. `entries` are in byte order of their names, without duplicates.
pub fn encode_leaf(entries: &[Entry]) -> Vec<u8> {
    let owners: Vec<&Owner> = entries.iter().map(|e| &*e.meta.owner).collect::<BTreeSet<_>>().into_iter().collect();
    let devices: Vec<u64> = entries.iter().map(|e| e.meta.device).collect::<BTreeSet<_>>().into_iter().collect();
    let mut out = Encoder::new();
    out.u8(TYPE_LEAF);
    out.varint(owners.len() as u64);
    for owner in &owners {
        out.varint(u64::from(owner.uid));
        out.varint(u64::from(owner.gid));
        out.string(&owner.user);
        out.string(&owner.group);
    }
    out.varint(devices.len() as u64);
    devices.iter().for_each(|device| out.varint(*device));
    out.varint(entries.len() as u64);
    let mut inode_before = 0;
    for entry in entries {
        let owner = owners.binary_search(&&*entry.meta.owner).unwrap_or(0) as u64;
        let device = devices.binary_search(&entry.meta.device).unwrap_or(0) as u64;
        encode_entry(&mut out, entry, owner, device, inode_before);
        inode_before = entry.meta.inode;
    }
    out.finish()
}

fn encode_entry(out: &mut Encoder, entry: &Entry, owner: u64, device: u64, inode_before: u64) {
    let meta = &entry.meta;
    let has = |yes: bool, bit: u8| if yes { bit } else { 0 };
    out.string(entry.name.as_bytes());
    out.u8(kind_code(&entry.kind)
        | has(meta.nlink != 1, HAS_LINKS)
        | has(meta.flags != 0, HAS_FLAGS)
        | has(!meta.xattrs.is_empty(), HAS_XATTRS));
    out.varint(u64::from(meta.mode));
    out.varint(owner);
    out.signed(meta.mtime.secs);
    out.varint(u64::from(meta.mtime.nanos));
    out.signed(meta.ctime.secs.wrapping_sub(meta.mtime.secs));
    out.varint(u64::from(meta.ctime.nanos));
    out.varint(device);
    out.signed(meta.inode.wrapping_sub(inode_before).cast_signed());
    if meta.nlink != 1 {
        out.varint(u64::from(meta.nlink));
    }
    if meta.flags != 0 {
        out.varint(u64::from(meta.flags));
    }
    if !meta.xattrs.is_empty() {
        out.varint(meta.xattrs.len() as u64);
        for xattr in &meta.xattrs {
            out.string(&xattr.name);
            out.string(&xattr.value);
        }
    }
    match &entry.kind {
        Kind::File(Content::Inline(bytes)) => out.string(bytes),
        Kind::File(Content::Extents(extents)) => encode_extents(out, extents),
        Kind::File(Content::List { root, allocated }) => {
            out.varint(meta.size);
            out.varint(*allocated);
            out.raw(&root.0);
        }
        Kind::Directory(id) => out.raw(&id.0),
        Kind::Symlink(target) => out.string(target),
        Kind::Fifo | Kind::Socket => {}
        Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => out.varint(*rdev),
    }
}

fn kind_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File(Content::Inline(_)) => KIND_INLINE,
        Kind::File(Content::Extents(_)) => KIND_EXTENTS,
        Kind::File(Content::List { .. }) => KIND_LIST,
        Kind::Directory(_) => KIND_DIRECTORY,
        Kind::Symlink(_) => KIND_SYMLINK,
        Kind::Fifo => KIND_FIFO,
        Kind::Socket => KIND_SOCKET,
        Kind::CharDevice { .. } => KIND_CHAR_DEVICE,
        Kind::BlockDevice { .. } => KIND_BLOCK_DEVICE,
    }
}

/// Extents: their number, then for each its length doubled, plus one if it is a hole, then a block's id.
pub(super) fn encode_extents(out: &mut Encoder, extents: &[Extent]) {
    out.varint(extents.len() as u64);
    for extent in extents {
        match extent {
            Extent::Block { id, length } => {
                out.varint(u64::from(*length) << 1);
                out.raw(&id.0);
            }
            Extent::Hole { length } => out.varint(length << 1 | 1),
        }
    }
}

pub(super) fn decode_extents(input: &mut Decoder<'_>, max: usize) -> Result<Vec<Extent>, DecodeError> {
    let count = input.count(max, "the number of extents")?;
    let mut extents = Vec::with_capacity(count);
    for _ in 0..count {
        let coded = input.varint()?;
        let length = coded >> 1;
        if length == 0 {
            return Err(DecodeError::Invalid("the length of an extent"));
        }
        extents.push(if coded & 1 == 1 {
            Extent::Hole { length }
        } else if length <= u64::from(limits::BLOCK_BYTES_MAX) {
            let length = u32::try_from(length).map_err(|_| DecodeError::Limit("the length of a block"))?;
            Extent::Block { id: BlockId(input.array()?), length }
        } else {
            return Err(DecodeError::Limit("the length of a block"));
        });
    }
    Ok(extents)
}

/// Length of all extents together; refuses lengths that no file can have.
pub(super) fn extents_bytes(extents: &[Extent]) -> Result<u64, DecodeError> {
    let total = extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.length()));
    total.filter(|total| *total <= i64::MAX as u64).ok_or(DecodeError::Limit("the length of a file"))
}

/// Reads a leaf: its entries, which are in byte order of their names.
pub fn decode_leaf(bytes: &[u8]) -> Result<Vec<Entry>, DecodeError> {
    let mut input = Decoder::new(bytes);
    if input.u8()? != TYPE_LEAF {
        return Err(DecodeError::Invalid("the type of a node"));
    }
    let mut owners: Vec<Arc<Owner>> = Vec::new();
    for _ in 0..input.count(limits::NODE_ENTRIES_MAX, "the number of owners")? {
        let owner = decode_owner(&mut input)?;
        if owners.last().is_some_and(|before| **before >= owner) {
            return Err(DecodeError::Invalid("the order of owners"));
        }
        owners.push(Arc::new(owner));
    }
    let mut devices: Vec<u64> = Vec::new();
    for _ in 0..input.count(limits::NODE_ENTRIES_MAX, "the number of devices")? {
        let device = input.varint()?;
        if devices.last().is_some_and(|before| *before >= device) {
            return Err(DecodeError::Invalid("the order of devices"));
        }
        devices.push(device);
    }
    let count = input.count(limits::NODE_ENTRIES_MAX, "the number of entries")?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut inode_before = 0;
    for _ in 0..count {
        let entry = decode_entry(&mut input, &owners, &devices, inode_before)?;
        if entries.last().is_some_and(|before| before.name >= entry.name) {
            return Err(DecodeError::Invalid("the order of entries"));
        }
        inode_before = entry.meta.inode;
        entries.push(entry);
    }
    input.end()?;
    let is_used = |n: usize| entries.iter().any(|e| owners.get(n).is_some_and(|o| Arc::ptr_eq(o, &e.meta.owner)));
    let is_seen = |device: &u64| entries.iter().any(|e| e.meta.device == *device);
    if !(0..owners.len()).all(is_used) || !devices.iter().all(is_seen) {
        return Err(DecodeError::Invalid("the tables of a leaf"));
    }
    Ok(entries)
}

fn decode_owner(input: &mut Decoder<'_>) -> Result<Owner, DecodeError> {
    Ok(Owner {
        uid: input.varint32("a user id")?,
        gid: input.varint32("a group id")?,
        user: input.string(limits::OWNER_NAME_BYTES_MAX, "a user name")?.to_vec(),
        group: input.string(limits::OWNER_NAME_BYTES_MAX, "a group name")?.to_vec(),
    })
}

fn decode_time(secs: i64, nanos: u64) -> Result<Time, DecodeError> {
    match u32::try_from(nanos) {
        Ok(nanos) if nanos < 1_000_000_000 => Ok(Time { secs, nanos }),
        _ => Err(DecodeError::Invalid("a time")),
    }
}

fn decode_entry(
    input: &mut Decoder<'_>,
    owners: &[Arc<Owner>],
    devices: &[u64],
    inode_before: u64,
) -> Result<Entry, DecodeError> {
    let pick = |n: u64| usize::try_from(n).ok();
    let name = Name::new(input.string(limits::NAME_BYTES_MAX, "a name")?)?;
    let kind_byte = input.u8()?;
    let mode = u16::try_from(input.varint()?).ok().filter(|mode| *mode <= 0o7777);
    let owner = pick(input.varint()?).and_then(|n| owners.get(n)).cloned();
    let mtime_secs = input.signed()?;
    let mtime = decode_time(mtime_secs, input.varint()?)?;
    let ctime_secs = mtime_secs.wrapping_add(input.signed()?);
    let ctime = decode_time(ctime_secs, input.varint()?)?;
    let device = pick(input.varint()?).and_then(|n| devices.get(n)).copied();
    let inode = inode_before.wrapping_add(input.signed()?.cast_unsigned());
    let nlink = optional(input, kind_byte & HAS_LINKS != 0, 1, "the number of links")?;
    let flags = optional(input, kind_byte & HAS_FLAGS != 0, 0, "the inode flags")?;
    let xattrs = if kind_byte & HAS_XATTRS != 0 { decode_xattrs(input)? } else { Vec::new() };
    let mut size = 0;
    let kind = decode_kind(input, kind_byte, &mut size)?;
    let (Some(mode), Some(owner), Some(device)) = (mode, owner, device) else {
        return Err(DecodeError::Invalid("the metadata of an entry"));
    };
    Ok(Entry { name, meta: Meta { mode, owner, mtime, ctime, size, nlink, device, inode, flags, xattrs }, kind })
}

/// A field that is written only if it differs from its default.
fn optional(input: &mut Decoder<'_>, present: bool, default: u32, what: &'static str) -> Result<u32, DecodeError> {
    if !present {
        return Ok(default);
    }
    let value = input.varint32(what)?;
    if value == default { Err(DecodeError::Invalid(what)) } else { Ok(value) }
}

fn decode_xattrs(input: &mut Decoder<'_>) -> Result<Vec<Xattr>, DecodeError> {
    let count = input.count(limits::XATTRS_MAX, "the number of attributes")?;
    let mut xattrs: Vec<Xattr> = Vec::new();
    for _ in 0..count {
        let name = input.string(limits::XATTR_NAME_BYTES_MAX, "the name of an attribute")?.to_vec();
        let value = input.string(limits::XATTR_VALUE_BYTES_MAX, "the value of an attribute")?.to_vec();
        if name.is_empty() || name.contains(&0) || xattrs.last().is_some_and(|before| before.name >= name) {
            return Err(DecodeError::Invalid("the name of an attribute"));
        }
        xattrs.push(Xattr { name, value });
    }
    if xattrs.is_empty() { Err(DecodeError::Invalid("the number of attributes")) } else { Ok(xattrs) }
}

fn decode_kind(input: &mut Decoder<'_>, kind_byte: u8, size: &mut u64) -> Result<Kind, DecodeError> {
    if kind_byte & !(KIND_MASK | HAS_LINKS | HAS_FLAGS | HAS_XATTRS) != 0 {
        return Err(DecodeError::Invalid("the kind of an entry"));
    }
    Ok(match kind_byte & KIND_MASK {
        KIND_INLINE => {
            let bytes = input.string(limits::INLINE_BYTES_MAX, "the inline content")?.to_vec();
            *size = bytes.len() as u64;
            Kind::File(Content::Inline(bytes))
        }
        KIND_EXTENTS => {
            let extents = decode_extents(input, limits::INLINE_EXTENTS_MAX)?;
            *size = extents_bytes(&extents)?;
            if extents.is_empty() {
                return Err(DecodeError::Invalid("the number of extents"));
            }
            Kind::File(Content::Extents(extents))
        }
        KIND_LIST => {
            *size = input.varint()?;
            let allocated = input.varint()?;
            if allocated > *size {
                return Err(DecodeError::Invalid("the allocated bytes of a file"));
            }
            Kind::File(Content::List { root: NodeId(input.array()?), allocated })
        }
        KIND_DIRECTORY => Kind::Directory(NodeId(input.array()?)),
        KIND_SYMLINK => {
            let target = input.string(limits::SYMLINK_BYTES_MAX, "the target of a link")?.to_vec();
            if target.is_empty() || target.contains(&0) {
                return Err(DecodeError::Invalid("the target of a link"));
            }
            *size = target.len() as u64;
            Kind::Symlink(target)
        }
        KIND_FIFO => Kind::Fifo,
        KIND_SOCKET => Kind::Socket,
        KIND_CHAR_DEVICE => Kind::CharDevice { rdev: input.varint()? },
        KIND_BLOCK_DEVICE => Kind::BlockDevice { rdev: input.varint()? },
        _ => return Err(DecodeError::Invalid("the kind of an entry")),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = Time> {
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Time { secs, nanos })
    }

    fn extent() -> impl Strategy<Value = Extent> {
        prop_oneof![
            (any::<[u8; 32]>(), 1u32..=limits::BLOCK_BYTES_MAX)
                .prop_map(|(id, length)| Extent::Block { id: BlockId(id), length }),
            (1u64..1 << 60).prop_map(|length| Extent::Hole { length }),
        ]
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..=limits::INLINE_BYTES_MAX)
                .prop_map(|bytes| Kind::File(Content::Inline(bytes))),
            prop::collection::vec(extent(), 1..=limits::INLINE_EXTENTS_MAX)
                .prop_map(|extents| Kind::File(Content::Extents(extents))),
            any::<[u8; 32]>().prop_map(|id| Kind::File(Content::List { root: NodeId(id), allocated: 0 })),
            any::<[u8; 32]>().prop_map(|id| Kind::Directory(NodeId(id))),
            prop::collection::vec(1u8.., 1..80).prop_map(Kind::Symlink),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            any::<u64>().prop_map(|rdev| Kind::CharDevice { rdev }),
            any::<u64>().prop_map(|rdev| Kind::BlockDevice { rdev }),
        ]
    }

    prop_compose! {
        fn meta()(
            mode in 0u16..=0o7777, uid in 0u32..3, user in prop::collection::vec(any::<u8>(), 0..3),
            mtime in time(), ctime in time(), nlink in 0u32..4, device in 0u64..3, inode: u64,
            flags in prop_oneof![Just(0), any::<u32>()],
            xattrs in prop::collection::btree_map(prop::collection::vec(1u8.., 1..5),
                prop::collection::vec(any::<u8>(), 0..9), 0..3),
        ) -> Meta {
            let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
            let owner = Arc::new(Owner { uid, gid: 7, user, group: vec![] });
            Meta { mode, owner, mtime, ctime, size: 0, nlink, device, inode, flags, xattrs }
        }
    }

    prop_compose! {
        pub fn entries()(
            list in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..20), (meta(), kind()), 0..30)
        ) -> Vec<Entry> {
            list.into_iter().filter_map(|(name, (mut meta, kind))| {
                meta.size = match &kind {
                    Kind::File(Content::Inline(bytes)) => bytes.len() as u64,
                    Kind::File(Content::Extents(extents)) => extents_bytes(extents).ok()?,
                    Kind::File(Content::List { .. }) => meta.inode,
                    Kind::Symlink(target) => target.len() as u64,
                    _ => 0,
                };
                Some(Entry { name: Name::new(&name).ok()?, meta, kind })
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn entries_come_back_from_a_leaf(entries in entries()) {
            prop_assert_eq!(decode_leaf(&encode_leaf(&entries)), Ok(entries));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(entries in entries(), at: prop::sample::Index, byte: u8) {
            let mut bytes = encode_leaf(&entries);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(entries) = decode_leaf(&bytes) {
                prop_assert_eq!(encode_leaf(&entries), bytes);
            }
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = super::super::Node::decode(&bytes);
        }
    }
}

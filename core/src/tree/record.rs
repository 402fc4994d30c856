//! An entry as a leaf records it.
//!
//! Rare properties (several links, flags, attributes) cost one bit when absent, and sizes that follow from the content
//! are not written. A record has a length of its own and may end in attributes. So a kind or a critical attribute that
//! only a newer bygone knows costs its entry and not the leaf: what follows the metadata is then kept as it is. An
//! entry has exactly one encoding beside its neighbours, and decoding refuses all others.

use std::sync::Arc;

use crate::attributes::Attributes;
use crate::entry::Content;
use crate::entry::Entry;
use crate::entry::Extent;
use crate::entry::FileType;
use crate::entry::Kind;
use crate::entry::Meta;
use crate::entry::Name;
use crate::entry::Owner;
use crate::entry::Time;
use crate::entry::Xattr;
use crate::id::BlockId;
use crate::id::NodeId;
use crate::limits;
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
const KIND_UNREADABLE: u8 = 9;
const KIND_MASK: u8 = 0x0f;
const HAS_LINKS: u8 = 0x10;
const HAS_FLAGS: u8 = 0x20;
const HAS_XATTRS: u8 = 0x40;
const HAS_BIRTH: u8 = 0x80;
/// What an unreadable entry was, if that is not known.
const TYPE_UNKNOWN: u8 = 15;

/// What a record takes from its leaf: the lists that it refers to, and the inode number of the entry before it.
pub(super) struct Neighbours<'a> {
    pub(super) owners: &'a [Arc<Owner>],
    pub(super) devices: &'a [u64],
    pub(super) inode_before: u64,
}

/// Appends an entry whose owner and device have these places in the leaf.
pub(super) fn encode_entry(out: &mut Encoder, entry: &Entry, owner: u64, device: u64, inode_before: u64) {
    let meta = &entry.meta;
    let has = |yes: bool, bit: u8| if yes { bit } else { 0 };
    out.string(entry.name.as_bytes());
    out.u8(kind_code(&entry.kind)
        | has(meta.nlink != 1, HAS_LINKS)
        | has(meta.flags != 0, HAS_FLAGS)
        | has(!meta.xattrs.is_empty(), HAS_XATTRS)
        | has(meta.birth.is_some(), HAS_BIRTH));
    out.varint(u64::from(meta.mode));
    out.varint(owner);
    out.signed(meta.mtime.secs);
    out.varint(u64::from(meta.mtime.nanos));
    encode_later(out, meta.ctime, meta.mtime);
    if let Some(birth) = meta.birth {
        encode_later(out, birth, meta.ctime);
    }
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
    encode_body(out, entry);
    if !entry.attributes.is_empty() {
        entry.attributes.encode(out);
    }
}

/// A time by its distance from another one, which it often equals.
fn encode_later(out: &mut Encoder, time: Time, other: Time) {
    out.signed(time.secs.wrapping_sub(other.secs));
    out.signed(i64::from(time.nanos) - i64::from(other.nanos));
}

fn encode_body(out: &mut Encoder, entry: &Entry) {
    match &entry.kind {
        Kind::File(Content::Inline(bytes)) => out.string(bytes),
        Kind::File(Content::Extents(extents)) => encode_extents(out, extents),
        Kind::File(Content::List { root, allocated }) => {
            out.varint(entry.meta.size);
            out.varint(*allocated);
            out.raw(&root.0);
        }
        Kind::Directory(id) => out.raw(&id.0),
        Kind::Symlink(target) => out.string(target),
        Kind::Fifo | Kind::Socket => {}
        Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => out.varint(*rdev),
        Kind::Unreadable { errno, was } => {
            out.varint(u64::from(*errno));
            out.u8(was.map_or(TYPE_UNKNOWN, FileType::kind));
            out.varint(entry.meta.size);
        }
        Kind::Newer { body, .. } => out.raw(body),
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
        Kind::Unreadable { .. } => KIND_UNREADABLE,
        Kind::Newer { code, .. } => *code,
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

fn decode_time(secs: i64, nanos: u64) -> Result<Time, DecodeError> {
    match u32::try_from(nanos) {
        Ok(nanos) if nanos < 1_000_000_000 => Ok(Time { secs, nanos }),
        _ => Err(DecodeError::Invalid("a time")),
    }
}

fn decode_later(input: &mut Decoder<'_>, other: Time) -> Result<Time, DecodeError> {
    let secs = other.secs.wrapping_add(input.signed()?);
    let nanos = i64::from(other.nanos).checked_add(input.signed()?).and_then(|nanos| u64::try_from(nanos).ok());
    decode_time(secs, nanos.ok_or(DecodeError::Invalid("a time"))?)
}

/// Reads an entry from its record.
pub(super) fn decode_entry(record: &[u8], leaf: &Neighbours<'_>) -> Result<Entry, DecodeError> {
    let mut input = Decoder::new(record);
    let input = &mut input;
    let pick = |n: u64| usize::try_from(n).ok();
    let name = Name::new(input.string(limits::NAME_BYTES_MAX, "a name")?)?;
    let kind_byte = input.u8()?;
    let mode = u16::try_from(input.varint()?).ok().filter(|mode| *mode <= 0o7777);
    let owner = pick(input.varint()?).and_then(|n| leaf.owners.get(n)).cloned();
    let mtime_secs = input.signed()?;
    let mtime = decode_time(mtime_secs, input.varint()?)?;
    let ctime = decode_later(input, mtime)?;
    let birth = if kind_byte & HAS_BIRTH != 0 { Some(decode_later(input, ctime)?) } else { None };
    let device = pick(input.varint()?).and_then(|n| leaf.devices.get(n)).copied();
    let inode = leaf.inode_before.wrapping_add(input.signed()?.cast_unsigned());
    let nlink = optional(input, kind_byte & HAS_LINKS != 0, 1, "the number of links")?;
    let flags = optional(input, kind_byte & HAS_FLAGS != 0, 0, "the inode flags")?;
    let xattrs = if kind_byte & HAS_XATTRS != 0 { decode_xattrs(input)? } else { Vec::new() };
    let (Some(mode), Some(owner), Some(device)) = (mode, owner, device) else {
        return Err(DecodeError::Invalid("the metadata of an entry"));
    };
    let meta = Meta { mode, owner, mtime, ctime, birth, size: 0, nlink, device, inode, flags, xattrs };
    decode_rest(input, kind_byte & KIND_MASK, name, meta)
}

/// Reads what follows the metadata.
fn decode_rest(input: &mut Decoder<'_>, code: u8, name: Name, mut meta: Meta) -> Result<Entry, DecodeError> {
    let from_body = input.clone();
    let Some(kind) = decode_kind(input, code, &mut meta.size)? else {
        let body = input.raw(input.remaining())?.to_vec();
        return Ok(Entry::new(name, meta, Kind::Newer { code, body }));
    };
    let body_bytes = from_body.remaining() - input.remaining();
    let mut entry = Entry::new(name, meta, kind);
    if input.remaining() > 0 {
        entry.attributes = Attributes::decode(input)?;
        input.end()?;
        if entry.attributes.is_empty() {
            return Err(DecodeError::Invalid("the number of attributes"));
        }
    }
    if entry.unknown_attribute().is_some() {
        entry.kind = Kind::Newer { code, body: from_body.clone().raw(body_bytes)?.to_vec() };
    }
    Ok(entry)
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

/// Reads the body of a kind, and the size that follows from it; `None` if only a newer bygone knows the kind.
fn decode_kind(input: &mut Decoder<'_>, code: u8, size: &mut u64) -> Result<Option<Kind>, DecodeError> {
    Ok(Some(match code {
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
            *size = decode_size(input)?;
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
        KIND_UNREADABLE => {
            let errno = input.varint32("the number of an error")?;
            let was = match input.u8()? {
                TYPE_UNKNOWN => None,
                code => Some(decode_file_type(code)?),
            };
            *size = decode_size(input)?;
            Kind::Unreadable { errno, was }
        }
        _ => return Ok(None),
    }))
}

fn decode_size(input: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    let size = input.varint()?;
    if size <= i64::MAX as u64 { Ok(size) } else { Err(DecodeError::Limit("the length of a file")) }
}

fn decode_file_type(code: u8) -> Result<FileType, DecodeError> {
    let found = FileType::of_kind(code).filter(|found| found.kind() == code);
    found.ok_or(DecodeError::Invalid("the type of an unreadable entry"))
}

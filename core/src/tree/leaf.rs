//! A leaf: entries of a directory in byte order of their names.
//!
//! Owners and devices are listed once at the front and entries refer to them by number. A list of entries has exactly
//! one encoding, and decoding refuses all others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::entry::Entry;
use crate::entry::Owner;
use crate::limits;
use crate::tree::TYPE_LEAF;
use crate::tree::record::Neighbours;
use crate::tree::record::decode_entry;
use crate::tree::record::encode_entry;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;

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
        out.record(|out| encode_entry(out, entry, owner, device, inode_before));
        inode_before = entry.meta.inode;
    }
    out.finish()
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
        let record = input.string(limits::NODE_BYTES_MAX, "an entry")?;
        let entry = decode_entry(record, &Neighbours { owners: &owners, devices: &devices, inode_before })?;
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::attributes::Attribute;
    use crate::attributes::Attributes;
    use crate::entry::Content;
    use crate::entry::Extent;
    use crate::entry::FileType;
    use crate::entry::Kind;
    use crate::entry::Meta;
    use crate::entry::Name;
    use crate::entry::Time;
    use crate::entry::Withheld;
    use crate::entry::Xattr;
    use crate::id::BlockId;
    use crate::id::NodeId;
    use crate::tree::record::extents_bytes;
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
            (any::<u32>(), 0u8..16).prop_map(|(errno, code)| Kind::Unreadable { errno, was: FileType::of_kind(code) }),
            (10u8..16, prop::collection::vec(any::<u8>(), 0..30)).prop_map(|(code, body)| Kind::Newer { code, body }),
        ]
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        prop::collection::vec((0u64..9, prop::collection::vec(any::<u8>(), 0..200)), 0..3).prop_map(|all| {
            let mut attributes = Attributes::default();
            all.into_iter().for_each(|(tag, value)| {
                attributes.set(Attribute { tag, is_critical: false, value });
            });
            attributes
        })
    }

    prop_compose! {
        fn meta()(
            mode in 0u16..=0o7777, uid in 0u32..3, user in prop::collection::vec(any::<u8>(), 0..3),
            mtime in time(), ctime in time(), birth in prop::option::of(time()), nlink in 0u32..4, device in 0u64..3,
            inode: u64,
            flags in prop_oneof![Just(0), any::<u32>()],
            xattrs in prop::collection::btree_map(prop::collection::vec(1u8.., 1..5),
                prop::collection::vec(any::<u8>(), 0..9), 0..3),
        ) -> Meta {
            let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
            let owner = Arc::new(Owner { uid, gid: 7, user, group: vec![] });
            Meta { mode, owner, mtime, ctime, birth, size: 0, nlink, device, inode, flags, xattrs }
        }
    }

    prop_compose! {
        pub fn entries()(
            list in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..20), (meta(), kind(), attributes()), 0..30)
        ) -> Vec<Entry> {
            list.into_iter().filter_map(|(name, (mut meta, kind, attributes))| {
                meta.size = match &kind {
                    Kind::File(Content::Inline(bytes)) => bytes.len() as u64,
                    Kind::File(Content::Extents(extents)) => extents_bytes(extents).ok()?,
                    Kind::File(Content::List { .. }) | Kind::Unreadable { .. } => meta.inode >> 1,
                    Kind::Symlink(target) => target.len() as u64,
                    _ => 0,
                };
                // Nothing that follows the body of an unknown kind can be told from it.
                let attributes = if matches!(kind, Kind::Newer { .. }) { Attributes::default() } else { attributes };
                Some(Entry { attributes, ..Entry::new(Name::new(&name).ok()?, meta, kind) })
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

    fn one(kind: Kind) -> Entry {
        let meta = Meta { mode: 0o600, ..Meta::unknown() };
        Entry::new(Name::new(b"x").unwrap(), meta, kind)
    }

    fn with_attribute(mut entry: Entry, tag: u64, is_critical: bool) -> Entry {
        entry.attributes.set(Attribute { tag, is_critical, value: b"later".to_vec() });
        entry
    }

    #[test]
    fn the_example_of_the_document_is_a_leaf() {
        let text = "0101e80764026d65057573657273018110011a046e6f746580a4030080c49fd50c05020903e80700180368690a";
        let bytes: Vec<u8> =
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
        let entries = decode_leaf(&bytes).unwrap();
        let Meta { owner, ctime, birth, inode, .. } = &entries[0].meta;
        assert_eq!((owner.uid, owner.group.as_slice(), *inode), (1000, &b"users"[..], 12));
        let (ctime_wanted, birth_wanted) = ((1_700_000_001, 0), (1_699_999_999, 500));
        assert_eq!((ctime.secs, ctime.nanos), ctime_wanted);
        assert_eq!(birth.map(|birth| (birth.secs, birth.nanos)), Some(birth_wanted));
        assert_eq!(encode_leaf(&entries), bytes);
    }

    #[test]
    fn a_critical_attribute_withholds_its_entry_and_no_other() {
        let file = || {
            let mut file = one(Kind::File(Content::Inline(b"text".to_vec())));
            file.meta.size = 4;
            file
        };
        let newer = with_attribute(file(), 77, true);
        let after = Entry { name: Name::new(b"y").unwrap(), ..file() };
        let bytes = encode_leaf(&[newer, after.clone()]);
        let read = decode_leaf(&bytes).unwrap();
        let [first, second] = read.as_slice() else { panic!("two entries") };
        assert_eq!((first.withheld(), second), (Some(Withheld::NewerAttribute(77)), &after));
        assert_eq!((&first.kind, first.meta.size), (&Kind::Newer { code: 0, body: b"\x04text".to_vec() }, 4));
        assert_eq!((first.file_type(), encode_leaf(&read)), (Some(FileType::File), bytes));
        let kept = with_attribute(file(), 77, false);
        assert_eq!(decode_leaf(&encode_leaf(std::slice::from_ref(&kept))), Ok(vec![kept.clone()]));
        assert_eq!(kept.withheld(), None);
    }

    #[test]
    fn an_unknown_kind_withholds_its_entry_and_no_other() {
        let after = Entry { name: Name::new(b"y").unwrap(), ..one(Kind::Fifo) };
        for body in [&b""[..], b"anything \xff at all"] {
            let newer = one(Kind::Newer { code: 10, body: body.to_vec() });
            let read = decode_leaf(&encode_leaf(&[newer.clone(), after.clone()])).unwrap();
            assert_eq!(read, [newer, after.clone()]);
            assert_eq!(read[0].withheld().unwrap().needs().as_deref(), Some("entries of kind 10"));
            assert_eq!((read[0].file_type(), read[0].directory()), (None, None));
        }
    }

    #[test]
    fn a_directory_that_is_withheld_has_no_node_to_follow() {
        let directory = with_attribute(one(Kind::Directory(NodeId([7; 32]))), 2, true);
        let read = decode_leaf(&encode_leaf(&[directory])).unwrap();
        assert_eq!((read[0].file_type(), read[0].directory()), (Some(FileType::Directory), None));
    }

    #[test]
    fn an_empty_list_of_attributes_and_false_types_are_refused() {
        let pipe = encode_leaf(&[one(Kind::Fifo)]);
        // Type, one owner of no number and no name, one device, one entry; then the length of its record.
        let length_at = 9;
        assert_eq!(usize::from(pipe[length_at]), pipe.len() - length_at - 1);
        let mut longer = pipe.clone();
        longer[length_at] += 1;
        longer.push(0);
        assert_eq!(decode_leaf(&longer), Err(DecodeError::Invalid("the number of attributes")));
        let mut unreadable = encode_leaf(&[one(Kind::Unreadable { errno: 13, was: Some(FileType::Directory) })]);
        let type_at = unreadable.len() - 2;
        assert_eq!(unreadable[type_at], 3);
        for (type_code, is_valid) in [(0, true), (1, false), (2, false), (8, true), (9, false), (15, true)] {
            unreadable[type_at] = type_code;
            assert_eq!(decode_leaf(&unreadable).is_ok(), is_valid, "{type_code}");
        }
    }
}

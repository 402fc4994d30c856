//! Every maximum of the format. Readers check against these before they allocate; writers never exceed them.
//!
//! docs/FORMAT.md repeats them as part of the format, so a change here is a new format version.

/// Version of everything that bygone writes; readers refuse later ones.
pub const FORMAT_VERSION: u8 = 1;

/// Default size of a block of file content, in bytes.
pub const BLOCK_BYTES_DEFAULT: u32 = 1 << 20;
/// Smallest block size of a repository.
pub const BLOCK_BYTES_MIN: u32 = 1 << 16;
/// Largest block size of a repository, and so the longest block.
pub const BLOCK_BYTES_MAX: u32 = 1 << 24;

/// Plaintext bytes of every frame but a volume's last.
pub const FRAME_BYTES: u32 = 128 << 10;

/// Default size at which a volume is closed, in stored bytes.
pub const VOLUME_BYTES_DEFAULT: u64 = 64 << 20;
/// Smallest size at which a volume may be closed.
pub const VOLUME_BYTES_MIN: u64 = 1 << 20;
/// Largest size at which a volume may be closed: the last block and the index still fit below `VOLUME_BYTES_MAX`.
pub const VOLUME_BYTES_CLOSE_MAX: u64 = 224 << 20;
/// No volume is larger than this.
pub const VOLUME_BYTES_MAX: u64 = 256 << 20;
/// No volume has more frames than this.
pub const VOLUME_FRAMES_MAX: u32 = 1 << 16;
/// No volume lists more blocks and nodes than this.
pub const VOLUME_ITEMS_MAX: u32 = 1 << 20;
/// No volume has more sections than this.
pub const VOLUME_SECTIONS_MAX: usize = 8;
/// No sealed index is longer than this.
pub const INDEX_BYTES_MAX: u32 = 64 << 20;

/// Longest name of an entry, in bytes (Linux's NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes (Linux's PATH_MAX less the NUL).
pub const SYMLINK_BYTES_MAX: usize = 4_095;
/// Longest name of an extended attribute (Linux's XATTR_NAME_MAX).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest value of an extended attribute (Linux's XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// Most extended attributes of one entry (64 KiB of names at two bytes a name, Linux's XATTR_LIST_MAX).
pub const XATTRS_MAX: usize = 32 << 10;
/// Longest user or group name.
pub const OWNER_NAME_BYTES_MAX: usize = 255;

/// A file of up to this many bytes is kept inside its entry, which is shorter than the rows that a block would cost.
pub const INLINE_BYTES_MAX: usize = 64;
/// A file of up to this many extents lists them in its entry; a longer one has a block list of its own.
pub const INLINE_EXTENTS_MAX: usize = 4;
/// Most items in one node of a block list.
pub const LIST_ITEMS_MAX: usize = 1_024;
/// Most entries in one directory node; larger directories are split.
pub const NODE_ENTRIES_MAX: usize = 1_024;
/// A directory of up to this many entries is one node.
pub const NODE_ENTRIES_WHOLE: usize = 24;
/// Longest encoded tree node.
pub const NODE_BYTES_MAX: usize = 16 << 20;
/// Most levels of nodes above the leaves of one directory or block list.
pub const NODE_LEVELS_MAX: u8 = 8;

/// Longest commit object.
pub const COMMIT_BYTES_MAX: u64 = 64 << 20;
/// After this many commits of a chain, one of them says again what the others have said.
pub const CHECKPOINT_COMMITS: u64 = 64;
/// Most bytes of commits that one commit says again.
pub const CHECKPOINT_BYTES_MAX: u64 = 16 << 20;
/// Longest record in a commit.
pub const COMMIT_ITEM_BYTES_MAX: usize = 64 << 20;
/// Most snapshots, volumes or heads in one commit.
pub const COMMIT_ITEMS_MAX: usize = 1 << 20;
/// Most volumes that a new commit announces, so that it stays far below its limits (about 5 MB).
pub const COMMIT_VOLUMES_EACH: usize = 1 << 16;
/// Longest host name, user name, tag or other label of a snapshot.
pub const LABEL_BYTES_MAX: usize = 255;
/// Most paths or tags of one snapshot.
pub const SNAPSHOT_PATHS_MAX: usize = 4_096;
/// Longest path that a backup may be asked for.
pub const PATH_BYTES_MAX: usize = 64 << 10;
/// Most attributes of one record.
pub const ATTRIBUTES_MAX: usize = 256;
/// Most bytes of the values of all attributes of one record.
pub const ATTRIBUTES_BYTES_MAX: usize = 1 << 20;
/// Longest attribute that is written: listing snapshots reads all of them.
pub const FACT_BYTES_MAX: usize = 64 << 10;
/// Longest description of a snapshot that is taken.
pub const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// Most key slots of a repository that are tried.
pub const SLOTS_MAX: usize = 64;
/// Most features of a repository, in all lists together.
pub const FEATURES_MAX: usize = 64;
/// Longest name of a feature.
pub const FEATURE_NAME_BYTES_MAX: usize = 64;
/// Longest repository description `bygone.json`.
pub const CONFIG_BYTES_MAX: u64 = 64 << 10;

const _: () = assert!(BLOCK_BYTES_MIN <= BLOCK_BYTES_DEFAULT && BLOCK_BYTES_DEFAULT <= BLOCK_BYTES_MAX);
const _: () = assert!(VOLUME_BYTES_MIN <= VOLUME_BYTES_DEFAULT && VOLUME_BYTES_DEFAULT <= VOLUME_BYTES_CLOSE_MAX);
const _: () = assert!(VOLUME_BYTES_CLOSE_MAX + (BLOCK_BYTES_MAX as u64) + (2 << 20) <= VOLUME_BYTES_MAX);
const _: () = assert!(NODE_ENTRIES_WHOLE <= NODE_ENTRIES_MAX);
const _: () = assert!(NODE_BYTES_MAX <= BLOCK_BYTES_MAX as usize);
const _: () = assert!(FRAME_BYTES < 1 << 20);

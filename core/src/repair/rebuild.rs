//! One lost volume that is being rebuilt in two spool files: its plaintext, and the new object.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::catalog::Catalog;
use crate::catalog::Location;
use crate::catalog::VolumeRow;
use crate::compress::Compressor;
use crate::compress::Decompressor;
use crate::entry::Content;
use crate::entry::Extent;
use crate::error::Error;
use crate::error::Result;
use crate::error::counted;
use crate::frame;
use crate::frame::Stored;
use crate::frame::Unsealed;
use crate::hash::IdKeys;
use crate::hash::Sha256Stream;
use crate::id::BlockId;
use crate::id::NodeId;
use crate::limits;
use crate::objects::volume_object;
use crate::read::Order;
use crate::read::Reader;
use crate::read::Verify;
use crate::read::VolumeFile;
use crate::repair::ReadCache;
use crate::repair::Repaired;
use crate::repair::listed_bytes;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::spool;
use crate::store::ByteRange;
use crate::volume;
use crate::volume::Ends;
use crate::volume::FirstIndex;
use crate::volume::FrameInfo;
use crate::volume::HEADER_BYTES;
use crate::volume::Index;
use crate::volume::Item;
use crate::volume::ItemKind;
use crate::volume::Salt;
use crate::volume::frame_plain_bytes;

const FRAME_BYTES: u64 = limits::FRAME_BYTES as u64;
/// Fewest sealed bytes that one request asks for.
const RUN_BYTES: u64 = 1 << 20;
/// Bytes that are hashed at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// The result of one request.
struct Run {
    start: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn part(&self, from: u64, to: u64) -> Option<&[u8]> {
        let start = usize::try_from(from.checked_sub(self.start)?).ok()?;
        let end = usize::try_from(to.checked_sub(self.start)?).ok()?;
        self.bytes.get(start..end)
    }
}

/// A block or node of the volume.
struct Piece {
    item: Item,
    is_found: bool,
}

/// How the volume was made, as far as known.
struct Layout {
    salt: Salt,
    /// Where the frames begin in the object.
    frames_at: u64,
    frames: Vec<FrameInfo>,
    plain_bytes: u64,
    pieces: Vec<Piece>,
    /// True if all its blocks and nodes are listed.
    is_complete: bool,
}

/// A volume that is being rebuilt.
pub(super) struct Rebuild {
    row: VolumeRow,
    layout: Layout,
    ids: IdKeys,
    plain: File,
    object: File,
    /// True for each frame whose sealed bytes are in `object`.
    sealed: Vec<bool>,
    /// True if some of them come from the cache.
    uses_cache: bool,
}

/// A rebuilt volume, or the parts of it that were found.
pub(super) enum Finished {
    /// The verified object, and its source.
    Whole(VolumeRow, File, &'static str),
    /// Only some of it.
    Part(Part),
}

/// The blocks of a volume that were found.
pub(super) struct Part {
    row: VolumeRow,
    plain: File,
    pieces: Vec<Piece>,
    next: usize,
}

fn failed(source: std::io::Error) -> Error {
    Error::Local { doing: "use the spool for", path: "a volume that is being rebuilt".into(), source }
}

impl Layout {
    /// From the object's own index if that still opens, otherwise from the catalog. `None` if nothing is known.
    fn of(
        repository: &Repository,
        catalog: &Catalog,
        row: &VolumeRow,
        found_bytes: Option<u64>,
    ) -> Result<Option<Layout>> {
        if found_bytes == Some(row.bytes) {
            let opened = VolumeFile::open(repository.store(), repository.keys(), row.kind, row.name, row.bytes);
            match opened {
                // Another volume may lie in its place.
                Ok(file) if is_that_of(row, &file) => {
                    return Ok(Some(Layout::of_index(*file.salt(), file.index())));
                }
                Ok(_) => {}
                Err(error) if super::is_object_fault(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if row.frames.is_empty() {
            return Ok(None);
        }
        let blocks = catalog.blocks_of(row.id)?;
        let mut pieces = Vec::with_capacity(blocks.len());
        let mut end = 0;
        let mut is_complete = true;
        for block in blocks {
            is_complete &= block.location.position == end;
            let Location { position, length, .. } = block.location;
            let kind = if position < row.nodes_at { ItemKind::Block } else { ItemKind::Node };
            let item = Item { kind, id: block.id, length, checksum: block.checksum, position };
            end = item.end();
            pieces.push(Piece { item, is_found: false });
        }
        is_complete &= end == row.plain_bytes;
        let frames_at = row.frames.first().map_or(HEADER_BYTES, |(offset, _)| *offset);
        let frames = row.frames.iter().map(|(_, frame)| *frame).collect();
        Ok(Some(Layout { salt: row.salt, frames_at, frames, plain_bytes: row.plain_bytes, pieces, is_complete }))
    }

    fn of_index(salt: Salt, index: &Index) -> Layout {
        let pieces = index.items().map(|item| Piece { item, is_found: false }).collect();
        let (frames_at, frames, plain_bytes) = (index.frames_at, index.frames.clone(), index.plain_bytes());
        Layout { salt, frames_at, frames, plain_bytes, pieces, is_complete: true }
    }

    /// The offset of a frame in the object.
    fn frame_offset(&self, ordinal: usize) -> u64 {
        let before = self.frames.iter().take(ordinal).map(|frame| u64::from(frame.stored_bytes));
        self.frames_at + before.sum::<u64>()
    }
}

impl Rebuild {
    /// Gathers what the store, the cache and the catalog still have of the volume. `None` if nothing is known of it.
    pub fn begin(
        locked: &mut LockedRepository,
        row: &VolumeRow,
        read_cache: &ReadCache<'_>,
        repaired: &mut Repaired,
    ) -> Result<Option<Rebuild>> {
        let (repository, catalog) = locked.parts();
        let object = volume_object(row.kind, row.name);
        let found_bytes = listed_bytes(repository, &object)?;
        let Some(layout) = Layout::of(repository, catalog.read(), row, found_bytes)? else {
            let reason = "this machine does not know what was in it: give a second store with --from";
            repaired.left.push((object.to_string(), reason.into()));
            return Ok(None);
        };
        if layout.pieces.is_empty() {
            // Everything in it is stored elsewhere by now.
            return Ok(None);
        }
        let dir = repository.catalog_dir();
        let sealed = vec![false; layout.frames.len()];
        let mut rebuild = Rebuild {
            row: row.clone(),
            layout,
            ids: repository.keys().ids().clone(),
            plain: spool::create(dir)?,
            object: spool::create(dir)?,
            sealed,
            uses_cache: false,
        };
        rebuild.salvage(repository, found_bytes, read_cache)?;
        rebuild.find_in_frames()?;
        rebuild.find_in_repository(repository, catalog.read())?;
        Ok(Some(rebuild))
    }

    /// Takes the frames that still open.
    fn salvage(&mut self, repository: &Repository, found_bytes: Option<u64>, read_cache: &ReadCache<'_>) -> Result<()> {
        let key = repository.keys().volume(&self.layout.salt);
        let object = volume_object(self.row.kind, self.row.name);
        let mut decompressor = Decompressor::new();
        let mut fetched = Run { start: 0, bytes: Vec::new() };
        let mut offset = self.layout.frames_at;
        for (ordinal, info) in (0u32..).zip(self.layout.frames.clone()) {
            let bytes = u64::from(info.stored_bytes);
            let end = offset + bytes;
            let length = frame_plain_bytes(self.layout.plain_bytes, ordinal);
            // Opening destroys the sealed bytes, which are still needed.
            let mut open = |sealed: &[u8]| {
                let mut bytes = sealed.to_vec();
                let stored = Stored { ordinal, plain_bytes: length, codec: info.codec, bytes: &mut bytes };
                frame::open_all(&key, self.row.kind, vec![stored], &mut decompressor).pop()?.ok()
            };
            let is_there = found_bytes.is_some_and(|found| end <= found);
            if is_there && fetched.part(offset, end).is_none() {
                let run_bytes = RUN_BYTES.max(bytes).min(found_bytes.unwrap_or(0) - offset);
                fetched = match repository.store().get(&object, ByteRange::Part { offset, bytes: run_bytes }) {
                    Ok(bytes) => Run { start: offset, bytes },
                    Err(error) if super::is_object_fault(&error) => Run { start: 0, bytes: Vec::new() },
                    Err(error) => return Err(error),
                };
            }
            let mut taken = fetched.part(offset, end).and_then(|sealed| Some((open(sealed)?, sealed.to_vec())));
            if taken.is_none() {
                let cached = read_cache(self.row.name, offset..end);
                taken = cached.and_then(|sealed| Some((open(&sealed)?, sealed)));
                self.uses_cache |= taken.is_some();
            }
            if let Some((plain, sealed)) = taken {
                self.plain.write_all_at(&plain, u64::from(ordinal) * FRAME_BYTES).map_err(failed)?;
                self.object.write_all_at(&sealed, offset).map_err(failed)?;
                if let Some(is_sealed) = self.sealed.get_mut(ordinal as usize) {
                    *is_sealed = true;
                }
            }
            offset = end;
        }
        Ok(())
    }

    /// Finds the blocks in frames that opened.
    fn find_in_frames(&mut self) -> Result<()> {
        for number in 0..self.layout.pieces.len() {
            let Some(piece) = self.layout.pieces.get(number) else { continue };
            let item = piece.item;
            let range: Range<u64> = item.position / FRAME_BYTES..item.end().div_ceil(FRAME_BYTES);
            let is_open = |ordinal: u64| self.sealed.get(ordinal as usize).copied().unwrap_or(false);
            if range.into_iter().all(is_open) {
                let mut bytes = vec![0; item.length as usize];
                self.plain.read_exact_at(&mut bytes, item.position).map_err(failed)?;
                self.offer(number, &bytes)?;
            }
        }
        Ok(())
    }

    /// Finds nodes in the catalog, and blocks in other volumes.
    fn find_in_repository(&mut self, repository: &Repository, catalog: &Catalog) -> Result<()> {
        let mut reader = None;
        for number in 0..self.layout.pieces.len() {
            let Some(item) = self.layout.pieces.get(number).filter(|piece| !piece.is_found).map(|piece| piece.item)
            else {
                continue;
            };
            let bytes = match item.kind {
                ItemKind::Node => match catalog.node(NodeId(item.id)) {
                    Ok(row) => row.map(|row| row.body),
                    Err(Error::Disagree { .. }) => None,
                    Err(error) => return Err(error),
                },
                ItemKind::Block => {
                    let is_elsewhere =
                        catalog.locate(&item.id)?.is_some_and(|(location, _)| location.volume != self.row.id);
                    if !is_elsewhere {
                        continue;
                    }
                    if reader.is_none() {
                        reader = Some(Reader::new(repository, 0, Order::Any)?);
                    }
                    reader.as_ref().and_then(|reader| read_block(reader, &item).ok())
                }
            };
            if let Some(bytes) = bytes {
                self.offer(number, &bytes)?;
            }
        }
        Ok(())
    }

    /// The blocks that are still missing: number and id.
    pub fn missing_blocks(&self) -> impl Iterator<Item = (usize, [u8; 32])> {
        let is_missing = |piece: &Piece| !piece.is_found && piece.item.kind == ItemKind::Block;
        let missing = self.layout.pieces.iter().enumerate().filter(move |(_, piece)| is_missing(piece));
        missing.map(|(number, piece)| (number, piece.item.id))
    }

    /// Takes `bytes` for a block or node, if they match its id.
    pub fn offer(&mut self, number: usize, bytes: &[u8]) -> Result<bool> {
        let Some(piece) = self.layout.pieces.get_mut(number) else { return Ok(false) };
        if bytes.len() != piece.item.length as usize || !piece.item.is(&self.ids, bytes) {
            return Ok(false);
        }
        self.plain.write_all_at(bytes, piece.item.position).map_err(failed)?;
        piece.is_found = true;
        Ok(true)
    }

    /// Makes the object, if everything was found and the result matches its name.
    pub fn finish(mut self, repository: &Repository) -> Result<Finished> {
        let is_all_found = self.layout.pieces.iter().all(|piece| piece.is_found);
        if self.layout.is_complete && is_all_found && self.seal(repository)? {
            let from = if self.uses_cache { "rebuilt, partly from the cache of a mount" } else { "rebuilt" };
            return Ok(Finished::Whole(self.row, self.object, from));
        }
        let Rebuild { row, plain, layout: Layout { pieces, .. }, .. } = self;
        Ok(Finished::Part(Part { row, plain, pieces, next: 0 }))
    }

    /// Seals the missing frames and the tail. True if the object matches its name; it may not, because another version
    /// of a compressor may produce other frames.
    fn seal(&mut self, repository: &Repository) -> Result<bool> {
        let key = repository.keys().volume(&self.layout.salt);
        let first_index = FirstIndex::given_by(self.layout.frames_at);
        let mut compressor = Compressor::new(first_index.compression(repository.config().compression));
        for (ordinal, info) in (0u32..).zip(self.layout.frames.clone()) {
            if self.sealed.get(ordinal as usize).copied().unwrap_or(false) {
                continue;
            }
            let length = frame_plain_bytes(self.layout.plain_bytes, ordinal);
            let mut plain = vec![0; length as usize];
            self.plain.read_exact_at(&mut plain, u64::from(ordinal) * FRAME_BYTES).map_err(failed)?;
            let (codec, mut sealed) = compressor.compress(&plain, frame::SEAL_BYTES as usize);
            let unsealed = Unsealed { ordinal, plain_bytes: length, bytes: &mut sealed };
            frame::seal_all(&key, self.row.kind, vec![unsealed]);
            if codec != info.codec || sealed.len() != info.stored_bytes as usize {
                return Ok(false);
            }
            let offset = self.layout.frame_offset(ordinal as usize);
            self.object.write_all_at(&sealed, offset).map_err(failed)?;
        }
        let block_bytes = repository.config().block_bytes;
        let items = self.layout.pieces.iter().map(|piece| piece.item);
        let frames_at = self.layout.frames_at;
        let mut index = Index::of(frames_at, self.layout.frames.clone(), items);
        let salt = &self.layout.salt;
        let Ends { head, tail, .. } =
            volume::seal_ends(&key, self.row.kind, salt, block_bytes, &mut index, first_index);
        if index.frames_at != frames_at {
            return Ok(false);
        }
        let offset = self.layout.frame_offset(self.layout.frames.len());
        self.object.write_all_at(&head, 0).map_err(failed)?;
        self.object.write_all_at(&tail, offset).map_err(failed)?;
        Ok(offset + tail.len() as u64 == self.row.bytes && self.has_its_name()?)
    }

    fn has_its_name(&self) -> Result<bool> {
        let mut hash = Sha256Stream::new();
        let mut offset = 0;
        while offset < self.row.bytes {
            let mut piece = vec![0; PIECE_BYTES.min(self.row.bytes - offset) as usize];
            self.object.read_exact_at(&mut piece, offset).map_err(failed)?;
            hash.update(&piece);
            offset += piece.len() as u64;
        }
        Ok(hash.finish() == self.row.name.0)
    }
}

/// True unless the catalog contradicts the volume's index.
fn is_that_of(row: &VolumeRow, file: &VolumeFile) -> bool {
    let is_same =
        || file.salt() == &row.salt && file.index().frames.iter().eq(row.frames.iter().map(|(_, frame)| frame));
    row.frames.is_empty() || is_same()
}

/// A block of file content, from wherever the catalog locates it.
fn read_block(reader: &Reader, block: &Item) -> Result<Vec<u8>> {
    let content = Content::Extents(vec![Extent::Block { id: BlockId(block.id), length: block.length }]);
    let map = reader.view()?.file(&content)?;
    reader.read(&map, 0, block.length as usize, Verify::Blocks)
}

impl Part {
    /// The object that the volume is.
    pub fn object(&self) -> String {
        volume_object(self.row.kind, self.row.name).to_string()
    }

    /// True if some of it was found.
    pub fn has_found(&self) -> bool {
        self.pieces.iter().any(|piece| piece.is_found)
    }

    /// True if everything that is still needed of it was found.
    pub fn is_all_found(&self) -> bool {
        self.pieces.iter().all(|piece| piece.is_found)
    }

    /// Why it could not be rebuilt.
    pub fn reason(&self) -> String {
        let missing = self.pieces.iter().filter(|piece| !piece.is_found);
        let (count, bytes) =
            missing.fold((0u64, 0u64), |(count, bytes), piece| (count + 1, bytes + u64::from(piece.item.length)));
        let (all, bytes) = (counted(self.pieces.len() as u64, "block", "blocks"), counted(bytes, "byte", "bytes"));
        format!("{count} of {all} ({bytes}) could not be found: `bygone affected` names what needs them")
    }

    /// The next block or node that was found.
    pub fn next_found(&mut self) -> Result<Option<(ItemKind, Vec<u8>)>> {
        while let Some(piece) = self.pieces.get(self.next) {
            self.next += 1;
            if piece.is_found {
                let mut bytes = vec![0; piece.item.length as usize];
                self.plain.read_exact_at(&mut bytes, piece.item.position).map_err(failed)?;
                return Ok(Some((piece.item.kind, bytes)));
            }
        }
        Ok(None)
    }
}

//! Where the bytes of one file are: a map from offsets to places in volumes.
//!
//! A short file is one page of segments. A long one has a block list. Each of its leaves is a page that is looked up
//! when first read and forgotten when others are, so a file of a tebibyte takes no more memory than a few pages.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

use crate::catalog::Catalog;
use crate::catalog::Location;
use crate::entry::Content;
use crate::entry::Extent;
use crate::error::Error;
use crate::error::Result;
use crate::id::NodeId;
use crate::limits;
use crate::lock::lock;
use crate::read::cache::FrameAt;
use crate::tree::ListNode;

/// Pages of one file that are kept.
const PAGES_LOADED_MAX: usize = 8;
const FRAME_BYTES: u64 = limits::FRAME_BYTES as u64;

/// A stretch of a file: a block or a hole.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub start: u64,
    pub length: u64,
    pub id: [u8; 32],
    /// Where the block lies; `None` for a hole.
    pub at: Option<Location>,
}

impl Segment {
    /// The whole of an inline file: data that lies in no volume.
    pub fn inline(length: u64) -> Segment {
        Segment { start: 0, length, id: [0; 32], at: Some(Location { volume: 0, position: 0, length: 0 }) }
    }

    pub fn end(&self) -> u64 {
        self.start + self.length
    }

    /// The frames that hold a range of the block, with the part of each; `None` for a hole.
    pub fn place(&self, range: Range<u64>) -> Option<impl Iterator<Item = (FrameAt, Range<usize>)> + use<>> {
        let at = self.at?;
        let (start, end) = (at.position + range.start, at.position + range.end);
        Some((start / FRAME_BYTES..end.div_ceil(FRAME_BYTES)).filter_map(move |number| {
            let frame_start = number * FRAME_BYTES;
            let from = usize::try_from(start.max(frame_start) - frame_start).ok()?;
            let to = usize::try_from(end.min(frame_start + FRAME_BYTES) - frame_start).ok()?;
            Some((FrameAt { volume: at.volume, ordinal: u32::try_from(number).ok()? }, from..to))
        }))
    }

    pub fn frames(&self, range: Range<u64>) -> impl Iterator<Item = FrameAt> + use<> {
        self.place(range).into_iter().flatten().map(|(frame, _)| frame)
    }
}

/// Consecutive segments of a file; at least one.
#[derive(Debug)]
pub(super) struct Page {
    segments: Vec<Segment>,
}

impl Page {
    /// The segments from the one that contains `offset` on.
    pub fn segments_from(&self, offset: u64) -> &[Segment] {
        let first = self.segments.partition_point(|segment| segment.end() <= offset);
        self.segments.get(first..).unwrap_or_default()
    }

    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    fn resolve(catalog: &Catalog, start: u64, extents: &[Extent]) -> Result<Page> {
        let mut at = start;
        let mut segments = Vec::with_capacity(extents.len());
        for extent in extents {
            let (id, place) = match extent {
                Extent::Hole { .. } => ([0; 32], None),
                Extent::Block { id, length } => {
                    let place = catalog.locate(&id.0)?.map(|(place, _)| place).ok_or_else(|| {
                        Error::corrupt(format!("block {id}"), "no known volume holds it: see `bygone check`")
                    })?;
                    if place.length != *length {
                        let detail = format!("a file has {length} bytes of it, its row has {}", place.length);
                        return Err(Error::local_corrupt(format!("block {id}"), detail));
                    }
                    (id.0, Some(place))
                }
            };
            segments.push(Segment { start: at, length: extent.length(), id, at: place });
            at += extent.length();
        }
        Ok(Page { segments })
    }
}

/// Where the bytes of one file are.
#[derive(Debug)]
pub struct FileMap {
    length: u64,
    inline: Option<Vec<u8>>,
    /// Start of each page and its list node. A short file has none: its only page is always loaded.
    pages: Vec<(u64, NodeId)>,
    loaded: Mutex<VecDeque<(u64, Arc<Page>)>>,
}

impl FileMap {
    /// The map of a file's content.
    pub(super) fn new(catalog: &Catalog, content: &Content) -> Result<FileMap> {
        let map = |length, inline, page: Option<Page>| FileMap {
            length,
            inline,
            pages: Vec::new(),
            loaded: Mutex::new(page.map(|page| (0, Arc::new(page))).into_iter().collect()),
        };
        match content {
            Content::Inline(bytes) => Ok(map(bytes.len() as u64, Some(bytes.clone()), None)),
            Content::Extents(extents) => {
                let page = Page::resolve(catalog, 0, extents)?;
                Ok(map(page.end(), None, Some(page)))
            }
            Content::List { root, .. } => {
                let mut map = map(0, None, None);
                // Children are pushed last first, so that pages come off the stack in the order of the file.
                let mut stack = vec![*root];
                while let Some(id) = stack.pop() {
                    let node = list_node(catalog, id)?;
                    match &node {
                        ListNode::Branch { children, .. } => stack.extend(children.iter().rev().map(|c| c.id)),
                        ListNode::Extents(_) => {
                            map.pages.push((map.length, id));
                            map.length +=
                                node.bytes().map_err(|e| Error::local_corrupt(format!("block list {id}"), e))?;
                        }
                    }
                }
                Ok(map)
            }
        }
    }

    /// Length of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn inline(&self) -> Option<&[u8]> {
        self.inline.as_deref()
    }

    fn page_at(&self, offset: u64) -> Option<(u64, NodeId)> {
        let after = self.pages.partition_point(|(start, _)| *start <= offset);
        self.pages.get(after.checked_sub(1)?).copied()
    }

    /// The page that contains `offset`, if it is loaded.
    pub(super) fn loaded_page(&self, offset: u64) -> Option<Arc<Page>> {
        let start = self.page_at(offset).map_or(0, |(start, _)| start);
        let loaded = lock(&self.loaded);
        loaded.iter().find(|(at, _)| *at == start).map(|(_, page)| Arc::clone(page))
    }

    /// Looks up the page that contains `offset`.
    pub(super) fn load_page(&self, catalog: &Catalog, offset: u64) -> Result<Arc<Page>> {
        let broken = || Error::local_corrupt("a block list", "it ends before its file does");
        let (start, id) = self.page_at(offset).ok_or_else(broken)?;
        let ListNode::Extents(extents) = list_node(catalog, id)? else { return Err(broken()) };
        let page = Arc::new(Page::resolve(catalog, start, &extents)?);
        if page.end() <= offset {
            return Err(broken());
        }
        let mut loaded = lock(&self.loaded);
        loaded.push_back((start, Arc::clone(&page)));
        if loaded.len() > PAGES_LOADED_MAX {
            loaded.pop_front();
        }
        Ok(page)
    }
}

fn list_node(catalog: &Catalog, id: NodeId) -> Result<ListNode> {
    let row = catalog
        .node(id)?
        .ok_or_else(|| Error::local_corrupt(format!("block list {id}"), "it is not in the catalog"))?;
    ListNode::decode(&row.body).map_err(|e| Error::local_corrupt(format!("block list {id}"), e))
}

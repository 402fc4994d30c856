//! Frames in their order become blocks and nodes in theirs.

use std::iter::Peekable;

use crate::compress::Decompressor;
use crate::limits;
use crate::read::volume::VolumeFile;
use crate::read::volume::stored_bytes;
use crate::volume::FrameInfo;
use crate::volume::Item;
use crate::volume::frame_plain_bytes;

/// Frames that are opened together: two for each lane of the cipher.
const OPEN_FRAMES: usize = 16;

/// Opens the frames of a volume, from one of them to the last, and puts together what begins in them.
pub(super) struct Opening<'a> {
    file: &'a VolumeFile,
    decompressor: Decompressor,
    /// The number of the next frame.
    next: usize,
    rest: Peekable<Box<dyn Iterator<Item = Item> + 'a>>,
    /// What has come of the next item.
    bytes: Vec<u8>,
    /// False if a frame of it did not open.
    is_whole: bool,
}

impl<'a> Opening<'a> {
    /// Begins with the frame of number `first`, and with the first item that begins at `start` or later.
    pub fn new(file: &'a VolumeFile, first: usize, start: u64) -> Opening<'a> {
        let items: Box<dyn Iterator<Item = Item> + 'a> =
            Box::new(file.index().items().skip_while(move |item| item.position < start));
        let (decompressor, bytes) = (Decompressor::new(), Vec::new());
        Opening { file, decompressor, next: first, rest: items.peekable(), bytes, is_whole: true }
    }

    /// The frames that were not opened yet.
    pub fn left(&self) -> &'a [FrameInfo] {
        self.file.index().frames.get(self.next..).unwrap_or_default()
    }

    /// Opens the next frames, which begin `sealed`. Well-compressed data is large when open, so it is opened bit by
    /// bit.
    pub fn open(&mut self, frames: &[FrameInfo], sealed: &mut [u8], item: &mut impl FnMut(&Item, Option<&[u8]>)) {
        let plain_bytes = self.file.index().plain_bytes();
        let mut sealed = sealed;
        for frames in frames.chunks(OPEN_FRAMES) {
            let length = usize::try_from(stored_bytes(frames)).unwrap_or(usize::MAX).min(sealed.len());
            let (now, later) = std::mem::take(&mut sealed).split_at_mut(length);
            sealed = later;
            let plain = self.file.open_frames(self.next, frames, now, &mut self.decompressor);
            for (plain, ordinal) in plain.iter().zip(u32::try_from(self.next).unwrap_or(u32::MAX)..) {
                let start = u64::from(ordinal) * u64::from(limits::FRAME_BYTES);
                self.take(plain.as_deref(), start, frame_plain_bytes(plain_bytes, ordinal), item);
            }
            self.next += frames.len();
        }
    }

    /// Takes a frame of `length` bytes that begins at `start`; `None` if it did not open.
    fn take(&mut self, plain: Option<&[u8]>, start: u64, length: u32, item: &mut impl FnMut(&Item, Option<&[u8]>)) {
        let mut at = start;
        let end = start + u64::from(length);
        while let Some(next) = self.rest.peek().copied().filter(|next| at.max(next.position) < end) {
            // What lies before the first item is not wanted.
            at = at.max(next.position);
            let to = end.min(next.end());
            let place = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
            match plain.and_then(|plain| plain.get(place(at)..place(to))) {
                Some(bytes) => self.bytes.extend_from_slice(bytes),
                None => {
                    self.is_whole = false;
                    self.bytes.resize(self.bytes.len() + place(to) - place(at), 0);
                }
            }
            at = to;
            if at == next.end() {
                item(&next, self.is_whole.then_some(self.bytes.as_slice()));
                self.rest.next();
                self.bytes.clear();
                self.is_whole = true;
            }
        }
    }
}

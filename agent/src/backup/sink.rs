//! The destination of a tree.

use std::sync::Arc;

use bygone_core::entry::Entry;
use bygone_core::entry::Meta;
use bygone_core::entry::Name;
use bygone_core::error::Result;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

use crate::backup::plan::End;

/// Takes a tree in its order.
pub enum Sink<'s, 'w> {
    /// Into a repository.
    Writer(&'s mut Writer<'w>),
    /// Nowhere: entries are counted, and no file is read.
    Count,
    /// Into a list, for tests.
    #[cfg(test)]
    Record(&'s mut super::tests::Recorder),
}

impl Sink<'_, '_> {
    pub(super) fn directory_begin(&mut self) -> Result<()> {
        match self {
            Sink::Writer(writer) => writer.directory_begin(),
            Sink::Count => Ok(()),
            #[cfg(test)]
            Sink::Record(recorder) => recorder.directory_begin(),
        }
    }

    pub(super) fn directory_end(&mut self, end: End) -> Result<()> {
        match self {
            Sink::Writer(writer) => {
                writer.directory_end_saying(end.name, end.meta, end.attributes, end.known.as_deref())
            }
            Sink::Count => Ok(()),
            #[cfg(test)]
            Sink::Record(recorder) => recorder.directory_end(end),
        }
    }

    pub(super) fn unchanged(&mut self, entry: &Arc<Entry>) -> Result<bool> {
        match self {
            Sink::Writer(writer) => writer.unchanged(entry),
            Sink::Count => Ok(true),
            #[cfg(test)]
            Sink::Record(recorder) => recorder.unchanged(entry),
        }
    }

    pub(super) fn add(&mut self, entry: Entry) -> Result<()> {
        match self {
            Sink::Writer(writer) => writer.add(entry),
            Sink::Count => Ok(()),
            #[cfg(test)]
            Sink::Record(recorder) => recorder.add(entry),
        }
    }

    pub(super) fn file_piece(&mut self, piece: Piece) -> Result<()> {
        match self {
            Sink::Writer(writer) => writer.file_piece(piece),
            Sink::Count => Ok(()),
            #[cfg(test)]
            Sink::Record(recorder) => recorder.file_piece(piece),
        }
    }

    pub(super) fn file_abandon(&mut self) {
        match self {
            Sink::Writer(writer) => writer.file_abandon(),
            Sink::Count => {}
            #[cfg(test)]
            Sink::Record(recorder) => recorder.file_abandon(),
        }
    }

    pub(super) fn file_end(&mut self, name: Name, meta: Meta) -> Result<()> {
        match self {
            Sink::Writer(writer) => writer.file_end(name, meta),
            Sink::Count => Ok(()),
            #[cfg(test)]
            Sink::Record(recorder) => recorder.file_end(name, meta),
        }
    }
}

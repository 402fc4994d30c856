//! Facts that the repository knows about a file, as extended attributes `user.bygone.*`.
//!
//! They can be read by name but are never listed, so that no copy takes them along.
//!
//! - `snapshots`: the names of the snapshots that hold this very version at this path, oldest first, one per line
//! - `first_seen`, `last_seen`: the times of the first and the last of these snapshots
//! - `content_id`: equal for equal content that was cut in the same way
//! - `cached`: `yes` if the content can be read without asking a far store, even by the next mount; else `no`
//! - `volumes`: the names of the volumes that hold its blocks, one per line
//! - `stored_bytes`: the space that its blocks take in the store
//!
//! A file's path is remembered from the lookup that found it, and forgotten after many other lookups. Then the first
//! three facts are absent until its directory is looked into again.

use std::collections::HashMap;

use bygone_cli::time::utc;
use bygone_core::entry::Content;
use bygone_core::entry::Entry;
use bygone_core::entry::Extent;
use bygone_core::entry::Kind;
use bygone_core::hash::sha256;
use bygone_core::id::NodeId;
use bygone_core::id::hex;
use bygone_core::read::Reader;
use bygone_core::read::View;

use crate::tree::changes::descend;
use crate::tree::listing::Listing;
use crate::tree::listing::Shown;
use crate::tree::operation_error::OperationError;

/// The beginning of all their names.
pub const PREFIX: &[u8] = b"user.bygone.";

/// The fact that depends on what was fetched. [`cached`] answers it, and [`value`] does not.
pub const CACHED: &[u8] = b"user.bygone.cached";

/// The longest value. The kernel accepts 64 KiB.
const VALUE_BYTES_MAX: usize = 60 << 10;

/// The subject of a fact.
pub enum Of<'a> {
    /// A directory, by the number of its path.
    Directory(u64),
    /// An entry, the number of its file version, and the path number of the directory where it was found, if known.
    File(&'a Entry, u64, Option<u64>),
}

/// The value of the attribute `name`.
pub fn value(view: &View, listing: &Listing, of: &Of<'_>, name: &[u8]) -> Result<Vec<u8>, OperationError> {
    match name.strip_prefix(PREFIX).unwrap_or_default() {
        b"snapshots" => Ok(lines(holders(view, listing, of)?.iter().map(|shown| shown.name.as_str()))),
        b"first_seen" => time_of(holders(view, listing, of)?.first()),
        b"last_seen" => time_of(holders(view, listing, of)?.last()),
        b"content_id" => Ok(content_id(content_of(of)?).into_bytes()),
        b"volumes" => Ok(lines(view.stored(content_of(of)?)?.volumes.iter().map(String::as_str))),
        b"stored_bytes" => Ok(view.stored(content_of(of)?)?.bytes.to_string().into_bytes()),
        _ => Err(OperationError::NoAttribute),
    }
}

/// The value of [`CACHED`] of a file.
pub fn cached(view: &View, reader: &Reader, of: &Of<'_>) -> Result<Vec<u8>, OperationError> {
    let is_kept = reader.is_kept(&view.file(content_of(of)?)?)?;
    Ok(if is_kept { b"yes" } else { b"no".as_slice() }.to_vec())
}

/// The snapshots that hold the subject, oldest first.
fn holders<'a>(view: &View, listing: &'a Listing, of: &Of<'_>) -> Result<Vec<&'a Shown>, OperationError> {
    let path = match of {
        Of::Directory(path) => *path,
        Of::File(.., path) => path.ok_or(OperationError::NoAttribute)?,
    };
    let mut known: HashMap<Option<NodeId>, bool> = HashMap::new();
    let mut found = Vec::new();
    for shown in &listing.snapshots {
        let (node, _) = descend(view, (Some(shown.snapshot.root), None), path)?;
        let holds = match known.get(&node) {
            Some(holds) => *holds,
            None => {
                let holds = holds(view, node, of)?;
                known.insert(node, holds);
                holds
            }
        };
        found.extend(holds.then_some(shown));
    }
    Ok(found)
}

fn holds(view: &View, directory: Option<NodeId>, of: &Of<'_>) -> Result<bool, OperationError> {
    let Some(node) = directory else { return Ok(false) };
    Ok(match of {
        Of::Directory(_) => true,
        Of::File(entry, version, _) => {
            let item = view.directory(node)?.find(view, entry.name.as_bytes())?;
            item.is_some_and(|item| item.version == *version)
        }
    })
}

fn content_of<'a>(of: &Of<'a>) -> Result<&'a Content, OperationError> {
    match of {
        Of::File(Entry { kind: Kind::File(content), .. }, ..) => Ok(content),
        _ => Err(OperationError::NoAttribute),
    }
}

fn lines<'a>(names: impl DoubleEndedIterator<Item = &'a str>) -> Vec<u8> {
    // A list that is too long for the kernel loses its beginning.
    let mut bytes = 0;
    let fits = |name: &&str| {
        bytes += name.len() + 1;
        bytes <= VALUE_BYTES_MAX
    };
    let mut names: Vec<&str> = names.rev().take_while(fits).collect();
    names.reverse();
    names.join("\n").into_bytes()
}

fn time_of(shown: Option<&&Shown>) -> Result<Vec<u8>, OperationError> {
    shown.map(|shown| utc(shown.snapshot.time).into_bytes()).ok_or(OperationError::NoAttribute)
}

/// A name for content as it is stored. It is made of keyed ids, so it reveals nothing that the reader could not read.
fn content_id(content: &Content) -> String {
    let mut text = Vec::new();
    match content {
        Content::Inline(bytes) => {
            text.push(b'i');
            text.extend_from_slice(bytes);
        }
        Content::Extents(extents) => {
            for extent in extents {
                match extent {
                    Extent::Block { id, .. } => {
                        text.push(b'b');
                        text.extend_from_slice(&id.0);
                    }
                    Extent::Hole { .. } => text.push(b'h'),
                }
                text.extend_from_slice(&extent.length().to_le_bytes());
            }
        }
        Content::List { root, .. } => {
            text.push(b'l');
            text.extend_from_slice(&root.0);
        }
    }
    hex(&sha256(&text))
}

//! `bygone cat`: writes a file to standard output.

use std::ffi::OsString;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_core::entry::Kind;
use bygone_core::entry::printable;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::Verify;

use crate::commands::Context;
use crate::commands::READ_CACHE_BYTES;
use crate::select::Found;
use crate::select::Selector;
use crate::select::check_given;

/// Bytes read at once: a multiple of every block size up to this, so blocks are read and verified as a whole.
const PIECE_BYTES: usize = 8 << 20;

/// Write a file of a snapshot to standard output
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Snapshot and file in it: latest:/etc/fstab, an id and a path, or a time and a path
    #[arg(value_name = "SNAP:PATH")]
    file: OsString,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let selector = Selector::parse(&args.file)?;
    let repository = context.open()?;
    let reader = Reader::new(&repository, READ_CACHE_BYTES, Order::Forward)?;
    let view = reader.view()?;
    let snapshot = selector.snapshot(super::snapshots_of(&view)?, context.now)?;
    let what = || printable(&selector.path_bytes());
    let entry = match selector.find(&view, &snapshot)? {
        Found::Entry(entry) => entry,
        Found::Directory { .. } => {
            let path = if selector.path.is_empty() { "/".to_owned() } else { what() };
            return Err(Failure::Usage(format!("{path} is a directory: list it with `bygone ls`")));
        }
    };
    check_given(&entry, what)?;
    let Kind::File(content) = &entry.kind else {
        return Err(Failure::Usage(format!("{} is not a regular file: see `bygone ls -l`", what())));
    };
    let file = view.file(content)?;
    let step = PIECE_BYTES.max(usize::try_from(repository.config().block_bytes).unwrap_or(PIECE_BYTES));
    let mut offset = 0;
    while offset < file.length() && !context.output.is_closed() {
        context.watch.check()?;
        let piece = reader.read(&file, offset, step, Verify::Blocks)?;
        context.output.bytes(&piece)?;
        offset += piece.len() as u64;
    }
    Ok(Exit::Complete)
}

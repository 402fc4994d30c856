//! `bygone catalog-dump`: the catalog as canonical text, so that two catalogs can be compared.

use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_core::error::Error;

use crate::commands::Context;

/// Print the catalog as canonical text; equal catalogs give equal text
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context) -> Result<Exit> {
    let catalog = context.open()?.catalog()?;
    catalog.renew()?;
    let mut failed = None;
    let dumped = catalog.dump(|line| {
        let written = context.output.line(line);
        context.watch.check()?;
        match written {
            Ok(()) if !context.output.is_closed() => Ok(()),
            // The error is returned below; here it only ends the dump.
            other => {
                failed = Some(other);
                Err(Error::Cancelled)
            }
        }
    });
    match failed {
        Some(written) => written?,
        None => dumped?,
    }
    Ok(Exit::Complete)
}

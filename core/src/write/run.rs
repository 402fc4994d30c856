//! Runs, and the markers that announce them.
//!
//! A run refers to stored blocks in the commit at its end. A program that deletes volumes must wait for it, so the run
//! puts a marker before it looks at what is stored. Each run has a marker of its own, with a random name: two machines
//! with one catalog cannot take away each other's. Nobody reads a marker's bytes.
//!
//! The name is durable in the catalog before the marker is put, so a later run takes away what a dead one has left. It
//! does so after it has synced. If the commit of the dead run may still be on its way, the marker stays until the
//! number of that commit is taken.

use crate::catalog::Catalog;
use crate::crypto::random;
use crate::error::Error;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::RunId;
use crate::objects::marker_object;
use crate::repo::LockedRepository;
use crate::store::Source;

const MARKER_TEXT: &[u8] = b"a backup is running\n";

/// Announces a run: puts its marker. This comes before the catalog is synced with the store.
pub fn announce(locked: &mut LockedRepository) -> Result<()> {
    // The lock may have been taken for the catalog only.
    locked.check_writable()?;
    if locked.run().is_some() {
        return Ok(());
    }
    let (client, run) = (locked.client(), RunId(random()?));
    locked.catalog().run_begin(client, run)?;
    locked.set_run(Some((client, run)));
    match locked.repository().store().put(&marker_object(client, run), Source::Bytes(MARKER_TEXT)) {
        // Somebody was faster, and what lies there marks the run just as well.
        Ok(_) | Err(Error::Exists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends the run that was announced, if any: removes its marker, and those of dead runs.
pub(crate) fn end(locked: &mut LockedRepository) -> Result<()> {
    let run = locked.run();
    locked.set_run(None);
    remove(locked, run.into_iter().collect())?;
    bury(locked)
}

/// Removes the markers of dead runs of this machine. The catalog has been synced since they died.
pub(crate) fn bury(locked: &mut LockedRepository) -> Result<()> {
    let client = locked.client();
    let catalog = locked.catalog().read();
    let dead = catalog.runs()?;
    if dead.is_empty() || is_commit_on_its_way(catalog, client)? {
        return Ok(());
    }
    let current = locked.run();
    remove(locked, dead.into_iter().filter(|run| Some(*run) != current).collect())
}

/// True if a commit was about to be put under a number that nothing has taken since.
fn is_commit_on_its_way(catalog: &Catalog, client: ClientId) -> Result<bool> {
    let Some((seq, _)) = catalog.committing()? else { return Ok(false) };
    let head = catalog.heads()?.into_iter().find(|head| head.client == client);
    Ok(head.is_none_or(|head| head.seq < seq))
}

fn remove(locked: &mut LockedRepository, runs: Vec<(ClientId, RunId)>) -> Result<()> {
    for (client, run) in &runs {
        locked.repository().store().delete(&marker_object(*client, *run))?;
    }
    if runs.is_empty() {
        return Ok(());
    }
    let runs: Vec<RunId> = runs.into_iter().map(|(_, run)| run).collect();
    locked.catalog().runs_end(&runs)
}

/// Announces the run again after this machine was given a new client, and removes the marker under the old one.
pub(crate) fn announce_anew(locked: &mut LockedRepository) -> Result<()> {
    let Some(run) = locked.run() else { return Ok(()) };
    locked.set_run(None);
    // A repository that this program may only read keeps its markers.
    if locked.check_writable().is_ok() {
        announce(locked)?;
        remove(locked, vec![run])?;
    }
    Ok(())
}

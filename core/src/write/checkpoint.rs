//! Checkpoints: a commit that says again what those before it have said, so that readers begin there.
//!
//! A chain that says everything again at each checkpoint would write more and more, although nearly all of it stays as
//! it is. So checkpoints are of several ranks: most stand for the commits since the one before, every sixteenth for
//! what the last sixteen stand for, and so on. Each commit is then said again once for each rank, and a reader needs at
//! most fifteen checkpoints of each rank, besides the commits since the newest one.
//!
//! Only what still holds is said again: a snapshot that was removed is not, its removal is. What the commits have said
//! is taken from the objects that the catalog keeps. Where one is missing, no checkpoint reaches beyond it.

use std::collections::HashSet;
use std::hash::Hash;

use crate::catalog::Catalog;
use crate::commit::Checkpoint;
use crate::commit::Commit;
use crate::commit::Losses;
use crate::crypto::Keys;
use crate::error::Error;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::SnapshotId;
use crate::limits;
use crate::objects::commit_object;

/// How many checkpoints of one rank there are until one of the next rank stands for all of them.
const FAN: u64 = 16;

/// The number of the newest checkpoint of a chain, 0 if it has none.
pub(super) fn newest_checkpoint(catalog: &Catalog, client: ClientId) -> Result<u64> {
    let covered = catalog.chains_covered()?.into_iter().filter(|covered| covered.client == client);
    Ok(covered.map(|covered| covered.last + 1).max().unwrap_or(0))
}

/// The commit as a checkpoint, which also says what earlier commits of its chain have said; `None` if none is due under
/// this number.
pub(super) fn with_earlier(
    keys: &Keys,
    catalog: &Catalog,
    (client, seq): (ClientId, u64),
    each: u64,
    commit: &Commit,
) -> Result<Option<Commit>> {
    let Some(run_before) = run_before(seq, newest_checkpoint(catalog, client)?, each) else { return Ok(None) };
    let mut earlier = Vec::new();
    let (mut first, mut bytes_left) = (seq, limits::CHECKPOINT_BYTES_MAX);
    while first > 1 {
        let before = first - 1;
        let Some(object) = catalog.commit_object(client, before)? else { break };
        let Some(left) = bytes_left.checked_sub(object.len() as u64) else { break };
        let opened = Commit::open(&object, &keys.commit(client, before), client, before)
            .map_err(|e| Error::local_corrupt(commit_object(client, before), e))?;
        let begin = match opened.checkpoint {
            // An earlier checkpoint of the same rank or a higher one stays.
            Checkpoint::Here { .. } if run_before > 0 && before / each <= run_before => break,
            Checkpoint::Here { first } => first,
            Checkpoint::None | Checkpoint::At(_) => before,
        };
        earlier.push(opened);
        (first, bytes_left) = (begin, left);
    }
    if first == seq {
        return Ok(None);
    }
    earlier.reverse();
    Ok(Some(Commit { checkpoint: Checkpoint::Here { first }, ..merged(catalog, &earlier, commit)? }))
}

/// Which multiple of `each` the checkpoint follows on that stays before one at `seq`, or 0 if none stays. `None` if no
/// checkpoint is due at `seq`, the newest so far being `newest`, or 0.
fn run_before(seq: u64, newest: u64, each: u64) -> Option<u64> {
    let run = seq.checked_div(each).filter(|run| *run > newest / each)?;
    let mut span = 1;
    while run % (span * FAN) == 0 {
        span *= FAN;
    }
    Some(run - span)
}

/// What holds of what these commits say, each earlier than the next, and the last one's own fields.
fn merged(catalog: &Catalog, earlier: &[Commit], last: &Commit) -> Result<Commit> {
    let all = || earlier.iter().chain([last]);
    let mut removed: HashSet<SnapshotId> = catalog.snapshots_removed()?.into_iter().collect();
    removed.extend(&last.snapshots_removed);
    let mut snapshots_added = distinct(all().flat_map(|commit| &commit.snapshots_added), |snapshot| snapshot.id);
    snapshots_added.retain(|snapshot| !removed.contains(&snapshot.id));
    // A volume that was given up and is back is no loss any more. If it is lost again, that is for a person to accept.
    let still_lost = catalog.volume_losses()?;
    let mut volumes_lost = distinct(all().flat_map(|commit| &commit.losses.volumes), |name| *name);
    volumes_lost.retain(|name| still_lost.contains(name) || last.losses.volumes.contains(name));
    let mut features = last.features.clone();
    earlier.iter().for_each(|commit| features.add(&commit.features));
    Ok(Commit {
        snapshots_added,
        snapshots_removed: distinct(all().flat_map(|commit| &commit.snapshots_removed), |id| *id),
        volumes_added: distinct(all().flat_map(|commit| &commit.volumes_added), |volume| volume.name),
        volumes_retired: distinct(all().flat_map(|commit| &commit.volumes_retired), |name| *name),
        losses: Losses {
            chains: distinct(all().flat_map(|commit| &commit.losses.chains), |loss| *loss),
            volumes: volumes_lost,
        },
        slots_removed: distinct(all().flat_map(|commit| &commit.slots_removed), |id| *id),
        features,
        ..last.clone()
    })
}

/// The items, each once, in the order in which they first occur.
fn distinct<'a, T: Clone + 'a, K: Hash + Eq>(items: impl IntoIterator<Item = &'a T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::new();
    items.into_iter().filter(|item| seen.insert(key(item))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the checkpoints of a chain, each with the first commit that it stands for, by the writer's rule.
    fn checkpoints(last: u64, each: u64) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = Vec::new();
        for seq in 1..=last {
            let newest = all.last().map_or(0, |(number, _)| *number);
            if let Some(run_before) = run_before(seq, newest, each) {
                let stays = |(number, _): &&(u64, u64)| run_before > 0 && number / each <= run_before;
                all.push((seq, all.iter().rev().find(stays).map_or(1, |(number, _)| number + 1)));
            }
        }
        all
    }

    #[test]
    fn checkpoints_have_ranks() {
        let expected = [(64, 1), (128, 65), (192, 129), (256, 193)];
        assert_eq!(checkpoints(300, 64), expected);
        let all = checkpoints(64 * 16 * 17, 64);
        assert!(all.contains(&(64 * 16, 1)) && all.contains(&(64 * 32, 64 * 16 + 1)), "of the second rank");
        assert!(all.contains(&(64 * 256, 1)) && all.contains(&(64 * 272, 64 * 256 + 1)), "of the third rank");
    }

    #[test]
    fn an_hourly_chain_of_five_years_is_read_by_few_requests() {
        let hours = 5 * 365 * 24 + 24;
        let all = checkpoints(hours, limits::CHECKPOINT_COMMITS);
        let (mut most, mut sum) = (0, 0);
        for newest in 1..=hours {
            let mut reads = 0;
            let mut at = newest;
            // As FORMAT.md describes it: everything down to a checkpoint, then what the checkpoint does not stand for.
            while at > 0 {
                match all.get(..all.partition_point(|(number, _)| *number <= at)).and_then(|before| before.last()) {
                    Some((number, first)) => (reads, at) = (reads + at - number + 1, first - 1),
                    None => (reads, at) = (reads + at, 0),
                }
            }
            (most, sum) = (most.max(reads), sum + reads);
        }
        assert!(most <= 110, "{most} requests");
        assert!(10 * most <= 2_000 && sum / hours <= 60, "{} on the average", sum / hours);
        // Nothing is said again more often than there are ranks.
        let said_again: u64 = all.iter().map(|(number, first)| number - first).sum();
        assert!(said_again <= 3 * hours, "{said_again} of {hours}");
    }
}

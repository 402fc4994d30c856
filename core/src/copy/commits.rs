//! Copying commits, each after its predecessor and after the commits that it has seen, so that the copy never looks
//! like a store that has lost some.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use crate::commit::Commit;
use crate::copy::Copied;
use crate::copy::plan::Plan;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::id::ClientId;
use crate::limits;
use crate::objects::commit_object;
use crate::repo::Repository;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;
use crate::survey::Needed;
use crate::watch::Watch;

/// The next commit of a chain that the copy lacks.
struct Next {
    seq: u64,
    object: ObjectName,
    bytes: Vec<u8>,
    heads: Vec<(ClientId, u64)>,
}

/// Copies the commits that the copy lacks.
pub(super) fn copy(
    repository: &Repository,
    to: &dyn Store,
    plan: &Plan,
    watch: &Watch,
    copied: &mut Copied,
) -> Result<()> {
    let mut reached: BTreeMap<ClientId, u64> = BTreeMap::new();
    let mut left: BTreeMap<ClientId, VecDeque<u64>> = BTreeMap::new();
    for (client, chain) in &plan.chains {
        let there = chain.iter().filter(|(_, object)| plan.commits_there.contains(&object.name));
        let last_there = there.map(|(seq, _)| *seq).max();
        if let Some(seq) = last_there {
            check_same(repository, to, *client, seq)?;
            reached.insert(*client, seq);
        }
        let missing = chain.iter().filter(|(_, object)| !plan.commits_there.contains(&object.name));
        left.insert(*client, missing.map(|(seq, _)| *seq).collect());
    }
    let mut nexts: BTreeMap<ClientId, Next> = BTreeMap::new();
    let mut needed = None;
    loop {
        for (client, seqs) in &mut left {
            while !nexts.contains_key(client) {
                let Some(seq) = seqs.pop_front() else { break };
                watch.check()?;
                match read(repository, *client, seq) {
                    Ok(next) => drop(nexts.insert(*client, next)),
                    Err(error) if error.is_object_fault() => {
                        let store = repository.store().as_ref();
                        if needed.is_none() {
                            needed = Some(Needed::read(store, repository.keys())?);
                        }
                        // Nobody needs what a checkpoint says again.
                        if needed.as_ref().is_some_and(|needed| needed.covers(*client, seq)) {
                            continue;
                        }
                        copied.damaged.push((commit_object(*client, seq).to_string(), error.to_string()));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let has_all = |next: &Next| {
            next.heads.iter().all(|(client, seq)| reached.get(client).is_some_and(|reached| reached >= seq))
        };
        // If the source itself lacks a commit that this one has seen, this one is copied all the same.
        let ready = nexts.iter().find(|(_, next)| has_all(next)).or_else(|| nexts.iter().next());
        let Some(client) = ready.map(|(client, _)| *client) else { return Ok(()) };
        let Some(next) = nexts.remove(&client) else { return Ok(()) };
        let is_replaced = plan.is_replaced(&next.object);
        super::put(to, &next.object, Source::Bytes(&next.bytes), is_replaced, watch, copied)?;
        watch.bytes.fetch_add(next.bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        reached.insert(client, next.seq);
    }
}

fn read(repository: &Repository, client: ClientId, seq: u64) -> Result<Next> {
    let object = commit_object(client, seq);
    let bytes = repository.store().get(&object, ByteRange::Whole { bytes_max: limits::COMMIT_BYTES_MAX })?;
    let commit = Commit::open(&bytes, &repository.keys().commit(client, seq), client, seq)
        .map_err(|e| Error::corrupt(&object, e))?;
    // What this program does not know must not be mixed with what it writes elsewhere.
    commit.needs().check_writable()?;
    let heads = commit.heads.iter().map(|head| (head.client, head.seq)).collect();
    Ok(Next { seq, object, bytes, heads })
}

/// The newest commit of a chain that both stores have must be the same. A copy that somebody has backed up to has
/// diverged, and nothing can be added to it.
fn check_same(repository: &Repository, to: &dyn Store, client: ClientId, seq: u64) -> Result<()> {
    let object = commit_object(client, seq);
    let range = ByteRange::Whole { bytes_max: limits::COMMIT_BYTES_MAX };
    if repository.store().get(&object, range)? == to.get(&object, range)? {
        return Ok(());
    }
    let detail = "the source has another commit here: the copy has diverged and is left alone";
    Err(Error::disagree(Diagnosis::RemoteForked, format!("{object} in {}", to.address()), detail))
}

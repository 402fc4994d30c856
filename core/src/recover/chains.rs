//! The chains of commits in the store, held against what this machine has seen of them.

use std::collections::BTreeMap;

use crate::catalog::Catalog;
use crate::commit::Commit;
use crate::error::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::hash::sha256;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::limits;
use crate::repo::Repository;
use crate::repo::object_name;
use crate::store::ByteRange;
use crate::write::commit_object;

/// A commit that the catalog has not adopted yet.
pub(super) struct Unseen {
    pub client: ClientId,
    pub seq: u64,
    pub hash: CommitHash,
    pub commit: Commit,
}

/// Every commit in the store that the catalog has not seen, each chain in order, chains merged by time. Fails if the
/// store contradicts what was seen before.
pub(super) fn unseen(repository: &Repository, catalog: &Catalog) -> Result<Vec<Unseen>> {
    let last = last_of_each_chain(repository)?;
    let seen: BTreeMap<ClientId, (u64, CommitHash)> =
        catalog.heads()?.into_iter().map(|head| (head.client, (head.seq, head.hash))).collect();
    for (client, (seq, hash)) in &seen {
        hold_against_head(repository, *client, *seq, *hash, last.get(client).copied())?;
    }
    let mut chains = Vec::new();
    for (client, last) in last.clone() {
        let (mut seq, mut before) = seen.get(&client).map_or((0, None), |(seq, hash)| (*seq, Some(*hash)));
        let mut chain = Vec::new();
        while seq < last {
            seq += 1;
            let unseen = read_commit(repository, client, seq, before)?;
            before = Some(unseen.hash);
            chain.push(unseen);
        }
        chain.reverse();
        chains.push(chain);
    }
    hold_against_each_other(&chains, &last, catalog)?;
    let mut merged = Vec::new();
    // Of the next commits of all chains, the one that claims to be the oldest.
    while let Some(chain) = chains
        .iter_mut()
        .filter(|chain| !chain.is_empty())
        .min_by_key(|chain| chain.last().map(|unseen| (unseen.commit.time, unseen.client)))
    {
        merged.extend(chain.pop());
    }
    Ok(merged)
}

/// Every head that a commit has seen must be in the store: a chain that lost its newest commits is given away by the
/// other chains, also to a machine that has never seen it.
fn hold_against_each_other(chains: &[Vec<Unseen>], last: &BTreeMap<ClientId, u64>, catalog: &Catalog) -> Result<()> {
    let hashes: BTreeMap<(ClientId, u64), CommitHash> =
        chains.iter().flatten().map(|unseen| ((unseen.client, unseen.seq), unseen.hash)).collect();
    for head in chains.iter().flatten().flat_map(|unseen| &unseen.commit.heads) {
        if last.get(&head.client).is_none_or(|last| *last < head.seq) {
            return Err(rolled_back(&commit_object(head.client, head.seq)));
        }
        let known = match hashes.get(&(head.client, head.seq)) {
            Some(hash) => Some(*hash),
            None => catalog.commit_hash(head.client, head.seq)?,
        };
        if known.is_some_and(|known| known != head.hash) {
            return Err(forked(head.client, head.seq));
        }
    }
    Ok(())
}

fn rolled_back(name: &str) -> Error {
    let detail = "this commit was seen before and the store has it no more: the store was rolled back to an earlier \
                  state, or somebody deleted commits; restore the store from its own versions or copies";
    Error::disagree(Diagnosis::RemoteRolledBack, name, detail)
}

/// Reads every chain from its first commit: each must be there, open, and name the hash of the one before it, and those
/// that this machine has seen must be the ones it saw.
pub fn verify_chains(repository: &Repository, catalog: &Catalog) -> Result<u64> {
    let mut count = 0;
    for (client, last) in last_of_each_chain(repository)? {
        let mut before = None;
        for seq in 1..=last {
            let commit = read_commit(repository, client, seq, before)?;
            if catalog.commit_hash(client, seq)?.is_some_and(|seen| seen != commit.hash) {
                return Err(forked(client, seq));
            }
            before = Some(commit.hash);
            count += 1;
        }
    }
    for head in catalog.heads()? {
        hold_against_head(repository, head.client, head.seq, head.hash, Some(head.seq))?;
    }
    Ok(count)
}

/// The highest number of each chain that the store lists.
fn last_of_each_chain(repository: &Repository) -> Result<BTreeMap<ClientId, u64>> {
    let mut last: BTreeMap<ClientId, u64> = BTreeMap::new();
    for object in repository.store().list("commits/")? {
        let parts: Vec<&str> = object.name.as_str().split('/').collect();
        let [_, client, seq] = parts.as_slice() else { continue };
        if let Some((client, seq)) = ClientId::from_hex(client).zip(seq.parse::<u64>().ok()) {
            let known = last.entry(client).or_default();
            *known = seq.max(*known);
        }
    }
    Ok(last)
}

fn hold_against_head(
    repository: &Repository,
    client: ClientId,
    seq: u64,
    hash: CommitHash,
    last: Option<u64>,
) -> Result<()> {
    let name = commit_object(client, seq);
    if last.is_none_or(|last| last < seq) {
        return Err(rolled_back(&name));
    }
    match get_commit(repository, client, seq) {
        Ok(bytes) if CommitHash(sha256(&bytes)) == hash => Ok(()),
        Ok(_) => Err(forked(client, seq)),
        Err(error) if error.is_absent() => Err(rolled_back(&name)),
        Err(error) => Err(error),
    }
}

fn read_commit(repository: &Repository, client: ClientId, seq: u64, before: Option<CommitHash>) -> Result<Unseen> {
    let name = commit_object(client, seq);
    let bytes = match get_commit(repository, client, seq) {
        Err(error) if error.is_absent() => {
            let detail = "a later commit of the same chain is there and this one is not: the store has lost it";
            return Err(Error::disagree(Diagnosis::RemoteMissing, name, detail));
        }
        other => other?,
    };
    let commit = Commit::open(&bytes, &repository.keys().commit(client, seq), client, seq)
        .map_err(|e| Error::corrupt(&name, e))?;
    if commit.previous != before {
        return Err(forked(client, seq));
    }
    Ok(Unseen { client, seq, hash: CommitHash(sha256(&bytes)), commit })
}

fn get_commit(repository: &Repository, client: ClientId, seq: u64) -> Result<Vec<u8>> {
    let range = ByteRange::Whole { bytes_max: limits::COMMIT_BYTES_MAX };
    repository.store().get(&object_name(&commit_object(client, seq))?, range)
}

fn forked(client: ClientId, seq: u64) -> Error {
    let detail = "it is not the commit that follows the one before it: two machines have written one chain, or the \
                  store shows another history than it did before";
    Error::disagree(Diagnosis::RemoteForked, commit_object(client, seq), detail)
}

//! The chains of commits in the store, compared with what this machine has seen of them.
//!
//! Every commit that was seen must be there, in the same version. A store that keeps marks (ETags) shows that in its
//! list; in other stores the newest commit of each chain is read. New commits are read from the newest one down to the
//! checkpoint that it names, each naming the hash of the one before. And what one chain says of another must be true,
//! so even a new machine can detect a missing commit.

mod reading;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use crate::catalog::Alarm;
use crate::catalog::Catalog;
use crate::catalog::SeenCommit;
use crate::catalog::Subject;
use crate::commit::ChainLoss;
use crate::commit::Commit;
use crate::crypto::Keys;
use crate::diagnosis::Diagnosis;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::id::SlotId;
use crate::objects::commit_object;
use crate::repo::Repository;
use crate::store::Store;
use crate::survey::Depth;
use crate::survey::covered::Covered;
use crate::survey::listing::Listing;
use crate::survey::listing::Shown;
use crate::survey::texts::FORKED;
use crate::survey::texts::MISSING;
use crate::survey::texts::ROLLED_BACK;
use crate::survey::texts::SEEN_BY_OTHERS;
use crate::survey::texts::UNSEEN;

/// A commit that the catalog has not adopted yet.
pub struct Unseen {
    /// What the catalog will remember of it.
    pub seen: SeenCommit,
    /// The object.
    pub object: Vec<u8>,
    /// Its content.
    pub commit: Commit,
}

/// The state of the chains.
#[derive(Default)]
pub(super) struct Chains {
    /// Commits to be adopted, in this order.
    pub commits: Vec<Unseen>,
    /// What is wrong.
    pub troubles: Vec<Alarm>,
    /// Seen commits that were read again, as the store lists them now.
    pub confirmed: Vec<SeenCommit>,
    /// Commits that nobody needs: accepted losses, and what checkpoints stand for, including those in new commits.
    pub given_up: Vec<ChainLoss>,
    /// Commits of this machine's own chain that its catalog neither knows nor started, and that say something.
    pub stale: u64,
    /// Commits that should be listed but are not, for a second look.
    pub absent: Vec<(ClientId, u64)>,
}

/// The result of reading one commit object.
enum Read {
    Good(Box<Unseen>),
    Bad(Diagnosis, String),
}

struct Comparison<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    listing: &'a Listing,
    own: ClientId,
    /// Hashes of all known commits: those seen earlier and those read just now.
    hashes: BTreeMap<(ClientId, u64), CommitHash>,
    /// The reverse for seen commits, to recognise one in the place of another.
    places: HashMap<CommitHash, (ClientId, u64)>,
    /// Commits that were read just now.
    read: BTreeMap<(ClientId, u64), Unseen>,
    accepted: Vec<ChainLoss>,
    /// Commits for which a checkpoint stands.
    covered: Covered,
    out: Chains,
}

/// Compares the chains.
pub(super) fn compare(
    repository: &Repository,
    catalog: &Catalog,
    listing: &Listing,
    depth: Depth,
    own: ClientId,
) -> Result<Chains> {
    let seen = catalog.commits_seen()?;
    let mut comparison = Comparison {
        own,
        hashes: seen.iter().map(|seen| ((seen.client, seen.seq), seen.hash)).collect(),
        places: seen.iter().map(|seen| (seen.hash, (seen.client, seen.seq))).collect(),
        accepted: catalog.chain_losses()?,
        covered: catalog.chains_covered()?.into_iter().collect(),
        ..Comparison::new(repository.store().as_ref(), repository.keys(), listing)
    };
    let heads: BTreeMap<ClientId, u64> = seen.iter().map(|seen| (seen.client, seen.seq)).collect();
    // New commits are read before anything is judged, because one of them may accept a loss.
    let bad = comparison.read_new()?;
    for (client, seq, diagnosis, detail) in bad {
        comparison.trouble(diagnosis, client, seq, seq, &format!("{detail}{UNSEEN}"));
    }
    let alarms = catalog.alarms_open()?.into_iter();
    let alarmed = alarms.filter_map(|alarm| match alarm.subject {
        Subject::Chain(loss) => Some(loss),
        _ => None,
    });
    comparison.hold_against_seen(&seen, &heads, depth, &alarmed.collect::<Vec<_>>())?;
    comparison.hold_against_each_other();
    comparison.order(&heads);
    comparison.out.stale = comparison.stale(catalog.committing()?, heads.get(&own).copied());
    comparison.out.given_up = comparison.accepted.into_iter().chain(comparison.covered.ranges()).collect();
    Ok(comparison.out)
}

/// What a reader who knows nothing would read of all chains.
pub(crate) struct Needed {
    /// The commits, as far as they open.
    pub commits: Vec<Commit>,
    covered: Covered,
}

impl Needed {
    /// Reads the chains of a store.
    pub fn read(store: &dyn Store, keys: &Keys) -> Result<Needed> {
        Needed::of(store, keys, &Listing::of(store)?)
    }

    /// Reads the chains of a store that has been listed.
    pub fn of(store: &dyn Store, keys: &Keys, listing: &Listing) -> Result<Needed> {
        let mut comparison = Comparison::new(store, keys, listing);
        comparison.read_new()?;
        let commits = comparison.read.into_values().map(|unseen| unseen.commit).collect();
        Ok(Needed { commits, covered: comparison.covered })
    }

    /// True if a checkpoint stands for this commit.
    pub fn covers(&self, client: ClientId, seq: u64) -> bool {
        self.covered.covers(client, seq)
    }

    /// Key slots that the commits remove.
    pub fn slots_removed(&self) -> HashSet<SlotId> {
        self.commits.iter().flat_map(|commit| &commit.slots_removed).copied().collect()
    }
}

impl<'a> Comparison<'a> {
    /// Of someone who knows nothing.
    fn new(store: &'a dyn Store, keys: &'a Keys, listing: &'a Listing) -> Comparison<'a> {
        Comparison {
            store,
            keys,
            listing,
            own: ClientId([0; 16]),
            hashes: BTreeMap::new(),
            places: HashMap::new(),
            read: BTreeMap::new(),
            accepted: Vec::new(),
            covered: Covered::default(),
            out: Chains::default(),
        }
    }

    fn is_covered(&self, client: ClientId, seq: u64) -> bool {
        self.covered.covers(client, seq)
    }

    fn is_accepted(&self, client: ClientId, seq: u64) -> bool {
        self.accepted.iter().any(|loss| loss.covers(client, seq))
    }

    /// True if nobody needs the commit.
    fn is_given_up(&self, client: ClientId, seq: u64) -> bool {
        self.is_accepted(client, seq) || self.is_covered(client, seq)
    }

    fn trouble(&mut self, diagnosis: Diagnosis, client: ClientId, first: u64, last: u64, detail: &str) {
        let object = commit_object(client, first).to_string();
        let is_known = self.out.troubles.iter().any(|trouble| trouble.object == object);
        // Another history is trouble even if a checkpoint of it stands for the commits that differ.
        let is_fork = diagnosis == Diagnosis::RemoteForked;
        let needs = |seq| !self.is_accepted(client, seq) && (is_fork || !self.is_covered(client, seq));
        if is_known || !(first..=last).any(needs) {
            return;
        }
        let whose = if client == self.own { "this machine's own chain" } else { "the chain of another machine" };
        let which = if first == last { String::new() } else { format!(" to {last}") };
        let shown = self.listing.commits.get(&(client, first)).map(Shown::to_line);
        self.out.troubles.push(Alarm {
            diagnosis,
            object,
            detail: format!("commit {first}{which} of {whose}: {detail}"),
            subject: Subject::Chain(ChainLoss { client, first, last }),
            shown,
        });
    }

    /// Reads again the commits that are listed differently, and those with an alarm, which may be readable again.
    fn hold_against_seen(
        &mut self,
        seen: &[SeenCommit],
        heads: &BTreeMap<ClientId, u64>,
        depth: Depth,
        alarmed: &[ChainLoss],
    ) -> Result<()> {
        let mut lost: BTreeMap<ClientId, Vec<u64>> = BTreeMap::new();
        let mut wanted = Vec::new();
        for commit in seen {
            let (client, seq) = (commit.client, commit.seq);
            let Some(shown) = self.listing.commits.get(&(client, seq)) else {
                if !self.is_given_up(client, seq) {
                    lost.entry(client).or_default().push(seq);
                }
                continue;
            };
            let is_head = heads.get(&client) == Some(&seq);
            let is_as_it_was = commit.bytes.is_none_or(|bytes| bytes == shown.bytes)
                && (commit.etag.is_none() || shown.etag.is_none() || commit.etag == shown.etag);
            let is_known_by_mark = commit.etag.is_some() && commit.etag == shown.etag;
            let is_alarmed = alarmed.iter().any(|loss| loss.covers(client, seq));
            if depth == Depth::All || !is_as_it_was || is_alarmed || (is_head && !is_known_by_mark) {
                wanted.push((client, seq));
            }
        }
        let mut read = self.read_all(&wanted, |read| match read {
            Read::Good(unseen) => Ok(unseen.seen),
            Read::Bad(diagnosis, detail) => Err((diagnosis, detail)),
        })?;
        for commit in seen {
            let (client, seq) = (commit.client, commit.seq);
            match read.remove(&(client, seq)) {
                None => {}
                Some(Ok(now)) if now.hash == commit.hash => self.out.confirmed.push(now),
                Some(Ok(_)) => {
                    let head = heads.get(&client).copied().unwrap_or(seq);
                    self.trouble(Diagnosis::RemoteForked, client, seq, head, FORKED);
                }
                Some(Err((diagnosis, detail))) => {
                    let shown_bytes = self.listing.commits.get(&(client, seq)).map_or(0, |shown| shown.bytes);
                    let is_cut =
                        diagnosis == Diagnosis::RemoteCorrupt && commit.bytes.is_some_and(|bytes| bytes > shown_bytes);
                    let diagnosis = if is_cut { Diagnosis::RemoteTruncated } else { diagnosis };
                    self.trouble(diagnosis, client, seq, seq, &detail);
                }
            }
        }
        for (client, numbers) in lost {
            self.lost(client, &numbers);
        }
        Ok(())
    }

    /// Seen commits of one chain that are not listed. If they are newer than all listed ones, the chain was rolled
    /// back.
    fn lost(&mut self, client: ClientId, numbers: &[u64]) {
        self.out.absent.extend(numbers.iter().map(|seq| (client, *seq)));
        let last_listed = self.last_listed(client);
        for (first, last) in runs(numbers) {
            if last > last_listed {
                self.trouble(Diagnosis::RemoteRolledBack, client, first, last, ROLLED_BACK);
            } else {
                self.trouble(Diagnosis::RemoteMissing, client, first, last, MISSING);
            }
        }
    }

    fn last_listed(&self, client: ClientId) -> u64 {
        let of_client = (client, 0)..=(client, u64::MAX);
        self.listing.commits.range(of_client).next_back().map_or(0, |((_, seq), _)| *seq)
    }

    /// Every head that a commit has seen must be in the store. So the other chains reveal that a chain lost its newest
    /// commits, even to a machine that has never seen it.
    fn hold_against_each_other(&mut self) {
        let mut lost: BTreeMap<ClientId, u64> = BTreeMap::new();
        let mut forked = Vec::new();
        for head in self.read.values().flat_map(|unseen| &unseen.commit.heads) {
            let place = (head.client, head.seq);
            if self.is_given_up(head.client, head.seq) {
                continue;
            }
            if self.listing.commits.contains_key(&place) {
                if self.hashes.get(&place).is_some_and(|hash| *hash != head.hash) {
                    forked.push(place);
                }
            } else if !self.hashes.contains_key(&place) {
                let last = lost.entry(head.client).or_default();
                *last = head.seq.max(*last);
            }
        }
        forked.sort_unstable();
        forked.dedup();
        for (client, seq) in forked {
            self.trouble(Diagnosis::RemoteForked, client, seq, seq, FORKED);
        }
        for (client, last) in lost {
            let first = self.last_listed(client) + 1;
            self.out.absent.push((client, last));
            self.trouble(Diagnosis::RemoteRolledBack, client, first.min(last), last, SEEN_BY_OTHERS);
        }
    }

    /// Finds gaps and broken links among new commits, and puts the others in the order of adoption: repeatedly, of the
    /// next commits of all chains, the one with the earliest claimed time.
    fn order(&mut self, heads: &BTreeMap<ClientId, u64>) {
        let mut chains: BTreeMap<ClientId, Vec<Unseen>> = BTreeMap::new();
        for ((client, _), unseen) in std::mem::take(&mut self.read) {
            chains.entry(client).or_default().push(unseen);
        }
        let mut queues = Vec::new();
        for (client, chain) in chains {
            let numbers: Vec<u64> = chain.iter().map(|unseen| unseen.seen.seq).collect();
            let first_unseen = heads.get(&client).map_or(1, |head| head + 1);
            let last = numbers.last().copied().unwrap_or(0);
            let gaps: Vec<u64> = (first_unseen..last)
                .filter(|seq| !numbers.contains(seq) && !self.is_given_up(client, *seq))
                .filter(|seq| !self.listing.commits.contains_key(&(client, *seq)))
                .collect();
            self.out.absent.extend(gaps.iter().map(|seq| (client, *seq)));
            for (first, last) in runs(&gaps) {
                self.trouble(Diagnosis::RemoteMissing, client, first, last, MISSING);
            }
            let mut queue = Vec::new();
            for unseen in chain {
                let seq = unseen.seen.seq;
                let before = seq.checked_sub(1).and_then(|before| self.hashes.get(&(client, before)));
                let is_linked = match (before, unseen.commit.previous) {
                    (Some(before), previous) => previous == Some(*before),
                    (None, Some(_)) => seq > 1,
                    (None, None) => seq == 1,
                };
                if !is_linked && !self.is_accepted(client, seq) {
                    self.trouble(Diagnosis::RemoteForked, client, seq, last, FORKED);
                    break;
                }
                queue.push(unseen);
            }
            queue.reverse();
            queues.push(queue);
        }
        while let Some(queue) = queues
            .iter_mut()
            .filter(|queue| !queue.is_empty())
            .min_by_key(|queue| queue.last().map(|unseen| (unseen.commit.time, unseen.seen.client)))
        {
            self.out.commits.extend(queue.pop());
        }
    }

    /// New commits of our own chain. One that we were about to put when we were interrupted is ours, and one that says
    /// nothing took a number; all others were written by another copy of this catalog.
    fn stale(&self, committing: Option<(u64, CommitHash)>, head: Option<u64>) -> u64 {
        let is_ours = |unseen: &&Unseen| committing == Some((unseen.seen.seq, unseen.seen.hash));
        let own = self.out.commits.iter().filter(|unseen| unseen.seen.client == self.own);
        let above = own.filter(|unseen| head.is_none_or(|head| unseen.seen.seq > head));
        above.filter(|unseen| !is_ours(unseen) && !unseen.commit.is_empty()).count() as u64
    }
}

/// Runs of consecutive numbers.
fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    runs
}

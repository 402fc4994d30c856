//! Reading commits: the new ones that are needed, from the newest of each chain down; and any, without trusting them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::catalog::SeenCommit;
use crate::commit::Checkpoint;
use crate::commit::Commit;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::hash::sha256;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::limits;
use crate::objects::commit_object;
use crate::parallel::side_by_side;
use crate::store::ByteRange;
use crate::store::TRANSFERS_MAX;
use crate::survey::chains::Comparison;
use crate::survey::chains::Read;
use crate::survey::chains::Unseen;
use crate::survey::descent::Descent;

impl Comparison<'_> {
    /// Listed commits that were not seen and may be needed, by chain.
    fn unseen(&self) -> BTreeMap<ClientId, BTreeSet<u64>> {
        let mut unseen: BTreeMap<ClientId, BTreeSet<u64>> = BTreeMap::new();
        for (client, seq) in self.listing.commits.keys() {
            if !self.hashes.contains_key(&(*client, *seq)) && !self.is_covered(*client, *seq) {
                unseen.entry(*client).or_default().insert(*seq);
            }
        }
        unseen
    }

    /// Reads the new commits that are needed, and returns those that are no commits.
    pub(super) fn read_new(&mut self) -> Result<Vec<(ClientId, u64, Diagnosis, String)>> {
        let unseen = self.unseen().into_iter();
        let mut descents: Vec<(ClientId, Descent)> = unseen.map(|(client, all)| (client, Descent::new(all))).collect();
        let mut bad = Vec::new();
        loop {
            let wanted: Vec<Vec<u64>> = descents.iter_mut().map(|(_, descent)| descent.next()).collect();
            let places = descents.iter().zip(&wanted);
            let places = places.flat_map(|((client, _), numbers)| numbers.iter().map(|seq| (*client, *seq)));
            let places: Vec<(ClientId, u64)> = places.collect();
            if places.is_empty() {
                break;
            }
            let mut opened: BTreeMap<ClientId, BTreeMap<u64, Checkpoint>> = BTreeMap::new();
            for ((client, seq), read) in self.read_all(&places, |read| read)? {
                match read {
                    Read::Good(unseen) => {
                        opened.entry(client).or_default().insert(seq, unseen.commit.checkpoint);
                        self.hashes.insert((client, seq), unseen.seen.hash);
                        self.accepted.extend_from_slice(&unseen.commit.losses.chains);
                        unseen
                            .commit
                            .checkpoint
                            .covered(client, seq)
                            .into_iter()
                            .for_each(|range| self.covered.add(range));
                        self.read.insert((client, seq), *unseen);
                    }
                    Read::Bad(diagnosis, detail) => bad.push((client, seq, diagnosis, detail)),
                }
            }
            for ((client, descent), numbers) in descents.iter_mut().zip(&wanted) {
                descent.note(numbers, opened.remove(client).unwrap_or_default());
            }
        }
        let covered = &self.covered;
        self.read.retain(|(client, seq), _| !covered.covers(*client, *seq));
        Ok(bad)
    }

    /// Reads commits, as many at a time as the store has connections, and keeps the result of `keep` for each.
    pub(super) fn read_all<T: Send>(
        &self,
        places: &[(ClientId, u64)],
        keep: impl Fn(Read) -> T + Sync,
    ) -> Result<BTreeMap<(ClientId, u64), T>> {
        let threads = self.store.connections().clamp(1, TRANSFERS_MAX);
        let read = |(client, seq): &(ClientId, u64)| Ok(((*client, *seq), keep(self.read(*client, *seq)?)));
        let mut kept = BTreeMap::new();
        side_by_side(threads, places, read, |read: Result<_>| {
            kept.extend([read?]);
            Ok(true)
        })?;
        Ok(kept)
    }

    /// Reads a commit without trusting anything.
    fn read(&self, client: ClientId, seq: u64) -> Result<Read> {
        let name = commit_object(client, seq);
        let range = ByteRange::Whole { bytes_max: limits::COMMIT_BYTES_MAX };
        let shown = self.listing.commits.get(&(client, seq));
        let bytes = match self.store.get(&name, range) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => {
                return Ok(Read::Bad(Diagnosis::RemoteMissing, "the store lists it but does not have it".into()));
            }
            Err(Error::Limit { found, .. }) => {
                return Ok(Read::Bad(
                    Diagnosis::RemoteCorrupt,
                    format!("it has {found} bytes, and no commit is that long"),
                ));
            }
            Err(error) if error.is_bad_sector() => {
                return Ok(Read::Bad(Diagnosis::RemoteCorrupt, format!("it cannot be read: {error}")));
            }
            Err(error) => return Err(error),
        };
        let hash = CommitHash(sha256(&bytes));
        match Commit::open(&bytes, &self.keys.commit(client, seq), client, seq) {
            Ok(commit) => {
                let (length, etag) = (Some(bytes.len() as u64), shown.and_then(|shown| shown.etag.clone()));
                let seen = SeenCommit { client, seq, hash, bytes: length, etag };
                Ok(Read::Good(Box::new(Unseen { seen, object: bytes, commit })))
            }
            Err(too_new @ crate::wire::DecodeError::TooNew(_)) => Err(Error::corrupt(name, too_new)),
            Err(error) => Ok(match self.places.get(&hash) {
                Some((of, number)) => {
                    let other = commit_object(*of, *number);
                    Read::Bad(Diagnosis::RemoteSwapped, format!("in its place lies {other}"))
                }
                None => Read::Bad(Diagnosis::RemoteCorrupt, format!("it does not open: {error}")),
            }),
        }
    }
}

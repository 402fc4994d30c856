//! Is everything there, and is it what was stored?
//!
//! Without reading data: the catalog's own structure, the chains of commits, every volume by LIST (name and size), every
//! node and block that a snapshot refers to. With reading data: every byte of every volume, held against its name, its
//! seals and the ids of its blocks. What is found is told by object, by kind of trouble, and by the files that it costs.
//!
//! A volume that is missing or damaged is marked as lost in the catalog. The next backup then stores again whatever of
//! it the source still has, so that damage heals as far as it can; `check` says what remains.

mod trees;
mod volumes;

use std::collections::BTreeMap;
use std::collections::HashSet;

use crate::catalog::VolumeRow;
use crate::catalog::VolumeState;
use crate::error::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::frame::volume_object;
use crate::recover::list_volumes;
use crate::recover::verify_chains;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::watch::Watch;

pub use trees::Affected;

/// Files that are named for each check; the rest are counted.
pub const AFFECTED_NAMED_MAX: usize = 1_000;

/// How much of the data to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadData {
    /// None.
    No,
    /// All of it.
    All,
    /// The `part`-th (from 1) of `parts` parts, by name of volume.
    Part {
        /// Which part.
        part: u64,
        /// Of how many.
        parts: u64,
    },
    /// Volumes chosen by a seed until so many bytes are read.
    Sample {
        /// Chooses the volumes.
        seed: u64,
        /// At least this many bytes, or all there are.
        bytes: u64,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of trouble.
    pub diagnosis: Diagnosis,
    /// The object or file concerned.
    pub object: String,
    /// What is wrong and what to do.
    pub detail: String,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Worth knowing, not wrong.
    pub notes: Vec<String>,
    /// Files and directories that snapshots have lost, up to [`AFFECTED_NAMED_MAX`].
    pub affected: Vec<Affected>,
    /// How many there are in all.
    pub affected_count: u64,
    /// Snapshots that were walked.
    pub snapshots: u64,
    /// Volumes that were looked at.
    pub volumes: u64,
    /// Volumes that were read in full.
    pub volumes_read: u64,
    /// Bytes that were read of them.
    pub bytes_read: u64,
}

impl Report {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.affected_count == 0
    }

    /// True if data of a snapshot is missing or damaged, as opposed to store and catalog merely differing.
    pub fn has_damage(&self) -> bool {
        self.affected_count > 0 || self.findings.iter().any(|finding| finding.diagnosis == Diagnosis::RemoteCorrupt)
    }

    fn find(&mut self, diagnosis: Diagnosis, object: impl Into<String>, detail: impl Into<String>) {
        self.findings.push(Finding { diagnosis, object: object.into(), detail: detail.into() });
    }
}

/// Ids of blocks and nodes that cannot be had.
#[derive(Debug, Default)]
struct Lost(HashSet<[u8; 32]>);

/// Checks a repository. The catalog was synced before.
pub fn check(locked: &mut LockedRepository, read_data: ReadData, watch: &Watch) -> Result<Report> {
    let mut report = Report::default();
    for complaint in locked.catalog().read().quick_check()? {
        let path = locked.repository().catalog_path().display().to_string();
        report.find(Diagnosis::LocalCorrupt, path, format!("{complaint}: run `bygone recover --force`"));
    }
    check_chains(locked, &mut report)?;
    let listed = check_listing(locked, &mut report)?;
    let wanted = choose(locked.catalog().read().volumes()?, &listed, read_data);
    let mut lost = Lost::default();
    volumes::read_all(locked, &wanted, watch, &mut report, &mut lost)?;
    let read: HashSet<i64> = wanted.iter().map(|volume| volume.id).collect();
    check_lost_volumes(locked, &read, &mut report, &mut lost)?;
    let snapshots: Vec<Snapshot> = locked.catalog().read().snapshots()?.into_iter().map(|row| row.snapshot).collect();
    report.snapshots = snapshots.len() as u64;
    trees::walk(locked.catalog().read(), &snapshots, &lost, watch, &mut report)?;
    Ok(report)
}

fn check_chains(locked: &mut LockedRepository, report: &mut Report) -> Result<()> {
    let (repository, catalog) = locked.parts();
    match verify_chains(repository, catalog.read()) {
        Ok(_) => Ok(()),
        Err(Error::Disagree { diagnosis, object, detail }) => {
            report.find(diagnosis, object, detail);
            Ok(())
        }
        Err(Error::Corrupt { object, detail }) => {
            report.find(Diagnosis::RemoteCorrupt, object, detail);
            Ok(())
        }
        Err(other) => Err(other),
    }
}

/// Holds LIST against the catalog. Volumes that are missing or have another size are marked as lost. Answers which
/// volumes are there with the right size.
fn check_listing(locked: &mut LockedRepository, report: &mut Report) -> Result<HashSet<String>> {
    let mut listed: BTreeMap<String, u64> = BTreeMap::new();
    for (_, object) in list_volumes(locked.repository())? {
        listed.insert(object.name.as_str().to_owned(), object.bytes);
    }
    let mut there = HashSet::new();
    for volume in locked.catalog().read().volumes()? {
        if matches!(volume.state, VolumeState::Intended | VolumeState::Deleted) {
            continue;
        }
        report.volumes += 1;
        let name = volume_object(volume.kind, volume.name);
        match listed.remove(&name) {
            Some(bytes) if bytes == volume.bytes => {
                there.insert(name);
                continue;
            }
            Some(bytes) => {
                let detail = format!("it has {bytes} bytes, it was stored with {}", volume.bytes);
                report.find(Diagnosis::RemoteTruncated, name, detail);
            }
            None => report.find(Diagnosis::RemoteMissing, name, "the store does not have it any more"),
        }
        locked.catalog().volume_state(volume.id, VolumeState::Lost)?;
    }
    for name in listed.keys() {
        report.notes.push(format!(
            "{}: {name}: no commit or catalog explains it; it may be the work of a backup that is running elsewhere or \
             was interrupted; nothing deletes it",
            Diagnosis::RemoteUnknownObject
        ));
    }
    Ok(there)
}

/// The volumes that are to be read.
fn choose(volumes: Vec<VolumeRow>, there: &HashSet<String>, read_data: ReadData) -> Vec<VolumeRow> {
    let mut all: Vec<VolumeRow> =
        volumes.into_iter().filter(|volume| there.contains(&volume_object(volume.kind, volume.name))).collect();
    let number = |volume: &VolumeRow| volume.name.0.iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    match read_data {
        ReadData::No => all.clear(),
        ReadData::All => {}
        ReadData::Part { part, parts } => all.retain(|volume| number(volume) % parts.max(1) == part.wrapping_sub(1)),
        ReadData::Sample { seed, bytes } => {
            all.sort_by_key(|volume| (number(volume) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut left = bytes;
            all.retain(|volume| {
                let is_wanted = left > 0;
                left = left.saturating_sub(volume.bytes);
                is_wanted
            });
        }
    }
    // Long volumes first, so that no thread is left alone with one at the end.
    all.sort_by_key(|volume| std::cmp::Reverse(volume.bytes));
    all
}

/// Every block that lies in a lost volume is lost, unless it was stored again since. Of a volume that was `read` just now
/// it is known block by block.
fn check_lost_volumes(
    locked: &mut LockedRepository,
    read: &HashSet<i64>,
    report: &mut Report,
    lost: &mut Lost,
) -> Result<()> {
    for volume in locked.catalog().read().volumes()? {
        if volume.state != VolumeState::Lost || read.contains(&volume.id) {
            continue;
        }
        let name = volume_object(volume.kind, volume.name);
        let blocks = locked.catalog().read().blocks_of(volume.id)?;
        if blocks.is_empty() && volume.plain_bytes > 0 {
            report.findings.retain(|finding| finding.object != name);
            report.notes.push(format!("{name} is lost, and everything in it has been stored again since"));
            continue;
        }
        lost.0.extend(blocks.iter().map(|block| block.id));
        if !report.findings.iter().any(|finding| finding.object == name) {
            let detail = "an earlier check found it damaged: read it again with `bygone check --read-data`";
            report.find(Diagnosis::RemoteCorrupt, name, detail);
        }
    }
    Ok(())
}

//! Is everything there, and is it what was stored?
//!
//! Without reading data, a check covers the catalog's own structure, the chains of commits, every volume by LIST (name
//! and size), and every node and block that a snapshot refers to. With data, it compares every byte of every volume
//! with the volume's name, its seals and the ids of its blocks. Findings name the object, the kind of trouble, and the
//! files that are affected.
//!
//! A volume that is missing or damaged is marked as lost in the catalog. The next backup then stores again whatever the
//! source still has of it, so that damage heals as far as possible; `check` reports what remains.

mod trees;
mod volumes;

use std::collections::HashSet;

use crate::catalog::Alarm;
use crate::catalog::Catalog;
use crate::catalog::Subject;
use crate::catalog::VolumeRow;
use crate::catalog::VolumeState;
use crate::diagnosis::Diagnosis;
use crate::error::Result;
use crate::id::VolumeName;
use crate::objects::volume_object;
use crate::repo::LockedRepository;
use crate::snapshot::Snapshot;
use crate::survey;
use crate::survey::Depth;
use crate::survey::Finding;
use crate::survey::Listing;
use crate::survey::volume_alarm;
use crate::watch::Watch;

pub use trees::Affected;

/// Most affected files that a check names; the rest are counted.
pub const AFFECTED_NAMED_MAX: usize = 1_000;

/// How much of the data to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadData {
    /// None.
    No,
    /// All of it.
    All,
    /// The `part`-th (from 1) of `parts` parts, chosen by volume name.
    Part {
        /// Which part.
        part: u64,
        /// Of how many.
        parts: u64,
    },
    /// Volumes chosen by a seed until this many bytes are read.
    Sample {
        /// The seed that chooses the volumes.
        seed: u64,
        /// At least this many bytes, or all that exist.
        bytes: u64,
    },
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Objects of findings that no longer matter, because everything in them has been stored again.
    pub healed: Vec<String>,
    /// Notes: worth knowing, but not wrong.
    pub notes: Vec<String>,
    /// Files and directories that snapshots have lost, at most [`AFFECTED_NAMED_MAX`].
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
    /// Volumes that do not match their names, although every block in them is intact.
    pub changed: Vec<VolumeName>,
}

impl Report {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.affected_count == 0
    }

    /// True if data of a snapshot is missing or damaged, and not only store and catalog differ.
    pub fn has_damage(&self) -> bool {
        let is_damage = |finding: &Finding| {
            let is_wrong = matches!(finding.diagnosis, Diagnosis::RemoteCorrupt | Diagnosis::RemoteSwapped);
            is_wrong && !self.healed.contains(&finding.object)
        };
        self.affected_count > 0 || self.findings.iter().any(is_damage)
    }

    fn find(&mut self, diagnosis: Diagnosis, object: impl Into<String>, detail: impl Into<String>) {
        self.findings.push(Finding { diagnosis, object: object.into(), detail: detail.into() });
    }

    fn note(&mut self, finding: &Finding, and: &str) {
        self.notes.push(format!("{}: {}: {}{and}", finding.diagnosis, finding.object, finding.detail));
    }
}

/// Ids of blocks and nodes that are lost.
#[derive(Debug, Default)]
struct Lost(HashSet<[u8; 32]>);

/// Checks a repository, whose catalog has just been synced.
pub fn check(locked: &mut LockedRepository, read_data: ReadData, watch: &Watch) -> Result<Report> {
    let mut report = Report::default();
    for complaint in locked.catalog().read().quick_check()? {
        let path = locked.repository().catalog_path().display().to_string();
        report.find(Diagnosis::LocalCorrupt, path, format!("{complaint}: run `bygone recover --force`"));
    }
    let look = survey::look(locked, Depth::All)?;
    survey::compare_volumes(locked, &look.listing, watch)?;
    for note in look.notes.iter().chain(&survey::unexplained(locked, &look.listing)?) {
        report.note(note, "");
    }
    let volumes = locked.catalog().read().volumes()?;
    let is_expected = |volume: &&VolumeRow| matches!(volume.state, VolumeState::Stored | VolumeState::Lost);
    report.volumes = volumes.iter().filter(is_expected).count() as u64;
    let wanted = choose(volumes, &look.listing, read_data);
    let mut lost = Lost::default();
    let mut read = Report::default();
    volumes::read_all(locked, &wanted, watch, &mut read, &mut lost)?;
    (report.volumes_read, report.bytes_read) = (read.volumes_read, read.bytes_read);
    report.changed = std::mem::take(&mut read.changed);
    settle_alarms(locked, &wanted, &read.findings, &look.listing)?;
    let read: HashSet<i64> = wanted.iter().map(|volume| volume.id).collect();
    collect_lost(locked, &read, &mut lost)?;
    let snapshots: Vec<Snapshot> = locked.catalog().read().snapshots()?.into_iter().map(|row| row.snapshot).collect();
    report.snapshots = snapshots.iter().filter(|snapshot| snapshot.is_readable()).count() as u64;
    let newer = snapshots.iter().filter_map(|snapshot| snapshot.check_readable().err());
    report.notes.extend(newer.map(|error| format!("not checked: {error}")));
    let mut affected = Vec::new();
    let mut count = 0;
    trees::walk(locked.catalog().read(), &snapshots, &lost, false, watch, &mut |one| {
        count += 1;
        if affected.len() < AFFECTED_NAMED_MAX {
            affected.push(one);
        }
        Ok(())
    })?;
    (report.affected, report.affected_count) = (affected, count);
    report_alarms(locked, &mut report)?;
    Ok(report)
}

/// What snapshots lose, or would lose, without `volume`; if that is `None`, without all lost volumes and everything
/// unknown. Relies on the catalog alone.
pub fn affected(
    catalog: &Catalog,
    volume: Option<&VolumeRow>,
    watch: &Watch,
    tell: &mut dyn FnMut(Affected) -> Result<()>,
) -> Result<()> {
    let mut lost = Lost::default();
    for row in catalog.volumes()? {
        let is_wanted = volume.map_or(row.state == VolumeState::Lost, |volume| volume.id == row.id);
        if is_wanted {
            lost.0.extend(catalog.blocks_of(row.id)?.iter().map(|block| block.id));
        }
    }
    let snapshots: Vec<Snapshot> = catalog.snapshots()?.into_iter().map(|row| row.snapshot).collect();
    trees::walk(catalog, &snapshots, &lost, volume.is_some(), watch, tell)
}

/// The volumes to read.
fn choose(volumes: Vec<VolumeRow>, listing: &Listing, read_data: ReadData) -> Vec<VolumeRow> {
    let is_there = |volume: &VolumeRow| {
        // Nothing needs a retired volume, and it may be deleted at any time.
        let is_expected = matches!(volume.state, VolumeState::Stored | VolumeState::Lost);
        let shown = listing.volume(volume.kind, volume.name);
        is_expected && shown.is_some_and(|shown| shown.bytes == volume.bytes)
    };
    let mut all: Vec<VolumeRow> = volumes.into_iter().filter(is_there).collect();
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

/// Raises and ends alarms according to what reading has shown.
fn settle_alarms(
    locked: &mut LockedRepository,
    read: &[VolumeRow],
    findings: &[Finding],
    listing: &Listing,
) -> Result<()> {
    let known = locked.catalog().read().alarms()?;
    for volume in read {
        let object = volume_object(volume.kind, volume.name);
        match findings.iter().find(|finding| finding.object == object.as_str()) {
            Some(Finding { diagnosis, detail, .. }) => {
                let shown = listing.volume(volume.kind, volume.name);
                let alarm = volume_alarm(*diagnosis, volume.kind, volume.name, detail.as_str(), shown);
                // The survey's own finding about these very bytes is just as exact.
                let is_same = |(known, _): &(Alarm, bool)| known.object == alarm.object && known.shown == alarm.shown;
                if !known.iter().any(is_same) {
                    locked.catalog().alarm_raise(&alarm)?;
                }
            }
            None => {
                locked.catalog().alarm_end(object.as_str())?;
            }
        }
    }
    Ok(())
}

/// Every block in a lost volume is lost, unless it was stored again since. For volumes that were `read` just now, the
/// lost blocks are known individually.
fn collect_lost(locked: &mut LockedRepository, read: &HashSet<i64>, lost: &mut Lost) -> Result<()> {
    for mark in locked.catalog().read().volume_marks()? {
        if mark.state == VolumeState::Lost && !read.contains(&mark.id) {
            lost.0.extend(locked.catalog().read().blocks_of(mark.id)?.iter().map(|block| block.id));
        }
    }
    Ok(())
}

/// Alarms are findings until a person has accepted them, and notes from then on. What snapshots have lost is reported
/// in either case.
fn report_alarms(locked: &mut LockedRepository, report: &mut Report) -> Result<()> {
    for (alarm, is_accepted) in locked.catalog().read().alarms()? {
        let finding = Finding::of(&alarm);
        let is_healed = report.affected_count == 0 && is_healed(locked, &alarm)?;
        match (is_accepted, is_healed) {
            (true, false) => report.note(&finding, " (accepted)"),
            (true, true) => report.note(&finding, "; everything in it has been stored again since (accepted)"),
            (false, false) => report.findings.push(finding),
            (false, true) => {
                report.healed.push(finding.object.clone());
                let detail = format!("{}; {HEALED}", finding.detail);
                report.findings.push(Finding { detail, ..finding });
            }
        }
    }
    Ok(())
}

const HEALED: &str = "everything in it has been stored again since; find out why the store lost it, then end this \
                      alarm with `bygone accept-loss`";

/// True if nothing depends any more on the volume of an alarm.
fn is_healed(locked: &mut LockedRepository, alarm: &Alarm) -> Result<bool> {
    let Subject::Volume(name) = alarm.subject else { return Ok(false) };
    let catalog = locked.catalog().read();
    let mark = catalog.volume_marks()?.into_iter().find(|mark| mark.name == name && mark.state == VolumeState::Lost);
    let Some(mark) = mark else { return Ok(false) };
    let is_learnt = catalog.volume(mark.id)?.is_some_and(|volume| volume.plain_bytes > 0);
    Ok(is_learnt && catalog.blocks_of(mark.id)?.is_empty())
}

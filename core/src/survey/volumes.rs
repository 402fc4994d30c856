//! Volumes: name, size and mark in the store's list, compared with the catalog.
//!
//! A volume that is missing or has another size is lost and durably marked so: its blocks are no longer used, and the
//! following backup stores again what the source still has. A different mark (ETag) at the same size is only a reason
//! to look, because moving a bucket gives old bytes new marks. So the volume is read and checked against its name,
//! which is the hash of its bytes; the same happens to a lost volume that is listed again. Each run reads only a
//! limited amount in this way; later runs read the rest.

use crate::catalog::Alarm;
use crate::catalog::VolumeMark;
use crate::catalog::VolumeState;
use crate::commit::VolumeAdded;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::hash::Sha256Stream;
use crate::id::VolumeName;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::repo::LockedRepository;
use crate::repo::Repository;
use crate::store::ByteRange;
use crate::survey::Finding;
use crate::survey::Listing;
use crate::survey::News;
use crate::survey::Shown;
use crate::survey::volume_alarm;
use crate::volume::HEADER_BYTES;
use crate::volume::parse_header;
use crate::watch::Watch;

/// Most bytes that one run reads for a closer look.
const LOOK_BYTES_MAX: u64 = 512 << 20;
/// Most volumes of another size that are examined.
const PROBES_MAX: u32 = 16;
/// Bytes asked for at a time.
const PART_BYTES: u64 = 8 << 20;

struct Comparison<'a> {
    listing: &'a Listing,
    watch: &'a Watch,
    bytes_left: u64,
    probes_left: u32,
    news: News,
    back: Vec<(i64, VolumeAdded)>,
    /// First marks of volumes that had none.
    first_etags: Vec<(i64, String)>,
}

/// Compares all volumes, after the commits were adopted. Also returns the volumes (by row) that are there again and
/// must be taken in anew, because they had never been read, or not completely.
pub fn compare_volumes(
    locked: &mut LockedRepository,
    listing: &Listing,
    watch: &Watch,
) -> Result<(News, Vec<(i64, VolumeAdded)>)> {
    let marks = locked.catalog().read().volume_marks()?;
    let alarms = locked.catalog().read().alarms()?;
    let about = |object: &str| alarms.iter().map(|(alarm, _)| alarm).find(|alarm| alarm.object == object);
    let (bytes_left, probes_left) = (LOOK_BYTES_MAX, PROBES_MAX);
    let (news, back, first_etags) = (News::default(), Vec::new(), Vec::new());
    let mut comparison = Comparison { listing, watch, bytes_left, probes_left, news, back, first_etags };
    for mark in &marks {
        let alarm = if alarms.is_empty() { None } else { about(volume_object(mark.kind, mark.name).as_str()) };
        comparison.volume(locked, mark, alarm)?;
    }
    if !comparison.first_etags.is_empty() {
        locked.catalog().volumes_etag(&comparison.first_etags)?;
    }
    Ok((comparison.news, comparison.back))
}

impl Comparison<'_> {
    fn volume(&mut self, locked: &mut LockedRepository, mark: &VolumeMark, alarm: Option<&Alarm>) -> Result<()> {
        let shown = self.listing.volume(mark.kind, mark.name);
        match (mark.state, shown) {
            (VolumeState::Stored, None) => self.lost(locked, mark, Diagnosis::RemoteMissing, MISSING, None),
            (VolumeState::Stored, Some(shown)) if shown.bytes != mark.bytes => self.resized(locked, mark, shown),
            (VolumeState::Stored, Some(shown)) => match (&mark.etag, &shown.etag) {
                (Some(before), Some(now)) if before != now => self.look_closer(locked, mark, shown, alarm.is_some()),
                (None, Some(now)) => {
                    self.first_etags.push((mark.id, now.clone()));
                    Ok(())
                }
                _ if alarm.is_some_and(|alarm| alarm.shown != Some(shown.to_line())) => self.end(locked, mark),
                // Unchanged since a check read it and found something.
                _ => Ok(()),
            },
            (VolumeState::Lost, Some(shown)) if shown.bytes == mark.bytes => {
                // It is listed differently than when it was found lost: perhaps somebody restored it.
                let is_news = alarm.is_none_or(|alarm| alarm.shown.as_deref() != Some(shown.to_line().as_str()));
                if is_news { self.look_closer(locked, mark, shown, alarm.is_some()) } else { Ok(()) }
            }
            (VolumeState::Lost, shown) => {
                let is_known = alarm.is_some_and(|alarm| alarm.shown == shown.map(Shown::to_line));
                match shown {
                    _ if is_known => Ok(()),
                    None => self.lost(locked, mark, Diagnosis::RemoteMissing, MISSING, None),
                    Some(shown) => self.resized(locked, mark, shown),
                }
            }
            (VolumeState::Intended | VolumeState::Retired | VolumeState::Deleted, _) if alarm.is_some() => {
                self.end(locked, mark)
            }
            (VolumeState::Intended | VolumeState::Retired | VolumeState::Deleted, _) => Ok(()),
        }
    }

    /// It has another size. If it is another volume, its header says which.
    fn resized(&mut self, locked: &mut LockedRepository, mark: &VolumeMark, shown: &Shown) -> Result<()> {
        let sizes = format!("its length is {} instead of {} bytes", shown.bytes, mark.bytes);
        let other = match self.probes_left.checked_sub(1) {
            Some(left) => {
                self.probes_left = left;
                other_volume(locked, mark, shown)?
            }
            None => None,
        };
        match other {
            Some(other) => {
                let detail = format!("{sizes}; in its place lies {}", volume_object(mark.kind, other));
                self.lost(locked, mark, Diagnosis::RemoteSwapped, &detail, Some(shown))
            }
            None => self.lost(locked, mark, Diagnosis::RemoteTruncated, &sizes, Some(shown)),
        }
    }

    /// Reads the whole volume and checks it against its name.
    fn look_closer(
        &mut self,
        locked: &mut LockedRepository,
        mark: &VolumeMark,
        shown: &Shown,
        has_alarm: bool,
    ) -> Result<()> {
        let Some(left) = self.bytes_left.checked_sub(mark.bytes) else {
            // An alarm from when it was lost stays as it is.
            let is_told = mark.state == VolumeState::Lost && has_alarm;
            return if is_told { Ok(()) } else { self.raise(locked, mark, Diagnosis::RemoteCorrupt, UNREAD, None) };
        };
        self.bytes_left = left;
        self.watch.check()?;
        let name = match hash_of_volume(locked.repository(), mark.kind, mark.name, mark.bytes) {
            Ok(name) => name,
            Err(error) if error.is_absent() => {
                return self.lost(locked, mark, Diagnosis::RemoteMissing, MISSING, None);
            }
            // Cut since it was listed, or listed wrongly: either way, the next list will differ.
            Err(error) if error.is_short() => {
                return self.lost(locked, mark, Diagnosis::RemoteTruncated, ENDS_EARLY, None);
            }
            Err(error) if error.is_bad_sector() => {
                return self.lost(locked, mark, Diagnosis::RemoteCorrupt, UNREADABLE, None);
            }
            Err(error) => return Err(error),
        };
        if name == mark.name {
            // While it was lost, its blocks may have been assigned elsewhere, and some of its nodes may not have
            // opened.
            let has_all = mark.is_learnt && mark.state == VolumeState::Stored;
            if !has_all {
                let (VolumeMark { name, kind, .. }, Shown { bytes, etag }) = (mark, shown.clone());
                self.back.push((mark.id, VolumeAdded { name: *name, kind: *kind, bytes, learn_bytes: 0, etag }));
                return Ok(());
            }
            locked.catalog().volume_stored(mark.id, shown.etag.as_deref().or(mark.etag.as_deref()))?;
            return self.end(locked, mark);
        }
        let is_other = locked.catalog().read().volume_names()?.contains(&name);
        if is_other {
            let detail = format!("in its place lies {}", volume_object(mark.kind, name));
            self.lost(locked, mark, Diagnosis::RemoteSwapped, &detail, Some(shown))
        } else {
            self.lost(locked, mark, Diagnosis::RemoteCorrupt, CHANGED, Some(shown))
        }
    }

    /// Marks it as lost and raises an alarm.
    fn lost(
        &mut self,
        locked: &mut LockedRepository,
        mark: &VolumeMark,
        diagnosis: Diagnosis,
        detail: &str,
        shown: Option<&Shown>,
    ) -> Result<()> {
        locked.catalog().volume_state(mark.id, VolumeState::Lost)?;
        self.raise(locked, mark, diagnosis, detail, shown)
    }

    fn raise(
        &mut self,
        locked: &mut LockedRepository,
        mark: &VolumeMark,
        diagnosis: Diagnosis,
        detail: &str,
        shown: Option<&Shown>,
    ) -> Result<()> {
        let alarm = volume_alarm(diagnosis, mark.kind, mark.name, detail, shown);
        if locked.catalog().alarm_raise(&alarm)? {
            self.news.raised.push(Finding::of(&alarm));
        }
        Ok(())
    }

    /// It is right.
    fn end(&mut self, locked: &mut LockedRepository, mark: &VolumeMark) -> Result<()> {
        let object = volume_object(mark.kind, mark.name);
        if locked.catalog().alarm_end(object.as_str())? {
            self.news.ended.push(object.to_string());
        }
        Ok(())
    }
}

/// The hash of the first `bytes` bytes of the object in a volume's place: its name, if it is intact.
pub fn hash_of_volume(repository: &Repository, kind: VolumeKind, name: VolumeName, bytes: u64) -> Result<VolumeName> {
    let object = volume_object(kind, name);
    let mut hash = Sha256Stream::new();
    let mut offset = 0;
    while offset < bytes {
        let part = (bytes - offset).min(PART_BYTES);
        hash.update(&repository.store().get(&object, ByteRange::Part { offset, bytes: part })?);
        offset += part;
    }
    Ok(VolumeName(hash.finish()))
}

/// The volume that lies in the place of another, if its header identifies it.
fn other_volume(locked: &mut LockedRepository, mark: &VolumeMark, shown: &Shown) -> Result<Option<VolumeName>> {
    if shown.bytes < HEADER_BYTES {
        return Ok(None);
    }
    let name = volume_object(mark.kind, mark.name);
    let range = ByteRange::Part { offset: 0, bytes: HEADER_BYTES };
    // It is lost in either case, so trouble with this look must not hide the finding.
    let header = match locked.repository().store().get(&name, range) {
        Ok(header) => header,
        Err(Error::Store { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(salt) = parse_header(&header) else { return Ok(None) };
    Ok(locked.catalog().read().volume_of_salt(&salt)?.filter(|other| *other != mark.name))
}

const MISSING: &str = "the store no longer has it";
const ENDS_EARLY: &str = "it is shorter than it was stored";
const UNREADABLE: &str = "the disk cannot read it (an input/output error)";
pub(crate) const CHANGED: &str = "its bytes are not the ones that were stored: their hash is not its name";
const UNREAD: &str = "its ETag in the store has changed since it was stored, and too many volumes have changed to \
                      read them all now; the next runs continue, or `bygone check --read-data` settles it at once";

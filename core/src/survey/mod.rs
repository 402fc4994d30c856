//! The survey: comparing the store's list with the catalog before anything is written.
//!
//! One LIST shows which commits are new, which seen ones are missing or replaced, and which volumes are missing, cut or
//! replaced. Trouble becomes an alarm in the catalog, which stays until things are right again or a person accepts it.
//! A survey deletes nothing and does not believe an absence at once: an object counts as missing only if a second LIST
//! lacks it too and a GET by name does not find it, because a truncated list looks just like a loss.

mod accept;
mod chains;
mod covered;
mod descent;
mod listing;
mod slots;
mod texts;
mod volumes;

use std::collections::HashSet;
use std::io;

use crate::catalog::Alarm;
use crate::catalog::CatalogWriter;
use crate::catalog::Subject;
use crate::catalog::VolumeState;
use crate::commit::ChainLoss;
use crate::commit::Losses;
use crate::crypto::random;
use crate::diagnosis::Diagnosis;
use crate::error::Error;
use crate::error::Result;
use crate::error::counted;
use crate::features::Features;
use crate::id::ClientId;
use crate::id::VolumeName;
use crate::objects::ObjectName;
use crate::objects::VolumeKind;
use crate::objects::chain_title;
use crate::objects::commit_object;
use crate::objects::volume_object;
use crate::repo::LockedRepository;
use crate::store::ByteRange;
use crate::write::announce_anew;
use crate::write::settle_listed;

pub use accept::Accepted;
pub use accept::accept_loss;
pub(crate) use chains::Needed;
pub use chains::Unseen;
pub use listing::Listing;
pub use listing::Shown;
pub(crate) use volumes::CHANGED;
pub use volumes::compare_volumes;
pub use volumes::hash_of_volume;

/// How many missing objects are requested by name before their absence is believed.
const ABSENT_ASKED_MAX: usize = 8;

/// How closely to examine commits that were seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The newest of each chain, and all that the list shows as changed.
    New,
    /// All of them.
    All,
}

/// A fact about an object that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of trouble.
    pub diagnosis: Diagnosis,
    /// The object or file concerned.
    pub object: String,
    /// What is wrong and what to do.
    pub detail: String,
}

impl Finding {
    /// The finding of an alarm.
    pub fn of(alarm: &Alarm) -> Finding {
        Finding { diagnosis: alarm.diagnosis, object: alarm.object.clone(), detail: alarm.detail.clone() }
    }
}

/// The result of a look at the store.
pub struct Look {
    /// The store's list.
    pub listing: Listing,
    /// Commits to adopt, in this order.
    pub commits: Vec<Unseen>,
    /// Alarms about commits, without accepted ones.
    pub troubles: Vec<Alarm>,
    /// Worth knowing.
    pub notes: Vec<Finding>,
    /// Alarms that this look raised or ended.
    pub news: News,
    /// Volumes of an interrupted run of this catalog that turned out to be stored, and are used from now on.
    pub settled: u64,
    /// Commits that nobody needs: accepted losses, and what checkpoints stand for.
    given_up: Vec<ChainLoss>,
    /// Seen commits that this look has read and found unchanged.
    confirmed: HashSet<(ClientId, u64)>,
}

/// Changes since the last survey.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct News {
    /// Alarms raised.
    pub raised: Vec<Finding>,
    /// Objects whose alarms ended because they are right again.
    pub ended: Vec<String>,
}

impl Look {
    /// Fails if commits are lost or contradict each other, because then nothing may be written.
    pub fn refuse_troubles(&self) -> Result<()> {
        let Some(first) = self.troubles.first() else { return Ok(()) };
        let more = match self.troubles.len() as u64 - 1 {
            0 => String::new(),
            more => format!(" (and {})", counted(more, "more such finding", "more such findings")),
        };
        let detail = format!("{}{more}: {WAY_OUT}", first.detail);
        Err(Error::disagree(first.diagnosis, &first.object, detail))
    }
}

/// What to do about lost commits.
pub const WAY_OUT: &str = "nothing was written; restore the store to its former state, from its own versions or from a \
                           copy; give up what cannot be restored with `bygone accept-loss`, which records again \
                           whatever this machine still knows";

/// Looks at the store: one LIST, and a GET for each new commit. Also settles what interrupted runs of this catalog have
/// left.
pub fn look(locked: &mut LockedRepository, depth: Depth) -> Result<Look> {
    let (mut look, mut absent) = look_once(locked, depth)?;
    if !absent.is_empty() {
        // The list may be truncated, or slightly out of date while another machine commits.
        let settled = look.settled;
        (look, absent) = look_once(locked, depth)?;
        look.settled += settled;
    }
    ask_for(locked, &absent)?;
    for trouble in &look.troubles {
        if locked.catalog().alarm_raise(trouble)? {
            look.news.raised.push(Finding::of(trouble));
        }
    }
    slots::compare_slots(locked, &look.listing, &mut look.news)?;
    let wrong: HashSet<&str> = look.troubles.iter().map(|trouble| trouble.object.as_str()).collect();
    let alarms = locked.catalog().read().alarms()?.into_iter();
    let quiet: Vec<(Alarm, bool)> = alarms.filter(|(alarm, _)| !wrong.contains(alarm.object.as_str())).collect();
    for (alarm, is_accepted) in quiet {
        let Subject::Chain(loss) = alarm.subject else { continue };
        let covers = |seq| look.given_up.iter().any(|given_up| given_up.covers(loss.client, seq));
        let is_accepted = is_accepted || (loss.first..=loss.last).all(covers);
        if is_accepted || is_back(&look, &alarm, loss) {
            locked.catalog().alarm_end(&alarm.object)?;
            look.news.ended.extend((!is_accepted).then_some(alarm.object));
        }
    }
    // Some trouble is visible only while a commit is new, so the stored alarms count and not only today's findings.
    look.troubles = locked.catalog().read().alarms_open()?;
    look.troubles.retain(|alarm| alarm.subject.is_chain());
    Ok(look)
}

/// True if the commits of an alarm are there again: they are listed, and either listed differently than when it was
/// raised, or just read and found to be the seen ones or to continue them. A replaced history is not cleared this way.
fn is_back(look: &Look, alarm: &Alarm, loss: ChainLoss) -> bool {
    let shown = |seq| look.listing.commits.get(&(loss.client, seq));
    let mut numbers = loss.first..=loss.last;
    let is_other = shown(loss.first).map(Shown::to_line) != alarm.shown;
    let is_new = |seq| look.commits.iter().any(|unseen| (unseen.seen.client, unseen.seen.seq) == (loss.client, seq));
    let is_read = numbers.clone().all(|seq| look.confirmed.contains(&(loss.client, seq)) || is_new(seq));
    alarm.diagnosis != Diagnosis::RemoteForked && (is_other || is_read) && numbers.all(|seq| shown(seq).is_some())
}

/// One look, and the objects that should be listed but are not.
fn look_once(locked: &mut LockedRepository, depth: Depth) -> Result<(Look, Vec<ObjectName>)> {
    let listing = Listing::of(locked.repository().store().as_ref())?;
    let settled =
        settle_listed(locked, |kind, name| listing.volume(kind, name).map(|shown| (shown.bytes, shown.etag.clone())))?;
    let own = locked.client();
    let (repository, catalog) = locked.parts();
    let chains = chains::compare(repository, catalog.read(), &listing, depth, own)?;
    if !chains.confirmed.is_empty() {
        catalog.commits_listed(&chains.confirmed)?;
    }
    learn_features(catalog, &chains.commits)?;
    let mut absent: Vec<ObjectName> = chains.absent.iter().map(|(client, seq)| commit_object(*client, *seq)).collect();
    let mut retired = catalog.read().volumes_retired()?;
    retired.extend(chains.commits.iter().flat_map(|unseen| &unseen.commit.volumes_retired));
    let marks = catalog.read().volume_marks()?;
    for mark in &marks {
        let is_expected = mark.state == VolumeState::Stored && !retired.contains(&mark.name);
        if is_expected && listing.volume(mark.kind, mark.name).is_none() {
            absent.push(volume_object(mark.kind, mark.name));
        }
    }
    // The list may have passed their folder before another machine stored them and then its commit. Those that a
    // checkpoint says again are known.
    let known: HashSet<VolumeName> = marks.iter().map(|mark| mark.name).collect();
    for volume in chains.commits.iter().flat_map(|unseen| &unseen.commit.volumes_added) {
        let is_expected = !retired.contains(&volume.name) && !known.contains(&volume.name);
        if is_expected && listing.volume(volume.kind, volume.name).is_none() {
            absent.push(volume_object(volume.kind, volume.name));
        }
    }
    let mut notes = Vec::new();
    if chains.stale > 0 {
        notes.push(stale(own, chains.stale));
    }
    let confirmed = chains.confirmed.iter().map(|seen| (seen.client, seen.seq)).collect();
    let chains::Chains { commits, troubles, given_up, .. } = chains;
    Ok((Look { listing, commits, troubles, notes, news: News::default(), settled, given_up, confirmed }, absent))
}

/// Takes in the features that new commits name, and fails if this program must not read what needs them. They are
/// remembered even then: the catalog alone may not be read either.
fn learn_features(catalog: &mut CatalogWriter, commits: &[Unseen]) -> Result<()> {
    let mut new = Features::default();
    commits.iter().for_each(|unseen| new.add(&unseen.commit.needs()));
    let mut all = catalog.read().features()?;
    let known = all.clone();
    all.add(&new);
    if all != known {
        catalog.features_learn(&new)?;
    }
    all.check_readable()
}

/// The catalog is older than the chain that it writes.
fn stale(own: ClientId, commits: u64) -> Finding {
    let commits = counted(commits, "commit", "commits");
    let detail = format!(
        "the store has {commits} of this machine's own chain that its catalog does not know: the catalog was restored \
         from an old copy, or is used on two machines. It has caught up, and the backup goes on. If this machine was \
         cloned or its home copied, run `bygone recover --force` on one of the two to give it a chain of its own"
    );
    Finding { diagnosis: Diagnosis::LocalStale, object: chain_title(own), detail }
}

/// Requests some of the objects that two lists lack. Finding one proves the lists wrong.
fn ask_for(locked: &LockedRepository, absent: &[ObjectName]) -> Result<()> {
    let step = (absent.len() / ABSENT_ASKED_MAX).max(1);
    for name in absent.iter().step_by(step).take(ABSENT_ASKED_MAX) {
        let store = locked.repository().store();
        match store.get(name, ByteRange::Part { offset: 0, bytes: 1 }) {
            Ok(_) => {
                let cause = format!(
                    "the list does not show {name}, which exists: an incomplete list proves nothing, so nothing was \
                     changed; try again, and if that does not help, check proxies and gateways on the way to the store"
                );
                return Err(Error::store("list", store.address(), io::Error::other(cause)));
            }
            Err(error) if error.is_absent() => {}
            // An empty object exists as well; it is judged by its size.
            Err(error) if error.is_short() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Adopts a commit that is in the store. If it accepts the loss of this machine's own commits, this machine starts a
/// new chain, because the numbers of lost commits are never reused. This machine's next commit announces again what the
/// lost commits said, as far as they were seen here.
pub fn adopt(locked: &mut LockedRepository, unseen: &Unseen) -> Result<()> {
    // A checkpoint says losses again that are known.
    let known = locked.catalog().read().chain_losses()?;
    let new = unseen.commit.losses.chains.iter().filter(|loss| !known.contains(loss));
    let new = Losses { chains: new.copied().collect(), volumes: Vec::new() };
    accept::announce_again(locked, &new)?;
    let own = locked.client();
    if new.chains.iter().any(|loss| loss.client == own) {
        chain_of_its_own(locked)?;
    }
    locked.catalog().commit_adopt(&unseen.seen, &unseen.object, &unseen.commit)
}

/// Gives this machine a new client identity, and its run a new marker.
fn chain_of_its_own(locked: &mut LockedRepository) -> Result<()> {
    locked.client_renew(ClientId(random()?))?;
    announce_anew(locked)
}

/// Objects in the store that nothing explains. They are never deleted.
pub fn unexplained(locked: &mut LockedRepository, listing: &Listing) -> Result<Vec<Finding>> {
    let mut known = locked.catalog().read().volume_names()?;
    known.extend(locked.catalog().read().volumes_retired()?);
    let unknown = |object: String, detail: &str| Finding {
        diagnosis: Diagnosis::RemoteUnknownObject,
        object,
        detail: detail.to_owned(),
    };
    let volumes = listing.volumes().filter(|(_, name, _)| !known.contains(name));
    let volumes = volumes.map(|(kind, name, _)| unknown(volume_object(kind, name).to_string(), ORPHAN));
    let strange = listing.strange().iter().map(|name| unknown(name.clone(), STRANGE));
    Ok(volumes.chain(strange).collect())
}

const ORPHAN: &str = "no commit names this volume: it belongs to a backup that is running elsewhere or was \
                      interrupted; `bygone recover` takes it in and reuses its content; nothing deletes it";
const STRANGE: &str = "bygone does not use this name; nothing reads or deletes the object";

/// The findings of all alarms that nobody has accepted.
pub fn alarms_open(locked: &mut LockedRepository) -> Result<Vec<Finding>> {
    Ok(locked.catalog().read().alarms_open()?.iter().map(Finding::of).collect())
}

/// An alarm about a volume.
pub fn volume_alarm(
    diagnosis: Diagnosis,
    kind: VolumeKind,
    name: VolumeName,
    detail: impl Into<String>,
    shown: Option<&Shown>,
) -> Alarm {
    Alarm {
        diagnosis,
        object: volume_object(kind, name).to_string(),
        detail: detail.into(),
        subject: Subject::Volume(name),
        shown: shown.map(Shown::to_line),
    }
}

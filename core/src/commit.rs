//! A commit: the sealed, chained record that brings snapshots into existence.
//!
//! Each client (one catalog on one machine) writes its own chain, numbered from 1. A commit names the hash of the one
//! before it and the newest commit it has seen of every other chain, so a store that forgets, replaces or forks commits
//! contradicts itself. The seal binds a commit to its client and number.
//!
//! A chain grows for ever, so from time to time a commit says again whatever still holds of what those before it said:
//! a checkpoint. Every commit names the newest checkpoint of its chain, so a reader that has the newest commit knows
//! where to begin. docs/FORMAT.md draws the bytes.

mod record;

use crate::attributes::Attributes;
use crate::crypto::SealKey;
use crate::crypto::siv::TAG_BYTES;
use crate::entry::Time;
use crate::features::Features;
use crate::id::ClientId;
use crate::id::CommitHash;
use crate::id::SlotId;
use crate::id::SnapshotId;
use crate::id::VolumeName;
use crate::limits;
use crate::objects::VolumeKind;
use crate::snapshot::Snapshot;
use crate::wire::DecodeError;
use crate::wire::Decoder;
use crate::wire::Encoder;
use crate::wire::padded_bytes;

pub use record::decode_snapshot_record;
pub use record::encode_snapshot_record;

use record::decode_time;
use record::encode_time;
use record::label;

const MAGIC: &[u8; 8] = b"BYGNCOMM";
const SUITE_AES_256_SIV: u8 = 1;
const KEY_MODE_MASTER: u8 = 1;
const HEADER_BYTES: usize = 16;

/// A volume as a commit announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeAdded {
    /// SHA-256 of the object.
    pub name: VolumeName,
    /// What it holds.
    pub kind: VolumeKind,
    /// Length of the object.
    pub bytes: u64,
    /// How many bytes at its end hold what a catalog learns from it, 0 if unknown. Only a hint.
    pub learn_bytes: u64,
    /// What the store called this version of the object, if it said anything.
    pub etag: Option<String>,
}

/// The newest commit seen of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Whose chain.
    pub client: ClientId,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: CommitHash,
}

/// A run of commits of one chain that are lost or were replaced, and whose loss a person has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainLoss {
    /// Whose chain.
    pub client: ClientId,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

impl ChainLoss {
    /// True if commit `seq` of `client`'s chain is in the run.
    pub fn covers(&self, client: ClientId, seq: u64) -> bool {
        self.client == client && (self.first..=self.last).contains(&seq)
    }
}

/// What a person has accepted as lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// Commits.
    pub chains: Vec<ChainLoss>,
    /// Volumes.
    pub volumes: Vec<VolumeName>,
}

impl Losses {
    /// True if nothing was accepted.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.volumes.is_empty()
    }
}

/// Where reading of a chain may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkpoint {
    /// With the first commit: the chain has no checkpoint yet.
    #[default]
    None,
    /// With an earlier commit, the newest checkpoint so far.
    At(u64),
    /// With this one: it says again whatever holds of what those from `first` on have said, which nobody needs any
    /// more.
    Here {
        /// Number of the first commit that it stands for.
        first: u64,
    },
}

impl Checkpoint {
    /// The number of the newest checkpoint, as commit `seq` names it; 0 if there is none.
    pub fn number(self, seq: u64) -> u64 {
        match self {
            Checkpoint::None => 0,
            Checkpoint::At(number) => number,
            Checkpoint::Here { .. } => seq,
        }
    }

    /// What the commit after `seq`, which has this, says of checkpoints unless it is one itself.
    pub fn after(self, seq: u64) -> Checkpoint {
        match self.number(seq) {
            0 => Checkpoint::None,
            number => Checkpoint::At(number),
        }
    }

    /// The commits that commit `seq` of `client`'s chain stands for, if this is its own.
    pub fn covered(self, client: ClientId, seq: u64) -> Option<ChainLoss> {
        match self {
            Checkpoint::Here { first } => Some(ChainLoss { client, first, last: seq.saturating_sub(1) }),
            Checkpoint::None | Checkpoint::At(_) => None,
        }
    }
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Hash of the commit before, none for number 1.
    pub previous: Option<CommitHash>,
    /// When it was made; informative, no decision rests on it.
    pub time: Time,
    /// Snapshots that exist from now on.
    pub snapshots_added: Vec<Snapshot>,
    /// Snapshots that exist no more.
    pub snapshots_removed: Vec<SnapshotId>,
    /// Volumes stored since the commit before.
    pub volumes_added: Vec<VolumeAdded>,
    /// Volumes that nothing may refer to any more.
    pub volumes_retired: Vec<VolumeName>,
    /// Newest commits seen of all other chains, sorted by client.
    pub heads: Vec<Head>,
    /// Losses that are accepted from now on; most commits have none.
    pub losses: Losses,
    /// Key slots that were removed: they open nothing any more.
    pub slots_removed: Vec<SlotId>,
    /// Where reading of the chain may begin.
    pub checkpoint: Checkpoint,
    /// Features that are used from now on.
    pub features: Features,
    /// Whatever else it says, which this program does not know.
    pub attributes: Attributes,
}

impl Commit {
    /// True if it says nothing but what its writer had seen. Such a commit takes a number, so that nothing else can be
    /// committed under it.
    pub fn is_empty(&self) -> bool {
        let Commit { previous: _, time: _, heads: _, snapshots_added, snapshots_removed, volumes_added, .. } = self;
        let Commit { volumes_retired, losses, slots_removed, checkpoint, features, attributes, .. } = self;
        let is_silent = snapshots_added.is_empty() && snapshots_removed.is_empty() && volumes_added.is_empty();
        let is_silent = is_silent && volumes_retired.is_empty() && losses.is_empty() && slots_removed.is_empty();
        let is_checkpoint = matches!(checkpoint, Checkpoint::Here { .. });
        is_silent && features.is_empty() && attributes.is_empty() && !is_checkpoint
    }

    /// What a program must know to use the repository from now on, as far as this commit says. An attribute that must
    /// be known counts like a feature.
    pub fn needs(&self) -> Features {
        let mut needs = self.features.clone();
        let unknown = self.attributes.unknown_critical(&[]).map(|tag| format!("attribute {tag}"));
        needs.add(&Features { read: unknown.into_iter().collect(), ..Features::default() });
        needs
    }

    /// The object's bytes, for commit `seq` of `client`'s chain. Fails if a field is over a limit, because a commit
    /// that no reader accepts must not be written.
    pub fn seal(&self, key: &SealKey, client: ClientId, seq: u64) -> Result<Vec<u8>, DecodeError> {
        let (header, mut plain) = (header(), self.encode(client, seq));
        Commit::decode(&plain, client, seq)?;
        let bytes = (HEADER_BYTES + TAG_BYTES + plain.len()) as u64;
        plain.resize(plain.len() + usize::try_from(padded_bytes(bytes, u64::MAX) - bytes).unwrap_or(0), 0);
        let sealed = key.seal(&associated_data(&header, client, seq), &plain);
        let object = [header.as_slice(), &sealed].concat();
        match object.len() as u64 <= limits::COMMIT_BYTES_MAX {
            true => Ok(object),
            false => Err(DecodeError::Invalid("the length of the commit")),
        }
    }

    /// Opens the object that should be commit `seq` of `client`'s chain.
    pub fn open(object: &[u8], key: &SealKey, client: ClientId, seq: u64) -> Result<Commit, DecodeError> {
        let (found, sealed) = object.split_at_checked(HEADER_BYTES).ok_or(DecodeError::Short)?;
        match found.get(8) {
            Some(version) if found.starts_with(MAGIC) && *version > limits::FORMAT_VERSION => {
                return Err(DecodeError::TooNew(*version));
            }
            _ if found == header() => {}
            _ => return Err(DecodeError::Invalid("the header")),
        }
        let plain =
            key.open(&associated_data(found, client, seq), sealed).map_err(|_| DecodeError::Invalid("the seal"))?;
        Commit::decode(&plain, client, seq)
    }

    fn encode(&self, client: ClientId, seq: u64) -> Vec<u8> {
        let mut out = Encoder::new();
        out.string(self.previous.as_ref().map_or(&[], |hash| hash.0.as_slice()));
        encode_time(&mut out, self.time);
        out.varint(self.snapshots_added.len() as u64);
        self.snapshots_added.iter().for_each(|snapshot| out.string(&encode_snapshot_record(snapshot)));
        out.varint(self.snapshots_removed.len() as u64);
        self.snapshots_removed.iter().for_each(|id| out.raw(&id.0));
        out.varint(self.volumes_added.len() as u64);
        for volume in &self.volumes_added {
            out.raw(&volume.name.0);
            out.u8(volume.kind.code());
            out.varint(volume.bytes);
            out.varint(volume.learn_bytes);
            out.string(volume.etag.as_deref().unwrap_or("").as_bytes());
        }
        out.varint(self.volumes_retired.len() as u64);
        self.volumes_retired.iter().for_each(|name| out.raw(&name.0));
        out.varint(self.heads.len() as u64);
        for head in &self.heads {
            out.raw(&head.client.0);
            out.varint(head.seq);
            out.raw(&head.hash.0);
        }
        // What a checkpoint stands for is lost in the same way as what a person has given up: readers do without it.
        let covered = self.checkpoint.covered(client, seq);
        out.varint(self.losses.chains.len() as u64 + u64::from(covered.is_some()));
        for loss in covered.iter().chain(&self.losses.chains) {
            out.raw(&loss.client.0);
            out.varint(loss.first);
            out.varint(loss.last);
        }
        out.varint(self.losses.volumes.len() as u64);
        self.losses.volumes.iter().for_each(|name| out.raw(&name.0));
        out.varint(self.slots_removed.len() as u64);
        self.slots_removed.iter().for_each(|id| out.raw(&id.0));
        out.varint(self.checkpoint.number(seq));
        let mut attributes = self.attributes.clone();
        self.features.put_into(&mut attributes);
        attributes.encode(&mut out);
        out.finish()
    }

    fn decode(bytes: &[u8], client: ClientId, seq: u64) -> Result<Commit, DecodeError> {
        let mut input = Decoder::new(bytes);
        let previous = match input.string(CommitHash::BYTES, "the hash before")? {
            [] => None,
            hash => Some(CommitHash::from_bytes(hash).ok_or(DecodeError::Invalid("the hash before"))?),
        };
        let mut commit = Commit {
            previous,
            time: decode_time(&mut input)?,
            snapshots_added: items(&mut input, "the number of snapshots", |i| {
                decode_snapshot_record(i.string(limits::COMMIT_ITEM_BYTES_MAX, "the record of a snapshot")?)
            })?,
            snapshots_removed: items(&mut input, "the number of snapshots", |i| Ok(SnapshotId(i.array()?)))?,
            volumes_added: items(&mut input, "the number of volumes", decode_volume)?,
            volumes_retired: items(&mut input, "the number of volumes", |i| Ok(VolumeName(i.array()?)))?,
            heads: items(&mut input, "the number of heads", |i| {
                Ok(Head { client: ClientId(i.array()?), seq: i.varint()?, hash: CommitHash(i.array()?) })
            })?,
            losses: Losses {
                chains: items(&mut input, "the number of losses", decode_loss)?,
                volumes: items(&mut input, "the number of volumes", |i| Ok(VolumeName(i.array()?)))?,
            },
            slots_removed: items(&mut input, "the number of key slots", |i| Ok(SlotId(i.array()?)))?,
            ..Commit::default()
        };
        commit.checkpoint = decode_checkpoint(&mut input, &mut commit.losses, client, seq)?;
        commit.attributes = Attributes::decode(&mut input)?;
        commit.features = Features::take_from(&mut commit.attributes)?;
        match input.raw(input.remaining())?.iter().all(|byte| *byte == 0) {
            true => Ok(commit),
            false => Err(DecodeError::Trailing),
        }
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let fields = MAGIC.iter().copied().chain([limits::FORMAT_VERSION, SUITE_AES_256_SIV, KEY_MODE_MASTER]);
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes
}

fn associated_data(header: &[u8], client: ClientId, seq: u64) -> Vec<u8> {
    [b"bygone/1 commit".as_slice(), header, &client.0, &seq.to_le_bytes()].concat()
}

fn items<T>(
    input: &mut Decoder<'_>,
    what: &'static str,
    item: impl Fn(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    (0..input.count(limits::COMMIT_ITEMS_MAX, what)?).map(|_| item(input)).collect()
}

fn decode_volume(input: &mut Decoder<'_>) -> Result<VolumeAdded, DecodeError> {
    let name = VolumeName(input.array()?);
    let kind = VolumeKind::from_code(input.u8()?).ok_or(DecodeError::Invalid("the kind of a volume"))?;
    let (bytes, learn_bytes) = (input.varint()?, input.varint()?);
    let etag = Some(label(input)?).filter(|etag| !etag.is_empty());
    Ok(VolumeAdded { name, kind, bytes, learn_bytes, etag })
}

fn decode_loss(input: &mut Decoder<'_>) -> Result<ChainLoss, DecodeError> {
    let loss = ChainLoss { client: ClientId(input.array()?), first: input.varint()?, last: input.varint()? };
    if (1..=loss.last).contains(&loss.first) { Ok(loss) } else { Err(DecodeError::Invalid("a loss")) }
}

/// Reads the number of the newest checkpoint, and takes the commits that this one stands for, if it is a checkpoint,
/// from the losses. No other commit gives up commits of its own chain.
fn decode_checkpoint(
    input: &mut Decoder<'_>,
    losses: &mut Losses,
    client: ClientId,
    seq: u64,
) -> Result<Checkpoint, DecodeError> {
    let wrong = Err(DecodeError::Invalid("the checkpoint"));
    let number = input.varint()?;
    let (own, others) = std::mem::take(&mut losses.chains).into_iter().partition(|loss| loss.client == client);
    losses.chains = others;
    let own: Vec<ChainLoss> = own;
    match (number, own.as_slice()) {
        (0, []) => Ok(Checkpoint::None),
        (_, []) if number < seq => Ok(Checkpoint::At(number)),
        (_, [loss]) if number == seq && loss.last.checked_add(1) == Some(seq) => {
            Ok(Checkpoint::Here { first: loss.first })
        }
        _ => wrong,
    }
}

#[cfg(test)]
mod tests;

//! The newest snapshot, before everything else.
//!
//! Its tree consists of nodes of all ages, a few in each volume. To have it soon, the indexes of the meta volumes are
//! read, which say where each node lies, and then only the frames that contain its nodes, level by level from the root
//! down. The price is that these frames are read again with their volumes. Small volumes were read before, as a whole,
//! because reading their indexes would take as many requests. If the frames make up most of the volumes, or
//! something is missing or damaged, the ordinary order is used; nodes brought until then stay useful.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::catalog::CatalogWriter;
use crate::commit::VolumeAdded;
use crate::error::Error;
use crate::error::Result;
use crate::id::NodeId;
use crate::parallel::side_by_side;
use crate::read::VolumeFile;
use crate::recover::Plan;
use crate::recover::Told;
use crate::recover::Work;
use crate::recover::fetch::CONNECTIONS_MAX;
use crate::recover::fetch::bytes_to_read;
use crate::recover::whole::below;
use crate::repo::Repository;
use crate::tree::Node;
use crate::watch::Watch;

/// Fewer bytes than this in meta volumes are read about as fast in the ordinary order.
pub(super) const WORTH_BYTES: u64 = 16 << 20;
/// At most one part in this many of the meta volumes is worth reading twice.
const SHARE_MAX: u64 = 2;
/// Most nodes that are tracked; more would take too much memory.
const NODES_MAX: usize = 500_000;
/// Bytes of nodes that one thread reads from one volume at a time, unless a single node is larger.
const PART_BYTES: u64 = 1 << 20;
/// About how many bytes of nodes are taken into the catalog at a time.
const BATCH_BYTES: usize = 4 << 20;

/// Makes the newest snapshot of the plan visible, if none is visible yet. False if it was not worth it or not possible,
/// which loses nothing.
pub(super) fn show(
    repository: &Repository,
    catalog: &mut CatalogWriter,
    plan: &Plan,
    watch: &Watch,
    tell: &mut dyn FnMut(Told<'_>),
) -> Result<bool> {
    let mut readable = plan.snapshots.iter().filter(|(snapshot, _)| snapshot.is_readable());
    let Some((snapshot, number)) = readable.next() else { return Ok(false) };
    let trees = plan.volumes.get(plan.small_end..plan.trees_end).unwrap_or_default();
    let trees: Vec<&VolumeAdded> = trees.iter().map(|(volume, _)| volume).collect();
    let bytes: u64 = trees.iter().map(|volume| bytes_to_read(volume)).sum();
    if trees.is_empty() || bytes < plan.newest_worth_bytes || !catalog.read().snapshots()?.is_empty() {
        return Ok(false);
    }
    let threads = repository.store().connections().clamp(1, CONNECTIONS_MAX);
    let Some(places) = Places::read(repository, &trees, threads, watch)? else { return Ok(false) };
    // This completes none of the work, but shows how fast the store is.
    tell(Told::Done(Work::default()));
    let bringing = Bringing { repository, places: &places, threads, watch, bytes_left: bytes / SHARE_MAX };
    if !bringing.bring(catalog, snapshot.root)? {
        return Ok(false);
    }
    catalog.snapshot_show(snapshot, *number)?;
    tell(Told::Shown(snapshot));
    Ok(true)
}

/// True if a volume lacks what it should have. If it ended too soon, that is examined when its turn comes.
fn is_unavailable(error: &Error) -> bool {
    error.is_object_fault() || error.is_short()
}

/// Where nodes lie.
struct Places {
    volumes: Vec<VolumeFile>,
    /// Volume, and number of the node among its items.
    nodes: HashMap<NodeId, (usize, usize)>,
}

impl Places {
    /// Reads the indexes. `None` if there are too many nodes.
    fn read(repository: &Repository, trees: &[&VolumeAdded], threads: usize, watch: &Watch) -> Result<Option<Places>> {
        let mut places = Places { volumes: Vec::with_capacity(trees.len()), nodes: HashMap::new() };
        let open = |volume: &&VolumeAdded| {
            watch.check()?;
            VolumeFile::open(repository.store(), repository.keys(), volume.kind, volume.name, volume.bytes)
        };
        side_by_side(threads, trees, open, |file| {
            let file = match file {
                // Its nodes will be missed where they are needed.
                Err(error) if is_unavailable(&error) => return Ok(true),
                file => file?,
            };
            count(watch, file.tail_bytes());
            let volume = places.volumes.len();
            let nodes = file.index().nodes.iter().zip(file.index().blocks.len()..);
            places.nodes.extend(nodes.map(|(node, number)| (node.id, (volume, number))));
            places.volumes.push(file);
            Ok(places.nodes.len() <= NODES_MAX)
        })
        .map(|is_whole| is_whole.then_some(places))
    }

    /// The nodes wanted of each volume, in parts of about [`PART_BYTES`].
    fn parts(&self, wanted: BTreeMap<usize, Vec<usize>>) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        for (volume, mut numbers) in wanted {
            let Some(file) = self.volumes.get(volume) else { continue };
            numbers.sort_unstable();
            let mut bytes = 0;
            let ends = numbers.split_inclusive(|number| {
                bytes += node_bytes(file, *number);
                bytes >= PART_BYTES && std::mem::take(&mut bytes) > 0
            });
            parts.extend(ends.map(|part| Part { file, bytes: file.some_bytes(part), numbers: part.to_vec() }));
        }
        parts
    }
}

/// The length of a node, which has this number among the items of its volume.
fn node_bytes(file: &VolumeFile, number: usize) -> u64 {
    let index = file.index();
    let node = number.checked_sub(index.blocks.len()).and_then(|number| index.nodes.get(number));
    node.map_or(0, |node| u64::from(node.length))
}

/// Nodes of one volume, to be read by one thread.
struct Part<'a> {
    file: &'a VolumeFile,
    numbers: Vec<usize>,
    /// Stored bytes to read for them.
    bytes: u64,
}

/// Brings the nodes of a tree into the catalog.
struct Bringing<'a> {
    repository: &'a Repository,
    places: &'a Places,
    threads: usize,
    watch: &'a Watch,
    /// Stored bytes that may still be read for this purpose.
    bytes_left: u64,
}

impl Bringing<'_> {
    /// Brings all nodes of a tree. False if some are unavailable or there are too many.
    fn bring(mut self, catalog: &mut CatalogWriter, root: NodeId) -> Result<bool> {
        let mut seen = HashSet::new();
        let mut level = vec![root];
        while !level.is_empty() {
            let mut next = Vec::new();
            let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for id in level {
                self.watch.check()?;
                if !seen.insert(id) {
                    continue;
                }
                if let Some(row) = catalog.read().node(id)? {
                    next.extend(names(&row.body));
                } else if let Some((volume, number)) = self.places.nodes.get(&id) {
                    wanted.entry(*volume).or_default().push(*number);
                } else {
                    return Ok(false);
                }
            }
            if !self.bring_level(catalog, wanted, &mut next)? {
                return Ok(false);
            }
            level = next;
        }
        Ok(true)
    }

    /// Brings these nodes of these volumes, and adds their children to `next`.
    fn bring_level(
        &mut self,
        catalog: &mut CatalogWriter,
        wanted: BTreeMap<usize, Vec<usize>>,
        next: &mut Vec<NodeId>,
    ) -> Result<bool> {
        let mut left: usize = wanted.values().map(Vec::len).sum();
        let parts = self.places.parts(wanted);
        let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        let Some(bytes_left) = self.bytes_left.checked_sub(bytes) else { return Ok(false) };
        self.bytes_left = bytes_left;
        let ids = self.repository.keys().ids();
        let read = |part: &Part<'_>| {
            self.watch.check()?;
            let mut nodes = Vec::with_capacity(part.numbers.len());
            part.file.some(&part.numbers, |node, bytes| {
                if node.is(ids, bytes) {
                    nodes.push((NodeId(node.id), bytes.to_vec()));
                }
            })?;
            Ok((part.bytes, nodes))
        };
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let is_done = side_by_side(self.threads, &parts, read, |read| {
            let (bytes, nodes) = match read {
                Err(error) if is_unavailable(&error) => return Ok(false),
                read => read?,
            };
            count(self.watch, bytes);
            for (id, body) in nodes {
                next.extend(names(&body));
                left -= 1;
                batch_bytes += body.len();
                batch.push((id, body));
            }
            if batch_bytes >= BATCH_BYTES {
                catalog.nodes_learn(&batch)?;
                batch.clear();
                batch_bytes = 0;
            }
            Ok(true)
        })?;
        catalog.nodes_learn(&batch)?;
        Ok(is_done && left == 0)
    }
}

/// The children of a node; none if it does not decode.
fn names(body: &[u8]) -> Vec<NodeId> {
    Node::decode(body).map(|node| below(&node)).unwrap_or_default()
}

/// Counts bytes that are read in addition to the plan.
fn count(watch: &Watch, bytes: u64) {
    watch.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    watch.bytes.fetch_add(bytes, Ordering::Relaxed);
}

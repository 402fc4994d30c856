//! Reading many volumes in parallel, and passing them on in the requested order.
//!
//! Each connection of the store reads one volume at a time, usually by one request: as much of its end as the commit
//! says that is needed, which is the index of a data volume, and nearly all of a volume that holds only nodes. A volume
//! that has been read waits for its turn. So readers stay within a window of volumes and bytes, and memory does not
//! depend on the total.

use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::ops::Range;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::thread;

use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

use crate::commit::VolumeAdded;
use crate::error::Error;
use crate::error::Result;
use crate::id::NodeId;
use crate::lock::lock;
use crate::lock::wait;
use crate::objects::VolumeKind;
use crate::objects::volume_object;
use crate::read::VolumeFile;
use crate::repo::Repository;
use crate::volume::Index;
use crate::volume::Salt;
use crate::watch::Watch;

/// Most stored bytes that are read but not yet passed on, unless a single volume is larger.
const AHEAD_BYTES_MAX: u64 = 16 << 20;
/// Most volumes that are read but not yet passed on.
const AHEAD_VOLUMES_MAX: usize = 128;
/// Nodes are passed on in batches of this many bytes before the rest of their volume is read.
const NODES_BYTES_MAX: usize = 4 << 20;
/// Most connections, whatever the store recommends.
pub(super) const CONNECTIONS_MAX: usize = 32;
/// Most bytes that are fetched of one volume by one request.
const AT_ONCE_BYTES_MAX: u64 = 32 << 20;
/// About how much is read of a data volume.
pub(super) const TAIL_BYTES: u64 = 64 << 10;

/// The contents of a volume, as it describes them.
pub(super) struct Contents {
    pub salt: Salt,
    pub index: Index,
    /// How many bytes at its end hold all of this.
    pub learn_bytes: u64,
    /// The nodes of a meta volume in the order of the volume, which numbers the file versions; without nodes that were
    /// passed on before.
    pub nodes: Nodes,
}

/// Tree nodes.
pub(super) type Nodes = Vec<(NodeId, Vec<u8>)>;

/// A result of reading a volume.
pub(super) struct Fetched {
    pub number: usize,
    pub arrived: Arrived,
}

pub(super) enum Arrived {
    /// Some of its nodes; the others follow.
    Nodes(Nodes),
    /// The rest of it, or why it cannot be read.
    Rest(std::result::Result<Contents, Error>),
}

/// About how many bytes reading a volume takes.
pub(super) fn bytes_to_read(volume: &VolumeAdded) -> u64 {
    match (volume.learn_bytes, volume.kind) {
        (0, VolumeKind::Meta) => volume.bytes,
        (0, VolumeKind::Data) => volume.bytes.min(TAIL_BYTES),
        (bytes, _) => volume.bytes.min(bytes),
    }
}

/// The progress of the readers.
#[derive(Default)]
struct Window {
    next: usize,
    ahead_bytes: u64,
    ahead_volumes: usize,
    is_over: bool,
}

struct Readers<'a> {
    repository: &'a Repository,
    volumes: &'a [&'a VolumeAdded],
    window: Mutex<Window>,
    moved: Condvar,
}

/// Reads a part of `volumes` and passes them to `take` in their order, as many at a time as are ready. A missing or
/// damaged volume is passed on with its error; trouble of the store itself ends everything.
pub(super) fn fetch(
    repository: &Repository,
    volumes: &[&VolumeAdded],
    part: Range<usize>,
    watch: &Watch,
    mut take: impl FnMut(Vec<Fetched>) -> Result<()>,
) -> Result<()> {
    let volumes = volumes.get(..part.end).unwrap_or(volumes);
    let window = Mutex::new(Window { next: part.start, ..Window::default() });
    let readers = Readers { repository, volumes, window, moved: Condvar::new() };
    // Readers block until the consumer catches up, so a long volume is never in memory as a whole.
    let (sender, receiver) = bounded(1);
    let threads = repository.store().connections().clamp(1, CONNECTIONS_MAX).min(part.len());
    thread::scope(|scope| {
        // Dropped before the scope joins the readers; otherwise they would wait for the consumer for ever.
        let receiver = receiver;
        for _ in 0..threads {
            let (sender, readers) = (sender.clone(), &readers);
            scope.spawn(move || readers.read_volumes(&sender, watch));
        }
        drop(sender);
        // However this ends, the readers must end too: otherwise the scope would wait for ever.
        let _end = End(&readers);
        let mut early: BTreeMap<usize, Vec<Fetched>> = BTreeMap::new();
        let mut next = part.start;
        for fetched in &receiver {
            for fetched in std::iter::once(fetched).chain(receiver.try_iter()) {
                early.entry(fetched.number).or_default().push(fetched);
            }
            let (mut ready, mut done) = (Vec::new(), Vec::new());
            let mut trouble = None;
            while let Some(of_next) = early.remove(&next) {
                let is_whole = of_next.iter().any(|fetched| matches!(fetched.arrived, Arrived::Rest(_)));
                for fetched in of_next {
                    match fetched.arrived {
                        // Trouble waits for its turn: everything before it is taken in.
                        Arrived::Rest(Err(error)) if !error.is_object_fault() => trouble = Some(error),
                        _ => ready.push(fetched),
                    }
                }
                if !is_whole || trouble.is_some() {
                    break;
                }
                done.push(next);
                next += 1;
            }
            if !ready.is_empty() {
                take(ready)?;
                readers.give_back(&done);
            }
            if let Some(error) = trouble {
                return Err(error);
            }
        }
        watch.check()
    })
}

struct End<'a>(&'a Readers<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.window().is_over = true;
        self.0.moved.notify_all();
    }
}

impl Readers<'_> {
    fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.window)
    }

    /// A reader: reads the next volume until none is left.
    fn read_volumes(&self, sender: &Sender<Fetched>, watch: &Watch) {
        while let Some((number, volume)) = self.next() {
            // If nobody takes the nodes any more, sending the rest will show it.
            let mut give = |nodes| _ = sender.send(Fetched { number, arrived: Arrived::Nodes(nodes) });
            let contents = watch.check().and_then(|()| read_by_parts(self.repository, volume, &mut give));
            if sender.send(Fetched { number, arrived: Arrived::Rest(contents) }).is_err() {
                return;
            }
        }
    }

    /// The next volume to read, once it fits into the window.
    fn next(&self) -> Option<(usize, &VolumeAdded)> {
        let mut window = self.window();
        loop {
            let volume = *self.volumes.get(window.next).filter(|_| !window.is_over)?;
            let bytes = bytes_to_read(volume);
            let fits = window.ahead_volumes < AHEAD_VOLUMES_MAX && window.ahead_bytes + bytes <= AHEAD_BYTES_MAX;
            if fits || window.ahead_volumes == 0 {
                let number = window.next;
                window.next += 1;
                window.ahead_volumes += 1;
                window.ahead_bytes += bytes;
                return Some((number, volume));
            }
            window = wait(&self.moved, window);
        }
    }

    /// Makes room in the window for what these volumes took.
    fn give_back(&self, numbers: &[usize]) {
        let bytes = numbers.iter().filter_map(|number| self.volumes.get(*number)).map(|volume| bytes_to_read(volume));
        let bytes: u64 = bytes.sum();
        let mut window = self.window();
        window.ahead_volumes = window.ahead_volumes.saturating_sub(numbers.len());
        window.ahead_bytes = window.ahead_bytes.saturating_sub(bytes);
        drop(window);
        self.moved.notify_all();
    }
}

/// Reads one volume.
pub(super) fn read(repository: &Repository, volume: &VolumeAdded) -> Result<Contents> {
    let mut before = Vec::new();
    let mut contents = read_by_parts(repository, volume, &mut |nodes| before.extend(nodes))?;
    before.append(&mut contents.nodes);
    Ok(Contents { nodes: before, ..contents })
}

/// Reads one volume, but never a frame of a data volume. A volume that is shorter than it should be is damaged; when a
/// read ends too soon, its size is checked before that is believed. Of many nodes, all but the last ones are passed to
/// `give`.
fn read_by_parts(repository: &Repository, volume: &VolumeAdded, give: &mut dyn FnMut(Nodes)) -> Result<Contents> {
    match contents(repository, volume, give) {
        Err(error) if error.is_short() => {
            let object = volume_object(volume.kind, volume.name);
            let listed = repository.store().list(object.folder())?;
            match listed.iter().find(|listed| listed.name == object) {
                Some(listed) if listed.bytes == volume.bytes => Err(error),
                Some(listed) => {
                    let detail = format!("its length is {} instead of {} bytes", listed.bytes, volume.bytes);
                    Err(Error::corrupt(object, detail))
                }
                None => Err(Error::store("read", object, NotFound.into())),
            }
        }
        other => other,
    }
}

fn contents(repository: &Repository, volume: &VolumeAdded, give: &mut dyn FnMut(Nodes)) -> Result<Contents> {
    let (store, keys) = (repository.store(), repository.keys());
    // What the commit says may be wrong: then it only takes more requests.
    let file = match bytes_to_read(volume) {
        bytes if bytes <= AT_ONCE_BYTES_MAX => {
            VolumeFile::fetch(store, keys, volume.kind, volume.name, volume.bytes, bytes)?
        }
        _ => VolumeFile::open(store, keys, volume.kind, volume.name, volume.bytes)?,
    };
    let mut nodes = Nodes::new();
    let mut nodes_bytes = 0;
    let ids = keys.ids();
    file.nodes(|node, bytes| {
        // A node that does not open or does not match its id is left out; `check` will miss it.
        if let Some(bytes) = bytes.filter(|bytes| node.is(ids, bytes)) {
            nodes.push((NodeId(node.id), bytes.to_vec()));
            nodes_bytes += bytes.len();
            if nodes_bytes >= NODES_BYTES_MAX {
                give(std::mem::take(&mut nodes));
                nodes_bytes = 0;
            }
        }
    })?;
    let learn_bytes = file.learn_bytes();
    let (index, salt) = file.into_index();
    Ok(Contents { salt, index, learn_bytes, nodes })
}

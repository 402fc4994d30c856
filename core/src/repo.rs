//! A repository as one machine holds it: keys, store and catalog, opened together.
//!
//! Opening needs two small objects from the store (`bygone.json` and a key slot) and the passphrase. Reading takes no
//! lock. Writing takes a lock on this machine's catalog directory, so a second agent here waits or reports the first
//! one; agents on other machines have their own catalogs and commit chains and need no lock at all.

mod slots;

use std::fs;
use std::fs::File;
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::compress::Compression;
use crate::config::Config;
use crate::config::UnprovenConfig;
use crate::crypto::KdfCost;
use crate::crypto::Keys;
use crate::crypto::MasterKey;
use crate::crypto::OpenError;
use crate::crypto::Slot;
use crate::crypto::SlotInfo;
use crate::crypto::random;
use crate::entry::Time;
use crate::error::Error;
use crate::error::Result;
use crate::features::Features;
use crate::id::ClientId;
use crate::id::RepositoryId;
use crate::id::RunId;
use crate::id::SlotId;
use crate::limits;
use crate::objects::config_object;
use crate::objects::readme_object;
use crate::objects::slot_object;
use crate::private;
use crate::repo::slots::slots;
use crate::store::ByteRange;
use crate::store::ObjectName;
use crate::store::Source;
use crate::store::Store;

pub(crate) use slots::slot_objects;

const README_TEXT: &str = include_str!("readme_recover.txt");
const CATALOG_FILE: &str = "catalog.sqlite";
const LOCK_FILE: &str = "lock";

/// A passphrase, raw bytes, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the passphrase.
    pub fn new(passphrase: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(passphrase))
    }

    fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Where a repository lies.
#[derive(Clone)]
pub struct Place {
    /// Its objects.
    pub store: Arc<dyn Store>,
    /// The directory in which this machine keeps one catalog directory per repository.
    pub catalog_base: PathBuf,
}

/// How to make a repository.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Size of a full block.
    pub block_bytes: u32,
    /// Stored size at which a volume is closed.
    pub volume_bytes: u64,
    /// How frames are compressed.
    pub compression: Compression,
    /// The cost of deriving a key from the passphrase.
    pub kdf: KdfCost,
    /// Label of the first key slot.
    pub label: String,
    /// Now.
    pub time: Time,
}

/// A key slot as a person sees it.
#[derive(Debug, Clone)]
pub struct SlotRow {
    /// Its name.
    pub id: SlotId,
    /// Its label and its age; `None` if they do not authenticate.
    pub info: Option<SlotInfo>,
    /// True if it opened the repository this time.
    pub is_current: bool,
}

/// A repository that was found but is not open yet.
pub struct Found {
    place: Place,
    unproven: UnprovenConfig,
    slots: Vec<Slot>,
}

impl Found {
    /// Opens it.
    pub fn open(self, secret: &Secret) -> Result<Repository> {
        let Found { place, unproven, slots } = self;
        let repository = unproven.repository();
        let (mut keys, mut master, mut slot) = unlock(&place, secret, &slots, repository)?;
        let removed = Learnt::of(&place, &keys, repository).slots_removed;
        if removed.contains(&slot) {
            // The storage has put it back.
            let others: Vec<Slot> = slots.into_iter().filter(|slot| !removed.contains(&slot.id())).collect();
            (keys, master, slot) = unlock(&place, secret, &others, repository)?;
        }
        let config = unproven.prove(&keys)?;
        Repository::of(&place, config, keys, master, slot)
    }
}

/// What this machine's catalog has learnt from commits, as far as it matters for opening the repository.
#[derive(Default)]
struct Learnt {
    slots_removed: Vec<SlotId>,
    features: Features,
}

impl Learnt {
    /// Nothing, if there is no catalog. A damaged catalog must not stop the command that rebuilds it.
    fn of(place: &Place, keys: &Keys, repository: RepositoryId) -> Learnt {
        let read = || {
            let catalog = Catalog::open(&Repository::catalog_path_of(place, repository), keys.ids())?;
            Ok::<_, Error>(Learnt { slots_removed: catalog.slots_removed()?, features: catalog.features()? })
        };
        read().unwrap_or_default()
    }
}

/// An open repository, for reading.
pub struct Repository {
    place: Place,
    config: Config,
    /// Those of the description, and those that commits have named as far as was known when it was opened.
    features: Features,
    keys: Keys,
    master: MasterKey,
    slot: SlotId,
    catalog_dir: PathBuf,
}

impl Repository {
    /// Makes a repository in an empty store. `bygone.json` is put last: without it there is no repository.
    pub fn init(place: &Place, secret: &Secret, options: &InitOptions) -> Result<Repository> {
        if !place.store.list("")?.is_empty() {
            let what = format!("something at {}", place.store.address());
            return Err(Error::Exists { what, hint: "choose an empty place, or use the repository that is there" });
        }
        let repository = RepositoryId(random()?);
        let config = Config {
            repository,
            block_bytes: options.block_bytes,
            volume_bytes: options.volume_bytes,
            compression: options.compression,
            features: Features::default(),
        };
        config.validate()?;
        let master = MasterKey::generate()?;
        let keys = Keys::derive(&master, repository);
        let catalog_dir = place.catalog_base.join(repository.to_hex());
        let (place, features, slot) = (place.clone(), Features::default(), SlotId([0; 16]));
        let mut made = Repository { place, config, features, keys, master, slot, catalog_dir };
        made.slot = made.slot_add(secret, &options.label, options.time, options.kdf)?;
        made.put(&readme_object(), README_TEXT.as_bytes())?;
        made.put(&config_object(), &made.config.encode(&made.keys)?)?;
        Ok(made)
    }

    /// Finds a repository: reads the objects that need no passphrase.
    pub fn find(place: &Place) -> Result<Found> {
        let store = &place.store;
        let range = ByteRange::Whole { bytes_max: limits::CONFIG_BYTES_MAX };
        let unproven = match store.get(&config_object(), range) {
            Ok(bytes) => Config::decode(&bytes)?,
            Err(error) if error.is_absent() => return Err(Error::NoRepository { store: store.address() }),
            Err(error) => return Err(error),
        };
        let slots = slots(store, unproven.repository())?;
        Ok(Found { place: place.clone(), unproven, slots })
    }

    /// Opens a repository with a passphrase.
    pub fn open(place: &Place, secret: &Secret) -> Result<Repository> {
        Repository::find(place)?.open(secret)
    }

    pub(crate) fn of(place: &Place, config: Config, keys: Keys, master: MasterKey, slot: SlotId) -> Result<Repository> {
        let catalog_dir = place.catalog_base.join(config.repository.to_hex());
        let mut features = config.features.clone();
        features.add(&Learnt::of(place, &keys, config.repository).features);
        features.check_readable()?;
        Ok(Repository { place: place.clone(), config, features, keys, master, slot, catalog_dir })
    }

    /// Fails if this program may only read the repository.
    pub fn check_writable(&self) -> Result<()> {
        self.features.check_writable()
    }

    /// Takes this machine's lock and opens the catalog for writing; makes the catalog if there is none.
    pub fn lock(self) -> Result<LockedRepository> {
        self.lock_waiting(Err)
    }

    /// As [`Repository::lock`]. While another process has the lock, `wait` gets the error that says so, and either
    /// returns it or waits a while.
    pub fn lock_waiting(self, wait: impl FnMut(Error) -> Result<()>) -> Result<LockedRepository> {
        self.check_writable()?;
        self.lock_catalog_waiting(wait)
    }

    /// As [`Repository::lock_waiting`], but for work that writes to the catalog and not to the store, so a repository
    /// that this program may only read is not refused.
    pub fn lock_catalog_waiting(self, wait: impl FnMut(Error) -> Result<()>) -> Result<LockedRepository> {
        let lock = self.take_lock(wait)?;
        self.open_catalog(lock)
    }

    /// As [`Repository::lock_catalog_waiting`], but first removes the catalog unread, so that it can be rebuilt from
    /// the store whatever its state.
    pub fn lock_anew(self, wait: impl FnMut(Error) -> Result<()>) -> Result<LockedRepository> {
        let lock = self.take_lock(wait)?;
        for suffix in ["", "-wal", "-shm"] {
            let path = self.catalog_dir.join(format!("{CATALOG_FILE}{suffix}"));
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    let path = path.display().to_string();
                    return Err(Error::Local { doing: "remove the old catalog", path, source });
                }
                _ => {}
            }
        }
        self.open_catalog(lock)
    }

    fn take_lock(&self, mut wait: impl FnMut(Error) -> Result<()>) -> Result<File> {
        let local = |doing, path: &Path| {
            let path = path.display().to_string();
            move |source| Error::Local { doing, path, source }
        };
        private::directory(&self.catalog_dir).map_err(local("make the catalog directory", &self.catalog_dir))?;
        let lock_path = self.catalog_dir.join(LOCK_FILE);
        let lock = private::file(&lock_path).map_err(local("open the lock", &lock_path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => wait(Error::Locked { path: lock_path.display().to_string() })?,
                Err(TryLockError::Error(source)) => return Err(local("take the lock", &lock_path)(source)),
            }
        }
    }

    fn open_catalog(self, lock: File) -> Result<LockedRepository> {
        let client = ClientId(random()?);
        let mut catalog = CatalogWriter::open(&self.catalog_path(), self.keys.ids(), self.config.repository, client)?;
        catalog.config_keep(&self.config.encode(&self.keys)?)?;
        let (_, client) = catalog.read().identity()?;
        let checkpoint_each = limits::CHECKPOINT_COMMITS;
        Ok(LockedRepository { repository: self, catalog, client, run: None, checkpoint_each, _lock: lock })
    }

    /// Opens the catalog for reading; each thread opens its own.
    pub fn catalog(&self) -> Result<Catalog> {
        Catalog::open(&self.catalog_path(), self.keys.ids())
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.place.store
    }

    /// This machine's directory for this repository.
    pub fn catalog_dir(&self) -> &Path {
        &self.catalog_dir
    }

    /// The catalog's database file.
    pub fn catalog_path(&self) -> PathBuf {
        self.catalog_dir.join(CATALOG_FILE)
    }

    /// The database file of a repository that is not open.
    pub(crate) fn catalog_path_of(place: &Place, repository: RepositoryId) -> PathBuf {
        place.catalog_base.join(repository.to_hex()).join(CATALOG_FILE)
    }

    /// All key slots.
    pub fn slots(&self) -> Result<Vec<SlotRow>> {
        let row = |slot: &Slot| SlotRow {
            id: slot.id(),
            info: slot.info(&self.keys).ok(),
            is_current: slot.id() == self.slot,
        };
        Ok(slots(&self.place.store, self.config.repository)?.iter().map(row).collect())
    }

    /// Adds a key slot that opens with `secret`.
    pub fn slot_add(&self, secret: &Secret, label: &str, time: Time, kdf: KdfCost) -> Result<SlotId> {
        self.check_writable()?;
        let found = slot_objects(&*self.place.store)?.len();
        if found >= limits::SLOTS_MAX {
            // Opening a repository would ignore one more.
            let (found, max) = (found as u64, limits::SLOTS_MAX as u64);
            return Err(Error::Limit { what: "the number of key slots", found, max });
        }
        let id = SlotId(random()?);
        let bytes = Slot::create(&self.master, &self.keys, id, secret.expose(), label, time, kdf)?;
        self.put(&slot_object(id), &bytes)?;
        Ok(id)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        self.place.store.put(name, Source::Bytes(bytes)).map(|_| ())
    }
}

/// An open repository that this process may write to.
pub struct LockedRepository {
    repository: Repository,
    catalog: CatalogWriter,
    client: ClientId,
    /// The run that has been announced, with the client that it began under.
    run: Option<(ClientId, RunId)>,
    checkpoint_each: u64,
    // Dropped last: the lock outlives the connection that it guards.
    _lock: File,
}

impl LockedRepository {
    /// The reading half.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The catalog's one writing connection.
    pub fn catalog(&mut self) -> &mut CatalogWriter {
        &mut self.catalog
    }

    /// Both at once.
    pub fn parts(&mut self) -> (&Repository, &mut CatalogWriter) {
        (&self.repository, &mut self.catalog)
    }

    /// The client whose chain of commits this machine writes.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Fails if this program may only read the repository, by what is known now.
    pub fn check_writable(&self) -> Result<()> {
        self.repository.check_writable()?;
        self.catalog.read().features()?.check_writable()
    }

    /// The run that was announced and has not ended.
    pub fn run(&self) -> Option<(ClientId, RunId)> {
        self.run
    }

    /// Notes that a run was announced or has ended.
    pub(crate) fn set_run(&mut self, run: Option<(ClientId, RunId)>) {
        self.run = run;
    }

    /// Writes a checkpoint after this many commits. The default is sensible; tests lower it.
    pub fn with_checkpoint_each(self, checkpoint_each: u64) -> LockedRepository {
        LockedRepository { checkpoint_each, ..self }
    }

    /// After how many commits a checkpoint is due.
    pub fn checkpoint_each(&self) -> u64 {
        self.checkpoint_each
    }

    /// Gives this machine a new client identity, and with it a new chain.
    pub fn client_renew(&mut self, client: ClientId) -> Result<()> {
        self.catalog.client_renew(client)?;
        self.client = client;
        Ok(())
    }
}

/// The keys, by the first slot that opens. If none does and one could not be tried for want of memory, that is the
/// reason: the passphrase may be right.
pub(crate) fn unlock(
    place: &Place,
    secret: &Secret,
    slots: &[Slot],
    repository: RepositoryId,
) -> Result<(Keys, MasterKey, SlotId)> {
    let mut untried = None;
    for slot in slots {
        match slot.open(secret.expose()) {
            Ok(master) => return Ok((Keys::derive(&master, repository), master, slot.id())),
            Err(error @ OpenError::Memory(_)) => untried = Some((slot.id(), error)),
            Err(OpenError::Refused) => {}
        }
    }
    let Some((id, error)) = untried else {
        return Err(Error::WrongKey { store: place.store.address(), slots: slots.len() });
    };
    let (path, source) = (format!("key slot {id}"), io::Error::new(io::ErrorKind::OutOfMemory, error));
    Err(Error::Local { doing: "derive the key of", path, source })
}

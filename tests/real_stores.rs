//! Stores run by other software: the contract of a store, and the whole life of a repository.
//!
//! `BYGONE_TEST_STORE` is the address, in which each test replaces `{}` with a name of its own; the environment holds
//! the keys and the region. The tests are ignored unless requested: `scripts/test-s3` and `scripts/s3-matrix` run them.
//! With `BYGONE_TEST_STORE_SHOWS_DELETED`, lists may briefly show objects that were just deleted.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use bygone_cli::settings::Settings;
use bygone_cli::settings::environment::Environment;
use bygone_cli::settings::globals::Globals;
use bygone_core::error::Result;
use bygone_core::store::ByteRange;
use bygone_core::store::Listed;
use bygone_core::store::ObjectName;
use bygone_core::store::Source;
use bygone_core::store::Store;
use bygone_core::store::Stored;
use bygone_core::store::testing::contract::contract;
use bygone_core::watch::Watch;
use bygone_tests::compare;
use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::prose;
use bygone_tests::tree::random;
use bygone_tests::zoo;

use crate::site::programs;
use crate::site::restored;

/// An address that no other test uses.
fn address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let address = env::var("BYGONE_TEST_STORE").expect("BYGONE_TEST_STORE names the store");
    let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    assert!(address.contains("{}"), "BYGONE_TEST_STORE has {{}} where names go");
    address.replace("{}", &name)
}

/// A store whose lists may briefly show deleted objects, as a Garage cluster's do: a node that has not heard of the
/// deletion still lists the object. A GET must report it as absent.
struct Ghostly {
    store: Arc<dyn Store>,
    deleted: Mutex<BTreeSet<ObjectName>>,
}

impl Store for Ghostly {
    fn address(&self) -> String {
        self.store.address()
    }

    fn connections(&self) -> usize {
        self.store.connections()
    }

    fn is_far(&self) -> bool {
        self.store.is_far()
    }

    fn get(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>> {
        self.store.get(name, range)
    }

    fn put(&self, name: &ObjectName, source: Source<'_>) -> Result<Stored> {
        self.deleted.lock().unwrap().remove(name);
        self.store.put(name, source)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut listed = self.store.list(prefix)?;
        let deleted = self.deleted.lock().unwrap().clone();
        let is_absent = |name: &ObjectName| {
            self.store.get(name, ByteRange::Part { offset: 0, bytes: 1 }).is_err_and(|e| e.is_absent())
        };
        listed.retain(|listed| !(deleted.contains(&listed.name) && is_absent(&listed.name)));
        Ok(listed)
    }

    fn clear(&self, names: &[ObjectName]) -> Result<()> {
        self.store.clear(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.store.delete(name)?;
        self.deleted.lock().unwrap().insert(name.clone());
        Ok(())
    }
}

/// A machine whose repository is in that store.
struct Elsewhere {
    site: Site,
    address: String,
    runs: Cell<u32>,
}

impl Elsewhere {
    fn new() -> Elsewhere {
        let elsewhere = Elsewhere { site: Site::new(&programs()), address: address(), runs: Cell::new(0) };
        elsewhere.bygone(["init", "--kdf-memory", "8MiB", "--volume-size", "4MiB"]).ok();
        elsewhere
    }

    fn command(&self, command: &mut Command) {
        command.env("BYGONE_REPO", &self.address);
        let keys = env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("AWS_") || name.starts_with("RCLONE_")
        });
        command.envs(keys);
    }

    fn bygone<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.runs.set(self.runs.get() + 1);
        let mut command = self.site.bygone_command(arguments);
        self.command(&mut command);
        self.site.run(command)
    }
}

#[test]
#[ignore = "needs BYGONE_TEST_STORE: see above"]
fn the_contract_holds() {
    contract(|| {
        let globals = Globals { repo: Some(address().into()), ..Globals::default() };
        let store = Settings::resolve(&globals, Environment::of_this_process())
            .unwrap()
            .new_place(&Arc::new(Watch::new()))
            .unwrap()
            .store;
        let shows_deleted = env::var_os("BYGONE_TEST_STORE_SHOWS_DELETED").is_some();
        if shows_deleted { Arc::new(Ghostly { store, deleted: Mutex::default() }) } else { store }
    });
}

#[test]
#[ignore = "needs BYGONE_TEST_STORE: see above"]
fn a_repository_lives_a_whole_life() {
    let elsewhere = Elsewhere::new();
    elsewhere.bygone(["init"]).ended_with(1).complains_of(&["already"]);
    let source = elsewhere.site.at("source");
    drop(zoo::fill(&source));
    let tree = Tree::new(&elsewhere.site.at("more"));
    tree.file("noise", random(1, 20_000_000));
    tree.file("prose", prose(2, 3_000_000));
    let backup = [OsStr::new("backup"), source.as_os_str(), tree.top().as_os_str()];
    elsewhere.bygone(backup).ok();
    tree.file("noise", [random(1, 10_000_000), random(3, 5_000_000)].concat());
    elsewhere.bygone(backup).ok();
    elsewhere.bygone(["check", "--read-data"]).ok();
    let dump = elsewhere.bygone(["catalog-dump"]).ok().out;
    fs::remove_dir_all(elsewhere.site.catalogs()).unwrap();
    elsewhere.bygone(["recover"]).ok();
    assert!(elsewhere.bygone(["catalog-dump"]).ok().out == dump, "a recovered catalog is the old one");
    let target = elsewhere.site.at("target");
    elsewhere.bygone(["restore".as_ref(), "latest".as_ref(), "--target".as_ref(), target.as_os_str()]).ok();
    compare::assert_same(tree.top(), &restored(&target, tree.top()));
    compare::assert_same(&source, &restored(&target, &source));
}

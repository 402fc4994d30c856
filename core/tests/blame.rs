//! An error says what is at fault: the catalog, the store, or this program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::backup;
use common::init;
use common::meta;
use common::open;
use common::options;
use common::place;
use common::secret;

use bygone_core::diagnosis::Diagnosis;
use bygone_core::entry::Content;
use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::Name;
use bygone_core::error::Error;
use bygone_core::noise::noise;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::Verify;
use bygone_core::repo::Place;
use bygone_core::repo::Repository;
use bygone_core::snapshot::Snapshot;
use bygone_core::store::testing::memory::MemoryStore;
use bygone_core::watch::Watch;
use bygone_core::write;
use bygone_core::write::Piece;
use bygone_core::write::Writer;

/// Reads a snapshot whose catalog `sql` has changed: before anything is read, or once it is known where the file lies.
fn read_after(place: &Place, snapshot: &Snapshot, sql: &str, is_map_made_before: bool) -> Error {
    let repository = Repository::open(place, &secret()).unwrap();
    let reader = Reader::new(&repository, 1 << 20, Order::Forward).unwrap();
    let change = || rusqlite::Connection::open(repository.catalog_path()).unwrap().execute_batch(sql).unwrap();
    if !is_map_made_before {
        change();
    }
    let read = || {
        let view = reader.view()?;
        // Where a short file lies is known once and for all; the block list of a long one is read bit by bit.
        let name: &[u8] = if is_map_made_before { b"short" } else { b"long" };
        let item = view.directory(snapshot.root)?.find(&view, name)?.unwrap();
        let Kind::File(content) = &item.entry.kind else { panic!("not a file") };
        assert_eq!(matches!(content, Content::List { .. }), !is_map_made_before);
        let map = view.file(content)?;
        if is_map_made_before {
            change();
        }
        reader.read(&map, 0, 3 << 20, Verify::Blocks).map(drop)
    };
    read().unwrap_err()
}

#[test]
fn damage_in_the_catalog_is_not_blamed_on_the_store() {
    let damages = [
        ("DELETE FROM node", false),
        ("UPDATE node SET body = x'00'", false),
        ("DELETE FROM node WHERE length(versions) = 0", false),
        ("UPDATE volume SET frames = x'' WHERE kind = 0", false),
        ("DELETE FROM volume WHERE kind = 0", true),
        ("UPDATE block SET position = position + 1", false),
    ];
    for (sql, is_map_made_before) in damages {
        let (_dir, place) = place(Arc::new(MemoryStore::new()));
        init(&place);
        let snapshot = backup(&mut open(&place), &[("long", noise(4, 3 << 20)), ("short", noise(5, 1 << 16))]).unwrap();
        let error = read_after(&place, &snapshot, sql, is_map_made_before);
        assert_eq!(error.diagnosis(), Some(Diagnosis::LocalCorrupt), "{sql}: {error}");
        assert!(error.to_string().contains("bygone recover --force"), "{sql}: {error}");
    }
}

#[test]
fn damage_in_the_store_is_not_blamed_on_the_catalog() {
    let store = Arc::new(MemoryStore::new());
    let (_dir, place) = place(store.clone());
    init(&place);
    let snapshot = backup(&mut open(&place), &[("long", noise(4, 3 << 20)), ("short", noise(5, 1 << 16))]).unwrap();
    for (name, bytes) in store.objects().into_iter().filter(|(name, _)| name.as_str().starts_with("data/")) {
        let mut bytes = bytes.to_vec();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        store.tamper(&name, Some(bytes));
    }
    let error = read_after(&place, &snapshot, "", false);
    assert_eq!(error.diagnosis(), Some(Diagnosis::RemoteCorrupt), "{error}");
}

#[test]
fn a_broken_rule_of_the_writer_is_a_defect() {
    let name = |text: &[u8]| Name::new(text).unwrap();
    let empty = |text: &[u8]| Entry::new(name(text), meta(0), Kind::File(Content::Inline(Vec::new())));
    type Body = fn(&mut Writer<'_>, &dyn Fn(&[u8]) -> Entry) -> bygone_core::error::Result<()>;
    let rules: [(&str, Body); 4] = [
        ("not begun", |writer, _| writer.directory_end(None, meta(0))),
        ("outside of the root", |writer, empty| writer.add(empty(b"a"))),
        ("order", |writer, empty| {
            writer.directory_begin()?;
            writer.add(empty(b"b"))?;
            writer.add(empty(b"a"))
        }),
        ("add up", |writer, empty| {
            writer.directory_begin()?;
            writer.file_piece(Piece::Hole(5))?;
            writer.file_end(empty(b"a").name, meta(4))
        }),
    ];
    for (words, body) in rules {
        let (_dir, place) = place(Arc::new(MemoryStore::new()));
        init(&place);
        let run = |writer: &mut Writer<'_>| body(writer, &empty).map(|()| ((), 0));
        let error = write::backup(&mut open(&place), options(), &Watch::new(), run).unwrap_err();
        assert!(matches!(error, Error::Defect { .. }), "{words}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("a bug in bygone: ") && text.contains(words), "{words}: {text}");
    }
}

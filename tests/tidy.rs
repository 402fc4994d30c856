//! The rules of the house that no compiler knows: words, sizes, and where things may stand; `structure` has the floors
//! and circles, `style` the form.
//!
//! The source is read as text. Comments are cut off first where a rule is about code, because prose may say "encrypt"
//! and may quote SQL; unit tests are cut off where a rule is about what the library does when it runs.

mod source;
mod structure;
mod style;

use std::fs;

use source::Source;
use source::files_below;
use source::none;
use source::rust_files;
use source::top;

/// Longest file. A longer one holds two nouns.
const LINES_MAX: usize = 450;

/// Words that have another word here (docs/ARCHITECTURE.md, glossary), and the folders whose libraries speak them.
const BANNED: &[(&str, &str, &[&str])] = &[
    ("blob", "block", &["core/src/catalog"]), // SQLite's own name of a type
    ("blobs", "block", &[]),
    ("chunker", "split", &[]),
    ("packs", "volumes", &[]),
    ("packfile", "volume", &[]),
    ("bundle", "volume", &[]),
    ("backend", "store", &["core/src/crypto"]), // what the library of the cipher calls the processor's instructions
    ("backends", "store", &[]),
    ("remote", "store", &["core/src/store/rclone"]), // what rclone calls a place
    ("encrypt", "seal", &["core/src/crypto", "core/benches"]), // what the library of the cipher calls it
    ("decrypt", "open", &["core/src/crypto", "core/benches"]),
    ("archive", "snapshot", &[]),
    ("chunk", "block, frame or node", &[]),
    ("chunks", "blocks, frames or nodes", &[]),
];

/// Names of Rust's own library and of the cipher's that contain a banned word, the variable of a loop over what they
/// give, and the diagnosis codes, which are REMOTE_* for ever.
const NOT_OURS: &[&str] = &[
    "chunk",
    "chunks",
    "chunks_mut",
    "chunks_exact",
    "chunks_exact_mut",
    "utf8_chunks",
    "as_chunks",
    "first_chunk",
    "split_first_chunk",
    "split_first_chunk_mut",
    "split_last_chunk",
    "into_chunks",
    "as_blob",
    "RemoteMissing",
    "RemoteTruncated",
    "RemoteCorrupt",
    "RemoteSwapped",
    "RemoteUnknownObject",
    "RemoteRolledBack",
    "RemoteForked",
    "RemoteKeyBack",
];

/// What a library must not do: print, or look at the world that its caller did not hand to it.
const NOT_IN_CORE: &[&str] =
    &["println!", "eprintln!", "print!(", "dbg!", "std::env", "SystemTime::now", "Instant::now"];

/// Where something of that is the subject, and nothing else can do it.
const IN_CORE_AFTER_ALL: &[(&str, &str)] = &[
    ("core/src/read/counters.rs", "Instant::now"),
    ("core/src/read/fetch/meter.rs", "Instant::now"),
    ("core/src/store/link.rs", "Instant::now"),
    ("core/src/store/retry.rs", "Instant::now"),
    ("core/src/store/s3/client.rs", "Instant::now"),
];

/// The beginnings of SQL statements.
const SQL: &[&str] = &["SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "CREATE TABLE", "PRAGMA "];

#[test]
fn every_file_says_first_what_it_is_for_and_stays_short() {
    let mut wrong = Vec::new();
    for Source { path, text } in rust_files() {
        if !text.starts_with("//! ") {
            wrong.push(format!("{path}: open with `//!`: the problem, the idea, the edge cases"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{path}: {lines} lines, at most {LINES_MAX}: split it at a noun"));
        }
        let foreign = text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
        wrong.extend(foreign.map(|(at, line)| format!("{path}:{}: ASCII only in code: {line}", at + 1)));
    }
    none(&wrong);
}

#[test]
fn one_word_a_thing() {
    let mut wrong = Vec::new();
    for source in rust_files().iter().filter(|source| !source.path.starts_with("tests/tidy")) {
        for (word, name) in source.words() {
            let Some((_, ours, speakers)) = BANNED.iter().find(|(banned, _, _)| *banned == word) else { continue };
            let allowed = NOT_OURS.contains(&name.as_str()) || speakers.iter().any(|own| source.path.starts_with(own));
            if !allowed {
                wrong.push(format!("{}: `{name}`: the word here is `{ours}`, not `{word}`", source.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn core_neither_prints_nor_looks_around() {
    let mut wrong = Vec::new();
    for source in files_below("core/src", ".rs") {
        let code = source.code_without_tests();
        let allowed = |it: &str| IN_CORE_AFTER_ALL.contains(&(&source.path, it));
        let found = NOT_IN_CORE.iter().filter(|forbidden| code.contains(**forbidden) && !allowed(forbidden));
        wrong.extend(found.map(|it| format!("{}: `{it}`: take it as an argument, or return it", source.path)));
    }
    none(&wrong);
}

#[test]
fn sql_stands_only_in_the_catalog() {
    let mut wrong = Vec::new();
    let folders = ["core/src", "cli/src", "agent/src", "mount/src"];
    let sources = folders.iter().flat_map(|folder| files_below(folder, ".rs"));
    for source in sources.filter(|source| !source.path.starts_with("core/src/catalog")) {
        let code = source.code();
        let found = SQL.iter().filter(|statement| code.contains(**statement));
        wrong.extend(found.map(|it| format!("{}: {it:?}: SQL belongs under core/src/catalog", source.path)));
    }
    none(&wrong);
}

#[test]
fn every_test_file_is_compiled() {
    let main = fs::read_to_string(top().join("tests/main.rs")).unwrap();
    for entry in fs::read_dir(top().join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") else { continue };
        assert!(main.contains(&format!("\nmod {module};")), "tests/main.rs does not list {module}");
    }
}

#[test]
fn every_script_stops_at_the_first_error() {
    let scripts = files_below("scripts", "").into_iter().chain(files_below(".ci", ""));
    for Source { path, text } in scripts.filter(|source| !source.path.contains("__pycache__")) {
        let shell = text.starts_with("#!/usr/bin/env bash\n");
        let python = text.starts_with("#!/usr/bin/env python3\n");
        // What scripts import says first what it is for.
        let module = path.ends_with(".py") && text.starts_with("\"\"\"");
        assert!(shell || python || module, "{path}: begin with #!/usr/bin/env bash or python3");
        assert!(!shell || text.contains("\nset -euo pipefail\n"), "{path}: set -euo pipefail");
    }
}

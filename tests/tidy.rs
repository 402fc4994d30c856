//! The rules of the house that no compiler knows: floors, words, sizes, and where things may stand.
//!
//! The source is read as text. Comments are cut off first where a rule is about code, because prose may say "encrypt"
//! and may quote SQL; unit tests are cut off where a rule is about what the library does when it runs.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The floors of `core`, lowest first. A module uses only modules named before it.
const FLOORS: &[&str] = &[
    "error", "id", "objects", "limits", "lock", "wire", "entry", "snapshot", "watch", "parallel", // words
    "hash", "split", "compress", "crypto", // transforms
    "frame", "volume", "tree", "commit", "config", // codecs
    "spool", "store", "catalog", // places
    "repo",    // all of the above, opened
    "write", "read", // rivers
    "survey", "recover", "check", "copy", "repair", // upkeep
];

/// Neighbours on one floor which do not know each other, in either direction.
const STRANGERS: &[(&str, &str)] = &[("catalog", "store"), ("read", "write")];

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

/// A source file: its path from the top of the project, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The text without `//` comments. A `//` inside a string ends the line too early, which only makes a rule miss.
    fn code(&self) -> String {
        let code_of = |line: &str| line.split("//").next().unwrap_or("").to_string();
        self.text.lines().map(code_of).collect::<Vec<_>>().join("\n")
    }

    /// The code that is in the library, without its unit tests.
    fn code_without_tests(&self) -> String {
        if self.path.ends_with("tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        self.code().split("#[cfg(test)]").next().unwrap_or("").to_string()
    }

    /// The words of its identifiers in lower case: `VolumeWriter::seal_frame` is volume, writer, seal, frame.
    fn words(&self) -> Vec<(String, String)> {
        let code = strings_removed(&self.code());
        let names = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
        names.flat_map(|name| words_of(name).into_iter().map(|word| (word, name.to_string()))).collect()
    }
}

/// The words that a name is made of: cut at `_` and where a capital follows a small letter.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// `code` with what stands between double quotes on one line left out.
fn strings_removed(code: &str) -> String {
    let outside = |line: &str| line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    code.lines().map(outside).collect::<Vec<_>>().join("\n")
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All files below `folder` (from the top of the project) whose name ends with `ending`, sorted.
fn files_below(folder: &str, ending: &str) -> Vec<Source> {
    let top = top();
    let mut found = Vec::new();
    let mut folders = vec![top.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let below = path.strip_prefix(&top).unwrap().display().to_string();
                found.push(Source { path: below, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file of ours.
fn rust_files() -> Vec<Source> {
    ["core", "cli", "agent", "mount", "tests"].iter().flat_map(|folder| files_below(folder, ".rs")).collect()
}

#[test]
fn no_module_of_core_uses_a_floor_above_its_own() {
    let floor = |name: &str| FLOORS.iter().position(|f| *f == name);
    for source in files_below("core/src", ".rs") {
        let file = &source.path;
        let below = file.strip_prefix("core/src/").unwrap();
        let own = below.split(['/', '.']).next().unwrap();
        if own == "lib" {
            continue;
        }
        let own_floor = floor(own).unwrap_or_else(|| panic!("{file}: give `{own}` a floor in tests/tidy.rs"));
        assert!(!source.text.contains("use crate::{"), "{file}: one `use crate::` a line");
        for used in source.text.split("crate::").skip(1) {
            let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let used_floor = floor(&name).unwrap_or_else(|| panic!("{file}: name the module, not `crate::{name}`"));
            assert!(used_floor <= own_floor, "{file}: `{own}` uses `{name}`, which is above it");
            let strangers = STRANGERS.iter().any(|(a, b)| (*a, *b) == (own, &name) || (*b, *a) == (own, &name));
            assert!(!strangers, "{file}: `{own}` does not know `{name}`");
        }
    }
}

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
    for source in rust_files().iter().filter(|source| source.path != "tests/tidy.rs") {
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

/// Panics with all of `wrong`, a line each: whoever breaks a rule wants to see every place at once.
#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}

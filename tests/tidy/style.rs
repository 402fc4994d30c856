//! The form of code and prose: one style of imports, names that can be read, scripts, and sentences.

use crate::tidy::source::CRATES;
use crate::tidy::source::Source;
use crate::tidy::source::files_below;
use crate::tidy::source::none;
use crate::tidy::source::rust_files;

/// Longest name of a test. A longer one is a sentence that nobody reads.
const TEST_NAME_CHARS_MAX: usize = 60;

/// Where the date or the environment is read: once, at the start of a program.
const READERS: &[(&str, &[&str])] = &[
    ("SystemTime::now", &["cli/src/clock.rs", "cli/src/access.rs"]),
    (
        "clock::now",
        &[
            "agent/src/commands/backup.rs", // when the reading ended, which the snapshot says
            "agent/src/commands/mod.rs",    // when the command began
            "mount/src/kernel/log.rs",      // lines of a log carry the date
            "mount/src/kernel/watcher.rs",  // the same
            "mount/src/program/cli.rs",     // --at on the command line
            "mount/src/program/session.rs", // the list of snapshots, as of when it was mounted
            "mount/src/tree/mod.rs",        // at/3d means three days before it is looked up
        ],
    ),
    ("env::var", &["cli/src/settings/environment.rs"]), // and all that begins like it
    ("env::current_dir", &["cli/src/settings/environment.rs"]),
    ("env::home_dir", &[]),
    ("env::temp_dir", &[]),
    ("environment::user", &["agent/src/commands/backup.rs", "cli/src/settings/mod.rs"]),
    (
        "Environment::of_this_process",
        &["agent/src/commands/mod.rs", "cli/src/settings/environment.rs", "mount/src/program/cli.rs"],
    ),
    ("Configuration::read", &["cli/src/settings/mod.rs"]),
];

/// Words and phrases of a German sentence in English words.
const TURNS: &[&str] = &[" he ", " him ", " his ", "also if ", " be so", "of which a person", "by which also"];

/// Every import of `source`: the line's number, and the line.
fn imports(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate();
    lines.filter(|(_, line)| {
        let line = line.trim_start();
        line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "))
    })
}

#[test]
fn an_import_is_one_item_by_its_whole_path() {
    let mut wrong = Vec::new();
    for source in rust_files() {
        for (at, line) in imports(&source) {
            let is_of_tests = line.trim().ends_with("use super::*;") || line.trim().ends_with("prelude::*;");
            // Within a function, the variants of an enum that it matches.
            let last_type = line.trim().strip_suffix("::*;").and_then(|path| path.rsplit("::").next());
            let last_type = last_type.and_then(|path| path.split(' ').next_back());
            let variants = line.starts_with(' ') && last_type.is_some_and(|name| name.starts_with(char::is_uppercase));
            let several = line.contains('{') || (line.contains('*') && !is_of_tests && !variants);
            // At the top of a file; a module of tests within it is nearer to what it tests.
            let relative = line.starts_with("use super::") && !is_of_tests && source.path.contains("/src/");
            if several || relative {
                wrong.push(format!("{}:{}: one item, from `crate` on: {line}", source.path, at + 1));
            }
        }
    }
    none(&wrong);
}

#[test]
fn a_test_has_a_name_that_can_be_read() {
    let mut wrong = Vec::new();
    for source in rust_files() {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        for pair in lines.windows(2) {
            let name = pair[1].strip_prefix("fn ").and_then(|line| line.split('(').next());
            if let Some(name) = name.filter(|name| pair[0] == "#[test]" && name.len() > TEST_NAME_CHARS_MAX) {
                wrong.push(format!("{}: {name}: {} characters", source.path, name.len()));
            }
        }
    }
    none(&wrong);
}

#[test]
fn scripts_are_indented_by_two_spaces() {
    let mut wrong = Vec::new();
    let scripts = files_below("scripts", "").into_iter().chain(files_below(".ci", ""));
    for Source { path, text } in scripts.filter(|source| source.text.starts_with("#!/usr/bin/env bash")) {
        let mut here = None;
        for (at, line) in text.lines().enumerate() {
            // What a here-document holds is not ours to indent.
            if let Some(end) = here {
                if line.trim() == end {
                    here = None;
                }
                continue;
            }
            here = line.split_once("<<").map(|(_, word)| word.trim_start_matches('-'));
            here =
                here.map(|word| word.trim_matches(['\'', '"'])).filter(|word| word.chars().all(char::is_alphanumeric));
            let spaces = line.len() - line.trim_start().len();
            if line.starts_with('\t') || (spaces % 2 == 1 && !line.trim_start().starts_with('*')) {
                wrong.push(format!("{path}:{}: two spaces a level: {line}", at + 1));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_date_and_the_environment_are_read_in_one_place() {
    let mut wrong = Vec::new();
    let libraries = CRATES.iter().filter(|name| **name != "tests");
    for source in libraries.flat_map(|name| files_below(&format!("{name}/src"), ".rs")) {
        let code = source.code_without_tests();
        for (call, places) in READERS {
            if code.contains(call) && !places.contains(&source.path.as_str()) {
                wrong.push(format!("{}: `{call}`: take it from the settings, or as an argument", source.path));
            }
        }
    }
    none(&wrong);
}

#[test]
fn sentences_are_read_once() {
    let mut wrong = Vec::new();
    let documents = files_below("docs", ".md").into_iter();
    for source in rust_files().into_iter().chain(documents).filter(|source| !source.path.starts_with("tests/tidy")) {
        for (at, line) in source.text.lines().enumerate() {
            // Names in code are no sentences.
            let prose = line.replace('_', " _ ");
            let found = TURNS.iter().filter(|turn| prose.contains(**turn));
            wrong.extend(found.map(|turn| format!("{}:{}: {turn:?}: {line}", source.path, at + 1)));
        }
    }
    none(&wrong);
}

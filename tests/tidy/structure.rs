//! Who may use whom: crates, floors within a crate, and no import circle anywhere.
//!
//! - A crate uses only the crates named for it.
//! - A module uses only floors below its own, and strangers do not know each other.
//! - Files do not import one another in a circle. A folder's `mod.rs` is its face: it shows what the files in it have and
//!   holds what they share, so files may use the face of a folder that they are in; that edge is not counted.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;

use crate::tidy::source::Source;
use crate::tidy::source::files_below;
use crate::tidy::source::none;
use crate::tidy::source::top;

/// Most files directly in a folder.
const FILES_MAX: usize = 15;

/// Each crate, and those of ours that it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("cli", &["core"]),
    ("agent", &["core", "cli"]),
    ("mount", &["core", "cli"]),
    ("tests", &["core", "cli", "agent", "mount"]),
];

/// The floors of each crate, lowest first. A module uses only modules named before it.
#[rustfmt::skip]
const FLOORS: &[(&str, &[&str])] = &[
    ("core", &[
        "diagnosis", "error", "id", "objects", "limits", "lock", "private", "noise", "wire", "attributes", // words
        "entry", "facts", "features", "snapshot", "watch", "parallel", // words
        "hash", "split", "compress", "crypto", // transforms
        "frame", "volume", "tree", "commit", "config", // codecs
        "spool", "store", "catalog", // places
        "repo", // all of the above, opened
        "write", "read", // rivers
        "survey", "recover", "check", "copy", "repair", // upkeep
    ]),
    ("cli", &[
        "clock", "time", "when", "xattrs", "exit", // values
        "terminal", "settings", // the person, and what is wanted
        "access", "repository", "caching", // what is done by it
    ]),
    ("agent", &["sys", "mounts", "exclude", "select", "backup", "restore", "commands"]),
    ("mount", &["caches", "tree", "data", "kernel", "program"]),
];

/// Neighbours which do not know each other, in either direction.
const STRANGERS: &[(&str, &str, &str)] = &[
    ("core", "catalog", "store"),
    ("core", "read", "write"),
    ("agent", "backup", "restore"),
    ("agent", "exclude", "select"),
    ("agent", "backup", "select"),
];

/// Modules of unit tests, which may look at everything.
fn is_for_tests(source: &Source) -> bool {
    source.path.ends_with("testing.rs") || source.path.contains("/testing/")
}

/// The sources of a crate's library, without those that only tests have.
fn library(name: &str) -> Vec<Source> {
    let mut sources = files_below(&format!("{name}/src"), ".rs");
    sources.retain(|source| !is_for_tests(source));
    sources
}

/// `core/src/read/fetch/mod.rs` is `read::fetch`; `lib.rs` and `main.rs` are the empty path.
fn module(source: &Source, name: &str) -> String {
    let below = source.path.strip_prefix(&format!("{name}/src/")).unwrap().strip_suffix(".rs").unwrap();
    let below = below.strip_suffix("/mod").unwrap_or(below);
    if matches!(below, "lib" | "main") { String::new() } else { below.replace('/', "::") }
}

/// The paths after each `crate::` of a source, such as `read::fetch::Fetched`.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let is_part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | ':');
    let paths = code.split("crate::").skip(1).map(|after| after.chars().take_while(is_part).collect());
    paths.filter(|path: &String| !path.is_empty()).collect()
}

/// The module with a file of its own that `path` leads into.
fn target<'a>(path: &'a str, modules: &BTreeSet<String>) -> Option<&'a str> {
    let mut path = path.trim_end_matches(':');
    loop {
        if modules.contains(path) {
            return Some(path);
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Which modules of a crate use which others, without faces of folders that the user is in.
fn uses(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sources = library(name);
    let modules: BTreeSet<String> = sources.iter().map(|source| module(source, name)).collect();
    let mut uses = BTreeMap::new();
    for source in &sources {
        let own = module(source, name);
        let code = source.code_without_tests();
        let is_ours = |used: &&str| !used.is_empty() && *used != own && !own.starts_with(&format!("{used}::"));
        let of_crate = crate_paths(&code);
        let mut used: BTreeSet<String> =
            of_crate.iter().filter_map(|path| target(path, &modules)).filter(is_ours).map(str::to_owned).collect();
        // What a face shows of the files in its folder.
        let children = modules.iter().filter(|child| child.rsplit_once("::").map_or("", |(parent, _)| parent) == own);
        let children = children.filter(|child| !child.is_empty() && names(&code, child.rsplit("::").next().unwrap()));
        used.extend(children.cloned());
        uses.insert(own, used);
    }
    uses
}

/// True if `code` has a path that begins with `module::`.
fn names(code: &str, module: &str) -> bool {
    let path = format!("{module}::");
    code.match_indices(&path)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')))
}

/// A way from `from` back to itself, if there is one.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>, from: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in uses.get(way.last().unwrap()).into_iter().flatten() {
            if next == from {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn a_crate_uses_only_the_crates_below_it() {
    let mut wrong = Vec::new();
    for (name, allowed) in EDGES {
        let manifest = fs::read_to_string(top().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split_once("dependencies").map_or("", |(_, after)| after);
        let used = dependencies.split("bygone-").skip(1);
        let used = used.map(|after| after.split(|c: char| !c.is_alphanumeric()).next().unwrap());
        // The own name is there where a crate's tests switch on a feature of it.
        let found = used.filter(|used| used != name && !allowed.contains(used));
        wrong.extend(found.map(|used| format!("{name} does not know {used}")));
    }
    none(&wrong);
}

#[test]
fn no_module_uses_a_floor_above_its_own() {
    let mut wrong = Vec::new();
    for (name, floors) in FLOORS {
        let floor = |module: &str| floors.iter().position(|known| *known == module);
        for source in library(name) {
            let own = module(&source, name);
            let own = own.split("::").next().unwrap();
            if own.is_empty() {
                continue;
            }
            let Some(own_floor) = floor(own) else {
                wrong.push(format!("{}: give `{own}` a floor in tests/tidy/structure.rs", source.path));
                continue;
            };
            for path in crate_paths(&source.code_without_tests()) {
                let used = path.split("::").next().unwrap();
                match floor(used) {
                    None => wrong.push(format!("{}: name the module, not `crate::{used}`", source.path)),
                    Some(floor) if floor > own_floor => {
                        wrong.push(format!("{}: `{own}` uses `{used}`, which is above it", source.path));
                    }
                    Some(_) => {}
                }
                let pair = |a: &str, b: &str| STRANGERS.contains(&(name, a, b));
                if pair(own, used) || pair(used, own) {
                    wrong.push(format!("{}: `{own}` does not know `{used}`", source.path));
                }
            }
        }
    }
    none(&wrong);
}

#[test]
fn files_do_not_import_one_another_in_a_circle() {
    let mut wrong = Vec::new();
    for (name, _) in FLOORS {
        let uses = uses(name);
        assert!(uses.values().any(|used| !used.is_empty()), "{name}: no import was found, so this test sees nothing");
        let circles = uses.keys().filter_map(|module| circle(&uses, module));
        wrong.extend(circles.map(|way| format!("{name}: {} -> {}", way.join(" -> "), way[0])));
    }
    none(&wrong);
}

#[test]
fn every_folder_is_on_the_map_and_is_not_crowded() {
    let map = fs::read_to_string(top().join("docs/ARCHITECTURE.md")).unwrap();
    let mut wrong = Vec::new();
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for (name, _) in FLOORS {
        for source in files_below(&format!("{name}/src"), ".rs") {
            let (folder, file) = source.path.rsplit_once('/').unwrap();
            files.entry(folder.to_owned()).or_default().push(file.to_owned());
        }
    }
    for (folder, files) in files {
        let count = files.len();
        // Unit tests stand beside what they test.
        let is_for_tests = folder.ends_with("/tests") || files == ["tests.rs"];
        if !is_for_tests && !map.contains(&format!("\n| `{folder}/` |")) {
            wrong.push(format!("{folder}: say in one line of docs/ARCHITECTURE.md what is in it"));
        }
        // A file a command; small floors of core.
        let is_list = matches!(folder.as_str(), "agent/src/commands" | "core/src");
        if count > FILES_MAX && !is_list {
            wrong.push(format!("{folder}: {count} files, at most {FILES_MAX}: make rooms in it"));
        }
    }
    none(&wrong);
}

#[test]
fn scripts_test_runs_every_suite() {
    // The suites of core that are one file are listed by the script itself.
    let script = fs::read_to_string(top().join("scripts/test")).unwrap();
    let mut wrong = Vec::new();
    for (name, _) in FLOORS {
        let Ok(entries) = fs::read_dir(top().join(name).join("tests")) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let suite = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let is_listed = path.is_file() && *name == "core";
            let is_suite = path.is_file() || path.join("main.rs").exists();
            if is_suite && !is_listed && !script.contains(&format!("--test {suite}")) {
                wrong.push(format!("scripts/test does not run {}", path.display()));
            }
        }
    }
    none(&wrong);
}

#[test]
fn a_circle_is_found() {
    let edge = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(ToString::to_string).collect());
    let uses = BTreeMap::from([edge("a", &["b"]), edge("b", &["c"]), edge("c", &["a"]), edge("d", &["a"])]);
    assert_eq!(circle(&uses, "a").unwrap(), ["a", "b", "c"]);
    assert_eq!(circle(&uses, "d"), None);
    let paths = crate_paths("use crate::read::View;\nlet x = crate::sys::call(); // crate::");
    assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["read::View", "sys::call"]);
    assert!(names("pub use cli::run;", "cli") && !names("use bygone_cli::run; a::cli::x", "cli"));
}

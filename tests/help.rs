//! What `--help` says, of every command of both programs, is text that a person has read: `tests/help/` holds it.
//!
//! The test finds the commands in the help texts themselves, so a new command wants a new file, and the file of a
//! command that is gone fails the test as well. `BYGONE_TESTS_ACCEPT=1` writes the files as they would have to be; the
//! difference is then read in the commit. Spaces at the ends of lines do not count.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::site::programs;

/// Columns of the page that help is laid out for.
const COLUMNS: &str = "100";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("help")
}

/// What `NAME WORDS --help` prints, where there is no terminal and nothing in the environment.
fn help(program: &Path, name: &str, words: &[String]) -> String {
    let mut command = Command::new(program);
    command.arg0(name).args(words).arg("--help").env_clear().env("COLUMNS", COLUMNS).stdin(Stdio::null());
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{name} {words:?} --help: {}: {complaint}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The names below "Commands:". Descriptions stand further to the right.
fn commands_in(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named = listed.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    named.filter_map(|rest| rest.split_whitespace().next()).map(str::to_string).collect()
}

/// The help of a command and of all below it, by the names of their files.
fn collect(program: &Path, name: &str, words: &[String], found: &mut BTreeMap<String, String>) {
    let text = help(program, name, words);
    for command in commands_in(&text) {
        collect(program, name, &[words, &[command]].concat(), found);
    }
    found.insert(format!("{}.txt", [&[name.to_string()], words].concat().join("_")), text);
}

/// How the file of this name would have to change, as `diff -u` shows it.
fn difference(name: &str, printed: &str) -> String {
    let mut command = Command::new("diff");
    command.args(["-u", "-N", "--label", name, "--label", "what --help prints"]).arg(folder().join(name)).arg("-");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(printed.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn help_texts_are_the_ones_that_were_reviewed() {
    let mut printed = BTreeMap::new();
    collect(&programs().bygone, "bygone", &[], &mut printed);
    collect(&programs().mount, "bygone-mount", &[], &mut printed);
    let count = printed.len();
    assert!(count > 20 && printed.contains_key("bygone_key_add.txt"), "only these were found: {:?}", printed.keys());
    let mut reviewed = BTreeMap::new();
    for entry in fs::read_dir(folder()).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        reviewed.insert(name, fs::read_to_string(path).unwrap());
    }
    if env::var_os("BYGONE_TESTS_ACCEPT").is_some_and(|value| value == "1") {
        drop(fs::remove_dir_all(folder()));
        fs::create_dir(folder()).unwrap();
        printed.iter().for_each(|(name, text)| fs::write(folder().join(name), text).unwrap());
        return;
    }
    let changed = printed.iter().filter(|(name, text)| reviewed.get(*name) != Some(*text));
    let mut wrong: Vec<String> = changed.map(|(name, text)| difference(name, text)).collect();
    let gone = reviewed.keys().filter(|name| !printed.contains_key(*name));
    wrong.extend(gone.map(|name| format!("tests/help/{name}: there is no such command\n")));
    assert!(
        wrong.is_empty(),
        "{}\nIf this is how it should read, accept it:\n  BYGONE_TESTS_ACCEPT=1 scripts/test help::",
        wrong.join("\n")
    );
}

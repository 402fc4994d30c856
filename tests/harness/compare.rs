//! Compares two directories with independent tools, and lists the differences.
//!
//! Four witnesses, because each has a blind spot: rsync sees content, devices and sets of hard links but no link
//! counts; find sees every number of `stat`; getfattr and getfacl see attributes byte for byte. Left out on purpose:
//! access and change times, which cannot be restored, and the size and link count of directories, which the file system
//! decides.

use std::path::Path;
use std::process::Command;

use crate::tool;

/// Panics with the differences between `source` and `other`, if there are any.
pub fn assert_same(source: &Path, other: &Path) {
    let found = differences(source, other);
    let shown = found.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    let pair = format!("{} and {}", source.display(), other.display());
    assert!(found.is_empty(), "{pair} differ in {} places (< is the first):\n{shown}", found.len());
}

/// Lists a tree as one tool sees it, a record for each entry.
type Witness = fn(&Path) -> Vec<Vec<u8>>;

/// All differences, a line each; names are escaped.
pub fn differences(source: &Path, other: &Path) -> Vec<String> {
    let mut found = by_rsync(source, other);
    let witnesses: [(&str, Witness); 3] = [("find", by_find), ("getfattr", by_getfattr), ("getfacl", by_getfacl)];
    for (name, witness) in witnesses {
        found.extend(unequal(name, witness(source), witness(other)));
    }
    found
}

/// The changes by which rsync would make `other` like `source`: content, kinds, links, attributes, times, owners.
pub fn by_rsync(source: &Path, other: &Path) -> Vec<String> {
    let mut command = Command::new("rsync");
    command.args(["-aHAXn", "--checksum", "-i", "--delete"]);
    command.arg(with_slash(source)).arg(with_slash(other));
    let printed = tool(&mut command);
    printed
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| format!("rsync: {}", shown(line)))
        .collect()
}

/// One record for each entry: name, kind, permissions, owner, group, size, links, time and target.
fn by_find(top: &Path) -> Vec<Vec<u8>> {
    let mut command = Command::new("find");
    command.current_dir(top).args([".", "-type", "d", "-printf", "%P\\0%y %m %U %G - - %T@\\0\\0\\n"]);
    command.args(["-o", "-printf", "%P\\0%y %m %U %G %s %n %T@ %l\\0\\0\\n"]);
    records(&tool(&mut command), b"\0\0\n")
}

/// One record for each entry that has extended attributes.
pub fn by_getfattr(top: &Path) -> Vec<Vec<u8>> {
    let mut command = Command::new("getfattr");
    command.current_dir(top).args(["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."]);
    records(&tool(&mut command), b"\n\n")
}

/// One numeric record for each entry except symbolic links. Without an access list, it shows the permissions.
fn by_getfacl(top: &Path) -> Vec<Vec<u8>> {
    let mut command = Command::new("getfacl");
    command.current_dir(top).args(["-R", "-P", "-n", "-p", "."]);
    records(&tool(&mut command), b"\n\n")
}

/// The records of `text`, sorted: tools list directories in the order of the disk.
fn records(text: &[u8], end: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.windows(end.len()).position(|window| window == end);
        let (record, after) = at.map_or((rest, rest.len()), |at| (&rest[..at], at + end.len()));
        found.push(record.to_vec());
        rest = &rest[after..];
    }
    found.sort();
    found
}

/// The records that only one side has. Both are sorted.
pub fn unequal(witness: &str, source: Vec<Vec<u8>>, other: Vec<Vec<u8>>) -> Vec<String> {
    let only = |mark: &str, these: &[Vec<u8>], those: &[Vec<u8>]| -> Vec<String> {
        let missing = these.iter().filter(|record| those.binary_search(record).is_err());
        missing.map(|record| format!("{witness} {mark} {}", shown(record))).collect()
    };
    let mut found = only("<", &source, &other);
    found.extend(only(">", &other, &source));
    if found.is_empty() && source.len() != other.len() {
        found.push(format!("{witness}: {} records and {}", source.len(), other.len()));
    }
    found.sort_by(|a, b| a.split(' ').skip(2).cmp(b.split(' ').skip(2)));
    found
}

/// `path` with a slash at its end, which tells rsync to compare what is inside.
fn with_slash(path: &Path) -> std::ffi::OsString {
    let mut path = path.as_os_str().to_os_string();
    path.push("/");
    path
}

/// Bytes as text that is safe on a terminal.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

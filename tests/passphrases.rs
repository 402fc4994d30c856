//! Passphrases: where they come from, which ones are refused, and what is said of one that opens nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use bygone_tests::program::PASSPHRASE;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;

use crate::site::new_site;
use crate::site::programs;
use crate::site::with_environment;

fn with_snapshot() -> (Site, Tree) {
    let site = new_site();
    let tree = Tree::new(&site.at("source"));
    tree.file("tiny", "tiny");
    site.backup(tree.top());
    (site, tree)
}

/// Without the passphrase that every command gets.
fn without(command: &mut Command) -> &mut Command {
    command.env_remove("BYGONE_PASSPHRASE")
}

#[test]
fn a_wrong_passphrase_ends_with_12() {
    let (site, tree) = with_snapshot();
    for arguments in [&["snapshots"][..], &["backup", tree.top().to_str().unwrap()], &["check"], &["key", "list"]] {
        with_environment(&site, arguments, |command| command.env("BYGONE_PASSPHRASE", "wrong"))
            .ended_with(12)
            .complains_of(&["passphrase"]);
    }
    site.bygone(["check", "--read-data"]).ok();
}

#[test]
fn too_little_memory_is_not_a_wrong_passphrase() {
    let site = Site::new(&programs());
    site.bygone(["init", "--kdf-memory", "256MiB"]).ok();
    for passphrase in [PASSPHRASE, "wrong"] {
        let program = programs().bygone;
        let script = "ulimit -v 200000; exec \"$0\" snapshots";
        let mut command = site.command(Path::new("/bin/sh"), ["-c", script, program.to_str().unwrap()]);
        command.env("BYGONE_PASSPHRASE", passphrase);
        let ran = site.run(command).ended_with(1).complains_of(&["key slot", "memory"]);
        assert!(!ran.err.contains("wrong passphrase"), "{ran}");
    }
}

#[test]
fn passphrases_come_from_files_commands_and_the_environment() {
    let (site, _tree) = with_snapshot();
    let file = site.at("passphrase");
    fs::write(&file, format!("{PASSPHRASE}\n")).unwrap();
    let file = file.to_str().unwrap();
    with_environment(&site, &["--passphrase-file", file, "snapshots"], without).ok();
    with_environment(&site, &["--passphrase-command", &format!("cat {file}"), "snapshots"], without).ok();
    with_environment(&site, &["snapshots"], |command| {
        command.env_remove("BYGONE_PASSPHRASE").env("BYGONE_PASSPHRASE_FILE", file)
    })
    .ok();
    let none = with_environment(&site, &["snapshots"], without);
    assert!([1, 2].contains(&none.code), "no passphrase and nobody to ask: {none}");
    none.complains_of(&["passphrase"]);
    let missing = with_environment(&site, &["--passphrase-file", "/no/such/file", "snapshots"], without);
    missing.ended_with(1).complains_of(&["/no/such/file"]);
    with_environment(&site, &["--passphrase-command", "false", "snapshots"], without).ended_with(1);
}

#[test]
fn a_passphrase_that_nobody_could_type_is_refused_at_its_making() {
    let site = Site::new(&programs());
    let file = site.at("passphrase");
    let init = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let arguments = ["--passphrase-file", file.to_str().unwrap(), "init", "--kdf-memory", "8MiB"];
        with_environment(&site, &arguments, without)
    };
    let open = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        with_environment(&site, &["--passphrase-file", file.to_str().unwrap(), "snapshots"], without)
    };
    for (bytes, word) in [
        (&b"one\ntwo\n"[..], "several lines"),
        (b"\xef\xbb\xbfone\n", "byte order mark"),
        (b"o\0ne", "control"),
        (b"one\r", "control"),
    ] {
        init(bytes).ended_with(2).complains_of(&[word]);
    }
    init("caf\u{e9}\r\n".as_bytes()).ok();
    for bytes in ["caf\u{e9}", "caf\u{e9}\n", "caf\u{e9}\r\n"] {
        open(bytes.as_bytes()).ok();
    }
    for (bytes, hint) in [
        ("cafe\u{301}", "several ways"),
        ("\u{feff}caf\u{e9}", "byte order mark"),
        ("caf\u{e9}\n\n", "several lines"),
        ("caf\u{e9} ", "blank"),
        ("caf\u{e9}\r", "control"),
    ] {
        open(bytes.as_bytes()).ended_with(12).complains_of(&[hint]);
    }
    assert!(!open(b"wrong").ended_with(12).err.contains("the passphrase "), "a plain one gets no hint");
}

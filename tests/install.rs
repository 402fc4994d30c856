//! `scripts/install` puts programs, the helper of mount and units where they are looked for, twice as well as once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use bygone_tests::program::Ran;
use bygone_tests::program::Site;
use bygone_tests::tool;

use crate::site::programs;

/// `scripts/install --no-build ARGUMENTS`, with the programs under test as those that were built.
fn install(site: &Site, destination: &str, arguments: &[&str]) -> Ran {
    let built = site.at("target/release");
    fs::create_dir_all(&built).unwrap();
    for (name, program) in [("bygone", programs().bygone), ("bygone-mount", programs().mount)] {
        drop(symlink(program, built.join(name)));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install");
    let mut command = site.command(&script, [&["--no-build"], arguments].concat());
    command.env("CARGO_TARGET_DIR", site.at("target")).env("DESTDIR", destination);
    site.run(command)
}

fn version(program: &Path) -> String {
    String::from_utf8(tool(Command::new(program).arg("--version"))).unwrap()
}

#[test]
fn an_installed_program_runs_and_is_found_by_mount() {
    let site = Site::new(&programs());
    let prefix = site.at("prefix");
    let prefix_text = prefix.to_str().unwrap();
    for _ in 0..2 {
        let ran = install(&site, "", &["--prefix", prefix_text]).ok();
        let link = format!("ln -sfn {prefix_text}/bin/bygone-mount /sbin/mount.fuse.bygone");
        assert!(ran.text().contains(&link) && ran.text().contains("systemctl link"), "{ran}");
        assert!(version(&prefix.join("bin/bygone")).starts_with("bygone "));
        let helper = fs::canonicalize(prefix.join("sbin/mount.fuse.bygone")).unwrap();
        assert_eq!(helper, fs::canonicalize(prefix.join("bin/bygone-mount")).unwrap());
        let unit = fs::read_to_string(prefix.join("lib/systemd/system/bygone-mount@.service")).unwrap();
        assert!(unit.contains(&format!("\nExecStart={prefix_text}/bin/bygone-mount --foreground")), "{unit}");
        assert!(prefix.join("lib/systemd/system/srv-past.mount").exists());
    }
}

#[test]
fn an_installation_for_a_package_names_its_final_paths() {
    let site = Site::new(&programs());
    let destination = site.at("package");
    let ran = install(&site, destination.to_str().unwrap(), &["--prefix=/usr/"]).ok();
    assert!(destination.join("usr/bin/bygone").exists(), "{ran}");
    let helper = destination.join("usr/sbin/mount.fuse.bygone");
    assert_eq!(fs::canonicalize(helper).unwrap(), fs::canonicalize(destination.join("usr/bin/bygone-mount")).unwrap());
    let unit = fs::read_to_string(destination.join("usr/lib/systemd/system/bygone-mount@.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/bygone-mount "), "{unit}");
    assert!(!ran.text().contains(destination.to_str().unwrap()) && !ran.text().contains("systemctl"), "{ran}");
}

#[test]
fn a_wrong_call_of_install_changes_nothing() {
    let site = Site::new(&programs());
    let destination = site.at("package");
    let to = destination.to_str().unwrap();
    install(&site, to, &["--prefix", "relative"]).ended_with(2).complains_of(&["absolute"]);
    install(&site, to, &["--prefix", "/with space"]).ended_with(2).complains_of(&["/with space"]);
    install(&site, to, &["--prefix"]).ended_with(2).complains_of(&["wants a directory"]);
    install(&site, to, &["--nonsense"]).ended_with(2).complains_of(&["--nonsense", "usage"]);
    assert!(!destination.exists());
}

//! The local cache of a far store: `bygone pin`, `bygone cache`, and the attribute that shows how much of a file is
//! cached.

use std::fs;
use std::path::Path;
use std::process::Command;

use bygone_tests::compare;
use bygone_tests::fake_s3::Fault;
use bygone_tests::fake_s3::Verb;
use bygone_tests::program::wait_until;
use bygone_tests::root;
use bygone_tests::tool;

use crate::far_mount::Far;
use crate::far_mount::mixed;

/// `bygone pin`, however full the disk of this machine is.
fn pin(far: &Far, arguments: &[&str]) -> bygone_tests::program::Ran {
    far.server.take_asked();
    far.site.bygone([&["pin", "--json", "--cache-free", "0"], arguments].concat())
}

/// The mount's attribute that shows how much of the file is cached.
fn cached(path: &Path) -> String {
    let printed = tool(Command::new("getfattr").args(["--only-values", "-n", "user.bygone.cached"]).arg(path));
    String::from_utf8(printed).unwrap()
}

#[test]
fn pinned_files_can_be_read_offline_and_say_so() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let (long, small) = (far.tree.at("long"), far.tree.at("small"));
    let paths = [format!("latest:{}", long.display()), small.display().to_string()];
    let paths = [paths[0].as_str(), paths[1].as_str(), paths[1].as_str()];
    let pinned = pin(&far, &paths).ok().json();
    assert_eq!((pinned["files"].as_u64(), pinned["bytes"].as_u64()), (Some(301), Some(9_000_000)));
    let fetched = pinned["fetched_bytes"].as_u64().unwrap();
    // Whole pieces, and small gaps that are cheaper to fetch than to skip.
    assert!((9_000_000..14_000_000).contains(&fetched), "{pinned}");
    assert!(pinned["cached_bytes"].as_u64().unwrap() <= fetched, "{pinned}");
    let again = pin(&far, &paths).ok().json();
    assert_eq!(again["fetched_bytes"].as_u64(), Some(0), "what is there is not fetched again");

    let mounted = far.mount(&["--offline"]);
    let inside = |path: &Path| mounted.latest(path);
    assert_eq!(cached(&inside(&long)), "yes");
    assert_eq!(cached(&inside(&far.tree.at("small/03/13"))), "yes");
    assert_eq!(cached(&inside(&far.tree.at("medium"))), "no");
    assert!(fs::read(inside(&long)).unwrap() == fs::read(&long).unwrap());
    compare::assert_same(&small, &inside(&small));
    assert!(fs::read(inside(&far.tree.at("medium"))).is_err());
    assert_eq!(far.gets(), 0);
    mounted.unmount();
}

#[test]
fn a_pin_that_cannot_succeed_fails_before_it_fetches() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let top = far.tree.top().display().to_string();
    let refused = pin(&far, &[&top, "--cache-size", "4MiB"]).ended_with(1).complains_of(&["--cache-size", "4.0 MiB"]);
    assert!(refused.err.contains("nothing was fetched") && refused.err.contains("NO_SPACE"), "{refused}");
    assert_eq!(far.gets(), 0);
    // The size named in the message is enough.
    let wanted = refused.err.split("--cache-size ").last().unwrap().split_whitespace().next().unwrap();
    pin(&far, &[&top, "--cache-size", wanted]).ok();
    pin(&far, &["latest:/no/such/file"]).ended_with(1).complains_of(&["/no/such/file"]);
    pin(&far, &["nonsense:/"]).ended_with(2);
    // A disk that has to stay free takes nothing.
    far.site.bygone(["cache", "clear", "--all"]).ok();
    let full = far.site.bygone(["pin", &top, "--cache-free", "99"]);
    full.ended_with(1).complains_of(&["in the cache", "--cache-free"]);
}

#[test]
fn a_cache_is_shown_and_emptied_while_a_mount_uses_it() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    let info = || far.site.bygone(["cache", "info", "--json"]).ok().json();
    assert_eq!(info()["caches"].as_array().map(Vec::len), Some(0));
    let mounted = far.mount(&[]);
    fs::read(mounted.latest(&far.tree.at("long"))).unwrap();
    let shown = info();
    let cache = &shown["caches"][0];
    assert!(cache["bytes"].as_u64() > Some(6_000_000) && cache["volumes"].as_u64() > Some(1), "{shown}");
    assert_eq!(cached(&mounted.latest(&far.tree.at("long"))), "yes");
    let text = far.site.bygone(["cache", "info"]).ok();
    assert!(text.text().contains(cache["directory"].as_str().unwrap()), "{text}");

    let id = &cache["repository"].as_str().unwrap()[..6];
    far.site.bygone(["cache", "clear", "ffff00"]).ended_with(1).complains_of(&["bygone cache info"]);
    far.site.bygone(["cache", "clear"]).ended_with(2);
    let cleared = far.site.bygone(["cache", "clear", id, "--json"]).ok().json();
    // Fetches that were under way have arrived since.
    assert!(cleared["cleared"]["bytes"].as_u64() >= cache["bytes"].as_u64(), "{cleared}");
    assert_eq!(info()["caches"][0]["bytes"].as_u64(), Some(0));
    assert_eq!(cached(&mounted.latest(&far.tree.at("long"))), "no", "what is in memory is not kept");
    // The mount goes on and fills the cache again.
    compare::assert_same(far.tree.top(), &mounted.latest(far.tree.top()));
    assert!(info()["caches"][0]["bytes"].as_u64() > Some(0));
    assert!(!mounted.complaint().contains("damaged"), "{}", mounted.complaint());
    mounted.unmount();
}

#[test]
fn a_pin_interrupted_at_a_dead_store_resumes_next_time() {
    if !root() {
        return;
    }
    let far = Far::new(mixed);
    // Longer than any test runs.
    far.site.set("BYGONE_REPO", &(far.server.store("repository") + "&stall=600s"));
    let top = far.tree.top().display().to_string();
    far.server.take_asked();
    far.server.misbehave(Verb::Get, "data/", Fault::Silence, usize::MAX);
    let pinning = far.site.start(far.site.bygone_command(["pin", "--cache-free", "0", &top]));
    wait_until("it asks for data", || far.gets() > 0);
    tool(Command::new("kill").arg("-INT").arg(pinning.child.id().to_string()));
    pinning.end().ended_with(130);
    far.server.behave();
    let pinned = pin(&far, &[&top]).ok().json();
    assert!(pinned["fetched_bytes"].as_u64() > Some(9_000_000), "{pinned}");
}

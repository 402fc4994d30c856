//! Backups to a bucket are killed at a request chosen by a seed: before it, within it, or after the server has acted.
//!
//! `BYGONE_TEST_KILLS` is the number of kills, `BYGONE_TEST_SEED` the first seed.

use std::env;

use bygone_tests::fake_s3::FakeS3;
use bygone_tests::fake_s3::Fault;
use bygone_tests::program::Site;
use bygone_tests::tree::Tree;
use bygone_tests::tree::random;

use crate::site::programs;

const KILLS: u64 = 12;
/// Upper bound for markers and commits.
const SMALL_BYTES_MAX: u64 = 16 << 10;

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// One step of splitmix64.
fn scramble(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn the_next_backup_completes_a_killed_one_and_resends_little() {
    let (kills, seed) = (number("BYGONE_TEST_KILLS", KILLS), number("BYGONE_TEST_SEED", 1));
    let server = FakeS3::start();
    let site = Site::new(&programs());
    site.set_bucket(&(server.store("backups") + "&stall=600s"));
    site.bygone(["init", "--kdf-memory", "8MiB", "--volume-size", "1MiB"]).ok();
    let tree = Tree::new(&site.at("source"));
    let (mut killed, mut most) = (0, 0);
    for round in 0..kills {
        let drawn = scramble(seed ^ scramble(round));
        // Volumes go whole in one round, and in parts in the other.
        let part = if round % 2 == 0 { "0" } else { "256k" };
        site.set("BYGONE_REPO", &format!("{}&stall=600s&part={part}", server.store("backups")));
        tree.file(format!("{round}"), random(seed + round, 2_500_000));
        server.take_asked();
        let sent_before = server.bytes_in();
        let stored_before: u64 = server.objects().values().map(|bytes| bytes.len() as u64).sum();
        let fault = [Fault::SilenceBefore, Fault::SilenceWithin, Fault::Silence][usize::try_from(drawn % 3).unwrap()];
        let requests = if round % 2 == 0 { 18 } else { 36 };
        server.hold_after(usize::try_from((drawn >> 8) % requests).unwrap(), fault);
        let command =
            site.bygone_command(["--parallel".as_ref(), "1".as_ref(), "backup".as_ref(), tree.top().as_os_str()]);
        let mut started = site.start(command);
        while !server.is_held() && started.child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if server.is_held() {
            started.child.kill().unwrap();
            killed += 1;
        }
        drop(started.child.wait());
        server.behave();
        site.bygone(["--parallel".as_ref(), "1".as_ref(), "backup".as_ref(), tree.top().as_os_str()]).ok();
        assert_eq!(
            server.unfinished(),
            [""; 0],
            "round {round}, seed {seed}: the next run clears unfinished uploads away"
        );
        let stored: u64 = server.objects().values().map(|bytes| bytes.len() as u64).sum::<u64>() - stored_before;
        let sent = server.bytes_in() - sent_before;
        let twice = sent.saturating_sub(stored);
        // A volume exceeds its target size by its last block and its tail.
        let volume = server.objects().values().map(|bytes| bytes.len() as u64).max().unwrap();
        let allowed = volume + SMALL_BYTES_MAX;
        assert!(twice <= allowed, "round {round}, seed {seed}: {twice} bytes were sent twice, a volume has {volume}");
        most = most.max(twice);
        if round % 8 == 7 || round + 1 == kills {
            site.bygone(["check", "--read-data"]).ok();
        }
    }
    eprintln!("{killed} of {kills} backups were killed, seed {seed}; at most {most} bytes were sent twice");
    assert!(killed > 0);
}

//! Prints how fast frames are sealed and opened on one core: one by one by crate aes-siv, and in lanes.
//!
//! It is a measurement and not a test: `scripts/bench cipher` runs it. Both ways are measured in turn, and the fastest
//! of several rounds counts, because other work on the machine can only make a round slower.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program to look at figures")]

use std::time::Duration;
use std::time::Instant;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;

use bygone_core::crypto::Message;
use bygone_core::crypto::SealKey;
use bygone_core::crypto::TAG_BYTES;

const ROUNDS: usize = 30;
const AD: &[u8] = b"bygone/1 frame\0........";

/// What one way of doing it takes: to seal all, and to open all.
#[derive(Clone, Copy)]
struct Took {
    seal: Duration,
    open: Duration,
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// Sealing and opening by the crate, where the messages lie; its key is expanded for each, as its form demands.
fn by_the_crate(key: &[u8; 64], plain: &[Vec<u8>]) -> Took {
    let mut bytes = plain.to_vec();
    let mut tags = Vec::new();
    let cipher = || Aes256Siv::new(key.into());
    let seal = timed(|| {
        tags.extend(
            bytes.iter_mut().map(|bytes| cipher().encrypt_inout_detached([AD], bytes.as_mut_slice().into()).unwrap()),
        );
    });
    let open = timed(|| {
        for (bytes, tag) in bytes.iter_mut().zip(&tags) {
            cipher().decrypt_inout_detached([AD], bytes.as_mut_slice().into(), tag).unwrap();
        }
    });
    assert!(bytes == plain);
    Took { seal, open }
}

fn in_lanes(key: &SealKey, plain: &[Vec<u8>]) -> Took {
    let mut bytes: Vec<Vec<u8>> = plain.iter().map(|plain| [&[0; TAG_BYTES], plain.as_slice()].concat()).collect();
    let seal = timed(|| key.seal_all(messages(&mut bytes)));
    let mut opened = Vec::new();
    let open = timed(|| opened = key.open_all(messages(&mut bytes)));
    assert!(opened.iter().zip(plain).all(|(opened, plain)| opened.unwrap() == plain));
    Took { seal, open }
}

fn messages(bytes: &mut [Vec<u8>]) -> Vec<Message<'_>> {
    bytes.iter_mut().map(|bytes| Message { ad: AD, bytes }).collect()
}

fn main() {
    let bytes: [u8; 64] = std::array::from_fn(|i| i as u8);
    let key = SealKey::new(bytes);
    println!(
        "{:>10} {:>7}  {:>21}  {:>21}  {:>13}",
        "frame", "batch", "crate: seal / open", "lanes: seal / open", "ratio"
    );
    for (frame_bytes, batch) in
        [(128 << 10, 16), (128 << 10, 8), (128 << 10, 4), (128 << 10, 1), (40 << 10, 16), (40 << 10, 8)]
    {
        let plain: Vec<Vec<u8>> =
            (0..batch).map(|i| (0..frame_bytes).map(|j| (i * 7 + j * 13) as u8).collect()).collect();
        let rounds: Vec<(Took, Took)> =
            (0..ROUNDS).map(|_| (by_the_crate(&bytes, &plain), in_lanes(&key, &plain))).collect();
        let total = (frame_bytes * batch) as f64;
        let speed = |of: &dyn Fn(&(Took, Took)) -> Duration| {
            total / rounds.iter().map(of).min().unwrap_or_default().as_secs_f64() / 1e9
        };
        let (crate_seal, crate_open) = (speed(&|r| r.0.seal), speed(&|r| r.0.open));
        let (seal, open) = (speed(&|r| r.1.seal), speed(&|r| r.1.open));
        println!(
            "{:>6} KiB {batch:>7}  {:>21}  {:>21}  {:>13}",
            frame_bytes >> 10,
            format!("{crate_seal:.2} / {crate_open:.2} GB/s"),
            format!("{seal:.2} / {open:.2} GB/s"),
            format!("{:.1} / {:.1}", seal / crate_seal, open / crate_open)
        );
    }
}

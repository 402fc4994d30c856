//! `bygone recover`: rebuilds the catalog from the store alone.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::duration;
use bygone_cli::terminal::output::size;
use bygone_cli::time::utc;
use bygone_core::recover;
use bygone_core::recover::Learnt;
use bygone_core::recover::Told;
use bygone_core::recover::Work;
use bygone_core::repo::LockedRepository;

use crate::commands::Context;
use crate::commands::alarms;
use crate::select::short_id;

/// Rebuild this machine's catalog from the store, or bring it up to date
///
/// Reads commits, the ends of volumes and tree nodes, but never file content. The newest snapshots come first: they can
/// be listed and mounted while the rest is read. An interrupted run is resumed by the next one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Discard the catalog first: for a catalog that is damaged or was copied from another machine
    #[arg(long)]
    force: bool,
}

/// Time to measure before estimating.
const SAMPLE_SECONDS: f64 = 1.0;

/// An estimate of the whole time from the time that the beginning took.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    work: Work,
    /// Seconds for each request while the plan was made.
    request_seconds: f64,
    /// Requests that the store answers at a time.
    connections: usize,
    /// Seconds for everything; `None` until enough has been read.
    seconds: Option<f64>,
}

impl Estimate {
    /// Estimates after `done` in `seconds`, with `bytes` of `bytes_total` read. The rest of the bytes arrives at the rate so
    /// far. The ends of volumes are small, so each costs the time of one request.
    fn measure(&mut self, done: Work, (bytes, bytes_total): (u64, u64), seconds: f64) {
        let is_enough = seconds >= SAMPLE_SECONDS || done.volumes == self.work.volumes;
        if self.seconds.is_some() || !is_enough || bytes == 0 {
            return;
        }
        let left = bytes_total.saturating_sub(bytes) as f64 * seconds / bytes as f64;
        let tails = self.work.tails.saturating_sub(done.tails) as f64;
        let waits = tails * self.request_seconds / self.connections.max(1) as f64;
        self.seconds = Some(seconds + left.max(waits));
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let repository = context.open()?;
    let mut locked = if args.force { context.lock_anew(repository)? } else { context.lock_catalog(repository)? };
    let progress = context.progress();
    let learnt = learn(context, &mut locked);
    drop(progress);
    let (learnt, estimate, shown_seconds) = learnt?;
    let catalog = locked.repository().catalog_path().display().to_string();
    let seconds = context.seconds();
    if context.settings.json {
        let damaged = learnt.damaged.iter().map(|(object, detail)| json!({ "object": object, "detail": detail }));
        context.output.value(&json!({
            "catalog": catalog,
            "commits": learnt.commits,
            "snapshots": learnt.snapshots,
            "volumes": learnt.volumes,
            "nodes": learnt.nodes,
            "damaged": damaged.collect::<Vec<_>>(),
            "troubles": alarms::values(&learnt.troubles),
            "notes": alarms::values(&learnt.notes),
            "estimate": {
                "volumes": estimate.work.volumes,
                "bytes": estimate.work.bytes,
                "seconds": estimate.seconds,
            },
            "first_snapshot_seconds": shown_seconds,
            "seconds": seconds,
        }))?;
    } else {
        context.say(&format!(
            "read {}, {}, {} and {} in {}",
            count(learnt.snapshots, "snapshot", "snapshots"),
            count(learnt.commits, "commit", "commits"),
            count(learnt.volumes, "volume", "volumes"),
            count(learnt.nodes, "tree node", "tree nodes"),
            duration(seconds),
        ))?;
        context.say(&format!("catalog: {catalog}"))?;
        for (object, detail) in &learnt.damaged {
            context.warn(&format!("{object} cannot be read: {detail}: `bygone check` lists what is affected"));
        }
    }
    alarms::show(context, &learnt);
    Ok(match (learnt.damaged.is_empty(), learnt.troubles.is_empty()) {
        (false, _) => Exit::Damaged,
        (true, false) => Exit::Disagree,
        (true, true) => Exit::Complete,
    })
}

/// Recovers. Shows first how much there is to read, then how long it will take, and when the first snapshot can be used.
/// Also returns the estimate, and the seconds until that snapshot could be used.
fn learn(context: &mut Context, locked: &mut LockedRepository) -> Result<(Learnt, Estimate, Option<f64>)> {
    let begun = Instant::now();
    let plan = recover::plan(locked)?;
    let work = plan.work();
    // One request for each commit, and a few lists.
    let request_seconds = begun.elapsed().as_secs_f64() / (work.commits + 4) as f64;
    let connections = locked.repository().store().connections();
    let mut estimate = Estimate { work, request_seconds, connections, seconds: None };
    say(context, &format!("to read: {}, {}", count(work.volumes, "volume", "volumes"), size(work.bytes)))?;
    let begun = Instant::now();
    let mut shown_seconds = None;
    let mut written = Ok(());
    let watch = std::sync::Arc::clone(&context.watch);
    let learnt = plan.carry_out(locked, &watch, &mut |news| match news {
        Told::Done(done) => {
            let seconds = begun.elapsed().as_secs_f64();
            let is_new = estimate.seconds.is_none();
            let bytes = watch.bytes.load(Ordering::Relaxed);
            estimate.measure(done, (bytes, watch.bytes_total.load(Ordering::Relaxed)), seconds);
            if let Some(all) = estimate.seconds.filter(|_| is_new && done.volumes < work.volumes) {
                let rate = size((bytes as f64 / seconds) as u64);
                let text = format!("this takes about {} at {rate}/s", duration(all));
                keep_first(&mut written, say(context, &text));
            }
        }
        Told::Shown(snapshot) => {
            if shown_seconds.is_none() || context.settings.verbose {
                let (id, time, took) = (short_id(snapshot), utc(snapshot.time), duration(context.seconds()));
                let text = format!("snapshot {id} of {time} can be listed and mounted after {took}");
                keep_first(&mut written, say(context, &text));
            }
            shown_seconds.get_or_insert_with(|| context.seconds());
        }
    })?;
    written?;
    Ok((learnt, estimate, shown_seconds))
}

fn keep_first(first: &mut Result<()>, next: Result<()>) {
    if first.is_ok() {
        *first = next;
    }
}

/// Writes a line at once, because an estimate is useless at the end.
fn say(context: &mut Context, text: &str) -> Result<()> {
    context.say(text)?;
    context.output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_the_longer_of_transfer_and_waiting() {
        let work = Work { commits: 1, volumes: 110, bytes: 100, tails: 100 };
        let mut estimate = Estimate { work, request_seconds: 0.05, connections: 4, seconds: None };
        estimate.measure(Work { volumes: 1, bytes: 10, ..Work::default() }, (10, 100), 0.5);
        assert_eq!(estimate.seconds, None, "half a second is too short to measure by");
        estimate.measure(Work { volumes: 2, bytes: 20, ..Work::default() }, (20, 100), 1.0);
        assert_eq!(estimate.seconds, Some(5.0), "80 of 100 bytes are left");
        estimate.measure(Work { volumes: 3, bytes: 90, ..Work::default() }, (90, 100), 9.0);
        assert_eq!(estimate.seconds, Some(5.0), "an estimate stays as it was shown");
        let mut slow = Estimate { request_seconds: 1.0, seconds: None, ..estimate };
        slow.measure(Work { volumes: 2, bytes: 20, ..Work::default() }, (20, 100), 1.0);
        assert_eq!(slow.seconds, Some(26.0), "100 waits of a second, four at a time");
        let mut short = Estimate { seconds: None, ..estimate };
        short.measure(Work { volumes: 110, bytes: 100, tails: 100, ..Work::default() }, (100, 100), 0.1);
        assert_eq!(short.seconds, Some(0.1), "all is done");
    }
}

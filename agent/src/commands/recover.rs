//! `bygone recover`: the catalog from the store alone.

use serde_json::json;

use bygone_core::recover;

use super::Context;
use super::alarms;
use crate::exit::Exit;
use crate::exit::Result;
use crate::output::count;
use crate::output::duration;

/// Rebuild this machine's catalog from the store, or bring it up to date
///
/// Reads commits, the ends of volumes and tree nodes, never file content. An interrupted run is resumed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Throw the catalog away first: for one that is damaged, or was copied from another machine
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let repository = context.open()?;
    let mut locked = if args.force { context.lock_anew(repository)? } else { context.lock(repository)? };
    let progress = context.progress();
    let learnt = recover::recover(&mut locked, &context.watch);
    drop(progress);
    let learnt = learnt?;
    let catalog = locked.repository().catalog_path().display().to_string();
    let seconds = context.seconds();
    if context.globals.json {
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
            "seconds": seconds,
        }))?;
    } else {
        context.say(&format!(
            "learnt {}, {}, {} and {} in {}",
            count(learnt.snapshots, "snapshot", "snapshots"),
            count(learnt.commits, "commit", "commits"),
            count(learnt.volumes, "volume", "volumes"),
            count(learnt.nodes, "tree node", "tree nodes"),
            duration(seconds),
        ))?;
        context.say(&format!("catalog: {catalog}"))?;
        for (object, detail) in &learnt.damaged {
            context.warn(&format!("{object} cannot be read: {detail}: `bygone check` tells what it costs"));
        }
    }
    alarms::tell(context, &learnt);
    Ok(match (learnt.damaged.is_empty(), learnt.troubles.is_empty()) {
        (false, _) => Exit::Damaged,
        (true, false) => Exit::Disagree,
        (true, true) => Exit::Complete,
    })
}

//! `bygone copy` and `bygone sync`: mirror the repository to a second store.

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::duration;
use bygone_cli::terminal::output::one_line;
use bygone_cli::terminal::output::size;
use bygone_core::copy;
use bygone_core::copy::Copied;
use bygone_core::copy::CopyOptions;
use bygone_core::error::Error;
use bygone_core::recover;
use bygone_core::repo::Repository;
use bygone_core::store::Address;
use bygone_core::store::Store;
use bygone_core::store::empty::EmptyStore;
use bygone_core::store::parse_address;

use crate::commands::Context;

/// Mirror the repository to a second store
///
/// Copies what the second store does not have yet, in one direction, and deletes nothing there. Every volume is checked
/// against the SHA-256 in its name on the way. The copy is a repository with the same passphrases:
/// `bygone -r URL recover`. Use it only as a copy: do not back up to both.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the second store; it is created if missing
    #[arg(long, value_name = "URL")]
    to: String,
    /// Show what would be copied, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace objects of the copy whose size differs from the source
    #[arg(long)]
    replace_damaged: bool,
    /// Remove key slots of the copy that the repository no longer has
    #[arg(long)]
    remove_keys: bool,
}

/// `bygone copy`: copies the store as it is.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let repository = context.open()?;
    copy(args, context, &repository)
}

/// `bygone sync`: updates this machine's catalog first. This detects a store that has lost commits, which must not be
/// mirrored.
pub(super) fn run_sync(args: &Args, context: &mut Context) -> Result<Exit> {
    let mut locked = context.lock(context.open()?)?;
    for (object, detail) in recover::sync(&mut locked, &context.watch)?.damaged {
        context.warn(&format!("{object} cannot be read: {detail}: `bygone check` lists what is affected"));
    }
    copy(args, context, locked.repository())
}

fn copy(args: &Args, context: &mut Context, repository: &Repository) -> Result<Exit> {
    let to = parse_address(&args.to)?;
    let (settings, watch) = (&context.settings, &context.watch);
    let to: Arc<dyn Store> = match settings.store_by(watch, &to, Address::open) {
        // A dry run creates nothing, not even a directory, so a missing store counts as empty.
        Err(Failure::Repository(Error::NoRepository { .. })) if args.dry_run => Arc::new(EmptyStore),
        Err(Failure::Repository(Error::NoRepository { .. })) => settings.store_by(watch, &to, Address::begin)?,
        opened => opened?,
    };
    let Args { dry_run, replace_damaged, remove_keys, .. } = *args;
    let options = CopyOptions { dry_run, replace_damaged, remove_keys };
    let progress = context.progress();
    let copied = copy::copy(repository, to.as_ref(), options, &context.watch);
    drop(progress);
    let copied = copied?;
    let (seconds, address) = (context.seconds(), args.to.clone());
    if context.settings.json {
        context.output.value(&value(&copied, &address, dry_run, seconds))?;
    } else {
        for line in lines(&copied, &address, dry_run, seconds) {
            context.say(&line)?;
        }
        context.output.flush()?;
        troubles(&copied).iter().for_each(|text| context.warn(text));
    }
    Ok(exit(&copied))
}

fn exit(copied: &Copied) -> Exit {
    match (copied.damaged.is_empty(), copied.is_whole()) {
        (false, _) => Exit::Damaged,
        (true, false) => Exit::Disagree,
        (true, true) => Exit::Complete,
    }
}

fn lines(copied: &Copied, address: &str, dry_run: bool, seconds: f64) -> Vec<String> {
    let objects = format!("{} ({})", count(copied.objects, "object", "objects"), size(copied.bytes));
    let there = count(copied.there, "object was", "objects were");
    if dry_run {
        return vec![format!("dry run: {objects} would be copied to {address}, {there} already there")];
    }
    vec![format!("copied {objects} to {address} in {}, {there} already there", duration(seconds))]
}

/// Problems of the copy, one line each.
fn troubles(copied: &Copied) -> Vec<String> {
    let mut lines = Vec::new();
    for (object, detail) in &copied.damaged {
        lines.push(one_line(&format!("not copied: {object}: {detail}: `bygone check --repair` may repair it")));
    }
    for (object, detail) in &copied.damaged_copies {
        lines.push(one_line(&format!("damaged in the copy: {object}: {detail}: --replace-damaged replaces it")));
    }
    if !copied.keys_left.is_empty() {
        let slots = count(
            copied.keys_left.len() as u64,
            "key slot of the copy is no longer in the repository, but still opens the copy",
            "key slots of the copy are no longer in the repository, but still open the copy",
        );
        lines.push(format!("{slots}: use --remove-keys"));
    }
    if copied.others_left > 0 {
        lines.push(count(
            copied.others_left,
            "object of the copy is not in the repository, and stays",
            "objects of the copy are not in the repository, and stay",
        ));
    }
    lines
}

fn value(copied: &Copied, address: &str, dry_run: bool, seconds: f64) -> Value {
    let list = |objects: &[(String, String)]| {
        let list = objects.iter().map(|(object, detail)| json!({ "object": object, "detail": detail }));
        list.collect::<Vec<_>>()
    };
    json!({
        "result": exit(copied).word(),
        "to": address,
        "dry_run": dry_run,
        "objects": copied.objects,
        "bytes": copied.bytes,
        "objects_there": copied.there,
        "damaged": list(&copied.damaged),
        "damaged_copies": list(&copied.damaged_copies),
        "keys_left": copied.keys_left,
        "keys_removed": copied.keys_removed,
        "others_left": copied.others_left,
        "seconds": seconds,
    })
}

/// Opens the second store that an option names; it must hold a repository.
pub(super) fn open_second(text: &str, context: &Context) -> Result<Arc<dyn Store>> {
    context.settings.store_by(&context.watch, &parse_address(text)?, Address::open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_copy_is_reported_and_does_not_end_with_0() {
        let whole = Copied { objects: 2, bytes: 2_048, there: 1, ..Copied::default() };
        assert_eq!(
            lines(&whole, "/b", false, 1.0),
            ["copied 2 objects (2.0 KiB) to /b in 1.0 s, 1 object was already there"]
        );
        assert_eq!((exit(&whole), troubles(&whole).len()), (Exit::Complete, 0));
        let lacking = Copied { damaged: vec![("data/x".into(), "y".into())], ..Copied::default() };
        assert_eq!(exit(&lacking), Exit::Damaged);
        assert!(troubles(&lacking)[0].contains("not copied: data/x"));
        let bad = Copied { damaged_copies: vec![("data/x".into(), "y".into())], ..Copied::default() };
        assert_eq!(exit(&bad), Exit::Disagree);
        assert!(troubles(&bad)[0].contains("--replace-damaged"));
        let extra = Copied { keys_left: vec!["keys/x".into()], others_left: 2, ..Copied::default() };
        assert_eq!((exit(&extra), troubles(&extra).len()), (Exit::Complete, 2));
        assert_eq!(value(&extra, "/b", true, 1.0)["keys_left"], json!(["keys/x"]));
    }
}

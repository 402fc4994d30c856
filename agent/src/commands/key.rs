//! `bygone key`: the key slots. Each opens the repository with its own passphrase.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::Align;
use bygone_cli::terminal::output::Table;
use bygone_cli::terminal::passphrase;
use bygone_cli::terminal::passphrase::Purpose;
use bygone_cli::terminal::passphrase::Sources;
use bygone_cli::time::utc;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::id::SlotId;
use bygone_core::recover;
use bygone_core::repo::LockedRepository;
use bygone_core::repo::Repository;
use bygone_core::repo::Secret;
use bygone_core::repo::SlotRow;
use bygone_core::write;

use crate::commands::Context;
use crate::commands::init::Kdf;

/// List, add and remove passphrases
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the key slots
    List,
    /// Add a key slot with its own passphrase
    Add {
        /// Label of the key slot (default: user@host)
        #[arg(long)]
        label: Option<String>,
        #[command(flatten)]
        new: New,
    },
    /// Remove a key slot, so its passphrase no longer opens the repository
    ///
    /// A commit records the removal: if the slot comes back, it opens nothing, is never copied or repaired, and raises
    /// an alarm. The repository keeps its key, so a person who has a copy of the slot and knows its passphrase can still
    /// read everything.
    Remove {
        /// First digits of the slot's id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Change the passphrase of the key slot that this command opens the repository with
    ///
    /// Adds a key slot and removes the old one, with the same limits as `key remove`.
    Passwd {
        #[command(flatten)]
        new: New,
    },
}

/// Where a new passphrase comes from.
#[derive(Debug, clap::Args)]
struct New {
    /// Read the new passphrase from a file (default: the variable BYGONE_NEW_PASSPHRASE, or else a prompt)
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    kdf: Kdf,
}

impl New {
    fn passphrase(&self, context: &Context) -> Result<Secret> {
        let value = context.settings.new_passphrase.clone();
        let sources = Sources { file: self.new_passphrase_file.clone(), command: None, value };
        Ok(passphrase::obtain(&sources, Purpose::Create, &context.watch, context.settings.json)?.secret)
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    match &args.command {
        Command::List => list(&context.open()?, context)?,
        Command::Add { label, new } => {
            let repository = context.open()?;
            let label = label.clone().unwrap_or_else(|| context.settings.user_at_host());
            let cost = new.kdf.cost()?;
            let id = repository.slot_add(&new.passphrase(context)?, &label, context.now, cost)?;
            done(context, "added", id)?;
        }
        Command::Remove { id } => {
            let mut locked = lock(context)?;
            let id = find(id, &locked.repository().slots()?)?;
            write::slot_remove(&mut locked, id, context.now)?;
            done(context, "removed", id)?;
            context.say(KEPT)?;
        }
        Command::Passwd { new } => {
            let cost = new.kdf.cost()?;
            let mut locked = lock(context)?;
            let id = write::slot_replace(&mut locked, &new.passphrase(context)?, context.now, cost)?;
            done(context, "added", id)?;
            context.say(KEPT)?;
        }
    }
    Ok(Exit::Complete)
}

/// What removing a slot cannot do.
const KEPT: &str = "the old key slot opens nothing any more, but the repository keeps its key: with a copy of the old \
                    slot and its passphrase, everything can still be read. If somebody may have both, make a new \
                    repository";

/// Opens the repository for a commit. A catalog that is there is brought up to date first, because the commit follows
/// on what this machine has written; a machine without one begins a chain.
fn lock(context: &mut Context) -> Result<LockedRepository> {
    let mut locked = context.lock(context.open()?)?;
    if !locked.catalog().read().heads()?.is_empty() {
        recover::sync(&mut locked, &context.watch)?;
    }
    Ok(locked)
}

fn done(context: &mut Context, verb: &str, id: SlotId) -> Result<()> {
    if context.settings.json {
        return context.output.value(&json!({ verb: id.to_hex() }));
    }
    context.say(&format!("{verb} key slot {id}"))
}

fn list(repository: &Repository, context: &mut Context) -> Result<()> {
    let slots = repository.slots()?;
    let fingerprint = repository.keys().fingerprint();
    if context.settings.json {
        let slots = slots.iter().map(|slot| {
            json!({
                "id": slot.id.to_hex(),
                "label": slot.info.as_ref().map(|info| &info.label),
                "created": slot.info.as_ref().map(|info| utc(info.created)),
                "current": slot.is_current,
            })
        });
        return context.output.value(&json!({ "fingerprint": fingerprint, "slots": slots.collect::<Vec<_>>() }));
    }
    let mut table =
        Table::new(&[("", Align::Left), ("ID", Align::Left), ("CREATED", Align::Left), ("LABEL", Align::Left)]);
    for slot in &slots {
        let (created, label) = match &slot.info {
            Some(info) => (utc(info.created), printable(info.label.as_bytes())),
            None => ("?".to_owned(), "(does not authenticate)".to_owned()),
        };
        table.row(vec![if slot.is_current { "*" } else { "" }.to_owned(), slot.id.to_hex(), created, label]);
    }
    for line in table.lines() {
        context.output.line(&line)?;
    }
    context.say(&format!("fingerprint of the repository's key: {fingerprint}"))
}

/// The slot whose id starts with `text`.
fn find(text: &str, slots: &[SlotRow]) -> Result<SlotId> {
    let digits = text.to_ascii_lowercase();
    let fitting: Vec<SlotId> = slots.iter().map(|slot| slot.id).filter(|id| id.to_hex().starts_with(&digits)).collect();
    match fitting.as_slice() {
        [id] => Ok(*id),
        [] => {
            let what = format!("key slot {}", printable(text.as_bytes()));
            Err(Error::NotFound { what, hint: "list key slots with `bygone key list`" }.into())
        }
        _ => Err(Failure::Usage(format!("{text} matches several key slots: give more digits of the id"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_by_an_unambiguous_prefix_of_its_id() {
        let row = |first: u8| {
            let mut id = [0xaa; 16];
            id[1] = first;
            SlotRow { id: SlotId(id), info: None, is_current: false }
        };
        let slots = [row(1), row(2)];
        assert_eq!(find("aa02", &slots).unwrap(), slots[1].id);
        assert_eq!(find("AA01", &slots).unwrap(), slots[0].id);
        assert!(matches!(find("aa", &slots), Err(Failure::Usage(_))));
        assert!(matches!(find("bb", &slots), Err(Failure::Repository(Error::NotFound { .. }))));
    }
}

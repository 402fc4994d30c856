//! `bygone affected`: the files of all snapshots that need a volume.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::insert_bytes;
use bygone_cli::terminal::output::one_line;
use bygone_cli::terminal::output::size;
use bygone_core::catalog::Catalog;
use bygone_core::catalog::VolumeRow;
use bygone_core::check;
use bygone_core::check::Affected;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::objects::volume_object;

use crate::commands::Context;

/// Fewest digits that name a volume.
const DIGITS_MIN: usize = 4;

/// List the files of all snapshots that need a volume
///
/// Reads this machine's catalog and nothing else. Without VOLUME, lists what is lost with the volumes that a check has
/// found lost. Ends with 14 if anything is lost that a snapshot needs, and with 0 for a volume that is there.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Volume: its name, the first digits of its name (at least 4), or its object
    #[arg(value_name = "VOLUME")]
    volume: Option<String>,
}

/// Sums of what has been listed so far.
#[derive(Default)]
struct Sums {
    paths: u64,
    bytes: u64,
    listed: Vec<Value>,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let catalog = context.open()?.catalog()?;
    catalog.renew()?;
    let volume = args.volume.as_deref().map(|text| find(&catalog, text)).transpose()?;
    let mut sums = Sums::default();
    let mut failed = None;
    let watch = std::sync::Arc::clone(&context.watch);
    let done = check::affected(&catalog, volume.as_ref(), &watch, &mut |affected| {
        sums.paths += 1;
        sums.bytes += affected.bytes;
        let written = if context.settings.json {
            sums.listed.push(value(&affected));
            Ok(())
        } else {
            context.output.line(&line(&affected))
        };
        match written {
            Ok(()) if !context.output.is_closed() => Ok(()),
            other => {
                failed = Some(other);
                Err(Error::Cancelled)
            }
        }
    });
    match failed {
        Some(written) => written?,
        None => done?,
    }
    let state = volume.as_ref().map(|volume| volume.state.name());
    let exit = match &volume {
        Some(volume) if volume.state != bygone_core::catalog::VolumeState::Lost => Exit::Complete,
        _ if sums.paths == 0 => Exit::Complete,
        _ => Exit::Damaged,
    };
    if context.settings.json {
        context.output.value(&json!({
            "volume": volume.as_ref().map(|volume| volume_object(volume.kind, volume.name).to_string()),
            "state": state,
            "affected": sums.listed,
            "affected_count": sums.paths,
            "bytes": sums.bytes,
        }))?;
        return Ok(exit);
    }
    let paths = count(sums.paths, "path", "paths");
    let end = match (&volume, state) {
        (Some(volume), Some(state)) => {
            let object = volume_object(volume.kind, volume.name);
            format!("{object} ({state}): needed by {paths}, {}", size(sums.bytes))
        }
        _ => format!("lost: {paths}, {}", size(sums.bytes)),
    };
    context.say(&end)?;
    Ok(exit)
}

/// The one volume that `text` names.
fn find(catalog: &Catalog, text: &str) -> Result<VolumeRow> {
    let digits = text.rsplit('/').next().unwrap_or_default();
    if digits.len() < DIGITS_MIN || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let text = one_line(text);
        return Err(Failure::Usage(format!(
            "{text:?} does not name a volume: give at least {DIGITS_MIN} digits of its name"
        )));
    }
    let digits = digits.to_ascii_lowercase();
    let mut found: Vec<VolumeRow> =
        catalog.volumes()?.into_iter().filter(|volume| volume.name.to_hex().starts_with(&digits)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(volume), true) => Ok(volume),
        (Some(_), false) => {
            Err(Failure::Usage(format!("{digits} matches several volumes: give more digits of the name")))
        }
        (None, _) => {
            let hint = "`bygone check` lists the volumes that are lost";
            Err(Error::NotFound { what: format!("a volume whose name begins with {digits}"), hint }.into())
        }
    }
}

fn line(affected: &Affected) -> String {
    let snapshot: String = affected.snapshot.to_hex().chars().take(8).collect();
    format!("{snapshot}:{}: {}", printable(&affected.path), affected.reason)
}

/// An affected path in JSON.
pub(super) fn value(affected: &Affected) -> Value {
    let mut object = Map::new();
    object.insert("snapshot".to_owned(), json!(affected.snapshot.to_hex()));
    insert_bytes(&mut object, "path", &affected.path);
    object.insert("bytes".to_owned(), json!(affected.bytes));
    object.insert("reason".to_owned(), json!(affected.reason));
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bygone_core::id::SnapshotId;

    #[test]
    fn a_line_has_the_snapshot_the_path_and_the_loss() {
        let id = SnapshotId([0xab; 16]);
        let affected = Affected { snapshot: id, path: b"/a\xff".to_vec(), bytes: 7, reason: "7 bytes".into() };
        assert_eq!(line(&affected), "abababab:/a\\xff: 7 bytes");
        assert_eq!(value(&affected)["bytes"], 7);
        assert_eq!(value(&affected)["path_hex"], "2f61ff");
    }
}

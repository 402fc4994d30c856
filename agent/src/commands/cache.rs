//! `bygone cache`: what mounts and `bygone pin` keep of far stores on this machine.
//!
//! It needs neither the store nor a passphrase: cached content is sealed, and may be discarded at any time.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::Align;
use bygone_cli::terminal::output::Table;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::number;
use bygone_cli::terminal::output::size;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::id::RepositoryId;
use bygone_core::read::CacheUsage;
use bygone_core::read::cache_clear;
use bygone_core::read::cache_usage;
use bygone_core::repo::Repository;

use crate::commands::Context;

/// Show or clear the caches of far stores
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the cache of each repository: its volumes, size and directory
    Info,
    /// Clear caches, even while mounts use them: mounts fetch again what they need
    Clear {
        /// First digits of the repository's id
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<String>,
        /// Clear the caches of all repositories
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Where this machine caches a repository.
pub(super) fn dir(context: &Context, repository: &Repository) -> Result<PathBuf> {
    let id = repository.catalog_dir().file_name().unwrap_or_default();
    Ok(context.settings.cache_base()?.join(id))
}

/// The cache of one repository.
struct Cache {
    id: String,
    dir: PathBuf,
    usage: CacheUsage,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let base = context.settings.cache_base()?;
    let caches = caches(&base)?;
    match &args.command {
        Command::Info => info(&base, &caches, context)?,
        Command::Clear { ids, .. } => {
            let chosen = ids.iter().map(|id| find(id, &caches)).collect::<Result<Vec<_>>>()?;
            let chosen = if ids.is_empty() { caches.iter().collect() } else { chosen };
            let mut cleared = CacheUsage::default();
            for Cache { dir, .. } in chosen {
                let usage = cache_clear(dir).map_err(Failure::machine("empty", dir.display()))?;
                cleared = CacheUsage { volumes: cleared.volumes + usage.volumes, bytes: cleared.bytes + usage.bytes };
            }
            if context.settings.json {
                context.output.value(&json!({ "cleared": usage_value(&cleared) }))?;
            } else {
                let volumes = count(cleared.volumes, "volume", "volumes");
                context.say(&format!("cleared {} of {volumes}", size(cleared.bytes)))?;
            }
        }
    }
    Ok(Exit::Complete)
}

/// All caches below `base`, by id.
fn caches(base: &Path) -> Result<Vec<Cache>> {
    let failed = || Failure::machine("read", base.display());
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    let mut caches = Vec::new();
    for entry in entries {
        let dir = entry.map_err(failed())?.path();
        let id = dir.file_name().and_then(|name| name.to_str()).and_then(RepositoryId::from_hex);
        if let Some(id) = id.filter(|_| dir.is_dir()) {
            let usage = cache_usage(&dir).map_err(Failure::machine("read", dir.display()))?;
            caches.push(Cache { id: id.to_hex(), dir, usage });
        }
    }
    caches.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(caches)
}

fn find<'a>(text: &str, caches: &'a [Cache]) -> Result<&'a Cache> {
    let digits = text.to_ascii_lowercase();
    let fitting: Vec<&Cache> = caches.iter().filter(|cache| cache.id.starts_with(&digits)).collect();
    match fitting.as_slice() {
        [cache] => Ok(cache),
        [] => {
            let what = format!("a cache of repository {}", printable(text.as_bytes()));
            Err(Error::NotFound { what, hint: "list caches with `bygone cache info`" }.into())
        }
        _ => Err(Failure::Usage(format!("{text} matches several repositories: give more digits of the id"))),
    }
}

fn info(base: &Path, caches: &[Cache], context: &mut Context) -> Result<()> {
    if context.settings.json {
        let value = |cache: &Cache| {
            let mut value = usage_value(&cache.usage);
            value["repository"] = json!(cache.id);
            value["directory"] = json!(cache.dir.to_string_lossy());
            value
        };
        let caches: Vec<Value> = caches.iter().map(value).collect();
        return context.output.value(&json!({ "directory": base.to_string_lossy(), "caches": caches }));
    }
    if caches.is_empty() {
        return context.say(&format!("there are no caches in {}", base.display()));
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[("REPOSITORY", left), ("VOLUMES", right), ("SIZE", right), ("DIRECTORY", left)]);
    for Cache { id, dir, usage } in caches {
        table.row(vec![
            id.clone(),
            number(usage.volumes),
            size(usage.bytes),
            printable(dir.as_os_str().as_encoded_bytes()),
        ]);
    }
    table.lines().iter().try_for_each(|line| context.output.line(line))
}

fn usage_value(usage: &CacheUsage) -> Value {
    json!({ "volumes": usage.volumes, "bytes": usage.bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_named_by_a_repository_id_are_caches() {
        let base = tempfile::tempdir().unwrap();
        let id = |digit: &str| digit.repeat(32);
        for name in [id("a"), id("b"), "mine".to_owned()] {
            fs::create_dir(base.path().join(&name)).unwrap();
            fs::write(base.path().join(&name).join("0".repeat(64)), [1; 5_000]).unwrap();
        }
        fs::write(base.path().join(id("c")), "").unwrap();
        let found = caches(base.path()).unwrap();
        assert_eq!(found.iter().map(|cache| cache.id.clone()).collect::<Vec<_>>(), [id("a"), id("b")]);
        assert_eq!((found[0].usage.volumes, found[0].usage.bytes), (1, 8_192));
        assert_eq!(find("AA", &found).unwrap().id, id("a"));
        assert!(matches!(find("c", &found), Err(Failure::Repository(Error::NotFound { .. }))));
        assert!(matches!(find("", &found), Err(Failure::Usage(_))));
        assert!(caches(&base.path().join("none")).unwrap().is_empty());
    }
}

//! `bygone snapshots`: lists the snapshots.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::Align;
use bygone_cli::terminal::output::Table;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::number;
use bygone_cli::terminal::output::size;
use bygone_cli::time::utc;
use bygone_core::entry::printable;
use bygone_core::facts::Facts;
use bygone_core::facts::RunRules;
use bygone_core::id::hex;
use bygone_core::snapshot::Snapshot;

use crate::commands::Context;
use crate::select::short_id;

/// List the snapshots, oldest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only snapshots of this host
    #[arg(long)]
    host: Option<String>,
    /// Only snapshots with this tag; if repeated, with all of the tags
    #[arg(long)]
    tag: Vec<String>,
    /// Only snapshots that contain this path
    #[arg(long)]
    path: Option<OsString>,
    /// Only the newest N snapshots
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let catalog = context.open()?.catalog()?;
    let all = catalog.snapshots()?.into_iter().map(|row| row.snapshot);
    let mut wanted: Vec<Snapshot> = all.filter(|snapshot| is_wanted(args, snapshot)).collect();
    if let Some(latest) = args.latest {
        wanted.drain(..wanted.len().saturating_sub(latest));
    }
    let ahead = wanted.iter().filter(|snapshot| snapshot.is_from_the_future(context.now)).count() as u64;
    if ahead > 0 {
        let what = count(ahead, "snapshot is", "snapshots are");
        context.warn(&format!("{what} later than now, made by a wrong clock: `latest` passes over such"));
    }
    if context.settings.json {
        context.output.value(&wanted.iter().map(value).collect::<Vec<_>>())?;
        return Ok(Exit::Complete);
    }
    for line in table(&wanted, context.settings.verbose).lines() {
        context.output.line(&line)?;
    }
    Ok(Exit::Complete)
}

fn is_wanted(args: &Args, snapshot: &Snapshot) -> bool {
    let holds = |path: &OsString| snapshot.paths.iter().any(|of| is_below(path.as_bytes(), of));
    args.host.as_ref().is_none_or(|host| *host == snapshot.host)
        && args.tag.iter().all(|tag| snapshot.tags.contains(tag))
        && args.path.as_ref().is_none_or(holds)
}

/// True if `path` is `folder` or below it; slashes at the end are ignored.
pub(super) fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let trim = |path| -> &[u8] {
        let mut path: &[u8] = path;
        while let Some(shorter) = path.strip_suffix(b"/") {
            path = shorter;
        }
        path
    };
    trim(path).strip_prefix(trim(folder)).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn table(snapshots: &[Snapshot], has_descriptions: bool) -> Table {
    let left = Align::Left;
    let mut columns = vec![
        ("ID", left),
        ("TIME", left),
        ("HOST", left),
        ("TAGS", left),
        ("PATHS", left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
    ];
    if has_descriptions {
        columns.push(("DESCRIPTION", left));
    }
    let mut table = Table::new(&columns);
    for snapshot in snapshots {
        let mut paths: Vec<String> = snapshot.paths.iter().map(|path| printable(path)).collect();
        if !snapshot.is_readable() {
            paths.push("(made by a newer bygone)".to_owned());
        }
        let mut row = vec![
            short_id(snapshot),
            utc(snapshot.time),
            printable(snapshot.host.as_bytes()),
            printable(snapshot.tags.join(",").as_bytes()),
            paths.join(" "),
            number(snapshot.totals.files),
            size(snapshot.totals.bytes),
        ];
        if has_descriptions {
            row.push(printable(snapshot.facts().description.unwrap_or_default().as_bytes()));
        }
        table.row(row);
    }
    table
}

/// A snapshot in JSON.
fn value(snapshot: &Snapshot) -> Value {
    let totals = &snapshot.totals;
    let mut object = Map::new();
    let mut add = |key: &str, value: Value| object.insert(key.to_owned(), value);
    add("id", json!(snapshot.id.to_hex()));
    add("short_id", json!(short_id(snapshot)));
    add("time", json!(utc(snapshot.time)));
    add("host", json!(snapshot.host));
    add("user", json!(snapshot.user));
    add("tags", json!(snapshot.tags));
    add("parent", json!(snapshot.parent.map(|id| id.to_hex())));
    add("program", json!(snapshot.program));
    add("files", json!(totals.files));
    add("directories", json!(totals.directories));
    add("others", json!(totals.others));
    add("bytes", json!(totals.bytes));
    add("bytes_new", json!(totals.bytes_new));
    add("unreadable", json!(totals.unreadable));
    let Facts {
        sources,
        excludes,
        rules,
        end,
        files,
        changed_while_read,
        description,
        is_protected,
        zone_offset,
        exit,
        gone,
    } = snapshot.facts();
    add("description", json!(description));
    add("end", json!(end.map(utc)));
    add("files_new", json!(files.map(|files| files.new)));
    add("files_changed", json!(files.map(|files| files.changed)));
    add("files_unchanged", json!(files.map(|files| files.unchanged)));
    add("changed_while_read", json!(changed_while_read));
    add("gone", json!(gone));
    add("zone_offset", json!(zone_offset));
    add("exit", json!(exit));
    add("protected", json!(is_protected));
    add("rules", json!(rules.as_ref().map(rules_value)));
    if let Err(newer) = snapshot.check_readable() {
        add("unusable", json!(newer.to_string()));
    }
    insert_texts(&mut object, "paths", Some(&snapshot.paths));
    insert_texts(&mut object, "sources", sources.as_deref());
    insert_texts(&mut object, "excludes", excludes.as_deref());
    Value::Object(object)
}

/// Adds a list of raw bytes: as texts under `key` and, if one of them is not UTF-8, all of them exactly under `key` +
/// `_hex`.
fn insert_texts(object: &mut Map<String, Value>, key: &str, all: Option<&[Vec<u8>]>) {
    let texts = all.map(|all| all.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>());
    object.insert(key.to_owned(), json!(texts));
    if let Some(all) = all.filter(|all| all.iter().any(|bytes| std::str::from_utf8(bytes).is_err())) {
        object.insert(format!("{key}_hex"), all.iter().map(|bytes| hex(bytes)).collect());
    }
}

fn rules_value(rules: &RunRules) -> Value {
    let mut object = Map::new();
    let mut add = |key: &str, value: Value| object.insert(key.to_owned(), value);
    add("exclude_caches", json!(rules.caches));
    add("one_file_system", json!(rules.one_file_system));
    add("force", json!(rules.force));
    add("ignore_ctime", json!(rules.ignore_ctime));
    add("ignore_inode", json!(rules.ignore_inode));
    add("exclude_larger_than", json!(rules.larger_than));
    insert_texts(&mut object, "exclude_if_present", Some(&rules.if_present));
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::snapshot;
    use bygone_core::attributes::Attribute;

    #[test]
    fn a_row_has_all_columns_and_no_control_characters() {
        let mut one = snapshot([0xab; 16], 0, "h\x1b", &["/home", "/etc"]);
        one.paths.push(b"/\xff".to_vec());
        let lines = table(&[one], false).lines();
        assert_eq!(lines[1], "abababab  1970-01-01T00:00:00Z  h\\x1b  daily  /home /etc /\\xff  1,234  5.0 MiB");
    }

    #[test]
    fn json_has_full_ids_and_exact_paths() {
        let mut one = snapshot([0xab; 16], 0, "h", &["/a"]);
        let object = value(&one);
        assert_eq!(object["id"], "ab".repeat(16));
        assert_eq!(object["time"], "1970-01-01T00:00:00Z");
        assert_eq!((&object["paths"], &object["parent"]), (&json!(["/a"]), &Value::Null));
        assert!(object.get("paths_hex").is_none(), "text is exact");
        one.paths = vec![b"/\xff".to_vec()];
        assert_eq!(value(&one)["paths_hex"], json!(["2fff"]));
        let facts = Facts { sources: Some(vec![b"a".to_vec(), b"\xff".to_vec()]), ..Facts::default() };
        one.attributes = facts.attributes();
        assert_eq!(value(&one)["sources_hex"], json!(["61", "ff"]));
        assert!(value(&one).get("excludes_hex").is_none());
    }

    #[test]
    fn what_a_newer_bygone_says_is_shown_as_far_as_it_is_known() {
        let mut one = snapshot([0xab; 16], 0, "h", &["/a"]);
        let facts =
            Facts { description: Some("before\x1b".into()), sources: Some(vec![b"a".to_vec()]), ..Facts::default() };
        one.attributes = facts.attributes();
        assert!(table(&[one.clone()], true).lines()[1].ends_with("5.0 MiB  before\\x1b"));
        let object = value(&one);
        assert_eq!((&object["sources"], &object["rules"]), (&json!(["a"]), &Value::Null));
        assert!(object.get("unusable").is_none());
        assert_eq!(
            (&object["protected"], &object["exit"], &object["gone"]),
            (&json!(false), &Value::Null, &Value::Null)
        );
        one.attributes.set(Attribute { tag: 8, is_critical: true, value: vec![] });
        assert_eq!((&value(&one)["protected"], one.is_readable()), (&json!(true), true));
        one.attributes.set(Attribute { tag: 77, is_critical: true, value: vec![] });
        assert!(table(&[one.clone()], false).lines()[1].contains("/a (made by a newer bygone)"));
        let text = "was made by a newer bygone: it needs attribute 77 of snapshots; get a newer bygone";
        assert!(value(&one)["unusable"].as_str().is_some_and(|unusable| unusable.ends_with(text)));
    }

    #[test]
    fn a_path_is_below_its_folders_and_no_similar_name() {
        assert!(is_below(b"/home/u", b"/home"));
        assert!(is_below(b"/home/", b"/home"));
        assert!(is_below(b"/x", b"/"));
        assert!(!is_below(b"/homes", b"/home"));
        assert!(!is_below(b"/", b"/home"));
    }
}

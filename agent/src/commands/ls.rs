//! `bygone ls`: lists the content of a snapshot. Reads only the catalog, never the store's volumes.

use std::ffi::OsString;
use std::sync::Arc;

use nix::sys::stat::major;
use nix::sys::stat::minor;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output;
use bygone_cli::terminal::output::Output;
use bygone_cli::terminal::output::insert_bytes;
use bygone_cli::time::utc;
use bygone_cli::time::utc_exact;
use bygone_core::entry::Entry;
use bygone_core::entry::FileType;
use bygone_core::entry::Kind;
use bygone_core::entry::Meta;
use bygone_core::entry::Withheld;
use bygone_core::entry::printable;
use bygone_core::id::NodeId;
use bygone_core::read::Order;
use bygone_core::read::Reader;
use bygone_core::read::View;

use crate::commands::Context;
use crate::select::Found;
use crate::select::Selector;

/// Entries read from the catalog at once.
const ENTRIES_AT_ONCE: usize = 1_024;
const ACL_NAME: &[u8] = b"system.posix_acl_access";

/// List the content of a snapshot
///
/// Names are printed as they are, except on a terminal, where control characters and bytes that are not UTF-8 are escaped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Snapshot, and optionally a path in it: latest, latest:/etc, an id, or a time
    #[arg(value_name = "SNAP[:PATH]")]
    what: OsString,
    /// Show the metadata of each entry, with times in UTC
    #[arg(short, long)]
    long: bool,
    /// List subdirectories too, each entry with its whole path
    #[arg(short = 'R', long)]
    recursive: bool,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let selector = Selector::parse(&args.what)?;
    let repository = context.open()?;
    let view = Reader::new(&repository, 0, Order::Any)?.view()?;
    let snapshot = selector.snapshot(super::snapshots_of(&view)?, context.now)?;
    let found = selector.find(&view, &snapshot)?;
    let look = Look { long: args.long, whole_paths: args.recursive, raw: !output::stdout_is_terminal() };
    let mut listing = Listing { look, output: &mut context.output, count: 0 };
    listing.begin()?;
    match found {
        Found::Entry(entry) => {
            let path = selector.path_bytes();
            let above = path.len() - entry.name.as_bytes().len() - 1;
            listing.entry(path.get(..above).unwrap_or_default(), &entry)?;
        }
        Found::Directory { node, .. } => {
            let mut stack = vec![(selector.path_bytes(), node)];
            while let Some((path, node)) = stack.pop() {
                context.watch.check()?;
                let below = listing.directory(&view, &path, node)?;
                if listing.output.is_closed() {
                    break;
                }
                if args.recursive {
                    stack.extend(below.into_iter().rev());
                }
            }
        }
    }
    listing.end()?;
    Ok(Exit::Complete)
}

/// How to show entries.
#[derive(Debug, Clone, Copy)]
struct Look {
    long: bool,
    whole_paths: bool,
    /// Print names as they are.
    raw: bool,
}

struct Listing<'a> {
    look: Look,
    output: &'a mut Output,
    count: u64,
}

impl Listing<'_> {
    fn begin(&mut self) -> Result<()> {
        if self.output.json { self.output.bytes(b"[") } else { Ok(()) }
    }

    fn end(&mut self) -> Result<()> {
        if self.output.json { self.output.bytes(b"]\n") } else { Ok(()) }
    }

    /// Lists a directory; returns the directories in it, in order.
    fn directory(&mut self, view: &View, path: &[u8], node: NodeId) -> Result<Vec<(Vec<u8>, NodeId)>> {
        let directory = view.directory(node)?;
        let (mut below, mut ordinal) = (Vec::new(), 0);
        while ordinal < directory.len() && !self.output.is_closed() {
            for item in directory.from(view, ordinal, ENTRIES_AT_ONCE)? {
                ordinal = item.ordinal + 1;
                self.entry(path, &item.entry)?;
                let node = item.entry.directory();
                below.extend(node.map(|node| ([path, b"/", item.entry.name.as_bytes()].concat(), node)));
            }
        }
        Ok(below)
    }

    fn entry(&mut self, above: &[u8], entry: &Arc<Entry>) -> Result<()> {
        self.count += 1;
        if self.output.json {
            if self.count > 1 {
                self.output.bytes(b",\n")?;
            }
            let path = [above, b"/", entry.name.as_bytes()].concat();
            let text = value(&path, entry).to_string();
            return self.output.bytes(text.as_bytes());
        }
        let mut line = self.look.line(above, entry);
        line.push(b'\n');
        self.output.bytes(&line)
    }
}

impl Look {
    fn line(self, above: &[u8], entry: &Entry) -> Vec<u8> {
        let show = |bytes: &[u8]| if self.raw { bytes.to_vec() } else { printable(bytes).into_bytes() };
        let mut line = if self.long { long(entry).into_bytes() } else { Vec::new() };
        if self.whole_paths {
            line.extend(show(above));
            line.push(b'/');
        }
        line.extend(show(entry.name.as_bytes()));
        if let (true, Kind::Symlink(target)) = (self.long, &entry.kind) {
            line.extend(b" -> ");
            line.extend(show(target));
        }
        if let (true, Some(note)) = (self.long, note(entry)) {
            line.extend(format!(" ({note})").into_bytes());
        }
        line
    }
}

/// Everything before the name in a long line.
fn long(entry: &Entry) -> String {
    let meta = &entry.meta;
    let owner = |name: &[u8], number: u32| if name.is_empty() { number.to_string() } else { printable(name) };
    let (user, group) = (owner(&meta.owner.user, meta.owner.uid), owner(&meta.owner.group, meta.owner.gid));
    let size = match rdev(&entry.kind) {
        Some(rdev) => format!("{}, {}", major(rdev), minor(rdev)),
        None => meta.size.to_string(),
    };
    let acl = if meta.xattrs.iter().any(|xattr| xattr.name == ACL_NAME) { "+" } else { " " };
    let (mode, time) = (permissions(entry.file_type(), meta.mode), utc(meta.mtime));
    format!("{mode}{acl} {:>3} {user:<8} {group:<8} {size:>10} {time} ", meta.nlink)
}

/// Type and permissions in the form of `ls -l`.
fn permissions(file_type: Option<FileType>, mode: u16) -> String {
    let letter = match file_type {
        Some(FileType::File) => '-',
        Some(FileType::Directory) => 'd',
        Some(FileType::Symlink) => 'l',
        Some(FileType::Fifo) => 'p',
        Some(FileType::Socket) => 's',
        Some(FileType::CharDevice) => 'c',
        Some(FileType::BlockDevice) => 'b',
        None => '?',
    };
    let mut text = String::from(letter);
    for (shift, special, letters) in [(6, 0o4000, ('s', 'S')), (3, 0o2000, ('s', 'S')), (0, 0o1000, ('t', 'T'))] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letters.0,
            (true, false) => letters.1,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn rdev(kind: &Kind) -> Option<u64> {
    match kind {
        Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => Some(*rdev),
        _ => None,
    }
}

/// What people should know about an entry besides its metadata.
fn note(entry: &Entry) -> Option<String> {
    match entry.withheld() {
        Some(withheld) => Some(withheld.to_string()),
        None => entry.may_lack_entries().then(|| "it may lack entries: its listing broke off".to_owned()),
    }
}

fn word(file_type: FileType) -> &'static str {
    match file_type {
        FileType::File => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharDevice => "char-device",
        FileType::BlockDevice => "block-device",
    }
}

/// The kind of an entry. One that was not read is of a kind of its own, so that no program takes it for what it was.
fn kind_word(entry: &Entry) -> &'static str {
    match entry.withheld() {
        None => entry.file_type().map_or("unknown", word),
        Some(Withheld::Unreadable(_)) => "unreadable",
        Some(Withheld::NewerKind(_) | Withheld::NewerAttribute(_)) => "newer",
    }
}

/// An entry in JSON.
fn value(path: &[u8], entry: &Entry) -> Value {
    let Meta { mode, owner, mtime, ctime, birth, size, nlink, device, inode, xattrs, flags: _ } = &entry.meta;
    let mut object = Map::new();
    insert_bytes(&mut object, "path", path);
    let fixed = json!({
        "kind": kind_word(entry),
        "mode": format!("{mode:04o}"),
        "uid": owner.uid,
        "gid": owner.gid,
        "user": String::from_utf8_lossy(&owner.user),
        "group": String::from_utf8_lossy(&owner.group),
        "size": size,
        "mtime": utc_exact(*mtime),
        "ctime": utc_exact(*ctime),
        "btime": birth.map(utc_exact),
        "nlink": nlink,
        "device": device,
        "inode": inode,
        "xattrs": xattrs.iter().map(|xattr| String::from_utf8_lossy(&xattr.name)).collect::<Vec<_>>(),
    });
    if let Value::Object(fixed) = fixed {
        object.extend(fixed);
    }
    if entry.withheld().is_some() {
        object.insert("was".to_owned(), json!(entry.file_type().map(word)));
    }
    if let Some(Withheld::Unreadable(errno)) = entry.withheld() {
        object.insert("errno".to_owned(), json!(errno));
    }
    if let Some(note) = note(entry) {
        object.insert("note".to_owned(), json!(note));
    }
    if let Kind::Symlink(target) = &entry.kind {
        insert_bytes(&mut object, "target", target);
    }
    if let Some(rdev) = rdev(&entry.kind) {
        object.insert("major".to_owned(), json!(major(rdev)));
        object.insert("minor".to_owned(), json!(minor(rdev)));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::entry;
    use bygone_core::entry::Content;
    use bygone_core::entry::Name;
    use bygone_core::entry::Xattr;

    fn line(look: Look, entry: &Entry) -> String {
        String::from_utf8_lossy(&look.line(b"/a\n", entry)).into_owned()
    }

    #[test]
    fn permissions_look_as_in_ls() {
        for (mode, text) in [
            (0o644, "-rw-r--r--"),
            (0o7777, "-rwsrwsrwt"),
            (0o7000, "---S--S--T"),
            (0o4755, "-rwsr-xr-x"),
            (0, "----------"),
        ] {
            assert_eq!(permissions(Some(FileType::File), mode), text);
        }
        assert_eq!(permissions(Some(FileType::Directory), 0o755), "drwxr-xr-x");
        assert_eq!(permissions(None, 0), "?---------");
    }

    #[test]
    fn names_are_raw_in_a_pipe_and_harmless_on_a_terminal() {
        let mut link = entry("x", Kind::Symlink(b"to\x1b".to_vec()));
        link.name = Name::new(b"\xff").unwrap();
        let raw = Look { long: false, whole_paths: true, raw: true };
        assert_eq!(raw.line(b"/a", &link), b"/a/\xff");
        let shown = Look { long: true, whole_paths: true, raw: false };
        assert!(line(shown, &link).ends_with(" /a\\n/\\xff -> to\\x1b"), "{}", line(shown, &link));
    }

    #[test]
    fn a_long_line_looks_as_in_ls() {
        let look = Look { long: true, whole_paths: false, raw: false };
        let device = entry("null", Kind::CharDevice { rdev: 0x103 });
        assert_eq!(line(look, &device), "crw-r--r--    1 0        0              1, 3 1970-01-01T00:00:00Z null");
        let mut file = entry("f", Kind::File(Content::Inline(b"abc".to_vec())));
        file.meta.xattrs = vec![Xattr { name: ACL_NAME.to_vec(), value: Vec::new() }];
        assert_eq!(line(look, &file), "-rw-r--r--+   1 0        0                 3 1970-01-01T00:00:00Z f");
    }

    #[test]
    fn what_could_not_be_read_is_marked_and_of_a_kind_of_its_own() {
        let look = Look { long: true, whole_paths: false, raw: false };
        let lost = entry("d", Kind::Unreadable { errno: 13, was: Some(FileType::Directory) });
        let shown = line(look, &lost);
        assert!(
            shown.starts_with("drw-r--r-- ")
                && shown.ends_with(" d (it could not be read when it was backed up: Permission denied (os error 13))"),
            "{shown}"
        );
        let object = value(b"/d", &lost);
        assert_eq!(
            (&object["kind"], &object["was"], &object["errno"]),
            (&json!("unreadable"), &json!("directory"), &json!(13))
        );
        let newer = value(b"/n", &entry("n", Kind::Newer { code: 12, body: vec![] }));
        assert_eq!((&newer["kind"], &newer["was"]), (&json!("newer"), &Value::Null));
        assert!(newer["note"].as_str().unwrap().contains("newer bygone, which knows entries of kind 12"));
        assert_eq!(entry("f", Kind::Fifo).withheld(), None);
        assert!(value(b"/f", &entry("f", Kind::Fifo)).get("was").is_none());
    }

    #[test]
    fn json_has_kind_target_and_device() {
        let link = value(b"/l", &entry("l", Kind::Symlink(b"\xfe".to_vec())));
        assert_eq!((&link["kind"], &link["target_hex"]), (&json!("symlink"), &json!("fe")));
        let device = value(b"/n", &entry("n", Kind::BlockDevice { rdev: 0x801 }));
        assert_eq!((&device["major"], &device["minor"]), (&json!(8), &json!(1)));
        let file = value(b"/f", &entry("f", Kind::File(Content::Inline(b"abc".to_vec()))));
        assert_eq!((&file["mode"], &file["size"], &file["path"]), (&json!("0644"), &json!(3), &json!("/f")));
        assert_eq!(file["mtime"], "1970-01-01T00:00:00.000000007Z");
        assert!(file.get("target").is_none() && file.get("major").is_none() && file.get("path_hex").is_none());
    }
}

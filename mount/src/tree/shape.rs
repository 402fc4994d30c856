//! The shape of the file tree: which snapshots it shows, under which names, in which layout.

use bygone_cli::exit::Failure;
use bygone_cli::time::civil;
use bygone_core::catalog::SnapshotRow;
use bygone_core::entry::Time;
use bygone_core::limits;

/// How the snapshots are arranged below the mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Layout {
    /// latest, snapshots/, hosts/, tags/, at/, versions/, deleted/, changes/
    #[default]
    Default,
    /// One directory @GMT-... for each snapshot, as Samba's shadow_copy2 expects
    ShadowCopy,
    /// .zfs/snapshot/, like ZFS
    Zfs,
    /// ids/, snapshots/, hosts/, tags/, like `restic mount`
    Restic,
}

impl Layout {
    /// The path from the mount point to the snapshots.
    pub fn prefix(self) -> &'static str {
        match self {
            Layout::Default | Layout::Restic => "snapshots/",
            Layout::ShadowCopy => "",
            Layout::Zfs => ".zfs/snapshot/",
        }
    }

    /// The template for the names of its snapshots.
    fn template(self) -> &'static str {
        match self {
            Layout::Default | Layout::Zfs => "%Y-%m-%dT%H-%M-%SZ",
            Layout::ShadowCopy => "@GMT-%Y.%m.%d-%H.%M.%S",
            Layout::Restic => "%Y-%m-%dT%H:%M:%SZ",
        }
    }
}

/// Makes the name of a snapshot from its time in UTC, with a small part of the formats of `date`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Reads `text`.
    pub fn parse(text: &str) -> Result<Template, Failure> {
        let refuse = |why: &str| Failure::Usage(format!("--time-template {text:?}: {why}"));
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('%') {
            let known = after.starts_with(['Y', 'm', 'd', 'H', 'M', 'S', 'F', 'T', 's', '%']);
            if !known {
                return Err(refuse("% must be followed by one of Y m d H M S F T s %"));
            }
            rest = after.get(1..).unwrap_or_default();
        }
        if text.contains(['/', '\0']) || text.is_empty() {
            return Err(refuse("it names a directory, so it must not be empty or contain /"));
        }
        let template = Template(text.to_owned());
        // Room for the suffix that makes a name unique.
        if template.apply(Time { secs: i64::MAX, nanos: 0 }).len() + 40 > limits::NAME_BYTES_MAX {
            return Err(refuse("it is too long"));
        }
        Ok(template)
    }

    /// The name for `time`.
    pub fn apply(&self, time: Time) -> String {
        let c = civil(time);
        let day = format!("{:04}-{:02}-{:02}", c.year, c.month, c.day);
        let clock = format!("{:02}:{:02}:{:02}", c.hour, c.minute, c.second);
        let mut name = String::new();
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                name.push(character);
                continue;
            }
            match characters.next() {
                Some('Y') => name.push_str(&format!("{:04}", c.year)),
                Some('m') => name.push_str(&format!("{:02}", c.month)),
                Some('d') => name.push_str(&format!("{:02}", c.day)),
                Some('H') => name.push_str(&format!("{:02}", c.hour)),
                Some('M') => name.push_str(&format!("{:02}", c.minute)),
                Some('S') => name.push_str(&format!("{:02}", c.second)),
                Some('F') => name.push_str(&day),
                Some('T') => name.push_str(&clock),
                Some('s') => name.push_str(&time.secs.to_string()),
                other => name.extend(other),
            }
        }
        name
    }
}

/// Which snapshots are shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only those not later than this time.
    pub at: Option<Time>,
    /// Only those of one of these hosts; if empty, of all hosts.
    pub hosts: Vec<String>,
    /// Only those with all of these tags.
    pub tags: Vec<String>,
    /// Only those of backups that were given each of these paths or a directory above it.
    pub paths: Vec<Vec<u8>>,
    /// Only this many of those, the newest.
    pub last: Option<usize>,
}

impl Filter {
    /// Which of `rows` (oldest first) are shown.
    pub fn shown(&self, rows: &[SnapshotRow]) -> Vec<bool> {
        let mut left = self.last.unwrap_or(usize::MAX);
        let mut shown: Vec<bool> = rows.iter().rev().map(|row| self.fits(row, &mut left)).collect();
        shown.reverse();
        shown
    }

    fn fits(&self, row: &SnapshotRow, left: &mut usize) -> bool {
        let snapshot = &row.snapshot;
        let holds = |path: &Vec<u8>| snapshot.paths.iter().any(|folder| is_below(path, folder));
        let fits = self.at.is_none_or(|at| snapshot.time <= at)
            && (self.hosts.is_empty() || self.hosts.contains(&snapshot.host))
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.paths.iter().all(holds)
            && *left > 0;
        *left -= usize::from(fits);
        fits
    }
}

/// True if `path` is `folder` or below it; trailing slashes are ignored.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let rest = trimmed(path).strip_prefix(trimmed(folder));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn trimmed(mut path: &[u8]) -> &[u8] {
    while let [shorter @ .., b'/'] = path {
        path = shorter;
    }
    path
}

/// What a mount shows and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The layout.
    pub layout: Layout,
    /// Makes the names of the snapshots.
    pub template: Template,
    /// Which snapshots are shown.
    pub filter: Filter,
}

impl Shape {
    /// The snapshots that pass `filter` in `layout`, named by `template` or else as the layout names them.
    pub fn new(layout: Layout, template: Option<Template>, filter: Filter) -> Shape {
        Shape { layout, template: template.unwrap_or_else(|| Template(layout.template().to_owned())), filter }
    }
}

impl Default for Shape {
    fn default() -> Shape {
        Shape::new(Layout::default(), None, Filter::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot_row;

    const MOMENT: Time = Time { secs: 1_795_391_401, nanos: 0 };

    #[test]
    fn names_follow_the_template() {
        let name = |text: &str| Template::parse(text).unwrap().apply(MOMENT);
        assert_eq!(name("%Y/".trim_end_matches('/')), "2026");
        assert_eq!(name("%F_%H%M%S%%"), "2026-11-22_235001%");
        assert_eq!(name("@%s %T"), "@1795391401 23:50:01");
        assert_eq!(
            Shape::new(Layout::ShadowCopy, None, Filter::default()).template.apply(MOMENT),
            "@GMT-2026.11.22-23.50.01"
        );
        for bad in ["", "%", "%Q", "a/b", "%Y%", &"x".repeat(230)] {
            assert!(matches!(Template::parse(bad), Err(Failure::Usage(_))), "{bad:?}");
        }
    }

    #[test]
    fn snapshots_must_match_every_filter() {
        let mut rows = vec![
            snapshot_row(1, 10, "a", &["x"]),
            snapshot_row(2, 20, "b", &["x", "y"]),
            snapshot_row(3, 30, "a", &["y"]),
        ];
        rows[2].snapshot.paths = vec![b"/home".to_vec()];
        let shown = |filter: Filter| filter.shown(&rows);
        assert_eq!(shown(Filter::default()), [true, true, true]);
        assert_eq!(shown(Filter { hosts: vec!["a".into()], ..Filter::default() }), [true, false, true]);
        assert_eq!(shown(Filter { tags: vec!["x".into(), "y".into()], ..Filter::default() }), [false, true, false]);
        assert_eq!(shown(Filter { last: Some(2), ..Filter::default() }), [false, true, true]);
        assert_eq!(shown(Filter { paths: vec![b"/home/u/".to_vec()], ..Filter::default() }), [false, false, true]);
        assert_eq!(shown(Filter { paths: vec![b"/homes".to_vec()], ..Filter::default() }), [false, false, false]);
        let at = Some(Time { secs: 20, nanos: 0 });
        assert_eq!(shown(Filter { at, last: Some(1), ..Filter::default() }), [false, true, false]);
    }
}

//! The options that choose what a mount shows, and their values checked.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use bygone_cli::exit::Failure;
use bygone_cli::when::parse_moment;
use bygone_core::entry::Time;

use crate::kernel::refused_readers::RefusedReaders;
use crate::program::session::Shown;
use crate::tree::shape::Filter;
use crate::tree::shape::Layout;
use crate::tree::shape::Shape;
use crate::tree::shape::Template;

/// The options that choose what is shown.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Show only snapshots not later than TIME: 2026-03-01, 2026-03-01T10:20, 3d, yesterday
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Show only snapshots of HOST; may be repeated to show several hosts
    #[arg(long)]
    host: Vec<String>,
    /// Show only snapshots with TAG; may be repeated to require several tags
    #[arg(long)]
    tag: Vec<String>,
    /// Show only snapshots of backups that were given PATH or a directory above it
    #[arg(long)]
    path: Vec<OsString>,
    /// Show only the newest N of the snapshots that remain
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Layout of the file tree
    #[arg(long, value_enum, default_value_t)]
    layout: Layout,
    /// Name each snapshot by its time in UTC, made of %Y %m %d %H %M %S %F %T %s %%
    #[arg(long, value_name = "TEMPLATE")]
    time_template: Option<String>,
    /// Refuse to read file content; names and attributes stay readable
    #[arg(long)]
    no_content: bool,
    /// Refuse file content to processes called NAME, such as thumbnail generators
    #[arg(long, value_name = "NAME")]
    deny_process: Vec<String>,
}

impl Wanted {
    /// What to show, or which option makes no sense.
    pub fn shown(&self, now: Time) -> Result<Shown, Failure> {
        let moment = |text: &String| {
            parse_moment(text, now)
                .ok_or_else(|| Failure::Usage(format!("--at {text:?}: not a time: write 2026-03-01, 3d or yesterday")))
        };
        let filter = Filter {
            at: self.at.as_ref().map(moment).transpose()?,
            hosts: self.host.clone(),
            tags: self.tag.clone(),
            paths: self.path.iter().map(|path| path.as_bytes().to_vec()).collect(),
            last: self.last,
        };
        let template = self.time_template.as_deref().map(Template::parse).transpose()?;
        let refused_readers = RefusedReaders { all_processes: self.no_content, names: self.deny_process.clone() };
        Ok(Shown { shape: Shape::new(self.layout, template, filter), refused_readers })
    }
}

//! What the command line wants a mount to show.

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

/// Options that say what is shown.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Only snapshots not later than TIME: 2026-03-01, 2026-03-01T10:20, 3d, yesterday
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Only snapshots of this machine; repeated: of any of them
    #[arg(long)]
    host: Vec<String>,
    /// Only snapshots with this tag; repeated: with all of them
    #[arg(long)]
    tag: Vec<String>,
    /// Only snapshots of backups that were asked for PATH or a directory above it
    #[arg(long)]
    path: Vec<OsString>,
    /// Only the newest N of those
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// How the snapshots are laid out
    #[arg(long, value_enum, default_value_t)]
    layout: Layout,
    /// How snapshots are called, of %Y %m %d %H %M %S %F %T %s %%, in UTC
    #[arg(long, value_name = "TEMPLATE")]
    time_template: Option<String>,
    /// Refuse to read the content of any file: names and attributes only
    #[arg(long)]
    no_content: bool,
    /// Refuse content to processes of this name, such as makers of thumbnails
    #[arg(long, value_name = "NAME")]
    deny_process: Vec<String>,
}

impl Wanted {
    /// What is to be shown, if it makes sense.
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
        let refused_readers = RefusedReaders { everybody: self.no_content, names: self.deny_process.clone() };
        Ok(Shown { shape: Shape::new(self.layout, template, filter), refused_readers })
    }
}

//! The options that set how data is read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bygone_cli::caching::Caching;
use bygone_cli::settings::units::parse_patience;
use bygone_cli::settings::units::parse_size;
use bygone_core::read::FetchOptions;

use crate::kernel::log::Log;

/// The least memory that a mount works with.
const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// One part in this many of the memory holds data from a far store until it is decoded.
const FETCH_SHARE: usize = 4;
/// What the rest of the program needs: the catalog's pages, runs of frames being decoded, answers on their way.
/// Measured: 28 MB after a walk over the Linux tree, and 25 to 45 MB of runs and answers while all of it is copied.
const OTHERS_BYTES: usize = 80 << 20;

/// The options that set how data is read.
#[derive(Debug, clap::Args)]
pub struct Reading {
    #[command(flatten)]
    caching: Caching,
    /// Use up to SIZE of memory, at least 32MiB; up to 80MiB of it serve other things than file data
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = parse_memory)]
    memory: u64,
    /// Fail a read if a far store has not delivered its data after TIME: 90s, 2m
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_patience)]
    pub read_timeout: Duration,
    /// Never fetch data from a far store: only data kept on this machine can be read
    #[arg(long)]
    offline: bool,
    /// Fetch at most SIZE from a far store while this mount lives, then act as with --offline
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_fetch: Option<u64>,
}

/// The same options, worked out for one repository.
pub struct Fetching {
    /// Memory for decoded data.
    pub cache_bytes_max: usize,
    /// How a far store is read.
    pub options: FetchOptions,
}

impl Reading {
    /// Works them out for the repository with its catalog in `catalog_dir`. The cache has the name of that directory,
    /// below `cache_base`. A store that is not far needs no memory for fetched data.
    pub fn fetching(&self, cache_base: &Path, catalog_dir: &Path, is_far: bool, log: &Arc<Log>) -> Fetching {
        let memory_bytes = usize::try_from(self.memory).unwrap_or(usize::MAX);
        let id = catalog_dir.file_name().filter(|_| self.caching.cache_size > 0);
        let cache = id.map(|id| self.caching.options(cache_base.join(id)));
        let log = Arc::clone(log);
        let fetch_bytes = memory_bytes / FETCH_SHARE;
        let for_data = memory_bytes.saturating_sub(OTHERS_BYTES).max(memory_bytes / 8 * 3);
        let options = FetchOptions {
            cache,
            memory_bytes: fetch_bytes,
            deadline: self.read_timeout,
            is_offline: self.offline,
            fetched_bytes_max: self.max_fetch.unwrap_or(u64::MAX),
            reads_ahead: true,
            say: Arc::new(move |text| log.once(text, || text.to_owned())),
        };
        Fetching { cache_bytes_max: for_data - if is_far { fetch_bytes } else { 0 }, options }
    }
}

fn parse_memory(text: &str) -> std::result::Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes >= MEMORY_BYTES_MIN { Ok(bytes) } else { Err(format!("{text:?} is too little, the least is 32MiB")) }
}

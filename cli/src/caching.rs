//! How much this machine caches of far stores. The options are the same for mounts and for `pin`.

use std::path::PathBuf;

use bygone_core::read::CacheOptions;

use crate::settings::units::parse_size;

/// Options that bound the cache.
#[derive(Debug, clap::Args)]
pub struct Caching {
    /// Keep up to SIZE of what is fetched from a far store under --cache-dir, still sealed; 0 keeps nothing
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = parse_size)]
    pub cache_size: u64,
    /// Leave PERCENT of the disk that holds --cache-dir free
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub cache_free: u8,
}

impl Caching {
    /// The options for a cache in `dir`.
    pub fn options(&self, dir: PathBuf) -> CacheOptions {
        CacheOptions { dir, bytes_max: self.cache_size, free_percent_min: self.cache_free }
    }
}

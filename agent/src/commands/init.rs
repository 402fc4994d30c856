//! `bygone init`: creates a repository.

use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::settings::units::parse_size;
use bygone_cli::terminal::passphrase::Purpose;
use bygone_core::compress::Compression;
use bygone_core::crypto::KdfCost;
use bygone_core::error::Error;
use bygone_core::limits;
use bygone_core::repo::InitOptions;
use bygone_core::repo::Repository;

use crate::commands::Context;

/// Create a repository
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Cut files into blocks of SIZE, a power of two from 64KiB to 16MiB
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    block_size: u64,
    /// Collect blocks in volumes of about SIZE, 1MiB to 256MiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    volume_size: u64,
    /// Compress volumes with METHOD: lz4, zstd, zstd:LEVEL (1 to 19) or none
    #[arg(long, value_name = "METHOD", default_value_t = Compression::Lz4)]
    compression: Compression,
    #[command(flatten)]
    kdf: Kdf,
}

/// The cost of opening a new key slot.
#[derive(Debug, clap::Args)]
pub(super) struct Kdf {
    /// Memory needed to open the key slot
    #[arg(long, value_name = "SIZE", hide = true, value_parser = parse_size)]
    kdf_memory: Option<u64>,
}

impl Kdf {
    /// The cost. 8 MiB selects the cost for tests, which protects nothing.
    pub(super) fn cost(&self) -> Result<KdfCost> {
        let Some(bytes) = self.kdf_memory else { return Ok(KdfCost::default()) };
        let memory_kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        match memory_kib {
            KdfCost::MEMORY_KIB_MIN => Ok(KdfCost::for_tests()),
            KdfCost::NEW_MEMORY_KIB_MIN..=KdfCost::MEMORY_KIB_MAX => Ok(KdfCost { memory_kib, ..KdfCost::default() }),
            _ => Err(Failure::Usage("--kdf-memory must be between 19MiB and 1GiB (or 8MiB, for tests)".into())),
        }
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let block_bytes = u32::try_from(args.block_size).unwrap_or(u32::MAX);
    check_sizes(block_bytes, args.volume_size)?;
    let options = InitOptions {
        block_bytes,
        volume_bytes: args.volume_size,
        compression: args.compression,
        kdf: args.kdf.cost()?,
        label: context.settings.user_at_host(),
        time: context.now,
    };
    // Nobody should type a passphrase only to learn that the repository already exists. And no directory must be left
    // behind by a user who gives up at the prompt.
    let found = context.settings.place(&context.watch).and_then(|place| Ok(Repository::find(&place).map(|_| place)?));
    match found {
        Err(Failure::Repository(Error::NoRepository { .. })) => {}
        Err(failure) => return Err(failure),
        Ok(place) => {
            let what = format!("the repository at {}", place.store.address());
            return Err(Error::Exists { what, hint: "use it, or choose another place" }.into());
        }
    }
    let secret = context.settings.passphrase(Purpose::Create, &context.watch)?;
    let place = context.settings.new_place(&context.watch)?;
    let made = Repository::init(&place, &secret, &options)?.lock()?;
    let repository = made.repository();
    let (id, fingerprint) = (repository.config().repository.to_hex(), repository.keys().fingerprint());
    let (address, catalog) = (repository.store().address(), repository.catalog_dir().display().to_string());
    if context.settings.json {
        let value = json!({
            "repository": id,
            "fingerprint": fingerprint,
            "store": address,
            "catalog": catalog,
            "block_bytes": block_bytes,
            "volume_bytes": args.volume_size,
            "compression": args.compression.to_string(),
        });
        context.output.value(&value)?;
        return Ok(Exit::Complete);
    }
    context.say(&format!("created repository {id} at {address}"))?;
    context.say(&format!("fingerprint of its key: {fingerprint}"))?;
    context.say(&format!("catalog on this machine: {catalog}"))?;
    context.say("Keep the passphrase safe: without it nobody, including you, can read the repository.")?;
    Ok(Exit::Complete)
}

/// Checks the limits of the format before a directory is created and a passphrase asked for.
fn check_sizes(block_bytes: u32, volume_bytes: u64) -> Result<()> {
    let blocks = limits::BLOCK_BYTES_MIN..=limits::BLOCK_BYTES_MAX;
    if !blocks.contains(&block_bytes) || !block_bytes.is_power_of_two() {
        return Err(Failure::Usage("--block-size must be a power of two from 64KiB to 16MiB".into()));
    }
    if !(limits::VOLUME_BYTES_MIN..=limits::VOLUME_BYTES_MAX).contains(&volume_bytes) {
        return Err(Failure::Usage("--volume-size must be between 1MiB and 256MiB".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_outside_the_format_are_usage_errors() {
        assert!(check_sizes(1 << 20, 64 << 20).is_ok());
        for (block, volume) in
            [(1 << 15, 64 << 20), (3 << 19, 64 << 20), (1 << 25, 64 << 20), (1 << 20, 1), (1 << 20, 1 << 40)]
        {
            assert!(matches!(check_sizes(block, volume), Err(Failure::Usage(_))), "{block} {volume}");
        }
    }

    #[test]
    fn the_cost_for_tests_must_be_requested() {
        let cost = |kdf_memory| Kdf { kdf_memory }.cost();
        assert_eq!(cost(None).unwrap(), KdfCost::default());
        assert_eq!(cost(Some(8 << 20)).unwrap(), KdfCost::for_tests());
        assert_eq!(cost(Some(32 << 20)).unwrap().memory_kib, 32 << 10);
        for bad in [0, 1 << 20, 16 << 20, 2 << 30, u64::MAX] {
            assert!(cost(Some(bad)).is_err(), "{bad}");
        }
    }
}

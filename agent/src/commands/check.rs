//! `bygone check`: is everything there, and is it what was stored?

use std::str::FromStr;

use serde_json::Value;
use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Result;
use bygone_cli::settings::units::parse_size;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::duration;
use bygone_cli::terminal::output::number;
use bygone_cli::terminal::output::size;
use bygone_core::check;
use bygone_core::check::ReadData;
use bygone_core::check::Report;
use bygone_core::entry::Time;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::recover;
use bygone_core::repo::LockedRepository;

use crate::commands::Context;
use crate::commands::affected;
use crate::commands::alarms;
use crate::commands::repair;

/// Check that the store holds everything that the snapshots need
///
/// Without options, compares names and sizes, and looks up every block of every snapshot. With --read-data, reads and
/// authenticates every byte too. The next backup stores again what is damaged, as far as the source still has it.
/// --repair puts it back, and also replaces the damaged objects.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read and authenticate all data
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read some of the data: a share (5%) or an amount (500M), chosen anew each time, or a part (1/7: the first of 7)
    #[arg(long, value_name = "SUBSET")]
    read_data_subset: Option<Subset>,
    /// Put back what is lost, as far as possible, from a second store, the rest of a damaged volume, the cache of a mount,
    /// the catalog, and the files that were backed up; damaged objects are replaced
    #[arg(long)]
    repair: bool,
    /// Second store of the same repository to repair from, such as one made by `bygone copy`
    #[arg(long, value_name = "URL", requires = "repair")]
    from: Option<String>,
}

/// A part of all volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subset {
    /// A share, in thousandths of a percent.
    Share(u64),
    Bytes(u64),
    Part {
        part: u64,
        parts: u64,
    },
}

const SHARE_WHOLE: u64 = 100_000;

impl FromStr for Subset {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Subset, String> {
        let subset = match (text.strip_suffix('%'), text.split_once('/')) {
            (Some(percent), _) => share(percent).map(Subset::Share),
            (None, Some((part, parts))) => {
                let numbers = part.parse().ok().zip(parts.parse().ok());
                numbers
                    .filter(|(part, parts)| (1..=*parts).contains(part))
                    .map(|(part, parts)| Subset::Part { part, parts })
            }
            (None, None) => parse_size(text).ok().filter(|bytes| *bytes > 0).map(Subset::Bytes),
        };
        subset
            .ok_or_else(|| format!("{text:?} is not a share such as 5%, an amount such as 500M or a part such as 1/7"))
    }
}

/// Thousandths of a percent, from more than 0 to 100 %.
fn share(percent: &str) -> Option<u64> {
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fits = plain(whole) && plain(fraction) && fraction.len() <= 3;
    let thousandths = format!("{whole}{fraction:0<3}").parse::<u64>().ok().filter(|_| fits)?;
    (1..=SHARE_WHOLE).contains(&thousandths).then_some(thousandths)
}

impl Subset {
    /// What to read of `stored_bytes`. The time selects which part.
    fn read_data(self, stored_bytes: u64, now: Time) -> ReadData {
        let seed = now.secs.cast_unsigned().rotate_left(32) ^ u64::from(now.nanos);
        match self {
            Subset::Share(share) => {
                let bytes = u128::from(stored_bytes) * u128::from(share) / u128::from(SHARE_WHOLE);
                ReadData::Sample { seed, bytes: u64::try_from(bytes).unwrap_or(u64::MAX).max(1) }
            }
            Subset::Bytes(bytes) => ReadData::Sample { seed, bytes },
            Subset::Part { part, parts } => ReadData::Part { part, parts },
        }
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    let (report, repaired) = if args.repair {
        let now = context.now;
        let choose = |locked: &mut LockedRepository| choose(args, locked, now);
        let (report, repaired) = repair::repair(context, args.from.as_deref(), choose)?;
        (report, Some(repaired))
    } else {
        (look(args, context)?, None)
    };
    let seconds = context.seconds();
    if context.settings.json {
        let mut value = value(&report, seconds);
        if let (Some(repaired), Some(object)) = (&repaired, value.as_object_mut()) {
            object.insert("repaired".to_owned(), repair::value(repaired));
        }
        context.output.value(&value)?;
    } else {
        for line in repaired.iter().flat_map(repair::lines) {
            context.output.line(&line)?;
        }
        for line in lines(&report, seconds, context.settings.quiet, context.settings.verbose) {
            context.output.line(&line)?;
        }
        if repaired.is_none() && !report.is_clean() {
            context.say("`bygone check --repair` puts back what it can")?;
        }
    }
    Ok(exit(&report))
}

/// Checks, and changes nothing in the store.
fn look(args: &Args, context: &mut Context) -> Result<Report> {
    let mut locked = context.lock_catalog(context.open()?)?;
    let progress = context.progress();
    match recover::sync_as_found(&mut locked, &context.watch) {
        // The check itself finds it again, with more detail.
        Ok(_) | Err(Error::Disagree { .. } | Error::Corrupt { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let read_data = choose(args, &mut locked, context.now)?;
    let report = check::check(&mut locked, read_data, &context.watch);
    drop(progress);
    Ok(report?)
}

/// How much to read.
fn choose(args: &Args, locked: &mut LockedRepository, now: Time) -> Result<ReadData> {
    let stored_bytes = locked.catalog().read().stored_bytes()?;
    Ok(match (args.read_data, args.read_data_subset) {
        (true, _) => ReadData::All,
        (false, Some(subset)) => subset.read_data(stored_bytes, now),
        (false, None) => ReadData::No,
    })
}

/// Lost data of a snapshot comes first, because it matters most to a script.
fn exit(report: &Report) -> Exit {
    match (report.has_damage(), report.is_clean()) {
        (true, _) => Exit::Damaged,
        (false, false) => Exit::Disagree,
        (false, true) => Exit::Complete,
    }
}

fn lines(report: &Report, seconds: f64, quiet: bool, verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &report.findings {
        lines.push(alarms::line(finding));
    }
    lines.extend(alarms::advice(&report.findings));
    for affected in &report.affected {
        let snapshot: String = affected.snapshot.to_hex().chars().take(8).collect();
        lines.push(format!("lost: {snapshot}:{}: {}", printable(&affected.path), affected.reason));
    }
    let omitted = report.affected_count.saturating_sub(report.affected.len() as u64);
    if omitted > 0 {
        lines.push(format!("lost: {} more", number(omitted)));
    }
    if verbose || !report.is_clean() {
        lines.extend(report.notes.iter().map(|note| format!("note: {}", bygone_cli::terminal::output::one_line(note))));
    }
    if quiet && report.is_clean() {
        return lines;
    }
    let read = match report.volumes_read {
        0 => String::new(),
        volumes => format!(", read {} ({})", count(volumes, "volume", "volumes"), size(report.bytes_read)),
    };
    let snapshots = count(report.snapshots, "snapshot", "snapshots");
    let volumes = count(report.volumes, "volume", "volumes");
    let took = duration(seconds);
    let end = match (report.affected_count, report.is_clean()) {
        (0, true) => "everything is there".to_owned(),
        (0, false) => "no snapshot has lost anything, but the store is not intact".to_owned(),
        (lost, _) => format!("LOST: {}, in whole or in part", count(lost, "path", "paths")),
    };
    lines.push(format!("checked {snapshots} and {volumes}{read} in {took}: {end}"));
    lines
}

fn value(report: &Report, seconds: f64) -> Value {
    let affected = report.affected.iter().map(affected::value);
    json!({
        "result": exit(report).word(),
        "findings": alarms::values(&report.findings),
        "healed": report.healed,
        "affected": affected.collect::<Vec<_>>(),
        "affected_count": report.affected_count,
        "notes": report.notes,
        "snapshots": report.snapshots,
        "volumes": report.volumes,
        "volumes_read": report.volumes_read,
        "bytes_read": report.bytes_read,
        "seconds": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bygone_core::check::Affected;
    use bygone_core::diagnosis::Diagnosis;
    use bygone_core::id::SnapshotId;
    use bygone_core::survey::Finding;

    #[test]
    fn a_subset_is_a_share_an_amount_or_a_part() {
        let good = [
            ("5%", Subset::Share(5_000)),
            ("0.5%", Subset::Share(500)),
            ("100%", Subset::Share(SHARE_WHOLE)),
            ("500M", Subset::Bytes(500 << 20)),
            ("1/7", Subset::Part { part: 1, parts: 7 }),
            ("7/7", Subset::Part { part: 7, parts: 7 }),
        ];
        for (text, subset) in good {
            assert_eq!(text.parse(), Ok(subset), "{text}");
        }
        for bad in ["", "%", "0%", "101%", "5.%", "0.0001%", "-1%", "0", "0/7", "8/7", "1/0", "1/", "x/y", "5 %"] {
            assert!(bad.parse::<Subset>().is_err(), "{bad:?}");
        }
        let now = Time { secs: 1, nanos: 2 };
        let share = Subset::Share(5_000).read_data(1_000, now);
        assert!(matches!(share, ReadData::Sample { bytes: 50, .. }), "{share:?}");
        assert!(matches!(Subset::Share(1).read_data(u64::MAX, now), ReadData::Sample { bytes, .. } if bytes > 1 << 40));
    }

    fn finding(diagnosis: Diagnosis) -> Report {
        let findings = vec![Finding { diagnosis, object: "data/aa/x".into(), detail: "d".into() }];
        Report { findings, ..Report::default() }
    }

    #[test]
    fn the_exit_code_distinguishes_damage_from_disagreement() {
        assert_eq!(exit(&Report::default()), Exit::Complete);
        assert_eq!(exit(&finding(Diagnosis::RemoteCorrupt)), Exit::Damaged);
        assert_eq!(exit(&finding(Diagnosis::RemoteRolledBack)), Exit::Disagree);
        assert_eq!(exit(&finding(Diagnosis::RemoteMissing)), Exit::Disagree, "no snapshot needs it");
        assert_eq!(exit(&Report { affected_count: 1, ..Report::default() }), Exit::Damaged);
    }

    #[test]
    fn every_lost_file_is_named_with_its_snapshot() {
        let path = b"/a\xff".to_vec();
        let affected = vec![Affected { snapshot: SnapshotId([0xab; 16]), path, bytes: 7, reason: "gone".into() }];
        let report = Report { affected, affected_count: 3, ..finding(Diagnosis::RemoteMissing) };
        let text = lines(&report, 1.0, true, false);
        assert_eq!(text[0], "REMOTE_MISSING: data/aa/x: d");
        assert!(text[1].starts_with("what to do about REMOTE_MISSING: "), "{text:?}");
        assert_eq!(text[2], "lost: abababab:/a\\xff: gone");
        assert_eq!(text[3], "lost: 2 more");
        assert!(text[4].contains("LOST: 3 paths"), "{text:?}");
        let json = value(&report, 1.0);
        assert_eq!((&json["result"], &json["affected"][0]["path_hex"]), (&json!("damaged"), &json!("2f61ff")));
        assert_eq!(json["findings"][0]["diagnosis"], "REMOTE_MISSING");
    }
}

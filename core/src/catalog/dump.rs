//! The catalog as canonical text: equal catalogs give equal text, whatever their row numbers.
//!
//! `recover` is tested against it: a catalog rebuilt from the store alone must dump like the lost one. What belongs
//! only to this machine (its client, row numbers, inode numbers) is left out.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::catalog::Catalog;
use crate::commit::encode_snapshot_record;
use crate::error::Result;
use crate::hash::sha256;
use crate::id::hex;

impl Catalog {
    /// Passes every line of the dump to `line`, in order, without line ends.
    pub fn dump(&self, mut line: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut volumes = self.volumes()?;
        volumes.sort_by_key(|volume| volume.name);
        for volume in &volumes {
            let mut frames = String::new();
            for (offset, frame) in &volume.frames {
                // Writing to a string cannot fail.
                let _ = write!(frames, "{offset}:{}:{};", frame.codec.to_u8(), frame.stored_bytes);
            }
            line(&format!(
                "volume {} {} {} bytes={} plain={} frames={} salt={} announced={} etag={}",
                volume.name,
                volume.kind.word(),
                volume.state.name(),
                volume.bytes,
                volume.plain_bytes,
                hex(&sha256(frames.as_bytes())),
                hex(&volume.salt),
                volume.is_announced,
                volume.etag.as_deref().unwrap_or("-"),
            ))?;
        }
        let names: BTreeMap<i64, String> = volumes.iter().map(|v| (v.id, v.name.to_hex())).collect();
        self.dump_blocks(&names, &mut line)?;
        self.dump_column("node", "SELECT name FROM node ORDER BY name", &mut line)?;
        self.dump_column("version", "SELECT key FROM version_key ORDER BY key", &mut line)?;
        self.dump_column("xattr", "SELECT name FROM xattr_name ORDER BY name", &mut line)?;
        self.dump_paths(&mut line)?;
        let mut snapshots = self.snapshots()?;
        snapshots.sort_by_key(|row| row.snapshot.id);
        for row in snapshots {
            line(&format!("snapshot {} {}", row.snapshot.id, hex(&encode_snapshot_record(&row.snapshot))))?;
        }
        for id in self.snapshots_removed()? {
            line(&format!("snapshot-removed {id}"))?;
        }
        for name in self.volumes_retired_where("true")? {
            line(&format!("volume-retired {name}"))?;
        }
        for id in self.slots_removed()? {
            line(&format!("slot-removed {id}"))?;
        }
        let features = self.features()?;
        for (list, names) in [("read", features.read), ("write", features.write), ("optional", features.optional)] {
            names.iter().try_for_each(|name| line(&format!("feature {list} {name}")))?;
        }
        for head in self.heads()? {
            line(&format!("head {} {} {}", head.client, head.seq, head.hash))?;
        }
        Ok(())
    }

    fn dump_blocks(&self, names: &BTreeMap<i64, String>, line: &mut impl FnMut(&str) -> Result<()>) -> Result<()> {
        type Row = (Vec<u8>, i64, i64, u32, Option<i64>);
        let rows: Vec<Row> = self.run(|conn| {
            conn.prepare("SELECT id, volume, position, length, checksum FROM block ORDER BY id")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
                .collect()
        })?;
        for (id, volume, position, length, checksum) in rows {
            let volume = names.get(&volume).map_or("-", String::as_str);
            let checksum = checksum.map_or(String::from("-"), |sum| format!("{sum:016x}"));
            line(&format!("block {} {volume} {position} {length} {checksum}", hex(&id)))?;
        }
        Ok(())
    }

    fn dump_column(&self, what: &str, sql: &str, line: &mut impl FnMut(&str) -> Result<()>) -> Result<()> {
        let rows: Vec<Vec<u8>> = self.run(|conn| conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect())?;
        rows.iter().try_for_each(|row| line(&format!("{what} {}", hex(row))))
    }

    fn dump_paths(&self, line: &mut impl FnMut(&str) -> Result<()>) -> Result<()> {
        let rows: Vec<(i64, i64, Vec<u8>)> = self.run(|conn| {
            conn.prepare("SELECT id, parent, name FROM path ORDER BY id")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        // A parent has a lower number than its children, so one pass in order of number finds every parent.
        let mut paths: BTreeMap<i64, String> = BTreeMap::new();
        for (id, parent, name) in rows {
            let path = match paths.get(&parent) {
                Some(above) => format!("{above}/{}", hex(&name)),
                None => String::new(),
            };
            paths.insert(id, path);
        }
        let mut sorted: Vec<String> = paths.into_values().collect();
        sorted.sort();
        sorted.iter().try_for_each(|path| line(&format!("path {path}")))
    }
}

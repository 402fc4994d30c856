//! Alarms: what is wrong with the store, until it is right again or a person has accepted it; and the losses that
//! commits of any machine record as accepted.
//!
//! An alarm is a durable row, so a finding outlives a message that nobody read.

use std::collections::HashSet;

use rusqlite::OptionalExtension;
use rusqlite::Row;

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::commit::ChainLoss;
use crate::commit::Losses;
use crate::diagnosis::Diagnosis;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::SlotId;
use crate::id::VolumeName;

/// Trouble with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What kind of trouble.
    pub diagnosis: Diagnosis,
    /// The object; it has at most one alarm.
    pub object: String,
    /// What is wrong, in words.
    pub detail: String,
    /// What is lost, in a form that a commit can record.
    pub subject: Subject,
    /// How the store listed the object when the alarm was raised; `None` if it was not listed.
    pub shown: Option<String>,
}

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A volume.
    Volume(VolumeName),
    /// Commits.
    Chain(ChainLoss),
    /// A key slot that was removed and is there again. Nothing is lost, so no commit can accept it.
    Slot(SlotId),
}

impl Subject {
    /// True if commits are lost or contradict each other: then nothing is written until a person has looked.
    pub fn is_chain(&self) -> bool {
        matches!(self, Subject::Chain(_))
    }
}

const COLUMNS: &str = "diagnosis, object, detail, volume, client, first, last, shown, accepted, slot";

impl Catalog {
    /// All alarms that nobody has accepted, those about commits first.
    pub fn alarms_open(&self) -> Result<Vec<Alarm>> {
        let all = self.alarms()?.into_iter();
        Ok(all.filter(|(_, is_accepted)| !is_accepted).map(|(alarm, _)| alarm).collect())
    }

    /// All alarms, those about commits first, each with whether it was accepted.
    pub fn alarms(&self) -> Result<Vec<(Alarm, bool)>> {
        self.run(|conn| {
            conn.prepare_cached(&format!("SELECT {COLUMNS} FROM alarm ORDER BY client IS NULL, object"))?
                .query_map([], alarm)?
                .collect()
        })
    }

    /// Volumes that were accepted as lost, and are.
    pub fn volume_losses(&self) -> Result<HashSet<VolumeName>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT name FROM volume_loss")?
                .query_map([], |row| row.get(0).map(VolumeName))?
                .collect()
        })
    }

    /// Commits that were accepted as lost.
    pub fn chain_losses(&self) -> Result<Vec<ChainLoss>> {
        self.chain_ranges("chain_loss")
    }

    /// The ranges of commits in a table of them.
    pub(super) fn chain_ranges(&self, table: &'static str) -> Result<Vec<ChainLoss>> {
        self.run(|conn| {
            conn.prepare_cached(&format!("SELECT client, first, last FROM {table} ORDER BY client, first, last"))?
                .query_map([], |row| {
                    let (first, last) = (row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, i64>(2)?.cast_unsigned());
                    Ok(ChainLoss { client: ClientId(row.get(0)?), first, last })
                })?
                .collect()
        })
    }
}

impl CatalogWriter {
    /// Raises an alarm, durably. An alarm that says the same about the same object stays as it is, accepted or not; one
    /// that says something else is replaced. True if the trouble was not known.
    pub fn alarm_raise(&mut self, alarm: &Alarm) -> Result<bool> {
        let (volume, loss, slot) = match &alarm.subject {
            Subject::Volume(name) => (Some(name.0), None, None),
            Subject::Chain(loss) => (None, Some(*loss), None),
            Subject::Slot(id) => (None, None, Some(id.0)),
        };
        let number = |number: u64| number.cast_signed();
        self.transact(|conn| {
            let known = conn
                .prepare_cached("SELECT diagnosis, last FROM alarm WHERE object = ?1")?
                .query_row([&alarm.object], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?)))
                .optional()?;
            let last = loss.map(|loss| number(loss.last));
            if known == Some((alarm.diagnosis.code().to_owned(), last)) {
                let mut update = conn.prepare_cached("UPDATE alarm SET shown = ?2, detail = ?3 WHERE object = ?1")?;
                update.execute((&alarm.object, &alarm.shown, &alarm.detail))?;
                return Ok(false);
            }
            let is_accepted =
                conn.prepare_cached("SELECT 1 FROM volume_loss WHERE name = ?1")?.exists([volume.as_ref()])?;
            conn.prepare_cached(&format!(
                "INSERT OR REPLACE INTO alarm ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            ))?
            .execute((
                alarm.diagnosis.code(),
                &alarm.object,
                &alarm.detail,
                volume,
                loss.map(|loss| loss.client.0),
                loss.map(|loss| number(loss.first)),
                last,
                &alarm.shown,
                is_accepted,
                slot,
            ))?;
            Ok(!is_accepted)
        })
    }

    /// Ends the alarm about an object that is right again. True if there was one that nobody had accepted.
    pub fn alarm_end(&mut self, object: &str) -> Result<bool> {
        self.transact(|conn| {
            conn.prepare_cached("DELETE FROM volume_loss WHERE name = (SELECT volume FROM alarm WHERE object = ?1)")?
                .execute([object])?;
            let open: Option<bool> = conn
                .prepare_cached("DELETE FROM alarm WHERE object = ?1 RETURNING accepted = 0")?
                .query_row([object], |row| row.get(0))
                .optional()?;
            Ok(open == Some(true))
        })
    }
}

/// Takes in the losses of a commit: alarms about them become accepted, and the lost commits are no longer expected. A
/// checkpoint says losses again that are known. Then nothing happens, because a commit that was given up may have come
/// back since.
pub(super) fn accept(conn: &rusqlite::Transaction<'_>, losses: &Losses) -> rusqlite::Result<()> {
    for ChainLoss { client, first, last } in &losses.chains {
        let range = (&client.0, first.cast_signed(), last.cast_signed());
        let new = conn
            .prepare_cached("INSERT OR IGNORE INTO chain_loss (client, first, last) VALUES (?1, ?2, ?3)")?
            .execute(range)?;
        if new == 0 {
            continue;
        }
        conn.prepare_cached("DELETE FROM commit_seen WHERE client = ?1 AND seq BETWEEN ?2 AND ?3")?.execute(range)?;
        conn.prepare_cached("UPDATE alarm SET accepted = 1 WHERE client = ?1 AND first >= ?2 AND last <= ?3")?
            .execute(range)?;
    }
    for name in &losses.volumes {
        conn.prepare_cached("INSERT OR IGNORE INTO volume_loss (name) VALUES (?1)")?.execute([&name.0])?;
        conn.prepare_cached("UPDATE alarm SET accepted = 1 WHERE volume = ?1")?.execute([&name.0])?;
    }
    Ok(())
}

fn alarm(row: &Row<'_>) -> rusqlite::Result<(Alarm, bool)> {
    let bad = |column| rusqlite::Error::InvalidColumnType(column, "alarm".into(), rusqlite::types::Type::Text);
    let diagnosis = Diagnosis::from_code(&row.get::<_, String>(0)?).ok_or_else(|| bad(0))?;
    let subject = match (row.get::<_, Option<[u8; 32]>>(3)?, row.get::<_, Option<[u8; 16]>>(9)?) {
        (Some(name), _) => Subject::Volume(VolumeName(name)),
        (None, Some(id)) => Subject::Slot(SlotId(id)),
        (None, None) => Subject::Chain(ChainLoss {
            client: ClientId(row.get(4)?),
            first: row.get::<_, i64>(5)?.cast_unsigned(),
            last: row.get::<_, i64>(6)?.cast_unsigned(),
        }),
    };
    let alarm = Alarm { diagnosis, object: row.get(1)?, detail: row.get(2)?, subject, shown: row.get(7)? };
    Ok((alarm, row.get(8)?))
}

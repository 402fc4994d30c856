//! The runs of this machine that have put a marker, or were about to.
//!
//! A row is there before its marker and goes after it. So whatever marker this machine has left in the store, even by
//! dying, it can take away later.

use crate::catalog::Catalog;
use crate::catalog::CatalogWriter;
use crate::error::Result;
use crate::id::ClientId;
use crate::id::RunId;

impl Catalog {
    /// All runs that may have a marker, each with the client that it began under.
    pub fn runs(&self) -> Result<Vec<(ClientId, RunId)>> {
        self.run(|conn| {
            conn.prepare_cached("SELECT client, id FROM run ORDER BY id")?
                .query_map([], |row| Ok((ClientId(row.get(0)?), RunId(row.get(1)?))))?
                .collect()
        })
    }
}

impl CatalogWriter {
    /// Records that the marker of a run is about to be put.
    pub fn run_begin(&mut self, client: ClientId, run: RunId) -> Result<()> {
        self.transact(|conn| {
            conn.execute("INSERT INTO run (id, client) VALUES (?1, ?2)", (&run.0, &client.0)).map(|_| ())
        })
    }

    /// Records that runs have no marker any more.
    pub fn runs_end(&mut self, runs: &[RunId]) -> Result<()> {
        self.transact(|conn| {
            let mut delete = conn.prepare_cached("DELETE FROM run WHERE id = ?1")?;
            runs.iter().try_for_each(|run| delete.execute([&run.0]).map(|_| ()))
        })
    }
}

//! The tables, as an append-only list of migrations counted by `user_version`.
//!
//! A migration is never edited once released: a new one is appended. Hashes are blobs, kept once and indexed once.

use rusqlite::Connection;

/// SQL of each migration, oldest first.
const MIGRATIONS: &[&str] = &[
    "
    -- What this catalog is: the repository, and the client whose commits it writes.
    CREATE TABLE setting (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

    -- state: 0 intended, 1 stored, 2 retired, 3 deleted, 4 lost; each durable before the store is touched.
    -- frames: four bytes a frame, little-endian: codec << 28 | stored length.
    -- announced: 1 once a commit has named the volume.
    CREATE TABLE volume (
        id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL, state INTEGER NOT NULL,
        bytes INTEGER NOT NULL, etag TEXT, salt BLOB NOT NULL, plain_bytes INTEGER NOT NULL, frames BLOB NOT NULL,
        announced INTEGER NOT NULL DEFAULT 0);

    -- Where each block and each tree node lies. row_check: 8 bytes of a keyed hash over the row.
    CREATE TABLE block (
        id BLOB PRIMARY KEY, volume INTEGER NOT NULL, position INTEGER NOT NULL, length INTEGER NOT NULL,
        checksum INTEGER, row_check BLOB NOT NULL) WITHOUT ROWID;

    -- Every tree node, whole; versions: the id of each entry of a leaf (see version), 0 for directories.
    CREATE TABLE node (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, body BLOB NOT NULL, versions BLOB NOT NULL);

    -- A file version: metadata and content that may stand in many nodes. Its id is an inode number in the mount.
    CREATE TABLE version (id INTEGER PRIMARY KEY, node INTEGER NOT NULL, ordinal INTEGER NOT NULL);
    CREATE TABLE version_key (key BLOB PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;

    -- Every directory path that any snapshot has; 1 is the root.
    CREATE TABLE path (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL, UNIQUE (parent, name));

    -- Names of extended attributes that occur anywhere.
    CREATE TABLE xattr_name (name BLOB PRIMARY KEY) WITHOUT ROWID;

    -- Commits of all chains, as this machine has seen them.
    CREATE TABLE commit_seen (
        client BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (client, seq)) WITHOUT ROWID;

    -- Snapshots; record is the snapshot as its commit holds it. Numbers are never used twice.
    -- snapshot_removed: ids that a commit has removed; it may be seen before the commit that adds them.
    CREATE TABLE snapshot_removed (id BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE snapshot (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, time INTEGER NOT NULL,
        record BLOB NOT NULL);
",
    "
    -- How the store lists a commit: while that stays, it need not be read again.
    ALTER TABLE commit_seen ADD COLUMN bytes INTEGER;
    ALTER TABLE commit_seen ADD COLUMN etag TEXT;

    -- What is wrong with the store: of a volume, or of commits of a chain. shown: how the store listed the object when
    -- the alarm was raised. accepted: 1 once a person has accepted the loss.
    CREATE TABLE alarm (
        object TEXT PRIMARY KEY, diagnosis TEXT NOT NULL, detail TEXT NOT NULL, volume BLOB, client BLOB, first INTEGER,
        last INTEGER, shown TEXT, accepted INTEGER NOT NULL) WITHOUT ROWID;

    -- Losses that commits say were accepted.
    CREATE TABLE chain_loss (
        client BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (client, first, last)
    ) WITHOUT ROWID;
    CREATE TABLE volume_loss (name BLOB PRIMARY KEY) WITHOUT ROWID;
",
    "
    -- The object of each commit, so that a store which has lost it can be given it again; NULL if it was adopted before
    -- this column was there.
    ALTER TABLE commit_seen ADD COLUMN object BLOB;
",
    "
    -- Whoever keeps data by the number of a file version (the kernel, for ever) or of a volume (a mount's caches) must
    -- never meet another one under that number. SQLite counts on from the greatest number that is there: so the row
    -- that has it stays when versions are deleted. A table that counts by itself would cost a microsecond for each new
    -- version; volumes are few.
    CREATE TRIGGER version_number_never_again BEFORE DELETE ON version WHEN old.id = (SELECT max(id) FROM version)
    BEGIN
        SELECT RAISE(IGNORE);
    END;
    CREATE TABLE volume_counted (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL, state INTEGER NOT NULL,
        bytes INTEGER NOT NULL, etag TEXT, salt BLOB NOT NULL, plain_bytes INTEGER NOT NULL, frames BLOB NOT NULL,
        announced INTEGER NOT NULL DEFAULT 0);
    INSERT INTO volume_counted SELECT * FROM volume;
    DROP TABLE volume;
    ALTER TABLE volume_counted RENAME TO volume;
",
    "
    -- announced: 0 if the next commit has to say it, because the one that said it is lost.
    ALTER TABLE snapshot ADD COLUMN announced INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE snapshot_removed ADD COLUMN announced INTEGER NOT NULL DEFAULT 1;
",
    "
    -- frames_at: where the frames begin in the object of a volume. nodes_at: where the nodes begin in its plaintext;
    -- blocks lie before. learn_bytes: how many bytes at its end hold what a catalog learns from it, 0 if unknown.
    ALTER TABLE volume ADD COLUMN frames_at INTEGER NOT NULL DEFAULT 48;
    ALTER TABLE volume ADD COLUMN nodes_at INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE volume ADD COLUMN learn_bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE volume SET nodes_at = plain_bytes WHERE kind = 0;
",
    "
    -- What commits have said for ever; announced as above.
    CREATE TABLE slot_removed (id BLOB PRIMARY KEY, announced INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;
    CREATE TABLE volume_retired (name BLOB PRIMARY KEY, announced INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;
    INSERT INTO volume_retired (name) SELECT name FROM volume WHERE state = 2;
    CREATE TABLE feature (
        list TEXT NOT NULL, name TEXT NOT NULL, announced INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (list, name)
    ) WITHOUT ROWID;

    -- Commits for which a checkpoint of their chain stands.
    CREATE TABLE chain_covered (
        client BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (client, first)
    ) WITHOUT ROWID;

    -- Runs that may have a marker in the store, each with the client that it began under.
    CREATE TABLE run (id BLOB PRIMARY KEY, client BLOB NOT NULL) WITHOUT ROWID;

    -- The key slot of an alarm, if it is about one.
    ALTER TABLE alarm ADD COLUMN slot BLOB;
",
];

/// Version of the schema that this program writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// The version that a database has.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<u32> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings a database up to date, each step in a transaction of its own.
pub(super) fn migrate(conn: &mut Connection) -> rusqlite::Result<()> {
    let done = version(conn)? as usize;
    for (number, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = conn.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", number as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of the version `done`, with two volumes and three file versions.
    fn of_version(done: usize) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        for sql in MIGRATIONS.get(..done).unwrap() {
            conn.execute_batch(sql).unwrap();
        }
        conn.pragma_update(None, "user_version", done as i64).unwrap();
        conn.execute_batch(
            "INSERT INTO volume (name, kind, state, bytes, etag, salt, plain_bytes, frames, announced)
             VALUES (x'aa', 0, 1, 10, 'e', x'01', 20, x'02', 1), (x'bb', 1, 0, 30, NULL, x'03', 40, x'04', 0);
             INSERT INTO version (node, ordinal) VALUES (1, 0), (1, 1), (2, 0);",
        )
        .unwrap();
        conn
    }

    #[test]
    fn no_number_is_given_twice_in_a_catalog_of_any_age() {
        for done in 1..=MIGRATIONS.len() {
            let mut conn = of_version(done);
            migrate(&mut conn).unwrap();
            assert_eq!(version(&conn).unwrap(), VERSION);
            let number = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            let kept =
                "SELECT count(*) FROM volume WHERE (id, name, etag, frames, announced) = (1, x'aa', 'e', x'02', 1)";
            assert_eq!((number(kept), number("SELECT count(*) FROM volume")), (1, 2));
            for round in 0..3 {
                conn.execute_batch("DELETE FROM version WHERE ordinal >= 0; DELETE FROM volume WHERE id > 1").unwrap();
                assert_eq!(number("SELECT count(*) FROM version"), 1, "the newest stays, so that counting goes on");
                let added = "INSERT INTO version (node, ordinal) VALUES (9, 9) RETURNING id";
                assert_eq!(number(added), 4 + round);
                let added = "INSERT INTO volume (name, kind, state, bytes, salt, plain_bytes, frames)
                             VALUES (x'cc', 0, 0, 0, x'', 0, x'') RETURNING id";
                assert_eq!(number(added), 3 + round);
            }
        }
    }
}

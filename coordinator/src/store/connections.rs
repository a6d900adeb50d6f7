//! Two connections to the database file: one writes, the other proves that what was written is there.
//!
//! A connection that failed once is never used again: it may take itself to be in a transaction that the database has
//! ended, and all that it “commits” from then on is lost (the disk was full, say). So a commit counts only when the
//! other connection reads its mark, from the files that are at their paths. A mark is a random text: no other commit, of
//! this program or another, can be taken for it. Transactions are plain SQL, as no count of nested ones must come
//! between us and the database.

use super::{SCHEMA, Signed, StoreError, TABLES, bodies, read, set_meta, write_record, write_row};
use crate::registry::Row;
use data_encoding::HEXLOWER;
use sqlx::{AnyConnection, Connection as _, Executor, Row as _};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Name of the row of `meta` with the mark of the last commit.
const MARK: &str = "commit";

/// A writing and a reading connection, and the files that they have open.
#[derive(Debug)]
pub(super) struct Connections {
    writer: AnyConnection,
    pub(super) reader: AnyConnection,
    files: [(PathBuf, FileId); 2],
}

/// Device and inode of a file, if there is one.
pub(super) type FileId = Option<(u64, u64)>;

impl Connections {
    /// Connects to an existing SQLite file. Tables are created where they are missing; if `is_new` is false, a database
    /// without any is refused.
    pub(super) async fn open(path: &Path, is_new: bool) -> Result<Self, StoreError> {
        // Of an empty file SQLite would delete the write-ahead log.
        let size = fs::metadata(path).map_or(0, |about| about.len());
        if size == 0 && !is_new {
            return Err(StoreError::Missing);
        }
        let mut writer = AnyConnection::connect(&url(path)).await?;
        if !is_new && !has_tables(&mut writer).await? {
            // Closed without a write: the file stays as it was found.
            let _ = writer.close().await;
            return Err(StoreError::Missing);
        }
        prepare(&mut writer).await?;
        migrate(&mut writer).await?;
        let mut reader = AnyConnection::connect(&url(path)).await?;
        prepare(&mut reader).await?;
        let files = [path.to_owned(), beside(path, "-wal")].map(|path| (file_id(&path), path));
        Ok(Self { writer, reader, files: files.map(|(id, path)| (path, id)) })
    }

    /// Mark of the last commit, as the second connection reads it.
    pub(super) async fn mark(&mut self) -> Result<String, StoreError> {
        let found = bodies(&mut self.reader, "SELECT value FROM meta WHERE name = 'commit'").await?;
        found
            .into_iter()
            .next()
            .ok_or_else(|| StoreError::Damaged { what: "the mark of its last commit".into() })
    }

    /// Writes rows and records in one transaction with the mark `next`, the one after that with the mark `last`. After
    /// an error this value must be closed.
    pub(super) async fn commit(
        &mut self,
        last: &str,
        next: &str,
        rows: &[Row],
        records: &[Signed],
    ) -> Result<(), StoreError> {
        self.writer.execute("BEGIN IMMEDIATE").await?;
        for row in rows {
            write_row(&mut self.writer, row).await?;
        }
        for record in records {
            write_record(&mut self.writer, record).await?;
        }
        set_mark(&mut self.writer, last, next).await?;
        self.writer.execute("COMMIT").await?;
        if self.mark().await? != next {
            return Err(StoreError::NotThere);
        }
        self.are_there()
    }

    /// Moves all that the write-ahead log has into the database file, and to the disk.
    pub(super) async fn checkpoint(&mut self) -> Result<(), StoreError> {
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut self.writer).await?;
        match row.try_get::<i64, _>(0)? {
            0 => Ok(()),
            _ => Err(StoreError::Busy),
        }
    }

    /// Closes both connections. A transaction that is open is lost.
    pub(super) async fn close(self) {
        // What fails here shows at the next opening.
        let _ = self.reader.close().await;
        let _ = self.writer.close().await;
    }

    /// Checks that the files are still those at their paths: what is written to a deleted file is lost.
    fn are_there(&self) -> Result<(), StoreError> {
        let is_there = |(path, id): &(PathBuf, FileId)| file_id(path) == *id;
        if self.files.iter().all(is_there) { Ok(()) } else { Err(StoreError::Missing) }
    }
}

pub(super) fn file_id(path: &Path) -> FileId {
    fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}

async fn prepare(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let mode: String =
        sqlx::query("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await?.try_get(0)?;
    if mode != "wal" {
        return Err(StoreError::NoLog { mode });
    }
    connection.execute("PRAGMA synchronous = FULL").await?;
    Ok(())
}

async fn has_tables(connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let tables = bodies(connection, "SELECT name FROM sqlite_master WHERE name = 'meta'").await?;
    Ok(!tables.is_empty())
}

pub(super) async fn migrate(connection: &mut AnyConnection) -> Result<(), StoreError> {
    connection.execute("BEGIN IMMEDIATE").await?;
    for table in TABLES {
        connection.execute(*table).await?;
    }
    let found = bodies(connection, "SELECT value FROM meta WHERE name = 'schema'").await?;
    match found.first().map(|found| read::<i64>("its schema version", found)).transpose()? {
        Some(found) if found > SCHEMA => return Err(StoreError::TooNew { found }),
        Some(SCHEMA) => {}
        // Later versions added tables, and fields with a default: no row has to be rewritten.
        Some(_) | None => set_meta(connection, "schema", &SCHEMA.to_string()).await?,
    }
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(MARK)
        .bind(new_mark())
        .execute(&mut *connection)
        .await?;
    connection.execute("COMMIT").await?;
    Ok(())
}

/// A mark that no other commit has.
pub(super) fn new_mark() -> String {
    HEXLOWER.encode(&crate::pki::random::<16>())
}

/// Replaces the mark of the last commit, which must be that of this program's.
async fn set_mark(connection: &mut AnyConnection, last: &str, next: &str) -> Result<(), StoreError> {
    let set = sqlx::query("UPDATE meta SET value = $1 WHERE name = $2 AND value = $3")
        .bind(next.to_owned())
        .bind(MARK)
        .bind(last.to_owned())
        .execute(connection)
        .await?;
    if set.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Foreign) }
}

/// URL of a SQLite file, with special characters escaped.
pub(super) fn url(path: &Path) -> String {
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite://{path}?mode=rw")
}

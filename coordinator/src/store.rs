//! Database: rows and records, each change in one transaction. SQLite by default. The SQL is common to SQLite
//! and PostgreSQL, so only BIGINT and TEXT occur.
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`: an acknowledged change must survive a power
//! cut, or an address or a revision would be allocated twice.
//!
//! After a commit that failed, nothing is taken for granted:
//!
//! ```text
//!             commit failed                  reopened: it is there, or it is not
//!   sure ───────────────────────▶ unsure ─────────────────────────────────────────▶ sure
//!    ▲ │ commit read by the         │ ▲ not reopened: the disk is full, broken, gone
//!    └─┘ second connection          └─┘
//! ```
//!
//! While it is unsure, it takes no commits. When it is sure again, memory is replaced by what is on disk.

mod audit;
mod connections;
mod dump;

pub use dump::Dump;

use crate::{
    records::{Content, PublishedRecords},
    registry::{Registry, Row},
};
use connections::{Connections, FileId};
use gatewrt_protocol::{PublicKey, Topic};
use sqlx::{AnyConnection, Row as _};
use std::path::{Path, PathBuf};

/// Version of the database's tables. A database with a higher one belongs to a later version of this program.
const SCHEMA: i64 = 2;

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS network (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS node (id TEXT PRIMARY KEY, wg_key TEXT NOT NULL UNIQUE, identity TEXT NOT NULL UNIQUE, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS client (id TEXT PRIMARY KEY, wg_key TEXT NOT NULL UNIQUE, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS code (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS access_rule (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS access_group (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS record (topic TEXT PRIMARY KEY, rev BIGINT NOT NULL, signed TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS token (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS stray (id TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS audit (id BIGINT PRIMARY KEY, net TEXT NOT NULL, body TEXT NOT NULL)",
];

/// Error of the database. `Display` says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk with the database is full: free some space there; nothing was changed")]
    Full,
    /// The database was written by a later version.
    #[error("the database is of a later version ({found}, this program knows {SCHEMA}): run that version")]
    TooNew {
        /// Version of the database's tables.
        found: i64,
    },
    /// A row can't be read.
    #[error("the database is damaged at {what}: restore it from a backup")]
    Damaged {
        /// Description of the row.
        what: String,
    },
    /// There is no database file, or one without tables, where there was one.
    #[error(
        "the database is missing, or is a copy without its tables, beside keys that routers trust: an empty one would cut off every router. Put it back as it was when a coordinator had stopped, with the file gatewrt.db-wal if there was one; or restore a backup with gatewrt-coordinator restore FILE --force; to begin anew, remove the whole directory"
    )]
    Missing,
    /// Another program has written to the database.
    #[error(
        "another program has changed the database: let only one coordinator use it, and restart this one"
    )]
    Foreign,
    /// A second connection does not read what was committed.
    #[error("the database does not keep what is written to it")]
    NotThere,
    /// Another program keeps the database from being written to the disk.
    #[error(
        "another program reads the database and does not end: end it, and leave the file to this coordinator"
    )]
    Busy,
    /// SQLite can't keep a write-ahead log there.
    #[error(
        "the database can't have a write-ahead log where it is (its journal is “{mode}”): move the directory to a local disk"
    )]
    NoLog {
        /// Journal mode of the database.
        mode: String,
    },
    /// It isn't known whether the last change was stored.
    #[error(
        "it is not known what is on the disk: {why}. No change is made until the database can be read again"
    )]
    Unsure {
        /// Reason why it can't be read.
        why: String,
    },
    /// The database failed for another reason.
    #[error("the database failed: {0}")]
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // This is SQLITE_FULL: sqlx's `Any` driver passes on only the message.
        if error.to_string().contains("disk is full") { Self::Full } else { Self::Sql(error) }
    }
}

/// Signed record as the database stores it and the broker publishes it; `None` deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Topic of the record.
    pub topic: Topic,
    /// Revision and signed text.
    pub record: Option<(u64, String)>,
}

/// Database of the coordinator: its settings and signed records in SQLite. See the module.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The file itself: another at this path is not taken over.
    file: FileId,
    state: State,
    /// Mark of the last commit that is on disk for certain.
    last: String,
    /// Mark of the last commit that was tried.
    tried: String,
}

#[derive(Debug)]
enum State {
    Sure(Connections),
    /// Why it isn't known what is on the disk.
    Unsure(String),
}

/// Outcome of a commit that failed at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// All of it is on disk.
    Stored,
    /// Nothing of it is on disk.
    NotStored,
}

/// Content of the database, as it is loaded at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Registry with all rows.
    pub registry: Registry,
    /// Published record of each topic.
    pub published: PublishedRecords,
}

impl Store {
    /// Opens the SQLite file at `path`, which must exist. Tables are created where they are missing; if `is_new` is
    /// false, a database without any is refused.
    pub async fn open(path: &Path, is_new: bool) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let mut connections = Connections::open(path, is_new).await?;
        // What an earlier run could not bring to the disk may be in the kernel's memory alone, where a commit is read
        // and not written again. Of a full disk that is not to be feared.
        if !is_new {
            match connections.checkpoint().await {
                Err(StoreError::Full) => tracing::warn!("{}", StoreError::Full),
                checkpointed => checkpointed?,
            }
        }
        let (file, last) = (connections::file_id(path), connections.mark().await?);
        Ok(Self { path: path.to_owned(), file, state: State::Sure(connections), tried: last.clone(), last })
    }

    /// True if it is known what is on the disk.
    pub fn is_sure(&self) -> bool {
        matches!(self.state, State::Sure(_))
    }

    /// Reason why it isn't known what is on the disk, if it is not.
    pub fn why_unsure(&self) -> Option<&str> {
        match &self.state {
            State::Sure(_) => None,
            State::Unsure(why) => Some(why),
        }
    }

    fn reader(&mut self) -> Result<&mut AnyConnection, StoreError> {
        match &mut self.state {
            State::Sure(connections) => Ok(&mut connections.reader),
            State::Unsure(why) => Err(StoreError::Unsure { why: why.clone() }),
        }
    }

    /// Loads all settings and records from the database. Records must verify with `key`.
    pub async fn load(&mut self, key: &PublicKey) -> Result<Loaded, StoreError> {
        load(self.reader()?, key).await
    }

    /// Stores rows and records in one transaction of the database. They are on disk when it returns, and a second
    /// connection has read it. After an error it isn't known what is on disk: see [`Store::settle`].
    pub async fn commit(&mut self, rows: &[Row], records: &[Signed]) -> Result<(), StoreError> {
        let unsure = State::Unsure("a commit was interrupted".to_owned());
        let mut connections = match std::mem::replace(&mut self.state, unsure) {
            State::Sure(connections) => connections,
            State::Unsure(why) => {
                self.state = State::Unsure(why.clone());
                return Err(StoreError::Unsure { why });
            }
        };
        self.tried = connections::new_mark();
        match connections.commit(&self.last, &self.tried, rows, records).await {
            Ok(()) => {
                self.last.clone_from(&self.tried);
                self.state = State::Sure(connections);
                Ok(())
            }
            Err(error) => {
                connections.close().await;
                self.state = State::Unsure(error.to_string());
                Err(error)
            }
        }
    }

    /// Finds out by new connections what a commit that failed has left on disk, and loads it. Fails if that can't be
    /// known yet.
    pub async fn settle(&mut self, key: &PublicKey) -> Result<(Settled, Loaded), StoreError> {
        let reopened = if connections::file_id(&self.path) == self.file {
            reopen(&self.path, [&self.last, &self.tried], key).await
        } else {
            Err(StoreError::Missing)
        };
        match reopened {
            Ok((connections, settled, loaded)) => {
                if settled == Settled::Stored {
                    self.last.clone_from(&self.tried);
                }
                self.state = State::Sure(connections);
                Ok((settled, loaded))
            }
            Err(error) => {
                let why = error.to_string();
                if self.why_unsure() != Some(&why) {
                    tracing::error!("it is not known what is on the disk: {why}");
                }
                self.state = State::Unsure(why.clone());
                Err(StoreError::Unsure { why })
            }
        }
    }

    /// Closes the database, with everything on disk.
    pub async fn close(self) {
        if let State::Sure(connections) = self.state {
            connections.close().await;
        }
    }
}

/// Connects anew, finds out which of two commits is the last on disk, and loads the database.
async fn reopen(
    path: &Path,
    [last, tried]: [&str; 2],
    key: &PublicKey,
) -> Result<(Connections, Settled, Loaded), StoreError> {
    let mut connections = Connections::open(path, false).await?;
    let found = async {
        let settled = match connections.mark().await? {
            // What was written of the failed one must not come back later.
            mark if mark == last => match connections.checkpoint().await {
                Ok(()) | Err(StoreError::Full) => Settled::NotStored,
                Err(error) => return Err(error),
            },
            // What failed may have been the write to the disk: it has to succeed before this counts.
            mark if mark == tried => connections.checkpoint().await.map(|()| Settled::Stored)?,
            _ => return Err(StoreError::Foreign),
        };
        Ok((settled, load(&mut connections.reader, key).await?))
    };
    match found.await {
        Ok((settled, loaded)) => Ok((connections, settled, loaded)),
        Err(error) => {
            connections.close().await;
            Err(error)
        }
    }
}

async fn load(connection: &mut AnyConnection, key: &PublicKey) -> Result<Loaded, StoreError> {
    let mut rows = Vec::new();
    for body in bodies(connection, "SELECT body FROM network").await? {
        let network: crate::registry::Network = read("a network", &body)?;
        rows.push(Row::Network(network.id, Some(network)));
    }
    for body in bodies(connection, "SELECT body FROM node").await? {
        let node: Box<crate::registry::Node> = read("a node", &body)?;
        rows.push(Row::Node(node.id, Some(node)));
    }
    for body in bodies(connection, "SELECT body FROM client").await? {
        let client: Box<crate::registry::Client> = read("an external client", &body)?;
        rows.push(Row::Client(client.id, Some(client)));
    }
    for body in bodies(connection, "SELECT body FROM code").await? {
        let code: crate::registry::Code = read("a join code", &body)?;
        rows.push(Row::Code(code.id.clone(), Some(code)));
    }
    for body in bodies(connection, "SELECT body FROM access_rule").await? {
        let rule: crate::registry::Rule = read("an access rule", &body)?;
        rows.push(Row::Rule(rule.id, Some(rule)));
    }
    for body in bodies(connection, "SELECT body FROM access_group").await? {
        let group: crate::registry::Group = read("a group", &body)?;
        rows.push(Row::Group(group.net, group.name.clone(), Some(group)));
    }
    for body in bodies(connection, "SELECT body FROM token").await? {
        let token: crate::registry::Token = read("a token", &body)?;
        rows.push(Row::Token(token.id.clone(), Some(token)));
    }
    for body in bodies(connection, "SELECT value FROM meta WHERE name = 'control'").await? {
        rows.push(Row::Control(read("the coordinator's addresses", &body)?));
    }
    for body in bodies(connection, "SELECT value FROM meta WHERE name = 'restored'").await? {
        rows.push(Row::Recovery(Some(read("the recovery after a restore", &body)?)));
    }
    for body in bodies(connection, "SELECT body FROM stray").await? {
        let stray: Box<crate::registry::Stray> = read("a stray", &body)?;
        rows.push(Row::Stray(stray.id(), Some(stray)));
    }
    for body in bodies(connection, "SELECT value FROM meta WHERE name = 'brokers'").await? {
        rows.push(Row::Brokers(read("the coordinator's brokers", &body)?));
    }
    for body in bodies(connection, "SELECT value FROM meta WHERE name = 'seen'").await? {
        rows.push(Row::Seen(read("the latest time seen", &body)?));
    }
    let mut loaded = Loaded::default();
    loaded.registry.apply(rows);
    loaded.published.apply(records(connection, key).await?);
    Ok(loaded)
}

fn read<T: for<'de> serde::Deserialize<'de>>(what: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Damaged { what: format!("{what} ({error})") })
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("rows have string keys only")
}

async fn bodies(connection: &mut AnyConnection, query: &'static str) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(query).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

async fn records(
    connection: &mut AnyConnection,
    key: &PublicKey,
) -> Result<Vec<(Topic, Option<Content>)>, StoreError> {
    let rows = sqlx::query("SELECT topic, signed FROM record").fetch_all(connection).await?;
    let record = |row: &sqlx::any::AnyRow| {
        let (topic, signed): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let content = topic.parse().ok().and_then(|known| {
            Content::open(known, signed.as_bytes(), key).map(|content| (known, Some(content)))
        });
        content.ok_or_else(|| StoreError::Damaged { what: format!("the record on {topic}") })
    };
    rows.iter().map(record).collect()
}

async fn set_meta(connection: &mut AnyConnection, name: &str, value: &str) -> Result<(), StoreError> {
    let query = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    sqlx::query(query).bind(name).bind(value).execute(connection).await?;
    Ok(())
}

async fn write_row(connection: &mut AnyConnection, row: &Row) -> Result<(), StoreError> {
    let query = match row {
        Row::Network(id, Some(network)) => sqlx::query(
            "INSERT INTO network (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.to_string())
        .bind(json(network)),
        Row::Network(id, None) => sqlx::query("DELETE FROM network WHERE id = $1").bind(id.to_string()),
        Row::Node(id, Some(node)) => sqlx::query(
            "INSERT INTO node (id, wg_key, identity, body) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.to_string())
        .bind(node.key.to_string())
        .bind(node.identity.to_string())
        .bind(json(node)),
        Row::Node(id, None) => sqlx::query("DELETE FROM node WHERE id = $1").bind(id.to_string()),
        Row::Client(id, Some(client)) => sqlx::query(
            "INSERT INTO client (id, wg_key, body) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET wg_key = excluded.wg_key, body = excluded.body",
        )
        .bind(id.to_string())
        .bind(client.key.to_string())
        .bind(json(client)),
        Row::Client(id, None) => sqlx::query("DELETE FROM client WHERE id = $1").bind(id.to_string()),
        Row::Code(id, Some(code)) => sqlx::query(
            "INSERT INTO code (id, hash, body) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.to_string())
        .bind(code.hash.clone())
        .bind(json(code)),
        Row::Code(id, None) => sqlx::query("DELETE FROM code WHERE id = $1").bind(id.to_string()),
        Row::Rule(id, Some(rule)) => sqlx::query(
            "INSERT INTO access_rule (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.to_string())
        .bind(json(rule)),
        Row::Rule(id, None) => sqlx::query("DELETE FROM access_rule WHERE id = $1").bind(id.to_string()),
        Row::Group(net, name, Some(group)) => sqlx::query(
            "INSERT INTO access_group (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(format!("{net}/{name}"))
        .bind(json(group)),
        Row::Group(net, name, None) => {
            sqlx::query("DELETE FROM access_group WHERE id = $1").bind(format!("{net}/{name}"))
        }
        Row::Control(addrs) => return set_meta(connection, "control", &json(addrs)).await,
        Row::Brokers(brokers) => return set_meta(connection, "brokers", &json(brokers)).await,
        Row::Seen(seen) => return set_meta(connection, "seen", &json(seen)).await,
        Row::Token(id, Some(token)) => sqlx::query(
            "INSERT INTO token (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.to_string())
        .bind(json(token)),
        Row::Token(id, None) => sqlx::query("DELETE FROM token WHERE id = $1").bind(id.to_string()),
        Row::Recovery(Some(recovery)) => return set_meta(connection, "restored", &json(recovery)).await,
        Row::Recovery(None) => sqlx::query("DELETE FROM meta WHERE name = 'restored'"),
        Row::Stray(id, Some(stray)) => sqlx::query(
            "INSERT INTO stray (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.clone())
        .bind(json(stray)),
        Row::Stray(id, None) => sqlx::query("DELETE FROM stray WHERE id = $1").bind(id.clone()),
        Row::Audit(entry) => return audit::write(connection, entry).await,
    };
    query.execute(connection).await?;
    Ok(())
}

async fn write_record(connection: &mut AnyConnection, signed: &Signed) -> Result<(), StoreError> {
    let topic = signed.topic.to_string();
    let query = match &signed.record {
        Some((rev, signed)) => sqlx::query(
            "INSERT INTO record (topic, rev, signed) VALUES ($1, $2, $3) ON CONFLICT (topic) DO UPDATE SET rev = excluded.rev, signed = excluded.signed",
        )
        .bind(topic)
        .bind(rev.cast_signed())
        .bind(signed.clone()),
        None => sqlx::query("DELETE FROM record WHERE topic = $1").bind(topic),
    };
    query.execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests;

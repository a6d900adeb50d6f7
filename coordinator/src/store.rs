//! Database: rows and records, each change in one transaction. SQLite by default. The SQL is common to SQLite
//! and PostgreSQL, so only BIGINT and TEXT occur.
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`: an acknowledged change must survive a power
//! cut, or an address or a revision would be allocated twice.

mod audit;

use crate::{
    records::{Content, PublishedRecords},
    registry::{Registry, Row},
};
use gatewrt_protocol::{PublicKey, Topic};
use sqlx::{AnyConnection, AnyPool, Executor, Row as _, any::AnyPoolOptions};
use std::path::Path;

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
    pool: AnyPool,
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
    /// Opens the SQLite file at `path`, which must exist, and creates the tables.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let options = AnyPoolOptions::new().max_connections(1).after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("PRAGMA journal_mode = WAL").await?;
                connection.execute("PRAGMA synchronous = FULL").await?;
                Ok(())
            })
        });
        let store = Self { pool: options.connect(&url(path)).await? };
        store.migrate().await?;
        Ok(store)
    }

    /// Loads all settings and records from the database. Records must verify with `key`.
    pub async fn load(&self, key: &PublicKey) -> Result<Loaded, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut rows = Vec::new();
        for body in bodies(&mut connection, "SELECT body FROM network").await? {
            let network: crate::registry::Network = read("a network", &body)?;
            rows.push(Row::Network(network.id, Some(network)));
        }
        for body in bodies(&mut connection, "SELECT body FROM node").await? {
            let node: Box<crate::registry::Node> = read("a node", &body)?;
            rows.push(Row::Node(node.id, Some(node)));
        }
        for body in bodies(&mut connection, "SELECT body FROM client").await? {
            let client: Box<crate::registry::Client> = read("an external client", &body)?;
            rows.push(Row::Client(client.id, Some(client)));
        }
        for body in bodies(&mut connection, "SELECT body FROM code").await? {
            let code: crate::registry::Code = read("a join code", &body)?;
            rows.push(Row::Code(code.id.clone(), Some(code)));
        }
        for body in bodies(&mut connection, "SELECT body FROM access_rule").await? {
            let rule: crate::registry::Rule = read("an access rule", &body)?;
            rows.push(Row::Rule(rule.id, Some(rule)));
        }
        for body in bodies(&mut connection, "SELECT body FROM access_group").await? {
            let group: crate::registry::Group = read("a group", &body)?;
            rows.push(Row::Group(group.net, group.name.clone(), Some(group)));
        }
        for body in bodies(&mut connection, "SELECT body FROM token").await? {
            let token: crate::registry::Token = read("a token", &body)?;
            rows.push(Row::Token(token.id.clone(), Some(token)));
        }
        for body in bodies(&mut connection, "SELECT value FROM meta WHERE name = 'control'").await? {
            rows.push(Row::Control(read("the coordinator's addresses", &body)?));
        }
        let mut loaded = Loaded::default();
        loaded.registry.apply(rows);
        loaded.published.apply(records(&mut connection, key).await?);
        Ok(loaded)
    }

    /// Stores rows and records in one transaction of the database. They are on disk when it returns.
    pub async fn commit(&self, rows: &[Row], records: &[Signed]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for row in rows {
            write_row(&mut transaction, row).await?;
        }
        for record in records {
            write_record(&mut transaction, record).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Closes the database, with everything on disk.
    pub async fn close(self) {
        self.pool.close().await;
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for table in TABLES {
            transaction.execute(*table).await?;
        }
        let found = bodies(&mut transaction, "SELECT value FROM meta WHERE name = 'schema'").await?;
        match found.first().map(|found| read::<i64>("its schema version", found)).transpose()? {
            Some(found) if found > SCHEMA => return Err(StoreError::TooNew { found }),
            Some(SCHEMA) => {}
            // Later versions added tables, and fields with a default: no row has to be rewritten.
            Some(_) | None => set_meta(&mut transaction, "schema", &SCHEMA.to_string()).await?,
        }
        Ok(transaction.commit().await?)
    }
}

/// URL of a SQLite file, with special characters escaped.
fn url(path: &Path) -> String {
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite://{path}?mode=rw")
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
        Row::Token(id, Some(token)) => sqlx::query(
            "INSERT INTO token (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        )
        .bind(id.to_string())
        .bind(json(token)),
        Row::Token(id, None) => sqlx::query("DELETE FROM token WHERE id = $1").bind(id.to_string()),
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

//! All rows of the database as one value, for a backup, and a database made of them.
//!
//! They are read in one transaction, by a connection of another process than the coordinator's. Each change that was
//! acknowledged before it began is in them, and none by half. A coordinator that runs does not wait for it, and need not
//! even answer. The tables are those of the database, not those that this program knows, so that none is forgotten.

use super::{Loaded, StoreError, TABLES, bodies, connections, load, write_row};
use crate::registry::{Recovery, Row};
use gatewrt_protocol::PublicKey;
use serde::{Deserialize, Serialize};
use sqlx::{
    AnyConnection, AssertSqlSafe, Connection as _, Executor, Row as _, ValueRef,
    any::{AnyRow, AnyTypeInfoKind},
};
use std::{collections::BTreeMap, path::Path};

/// Rows of all tables, by the name of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dump(BTreeMap<String, Table>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// Value of one column of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Cell {
    Null,
    Number(i64),
    Text(String),
}

impl Dump {
    /// Reads the SQLite file at `path`, also while a coordinator writes to it.
    pub async fn read(path: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        // Of an empty file SQLite would delete the write-ahead log.
        if std::fs::metadata(path).map_or(0, |about| about.len()) == 0 {
            return Err(StoreError::Missing);
        }
        let mut connection = AnyConnection::connect(&connections::url(path)).await?;
        let found = tables(&mut connection).await;
        // Nothing was written: what fails here fails for the coordinator too.
        let _ = connection.close().await;
        found
    }

    /// Version of the tables; 0 if it is not there.
    pub fn schema(&self) -> i64 {
        let rows = self.0.get("meta").map_or(&[][..], |meta| &meta.rows);
        let of = |row: &Vec<Cell>| match &row[..] {
            [Cell::Text(name), Cell::Text(value)] if name == "schema" => value.parse().ok(),
            _ => None,
        };
        rows.iter().find_map(of).unwrap_or_default()
    }

    /// Loads settings and records, by way of a database in memory. Records must verify with `key`.
    pub async fn load(&self, key: &PublicKey) -> Result<Loaded, StoreError> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect("sqlite::memory:").await?;
        let loaded = async {
            self.fill(&mut connection, None).await?;
            load(&mut connection, key).await
        };
        let loaded = loaded.await;
        let _ = connection.close().await;
        loaded
    }

    /// Fills the empty SQLite file at `path`, and says that it was restored. It is on disk, without a log beside it, when this returns.
    pub async fn write(&self, path: &Path, recovery: Recovery, key: &PublicKey) -> Result<(), StoreError> {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&connections::url(path)).await?;
        let filled = self.fill(&mut connection, Some(recovery)).await;
        let closed = connection.close().await;
        filled?;
        closed?;
        let mut connection = AnyConnection::connect(&connections::url(path)).await?;
        let loaded = load(&mut connection, key).await;
        connection.close().await?;
        loaded.map(drop)
    }

    async fn fill(
        &self,
        connection: &mut AnyConnection,
        recovery: Option<Recovery>,
    ) -> Result<(), StoreError> {
        connection.execute("BEGIN IMMEDIATE").await?;
        for table in TABLES {
            connection.execute(*table).await?;
        }
        for (name, table) in &self.0 {
            table.insert(connection, name).await?;
        }
        if recovery.is_some() {
            write_row(connection, &Row::Recovery(recovery)).await?;
        }
        connection.execute("COMMIT").await?;
        connections::migrate(connection).await
    }
}

async fn tables(connection: &mut AnyConnection) -> Result<Dump, StoreError> {
    connection.execute("PRAGMA query_only = ON").await?;
    connection.execute("BEGIN").await?;
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_'";
    let names = bodies(connection, names).await?;
    if !names.iter().any(|name| name == "meta") {
        return Err(StoreError::Missing);
    }
    let mut dump = Dump(BTreeMap::new());
    for name in names {
        let columns = columns(connection, &name).await?;
        let query = AssertSqlSafe(format!("SELECT * FROM \"{name}\" ORDER BY 1"));
        let found = sqlx::query(query).fetch_all(&mut *connection).await?;
        let rows = found.iter().map(|row| cells(&name, row)).collect::<Result<_, _>>()?;
        dump.0.insert(name, Table { columns, rows });
    }
    connection.execute("COMMIT").await?;
    Ok(dump)
}

/// Names of a table's columns; empty without that table.
async fn columns(connection: &mut AnyConnection, table: &str) -> Result<Vec<String>, StoreError> {
    let query = sqlx::query("SELECT name FROM pragma_table_info($1)").bind(table.to_owned());
    let rows = query.fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn cells(table: &str, row: &AnyRow) -> Result<Vec<Cell>, StoreError> {
    let cell = |at: usize| -> Result<Cell, StoreError> {
        let value = row.try_get_raw(at)?;
        let kind = value.type_info().kind();
        match kind {
            _ if value.is_null() => Ok(Cell::Null),
            AnyTypeInfoKind::SmallInt | AnyTypeInfoKind::Integer | AnyTypeInfoKind::BigInt => {
                Ok(Cell::Number(row.try_get(at)?))
            }
            AnyTypeInfoKind::Text => Ok(Cell::Text(row.try_get(at)?)),
            _ => Err(StoreError::Damaged { what: format!("a row of its table {table}") }),
        }
    };
    (0..row.len()).map(cell).collect()
}

impl Table {
    /// Inserts the rows into the table `name`, which must have the same columns or more.
    async fn insert(&self, connection: &mut AnyConnection, name: &str) -> Result<(), StoreError> {
        let damaged = || StoreError::Damaged { what: format!("its table {name}") };
        // Only names that are in the new database get into the text of a statement.
        let known = columns(connection, name).await?;
        if known.is_empty() || !self.columns.iter().all(|column| known.contains(column)) {
            return Err(damaged());
        }
        let places: Vec<_> = (1..=self.columns.len()).map(|at| format!("${at}")).collect();
        let query: std::sync::Arc<str> =
            format!("INSERT INTO {name} ({}) VALUES ({})", self.columns.join(", "), places.join(", ")).into();
        for row in &self.rows {
            if row.len() != self.columns.len() {
                return Err(damaged());
            }
            let insert =
                row.iter().fold(sqlx::query(AssertSqlSafe(query.clone())), |insert, cell| match cell {
                    Cell::Null => insert.bind(None::<String>),
                    Cell::Number(number) => insert.bind(*number),
                    Cell::Text(text) => insert.bind(text.clone()),
                });
            insert.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

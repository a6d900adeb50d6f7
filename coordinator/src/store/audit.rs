//! Table of the audit log: written with each change, read in pages, with at most [`KEPT`] entries.

use super::{Store, StoreError, json, read};
use crate::audit::{Entry, KEPT};
use gatewrt_protocol::NetworkId;
use sqlx::{AnyConnection, Row as _};

impl Store {
    /// Reads entries of the audit log with their numbers, newest first: at most `limit` of those before number
    /// `before`, of one network if one is named.
    pub async fn audit(
        &mut self,
        net: Option<NetworkId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, Entry)>, StoreError> {
        let query =
            "SELECT id, body FROM audit WHERE id < $1 AND (net = $2 OR $2 = '') ORDER BY id DESC LIMIT $3";
        let rows = sqlx::query(query)
            .bind(before.unwrap_or(i64::MAX))
            .bind(net.map(|net| net.to_string()).unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(self.reader()?)
            .await?;
        let entry = |row: &sqlx::any::AnyRow| {
            let (id, body): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            Ok((id, read("an entry of the audit log", &body)?))
        };
        rows.iter().map(entry).collect()
    }
}

pub(super) async fn write(connection: &mut AnyConnection, entry: &Entry) -> Result<(), StoreError> {
    let query = "INSERT INTO audit (id, net, body) SELECT COALESCE(MAX(id), 0) + 1, $1, $2 FROM audit";
    sqlx::query(query)
        .bind(entry.net.map(|net| net.to_string()).unwrap_or_default())
        .bind(json(entry))
        .execute(&mut *connection)
        .await?;
    let prune = "DELETE FROM audit WHERE id <= (SELECT MAX(id) FROM audit) - $1";
    sqlx::query(prune).bind(i64::from(KEPT)).execute(connection).await?;
    Ok(())
}

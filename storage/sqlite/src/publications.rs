//! Messages that name themselves: what a publisher sends again is not stored again.

use std::collections::HashMap;

use serde_json::{Value, json};
use sotto_model::UnixMillis;
use sotto_storage::StoreError;
use sotto_storage::message_log::Append;
use sotto_storage::publication_key::PublicationKey;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::error::During;
use crate::log_id::LogId;
use crate::number::{count_to_row, to_row};

const OPERATION: &str = "append";

/// Whether a message of a batch is to be stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newness {
    New,
    /// It is the batch's message of this index, published again.
    SameAs(usize),
    /// It had been committed there.
    Known(LogId),
}

pub(crate) async fn newness(
    connection: &mut SqliteConnection,
    appends: &[Append],
) -> Result<Vec<Newness>, StoreError> {
    let keys: Vec<Option<PublicationKey>> = appends.iter().map(PublicationKey::of).collect();
    let known = known(connection, keys.iter().flatten()).await?;
    let mut first = HashMap::new();
    let newness = keys.iter().enumerate().map(|(index, key)| {
        let Some(key) = key else { return Newness::New };
        if let Some(log_id) = known.get(key) {
            return Newness::Known(*log_id);
        }
        match *first.entry(*key).or_insert(index) {
            first if first == index => Newness::New,
            first => Newness::SameAs(first),
        }
    });
    Ok(newness.collect())
}

async fn known(
    connection: &mut SqliteConnection,
    keys: impl Iterator<Item = &PublicationKey>,
) -> Result<HashMap<PublicationKey, LogId>, StoreError> {
    let keys: Vec<String> = keys.map(hex).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(
        "SELECT publications.publication_key, publications.log_id
         FROM json_each(?) AS named CROSS JOIN publications ON publications.publication_key = unhex(named.value)",
    )
    .bind(json!(keys).to_string())
    .fetch_all(connection)
    .await
    .during(OPERATION)?;
    Ok(rows.into_iter().map(|(key, log_id)| (PublicationKey(key), LogId::from_row(log_id))).collect())
}

pub(crate) async fn remember(
    connection: &mut SqliteConnection,
    stored: impl Iterator<Item = (&Append, LogId)>,
    committed_at: UnixMillis,
) -> Result<(), StoreError> {
    let named: Vec<Value> = stored
        .filter_map(|(append, log_id)| Some(json!([hex(&PublicationKey::of(append)?), log_id.to_row()])))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO publications (publication_key, log_id, committed_at_ms)
         SELECT unhex(value ->> 0), value ->> 1, ?2 FROM json_each(?1)",
    )
    .bind(json!(named).to_string())
    .bind(to_row(committed_at.0))
    .execute(connection)
    .await
    .during(OPERATION)?;
    Ok(())
}

pub(crate) async fn forget(
    connection: &mut SqliteConnection,
    before: UnixMillis,
    limit: usize,
) -> Result<usize, StoreError> {
    let forgotten = sqlx::query(
        "DELETE FROM publications WHERE publication_key IN (
             SELECT publication_key FROM publications WHERE committed_at_ms < ? ORDER BY committed_at_ms LIMIT ?)",
    )
    .bind(to_row(before.0))
    .bind(count_to_row(limit))
    .execute(connection)
    .await
    .during("forget publications")?;
    Ok(usize::try_from(forgotten.rows_affected()).expect("at most the limit"))
}

fn hex(PublicationKey(key): &PublicationKey) -> String {
    key.simple().to_string()
}

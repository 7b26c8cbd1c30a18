//! The schema, step by step. Steps are only added.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, SqliteConnection};

use crate::error::store_error;
use crate::open_error::{OpenError, open_error};

const STEPS: [(i64, &str, &str); 8] = [
    (1, "initial", include_str!("../migrations/0001_initial.sql")),
    (2, "acl rules", include_str!("../migrations/0002_acl_rules.sql")),
    (3, "retained", include_str!("../migrations/0003_retained.sql")),
    (4, "wills", include_str!("../migrations/0004_wills.sql")),
    (5, "scram", include_str!("../migrations/0005_scram.sql")),
    (6, "retention", include_str!("../migrations/0006_retention.sql")),
    (7, "publications", include_str!("../migrations/0007_publications.sql")),
    (8, "wakeups", include_str!("../migrations/0008_wakeups.sql")),
];

/// The schema that this program works with.
const KNOWN: i64 = STEPS[STEPS.len() - 1].0;

/// Brings the database to the schema of this program, in one transaction: of several that open it at once, one
/// does it, and a step that fails leaves nothing behind. A database that a newer program has changed is refused
/// and left as it is.
pub(crate) async fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let steps = STEPS.map(|(version, description, sql)| {
        let no_tx = false;
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, Cow::Borrowed(sql), no_tx)
    });
    let migrator = Migrator { migrations: Cow::Owned(Vec::from(steps)), ..Migrator::DEFAULT };
    // SQLite's migrator takes no lock of its own.
    let mut transaction =
        connection.begin_with("BEGIN IMMEDIATE").await.map_err(|error| open_error(&error))?;
    migrator.run_direct(&mut *transaction).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) if found > KNOWN => {
            OpenError::NewerSchema { found, known: KNOWN }
        }
        MigrateError::VersionMissing(step)
        | MigrateError::VersionMismatch(step)
        | MigrateError::Dirty(step) => OpenError::AlteredSchema(step),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            store_error(&error, "migrate").into()
        }
        _ => OpenError::AlteredSchema(KNOWN),
    })?;
    transaction.commit().await.map_err(|error| store_error(&error, "migrate"))?;
    Ok(())
}

/// Is the schema the one that this program works with? Changes nothing.
pub(crate) async fn check_schema(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    const OPERATION: &str = "read schema version";
    let any: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| open_error(&error))?;
    let found: Option<i64> = match any {
        0 => None,
        _ => sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(connection)
            .await
            .map_err(|error| store_error(&error, OPERATION))?,
    };
    match found.unwrap_or_default() {
        found if found > KNOWN => Err(OpenError::NewerSchema { found, known: KNOWN }),
        found if found < KNOWN => Err(OpenError::OlderSchema { found, known: KNOWN }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_from_one_without_gaps() {
        assert!(STEPS.iter().map(|step| step.0).eq(1..=KNOWN));
    }
}

//! The schema, step by step. Steps are only added.

use std::borrow::Cow;

use sqlx::SqliteConnection;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::error::store_error;
use crate::open_error::OpenError;

const STEPS: [(i64, &str, &str); 5] = [
    (1, "initial", include_str!("../migrations/0001_initial.sql")),
    (2, "acl rules", include_str!("../migrations/0002_acl_rules.sql")),
    (3, "retained", include_str!("../migrations/0003_retained.sql")),
    (4, "wills", include_str!("../migrations/0004_wills.sql")),
    (5, "scram", include_str!("../migrations/0005_scram.sql")),
];

/// The schema that this program works with.
const KNOWN: i64 = STEPS[STEPS.len() - 1].0;

/// Brings the database to the schema of this program. A database that a newer program has changed is
/// refused and left as it is.
pub(crate) async fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let steps = STEPS.map(|(version, description, sql)| {
        let no_tx = false;
        Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, Cow::Borrowed(sql), no_tx)
    });
    let migrator = Migrator { migrations: Cow::Owned(Vec::from(steps)), ..Migrator::DEFAULT };
    migrator.run_direct(connection).await.map_err(|error| match error {
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_from_one_without_gaps() {
        assert!(STEPS.iter().map(|step| step.0).eq(1..=KNOWN));
    }
}

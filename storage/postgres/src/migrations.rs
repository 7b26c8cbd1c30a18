//! The schema, embedded. Files are only ever added: a database that has run one keeps its checksum.

use futures::future::BoxFuture;
use sqlx::PgConnection;
use sqlx::error::BoxDynError;
use sqlx::migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator};

use crate::open_error::OpenError;

/// Brings the schema up to date, under a lock: of several processes that start, one does it.
pub(crate) async fn run(connection: &mut PgConnection) -> Result<(), OpenError> {
    let migrator = Migrator::new(Embedded).await.map_err(|error| OpenError::schema(&error))?;
    // Waiting for another process's migrations, and running ours, may take longer than a statement may.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0; SET client_min_messages = warning")
        .execute(&mut *connection)
        .await
        .map_err(|error| OpenError::unreachable(&error))?;
    migrator.run_direct(connection).await.map_err(|error| OpenError::schema(&error))
}

#[derive(Debug)]
struct Embedded;

impl<'s> MigrationSource<'s> for Embedded {
    fn resolve(self) -> BoxFuture<'s, Result<Vec<Migration>, BoxDynError>> {
        let sources = [
            (1, "schema", include_str!("../migrations/0001_schema.sql")),
            (2, "acl_rules", include_str!("../migrations/0002_acl_rules.sql")),
            (3, "retained", include_str!("../migrations/0003_retained.sql")),
            (4, "wills", include_str!("../migrations/0004_wills.sql")),
            (5, "scram", include_str!("../migrations/0005_scram.sql")),
            (6, "retention", include_str!("../migrations/0006_retention.sql")),
        ];
        let migrations = sources
            .into_iter()
            .map(|(version, name, sql)| {
                Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
            })
            .collect();
        Box::pin(async move { Ok(migrations) })
    }
}

impl OpenError {
    fn schema(error: &MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::NewerSchema(*version),
            MigrateError::VersionMismatch(version) => Self::AlteredSchema(*version),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::from_sql(error),
            _ => Self::Refused { code: "migration".into() },
        }
    }
}

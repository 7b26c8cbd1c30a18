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

/// The schema as it was once.
#[cfg(feature = "testing")]
pub(crate) async fn run_up_to(connection: &mut PgConnection, version: i64) -> Result<(), MigrateError> {
    let migrator = Migrator::new(Embedded).await?;
    let migrations = migrator.iter().filter(|migration| migration.version <= version).cloned().collect();
    Migrator { migrations, ..Migrator::DEFAULT }.run_direct(connection).await
}

/// Is the schema the one that this program works with? Changes nothing.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), OpenError> {
    const UNDEFINED_TABLE: &str = "42P01";
    let migrator = Migrator::new(Embedded).await.map_err(|error| OpenError::schema(&error))?;
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    let found: Result<Option<i64>, sqlx::Error> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(connection)
            .await;
    match found {
        Ok(found) => match found.unwrap_or_default() {
            found if found > known => Err(OpenError::NewerSchema(found)),
            found if found < known => Err(OpenError::OlderSchema { found, known }),
            _ => Ok(()),
        },
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNDEFINED_TABLE) => {
            Err(OpenError::OlderSchema { found: 0, known })
        }
        Err(error) => Err(OpenError::from_sql(&error)),
    }
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
            (7, "outbox_rows", include_str!("../migrations/0007_outbox_rows.sql")),
            (8, "publications", include_str!("../migrations/0008_publications.sql")),
            (9, "log_weeks", include_str!("../migrations/0009_log_weeks.sql")),
            (10, "wakeups", include_str!("../migrations/0010_wakeups.sql")),
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

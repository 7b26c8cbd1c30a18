//! The weeks that the log consists of: each a partition of `messages`, made before it is needed.

use sotto_model::UnixMillis;
use sqlx::PgConnection;

use crate::column::bigint;
use crate::fault::Fault;

/// The week that `at` is in. Others read and write the log meanwhile.
pub(crate) async fn ensure(connection: &mut PgConnection, at: UnixMillis) -> Result<(), Fault> {
    sqlx::query("SELECT sotto_ensure_week($1)").bind(bigint(at.0)).execute(connection).await?;
    Ok(())
}

//! What every backend must do.

use std::sync::Arc;

use sotto_postgres::testing::TestDatabase;
use sotto_storage::conformance::Fresh;

async fn fresh() -> Fresh {
    let database = TestDatabase::create().await;
    Fresh { store: Arc::new(database.store().await), keep: Box::new(database) }
}

sotto_storage::conformance_tests!(fresh);

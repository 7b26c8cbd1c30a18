//! The suite that every backend must pass.

use std::sync::Arc;

use sotto_sqlite::SqliteStore;
use sotto_storage::conformance::Fresh;

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(&folder.path().join("sotto.db")).await.expect("open");
    Fresh { store: Arc::new(store), keep: Box::new(folder) }
}

sotto_storage::conformance_tests!(fresh);

//! The suite that every backend must pass; this one also when its calls are slow.

use std::sync::Arc;

use sotto_memory::{FaultRates, FaultyStore, MemoryStore};
use sotto_storage::conformance::Fresh;

async fn fresh() -> Fresh {
    Fresh { store: Arc::new(MemoryStore::new()), keep: Box::new(()) }
}

sotto_storage::conformance_tests!(fresh);

mod delayed {
    use super::{Arc, FaultRates, FaultyStore, Fresh, MemoryStore};

    async fn fresh() -> Fresh {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), 1);
        store.set_rates(FaultRates { delayed_permille: 1000, delay_ms_max: 1, ..FaultRates::NONE });
        Fresh { store: Arc::new(store), keep: Box::new(()) }
    }

    sotto_storage::conformance_tests!(fresh);
}

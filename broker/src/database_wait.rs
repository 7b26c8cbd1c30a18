//! Steps of the start that need the database: one that is not there yet is waited for.

use std::time::Duration;

use anyhow::Result;
use sotto_model::Backoff;
use sotto_storage::StoreError;

use crate::directory::LoadError;

/// Between two attempts.
const RETRY: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

/// Takes the step again until the database answers. Whatever else fails it, fails the start.
pub(crate) async fn once_there<T>(step: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut failures = 0u32;
    loop {
        let error = match step().await {
            Ok(done) => {
                if failures > 0 {
                    tracing::info!(event = "database_there", count = failures, "the database answers");
                }
                return Ok(done);
            }
            Err(error) if is_away(&error) => error,
            Err(error) => return Err(error),
        };
        failures = failures.saturating_add(1);
        if failures == 1 {
            tracing::warn!(
                event = "database_awaited",
                error = %format_args!("{error:#}"),
                "the database cannot be asked; the start waits for it"
            );
        }
        tokio::time::sleep(RETRY.ceiling(failures)).await;
    }
}

/// The same step may succeed later, with nobody's help but the database's.
fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        if let Some(LoadError::Store(error)) = cause.downcast_ref() {
            return error.is_transient();
        }
        cause.downcast_ref().is_some_and(StoreError::is_transient)
            || cause.downcast_ref().is_some_and(sotto_postgres::OpenError::is_transient)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::Context;

    use super::*;

    async fn attempts_until_it_ends(error: impl Fn() -> anyhow::Error) -> u32 {
        let attempts = AtomicU32::new(0);
        let step = async || match attempts.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(error()).context("take a step"),
            _ => Ok(()),
        };
        let _ = once_there(step).await;
        attempts.into_inner()
    }

    fn unavailable() -> StoreError {
        StoreError::Unavailable { operation: "read", code: "57P03".into() }
    }

    #[tokio::test]
    async fn what_may_pass_is_waited_for() {
        let unreachable =
            || sotto_postgres::OpenError::Unreachable { code: "connection refused".into() }.into();
        assert_eq!(attempts_until_it_ends(unreachable).await, 3);
        assert_eq!(attempts_until_it_ends(|| unavailable().into()).await, 3);
        assert_eq!(attempts_until_it_ends(|| LoadError::Store(unavailable()).into()).await, 3);
    }

    #[tokio::test]
    async fn what_somebody_must_mend_fails_the_start_at_once() {
        let refused = || StoreError::Refused { operation: "claim", code: "held".into() }.into();
        assert_eq!(attempts_until_it_ends(refused).await, 1);
        let wrong_password = || sotto_postgres::OpenError::Refused { code: "28P01".into() }.into();
        assert_eq!(attempts_until_it_ends(wrong_password).await, 1);
        assert_eq!(attempts_until_it_ends(|| anyhow::anyhow!("no room")).await, 1);
    }
}

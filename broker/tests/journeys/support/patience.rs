//! How long anything is waited for.

use std::future::Future;
use std::time::Duration;

/// What is to happen happens well within this, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Between two looks at something that does not tell when it changes.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// Waits for something that tells when it is there.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(SOON, happens).await;
    happened.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Looks until it is so.
pub(crate) async fn until(what: &str, is_so: impl AsyncFnMut() -> bool) {
    until_within(SOON, what, is_so).await;
}

pub(crate) async fn until_within(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looked = tokio::time::timeout(limit, async {
        while !is_so().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    assert!(looked.await.is_ok(), "waited in vain until {what}");
}

//! What the journeys stand on: brokers as processes, databases, phones, and the services around them.

pub(crate) mod clients;
pub(crate) mod database;
pub(crate) mod house;
pub(crate) mod metrics;
pub(crate) mod mosquitto;
pub(crate) mod patience;
pub(crate) mod phone;
pub(crate) mod process;
pub(crate) mod push_platforms;
pub(crate) mod push_service;

/// Runs each journey once on the embedded store and once on PostgreSQL.
macro_rules! on_both_stores {
    ($($journey:ident),+ $(,)?) => {$(
        mod $journey {
            use crate::support::database::Kind;

            #[tokio::test(flavor = "multi_thread")]
            async fn on_sqlite() {
                super::$journey(Kind::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_postgres() {
                super::$journey(Kind::Postgres).await;
            }
        }
    )+};
}
pub(crate) use on_both_stores;

//! The store: its lanes, and how it opens.

use std::str::FromStr;

use sotto_storage::wakeup_quota::SharedWakeupQuota;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

use crate::fault::Fault;
use crate::lane::{Lane, within_time};
use crate::limits::{
    CONTROL_CONNECTIONS, IDLE_IN_TRANSACTION_TIMEOUT_MS, LOCK_TIMEOUT_MS, MIGRATION_TIMEOUT, READERS_DEFAULT,
    STATEMENT_TIMEOUT_MS, WRITER_WORK_MEM_KIB,
};
use crate::low_watermark::{LaneWatermarks, LowWatermark};
use crate::migrations;
use crate::open_error::OpenError;
use crate::read_queue::ReadQueue;
use crate::topics::TopicIds;
use crate::writer::Writer;

/// Everything that the broker keeps, in one PostgreSQL database. Connections are kept apart by
/// purpose, so that none waits for the others: a burst of catch-up reads cannot hold up a commit.
///
/// The URL must lead to the server itself, not to a pooler that shares connections: the writer's claim is a
/// lock of its session, and statements stay prepared.
pub struct PostgresStore {
    pub(crate) writer: Writer,
    pub(crate) sessions: Lane,
    pub(crate) readers: Lane,
    pub(crate) control: Lane,
    /// What is old is deleted here, beside everything else.
    pub(crate) maintenance: Lane,
    pub(crate) read_queue: ReadQueue,
    pub(crate) topic_ids: TopicIds,
    pub(crate) outbox_scan: LowWatermark,
    pub(crate) wake_scans: LaneWatermarks,
    pub(crate) wakeup_quota: SharedWakeupQuota,
}

#[derive(Clone, Copy, Debug)]
pub struct PostgresOptions {
    /// Connections that read the log.
    pub readers: usize,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { readers: READERS_DEFAULT }
    }
}

impl PostgresStore {
    /// Connects once to bring the schema up to date; the lanes connect when they are used.
    pub async fn connect(url: &str, options: PostgresOptions) -> Result<Self, OpenError> {
        let store = Self::with(&server_of(url)?, options);
        let mut connection = store.first_connection().await?;
        within_time(MIGRATION_TIMEOUT, async { Ok(migrations::run(&mut connection).await) })
            .await
            .map_err(|_| OpenError::Unreachable { code: "migrations timed out".into() })??;
        Ok(store)
    }

    /// To look through: the server refuses every change. The schema must be this program's as it stands.
    pub async fn connect_to_check(url: &str) -> Result<Self, OpenError> {
        let server = server_of(url)?.options([("default_transaction_read_only", "on")]);
        let store = Self::with(&server, PostgresOptions::default());
        let mut connection = store.first_connection().await?;
        migrations::check(&mut connection).await?;
        Ok(store)
    }

    fn with(base: &PgConnectOptions, options: PostgresOptions) -> Self {
        Self {
            writer: Writer::new(with_writer_settings(base.clone())),
            sessions: Lane::new(with_lookup_plans(base.clone()), 1),
            readers: Lane::new(with_kept_plans(base.clone()), options.readers.max(1)),
            control: Lane::new(with_lookup_plans(base.clone()), CONTROL_CONNECTIONS),
            maintenance: Lane::new(with_lookup_plans(base.clone()), 1),
            read_queue: ReadQueue::default(),
            topic_ids: TopicIds::default(),
            outbox_scan: LowWatermark::default(),
            wake_scans: LaneWatermarks::default(),
            wakeup_quota: SharedWakeupQuota::default(),
        }
    }

    async fn first_connection(&self) -> Result<PgConnection, OpenError> {
        self.sessions.open().await.map_err(|fault| match fault {
            Fault::Sql(error) => OpenError::from_sql(&error),
            Fault::Inconsistent(_) => OpenError::Refused { code: "connect".into() },
        })
    }
}

fn server_of(url: &str) -> Result<PgConnectOptions, OpenError> {
    // The parser ignores a scheme that it does not know.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(OpenError::BadUrl);
    }
    // Statements hold no values, but they are many; and slow ones are measured where they are called.
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::BadUrl)?.disable_statement_logging();
    Ok(with_time_limits(options.application_name("sotto")))
}

fn with_time_limits(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("statement_timeout", STATEMENT_TIMEOUT_MS.to_string()),
        ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS.to_string()),
        // Statements here are short; and an estimate that holds the penalty for a plan that is off would have
        // it compiled, at a hundred times what it takes to run it.
        ("jit", "off".to_owned()),
        // A client that vanished without a word is noticed within half a minute, so that it does not hold
        // its locks, and with them the log.
        ("tcp_keepalives_idle", "10".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "4".to_owned()),
    ])
}

fn with_writer_settings(options: PgConnectOptions) -> PgConnectOptions {
    with_kept_plans(options).options([("work_mem", format!("{WRITER_WORK_MEM_KIB}kB"))])
}

/// Where no plan depends on the values; and a plan of a log of many weeks takes longer to make than to run.
fn with_kept_plans(options: PgConnectOptions) -> PgConnectOptions {
    with_lookup_plans(options).options([("plan_cache_mode", "force_generic_plan")])
}

/// The planner takes an array for ten rows, or for what the table held when it planned, and then joins whole
/// tables by hash (78 ms where an index lookup for each row takes 1.3 ms): every statement here is a lookup
/// by index.
fn with_lookup_plans(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("enable_seqscan", "off")])
}

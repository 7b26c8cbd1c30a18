//! Many sleeping devices, all behind: how fast they are made due, claimed and settled, and whether a claim is any slower
//! beside what waits in other lanes, or was sent.
//!
//! `cargo bench -p benches --bench wakeups -- sqlite|postgres [CONVERSATIONS]`: of 1,000 members each, a device each.

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a benchmark measures and prints")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto_model::UnixMillis;
use sotto_postgres::testing::{Durability, Server};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_storage::conformance::fixture::{Fixture, Fresh, NOW, conversation_topic, lane, later};
use sotto_storage::outbox::{ClaimedWakeup, Settlement};
use sotto_storage::push_registry::{Lane, Platform};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

const CONVERSATIONS: usize = 1000;
const MEMBERS: i64 = 1000;
/// As the broker takes them.
const ROWS_PER_TURN: usize = 1000;
const CLAIM: usize = 256;
const LEASE_MS: u64 = 600_000;

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

fn main() {
    let conversations =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(CONVERSATIONS);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start a runtime");
    for store in
        ["sqlite", "postgres"].into_iter().filter(|store| std::env::args().any(|argument| argument == *store))
    {
        runtime.block_on(async {
            let (fixture, database, server) =
                if store == "sqlite" { sqlite().await } else { postgres().await };
            measure(&Run { name: store, server }, fixture, database, conversations).await;
        });
    }
}

/// What is measured, and where its database server keeps its process id; `None`: it is this process.
struct Run {
    name: &'static str,
    server: Option<PathBuf>,
}

async fn sqlite() -> (Fixture, Database, Option<PathBuf>) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("sotto.db");
    let store = SqliteStore::open(&path).await.expect("open");
    let options = SqliteConnectOptions::new().filename(&path);
    let connection = options.busy_timeout(Duration::from_mins(1)).connect().await.expect("connect");
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(folder) }).await;
    (fixture, Database::Sqlite(connection), None)
}

async fn postgres() -> (Fixture, Database, Option<PathBuf>) {
    let server = Server::start(Durability::Full);
    let url = server.url("postgres");
    let store = PostgresStore::connect(&url, PostgresOptions::default()).await.expect("open");
    let connection = PgConnection::connect(&url).await.expect("connect");
    let folder = server.folder().to_owned();
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(server) }).await;
    (fixture, Database::Postgres(connection), Some(folder))
}

async fn measure(run: &Run, fixture: Fixture, mut database: Database, conversations: usize) {
    make_behind(&fixture, &mut database, conversations).await;
    let wakeups = relay_all(run, &fixture).await;

    // Another lane than that of the many, with little in it.
    let other = Lane { platform: Platform::Apns, app: "org.example.app".into() };
    move_to(&mut database, &other, CLAIM * 8).await;
    let mut beside = Vec::new();
    for _ in 0..8 {
        let begun = Instant::now();
        let claimed = fixture.store.claim(&other, CLAIM, NOW, later(LEASE_MS)).await.expect("claim");
        beside.push(begun.elapsed());
        assert_eq!(claimed.len(), CLAIM);
    }
    println!("{} a claim of {CLAIM} beside {wakeups} of another lane: {}", run.name, percentiles(beside));
    let begun = Instant::now();
    assert_eq!(fixture.store.lag(NOW).await.expect("lag").lanes.len(), 2);
    println!("{} the lag with all of them due: {:.1} ms", run.name, begun.elapsed().as_secs_f64() * 1e3);

    let sent = send_all(run, &fixture).await;
    let (mut idle, mut lags) = (Vec::new(), Vec::new());
    for turn in 0..50 {
        let begun = Instant::now();
        let now = UnixMillis(NOW.0 + 2500 * turn);
        assert!(fixture.store.claim(&lane(), CLAIM, now, later(LEASE_MS)).await.expect("claim").is_empty());
        idle.push(begun.elapsed());
        let begun = Instant::now();
        fixture.store.lag(now).await.expect("lag");
        lags.push(begun.elapsed());
    }
    println!("{} a claim that finds nothing beside {sent} sent: {}", run.name, percentiles(idle));
    println!("{} the lag with {sent} sent: {}", run.name, percentiles(lags));
}

/// A message to each conversation.
async fn make_behind(fixture: &Fixture, database: &mut Database, conversations: usize) {
    let mut ids = Vec::with_capacity(conversations);
    for _ in 0..conversations {
        let conversation = fixture.make_conversation().await;
        fixture.join(conversation, fixture.alice.user).await;
        ids.push(conversation);
    }
    populate(database).await;
    for some in ids.chunks(256) {
        let mut appends = Vec::with_capacity(some.len());
        for conversation in some {
            let topic = conversation_topic(*conversation);
            appends.push(fixture.message_of(&fixture.alice, &topic, &[0x5a; 300]).await);
        }
        fixture.store.append(&fixture.batch(appends)).await.expect("append");
    }
}

async fn relay_all(run: &Run, fixture: &Fixture) -> u64 {
    let (begun, cpu) = (Instant::now(), run.cpu());
    let (mut wakeups, mut turns) = (0, Vec::new());
    loop {
        let turn = Instant::now();
        let relayed = fixture.store.relay(ROWS_PER_TURN, NOW).await.expect("relay");
        if relayed.messages == 0 {
            break;
        }
        wakeups += relayed.wakeups;
        turns.push(turn.elapsed());
    }
    run.report("relay", wakeups, begun.elapsed(), cpu);
    println!("{} turns of the relay, quarter by quarter: {}", run.name, quarters(&turns));
    wakeups
}

async fn send_all(run: &Run, fixture: &Fixture) -> u64 {
    let (begun, cpu) = (Instant::now(), run.cpu());
    let (mut claims, mut settlings) = (Vec::new(), Vec::new());
    let mut count = 0;
    loop {
        let claim = Instant::now();
        let claimed = fixture.store.claim(&lane(), CLAIM, NOW, later(LEASE_MS)).await.expect("claim");
        claims.push(claim.elapsed());
        if claimed.is_empty() {
            break;
        }
        count += claimed.len() as u64;
        let sent: Vec<(ClaimedWakeup, Settlement)> =
            claimed.into_iter().map(|wakeup| (wakeup, Settlement::Sent { at: NOW })).collect();
        let settle = Instant::now();
        fixture.store.settle_many(&sent, NOW).await.expect("settle");
        settlings.push(settle.elapsed());
    }
    run.report("claim and settle", count, begun.elapsed(), cpu);
    for (what, took) in [("claims", &claims), ("settling", &settlings)] {
        let rate = per_second(count, took.iter().sum());
        println!(
            "{} {what} of {CLAIM}: {rate:.0} wakeups/s, quarter by quarter: {}",
            run.name,
            quarters(took)
        );
    }
    count
}

impl Run {
    fn report(&self, what: &str, wakeups: u64, took: Duration, cpu_before: Duration) {
        let cpu = self.cpu().saturating_sub(cpu_before);
        println!(
            "{} {what}: {wakeups} wakeups in {:.1} s, {:.0}/s, {:.1} µs CPU each ({})",
            self.name,
            took.as_secs_f64(),
            per_second(wakeups, took),
            1e6 / per_second(wakeups, cpu),
            if self.server.is_some() { "the database" } else { "this process" }
        );
    }

    /// Of the database server and its children, or of this process, so far.
    fn cpu(&self) -> Duration {
        let Some(folder) = &self.server else { return cpu_of_process("self") };
        let server = process_id(folder).expect("the server runs");
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let children = children.unwrap_or_default();
        std::iter::once(server.as_str()).chain(children.split_whitespace()).map(cpu_of_process).sum()
    }
}

fn process_id(folder: &Path) -> Option<String> {
    let folders = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files =
        std::iter::once(folder.to_owned()).chain(folders).map(|folder| folder.join("postmaster.pid"));
    let file = files.find_map(|path| fs::read_to_string(path).ok())?;
    file.lines().next().map(|line| line.trim().to_owned())
}

fn cpu_of_process(pid: &str) -> Duration {
    const MS_PER_TICK: u64 = 10;
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Duration::ZERO };
    // User and system time are the 14th and 15th field, the 12th and 13th after the name.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * MS_PER_TICK)
}

/// Fills every conversation that has but one member.
async fn populate(database: &mut Database) {
    match database {
        Database::Sqlite(connection) => {
            for statement in SQLITE_POPULATE {
                sqlx::query(statement).bind(MEMBERS).execute(&mut *connection).await.expect("populate");
            }
        }
        Database::Postgres(connection) => {
            for statement in POSTGRES_POPULATE {
                sqlx::query(statement).bind(MEMBERS).execute(&mut *connection).await.expect("populate");
            }
            sqlx::raw_sql("VACUUM ANALYZE").execute(connection).await.expect("analyze");
        }
    }
}

const POSTGRES_POPULATE: [&str; 6] = [
    "CREATE UNLOGGED TABLE filled (tenant_id, conversation_id, user_id, device_id, number) AS
     SELECT c.tenant_id, c.conversation_id, gen_random_uuid(), gen_random_uuid(), row_number() OVER ()
     FROM conversations c CROSS JOIN generate_series(1, $1::bigint) n
     WHERE (SELECT count(*) FROM memberships mb WHERE mb.conversation_id = c.conversation_id) = 1",
    "INSERT INTO users (tenant_id, user_id, name, password_hash, created_at_ms)
     SELECT tenant_id, user_id, 'member-' || number, '', $1 FROM filled",
    "INSERT INTO devices (tenant_id, device_id, user_id, name, created_at_ms)
     SELECT tenant_id, device_id, user_id, 'phone', $1 FROM filled",
    "INSERT INTO memberships (tenant_id, conversation_id, user_id, since_offset, added_at_ms)
     SELECT tenant_id, conversation_id, user_id, 0, $1 FROM filled",
    "INSERT INTO push_registrations (device_id, tenant_id, platform, app, sealed_token, lookup, registered_at_ms)
     SELECT device_id, tenant_id, 1, '', decode(repeat('5a', 160), 'hex'),
         decode(repeat(replace(device_id::text, '-', ''), 2), 'hex'), $1 FROM filled",
    "INSERT INTO sessions (tenant_id, client_id, user_id, device_id, generation, connected, cursor_offset, inflight,
         expiry_seconds)
     SELECT tenant_id, 'member-' || number || '/phone', user_id, device_id, 1, false, 0, '', 4294967295 + 0 * $1
     FROM filled",
];

const SQLITE_POPULATE: [&str; 6] = [
    "CREATE TABLE filled AS
     WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
     SELECT c.tenant_no, c.conversation_id, randomblob(16) AS user_id, randomblob(16) AS device_id
     FROM conversations AS c CROSS JOIN number
     WHERE (SELECT count(*) FROM memberships AS mb
            WHERE (mb.tenant_no, mb.conversation_id) = (c.tenant_no, c.conversation_id)) = 1",
    "INSERT INTO users (tenant_no, user_id, name, password_hash)
     SELECT tenant_no, user_id, 'member-' || rowid, ?1 FROM filled",
    "INSERT INTO devices (tenant_no, device_id, user_id, name)
     SELECT tenant_no, device_id, user_id, 'phone-' || ?1 FROM filled",
    "INSERT INTO memberships (tenant_no, conversation_id, user_id, since)
     SELECT tenant_no, conversation_id, user_id, 0 * ?1 FROM filled",
    "INSERT INTO push_registrations (tenant_no, device_id, platform, sealed_token, lookup, registered_at_ms)
     SELECT tenant_no, device_id, 1, zeroblob(160), CAST(device_id || device_id AS BLOB), ?1 FROM filled",
    "INSERT INTO sessions (tenant_no, client_id, user_id, device_id, generation, cursor, inflight, connected,
         expiry_seconds)
     SELECT tenant_no, 'member-' || rowid, user_id, device_id, 1, 0, x'', 0, 4294967295 + 0 * ?1 FROM filled",
];

async fn move_to(database: &mut Database, lane: &Lane, wakeups: usize) {
    let limit = i64::try_from(wakeups).expect("a few");
    for table in ["push_registrations", "wakes"] {
        match database {
            Database::Sqlite(connection) => {
                let update = format!(
                    "UPDATE {table} SET platform = ?1, app = ?2 WHERE (tenant_no, device_id) IN
                         (SELECT tenant_no, device_id FROM wakes ORDER BY tenant_no, device_id LIMIT ?3)"
                );
                let query = sqlx::query(&update).bind(lane.platform as u8).bind(&*lane.app).bind(limit);
                query.execute(connection).await.expect("move");
            }
            Database::Postgres(connection) => {
                let update = format!(
                    "UPDATE {table} SET platform = $1, app = $2
                     WHERE device_id IN (SELECT device_id FROM wakes ORDER BY device_id LIMIT $3)"
                );
                let query = sqlx::query(&update).bind(lane.platform as i16).bind(&*lane.app).bind(limit);
                query.execute(connection).await.expect("move");
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to print")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn quarters(took: &[Duration]) -> String {
    let quarter = took.len().div_ceil(4).max(1);
    took.chunks(quarter).map(|quarter| percentiles(quarter.to_vec())).collect::<Vec<_>>().join("  ")
}

fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("{:.1}/{:.1} ms p50/p99", at(50), at(99))
}

//! What must hold when connections break, servers go away and processes compete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sotto_model::{MessageId, Offset};
use sotto_postgres::testing::{Durability, Server, TestDatabase};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_storage::conformance::fixture::{GENEROUS, NOW, lane, later, offsets, selector, topic};
use sotto_storage::conformance::{Fixture, Fresh};
use sotto_storage::message_log::{Batch, MessageLog, Placed};
use sotto_storage::session_store::SessionOp;
use sotto_storage::{Store, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

struct World {
    fixture: Fixture,
    admin: PgConnection,
    database: TestDatabase,
}

async fn world() -> World {
    let database = TestDatabase::create().await;
    let admin = PgConnection::connect(database.url()).await.expect("connect");
    let fixture = Fixture::new(Fresh { store: Arc::new(database.store().await), keep: Box::new(()) }).await;
    World { fixture, admin, database }
}

async fn batch_of(fixture: &Fixture, names: &[&str]) -> Batch {
    let mut appends = Vec::new();
    for name in names {
        appends.push(fixture.message(&fixture.robot, &topic(name)).await);
    }
    fixture.batch(appends)
}

/// As the committer does: the same batch, until it is answered.
async fn append_until_answered(store: &dyn Store, batch: &Batch) -> Vec<Placed> {
    loop {
        match store.append(batch).await {
            Ok(placed) => return placed,
            Err(error) if error.is_transient() => sleep(Duration::from_millis(2)).await,
            Err(error) => panic!("append: {error}"),
        }
    }
}

const TERMINATE_OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";

#[tokio::test]
async fn one_process_at_a_time_holds_the_log() {
    let mut world = world().await;
    let first = &world.fixture;
    let batch = batch_of(first, &["a"]).await;
    first.store.append(&batch).await.expect("append");

    let second = world.database.store().await;
    assert!(matches!(second.claim_writer().await, Err(StoreError::Refused { .. })));

    // The first is cut off, and the second comes before it is back.
    sqlx::raw_sql(TERMINATE_OTHERS).execute(&mut world.admin).await.expect("terminate");
    let second = world.database.store().await;
    assert_eq!(second.claim_writer().await.expect("claim"), batch.number);
    let next = batch_of(first, &["b"]).await;
    for _ in 0..3 {
        let refused = first.store.append(&next).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "no message is to be blamed");
    }
    assert_eq!(second.append(&next).await.expect("append"), [Placed::Now(Offset(2))]);
    assert_eq!(first.head(first.lab).await, Offset(2));

    // The second has gone too; the first stays out all the same, for it does not know what was written.
    drop(second);
    assert!(first.store.append(&next).await.is_err());
    assert_eq!(first.head(first.lab).await, Offset(2));
}

#[tokio::test]
async fn a_process_that_ends_leaves_the_log_to_the_next() {
    let world = world().await;
    let batch = batch_of(&world.fixture, &["a", "b"]).await;
    world.fixture.store.append(&batch).await.expect("append");
    drop(world.fixture);
    let next = world.database.store().await;
    assert_eq!(next.claim_writer().await.expect("claim"), batch.number);
}

#[tokio::test]
async fn the_log_is_not_written_without_a_claim() {
    let world = world().await;
    let batch = batch_of(&world.fixture, &["a"]).await;
    let other = world.database.store().await;
    assert!(matches!(other.append(&batch).await, Err(StoreError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_in_the_middle_of_appends_lose_and_double_nothing() {
    const BATCHES: usize = 120;
    let World { fixture, mut admin, database } = world().await;
    let done = Arc::new(AtomicBool::new(false));
    let cutter = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            // The writer's connection alone: the others would only make the test slower.
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let mut cuts = 0_u64;
            let mut pause_ms = 7;
            while !done.load(Ordering::Relaxed) {
                cuts += sqlx::query(cut).execute(&mut admin).await.expect("terminate").rows_affected();
                pause_ms = pause_ms * 5 % 37;
                sleep(Duration::from_millis(10 + pause_ms)).await;
            }
            cuts
        }
    });

    let mut expected: Vec<(Offset, MessageId)> = Vec::new();
    for number in 0..BATCHES {
        let names: Vec<String> = (0..=number * 7 % 90).map(|n| format!("t/{n}")).collect();
        let batch = batch_of(&fixture, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let at = append_until_answered(&*fixture.store, &batch).await;
        let ids = batch.appends.iter().map(|append| append.sealed.message_id());
        expected.extend(at.into_iter().map(Placed::offset).zip(ids));
    }
    done.store(true, Ordering::Relaxed);
    assert!(cutter.await.expect("the cutter ends") > 10, "connections were cut");

    let store = database.store().await;
    let head = fixture.head(fixture.lab).await;
    let page = store.read(fixture.lab, &[selector("#")], Offset(0), head, GENEROUS).await.expect("read");
    let stored: Vec<_> = page.messages.iter().map(|message| (message.offset, message.message_id)).collect();
    assert_eq!(stored, expected);
    assert_eq!(fixture.store.lag(NOW).await.expect("lag").messages, expected.len() as u64);
}

#[tokio::test]
async fn a_batch_sent_again_while_the_first_is_still_being_committed_is_committed_once() {
    let World { fixture, mut admin, .. } = world().await;
    append_until_answered(&*fixture.store, &batch_of(&fixture, &["a"]).await).await;
    let batch = Arc::new(batch_of(&fixture, &["a", "b", "c"]).await);

    // The counter is locked, so the first attempt hangs in the middle of its statement.
    let mut lock = admin.begin().await.expect("begin");
    sqlx::raw_sql("SELECT FROM counters FOR UPDATE").execute(&mut *lock).await.expect("lock");
    let attempt = tokio::spawn({
        let (store, batch) = (Arc::clone(&fixture.store), Arc::clone(&batch));
        async move { store.append(&batch).await }
    });
    sleep(Duration::from_millis(300)).await;
    attempt.abort();
    assert!(attempt.await.expect_err("it hangs").is_cancelled());

    let again = tokio::spawn({
        let (store, batch) = (Arc::clone(&fixture.store), Arc::clone(&batch));
        async move { append_until_answered(&*store, &batch).await }
    });
    sleep(Duration::from_millis(300)).await;
    lock.rollback().await.expect("unlock");
    assert_eq!(again.await.expect("it is answered"), [2, 3, 4].map(|offset| Placed::Now(Offset(offset))));
    assert_eq!(fixture.head(fixture.lab).await, Offset(4));
    assert_eq!(fixture.read_all(fixture.lab, &[selector("#")], GENEROUS).await.len(), 4);
}

#[tokio::test]
async fn a_missing_counter_fails_the_batch_as_a_whole() {
    let mut world = world().await;
    let fixture = &world.fixture;
    let batch = fixture.batch(vec![
        fixture.message(&fixture.robot, &topic("a")).await,
        fixture.message(&fixture.alice, &fixture.ward_topic()).await,
    ]);
    sqlx::query("DELETE FROM counters WHERE tenant_id = $1")
        .bind(fixture.lab.0)
        .execute(&mut world.admin)
        .await
        .expect("delete");
    assert!(matches!(fixture.store.append(&batch).await, Err(StoreError::Refused { .. })));
    assert_eq!(fixture.head(fixture.clinic).await, Offset(0));
    assert_eq!(fixture.store.lag(NOW).await.expect("lag").messages, 0);
    let ward = [selector("#")];
    let page = fixture.store.read(fixture.clinic, &ward, Offset(0), Offset(9), GENEROUS).await.expect("read");
    assert!(page.messages.is_empty());

    sqlx::query("INSERT INTO counters (tenant_id) VALUES ($1)")
        .bind(fixture.lab.0)
        .execute(&mut world.admin)
        .await
        .expect("insert");
    assert_eq!(fixture.store.append(&batch).await.expect("append"), [Placed::Now(Offset(1)); 2]);
}

#[tokio::test]
async fn a_server_that_was_away_is_used_again_when_it_is_back() {
    let server = tokio::task::spawn_blocking(|| Server::start(Durability::None)).await.expect("start");
    let store =
        PostgresStore::connect(&server.url("postgres"), PostgresOptions::default()).await.expect("open");
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(()) }).await;
    let session = fixture.connect(&fixture.bob).await;
    append_until_answered(&*fixture.store, &batch_of(&fixture, &["a"]).await).await;

    server.stop();
    let batch = batch_of(&fixture, &["b"]).await;
    let store = &fixture.store;
    for _ in 0..3 {
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable { .. })));
        assert!(matches!(store.append(&batch).await, Err(StoreError::Unavailable { .. })));
        let save = SessionOp::Save(session, Box::default());
        assert!(matches!(store.apply(&[save]).await, Err(StoreError::Unavailable { .. })));
        assert!(matches!(store.revision().await, Err(StoreError::Unavailable { .. })));
    }

    server.resume();
    store.ping().await.expect("ping");
    assert_eq!(append_until_answered(&**store, &batch).await, [Placed::Now(Offset(2))]);
    fixture.close(session, Offset(0)).await;
    assert_eq!(
        offsets(&fixture.read_all(fixture.lab, &[selector("#")], GENEROUS).await),
        [Offset(1), Offset(2)]
    );
}

/// Of a close and a message that comes at the same moment, one sees the other, whichever is first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wakeup_is_lost_between_a_close_and_the_relay() {
    let World { fixture, database, .. } = world().await;
    let relay = database.store().await;
    fixture.register(&fixture.bob).await;
    for round in 0..60 {
        let session = fixture.connect(&fixture.bob).await;
        let cursor = fixture.head(fixture.clinic).await;
        let batch = fixture.batch(vec![fixture.message(&fixture.alice, &fixture.ward_topic()).await]);
        let publish = async {
            append_until_answered(&*fixture.store, &batch).await;
            // Until the outbox is empty; a row may be held by the other turn.
            while sotto_storage::outbox::Outbox::lag(&relay, NOW).await.expect("lag").messages > 0 {
                fixture.store.relay(100, NOW).await.expect("relay");
            }
        };
        let close = async {
            sleep(Duration::from_micros(round * 50)).await;
            fixture.close(session, cursor).await;
        };
        tokio::join!(publish, close);
        let claimed = fixture.store.claim(&lane(), 10, later(1), later(1000)).await.expect("claim");
        assert_eq!(claimed.len(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_payload_is_not_found_in_a_dump() {
    let World { fixture, database, .. } = world().await;
    let Some(server) = database.server() else { return };
    let payload = b"blood pressure 120/80";
    let message = fixture.message_of(&fixture.alice, &fixture.ward_topic(), payload).await;
    fixture.append(vec![message]).await;
    let read = fixture.read_all(fixture.clinic, &[selector("#")], GENEROUS).await;
    assert_eq!(fixture.open(fixture.clinic, &read[0]), payload);

    let dump = server.client("pg_dump").arg(database.name()).output().expect("run pg_dump");
    assert!(dump.status.success());
    let dump = String::from_utf8(dump.stdout).expect("a dump is text");
    assert!(dump.contains(&fixture.ward.to_string()), "the dump holds the topic");
    // Byte columns are dumped in hexadecimal.
    let in_hex = payload.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert!(!dump.contains("blood pressure") && !dump.contains(&in_hex));
}

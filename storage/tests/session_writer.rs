//! The session writer against a store that fails in every way that a database can.

mod support;

use std::sync::Arc;
use std::time::Duration;

use sotto_model::{ClientId, Cursor, Generation, Offset, SessionId, TenantId, UnixMillis, UserId};
use sotto_storage::session_store::{OpenSession, SessionOp, SessionProgress, SessionRef, SessionReply};
use sotto_storage::session_writer::{APPLY_DEADLINE, SubmitError};
use sotto_storage::{SessionWriter, StoreError};
use support::clock::FixedClock;
use support::sessions::FaultySessions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

fn start(store: &Arc<FaultySessions>) -> SessionWriter {
    SessionWriter::start(store.clone(), FixedClock::new(), &TaskTracker::new(), &CancellationToken::new())
}

fn session(id: u64) -> SessionRef {
    SessionRef { id: SessionId(id), generation: Generation(1) }
}

fn save(id: u64, cursor: u64) -> SessionOp {
    let progress = SessionProgress { cursor: Cursor(Offset(cursor)), ..SessionProgress::default() };
    SessionOp::Save(session(id), Box::new(progress))
}

fn open() -> SessionOp {
    SessionOp::Open(Box::new(OpenSession {
        tenant: TenantId(Uuid::nil()),
        client_id: ClientId::parse("test").expect("client id"),
        user: UserId(Uuid::nil()),
        device: None,
        clean_start: false,
        expiry_seconds: 60,
        head: Offset(0),
        will: None,
        now: UnixMillis(0),
    }))
}

/// Lets tasks that can run do so.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn changes_that_wait_share_one_transaction_in_their_order() {
    let store = Arc::new(FaultySessions::gated());
    let writer = start(&store);
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.apply(SessionOp::Delete(session(0))).await }
    });
    settle().await;
    for id in 1..=5 {
        writer.submit(SessionOp::Delete(session(id))).expect("room");
    }
    store.let_through(2);
    assert!(matches!(first.await.expect("no panic"), Ok(SessionReply::Done)));
    assert_eq!(writer.drain(Duration::from_secs(1)).await, Ok(()));
    let transactions = store.transactions();
    assert_eq!(transactions.iter().map(Vec::len).collect::<Vec<_>>(), [1, 5]);
    for (op, id) in transactions[1].iter().zip(1..) {
        assert!(matches!(op, SessionOp::Delete(deleted) if *deleted == session(id)));
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_latest_of_the_saves_that_wait_is_written() {
    let store = Arc::new(FaultySessions::gated());
    let writer = start(&store);
    writer.submit(SessionOp::Delete(session(9))).expect("room");
    settle().await;
    for cursor in 1..=100 {
        writer.submit(save(1, cursor)).expect("room");
        writer.submit(save(2, cursor * 2)).expect("room");
    }
    store.let_through(10);
    assert_eq!(writer.drain(Duration::from_secs(1)).await, Ok(()));
    assert_eq!(cursors(&store.transactions()[1]), [100, 200]);
}

fn cursors(saves: &[SessionOp]) -> Vec<u64> {
    saves
        .iter()
        .map(|op| match op {
            SessionOp::Save(_, progress) => progress.cursor.0.0,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_save_after_the_one_before_it_was_written_is_written_too() {
    let store = Arc::new(FaultySessions::new());
    let writer = start(&store);
    for cursor in 1..=3 {
        writer.submit(save(1, cursor)).expect("room");
        settle().await;
    }
    assert_eq!(store.transactions().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_save_that_is_waited_for_keeps_its_place_among_those_that_are_not() {
    let store = Arc::new(FaultySessions::gated());
    let writer = start(&store);
    writer.submit(SessionOp::Delete(session(9))).expect("room");
    settle().await;
    writer.submit(save(1, 1)).expect("room");
    let waiting = tokio::spawn({
        let writer = writer.clone();
        async move { writer.apply(save(1, 2)).await }
    });
    settle().await;
    writer.submit(save(1, 3)).expect("room");
    store.let_through(10);
    assert!(matches!(waiting.await.expect("no panic"), Ok(SessionReply::Done)));
    assert_eq!(writer.drain(Duration::from_secs(1)).await, Ok(()));
    assert_eq!(cursors(&store.transactions()[1]), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_store_refuses_fails_alone() {
    let store = Arc::new(FaultySessions::gated());
    store.poison(SessionId(2));
    let writer = start(&store);
    let applying: Vec<_> = (1..=3)
        .map(|id| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.apply(SessionOp::Delete(session(id))).await })
        })
        .collect();
    settle().await;
    store.let_through(20);
    let mut applied = Vec::new();
    for task in applying {
        applied.push(task.await.expect("no panic"));
    }
    assert!(matches!(applied[0], Ok(SessionReply::Done)));
    assert!(matches!(applied[1], Err(StoreError::Refused { .. })));
    assert!(matches!(applied[2], Ok(SessionReply::Done)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_told_after_the_deadline_and_its_change_is_not_made_later() {
    let store = Arc::new(FaultySessions::new());
    store.set_away(true);
    let writer = start(&store);
    let applied = tokio::time::timeout(APPLY_DEADLINE * 2, writer.apply(open())).await;
    assert!(matches!(applied, Ok(Err(StoreError::Unavailable { .. }))));
    store.set_away(false);
    assert_eq!(writer.drain(Duration::from_mins(1)).await, Ok(()));
    assert!(store.transactions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_waits_for_outlasts_any_outage() {
    let store = Arc::new(FaultySessions::new());
    store.set_away(true);
    let writer = start(&store);
    writer.submit(save(1, 7)).expect("room");
    tokio::time::sleep(Duration::from_hours(1)).await;
    store.set_away(false);
    assert_eq!(writer.drain(Duration::from_mins(1)).await, Ok(()));
    assert_eq!(store.transactions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_opened_for_a_caller_that_has_gone_is_closed_again() {
    let store = Arc::new(FaultySessions::gated());
    let writer = start(&store);
    let opening = tokio::spawn({
        let writer = writer.clone();
        async move { writer.apply(open()).await }
    });
    settle().await;
    opening.abort();
    settle().await;
    store.let_through(2);
    settle().await;
    let transactions = store.transactions();
    assert!(matches!(transactions[0][0], SessionOp::Open(_)), "it was under way");
    assert!(matches!(transactions[1][0], SessionOp::Close { expiry_seconds: 60, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_closed_writer_takes_nothing_new() {
    let writer = start(&Arc::new(FaultySessions::new()));
    assert_eq!(writer.drain(Duration::from_secs(1)).await, Ok(()));
    assert_eq!(writer.submit(save(1, 1)), Err(SubmitError::Closed));
    assert!(matches!(writer.apply(open()).await, Err(StoreError::Unavailable { .. })));
}

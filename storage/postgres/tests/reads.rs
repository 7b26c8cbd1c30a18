//! Many reads of the log at once, over few connections.

use std::sync::Arc;
use std::time::Duration;

use sotto_model::{Offset, TopicName};
use sotto_postgres::testing::TestDatabase;
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_storage::StoreError;
use sotto_storage::conformance::fixture::{Fixture, Fresh, GENEROUS, selector, topic};
use sotto_storage::message_log::{Page, PageLimit, Selector};
use sqlx::{Connection, PgConnection};

const TOPICS: usize = 40;
const SESSIONS: usize = 300;

#[tokio::test]
async fn every_session_of_a_storm_reads_its_own_pages() {
    let (fixture, _database) = filled().await;
    let expected = read_all_one_by_one(&fixture).await;
    for round in 0..3 {
        let reads = (0..SESSIONS).map(|session| {
            let store = Arc::clone(&fixture.store);
            let lab = fixture.lab;
            tokio::spawn(async move {
                let (selectors, after, limit) = wanted(session);
                store.read(lab, &selectors, after, HEAD, limit).await
            })
        });
        let reads: Vec<_> = reads.collect();
        // Callers that go leave nobody behind: a caller may be the one who asks for others.
        let gone = |session: usize| (session + round).is_multiple_of(7);
        tokio::time::sleep(Duration::from_millis(round as u64)).await;
        reads.iter().enumerate().filter(|(session, _)| gone(*session)).for_each(|(_, read)| read.abort());
        for (session, read) in reads.into_iter().enumerate() {
            match read.await {
                Ok(page) => assert_eq!(seen(&page.expect("read")), expected[session], "{session}"),
                Err(aborted) => assert!(aborted.is_cancelled() && gone(session)),
            }
        }
    }
}

#[tokio::test]
async fn a_read_that_fails_fails_alone() {
    let (fixture, database) = filled().await;
    // A topic that cannot be one: only who looks through the names near it comes across it.
    let mut admin = PgConnection::connect(database.url()).await.expect("connect");
    sqlx::query("INSERT INTO topics (tenant_id, name) VALUES ($1, 'odd/#')")
        .bind(fixture.lab.0)
        .execute(&mut admin)
        .await
        .expect("insert");
    let expected = read_all_one_by_one(&fixture).await;
    let reads: Vec<_> = (0..SESSIONS)
        .map(|session| {
            let store = Arc::clone(&fixture.store);
            let lab = fixture.lab;
            tokio::spawn(async move {
                let (selectors, after, limit) = wanted(session);
                let selectors = if session.is_multiple_of(50) { vec![selector("odd/+")] } else { selectors };
                store.read(lab, &selectors, after, HEAD, limit).await
            })
        })
        .collect();
    for (session, read) in reads.into_iter().enumerate() {
        let page = read.await.expect("no panic");
        if session.is_multiple_of(50) {
            assert!(matches!(page, Err(StoreError::Inconsistent(_))), "{session}");
        } else {
            assert_eq!(seen(&page.expect("read")), expected[session], "{session}");
        }
    }
}

const HEAD: Offset = Offset(800);

/// One connection for reads, and 800 messages on 40 topics.
async fn filled() -> (Fixture, Arc<TestDatabase>) {
    let database = Arc::new(TestDatabase::create().await);
    let options = PostgresOptions { readers: 1 };
    let store = PostgresStore::connect(database.url(), options).await.expect("open");
    let fixture = Fixture::new(Fresh { store: Arc::new(store), keep: Box::new(Arc::clone(&database)) }).await;
    let mut batch = Vec::new();
    for number in 0..800 {
        let payload = vec![0x5a; number % 97];
        batch.push(fixture.message_of(&fixture.robot, &name(number % TOPICS), &payload).await);
    }
    fixture.append(batch).await;
    assert_eq!(fixture.head(fixture.lab).await, HEAD);
    (fixture, database)
}

fn name(number: usize) -> TopicName {
    topic(&format!("t/{number}"))
}

/// What a session wants: some topics, some by a wildcard, from somewhere, in pages of some size.
fn wanted(session: usize) -> (Vec<Selector>, Offset, PageLimit) {
    let after = Offset((session * 37 % 900) as u64);
    let mut selectors: Vec<Selector> =
        (0..session % 5).map(|place| selector(&format!("t/{}", (session + place * 11) % TOPICS))).collect();
    if session.is_multiple_of(9) {
        selectors.push(Selector { after: Offset(after.0 + 50), ..selector("t/+") });
    }
    let limit = match session % 3 {
        0 => GENEROUS,
        1 => PageLimit { records: 1 + session % 11, ..GENEROUS },
        _ => PageLimit { bytes: 300 + session, ..GENEROUS },
    };
    (selectors, after, limit)
}

async fn read_all_one_by_one(fixture: &Fixture) -> Vec<(Vec<Offset>, Offset)> {
    let mut pages = Vec::new();
    for session in 0..SESSIONS {
        let (selectors, after, limit) = wanted(session);
        pages.push(seen(
            &fixture.store.read(fixture.lab, &selectors, after, HEAD, limit).await.expect("read"),
        ));
    }
    assert!(pages.iter().filter(|(offsets, _)| !offsets.is_empty()).count() > SESSIONS / 2);
    pages
}

fn seen(page: &Page) -> (Vec<Offset>, Offset) {
    (page.messages.iter().map(|message| message.offset).collect(), page.scanned_to)
}

#[tokio::test]
async fn pages_of_many_topics_join_without_gap_or_repetition() {
    let (fixture, _database) = filled().await;
    // One topic that has most of what follows.
    let mut batch = Vec::new();
    for number in 0..600 {
        let topic = name(if number % 20 == 0 { number / 20 } else { 7 });
        batch.push(fixture.message(&fixture.robot, &topic).await);
    }
    fixture.append(batch).await;
    let limit = PageLimit { records: 128, ..GENEROUS };
    let (mut read, mut pages) = (Vec::new(), 0);
    let (mut after, head) = (Offset(0), fixture.head(fixture.lab).await);
    while after < head {
        let page =
            fixture.store.read(fixture.lab, &[selector("t/+")], after, head, limit).await.expect("read");
        assert!(page.scanned_to > after && page.messages.len() <= limit.records);
        read.extend(page.messages.iter().map(|message| message.offset));
        after = page.scanned_to;
        pages += 1;
    }
    assert_eq!(read, (1..=head.0).map(Offset).collect::<Vec<_>>());
    assert!(pages <= 60, "{pages} pages");
}

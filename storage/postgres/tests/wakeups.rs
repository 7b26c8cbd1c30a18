//! Wakeups on a store that several processes use, with large conversations, and from before there were lanes.

use std::collections::HashSet;
use std::sync::Arc;

use sotto_model::{Offset, UnixMillis, Urgency};
use sotto_postgres::PostgresStore;
use sotto_postgres::testing::TestDatabase;
use sotto_storage::conformance::fixture::{Fixture, Fresh, NOW, Person, conversation_topic, lane, later};
use sotto_storage::message_log::Append;
use sotto_storage::outbox::{ClaimedWakeup, Outbox, Settlement};
use sotto_storage::push_registry::{PushRegistration, PushRegistry};
use sotto_storage::wakeup_quota::WakeupQuota;
use sqlx::{Connection, PgConnection};

async fn world() -> (Fixture, Arc<TestDatabase>) {
    let database = Arc::new(TestDatabase::create().await);
    let store = Arc::new(database.store().await);
    (Fixture::new(Fresh { store, keep: Box::new(database.clone()) }).await, database)
}

async fn sleepers(f: &Fixture, count: usize) -> Vec<Person> {
    let mut people = Vec::new();
    for number in 0..count {
        let person = f.make_user(&format!("sleeper-{number}")).await;
        f.join(f.ward, person.user).await;
        f.asleep(&person, Offset(0)).await;
        people.push(person);
    }
    people
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_share_the_wakeups() {
    let (f, database) = world().await;
    let others = [database.store().await, database.store().await];
    let people = sleepers(&f, 40).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    // All relay; the row is taken once.
    let (here, there) = tokio::join!(f.store.relay(100, NOW), others[0].relay(100, NOW));
    assert_eq!(here.expect("relay").wakeups + there.expect("relay").wakeups, 40);
    // Each has some before either goes on.
    let begun = [
        others[0].claim(&lane(), 3, NOW, later(60_000)).await.expect("claim"),
        others[1].claim(&lane(), 3, NOW, later(60_000)).await.expect("claim"),
    ];
    assert_eq!((begun[0].len(), begun[1].len()), (3, 3));
    let take_all = async |store: &PostgresStore, begun: &[ClaimedWakeup]| {
        let mut taken: Vec<_> = begun.iter().map(|wakeup| wakeup.device).collect();
        let sent: Vec<_> =
            begun.iter().map(|wakeup| (wakeup.clone(), Settlement::Sent { at: NOW })).collect();
        store.settle_many(&sent, NOW).await.expect("settle");
        // One that finds all that is due locked by the other finds it later, or not at all.
        for _ in 0..40 {
            let some = store.claim(&lane(), 3, NOW, later(60_000)).await.expect("claim");
            taken.extend(some.iter().map(|wakeup| wakeup.device));
            let sent: Vec<_> =
                some.into_iter().map(|wakeup| (wakeup, Settlement::Sent { at: NOW })).collect();
            store.settle_many(&sent, NOW).await.expect("settle");
        }
        taken
    };
    let (first, second) = tokio::join!(take_all(&others[0], &begun[0]), take_all(&others[1], &begun[1]));
    assert_eq!(first.len() + second.len(), 40, "and none has another's");
    let woken: HashSet<_> = first.into_iter().chain(second).collect();
    assert_eq!(woken, people.iter().map(|person| person.device).collect());
    let lag = f.store.lag(NOW).await.expect("lag");
    assert_eq!((lag.wakeups_due, lag.lanes[0].sent), (0, 40));
}

/// Whoever changes wakeups locks in one order: a deadlock would end one of them with an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_wakeups_at_once_does_not_lock_itself_out() {
    const ROUNDS: u64 = 40;
    let (f, database) = world().await;
    let people = sleepers(&f, 24).await;
    let (relay, dispatch, register) =
        (database.store().await, database.store().await, database.store().await);
    for store in [&relay, &dispatch] {
        store.set_wakeup_quota(WakeupQuota { per_second: 1_000_000, burst: 1000 });
    }
    let publish = async {
        for round in 0..ROUNDS {
            let wakes = Some(if round % 2 == 0 { Urgency::Low } else { Urgency::High });
            f.append(vec![Append { wakes, ..f.message(&f.alice, &f.ward_topic()).await }]).await;
            relay.relay(100, NOW).await.expect("relay");
        }
    };
    let settle = async {
        for round in 0..ROUNDS {
            let claimed = dispatch.claim(&lane(), 16, NOW, later(1)).await.expect("claim");
            let settlements: Vec<_> = claimed
                .into_iter()
                .rev()
                .enumerate()
                .map(|(place, wakeup)| match place % 4 {
                    0 => (wakeup, Settlement::RetryAt(NOW)),
                    1 => (wakeup, Settlement::TokenInvalid { since: Some(NOW), retry_at: NOW }),
                    2 => (wakeup, Settlement::Dead { outcome: "refused" }),
                    _ => (wakeup, Settlement::Sent { at: UnixMillis(NOW.0 - round) }),
                })
                .collect();
            dispatch.settle_many(&settlements, NOW).await.expect("settle");
        }
    };
    let change_tokens = async {
        for round in 0..ROUNDS {
            // Everybody takes the token of another, now in this order and now in that.
            for place in 0..people.len() {
                let place = if round % 2 == 0 { place } else { people.len() - 1 - place };
                let token = u8::try_from((place as u64 + round) % 5).expect("a few tokens");
                let registration = PushRegistration { lookup: [token; 32], ..f.registration(&people[place]) };
                register.register(&registration, None).await.expect("register");
            }
        }
    };
    let come_and_go = async {
        for _ in 0..ROUNDS {
            for person in people.iter().rev().step_by(5) {
                f.close(f.connect(person).await, Offset(0)).await;
            }
        }
    };
    tokio::join!(publish, settle, change_tokens, come_and_go);
}

#[tokio::test]
async fn a_turn_of_the_relay_ends_where_the_members_are_many() {
    let (f, database) = world().await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    let mut topics = Vec::new();
    for _ in 0..3 {
        let conversation = f.make_conversation().await;
        f.join(conversation, f.alice.user).await;
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut connection).await.expect("set");
        sqlx::query(
            "INSERT INTO memberships (tenant_id, conversation_id, user_id, since_offset, added_at_ms) \
             SELECT $1, $2, gen_random_uuid(), 0, 0 FROM generate_series(1, 12000)",
        )
        .bind(f.clinic.0)
        .bind(conversation.0)
        .execute(&mut connection)
        .await
        .expect("fill");
        topics.push(conversation_topic(conversation));
    }
    for topic in [&topics[0], &topics[0], &topics[1], &topics[1], &topics[2], &topics[0]] {
        f.publish(&f.alice, topic).await;
    }
    let mut turns = Vec::new();
    for _ in 0..3 {
        let relayed = f.store.relay(100, NOW).await.expect("relay");
        turns.push((relayed.messages, relayed.full));
    }
    // The bound is 20,000; the second conversation's members are counted once, and no row is left for ever.
    assert_eq!(turns, [(3, true), (2, true), (1, false)]);
}

#[tokio::test]
async fn what_waited_before_there_were_lanes_waits_in_one() {
    const BEFORE: i64 = 9;
    let database = TestDatabase::of_schema(BEFORE).await;
    let mut connection = PgConnection::connect(database.url()).await.expect("connect");
    sqlx::raw_sql(
        "INSERT INTO tenants (tenant_id, name, topic_policy, created_at_ms) VALUES (md5('t')::uuid, 'clinic', 1, 0); \
         INSERT INTO users (tenant_id, user_id, name, password_hash, created_at_ms) \
             VALUES (md5('t')::uuid, md5('u')::uuid, 'bob', '', 0); \
         INSERT INTO devices (device_id, tenant_id, user_id, name, created_at_ms) \
             VALUES (md5('d')::uuid, md5('t')::uuid, md5('u')::uuid, 'phone', 0); \
         INSERT INTO sessions (tenant_id, client_id, user_id, device_id, generation, connected, cursor_offset, \
             inflight, expiry_seconds) \
             VALUES (md5('t')::uuid, 'bob/phone', md5('u')::uuid, md5('d')::uuid, 1, false, 0, '', 4294967295); \
         INSERT INTO push_registrations (device_id, tenant_id, platform, sealed_token, lookup, registered_at_ms) \
             VALUES (md5('d')::uuid, md5('t')::uuid, 1, 'sealed', decode(repeat('07', 32), 'hex'), 3); \
         INSERT INTO wakes (device_id, tenant_id, due_since_ms, due_at_ms) \
             VALUES (md5('d')::uuid, md5('t')::uuid, 5, 5); \
         INSERT INTO dead_letters (tenant_id, device_id, attempts, outcome, died_at_ms) \
             VALUES (md5('t')::uuid, md5('d')::uuid, 12, 'refused', 6)",
    )
    .execute(&mut connection)
    .await
    .expect("fill");
    let store = database.store().await;
    let claimed = store.claim(&lane(), 10, NOW, later(1)).await.expect("claim");
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].urgency, claimed[0].due_since), (Urgency::High, UnixMillis(5)));
    assert_eq!(claimed[0].last_low_sent_at, None);
    assert_eq!(store.dead_letters(10).await.expect("dead letters")[0].urgency, Urgency::High);
}

use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use sotto_model::{
    ClientId, MessageId, RetainHandling, SubscriptionOptions, TenantId, TopicName, TopicPolicy, UnixMillis,
    UserId,
};
use uuid::Uuid;

use super::*;
use crate::record::{Commit, Message};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn entry() -> SessionEntry {
    let principal = Principal {
        tenant: TenantId(Uuid::from_u128(1)),
        user: UserId(Uuid::from_u128(2)),
        device: None,
        client_id: ClientId::parse("alice/phone").expect("a client id"),
        topics: TopicPolicy::Membership,
    };
    SessionEntry::new(principal, &ClientLimits::DEFAULT)
}

fn live(connection: ConnectionId) -> SessionEntry {
    let entry = entry();
    entry.claim(connection).expect("free");
    entry.go_live(false);
    entry
}

/// At its place in the log, or in none.
fn delivery(offset: Option<u64>, qos: QoS, bytes: usize) -> Delivery {
    let message = Message {
        tenant: TenantId(Uuid::from_u128(1)),
        topic: TopicName::parse("t").expect("a topic"),
        sender: UserId(Uuid::from_u128(2)),
        message_id: MessageId(Uuid::from_u128(3)),
        qos,
        retain: false,
        expires_at: None,
        properties: Box::default(),
        payload: vec![0; bytes].into(),
        publisher: ClientTag::from_bytes([0; ClientTag::BYTES]),
    };
    let record = match offset {
        Some(offset) => {
            Record::committed(message, Commit { offset: Offset(offset), at: UnixMillis(0), told: false })
        }
        None => Record::unlogged(message),
    };
    Delivery { record, grant: Grant { qos, retain: false, identifiers: SmallVec::new() } }
}

fn logged(offset: u64) -> Delivery {
    delivery(Some(offset), QoS::AtLeastOnce, 1)
}

fn queued(entry: &SessionEntry) -> Vec<Option<u64>> {
    std::iter::from_fn(|| entry.next_delivery())
        .map(|delivery| delivery.record.offset().map(|offset| offset.0))
        .collect()
}

#[test]
fn the_log_waits_for_a_session_that_nobody_holds_and_all_else_is_dropped() {
    let entry = entry();
    assert_eq!(entry.post(logged(1)), Posted::FromLog);
    assert_eq!(entry.post(delivery(None, QoS::AtMostOnce, 1)), Posted::Dropped);
    entry.claim(ConnectionId::next()).expect("free");
    assert_eq!(entry.post(logged(2)), Posted::FromLog, "its connection has not begun");
}

#[test]
fn a_mailbox_that_runs_over_leaves_the_log_to_be_read_and_keeps_what_is_in_none() {
    let entry = live(ConnectionId::next());
    assert_eq!(entry.post(delivery(None, QoS::AtMostOnce, 1)), Posted::Taken);
    assert_eq!(entry.post(delivery(Some(1), QoS::AtMostOnce, 1)), Posted::Taken);
    for offset in 2..ClientLimits::DEFAULT.queue_records_max as u64 {
        assert_eq!(entry.post(logged(offset)), Posted::Taken);
    }
    assert!(!entry.take_post().behind);
    let woken = Arc::new(Woken::default());
    entry.register_waker(&woken.clone().into());
    assert_eq!(entry.post(logged(300)), Posted::FromLog);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(entry.take_post().behind);
    assert_eq!(entry.post(logged(301)), Posted::FromLog);
    assert_eq!(queued(&entry), [None, Some(1)]);
    assert!(!entry.is_drained(), "there is a log to be read");

    entry.rejoin();
    assert_eq!(entry.post(logged(302)), Posted::Taken);
    assert!(!entry.take_post().behind);
    assert_eq!(queued(&entry), [Some(302)]);
    assert!(entry.is_drained());
}

#[test]
fn a_mailbox_is_bounded_in_bytes_but_takes_one_message_of_any_size() {
    let entry = live(ConnectionId::next());
    assert_eq!(
        entry.post(delivery(None, QoS::AtMostOnce, 2 * ClientLimits::DEFAULT.queue_bytes_max)),
        Posted::Taken
    );
    assert_eq!(entry.post(delivery(None, QoS::AtMostOnce, 1)), Posted::Dropped);
    assert_eq!(queued(&entry).len(), 1);
    assert_eq!(entry.post(delivery(None, QoS::AtMostOnce, 1)), Posted::Taken);
}

#[test]
fn the_owner_is_woken_once_for_what_it_has_not_taken() {
    let entry = live(ConnectionId::next());
    let woken = Arc::new(Woken::default());
    for round in 1..=3 {
        entry.register_waker(&woken.clone().into());
        for offset in 1..=5 {
            entry.post(logged(offset));
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), round);
        assert_eq!(queued(&entry).len(), 5);
    }
}

#[test]
fn a_session_has_one_owner_and_the_last_to_ask_is_next() {
    let [first, second, third] = [(); 3].map(|()| ConnectionId::next());
    let entry = live(first);
    let mut superseded = entry.claim(second).expect_err("owned");
    let mut waiting = entry.claim(third).expect_err("owned");
    assert!(superseded.try_recv().is_err());
    assert_eq!(entry.take_post().command, Some(Command::TakenOver));
    entry.post(logged(1));
    entry.release(second);
    assert!(entry.is_owned(), "only the owner lets go");
    entry.release(first);
    assert_eq!(waiting.try_recv(), Ok(()));
    entry.claim(third).expect("free");
    let post = entry.take_post();
    assert!(post.command.is_none() && queued(&entry).is_empty(), "what was the first's is forgotten");
}

#[test]
fn an_answer_reaches_the_connection_that_published_and_no_other() {
    let [first, second] = [(); 2].map(|()| ConnectionId::next());
    let entry = live(first);
    entry.release(first);
    entry.claim(second).expect("free");
    entry.decide(first, PacketId::FIRST, ReasonCode::Success);
    assert!(entry.take_post().decided.is_empty());
    entry.decide(second, PacketId::FIRST, ReasonCode::Success);
    assert_eq!(entry.take_post().decided, [(PacketId::FIRST, ReasonCode::Success)]);
}

#[test]
fn a_subscription_that_is_made_again_holds_since_it_was_first_made() {
    let entry = entry();
    let subscription = |qos, since| Subscription {
        filter: TopicFilter::parse("t").expect("a filter"),
        options: SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        },
        identifier: None,
        since: Offset(since),
    };
    assert!(entry.subscribe(subscription(QoS::AtLeastOnce, 5)));
    assert!(!entry.subscribe(subscription(QoS::ExactlyOnce, 9)));
    assert_eq!(entry.holds_since(&TopicFilter::parse("t").expect("a filter")), Some(Offset(5)));
    entry.with_subscriptions(|held| assert_eq!(held, [subscription(QoS::ExactlyOnce, 5)]));
}

#[test]
fn a_crowded_mailbox_asks_for_the_log_until_there_is_room_again() {
    let entry = live(ConnectionId::next());
    for _ in 0..ClientLimits::DEFAULT.queue_records_max / 2 {
        assert!(!entry.needs_the_log());
        entry.post(delivery(None, QoS::AtLeastOnce, 1));
    }
    assert!(entry.needs_the_log());
    while entry.next_delivery().is_some() {}
    assert!(!entry.needs_the_log());
    entry.go_live(true);
    assert!(entry.needs_the_log(), "what is in no log would overtake what is read from it");
    entry.rejoin();
    assert!(!entry.needs_the_log());
}

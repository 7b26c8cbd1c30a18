//! Cases of [`SessionStore`](crate::session_store::SessionStore).

use sotto_model::{
    ClientId, Cursor, Generation, Offset, PacketId, QoS, RetainHandling, SessionId, Subscription,
    SubscriptionOptions, UserId,
};
use uuid::Uuid;

use super::fixture::{EXPIRY_SECONDS, Fixture, NOW, Person, filter, lane, later};
use crate::message_log::Append;
use crate::session_store::{Inflight, OpenSession, SessionOp, SessionProgress, SessionRef, SessionReply};

const EXPIRY_MS: u64 = EXPIRY_SECONDS as u64 * 1000;

pub async fn a_new_session_begins_at_the_head_given(f: Fixture) {
    let opened = f.open_session(OpenSession { head: Offset(42), ..f.opening(&f.bob) }).await;
    assert!(!opened.present);
    assert_eq!(opened.progress, at(42));
    assert!(opened.subscriptions.is_empty());
    f.close(opened.session, Offset(42)).await;
    let again = f.open_session(OpenSession { head: Offset(99), ..f.opening(&f.bob) }).await;
    assert!(again.present);
    assert_eq!(again.progress.cursor, Cursor(Offset(42)), "a stored session keeps its place");
}

pub async fn a_session_is_taken_up_as_it_was_left(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let subscriptions = vec![
        Subscription {
            filter: filter("$share/group/a/#"),
            options: SubscriptionOptions {
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::DoNotSend,
            },
            identifier: Some(268_435_455),
            since: Offset(u64::from(u32::MAX) + 1),
        },
        subscription("c/+/m", 3),
    ];
    assert!(done(&f, SessionOp::Subscribe(session, subscriptions.clone())).await);
    let progress = SessionProgress {
        cursor: Cursor(Offset(17)),
        inflight: vec![inflight(9, 12, false), inflight(2, 14, true), inflight(u16::MAX, 15, false)],
        exactly_once_received: vec![packet_id(1), packet_id(u16::MAX)],
    };
    f.close_with(session, progress.clone()).await;
    let opened = f.open_session(f.opening(&f.bob)).await;
    assert!(opened.present);
    assert_eq!(opened.session.id, session.id);
    assert_eq!(opened.progress, progress);
    let mut found = opened.subscriptions;
    found.sort_by(|a, b| a.filter.cmp(&b.filter));
    assert_eq!(found, subscriptions);
}

pub async fn a_takeover_fences_every_operation_of_the_older_generation(f: Fixture) {
    let old = f.connect(&f.bob).await;
    assert!(done(&f, SessionOp::Subscribe(old, vec![subscription("a", 1)])).await);
    let saved = SessionProgress { exactly_once_received: vec![packet_id(5)], ..at(3) };
    assert!(done(&f, SessionOp::Save(old, Box::new(saved.clone()))).await);
    let new = f.connect(&f.bob).await;
    assert_eq!(new.id, old.id);
    assert!(new.generation > old.generation);
    for op in every_op(old) {
        assert!(fenced(&f, op).await);
    }
    let opened = f.open_session(f.opening(&f.bob)).await;
    assert!(opened.present, "nothing was deleted");
    assert_eq!(opened.progress, saved);
    assert_eq!(opened.subscriptions, [subscription("a", 1)]);
}

pub async fn operations_of_a_deleted_session_are_fenced(f: Fixture) {
    let session = f.connect(&f.bob).await;
    assert!(done(&f, SessionOp::Delete(session)).await);
    for op in every_op(session) {
        assert!(fenced(&f, op).await);
    }
    let never = SessionRef { id: SessionId(1 << 40), generation: Generation(1) };
    for op in every_op(never) {
        assert!(fenced(&f, op).await);
    }
    assert!(!f.open_session(f.opening(&f.bob)).await.present);
}

pub async fn clean_start_forgets_what_was_stored(f: Fixture) {
    let old = f.connect(&f.bob).await;
    assert!(done(&f, SessionOp::Subscribe(old, vec![subscription("a", 1)])).await);
    let progress = SessionProgress {
        inflight: vec![inflight(1, 2, false)],
        exactly_once_received: vec![packet_id(5)],
        ..at(3)
    };
    f.close_with(old, progress).await;
    let clean = OpenSession { clean_start: true, head: Offset(8), ..f.opening(&f.bob) };
    let opened = f.open_session(clean).await;
    assert!(!opened.present);
    assert_eq!(opened.progress, at(8));
    assert!(opened.subscriptions.is_empty());
    for op in every_op(old) {
        assert!(fenced(&f, op).await);
    }
    let again = f.open_session(f.opening(&f.bob)).await;
    assert!(again.present);
    assert_eq!(again.progress, at(8));
    assert!(again.subscriptions.is_empty());
}

pub async fn a_client_id_names_a_session_within_its_tenant(f: Fixture) {
    let client_id = ClientId::parse("the same").expect("client id");
    let bob = OpenSession { client_id: client_id.clone(), head: Offset(1), ..f.opening(&f.bob) };
    let robot = OpenSession { client_id, head: Offset(2), ..f.opening(&f.robot) };
    let (bob, robot) = (f.open_session(bob).await, f.open_session(robot).await);
    assert!(!bob.present && !robot.present);
    assert_ne!(bob.session.id, robot.session.id);
    assert!(done(&f, SessionOp::Save(bob.session, Box::new(at(1)))).await);
    assert!(done(&f, SessionOp::Save(robot.session, Box::new(at(2)))).await);
}

pub async fn another_user_s_session_is_not_taken_up(f: Fixture) {
    let old = f.connect(&f.bob).await;
    assert!(done(&f, SessionOp::Subscribe(old, vec![subscription("a", 1)])).await);
    f.close(old, Offset(3)).await;
    let opened =
        f.open_session(OpenSession { user: UserId(Uuid::new_v4()), device: None, ..f.opening(&f.bob) }).await;
    assert!(!opened.present);
    assert!(opened.subscriptions.is_empty());
    assert!(fenced(&f, SessionOp::Save(old, Box::default())).await);
}

pub async fn a_subscription_is_replaced_by_filter_as_subscribed(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let first = vec![subscription("a", 1), subscription("$share/g/a", 1), subscription("b", 1)];
    assert!(done(&f, SessionOp::Subscribe(session, first)).await);
    let replacing = Subscription {
        identifier: None,
        options: SubscriptionOptions { qos: QoS::AtMostOnce, ..subscription("a", 7).options },
        ..subscription("a", 7)
    };
    assert!(done(&f, SessionOp::Subscribe(session, vec![replacing.clone()])).await);
    assert!(done(&f, SessionOp::Unsubscribe(session, vec![filter("b"), filter("absent")])).await);
    let mut found = f.open_session(f.opening(&f.bob)).await.subscriptions;
    found.sort_by(|a, b| a.filter.cmp(&b.filter));
    assert_eq!(found, [subscription("$share/g/a", 1), replacing]);
}

pub async fn operations_of_one_call_are_applied_in_their_order(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let ops = [
        SessionOp::Save(session, Box::new(at(1))),
        SessionOp::Subscribe(session, vec![subscription("a", 1)]),
        SessionOp::Open(Box::new(f.opening(&f.bob))),
        SessionOp::Save(session, Box::new(at(2))),
        SessionOp::Open(Box::new(OpenSession { clean_start: true, ..f.opening(&f.bob) })),
        SessionOp::Open(Box::new(f.opening(&f.carol))),
    ];
    let replies = f.store.apply(&ops).await.expect("apply");
    let [first, second, SessionReply::Opened(taken_over), fourth, SessionReply::Opened(clean), last] =
        replies.as_slice()
    else {
        panic!("{replies:?}");
    };
    assert!(matches!(
        (first, second, fourth),
        (SessionReply::Done, SessionReply::Done, SessionReply::Fenced)
    ));
    assert!(taken_over.present);
    assert_eq!(taken_over.progress, at(1));
    assert_eq!(taken_over.subscriptions, [subscription("a", 1)]);
    assert!(!clean.present);
    assert!(matches!(last, SessionReply::Opened(opened) if !opened.present));
    assert!(f.store.apply(&[]).await.expect("apply nothing").is_empty());
}

pub async fn saving_replaces_what_was_in_flight(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let first = SessionProgress {
        inflight: vec![inflight(1, 11, false), inflight(2, 12, false)],
        exactly_once_received: vec![packet_id(7), packet_id(8)],
        ..at(12)
    };
    assert!(done(&f, SessionOp::Save(session, Box::new(first))).await);
    let second = SessionProgress { inflight: vec![inflight(2, 12, true)], ..at(13) };
    assert!(done(&f, SessionOp::Save(session, Box::new(second.clone()))).await);
    let opened = f.open_session(f.opening(&f.bob)).await;
    let received = vec![packet_id(7), packet_id(8)];
    assert_eq!(opened.progress, SessionProgress { exactly_once_received: received.clone(), ..second });
    assert!(done(&f, SessionOp::Save(opened.session, Box::new(at(14)))).await);
    let opened = f.open_session(f.opening(&f.bob)).await;
    assert_eq!(opened.progress, SessionProgress { exactly_once_received: received, ..at(14) });
}

pub async fn a_packet_id_stored_with_its_message_outlives_what_is_saved_without_it(f: Fixture) {
    let committed = packet_id(40);
    for close in [false, true] {
        let session = f.connect(&f.alice).await;
        let append = Append {
            qos: QoS::ExactlyOnce,
            exactly_once: Some((session.id, committed)),
            ..f.message(&f.alice, &f.ward_topic()).await
        };
        f.append(vec![append]).await;
        // The connection has not heard of the commit.
        let unaware = SessionProgress { exactly_once_received: vec![packet_id(41)], ..at(1) };
        if close {
            f.close_with(session, unaware).await;
        } else {
            assert!(done(&f, SessionOp::Save(session, Box::new(unaware))).await);
        }
        let opened = f.open_session(f.opening(&f.alice)).await;
        assert_eq!(opened.progress.exactly_once_received, [committed, packet_id(41)]);
        assert!(done(&f, SessionOp::Release(opened.session, vec![committed, packet_id(41)])).await);
    }
    assert_eq!(f.open_session(f.opening(&f.alice)).await.progress.exactly_once_received, []);
}

pub async fn what_is_saved_and_released_in_one_call_stands_in_its_order(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let received = |ids: &[u16]| {
        let exactly_once_received = ids.iter().map(|id| packet_id(*id)).collect();
        SessionOp::Save(session, Box::new(SessionProgress { exactly_once_received, ..at(1) }))
    };
    assert!(done(&f, received(&[1, 2])).await);
    let ops = [
        SessionOp::Release(session, vec![packet_id(1), packet_id(2)]),
        received(&[2, 3, 4]),
        SessionOp::Release(session, vec![packet_id(3)]),
        SessionOp::Open(Box::new(f.opening(&f.bob))),
    ];
    let replies = f.store.apply(&ops).await.expect("apply");
    let Some(SessionReply::Opened(opened)) = replies.last() else { panic!("{replies:?}") };
    assert_eq!(opened.progress.exactly_once_received, [packet_id(2), packet_id(4)]);
    let again = f.open_session(f.opening(&f.bob)).await;
    assert_eq!(again.progress.exactly_once_received, [packet_id(2), packet_id(4)]);
}

pub async fn a_released_packet_id_is_free_again(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let received = [1, 2, 3, 4].map(packet_id).to_vec();
    let progress = SessionProgress { exactly_once_received: received, ..at(1) };
    assert!(done(&f, SessionOp::Save(session, Box::new(progress))).await);
    assert!(done(&f, SessionOp::Release(session, [2, 4, 9].map(packet_id).to_vec())).await);
    let opened = f.open_session(f.opening(&f.bob)).await;
    assert_eq!(opened.progress.exactly_once_received, [packet_id(1), packet_id(3)]);
}

pub async fn closing_with_an_expiry_of_zero_deletes_the_session(f: Fixture) {
    let session = f.connect(&f.bob).await;
    let close =
        SessionOp::Close { session, progress: Box::default(), expiry_seconds: 0, will: None, now: NOW };
    assert!(done(&f, close.clone()).await);
    assert!(fenced(&f, close).await);
    assert!(f.store.list(None, 10).await.expect("list").is_empty());
    assert!(!f.open_session(f.opening(&f.bob)).await.present);
}

pub async fn an_expired_session_is_not_taken_up(f: Fixture) {
    let session = f.connect(&f.bob).await;
    f.close(session, Offset(3)).await;
    let in_time = f.open_session(OpenSession { now: later(EXPIRY_MS - 1), ..f.opening(&f.bob) }).await;
    assert!(in_time.present);
    f.close(in_time.session, Offset(3)).await;
    let too_late =
        f.open_session(OpenSession { now: later(EXPIRY_MS), head: Offset(9), ..f.opening(&f.bob) }).await;
    assert!(!too_late.present);
    assert_eq!(too_late.progress, at(9));
    assert!(fenced(&f, SessionOp::Save(in_time.session, Box::default())).await);
}

pub async fn sessions_expire_when_their_time_has_come(f: Fixture) {
    for (person, expiry_seconds) in [(&f.alice, 10), (&f.bob, 20), (&f.robot, u32::MAX)] {
        let session = f.connect(person).await;
        let close =
            SessionOp::Close { session, progress: Box::default(), expiry_seconds, will: None, now: NOW };
        assert!(done(&f, close).await);
    }
    f.connect(&f.carol).await;
    let expire =
        async |milliseconds, limit| f.store.expire(later(milliseconds), limit).await.expect("expire");
    assert_eq!(expire(9_999, 10).await, []);
    assert_eq!(expire(10_000, 10).await, [(f.clinic, f.alice.principal.client_id.clone())]);
    assert_eq!(expire(10_000, 10).await, []);
    f.close(f.connect(&f.alice).await, Offset(0)).await;
    let never = EXPIRY_MS * 24 * 365 * 100;
    assert_eq!(expire(never, 1).await.len(), 1);
    assert_eq!(expire(never, 1).await.len(), 1);
    assert_eq!(expire(never, 1).await, [], "one is connected, one never expires");
    assert_eq!(f.store.list(None, 10).await.expect("list").len(), 2);
}

pub async fn sessions_are_listed_by_id_with_their_subscriptions(f: Fixture) {
    let people: [&Person; 4] = [&f.alice, &f.bob, &f.carol, &f.robot];
    let mut sessions = Vec::new();
    for (person, since) in people.into_iter().zip(1..) {
        let session = f.connect(person).await;
        assert!(done(&f, SessionOp::Subscribe(session, vec![subscription("a", since)])).await);
        sessions.push((session, person, since));
    }
    sessions.sort_by_key(|(session, ..)| session.id);
    let mut listed = f.store.list(None, 3).await.expect("list");
    assert_eq!(listed.len(), 3);
    let rest = f.store.list(Some(listed[2].session.id), 3).await.expect("list");
    assert_eq!(rest.len(), 1);
    listed.extend(rest);
    for ((session, person, since), listed) in sessions.into_iter().zip(listed) {
        assert_eq!(listed.session, session);
        assert_eq!(listed.tenant, person.principal.tenant);
        assert_eq!(listed.client_id, person.principal.client_id);
        assert_eq!(listed.user, person.user);
        assert_eq!(listed.subscriptions, [subscription("a", since)]);
    }
}

pub async fn sessions_of_a_dead_process_are_disconnected(f: Fixture) {
    let bob = f.connect(&f.bob).await;
    assert!(done(&f, SessionOp::Save(bob, Box::new(at(5)))).await);
    f.open_session(OpenSession { expiry_seconds: 0, ..f.opening(&f.carol) }).await;
    f.close(f.connect(&f.alice).await, Offset(0)).await;
    assert_eq!(f.store.recover(later(500)).await.expect("recover"), 2);
    assert_eq!(f.store.recover(later(600)).await.expect("recover"), 0);
    let expired = f.store.expire(later(500), 10).await.expect("expire");
    assert_eq!(
        expired,
        [(f.clinic, f.carol.principal.client_id.clone())],
        "an expiry of 0 ends with the connection"
    );
    let in_time = later(500 + EXPIRY_MS - 1);
    let opened = f.open_session(OpenSession { now: in_time, ..f.opening(&f.bob) }).await;
    assert!(opened.present);
    assert_eq!(opened.progress, at(5));
    assert!(opened.session.generation > bob.generation);
}

pub async fn recovered_sessions_that_are_behind_are_woken(f: Fixture) {
    f.register(&f.bob).await;
    f.register(&f.carol).await;
    f.connect(&f.bob).await;
    let carol = f.connect(&f.carol).await;
    let offset = f.publish(&f.alice, &f.ward_topic()).await;
    assert!(done(&f, SessionOp::Save(carol, Box::new(at(offset.0)))).await);
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 0, "both were connected");
    assert_eq!(f.store.recover(NOW).await.expect("recover"), 2);
    let claimed = f.store.claim(&lane(), 10, NOW, later(1000)).await.expect("claim");
    assert_eq!(claimed.iter().map(|wakeup| wakeup.device).collect::<Vec<_>>(), [f.bob.device]);
}

fn at(cursor: u64) -> SessionProgress {
    SessionProgress { cursor: Cursor(Offset(cursor)), ..SessionProgress::default() }
}

fn packet_id(raw: u16) -> PacketId {
    PacketId::new(raw).expect("not zero")
}

fn inflight(raw: u16, offset: u64, released: bool) -> Inflight {
    let qos = if released { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    Inflight { packet_id: packet_id(raw), offset: Offset(offset), qos, retain: raw % 2 == 1, released }
}

fn subscription(raw: &str, since: u64) -> Subscription {
    Subscription {
        filter: filter(raw),
        options: SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
        },
        identifier: None,
        since: Offset(since),
    }
}

fn every_op(session: SessionRef) -> Vec<SessionOp> {
    let close = |expiry_seconds| SessionOp::Close {
        session,
        progress: Box::new(at(99)),
        expiry_seconds,
        will: None,
        now: NOW,
    };
    vec![
        SessionOp::Subscribe(session, vec![subscription("fenced", 1)]),
        SessionOp::Unsubscribe(session, vec![filter("a")]),
        SessionOp::Save(session, Box::new(at(99))),
        SessionOp::Release(session, vec![packet_id(5)]),
        close(EXPIRY_SECONDS),
        close(0),
        SessionOp::Delete(session),
    ]
}

async fn done(f: &Fixture, op: SessionOp) -> bool {
    matches!(f.apply(op).await, SessionReply::Done)
}

async fn fenced(f: &Fixture, op: SessionOp) -> bool {
    matches!(f.apply(op).await, SessionReply::Fenced)
}

//! Cases of [`Wills`](crate::wills::Wills), and of what session changes do to them.

use sotto_model::{MessageId, QoS, UnixMillis};

use super::fixture::{EXPIRY_SECONDS, Fixture, NOW, Person, later};
use crate::message_log::Append;
use crate::session_store::{OpenSession, SessionOp, SessionRef, SessionReply};
use crate::wills::{DueWill, KeptWill, WillEnd};

const DELAY_SECONDS: u32 = 60;
const DELAY_MS: u64 = DELAY_SECONDS as u64 * 1000;
const EXPIRY_MS: u64 = EXPIRY_SECONDS as u64 * 1000;

pub async fn a_will_is_due_after_its_delay_and_comes_back_as_it_was_kept(f: Fixture) {
    let will = kept(&f, &f.alice, DELAY_SECONDS).await;
    let (session, message_id) = open(&f, will.clone(), false).await;
    assert!(due(&f, later(EXPIRY_MS * 2)).await.is_empty(), "its connection lives");
    close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
    assert!(due(&f, later(DELAY_MS - 1)).await.is_empty());
    let found = due(&f, later(DELAY_MS)).await;
    assert_eq!(found.len(), 1);
    let found = &found[0];
    assert_eq!((found.tenant, found.sender, found.message_id), (f.clinic, f.alice.user, message_id));
    assert_eq!((&found.client_id, &found.topic), (&f.alice.principal.client_id, &f.ward_topic()));
    assert_eq!((found.qos, found.retain, found.message_expiry_seconds), (QoS::ExactlyOnce, true, Some(9)));
    assert_eq!(&found.sealed, will.sealed.bytes());
    f.store.forget_wills(&[message_id, MessageId(uuid::Uuid::nil())]).await.expect("forget");
    assert!(due(&f, later(DELAY_MS)).await.is_empty());
}

pub async fn a_will_is_due_no_later_than_its_session_ends(f: Fixture) {
    for (delay_seconds, expiry_seconds, due_at) in
        [(0, EXPIRY_SECONDS, 0), (u32::MAX, 5, 5000), (u32::MAX, 0, 0), (7, u32::MAX, 7000)]
    {
        let will = kept(&f, &f.alice, delay_seconds).await;
        let (session, message_id) = open(&f, will, false).await;
        close(&f, session, expiry_seconds, Some(WillEnd::Due)).await;
        f.store.expire(later(due_at), 10).await.expect("expire");
        if due_at > 0 {
            assert!(due(&f, later(due_at - 1)).await.is_empty());
        }
        assert_eq!(ids(&due(&f, later(due_at)).await), [message_id]);
        f.store.forget_wills(&[message_id]).await.expect("forget");
    }
}

pub async fn a_will_that_is_withdrawn_or_published_is_never_due(f: Fixture) {
    let (session, _) = open(&f, kept(&f, &f.alice, 0).await, false).await;
    close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Forgotten)).await;
    assert!(due(&f, later(EXPIRY_MS)).await.is_empty());
    for close_first in [false, true] {
        let (session, message_id) = open(&f, kept(&f, &f.alice, 0).await, false).await;
        if close_first {
            close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
            assert_eq!(ids(&due(&f, NOW).await), [message_id]);
        }
        let published = f.message(&f.alice, &f.ward_topic()).await;
        f.append(vec![Append { will: Some(message_id), ..published }]).await;
        if !close_first {
            close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
        }
        assert!(due(&f, later(EXPIRY_MS)).await.is_empty());
    }
}

pub async fn a_session_taken_up_in_time_withdraws_its_delayed_will(f: Fixture) {
    let (session, _) = open(&f, kept(&f, &f.alice, DELAY_SECONDS).await, false).await;
    close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
    let (session, second) = open(&f, kept(&f, &f.alice, DELAY_SECONDS).await, false).await;
    assert!(due(&f, later(EXPIRY_MS)).await.is_empty());
    close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
    // Too late: its delay has passed, whether or not anybody has looked.
    let late = OpenSession { now: later(DELAY_MS), ..f.opening(&f.alice) };
    assert!(f.open_session(late).await.present);
    assert_eq!(ids(&due(&f, later(DELAY_MS)).await), [second]);
}

pub async fn a_takeover_publishes_a_will_without_delay_and_no_other(f: Fixture) {
    let (old, first) = open(&f, kept(&f, &f.alice, 0).await, false).await;
    let (_, _) = open(&f, kept(&f, &f.alice, DELAY_SECONDS).await, false).await;
    assert_eq!(ids(&due(&f, NOW).await), [first]);
    let op = SessionOp::Close {
        session: old,
        progress: Box::default(),
        expiry_seconds: EXPIRY_SECONDS,
        will: Some(WillEnd::Forgotten),
        now: NOW,
    };
    assert!(matches!(f.apply(op).await, SessionReply::Fenced), "of an older generation");
    f.connect(&f.alice).await;
    assert_eq!(ids(&due(&f, later(EXPIRY_MS)).await), [first]);
}

pub async fn a_session_that_is_discarded_ends_and_its_will_is_due(f: Fixture) {
    let (session, first) = open(&f, kept(&f, &f.alice, DELAY_SECONDS).await, false).await;
    close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
    let (session, second) = open(&f, kept(&f, &f.alice, DELAY_SECONDS).await, true).await;
    assert_eq!(ids(&due(&f, NOW).await), [first]);
    assert!(matches!(f.apply(SessionOp::Delete(session)).await, SessionReply::Done));
    let mut found = ids(&due(&f, NOW).await);
    found.sort_unstable();
    let mut expected = [first, second];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

pub async fn changes_of_one_call_leave_the_last_will(f: Fixture) {
    let will = async || Some(Box::new(kept(&f, &f.alice, DELAY_SECONDS).await));
    let first = OpenSession { will: will().await, ..f.opening(&f.alice) };
    let second = OpenSession { clean_start: true, will: will().await, ..f.opening(&f.alice) };
    let third = OpenSession { will: will().await, ..f.opening(&f.alice) };
    let bob = OpenSession { will: will().await, ..f.opening(&f.bob) };
    let ended = id_of(&first);
    let opens = [first, bob, second, third].map(|open| SessionOp::Open(Box::new(open)));
    let replies = f.store.apply(&opens).await.expect("apply");
    assert_eq!(ids(&due(&f, NOW).await), [ended]);
    // What nobody heard of is done again.
    f.store.apply(&opens[3..]).await.expect("apply");
    assert_eq!(ids(&due(&f, NOW).await), [ended]);
    assert_eq!(replies.len(), 4);
    assert_eq!(f.store.recover(NOW).await.expect("recover"), 2);
    assert_eq!(due(&f, later(DELAY_MS)).await.len(), 3, "the one that ended, alice's last, bob's");
}

pub async fn wills_of_sessions_left_connected_are_due_after_a_start(f: Fixture) {
    let (_, alice) = open(&f, kept(&f, &f.alice, DELAY_SECONDS).await, false).await;
    let ends_at_once = OpenSession {
        expiry_seconds: 0,
        will: Some(Box::new(kept(&f, &f.bob, DELAY_SECONDS).await)),
        ..f.opening(&f.bob)
    };
    let bob = id_of(&ends_at_once);
    f.open_session(ends_at_once).await;
    assert_eq!(f.store.recover(later(500)).await.expect("recover"), 2);
    assert_eq!(ids(&due(&f, later(500)).await), [bob]);
    assert_eq!(due(&f, later(500 + DELAY_MS - 1)).await.len(), 1);
    assert_eq!(ids(&due(&f, later(500 + DELAY_MS)).await), [bob, alice]);
}

pub async fn a_user_s_wills_go_with_the_user(f: Fixture) {
    let (session, _) = open(&f, kept(&f, &f.alice, 0).await, false).await;
    close(&f, session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
    f.store.remove_user(f.clinic, f.alice.user, NOW).await.expect("remove user");
    assert!(due(&f, later(EXPIRY_MS)).await.is_empty());
}

pub async fn due_wills_are_returned_longest_due_first_up_to_the_limit(f: Fixture) {
    let mut expected = Vec::new();
    for (person, delay_seconds) in [(&f.alice, 3), (&f.bob, 1), (&f.carol, 2)] {
        let will = kept(&f, person, delay_seconds).await;
        expected.push((delay_seconds, will.sealed.message_id()));
        let opened = f.open_session(OpenSession { will: Some(Box::new(will)), ..f.opening(person) }).await;
        close(&f, opened.session, EXPIRY_SECONDS, Some(WillEnd::Due)).await;
    }
    expected.sort_unstable();
    let expected: Vec<MessageId> = expected.into_iter().map(|(_, id)| id).collect();
    let found = f.store.due_wills(later(EXPIRY_MS), 2).await.expect("due");
    assert_eq!(ids(&found), expected[..2]);
    assert_eq!(ids(&due(&f, later(EXPIRY_MS)).await), expected);
}

async fn kept(f: &Fixture, person: &Person, delay_seconds: u32) -> KeptWill {
    KeptWill {
        sealed: f.seal(person, &f.ward_topic(), b"gone").await,
        client_id: person.principal.client_id.clone(),
        qos: QoS::ExactlyOnce,
        retain: true,
        delay_seconds,
        message_expiry_seconds: Some(9),
    }
}

/// Alice's session, with this will.
async fn open(f: &Fixture, will: KeptWill, clean_start: bool) -> (SessionRef, MessageId) {
    let message_id = will.sealed.message_id();
    let open = OpenSession { clean_start, will: Some(Box::new(will)), ..f.opening(&f.alice) };
    (f.open_session(open).await.session, message_id)
}

async fn close(f: &Fixture, session: SessionRef, expiry_seconds: u32, will: Option<WillEnd>) {
    let progress = Box::default();
    let close = SessionOp::Close { session, progress, expiry_seconds, will, now: NOW };
    assert!(matches!(f.apply(close).await, SessionReply::Done));
}

async fn due(f: &Fixture, now: UnixMillis) -> Vec<DueWill> {
    f.store.due_wills(now, 100).await.expect("due wills")
}

fn ids(wills: &[DueWill]) -> Vec<MessageId> {
    wills.iter().map(|will| will.message_id).collect()
}

fn id_of(open: &OpenSession) -> MessageId {
    open.will.as_ref().expect("it has a will").sealed.message_id()
}

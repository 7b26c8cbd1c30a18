//! Cases of [`Outbox`](crate::outbox::Outbox), and of what closing a session does to it.

use sotto_model::{ClientId, Cursor, DeviceId, Offset, PacketId, Principal, QoS, UnixMillis};

use super::fixture::{EXPIRY_SECONDS, Fixture, NOW, Person, conversation_topic, lane, later, topic};
use crate::audit::AuditAction;
use crate::message_log::Append;
use crate::outbox::{ClaimedWakeup, Relayed, Settlement};
use crate::push_registry::PushRegistration;
use crate::session_store::{Inflight, OpenSession, SessionOp, SessionProgress};

const LEASE_MS: u64 = 10_000;
const TOKEN_INVALID: Settlement = Settlement::TokenInvalid { since: None, retry_at: NOW };

pub async fn many_messages_make_one_wakeup_due(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    for _ in 0..10 {
        f.publish(&f.alice, &f.ward_topic()).await;
    }
    assert_eq!(relay(&f).await, Relayed { messages: 10, wakeups: 1, full: false });
    assert_eq!(relay(&f).await, Relayed::default());
    let claimed = claim(&f, 0).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].tenant, f.clinic);
    assert_eq!(claimed[0].device, f.bob.device);
    assert_eq!(claimed[0].attempts, 0);
    assert_eq!(claimed[0].due_since, NOW);
    assert_eq!(claimed[0].platform, f.registration(&f.bob).platform);
    assert_eq!(claimed[0].sealed_token, f.registration(&f.bob).sealed_token);
    assert_eq!(claimed[0].registered_at, NOW);
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false }, "one is outstanding");
}

pub async fn the_sender_is_not_woken(f: Fixture) {
    f.asleep(&f.alice, Offset(0)).await;
    f.asleep(&f.bob, Offset(0)).await;
    let tablet = second_device(&f, &f.alice).await;
    f.asleep(&tablet, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await.wakeups, 1);
    assert_eq!(devices(&claim(&f, 0).await), [f.bob.device]);
}

pub async fn a_connected_device_is_not_woken(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.connect(&f.bob).await;
    f.asleep(&f.carol, Offset(0)).await;
    // A second session of the same device, while the first sleeps.
    let client_id = ClientId::parse("carol/phone-too").expect("client id");
    f.open_session(OpenSession { client_id, ..f.opening(&f.carol) }).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false });
}

pub async fn a_session_that_is_up_to_date_is_not_woken(f: Fixture) {
    let offset = f.publish(&f.alice, &f.ward_topic()).await;
    f.asleep(&f.bob, offset).await;
    f.asleep(&f.carol, Offset(offset.0 - 1)).await;
    assert_eq!(devices(&claim(&f, 0).await), [f.carol.device], "closing behind made it due");
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false });
}

pub async fn a_member_since_later_is_not_woken(f: Fixture) {
    let dave = f.make_user("dave").await;
    f.asleep(&dave, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    f.join(f.ward, dave.user).await;
    assert_eq!(relay(&f).await.wakeups, 0);
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await.wakeups, 1);
    f.store.remove_member(f.clinic, f.ward, f.bob.user, NOW).await.expect("remove member");
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await.wakeups, 0, "bob has left");
}

pub async fn a_device_without_registration_or_session_is_not_woken(f: Fixture) {
    f.close(f.connect(&f.bob).await, Offset(0)).await;
    f.register(&f.carol).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false });
}

pub async fn an_expired_session_is_not_woken(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    let expired = later(u64::from(EXPIRY_SECONDS) * 1000);
    assert_eq!(f.store.relay(100, expired).await.expect("relay").wakeups, 0);
}

pub async fn a_message_to_an_inbox_wakes_its_user(f: Fixture) {
    let inbox = topic(&format!("u/{}/m", f.bob.user));
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    f.publish(&f.bob, &inbox).await;
    assert_eq!(relay(&f).await.wakeups, 0, "bob's own");
    f.publish(&f.alice, &inbox).await;
    assert_eq!(relay(&f).await.wakeups, 1);
    assert_eq!(devices(&claim(&f, 0).await), [f.bob.device]);
    // And when it came while bob was connected:
    let session = f.connect(&f.bob).await;
    f.publish(&f.alice, &inbox).await;
    assert_eq!(relay(&f).await.wakeups, 0);
    f.close(session, Offset(2)).await;
    assert_eq!(devices(&claim(&f, 0).await), [f.bob.device]);
}

pub async fn a_message_that_wakes_nobody_leaves_no_outbox_row(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    let session = f.connect(&f.bob).await;
    f.append(vec![Append { wakes: None, ..f.message(&f.alice, &f.ward_topic()).await }]).await;
    assert_eq!(relay(&f).await, Relayed::default());
    f.close(session, Offset(0)).await;
    assert_eq!(devices(&claim(&f, 0).await), [], "nor does it count as behind");
}

pub async fn a_message_that_has_expired_wakes_nobody(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    let session = f.connect(&f.carol).await;
    f.register(&f.carol).await;
    f.append(vec![Append { expires_at: Some(NOW), ..f.message(&f.alice, &f.ward_topic()).await }]).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false });
    f.close(session, Offset(0)).await;
    assert_eq!(devices(&claim(&f, 0).await), []);
    f.append(vec![Append { expires_at: Some(later(1)), ..f.message(&f.alice, &f.ward_topic()).await }]).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 2, full: false });
}

pub async fn a_message_outside_conversations_wakes_nobody(f: Fixture) {
    f.asleep(&f.robot, Offset(0)).await;
    f.publish(&f.robot, &topic("a")).await;
    f.publish(&f.robot, &conversation_topic(f.ward)).await;
    f.asleep(&f.bob, Offset(0)).await;
    assert_eq!(relay(&f).await, Relayed { messages: 2, wakeups: 0, full: false });
}

pub async fn the_relay_takes_no_more_rows_than_its_limit(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    for _ in 0..5 {
        f.publish(&f.bob, &f.ward_topic()).await;
    }
    let mut rows = Vec::new();
    for _ in 0..4 {
        rows.push(f.store.relay(2, NOW).await.expect("relay").messages);
    }
    assert_eq!(rows, [2, 2, 1, 0]);
    assert_eq!(devices(&claim(&f, 0).await), [f.carol.device]);
}

pub async fn closing_behind_makes_a_wakeup_due(f: Fixture) {
    f.register(&f.bob).await;
    let session = f.connect(&f.bob).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false }, "connected");
    f.close(session, Offset(0)).await;
    let claimed = claim(&f, 0).await;
    assert_eq!(devices(&claimed), [f.bob.device]);
    assert_eq!(claimed[0].due_since, NOW);
}

pub async fn closing_up_to_date_makes_none_due(f: Fixture) {
    f.register(&f.bob).await;
    let session = f.connect(&f.bob).await;
    let offset = f.publish(&f.alice, &f.ward_topic()).await;
    f.close(session, offset).await;
    assert_eq!(devices(&claim(&f, 0).await), []);
    let session = f.connect(&f.bob).await;
    let other = f.make_conversation().await;
    f.join(other, f.alice.user).await;
    f.publish(&f.alice, &conversation_topic(other)).await;
    f.close(session, offset).await;
    assert_eq!(devices(&claim(&f, 0).await), [], "not a conversation of bob's");
}

pub async fn closing_with_something_in_flight_makes_a_wakeup_due(f: Fixture) {
    f.register(&f.bob).await;
    let session = f.connect(&f.bob).await;
    let offset = f.publish(&f.alice, &f.ward_topic()).await;
    let sent = Inflight {
        packet_id: PacketId::FIRST,
        offset,
        qos: QoS::AtLeastOnce,
        retain: false,
        released: false,
    };
    let progress =
        SessionProgress { cursor: Cursor(offset), inflight: vec![sent], ..SessionProgress::default() };
    f.close_with(session, progress).await;
    assert_eq!(devices(&claim(&f, 0).await), [f.bob.device]);
}

pub async fn one_s_own_messages_do_not_count_as_behind(f: Fixture) {
    f.register(&f.bob).await;
    let session = f.connect(&f.bob).await;
    f.publish(&f.bob, &f.ward_topic()).await;
    f.close(session, Offset(0)).await;
    assert_eq!(devices(&claim(&f, 0).await), []);
}

pub async fn messages_from_before_the_membership_do_not_count_as_behind(f: Fixture) {
    let dave = f.make_user("dave").await;
    f.register(&dave).await;
    let session = f.connect(&dave).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    f.join(f.ward, dave.user).await;
    f.close(session, Offset(0)).await;
    assert_eq!(devices(&claim(&f, 0).await), []);
}

pub async fn nothing_more_is_sent_until_the_device_has_been_back(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let wakeup = claim(&f, 0).await.remove(0);
    settle(&f, &wakeup, Settlement::Sent { at: NOW }, 1).await;
    assert!(!still_due(&f, &wakeup).await);
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await, Relayed { messages: 1, wakeups: 0, full: false });
    assert_eq!(devices(&claim(&f, LEASE_MS * 10).await), []);
    // Back, and off again with messages unread.
    f.close(f.connect(&f.bob).await, Offset(1)).await;
    assert_eq!(devices(&claim(&f, LEASE_MS * 10).await), [f.bob.device]);
}

pub async fn a_claim_holds_until_its_lease_ends(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let first = claim(&f, 0).await.remove(0);
    assert!(still_due(&f, &first).await);
    assert_eq!(devices(&claim(&f, LEASE_MS - 1).await), []);
    let second = claim(&f, LEASE_MS).await.remove(0);
    assert_eq!(second.device, f.bob.device);
    assert!(second.lease != first.lease);
    assert!(!still_due(&f, &first).await, "another has it");
    assert!(still_due(&f, &second).await);
}

pub async fn a_claim_takes_no_more_than_its_limit(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await.wakeups, 2);
    let mut claimed = Vec::new();
    for _ in 0..3 {
        let some = f.store.claim(&lane(), 1, NOW, later(LEASE_MS)).await.expect("claim");
        assert!(some.len() <= 1);
        claimed.extend(devices(&some));
    }
    claimed.sort_unstable();
    let mut expected = [f.bob.device, f.carol.device];
    expected.sort_unstable();
    assert_eq!(claimed, expected);
}

pub async fn a_settlement_under_an_older_lease_changes_nothing(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let first = claim(&f, 0).await.remove(0);
    let second = claim(&f, LEASE_MS).await.remove(0);
    let dead = Settlement::Dead { outcome: "refused" };
    for settlement in
        [Settlement::Sent { at: NOW }, Settlement::RetryAt(NOW), Settlement::Wait(NOW), TOKEN_INVALID, dead]
    {
        settle(&f, &first, settlement, 1).await;
        assert!(still_due(&f, &second).await, "{settlement:?}");
    }
    assert_eq!(f.store.registrations(f.clinic).await.expect("registrations").len(), 1);
    assert!(f.store.dead_letters(10).await.expect("dead letters").is_empty());
    // Nor under the lease of a wakeup that is over, when the device sleeps anew.
    settle(&f, &second, Settlement::Sent { at: NOW }, 1).await;
    f.close(f.connect(&f.bob).await, Offset(0)).await;
    let third = claim(&f, LEASE_MS * 3).await.remove(0);
    settle(&f, &first, Settlement::Sent { at: NOW }, 1).await;
    settle(&f, &second, Settlement::Sent { at: NOW }, 1).await;
    assert!(still_due(&f, &third).await);
}

pub async fn a_device_that_returns_is_no_longer_due(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let wakeup = claim(&f, 0).await.remove(0);
    f.connect(&f.bob).await;
    assert!(!still_due(&f, &wakeup).await);
    settle(&f, &wakeup, Settlement::RetryAt(NOW), 1).await;
    assert_eq!(devices(&claim(&f, LEASE_MS).await), []);
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0);
}

pub async fn a_returned_device_is_not_claimed(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    // Back under another client id, so that opening the session may not have forgotten the wakeup.
    let client_id = ClientId::parse("bob/phone-too").expect("client id");
    f.open_session(OpenSession { client_id, ..f.opening(&f.bob) }).await;
    assert_eq!(devices(&claim(&f, 0).await), []);
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0, "deleted, not passed over");
}

pub async fn a_deleted_session_s_wakeup_is_not_claimed(f: Fixture) {
    f.register(&f.bob).await;
    let session = f.connect(&f.bob).await;
    f.close(session, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    f.apply(SessionOp::Delete(session)).await;
    assert_eq!(devices(&claim(&f, 0).await), []);
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0);
}

pub async fn a_retry_waits_for_its_time_and_is_counted(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let first = claim(&f, 0).await.remove(0);
    settle(&f, &first, Settlement::RetryAt(later(500)), 1).await;
    assert!(!still_due(&f, &first).await, "the lease is over");
    assert_eq!(devices(&claim(&f, 499).await), []);
    let second = claim(&f, 500).await.remove(0);
    assert_eq!(second.attempts, 1);
    assert_eq!(second.due_since, first.due_since);
    settle(&f, &second, Settlement::RetryAt(later(600)), 501).await;
    assert_eq!(claim(&f, 600).await[0].attempts, 2);
}

pub async fn an_invalid_token_takes_its_registration_along(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let wakeup = claim(&f, 0).await.remove(0);
    settle(&f, &wakeup, TOKEN_INVALID, 7).await;
    assert!(f.store.registrations(f.clinic).await.expect("registrations").is_empty());
    let audit = f.store.recent(Some(f.clinic), 1).await.expect("audit");
    assert_eq!(audit[0].action, AuditAction::PushUnregistered);
    assert_eq!(audit[0].resource, Some(f.bob.device.0));
    assert_eq!(audit[0].at, later(7));
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await.wakeups, 0);
    assert_eq!(devices(&claim(&f, LEASE_MS).await), []);
}

pub async fn a_token_registered_anew_survives_the_refusal_of_the_old_one(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let wakeup = claim(&f, 0).await.remove(0);
    let anew = PushRegistration {
        registered_at: later(5),
        sealed_token: "another".into(),
        ..f.registration(&f.bob)
    };
    f.store.register(&anew, None).await.expect("register");
    settle(&f, &wakeup, TOKEN_INVALID, 7).await;
    let claimed = claim(&f, 7).await;
    assert_eq!(devices(&claimed), [f.bob.device]);
    assert_eq!(claimed[0].sealed_token, anew.sealed_token);
}

pub async fn a_wakeup_given_up_is_kept_as_a_dead_letter(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    relay(&f).await;
    let first = claim(&f, 0).await.remove(0);
    settle(&f, &first, Settlement::RetryAt(NOW), 1).await;
    let second = claim(&f, 1).await.remove(0);
    settle(&f, &second, Settlement::Dead { outcome: "refused" }, 2).await;
    let dead = f.store.dead_letters(10).await.expect("dead letters");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].tenant, f.clinic);
    assert_eq!(dead[0].device, f.bob.device);
    assert_eq!(dead[0].attempts, 2, "the last included");
    assert_eq!(dead[0].outcome, "refused");
    assert_eq!(dead[0].died_at, later(2));
    assert_eq!(devices(&claim(&f, LEASE_MS).await), []);
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(relay(&f).await.wakeups, 1, "the next message is another chance");
}

pub async fn old_dead_letters_are_purged(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    for died_at in [10, 20, 30] {
        f.publish(&f.alice, &f.ward_topic()).await;
        relay(&f).await;
        let wakeup = claim(&f, 0).await.remove(0);
        settle(&f, &wakeup, Settlement::Dead { outcome: "refused" }, died_at).await;
    }
    assert_eq!(f.store.dead_letters(2).await.expect("dead letters").len(), 2);
    let purge = async |before, limit| f.store.purge_dead_letters(later(before), limit).await.expect("purge");
    assert_eq!(purge(10, 10).await, 0);
    assert_eq!(purge(30, 1).await, 1);
    assert_eq!(purge(30, 10).await, 1);
    let left = f.store.dead_letters(10).await.expect("dead letters");
    assert_eq!(left.iter().map(|letter| letter.died_at).collect::<Vec<_>>(), [later(30)]);
    assert_eq!(f.store.lag(NOW).await.expect("lag").dead_letters, 1);
}

pub async fn the_lag_counts_what_waits(f: Fixture) {
    let lag = f.store.lag(NOW).await.expect("lag");
    assert_eq!(lag.oldest, None);
    f.asleep(&f.bob, Offset(0)).await;
    for age in [30, 20] {
        let mut batch = f.batch(vec![f.message(&f.alice, &f.ward_topic()).await]);
        batch.committed_at = UnixMillis(NOW.0 - age);
        f.store.append(&batch).await.expect("append");
    }
    let lag = f.store.lag(NOW).await.expect("lag");
    assert_eq!((lag.messages, lag.wakeups_due), (2, 0));
    assert_eq!(lag.oldest, Some(UnixMillis(NOW.0 - 30)));
    relay(&f).await;
    let lag = f.store.lag(NOW).await.expect("lag");
    assert_eq!((lag.messages, lag.oldest, lag.wakeups_due), (0, None, 1));
    let wakeup = claim(&f, 0).await.remove(0);
    settle(&f, &wakeup, Settlement::Sent { at: NOW }, 1).await;
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0);
}

async fn second_device(f: &Fixture, person: &Person) -> Person {
    let tenant = person.principal.tenant;
    let device = f.store.ensure_device(tenant, person.user, "tablet", NOW).await.expect("device");
    let client_id = ClientId::parse("alice/tablet").expect("client id");
    let principal = Principal { device: Some(device), client_id, ..person.principal.clone() };
    Person { device, principal, ..person.clone() }
}

async fn relay(f: &Fixture) -> Relayed {
    f.store.relay(100, NOW).await.expect("relay")
}

/// At `milliseconds` past [`NOW`].
async fn claim(f: &Fixture, milliseconds: u64) -> Vec<ClaimedWakeup> {
    f.store.claim(&lane(), 100, later(milliseconds), later(milliseconds + LEASE_MS)).await.expect("claim")
}

async fn settle(f: &Fixture, wakeup: &ClaimedWakeup, settlement: Settlement, milliseconds: u64) {
    f.store.settle(wakeup, settlement, later(milliseconds)).await.expect("settle");
}

async fn still_due(f: &Fixture, wakeup: &ClaimedWakeup) -> bool {
    f.store.still_due(wakeup).await.expect("still due")
}

fn devices(claimed: &[ClaimedWakeup]) -> Vec<DeviceId> {
    claimed.iter().map(|wakeup| wakeup.device).collect()
}

//! Cases of [`Outbox`](crate::outbox::Outbox): urgency, lanes, quotas, and how wakeups end.

use std::time::Duration;

use sotto_model::{Cursor, DeviceId, Offset, PacketId, Principal, QoS, UnixMillis, Urgency, UserId};
use uuid::Uuid;

use super::fixture::{Fixture, NOW, Person, lane, later, topic};
use crate::message_log::Append;
use crate::outbox::{
    ClaimedWakeup, DeadLetterSelector, LaneLag, OutboxLag, PUSH_TTL, Relayed, Replayed, Settlement,
};
use crate::push_registry::{Lane, Platform, PushRegistration};
use crate::session_store::{Inflight, SessionOp, SessionProgress};
use crate::wakeup_quota::WakeupQuota;

const LEASE_MS: u64 = 10_000;

pub async fn a_wakeup_is_as_urgent_as_the_most_urgent_message(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    publish(&f, Urgency::Low, 0).await;
    relay(&f, 0).await;
    assert_eq!(claim(&f, 0).await[0].urgency, Urgency::Low);
    f.asleep(&f.carol, Offset(1)).await;
    for (urgency, age) in [(Urgency::Low, 50), (Urgency::High, 20), (Urgency::High, 30), (Urgency::Low, 10)] {
        publish(&f, urgency, age).await;
    }
    relay(&f, 0).await;
    let claimed = claim_of(&f, &f.carol, 0).await;
    assert_eq!(claimed.urgency, Urgency::High);
    assert_eq!(claimed.due_since, UnixMillis(NOW.0 - 30), "the oldest of those that made it urgent");
}

pub async fn a_muted_conversation_wakes_without_urgency(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    f.store.set_muted(f.clinic, f.ward, f.bob.user, true, None, NOW).await.expect("mute");
    publish(&f, Urgency::High, 0).await;
    assert_eq!(relay(&f, 0).await.wakeups, 2);
    for wakeup in claim(&f, 0).await {
        let is_muted = wakeup.device == f.bob.device;
        assert_eq!(wakeup.urgency, if is_muted { Urgency::Low } else { Urgency::High });
    }
    // What comes to the inbox is as urgent as it says.
    let inbox = topic(&format!("u/{}/m", f.bob.user));
    f.publish(&f.alice, &inbox).await;
    relay(&f, 0).await;
    assert_eq!(claim_of(&f, &f.bob, 0).await.urgency, Urgency::High);
}

pub async fn closing_behind_is_as_urgent_as_what_is_behind(f: Fixture) {
    f.register(&f.bob).await;
    let session = f.connect(&f.bob).await;
    publish(&f, Urgency::Low, 0).await;
    relay(&f, 0).await;
    f.close(session, Offset(0)).await;
    assert_eq!(claim(&f, 0).await[0].urgency, Urgency::Low);
    let session = f.connect(&f.bob).await;
    publish(&f, Urgency::High, 0).await;
    relay(&f, 0).await;
    f.close(session, Offset(0)).await;
    assert_eq!(claim(&f, 0).await[0].urgency, Urgency::High);
    f.store.set_muted(f.clinic, f.ward, f.bob.user, true, None, NOW).await.expect("mute");
    f.close(f.connect(&f.bob).await, Offset(0)).await;
    assert_eq!(claim(&f, 0).await[0].urgency, Urgency::Low);
    let inbox = topic(&format!("u/{}/m", f.bob.user));
    let last = f.publish(&f.alice, &inbox).await;
    f.close(f.connect(&f.bob).await, Offset(0)).await;
    assert_eq!(claim(&f, 0).await[0].urgency, Urgency::High);
    let inflight = Inflight {
        packet_id: PacketId::FIRST,
        offset: last,
        qos: QoS::AtLeastOnce,
        retain: false,
        released: false,
    };
    let progress =
        SessionProgress { cursor: Cursor(last), inflight: vec![inflight], ..SessionProgress::default() };
    f.close_with(f.connect(&f.bob).await, progress).await;
    assert_eq!(claim(&f, 0).await[0].urgency, Urgency::High);
}

pub async fn an_urgent_message_makes_a_less_urgent_wakeup_due_at_once(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    let settlements = [
        None,
        Some(Settlement::Sent { at: later(1) }),
        Some(Settlement::Wait(later(60_000))),
        Some(Settlement::RetryAt(later(60_000))),
    ];
    for settlement in settlements {
        publish(&f, Urgency::Low, 0).await;
        relay(&f, 0).await;
        let low = claim(&f, 0).await.remove(0);
        assert_eq!(low.urgency, Urgency::Low, "{settlement:?}");
        if let Some(settlement) = settlement {
            f.store.settle(&low, settlement, later(1)).await.expect("settle");
        }
        publish(&f, Urgency::High, 3).await;
        assert_eq!(relay(&f, 2).await, Relayed { messages: 1, wakeups: 1, full: false }, "{settlement:?}");
        assert!(!f.store.still_due(&low).await.expect("still due"), "the lease is void");
        let high = claim(&f, 2).await.remove(0);
        assert_eq!((high.urgency, high.attempts), (Urgency::High, 0), "{settlement:?}");
        assert_eq!(high.due_since, UnixMillis(NOW.0 - 3));
        f.store.settle(&low, Settlement::Sent { at: NOW }, NOW).await.expect("settle late");
        assert!(f.store.still_due(&high).await.expect("still due"));
        f.close(f.connect(&f.bob).await, f.head(f.clinic).await).await;
    }
}

pub async fn a_message_that_is_no_more_urgent_leaves_the_wakeup_as_it_is(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    publish(&f, Urgency::High, 0).await;
    relay(&f, 0).await;
    let first = claim(&f, 0).await.remove(0);
    for urgency in [Urgency::Low, Urgency::High] {
        publish(&f, urgency, 0).await;
        assert_eq!(relay(&f, 1).await.wakeups, 0);
        assert!(f.store.still_due(&first).await.expect("still due"));
    }
    f.store.settle(&first, Settlement::Sent { at: later(1) }, later(1)).await.expect("settle");
    for urgency in [Urgency::Low, Urgency::High] {
        publish(&f, urgency, 0).await;
        assert_eq!(relay(&f, 2).await.wakeups, 0);
    }
    assert_eq!(devices(&claim(&f, LEASE_MS * 2).await), []);
}

pub async fn a_wakeup_that_the_push_service_has_given_up_is_due_again(f: Fixture) {
    asleep_for_ever(&f, &f.bob).await;
    publish(&f, Urgency::High, 0).await;
    relay(&f, 0).await;
    let sent = claim(&f, 0).await.remove(0);
    f.store.settle(&sent, Settlement::Sent { at: later(5) }, later(6)).await.expect("settle");
    let ttl_ms = u64::try_from(PUSH_TTL.as_millis()).expect("a day");
    publish(&f, Urgency::Low, 0).await;
    assert_eq!(relay(&f, ttl_ms + 4).await.wakeups, 0);
    publish(&f, Urgency::Low, 0).await;
    assert_eq!(relay(&f, ttl_ms + 5).await.wakeups, 1);
    let again = claim(&f, ttl_ms + 5).await.remove(0);
    assert_eq!(again.urgency, Urgency::High, "what made the first one urgent is unread");
}

pub async fn wakeups_are_claimed_by_lane(f: Fixture) {
    let apns = |app: &str| Lane { platform: Platform::Apns, app: app.into() };
    asleep_in(&f, &f.bob, &apns("org.example.one")).await;
    asleep_in(&f, &f.carol, &apns("org.example.two")).await;
    publish(&f, Urgency::High, 0).await;
    assert_eq!(relay(&f, 0).await.wakeups, 2);
    for lane in [lane(), apns(""), Lane { platform: Platform::Fcm, app: "org.example.one".into() }] {
        assert_eq!(devices(&claim_in(&f, &lane, 0).await), [], "{lane}");
    }
    for (lane, person) in [(apns("org.example.one"), &f.bob), (apns("org.example.two"), &f.carol)] {
        let claimed = claim_in(&f, &lane, 0).await;
        assert_eq!(devices(&claimed), [person.device]);
        assert_eq!(claimed[0].lane(), lane);
    }
}

pub async fn putting_a_wakeup_off_is_no_attempt(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    publish(&f, Urgency::Low, 0).await;
    relay(&f, 0).await;
    let first = claim(&f, 0).await.remove(0);
    f.store.settle(&first, Settlement::RetryAt(later(10)), later(1)).await.expect("settle");
    let second = claim(&f, 10).await.remove(0);
    f.store.settle(&second, Settlement::Wait(later(500)), later(11)).await.expect("settle");
    assert!(!f.store.still_due(&second).await.expect("still due"), "the lease is over");
    assert_eq!(devices(&claim(&f, 499).await), []);
    assert_eq!(claim(&f, 500).await[0].attempts, 1);
}

pub async fn the_last_push_without_urgency_is_remembered_with_its_token(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    let mut seen = Vec::new();
    for (urgency, at) in [(Urgency::High, 10), (Urgency::Low, 20), (Urgency::High, 30), (Urgency::Low, 40)] {
        publish(&f, urgency, 0).await;
        relay(&f, at).await;
        let wakeup = claim(&f, at).await.remove(0);
        seen.push(wakeup.last_low_sent_at);
        let sent = Settlement::Sent { at: later(at + 1) };
        f.store.settle(&wakeup, sent, later(at + 2)).await.expect("settle");
        f.close(f.connect(&f.bob).await, f.head(f.clinic).await).await;
        f.register(&f.bob).await;
    }
    assert_eq!(seen, [None, None, Some(later(21)), Some(later(21))]);
    let anew = PushRegistration { lookup: [1; 32], ..f.registration(&f.bob) };
    f.store.register(&anew, None).await.expect("register");
    publish(&f, Urgency::Low, 0).await;
    relay(&f, 50).await;
    assert_eq!(claim(&f, 50).await[0].last_low_sent_at, None, "of another token");
}

pub async fn a_verdict_older_than_the_registration_spares_it(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    publish(&f, Urgency::High, 0).await;
    relay(&f, 0).await;
    let verdict = |since| Settlement::TokenInvalid { since: Some(since), retry_at: later(300) };
    let first = claim(&f, 0).await.remove(0);
    f.store.settle(&first, verdict(NOW), later(1)).await.expect("settle");
    assert_eq!(f.store.registrations(f.clinic).await.expect("registrations").len(), 1);
    assert_eq!(devices(&claim(&f, 299).await), []);
    let second = claim(&f, 300).await.remove(0);
    assert_eq!(second.attempts, 1, "it was an attempt");
    f.store.settle(&second, verdict(later(1)), later(301)).await.expect("settle");
    assert!(f.store.registrations(f.clinic).await.expect("registrations").is_empty());
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0);
}

pub async fn many_wakeups_are_settled_together(f: Fixture) {
    let mut people = vec![f.bob.clone(), f.carol.clone()];
    for name in ["dave", "erin", "frank"] {
        people.push(member(&f, name).await);
    }
    for person in &people {
        f.asleep(person, Offset(0)).await;
    }
    publish(&f, Urgency::Low, 0).await;
    assert_eq!(relay(&f, 0).await.wakeups, 5);
    let claimed = claim(&f, 0).await;
    let of = |person: &Person| {
        claimed.iter().find(|wakeup| wakeup.device == person.device).expect("claimed").clone()
    };
    let (stale, dead) = (ClaimedWakeup { lease: u64::MAX >> 1, ..of(&people[4]) }, "refused");
    let settlements = [
        (of(&people[3]), Settlement::TokenInvalid { since: None, retry_at: NOW }),
        (of(&people[2]), Settlement::Dead { outcome: dead }),
        (of(&people[1]), Settlement::RetryAt(later(50))),
        (of(&people[0]), Settlement::Sent { at: later(1) }),
        (stale, Settlement::Sent { at: later(1) }),
    ];
    f.store.settle_many(&settlements, later(2)).await.expect("settle");
    f.store.settle_many(&settlements, later(2)).await.expect("settle again");
    f.store.settle_many(&[], later(2)).await.expect("settle nothing");
    assert_eq!(f.store.registrations(f.clinic).await.expect("registrations").len(), 4);
    let letters = f.store.dead_letters(10).await.expect("dead letters");
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.device, letter.urgency, letter.attempts), (people[2].device, Urgency::Low, 1));
    assert_eq!((letter.platform, &*letter.app), (Platform::UnifiedPush, ""));
    assert_eq!((letter.outcome.as_str(), letter.died_at), (dead, later(2)));
    assert!(f.store.still_due(&of(&people[4])).await.expect("still due"), "that lease was nobody's");
    let waiting = claim(&f, 50).await;
    assert_eq!(devices(&waiting), [people[1].device]);
    assert_eq!(waiting[0].attempts, 1);
}

pub async fn what_is_over_the_quota_waits_and_is_not_lost(f: Fixture) {
    f.store.set_wakeup_quota(WakeupQuota { per_second: 2, burst: 2 });
    let people = sleepers(&f, 5).await;
    publish(&f, Urgency::High, 0).await;
    assert_eq!(relay(&f, 0).await.wakeups, 5);
    publish(&f, Urgency::High, 0).await;
    assert_eq!(relay(&f, 0).await.wakeups, 0, "later messages find them outstanding");
    let mut woken = Vec::new();
    for (at, due) in [(0, 2), (499, 0), (500, 1), (1000, 1), (1499, 0), (1500, 1), (9000, 0)] {
        let claimed = claim(&f, at).await;
        assert_eq!(claimed.len(), due, "{at} ms");
        woken.extend(devices(&claimed));
    }
    woken.sort_unstable();
    let mut all: Vec<_> = people.iter().map(|person| person.device).collect();
    all.sort_unstable();
    assert_eq!(woken, all);
    // After a pause it begins anew.
    for person in &people {
        f.close(f.connect(person).await, Offset(2)).await;
    }
    publish(&f, Urgency::High, 0).await;
    relay(&f, 60_000).await;
    assert_eq!(claim(&f, 60_000).await.len(), 2);
}

pub async fn one_tenant_s_quota_is_not_another_s(f: Fixture) {
    f.store.set_wakeup_quota(WakeupQuota { per_second: 1, burst: 1 });
    sleepers(&f, 3).await;
    f.asleep(&f.robot, Offset(0)).await;
    publish(&f, Urgency::High, 0).await;
    let user = UserId(Uuid::new_v4());
    let principal = Principal { user, ..f.robot.principal.clone() };
    let operator = Person { user, principal, ..f.robot.clone() };
    f.publish(&operator, &topic(&format!("u/{}/m", f.robot.user))).await;
    assert_eq!(relay(&f, 0).await.wakeups, 4);
    let claimed = claim(&f, 0).await;
    assert_eq!(claimed.len(), 2, "one of each");
    assert!(claimed.iter().any(|wakeup| wakeup.device == f.robot.device));
}

pub async fn an_urgent_wakeup_does_not_wait_behind_others(f: Fixture) {
    f.store.set_wakeup_quota(WakeupQuota { per_second: 1, burst: 1 });
    sleepers(&f, 4).await;
    publish(&f, Urgency::Low, 0).await;
    relay(&f, 0).await;
    assert_eq!(claim(&f, 0).await.len(), 1);
    let dave = member(&f, "dave").await;
    f.asleep(&dave, f.head(f.clinic).await).await;
    f.publish(&f.alice, &topic(&format!("u/{}/m", dave.user))).await;
    assert_eq!(relay(&f, 0).await.wakeups, 1);
    let claimed = claim(&f, 0).await;
    assert_eq!(devices(&claimed), [dave.device]);
    assert_eq!(claimed[0].urgency, Urgency::High);
}

pub async fn closing_sessions_are_within_the_quota(f: Fixture) {
    f.store.set_wakeup_quota(WakeupQuota { per_second: 1, burst: 1 });
    f.register(&f.bob).await;
    f.register(&f.carol).await;
    let (bob, carol) = (f.connect(&f.bob).await, f.connect(&f.carol).await);
    publish(&f, Urgency::High, 0).await;
    assert_eq!(relay(&f, 0).await.wakeups, 0);
    f.close(bob, Offset(0)).await;
    f.close(carol, Offset(0)).await;
    assert_eq!(devices(&claim(&f, 999).await), [f.bob.device]);
    assert_eq!(devices(&claim(&f, 1000).await), [f.carol.device]);
}

pub async fn dead_letters_are_replayed_for_whom_still_sleeps(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    let dave = member(&f, "dave").await;
    f.asleep(&dave, Offset(0)).await;
    for at in [1, 2] {
        publish(&f, Urgency::High, 0).await;
        relay(&f, at).await;
        let claimed = claim(&f, at).await;
        assert_eq!(claimed.len(), 3);
        for wakeup in claimed {
            let dead = Settlement::Dead { outcome: "refused" };
            f.store.settle(&wakeup, dead, later(at)).await.expect("settle");
        }
    }
    f.connect(&f.carol).await;
    f.store.unregister(f.clinic, dave.device, None, NOW).await.expect("unregister");
    let replay = async |selector, limit| {
        f.store.replay_dead_letters(selector, limit, later(100)).await.expect("replay")
    };
    assert_eq!(replay(DeadLetterSelector::Tenant(f.lab), 10).await, Replayed::default());
    let of_lab = DeadLetterSelector::Device(f.lab, f.bob.device);
    assert_eq!(replay(of_lab, 10).await, Replayed::default());
    let of_carol = DeadLetterSelector::Device(f.clinic, f.carol.device);
    assert_eq!(replay(of_carol, 1).await, Replayed { due: 0, gone: 1 });
    assert_eq!(f.store.dead_letters(10).await.expect("dead letters").len(), 5);
    assert_eq!(replay(DeadLetterSelector::Tenant(f.clinic), 10).await, Replayed { due: 1, gone: 4 });
    assert_eq!(f.store.dead_letters(10).await.expect("dead letters").len(), 0);
    assert_eq!(devices(&claim(&f, 99).await), []);
    let again = claim(&f, 100).await;
    assert_eq!(devices(&again), [f.bob.device]);
    assert_eq!((again[0].attempts, again[0].urgency), (0, Urgency::High));
    let dead = Settlement::Dead { outcome: "refused" };
    f.store.settle(&again[0], dead, later(101)).await.expect("settle");
    publish(&f, Urgency::Low, 0).await;
    relay(&f, 102).await;
    let outstanding = Replayed { due: 0, gone: 1 };
    assert_eq!(replay(DeadLetterSelector::All, 10).await, outstanding, "it is woken anyway");
}

pub async fn the_lag_is_told_by_lane(f: Fixture) {
    let fcm = Lane { platform: Platform::Fcm, app: "project".into() };
    let apns = Lane { platform: Platform::Apns, app: "org.example.app".into() };
    let other = Lane { platform: Platform::Apns, app: "org.example.other".into() };
    let people = sleepers(&f, 5).await;
    for (person, lane) in people.iter().zip([&fcm, &fcm, &fcm, &fcm, &apns]) {
        asleep_in(&f, person, lane).await;
    }
    let dave = member(&f, "dave").await;
    asleep_in(&f, &dave, &other).await;
    publish(&f, Urgency::High, 0).await;
    relay(&f, 7).await;
    let claimed = f.store.claim(&fcm, 3, later(7), later(7 + LEASE_MS)).await.expect("claim");
    f.store.settle(&claimed[0], Settlement::Sent { at: later(8) }, later(8)).await.expect("settle");
    f.store.settle(&claimed[1], Settlement::Wait(later(60_000)), later(8)).await.expect("settle");
    let lag = f.store.lag(later(9)).await.expect("lag");
    assert_eq!(lag.wakeups_due, 5);
    let of = |lag: &OutboxLag, lane: &Lane| -> LaneLag {
        lag.lanes.iter().find(|of| of.lane == *lane).expect("a lane with wakeups").clone()
    };
    assert_eq!(lag.lanes.len(), 3);
    let counts = |lag: &LaneLag| (lag.due, lag.waiting, lag.leased, lag.sent, lag.oldest_due);
    assert_eq!(counts(&of(&lag, &fcm)), (1, 1, 1, 1, Some(later(7))));
    assert_eq!(counts(&of(&lag, &apns)), (1, 0, 0, 0, Some(later(7))));
    assert_eq!(counts(&of(&lag, &other)), (1, 0, 0, 0, Some(later(7))));
    let lag = f.store.lag(later(7 + LEASE_MS)).await.expect("lag");
    assert_eq!(counts(&of(&lag, &fcm)), (2, 1, 0, 1, Some(later(7))), "the lease has ended");
    assert_eq!(f.store.lag(later(6)).await.expect("lag").lanes[0].oldest_due, None);
}

/// To the ward by alice, committed `age_ms` before [`NOW`].
async fn publish(f: &Fixture, urgency: Urgency, age_ms: u64) {
    let message = f.message(&f.alice, &f.ward_topic()).await;
    let mut batch = f.batch(vec![Append { wakes: Some(urgency), ..message }]);
    batch.committed_at = UnixMillis(NOW.0 - age_ms);
    f.store.append(&batch).await.expect("append");
}

/// Another member of the ward.
async fn member(f: &Fixture, name: &str) -> Person {
    let person = f.make_user(name).await;
    f.join(f.ward, person.user).await;
    person
}

/// Members of the ward, asleep.
async fn sleepers(f: &Fixture, count: usize) -> Vec<Person> {
    let mut people = vec![f.bob.clone(), f.carol.clone()];
    for number in people.len()..count {
        people.push(member(f, &format!("sleeper-{number}")).await);
    }
    for person in &people {
        f.asleep(person, Offset(0)).await;
    }
    people
}

async fn asleep_in(f: &Fixture, person: &Person, lane: &Lane) {
    let Lane { platform, app } = lane.clone();
    let registration = PushRegistration { platform, app, ..f.registration(person) };
    f.store.register(&registration, None).await.expect("register");
    let session = f.connect(person).await;
    f.close(session, Offset(0)).await;
}

async fn asleep_for_ever(f: &Fixture, person: &Person) {
    f.register(person).await;
    let session = f.connect(person).await;
    let progress = Box::default();
    f.apply(SessionOp::Close { session, progress, expiry_seconds: u32::MAX, will: None, now: NOW }).await;
}

async fn relay(f: &Fixture, milliseconds: u64) -> Relayed {
    f.store.relay(100, later(milliseconds)).await.expect("relay")
}

async fn claim(f: &Fixture, milliseconds: u64) -> Vec<ClaimedWakeup> {
    claim_in(f, &lane(), milliseconds).await
}

/// Under a lease that no case outlives, but for those that say so.
async fn claim_in(f: &Fixture, lane: &Lane, milliseconds: u64) -> Vec<ClaimedWakeup> {
    let lease_until = later(milliseconds).saturating_add(Duration::from_hours(48));
    f.store.claim(lane, 100, later(milliseconds), lease_until).await.expect("claim")
}

async fn claim_of(f: &Fixture, person: &Person, milliseconds: u64) -> ClaimedWakeup {
    let claimed = claim(f, milliseconds).await;
    claimed.into_iter().find(|wakeup| wakeup.device == person.device).expect("the device is to be woken")
}

fn devices(claimed: &[ClaimedWakeup]) -> Vec<DeviceId> {
    claimed.iter().map(|wakeup| wakeup.device).collect()
}

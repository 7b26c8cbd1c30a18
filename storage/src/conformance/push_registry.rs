//! Cases of [`PushRegistry`](crate::push_registry::PushRegistry).

use sotto_model::{DeviceId, Offset};
use uuid::Uuid;

use super::fixture::{Fixture, NOW, lane, later};
use crate::audit::AuditAction;
use crate::directory::DirectoryError;
use crate::outbox::Settlement;
use crate::push_registry::{Lane, Platform, PushRegistration};

pub async fn a_registration_replaces_the_one_before(f: Fixture) {
    f.register(&f.bob).await;
    let anew = PushRegistration {
        sealed_token: "another".into(),
        lookup: [3; 32],
        registered_at: later(5),
        ..f.registration(&f.bob)
    };
    f.store.register(&anew, None).await.expect("register");
    f.register(&f.robot).await;
    let found = f.store.registrations(f.clinic).await.expect("registrations");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].tenant, f.clinic);
    assert_eq!(found[0].device, f.bob.device);
    assert_eq!(found[0].platform, anew.platform);
    assert_eq!(found[0].sealed_token, anew.sealed_token);
    assert_eq!(found[0].lookup, [3; 32]);
    assert_eq!(found[0].registered_at, later(5));
    let audit = f.store.recent(Some(f.clinic), 2).await.expect("audit");
    assert!(audit.iter().all(|event| event.action == AuditAction::PushRegistered));
    assert_eq!(audit[0].at, later(5));
    assert_eq!(audit[0].resource, Some(f.bob.device.0));
}

pub async fn a_device_must_exist_to_be_registered(f: Fixture) {
    let unknown = PushRegistration { device: DeviceId(Uuid::new_v4()), ..f.registration(&f.bob) };
    let foreign = PushRegistration { tenant: f.lab, ..f.registration(&f.bob) };
    let before = f.store.recent(None, 100).await.expect("audit");
    for registration in [unknown, foreign] {
        let refused = f.store.register(&registration, None).await;
        assert!(matches!(refused, Err(DirectoryError::Missing(_))));
    }
    assert_eq!(f.store.recent(None, 100).await.expect("audit"), before);
}

pub async fn another_token_moves_the_outstanding_wakeup(f: Fixture) {
    let apns = Lane { platform: Platform::Apns, app: "org.example.app".into() };
    for (round, settlement) in [None, Some(Settlement::Sent { at: NOW })].into_iter().enumerate() {
        f.asleep(&f.bob, f.head(f.clinic).await).await;
        f.publish(&f.alice, &f.ward_topic()).await;
        f.store.relay(10, NOW).await.expect("relay");
        let before = f.store.claim(&lane(), 10, NOW, later(1000)).await.expect("claim").remove(0);
        if let Some(settlement) = settlement {
            f.store.settle(&before, settlement, NOW).await.expect("settle");
        }
        let anew = PushRegistration {
            platform: apns.platform,
            app: apns.app.clone(),
            lookup: [u8::try_from(round).expect("a few rounds"); 32],
            registered_at: later(5),
            ..f.registration(&f.bob)
        };
        f.store.register(&anew, None).await.expect("register");
        assert!(!f.store.still_due(&before).await.expect("still due"), "the lease is void");
        f.store.settle(&before, Settlement::Sent { at: NOW }, NOW).await.expect("settle late");
        assert!(f.store.claim(&lane(), 10, later(5), later(6)).await.expect("claim").is_empty());
        let after = f.store.claim(&apns, 10, later(5), later(1000)).await.expect("claim");
        assert_eq!(after.len(), 1, "{settlement:?}");
        assert_eq!((after[0].device, after[0].attempts), (f.bob.device, 0));
        assert_eq!(after[0].lane(), apns);
    }
}

pub async fn the_same_token_again_disturbs_nothing(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    f.store.relay(10, NOW).await.expect("relay");
    let claimed = f.store.claim(&lane(), 10, NOW, later(1000)).await.expect("claim").remove(0);
    let again = PushRegistration { registered_at: later(5), ..f.registration(&f.bob) };
    f.store.register(&again, None).await.expect("register");
    assert!(f.store.still_due(&claimed).await.expect("still due"));
    f.store.settle(&claimed, Settlement::Sent { at: later(6) }, later(6)).await.expect("settle");
    f.store.register(&again, None).await.expect("register");
    assert!(f.store.claim(&lane(), 10, later(2000), later(3000)).await.expect("claim").is_empty());
    assert_eq!(f.store.registrations(f.clinic).await.expect("registrations")[0].registered_at, later(5));
}

pub async fn a_token_is_one_device_s(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    let token = f.registration(&f.bob).lookup;
    let of_robot = PushRegistration { lookup: token, ..f.registration(&f.robot) };
    f.store.register(&of_robot, None).await.expect("register");
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 2);
    let of_carol = PushRegistration { lookup: token, registered_at: later(3), ..f.registration(&f.carol) };
    f.store.register(&of_carol, None).await.expect("register");
    let registered = f.store.registrations(f.clinic).await.expect("registrations");
    assert_eq!(registered.iter().map(|found| found.device).collect::<Vec<_>>(), [f.carol.device]);
    assert_eq!(f.store.registrations(f.lab).await.expect("registrations").len(), 1, "another tenant's");
    let claimed = f.store.claim(&lane(), 10, later(3), later(1000)).await.expect("claim");
    assert_eq!(claimed.iter().map(|wakeup| wakeup.device).collect::<Vec<_>>(), [f.carol.device]);
    let audit = f.store.recent(Some(f.clinic), 2).await.expect("audit");
    let seen = |place: usize| (audit[place].action, audit[place].resource, audit[place].at);
    assert_eq!(seen(0), (AuditAction::PushRegistered, Some(f.carol.device.0), later(3)));
    assert_eq!(seen(1), (AuditAction::PushUnregistered, Some(f.bob.device.0), later(3)));
}

pub async fn unregistering_takes_the_outstanding_wakeup_along(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 1);
    let wakeup = f.store.claim(&lane(), 10, NOW, later(1000)).await.expect("claim").remove(0);
    f.store.unregister(f.clinic, f.bob.device, None, later(3)).await.expect("unregister");
    assert!(!f.store.still_due(&wakeup).await.expect("still due"));
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0);
    assert!(f.store.registrations(f.clinic).await.expect("registrations").is_empty());
}

pub async fn unregistering_twice_is_no_error(f: Fixture) {
    f.register(&f.bob).await;
    f.store.unregister(f.lab, f.bob.device, None, NOW).await.expect("another tenant's is nothing");
    assert_eq!(f.store.registrations(f.clinic).await.expect("registrations").len(), 1);
    f.store.unregister(f.clinic, f.bob.device, None, later(3)).await.expect("unregister");
    f.store.unregister(f.clinic, f.bob.device, None, later(4)).await.expect("unregister again");
    let audit = f.store.recent(None, 2).await.expect("audit");
    assert_eq!(audit[0].action, AuditAction::PushUnregistered);
    assert_eq!(audit[0].at, later(3), "one row for one change");
    assert_eq!(audit[0].resource, Some(f.bob.device.0));
    assert_eq!(audit[1].action, AuditAction::PushRegistered);
}

pub async fn the_audit_says_whose_device_asked(f: Fixture) {
    let (bob, at) = (f.bob.user, later(1));
    f.store.register(&f.registration(&f.bob), Some(bob)).await.expect("register");
    f.store.set_muted(f.clinic, f.ward, bob, true, Some(bob), at).await.expect("mute");
    f.store.unregister(f.clinic, f.bob.device, Some(bob), at).await.expect("unregister");
    f.store.register(&f.registration(&f.bob), None).await.expect("register");
    let audit = f.store.recent(None, 4).await.expect("audit");
    let told: Vec<_> = audit.iter().rev().map(|event| (event.action, event.actor)).collect();
    assert_eq!(
        told,
        [
            (AuditAction::PushRegistered, Some(bob)),
            (AuditAction::MemberMuted, Some(bob)),
            (AuditAction::PushUnregistered, Some(bob)),
            (AuditAction::PushRegistered, None),
        ]
    );
}

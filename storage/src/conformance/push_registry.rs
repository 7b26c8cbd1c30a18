//! Cases of [`PushRegistry`](crate::push_registry::PushRegistry).

use sotto_model::{DeviceId, Offset};
use uuid::Uuid;

use super::fixture::{Fixture, NOW, lane, later};
use crate::audit::AuditAction;
use crate::directory::DirectoryError;
use crate::push_registry::PushRegistration;

pub async fn a_registration_replaces_the_one_before(f: Fixture) {
    f.register(&f.bob).await;
    let anew = PushRegistration {
        sealed_token: "another".into(),
        lookup: [3; 32],
        registered_at: later(5),
        ..f.registration(&f.bob)
    };
    f.store.register(&anew).await.expect("register");
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
        let refused = f.store.register(&registration).await;
        assert!(matches!(refused, Err(DirectoryError::Missing(_))));
    }
    assert_eq!(f.store.recent(None, 100).await.expect("audit"), before);
}

pub async fn unregistering_takes_the_outstanding_wakeup_along(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 1);
    let wakeup = f.store.claim(&lane(), 10, NOW, later(1000)).await.expect("claim").remove(0);
    f.store.unregister(f.clinic, f.bob.device, later(3)).await.expect("unregister");
    assert!(!f.store.still_due(&wakeup).await.expect("still due"));
    assert_eq!(f.store.lag(NOW).await.expect("lag").wakeups_due, 0);
    assert!(f.store.registrations(f.clinic).await.expect("registrations").is_empty());
}

pub async fn unregistering_twice_is_no_error(f: Fixture) {
    f.register(&f.bob).await;
    f.store.unregister(f.lab, f.bob.device, NOW).await.expect("another tenant's is nothing");
    assert_eq!(f.store.registrations(f.clinic).await.expect("registrations").len(), 1);
    f.store.unregister(f.clinic, f.bob.device, later(3)).await.expect("unregister");
    f.store.unregister(f.clinic, f.bob.device, later(4)).await.expect("unregister again");
    let audit = f.store.recent(None, 2).await.expect("audit");
    assert_eq!(audit[0].action, AuditAction::PushUnregistered);
    assert_eq!(audit[0].at, later(3), "one row for one change");
    assert_eq!(audit[0].resource, Some(f.bob.device.0));
    assert_eq!(audit[1].action, AuditAction::PushRegistered);
}

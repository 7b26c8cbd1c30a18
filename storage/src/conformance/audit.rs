//! Cases of [`AuditLog`](crate::audit::AuditLog).

use sotto_model::UserId;
use uuid::Uuid;

use super::fixture::{Fixture, later};
use crate::audit::{AuditAction, AuditEvent};

pub async fn every_event_comes_back_newest_first(f: Fixture) {
    let mut events: Vec<AuditEvent> = AuditAction::ALL
        .into_iter()
        .zip(1..)
        .map(|(action, age)| AuditEvent {
            at: later(age),
            tenant: Some(f.clinic),
            actor: Some(f.alice.user),
            action,
            resource: Some(Uuid::new_v4()),
            allowed: age % 2 == 0,
        })
        .collect();
    events.push(AuditEvent {
        at: later(0),
        tenant: None,
        actor: None,
        action: AuditAction::ConnectRefused,
        resource: None,
        allowed: false,
    });
    f.store.record(&events).await.expect("record");
    f.store.record(&[]).await.expect("record nothing");
    events.reverse();
    assert_eq!(f.store.recent(None, events.len()).await.expect("recent"), events);
}

pub async fn events_are_read_by_tenant_up_to_the_limit(f: Fixture) {
    let event = |tenant, age| AuditEvent {
        at: later(age),
        tenant: Some(tenant),
        actor: Some(UserId(Uuid::nil())),
        action: AuditAction::PublishDenied,
        resource: None,
        allowed: false,
    };
    let mine = [event(f.clinic, 1), event(f.clinic, 2), event(f.clinic, 3)];
    let theirs = event(f.lab, 9);
    f.store.record(&[mine[0], theirs, mine[1], theirs, mine[2]]).await.expect("record");
    assert_eq!(f.store.recent(Some(f.clinic), 2).await.expect("recent"), [mine[2], mine[1]]);
    let all = f.store.recent(Some(f.clinic), 1000).await.expect("recent");
    assert!(all.iter().all(|event| event.tenant == Some(f.clinic)));
    assert_eq!(f.store.recent(None, 2).await.expect("recent"), [mine[2], theirs]);
}

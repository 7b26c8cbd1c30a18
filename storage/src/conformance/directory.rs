//! Cases of [`Directory`](crate::directory::Directory).

use sotto_model::limits::{ACL_RULES_PER_TENANT_MAX, DEVICES_PER_USER_MAX};
use sotto_model::{
    AclAction, AclEffect, AclFilter, AclRule, AclRuleId, ConversationId, DeviceId, Offset, TenantId,
    TopicPolicy, UserId,
};
use uuid::Uuid;

use super::fixture::{Fixture, NOW, conversation_topic, lane, later};
use crate::audit::{AuditAction, AuditEvent};
use crate::directory::{Conversation, DirectoryError, StoredPassword, Tenant, TenantAclRule, User};
use crate::session_store::OpenSession;

pub async fn every_change_raises_the_revision_and_writes_one_audit_row(f: Fixture) {
    let (tenant, user) = (TenantId(Uuid::new_v4()), UserId(Uuid::new_v4()));
    let conversation = ConversationId(Uuid::new_v4());
    let mut watch = Watch::new(&f).await;

    let new = Tenant { id: tenant, name: "hospice".into(), topics: TopicPolicy::Membership };
    f.store.create_tenant(&new, later(1)).await.expect("create tenant");
    watch.one_change(&f, tenant, AuditAction::TenantCreated, tenant.0, 1).await;

    f.store.create_user(&named(tenant, user, "dave"), later(2)).await.expect("create user");
    watch.one_change(&f, tenant, AuditAction::UserCreated, user.0, 2).await;

    f.store.set_password(tenant, user, &other_password(), later(3)).await.expect("set password");
    watch.one_change(&f, tenant, AuditAction::PasswordChanged, user.0, 3).await;

    let device = f.store.ensure_device(tenant, user, "phone", later(4)).await.expect("device");
    watch.one_change(&f, tenant, AuditAction::DeviceCreated, device.0, 4).await;

    let new = Conversation { id: conversation, tenant };
    f.store.create_conversation(&new, later(5)).await.expect("create conversation");
    watch.one_change(&f, tenant, AuditAction::ConversationCreated, conversation.0, 5).await;

    f.store.add_member(tenant, conversation, user, later(6)).await.expect("add member");
    watch.one_change(&f, tenant, AuditAction::MemberAdded, user.0, 6).await;

    f.store.remove_member(tenant, conversation, user, later(7)).await.expect("remove member");
    watch.one_change(&f, tenant, AuditAction::MemberRemoved, user.0, 7).await;

    f.store.remove_conversation(tenant, conversation, later(8)).await.expect("remove conversation");
    watch.one_change(&f, tenant, AuditAction::ConversationRemoved, conversation.0, 8).await;

    f.store.remove_user(tenant, user, later(9)).await.expect("remove user");
    watch.one_change(&f, tenant, AuditAction::UserRemoved, user.0, 9).await;

    let rule = allowed(tenant, "telemetry/%u/#");
    f.store.add_acl_rule(&rule, None, later(10)).await.expect("add access rule");
    watch.one_change(&f, tenant, AuditAction::AclRuleAdded, rule.id.0, 10).await;

    f.store.remove_acl_rule(tenant, rule.id, later(11)).await.expect("remove access rule");
    watch.one_change(&f, tenant, AuditAction::AclRuleRemoved, rule.id.0, 11).await;
}

pub async fn a_refused_change_leaves_no_trace(f: Fixture) {
    let (clinic, ward) = (f.clinic, f.ward);
    let nobody = UserId(Uuid::new_v4());
    let nowhere = ConversationId(Uuid::new_v4());
    let rule = allowed(clinic, "a");
    f.store.add_acl_rule(&rule, None, NOW).await.expect("add access rule");
    let watch = Watch::new(&f).await;

    let same_id = Tenant { id: clinic, name: "another".into(), topics: TopicPolicy::Open };
    exists(&f.store.create_tenant(&same_id, NOW).await);
    let same_name = Tenant { id: TenantId(Uuid::new_v4()), name: "clinic".into(), topics: TopicPolicy::Open };
    exists(&f.store.create_tenant(&same_name, NOW).await);
    exists(&f.store.create_user(&named(clinic, f.bob.user, "another"), NOW).await);
    exists(&f.store.create_user(&named(clinic, nobody, "bob"), NOW).await);
    missing(&f.store.create_user(&named(TenantId(Uuid::new_v4()), nobody, "dave"), NOW).await);
    missing(&f.store.set_password(clinic, nobody, &other_password(), NOW).await);
    missing(&f.store.remove_user(clinic, nobody, NOW).await);
    missing(&f.store.ensure_device(clinic, nobody, "phone", NOW).await);
    exists(&f.store.create_conversation(&Conversation { id: ward, tenant: clinic }, NOW).await);
    missing(&f.store.remove_conversation(clinic, nowhere, NOW).await);
    missing(&f.store.add_member(clinic, nowhere, f.bob.user, NOW).await);
    missing(&f.store.add_member(clinic, ward, nobody, NOW).await);
    exists(&f.store.add_member(clinic, ward, f.bob.user, NOW).await);
    missing(&f.store.remove_member(clinic, ward, nobody, NOW).await);
    f.store.ensure_device(clinic, f.bob.user, "phone", NOW).await.expect("there already");
    exists(&f.store.add_acl_rule(&allowed(clinic, "a"), Some(1), NOW).await);
    exists(&f.store.add_acl_rule(&TenantAclRule { id: rule.id, ..allowed(clinic, "b") }, None, NOW).await);
    missing(&f.store.add_acl_rule(&allowed(TenantId(Uuid::new_v4()), "a"), None, NOW).await);
    missing(&f.store.remove_acl_rule(clinic, AclRuleId(Uuid::new_v4()), NOW).await);
    let snapshot = f.store.snapshot().await.expect("snapshot");
    assert_eq!(snapshot.acl_rules.len(), 1);

    watch.nothing_changed(&f).await;
}

pub async fn a_snapshot_holds_all_that_was_made(f: Fixture) {
    f.publish(&f.alice, &f.ward_topic()).await;
    let dave = f.make_user("dave").await;
    f.join(f.ward, dave.user).await;
    f.store.set_password(f.clinic, f.bob.user, &other_password(), NOW).await.expect("set password");

    let snapshot = f.store.snapshot().await.expect("snapshot");
    assert_eq!(snapshot.revision, f.store.revision().await.expect("revision"));
    let mut tenants: Vec<_> =
        snapshot.tenants.iter().map(|tenant| (tenant.id, tenant.name.as_str(), tenant.topics)).collect();
    tenants.sort_unstable_by_key(|tenant| tenant.1);
    assert_eq!(tenants, [(f.clinic, "clinic", TopicPolicy::Membership), (f.lab, "lab", TopicPolicy::Open)]);
    let mut users: Vec<_> =
        snapshot.users.iter().map(|user| (user.tenant, user.name.as_str(), user.id)).collect();
    users.sort_unstable_by_key(|user| user.1);
    assert_eq!(
        users,
        [
            (f.clinic, "alice", f.alice.user),
            (f.clinic, "bob", f.bob.user),
            (f.clinic, "carol", f.carol.user),
            (f.clinic, "dave", dave.user),
            (f.lab, "robot", f.robot.user),
        ]
    );
    let bob = snapshot.users.iter().find(|user| user.id == f.bob.user).expect("bob");
    assert!(bob.password == other_password());
    let alice = snapshot.users.iter().find(|user| user.id == f.alice.user).expect("alice");
    assert!(alice.password.scram.is_none());
    assert_eq!(snapshot.devices.len(), 5);
    let device = snapshot.devices.iter().find(|device| device.id == f.bob.device).expect("bob's device");
    assert_eq!((device.tenant, device.user, device.name.as_str()), (f.clinic, f.bob.user, "phone"));
    let conversations: Vec<_> =
        snapshot.conversations.iter().map(|conversation| (conversation.tenant, conversation.id)).collect();
    assert_eq!(conversations, [(f.clinic, f.ward)]);
    let mut members: Vec<_> = snapshot
        .memberships
        .iter()
        .map(|member| (member.since, member.tenant, member.conversation, member.user))
        .collect();
    members.sort_unstable();
    let mut expected: Vec<_> = [(0, &f.alice), (0, &f.bob), (0, &f.carol), (1, &dave)]
        .map(|(since, person)| (Offset(since), f.clinic, f.ward, person.user))
        .to_vec();
    expected.sort_unstable();
    assert_eq!(members, expected);
}

pub async fn names_are_unique_within_their_tenant(f: Fixture) {
    let user = UserId(Uuid::new_v4());
    f.store.create_user(&named(f.lab, user, "bob"), NOW).await.expect("another tenant's bob");
    let snapshot = f.store.snapshot().await.expect("snapshot");
    let made = snapshot.users.iter().find(|known| known.id == user).expect("the user");
    assert!(made.password == named(f.lab, user, "bob").password);
    let tablet = f.store.ensure_device(f.lab, user, "phone", NOW).await.expect("device");
    assert_ne!(tablet, f.bob.device);
    f.store.create_user(&named(f.lab, f.bob.user, "bob-too"), NOW).await.expect("an id is a tenant's own");
}

pub async fn a_tenant_s_things_are_missing_in_another(f: Fixture) {
    let watch = Watch::new(&f).await;
    missing(&f.store.set_password(f.lab, f.bob.user, &other_password(), NOW).await);
    missing(&f.store.remove_user(f.lab, f.bob.user, NOW).await);
    missing(&f.store.ensure_device(f.lab, f.bob.user, "phone", NOW).await);
    missing(&f.store.remove_conversation(f.lab, f.ward, NOW).await);
    missing(&f.store.add_member(f.lab, f.ward, f.robot.user, NOW).await);
    missing(&f.store.add_member(f.clinic, f.ward, f.robot.user, NOW).await);
    missing(&f.store.remove_member(f.lab, f.ward, f.bob.user, NOW).await);
    watch.nothing_changed(&f).await;
}

pub async fn a_device_is_made_once(f: Fixture) {
    let ensure = async |name| f.store.ensure_device(f.clinic, f.bob.user, name, NOW).await.expect("device");
    assert_eq!(ensure("phone").await, f.bob.device);
    let tablet = ensure("tablet").await;
    assert_ne!(tablet, f.bob.device);
    assert_eq!(ensure("tablet").await, tablet);
    let racing: Vec<DeviceId> =
        futures::future::join_all((0..8).map(|_| async { ensure("watch").await })).await;
    assert!(racing.iter().all(|device| *device == racing[0]));
}

pub async fn a_user_has_a_bounded_number_of_devices(f: Fixture) {
    for number in 1..DEVICES_PER_USER_MAX {
        let name = format!("device-{number}");
        f.store.ensure_device(f.clinic, f.bob.user, &name, NOW).await.expect("device");
    }
    let beyond = f.store.ensure_device(f.clinic, f.bob.user, "one-more", NOW).await;
    assert!(matches!(beyond, Err(DirectoryError::Full(_))));
    let known = f.store.ensure_device(f.clinic, f.bob.user, "phone", NOW).await;
    assert_eq!(known.expect("known devices stay"), f.bob.device);
}

pub async fn a_membership_holds_since_the_head(f: Fixture) {
    let dave = f.make_user("dave").await;
    assert_eq!(f.join(f.make_conversation().await, dave.user).await, Offset(0));
    for _ in 0..3 {
        f.publish(&f.alice, &f.ward_topic()).await;
    }
    assert_eq!(f.join(f.ward, dave.user).await, Offset(3));
    f.publish(&f.alice, &f.ward_topic()).await;
    f.store.remove_member(f.clinic, f.ward, dave.user, NOW).await.expect("remove member");
    assert_eq!(f.join(f.ward, dave.user).await, Offset(4), "coming back is a new membership");
}

pub async fn a_member_mutes_a_conversation(f: Fixture) {
    let mut watch = Watch::new(&f).await;
    let set = async |user, muted, at| f.store.set_muted(f.clinic, f.ward, user, muted, None, later(at)).await;
    let muted = async || {
        let members = f.store.snapshot().await.expect("snapshot").memberships;
        members.into_iter().filter(|member| member.muted).map(|member| member.user).collect::<Vec<_>>()
    };
    set(f.bob.user, true, 1).await.expect("mute");
    watch.one_change(&f, f.clinic, AuditAction::MemberMuted, f.bob.user.0, 1).await;
    assert_eq!(muted().await, [f.bob.user]);
    set(f.bob.user, true, 2).await.expect("mute again");
    missing(&set(UserId(Uuid::new_v4()), true, 3).await);
    missing(&f.store.set_muted(f.lab, f.ward, f.carol.user, true, None, later(4)).await);
    watch.nothing_changed(&f).await;
    set(f.bob.user, false, 5).await.expect("unmute");
    watch.one_change(&f, f.clinic, AuditAction::MemberUnmuted, f.bob.user.0, 5).await;
    assert_eq!(muted().await, []);
    set(f.bob.user, true, 6).await.expect("mute");
    f.store.remove_member(f.clinic, f.ward, f.bob.user, NOW).await.expect("remove member");
    missing(&set(f.bob.user, false, 7).await);
    f.join(f.ward, f.bob.user).await;
    assert_eq!(muted().await, [], "coming back is a new membership");
}

pub async fn all_that_a_user_had_goes_with_the_user(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 2);
    f.store.remove_user(f.clinic, f.bob.user, NOW).await.expect("remove user");

    let snapshot = f.store.snapshot().await.expect("snapshot");
    assert!(snapshot.users.iter().all(|user| user.id != f.bob.user));
    assert!(snapshot.devices.iter().all(|device| device.user != f.bob.user));
    assert!(snapshot.memberships.iter().all(|member| member.user != f.bob.user));
    let registered = f.store.registrations(f.clinic).await.expect("registrations");
    assert_eq!(
        registered.iter().map(|registration| registration.device).collect::<Vec<_>>(),
        [f.carol.device]
    );
    let sessions = f.store.list(None, 10).await.expect("list");
    assert_eq!(sessions.iter().map(|session| session.user).collect::<Vec<_>>(), [f.carol.user]);
    let claimed = f.store.claim(&lane(), 10, NOW, later(1)).await.expect("claim");
    assert_eq!(claimed.iter().map(|wakeup| wakeup.device).collect::<Vec<_>>(), [f.carol.device]);

    // The name is free again, and whoever has it next inherits nothing.
    let successor = named(f.clinic, UserId(Uuid::new_v4()), "bob");
    f.store.create_user(&successor, NOW).await.expect("create user");
    let opened = f.open_session(OpenSession { user: successor.id, device: None, ..f.opening(&f.bob) }).await;
    assert!(!opened.present);
}

pub async fn all_that_a_device_had_goes_with_the_device(f: Fixture) {
    f.asleep(&f.bob, Offset(0)).await;
    f.asleep(&f.carol, Offset(0)).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 2);
    let mut watch = Watch::new(&f).await;
    missing(&f.store.remove_device(f.lab, f.bob.device, NOW).await);
    watch.nothing_changed(&f).await;
    f.store.remove_device(f.clinic, f.bob.device, later(1)).await.expect("remove device");
    watch.one_change(&f, f.clinic, AuditAction::DeviceRemoved, f.bob.device.0, 1).await;
    missing(&f.store.remove_device(f.clinic, f.bob.device, NOW).await);

    let snapshot = f.store.snapshot().await.expect("snapshot");
    assert!(snapshot.devices.iter().all(|device| device.id != f.bob.device));
    assert!(snapshot.users.iter().any(|user| user.id == f.bob.user));
    let registered = f.store.registrations(f.clinic).await.expect("registrations");
    assert!(registered.iter().all(|registration| registration.device == f.carol.device));
    let sessions = f.store.list(None, 10).await.expect("list");
    assert_eq!(sessions.iter().map(|session| session.user).collect::<Vec<_>>(), [f.carol.user]);
    let claimed = f.store.claim(&lane(), 10, NOW, later(1)).await.expect("claim");
    assert_eq!(claimed.iter().map(|wakeup| wakeup.device).collect::<Vec<_>>(), [f.carol.device]);

    // The name may be used again, by another device.
    let again = f.store.ensure_device(f.clinic, f.bob.user, "phone", NOW).await.expect("device");
    assert_ne!(again, f.bob.device);
    let opened = f.open_session(OpenSession { device: Some(again), ..f.opening(&f.bob) }).await;
    assert!(!opened.present);
}

pub async fn memberships_go_with_their_conversation(f: Fixture) {
    let kept = f.make_conversation().await;
    f.join(kept, f.bob.user).await;
    f.store.remove_conversation(f.clinic, f.ward, NOW).await.expect("remove conversation");
    let snapshot = f.store.snapshot().await.expect("snapshot");
    assert_eq!(snapshot.conversations.iter().map(|found| found.id).collect::<Vec<_>>(), [kept]);
    assert_eq!(snapshot.memberships.iter().map(|member| member.conversation).collect::<Vec<_>>(), [kept]);
    f.asleep(&f.bob, Offset(0)).await;
    f.publish(&f.alice, &conversation_topic(f.ward)).await;
    assert_eq!(f.store.relay(10, NOW).await.expect("relay").wakeups, 0);
}

pub async fn access_rules_stand_in_their_order(f: Fixture) {
    let rules: Vec<_> = ["a", "b", "c", "d", "e"].map(|filter| allowed(f.clinic, filter)).into();
    // Where it is left open, where it is far beyond, in front, and between.
    for (rule, position) in rules.iter().zip([None, Some(99), Some(1), Some(0), Some(3)]) {
        f.store.add_acl_rule(rule, position, NOW).await.expect("add access rule");
    }
    assert_eq!(filters(&f, f.clinic).await, ["d", "c", "e", "a", "b"]);
    f.store.remove_acl_rule(f.clinic, rules[2].id, NOW).await.expect("remove access rule");
    f.store.add_acl_rule(&allowed(f.clinic, "f"), Some(3), NOW).await.expect("add access rule");
    assert_eq!(filters(&f, f.clinic).await, ["d", "e", "f", "a", "b"]);

    let denied = AclRule {
        effect: AclEffect::Deny,
        action: AclAction::Subscribe,
        filter: AclFilter::parse("+/%c/100%%/#").expect("filter"),
    };
    let denied = TenantAclRule { id: AclRuleId(Uuid::new_v4()), tenant: f.clinic, rule: denied };
    f.store.add_acl_rule(&denied, Some(1), NOW).await.expect("add access rule");
    let snapshot = f.store.snapshot().await.expect("snapshot");
    let first = &snapshot.acl_rules[0];
    assert_eq!((first.id, first.tenant, &first.rule), (denied.id, f.clinic, &denied.rule));
}

pub async fn an_access_rule_is_a_tenant_s_own(f: Fixture) {
    let rule = allowed(f.clinic, "a");
    f.store.add_acl_rule(&rule, None, NOW).await.expect("add access rule");
    f.store.add_acl_rule(&allowed(f.lab, "a"), None, NOW).await.expect("another tenant's");
    f.store.add_acl_rule(&allowed(f.lab, "b"), Some(1), NOW).await.expect("another tenant's");
    missing(&f.store.remove_acl_rule(f.lab, rule.id, NOW).await);
    f.store.remove_acl_rule(f.clinic, rule.id, NOW).await.expect("remove access rule");
    assert_eq!(filters(&f, f.lab).await, ["b", "a"]);
    assert!(filters(&f, f.clinic).await.is_empty());
}

pub async fn a_tenant_has_a_bounded_number_of_access_rules(f: Fixture) {
    for number in 0..ACL_RULES_PER_TENANT_MAX {
        f.store
            .add_acl_rule(&allowed(f.clinic, &format!("topic-{number}")), None, NOW)
            .await
            .expect("add access rule");
    }
    let watch = Watch::new(&f).await;
    let beyond = f.store.add_acl_rule(&allowed(f.clinic, "one-more"), Some(1), NOW).await;
    assert!(matches!(beyond, Err(DirectoryError::Full(_))));
    watch.nothing_changed(&f).await;
    assert_eq!(filters(&f, f.clinic).await[0], "topic-0");
}

/// Revision and audit, from one look to the next.
struct Watch {
    revision: u64,
    audit: Vec<AuditEvent>,
}

impl Watch {
    async fn new(f: &Fixture) -> Self {
        Self {
            revision: f.store.revision().await.expect("revision"),
            audit: f.store.recent(None, 1000).await.expect("audit"),
        }
    }

    async fn one_change(
        &mut self,
        f: &Fixture,
        tenant: TenantId,
        action: AuditAction,
        resource: Uuid,
        milliseconds: u64,
    ) {
        let seen = Self::new(f).await;
        assert!(seen.revision > self.revision, "{action:?} raises the revision");
        let event = AuditEvent {
            at: later(milliseconds),
            tenant: Some(tenant),
            actor: None,
            action,
            resource: Some(resource),
            allowed: true,
        };
        assert_eq!(seen.audit[0], event);
        assert_eq!(seen.audit[1..], self.audit, "one row for {action:?}");
        *self = seen;
    }

    async fn nothing_changed(&self, f: &Fixture) {
        let seen = Self::new(f).await;
        assert_eq!(seen.revision, self.revision);
        assert_eq!(seen.audit, self.audit);
    }
}

fn named(tenant: TenantId, id: UserId, name: &str) -> User {
    let password =
        StoredPassword { hash: "$argon2id$canary".to_owned(), scram: Some("SCRAM-canary".to_owned()) };
    User { id, tenant, name: name.to_owned(), password }
}

fn other_password() -> StoredPassword {
    StoredPassword { hash: "$argon2id$other".to_owned(), scram: Some("SCRAM-other".to_owned()) }
}

fn allowed(tenant: TenantId, filter: &str) -> TenantAclRule {
    let filter = AclFilter::parse(filter).expect("filter");
    let rule = AclRule { effect: AclEffect::Allow, action: AclAction::All, filter };
    TenantAclRule { id: AclRuleId(Uuid::new_v4()), tenant, rule }
}

/// Of a tenant's rules, in their order.
async fn filters(f: &Fixture, tenant: TenantId) -> Vec<String> {
    let snapshot = f.store.snapshot().await.expect("snapshot");
    let rules = snapshot.acl_rules.iter().filter(|rule| rule.tenant == tenant);
    rules.map(|rule| rule.rule.filter.as_str().to_owned()).collect()
}

fn exists<T>(result: &Result<T, DirectoryError>) {
    assert!(matches!(result, Err(DirectoryError::Exists(_))));
}

fn missing<T>(result: &Result<T, DirectoryError>) {
    assert!(matches!(result, Err(DirectoryError::Missing(_))));
}

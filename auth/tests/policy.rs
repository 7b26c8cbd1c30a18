//! The policy against a model of itself that is too simple to be wrong, and against time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use sotto_auth::{Load, LoadError, Membership, Policy, PolicySnapshot};
use sotto_model::{
    ClientId, ConversationId, Offset, Principal, TenantId, TopicFilter, TopicName, TopicPolicy, UserId,
};
use uuid::Uuid;

const TENANTS: u8 = 2;
const CONVERSATIONS: u8 = 3;
const USERS: u8 = 3;

fn tenant(number: u8) -> TenantId {
    TenantId(Uuid::from_u128(0x1000 + u128::from(number)))
}

fn conversation(number: u8) -> ConversationId {
    ConversationId(Uuid::from_u128(0x2000 + u128::from(number)))
}

fn user(number: u8) -> UserId {
    UserId(Uuid::from_u128(0x3000 + u128::from(number)))
}

fn principal(tenant_number: u8, user_number: u8) -> Principal {
    Principal {
        tenant: tenant(tenant_number),
        user: user(user_number),
        device: None,
        client_id: ClientId::parse("alice/phone").expect("client id"),
        topics: TopicPolicy::Membership,
    }
}

fn name(raw: &str) -> TopicName {
    TopicName::parse(raw).expect("topic name")
}

fn filter(raw: &str) -> TopicFilter {
    TopicFilter::parse(raw).expect("topic filter")
}

#[derive(Clone, Debug)]
enum Step {
    AddTenant(u8, bool),
    RemoveTenant(u8),
    AddConversation(u8, u8),
    RemoveConversation(u8, u8),
    AddMember(u8, u8, u8, u64),
    RemoveMember(u8, u8, u8),
    RemoveUser(u8, u8),
    BeginLoad,
    FinishLoad,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (t, c, u) = (0..TENANTS, 0..CONVERSATIONS, 0..USERS);
    let step = prop_oneof![
        2 => (t.clone(), prop::bool::weighted(0.2)).prop_map(|(t, open)| Step::AddTenant(t, open)),
        1 => t.clone().prop_map(Step::RemoveTenant),
        2 => (t.clone(), c.clone()).prop_map(|(t, c)| Step::AddConversation(t, c)),
        1 => (t.clone(), c.clone()).prop_map(|(t, c)| Step::RemoveConversation(t, c)),
        12 => (t.clone(), c.clone(), u.clone(), 0..9_u64).prop_map(|(t, c, u, o)| Step::AddMember(t, c, u, o)),
        6 => (t.clone(), c, u.clone()).prop_map(|(t, c, u)| Step::RemoveMember(t, c, u)),
        1 => (t, u).prop_map(|(t, u)| Step::RemoveUser(t, u)),
        1 => Just(Step::BeginLoad),
        1 => Just(Step::FinishLoad),
    ];
    prop::collection::vec(step, 1..40)
}

/// Sets of what is so.
#[derive(Clone, Default)]
struct Model {
    tenants: BTreeMap<u8, bool>,
    conversations: BTreeSet<(u8, u8)>,
    members: BTreeMap<(u8, u8, u8), u64>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::AddTenant(t, open) => {
                self.tenants.insert(t, open);
            }
            Step::RemoveTenant(t) => {
                self.tenants.remove(&t);
                self.conversations.retain(|(of, _)| *of != t);
                self.members.retain(|(of, _, _), _| *of != t);
            }
            Step::AddConversation(t, c) => {
                self.conversations.insert((t, c));
            }
            Step::RemoveConversation(t, c) => {
                self.conversations.remove(&(t, c));
                self.members.retain(|(of, conversation, _), _| (*of, *conversation) != (t, c));
            }
            Step::AddMember(t, c, u, since) => {
                self.conversations.insert((t, c));
                self.members.insert((t, c, u), since);
            }
            Step::RemoveMember(t, c, u) => {
                self.members.remove(&(t, c, u));
            }
            Step::RemoveUser(t, u) => self.members.retain(|(of, _, user), _| (*of, *user) != (t, u)),
            Step::BeginLoad | Step::FinishLoad => {}
        }
    }

    fn snapshot(&self) -> PolicySnapshot {
        let topics = |open: bool| if open { TopicPolicy::Open } else { TopicPolicy::Membership };
        PolicySnapshot {
            tenants: self.tenants.iter().map(|(t, open)| (tenant(*t), topics(*open))).collect(),
            conversations: self.conversations.iter().map(|(t, c)| (tenant(*t), conversation(*c))).collect(),
            memberships: self
                .members
                .iter()
                .map(|((t, c, u), since)| Membership {
                    tenant: tenant(*t),
                    conversation: conversation(*c),
                    user: user(*u),
                    since: Offset(*since),
                })
                .collect(),
            acl_rules: Vec::new(),
        }
    }

    fn agrees_with(&self, policy: &Policy) -> Result<(), TestCaseError> {
        for t in 0..TENANTS {
            let open = self.tenants.get(&t) == Some(&true);
            let guarded = self.tenants.get(&t) == Some(&false);
            for u in 0..USERS {
                let who = principal(t, u);
                let mine: Vec<_> = (0..CONVERSATIONS)
                    .filter_map(|c| Some((conversation(c), Offset(*self.members.get(&(t, c, u))?))))
                    .collect();
                prop_assert_eq!(policy.conversations_of(who.tenant, who.user), mine.clone());
                for c in 0..CONVERSATIONS {
                    let since = self.members.get(&(t, c, u)).copied();
                    let topic = name(&format!("c/{}/m", conversation(c)));
                    prop_assert_eq!(
                        policy.member_since(who.tenant, conversation(c), who.user),
                        since.map(Offset)
                    );
                    let member = guarded && since.is_some();
                    prop_assert_eq!(policy.permit_publish(&who, &topic).is_ok(), open || member);
                    for exact in ["m", "#", "+/x"] {
                        let filter = filter(&format!("c/{}/{exact}", conversation(c)));
                        prop_assert_eq!(policy.permit_subscribe(&who, &filter).is_ok(), open || member);
                    }
                    for offset in 0..10 {
                        let past = member && since.is_some_and(|since| offset > since);
                        prop_assert_eq!(policy.may_receive(&who, &topic, Offset(offset)), open || past);
                    }
                }
                for other in 0..USERS {
                    let inbox = format!("u/{}/x", user(other));
                    let shared = (0..CONVERSATIONS).any(|c| {
                        self.members.contains_key(&(t, c, u)) && self.members.contains_key(&(t, c, other))
                    });
                    let publish = open || guarded && (u == other || shared);
                    prop_assert_eq!(policy.permit_publish(&who, &name(&inbox)).is_ok(), publish);
                    let own = open || guarded && u == other;
                    prop_assert_eq!(policy.permit_subscribe(&who, &filter(&inbox)).is_ok(), own);
                    prop_assert_eq!(policy.may_receive(&who, &name(&inbox), Offset(1)), own);
                }
            }
            for c in 0..CONVERSATIONS {
                let members = policy.members(tenant(t), conversation(c));
                prop_assert_eq!(members.is_some(), self.conversations.contains(&(t, c)));
                let listed: Vec<_> =
                    members.iter().flat_map(|members| members.iter()).map(|m| (m.user, m.since)).collect();
                let expected: Vec<_> = (0..USERS)
                    .filter_map(|u| Some((user(u), Offset(*self.members.get(&(t, c, u))?))))
                    .collect();
                prop_assert_eq!(listed, expected);
            }
        }
        Ok(())
    }
}

fn change(policy: &Policy, step: &Step) {
    match *step {
        Step::AddTenant(t, open) => {
            policy.add_tenant(tenant(t), if open { TopicPolicy::Open } else { TopicPolicy::Membership });
        }
        Step::RemoveTenant(t) => policy.remove_tenant(tenant(t)),
        Step::AddConversation(t, c) => policy.add_conversation(tenant(t), conversation(c)),
        Step::RemoveConversation(t, c) => policy.remove_conversation(tenant(t), conversation(c)),
        Step::AddMember(t, c, u, since) => {
            policy.add_member(tenant(t), conversation(c), user(u), Offset(since));
        }
        Step::RemoveMember(t, c, u) => policy.remove_member(tenant(t), conversation(c), user(u)),
        Step::RemoveUser(t, u) => policy.remove_user(tenant(t), user(u)),
        Step::BeginLoad | Step::FinishLoad => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_policy_is_what_its_changes_and_loads_add_up_to(steps in steps()) {
        let policy = Policy::new();
        let mut model = Model::default();
        let mut load: Option<(Load, PolicySnapshot)> = None;
        for step in &steps {
            match step {
                // What the store holds at that moment; everything after it must survive the swap.
                Step::BeginLoad => load = Some((policy.begin_load(), model.snapshot())),
                Step::FinishLoad => {
                    if let Some((load, snapshot)) = load.take() {
                        prop_assert_eq!(policy.replace(load, snapshot), Ok(()));
                    }
                }
                step => {
                    model.apply(step);
                    change(&policy, step);
                }
            }
            model.agrees_with(&policy)?;
        }
    }
}

#[test]
fn a_permit_says_what_was_permitted() {
    let policy = Policy::new();
    policy.add_tenant(tenant(0), TopicPolicy::Membership);
    policy.add_tenant(tenant(1), TopicPolicy::Open);
    policy.add_member(tenant(0), conversation(0), user(0), Offset(0));
    let topic = name(&format!("c/{}/m", conversation(0)));
    let permit = policy.permit_publish(&principal(0, 0), &topic).expect("a member");
    assert_eq!((permit.tenant(), permit.sender(), permit.topic()), (tenant(0), user(0), &topic));
    assert_eq!(permit.conversation(), Some(conversation(0)));
    // Where no topic is guarded a conversation is a topic like any other.
    let permit = policy.permit_publish(&principal(1, 0), &topic).expect("open");
    assert_eq!((permit.conversation(), permit.into_topic()), (None, topic));
}

#[test]
fn what_is_not_allowed_is_denied() {
    let policy = Policy::new();
    policy.add_tenant(tenant(0), TopicPolicy::Membership);
    policy.add_member(tenant(0), conversation(0), user(0), Offset(0));
    let who = principal(0, 0);
    let id = conversation(0).to_string();
    let published = [
        "a".to_owned(),
        "$SYS/x".to_owned(),
        "c".to_owned(),
        "c/x/m".to_owned(),
        format!("c/{id}"),
        format!("C/{id}/m"),
        format!("/c/{id}/m"),
        format!("c/{}/m", conversation(1)),
        format!("u/{}", user(0)),
    ];
    for topic in published {
        assert!(policy.permit_publish(&who, &name(&topic)).is_err(), "publish {topic}");
        assert!(!policy.may_receive(&who, &name(&topic), Offset(1)), "receive {topic}");
    }
    let subscribed = [
        "#".to_owned(),
        "+/#".to_owned(),
        format!("+/{id}/m"),
        "u/#".to_owned(),
        "u/+/x".to_owned(),
        "$SYS/#".to_owned(),
        "a".to_owned(),
        format!("c/{}/#", conversation(1)),
        format!("u/{}/#", user(1)),
        "$share/g/c/+/m".to_owned(),
        format!("$share/g/c/{id}/m"),
        format!("$share/g/u/{}/x", user(0)),
        "$share/g/a".to_owned(),
    ];
    for topic in subscribed {
        assert!(policy.permit_subscribe(&who, &filter(&topic)).is_err(), "subscribe {topic}");
    }
    for allowed in ["c/+/m", "c/#", "c/+"] {
        assert!(policy.permit_subscribe(&who, &filter(allowed)).is_ok(), "{allowed}");
    }
}

#[test]
fn an_open_tenant_is_open() {
    let policy = Policy::new();
    policy.add_tenant(tenant(0), TopicPolicy::Open);
    let who = principal(0, 0);
    for topic in ["a", "c/x/m", "u/x", "/", "a/$b", "$SYS/x"] {
        assert!(policy.permit_publish(&who, &name(topic)).is_ok());
        assert!(policy.may_receive(&who, &name(topic), Offset(0)));
    }
    for topic in ["#", "+", "$share/g/#", "c/+/m", "u/x"] {
        assert!(policy.permit_subscribe(&who, &filter(topic)).is_ok());
    }
}

#[test]
fn a_load_that_was_overtaken_changes_nothing() {
    let policy = Policy::new();
    policy.add_tenant(tenant(0), TopicPolicy::Open);
    let overtaken = policy.begin_load();
    let load = policy.begin_load();
    assert_eq!(policy.replace(overtaken, PolicySnapshot::default()), Err(LoadError::Superseded));
    assert_eq!(policy.topics(tenant(0)), Some(TopicPolicy::Open));
    assert_eq!(policy.replace(load, PolicySnapshot::default()), Ok(()));
    assert_eq!(policy.topics(tenant(0)), None);
}

/// One thread adds and removes a member, another loads the whole set anew, and two ask. `state` holds
/// twice the number of rounds done, plus one while a change is under way.
#[test]
fn nothing_is_permitted_after_a_removal_returned_nor_denied_to_who_stayed() {
    const ROUNDS: u64 = 1000;
    /// Where the askers are not given the processor, there are more rounds until one of them was.
    const ROUNDS_MAX: u64 = 1_000_000;
    let policy = Policy::new();
    policy.add_tenant(tenant(0), TopicPolicy::Membership);
    policy.add_member(tenant(0), conversation(0), user(1), Offset(0));
    let state = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let is_member = |state: u64| state / 2 % 2 == 1;
    let topic = name(&format!("c/{}/m", conversation(0)));
    let inbox = name(&format!("u/{}/x", user(1)));
    let subscription = filter(topic.as_str());
    let asked = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (comes_and_goes, stays) = (principal(0, 0), principal(0, 1));
                while !done.load(Ordering::SeqCst) {
                    let before = state.load(Ordering::SeqCst);
                    let answers = [
                        policy.permit_publish(&comes_and_goes, &topic).is_ok(),
                        policy.permit_subscribe(&comes_and_goes, &subscription).is_ok(),
                        policy.may_receive(&comes_and_goes, &topic, Offset(1)),
                        policy.permit_publish(&comes_and_goes, &inbox).is_ok(),
                    ];
                    // Only an answer given between two changes is known to be right or wrong.
                    if before.is_multiple_of(2) && state.load(Ordering::SeqCst) == before {
                        assert_eq!(answers, [is_member(before); 4]);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                    assert!(policy.permit_publish(&stays, &topic).is_ok());
                    assert!(policy.may_receive(&stays, &topic, Offset(1)));
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let load = policy.begin_load();
                let mut snapshot = PolicySnapshot {
                    tenants: vec![(tenant(0), TopicPolicy::Membership)],
                    ..PolicySnapshot::default()
                };
                // As the store would answer: whoever is a member once the load has begun.
                let member = policy.members(tenant(0), conversation(0)).expect("conversation");
                snapshot.memberships.extend(member.iter().map(|member| Membership {
                    tenant: tenant(0),
                    conversation: conversation(0),
                    user: member.user,
                    since: member.since,
                }));
                policy.replace(load, snapshot).expect("the only load");
            }
        });
        for round in 0..ROUNDS_MAX {
            if round >= ROUNDS && asked.load(Ordering::SeqCst) > 0 {
                break;
            }
            state.store(round * 2 + 1, Ordering::SeqCst);
            if is_member(round * 2 + 2) {
                policy.add_member(tenant(0), conversation(0), user(0), Offset(0));
            } else {
                policy.remove_member(tenant(0), conversation(0), user(0));
            }
            state.store(round * 2 + 2, Ordering::SeqCst);
            thread::yield_now();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(asked.load(Ordering::SeqCst) > 0);
}

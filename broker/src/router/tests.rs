use sotto_model::{
    ClientId, ClientLimits, ConversationId, MessageId, Offset, Principal, RetainHandling, SessionId,
    SubscriptionOptions, TopicFilter, UnixMillis,
};
use sotto_storage::session_store::SessionRef;
use uuid::Uuid;

use super::*;
use crate::client_tag::ClientTag;
use crate::connection_id::ConnectionId;
use crate::record::{Commit, Message};

const GUARDED: TenantId = TenantId(Uuid::from_u128(1));
const OPEN: TenantId = TenantId(Uuid::from_u128(2));
const WARD: ConversationId = ConversationId(Uuid::from_u128(3));
const ALICE: UserId = UserId(Uuid::from_u128(4));
const BOB: UserId = UserId(Uuid::from_u128(5));

struct Node {
    policy: Arc<Policy>,
    router: Router,
}

impl Node {
    fn new() -> Self {
        let policy = Arc::new(Policy::new());
        policy.add_tenant(GUARDED, TopicPolicy::Membership);
        policy.add_tenant(OPEN, TopicPolicy::Open);
        policy.add_conversation(GUARDED, WARD);
        policy.add_member(GUARDED, WARD, ALICE, Offset(0));
        policy.add_member(GUARDED, WARD, BOB, Offset(10));
        Self { router: Router::new(policy.clone(), ClientLimits::DEFAULT), policy }
    }

    fn connect(&self, tenant: TenantId, user: UserId) -> (Arc<SessionEntry>, ConnectionId) {
        let connection = ConnectionId::next();
        let principal = Principal {
            tenant,
            user,
            device: None,
            client_id: ClientId::parse("c").expect("a client id"),
            topics: self.policy.topics(tenant).expect("known"),
        };
        let entry = Arc::new(SessionEntry::new(principal, &ClientLimits::DEFAULT));
        entry.claim(connection).expect("free");
        entry.go_live(false);
        self.router.add_session(&entry);
        (entry, connection)
    }

    fn subscribe(&self, entry: &Arc<SessionEntry>, subscription: &Subscription) {
        entry.subscribe(subscription.clone());
        self.router.subscribe(entry, subscription);
    }
}

fn subscription(filter: &str, qos: QoS, identifier: u32, no_local: bool) -> Subscription {
    Subscription {
        filter: TopicFilter::parse(filter).expect("a filter"),
        options: SubscriptionOptions {
            qos,
            no_local,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        },
        identifier: Some(identifier),
        since: Offset(0),
    }
}

fn record(tenant: TenantId, topic: &str, offset: u64, publisher: ClientTag) -> Arc<Record> {
    let message = Message {
        tenant,
        topic: TopicName::parse(topic).expect("a topic"),
        sender: ALICE,
        message_id: MessageId(Uuid::from_u128(6)),
        qos: QoS::ExactlyOnce,
        retain: false,
        expires_at: None,
        properties: Box::default(),
        payload: Box::default(),
        publisher,
    };
    Record::committed(message, Commit { offset: Offset(offset), at: UnixMillis(0), told: false })
}

/// A client that has no session here.
fn someone_else() -> ClientTag {
    ClientTag::of(&ClientId::parse("other").expect("a client id"))
}

fn grants(entry: &SessionEntry) -> Vec<Grant> {
    std::iter::from_fn(|| entry.next_delivery()).map(|delivery| delivery.grant).collect()
}

#[test]
fn a_conversation_reaches_its_members_past_their_offset_for_as_long_as_they_are_members() {
    let node = Node::new();
    let (alice, _) = node.connect(GUARDED, ALICE);
    let (bob, _) = node.connect(GUARDED, BOB);
    for entry in [&alice, &bob] {
        node.subscribe(entry, &subscription("c/+/m", QoS::AtLeastOnce, 1, false));
    }
    let topic = format!("c/{}/m", WARD.0);
    node.router.fan_out(&record(GUARDED, &topic, 10, someone_else()));
    assert_eq!((grants(&alice).len(), grants(&bob).len()), (1, 0));
    node.router.fan_out(&record(GUARDED, &topic, 11, someone_else()));
    assert_eq!((grants(&alice).len(), grants(&bob).len()), (1, 1));
    node.policy.remove_member(GUARDED, WARD, BOB);
    node.router.fan_out(&record(GUARDED, &topic, 12, someone_else()));
    assert_eq!((grants(&alice).len(), grants(&bob).len()), (1, 0));
}

#[test]
fn overlapping_subscriptions_make_one_copy_at_the_highest_qos_with_every_identifier() {
    let node = Node::new();
    let ward = format!("c/{}/m", WARD.0);
    for (tenant, topic, filters) in
        [(OPEN, "a/b", ["a/b", "a/+", "#"]), (GUARDED, &ward, [&ward, "c/+/m", "c/#"])]
    {
        let (entry, _) = node.connect(tenant, ALICE);
        let (other, _) = node.connect(tenant, ALICE);
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtMostOnce];
        for ((filter, qos), identifier) in filters.into_iter().zip(qos).zip(1..) {
            node.subscribe(&entry, &subscription(filter, qos, identifier, false));
        }
        node.subscribe(&other, &subscription(filters[1], QoS::ExactlyOnce, 9, false));
        node.router.fan_out(&record(tenant, topic, 20, someone_else()));
        let [grant] = &grants(&entry)[..] else { panic!("one copy") };
        let mut identifiers = grant.identifiers.to_vec();
        identifiers.sort_unstable();
        assert_eq!((grant.qos, &identifiers[..]), (QoS::AtLeastOnce, &[1, 2, 3][..]));
        assert_eq!(grants(&other).len(), 1);
    }
}

#[test]
fn no_local_holds_back_the_own_client_s_messages_alone() {
    let node = Node::new();
    let ward = format!("c/{}/m", WARD.0);
    for (tenant, topic) in [(OPEN, "t"), (GUARDED, &ward)] {
        let (entry, _) = node.connect(tenant, ALICE);
        node.subscribe(&entry, &subscription(topic, QoS::AtLeastOnce, 1, true));
        node.router.fan_out(&record(tenant, topic, 20, entry.tag));
        assert!(grants(&entry).is_empty());
        node.router.fan_out(&record(tenant, topic, 21, someone_else()));
        assert_eq!(grants(&entry).len(), 1);
    }
}

#[test]
fn nothing_is_left_of_a_session_that_is_gone() {
    let node = Node::new();
    for (tenant, filter) in [(OPEN, "a/+"), (GUARDED, "c/#"), (OPEN, "$share/g/a/+")] {
        let (entry, _) = node.connect(tenant, ALICE);
        node.subscribe(&entry, &subscription(filter, QoS::AtLeastOnce, 1, false));
        node.router.remove_session(&entry);
        assert_eq!(Arc::strong_count(&entry), 1);
    }
    assert!(node.router.trees.is_empty() && node.router.sessions.is_empty());
    assert!(node.router.groups.all().is_empty());
}

#[test]
fn a_message_is_stored_for_a_session_that_outlives_its_connection_alone() {
    let node = Node::new();
    let (entry, _) = node.connect(OPEN, ALICE);
    let topic = TopicName::parse("t").expect("a topic");
    node.subscribe(&entry, &subscription("t", QoS::AtLeastOnce, 1, false));
    assert!(!node.router.has_subscriber_by_log(OPEN, &topic));
    entry.set_stored(Some(SessionRef { id: SessionId(1), generation: sotto_model::Generation::default() }));
    assert!(node.router.has_subscriber_by_log(OPEN, &topic));
    node.subscribe(&entry, &subscription("t", QoS::AtMostOnce, 1, false));
    assert!(!node.router.has_subscriber_by_log(OPEN, &topic), "QoS 0 is not sent again");
}

#[test]
fn a_group_asks_for_what_its_members_ask_for_until_the_last_one_has_left() {
    let node = Node::new();
    let topic = TopicName::parse("t").expect("a topic");
    let members = [node.connect(OPEN, ALICE).0, node.connect(OPEN, BOB).0];
    node.subscribe(&members[0], &subscription("$share/g/t", QoS::AtMostOnce, 1, false));
    node.subscribe(&members[1], &subscription("$share/g/t", QoS::ExactlyOnce, 2, false));
    let groups = node.router.groups.all();
    let [group] = &groups[..] else { panic!("one group") };
    let asked = || group.entry.with_subscriptions(|own| own.first().map(|own| own.options.qos));
    assert_eq!(asked(), Some(QoS::ExactlyOnce));
    node.router.fan_out(&record(OPEN, "t", 7, ClientTag::from_bytes([0; ClientTag::BYTES])));
    assert!(group.entry.next_delivery().is_some(), "one copy for all");
    assert!(group.entry.next_delivery().is_none());
    group
        .entry
        .set_stored(Some(SessionRef { id: SessionId(1), generation: sotto_model::Generation::default() }));
    assert!(node.router.has_subscriber_by_log(OPEN, &topic));
    node.router.remove_session(&members[1]);
    assert_eq!(asked(), Some(QoS::AtMostOnce));
    assert!(!node.router.has_subscriber_by_log(OPEN, &topic), "nobody who is left is owed it");
    node.router.remove_session(&members[0]);
    assert!(group.ended.is_cancelled() && node.router.groups.all().is_empty());
}

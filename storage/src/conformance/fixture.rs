//! The world that the cases take place in: two guarded tenants, one open one, some users.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use sotto_auth::Policy;
use sotto_keyring::{Keyring, KeyringLimits, LocalKms, Place, PlainKey, SealError, Sealed};
use sotto_model::{
    ClientId, ConversationId, Cursor, DeviceId, MessageId, Offset, Principal, QoS, TenantId, TopicFilter,
    TopicName, TopicPolicy, UnixMillis, Urgency, UserId,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::Store;
use crate::directory::{Conversation, StoredPassword, Tenant, User};
use crate::message_log::{Append, Batch, PageLimit, Placed, RetainChange, Selector, StoredMessage};
use crate::push_registry::{Lane, Platform, PushRegistration};
use crate::session_store::{
    OpenSession, OpenedSession, SessionOp, SessionProgress, SessionRef, SessionReply,
};

/// An empty store, and whatever must live as long as it does: a temporary folder, a database to drop.
pub struct Fresh {
    pub store: Arc<dyn Store>,
    pub keep: Box<dyn Any + Send>,
}

pub struct Fixture {
    pub store: Arc<dyn Store>,
    pub policy: Policy,
    pub keyring: Keyring,
    /// Topics are guarded; `ward` is a conversation of `alice`, `bob` and `carol`.
    pub clinic: TenantId,
    pub ward: ConversationId,
    pub alice: Person,
    pub bob: Person,
    pub carol: Person,
    /// No topic is guarded; `robot` may publish anywhere.
    pub lab: TenantId,
    pub robot: Person,
    last_batch: AtomicU64,
    _keep: Box<dyn Any + Send>,
}

#[derive(Clone)]
pub struct Person {
    pub user: UserId,
    pub device: DeviceId,
    pub principal: Principal,
}

/// The time of most cases.
pub const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// The session expiry of most cases, seconds.
pub const EXPIRY_SECONDS: u32 = 3600;
pub const GENEROUS: PageLimit = PageLimit { records: 10_000, bytes: 64 * 1024 * 1024 };

impl Fixture {
    pub async fn new(fresh: Fresh) -> Self {
        let Fresh { store, keep } = fresh;
        let kms = LocalKms::from_root_key(&PlainKey::new(Zeroizing::new([7; 32])));
        let key_store = Arc::clone(&store);
        let keyring = Keyring::new(Arc::new(kms), key_store, KeyringLimits::default(), instant());
        let policy = Policy::new();
        let last_batch = store.claim_writer().await.expect("claim the writer of an empty store");
        assert_eq!(last_batch, 0, "nothing was ever committed");

        let clinic = make_tenant(&*store, &policy, "clinic", TopicPolicy::Membership).await;
        let lab = make_tenant(&*store, &policy, "lab", TopicPolicy::Open).await;
        let alice = make_person(&*store, clinic, "alice", TopicPolicy::Membership).await;
        let bob = make_person(&*store, clinic, "bob", TopicPolicy::Membership).await;
        let carol = make_person(&*store, clinic, "carol", TopicPolicy::Membership).await;
        let robot = make_person(&*store, lab, "robot", TopicPolicy::Open).await;
        let mut fixture = Self {
            store,
            policy,
            keyring,
            clinic,
            ward: ConversationId(Uuid::nil()),
            alice,
            bob,
            carol,
            lab,
            robot,
            last_batch: AtomicU64::new(last_batch),
            _keep: keep,
        };
        fixture.ward = fixture.make_conversation().await;
        for user in [fixture.alice.user, fixture.bob.user, fixture.carol.user] {
            fixture.join(fixture.ward, user).await;
        }
        fixture
    }

    /// A conversation of the clinic's, still empty.
    pub async fn make_conversation(&self) -> ConversationId {
        let conversation = Conversation { id: ConversationId(Uuid::new_v4()), tenant: self.clinic };
        self.store.create_conversation(&conversation, NOW).await.expect("create conversation");
        self.policy.add_conversation(self.clinic, conversation.id);
        conversation.id
    }

    pub async fn join(&self, conversation: ConversationId, user: UserId) -> Offset {
        let since = self.store.add_member(self.clinic, conversation, user, NOW).await.expect("add member");
        self.policy.add_member(self.clinic, conversation, user, since);
        since
    }

    /// Another user of the clinic's.
    pub async fn make_user(&self, name: &str) -> Person {
        make_person(&*self.store, self.clinic, name, TopicPolicy::Membership).await
    }

    /// The topic of the ward's messages.
    pub fn ward_topic(&self) -> TopicName {
        conversation_topic(self.ward)
    }

    pub async fn seal(&self, sender: &Person, topic: &TopicName, payload: &[u8]) -> Sealed {
        let message_id = MessageId(Uuid::new_v4());
        let mut permit = self.policy.permit_publish(&sender.principal, topic).expect("allowed to publish");
        loop {
            match self.keyring.seal(permit, message_id, &[payload], instant()) {
                Ok(sealed) => return sealed,
                Err((unused, SealError::KeyCold(request))) => {
                    self.keyring.warm(request, instant()).await.expect("warm key");
                    permit = unused;
                }
                Err((_, error)) => panic!("seal: {error}"),
            }
        }
    }

    /// The payload of a message that was read back, for where it was found.
    pub fn open(&self, tenant: TenantId, message: &StoredMessage) -> Vec<u8> {
        let place =
            Place { tenant, topic: &message.topic, sender: message.sender, message_id: message.message_id };
        self.keyring.open(&place, &message.sealed, instant()).expect("opens where it was sealed for")
    }

    /// QoS 1, not retained, never expires, wakes.
    pub async fn message(&self, sender: &Person, topic: &TopicName) -> Append {
        self.message_of(sender, topic, b"canary").await
    }

    pub async fn message_of(&self, sender: &Person, topic: &TopicName, payload: &[u8]) -> Append {
        Append {
            sealed: self.seal(sender, topic, payload).await,
            qos: QoS::AtLeastOnce,
            retain: RetainChange::Keep,
            expires_at: None,
            wakes: Some(Urgency::High),
            exactly_once: None,
            publication: None,
            will: None,
        }
    }

    /// The next batch, not yet appended.
    pub fn batch(&self, appends: Vec<Append>) -> Batch {
        let number = self.last_batch.fetch_add(1, Ordering::Relaxed) + 1;
        Batch { number, appends, committed_at: NOW }
    }

    pub async fn append(&self, appends: Vec<Append>) -> Vec<Offset> {
        let placed = self.store.append(&self.batch(appends)).await.expect("append");
        placed.into_iter().map(Placed::offset).collect()
    }

    /// One message, committed.
    pub async fn publish(&self, sender: &Person, topic: &TopicName) -> Offset {
        self.append(vec![self.message(sender, topic).await]).await[0]
    }

    pub async fn head(&self, tenant: TenantId) -> Offset {
        let heads = self.store.heads().await.expect("heads");
        heads.into_iter().find(|(id, _)| *id == tenant).expect("every tenant has a head").1
    }

    /// All that a filter selects, read to the head by pages.
    pub async fn read_all(
        &self,
        tenant: TenantId,
        selectors: &[Selector],
        limit: PageLimit,
    ) -> Vec<StoredMessage> {
        let head = self.head(tenant).await;
        let mut messages = Vec::new();
        let mut after = Offset(0);
        while after < head {
            let page = self.store.read(tenant, selectors, after, head, limit).await.expect("read");
            assert!(page.scanned_to > after, "a page gets further");
            assert!(page.scanned_to <= head, "a page ends where it was told to");
            after = page.scanned_to;
            messages.extend(page.messages);
        }
        messages
    }

    pub fn opening(&self, person: &Person) -> OpenSession {
        OpenSession {
            tenant: person.principal.tenant,
            client_id: person.principal.client_id.clone(),
            user: person.user,
            device: Some(person.device),
            clean_start: false,
            expiry_seconds: EXPIRY_SECONDS,
            head: Offset(0),
            will: None,
            now: NOW,
        }
    }

    pub async fn apply(&self, op: SessionOp) -> SessionReply {
        let mut replies = self.store.apply(&[op]).await.expect("apply");
        assert_eq!(replies.len(), 1, "one reply to one operation");
        replies.remove(0)
    }

    pub async fn open_session(&self, open: OpenSession) -> OpenedSession {
        match self.apply(SessionOp::Open(Box::new(open))).await {
            SessionReply::Opened(opened) => *opened,
            reply => panic!("opening was answered with {reply:?}"),
        }
    }

    pub async fn connect(&self, person: &Person) -> SessionRef {
        self.open_session(self.opening(person)).await.session
    }

    /// Ends the connection with everything up to `cursor` done.
    pub async fn close(&self, session: SessionRef, cursor: Offset) {
        let progress = SessionProgress { cursor: Cursor(cursor), ..SessionProgress::default() };
        self.close_with(session, progress).await;
    }

    pub async fn close_with(&self, session: SessionRef, progress: SessionProgress) {
        let op = SessionOp::Close {
            session,
            progress: Box::new(progress),
            expiry_seconds: EXPIRY_SECONDS,
            will: None,
            now: NOW,
        };
        assert!(matches!(self.apply(op).await, SessionReply::Done), "the session is held");
    }

    pub fn registration(&self, person: &Person) -> PushRegistration {
        PushRegistration {
            tenant: person.principal.tenant,
            device: person.device,
            platform: Platform::UnifiedPush,
            sealed_token: Bytes::from_static(b"sealed token"),
            app: "".into(),
            lookup: lookup_of(person.device),
            registered_at: NOW,
        }
    }

    pub async fn register(&self, person: &Person) {
        self.store.register(&self.registration(person), None).await.expect("register");
    }

    /// A device that can be woken and sleeps, with everything up to `cursor` done.
    pub async fn asleep(&self, person: &Person, cursor: Offset) {
        self.register(person).await;
        let session = self.connect(person).await;
        self.close(session, cursor).await;
    }
}

/// Of the registrations that [`Fixture::register`] makes.
pub fn lane() -> Lane {
    Lane::without_app(Platform::UnifiedPush)
}

/// A token of its own for each device.
fn lookup_of(device: DeviceId) -> [u8; 32] {
    let mut lookup = [9; 32];
    lookup[..16].copy_from_slice(device.0.as_bytes());
    lookup
}

pub fn conversation_topic(conversation: ConversationId) -> TopicName {
    topic(&format!("c/{conversation}/m"))
}

pub fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("topic")
}

pub fn filter(filter: &str) -> TopicFilter {
    TopicFilter::parse(filter).expect("filter")
}

/// From the beginning.
pub fn selector(raw: &str) -> Selector {
    Selector { filter: filter(raw), after: Offset(0) }
}

pub fn offsets(messages: &[StoredMessage]) -> Vec<Offset> {
    messages.iter().map(|message| message.offset).collect()
}

pub fn later(milliseconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 + milliseconds)
}

async fn make_tenant(store: &dyn Store, policy: &Policy, name: &str, topics: TopicPolicy) -> TenantId {
    let tenant = Tenant { id: TenantId(Uuid::new_v4()), name: name.to_owned(), topics };
    store.create_tenant(&tenant, NOW).await.expect("create tenant");
    policy.add_tenant(tenant.id, topics);
    tenant.id
}

async fn make_person(store: &dyn Store, tenant: TenantId, name: &str, topics: TopicPolicy) -> Person {
    let user = User {
        id: UserId(Uuid::new_v4()),
        tenant,
        name: name.to_owned(),
        password: StoredPassword { hash: "$argon2id$canary".to_owned(), scram: None },
    };
    store.create_user(&user, NOW).await.expect("create user");
    let device = store.ensure_device(tenant, user.id, "phone", NOW).await.expect("create device");
    let client_id = ClientId::parse(&format!("{name}/phone")).expect("client id");
    let principal = Principal { tenant, user: user.id, device: Some(device), client_id, topics };
    Person { user: user.id, device, principal }
}

#[expect(clippy::disallowed_methods, reason = "the age of keys in memory plays no part in any case")]
fn instant() -> Instant {
    Instant::now()
}

//! Two users of one conversation on a real store: alice publishes, bob's phone sleeps.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sotto_auth::Policy;
use sotto_keyring::{Keyring, KeyringLimits, LocalKms, PlainKey, SealError};
use sotto_model::{
    ClientId, Clock, ConversationId, DeviceId, MessageId, Offset, Principal, QoS, TenantId, TopicName,
    TopicPolicy, UnixMillis, Urgency, UserId,
};
use sotto_sqlite::SqliteStore;
use sotto_storage::directory::{Conversation, Directory, StoredPassword, Tenant, User};
use sotto_storage::message_log::{Append, MessageLog, RetainChange};
use sotto_storage::outbox::Outbox;
use sotto_storage::push_registry::{Lane, Platform, PushRegistry};
use sotto_storage::session_store::{OpenSession, OpenedSession, SessionOp, SessionReply};
use sotto_storage::wakeup_quota::WakeupQuota;
use sotto_storage::{CommitSink, Committed, Committer, SessionWriter, StoreError};
use sotto_wakeup::{
    AddressGuard, PushService, Pusher, Signal, Target, TargetRequest, TokenVault, UnifiedPush, WakeupService,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::clock::ManualClock;
use super::push_service::PushService as Emulator;

pub(crate) const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const ALICE: UserId = UserId(Uuid::from_u128(2));
const BOB: UserId = UserId(Uuid::from_u128(3));
const CONVERSATION: ConversationId = ConversationId(Uuid::from_u128(4));

/// This machine, which is no public address.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

pub(crate) struct House {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) clock: Arc<ManualClock>,
    keyring: Keyring,
    policy: Policy,
    committer: Committer<Fanout>,
    sessions: SessionWriter,
    phone: DeviceId,
    fanout: Arc<Fanout>,
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    _folder: tempfile::TempDir,
}

/// Rings the relay, and counts what is durable.
struct Fanout {
    ring: parking_lot::Mutex<Signal>,
    durable: Semaphore,
}

impl CommitSink for Fanout {
    type Item = ();

    fn committed(&self, _: UnixMillis, messages: Vec<Committed<()>>) {
        self.durable.add_permits(messages.len());
        self.ring.lock().ring();
    }

    fn refused(&self, (): (), error: &StoreError) {
        panic!("{error}");
    }

    fn budget_freed(&self) {}
}

impl House {
    pub(crate) async fn build() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(SqliteStore::open(&folder.path().join("sotto.db")).await.expect("a store"));
        let clock = ManualClock::new();
        let now = clock.unix_now();
        let phone = populate(&store, now).await;
        let policy = Policy::new();
        policy.add_tenant(TENANT, TopicPolicy::Membership);
        policy.add_conversation(TENANT, CONVERSATION);
        for user in [ALICE, BOB] {
            policy.add_member(TENANT, CONVERSATION, user, Offset(0));
        }
        let kms = Arc::new(LocalKms::from_root_key(&PlainKey::new(Zeroizing::new([7; 32]))));
        let keyring = Keyring::new(kms, store.clone(), KeyringLimits::default(), clock.now());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let fanout = Arc::new(Fanout { ring: parking_lot::Mutex::default(), durable: Semaphore::new(0) });
        let committer = Committer::start(store.clone(), fanout.clone(), clock.clone(), &tasks, &stop)
            .await
            .expect("a committer");
        let sessions = SessionWriter::start(store.clone(), clock.clone(), &tasks, &stop);
        Self {
            store,
            clock,
            keyring,
            policy,
            committer,
            sessions,
            phone,
            fanout,
            tasks,
            stop,
            _folder: folder,
        }
    }

    /// A house whose phone has been connected once, sleeps, and is to be woken at `endpoint`.
    pub(crate) async fn with_sleeping_phone(endpoint: &str) -> Self {
        let house = Self::build().await;
        house.register(endpoint).await;
        let opened = house.connect().await;
        house.disconnect(opened).await;
        house
    }

    pub(crate) fn vault(&self) -> TokenVault {
        TokenVault::new(self.keyring.clone(), self.clock.clone())
    }

    pub(crate) async fn register(&self, endpoint: &str) {
        let request =
            TargetRequest { platform: "unified_push", app: None, token: None, endpoint: Some(endpoint) };
        let target = Target::parse(request, &[lane()], &AddressGuard::new(LOOPBACK.map(network)));
        let target = target.expect("an endpoint");
        let registration = self.vault().registration(TENANT, self.phone, &target).await;
        let registration = registration.expect("a sealed token");
        self.store.register(&registration, None).await.expect("registered");
    }

    /// A pusher that trusts the service's authority and may reach this machine.
    pub(crate) fn pusher(&self, service: &Emulator) -> Arc<dyn Pusher> {
        let pusher = UnifiedPush::new(self.clock.clone(), LOOPBACK.map(network), Some(service.root_pem()));
        Arc::new(pusher.expect("a client"))
    }

    pub(crate) fn start(&mut self, pusher: Arc<dyn Pusher>) {
        self.start_with(self.store.clone(), pusher);
    }

    pub(crate) fn start_with(&mut self, outbox: Arc<dyn Outbox>, pusher: Arc<dyn Pusher>) {
        let service = WakeupService {
            outbox,
            keyring: self.keyring.clone(),
            services: vec![PushService { lane: lane(), pusher }],
            quota: WakeupQuota::default(),
            clock: self.clock.clone(),
        };
        *self.fanout.ring.lock() = service.start(&self.tasks, &self.stop).committed();
    }

    pub(crate) async fn connect(&self) -> OpenedSession {
        let heads = self.store.heads().await.expect("heads");
        let head = heads.iter().find(|(tenant, _)| *tenant == TENANT).map_or(Offset(0), |(_, head)| *head);
        let open = OpenSession {
            tenant: TENANT,
            client_id: ClientId::parse("bob/phone").expect("a client id"),
            user: BOB,
            device: Some(self.phone),
            clean_start: false,
            expiry_seconds: u32::MAX,
            head,
            will: None,
            now: self.clock.unix_now(),
        };
        match self.sessions.apply(SessionOp::Open(Box::new(open))).await.expect("opened") {
            SessionReply::Opened(mut opened) => {
                // It has received everything that was there.
                opened.progress.cursor.0 = head;
                *opened
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn disconnect(&self, opened: OpenedSession) {
        let close = SessionOp::Close {
            session: opened.session,
            progress: Box::new(opened.progress),
            expiry_seconds: u32::MAX,
            will: None,
            now: self.clock.unix_now(),
        };
        assert!(matches!(self.sessions.apply(close).await, Ok(SessionReply::Done)));
    }

    /// Alice publishes, and waits until it is durable.
    pub(crate) async fn publish(&self, messages: u32) {
        for _ in 0..messages {
            let append = self.append().await;
            let reservation = self.committer.try_reserve(append.sealed.bytes().len()).expect("room");
            self.committer.submit(reservation, append, ()).expect("open");
        }
        self.fanout.durable.acquire_many(messages).await.expect("never closed").forget();
    }

    /// Stops the loops and waits for them.
    pub(crate) async fn shut(&self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(20), self.tasks.wait()).await.expect("all loops end");
    }

    pub(crate) async fn dead_letters(&self) -> Vec<String> {
        let letters = self.store.dead_letters(10).await.expect("asked");
        letters.into_iter().map(|letter| letter.outcome).collect()
    }

    async fn append(&self) -> Append {
        let alice = Principal {
            tenant: TENANT,
            user: ALICE,
            device: None,
            client_id: ClientId::parse("alice/phone").expect("a client id"),
            topics: TopicPolicy::Membership,
        };
        let topic = TopicName::parse(&format!("c/{CONVERSATION}/m")).expect("a topic");
        let mut permit = self.policy.permit_publish(&alice, &topic).expect("a member");
        let id = MessageId(Uuid::new_v4());
        let sealed = loop {
            match self.keyring.seal(permit, id, &[b"an encrypted payload"], self.clock.now()) {
                Ok(sealed) => break sealed,
                Err((given_back, SealError::KeyCold(request))) => {
                    self.keyring.warm(request, self.clock.now()).await.expect("a key");
                    permit = given_back;
                }
                Err((_, error)) => panic!("{error}"),
            }
        };
        Append {
            sealed,
            qos: QoS::AtLeastOnce,
            retain: RetainChange::Keep,
            expires_at: None,
            wakes: Some(Urgency::High),
            exactly_once: None,
            publication: None,
            will: None,
        }
    }
}

fn network(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn lane() -> Lane {
    Lane::without_app(Platform::UnifiedPush)
}

async fn populate(store: &SqliteStore, now: UnixMillis) -> DeviceId {
    let tenant = Tenant { id: TENANT, name: "demo".into(), topics: TopicPolicy::Membership };
    store.create_tenant(&tenant, now).await.expect("a tenant");
    let conversation = Conversation { id: CONVERSATION, tenant: TENANT };
    store.create_conversation(&conversation, now).await.expect("a conversation");
    for (id, name) in [(ALICE, "alice"), (BOB, "bob")] {
        let password = StoredPassword { hash: "unused".into(), scram: None };
        let user = User { id, tenant: TENANT, name: name.into(), password };
        store.create_user(&user, now).await.expect("a user");
        store.add_member(TENANT, CONVERSATION, id, now).await.expect("a member");
    }
    store.ensure_device(TENANT, BOB, "phone", now).await.expect("a device")
}

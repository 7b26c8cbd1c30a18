//! The store, the clients, and the lives of one node after another.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use parking_lot::Mutex;
use sotto_auth::Check;
use sotto_keyring::{Keyring, KeyringLimits, LocalKms, PlainKey};
use sotto_memory::{FaultRates, FaultyStore, MemoryStore};
use sotto_model::{
    ClientId, Clock, Offset, Principal, QoS, TenantId, TopicFilter, TopicName, TopicPolicy, UnixMillis,
    UserId,
};
use sotto_storage::directory::{Conversation, Directory, StoredPassword, Tenant, User};
use sotto_storage::message_log::{MessageLog, PageLimit, Selector};
use sotto_storage::push_registry::Platform;
use sotto_storage::retention::RetentionPolicy;
use sotto_wakeup::{PushOutcome, Pusher, Wakeup};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::admission::{AddressLimits, AdmissionLimits, FailedLoginLimits};
use crate::clock::SystemClock;
use crate::connection::Connection;
use crate::drain::{Departure, DrainPlan};
use crate::listener_name::ListenerName;
use crate::node::{Node, Parts};
use crate::operation::{NewTarget, Operation};
use crate::operations::OperationError;
use crate::push_services::PushServices;
use crate::simulation::client::Client;
use crate::simulation::memory::Expects;
use crate::simulation::oracle::{ClientNo, MessageNo, Oracle, Sent};
use crate::simulation::plan::{
    CONVERSATIONS, Chance, LifeEnd, LifePlan, Of, Plan, USERS, conversation_id, conversation_of, user_id,
};
use crate::simulation::surroundings::{PASSWORD, POISON, Phase, Surroundings};
use crate::simulation::trace::{Trace, Traced};
use crate::socket::Socket;
use crate::transport::Transport;

/// Of that password, as cheap as argon2id can be.
const PASSWORD_HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2ltdWxhdGlvbiBzYWx0IQ$RXYgbnrVOIjh+tj6LcBcZw";
const BEGAN: UnixMillis = UnixMillis(1_800_000_000_000);
const CLINIC: TenantId = TenantId(Uuid::from_u128(1));
const LAB: TenantId = TenantId(Uuid::from_u128(2));
/// How long the clients may take to be handed what is owed to them, once nothing goes wrong any more.
const CALM_MAX: Duration = Duration::from_mins(2);
const ROOM: usize = 1000;

pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) trace: Traced,
}

/// What outlives a crash of the node.
pub(super) struct World {
    seed: u64,
    pub(super) plan: Plan,
    memory: Arc<MemoryStore>,
    store: Arc<FaultyStore>,
    clients: Vec<Arc<Client>>,
    pub(super) oracle: Oracle,
    trace: Trace,
    /// Changed between two lives.
    unix_now: Mutex<UnixMillis>,
}

/// One life of the node.
pub(super) struct Life {
    pub(super) world: Arc<World>,
    node: Node,
    clock: Arc<SystemClock>,
    /// Changed by the life's own course, read by clients.
    phase: Mutex<Phase>,
}

pub(super) fn simulate(seed: u64) -> Outcome {
    let world = Arc::new(World::new(seed));
    for (number, plan) in (0..).zip(&world.plan.lives) {
        in_runtime(&world, number, Some(plan));
    }
    in_runtime(&world, u64::MAX, None);
    Outcome { violations: world.oracle.violations(), trace: world.trace.end() }
}

/// The runtime goes with the node: dropping it drops every task where it stands.
fn in_runtime(world: &Arc<World>, number: u64, plan: Option<&LifePlan>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let life = Arc::new(Life::begin(world, number).await);
        match plan {
            Some(plan) => life.pass(plan, number).await,
            None => life.conclude().await,
        }
    });
}

impl World {
    fn new(seed: u64) -> Self {
        let plan = Plan::of(seed);
        let memory = Arc::new(MemoryStore::new());
        let store = Arc::new(FaultyStore::new(memory.clone(), seed));
        store.refuse_topic(TopicName::parse(POISON).expect("a topic"));
        let clients = plan
            .clients
            .iter()
            .zip(0..)
            .map(|(plan, no)| {
                let chance = Chance::new(seed, Of::Client, u64::try_from(no).expect("few"));
                Arc::new(Client::new(ClientNo(no), plan.clone(), chance))
            })
            .collect();
        let unix_now = Mutex::new(BEGAN);
        Self {
            seed,
            plan,
            memory,
            store,
            clients,
            oracle: Oracle::default(),
            trace: Trace::new(BEGAN),
            unix_now,
        }
    }

    fn payload(&self, message: MessageNo) -> String {
        format!("{}.{}", message.0, "x".repeat(self.plan.payload_bytes))
    }

    /// Has everything that the user was told is published on the topic been committed?
    fn is_durable(&self, user: Option<usize>, topic: &str) -> Result<(), String> {
        let (Some(user), Some(_)) = (user, conversation_of(topic)) else { return Ok(()) };
        let is_theirs = |no: ClientNo| self.clients[no.0].user() == Some(user);
        let acknowledged = self.oracle.count_acknowledged(topic, is_theirs);
        let name = TopicName::parse(topic).expect("a topic");
        let stored = self.memory.messages_on(CLINIC, &name, user_id(user));
        if stored >= acknowledged {
            return Ok(());
        }
        Err(format!("is told that {acknowledged} messages are published, and {stored} are stored"))
    }

    /// What is owed to clients and has not come.
    fn missing(&self) -> Vec<String> {
        let sent = self.oracle.all_sent();
        let owed = sent.iter().filter(|(_, sent)| sent.acknowledged.is_some() && sent.qos != QoS::AtMostOnce);
        let mut missing = Vec::new();
        for (message, sent) in owed {
            for client in &self.clients {
                if self.is_owed(client, *message, sent) {
                    missing.push(format!("client {} was not sent {}", client.no.0, message.0));
                }
            }
        }
        missing
    }

    fn is_owed(&self, client: &Client, message: MessageNo, sent: &Sent) -> bool {
        let is_clinic = sent.topic.starts_with("c/") || sent.topic.starts_with("u/");
        if client.user().is_some() != is_clinic {
            return false;
        }
        let memory = client.memory.lock();
        if memory.subscribed(&sent.name).is_none_or(|since| since > sent.first) {
            return false;
        }
        if let Some(share) = client.share() {
            // What one that then gave up had taken with QoS 2 ended with it.
            let gave_up = |other: &Arc<Client>| {
                !Arc::ptr_eq(other, &self.clients[client.no.0])
                    && other.share() == Some(share)
                    && other.memory.lock().gave_up
            };
            let may_be_gone =
                sent.qos == QoS::ExactlyOnce && (memory.gave_up || self.clients.iter().any(gave_up));
            return self.oracle.shared_times(share, message) == 0 && !may_be_gone;
        }
        if let (Some(user), Some(conversation)) = (client.user(), conversation_of(&sent.topic)) {
            let member = self.oracle.membership(conversation, user);
            if member.since.is_none_or(|since| since > sent.first) {
                return false;
            }
        }
        !self.oracle.has_received(client.no, memory.session, message)
    }

    async fn furnish(&self) {
        let store = &self.memory;
        let guarded = TopicPolicy::Membership;
        for (id, name, topics) in [(CLINIC, "clinic", guarded), (LAB, "lab", TopicPolicy::Open)] {
            let tenant = Tenant { id, name: name.to_owned(), topics };
            store.create_tenant(&tenant, BEGAN).await.expect("create tenant");
        }
        for number in 0..USERS {
            let password = StoredPassword { hash: PASSWORD_HASH.to_owned(), scram: None };
            let name = format!("user{number}");
            let user = User { id: user_id(number), tenant: CLINIC, name, password };
            store.create_user(&user, BEGAN).await.expect("create user");
        }
        for number in 0..CONVERSATIONS {
            let conversation = Conversation { id: conversation_id(number), tenant: CLINIC };
            store.create_conversation(&conversation, BEGAN).await.expect("create conversation");
            for user in 0..USERS {
                if (user + number) % 4 != 3 {
                    store
                        .add_member(CLINIC, conversation.id, user_id(user), BEGAN)
                        .await
                        .expect("add member");
                }
            }
        }
    }

    /// What nobody was told of, the store knows.
    async fn learn_members(&self) {
        let snapshot = self.memory.snapshot().await.expect("the store's own");
        for conversation in 0..CONVERSATIONS {
            for user in 0..USERS {
                let id = conversation_id(conversation);
                let is_member = snapshot
                    .memberships
                    .iter()
                    .any(|row| row.conversation == id && row.user == user_id(user));
                self.oracle.member_is(conversation, user, is_member);
            }
        }
    }
}

impl Life {
    async fn begin(world: &Arc<World>, number: u64) -> Self {
        let mut chance = Chance::new(world.seed, Of::Node, number);
        let clock = Arc::new(SystemClock::simulated(*world.unix_now.lock(), chance.seed()));
        world.store.set_up(true);
        world.store.set_rates(FaultRates { delayed_permille: 300, delay_ms_max: 20, ..FaultRates::NONE });
        let is_first = world.memory.snapshot().await.expect("the store's own").tenants.is_empty();
        if is_first {
            world.furnish().await;
        }
        let root = PlainKey::new(Zeroizing::new([7; 32]));
        let kms = Arc::new(LocalKms::from_root_key(&root));
        let keyring = Keyring::new(kms, world.store.clone(), KeyringLimits::default(), clock.now());
        let parts = Parts {
            store: world.store.clone(),
            keyring,
            clock: clock.clone(),
            push: PushServices::through(Arc::new(SimulatedPusher(Mutex::new(Chance::new(
                world.seed,
                Of::Push,
                number,
            ))))),
            limits: world.plan.limits,
            admission: AdmissionLimits {
                connections_max: ROOM,
                handshakes_max: ROOM,
                handshake_steps_max: ROOM,
                memory_bytes_max: None,
                addresses: AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 0 },
                failed_logins: FailedLoginLimits { failures_max: 0, window_seconds: 0 },
            },
            retention: RetentionPolicy::default(),
            configured_rules: Arc::new([]),
            nobody_key: Zeroizing::new(Vec::new()),
            password_checks: 1,
        };
        let node = Node::start(parts, async |_| Ok(Some(LAB))).await.expect("starts");
        let phase = Mutex::new(Phase::Busy);
        let life = Self { world: world.clone(), node, clock, phase };
        life.note(format_args!("life {number} begins"));
        life.remember_password();
        if is_first {
            life.register_devices().await;
        }
        world.learn_members().await;
        life
    }

    /// Verified once, it is let in without being hashed, for everybody: all have the same.
    fn remember_password(&self) {
        let (name, password) = (Some("user0@clinic"), Some(PASSWORD.as_bytes()));
        let authenticator = &self.node.services.authenticator;
        match authenticator.check(name, password, "user0/device0", None, self.clock.now()) {
            Check::Verify(check) => drop(check.run().expect("the password")),
            Check::Accepted(_) | Check::Refused(_) => panic!("it was not verified before"),
        }
    }

    async fn register_devices(&self) {
        for client in &self.world.clients {
            let Some((user, device)) = client.plan.client_id.split_once('/') else { continue };
            let registration = Operation::PushRegister {
                tenant: "clinic".to_owned(),
                user: user.to_owned(),
                device: device.to_owned(),
                target: NewTarget {
                    platform: Platform::UnifiedPush.as_str().to_owned(),
                    app: None,
                    token: None,
                    endpoint: Some(Zeroizing::new(format!("https://push.example/{user}/{device}"))),
                },
            };
            self.node.operations.run(registration).await.expect("registers");
        }
    }

    /// Goes on until it ends as planned.
    async fn pass(self: Arc<Self>, plan: &LifePlan, number: u64) {
        let mut chance = Chance::new(self.world.seed, Of::End, number);
        drop(self.start_clients());
        if plan.stormy {
            tokio::spawn(self.clone().weather(Chance::new(self.world.seed, Of::Weather, number)));
        }
        if self.world.plan.membership_changes {
            tokio::spawn(self.clone().change_members(Chance::new(self.world.seed, Of::Members, number)));
        }
        sleep(plan.lasts).await;
        match plan.end {
            LifeEnd::Stop => {
                self.note(format_args!("the node stops"));
                self.shut_down().await;
            }
            LifeEnd::Crash => {
                // In the middle of what happens at this moment.
                for _ in 0..chance.below(20) {
                    tokio::task::yield_now().await;
                }
                self.note(format_args!("the node crashes"));
            }
        }
        self.leave();
    }

    /// The last life: sleepers are woken, then all is calm, and everything that is owed comes.
    async fn conclude(self: Arc<Self>) {
        let clients = self.start_clients();
        if self.world.plan.membership_changes {
            let changing = self.clone().change_members(Chance::new(self.world.seed, Of::Members, u64::MAX));
            let _ = tokio::time::timeout(Duration::from_secs(3), changing).await;
            self.learn().await;
        }
        self.world.store.set_rates(FaultRates::NONE);
        sleep(Duration::from_secs(2)).await;
        self.enter(Phase::Sleep);
        sleep(Duration::from_secs(4)).await;
        self.enter(Phase::Hush);
        sleep(Duration::from_secs(4)).await;
        self.check_wakeups();
        self.enter(Phase::Calm);
        sleep(Duration::from_secs(3)).await;
        self.enter(Phase::Last);
        sleep(Duration::from_secs(2)).await;
        let calm = tokio::time::timeout(CALM_MAX, async {
            while !self.is_settled() {
                sleep(Duration::from_millis(500)).await;
            }
        });
        if calm.await.is_err() {
            for missing in self.world.missing() {
                self.world.oracle.violation(missing);
            }
            for client in &self.world.clients {
                let memory = client.memory.lock();
                if !memory.is_online {
                    self.world.oracle.violation(format!("client {} cannot connect", client.no.0));
                }
                for outgoing in &memory.outgoing {
                    let MessageNo(number) = outgoing.message;
                    self.world.oracle.violation(format!("client {} is not told of {number}", client.no.0));
                }
            }
        }
        self.check_log().await;
        self.check_sessions();
        self.note(format_args!("the node stops"));
        self.shut_down().await;
        if !self.node.tasks.is_empty() || !self.node.connections.is_empty() {
            self.world.oracle.violation("tasks are left when the node has stopped".to_owned());
        }
        for client in clients {
            client.abort();
            if client.await.is_err_and(|error| error.is_panic()) {
                self.world.oracle.violation("a client panics".to_owned());
            }
        }
        let (world, services) = (self.world.clone(), Arc::downgrade(&self.node.services));
        drop(self);
        if services.upgrade().is_some() {
            world.oracle.violation("something still holds what the node is made of".to_owned());
        }
    }

    fn start_clients(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let start = |client: &Arc<Client>| {
            client.memory.lock().is_online = false;
            tokio::spawn(client.clone().live(self.clone()))
        };
        self.world.clients.iter().map(start).collect()
    }

    fn leave(&self) {
        *self.world.unix_now.lock() = self.clock.unix_now().saturating_add(Duration::from_millis(50));
    }

    fn enter(&self, phase: Phase) {
        self.note(format_args!("{phase:?}"));
        *self.phase.lock() = phase;
    }

    fn is_settled(&self) -> bool {
        let at_rest = |client: &Arc<Client>| {
            let memory = client.memory.lock();
            memory.is_online && memory.outgoing.is_empty() && memory.last_words == 0
        };
        self.world.clients.iter().all(at_rest) && self.world.missing().is_empty()
    }

    /// The store answers badly, then well again.
    async fn weather(self: Arc<Self>, mut chance: Chance) {
        loop {
            let rates = match chance.below(4) {
                0 => FaultRates::NONE,
                1 => FaultRates { delayed_permille: 500, delay_ms_max: 60, ..FaultRates::NONE },
                2 => FaultRates {
                    unavailable_permille: 100,
                    ambiguous_permille: 100,
                    delayed_permille: 500,
                    delay_ms_max: 100,
                },
                _ => FaultRates {
                    unavailable_permille: 20,
                    ambiguous_permille: 300,
                    delayed_permille: 100,
                    delay_ms_max: 2000,
                },
            };
            self.world.store.set_rates(rates);
            sleep(Duration::from_millis(200) + chance.millis(2000)).await;
            if chance.percent(25) {
                self.note(format_args!("the store is away"));
                self.world.store.set_up(false);
                sleep(chance.millis(4000)).await;
                self.world.store.set_up(true);
                self.note(format_args!("the store is back"));
            }
        }
    }

    async fn change_members(self: Arc<Self>, mut chance: Chance) {
        loop {
            sleep(Duration::from_millis(200) + chance.millis(2000)).await;
            let (conversation, user) = (chance.below(CONVERSATIONS), chance.below(USERS));
            let world = &self.world;
            let was_member = world.oracle.membership(conversation, user).since.is_some();
            world.oracle.member_changes(conversation, user);
            self.note(format_args!("user {user} of {conversation}: member {}", !was_member));
            while !self.set_member(conversation, user, !was_member).await {
                sleep(Duration::from_millis(200)).await;
            }
            // A change of which nobody was told holds when the directory has been followed.
            let id = conversation_id(conversation);
            let is_member = || self.node.services.policy.member_since(CLINIC, id, user_id(user)).is_some();
            while is_member() == was_member {
                sleep(Duration::from_millis(100)).await;
            }
            world.oracle.member_is(conversation, user, !was_member);
            self.note(format_args!("user {user} of {conversation}: is member {}", !was_member));
        }
    }

    /// False when it is to be tried again.
    async fn set_member(&self, conversation: usize, user: usize, is_member: bool) -> bool {
        let (tenant, conversation) = ("clinic".to_owned(), conversation_id(conversation));
        let user = format!("user{user}");
        let operation = if is_member {
            Operation::MemberAdd { tenant, conversation, user }
        } else {
            Operation::MemberRemove { tenant, conversation, user }
        };
        match self.node.operations.run(operation).await {
            Ok(_)
            | Err(OperationError::Directory(
                sotto_storage::directory::DirectoryError::Exists(_)
                | sotto_storage::directory::DirectoryError::Missing(_),
            )) => true,
            Err(_) => false,
        }
    }

    /// What was left unsure.
    async fn learn(&self) {
        sleep(Duration::from_secs(2)).await;
        self.world.learn_members().await;
    }

    // ---- what must hold ----

    /// Every sleeper to whom something is owed has been woken, or is about to be.
    fn check_wakeups(&self) {
        for client in &self.world.clients {
            let sleeps = client.plan.sleeps && client.plan.persistent && client.user().is_some();
            if !sleeps || client.memory.lock().expects != Expects::Present {
                continue;
            }
            let is_owed = |(message, sent): &(MessageNo, Sent)| {
                let is_own = self.world.clients[sent.by.0].user() == client.user();
                let counts = sent.acknowledged.is_some() && sent.qos != QoS::AtMostOnce && !is_own;
                counts && !sent.is_will && self.world.is_owed(client, *message, sent)
            };
            let device = self.device(client);
            if self.world.oracle.all_sent().iter().any(is_owed)
                && device.is_some_and(|device| !self.world.memory.has_wakeup(CLINIC, device))
            {
                self.world.oracle.violation(format!("client {} sleeps and is not woken", client.no.0));
            }
        }
        if self.world.memory.outbox_len() > 0 {
            self.world.oracle.violation("outbox rows are left".to_owned());
        }
    }

    fn device(&self, client: &Client) -> Option<sotto_model::DeviceId> {
        let client_id = ClientId::parse(&client.plan.client_id).expect("a client id");
        self.world.memory.session(CLINIC, &client_id)?.device
    }

    /// What is in the log was sent by somebody, there, and what was acknowledged in a conversation is in it;
    /// what was sent once, once.
    async fn check_log(&self) {
        let sent = self.world.oracle.all_sent();
        let mut rows: BTreeMap<MessageNo, usize> = BTreeMap::new();
        for (tenant, topics) in [(CLINIC, TopicPolicy::Membership), (LAB, TopicPolicy::Open)] {
            let selectors =
                [Selector { filter: TopicFilter::parse("#").expect("a filter"), after: Offset(0) }];
            let limit = PageLimit { records: usize::MAX, bytes: usize::MAX };
            let head = self.world.memory.head(tenant);
            let page = self.world.memory.read(tenant, &selectors, Offset(0), head, limit).await;
            let client_id = ClientId::parse("oracle").expect("a client id");
            let principal = Principal { tenant, user: UserId(Uuid::nil()), device: None, client_id, topics };
            for stored in page.expect("the store's own").messages {
                let topic = stored.topic.as_str().to_owned();
                let record = self.node.services.open_stored(&principal, stored).await;
                let Ok(Some(record)) = record else {
                    self.world.oracle.violation("a stored message does not open".to_owned());
                    continue;
                };
                let payload = String::from_utf8_lossy(&record.message.payload).into_owned();
                let number = payload.split('.').next().and_then(|number| number.parse().ok());
                let message = MessageNo(number.unwrap_or(u32::MAX));
                match sent.get(message.0 as usize) {
                    Some((_, sent)) if sent.topic == topic => *rows.entry(message).or_default() += 1,
                    _ => self.world.oracle.violation("a message is stored that nobody sent".to_owned()),
                }
            }
        }
        for (message, sent) in sent {
            let count = rows.get(&message).copied().unwrap_or_default();
            let number = message.0;
            if sent.acknowledged.is_some()
                && sent.qos != QoS::AtMostOnce
                && sent.topic.starts_with("c/")
                && count == 0
            {
                self.world.oracle.violation(format!("{number} was acknowledged and is not stored"));
            }
            if count > 1 && (sent.qos == QoS::ExactlyOnce || sent.is_will) {
                self.world.oracle.violation(format!("{number} was sent once and is stored {count} times"));
            }
        }
    }

    async fn shut_down(&self) {
        let at_once = DrainPlan { per_second: 0, grace_seconds: 0, to: None };
        self.node.shut_down(&at_once, &Departure::new()).await;
    }

    /// No cursor is ahead of the log, and nobody is in two places.
    fn check_sessions(&self) {
        for client in &self.world.clients {
            let tenant = if client.user().is_some() { CLINIC } else { LAB };
            let client_id = ClientId::parse(&client.plan.client_id).expect("a client id");
            let Some(session) = self.world.memory.session(tenant, &client_id) else { continue };
            if session.progress.cursor.0 > self.world.memory.head(tenant) {
                self.world.oracle.violation(format!("the cursor of client {} is ahead", client.no.0));
            }
        }
        let known = self.world.clients.len() + 2;
        if self.node.services.registry.len() > known {
            self.world.oracle.violation("sessions are known that nobody has".to_owned());
        }
    }
}

impl Surroundings for Life {
    fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.trace.note(self.clock.unix_now(), what);
    }

    fn dial(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(self.world.plan.pipe_bytes);
        if self.node.stopping.is_cancelled() {
            // Nobody accepts.
            return near;
        }
        let transport = Transport::new(Socket::Simulated(far), None, None);
        let services = self.node.services.clone();
        let now = services.clock.tenths();
        let room = services.admission.admit(None, now).expect("there are few clients");
        let mut arrival = services.admission.arrive(&room, now).expect("connections are accepted");
        let world = self.world.clone();
        self.node.connections.spawn(async move {
            if arrival.take_slot(&services.clock).await.is_err() {
                return;
            }
            let connection = Connection::new(transport, ListenerName::Plain, arrival, room, services);
            if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
                world.oracle.violation("a connection panics".to_owned());
            }
        });
        near
    }

    fn oracle(&self) -> &Oracle {
        &self.world.oracle
    }

    fn payload(&self, message: MessageNo) -> String {
        self.world.payload(message)
    }

    fn is_durable(&self, user: Option<usize>, topic: &str) -> Result<(), String> {
        self.world.is_durable(user, topic)
    }
}

/// A push service that fails at times.
struct SimulatedPusher(Mutex<Chance>);

#[async_trait]
impl Pusher for SimulatedPusher {
    async fn push(&self, _wakeup: Wakeup) -> PushOutcome {
        let (wait, fails) = {
            let mut chance = self.0.lock();
            (chance.millis(50), chance.percent(20))
        };
        sleep(wait).await;
        if fails { PushOutcome::RetryAfter(None) } else { PushOutcome::Delivered }
    }
}

//! Two tenants' clients, of every kind, that publish and receive until they are told to stop.

use std::sync::Arc;
use std::time::Duration;

use sotto_model::QoS;
use sotto_mqtt::packet::Version;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dice::Dice;
use crate::ledger::{Ledger, TopicNumber};
use crate::link::Place;
use crate::phase::Phase;
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;
use crate::support::house::House;
use crate::support::phone::Login;
use crate::world::Watch;

pub(crate) struct Load {
    ledger: Arc<Ledger>,
    place: Place,
    phase: watch::Sender<Phase>,
    publishers: JoinSet<()>,
    subscribers: JoinSet<()>,
    /// What each subscriber is to have got in the end.
    awaited: Vec<Vec<TopicNumber>>,
    auditors: Vec<(String, Login)>,
    /// Publishers whose messages are stored once, whatever is repeated.
    once: Vec<usize>,
    witness: WitnessPlace,
}

struct WitnessPlace {
    publisher: usize,
    topic: TopicNumber,
    logins: [Login; 3],
    pulse: String,
}

/// What is left of a load that has ended.
pub(crate) struct Ended {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) place: Place,
    /// By tenant: a session that subscribed to everything before anything was published.
    pub(crate) auditors: Vec<(String, Login)>,
    pub(crate) once: Vec<usize>,
}

struct Tenant {
    name: &'static str,
    /// Name and password: two who write, one who reads.
    users: [(&'static str, String); 3],
    conversations: Vec<String>,
}

/// Of each tenant.
const CONVERSATIONS: usize = 3;
const PASSWORD: &str = "of the fire's own";
/// Publishers see through what they sent within this, on a busy machine too.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(90);
/// Subscribers are waited for while they get anything that they had not.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS_IN_VAIN_MAX: u32 = 150;

/// QoS, version, window, and whether messages are named.
const PUBLISHERS: [(QoS, Version, usize, bool); 5] = [
    (QoS::AtLeastOnce, Version::V5, 8, false),
    (QoS::ExactlyOnce, Version::V3, 4, false),
    (QoS::ExactlyOnce, Version::V5, 16, false),
    (QoS::AtLeastOnce, Version::V3, 1, false),
    (QoS::AtLeastOnce, Version::V5, 6, true),
];

/// Which conversation alone, if any, QoS, version, Receive Maximum, and time to think, ms.
const SUBSCRIBERS: [(Option<usize>, QoS, Version, u16, u64); 4] = [
    (None, QoS::ExactlyOnce, Version::V5, 3, 0),
    (None, QoS::AtLeastOnce, Version::V3, 0, 0),
    (Some(0), QoS::AtLeastOnce, Version::V5, 1_000, 60),
    (Some(1), QoS::ExactlyOnce, Version::V3, 0, 0),
];

impl Load {
    pub(crate) async fn begin(house: &House, dice: &mut Dice) -> Self {
        let tenants = [demo(house).await, clinic(house).await];
        let mut topics: Vec<String> = Vec::new();
        for conversation in tenants.iter().flat_map(|tenant| &tenant.conversations) {
            topics.push(format!("c/{conversation}/m"));
        }
        let stored = format!("c/{}/w", tenants[0].conversations[0]);
        topics.push(stored);
        let witness = WitnessPlace {
            publisher: tenants.len() * PUBLISHERS.len(),
            topic: TopicNumber(topics.len() - 1),
            logins: ["talker", "listener", "asker"].map(|device| tenants[0].login(0, device)),
            pulse: format!("c/{}/pulse", tenants[0].conversations[0]),
        };
        let subscribers = tenants.len() * SUBSCRIBERS.len();
        let ledger = Arc::new(Ledger::new(topics, witness.publisher + 1, subscribers));
        let place = Place { address: house.mqtts(), tls: house.tls() };
        let phase = watch::Sender::new(Phase::Running);
        let mut load = Self {
            ledger,
            place,
            phase,
            publishers: JoinSet::new(),
            subscribers: JoinSet::new(),
            awaited: Vec::new(),
            auditors: Vec::new(),
            once: Vec::new(),
            witness,
        };
        // Everybody subscribes before anybody publishes.
        for tenant in &tenants {
            load.subscribe(tenant, dice).await;
        }
        for tenant in &tenants {
            load.publish(tenant, dice);
        }
        load
    }

    async fn subscribe(&mut self, tenant: &Tenant, dice: &mut Dice) {
        let (ledger, place) = (&self.ledger, &self.place);
        let auditor = tenant.login(2, "audit").lasting();
        self.auditors.push((tenant.name.to_owned(), auditor.clone()));
        let audit = Subscriber {
            number: 0,
            login: auditor,
            version: Version::V5,
            filter: "c/#".to_owned(),
            qos: QoS::AtLeastOnce,
            topics: Vec::new(),
            slowness: Duration::ZERO,
            place: place.clone(),
            ledger: ledger.clone(),
            phase: self.phase.subscribe(),
            dice: dice.fork(),
        };
        audit.subscribe().await;
        for (index, (only, qos, version, receive_maximum, slowness_ms)) in SUBSCRIBERS.into_iter().enumerate()
        {
            let filter = match only {
                Some(index) => format!("c/{}/m", tenant.conversations[index]),
                None => "c/+/m".to_owned(),
            };
            let conversations = match only {
                Some(index) => &tenant.conversations[index..=index],
                None => &tenant.conversations[..],
            };
            let login =
                tenant.login(1 + index % 2, &format!("subscriber-{index}")).lasting().version(version);
            let subscriber = Subscriber {
                number: self.awaited.len(),
                login: if receive_maximum > 0 { login.receive_maximum(receive_maximum) } else { login },
                version,
                filter,
                qos,
                topics: self.ledger.topics_of(conversations),
                slowness: Duration::from_millis(slowness_ms),
                place: self.place.clone(),
                ledger: self.ledger.clone(),
                phase: self.phase.subscribe(),
                dice: dice.fork(),
            };
            subscriber.subscribe().await;
            self.awaited.push(subscriber.topics.clone());
            self.subscribers.spawn(subscriber.run());
        }
    }

    fn publish(&mut self, tenant: &Tenant, dice: &mut Dice) {
        let topics = self.ledger.topics_of(&tenant.conversations);
        for (index, (qos, version, window, names_messages)) in PUBLISHERS.into_iter().enumerate() {
            let login = tenant.login(index % 2, &format!("publisher-{index}")).version(version);
            let number = self.publishers.len();
            if names_messages {
                self.once.push(number);
            }
            let publisher = Publisher {
                number,
                login: if names_messages { login.clean_start() } else { login.lasting() },
                version,
                qos,
                topics: topics.clone(),
                window,
                names_messages,
                place: self.place.clone(),
                ledger: self.ledger.clone(),
                phase: self.phase.subscribe(),
                dice: dice.fork(),
            };
            self.publishers.spawn(publisher.run());
        }
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.ledger.complaints()
    }

    pub(crate) fn watch(&self) -> Watch<'_> {
        let WitnessPlace { publisher, topic, logins, pulse } = &self.witness;
        let (place, ledger) = (&self.place, &*self.ledger);
        Watch { place, ledger, publisher: *publisher, topic: *topic, logins, pulse }
    }

    /// Lets everybody finish.
    pub(crate) async fn end(mut self) -> Ended {
        self.phase.send_replace(Phase::Draining);
        let finished = tokio::time::timeout(ACKNOWLEDGED_WITHIN, all_end(&mut self.publishers)).await;
        assert!(finished.is_ok(), "publishers wait in vain for answers: {:#?}", self.ledger.complaints());
        let missing = |number: usize| self.ledger.missing(number, &self.awaited[number]);
        let all_missing = || (0..self.awaited.len()).map(|number| missing(number).len()).sum::<usize>();
        let (mut left, mut looks) = (all_missing(), 0);
        while left > 0 && looks < LOOKS_IN_VAIN_MAX {
            tokio::time::sleep(LOOK_EVERY).await;
            let now_left = all_missing();
            looks = if now_left < left { 0 } else { looks + 1 };
            left = now_left;
        }
        for number in 0..self.awaited.len() {
            let missing = missing(number);
            if let Some(first) = missing.first() {
                let count = missing.len();
                self.ledger.complain(format!("subscriber {number} misses {count}, first {first:?}"));
            }
        }
        self.phase.send_replace(Phase::Over);
        all_end(&mut self.subscribers).await;
        let Self { ledger, place, auditors, once, .. } = self;
        Ended { ledger, place, auditors, once }
    }
}

async fn all_end(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no client panics");
    }
}

impl Tenant {
    fn login(&self, user: usize, device: &str) -> Login {
        let (user, password) = &self.users[user];
        Login::with(&format!("{user}@{}", self.name), &format!("{user}/{device}"), password)
    }
}

async fn demo(house: &House) -> Tenant {
    let users = ["alice", "bob", "carol"];
    let mut conversations = vec![house.conversation()];
    while conversations.len() < CONVERSATIONS {
        conversations.push(house.add_conversation(&users).await);
    }
    Tenant { name: "demo", users: users.map(|user| (user, house.password(user))), conversations }
}

async fn clinic(house: &House) -> Tenant {
    const NAME: &str = "clinic";
    let of = ["--tenant", NAME];
    let users = ["dora", "emil", "fred"];
    house.sotto(&["tenant", "add", NAME]).await;
    for user in users {
        let add = [&["user", "add"], &of[..], &[user, "--password-file", "-"]].concat();
        house.sotto_reading(PASSWORD, &add).await;
    }
    let mut conversations = Vec::new();
    for _ in 0..CONVERSATIONS {
        let made = house.sotto(&[&["conversation", "add"], &of[..]].concat()).await;
        let id = made["id"].as_str().expect("an id").to_owned();
        for user in users {
            let add = [&["member", "add"], &of[..], &["--conversation", &id, user]].concat();
            house.sotto(&add).await;
        }
        conversations.push(id);
    }
    Tenant { name: NAME, users: users.map(|user| (user, PASSWORD.to_owned())), conversations }
}

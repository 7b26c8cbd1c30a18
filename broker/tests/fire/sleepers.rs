//! Phones that sleep while the broker is killed: who is behind is woken, by one push, and one more a kill.

use std::time::Duration;

use sotto_model::{PacketId, QoS};
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Packet, Publish, Version};

use crate::dice::Dice;
use crate::link::{Link, Place};
use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::patience::until_within;
use crate::support::phone::{Heard, Login, ack};
use crate::support::push_service::PushService;
use crate::world::World;

/// Kills while messages are published, of the broker alone or of its database as well.
const KILLS_DEFAULT: usize = 3;
const SLEEPERS: usize = 12;
/// One in so many stays asleep for another round.
const SLEEPS_ON_ONE_IN: u64 = 3;
/// One in so many pushes is refused by a busy service.
const REFUSED_ONE_IN: usize = 7;
const MESSAGES: u64 = 5;
/// A claim of a process that died is another's after a minute; a push that was refused is tried again within 10 s.
const WOKEN_WITHIN: Duration = Duration::from_secs(150);
/// A session that has heard nothing for so long has heard all.
const QUIET: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sleeps_behind_is_woken_on_sqlite() {
    Box::pin(sleep_through(Kind::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sleeps_behind_is_woken_on_postgres() {
    Box::pin(sleep_through(Kind::Postgres)).await;
}

struct Sleeper {
    login: Login,
    version: Version,
    path: String,
    asleep: bool,
    /// Pushes accepted by the time that it fell asleep.
    pushes_before: usize,
    /// Kills while it slept.
    kills: usize,
}

async fn sleep_through(kind: Kind) {
    let _turn = crate::take_turn().await;
    let kills =
        crate::number("SOTTO_FIRE_WAKEUPS").map_or(KILLS_DEFAULT, |kills| kills.try_into().expect("a count"));
    let seed = crate::number("SOTTO_FIRE_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("{kind:?}: SOTTO_FIRE_SEED={seed}");
    let mut dice = Dice::new(seed);
    let service = PushService::start_refusing_one_in(REFUSED_ONE_IN).await;
    let mut world = World::create(kind).await;
    let config = service.config(world.house.folder());
    world.house.configure(config);
    world.house.start().await;
    let place = Place { address: world.house.mqtts(), tls: world.house.tls() };
    let topic = world.house.topic();
    let alice = Login::of(&world.house, "alice", "phone");
    let mut sleepers = Vec::new();
    for number in 0..SLEEPERS {
        sleepers.push(Sleeper::register(&world.house, &service, number).await);
    }

    for kill in 0..kills {
        for sleeper in &mut sleepers {
            if !sleeper.asleep || !dice.one_in(SLEEPS_ON_ONE_IN) {
                sleeper.comes_back(&place).await;
                sleeper.falls_asleep(&service);
            }
            sleeper.kills += 1;
        }
        let messages = 1 + dice.below(MESSAGES);
        let after = dice.millis(0, 400);
        let with_database = kind == Kind::Postgres && dice.one_in(2);
        let publishing = publish(&place, &alice, &topic, messages);
        let killing = async {
            tokio::time::sleep(after).await;
            world.house.kill().await;
            if with_database {
                world.restart_server();
            }
            world.house.start().await;
        };
        tokio::join!(publishing, killing);
        until_within(WOKEN_WITHIN, "everybody is woken", async || {
            sleepers.iter().all(|sleeper| sleeper.woken(&service) >= 1)
        })
        .await;
        // Nobody more often than that, and nobody again.
        for sleeper in &sleepers {
            let woken = sleeper.woken(&service);
            assert!(woken <= 1 + sleeper.kills, "{kind:?}, seed {seed}, kill {kill}: woken {woken} times");
        }
    }
    let requests = service.requests();
    let woken = requests.iter().filter(|request| request.accepted).count();
    let refused = requests.len() - woken;
    let repeated: usize = sleepers.iter().map(|sleeper| sleeper.woken(&service).saturating_sub(1)).sum();
    println!(
        "{kind:?}, seed {seed}: {kills} kills, {SLEEPERS} sleepers; {woken} pushes taken, {refused} refused, \
         {repeated} repeated in the last sleep; not woken 0"
    );
    assert_eq!(world.house.terminate().await.code(), Some(0));
}

/// Each message until it is acknowledged.
async fn publish(place: &Place, alice: &Login, topic: &str, messages: u64) {
    let mut left = messages;
    while left > 0 {
        let Some((mut link, _)) = Link::connect(place, alice, Version::V5).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while left > 0 {
            let packet_id = PacketId::FIRST;
            link.send(&Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic,
                packet_id: Some(packet_id),
                properties: Properties::EMPTY,
                payload: b"of the night",
            }))
            .await;
            match link.next().await {
                Heard::PubAck(answered, reason) => {
                    assert_eq!(answered, packet_id);
                    assert!(!reason.is_error(), "{reason:?}");
                    left -= 1;
                }
                _ => break,
            }
        }
    }
}

impl Sleeper {
    /// By its own hand, in either version of MQTT.
    async fn register(house: &House, service: &PushService, number: usize) -> Self {
        let version = if number.is_multiple_of(2) { Version::V3 } else { Version::V5 };
        let login = Login::of(house, "bob", &format!("sleeper-{number}")).version(version).lasting();
        let path = format!("/push/{number}-");
        let mut phone = login.connect(house).await;
        assert!(phone.subscribe("c/+/m", QoS::AtLeastOnce).await < 0x80);
        let registration =
            serde_json::json!({"platform": "unified_push", "endpoint": service.endpoint_at(&path)});
        phone.publish("$sotto/push", registration.to_string().as_bytes(), QoS::AtLeastOnce).await;
        phone.disconnect().await;
        Self { login, version, path, asleep: false, pushes_before: 0, kills: 0 }
    }

    /// Takes all that it was left, and leaves.
    async fn comes_back(&self, place: &Place) {
        let (mut link, present) = loop {
            match Link::connect(place, &self.login, self.version).await {
                Some(connected) => break connected,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        assert!(present);
        while let Ok(heard) = tokio::time::timeout(QUIET, link.next()).await {
            let Heard::Publish(message) = heard else { panic!("heard {heard:?}") };
            let packet_id = message.packet_id.expect("QoS 1");
            link.send(&Packet::PubAck(ack(packet_id))).await;
        }
        link.disconnect().await;
    }

    fn falls_asleep(&mut self, service: &PushService) {
        self.asleep = true;
        self.pushes_before = service.accepted(&self.path);
        self.kills = 0;
    }

    /// Pushes that were accepted since it fell asleep.
    fn woken(&self, service: &PushService) -> usize {
        service.accepted(&self.path) - self.pushes_before
    }
}

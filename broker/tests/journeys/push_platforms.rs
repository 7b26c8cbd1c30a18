//! Every push service, through the real broker: what they are told, and what their faults do.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use h2::Reason;
use sotto_model::{QoS, UnixMillis};
use sotto_mqtt::codec::properties::{Property, PropertyBuf};
use sotto_mqtt::packet::{Packet, Publish};
use sotto_push_emulators::{Answer, Fault, Request};

use crate::support::database::{Database, Kind as Store};
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::patience::{SOON, until};
use crate::support::phone::{Login, Phone};
use crate::support::push_platforms::{Kind, PushPlatforms, token, write_apns_key};

on_both_stores!(
    ten_thousand_messages_are_one_body_to_each_push_service,
    a_credential_that_is_refused_loses_no_wakeup_and_its_change_needs_no_restart,
    a_service_that_stalls_or_refuses_holds_up_no_other,
);

const CLINICS: usize = 3;
const NURSES: usize = 2;
const ROUNDS: usize = 10;
/// In all, of many senders, conversations, topics and sizes.
const MESSAGES: usize = 10_000;
const PAYLOAD_BYTES_MAX: usize = 2_500;
/// Sent before the first answer is waited for.
const WINDOW: usize = 100;
const CANARY: &str = "canary-the-patient-is-well";
const PASSWORD: &str = "canary-password";

async fn with_push(store: Store, platforms: &PushPlatforms) -> House {
    let mut house = House::closed(Database::create(store).await, "");
    house.configure(platforms.config(house.folder()));
    house.start().await;
    platforms.subscribe_browsers(&house).await;
    house
}

struct Clinic {
    name: String,
    conversations: Vec<String>,
    ids: Vec<String>,
}

/// Users that write, and users whose phones sleep.
async fn clinic(house: &House, number: usize) -> Clinic {
    let name = format!("canaryclinic{number}");
    house.sotto(&["tenant", "add", &name]).await;
    let of = ["--tenant", &name];
    let mut ids = Vec::new();
    let users: Vec<String> = (0..NURSES)
        .flat_map(|nurse| [format!("canarywriter{nurse}"), format!("canarynurse{nurse}")])
        .collect();
    for user in &users {
        let add = ["user", "add", of[0], of[1], user, "--password-file", "-"];
        let made = house.sotto_reading(PASSWORD, &add).await;
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }
    let mut conversations = Vec::new();
    for _ in 0..3 {
        let made = house.sotto(&["conversation", "add", of[0], of[1]]).await;
        let id = made["id"].as_str().expect("an id").to_owned();
        for user in &users {
            house.sotto(&["member", "add", of[0], of[1], "--conversation", &id, user]).await;
        }
        conversations.push(id);
    }
    Clinic { name, conversations, ids }
}

impl Clinic {
    fn login(&self, user: &str, device: &str) -> Login {
        Login::with(&format!("{user}@{}", self.name), &format!("{user}/{device}"), PASSWORD)
    }
}

/// A phone, where it is known to its push service by a number.
struct Sleeper {
    login: Login,
    kind: Kind,
    number: usize,
}

async fn ten_thousand_messages_are_one_body_to_each_push_service(store: Store) {
    let platforms = PushPlatforms::start().await;
    let mut house = with_push(store, &platforms).await;
    let mut clinics = Vec::new();
    let mut sleepers = Vec::new();
    for number in 0..CLINICS {
        let clinic = clinic(&house, number).await;
        for nurse in 0..NURSES {
            for kind in Kind::ALL {
                let login =
                    clinic.login(&format!("canarynurse{nurse}"), &format!("canary{kind:?}").to_lowercase());
                let number = sleepers.len();
                sleepers.push(Sleeper { login: login.lasting(), kind, number });
            }
        }
        clinics.push(clinic);
    }
    let mut dice = Lcg(7);
    for round in 1..=ROUNDS {
        for sleeper in &sleepers {
            let mut phone = sleeper.login.connect(&house).await;
            if round == 1 {
                // To little of what wakes it, so that it comes back soon.
                phone.subscribe("c/+/canary-roll-call", QoS::AtLeastOnce).await;
                let registration = platforms.registration(sleeper.kind, sleeper.number);
                phone.publish("$sotto/push", &registration, QoS::AtLeastOnce).await;
            }
            phone.disconnect().await;
        }
        for (number, clinic) in clinics.iter().enumerate() {
            let per_round = MESSAGES / ROUNDS;
            let share = per_round / CLINICS + usize::from(number < per_round % CLINICS);
            let writer = clinic.login(&format!("canarywriter{}", dice.below(NURSES)), "canarydesk");
            let mut writer = writer.connect(&house).await;
            write(&mut writer, clinic, share, &mut dice).await;
            writer.disconnect().await;
        }
        for sleeper in &sleepers {
            platforms.comes_to(sleeper.kind, sleeper.number, round, SOON).await;
        }
    }
    for kind in Kind::ALL {
        let requests: Vec<Request> = platforms
            .requests(kind)
            .into_iter()
            .filter(|request| !request.path.starts_with("/token"))
            .collect();
        assert_eq!(requests.len(), CLINICS * NURSES * ROUNDS, "{kind:?}");
        let distinct: BTreeSet<Request> =
            requests.iter().map(|request| without_token(request, kind)).collect();
        assert_eq!(distinct.len(), 1, "{kind:?}: {distinct:#?}");
    }
    // The other class, asked for by hand: each device again.
    for sleeper in &sleepers {
        let (user, device) = sleeper.login.named();
        let of = ["--tenant", &user.1, "--user", &user.0, "--device", &device];
        assert_eq!(
            house.sotto(&[&["push", "test", "--low"][..], &of].concat()).await["outcome"],
            "delivered"
        );
    }
    let devices = CLINICS * NURSES;
    let mut canaries: Vec<String> = ["canary", "password"].map(str::to_owned).to_vec();
    canaries
        .extend(clinics.iter().flat_map(|clinic| clinic.conversations.iter().chain(&clinic.ids).cloned()));
    for clinic in &clinics {
        let rows = house.sotto(&["push", "list", "--tenant", &clinic.name]).await;
        canaries.extend(
            rows.as_array().expect("rows").iter().map(|row| row["device"].to_string().replace('"', "")),
        );
    }
    for kind in Kind::ALL {
        let requests = platforms.requests(kind);
        let mut pushes: Vec<&Request> =
            requests.iter().filter(|request| !request.path.starts_with("/token")).collect();
        let low = pushes.split_off(pushes.len() - devices);
        let distinct: BTreeSet<Request> = low.iter().map(|request| without_token(request, kind)).collect();
        assert_eq!(distinct.len(), 1, "{kind:?}: {distinct:#?}");
        let bodies: BTreeSet<Vec<u8>> =
            pushes.iter().map(|request| without_token(request, kind).body).collect();
        assert_eq!(bodies.len(), 1, "{kind:?}");
        for request in &requests {
            let text = format!("{request:?}{}", in_the_clear(request)).to_lowercase();
            for canary in &canaries {
                assert!(!text.contains(canary), "{canary} in {text}");
            }
        }
    }
    // Nor is a token anywhere but in its own request.
    let metrics = house.metrics().await.text().to_owned();
    assert_eq!(house.terminate().await.code(), Some(0));
    let printed = house.printed();
    for sleeper in &sleepers {
        let token = token(sleeper.kind, sleeper.number);
        for text in [&metrics, &printed] {
            assert!(!text.contains(&token) && !text.contains("canary"), "{text}");
        }
    }
}

/// QoS 1, many on their way at once, with canaries in every field there is.
async fn write(writer: &mut Phone, clinic: &Clinic, messages: usize, dice: &mut Lcg) {
    let mut left = messages;
    while left > 0 {
        let window = left.min(WINDOW);
        let mut sent = Vec::new();
        for _ in 0..window {
            let conversation = &clinic.conversations[dice.below(clinic.conversations.len())];
            let topic = format!("c/{conversation}/canary-topic-{}", dice.below(5));
            let payload = CANARY.repeat(1 + dice.below(PAYLOAD_BYTES_MAX / CANARY.len()));
            let mut properties = PropertyBuf::new();
            properties
                .push(Property::UserProperty("canary-name", CANARY))
                .push(Property::ContentType(CANARY))
                .push(Property::ResponseTopic("canary/response"))
                .push(Property::CorrelationData(CANARY.as_bytes()));
            let packet_id = writer.packet_id();
            let publish = Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: &topic,
                packet_id: Some(packet_id),
                properties: properties.as_properties(),
                payload: payload.as_bytes(),
            };
            writer.send(&Packet::Publish(publish)).await;
            sent.push(packet_id);
        }
        for packet_id in sent {
            assert!(!writer.answer(packet_id).await.is_error());
        }
        left -= window;
    }
}

/// What remains is to be the same for all: not whose device it is, nor our credential and the day of its end.
fn without_token(request: &Request, kind: Kind) -> Request {
    let mut request = request.clone();
    request.headers.retain(|(name, _)| name != "authorization" && name != "apns-expiration");
    match kind {
        Kind::Fcm => {
            let body = String::from_utf8(request.body).expect("JSON");
            let (before, rest) = body.split_once("\"token\":\"").expect("a token");
            let (_, after) = rest.split_once('"').expect("its end");
            request.body = format!("{before}\"token\":\"T\"{after}").into_bytes();
        }
        Kind::Apns | Kind::Web | Kind::Unified => {
            let (path, _) = request.path.rsplit_once('/').expect("a token");
            request.path = path.to_owned();
        }
    }
    request
}

/// Header values and bodies that hold base64: what JWTs say.
fn in_the_clear(request: &Request) -> String {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let values = request.headers.iter().map(|(_, value)| value.as_str()).chain([body.as_str()]);
    let parts = values.flat_map(|value| value.split(['.', ' ', '=', ',', '&']));
    let decoded = parts.filter_map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
    decoded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

/// A phone of bob's, registered by its own hand and asleep.
async fn asleep(house: &House, platforms: &PushPlatforms, kind: Kind, number: usize) -> Login {
    let login = Login::of(house, "bob", &format!("phone-{number}")).lasting();
    let mut phone = login.connect(house).await;
    phone.subscribe("c/+/m", QoS::AtLeastOnce).await;
    phone.publish("$sotto/push", &platforms.registration(kind, number), QoS::AtLeastOnce).await;
    phone.disconnect().await;
    login
}

async fn breaker(house: &House, lane: &str) -> (String, String) {
    let status = house.sotto(&["push", "status"]).await;
    let rows = status.as_array().expect("rows");
    let row =
        rows.iter().find(|row| row["lane"].as_str().expect("a name").starts_with(lane)).expect("a lane");
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("breaker"), text("last_failure"))
}

async fn a_credential_that_is_refused_loses_no_wakeup_and_its_change_needs_no_restart(store: Store) {
    let platforms = PushPlatforms::start().await;
    let house = with_push(store, &platforms).await;
    asleep(&house, &platforms, Kind::Apns, 1).await;
    let key = platforms.apns.rules.replace_key();
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&house.topic(), b"x", QoS::AtLeastOnce).await;
    until("the lane is closed", async || breaker(&house, "apns").await.0 != "closed").await;
    assert!(!breaker(&house, "apns").await.1.is_empty());
    assert_eq!(platforms.delivered(Kind::Apns, 1), 0);
    // Rubbish changes nothing, and a right key all.
    write_apns_key(house.folder(), "no key at all");
    until("it is said", async || house.printed().contains("apns.p8")).await;
    assert_eq!(platforms.delivered(Kind::Apns, 1), 0);
    write_apns_key(house.folder(), &key);
    platforms.comes_to(Kind::Apns, 1, 1, SOON).await;
    until("the lane is open again", async || breaker(&house, "apns").await.0 == "closed").await;
    assert!(house.sotto(&["push", "dead-letters"]).await.as_array().expect("rows").is_empty());
}

async fn a_service_that_stalls_or_refuses_holds_up_no_other(store: Store) {
    let platforms = PushPlatforms::start().await;
    let house = with_push(store, &platforms).await;
    let kinds = [Kind::Apns, Kind::Apns, Kind::Fcm, Kind::Fcm, Kind::Web, Kind::Web, Kind::Unified];
    for (number, kind) in kinds.into_iter().enumerate() {
        asleep(&house, &platforms, kind, number).await;
    }
    // Of two devices each, one is dead; another service answers nothing; streams are refused and sent again.
    platforms.apns.rules.script.add(Fault::Reset(Reason::REFUSED_STREAM));
    platforms.apns.rules.unregister(&token(Kind::Apns, 0), UnixMillis(u64::MAX / 2));
    platforms.fcm.server.delay(Duration::from_mins(1));
    platforms.web.rules.unsubscribe(&token(Kind::Web, 4));
    platforms.web.rules.script.add(Fault::Answer(Answer::status(503).with_header("retry-after", "1")));
    let mut alice = Login::of(&house, "alice", "phone").connect(&house).await;
    alice.publish(&house.topic(), b"x", QoS::AtLeastOnce).await;
    for (kind, number) in [(Kind::Unified, 6), (Kind::Apns, 1)] {
        platforms.comes_to(kind, number, 1, Duration::from_secs(9)).await;
    }
    platforms.comes_to(Kind::Web, 5, 1, SOON).await;
    until("the dead are not registered any more", async || {
        house.sotto(&["push", "list", "--tenant", "demo"]).await.as_array().expect("rows").len() == 5
    })
    .await;
    assert_eq!(platforms.delivered(Kind::Fcm, 2) + platforms.delivered(Kind::Fcm, 3), 0);
    platforms.fcm.server.delay(Duration::ZERO);
    for number in [2, 3] {
        until("what was stalled comes, too", async || platforms.delivered(Kind::Fcm, number) >= 1).await;
    }
    // While nothing of it was felt by who is connected.
    let mut bob = Login::of(&house, "bob", "tablet").connect(&house).await;
    bob.subscribe("c/+/m", QoS::AtLeastOnce).await;
    alice.publish(&house.topic(), b"live", QoS::AtLeastOnce).await;
    assert_eq!(bob.receive().await.text(), "live");
}

/// Numbers that are the same in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

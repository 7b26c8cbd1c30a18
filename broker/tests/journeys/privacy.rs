//! Nothing readable leaves: canaries in everything a client says, and a search wherever it might turn up.

use std::path::Path;

use sotto_model::QoS;
use sotto_mqtt::codec::properties::{Property, PropertyBuf};
use sotto_mqtt::packet::{Packet, Publish};

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::on_both_stores;
use crate::support::phone::{Heard, LastWill, Login};
use crate::support::push_service::PushService;

on_both_stores!(what_clients_say_is_nowhere_in_the_clear);

const PAYLOAD: &str = "canary-payload-the-patient-is-well";
const RETAINED: &str = "canary-retained-the-patient-is-better";
const PROPERTY: &str = "canary-property-of-a-user";
const WILL: &str = "canary-will-the-patient-is-gone";
const PASSWORD: &str = "canary-password-of-a-user";
const PUSH: &str = "canary-push-endpoint";
const USER: &str = "canaryuser";
const TENANT: &str = "canarytenant";
const DEVICE: &str = "canarydevice";
const TOPIC_LEVEL: &str = "canarytopic";

async fn what_clients_say_is_nowhere_in_the_clear(kind: Kind) {
    let service = PushService::start().await;
    let mut house = House::open(kind).await;
    let conversation = furnish(&house).await;
    let topic = format!("c/{conversation}/{TOPIC_LEVEL}");
    let username = format!("{USER}@{TENANT}");
    let phone = Login::with(&username, &format!("{USER}/{DEVICE}"), PASSWORD).lasting();
    let mut receiving = phone.connect(&house).await;
    receiving.subscribe(&topic, QoS::AtLeastOnce).await;
    let sender = Login::with(&username, &format!("{USER}/sender"), PASSWORD);
    let will = LastWill {
        topic: topic.clone(),
        payload: WILL.as_bytes().to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
    };
    let mut sending = sender.clone().will(will).connect(&house).await;
    let mut properties = PropertyBuf::new();
    properties.push(Property::UserProperty("canary", PROPERTY)).push(Property::ContentType(PROPERTY));
    for (payload, retain) in [(PAYLOAD, false), (RETAINED, true)] {
        let packet_id = sending.packet_id();
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain,
            topic: &topic,
            packet_id: Some(packet_id),
            properties: properties.as_properties(),
            payload: payload.as_bytes(),
        };
        sending.send(&Packet::Publish(publish)).await;
        // The control: whoever may read it, reads it.
        let message = receiving.receive().await;
        assert_eq!((message.text().as_str(), message.user_property("canary")), (payload, Some(PROPERTY)));
    }
    sending.vanish();
    assert_eq!(receiving.receive().await.text(), WILL);
    receiving.disconnect().await;
    provoke(&house, &service, &phone, &topic).await;

    let metrics = house.metrics().await.text().to_owned();
    let secret = [PAYLOAD, RETAINED, PROPERTY, WILL, PASSWORD, PUSH];
    let private = [USER, TENANT, DEVICE, TOPIC_LEVEL, conversation.as_str()];
    let open = [secret.to_vec(), private.to_vec()].concat();
    the_search_finds_what_is_planted(&house);
    // While it runs, with all that is not yet in the database's main file; and after a restart and an end.
    search_store(&house, &secret);
    house.kill_and_start().await;
    search_store(&house, &secret);
    assert_eq!(house.terminate().await.code(), Some(0));
    search_store(&house, &secret);
    let printed = house.printed();
    assert!(printed.contains("shutting_down"), "{printed}");
    for canary in &open {
        assert!(!holds(printed.as_bytes(), canary), "{canary} in what was printed: {printed}");
        assert!(!holds(metrics.as_bytes(), canary), "{canary} in the metrics: {metrics}");
    }
}

/// A tenant of canaries, made by the command line; its conversation.
async fn furnish(house: &House) -> String {
    house.sotto(&["tenant", "add", TENANT]).await;
    let of = ["--tenant", TENANT];
    house.sotto_reading(PASSWORD, &["user", "add", of[0], of[1], USER, "--password-file", "-"]).await;
    let made = house.sotto(&["conversation", "add", of[0], of[1]]).await;
    let conversation = made["id"].as_str().expect("an id").to_owned();
    house.sotto(&["member", "add", of[0], of[1], "--conversation", &conversation, USER]).await;
    conversation
}

/// Makes everything fail that may be logged.
async fn provoke(house: &House, service: &PushService, phone: &Login, topic: &str) {
    let username = format!("{USER}@{TENANT}");
    let client_id = format!("{USER}/{DEVICE}");
    assert!(Login::with(&username, &client_id, PAYLOAD).try_connect(house).await.is_err());
    assert!(phone.clone().client_id(PAYLOAD).try_connect(house).await.is_err());
    let mut outside = phone.connect(house).await;
    assert!(
        outside
            .subscribe(&format!("c/4d3c2b1a-0000-4000-8000-000000000000/{TOPIC_LEVEL}"), QoS::AtLeastOnce)
            .await
            >= 0x80
    );
    outside.send_publish(&format!("{TOPIC_LEVEL}/#/{PAYLOAD}"), PAYLOAD.as_bytes(), QoS::AtLeastOnce).await;
    outside.expect(Heard::Closed).await;
    let mut broken = phone.connect(house).await;
    broken.send_bytes(&[&[0x36, 0x30][..], topic.as_bytes()].concat()).await;
    // An endpoint at a place that pushes may not go to, registered directly.
    let endpoint = format!("{}-{PUSH}", service.endpoint().replace("localhost", "push.invalid"));
    let of = ["--tenant", TENANT, "--user", USER, "--device", DEVICE];
    house.sotto(&[&["push", "register"][..], &of, &["--endpoint", &endpoint]].concat()).await;
}

fn search_store(house: &House, canaries: &[&str]) {
    for canary in canaries {
        assert_eq!(files_that_hold(&house.data(), canary), Vec::<String>::new(), "{canary}");
    }
    let Some(dump) = house.database.dump() else { return };
    for canary in canaries {
        assert!(!holds(&dump, canary), "{canary} in the dump");
    }
}

/// The control: the search finds a canary that is planted, in a file, as text and as binary in the dump.
fn the_search_finds_what_is_planted(house: &House) {
    const PLANTED: &str = "canary-that-was-planted";
    let file = house.data().join("demo").join("planted");
    std::fs::write(&file, format!("between {PLANTED} others")).expect("plant a canary");
    assert_eq!(files_that_hold(&house.data(), PLANTED), [file.display().to_string()]);
    std::fs::remove_file(file).expect("take the canary away");
    if house.database.url().is_none() {
        // In the database's own files: what it may hold in the clear.
        assert!(!files_that_hold(&house.data(), USER).is_empty());
        return;
    }
    for column in ["text", "bytea"] {
        house.database.run(&format!("CREATE TABLE planted AS SELECT '{PLANTED}'::{column} AS canary"));
        assert!(holds(&house.database.dump().expect("PostgreSQL"), PLANTED), "{column}");
        house.database.run("DROP TABLE planted");
    }
}

fn files_that_hold(folder: &Path, canary: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_that_hold(&path, canary));
        } else if holds(&std::fs::read(&path).expect("read a file"), canary) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// As text, or in the hexadecimal digits of a dump.
fn holds(haystack: &[u8], canary: &str) -> bool {
    use std::fmt::Write;
    let hex = canary.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    [canary.as_bytes(), hex.as_bytes()]
        .iter()
        .any(|needle| haystack.windows(needle.len()).any(|window| window == *needle))
}

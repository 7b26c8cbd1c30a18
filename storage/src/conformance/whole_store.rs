//! A store with something of everything in it, and what a check of it finds.

use std::sync::Arc;
use std::time::Instant;

use sotto_keyring::{Keyring, KeyringLimits, LocalKms, PlainKey, SecretPurpose};
use sotto_model::{
    Clock, Cursor, Offset, PacketId, QoS, RetainHandling, Subscription, SubscriptionOptions, UnixMillis,
};
use zeroize::Zeroizing;

use super::fixture::{Fixture, NOW, Person, filter, topic};
use crate::message_log::{Append, RetainChange};
use crate::push_registry::PushRegistration;
use crate::session_store::{Inflight, OpenSession, SessionOp, SessionProgress};
use crate::store_check::{Extent, FindingKind, Report, StoreCheck, VerifyError, verify};
use crate::wills::KeptWill;

/// The root key under which [`Fixture`] seals.
pub const ROOT_KEY: [u8; 32] = [7; 32];

/// Five messages in the ward and one retained in the lab; bob sleeps behind, with one message in flight and a
/// wakeup due; carol is connected, with a will and a QoS 2 message whose PUBREL has not come.
pub async fn populate(fixture: &Fixture) {
    let ward = fixture.ward_topic();
    for _ in 0..4 {
        fixture.publish(&fixture.alice, &ward).await;
    }
    let retained = Append {
        retain: RetainChange::Set,
        wakes: None,
        ..fixture.message(&fixture.robot, &topic("machines/1")).await
    };
    fixture.append(vec![retained]).await;

    register(fixture, &fixture.bob).await;
    let bob = fixture.connect(&fixture.bob).await;
    let subscription = Subscription {
        filter: filter("c/+/m"),
        options: SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        },
        identifier: Some(1),
        since: Offset(0),
    };
    fixture.apply(SessionOp::Subscribe(bob, vec![subscription])).await;
    let inflight = Inflight {
        packet_id: PacketId::FIRST,
        offset: Offset(2),
        qos: QoS::AtLeastOnce,
        retain: false,
        released: false,
    };
    let progress =
        SessionProgress { cursor: Cursor(Offset(2)), inflight: vec![inflight], ..SessionProgress::default() };
    fixture.close_with(bob, progress).await;

    let will = KeptWill {
        sealed: fixture.seal(&fixture.carol, &ward, b"gone").await,
        client_id: fixture.carol.principal.client_id.clone(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_seconds: 0,
        message_expiry_seconds: None,
    };
    let opening = OpenSession { will: Some(Box::new(will)), ..fixture.opening(&fixture.carol) };
    let carol = fixture.open_session(opening).await.session;
    let exactly_once = Append {
        qos: QoS::ExactlyOnce,
        exactly_once: Some((carol.id, PacketId::FIRST)),
        ..fixture.message(&fixture.carol, &ward).await
    };
    fixture.append(vec![exactly_once]).await;
}

/// With a token that opens.
async fn register(fixture: &Fixture, person: &Person) {
    let sealed_token = fixture
        .keyring
        .seal_secret(fixture.clinic, SecretPurpose::PushToken, person.device.0, b"token", Still.now())
        .await
        .expect("seal a token");
    let registration = PushRegistration { sealed_token, ..fixture.registration(person) };
    fixture.store.register(&registration, None).await.expect("register");
}

/// As a process that has just started would check it.
pub async fn check(
    store: Arc<dyn StoreCheck>,
    root_key: [u8; 32],
    extent: Extent,
) -> Result<Report, VerifyError> {
    let kms = LocalKms::from_root_key(&PlainKey::new(Zeroizing::new(root_key)));
    let keyring = Keyring::new(Arc::new(kms), store.clone(), KeyringLimits::default(), Still.now());
    verify(&*store, Some(&keyring), &Still, extent, &mut |_| ()).await
}

/// The kinds of what is wrong, and how many of each.
pub async fn findings(store: Arc<dyn StoreCheck>) -> Vec<(FindingKind, u64)> {
    let report = check(store, ROOT_KEY, Extent::All).await.expect("the check comes to its end");
    report.findings.iter().map(|(kind, count, _)| (kind, count)).collect()
}

struct Still;

impl Clock for Still {
    #[expect(clippy::disallowed_methods, reason = "the age of keys in memory plays no part in any case")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_now(&self) -> UnixMillis {
        NOW
    }

    fn draw(&self) -> u64 {
        0
    }
}

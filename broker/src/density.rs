//! What a connected session costs, measured without sockets: as many as memory holds in one process, each with
//! TLS 1.3, a session that is stored and one subscription.
//!
//! ```text
//! SOTTO_SESSIONS=1000000 cargo test --release -p sotto density -- --nocapture
//! ```
//!
//! Of a phone only its keys are kept, and its end of a pipe that is empty while nobody says anything. What they
//! take is told apart. A socket would add 256 bytes of tokio's, and the kernel's own.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::aead;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::cipher::{AeadKey, Iv, Nonce, make_tls13_aad};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, ServerConfig};
use sotto_keyring::{Keyring, KeyringLimits, LocalKms, PlainKey};
use sotto_model::{ClientLimits, Clock, PacketId, QoS, RetainHandling, SubscriptionOptions, TopicPolicy};
use sotto_mqtt::codec::properties::{Properties, Property, PropertyBuf};
use sotto_mqtt::packet::{Connect, Packet, Publish, Subscribe, SubscribeFilters, Version};
use sotto_sqlite::SqliteStore;
use sotto_storage::retention::RetentionPolicy;
use sotto_wakeup::{PushOutcome, Pusher, Wakeup};
use zeroize::Zeroizing;

use crate::admission::{AddressLimits, AdmissionLimits, FailedLoginLimits};
use crate::clock::SystemClock;
use crate::connection::Connection;
use crate::cpu_use::cpu_used;
use crate::listener_name::ListenerName;
use crate::node::{Node, Parts};
use crate::push_services::PushServices;
use crate::socket::Socket;
use crate::socket::pipe::Pipe;
use crate::tls::{ClientCertificate, LiveTls, RecordLayer, TicketRoot, TlsFiles};
use crate::transport::Transport;

/// Handshakes at a time, as a node of two cores has them.
const HANDSHAKES: usize = 256;
/// Sessions that subscribe to one topic together.
const LISTENERS_MAX: usize = 10_000;
/// Longest that anything is waited for.
const LONGEST: Duration = Duration::from_mins(30);
const PINGREQ: &[u8] = &[0xc0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn sessions_without_sockets_answer_and_are_reached() {
    let wanted = std::env::var("SOTTO_SESSIONS").ok().map_or(1000, |count| count.parse().expect("a number"));
    let house = House::build(wanted).await;
    let mut phones: Vec<Phone> = Vec::new();
    let mut first: Option<(usize, u64)> = None;
    let mut step = 1000.min(wanted);
    while phones.len() < wanted {
        let began = cpu();
        house.connect(&mut phones, step).await;
        // What is given back after a burst is not the sessions'.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let rss = resident_bytes();
        let sessions = phones.len();
        let per_connect = micros(began.elapsed()) / count(step);
        say(&format!(
            "{sessions} sessions: {} MiB, {per_connect:.0} µs of both ends' CPU a connect",
            rss >> 20
        ));
        match first {
            None => first = Some((sessions, rss)),
            Some((from, before)) => {
                let bytes = count(usize::try_from(rss.saturating_sub(before)).expect("64 bits"));
                let each = bytes / count(sessions - from);
                let own = size_of::<Phone>() + Pipe::BYTES;
                say(&format!(
                    "  {each:.0} bytes a session since {from}, of which {own} are the phone's and the pipe's"
                ));
            }
        }
        house.look_around(&mut phones).await;
        step = (phones.len() * 9).min(wanted - phones.len());
    }
    for phone in &phones {
        phone.pipe.close();
    }
    house.until_gone().await;
}

struct House {
    node: Node,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

/// What is kept of a phone.
struct Phone {
    pipe: Pipe,
    key: AeadKey,
    iv: Iv,
    sequence: u64,
}

impl House {
    async fn build(sessions: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate_file, key_file) = (folder.path().join("certificate"), folder.path().join("key"));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        std::fs::write(&certificate_file, certificate.pem()).expect("write");
        std::fs::write(&key_file, key.serialize_pem()).expect("write");
        let clock = Arc::new(SystemClock::new());
        let files = TlsFiles {
            certificate: certificate_file,
            key: key_file,
            client_certificate: ClientCertificate::Off,
            client_ca: None,
            client_crl: None,
        };
        let root = TicketRoot::open_or_make(&folder.path().join("ticket.key")).expect("a root");
        let server = LiveTls::load(files, root, clock.clone()).expect("a configuration").current();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a certificate");
        let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client.resumption = rustls::client::Resumption::disabled();

        let store = Arc::new(SqliteStore::open(&folder.path().join("sotto.db")).await.expect("a store"));
        let kms = Arc::new(LocalKms::from_root_key(&PlainKey::new(Zeroizing::new([7; 32]))));
        let keyring = Keyring::new(kms, store.clone(), KeyringLimits::default(), clock.now());
        let parts = Parts {
            store,
            keyring,
            clock,
            push: PushServices::through(Arc::new(Nobody)),
            limits: ClientLimits { sessions_per_tenant_max: sessions, ..ClientLimits::DEFAULT },
            admission: AdmissionLimits {
                connections_max: sessions,
                handshakes_max: HANDSHAKES,
                handshake_steps_max: HANDSHAKES,
                memory_bytes_max: None,
                addresses: AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 0 },
                failed_logins: FailedLoginLimits { failures_max: 0, window_seconds: 0 },
            },
            retention: RetentionPolicy::default(),
            configured_rules: Arc::new([]),
            nobody_key: Zeroizing::new(Vec::new()),
            password_checks: 1,
        };
        let node = Node::start(parts, async |operations| {
            operations.add_tenant("lab", TopicPolicy::Open).await.expect("a tenant");
            let tenants = operations.store.snapshot().await.expect("the directory").tenants;
            Ok(tenants.first().map(|tenant| tenant.id))
        })
        .await
        .expect("a node");
        Self { node, server, client: Arc::new(client), _folder: folder }
    }

    async fn connect(&self, phones: &mut Vec<Phone>, more: usize) {
        let next = AtomicUsize::new(phones.len());
        let end = phones.len() + more;
        let one_after_another = || async {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return mine;
                }
                mine.push((number, self.arrive(number).await));
            }
        };
        phones.reserve_exact(more);
        let all = futures::future::join_all((0..HANDSHAKES).map(|_| one_after_another()));
        let all = tokio::time::timeout(LONGEST, all).await.expect("everybody arrives");
        let mut arrived: Vec<(usize, Phone)> = all.into_iter().flatten().collect();
        arrived.sort_unstable_by_key(|(number, _)| *number);
        phones.extend(arrived.into_iter().map(|(_, phone)| phone));
    }

    async fn arrive(&self, number: usize) -> Phone {
        let pipe = Pipe::default();
        let services = self.node.services.clone();
        let now = services.clock.tenths();
        let room = services.admission.admit(None, now).expect("room");
        let mut arrival = services.admission.arrive(&room, now).expect("open");
        let tls = RecordLayer::new(self.server.clone()).expect("a record layer");
        let transport = Transport::new(Socket::Memory(pipe.clone()), Some(tls), None);
        self.node.connections.spawn(async move {
            arrival.take_slot(&services.clock).await.expect("a slot");
            Connection::new(transport, ListenerName::Mqtts, arrival, room, services).await;
        });
        let name = ServerName::try_from("localhost").expect("a name");
        let mut caller =
            Caller { tls: ClientConnection::new(self.client.clone(), name).expect("a client"), pipe };
        caller.send(&connect(number));
        caller.until(0x20).await;
        let topic = if listens(number) { "everybody".to_owned() } else { format!("one/{number}") };
        caller.send(&subscribe(&topic));
        caller.until(0x90).await;
        caller.hang_up()
    }

    /// What the node does at this size, and what it costs.
    async fn look_around(&self, phones: &mut [Phone]) {
        let sessions = phones.len();
        let services = &self.node.services;
        assert_eq!(services.registry.len(), sessions);

        let began = cpu();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let idle = micros(began.elapsed()) / 4.0;
        say(&format!("  idle, the sweep among it: {idle:.0} µs of CPU a second"));

        let pings: Vec<Vec<u8>> = phones.iter_mut().map(|phone| phone.seal(PINGREQ)).collect();
        let began = cpu();
        for (phone, ping) in phones.iter().zip(&pings) {
            phone.pipe.say(ping);
        }
        until_all(phones, |_| true).await;
        let round = micros(began.elapsed());
        say(&format!(
            "  a PINGREQ of each: {:.0} ms of CPU, {:.2} µs each",
            round / 1000.0,
            round / count(sessions)
        ));

        let listeners = (0..sessions).filter(|number| listens(*number)).count();
        let publish = phones[1].seal(&publish("everybody"));
        let began = cpu();
        phones[1].pipe.say(&publish);
        until_all(phones, listens).await;
        let each = micros(began.elapsed()) / count(listeners);
        say(&format!("  one message to {listeners}: {each:.2} µs of CPU a delivery"));

        let senders = sessions.min(10_000);
        let to = |number: usize| (number * 7919 + 1) % sessions;
        let reached: std::collections::HashSet<usize> =
            (0..senders).map(to).filter(|number| !listens(*number)).collect();
        let said: Vec<Vec<u8>> = reached.iter().map(|number| publish_to(&mut phones[0], *number)).collect();
        let began = cpu();
        for said in said {
            phones[0].pipe.say(&said);
        }
        until_all(phones, |number| reached.contains(&number)).await;
        let each = micros(began.elapsed()) / count(reached.len());
        say(&format!("  {} messages to one each: {each:.2} µs of CPU a delivery", reached.len()));
    }

    async fn until_gone(&self) {
        self.node.connections.close();
        tokio::time::timeout(LONGEST, self.node.connections.wait()).await.expect("everybody goes");
    }
}

/// A phone that says hello.
struct Caller {
    tls: ClientConnection,
    pipe: Pipe,
}

impl Caller {
    fn send(&mut self, packet: &[u8]) {
        self.tls.writer().write_all(packet).expect("in memory");
        self.flush();
    }

    fn flush(&mut self) {
        let mut said = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut said).expect("in memory");
        }
        if !said.is_empty() {
            self.pipe.say(&said);
        }
    }

    /// The answer comes, and nothing else.
    async fn until(&mut self, first_byte: u8) {
        let mut plaintext = Vec::new();
        while plaintext.is_empty() {
            let heard = poll_fn(|cx| self.pipe.poll_heard(cx)).await;
            let mut heard = heard.as_slice();
            while !heard.is_empty() {
                self.tls.read_tls(&mut heard).expect("in memory");
                let state = self.tls.process_new_packets().expect("an honest server");
                let start = plaintext.len();
                plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
                self.tls.reader().read_exact(&mut plaintext[start..]).expect("as many as it said");
            }
            self.flush();
        }
        assert_eq!(plaintext[0], first_byte);
    }

    fn hang_up(self) -> Phone {
        let secrets = self.tls.dangerous_extract_secrets().expect("they may be extracted");
        let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
            panic!("the server prefers AES-128-GCM")
        };
        Phone { pipe: self.pipe, key, iv, sequence }
    }
}

impl Phone {
    /// One record. RFC 8446, 5.2
    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let total = packet.len() + 1 + 16;
        let mut payload = [packet, &[23]].concat();
        let key = aead::UnboundKey::new(&aead::AES_128_GCM, self.key.as_ref()).expect("16 bytes");
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, self.sequence).0);
        self.sequence += 1;
        aead::LessSafeKey::new(key)
            .seal_in_place_append_tag(nonce, aead::Aad::from(make_tls13_aad(total)), &mut payload)
            .expect("a short record");
        let len = u16::try_from(payload.len()).expect("a short record").to_be_bytes();
        [&[23, 3, 3, len[0], len[1]], payload.as_slice()].concat()
    }
}

/// Nobody is woken here.
struct Nobody;

#[async_trait]
impl Pusher for Nobody {
    async fn push(&self, _wakeup: Wakeup) -> PushOutcome {
        PushOutcome::Delivered
    }
}

/// Until each of those has heard something.
async fn until_all(phones: &[Phone], of: impl Fn(usize) -> bool) {
    let hear = async {
        for (_, phone) in phones.iter().enumerate().filter(|(number, _)| of(*number)) {
            while phone.pipe.heard().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    tokio::time::timeout(LONGEST, hear).await.expect("everybody hears");
}

/// To the one topic, and not to one of its own.
fn listens(number: usize) -> bool {
    number.is_multiple_of(100) && number / 100 < LISTENERS_MAX
}

fn connect(number: usize) -> Vec<u8> {
    let mut properties = PropertyBuf::new();
    properties.push(Property::SessionExpiryInterval(3600));
    let client_id = format!("phone-{number:08}");
    encoded(&Packet::Connect(Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 600,
        client_id: &client_id,
        will: None,
        username: None,
        password: None,
        properties: properties.as_properties(),
    }))
}

fn subscribe(filter: &str) -> Vec<u8> {
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
    };
    let mut raw = Vec::new();
    let filters = SubscribeFilters::encode(&[(filter, options)], &mut raw);
    encoded(&Packet::Subscribe(Subscribe {
        packet_id: PacketId::FIRST,
        properties: Properties::EMPTY,
        filters,
    }))
}

fn publish(topic: &str) -> Vec<u8> {
    encoded(&Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: Properties::EMPTY,
        payload: &[b'x'; 100],
    }))
}

fn publish_to(sender: &mut Phone, number: usize) -> Vec<u8> {
    sender.seal(&publish(&format!("one/{number}")))
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes);
    bytes
}

/// CPU of the whole process since then.
struct Since(Duration);

fn cpu() -> Since {
    Since(cpu_used().expect("the system tells"))
}

impl Since {
    fn elapsed(&self) -> Duration {
        cpu_used().expect("the system tells").saturating_sub(self.0)
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let mut pages = statm.split(' ').map(|pages| pages.parse::<u64>().expect("a number"));
    let (resident, shared) = (pages.nth(1).expect("resident"), pages.next().expect("shared"));
    (resident - shared) * 4096
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "far less than 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::disallowed_macros, reason = "it is there to be read")]
fn say(line: &str) {
    eprintln!("{line}");
}

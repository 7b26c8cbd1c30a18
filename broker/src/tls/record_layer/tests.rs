use std::io::{Read, Write};

use aws_lc_rs::aead;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::cipher::Nonce;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ConnectionTrafficSecrets, Error, RootCertStore,
    SupportedProtocolVersion,
};

use super::*;
use crate::clock::SystemClock;
use crate::tls::{ClientCertificate, LiveTls, TicketRoot, TlsFiles};

const ALERT: u8 = 21;
const TAG_BYTES: usize = 16;

/// The record layer against a client of rustls, in memory.
struct Pair {
    server: RecordLayer,
    client: ClientConnection,
    /// At the server: what is not used up, as the transport keeps it.
    partial: Vec<u8>,
    /// At the server.
    plaintext: Vec<u8>,
    closed: bool,
    /// At the client.
    received: Vec<u8>,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("certificate");
        let (certificate_file, key_file) = (folder.path().join("certificate"), folder.path().join("key"));
        std::fs::write(&certificate_file, certificate.pem()).expect("write");
        std::fs::write(&key_file, key.serialize_pem()).expect("write");
        let files = TlsFiles {
            certificate: certificate_file,
            key: key_file,
            client_certificate: ClientCertificate::Off,
            client_ca: None,
            client_crl: None,
        };
        let root = TicketRoot::open_or_make(&folder.path().join("ticket.key")).expect("a root");
        let server = LiveTls::load(files, root, Arc::new(SystemClock::new())).expect("server").current();

        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a certificate");
        let mut client =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_root_certificates(roots)
                .with_no_client_auth();
        client.enable_secret_extraction = true;
        let name = ServerName::try_from("localhost").expect("a name");
        Self {
            server: RecordLayer::new(server).expect("server"),
            client: ClientConnection::new(Arc::new(client), name).expect("client"),
            partial: Vec::new(),
            plaintext: Vec::new(),
            closed: false,
            received: Vec::new(),
        }
    }

    fn established(version: &'static SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(version);
        pair.exchange(usize::MAX);
        assert!(pair.server.is_established() && !pair.client.is_handshaking());
        pair
    }

    /// Both ways until nothing is left to be said, `read_bytes` at a time to the server.
    fn exchange(&mut self, read_bytes: usize) {
        loop {
            let said = self.said_by_client();
            if said.is_empty() {
                return;
            }
            let mut answer = Vec::new();
            for part in said.chunks(read_bytes) {
                self.give(part, &mut answer).expect("an honest client");
            }
            self.answer(&answer).expect("an honest server");
        }
    }

    fn said_by_client(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut said).expect("in memory");
        }
        said
    }

    /// One read of the server's.
    fn give(&mut self, read: &[u8], answer: &mut Vec<u8>) -> Result<(), TlsFailure> {
        self.partial.extend_from_slice(read);
        let fed = self.server.feed(&mut self.partial, &mut self.plaintext, answer)?;
        self.partial.drain(..fed.consumed);
        self.closed |= fed.closed;
        Ok(())
    }

    fn answer(&mut self, mut answer: &[u8]) -> Result<(), Error> {
        while !answer.is_empty() {
            self.client.read_tls(&mut answer).expect("in memory");
            let state = self.client.process_new_packets()?;
            let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut plaintext).expect("as many as it said");
            self.received.extend_from_slice(&plaintext);
        }
        Ok(())
    }

    fn send(&mut self, plaintext: &[u8]) {
        let mut records = Vec::new();
        self.server.encrypt(plaintext, &mut self.partial, &mut records).expect("established");
        self.answer(&records).expect("an honest server");
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).expect("below 251")).collect()
}

#[test]
fn everything_arrives_however_the_reads_are_cut() {
    for version in [&TLS12, &TLS13] {
        for read_bytes in [1, 2, 5, 6, 47, 1000, 16_389, usize::MAX] {
            let mut pair = Pair::new(version);
            pair.exchange(read_bytes);
            assert!(pair.server.is_established());
            let up = bytes(40_000);
            pair.client.writer().write_all(&up).expect("in memory");
            pair.exchange(read_bytes);
            assert!(pair.plaintext == up, "{version:?} {read_bytes}");
            let down = bytes(100_000);
            pair.send(&down);
            assert!(pair.received == down, "{version:?} {read_bytes}");
            assert!(pair.partial.is_empty());
        }
    }
}

#[test]
fn what_comes_in_the_same_read_as_the_end_of_the_handshake_is_not_lost() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(version);
        pair.client.writer().write_all(b"early").expect("kept until it may be sent");
        pair.exchange(usize::MAX);
        assert_eq!(pair.plaintext, b"early");
    }
}

#[test]
fn a_client_hello_may_be_spread_over_records() {
    for version in [&TLS12, &TLS13] {
        for fragment_bytes in [3, 100] {
            for read_bytes in [1, 64, usize::MAX] {
                let mut pair = Pair::new(version);
                let hello = pair.said_by_client();
                let (header, message) = hello.split_at(RECORD_HEADER_BYTES);
                let mut spread = Vec::new();
                for fragment in message.chunks(fragment_bytes) {
                    spread.extend_from_slice(&header[..3]);
                    spread.extend_from_slice(&u16::try_from(fragment.len()).expect("short").to_be_bytes());
                    spread.extend_from_slice(fragment);
                }
                let mut answer = Vec::new();
                for read in spread.chunks(read_bytes) {
                    pair.give(read, &mut answer).expect("an honest client");
                }
                pair.answer(&answer).expect("an honest server");
                pair.exchange(usize::MAX);
                assert!(pair.server.is_established(), "{version:?} {fragment_bytes} {read_bytes}");
            }
        }
    }
}

#[test]
fn a_handshake_message_without_an_end_is_given_up() {
    let mut pair = Pair::new(&TLS13);
    // A ClientHello of nearly 64 KiB, a byte a record.
    let mut endless = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
    for _ in 0..HANDSHAKE_MESSAGE_BYTES_MAX {
        endless.extend_from_slice(&[22, 3, 1, 0, 1, 0]);
    }
    let mut answer = Vec::new();
    let refused = endless.chunks(1400).find_map(|read| pair.give(read, &mut answer).err());
    assert!(refused.is_some());
    assert!(pair.partial.len() <= HANDSHAKE_MESSAGE_BYTES_MAX + 2 * 1400);
}

#[test]
fn new_keys_are_answered_with_new_keys() {
    let mut pair = Pair::established(&TLS13);
    for round in 0..3 {
        pair.client.refresh_traffic_keys().expect("established");
        pair.client.writer().write_all(b"up").expect("in memory");
        pair.exchange(usize::MAX);
        pair.send(b"down");
        assert_eq!((pair.plaintext.len(), pair.received.len()), (2 * (round + 1), 4 * (round + 1)));
    }
}

#[test]
fn close_notify_is_told_and_said() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::established(version);
        pair.client.writer().write_all(b"last words").expect("in memory");
        pair.client.send_close_notify();
        pair.exchange(usize::MAX);
        assert!(pair.closed);
        assert_eq!(pair.plaintext, b"last words");

        let mut pair = Pair::established(version);
        let mut records = Vec::new();
        pair.server.encrypt(b"last words", &mut [], &mut records).expect("established");
        pair.server.close(&mut [], &mut records);
        pair.client.read_tls(&mut &*records).expect("in memory");
        let state = pair.client.process_new_packets().expect("an honest server");
        assert!(state.peer_has_closed() && state.plaintext_bytes_to_read() == b"last words".len());
    }
}

#[test]
fn something_may_be_sent_while_half_of_a_handshake_message_is_there() {
    let Pair { mut server, client, .. } = Pair::established(&TLS13);
    // A KeyUpdate begins in one record, and goes on in one that has not come.
    let (sequence, secrets) = client.dangerous_extract_secrets().expect("switched on").tx;
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("what the server prefers") };
    let mut record = vec![24, 0, 0, 22];
    let header = [23, 3, 3, 0, u8::try_from(record.len() + TAG_BYTES).expect("short")];
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, key.as_ref()).expect("a key");
    let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&iv, sequence).0);
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut record)
        .expect("sealed");
    let mut read = [&header[..], &record].concat();

    let (mut plaintext, mut outgoing) = (Vec::new(), Vec::new());
    let fed = server.feed(&mut read, &mut plaintext, &mut outgoing).expect("so far so good");
    assert_eq!(fed, Fed { consumed: 0, closed: false });
    server.encrypt(b"down", &mut read, &mut outgoing).expect("established");
    server.close(&mut read, &mut outgoing);
    assert!(plaintext.is_empty() && outgoing.len() > 2 * RECORD_HEADER_BYTES);
}

#[test]
fn half_of_a_client_hello_with_garbage_behind_it_is_refused_with_an_alert() {
    let mut pair = Pair::new(&TLS13);
    let half = [22, 3, 1, 0, 5, 1, 0, 0, 100, 3];
    let mut answer = Vec::new();
    pair.give(&half, &mut answer).expect("so far so good");
    assert!(pair.give(b"GET / HTTP/1.1\r\n", &mut answer).is_err());
    assert_eq!(answer.first(), Some(&ALERT));
}

#[test]
fn what_is_not_tls_is_refused_with_an_alert() {
    let mut pair = Pair::new(&TLS13);
    let mut answer = Vec::new();
    assert!(pair.give(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &mut answer).is_err());
    assert_eq!(answer.first(), Some(&ALERT));
}

#[test]
fn a_record_that_was_changed_on_its_way_is_refused_with_an_alert() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::established(version);
        pair.client.writer().write_all(b"payload").expect("in memory");
        let mut said = pair.said_by_client();
        *said.last_mut().expect("a record") ^= 1;
        let mut answer = Vec::new();
        assert!(pair.give(&said, &mut answer).is_err());
        assert!(pair.plaintext.is_empty());
        let told = pair.answer(&answer).expect_err("an alert");
        assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac));
    }
}

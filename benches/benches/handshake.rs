//! What a TLS 1.3 handshake costs its server at least: rustls on bytes in memory, P-256 and X25519, as the broker's.
//!
//! It is what `server CPU per connect` of the load tester is held against on the same machine: the rest is the
//! kernel's and the broker's.

#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "a benchmark prints what it measured")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection,
};

const HANDSHAKES: u32 = 5_000;
/// Code and data come into the caches.
const FIRST_UNCOUNTED: u32 = 200;
/// Flights of a handshake, tickets included.
const FLIGHTS_MAX: u32 = 8;
const NAME: &str = "localhost";

fn main() {
    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("make a certificate");
    let provider = Arc::new(provider());
    let server = server_config(&provider, &certified);
    for (label, resumption) in
        [("full", Resumption::disabled()), ("resumed", Resumption::in_memory_sessions(8))]
    {
        let client = client_config(&provider, &certified, resumption);
        for _ in 0..FIRST_UNCOUNTED {
            handshake(&server, &client);
        }
        let spent: Duration = (0..HANDSHAKES).map(|_| handshake(&server, &client)).sum();
        println!(
            "{label}: {:.1} µs of the server's CPU a handshake",
            spent.as_secs_f64() * 1e6 / f64::from(HANDSHAKES)
        );
    }
}

/// The CPU time that the server's part took.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Duration {
    let name = ServerName::try_from(NAME).expect("a name");
    let mut client = ClientConnection::new(client.clone(), name).expect("begin");
    let began = cpu();
    let mut server = ServerConnection::new(server.clone()).expect("begin");
    let mut spent = cpu_since(began);
    for _ in 0..FLIGHTS_MAX {
        let hello = written(&mut client);
        let began = cpu();
        read(&mut server, &hello);
        let answer = written(&mut server);
        spent += cpu_since(began);
        read(&mut client, &answer);
        if !client.wants_write() {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake is over");
    spent
}

fn written<Data>(connection: &mut ConnectionCommon<Data>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).expect("write to memory");
    }
    bytes
}

fn read<Data>(connection: &mut ConnectionCommon<Data>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes as &mut dyn io::Read).expect("read from memory");
        connection.process_new_packets().expect("an honest peer");
    }
}

fn cpu_since(began: Duration) -> Duration {
    cpu().saturating_sub(began)
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it").into()
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certified: &rcgen::CertifiedKey<rcgen::KeyPair>,
) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("a certificate and its key");
    config.ticketer = aws_lc_rs::Ticketer::new().expect("draw keys");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Arc::new(config)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    certified: &rcgen::CertifiedKey<rcgen::KeyPair>,
    resumption: Resumption,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = resumption;
    Arc::new(config)
}

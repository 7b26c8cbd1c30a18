//! Certificates that change while clients stay, sessions that outlive a broker, and clients with certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sotto_mqtt::packet::Version;
use sotto_mqtt::reason::ReasonCode;
use tokio::net::TcpStream;

use crate::support::database::{Database, Kind};
use crate::support::house::House;
use crate::support::patience::until;
use crate::support::phone::{Heard, Login, Phone};

/// A server's certificate, signed by itself.
struct Pair {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Pair {
    fn make() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Each file at once, as whoever renews certificates does it.
    fn write(&self, folder: &Path) {
        for (name, content) in [("tls.crt", &self.certificate_pem), ("tls.key", &self.key_pem)] {
            replace(&folder.join(name), content.as_bytes());
        }
    }
}

fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("write");
    std::fs::rename(&new, path).expect("rename");
}

fn trusting<'p>(pairs: impl IntoIterator<Item = &'p Pair>) -> Arc<ClientConfig> {
    let config = builder(pairs).with_no_client_auth();
    Arc::new(config)
}

fn builder<'p>(
    pairs: impl IntoIterator<Item = &'p Pair>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.certificate.clone()).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    tls.expect("versions").with_root_certificates(roots)
}

/// A closed house whose TLS files are in `folder`.
async fn house_with(folder: &Path, more: &str) -> House {
    let path = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n{more}",
        path("tls.crt"),
        path("tls.key")
    );
    House::closed(Database::create(Kind::Sqlite).await, &config)
}

/// `None` where TLS is refused.
async fn try_connect(house: &House, tls: &Arc<ClientConfig>, user: &str) -> Option<Phone> {
    let tcp = TcpStream::connect(house.mqtts()).await.expect("connect");
    let mut phone = Phone::try_over(tls.clone(), Version::V5, tcp).await?;
    phone.send(&Login::of(house, user, "phone").packet()).await;
    // Of TLS 1.3 a client learns late that its certificate is refused.
    match phone.next().await {
        Heard::ConnAck { reason: ReasonCode::Success, .. } => Some(phone),
        Heard::Closed => None,
        other => panic!("{other:?}"),
    }
}

async fn connect(house: &House, tls: &Arc<ClientConfig>, user: &str) -> Phone {
    try_connect(house, tls, user).await.expect("it is let in")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_session_is_taken_up_after_the_broker_was_killed() {
    let mut house = House::open(Kind::Sqlite).await;
    let tls = house.tls();
    assert!(!connect(&house, &tls, "alice").await.is_resumed());
    assert!(connect(&house, &tls, "alice").await.is_resumed());
    house.kill_and_start().await;
    assert!(connect(&house, &tls, "alice").await.is_resumed());
    std::fs::remove_file(house.data().join("ticket.key")).expect("remove");
    house.kill_and_start().await;
    assert!(!connect(&house, &tls, "alice").await.is_resumed(), "the key is another");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_share_a_ticket_key_take_up_each_others_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Pair::make();
    pair.write(folder.path());
    let ticket_key = folder.path().join("ticket.key");
    std::fs::write(&ticket_key, [7; 32]).expect("write");
    let sharing = format!("ticket_key_file = \"{}\"\n", ticket_key.display());
    let mut houses = [
        house_with(folder.path(), &sharing).await,
        house_with(folder.path(), &sharing).await,
        house_with(folder.path(), "").await,
    ];
    for house in &mut houses {
        house.start().await;
    }
    let [first, second, apart] = houses;
    let tls = trusting([&pair]);
    connect(&first, &tls, "alice").await;
    assert!(connect(&second, &tls, "alice").await.is_resumed());
    assert!(!connect(&apart, &tls, "alice").await.is_resumed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_at_once_and_nobody_is_disconnected() {
    let folder = tempfile::tempdir().expect("a folder");
    let pairs: Vec<_> = (0..4).map(|_| Pair::make()).collect();
    pairs[0].write(folder.path());
    let mut house = house_with(folder.path(), "").await;
    house.start().await;
    let shows = async |pair: &Pair| {
        let phone = connect(&house, &trusting(&pairs), "bob").await;
        phone.server_certificate() == pair.certificate.as_ref()
    };
    let mut alice = connect(&house, &trusting(&pairs), "alice").await;
    assert!(shows(&pairs[0]).await);

    pairs[1].write(folder.path());
    let answer = house.sotto(&["tls", "reload"]).await;
    assert!(answer["certificate_expires_at"].as_u64().is_some_and(|seconds| seconds > 1_700_000_000));
    assert!(shows(&pairs[1]).await);

    pairs[2].write(folder.path());
    house.signal("-HUP").await;
    until("SIGHUP was heard", async || shows(&pairs[2]).await).await;

    pairs[3].write(folder.path());
    until("the files were looked at", async || shows(&pairs[3]).await).await;

    alice.ping().await;
    let shown = house.metrics().await.count("sotto_tls_certificate_expires_seconds");
    assert_eq!(answer["certificate_expires_at"].as_u64(), Some(shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_named_and_the_old_certificate_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Pair::make();
    pair.write(folder.path());
    let mut house = house_with(folder.path(), "").await;
    house.start().await;
    replace(&folder.path().join("tls.key"), b"not a key");
    let (code, _, error) = house.sotto_failing(&["tls", "reload"]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("tls.key") && error.trim_end().lines().count() == 1, "{error}");
    connect(&house, &trusting([&pair]), "alice").await;
    let failed = house.metrics().await.count("sotto_tls_reloads_total{result=\"failed\"}");
    assert!(failed >= 1);
    assert!(house.printed().contains("tls_reload_failed"));
    house.kill().await;
    let (_, _, error) = house.sotto_failing(&["tls", "reload"]).await;
    assert!(error.contains("no broker runs"), "{error}");
}

/// Who signs clients' certificates, and takes them back.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    fn make() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { params, key, pem }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A client with a certificate of this serial number.
    fn client(&self, serial: u64, server: &Pair) -> Arc<ClientConfig> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(vec!["phone".to_owned()]).expect("params");
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer()).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let chain = vec![certificate.der().clone()];
        Arc::new(builder([server]).with_client_auth_cert(chain, key).expect("they fit"))
    }

    fn revoked(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2040, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).expect("a list").pem().expect("PEM")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_good_certificate_is_refused_also_when_it_would_resume() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Pair::make();
    pair.write(folder.path());
    let [authority, stranger] = [Authority::make(), Authority::make()];
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::write(place("ca.crt"), &authority.pem).expect("write");
    std::fs::write(place("clients.crl"), authority.revoked(&[1])).expect("write");
    let more = format!(
        "client_certificate = \"required\"\nclient_ca_file = \"{}\"\nclient_crl_file = \"{}\"\n",
        place("ca.crt").display(),
        place("clients.crl").display()
    );
    let mut house = house_with(folder.path(), &more).await;
    house.start().await;

    assert!(try_connect(&house, &trusting([&pair]), "alice").await.is_none(), "without any");
    assert!(try_connect(&house, &stranger.client(7, &pair), "alice").await.is_none(), "of another authority");
    assert!(try_connect(&house, &authority.client(1, &pair), "alice").await.is_none(), "revoked");
    let good = authority.client(2, &pair);
    assert!(!connect(&house, &good, "alice").await.is_resumed());
    let mut stays = connect(&house, &good, "alice").await;
    assert!(stays.is_resumed());

    replace(&place("clients.crl"), authority.revoked(&[1, 2]).as_bytes());
    house.sotto(&["tls", "reload"]).await;
    assert!(try_connect(&house, &good, "bob").await.is_none(), "revoked, with a ticket from before");
    stays.ping().await;
    connect(&house, &authority.client(3, &pair), "bob").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_certificate_is_optional_only_a_bad_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Pair::make();
    pair.write(folder.path());
    let [authority, stranger] = [Authority::make(), Authority::make()];
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, &authority.pem).expect("write");
    let more = format!("client_certificate = \"optional\"\nclient_ca_file = \"{}\"\n", ca.display());
    let mut house = house_with(folder.path(), &more).await;
    house.start().await;
    connect(&house, &trusting([&pair]), "alice").await;
    connect(&house, &authority.client(1, &pair), "alice").await;
    assert!(try_connect(&house, &stranger.client(1, &pair), "alice").await.is_none());
}

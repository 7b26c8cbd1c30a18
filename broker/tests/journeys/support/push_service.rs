//! An HTTPS server at which phones are woken: it keeps each request whole.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::patience::SOON;

const ACCEPTED: &str = "201 Created";
const BUSY: &str = "503 Service Unavailable\r\nretry-after: 1";
/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub(crate) struct PushService {
    address: SocketAddr,
    root_pem: String,
    requests: watch::Sender<Vec<Request>>,
    status: Arc<Mutex<&'static str>>,
}

/// As it came, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// What it was answered.
    pub(crate) accepted: bool,
}

impl PushService {
    pub(crate) async fn start() -> Self {
        Self::start_refusing_one_in(usize::MAX).await
    }

    /// Every so manieth request finds it busy.
    pub(crate) async fn start_refusing_one_in(requests: usize) -> Self {
        let refused = requests;
        let (root_pem, acceptor) = identity();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let requests = watch::Sender::new(Vec::new());
        let status = Arc::new(Mutex::new(ACCEPTED));
        tokio::spawn(serve(listener, acceptor, refused, requests.clone(), status.clone()));
        Self { address, root_pem, requests, status }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint_at("/push/0190a0b0")
    }

    pub(crate) fn endpoint_at(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// From then on.
    pub(crate) fn answers(&self, status: &'static str) {
        *self.status.lock().expect("nobody panicked") = status;
    }

    /// As the requests for an endpoint said.
    pub(crate) fn urgencies(&self, path: &str) -> Vec<String> {
        let head = format!("POST {path} ");
        let requests = self.requests.borrow();
        let of_path = requests.iter().filter(|request| request.head.starts_with(&head));
        let urgency = |request: &Request| {
            let line = request.head.lines().find_map(|line| line.strip_prefix("urgency: "));
            line.expect("an urgency").to_owned()
        };
        of_path.map(urgency).collect()
    }

    /// Requests for an endpoint that were accepted.
    pub(crate) fn accepted(&self, path: &str) -> usize {
        let head = format!("POST {path} ");
        self.requests.borrow().iter().filter(|one| one.accepted && one.head.starts_with(&head)).count()
    }

    /// As requests name it.
    pub(crate) fn endpoint_host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// What a broker's configuration says to reach it.
    pub(crate) fn config(&self, folder: &Path) -> String {
        let root: PathBuf = folder.join("push-ca.pem");
        std::fs::write(&root, &self.root_pem).expect("write the CA");
        format!("[push]\nallow_networks = [\"127.0.0.0/8\"]\nextra_ca_file = \"{}\"\n", root.display())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Waits until that many have come in all.
    pub(crate) async fn comes_to(&self, requests: usize) {
        self.comes_to_within(requests, SOON).await;
    }

    pub(crate) async fn comes_to_within(&self, requests: usize, limit: Duration) {
        let mut seen = self.requests.subscribe();
        let enough = tokio::time::timeout(limit, seen.wait_for(|seen| seen.len() >= requests)).await;
        assert!(enough.is_ok(), "{} push requests, {requests} expected", self.requests().len());
    }

    /// For as long as several rounds of the relay and of the dispatcher take, no more than so many come.
    pub(crate) async fn stays_at(&self, requests: usize) {
        const ROUNDS: Duration = Duration::from_millis(2500);
        let mut seen = self.requests.subscribe();
        let more = tokio::time::timeout(ROUNDS, seen.wait_for(|seen| seen.len() > requests)).await;
        assert!(more.is_err(), "{} push requests, {requests} expected", self.requests().len());
        assert_eq!(self.requests().len(), requests);
    }
}

impl Request {
    pub(crate) fn whole(&self) -> String {
        format!("{}{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    refused: usize,
    requests: watch::Sender<Vec<Request>>,
    status: Arc<Mutex<&'static str>>,
) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let (acceptor, requests, status) = (acceptor.clone(), requests.clone(), status.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(tcp).await else { return };
            while let Some(mut request) = read_request(&mut stream).await {
                let mut answer = *status.lock().expect("nobody panicked");
                requests.send_modify(|requests| {
                    if (requests.len() + 1).is_multiple_of(refused) {
                        answer = BUSY;
                    }
                    request.accepted = answer == ACCEPTED;
                    requests.push(request);
                });
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        assert!(head.len() < HEAD_BYTES_MAX, "a request without end");
    }
    let head = String::from_utf8(head).expect("ASCII");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a length"))
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { head, body, accepted: true })
}

/// A certification authority, and a certificate of it for this machine.
fn identity() -> (String, TlsAcceptor) {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .expect("a name")
        .signed_by(&key, &issuer)
        .expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("an identity");
    (root_pem, TlsAcceptor::from(Arc::new(tls)))
}

//! An HTTPS server that records what it is told, and answers as it is told to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// All of a request that its receiver sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    /// By name.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) header: Option<(&'static str, &'static str)>,
}

pub(crate) struct PushService {
    address: SocketAddr,
    root_pem: String,
    state: Arc<State>,
}

struct State {
    answers: parking_lot::Mutex<VecDeque<Answer>>,
    received: watch::Sender<Vec<(Version, Received)>>,
    connections: watch::Sender<usize>,
}

impl PushService {
    /// Speaks what `protocols` names by ALPN.
    pub(crate) async fn start(protocols: &[&str]) -> Self {
        let (root_pem, tls) = identity(protocols);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            answers: parking_lot::Mutex::default(),
            received: watch::Sender::new(Vec::new()),
            connections: watch::Sender::new(0),
        });
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), state.clone()));
        Self { address, root_pem, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://localhost:{}/UP?id=0190a0b0", self.address.port())
    }

    pub(crate) fn root_pem(&self) -> &[u8] {
        self.root_pem.as_bytes()
    }

    /// The next requests are answered so; all others with 201.
    pub(crate) fn answer(&self, status: u16, header: Option<(&'static str, &'static str)>) {
        self.state.answers.lock().push_back(Answer { status, header });
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.borrow().iter().map(|(_, received)| received.clone()).collect()
    }

    pub(crate) fn versions(&self) -> Vec<Version> {
        self.state.received.borrow().iter().map(|(version, _)| *version).collect()
    }

    /// TCP connections accepted.
    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.borrow()
    }

    /// Waits until that many requests have come in all, and a little longer for more than that.
    pub(crate) async fn received_exactly(&self, requests: usize) {
        let mut received = self.state.received.subscribe();
        let enough = received.wait_for(|received| received.len() >= requests);
        let enough = tokio::time::timeout(Duration::from_secs(20), enough).await;
        assert!(enough.is_ok(), "{} requests of {requests}", self.received().len());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(self.received().len(), requests);
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        state.connections.send_modify(|connections| *connections += 1);
        let (tls, state) = (tls.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let service = service_fn(|request| handle(request, state.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that goes away ends its connection with an error.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()))
        .collect();
    headers.sort_unstable();
    let received = Received {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().expect("a path").to_string(),
        headers,
        body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
    };
    let answer = state.answers.lock().pop_front().unwrap_or(Answer { status: 201, header: None });
    state.received.send_modify(|all| all.push((parts.version, received)));
    let mut response = Response::builder().status(answer.status);
    if let Some((name, value)) = answer.header {
        response = response.header(name, value);
    }
    Ok(response.body(Empty::new()).expect("a response"))
}

/// A certification authority, and a certificate of it for this machine.
fn identity(protocols: &[&str]) -> (String, rustls::ServerConfig) {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate =
        CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("an identity");
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    (root_pem, tls)
}

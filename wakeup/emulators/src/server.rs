//! HTTPS on a free port of this machine, HTTP/2 alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Response;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::authority::Authority;
use crate::request::{Answer, Request};
use crate::script::{Fault, Script};
use crate::wire::{Switches, Wire};

/// Before the last request under a GOAWAY is answered: those above it come in meanwhile.
const GO_AWAY_LINGER: Duration = Duration::from_millis(100);

/// What a push service makes of requests.
pub trait Service: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Answer;

    /// What is to go wrong with requests for `path`.
    fn script(&self, path: &str) -> &Script;
}

/// Ends with everything that it serves when it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    _guard: DropGuard,
}

struct Shared {
    service: Arc<dyn Service>,
    /// Of the requests that were looked at, with what they were answered.
    seen: watch::Sender<Vec<(Request, Option<u16>)>>,
    connections: AtomicUsize,
    streams: AtomicUsize,
    streams_peak: AtomicUsize,
    max_concurrent_streams: Option<u32>,
    /// Ends the connections that there are. Replaced when it does.
    hangup: Mutex<CancellationToken>,
    /// How long an answer takes.
    delay: Mutex<Duration>,
    is_recording: bool,
}

impl Server {
    pub async fn start(
        authority: &Authority,
        service: Arc<dyn Service>,
        max_concurrent_streams: Option<u32>,
    ) -> Self {
        Self::serve(authority, service, max_concurrent_streams, true).await
    }

    /// One that keeps nothing of what it is sent, for measuring.
    pub async fn without_records(authority: &Authority, service: Arc<dyn Service>) -> Self {
        Self::serve(authority, service, None, false).await
    }

    async fn serve(
        authority: &Authority,
        service: Arc<dyn Service>,
        max_concurrent_streams: Option<u32>,
        is_recording: bool,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            service,
            seen: watch::Sender::new(Vec::new()),
            connections: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            streams_peak: AtomicUsize::new(0),
            max_concurrent_streams,
            hangup: Mutex::new(stop.child_token()),
            delay: Mutex::new(Duration::ZERO),
            is_recording,
        });
        let tls = TlsAcceptor::from(authority.server_config());
        let accepting = accept(listener, tls, shared.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Self { address, shared, _guard: stop.clone().drop_guard(), stop }
    }

    pub fn base_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Every answer takes that long from here on.
    pub fn delay(&self, delay: Duration) {
        *self.shared.delay.lock() = delay;
    }

    /// Breaks off all connections, whatever is under way on them. New ones are accepted.
    pub fn hang_up(&self) {
        let mut hangup = self.shared.hangup.lock();
        hangup.cancel();
        *hangup = self.stop.child_token();
    }

    /// The requests that were looked at, and the status each was answered with, where it was.
    pub fn seen(&self) -> Vec<(Request, Option<u16>)> {
        self.shared.seen.borrow().clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.seen.borrow().iter().map(|(request, _)| request.clone()).collect()
    }

    /// Waits until that many requests were looked at in all.
    pub async fn saw(&self, requests: usize) {
        let mut seen = self.shared.seen.subscribe();
        let enough = seen.wait_for(|seen| seen.len() >= requests);
        let enough = tokio::time::timeout(Duration::from_secs(20), enough).await.is_ok();
        assert!(enough, "{} requests of {requests}", self.requests().len());
    }

    /// TCP connections accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Streams open at once, at most, so far.
    pub fn streams_peak(&self) -> usize {
        self.shared.streams_peak.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let stop = shared.hangup.lock().clone();
        let connection = connection(tcp, tls.clone(), shared.clone(), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(connection));
    }
}

async fn connection(tcp: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>, stop: CancellationToken) {
    tcp.set_nodelay(true).expect("a socket");
    let Ok(stream) = tls.accept(tcp).await else { return };
    let switches = Arc::new(Switches::default());
    let mut builder = Builder::new();
    if let Some(streams) = shared.max_concurrent_streams {
        builder.max_concurrent_streams(streams);
    }
    let wire = Wire::new(stream, switches.clone());
    let Ok(mut http2) = builder.handshake::<_, Bytes>(wire).await else { return };
    let mut last_stream = u32::MAX;
    // Not looked at, and not refused either: GOAWAY has told.
    let mut parked = Vec::new();
    while let Some(Ok((request, respond))) = http2.accept().await {
        let stream = respond.stream_id().as_u32();
        if stream > last_stream {
            parked.push((request, respond));
            continue;
        }
        let fault = shared.service.script(request.uri().path()).next();
        let mut linger = Duration::ZERO;
        match &fault {
            Some(Fault::GoAway(_)) => {
                last_stream = stream;
                linger = GO_AWAY_LINGER;
            }
            Some(Fault::Freeze) => switches.freeze(),
            _ => {}
        }
        let exchange = Exchange { request, respond, fault, linger };
        let exchanging = exchange.run(shared.clone(), switches.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(exchanging));
    }
}

/// One request and what becomes of it.
struct Exchange {
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    fault: Option<Fault>,
    linger: Duration,
}

impl Exchange {
    async fn run(self, shared: Arc<Shared>, switches: Arc<Switches>) {
        let streams = shared.streams.fetch_add(1, Ordering::SeqCst) + 1;
        shared.streams_peak.fetch_max(streams, Ordering::SeqCst);
        self.exchange(&shared, &switches).await;
        shared.streams.fetch_sub(1, Ordering::SeqCst);
    }

    async fn exchange(self, shared: &Shared, switches: &Switches) {
        let Self { request, mut respond, fault, linger } = self;
        let stream = respond.stream_id().as_u32();
        let Some(request) = received(request).await else { return };
        let delay = *shared.delay.lock() + linger;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let answer = match fault {
            None => shared.service.answer(&request),
            Some(Fault::Answer(answer)) => answer,
            Some(Fault::GoAway(reason)) => {
                switches.go_away(stream, reason);
                shared.service.answer(&request)
            }
            Some(Fault::Reset(reason)) => {
                // One that is refused has not been looked at.
                if reason != Reason::REFUSED_STREAM {
                    shared.saw(request, None);
                }
                respond.send_reset(reason);
                return;
            }
            Some(Fault::Stall | Fault::Freeze) => {
                shared.saw(request, None);
                std::future::pending::<()>().await;
                return;
            }
        };
        shared.saw(request, Some(answer.status));
        send(respond, answer).await;
    }
}

impl Shared {
    fn saw(&self, request: Request, status: Option<u16>) {
        if self.is_recording {
            self.seen.send_modify(|seen| seen.push((request, status)));
        }
    }
}

async fn received(request: http::Request<RecvStream>) -> Option<Request> {
    let (parts, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.ok()?;
        body.extend_from_slice(&data);
        stream.flow_control().release_capacity(data.len()).ok()?;
    }
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut headers: Vec<_> = parts.headers.iter().map(header).collect();
    headers.sort_unstable();
    Some(Request { method: parts.method.to_string(), path: parts.uri.path().to_owned(), headers, body })
}

/// A client that goes away ends it.
async fn send(mut respond: SendResponse<Bytes>, answer: Answer) {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let response = response.body(()).expect("a response");
    let Ok(mut stream) = respond.send_response(response, answer.body.is_empty()) else { return };
    if answer.body.is_empty() {
        return;
    }
    let Some(pace) = answer.body_pace else {
        let _ = stream.send_data(answer.body.into(), true);
        return;
    };
    for byte in answer.body {
        tokio::time::sleep(pace).await;
        if stream.send_data(vec![byte].into(), false).is_err() {
            return;
        }
    }
    let _ = stream.send_data(Bytes::new(), true);
}

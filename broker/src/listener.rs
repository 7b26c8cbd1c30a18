//! Accepting connections: at most so many at all, and so many that have not come to their CONNACK.
//!
//! What is over either bound stays in the kernel's backlog; nobody who is in is made to pay for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::services::Services;
use crate::socket;
use crate::tls::{RecordLayer, TlsFailure};
use crate::transport::Transport;
use crate::websocket::WebSocket;

/// Handshakes in flight, a worker thread.
pub(crate) const HANDSHAKES_PER_WORKER_MAX: usize = 256;
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 8192;
/// After a failed accept (out of files, mostly).
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);
/// A peer that does not answer the kernel for this long is gone: half-open sockets of mobile networks.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);
const KEEP_ALIVE_AFTER: Duration = Duration::from_mins(10);

pub(crate) struct Listener {
    socket: TcpListener,
    below: Below,
}

/// What MQTT is spoken on.
pub(crate) enum Below {
    Tls(Arc<ServerConfig>),
    /// A WebSocket on TLS.
    WebSocket(Arc<ServerConfig>),
    Tcp,
}

/// What all listeners of the node share.
#[derive(Clone)]
pub(crate) struct Admission {
    /// One permit a connection.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit a connection until its CONNACK.
    pub(crate) handshakes: Arc<Semaphore>,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, below: Below) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: TcpListener::from_std(socket.into())?, below })
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop`.
    pub(crate) async fn run(
        self,
        services: Arc<Services>,
        admission: Admission,
        connections: TaskTracker,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&admission) => accepted,
                () = stop.cancelled() => return,
            };
            let (socket, room, handshake) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(event = "accept_failed", kind = %error.kind(), "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                    continue;
                }
            };
            let Ok(transport) = self.below.transport(socket) else { continue };
            let label = self.below.label();
            let connection = Connection::new(transport, label, handshake, room, services.clone());
            connections.spawn(connection);
        }
    }

    async fn accept(
        &self,
        admission: &Admission,
    ) -> io::Result<(TcpStream, OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let closed = "the semaphores are never closed";
        let room = admission.connections.clone().acquire_owned().await.expect(closed);
        let handshake = admission.handshakes.clone().acquire_owned().await.expect(closed);
        let (socket, _) = self.socket.accept().await?;
        prepare(&socket)?;
        Ok((socket, room, handshake))
    }
}

impl Below {
    /// The flag and the key of the configuration, and the listener's label in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "mqtts",
            Self::WebSocket(_) => "wss",
            Self::Tcp => "plain",
        }
    }

    fn transport(&self, socket: TcpStream) -> Result<Transport, TlsFailure> {
        let socket = socket::Socket::Tcp(socket);
        Ok(match self {
            Self::Tls(config) => Transport::new(socket, Some(RecordLayer::new(config.clone())?), None),
            Self::WebSocket(config) => {
                Transport::new(socket, Some(RecordLayer::new(config.clone())?), Some(WebSocket::new()))
            }
            Self::Tcp => Transport::new(socket, None, None),
        })
    }
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_user_timeout(Some(UNANSWERED_MAX))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE_AFTER))
}

//! Accepting connections, and what comes before the first byte of MQTT or TLS.
//!
//! Who has nothing to say costs a file and a small task: TLS begins with the first byte, in a slot.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use metrics::counter;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Arrival, Room};
use crate::connection::Connection;
use crate::listener_name::ListenerName;
use crate::proxy_protocol::{FIXED_BYTES, Fixed, ProxyFault};
use crate::services::Services;
use crate::tls::{LiveTls, RecordLayer, TlsFailure};
use crate::transport::Transport;
use crate::websocket::WebSocket;
use crate::{metrics as own_metrics, socket};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 8192;
/// After a failed accept (out of files, mostly).
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);
/// Between two looks whether somebody has left a full node.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Of failures in a row, every so manieth is logged: once in ten seconds.
const ACCEPT_FAILURES_PER_LINE: u32 = 100;
/// A peer that does not answer the kernel for this long is gone: half-open sockets of mobile networks.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);
const KEEP_ALIVE_AFTER: Duration = Duration::from_mins(10);

pub(crate) struct Listener {
    socket: TcpListener,
    below: Below,
}

/// What MQTT is spoken on.
#[derive(Clone)]
pub(crate) enum Below {
    Tls(Arc<LiveTls>),
    /// A WebSocket on TLS.
    WebSocket(Arc<LiveTls>),
    Tcp,
}

/// What every connection of a listener begins with.
struct Door {
    below: Below,
    /// Networks of load balancers, which say in a header whom they speak for.
    proxies: Arc<[IpNet]>,
    services: Arc<Services>,
    connections: TaskTracker,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, below: Below) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        prepare(&socket)?;
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
        proxies: Arc<[IpNet]>,
        connections: TaskTracker,
        stop: CancellationToken,
    ) {
        let Self { socket: listening, below } = self;
        let door = Arc::new(Door { below, proxies, services, connections });
        let mut failures = 0_u32;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listening.accept() => accepted,
            };
            door.wait_for_room(&stop).await;
            match accepted {
                Ok((socket, peer)) => {
                    failures = 0;
                    door.open(socket, peer.ip());
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    counter!("sotto_accept_failures_total").increment(1);
                    if failures.is_multiple_of(ACCEPT_FAILURES_PER_LINE) {
                        tracing::warn!(event = "accept_failed", kind = %error.kind(), "connections cannot be accepted");
                    }
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                }
            }
        }
    }
}

impl Door {
    /// For as long as a full node may have room in a moment. Who comes meanwhile is kept by the kernel.
    async fn wait_for_room(&self, stop: &CancellationToken) {
        let Services { admission, clock, .. } = &*self.services;
        while !stop.is_cancelled() && admission.is_full_for_a_moment(clock.tenths()) {
            tokio::time::sleep(ROOM_LOOK_EVERY).await;
        }
    }

    /// Lets a connection in, or closes it before it has cost anything.
    fn open(self: &Arc<Self>, socket: TcpStream, peer: IpAddr) {
        let now_tenths = self.services.clock.tenths();
        let proxied = self.is_proxy(peer);
        let address = (!proxied).then_some(peer);
        let room = match self.services.admission.admit(address, now_tenths) {
            Ok(room) => room,
            Err(cause) => return own_metrics::connection_closed_unread(cause.as_str()),
        };
        let Some(arrival) = self.services.admission.arrive(&room, now_tenths) else { return };
        self.connections.spawn(self.clone().receive(socket, room, arrival, proxied));
    }

    /// Waits for the first byte, and for a slot; a connection comes of it.
    async fn receive(
        self: Arc<Self>,
        socket: TcpStream,
        mut room: Room,
        mut arrival: Arrival,
        proxied: bool,
    ) {
        let clock = &self.services.clock;
        let began = async {
            if proxied
                && let Some(source) = read_header(&socket).await?
                && let Err(cause) = room.is_from(source, clock.tenths())
            {
                own_metrics::connection_closed_unread(cause.as_str());
                return Ok(false);
            }
            socket.readable().await?;
            Ok(true)
        };
        let began: Result<bool, HeaderError> = tokio::select! {
            biased;
            gone = arrival.gone() => return own_metrics::disconnect(gone.as_str()),
            began = began => began,
        };
        match began {
            Ok(true) => {}
            Ok(false) => return,
            Err(HeaderError::Fault(fault)) => {
                tracing::warn!(event = "proxy_header_refused", error = %fault, "a load balancer's connection was closed");
                return own_metrics::disconnect("proxy_header");
            }
            Err(HeaderError::Io(_)) => return own_metrics::disconnect("lost_before_connect"),
        }
        if let Err(gone) = arrival.take_slot(clock).await {
            return own_metrics::disconnect(gone.as_str());
        }
        let Ok(transport) = self.below.transport(socket) else { return };
        let name = self.below.name();
        let connection = Connection::new(transport, name, arrival, room, self.services.clone());
        // A task of its own, of a connection's size alone.
        self.connections.spawn(connection);
    }

    fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&peer.to_canonical()))
    }
}

impl Below {
    pub(crate) fn name(&self) -> ListenerName {
        match self {
            Self::Tls(_) => ListenerName::Mqtts,
            Self::WebSocket(_) => ListenerName::Wss,
            Self::Tcp => ListenerName::Plain,
        }
    }

    fn transport(&self, socket: TcpStream) -> Result<Transport, TlsFailure> {
        let socket = socket::Socket::Tcp(socket);
        Ok(match self {
            Self::Tls(tls) => Transport::new(socket, Some(RecordLayer::new(tls.current())?), None),
            Self::WebSocket(tls) => {
                Transport::new(socket, Some(RecordLayer::new(tls.current())?), Some(WebSocket::new()))
            }
            Self::Tcp => Transport::new(socket, None, None),
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum HeaderError {
    #[error(transparent)]
    Fault(#[from] ProxyFault),
    #[error("socket: {}", .0.kind())]
    Io(#[from] io::Error),
}

/// Reads the PROXY protocol header and not a byte more.
async fn read_header(socket: &TcpStream) -> Result<Option<IpAddr>, HeaderError> {
    let mut fixed = [0; FIXED_BYTES];
    read_exact(socket, &mut fixed).await?;
    let fixed = Fixed::parse(&fixed)?;
    let mut following = vec![0; fixed.following_bytes];
    read_exact(socket, &mut following).await?;
    Ok(fixed.source(&following)?)
}

async fn read_exact(socket: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        socket.readable().await?;
        match socket.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = &mut buffer[read..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The peer went before it was accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// On the listening socket: Linux gives each connection what that one has.
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(UNANSWERED_MAX))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_accepted_has_what_its_listener_was_prepared_with() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any_port, Below::Tcp).expect("listen");
        let address = listener.local_address().expect("it is bound");
        let _client = TcpStream::connect(address).await.expect("connect");
        let (accepted, _) = listener.socket.accept().await.expect("accept");
        assert!(accepted.nodelay().expect("read an option"));
        let accepted = socket2::SockRef::from(&accepted);
        assert_eq!(accepted.tcp_user_timeout().expect("read an option"), Some(UNANSWERED_MAX));
        assert!(accepted.keepalive().expect("read an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("read an option"), KEEP_ALIVE_AFTER);
    }
}

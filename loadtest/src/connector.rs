//! From an address to a session: TCP, TLS, CONNECT and, where asked for, SUBSCRIBE.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::properties::{Properties, PropertyBuf};
use sotto_mqtt::codec::property::Property;
use sotto_mqtt::packet::{Connect, Packet, Subscribe, SubscribeFilters, Version};
use sotto_mqtt::reason::ReasonCode;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::client::{Client, ClientError, acknowledge, complete};
use crate::credentials::{Credentials, Identity};
use crate::endpoint::Endpoint;
use crate::lean_tls::LeanTls;
use crate::record_reader::RecordReader;
use crate::run_clock::{Micros, RunClock};
use crate::source_address::SourceAddresses;
use crate::stream::Stream;
use crate::template::{Place, RunId, Template};
use crate::tls::{Tls, TlsError};
use crate::web_socket::{UpgradeError, WebSocket};

#[derive(Clone)]
pub(crate) struct Connector {
    /// At least one; client i takes the i-th in turn.
    pub(crate) routes: Arc<[Route]>,
    /// `None`: TCP alone.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Sessions carry little: TLS is to cost as little memory as it can.
    pub(crate) lean: bool,
    /// Path of the WebSocket; `None`: no WebSocket.
    pub(crate) web_socket: Option<Arc<str>>,
    pub(crate) version: Version,
    pub(crate) credentials: Credentials,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry_seconds: u32,
    /// `None`: not sent.
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) timeout: Duration,
    pub(crate) run: RunId,
    pub(crate) clock: RunClock,
}

/// One of the broker's addresses and how to get there.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) endpoint: Endpoint,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) sources: SourceAddresses,
}

pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) times: ConnectTimes,
    /// What the broker grants, or has set in its stead. [MQTT-3.1.2-21]
    pub(crate) keep_alive_seconds: u16,
    pub(crate) receive_maximum: u16,
    /// The broker has kept the session. [MQTT-3.2.2-2]
    pub(crate) session_present: bool,
    /// The broker has accepted a TLS ticket.
    pub(crate) resumed: bool,
}

/// When each step was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectTimes {
    pub(crate) begun: Micros,
    pub(crate) tcp: Micros,
    /// `None` without TLS.
    pub(crate) tls: Option<Micros>,
    /// `None` without a WebSocket.
    pub(crate) web_socket: Option<Micros>,
    pub(crate) connack: Micros,
    /// `None` without a subscription.
    pub(crate) suback: Option<Micros>,
}

impl ConnectTimes {
    /// When the last step was done.
    pub(crate) fn done(&self) -> Micros {
        self.suback.unwrap_or(self.connack)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("source address cannot be used: {0}")]
    Source(io::Error),
    #[error("TCP connection failed: {0}")]
    Tcp(io::ErrorKind),
    #[error(
        "no port is left on the source address: give a larger --source-range, or more ports \
         (as root `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`)"
    )]
    NoPort,
    #[error("TLS handshake failed: {0}")]
    Tls(ClientError),
    #[error("certificate of the client: {0}")]
    Identity(TlsError),
    #[error("WebSocket was not opened: {0}")]
    WebSocket(UpgradeError),
    #[error("broker refused CONNECT: {} ({:#04x})", .0.as_str(), .0.code())]
    Refused(ReasonCode),
    #[error("broker refused SUBSCRIBE: {} ({:#04x})", .0.as_str(), .0.code())]
    SubscribeRefused(ReasonCode),
    #[error("while waiting for {0}: {1}")]
    Session(Step, ClientError),
    #[error("no {0} in time")]
    Timeout(Step),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Tcp,
    Tls,
    WebSocket,
    ConnAck,
    SubAck,
}

impl Connector {
    /// Goes all the way to CONNACK, and to SUBACK with a `filter`.
    pub(crate) async fn connect(
        &self,
        number: u32,
        filter: Option<(&str, QoS)>,
    ) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + self.timeout;
        let route = self.route(number);
        let identity = self.credentials.identity(number, self.run);
        let begun = self.clock.now();
        let tcp = within(deadline, Step::Tcp, open_tcp(route, number)).await?;
        let tcp_done = self.clock.now();
        let (mut stream, mut tls_done, mut web_socket_done) = (Stream::Plain(tcp), None, None);
        if let Some(tls) = &self.tls {
            let place = Place {
                number,
                run: self.run,
                client_id: &identity.client_id,
                user: identity.username.as_deref().unwrap_or_default(),
            };
            let config = tls.config(place).map_err(ConnectError::Identity)?;
            stream =
                within(deadline, Step::Tls, open_tls(stream, config, route, self.lean && tls.may_be_lean()))
                    .await?;
            tls_done = Some(self.clock.now());
        }
        if let Some(path) = &self.web_socket {
            let opened = WebSocket::open(stream, &route.endpoint.authority, path);
            let opened = async { opened.await.map_err(ConnectError::WebSocket) };
            stream = Stream::Web(Box::new(within(deadline, Step::WebSocket, opened).await?));
            web_socket_done = Some(self.clock.now());
        }
        let resumed = stream.is_resumed();
        let mut client = Client::new(stream, self.version);
        self.write_connect(&identity, client.out());
        let granted = within(deadline, Step::ConnAck, read_connack(&mut client)).await?;
        let connack_done = self.clock.now();
        let mut suback_done = None;
        if let Some((filter, qos)) = filter {
            self.write_subscribe(filter, qos, client.out());
            within(deadline, Step::SubAck, read_suback(&mut client)).await?;
            suback_done = Some(self.clock.now());
        }
        Ok(Connected {
            client,
            times: ConnectTimes {
                begun,
                tcp: tcp_done,
                tls: tls_done,
                web_socket: web_socket_done,
                connack: connack_done,
                suback: suback_done,
            },
            keep_alive_seconds: granted.keep_alive_seconds.unwrap_or(self.keep_alive_seconds),
            receive_maximum: granted.receive_maximum,
            session_present: granted.session_present,
            resumed,
        })
    }

    /// With the client's own number and names.
    pub(crate) fn expand(&self, template: &Template, number: u32) -> String {
        if !template.names_client() {
            return template.expand(Place { number, run: self.run, ..Place::default() });
        }
        let identity = self.credentials.identity(number, self.run);
        let user = identity.username.as_deref().unwrap_or_default();
        template.expand(Place { number, run: self.run, client_id: &identity.client_id, user })
    }

    pub(crate) fn route(&self, number: u32) -> &Route {
        &self.routes[number as usize % self.routes.len()]
    }

    fn write_connect(&self, identity: &Identity<'_>, out: &mut Vec<u8>) {
        let mut properties = PropertyBuf::new();
        if self.version == Version::V5 {
            if self.session_expiry_seconds > 0 {
                properties.push(Property::SessionExpiryInterval(self.session_expiry_seconds));
            }
            if let Some(receive_maximum) = self.receive_maximum {
                properties.push(Property::ReceiveMaximum(receive_maximum));
            }
        }
        let connect = Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive_seconds,
            client_id: &identity.client_id,
            will: None,
            username: identity.username.as_deref(),
            password: identity.password,
            properties: properties.as_properties(),
        };
        Packet::Connect(connect).encode(self.version, out);
    }

    fn write_subscribe(&self, filter: &str, qos: QoS, out: &mut Vec<u8>) {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let mut filters = Vec::new();
        let subscribe = Subscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: SubscribeFilters::encode(&[(filter, options)], &mut filters),
        };
        Packet::Subscribe(subscribe).encode(self.version, out);
    }
}

async fn open_tcp(route: &Route, number: u32) -> Result<TcpStream, ConnectError> {
    let broker = route.endpoint.address;
    let socket = if broker.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| ConnectError::Tcp(error.kind()))?;
    if let Some(source) = route.sources.of(number) {
        // The port is then chosen when connecting, for the four numbers of the connection together:
        // without it a port is taken for the address, whomever it talks to.
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
            .map_err(|error| ConnectError::Source(error.into()))?;
        socket.bind((source, 0).into()).map_err(ConnectError::Source)?;
    }
    let connected = socket.connect(broker).await;
    let stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => ConnectError::NoPort,
        kind => ConnectError::Tcp(kind),
    })?;
    // Small packets must not wait for each other's acknowledgement.
    stream.set_nodelay(true).map_err(|error| ConnectError::Tcp(error.kind()))?;
    Ok(stream)
}

async fn open_tls(
    stream: Stream,
    config: Arc<ClientConfig>,
    route: &Route,
    lean: bool,
) -> Result<Stream, ConnectError> {
    let Stream::Plain(tcp) = stream else { unreachable!("TLS comes first above TCP") };
    let connected =
        TlsConnector::from(config).connect(route.server_name.clone(), RecordReader::new(tcp)).await;
    let mut stream = connected.map_err(|error| ConnectError::Tls(error.into()))?;
    let session = stream.get_ref().1;
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let is_lean = lean && session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let Some(suite) = suite.filter(|_| is_lean) else {
        stream.get_mut().0.read_freely();
        return Ok(Stream::Tls(Box::new(stream)));
    };
    let (reader, session) = stream.into_inner();
    let (tcp, ahead) = reader.into_parts();
    let secrets = session.dangerous_extract_secrets();
    let secrets = secrets.map_err(|error| ConnectError::Tls(ClientError::Tls(error)))?;
    let lean = LeanTls::new(tcp, ahead, suite, &secrets);
    let lean = lean.expect("every suite of TLS 1.3 that rustls has is one of three");
    Ok(Stream::Lean(Box::new(lean)))
}

async fn within<T>(
    deadline: Instant,
    step: Step,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout_at(deadline, work).await.unwrap_or(Err(ConnectError::Timeout(step)))
}

struct Granted {
    keep_alive_seconds: Option<u16>,
    receive_maximum: u16,
    session_present: bool,
}

async fn read_connack(client: &mut Client) -> Result<Granted, ConnectError> {
    let answer = client.exchange(|packet, _| match packet {
        Packet::ConnAck(connack) if connack.reason.is_error() => Ok(Some(Err(connack.reason))),
        Packet::ConnAck(connack) => Ok(Some(Ok(Granted {
            keep_alive_seconds: connack.properties.server_keep_alive(),
            // [MQTT-3.3.4-9]: without it 65,535
            receive_maximum: connack.properties.receive_maximum().unwrap_or(u16::MAX),
            session_present: connack.session_present,
        }))),
        // [MQTT-3.2.0-1]
        _ => Err(ClientError::Unexpected("something before CONNACK")),
    });
    let answer = answer.await.map_err(|error| ConnectError::Session(Step::ConnAck, error))?;
    answer.map_err(ConnectError::Refused)
}

async fn read_suback(client: &mut Client) -> Result<(), ConnectError> {
    let version = client.version();
    let answer = client.exchange(|packet, out| {
        match packet {
            Packet::SubAck(suback) => {
                let code = suback.reasons.first().copied().unwrap_or(ReasonCode::UnspecifiedError.code());
                let refusal = ReasonCode::from_u8(code).unwrap_or(ReasonCode::UnspecifiedError);
                return Ok(Some(if code < 0x80 { Ok(()) } else { Err(refusal) }));
            }
            // A session that was there before may have messages waiting.
            Packet::Publish(publish) => acknowledge(&publish, version, out),
            Packet::PubRel(pubrel) => complete(&pubrel, version, out),
            _ => return Err(ClientError::Unexpected("something before SUBACK")),
        }
        Ok(None)
    });
    let answer = answer.await.map_err(|error| ConnectError::Session(Step::SubAck, error))?;
    answer.map_err(ConnectError::SubscribeRefused)
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP connection",
            Self::Tls => "TLS handshake",
            Self::WebSocket => "answer to the WebSocket request",
            Self::ConnAck => "CONNACK",
            Self::SubAck => "SUBACK",
        })
    }
}

//! From an address to a session: TCP, TLS, CONNECT and, where asked for, SUBSCRIBE.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::task::{Poll, ready};
use std::time::Duration;

use sotto_model::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use sotto_mqtt::codec::properties::{Properties, PropertyBuf};
use sotto_mqtt::codec::property::Property;
use sotto_mqtt::packet::{Connect, Packet, Subscribe, SubscribeFilters, Version};
use sotto_mqtt::reason::ReasonCode;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, ClientError, acknowledge, complete};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::run_clock::{Micros, RunClock};
use crate::source_address::SourceAddresses;
use crate::stream::Stream;
use crate::template::{RunId, Template};
use crate::tls::Tls;

pub(crate) struct Connector {
    pub(crate) endpoint: Endpoint,
    /// `None`: TCP alone.
    pub(crate) tls: Option<Tls>,
    pub(crate) sources: SourceAddresses,
    pub(crate) version: Version,
    pub(crate) client_id: Template,
    pub(crate) credentials: Credentials,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry_seconds: u32,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) timeout: Duration,
    pub(crate) run: RunId,
    pub(crate) clock: RunClock,
}

pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) times: ConnectTimes,
    /// What the broker grants, or has set in its stead. [MQTT-3.1.2-21]
    pub(crate) keep_alive_seconds: u16,
    pub(crate) receive_maximum: u16,
}

/// When each step was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectTimes {
    pub(crate) begun: Micros,
    pub(crate) tcp: Micros,
    /// `None` without TLS.
    pub(crate) tls: Option<Micros>,
    pub(crate) connack: Micros,
    /// `None` without a subscription.
    pub(crate) suback: Option<Micros>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("source address cannot be used: {0}")]
    Source(io::Error),
    #[error("TCP connection failed: {0}")]
    Tcp(io::ErrorKind),
    #[error("TLS handshake failed: {0}")]
    Tls(ClientError),
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
        let begun = self.clock.now();
        let tcp = within(deadline, Step::Tcp, self.open_tcp(number)).await?;
        let tcp_done = self.clock.now();
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(tls) => {
                let handshake = async {
                    let stream = tls.connector.connect(tls.server_name.clone(), tcp).await;
                    stream.map_err(|error| ConnectError::Tls(error.into()))
                };
                Stream::Tls(Box::new(within(deadline, Step::Tls, handshake).await?))
            }
        };
        let tls_done = self.tls.is_some().then(|| self.clock.now());
        let mut client = Client::new(stream, self.version);
        self.write_connect(number, client.out());
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
                connack: connack_done,
                suback: suback_done,
            },
            keep_alive_seconds: granted.keep_alive_seconds.unwrap_or(self.keep_alive_seconds),
            receive_maximum: granted.receive_maximum,
        })
    }

    async fn open_tcp(&self, number: u32) -> Result<TcpStream, ConnectError> {
        let broker = self.endpoint.address;
        let socket = if broker.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| ConnectError::Tcp(error.kind()))?;
        if let Some(source) = self.sources.of(number) {
            // The port is then chosen when connecting, for the four numbers of the connection together:
            // without it a port is taken for the address, whomever it talks to.
            #[cfg(target_os = "linux")]
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
                .map_err(|error| ConnectError::Source(error.into()))?;
            socket.bind((source, 0).into()).map_err(ConnectError::Source)?;
        }
        let stream = socket.connect(broker).await.map_err(|error| ConnectError::Tcp(error.kind()))?;
        // Small packets must not wait for each other's acknowledgement.
        stream.set_nodelay(true).map_err(|error| ConnectError::Tcp(error.kind()))?;
        Ok(stream)
    }

    fn write_connect(&self, number: u32, out: &mut Vec<u8>) {
        let mut properties = PropertyBuf::new();
        if self.version == Version::V5 && self.session_expiry_seconds > 0 {
            properties.push(Property::SessionExpiryInterval(self.session_expiry_seconds));
        }
        let client_id = self.client_id.expand(number, self.run);
        let username = self.credentials.username(number, self.run);
        let connect = Connect {
            version: self.version,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive_seconds,
            client_id: &client_id,
            will: None,
            username: username.as_deref(),
            password: self.credentials.password(number),
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
}

async fn read_connack(client: &mut Client) -> Result<Granted, ConnectError> {
    let answer = exchange(client, |packet, _| match packet {
        Packet::ConnAck(connack) if connack.reason.is_error() => Ok(Some(Err(connack.reason))),
        Packet::ConnAck(connack) => Ok(Some(Ok(Granted {
            keep_alive_seconds: connack.properties.server_keep_alive(),
            // [MQTT-3.3.4-9]: without it 65,535
            receive_maximum: connack.properties.receive_maximum().unwrap_or(u16::MAX),
        }))),
        // [MQTT-3.2.0-1]
        _ => Err(ClientError::Unexpected("something before CONNACK")),
    });
    let answer = answer.await.map_err(|error| ConnectError::Session(Step::ConnAck, error))?;
    answer.map_err(ConnectError::Refused)
}

async fn read_suback(client: &mut Client) -> Result<(), ConnectError> {
    let version = client.version();
    let answer = exchange(client, |packet, out| {
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

/// Sends what is encoded, then reads until `pick` has found its answer.
async fn exchange<T>(
    client: &mut Client,
    mut pick: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<Option<T>, ClientError>,
) -> Result<T, ClientError> {
    poll_fn(|cx| {
        let mut found = None;
        ready!(client.poll_flush(cx))?;
        client.receive(cx, |packet, out| {
            found = pick(packet, out)?;
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(found) = found {
            return Poll::Ready(Ok(found));
        }
        ready!(client.poll_flush(cx))?;
        Poll::Pending
    })
    .await
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP connection",
            Self::Tls => "TLS handshake",
            Self::ConnAck => "CONNACK",
            Self::SubAck => "SUBACK",
        })
    }
}

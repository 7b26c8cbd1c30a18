//! A connection to a broker that may be gone at any moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sotto_mqtt::codec::decode;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::packet::{Disconnect, Packet, Version};
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::phone::{Heard, Login};

/// TLS and CONNECT to CONNACK: as long as a broker may take to say that it cannot.
const CONNECT_MAX: Duration = Duration::from_secs(25);
/// Bytes that a broker does not take for so long are lost.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Where the broker is found, each time that it is started.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

pub(crate) struct Link {
    stream: TlsStream<TcpStream>,
    version: Version,
    input: Vec<u8>,
}

impl Link {
    /// And whether the session was there. `None`: try again later.
    pub(crate) async fn connect(place: &Place, login: &Login, version: Version) -> Option<(Self, bool)> {
        tokio::time::timeout(CONNECT_MAX, Self::try_connect(place, login, version)).await.ok()?
    }

    async fn try_connect(place: &Place, login: &Login, version: Version) -> Option<(Self, bool)> {
        let tcp = TcpStream::connect(place.address).await.ok()?;
        tcp.set_nodelay(true).ok()?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(place.tls.clone()).connect(name, tcp).await.ok()?;
        let mut link = Self { stream, version, input: Vec::new() };
        link.send(&login.packet()).await;
        match link.next().await {
            Heard::ConnAck { present, reason: ReasonCode::Success } => Some((link, present)),
            _ => None,
        }
    }

    /// What cannot be sent is lost: reading tells.
    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        let _ = tokio::time::timeout(WRITE_MAX, written).await;
    }

    /// Loses nothing when it is dropped half-way.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let decoded = decode(&self.input, self.version, u32::MAX).expect("well-formed packets");
            if let Some((packet, len)) = decoded {
                let heard = Heard::of(&packet);
                self.input.drain(..len);
                return heard;
            }
            if !matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
                return Heard::Closed;
            }
        }
    }

    /// DISCONNECT. Dropped without it, the connection is cut.
    pub(crate) async fn disconnect(mut self) {
        let goodbye = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        self.send(&Packet::Disconnect(goodbye)).await;
    }
}

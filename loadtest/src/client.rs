//! One MQTT connection, lean: it reads into the thread's buffer and keeps only what a read left incomplete.
//!
//! A session drives it from its own `poll`: [`Client::receive`], then put packets into [`Client::out`], then
//! [`Client::poll_flush`]; again while either of the first two says that it had to stop early.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use sotto_model::QoS;
use sotto_mqtt::codec::properties::Properties;
use sotto_mqtt::codec::{DecodeError, decode};
use sotto_mqtt::packet::{Ack, Disconnect, Packet, Publish, Version};
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::limits::{PACKET_BYTES_MAX, READ_BYTES_MIN, SCRATCH_BYTES, UNSENT_BYTES_KEPT, UNSENT_BYTES_MAX};
use crate::stream::Stream;

#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
    version: Version,
    /// What came behind the last packet handled.
    kept: Vec<u8>,
    /// Encoded packets; the first `written` bytes of them are with the stream.
    unsent: Vec<u8>,
    written: usize,
    /// The stream may still hold bytes of its own.
    unflushed: bool,
    awaits_pingresp: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("closed by the broker")]
    Closed,
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error("{0}")]
    Tls(rustls::Error),
    #[error("broker sent DISCONNECT: {} ({:#04x})", .0.as_str(), .0.code())]
    Disconnected(ReasonCode),
    #[error("broker refused PUBLISH: {} ({:#04x})", .0.as_str(), .0.code())]
    Refused(ReasonCode),
    #[error("broker sent a malformed packet: {0}")]
    Malformed(DecodeError),
    #[error("broker sent {0}, which nobody asked for")]
    Unexpected(&'static str),
    #[error("broker did not answer a PINGREQ")]
    NoPingResp,
    #[error("no {0} in time")]
    Late(&'static str),
}

/// Whether a session has to be polled again although nothing has woken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It stopped because too much waits for the socket.
    Stopped,
    /// There is nothing more to do until it is woken.
    Drained,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Parting {
    /// DISCONNECT, close_notify, FIN.
    Disconnect,
    /// FIN alone, as when a process is killed.
    Fin,
    /// RST, as from a network that has lost its state.
    Reset,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

impl Client {
    pub(crate) fn new(stream: Stream, version: Version) -> Self {
        Self {
            stream,
            version,
            kept: Vec::new(),
            unsent: Vec::new(),
            written: 0,
            unflushed: false,
            awaits_pingresp: false,
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Where packets to be sent are encoded.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.unsent
    }

    /// So much waits for the socket that no more should be encoded.
    pub(crate) fn is_congested(&self) -> bool {
        self.unsent.len() - self.written > UNSENT_BYTES_MAX
    }

    /// Fails when the last PINGREQ is still without an answer. [MQTT-3.12.4-1]
    pub(crate) fn ping(&mut self) -> Result<(), ClientError> {
        if self.awaits_pingresp {
            return Err(ClientError::NoPingResp);
        }
        self.awaits_pingresp = true;
        Packet::PingReq.encode(self.version, &mut self.unsent);
        Ok(())
    }

    /// Hands every packet that has come to `handle`, which may answer into the buffer it is given; PINGRESP
    /// and DISCONNECT are dealt with here. Where `handle` breaks, what lies behind is kept for the next call.
    pub(crate) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<ControlFlow<()>, ClientError>,
    ) -> Result<Pass, ClientError> {
        SCRATCH.with_borrow_mut(|scratch| {
            // Packets that an earlier call has left behind.
            let mut filled = self.take_kept(scratch);
            loop {
                let (consumed, flow) = self.decode_all(&scratch[..filled], &mut handle)?;
                self.kept.extend_from_slice(&scratch[consumed..filled]);
                if flow.is_break() || self.is_congested() {
                    return Ok(Pass::Stopped);
                }
                filled = self.take_kept(scratch);
                let mut buf = ReadBuf::new(&mut scratch[filled..]);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                    Poll::Pending => {
                        self.kept.extend_from_slice(&scratch[..filled]);
                        return Ok(Pass::Drained);
                    }
                    Poll::Ready(Err(error)) => return Err(error.into()),
                    Poll::Ready(Ok(())) if buf.filled().is_empty() => return Err(ClientError::Closed),
                    Poll::Ready(Ok(())) => filled += buf.filled().len(),
                }
            }
        })
    }

    /// Moves what was kept to the beginning of `scratch`, with room for one read behind it.
    fn take_kept(&mut self, scratch: &mut Vec<u8>) -> usize {
        let kept = std::mem::take(&mut self.kept);
        if scratch.len() < kept.len() + READ_BYTES_MIN {
            scratch.resize(kept.len() + READ_BYTES_MIN, 0);
        }
        scratch[..kept.len()].copy_from_slice(&kept);
        kept.len()
    }

    fn decode_all(
        &mut self,
        bytes: &[u8],
        handle: &mut impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<ControlFlow<()>, ClientError>,
    ) -> Result<(usize, ControlFlow<()>), ClientError> {
        let mut consumed = 0;
        while let Some((packet, len)) = decode(&bytes[consumed..], self.version, PACKET_BYTES_MAX)? {
            consumed += len;
            match packet {
                Packet::PingResp => self.awaits_pingresp = false,
                Packet::Disconnect(disconnect) => return Err(ClientError::Disconnected(disconnect.reason)),
                packet => {
                    if handle(packet, &mut self.unsent)?.is_break() {
                        return Ok((consumed, ControlFlow::Break(())));
                    }
                }
            }
        }
        Ok((consumed, ControlFlow::Continue(())))
    }

    /// Ready once everything encoded is with the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        while self.written < self.unsent.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(ClientError::Closed));
            }
            self.written += written;
            self.unflushed = true;
        }
        self.unsent.clear();
        self.written = 0;
        self.unsent.shrink_to(UNSENT_BYTES_KEPT);
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Frees what buffers there are between packets, for who seldom sends.
    pub(crate) fn free_buffers(&mut self) {
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
    }

    /// Sends what is encoded, then reads until `pick` has found its answer.
    pub(crate) async fn exchange<T>(
        &mut self,
        mut pick: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<Option<T>, ClientError>,
    ) -> Result<T, ClientError> {
        poll_fn(|cx| {
            let mut found = None;
            ready!(self.poll_flush(cx))?;
            self.receive(cx, |packet, out| {
                found = pick(packet, out)?;
                Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if let Some(found) = found {
                return Poll::Ready(Ok(found));
            }
            ready!(self.poll_flush(cx))?;
            Poll::Pending
        })
        .await
    }

    /// Ends the connection; a broker that closes first has not failed.
    pub(crate) async fn part(self, parting: Parting) {
        match parting {
            Parting::Disconnect => drop(self.close().await),
            Parting::Fin => {}
            // A socket that refuses is closed all the same.
            Parting::Reset => drop(self.stream.tcp().set_zero_linger()),
        }
    }

    /// Says DISCONNECT, so that the broker sends no will, and closes.
    pub(crate) async fn close(mut self) -> Result<(), ClientError> {
        let disconnect = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        Packet::Disconnect(disconnect).encode(self.version, &mut self.unsent);
        poll_fn(|cx| self.poll_flush(cx)).await?;
        Ok(self.stream.shutdown().await?)
    }
}

/// Answers a PUBLISH as its QoS demands. [MQTT-4.3.2-4] [MQTT-4.3.3-8]
pub(crate) fn acknowledge(publish: &Publish<'_>, version: Version, out: &mut Vec<u8>) {
    let Some(packet_id) = publish.packet_id else { return };
    let ack = Ack { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
    match publish.qos {
        QoS::AtMostOnce => {}
        QoS::AtLeastOnce => Packet::PubAck(ack).encode(version, out),
        QoS::ExactlyOnce => Packet::PubRec(ack).encode(version, out),
    }
}

/// Answers a PUBREL. [MQTT-4.3.3-11]
pub(crate) fn complete(pubrel: &Ack<'_>, version: Version, out: &mut Vec<u8>) {
    let ack = Ack { packet_id: pubrel.packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY };
    Packet::PubComp(ack).encode(version, out);
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        // Many brokers end a connection without TLS's close_notify.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(error.kind()),
        }
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

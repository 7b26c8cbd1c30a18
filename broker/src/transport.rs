//! The bytes of one connection: a socket with or without TLS, without buffers of its own.
//!
//! What is read goes into the thread's scratch buffers; only an incomplete TLS record and what the socket
//! would not take stay with the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::{RecordLayer, TlsFailure};

/// One read: a TLS record at its largest, and a little.
pub(crate) const READ_BYTES: usize = 17 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("socket: {}", .0.kind())]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsFailure),
}

pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<RecordLayer>,
    /// An incomplete TLS record.
    partial: Vec<u8>,
    /// Written by us, not yet taken by the socket, from `unsent_from` on.
    unsent: Vec<u8>,
    unsent_from: usize,
    peer_closed: bool,
}

/// Buffers that all connections of a thread share.
pub(crate) struct Scratch {
    /// Bytes from the socket.
    incoming: Vec<u8>,
    /// Bytes for the socket.
    outgoing: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { incoming: vec![0; READ_BYTES], outgoing: Vec::with_capacity(READ_BYTES) }
    }
}

impl Transport {
    pub(crate) fn new(socket: TcpStream, tls: Option<RecordLayer>) -> Self {
        Self { socket, tls, partial: Vec::new(), unsent: Vec::new(), unsent_from: 0, peer_closed: false }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(RecordLayer::is_established)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent_from < self.unsent.len()
    }

    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent.len() - self.unsent_from
    }

    /// Reads once and appends the plaintext: possibly none, when a record is incomplete.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        plaintext: &mut Vec<u8>,
    ) -> Poll<Result<(), TransportError>> {
        if self.peer_closed {
            return Poll::Ready(Err(TransportError::Closed));
        }
        let mut buffer = ReadBuf::new(&mut scratch.incoming);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Err(TransportError::Closed));
        }
        let Some(tls) = &mut self.tls else {
            plaintext.extend_from_slice(&scratch.incoming[..read]);
            return Poll::Ready(Ok(()));
        };
        scratch.outgoing.clear();
        let fed = if self.partial.is_empty() {
            let fed = tls.feed(&mut scratch.incoming[..read], plaintext, &mut scratch.outgoing);
            if let Ok(fed) = &fed {
                self.partial.extend_from_slice(&scratch.incoming[fed.consumed..read]);
            }
            fed
        } else {
            self.partial.extend_from_slice(&scratch.incoming[..read]);
            let fed = tls.feed(&mut self.partial, plaintext, &mut scratch.outgoing);
            if let Ok(fed) = &fed {
                self.partial.drain(..fed.consumed);
                if self.partial.is_empty() {
                    self.partial = Vec::new();
                }
            }
            fed
        };
        let closed = fed.map(|fed| fed.closed);
        // Handshake records and alerts leave even when the connection fails.
        let sent = self.poll_send(cx, &scratch.outgoing);
        // What came before close_notify is still to be handled.
        self.peer_closed = closed?;
        sent?;
        Poll::Ready(Ok(()))
    }

    /// Encrypts and sends; what the socket does not take is kept, to be sent by `poll_flush`.
    pub(crate) fn write(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        plaintext: &[u8],
    ) -> Result<(), TransportError> {
        scratch.outgoing.clear();
        match &mut self.tls {
            Some(tls) => tls.encrypt(plaintext, &mut self.partial, &mut scratch.outgoing)?,
            None => scratch.outgoing.extend_from_slice(plaintext),
        }
        self.poll_send(cx, &scratch.outgoing)
    }

    /// Sends what is kept.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        while self.has_unsent() {
            let unsent = &self.unsent[self.unsent_from..];
            match ready!(Pin::new(&mut self.socket).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(TransportError::Closed)),
                written => self.unsent_from += written,
            }
        }
        if !self.unsent.is_empty() {
            self.unsent = Vec::new();
            self.unsent_from = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues close_notify behind what is kept.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.partial, &mut self.unsent);
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, outgoing: &[u8]) -> Result<(), TransportError> {
        let mut sent = 0;
        // Nothing may overtake what is kept.
        while !self.has_unsent() && sent < outgoing.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &outgoing[sent..]) {
                Poll::Ready(Ok(0)) => return Err(TransportError::Closed),
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(&outgoing[sent..]);
        Ok(())
    }
}

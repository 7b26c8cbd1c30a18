//! The bytes of one connection: a socket, with or without TLS and a WebSocket, without buffers of its own.
//!
//! What is read goes into the thread's scratch buffers; only an incomplete TLS record, an incomplete
//! WebSocket header and what the socket would not take stay with the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::Socket;
use crate::tls::{RecordLayer, TlsFailure};
use crate::websocket::{Received, Violation, WebSocket};

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
    #[error(transparent)]
    WebSocket(#[from] Violation),
}

pub(crate) struct Transport {
    socket: Socket,
    tls: Option<RecordLayer>,
    websocket: Option<Box<WebSocket>>,
    /// An incomplete TLS record.
    partial: Vec<u8>,
    /// Written by us, not yet taken by the socket, from `unsent_from` on.
    unsent: Vec<u8>,
    unsent_from: usize,
    over: Option<Over>,
}

/// Why nothing more is read, once what came before is handled.
#[derive(Clone, Copy)]
enum Over {
    Closed,
    WebSocket(Violation),
}

/// Buffers that all connections of a thread share.
pub(crate) struct Scratch {
    /// Bytes from the socket.
    incoming: Vec<u8>,
    /// Bytes for the socket.
    outgoing: Vec<u8>,
    /// A WebSocket's frames, received or to be sent.
    frames: Vec<u8>,
    /// What a WebSocket answers by itself.
    answers: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            incoming: vec![0; READ_BYTES],
            outgoing: Vec::with_capacity(READ_BYTES),
            frames: Vec::new(),
            answers: Vec::new(),
        }
    }
}

impl Transport {
    pub(crate) fn new(socket: Socket, tls: Option<RecordLayer>, websocket: Option<WebSocket>) -> Self {
        Self {
            socket,
            tls,
            websocket: websocket.map(Box::new),
            partial: Vec::new(),
            unsent: Vec::new(),
            unsent_from: 0,
            over: None,
        }
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

    /// Reads once and appends what it carries of MQTT packets: possibly nothing, when a record or a frame is
    /// incomplete.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        packets: &mut Vec<u8>,
    ) -> Poll<Result<(), TransportError>> {
        match self.over {
            Some(Over::Closed) => return Poll::Ready(Err(TransportError::Closed)),
            Some(Over::WebSocket(violation)) => return Poll::Ready(Err(violation.into())),
            None => {}
        }
        // A peer that takes no answers is not read: they would have to be kept.
        ready!(self.poll_flush(cx))?;
        let mut buffer = ReadBuf::new(&mut scratch.incoming);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Err(TransportError::Closed));
        }
        scratch.outgoing.clear();
        let received = if self.websocket.is_none() {
            self.decrypt(read, scratch, packets)
        } else {
            let mut frames = std::mem::take(&mut scratch.frames);
            frames.clear();
            let received = self
                .decrypt(read, scratch, &mut frames)
                .and_then(|()| self.receive_frames(scratch, &mut frames, packets));
            scratch.frames = frames;
            received
        };
        // Handshake records and alerts leave even when the connection fails.
        let sent = self.poll_send(cx, &scratch.outgoing);
        received?;
        sent?;
        Poll::Ready(Ok(()))
    }

    /// Appends the plaintext of what was read, and leaves what TLS answers in `scratch.outgoing`.
    fn decrypt(
        &mut self,
        read: usize,
        scratch: &mut Scratch,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let Some(tls) = &mut self.tls else {
            plaintext.extend_from_slice(&scratch.incoming[..read]);
            return Ok(());
        };
        let closed = if self.partial.is_empty() {
            let fed = tls.feed(&mut scratch.incoming[..read], plaintext, &mut scratch.outgoing)?;
            self.partial.extend_from_slice(&scratch.incoming[fed.consumed..read]);
            fed.closed
        } else {
            self.partial.extend_from_slice(&scratch.incoming[..read]);
            let fed = tls.feed(&mut self.partial, plaintext, &mut scratch.outgoing)?;
            self.partial.drain(..fed.consumed);
            if self.partial.is_empty() {
                self.partial = Vec::new();
            }
            fed.closed
        };
        if closed {
            self.over = Some(Over::Closed);
        }
        Ok(())
    }

    /// Appends what the frames carry, and what the WebSocket answers to `scratch.outgoing`.
    fn receive_frames(
        &mut self,
        scratch: &mut Scratch,
        frames: &mut Vec<u8>,
        packets: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let Some(websocket) = &mut self.websocket else { return Ok(()) };
        scratch.answers.clear();
        match websocket.receive(frames, packets, &mut scratch.answers) {
            Ok(Received::More) => {}
            Ok(Received::Closed) => self.over = Some(Over::Closed),
            Err(violation) => self.over = Some(Over::WebSocket(violation)),
        }
        if scratch.answers.is_empty() {
            return Ok(());
        }
        self.encrypt(&scratch.answers, &mut scratch.outgoing)
    }

    /// Encrypts and sends, a WebSocket's in one frame; what the socket does not take is kept, to be sent by
    /// `poll_flush`.
    pub(crate) fn write(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        packets: &[u8],
    ) -> Result<(), TransportError> {
        scratch.outgoing.clear();
        if let Some(websocket) = &self.websocket {
            scratch.frames.clear();
            websocket.send(packets, &mut scratch.frames);
            self.encrypt(&scratch.frames, &mut scratch.outgoing)?;
        } else {
            self.encrypt(packets, &mut scratch.outgoing)?;
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

    /// Queues behind what is kept what ends the connection: a WebSocket's close frame, and close_notify.
    pub(crate) fn close_notify(&mut self) {
        let mut unsent = std::mem::take(&mut self.unsent);
        let mut frame = Vec::new();
        if let Some(websocket) = &mut self.websocket {
            websocket.close(&mut frame);
        }
        if !frame.is_empty() {
            // A connection on which nothing can be sent any more is closed without a word.
            let _ = self.encrypt(&frame, &mut unsent);
        }
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.partial, &mut unsent);
        }
        self.unsent = unsent;
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn encrypt(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TransportError> {
        match &mut self.tls {
            Some(tls) => tls.encrypt(plaintext, &mut self.partial, outgoing)?,
            None => outgoing.extend_from_slice(plaintext),
        }
        Ok(())
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

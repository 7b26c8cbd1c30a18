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
    kept: Kept,
}

/// Nearly always nothing, and then it takes no more than a pointer.
#[derive(Default)]
struct Kept(Option<Box<KeptBytes>>);

#[derive(Default)]
struct KeptBytes {
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
        Self { socket, tls, websocket: websocket.map(Box::new), kept: Kept::default() }
    }

    pub(crate) fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(RecordLayer::is_established)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent_bytes() > 0
    }

    pub(crate) fn unsent_bytes(&self) -> usize {
        self.kept.unsent().len()
    }

    /// Ready once a read would find something, or that nothing more comes.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        ready!(self.poll_flush(cx))?;
        self.socket.poll_readable(cx).map_err(TransportError::Io)
    }

    /// Reads once and appends what it carries of MQTT packets: possibly nothing, when a record or a frame is
    /// incomplete.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        packets: &mut Vec<u8>,
    ) -> Poll<Result<(), TransportError>> {
        match self.kept.over() {
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
        if received.is_ok() && self.is_established() && !packets.is_empty() {
            // A session ticket, or a WebSocket's answer: it leaves with what the packets are answered, or before
            // anything else is read.
            self.kept.keep_unsent(&scratch.outgoing);
            return Poll::Ready(Ok(()));
        }
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
        let fed = if self.kept.partial().is_empty() {
            let fed = tls.feed(&mut scratch.incoming[..read], plaintext, &mut scratch.outgoing)?;
            self.kept.set_partial(&scratch.incoming[fed.consumed..read]);
            fed
        } else {
            let mut partial = self.kept.take_partial();
            partial.extend_from_slice(&scratch.incoming[..read]);
            let fed = tls.feed(&mut partial, plaintext, &mut scratch.outgoing)?;
            self.kept.set_partial(&partial[fed.consumed..]);
            fed
        };
        if fed.closed {
            self.kept.end(Over::Closed);
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
            Ok(Received::Closed) => self.kept.end(Over::Closed),
            Err(violation) => self.kept.end(Over::WebSocket(violation)),
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
            match ready!(Pin::new(&mut self.socket).poll_write(cx, self.kept.unsent()))? {
                0 => return Poll::Ready(Err(TransportError::Closed)),
                written => self.kept.sent(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Queues behind what is kept what ends the connection: a WebSocket's close frame, and close_notify.
    pub(crate) fn close_notify(&mut self) {
        let mut last = Vec::new();
        let mut frame = Vec::new();
        if let Some(websocket) = &mut self.websocket {
            websocket.close(&mut frame);
        }
        if !frame.is_empty() {
            // A connection on which nothing can be sent any more is closed without a word.
            let _ = self.encrypt(&frame, &mut last);
        }
        if let Some(tls) = &mut self.tls {
            tls.close(self.kept.partial_mut(), &mut last);
        }
        self.kept.keep_unsent(&last);
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn encrypt(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TransportError> {
        match &mut self.tls {
            Some(tls) => tls.encrypt(plaintext, self.kept.partial_mut(), outgoing)?,
            None => outgoing.extend_from_slice(plaintext),
        }
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, outgoing: &[u8]) -> Result<(), TransportError> {
        if self.has_unsent() {
            // Nothing may overtake what is kept.
            self.kept.keep_unsent(outgoing);
            return match self.poll_flush(cx) {
                Poll::Ready(Err(error)) => Err(error),
                Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
            };
        }
        let mut sent = 0;
        while sent < outgoing.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &outgoing[sent..]) {
                Poll::Ready(Ok(0)) => return Err(TransportError::Closed),
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => break,
            }
        }
        self.kept.keep_unsent(&outgoing[sent..]);
        Ok(())
    }
}

impl Kept {
    fn over(&self) -> Option<Over> {
        self.0.as_ref().and_then(|kept| kept.over)
    }

    fn end(&mut self, over: Over) {
        self.0.get_or_insert_default().over = Some(over);
    }

    fn partial(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |kept| &kept.partial)
    }

    fn partial_mut(&mut self) -> &mut [u8] {
        self.0.as_mut().map_or(&mut [], |kept| &mut kept.partial)
    }

    fn take_partial(&mut self) -> Vec<u8> {
        let partial = self.0.as_mut().map(|kept| std::mem::take(&mut kept.partial));
        self.shrink();
        partial.unwrap_or_default()
    }

    fn unsent(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |kept| &kept.unsent[kept.unsent_from..])
    }

    fn set_partial(&mut self, partial: &[u8]) {
        if !partial.is_empty() {
            self.0.get_or_insert_default().partial.extend_from_slice(partial);
        }
    }

    fn keep_unsent(&mut self, unsent: &[u8]) {
        if !unsent.is_empty() {
            self.0.get_or_insert_default().unsent.extend_from_slice(unsent);
        }
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(kept) = &mut self.0 {
            kept.unsent_from += bytes;
        }
        if self.unsent().is_empty() {
            if let Some(kept) = &mut self.0 {
                (kept.unsent, kept.unsent_from) = (Vec::new(), 0);
            }
            self.shrink();
        }
    }

    /// Gives back what is empty.
    fn shrink(&mut self) {
        self.0.take_if(|kept| kept.partial.is_empty() && kept.unsent.is_empty() && kept.over.is_none());
    }
}

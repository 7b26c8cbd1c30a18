//! The bytes below HTTP/2: they may freeze, and a frame may be put in between others.
//!
//! ```text
//! GOAWAY   length 8 (u24) | type 7 | flags 0 | stream 0 (u32) | last stream (u32) | reason (u32)
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use h2::Reason;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const FRAME_HEADER_BYTES: usize = 9;

/// What is to happen on a connection's wire.
#[derive(Default)]
pub(crate) struct Switches {
    is_frozen: AtomicBool,
    /// Goes out before the next frame.
    extra: Mutex<Option<Vec<u8>>>,
}

impl Switches {
    pub(crate) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Release);
    }

    pub(crate) fn go_away(&self, last_stream: u32, reason: Reason) {
        let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
        frame.extend(last_stream.to_be_bytes());
        frame.extend(u32::from(reason).to_be_bytes());
        *self.extra.lock() = Some(frame);
    }
}

pub(crate) struct Wire<S> {
    stream: S,
    switches: Arc<Switches>,
    /// Of a frame put in between, what has not gone out.
    extra: Vec<u8>,
    /// The header of the frame that goes out, as far as it has.
    header: Vec<u8>,
    /// Of that frame's payload, what has not gone out, bytes.
    payload_left: usize,
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S, switches: Arc<Switches>) -> Self {
        Self { stream, switches, extra: Vec::new(), header: Vec::new(), payload_left: 0 }
    }

    /// Bytes until the next place where a frame may be put in, as far as known.
    fn until_boundary(&self) -> usize {
        if self.payload_left > 0 { self.payload_left } else { FRAME_HEADER_BYTES - self.header.len() }
    }

    fn is_between_frames(&self) -> bool {
        self.payload_left == 0 && self.header.is_empty()
    }

    /// `written` went out, and it is not more than `until_boundary`.
    fn follow(&mut self, written: &[u8]) {
        if self.payload_left > 0 {
            self.payload_left -= written.len();
            return;
        }
        self.header.extend_from_slice(written);
        if self.header.len() == FRAME_HEADER_BYTES {
            let length = [0, self.header[0], self.header[1], self.header[2]];
            self.payload_left = u32::from_be_bytes(length) as usize;
            self.header.clear();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.switches.is_frozen.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.switches.is_frozen.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if this.is_between_frames()
            && let Some(extra) = this.switches.extra.lock().take()
        {
            this.extra = extra;
        }
        while !this.extra.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.extra))?;
            this.extra.drain(..written);
        }
        let bytes = &bytes[..bytes.len().min(this.until_boundary())];
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.follow(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.switches.is_frozen.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! A socket that gives out one TLS record at a time, until it is told that it need not.
//!
//! When the handshake is over, nothing of what follows is then in rustls' own buffer: the connection can go on
//! without it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::limits::SOCKET_READ_BYTES;

/// Type, version, length. RFC 8446, 5.1
pub(crate) const RECORD_HEADER_BYTES: usize = 5;

#[derive(Debug)]
pub(crate) struct RecordReader {
    tcp: TcpStream,
    /// Received, and not given out.
    ahead: Vec<u8>,
    /// Of the record that is being given out.
    left_bytes: usize,
    by_record: bool,
}

impl RecordReader {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: Vec::new(), left_bytes: 0, by_record: true }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// From here on, bytes are given out as they come.
    pub(crate) fn read_freely(&mut self) {
        self.by_record = false;
    }

    /// With what was received and not given out.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.tcp, self.ahead)
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; SOCKET_READ_BYTES];
        let mut buf = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf))?;
        self.ahead.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl AsyncRead for RecordReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.by_record && this.ahead.is_empty() {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        let needed = if !this.by_record || this.left_bytes > 0 { 1 } else { RECORD_HEADER_BYTES };
        while this.ahead.len() < needed {
            if ready!(this.poll_read_ahead(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        if this.left_bytes == 0 {
            let length = u16::from_be_bytes([this.ahead[3], this.ahead[4]]);
            this.left_bytes = RECORD_HEADER_BYTES + usize::from(length);
        }
        let limit = if this.by_record { this.left_bytes } else { usize::MAX };
        let len = limit.min(this.ahead.len()).min(buf.remaining());
        buf.put_slice(&this.ahead[..len]);
        this.ahead.drain(..len);
        this.left_bytes = this.left_bytes.saturating_sub(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordReader {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

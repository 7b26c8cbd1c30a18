//! MQTT over WebSocket, as a client speaks it: a stream of bytes in binary frames. RFC 6455
//!
//! To MQTT a WebSocket is a stream: packets and frames need not begin or end together [MQTT-6.0.0-2]. What
//! comes is taken out of its frames in the buffer that it was read into; idle, nothing is held.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tungstenite::handshake::client::{Response, generate_key};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::limits::{UPGRADE_BYTES_MAX, UPGRADE_READ_BYTES};

/// RFC 6455, 5.5
const CONTROL_BYTES_MAX: u64 = 125;

#[derive(Debug)]
pub(crate) struct WebSocket<S> {
    stream: S,
    /// A header or a control frame that is not complete.
    held: Vec<u8>,
    /// Of the data frame being received, bytes that have not come.
    left_bytes: u64,
    /// The server has sent a close frame.
    closed: bool,
    /// Frames; the first `written` bytes of them are with the stream.
    unsent: Vec<u8>,
    written: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error("closed by the broker")]
    Closed,
    #[error("answer is not HTTP/1.1")]
    NotHttp,
    #[error("answer is longer than {UPGRADE_BYTES_MAX} bytes")]
    TooLong,
    #[error("HTTP status {0}")]
    Refused(u16),
    #[error("answer is not to this request")]
    Accept,
    #[error("answer does not agree to the subprotocol mqtt")]
    Subprotocol,
    #[error("broker sent something before CONNECT")]
    Eager,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for a WebSocket and waits for the answer. `authority` is host and port.
    pub(crate) async fn open(mut stream: S, authority: &str, path: &str) -> Result<Self, UpgradeError> {
        let key = generate_key();
        // [MQTT-6.0.0-3]
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        loop {
            answer.reserve(UPGRADE_READ_BYTES);
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(UpgradeError::Closed);
            }
            let parsed = Response::try_parse(&answer).map_err(|_| UpgradeError::NotHttp)?;
            let Some((len, response)) = parsed else {
                if answer.len() > UPGRADE_BYTES_MAX {
                    return Err(UpgradeError::TooLong);
                }
                continue;
            };
            check(&response, &key)?;
            // An MQTT server says nothing before the client has. [MQTT-3.1.0-1]
            if len < answer.len() {
                return Err(UpgradeError::Eager);
            }
            return Ok(Self {
                stream,
                held: Vec::new(),
                left_bytes: 0,
                closed: false,
                unsent: Vec::new(),
                written: 0,
            });
        }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Takes the payload out of the frames in `bytes`, to the front of it; its length.
    fn unframe(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut read, mut written) = (0, 0);
        while read < bytes.len() && !self.closed {
            if self.left_bytes > 0 {
                let left = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
                let len = left.min(bytes.len() - read);
                bytes.copy_within(read..read + len, written);
                read += len;
                written += len;
                self.left_bytes -= len as u64;
                continue;
            }
            let mut cursor = Cursor::new(&bytes[read..]);
            let header =
                FrameHeader::parse(&mut cursor).map_err(|_| violation("a header that no server sends"))?;
            let header_bytes = usize::try_from(cursor.position()).expect("a header is short");
            let Some((header, len)) = header else {
                self.held = bytes[read..].to_vec();
                break;
            };
            // RFC 6455, 5.1 and 5.2: no extension was asked for.
            if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
                return Err(violation("a frame with a mask or of an extension"));
            }
            match header.opcode {
                // [MQTT-6.0.0-1]
                OpCode::Data(Data::Binary | Data::Continue) => {
                    self.left_bytes = len;
                    read += header_bytes;
                }
                OpCode::Control(kind) if header.is_final && len <= CONTROL_BYTES_MAX => {
                    let end = read + header_bytes + usize::try_from(len).expect("at most 125");
                    if end > bytes.len() {
                        self.held = bytes[read..].to_vec();
                        break;
                    }
                    match kind {
                        Control::Ping => {
                            let payload = &bytes[read + header_bytes..end];
                            append_frame(OpCode::Control(Control::Pong), payload, &mut self.unsent);
                        }
                        Control::Close => self.closed = true,
                        Control::Pong | Control::Reserved(_) => {}
                    }
                    read = end;
                }
                OpCode::Data(_) | OpCode::Control(_) => return Err(violation("a frame that is not binary")),
            }
        }
        Ok(written)
    }

    /// Ready once every frame is with the stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.unsent.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.unsent = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        loop {
            if this.closed {
                return Poll::Ready(Ok(()));
            }
            let held = this.held.len();
            buf.put_slice(&this.held);
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > start + held => {}
                other => {
                    buf.set_filled(start);
                    return other;
                }
            }
            this.held = Vec::new();
            let len = this.unframe(&mut buf.filled_mut()[start..])?;
            buf.set_filled(start + len);
            if !this.unsent.is_empty() {
                // A pong that finds no room goes out with the next packet.
                if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
            }
            if len > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One frame waits at most; the next is not taken before it has gone.
        ready!(this.poll_drain(cx))?;
        append_frame(OpCode::Data(Data::Binary), buf, &mut this.unsent);
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            append_frame(OpCode::Control(Control::Close), &1000_u16.to_be_bytes(), &mut this.unsent);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

fn check(response: &Response, key: &str) -> Result<(), UpgradeError> {
    let header = |name: &str| response.headers().get(name).map(HeaderValue::as_bytes);
    if response.status().as_u16() != 101 {
        return Err(UpgradeError::Refused(response.status().as_u16()));
    }
    if header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(UpgradeError::Accept);
    }
    // [MQTT-6.0.0-4]
    if header("sec-websocket-protocol") != Some(b"mqtt") {
        return Err(UpgradeError::Subprotocol);
    }
    Ok(())
}

/// A client masks what it sends. RFC 6455, 5.3
fn append_frame(opcode: OpCode, payload: &[u8], frames: &mut Vec<u8>) {
    let mask: [u8; 4] = rand::random();
    let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
    header.format(payload.len() as u64, frames).expect("a vector takes all");
    frames.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn violation(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl From<io::Error> for UpgradeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a server sends, and what arrives of it, in reads of `step` bytes.
    fn unframed(sent: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut web_socket, mut server) = open_pair().await;
            server.write_all(sent).await?;
            server.shutdown().await?;
            let (mut received, mut buf) = (Vec::new(), vec![0; step]);
            loop {
                let len = web_socket.read(&mut buf).await?;
                if len == 0 {
                    return Ok(received);
                }
                received.extend_from_slice(&buf[..len]);
            }
        })
    }

    async fn open_pair() -> (WebSocket<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = async {
            let (mut server, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 1024];
            let len = server.read(&mut request).await.expect("a request");
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
            let accept = derive_accept_key(key.expect("a key").as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            );
            server.write_all(answer.as_bytes()).await.expect("answered");
            server
        };
        let client = async {
            let stream = TcpStream::connect(address).await.expect("connected");
            WebSocket::open(stream, "localhost", "/mqtt").await.expect("a WebSocket")
        };
        tokio::join!(client, server)
    }

    #[test]
    fn what_comes_in_frames_is_a_stream_however_it_is_cut() {
        let long = [7; 300];
        let mut sent = vec![0x82, 2, b'a', b'b', 0x89, 1, b'p', 0x02, 126, 1, 44];
        sent.extend_from_slice(&long);
        sent.extend_from_slice(&[0x80, 0, 0x82, 1, b'z', 0x88, 2, 3, 232, 0x82, 1, b'!']);
        let expected = [&b"ab"[..], &long, b"z"].concat();
        for step in [20, 131, 4096] {
            assert_eq!(unframed(&sent, step).expect("understood"), expected, "{step}");
        }
    }

    #[test]
    fn text_masked_frames_and_extensions_end_the_connection() {
        for bad in [&[0x81, 1, b'a'][..], &[0x82, 0x81, 0, 0, 0, 0, b'a'], &[0xC2, 1, b'a']] {
            let refused = unframed(bad, 4096).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::InvalidData), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_masked_and_a_ping_is_answered() {
        let (mut web_socket, mut server) = open_pair().await;
        web_socket.write_all(b"CONNECT").await.expect("sent");
        web_socket.flush().await.expect("sent");
        let mut frame = [0; 13];
        server.read_exact(&mut frame).await.expect("a frame");
        assert_eq!(frame[..2], [0x82, 0x87]);
        let unmasked: Vec<_> =
            frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(unmasked, b"CONNECT");
        server.write_all(&[0x89, 1, b'p', 0x82, 1, b'x']).await.expect("sent");
        let mut byte = [0; 64];
        assert_eq!(web_socket.read(&mut byte).await.expect("a byte"), 1);
        let mut pong = [0; 7];
        server.read_exact(&mut pong).await.expect("a pong");
        assert_eq!((pong[0], pong[1], pong[6] ^ pong[2]), (0x8A, 0x81, b'p'));
    }
}

//! The bytes under MQTT: TLS, or TCP alone; below a WebSocket or not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::lean_tls::LeanTls;
use crate::record_reader::RecordReader;
use crate::web_socket::WebSocket;

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<RecordReader>>),
    /// TLS 1.3 of a session that is only held.
    Lean(Box<LeanTls>),
    Web(Box<WebSocket<Self>>),
}

impl Stream {
    /// What was negotiated, for the report.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Plain(_) => "plain TCP".into(),
            Self::Tls(stream) => {
                let session = stream.get_ref().1;
                let version = session.protocol_version().and_then(|version| version.as_str());
                let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
                format!("{} {}", version.unwrap_or("TLS"), suite.unwrap_or("?"))
            }
            Self::Lean(stream) => format!("TLSv1_3 {}", stream.suite().as_str().unwrap_or("?")),
            Self::Web(web_socket) => format!("WebSocket over {}", web_socket.stream().describe()),
        }
    }

    /// A ticket was accepted.
    pub(crate) fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Lean(_) => false,
            Self::Tls(stream) => stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed),
            Self::Web(web_socket) => web_socket.stream().is_resumed(),
        }
    }

    /// The socket, for ways to close it that streams do not know.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0.tcp(),
            Self::Lean(stream) => stream.tcp(),
            Self::Web(web_socket) => web_socket.stream().tcp(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Lean(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Web(web_socket) => Pin::new(web_socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Lean(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Web(web_socket) => Pin::new(web_socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Lean(stream) => Pin::new(stream).poll_flush(cx),
            Self::Web(web_socket) => Pin::new(web_socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Lean(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Web(web_socket) => Pin::new(web_socket).poll_shutdown(cx),
        }
    }
}

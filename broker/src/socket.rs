//! The socket below a connection: TCP, and under test one in memory.

#[cfg(test)]
pub(crate) mod pipe;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(test)]
use tokio::io::DuplexStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(test)]
use crate::socket::pipe::Pipe;

pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(test)]
    Simulated(DuplexStream),
    #[cfg(test)]
    Memory(Pipe),
}

impl Socket {
    /// One in memory says yes at any time: it is known when it is read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            #[cfg(test)]
            Self::Simulated(_) | Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            #[cfg(test)]
            Self::Memory(pipe) => pipe.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            #[cfg(test)]
            Self::Memory(pipe) => Poll::Ready(Ok(pipe.write(bytes))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_flush(cx),
            #[cfg(test)]
            Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            #[cfg(test)]
            Self::Simulated(pipe) => Pin::new(pipe).poll_shutdown(cx),
            #[cfg(test)]
            Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }
}

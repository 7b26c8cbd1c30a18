//! A connection in memory that holds nothing while nobody says anything, so that what is measured beside it is
//! the session.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::io::ReadBuf;

/// Both ends.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    server: Option<Waker>,
    client: Option<Waker>,
    closed: bool,
}

impl Pipe {
    /// Of both ends together.
    pub(crate) const BYTES: usize = size_of::<Mutex<Bytes>>() + 2 * size_of::<usize>();

    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut bytes = self.0.lock();
        if bytes.to_server.is_empty() && !bytes.closed {
            bytes.server = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = bytes.to_server.len().min(buffer.remaining());
        buffer.put_slice(&bytes.to_server[..len]);
        bytes.to_server.drain(..len);
        if bytes.to_server.is_empty() {
            bytes.to_server = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn write(&self, written: &[u8]) -> usize {
        let mut bytes = self.0.lock();
        bytes.to_client.extend_from_slice(written);
        let client = bytes.client.take();
        drop(bytes);
        client.into_iter().for_each(Waker::wake);
        written.len()
    }

    // ---- the client's end ----

    pub(crate) fn say(&self, said: &[u8]) {
        let mut bytes = self.0.lock();
        bytes.to_server.extend_from_slice(said);
        let server = bytes.server.take();
        drop(bytes);
        server.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll_heard(&self, cx: &Context<'_>) -> Poll<Vec<u8>> {
        let mut bytes = self.0.lock();
        if bytes.to_client.is_empty() {
            bytes.client = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut bytes.to_client))
    }

    /// What has come.
    pub(crate) fn heard(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().to_client)
    }

    pub(crate) fn close(&self) {
        let mut bytes = self.0.lock();
        bytes.closed = true;
        let server = bytes.server.take();
        drop(bytes);
        server.into_iter().for_each(Waker::wake);
    }
}

//! The wire between broker and database, which can be cut, and held.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// The wire is to be cut when the next commit has gone, after so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) after: Duration,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
}

struct Wire {
    /// Raised to cut whatever is connected.
    cuts: watch::Sender<u64>,
    held: watch::Sender<bool>,
    /// Those that were connected before are held, for as long as this is told; 0 holds none.
    hung: watch::Sender<u64>,
    connections: AtomicU64,
    /// Taken by the first commit that goes by.
    at_commit: Mutex<Option<Cut>>,
    commits_cut: AtomicU64,
}

/// By this a connection that appends to the log is known: it is in its statement's text.
const APPENDS: &[u8] = b"INTO messages";
/// What is sent on such a connection and is longer is a batch; bytes.
const BATCH_BYTES_MIN: usize = 300;

impl Proxy {
    pub(crate) async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let wire = Arc::new(Wire {
            cuts: watch::Sender::new(0),
            held: watch::Sender::new(false),
            hung: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            at_commit: Mutex::new(None),
            commits_cut: AtomicU64::new(0),
        });
        let shared = wire.clone();
        tokio::spawn(async move {
            while let Ok((broker, _)) = listener.accept().await {
                let (socket, wire) = (socket.clone(), shared.clone());
                tokio::spawn(async move {
                    let _ = broker.set_nodelay(true);
                    // Where nobody listens, the broker sees its connection closed.
                    let Ok(database) = UnixStream::connect(socket).await else { return };
                    wire.carry(broker, database).await;
                });
            }
        });
        Self { address, wire }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn cut_all(&self) {
        self.wire.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nothing passes until it is let go; connections are still taken.
    pub(crate) fn hold(&self, held: bool) {
        self.wire.held.send_replace(held);
    }

    /// What is connected hears and says nothing, until `unhang`; what connects from here on is not touched.
    pub(crate) fn hang(&self) {
        self.wire.hung.send_replace(self.wire.connections.load(Ordering::SeqCst) + 1);
    }

    /// What was said meanwhile arrives, late.
    pub(crate) fn unhang(&self) {
        self.wire.hung.send_replace(0);
    }

    pub(crate) fn cut_at_commit(&self, cut: Cut) {
        *self.wire.at_commit.lock() = Some(cut);
    }

    /// Of those that were asked for, so many came true.
    pub(crate) fn commits_cut(&self) -> u64 {
        self.wire.commits_cut.load(Ordering::SeqCst)
    }
}

struct Connection {
    /// From 1.
    number: u64,
    /// False once it is to be cut: what comes back does not pass.
    is_answered: AtomicBool,
}

impl Wire {
    async fn carry(&self, broker: impl AsyncRead + AsyncWrite, database: impl AsyncRead + AsyncWrite) {
        let (from_broker, to_broker) = tokio::io::split(broker);
        let (from_database, to_database) = tokio::io::split(database);
        let mut cuts = self.cuts.subscribe();
        let connection = Connection {
            number: self.connections.fetch_add(1, Ordering::SeqCst) + 1,
            is_answered: AtomicBool::new(true),
        };
        // Whatever ends first ends both ways.
        tokio::select! {
            () = self.requests(from_broker, to_database, &connection) => {}
            () = self.answers(from_database, to_broker, &connection) => {}
            _ = cuts.changed() => {}
        }
    }

    /// Until the connection ends, or is to be cut.
    async fn requests(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        connection: &Connection,
    ) {
        let mut chunk = vec![0; 64 * 1024];
        let mut appends = false;
        while let Ok(len @ 1..) = from.read(&mut chunk).await {
            let chunk = &chunk[..len];
            appends |= chunk.windows(APPENDS.len()).any(|window| window == APPENDS);
            let cut = if appends && len >= BATCH_BYTES_MIN { self.at_commit.lock().take() } else { None };
            if cut.is_some() {
                // Before the request leaves, or its answer could slip through.
                connection.is_answered.store(false, Ordering::SeqCst);
            }
            self.pass(connection).await;
            if to.write_all(chunk).await.is_err() {
                return;
            }
            if let Some(Cut { after }) = cut {
                self.commits_cut.fetch_add(1, Ordering::SeqCst);
                sleep(after).await;
                return;
            }
        }
    }

    async fn answers(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        connection: &Connection,
    ) {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from.read(&mut chunk).await {
            self.pass(connection).await;
            if !connection.is_answered.load(Ordering::SeqCst) {
                continue;
            }
            if to.write_all(&chunk[..len]).await.is_err() {
                return;
            }
        }
    }

    async fn pass(&self, connection: &Connection) {
        let (mut held, mut hung) = (self.held.subscribe(), self.hung.subscribe());
        // The senders live in `self`.
        let _ = held.wait_for(|held| !held).await;
        let _ = hung.wait_for(|before| connection.number >= *before).await;
    }
}

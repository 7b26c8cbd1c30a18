//! A running broker: its files and sockets, and the node between them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use ipnet::IpNet;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use sotto_keyring::{Keyring, KeyringLimits, LocalKms};
use sotto_model::{Clock, TenantId, TopicPolicy, UnixMillis};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_sqlite::limits::CHECKPOINT_EVERY;
use sotto_storage::Store;
use sotto_storage::restoration::{Restoration, Restored};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::admission::{AdmissionLimits, HANDSHAKE_STEPS_PER_WORKER_MAX, HANDSHAKES_PER_WORKER_MAX};
use crate::clock::SystemClock;
use crate::config::{Config, Tls};
use crate::data_dir::{DataDir, DataDirLock, write_private};
use crate::database_wait::once_there;
use crate::demo;
use crate::drain::{Departure, DrainPlan};
use crate::listener::{Below, Listener};
use crate::node::{Node, Parts};
use crate::open_files::OpenFiles;
use crate::operations::Operations;
use crate::private::{self, Private};
use crate::push_services::PushServices;
use crate::tls::{LiveTls, TicketRoot, TlsFiles};
use crate::{certificates, metrics as own_metrics};

/// The tenant of `--lab`.
const LAB: &str = "lab";

/// Where a running broker listens.
pub(crate) struct Addresses {
    pub(crate) mqtts: SocketAddr,
    pub(crate) wss: SocketAddr,
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) private: SocketAddr,
}

/// A broker that serves.
pub(crate) struct App {
    pub(crate) addresses: Addresses,
    pub(crate) demo: bool,
    pub(crate) departure: Departure,
    node: Node,
    backend: Backend,
    data: DataDir,
    _lock: DataDirLock,
}

/// The store behind the traits, for what only its own kind needs.
pub(crate) enum Backend {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Backend {
    pub(crate) async fn open(data: &DataDir, database_url: Option<&str>) -> Result<Self> {
        Ok(match database_url {
            Some(url) => Self::Postgres(Arc::new(
                PostgresStore::connect(url, PostgresOptions::default()).await.context("open PostgreSQL")?,
            )),
            None => Self::Sqlite(Arc::new(
                SqliteStore::open(&data.database()).await.context("open the embedded store")?,
            )),
        })
    }

    /// A copy of the embedded store is made ready to be served from, once.
    pub(crate) async fn take_up_copy(&self, now: UnixMillis) -> Result<Option<Restored>> {
        let Self::Sqlite(store) = self else { return Ok(None) };
        if !store.is_copy().await.context("look at the embedded store")? {
            return Ok(None);
        }
        Ok(Some(store.restored(now).await.context("take up the restored store")?))
    }

    /// Makes a restored store ready to be served from.
    pub(crate) async fn restored(&self, now: UnixMillis) -> Result<Restored> {
        let restored = match self {
            Self::Sqlite(store) => store.restored(now).await,
            Self::Postgres(store) => store.restored(now).await,
        };
        restored.context("take up the restored store")
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    pub(crate) async fn close(&self) {
        if let Self::Sqlite(store) = self
            && let Err(error) = store.close().await
        {
            tracing::warn!(event = "store_close_failed", error = %error, "the store was not closed cleanly");
        }
    }
}

/// A root key is made for an empty store alone: any other store's keys are wrapped by the one that it began
/// with, and a new one would open nothing of what is there.
pub(crate) async fn open_keyring(
    data: &DataDir,
    store: Arc<dyn Store>,
    clock: &SystemClock,
) -> Result<Keyring> {
    let path = data.root_key();
    let is_new = store.snapshot().await.context("read the directory")?.tenants.is_empty();
    let kms = if is_new { LocalKms::open_or_create(&path) } else { LocalKms::open(&path) };
    let kms = kms.with_context(|| format!("open the local root key {}", path.display()))?;
    Ok(Keyring::new(Arc::new(kms), store, KeyringLimits::default(), clock.now()))
}

impl App {
    pub(crate) async fn start(
        config: Config,
        clock: Arc<SystemClock>,
        metrics: PrometheusHandle,
    ) -> Result<Self> {
        let data = DataDir::make(&config.data)?;
        let lock = data.lock()?;
        OpenFiles::raise_limit();

        // What may be refused for a reason of the operator's comes first.
        let tls = server_tls(&config, &data, clock.clone())?;
        let mqtts = listen(config.mqtts, Below::Tls(tls.clone()))?;
        let wss = listen(config.wss, Below::WebSocket(tls.clone()))?;
        let plain = config.plain.map(|address| listen(address, Below::Tcp)).transpose()?;
        let private_listener = TcpListener::bind(config.private)
            .await
            .with_context(|| format!("listen on {} (private)", config.private))?;
        let token = admin_token(&data).context("make the administration's token")?;
        let push = PushServices::open(&config.push, &clock)?;

        let backend = once_there(async || Backend::open(&data, config.database_url.as_deref()).await).await?;
        if let Some(restored) = backend.take_up_copy(clock.unix_now()).await? {
            tracing::warn!(
                event = "store_restored",
                count = restored.logs,
                "the store is a copy: its logs go on beyond a gap"
            );
        }
        let store = backend.store();
        let keyring = once_there(async || open_keyring(&data, store.clone(), &clock).await).await?;

        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parts = Parts {
            store: store.clone(),
            keyring,
            clock: clock.clone(),
            push,
            limits: config.limits,
            admission: admission_limits(&config, workers),
            retention: config.retention,
            configured_rules: config.acl.as_slice().into(),
            nobody_key: nobody_key(&token),
            password_checks: workers,
        };
        let node = Node::start(parts, async |operations| {
            if config.demo {
                demo::ensure(operations, &data).await.context("make the demo tenant")?;
            }
            Ok(if config.lab { Some(lab(operations).await?) } else { None })
        })
        .await?;

        let addresses = Addresses {
            mqtts: mqtts.local_address()?,
            wss: wss.local_address()?,
            plain: plain.as_ref().map(Listener::local_address).transpose()?,
            private: private_listener.local_addr()?,
        };
        let departure = Departure::new();
        let private = Private {
            metrics,
            store,
            commits_healthy: node.services.committer.health(),
            operations: node.operations.clone(),
            token: Arc::new(token),
            departure: departure.clone(),
            drain: config.drain.clone(),
            tls: tls.clone(),
        };
        let private_stop = node.stop.clone();
        node.tasks.spawn(async move {
            if private::serve(private_listener, private, private_stop).await.is_err() {
                tracing::error!(event = "private_listener_failed", "the private listener ended");
            }
        });
        node.tasks.spawn(tls.follow(node.stop.clone()));
        if let Backend::Sqlite(store) = &backend {
            node.tasks.spawn(make_checkpoints(store.clone(), node.stop.clone()));
        }
        let proxies: Arc<[IpNet]> = config.proxy_protocol_from.into();
        for listener in [mqtts, wss].into_iter().chain(plain) {
            let run = listener.run(
                node.services.clone(),
                proxies.clone(),
                node.connections.clone(),
                node.stopping.clone(),
            );
            node.tasks.spawn(run);
        }
        write_private(&data.private_address(), addresses.private.to_string().as_bytes())
            .context("note the private address")?;
        gauge!("sotto_ready").set(1.0);
        let demo = config.demo && data.demo_conversation().exists();
        Ok(Self { addresses, demo, departure, node, backend, data, _lock: lock })
    }

    pub(crate) fn data(&self) -> &DataDir {
        &self.data
    }

    /// Sends everybody away as planned, commits what was submitted, closes the store.
    pub(crate) async fn shut_down(self, plan: &DrainPlan) {
        gauge!("sotto_ready").set(0.0);
        self.node.shut_down(plan, &self.departure).await;
        self.backend.close().await;
        // The next start writes it anew.
        let _ = std::fs::remove_file(self.data.private_address());
    }
}

fn server_tls(config: &Config, data: &DataDir, clock: Arc<SystemClock>) -> Result<Arc<LiveTls>> {
    let Tls { certificate_file, key_file, ticket_key_file, .. } = &config.tls;
    let (certificate, key) = if let (Some(certificate), Some(key)) = (certificate_file, key_file) {
        (certificate.clone(), key.clone())
    } else {
        certificates::ensure(data)?;
        (data.server_certificate(), data.server_key())
    };
    let files = TlsFiles {
        certificate,
        key,
        client_certificate: config.tls.client_certificate,
        client_ca: config.tls.client_ca_file.clone(),
        client_crl: config.tls.client_crl_file.clone(),
    };
    let root = match ticket_key_file {
        Some(path) => TicketRoot::open(path)?,
        None => TicketRoot::open_or_make(&data.ticket_key())?,
    };
    Ok(Arc::new(LiveTls::load(files, root, clock)?))
}

fn listen(address: SocketAddr, below: Below) -> Result<Listener> {
    let label = below.name().as_str();
    Listener::bind(address, below).with_context(|| format!("listen on {address} ({label})"))
}

fn admission_limits(config: &Config, workers: usize) -> AdmissionLimits {
    let fit = OpenFiles::read().connections_max();
    AdmissionLimits {
        connections_max: config.connections_max.unwrap_or(fit).min(fit),
        handshakes_max: HANDSHAKES_PER_WORKER_MAX * workers,
        handshake_steps_max: HANDSHAKE_STEPS_PER_WORKER_MAX * workers,
        memory_bytes_max: config.memory_bytes_max,
        addresses: config.addresses,
        failed_logins: config.failed_logins,
    }
}

fn admin_token(data: &DataDir) -> std::io::Result<Zeroizing<String>> {
    let path = data.admin_token();
    if !path.exists() {
        let token = Zeroizing::new(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()));
        write_private(&path, token.as_bytes())?;
    }
    read_token(&path)
}

/// Secret, and the same at every start.
fn nobody_key(token: &str) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    Zeroizing::new(hmac::sign(&key, b"salts of names that nobody has").as_ref().to_vec())
}

pub(crate) fn read_token(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let token = Zeroizing::new(std::fs::read_to_string(path)?);
    Ok(Zeroizing::new(token.trim().to_owned()))
}

async fn lab(operations: &Operations) -> Result<TenantId> {
    let find = async || -> Result<Option<TenantId>> {
        let snapshot = operations.store.snapshot().await.context("read the directory")?;
        Ok(snapshot.tenants.iter().find(|tenant| tenant.name == LAB).map(|tenant| tenant.id))
    };
    if let Some(lab) = find().await? {
        return Ok(lab);
    }
    operations.add_tenant(LAB, TopicPolicy::Open).await.context("make the lab tenant")?;
    find().await?.context("find the lab tenant")
}

/// Moves the write-ahead log into the database bit by bit, or one commit in a while would wait for all of it.
async fn make_checkpoints(store: Arc<SqliteStore>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECKPOINT_EVERY) => {}
        }
        // What cannot be moved now is moved by the next one, or by a commit.
        let _ = store.checkpoint().await;
    }
}

/// Installed once a process.
pub(crate) fn install_metrics() -> Result<PrometheusHandle> {
    own_metrics::install().context("install metrics")
}

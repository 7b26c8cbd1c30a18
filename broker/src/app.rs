//! Wiring: which parts a running broker is made of, and in which order they start and stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use sotto_auth::{Authenticator, Policy};
use sotto_keyring::{Keyring, KeyringLimits, LocalKms};
use sotto_model::limits::TAIL_BYTES_MAX;
use sotto_model::{Clock, Principal, SessionId, TenantId, TopicPolicy};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_sqlite::limits::CHECKPOINT_EVERY;
use sotto_storage::Store;
use sotto_storage::committer::Committer;
use sotto_storage::session_writer::SessionWriter;
use sotto_storage::tail::Tail;
use sotto_wakeup::{UnifiedPush, WakeupService};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::audit::Audit;
use crate::clock::SystemClock;
use crate::commits::Commits;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirLock, write_private};
use crate::demo;
use crate::devices::Devices;
use crate::directory::LiveDirectory;
use crate::listener::{Admission, Below, HANDSHAKES_PER_WORKER_MAX, Listener};
use crate::open_files::OpenFiles;
use crate::operations::Operations;
use crate::private::{self, Private};
use crate::registry::Registry;
use crate::router::Router;
use crate::services::Services;
use crate::session_entry::{Command, SessionEntry};
use crate::share::driver::Drivers;
use crate::share::name::is_reserved;
use crate::sweep::sweep;
use crate::wills::publish_due_wills;
use crate::{certificates, metrics as own_metrics, tls};

/// The tenant of `--lab`.
const LAB: &str = "lab";
/// How long a password that was verified need not be hashed again.
const VERIFIED_AGE_MAX: Duration = Duration::from_hours(1);
/// From SIGTERM until connections are dropped where they stand.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// For the last commits, after the connections.
const COMMIT_DRAIN_MAX: Duration = Duration::from_secs(10);
/// Stored sessions listed in one query at start.
const LIST_PAGE: usize = 1000;
/// Between two refreshes of keys that are about to grow old.
const KEY_REFRESH_EVERY: Duration = Duration::from_secs(15);

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
    services: Arc<Services>,
    backend: Backend,
    connections: TaskTracker,
    tasks: TaskTracker,
    stopping: CancellationToken,
    stop: CancellationToken,
    abandon: CancellationToken,
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
        let tls = server_tls(&config, &data)?;
        let mqtts = listen(config.mqtts, Below::Tls(tls.clone()))?;
        let wss = listen(config.wss, Below::WebSocket(tls))?;
        let plain = config.plain.map(|address| listen(address, Below::Tcp)).transpose()?;
        let private_listener = TcpListener::bind(config.private)
            .await
            .with_context(|| format!("listen on {} (private)", config.private))?;
        let token = admin_token(&data).context("make the administration's token")?;
        let pusher = UnifiedPush::new(
            clock.clone(),
            config.push.allow_networks.iter().copied(),
            config.push.extra_ca.as_deref(),
        )
        .context("set up push")?;

        let backend = Backend::open(&data, config.database_url.as_deref()).await?;
        let store = backend.store();
        let keyring = open_keyring(&data, store.clone(), &clock).await?;

        let stopping = CancellationToken::new();
        let stop = CancellationToken::new();
        let abandon = CancellationToken::new();
        let tasks = TaskTracker::new();
        let connections = TaskTracker::new();

        let policy = Arc::new(Policy::new());
        let router = Arc::new(Router::new(policy.clone(), config.limits));
        let registry = Arc::new(Registry::new(router.clone(), config.limits));
        let configured_rules: Arc<[_]> = config.acl.as_slice().into();
        let directory = Arc::new(LiveDirectory {
            store: store.clone(),
            policy: policy.clone(),
            authenticator: Arc::new(Authenticator::new(VERIFIED_AGE_MAX, &nobody_key(&token))),
            devices: Arc::new(Devices::new(store.clone())),
            registry: registry.clone(),
            configured_rules: configured_rules.clone(),
            changed: Notify::new(),
        });
        let operations = Arc::new(Operations {
            store: store.clone(),
            keyring: keyring.clone(),
            clock: clock.clone(),
            guard: pusher.guard().clone(),
            configured_rules,
            live: Some(directory.clone()),
        });
        if config.demo {
            demo::ensure(&operations, &data).await.context("make the demo tenant")?;
        }
        let anonymous_tenant = if config.lab { Some(lab(&operations).await?) } else { None };
        let revision = directory.load().await.context("load the directory")?;

        // The log's claim comes before anything that a second broker on the same database would spoil.
        let relay = WakeupService {
            outbox: store.clone(),
            keyring: keyring.clone(),
            pusher: Arc::new(pusher),
            clock: clock.clone(),
        };
        let heads = store.heads().await.context("read the log's heads")?;
        let tail = Arc::new(Tail::new(TAIL_BYTES_MAX, heads));
        let commits = Arc::new(Commits::new(tail.clone(), router.clone()));
        let committer = Committer::start(store.clone(), commits.clone(), clock.clone(), &tasks, &abandon)
            .await
            .context("claim the log")?;
        commits.wakes_by(relay.start(&tasks, &stop));

        let recovered = store.recover(clock.unix_now()).await.context("recover sessions")?;
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let services = Arc::new(Services {
            limits: config.limits,
            clock: clock.clone(),
            policy: policy.clone(),
            authenticator: directory.authenticator.clone(),
            keyring: keyring.clone(),
            sessions: SessionWriter::start(store.clone(), clock.clone(), &tasks, &abandon),
            committer,
            commits,
            tail,
            router: router.clone(),
            registry: registry.clone(),
            devices: directory.devices.clone(),
            audit: Audit::start(store.clone(), &tasks, stop.clone()),
            password_checks: Arc::new(Semaphore::new(workers)),
            anonymous_tenant,
            store: store.clone(),
        });
        let drivers =
            Drivers { services: Arc::downgrade(&services), tasks: tasks.clone(), stop: stop.clone() };
        router.groups.hosted_by(drivers);
        let known = load_sessions(&services).await.context("list stored sessions")?;
        tracing::info!(event = "sessions_loaded", count = known, "stored sessions are known");
        if recovered > 0 {
            tracing::info!(event = "sessions_recovered", count = recovered, "sessions were left connected");
        }

        let addresses = Addresses {
            mqtts: mqtts.local_address()?,
            wss: wss.local_address()?,
            plain: plain.as_ref().map(Listener::local_address).transpose()?,
            private: private_listener.local_addr()?,
        };
        let private =
            Private { metrics, store, operations, token: Arc::new(token), stopping: stopping.clone() };
        let private_stop = stop.clone();
        tasks.spawn(async move {
            if private::serve(private_listener, private, private_stop).await.is_err() {
                tracing::error!(event = "private_listener_failed", "the private listener ended");
            }
        });
        tasks.spawn(directory.follow(revision, stop.clone()));
        tasks.spawn(sweep(services.clone(), stop.clone()));
        tasks.spawn(publish_due_wills(services.clone(), stop.clone()));
        tasks.spawn(refresh_keys(services.clone(), stop.clone()));
        if let Backend::Sqlite(store) = &backend {
            tasks.spawn(make_checkpoints(store.clone(), stop.clone()));
        }
        let admission = admission(&config, workers);
        for listener in [mqtts, wss].into_iter().chain(plain) {
            let run =
                listener.run(services.clone(), admission.clone(), connections.clone(), stopping.clone());
            tasks.spawn(run);
        }
        write_private(&data.private_address(), addresses.private.to_string().as_bytes())
            .context("note the private address")?;
        gauge!("sotto_ready").set(1.0);
        let demo = config.demo && data.demo_conversation().exists();
        Ok(Self {
            addresses,
            demo,
            services,
            backend,
            connections,
            tasks,
            stopping,
            stop,
            abandon,
            data,
            _lock: lock,
        })
    }

    pub(crate) fn data(&self) -> &DataDir {
        &self.data
    }

    /// Stops accepting, sends everybody away with DISCONNECT, commits what was submitted, closes the store.
    pub(crate) async fn shut_down(self) {
        gauge!("sotto_ready").set(0.0);
        self.stopping.cancel();
        self.services.registry.for_each(|entry| entry.command(Command::ShutDown));
        self.connections.close();
        let drained = tokio::time::timeout(DRAIN_MAX, self.connections.wait()).await;
        if drained.is_err() {
            let left = self.connections.len();
            tracing::warn!(event = "drain_timed_out", count = left, "connections were still open");
        }
        self.services.close_groups();
        let committed = self.services.committer.drain(COMMIT_DRAIN_MAX).await;
        let saved = self.services.sessions.drain(COMMIT_DRAIN_MAX).await;
        if committed.is_err() || saved.is_err() {
            tracing::error!(event = "commit_drain_timed_out", "not everything submitted was committed");
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            self.abandon.cancel();
        }
        self.backend.close().await;
        // The next start writes it anew.
        let _ = std::fs::remove_file(self.data.private_address());
    }
}

fn server_tls(config: &Config, data: &DataDir) -> Result<Arc<rustls::ServerConfig>> {
    if let (Some(certificate), Some(key)) = (&config.tls.certificate_file, &config.tls.key_file) {
        return Ok(tls::server_config(certificate, key)?);
    }
    certificates::ensure(data)?;
    Ok(tls::server_config(&data.server_certificate(), &data.server_key())?)
}

fn listen(address: SocketAddr, below: Below) -> Result<Listener> {
    let label = below.label();
    Listener::bind(address, below).with_context(|| format!("listen on {address} ({label})"))
}

fn admission(config: &Config, workers: usize) -> Admission {
    let fit = OpenFiles::read().connections_max();
    let connections_max = config.connections_max.unwrap_or(fit).min(fit);
    let handshakes_max = HANDSHAKES_PER_WORKER_MAX * workers;
    Admission {
        connections: Arc::new(Semaphore::new(connections_max)),
        handshakes: Arc::new(Semaphore::new(handshakes_max)),
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

/// Makes stored sessions known: what they subscribe to decides what is stored for them.
async fn load_sessions(services: &Services) -> Result<u64> {
    let mut known = 0;
    let mut after: Option<SessionId> = None;
    let mut groups = Vec::new();
    loop {
        let page = services.store.list(after, LIST_PAGE).await?;
        let Some(last) = page.last() else {
            services.restore_groups(groups).await?;
            return Ok(known);
        };
        after = Some(last.session.id);
        for listed in page {
            if is_reserved(listed.client_id.as_str()) {
                groups.push((listed.tenant, listed.client_id, listed.session));
                continue;
            }
            let Some(topics) = services.policy.topics(listed.tenant) else { continue };
            let principal = Principal {
                tenant: listed.tenant,
                user: listed.user,
                device: None,
                client_id: listed.client_id,
                topics,
            };
            let entry = Arc::new(SessionEntry::new(principal, &services.limits));
            entry.set_stored(Some(listed.session));
            services.registry.insert(entry.clone());
            services.router.replace_subscriptions(&entry, listed.subscriptions);
            known += 1;
        }
    }
}

/// Fetches keys again before they grow old, so that sealing does not find them cold.
async fn refresh_keys(services: Arc<Services>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(KEY_REFRESH_EVERY) => {}
            () = stop.cancelled() => return,
        }
        for request in services.keyring.refresh_due(services.clock.now()) {
            if services.keyring.warm(request, services.clock.now()).await.is_err() {
                tracing::warn!(event = "key_refresh_failed", "a key could not be refreshed");
                break;
            }
        }
    }
}

/// Moves the write-ahead log into the database bit by bit, or one commit in a while would wait for all of it.
async fn make_checkpoints(store: Arc<SqliteStore>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECKPOINT_EVERY) => {}
            () = stop.cancelled() => return,
        }
        // What cannot be moved now is moved by the next one, or by a commit.
        let _ = store.checkpoint().await;
    }
}

/// Installed once a process.
pub(crate) fn install_metrics() -> Result<PrometheusHandle> {
    own_metrics::install().context("install metrics")
}

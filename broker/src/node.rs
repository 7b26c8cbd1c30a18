//! A broker but for its sockets and files: the parts that stand between a store and connections, and in which
//! order they start and stop.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use sotto_auth::{Authenticator, Policy};
use sotto_keyring::Keyring;
use sotto_model::limits::{RETAINED_TOPICS_KNOWN_MAX, TAIL_BYTES_MAX};
use sotto_model::{ClientLimits, Clock, Principal, SessionId, TenantId};
use sotto_storage::Store;
use sotto_storage::committer::Committer;
use sotto_storage::retention::RetentionPolicy;
use sotto_storage::session_writer::SessionWriter;
use sotto_storage::tail::Tail;
use sotto_wakeup::WakeupService;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::admission::{Admission, AdmissionLimits};
use crate::audit::Audit;
use crate::clock::SystemClock;
use crate::commits::Commits;
use crate::config::ConfiguredRule;
use crate::database_wait::once_there;
use crate::deadlines::Deadlines;
use crate::devices::Devices;
use crate::directory::LiveDirectory;
use crate::drain::{Departure, Drain, DrainPlan};
use crate::log_starts::LogStarts;
use crate::operations::Operations;
use crate::password_queue::PasswordQueue;
use crate::push_services::PushServices;
use crate::registrar::Registrar;
use crate::registry::Registry;
use crate::retained_topics::RetainedTopics;
use crate::retention::retain;
use crate::router::Router;
use crate::services::Services;
use crate::session_entry::SessionEntry;
use crate::share::driver::Drivers;
use crate::share::name::is_reserved;
use crate::sweep::sweep;
use crate::unsaved::Unsaved;
use crate::wills::publish_due_wills;

/// How long a password that was verified need not be hashed again.
const VERIFIED_AGE_MAX: Duration = Duration::from_hours(1);
/// For what runs beside the connections, after the last commits.
const TASKS_END_MAX: Duration = Duration::from_secs(10);
/// For the last commits, after the connections.
const COMMIT_DRAIN_MAX: Duration = Duration::from_secs(10);
/// Stored sessions listed in one query at start.
const LIST_PAGE: usize = 1000;
/// Between two refreshes of keys that are about to grow old.
const KEY_REFRESH_EVERY: Duration = Duration::from_secs(15);

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Keyring,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) push: PushServices,
    pub(crate) limits: ClientLimits,
    pub(crate) admission: AdmissionLimits,
    pub(crate) retention: RetentionPolicy,
    pub(crate) configured_rules: Arc<[ConfiguredRule]>,
    /// See [`Authenticator::new`].
    pub(crate) nobody_key: Zeroizing<Vec<u8>>,
    /// How many passwords are hashed at a time.
    pub(crate) password_checks: usize,
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) services: Arc<Services>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) connections: TaskTracker,
    pub(crate) tasks: TaskTracker,
    /// No connection is accepted any more.
    pub(crate) stopping: CancellationToken,
    /// What runs beside the connections ends.
    pub(crate) stop: CancellationToken,
    abandon: CancellationToken,
}

impl Node {
    /// `prepare` changes the directory before it is loaded, and says which tenant's anonymous clients are let in.
    pub(crate) async fn start(
        parts: Parts,
        prepare: impl AsyncFnOnce(&Operations) -> Result<Option<TenantId>>,
    ) -> Result<Self> {
        let Parts { store, keyring, clock, push, limits, retention, configured_rules, .. } = parts;
        let PushServices { services, reach, quota } = push;
        let stopping = CancellationToken::new();
        let stop = CancellationToken::new();
        let abandon = CancellationToken::new();
        let tasks = TaskTracker::new();
        let connections = TaskTracker::new();

        let policy = Arc::new(Policy::new());
        let router = Arc::new(Router::new(policy.clone(), limits));
        let registry = Arc::new(Registry::new(router.clone(), limits));
        let directory = Arc::new(LiveDirectory {
            store: store.clone(),
            policy: policy.clone(),
            authenticator: Arc::new(Authenticator::new(VERIFIED_AGE_MAX, &parts.nobody_key)),
            devices: Arc::new(Devices::new(store.clone())),
            registry: registry.clone(),
            configured_rules: configured_rules.clone(),
            changed: Notify::new(),
        });
        let retention_changed = Arc::new(Notify::new());
        let registrar = Arc::new(Registrar::new(store.clone(), keyring.clone(), clock.clone(), reach));
        let operations = Arc::new(Operations {
            store: store.clone(),
            clock: clock.clone(),
            registrar: registrar.clone(),
            wakeups: OnceLock::new(),
            configured_rules,
            retention,
            live: Some(directory.clone()),
            retention_changed: retention_changed.clone(),
        });
        let anonymous_tenant = prepare(&operations).await?;
        let revision = once_there(async || directory.load().await.context("load the directory")).await?;

        // The log's claim comes before anything that a second broker on the same database would spoil.
        let wakeups = WakeupService {
            outbox: store.clone(),
            keyring: keyring.clone(),
            services,
            quota,
            clock: clock.clone(),
        };
        let heads = once_there(async || store.heads().await.context("read the log's heads")).await?;
        let starts = LogStarts::default();
        starts.replace(
            &once_there(async || store.retention().await.context("read where the logs begin")).await?,
        );
        let tail = Arc::new(Tail::new(TAIL_BYTES_MAX, heads));
        let retained_topics = Arc::new(RetainedTopics::new(
            once_there(async || {
                store.retained_topics(RETAINED_TOPICS_KNOWN_MAX).await.context("read which topics retain")
            })
            .await?,
        ));
        let commits = Arc::new(Commits::new(tail.clone(), router.clone(), retained_topics.clone()));
        let committer = once_there(async || {
            Committer::start(store.clone(), commits.clone(), clock.clone(), &tasks, &abandon)
                .await
                .context("claim the log")
        })
        .await?;
        let wakeups = wakeups.start(&tasks, &stop);
        commits.wakes_by(wakeups.committed());
        operations.wakeups.set(wakeups).ok().expect("set here alone");

        let recovered =
            once_there(async || store.recover(clock.unix_now()).await.context("recover sessions")).await?;
        let services = Arc::new(Services {
            limits,
            clock: clock.clone(),
            policy: policy.clone(),
            authenticator: directory.authenticator.clone(),
            keyring,
            sessions: SessionWriter::start(store.clone(), clock, &tasks, &abandon),
            committer,
            commits,
            tail,
            starts: Arc::new(starts),
            retained_topics,
            deadlines: Deadlines::new(),
            unsaved: Unsaved::default(),
            retention_changed,
            router: router.clone(),
            registry,
            devices: directory.devices.clone(),
            registrar,
            audit: Audit::start(store.clone(), &tasks, stop.clone()),
            admission: Arc::new(Admission::new(parts.admission)),
            passwords: PasswordQueue::new(parts.password_checks),
            anonymous_tenant,
            store,
        });
        let drivers =
            Drivers { services: Arc::downgrade(&services), tasks: tasks.clone(), stop: stop.clone() };
        router.groups.hosted_by(drivers);
        let known = load_sessions(&services).await?;
        tracing::info!(event = "sessions_loaded", count = known, "stored sessions are known");
        if recovered > 0 {
            tracing::info!(event = "sessions_recovered", count = recovered, "sessions were left connected");
        }

        tasks.spawn(directory.follow(revision, stop.clone()));
        tasks.spawn(sweep(services.clone(), stop.clone()));
        tasks.spawn(pace_handshakes(services.clone(), stop.clone()));
        tasks.spawn(retain(services.clone(), retention, stop.clone()));
        tasks.spawn(publish_due_wills(services.clone(), stop.clone()));
        tasks.spawn(refresh_keys(services.clone(), stop.clone()));
        Ok(Self { services, operations, connections, tasks, stopping, stop, abandon })
    }

    /// Sends everybody away as planned, then commits what was submitted.
    pub(crate) async fn shut_down(&self, plan: &DrainPlan, departure: &Departure) {
        let drain =
            Drain { services: &self.services, connections: &self.connections, stopping: &self.stopping };
        drain.run(plan, departure).await;
        self.services.close_groups();
        let committed = self.services.committer.drain(COMMIT_DRAIN_MAX).await;
        let saved = self.services.sessions.drain(COMMIT_DRAIN_MAX).await;
        if committed.is_err() || saved.is_err() {
            tracing::error!(event = "commit_drain_timed_out", "not everything submitted was committed");
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(TASKS_END_MAX, self.tasks.wait()).await.is_err() {
            self.abandon.cancel();
        }
    }
}

/// Makes stored sessions known: what they subscribe to decides what is stored for them.
async fn load_sessions(services: &Services) -> Result<u64> {
    let mut known = 0;
    let mut after: Option<SessionId> = None;
    let mut groups = Vec::new();
    loop {
        let page =
            once_there(async || services.store.list(after, LIST_PAGE).await.context("list stored sessions"))
                .await?;
        let Some(last) = page.last() else {
            services.restore_groups(groups).await.context("list stored shares")?;
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

/// Until the last connection is gone: who is in its handshake when the node goes is told so.
async fn pace_handshakes(services: Arc<Services>, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = services.admission.pace() => {}
    }
}

/// Fetches keys again before they grow old, so that sealing does not find them cold.
async fn refresh_keys(services: Arc<Services>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(KEY_REFRESH_EVERY) => {}
        }
        for request in services.keyring.refresh_due(services.clock.now()) {
            if services.keyring.warm(request, services.clock.now()).await.is_err() {
                tracing::warn!(event = "key_refresh_failed", "a key could not be refreshed");
                break;
            }
        }
    }
}

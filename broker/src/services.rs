//! What every connection shares. Fields are handles; each names the one who owns the state behind it.

use std::sync::Arc;

use sotto_auth::{Authenticator, Policy};
use sotto_keyring::Keyring;
use sotto_model::{ClientLimits, TenantId};
use sotto_storage::Store;
use sotto_storage::committer::Committer;
use sotto_storage::session_writer::SessionWriter;
use sotto_storage::tail::Tail;
use tokio::sync::Notify;

use crate::admission::Admission;
use crate::audit::Audit;
use crate::clock::SystemClock;
use crate::commits::Commits;
use crate::deadlines::Deadlines;
use crate::devices::Devices;
use crate::log_starts::LogStarts;
use crate::password_queue::PasswordQueue;
use crate::record::Record;
use crate::registrar::Registrar;
use crate::registry::Registry;
use crate::retained_topics::RetainedTopics;
use crate::router::Router;
use crate::unsaved::Unsaved;

pub(crate) struct Services {
    pub(crate) limits: ClientLimits,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) keyring: Keyring,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Committer<Commits>,
    pub(crate) commits: Arc<Commits>,
    pub(crate) sessions: SessionWriter,
    pub(crate) tail: Arc<Tail<Record>>,
    pub(crate) starts: Arc<LogStarts>,
    pub(crate) retained_topics: Arc<RetainedTopics>,
    /// Rung by whoever changed how long something is kept.
    pub(crate) retention_changed: Arc<Notify>,
    pub(crate) router: Arc<Router>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) deadlines: Deadlines,
    pub(crate) unsaved: Unsaved,
    pub(crate) devices: Arc<Devices>,
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) audit: Audit,
    pub(crate) admission: Arc<Admission>,
    pub(crate) passwords: PasswordQueue,
    /// The tenant of clients without a user name, where there is one.
    pub(crate) anonymous_tenant: Option<TenantId>,
}

//! From a valid CONNECT to a session: authenticate, take over, open, read what was in flight.

use std::sync::Arc;

use sotto_auth::{Check, Identity, Refusal};
use sotto_model::{ClientId, Clock, Cursor, MessageId, Offset, Principal};
use sotto_mqtt::handshake::{ConnectRequest, Negotiated};
use sotto_mqtt::inflight::InflightMessage;
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::Session;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::directory::DirectoryError;
use sotto_storage::session_store::{
    Inflight, OpenSession, OpenedSession, SessionOp, SessionProgress, SessionRef, SessionReply,
};
use sotto_storage::wills::{KeptWill, WillEnd};
use uuid::Uuid;

use crate::connection_id::ConnectionId;
use crate::log_starts::LogStart;
use crate::password_queue::TooMany;
use crate::record::Record;
use crate::registry::ClaimError;
use crate::services::Services;
use crate::session_entry::SessionEntry;
use crate::share::name::is_reserved;
use crate::share::ticket::Ticket;

/// A session whose connection may begin.
pub(crate) struct Opened {
    pub(crate) owned: Owned,
    pub(crate) session: Session,
    pub(crate) present: bool,
    pub(crate) assigned_client_id: Option<String>,
    /// The last of enhanced authentication; empty where there was none.
    pub(crate) authentication_data: Vec<u8>,
    /// Bodies of the messages that were in flight.
    pub(crate) inflight: Vec<Arc<Record>>,
    /// Where the log begins, for a session that was not there before it did.
    pub(crate) history: Option<LogStart>,
}

/// The session is ours until this is dropped.
pub(crate) struct Owned {
    pub(crate) entry: Arc<SessionEntry>,
    /// Of QoS 2 messages that stay with the session, or have ended with it: once it is let go, and what is
    /// stored of it knows them, their groups need them no more. [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    pub(crate) loans: Loans,
    /// The will that was kept with the session in the store.
    pub(crate) kept_will: Option<MessageId>,
    pub(super) connection: ConnectionId,
    services: Arc<Services>,
}

/// Nearly always none, and then they take no more than a pointer.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "an empty Vec takes three pointers in every session at rest")]
pub(crate) struct Loans(Option<Box<Vec<Ticket>>>);

impl Loans {
    pub(crate) fn push(&mut self, ticket: Ticket) {
        self.0.get_or_insert_default().push(ticket);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.loans.0.take().into_iter().flat_map(|tickets| *tickets).for_each(Ticket::done);
        self.services.registry.release(&self.entry, self.connection);
    }
}

/// A stored session that is marked connected while its connection has not begun. Dropped before it does, it
/// closes the session again: one that is marked connected is neither woken nor expired.
struct Unbegun<'o> {
    owned: &'o Owned,
    close: Option<SessionOp>,
}

impl Drop for Unbegun<'_> {
    fn drop(&mut self) {
        let Some(close) = self.close.take() else { return };
        let ends = matches!(close, SessionOp::Close { expiry_seconds: 0, .. });
        if self.owned.services.sessions.submit(close).is_err() {
            // It is put right at the next start or CONNECT.
            tracing::error!(
                event = "session_close_lost",
                "a session that was opened in vain stays connected"
            );
        }
        if ends {
            self.owned.entry.set_stored(None);
        }
    }
}

/// Who a client has shown itself to be, and under which Client Identifier.
pub(crate) struct Shown {
    pub(crate) identity: Identity,
    pub(crate) client_id: ChosenClientId,
    /// The last of enhanced authentication; empty where there was none.
    pub(crate) authentication_data: Vec<u8>,
}

/// The client's own, or the server's where the client leaves it to the server.
pub(crate) struct ChosenClientId {
    pub(crate) client_id: String,
    pub(crate) is_assigned: bool,
}

/// What the CONNACK says.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) reason: ReasonCode,
    /// Where it is known better than by the reason alone.
    pub(crate) retry_after_seconds: Option<u32>,
}

impl Refused {
    pub(crate) fn because(reason: ReasonCode) -> Self {
        Self { reason, retry_after_seconds: None }
    }
}

pub(crate) async fn open(
    services: Arc<Services>,
    connection: ConnectionId,
    request: ConnectRequest,
    shown: Option<Box<Shown>>,
) -> Result<Opened, Refused> {
    let shown = match shown {
        Some(shown) => *shown,
        None => authenticate(&services, &request).await?,
    };
    let ConnectRequest { negotiated, will, .. } = request;
    let Shown { identity, client_id: ChosenClientId { client_id, is_assigned }, authentication_data } = shown;
    let principal = principal(&services, identity, &client_id).await?;
    if let Some(will) = &will {
        services.permits_will(&principal, will).map_err(Refused::because)?;
    }

    let entry = services.registry.claim(&principal, connection).await.map_err(|error| match error {
        ClaimError::Superseded | ClaimError::Busy => Refused::because(ReasonCode::ServerBusy),
        ClaimError::Full => Refused::because(ReasonCode::QuotaExceeded),
    })?;
    let mut owned =
        Owned { entry, loans: Loans::default(), kept_will: None, connection, services: services.clone() };
    let entry = &owned.entry;

    let known = entry.stored();
    let outlives = negotiated.session_expiry_seconds > 0;
    let head = services.tail.log(principal.tenant).head();
    let mut kept_will = None;
    let mut unbegun = Unbegun { owned: &owned, close: None };
    let opened = if outlives || (known.is_some() && !negotiated.clean_start) {
        let kept = match &will {
            Some(will) => Some(Box::new(services.keep_will(entry, will).await.map_err(Refused::because)?)),
            None => None,
        };
        kept_will = kept.as_ref().map(|kept| kept.sealed.message_id());
        let opened = open_stored(&services, &principal, &negotiated, head, kept).await?;
        entry.set_stored(Some(opened.session));
        unbegun.close = Some(SessionOp::Close {
            session: opened.session,
            progress: Box::new(opened.progress.clone()),
            expiry_seconds: negotiated.session_expiry_seconds,
            // A connection that does not begin has no will. [MQTT-3.1.2-8]
            will: kept_will.map(|_| WillEnd::Forgotten),
            now: services.clock.unix_now(),
        });
        (opened.present && !is_from_an_unanswered_opening(&opened, known)).then_some(opened)
    } else {
        if let Some(known) = known {
            // [MQTT-3.1.2-4]
            services.sessions.apply(SessionOp::Delete(known)).await.map_err(|_| unavailable())?;
            entry.set_stored(None);
        }
        None
    };
    let present = opened.is_some();
    let (subscriptions, progress) = match opened {
        Some(opened) => (opened.subscriptions, opened.progress),
        None => (Vec::new(), SessionProgress { cursor: Cursor(head), ..SessionProgress::default() }),
    };
    services.router.replace_subscriptions(entry, subscriptions);

    let history = services.missed(entry, progress.cursor.0);
    let offsets: Vec<Offset> =
        progress.inflight.iter().filter(|message| !message.released).map(|message| message.offset).collect();
    let inflight = services.read_at(&principal, &offsets).await.map_err(|_| unavailable())?;
    let left = progress.inflight.into_iter().map(|message| {
        let Inflight { packet_id, offset, qos, retain, released } = message;
        InflightMessage::left(packet_id, offset, qos, retain, released)
    });
    let session = Session::resume(negotiated, will, progress.cursor.0, left, progress.exactly_once_received);
    unbegun.close = None;
    drop(unbegun);
    owned.kept_will = kept_will;
    let assigned_client_id = is_assigned.then_some(client_id);
    Ok(Opened { owned, session, present, assigned_client_id, authentication_data, inflight, history })
}

/// An opening that the store committed and did not answer is repeated, and finds the session that it made: one
/// that holds nothing, and that nobody was told of. Its client is told of a new one. [MQTT-3.2.2-2]
fn is_from_an_unanswered_opening(opened: &OpenedSession, known: Option<SessionRef>) -> bool {
    let OpenedSession { session, progress, subscriptions, .. } = opened;
    let holds_nothing =
        subscriptions.is_empty() && progress.inflight.is_empty() && progress.exactly_once_received.is_empty();
    holds_nothing && known.is_none_or(|known| known.id != session.id)
}

impl ChosenClientId {
    /// [MQTT-3.1.3-6] [MQTT-3.1.3-7]
    pub(crate) fn of(client_id: &str, user_name: Option<&str>) -> Self {
        if !client_id.is_empty() {
            return Self { client_id: client_id.to_owned(), is_assigned: false };
        }
        let unique = Uuid::new_v4().simple();
        let client_id = match user_name {
            Some(user) => format!("{user}/{unique}"),
            None => unique.to_string(),
        };
        Self { client_id, is_assigned: true }
    }
}

/// By user name and password.
async fn authenticate(services: &Services, request: &ConnectRequest) -> Result<Shown, Refused> {
    let username = request.username.as_deref();
    let user_name = username.and_then(|name| name.split_once('@')).map(|(user, _)| user);
    let client_id = ChosenClientId::of(&request.client_id, user_name);
    let check = || {
        services.authenticator.check(
            username,
            request.password.as_deref(),
            &client_id.client_id,
            services.anonymous_tenant,
            services.clock.now(),
        )
    };
    let mut checked = check();
    let mut turn = None;
    if matches!(checked, Check::Verify(_)) {
        let entered = services.passwords.enter().await.map_err(busy)?;
        if entered.waited {
            // Meanwhile the same password may have been hashed for another device of the user.
            checked = check();
        }
        turn = Some(entered);
    }
    let outcome = match checked {
        Check::Accepted(identity) => Ok(identity),
        Check::Refused(refusal) => Err(refusal),
        Check::Verify(check) => {
            let began = services.clock.now();
            let verified = tokio::task::spawn_blocking(move || {
                let verified = check.run();
                drop(turn);
                verified
            });
            let verified = verified.await.map_err(|_| Refused::because(ReasonCode::UnspecifiedError))?;
            services.passwords.note_cost(services.clock.now().saturating_duration_since(began));
            verified
        }
    };
    let identity = outcome.map_err(|refusal| Refused::because(services.refuse_authentication(refusal)))?;
    Ok(Shown { identity, client_id, authentication_data: Vec::new() })
}

/// Those who come back are spread over as long a time as passwords are hashed for.
fn busy(TooMany { wait }: TooMany) -> Refused {
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    Refused { reason: ReasonCode::ServerBusy, retry_after_seconds: Some(seconds) }
}

impl Services {
    /// Writes it down; what the client is told.
    pub(crate) fn refuse_authentication(&self, refusal: Refusal) -> ReasonCode {
        self.audit.record(AuditEvent {
            at: self.clock.unix_now(),
            tenant: None,
            actor: None,
            action: AuditAction::ConnectRefused,
            resource: None,
            allowed: false,
        });
        match refusal {
            Refusal::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Refusal::ClientId => ReasonCode::ClientIdentifierNotValid,
            Refusal::NotAuthorized => ReasonCode::NotAuthorized,
            Refusal::Method => ReasonCode::BadAuthenticationMethod,
        }
    }
}

async fn principal(services: &Services, identity: Identity, client_id: &str) -> Result<Principal, Refused> {
    let Identity { tenant, user, device_name, .. } = identity;
    let topics = services.policy.topics(tenant).ok_or(Refused::because(ReasonCode::NotAuthorized))?;
    // Groups of shared subscriptions are stored under these.
    if is_reserved(client_id) {
        return Err(Refused::because(ReasonCode::ClientIdentifierNotValid));
    }
    let client_id =
        ClientId::parse(client_id).map_err(|_| Refused::because(ReasonCode::ClientIdentifierNotValid))?;
    let device = match device_name {
        None => None,
        Some(name) => {
            let now = services.clock.unix_now();
            let device = services.devices.ensure(tenant, user, name.as_str(), now).await;
            Some(device.map_err(|error| match error {
                DirectoryError::Full(_) => Refused::because(ReasonCode::QuotaExceeded),
                DirectoryError::Missing(_) => Refused::because(ReasonCode::NotAuthorized),
                DirectoryError::Exists(_) | DirectoryError::Store(_) => unavailable(),
            })?)
        }
    };
    Ok(Principal { tenant, user, device, client_id, topics })
}

async fn open_stored(
    services: &Services,
    principal: &Principal,
    negotiated: &Negotiated,
    head: Offset,
    will: Option<Box<KeptWill>>,
) -> Result<OpenedSession, Refused> {
    let open = OpenSession {
        tenant: principal.tenant,
        client_id: principal.client_id.clone(),
        user: principal.user,
        device: principal.device,
        clean_start: negotiated.clean_start,
        expiry_seconds: negotiated.session_expiry_seconds,
        head,
        will,
        now: services.clock.unix_now(),
    };
    match services.sessions.apply(SessionOp::Open(Box::new(open))).await {
        Ok(SessionReply::Opened(opened)) => Ok(*opened),
        Ok(SessionReply::Done | SessionReply::Fenced) => Err(Refused::because(ReasonCode::UnspecifiedError)),
        Err(_) => Err(unavailable()),
    }
}

fn unavailable() -> Refused {
    Refused::because(ReasonCode::ServerUnavailable)
}

//! SUBSCRIBE and UNSUBSCRIBE: authorize, store, index, and fetch what is retained.

use std::sync::Arc;

use sotto_model::{
    ClientLimits, Clock, FilterScope, PacketId, RetainHandling, Subscription, SubscriptionOptions,
    TopicFilter,
};
use sotto_mqtt::packet::{Subscribe, Unsubscribe, Version};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::audit::{AuditAction, AuditEvent};
use sotto_storage::session_store::{SessionOp, SessionReply};
use uuid::Uuid;

use crate::connection::retained::Owed;
use crate::services::Services;
use crate::session_entry::SessionEntry;

/// A SUBSCRIBE, taken out of its packet.
pub(crate) struct SubscribeRequest {
    packet_id: PacketId,
    version: Version,
    identifier: Option<u32>,
    filters: Vec<(Result<TopicFilter, ReasonCode>, SubscriptionOptions)>,
}

pub(crate) struct Subscribed {
    pub(crate) packet_id: PacketId,
    pub(crate) reasons: Vec<u8>,
    /// Those that are owed what is retained.
    pub(crate) retained: Vec<Owed>,
}

/// An UNSUBSCRIBE, taken out of its packet.
pub(crate) struct UnsubscribeRequest {
    packet_id: PacketId,
    filters: Vec<Option<TopicFilter>>,
}

pub(crate) struct Unsubscribed {
    pub(crate) packet_id: PacketId,
    pub(crate) reasons: Vec<u8>,
}

/// The session belongs to a newer generation: this connection has nothing more to say.
pub(crate) struct Fenced;

impl SubscribeRequest {
    pub(crate) fn of(subscribe: &Subscribe<'_>, version: Version, limits: &ClientLimits) -> Self {
        let filters = subscribe
            .filters
            .iter()
            .map(|(raw, options)| {
                let filter = TopicFilter::parse(raw).ok().filter(|_| limits.allow_topic(raw));
                (filter.ok_or(ReasonCode::TopicFilterInvalid), options)
            })
            .collect();
        Self {
            packet_id: subscribe.packet_id,
            version,
            identifier: subscribe.properties.subscription_identifier(),
            filters,
        }
    }
}

impl UnsubscribeRequest {
    pub(crate) fn of(unsubscribe: &Unsubscribe<'_>) -> Self {
        let filters = unsubscribe.filters.iter().map(|raw| TopicFilter::parse(raw).ok()).collect();
        Self { packet_id: unsubscribe.packet_id, filters }
    }
}

pub(crate) async fn subscribe(
    services: Arc<Services>,
    entry: Arc<SessionEntry>,
    request: SubscribeRequest,
) -> Result<Subscribed, Fenced> {
    let SubscribeRequest { packet_id, version, identifier, filters } = request;
    let head = services.tail.log(entry.principal.tenant).head();
    let mut outcomes: Vec<Result<Subscription, ReasonCode>> = Vec::with_capacity(filters.len());
    let held = entry.with_subscriptions(<[_]>::len);
    let mut added = 0;
    for (filter, options) in filters {
        outcomes.push(filter.and_then(|filter| {
            // A subscription that is replaced holds since it was made: what is not sent of it is still to
            // come, also to a connection that reads it back from the store. [MQTT-3.8.4-3]
            let known = entry.holds_since(&filter);
            if known.is_none() && held + added >= services.limits.subscriptions_per_session_max {
                return Err(ReasonCode::QuotaExceeded);
            }
            authorize(&services, &entry, &filter)?;
            added += usize::from(known.is_none());
            Ok(Subscription { filter, options, identifier, since: known.unwrap_or(head) })
        }));
    }

    // They stay until the subscriptions are made.
    let mut holds = Vec::new();
    for outcome in &mut outcomes {
        if let Ok(Subscription { filter, options, .. }) = outcome
            && filter.share_name().is_some()
        {
            match services.hold_group(&entry, filter, options.qos, head).await {
                Ok(hold) => holds.push(hold),
                Err(reason) => *outcome = Err(reason),
            }
        }
    }

    let granted: Vec<Subscription> = outcomes.iter().flatten().cloned().collect();
    if let Some(session) = entry.stored().filter(|_| !granted.is_empty()) {
        match services.sessions.apply(SessionOp::Subscribe(session, granted)).await {
            Ok(SessionReply::Fenced) => return Err(Fenced),
            Ok(_) => {}
            Err(_) => {
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                    *outcome = Err(ReasonCode::UnspecifiedError);
                }
            }
        }
    }

    let mut retained = Vec::new();
    let mut reasons = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Err(reason) => reasons.push(failure(version, reason)),
            Ok(subscription) => {
                reasons.push(subscription.options.qos as u8);
                let is_new = entry.subscribe(subscription.clone());
                services.router.subscribe(&entry, &subscription);
                if wants_retained(&subscription, is_new) && services.may_be_retained(&entry, &subscription) {
                    let up_to = services.tail.log(entry.principal.tenant).head();
                    retained.push(Owed { subscription, up_to });
                }
            }
        }
    }
    Ok(Subscribed { packet_id, reasons, retained })
}

pub(crate) async fn unsubscribe(
    services: Arc<Services>,
    entry: Arc<SessionEntry>,
    request: UnsubscribeRequest,
) -> Result<Unsubscribed, Fenced> {
    let filters: Vec<TopicFilter> = request.filters.iter().flatten().cloned().collect();
    let mut stored = true;
    if let Some(session) = entry.stored().filter(|_| !filters.is_empty()) {
        match services.sessions.apply(SessionOp::Unsubscribe(session, filters)).await {
            Ok(SessionReply::Fenced) => return Err(Fenced),
            Ok(_) => {}
            Err(_) => stored = false,
        }
    }
    let reasons = request.filters.into_iter().map(|filter| {
        if !stored {
            return ReasonCode::UnspecifiedError;
        }
        let gone = filter.and_then(|filter| entry.unsubscribe(filter.as_subscribed()));
        match gone {
            None => ReasonCode::NoSubscriptionExisted,
            Some(gone) => {
                services.router.unsubscribe(&entry, &gone);
                ReasonCode::Success
            }
        }
    });
    Ok(Unsubscribed { packet_id: request.packet_id, reasons: reasons.map(ReasonCode::code).collect() })
}

fn authorize(services: &Services, entry: &SessionEntry, filter: &TopicFilter) -> Result<(), ReasonCode> {
    let principal = &entry.principal;
    services.policy.permit_subscribe(principal, filter).map_err(|_| {
        let resource = match filter.scope() {
            FilterScope::Conversation(conversation) => Some(conversation.0),
            FilterScope::Inbox(user) => Some(user.0),
            FilterScope::MyConversations | FilterScope::Other => None,
        };
        services.record_denial(entry, AuditAction::SubscribeDenied, resource);
        ReasonCode::NotAuthorized
    })
}

impl Services {
    pub(crate) fn record_denial(&self, entry: &SessionEntry, action: AuditAction, resource: Option<Uuid>) {
        self.audit.record(AuditEvent {
            at: self.clock.unix_now(),
            tenant: Some(entry.principal.tenant),
            actor: Some(entry.principal.user),
            action,
            resource,
            allowed: false,
        });
    }
}

/// In 3.1.1 every failure is 0x80. [MQTT-3.9.3-2]
fn failure(version: Version, reason: ReasonCode) -> u8 {
    match version {
        Version::V3 => ReasonCode::UnspecifiedError.code(),
        Version::V5 => reason.code(),
    }
}

fn wants_retained(subscription: &Subscription, is_new: bool) -> bool {
    match subscription.options.retain_handling {
        // Nobody's alone, so nobody is owed them.
        _ if subscription.filter.share_name().is_some() => false,
        RetainHandling::SendAtSubscribe => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    }
}

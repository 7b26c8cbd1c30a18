//! Groups in the store: a session each, for as long as a member's session is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use sotto_model::{ClientId, Clock, Offset, QoS, TenantId, TopicFilter};
use sotto_mqtt::reason::ReasonCode;
use sotto_storage::StoreError;
use sotto_storage::session_store::{OpenSession, OpenedSession, SessionOp, SessionRef, SessionReply};

use crate::router::Router;
use crate::services::Services;
use crate::session_entry::SessionEntry;
use crate::share::group::Group;

/// It ends when its last member does, whenever that is.
const NEVER_EXPIRES: u32 = u32::MAX;

/// Keeps a group while a subscription to it is being made.
pub(crate) struct Hold {
    router: Arc<Router>,
    group: Arc<Group>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.router.groups.release(&self.group);
    }
}

impl Services {
    /// Before a session subscribes: the group is there, and stored where the session is.
    pub(crate) async fn hold_group(
        &self,
        entry: &Arc<SessionEntry>,
        filter: &TopicFilter,
        qos: QoS,
        head: Offset,
    ) -> Result<Hold, ReasonCode> {
        let group = self.router.groups.reserve(entry, filter, head).map_err(|_| ReasonCode::QuotaExceeded)?;
        let hold = Hold { router: self.router.clone(), group };
        if entry.is_stored() && qos != QoS::AtMostOnce {
            let group = &hold.group;
            let _storing = group.storing.lock().await;
            if group.entry.stored().is_none() {
                // What is stored under its name is of a group that ended.
                let opened = self.open_group(group, true).await;
                let opened = opened.map_err(|_| ReasonCode::UnspecifiedError)?;
                group.entry.set_stored(Some(opened.session));
                self.save_group(group);
            }
        }
        Ok(hold)
    }

    pub(crate) fn save_group(&self, group: &Group) {
        let progress = Box::new(group.progress());
        if let Some(session) = group.entry.stored() {
            // Refused only while the store is long away or the node shuts down: the next one says as much.
            let _ = self.sessions.submit(SessionOp::Save(session, progress));
        }
    }

    /// At start, when all sessions are known: groups take up what `stored` has of them, and what nobody is a
    /// member of is forgotten.
    pub(crate) async fn restore_groups(
        &self,
        stored: Vec<(TenantId, ClientId, SessionRef)>,
    ) -> Result<(), StoreError> {
        let mut stored: BTreeMap<(TenantId, ClientId), SessionRef> =
            stored.into_iter().map(|(tenant, client_id, session)| ((tenant, client_id), session)).collect();
        for group in self.router.groups.all() {
            if !group.is_to_be_stored() {
                continue;
            }
            let principal = &group.entry.principal;
            stored.remove(&(principal.tenant, principal.client_id.clone()));
            let OpenedSession { session, progress, .. } = self.open_group(&group, false).await?;
            let offsets: Vec<Offset> = progress.inflight.iter().map(|message| message.offset).collect();
            let records = self.read_at(principal, &offsets).await?;
            group.restore(&progress, records);
            group.entry.set_stored(Some(session));
        }
        for session in stored.into_values() {
            self.sessions.apply(SessionOp::Delete(session)).await?;
        }
        Ok(())
    }

    /// When no connection is left: what the groups have come to is kept.
    pub(crate) fn close_groups(&self) {
        for group in self.router.groups.all() {
            let Some(session) = group.entry.stored() else { continue };
            let close = SessionOp::Close {
                session,
                progress: Box::new(group.progress()),
                expiry_seconds: NEVER_EXPIRES,
                will: None,
                now: self.clock.unix_now(),
            };
            if self.sessions.submit(close).is_err() {
                tracing::error!(
                    event = "share_close_lost",
                    "a shared subscription's progress found no room to be written"
                );
            }
        }
    }

    async fn open_group(&self, group: &Group, clean_start: bool) -> Result<OpenedSession, StoreError> {
        let principal = &group.entry.principal;
        let open = OpenSession {
            tenant: principal.tenant,
            client_id: principal.client_id.clone(),
            user: principal.user,
            device: None,
            clean_start,
            expiry_seconds: NEVER_EXPIRES,
            head: self.tail.log(principal.tenant).head(),
            will: None,
            now: self.clock.unix_now(),
        };
        match self.sessions.apply(SessionOp::Open(Box::new(open))).await? {
            SessionReply::Opened(opened) => Ok(*opened),
            SessionReply::Done | SessionReply::Fenced => {
                Err(StoreError::Inconsistent("reply to a session's opening"))
            }
        }
    }
}

//! What a live connection does with packets, and with the work that input waits for.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_model::PacketId;
use sotto_mqtt::codec::{check_from_client, decode};
use sotto_mqtt::packet::Packet;
use sotto_mqtt::session::Action;
use sotto_storage::session_store::{SessionOp, SessionRef, SessionReply};

use crate::connection::Shared;
use crate::connection::ending::Farewell;
use crate::connection::live::{Live, WRITE_BYTES_MAX, Work};
use crate::connection::subscribing::{
    Fenced, SubscribeRequest, Subscribed, UnsubscribeRequest, Unsubscribed, subscribe, unsubscribe,
};
use crate::services::Services;
use crate::transport::{Transport, TransportError};

/// Between a failed release of packet ids and the next.
const RELEASE_RETRY_AFTER: Duration = Duration::from_millis(500);

impl Live {
    pub(super) fn takes_input(&self) -> bool {
        self.work.is_none()
            && self.stalled.is_none()
            && self.leaving.is_none()
            && self.session.accepts_packets()
    }

    /// Handles what has been read, and reads once when that is used up. True when something was read.
    pub(super) fn take_input(
        &mut self,
        transport: &mut Transport,
        input: &mut Vec<u8>,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        out: &mut Vec<u8>,
    ) -> Result<bool, Farewell> {
        if !self.takes_input() {
            return Ok(false);
        }
        let mut handled = 0;
        if !input.is_empty() {
            handled = self.handle_packets(input, out)?;
            input.drain(..handled);
        }
        if !self.takes_input() || out.len() >= WRITE_BYTES_MAX {
            return Ok(handled > 0);
        }
        if !input.is_empty() {
            // The rest of a packet: it is put together where the first part is kept.
            let read = poll_read(transport, cx, shared, input)?;
            return Ok(read || handled > 0);
        }
        *input = Vec::new();
        let mut fresh = std::mem::take(&mut shared.input);
        fresh.clear();
        let read = poll_read(transport, cx, shared, &mut fresh);
        let outcome = read.and_then(|read| {
            if read {
                let handled = self.handle_packets(&fresh, out)?;
                input.extend_from_slice(&fresh[handled..]);
            }
            Ok(read || handled > 0)
        });
        shared.input = fresh;
        outcome
    }

    /// Handles whole packets from the front of `input` for as long as the session takes them.
    fn handle_packets(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Farewell> {
        let mut handled = 0;
        while self.takes_input() && handled < input.len() && out.len() < WRITE_BYTES_MAX {
            check_from_client(input[handled]).map_err(|error| Farewell::Violation(error.into()))?;
            let decoded =
                decode(&input[handled..], self.session.version(), self.services.limits.packet_bytes_max);
            let Some((packet, len)) = decoded.map_err(|error| Farewell::Violation(error.into()))? else {
                break;
            };
            self.handle_packet(packet, out)?;
            handled += len;
        }
        if handled > 0 {
            self.last_packet_tenths = self.services.clock.tenths();
        }
        Ok(handled)
    }

    fn handle_packet(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        let action = self.session.receive(packet, out);
        match action.map_err(Farewell::Violation)? {
            Action::None => {}
            Action::WindowMoved(packet_id) => {
                self.acknowledge_lent(packet_id);
                self.services.unsaved.add(&self.owned.entry);
            }
            Action::Publish(publish) => return self.publish(&publish, out),
            Action::Subscribe(request) => {
                let request = SubscribeRequest::of(&request, self.session.version(), &self.services.limits);
                let work = subscribe(self.services.clone(), self.owned.entry.clone(), request);
                let committing = self.committing.take();
                self.work = Some(Box::pin(async {
                    // What this connection published before is there to be sent. [MQTT-3.3.1-5]
                    if let Some(committing) = committing {
                        let _ = committing.await;
                    }
                    Work::Subscribed(work.await)
                }));
            }
            Action::Unsubscribe(request) => {
                let request = UnsubscribeRequest::of(&request);
                let work = unsubscribe(self.services.clone(), self.owned.entry.clone(), request);
                self.work = Some(Box::pin(async { Work::Unsubscribed(work.await) }));
            }
            Action::Release(packet_id) => {
                if self.owned.entry.is_stored() {
                    // A client may repeat its PUBREL as often as it likes.
                    if !self.to_release.contains(&packet_id) {
                        self.to_release.push(packet_id);
                    }
                } else {
                    self.session.released(packet_id, out);
                }
            }
            Action::Authenticate { begin, data } => return self.authenticate_again(begin, data, out),
            Action::Disconnect { publish_will } => return Err(Farewell::Goodbye { publish_will }),
        }
        Ok(())
    }

    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(done) = work.as_mut().poll(cx)
        {
            self.work = None;
            match done {
                Work::Subscribed(Ok(Subscribed { packet_id, reasons, retained })) => {
                    self.session.subscribed(packet_id, &reasons, out);
                    for owed in retained {
                        self.backlog.retained.get_or_insert_default().owe(owed);
                    }
                }
                Work::Unsubscribed(Ok(Unsubscribed { packet_id, reasons })) => {
                    self.session.unsubscribed(packet_id, &reasons, out);
                    if let Some(retained) = &mut self.backlog.retained {
                        retained.forget_unsubscribed(&self.owned.entry);
                    }
                }
                Work::Subscribed(Err(Fenced)) | Work::Unsubscribed(Err(Fenced)) => {
                    return Err(Farewell::Fenced);
                }
                Work::Warmed => {}
                Work::Asked { packet_id, outcome } => self.asked(packet_id, outcome, out)?,
            }
        }
        self.poll_release(cx, out)
    }

    /// Makes PUBRELs durable, those that come meanwhile together.
    fn poll_release(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Farewell> {
        loop {
            if self.release.is_none() && !self.to_release.is_empty() {
                let packet_ids = std::mem::take(&mut self.to_release);
                let services = self.services.clone();
                let Some(session) = self.owned.entry.stored() else { return Err(Farewell::Fenced) };
                self.release = Some(Box::pin(release(services, session, packet_ids)));
            }
            let Some(release) = &mut self.release else { return Ok(()) };
            let Poll::Ready(released) = release.as_mut().poll(cx) else { return Ok(()) };
            self.release = None;
            for packet_id in released.map_err(|Fenced| Farewell::Fenced)? {
                self.session.released(packet_id, out);
            }
        }
    }
}

/// Forgets the packet ids durably, for as long as it takes: the client's PUBCOMPs wait with the store.
async fn release(
    services: Arc<Services>,
    session: SessionRef,
    packet_ids: Vec<PacketId>,
) -> Result<Vec<PacketId>, Fenced> {
    loop {
        match services.sessions.apply(SessionOp::Release(session, packet_ids.clone())).await {
            Ok(SessionReply::Done) => return Ok(packet_ids),
            Ok(SessionReply::Fenced | SessionReply::Opened(_)) => return Err(Fenced),
            Err(_) => tokio::time::sleep(RELEASE_RETRY_AFTER).await,
        }
    }
}

/// True when something was read.
fn poll_read(
    transport: &mut Transport,
    cx: &mut Context<'_>,
    shared: &mut Shared,
    input: &mut Vec<u8>,
) -> Result<bool, Farewell> {
    match transport.poll_read(cx, &mut shared.scratch, input) {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Pending => Ok(false),
        Poll::Ready(Err(TransportError::Tls(_))) => Err(Farewell::TlsFailure),
        Poll::Ready(Err(TransportError::WebSocket(_))) => Err(Farewell::WebSocketViolation),
        Poll::Ready(Err(TransportError::Closed | TransportError::Io(_))) => Err(Farewell::Lost),
    }
}

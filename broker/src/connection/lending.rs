//! Messages of shared subscriptions: sent, or given back to the group for another member.

use sotto_model::{Clock, PacketId, QoS};
use sotto_mqtt::delivery::{Delivered, Place};

use crate::connection::lent::Lent;
use crate::connection::live::{Live, WRITE_BYTES_MAX};
use crate::metrics::{Drop, dropped};
use crate::session_entry::{Delivery, Loan};

impl Live {
    /// Sends what was lent to this session, and says how much more there is room for. True when there may be
    /// more to send.
    pub(super) fn send_lent(&mut self, blocked: bool, out: &mut Vec<u8>) -> bool {
        if !self.owned.entry.desk.is_used() {
            return false;
        }
        self.note_room(blocked);
        while !blocked && self.session.has_room() {
            if out.len() >= WRITE_BYTES_MAX {
                return true;
            }
            let Some(loan) = self.owned.entry.desk.take() else { break };
            self.send_loan(loan, out);
        }
        self.note_room(blocked);
        false
    }

    /// A client that takes nothing holds nobody up: what waits for it goes to others.
    fn note_room(&self, blocked: bool) {
        let room = if blocked { 0 } else { self.session.room() };
        drop(self.owned.entry.desk.set_room(room));
    }

    fn send_loan(&mut self, loan: Loan, out: &mut Vec<u8>) {
        let Loan { delivery: Delivery { record, grant }, ticket } = loan;
        if record.expiry_remaining_seconds(|| self.services.clock.unix_now()).is_err() {
            dropped(Drop::Expired);
            return ticket.done();
        }
        // One of QoS 1 is another member's when this connection ends, so the session does not keep it. One of
        // QoS 2 stays with the session. [MQTT-4.8.2-4]
        let place = match record.offset() {
            Some(offset) if grant.qos == QoS::ExactlyOnce => Place::OutOfOrder(offset),
            _ => Place::Unlogged,
        };
        let packet_id = match self.send(&record, &grant, place, out) {
            Some(Delivered::Sent) => self.session.newest_packet_id().filter(|_| grant.qos != QoS::AtMostOnce),
            Some(Delivered::Held(packet_id)) => Some(packet_id),
            // Too large for one is for nobody: the choice is the server's. [MQTT-3.1.2-25]
            Some(Delivered::TooLarge) => None,
            Some(Delivered::Known | Delivered::WindowFull) | None => return drop(ticket),
        };
        match packet_id {
            Some(packet_id) => self.lent.push(Lent { packet_id, qos: grant.qos, ticket }),
            None => ticket.done(),
        }
    }

    /// The client acknowledged, whether it took the message or refused it. [MQTT-4.8.2-6]
    pub(super) fn acknowledge_lent(&mut self, packet_id: PacketId) {
        let lent = self.lent.iter().position(|lent| lent.packet_id == packet_id);
        if let Some(at) = lent {
            self.lent.swap_remove(at).ticket.done();
            if self.lent.is_empty() {
                self.lent = Vec::new();
            }
        }
    }

    /// A message of QoS 2 is stored with the session: it is the session's own from here on.
    pub(super) fn own_lent(&mut self, packet_id: PacketId) {
        let owned = |lent: &Lent| lent.packet_id == packet_id && lent.qos == QoS::ExactlyOnce;
        if let Some(at) = self.lent.iter().position(owned) {
            self.lent.swap_remove(at).ticket.handed_over();
        }
    }

    /// The connection has ended: what is not acknowledged goes to other members, but for QoS 2. That is for
    /// this session, or for nobody. [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    pub(super) fn end_lending(&mut self) {
        self.services.router.set_connected(&self.owned.entry, false);
        for Lent { qos, ticket, .. } in self.lent.drain(..) {
            if qos == QoS::ExactlyOnce {
                self.owned.loans.push(ticket);
            }
        }
    }
}

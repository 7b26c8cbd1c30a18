//! A message of a shared subscription that the client has yet to acknowledge.

use sotto_model::{PacketId, QoS};

use crate::share::ticket::Ticket;

pub(super) struct Lent {
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    /// Dropped, it gives the message back.
    pub(super) ticket: Ticket,
}

//! Messages sent and not yet acknowledged, by Packet Identifier.

use sotto_model::PacketId;

use crate::run_clock::Micros;

/// An identifier is free again as soon as its message is done. [MQTT-2.2.1-3]
#[derive(Debug)]
pub(crate) struct Inflight {
    /// The message under identifier i stands at i - 1.
    slots: Vec<Option<InflightMessage>>,
    free: Vec<PacketId>,
    window: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InflightMessage {
    pub(crate) sequence: u32,
    pub(crate) intended: Micros,
    /// QoS 2: PUBREC has come, PUBREL is out.
    pub(crate) released: bool,
}

impl Inflight {
    pub(crate) fn new(window: u16) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), window }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= usize::from(self.window)
    }

    /// `None` when it is full.
    pub(crate) fn insert(&mut self, message: InflightMessage) -> Option<PacketId> {
        if self.is_full() {
            return None;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            let raw = u16::try_from(self.slots.len()).expect("at most as many as the window, a u16");
            PacketId::new(raw).expect("the list is not empty")
        });
        self.slots[index(id)] = Some(message);
        Some(id)
    }

    pub(crate) fn find(&mut self, id: PacketId) -> Option<&mut InflightMessage> {
        self.slots.get_mut(index(id))?.as_mut()
    }

    pub(crate) fn remove(&mut self, id: PacketId) -> Option<InflightMessage> {
        let message = self.slots.get_mut(index(id))?.take()?;
        self.free.push(id);
        Some(message)
    }
}

fn index(id: PacketId) -> usize {
    usize::from(id.0.get()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u32) -> InflightMessage {
        InflightMessage { sequence, intended: Micros(0), released: false }
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut inflight = Inflight::new(2);
        let first = inflight.insert(message(0)).expect("room");
        assert!(inflight.insert(message(1)).is_some());
        assert_eq!(inflight.insert(message(2)), None);
        assert_eq!(inflight.remove(first), Some(message(0)));
        assert_eq!(inflight.insert(message(2)), Some(first));
    }

    #[test]
    fn the_largest_window_uses_every_identifier_but_zero() {
        let mut inflight = Inflight::new(u16::MAX);
        for sequence in 0..u32::from(u16::MAX) {
            assert!(inflight.insert(message(sequence)).is_some());
        }
        assert!(inflight.is_full());
        assert!(inflight.remove(PacketId::new(u16::MAX).expect("not zero")).is_some());
    }

    #[test]
    fn an_acknowledgement_counts_once() {
        let mut inflight = Inflight::new(4);
        let id = inflight.insert(message(0)).expect("room");
        assert!(inflight.remove(id).is_some());
        assert_eq!(inflight.remove(id), None);
        assert_eq!(inflight.remove(PacketId::new(9).expect("not zero")), None);
        assert_eq!(inflight.len(), 0);
    }
}

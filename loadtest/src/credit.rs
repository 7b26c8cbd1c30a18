//! What holds a QoS 0 publisher back in a closed loop: nothing acknowledges its messages, so deliveries do.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::task::AtomicWaker;

/// One publisher's. Its subscribers may run on other threads.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    deliveries: AtomicU64,
    publisher: AtomicWaker,
}

impl Credit {
    pub(crate) fn add_delivery(&self) {
        self.deliveries.fetch_add(1, Ordering::AcqRel);
        self.publisher.wake();
    }

    pub(crate) fn deliveries(&self, waker: &std::task::Waker) -> u64 {
        self.publisher.register(waker);
        self.deliveries.load(Ordering::Acquire)
    }
}

/// How many messages of one QoS 0 publisher are out and not known to be delivered or lost.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// Deliveries that one message becomes.
    fan_out: u64,
    sent: u64,
    /// Taken for lost.
    forgiven: u64,
}

impl Outstanding {
    pub(crate) fn new(fan_out: u64) -> Self {
        Self { fan_out, sent: 0, forgiven: 0 }
    }

    pub(crate) fn add_sent(&mut self) {
        self.sent += 1;
    }

    /// A publisher that nobody listens to has nothing outstanding.
    pub(crate) fn count(&self, deliveries: u64) -> u64 {
        let done = deliveries.checked_div(self.fan_out).unwrap_or(self.sent) + self.forgiven;
        self.sent.saturating_sub(done)
    }

    pub(crate) fn forgive(&mut self, deliveries: u64) {
        self.forgiven += self.count(deliveries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_outstanding_until_every_subscriber_has_it() {
        let mut outstanding = Outstanding::new(3);
        outstanding.add_sent();
        outstanding.add_sent();
        assert_eq!([0, 2, 3, 5, 6].map(|deliveries| outstanding.count(deliveries)), [2, 2, 1, 1, 0]);
    }

    #[test]
    fn lost_messages_do_not_close_the_window_for_good() {
        let mut outstanding = Outstanding::new(1);
        (0..16).for_each(|_| outstanding.add_sent());
        outstanding.forgive(4);
        assert_eq!(outstanding.count(4), 0);
        outstanding.add_sent();
        assert_eq!(outstanding.count(4), 1);
        assert_eq!(outstanding.count(5), 0);
    }

    #[test]
    fn without_subscribers_nothing_is_outstanding() {
        let mut outstanding = Outstanding::new(0);
        outstanding.add_sent();
        assert_eq!(outstanding.count(0), 0);
    }
}

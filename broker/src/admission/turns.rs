//! Turns at the cryptography of handshakes: so few at a time that who is connected does not wait behind all who come.
//!
//! A step of a handshake takes as long as dozens of messages. A turn is good for one step, and comes back once
//! everything else that the runtime has to do has been done: between two rounds of handshakes, messages pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::PollSemaphore;

pub(crate) struct Turns {
    free: Arc<Semaphore>,
    /// Since the last round.
    taken: AtomicUsize,
    all_taken: Notify,
}

impl Turns {
    pub(super) fn new(at_a_time: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(at_a_time)),
            taken: AtomicUsize::new(0),
            all_taken: Notify::new(),
        }
    }

    /// A place in line.
    pub(super) fn line_up(&self) -> PollSemaphore {
        PollSemaphore::new(self.free.clone())
    }

    /// Takes one turn for whoever has this place, in the order of asking.
    pub(super) fn poll_turn(&self, place: &mut PollSemaphore, cx: &mut Context<'_>) -> Poll<()> {
        let turn = ready!(place.poll_acquire(cx)).expect("the semaphore is never closed");
        turn.forget();
        self.taken.fetch_add(1, Ordering::AcqRel);
        if self.free.available_permits() == 0 {
            self.all_taken.notify_one();
        }
        Poll::Ready(())
    }

    /// Gives turns back, a round at a time, for as long as it is polled.
    pub(super) async fn give_back(&self) {
        loop {
            self.all_taken.notified().await;
            // The runtime comes back to this when it has nothing else to run, and has asked for what is new.
            tokio::task::yield_now().await;
            self.free.add_permits(self.taken.swap(0, Ordering::AcqRel));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    async fn turn(turns: &Turns, place: &mut PollSemaphore) {
        poll_fn(|cx| turns.poll_turn(place, cx)).await;
    }

    #[test]
    fn turns_that_are_taken_come_back_when_the_next_round_begins() {
        let turns = Arc::new(Turns::new(2));
        let mut lines = [turns.line_up(), turns.line_up(), turns.line_up()];
        let mut round = Box::pin(turns.give_back());
        assert!(round.as_mut().now_or_never().is_none());
        assert!(turn(&turns, &mut lines[0]).now_or_never().is_some());
        assert!(turn(&turns, &mut lines[1]).now_or_never().is_some());
        assert!(turn(&turns, &mut lines[2]).now_or_never().is_none(), "both are taken");
        assert!(round.as_mut().now_or_never().is_none());
        assert!(turn(&turns, &mut lines[2]).now_or_never().is_none(), "others have had no time meanwhile");
        assert!(round.as_mut().now_or_never().is_none());
        assert!(turn(&turns, &mut lines[2]).now_or_never().is_some());
        assert!(turn(&turns, &mut lines[0]).now_or_never().is_some(), "two of each round");
        assert!(turn(&turns, &mut lines[1]).now_or_never().is_none());
    }

    #[test]
    fn who_leaves_the_line_takes_no_turn_along() {
        let turns = Arc::new(Turns::new(1));
        let mut round = Box::pin(turns.give_back());
        let mut lines = [turns.line_up(), turns.line_up(), turns.line_up()];
        assert!(turn(&turns, &mut lines[0]).now_or_never().is_some());
        let [_, mut leaves, mut stays] = lines;
        let waker = futures::task::noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(turns.poll_turn(&mut leaves, &mut cx).is_pending());
        assert!(turns.poll_turn(&mut stays, &mut cx).is_pending());
        for _ in 0..2 {
            assert!(round.as_mut().now_or_never().is_none());
        }
        drop(leaves);
        assert!(turns.poll_turn(&mut stays, &mut cx).is_ready());
    }

    /// As a storm comes: many with a step to do, and a message that comes amid it.
    #[tokio::test]
    async fn a_message_waits_for_a_round_and_not_for_all_who_come() {
        const COMING: usize = 1000;
        const AT_A_TIME: usize = 4;
        let turns = Arc::new(Turns::new(AT_A_TIME));
        let done = Arc::new(AtomicUsize::new(0));
        let pace = turns.clone();
        let pace = tokio::spawn(async move { pace.give_back().await });
        for _ in 0..COMING {
            let (turns, done) = (turns.clone(), done.clone());
            tokio::spawn(async move {
                turn(&turns, &mut turns.line_up()).await;
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while done.load(Ordering::Relaxed) < COMING / 2 {
            let before = done.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            let passed = done.load(Ordering::Relaxed) - before;
            assert!(passed <= 2 * AT_A_TIME, "{passed} steps between two turns of another task");
        }
        pace.abort();
    }
}

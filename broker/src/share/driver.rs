//! Keeps a group going: takes what comes, hands it out, and has progress stored.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use sotto_storage::session_store::{SessionOp, SessionRef};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{Drop, dropped};
use crate::services::Services;
use crate::share::group::Group;
use crate::share::groups::GroupHost;
use crate::share::intake::Intake;

/// Messages handed out in one poll before others of the thread get theirs.
const MESSAGES_PER_POLL_MAX: u32 = 64;
/// From a change to its being stored.
const SAVE_AFTER: Duration = Duration::from_secs(2);

/// Runs a task for each group.
pub(crate) struct Drivers {
    /// Not owned: the services own the groups that own this.
    pub(crate) services: Weak<Services>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl GroupHost for Drivers {
    fn drive(&self, group: Arc<Group>) {
        let Some(services) = self.services.upgrade() else { return };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let ended = group.ended.clone();
            let mut driver = Driver { group, services, intake: Intake::new(), save: None };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = ended.cancelled() => {}
                () = poll_fn(|cx| driver.poll(cx)) => {}
            }
        });
    }

    fn forget(&self, session: SessionRef) {
        let Some(services) = self.services.upgrade() else { return };
        if services.sessions.submit(SessionOp::Delete(session)).is_err() {
            // Nobody takes it up: the next start finds no member, the next group of this name begins anew.
            tracing::warn!(event = "share_forget_lost", "a shared subscription that ended stays stored");
        }
    }
}

struct Driver {
    group: Arc<Group>,
    services: Arc<Services>,
    intake: Intake,
    /// Set while something is unsaved.
    save: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    /// Never ready.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.group.entry.register_waker(cx.waker());
        if self.group.entry.take_post().behind {
            self.intake.fell_behind();
        }
        if self.group.is_live() {
            self.intake.finish_reading(&self.group, &self.services, cx);
        } else {
            self.intake.rest();
        }
        let idle = (0..MESSAGES_PER_POLL_MAX).any(|_| !self.step(cx));
        if !idle {
            cx.waker().wake_by_ref();
        }
        self.save_when_due(cx);
        Poll::Pending
    }

    /// Hands out what came back, and takes one more. False when there is none, or nobody has room.
    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..self.group.hand_out(&self.services.policy) {
            dropped(Drop::NotPermitted);
        }
        self.group.wants_more() && self.intake.take(&self.group, &self.services, cx)
    }

    fn save_when_due(&mut self, cx: &mut Context<'_>) {
        if self.save.is_none() && self.group.is_unsaved() {
            self.save = Some(Box::pin(tokio::time::sleep(SAVE_AFTER)));
        }
        if let Some(save) = &mut self.save
            && (self.group.is_overdue() || save.as_mut().poll(cx).is_ready())
        {
            self.save = None;
            self.save();
        }
    }

    fn save(&self) {
        let entry = &self.group.entry;
        // Read before the mailbox is: all that was handed out up to here is in the mailbox or was taken.
        let delivered = self.services.tail.log(entry.principal.tenant).delivered();
        if self.intake.is_caught_up() && self.group.is_live() && entry.is_drained() {
            self.group.pass_over(delivered);
        }
        self.services.save_group(&self.group);
    }
}

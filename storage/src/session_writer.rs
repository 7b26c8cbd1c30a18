//! Writes changes to stored sessions, many connections' changes in one transaction, in their order.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sotto_model::limits::{BATCH_BYTES_MAX, SESSION_BATCH_OPS_MAX, SESSION_QUEUE_BYTES_MAX};
use sotto_model::{Backoff, Clock, Subscription};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch::BatchBound;
use crate::budget::{Budget, Reservation};
use crate::committer::DrainTimedOut;
use crate::error::StoreError;
use crate::group_commit::{Closed, GroupReceiver, GroupSender, group_commit};
use crate::session_store::{SessionOp, SessionProgress, SessionRef, SessionReply, SessionStore};
use crate::wills::{KeptWill, WillEnd};

/// How long [`SessionWriter::apply`] waits for a store that is away.
pub const APPLY_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(2) };
const BOUND: BatchBound = BatchBound { records: SESSION_BATCH_OPS_MAX, bytes: BATCH_BYTES_MAX };

#[derive(Clone)]
pub struct SessionWriter {
    queue: GroupSender<Entry>,
    /// For changes that someone waits for.
    requests: Budget,
    /// For changes that nobody waits for: connects cannot crowd out disconnects.
    notices: Budget,
    saves: Saves,
    abandon: CancellationToken,
}

/// Why a change that nobody waits for was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("too many session changes are waiting")]
    Full,
    #[error("closed for session changes")]
    Closed,
}

impl SessionWriter {
    /// Starts the only task that writes sessions. Cancelling `abandon` ends it at once.
    pub fn start(
        store: Arc<dyn SessionStore>,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
        abandon: &CancellationToken,
    ) -> Self {
        let abandon = abandon.child_token();
        let (queue, receiver) = group_commit(BOUND, |entry: &Entry| entry.bytes);
        let saves = Saves::default();
        let writer = Writer { store, clock, saves: saves.clone(), abandon: abandon.clone() };
        tasks.spawn(writer.run(receiver));
        Self {
            queue,
            requests: Budget::new(SESSION_QUEUE_BYTES_MAX),
            notices: Budget::new(SESSION_QUEUE_BYTES_MAX),
            saves,
            abandon,
        }
    }

    /// Returns when the change is committed. A store that is away is asked again until
    /// [`APPLY_DEADLINE`]; a change whose caller has gone by the time that it is tried is skipped, and a
    /// session opened for a caller that has gone is closed again.
    pub async fn apply(&self, op: SessionOp) -> Result<SessionReply, StoreError> {
        let bytes = bytes_of(&op);
        let Some(reservation) = self.requests.try_reserve(bytes) else {
            return Err(unavailable("queue full"));
        };
        let (reply, replied) = oneshot::channel();
        let waiting = Waiting { reply: Some(reply), reservation };
        let entry = Entry { change: Change::Op(op), bytes, waiting };
        {
            // A save that waits is older than this one; and a save that comes after it must not go in its place.
            let mut saves = self.saves.0.lock();
            if let Change::Op(SessionOp::Save(session, _)) = &entry.change {
                saves.waiting.remove(session);
            }
            self.queue.push(entry).map_err(|_| unavailable("closed"))?;
        }
        match tokio::time::timeout(APPLY_DEADLINE, replied).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(unavailable("closed")),
            Err(_) => Err(unavailable("deadline")),
        }
    }

    /// Hands a change over that must happen, however long the store is away, and that nobody waits for:
    /// a `Save`, a `Close`. A `Save` takes the place of the one that still waits for the same session.
    pub fn submit(&self, op: SessionOp) -> Result<(), SubmitError> {
        let bytes = bytes_of(&op);
        let reserve = || self.notices.try_reserve(bytes).ok_or(SubmitError::Full);
        let push = |change, reservation| {
            let entry = Entry { change, bytes, waiting: Waiting { reply: None, reservation } };
            self.queue.push(entry).map_err(|Closed(_)| SubmitError::Closed)
        };
        let SessionOp::Save(session, progress) = op else {
            return push(Change::Op(op), reserve()?);
        };
        let mut saves = self.saves.0.lock();
        if let Some((_, waiting)) = saves.waiting.get_mut(&session) {
            // It keeps the reservation of the first: they differ by what INFLIGHT_MAX allows.
            *waiting = progress;
            return Ok(());
        }
        let place = saves.next_place;
        push(Change::Save(session, place), reserve()?)?;
        saves.next_place += 1;
        saves.waiting.insert(session, (place, progress));
        Ok(())
    }

    /// Refuses new changes, and waits until those submitted are committed; abandons the rest at the
    /// deadline.
    pub async fn drain(&self, deadline: Duration) -> Result<(), DrainTimedOut> {
        self.queue.close();
        let drained = tokio::time::timeout(deadline, self.queue.finished()).await;
        let emptied = drained.is_ok() && !self.abandon.is_cancelled();
        self.abandon.cancel();
        emptied.then_some(()).ok_or(DrainTimedOut)
    }
}

/// The latest progress of the sessions whose `Save` waits. Locked by connections to put theirs in, and by
/// the writer to take one out; each has one entry in the queue.
#[derive(Clone, Default)]
struct Saves(Arc<Mutex<WaitingSaves>>);

#[derive(Default)]
struct WaitingSaves {
    /// With the place in the queue that it is to be written at.
    waiting: HashMap<SessionRef, (u64, Box<SessionProgress>)>,
    next_place: u64,
}

enum Change {
    Op(SessionOp),
    /// The progress is in [`Saves`], unless one that was waited for has taken its place.
    Save(SessionRef, u64),
}

struct Entry {
    change: Change,
    bytes: usize,
    waiting: Waiting,
}

struct Waiting {
    /// `None` where nobody waits.
    reply: Option<oneshot::Sender<Result<SessionReply, StoreError>>>,
    /// Held until the change is done.
    reservation: Reservation,
}

impl Waiting {
    /// Nobody was to wait for it, or whoever does is still there.
    fn is_wanted(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| !reply.is_closed())
    }
}

struct Writer {
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    saves: Saves,
    abandon: CancellationToken,
}

/// Changes for one transaction, and who waits for each.
struct Part {
    ops: Vec<SessionOp>,
    waiting: Vec<Waiting>,
}

/// How an attempt that is not repeated ended.
enum ApplyEnd {
    Applied(Vec<SessionReply>),
    Refused(StoreError),
    Abandoned,
}

impl Writer {
    async fn run(self, mut queue: GroupReceiver<Entry>) {
        loop {
            let batch = tokio::select! {
                biased;
                () = self.abandon.cancelled() => return,
                batch = queue.next_batch() => batch,
            };
            let Some(batch) = batch else { return };
            let mut parts = vec![self.part(batch)];
            while let Some(mut part) = parts.pop() {
                match self.apply(&mut part, &mut queue).await {
                    ApplyEnd::Applied(replies) => parts.extend(self.answer(part, replies)),
                    ApplyEnd::Refused(error) => match part.halves(error) {
                        // The first half is applied first: what is last on the stack.
                        Some((first, second)) => parts.extend([second, first]),
                        None => metrics::counter!("sotto_session_commit_refused_total").increment(1),
                    },
                    ApplyEnd::Abandoned => return,
                }
            }
        }
    }

    fn part(&self, batch: Vec<Entry>) -> Part {
        let wanted = batch.into_iter().filter(|entry| entry.waiting.is_wanted());
        let (ops, waiting) = wanted.filter_map(|entry| Some((self.op(entry.change)?, entry.waiting))).unzip();
        Part { ops, waiting }
    }

    fn op(&self, change: Change) -> Option<SessionOp> {
        match change {
            Change::Op(op) => Some(op),
            Change::Save(session, place) => {
                let mut saves = self.saves.0.lock();
                let (_, progress) = match saves.waiting.entry(session) {
                    hash_map::Entry::Occupied(waiting) if waiting.get().0 == place => waiting.remove(),
                    _ => return None,
                };
                Some(SessionOp::Save(session, progress))
            }
        }
    }

    async fn apply(&self, part: &mut Part, queue: &mut GroupReceiver<Entry>) -> ApplyEnd {
        let mut failures = 0u32;
        loop {
            if part.ops.is_empty() {
                return ApplyEnd::Applied(Vec::new());
            }
            let started = self.clock.now();
            let applied = tokio::select! {
                biased;
                applied = self.store.apply(&part.ops) => applied,
                () = self.abandon.cancelled() => return ApplyEnd::Abandoned,
            };
            match applied {
                Ok(replies) => {
                    assert_eq!(replies.len(), part.ops.len(), "a store returns one reply a change");
                    let took = self.clock.now().saturating_duration_since(started);
                    metrics::histogram!("sotto_session_commit_seconds").record(took);
                    return ApplyEnd::Applied(replies);
                }
                Err(error) if error.is_transient() => {
                    failures = failures.saturating_add(1);
                    metrics::counter!("sotto_session_commit_retries_total").increment(1);
                    if failures == 1 {
                        tracing::warn!(%error, "session changes are being retried");
                    }
                    tokio::select! {
                        biased;
                        () = self.abandon.cancelled() => return ApplyEnd::Abandoned,
                        () = tokio::time::sleep(RETRY.delay(failures, self.clock.draw())) => {}
                    }
                    part.drop_unwanted();
                    // While the store is away nothing else takes off the queue what its callers gave up.
                    queue.retain(|entry| entry.waiting.is_wanted());
                }
                Err(error) => return ApplyEnd::Refused(error),
            }
        }
    }

    /// Hands the replies over. A session that was opened for a caller that has gone is to be closed:
    /// nobody else knows of it, and a session marked connected is not woken.
    fn answer(&self, part: Part, replies: Vec<SessionReply>) -> Option<Part> {
        let mut closes = Part { ops: Vec::new(), waiting: Vec::new() };
        for ((op, waiting), reply) in part.ops.into_iter().zip(part.waiting).zip(replies) {
            let Some(caller) = waiting.reply else { continue };
            let Err(Ok(SessionReply::Opened(opened))) = caller.send(Ok(reply)) else { continue };
            let SessionOp::Open(open) = op else { continue };
            closes.ops.push(SessionOp::Close {
                session: opened.session,
                progress: Box::new(opened.progress),
                expiry_seconds: open.expiry_seconds,
                // The client was not told that it is connected, so it has no will. [MQTT-3.1.2-8]
                will: open.will.map(|_| WillEnd::Forgotten),
                now: self.clock.unix_now(),
            });
            closes.waiting.push(Waiting { reply: None, reservation: waiting.reservation });
        }
        (!closes.ops.is_empty()).then_some(closes)
    }
}

impl Part {
    fn drop_unwanted(&mut self) {
        let ops = std::mem::take(&mut self.ops).into_iter();
        let waiting = std::mem::take(&mut self.waiting);
        (self.ops, self.waiting) = ops.zip(waiting).filter(|(_, waiting)| waiting.is_wanted()).unzip();
    }

    /// Splits what was refused; a change that stands alone is the one at fault, and its caller is told.
    fn halves(mut self, error: StoreError) -> Option<(Self, Self)> {
        if self.ops.len() > 1 {
            let middle = self.ops.len() / 2;
            let second = Self { ops: self.ops.split_off(middle), waiting: self.waiting.split_off(middle) };
            return Some((self, second));
        }
        let caller = self.waiting.pop().and_then(|waiting| waiting.reply);
        // The error ends here where nobody hears of it.
        let unheard = match caller {
            Some(caller) => caller.send(Err(error)).err(),
            None => Some(Err(error)),
        };
        if let Some(Err(error)) = unheard {
            tracing::error!(%error, "the store refuses a session change");
        }
        None
    }
}

fn unavailable(code: &str) -> StoreError {
    StoreError::Unavailable { operation: "write session", code: code.into() }
}

/// About what a change occupies beyond the overhead of its reservation.
fn bytes_of(op: &SessionOp) -> usize {
    let progress_bytes = |progress: &SessionProgress| {
        size_of_val(progress.inflight.as_slice()) + size_of_val(progress.exactly_once_received.as_slice())
    };
    match op {
        SessionOp::Open(open) => {
            let will_bytes = |will: &KeptWill| {
                size_of::<KeptWill>() + will.sealed.bytes().len() + will.sealed.topic().as_str().len()
            };
            open.client_id.as_str().len() + open.will.as_deref().map_or(0, will_bytes)
        }
        SessionOp::Subscribe(_, subscriptions) => subscriptions
            .iter()
            .map(|subscription| size_of::<Subscription>() + subscription.filter.as_subscribed().len())
            .sum(),
        SessionOp::Unsubscribe(_, filters) => {
            filters.iter().map(|filter| size_of_val(filter) + filter.as_subscribed().len()).sum()
        }
        SessionOp::Release(_, packet_ids) => size_of_val(packet_ids.as_slice()),
        SessionOp::Save(_, progress) | SessionOp::Close { progress, .. } => progress_bytes(progress),
        SessionOp::Delete(_) => 0,
    }
}

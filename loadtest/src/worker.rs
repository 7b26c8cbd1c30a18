//! One thread with its own runtime and its share of the sessions: nothing is shared with the other threads
//! but counters, so that statistics need no locks.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sotto_model::QoS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, ClientError, Parting};
use crate::connector::{ConnectError, ConnectTimes, Connected, Connector};
use crate::counters::Counters;
use crate::failures::Failures;
use crate::fine_timer::FineTimer;
use crate::interval::{IntervalQueue, IntervalRecorder, Kind};
use crate::latencies::Latencies;
use crate::limits::{STOP_TIMEOUT, SWEEP_INTERVAL};
use crate::part::Part;
use crate::roster::{Phase, Roster, SeatId};
use crate::run_clock::Micros;
use crate::schedule::Schedule;

const PLACES_OPEN: &str = "nobody closes the semaphore";

/// A session runs until the phase is [`Phase::Stopping`] and then gives its connection back.
pub(crate) type Session = Pin<Box<dyn Future<Output = Result<Client, ClientError>>>>;

/// What a scenario does on each thread.
pub(crate) trait Role: 'static {
    /// What the thread hands over at the end.
    type Outcome: Serialize + DeserializeOwned + Send;

    /// The filter that a client subscribes to before it counts as connected.
    fn filter(&self, client: u32, worker: &Worker) -> Option<(String, QoS)>;

    /// A session once it is connected.
    fn session(
        self: Rc<Self>,
        worker: &Rc<Worker>,
        client: u32,
        due: Micros,
        connected: Connected,
        seat: SeatId,
    ) -> Session;

    /// Runs beside the sessions from when messages begin to be due.
    async fn publish(&self, worker: &Worker, start: Micros);

    /// Sessions that wait for something that may never come are woken with every sweep.
    fn sweep_wakes_all(&self) -> bool;

    /// A client counts among the connections under way until its session is over.
    fn keeps_place(&self) -> bool {
        false
    }

    /// How a session ends that has given its connection back.
    fn parting(&self, _: &Worker) -> Parting {
        Parting::Disconnect
    }

    /// When a client connects again that could not connect, or whose session is over; `None`: never.
    fn again(&self, _: &Worker, _client: u32, _: &Away) -> Option<Micros> {
        None
    }

    fn outcome(&self) -> Self::Outcome;
}

/// Why a client is not connected.
#[derive(Debug)]
pub(crate) enum Away {
    Failed(ConnectError),
    /// As the phase demanded, or as the session wished.
    Left,
    Broken(ClientError),
}

pub(crate) struct Worker {
    pub(crate) connector: Arc<Connector>,
    pub(crate) roster: Roster,
    /// Paces connections, and messages once all are there.
    pub(crate) timer: FineTimer,
    pub(crate) counters: Arc<[Counters]>,
    pub(crate) intervals: IntervalRecorder,
    index: usize,
    tally: RefCell<ConnectTally>,
    /// Of clients that had been connected, or had failed to, before.
    returns: RefCell<ConnectTally>,
    /// Ends what is waiting to connect again.
    stopping: CancellationToken,
}

/// What connecting and holding has come to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectTally {
    /// From when the connection was due to when it was begun.
    pub(crate) waiting: Latencies,
    pub(crate) tcp: Latencies,
    pub(crate) tls: Latencies,
    /// From TLS, or from TCP, to the answer to the request for a WebSocket.
    pub(crate) web_socket: Latencies,
    pub(crate) connack: Latencies,
    pub(crate) suback: Latencies,
    /// From when the connection was due to its last step.
    pub(crate) total: Latencies,
    /// Whose TLS ticket was accepted.
    pub(crate) resumed: u64,
    /// Whose session the broker had kept.
    pub(crate) sessions_present: u64,
    /// When the last one was done.
    pub(crate) last: Micros,
    pub(crate) failed: Failures,
    /// Sessions that ended before they were told to.
    pub(crate) broken: Failures,
}

/// What a thread hands over at the end.
pub(crate) struct Done<Outcome> {
    pub(crate) connects: ConnectTally,
    pub(crate) returns: ConnectTally,
    pub(crate) outcome: Outcome,
}

/// The connections of the run and how they are begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) index: usize,
    pub(crate) threads: usize,
    /// Of the crew, whose clients these are.
    pub(crate) part: Part,
    /// Of the whole crew.
    pub(crate) first_client: u32,
    pub(crate) clients: u32,
    pub(crate) schedule: Schedule,
    pub(crate) start: Micros,
    /// On this thread.
    pub(crate) in_flight: usize,
}

impl Worker {
    /// Runs the thread's share to its end; to be called on a thread of its own.
    pub(crate) fn run<R: Role>(
        connector: Arc<Connector>,
        counters: Arc<[Counters]>,
        intervals: IntervalQueue,
        share: Share,
        role: R,
        phases: watch::Receiver<Phase>,
    ) -> std::io::Result<Done<R::Outcome>> {
        let role = Rc::new(role);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let timer = {
            let _context = runtime.enter();
            FineTimer::new()?
        };
        let worker = Rc::new(Self {
            connector,
            timer,
            roster: Roster::new(),
            counters,
            intervals: IntervalRecorder::new(intervals),
            stopping: CancellationToken::new(),
            index: share.index,
            tally: RefCell::new(ConnectTally::new()),
            returns: RefCell::new(ConnectTally::new()),
        });
        let sessions = LocalSet::new();
        sessions.block_on(&runtime, worker.work(share, &role, phases));
        // Sessions that did not end in time end here.
        drop(sessions);
        worker.intervals.close();
        Ok(Done {
            connects: worker.tally.replace(ConnectTally::new()),
            returns: worker.returns.replace(ConnectTally::new()),
            outcome: role.outcome(),
        })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters[self.index]
    }

    pub(crate) fn now(&self) -> Micros {
        self.connector.clock.now()
    }

    async fn work<R: Role>(self: &Rc<Self>, share: Share, role: &Rc<R>, phases: watch::Receiver<Phase>) {
        let sessions = TaskTracker::new();
        tokio::select! {
            () = self.follow(phases, role) => {}
            () = self.connect_share(share, role, &sessions) => {}
            () = self.sweep(role.as_ref()) => {}
        }
        self.stopping.cancel();
        sessions.close();
        // The sessions left over are those of a broker that takes no more bytes; they are dropped.
        let _ = timeout(STOP_TIMEOUT, sessions.wait()).await;
    }

    /// Returns when the run is to stop.
    async fn follow<R: Role>(&self, mut phases: watch::Receiver<Phase>, role: &Rc<R>) {
        loop {
            let phase = *phases.borrow_and_update();
            if let Phase::Cut(cut) = phase {
                // Everyone's at one moment, on whatever thread of whatever process.
                let moment = tokio::time::sleep_until(self.connector.clock.instant(cut.at).into());
                tokio::select! {
                    Ok(()) = phases.changed() => continue,
                    () = moment => {}
                }
            }
            self.roster.enter(phase);
            let changed = match phase {
                Phase::Stopping => return,
                Phase::Publishing(start) => {
                    let publish = async {
                        role.publish(self, start).await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        changed = phases.changed() => changed,
                        () = publish => Ok(()),
                    }
                }
                Phase::Connecting | Phase::Cut(_) | Phase::Draining => phases.changed().await,
            };
            if changed.is_err() {
                self.roster.enter(Phase::Stopping);
                return;
            }
        }
    }

    /// Begins every connection when it is due, then waits for ever.
    async fn connect_share<R: Role>(self: &Rc<Self>, share: Share, role: &Rc<R>, sessions: &TaskTracker) {
        let places = Arc::new(Semaphore::new(share.in_flight));
        let own = (0..share.clients).filter(|number| share.part.owns(*number));
        for number in own.skip(share.index).step_by(share.threads) {
            let due = Micros(share.start.0 + share.schedule.due(number.into()).0);
            self.timer.sleep_until(self.connector.clock.instant(due)).await;
            let place = Arc::clone(&places).acquire_owned().await.expect(PLACES_OPEN);
            let life = Life {
                worker: Rc::clone(self),
                role: Rc::clone(role),
                places: Arc::clone(&places),
                client: share.first_client + number,
            };
            sessions.spawn_local(life.live(due, place));
        }
        std::future::pending::<()>().await;
    }

    async fn sweep(&self, role: &impl Role) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.intervals.close_before(self.now());
            self.roster.sweep(self.now(), role.sweep_wakes_all());
        }
    }
}

/// One client of a worker.
struct Life<R> {
    worker: Rc<Worker>,
    role: Rc<R>,
    places: Arc<Semaphore>,
    client: u32,
}

impl<R: Role> Life<R> {
    async fn live(self, mut due: Micros, mut place: OwnedSemaphorePermit) {
        let mut returns = false;
        loop {
            // Boxed, so that what connecting needs is freed before the session is held.
            let away = match Box::pin(self.connect(due, returns)).await {
                Ok((session, seat)) => {
                    let kept = self.role.keeps_place().then_some(place);
                    let away = self.attend(session, seat).await;
                    drop(kept);
                    away
                }
                Err(error) => {
                    drop(place);
                    Away::Failed(error)
                }
            };
            let Some(again) = self.again(&away) else { return };
            match Box::pin(self.worker.stopping.run_until_cancelled(self.wait(again))).await {
                Some(waited) => (due, place, returns) = (again, waited, true),
                None => return,
            }
        }
    }

    async fn connect(&self, due: Micros, returns: bool) -> Result<(Session, SeatId), ConnectError> {
        let worker = &self.worker;
        let filter = self.role.filter(self.client, worker);
        let filter = filter.as_ref().map(|(filter, qos)| (filter.as_str(), *qos));
        let connected = worker.connector.connect(self.client, filter).await;
        let connected = connected.inspect_err(|_| worker.counters().connect_failed.add(1))?;
        let mut tally = if returns { &worker.returns } else { &worker.tally }.borrow_mut();
        tally.count(due, connected.times);
        tally.resumed += u64::from(connected.resumed);
        tally.sessions_present += u64::from(connected.session_present);
        drop(tally);
        worker.intervals.record(Kind::Connect, due, connected.times.done());
        worker.counters().connected.add(1);
        let seat = worker.roster.take_seat(connected.keep_alive_seconds, worker.now());
        Ok((Rc::clone(&self.role).session(worker, self.client, due, connected, seat), seat))
    }

    async fn attend(&self, session: Session, seat: SeatId) -> Away {
        let ended = session.await;
        self.worker.roster.leave(seat);
        let away = match ended {
            Ok(client) => {
                Box::pin(client.part(self.role.parting(&self.worker))).await;
                Away::Left
            }
            Err(error) => Away::Broken(error),
        };
        self.worker.counters().ended.add(1);
        away
    }

    /// What a client gets over has not failed.
    fn again(&self, away: &Away) -> Option<Micros> {
        let again = self.role.again(&self.worker, self.client, away);
        let mut tally = self.worker.tally.borrow_mut();
        match away {
            Away::Failed(error) if again.is_none() => tally.failed.count(error),
            Away::Broken(error) if again.is_none() => tally.broken.count(error),
            Away::Failed(_) | Away::Broken(_) | Away::Left => {}
        }
        again
    }

    async fn wait(&self, until: Micros) -> OwnedSemaphorePermit {
        tokio::time::sleep_until(self.worker.connector.clock.instant(until).into()).await;
        Arc::clone(&self.places).acquire_owned().await.expect(PLACES_OPEN)
    }
}

impl ConnectTally {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Latencies::new(),
            tcp: Latencies::new(),
            tls: Latencies::new(),
            web_socket: Latencies::new(),
            connack: Latencies::new(),
            suback: Latencies::new(),
            total: Latencies::new(),
            resumed: 0,
            sessions_present: 0,
            last: Micros::default(),
            failed: Failures::default(),
            broken: Failures::default(),
        }
    }

    fn count(&mut self, due: Micros, times: ConnectTimes) {
        self.waiting.record(due, times.begun);
        self.tcp.record(times.begun, times.tcp);
        if let Some(tls) = times.tls {
            self.tls.record(times.tcp, tls);
        }
        let mut ready = times.tls.unwrap_or(times.tcp);
        if let Some(web_socket) = times.web_socket {
            self.web_socket.record(ready, web_socket);
            ready = web_socket;
        }
        self.connack.record(ready, times.connack);
        if let Some(suback) = times.suback {
            self.suback.record(times.connack, suback);
        }
        let done = times.done();
        self.total.record(due, done);
        self.last = self.last.max(done);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.waiting.add(&other.waiting);
        self.tcp.add(&other.tcp);
        self.tls.add(&other.tls);
        self.web_socket.add(&other.web_socket);
        self.connack.add(&other.connack);
        self.suback.add(&other.suback);
        self.total.add(&other.total);
        self.resumed += other.resumed;
        self.sessions_present += other.sessions_present;
        self.last = self.last.max(other.last);
        self.failed.add(&other.failed);
        self.broken.add(&other.broken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_had_to_wait_for_a_place_is_measured_from_when_it_was_due() {
        let mut tally = ConnectTally::new();
        let times = ConnectTimes {
            begun: Micros(900),
            tcp: Micros(910),
            tls: Some(Micros(930)),
            web_socket: Some(Micros(937)),
            connack: Micros(960),
            suback: None,
        };
        tally.count(Micros(100), times);
        assert_eq!(tally.waiting.summary().max_us, 800);
        assert_eq!(tally.tcp.summary().max_us, 10);
        assert_eq!(tally.tls.summary().max_us, 20);
        assert_eq!(tally.web_socket.summary().max_us, 7);
        assert_eq!(tally.connack.summary().max_us, 23);
        assert_eq!(tally.suback.summary().count, 0);
        assert_eq!(tally.total.summary().max_us, 860);
        assert_eq!(tally.last, Micros(960));
    }
}

//! Who is let in: at most so many connections at all, so many of one address, so many handshakes at work.
//!
//! Connections are accepted as long as there are files. What is over a limit of its address is closed before
//! it costs anything; what is over the node's own is told so, some at a time, and the rest is closed.

mod address;
mod addresses;
mod arrivals;
mod failed_logins;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use metrics::gauge;
use sotto_mqtt::reason::ReasonCode;
use tokio::sync::watch;

use crate::admission::address::AddressKey;
use crate::admission::addresses::Addresses;
pub(crate) use crate::admission::addresses::{AddressLimits, AddressRefused};
use crate::admission::arrivals::Arrivals;
pub(crate) use crate::admission::arrivals::{Arrival, Gone, Stage};
use crate::admission::failed_logins::FailedLogins;
pub(crate) use crate::admission::failed_logins::{Barred, FailedLoginLimits};

/// Handshakes at work, a worker thread.
pub(crate) const HANDSHAKES_PER_WORKER_MAX: usize = 256;
/// Steps of handshakes, a worker thread, before everything else has its turn: a few milliseconds of work. With
/// fewer, workers wake each other so often that a connection costs a tenth more.
pub(crate) const HANDSHAKE_STEPS_PER_WORKER_MAX: usize = 16;
/// Connections over the node's limit that are told so at a time; the rest is closed at once.
pub(crate) const TURNED_AWAY_MAX: usize = 64;
/// A full node lets those who come wait in the kernel's line for so long before it tells them: in a storm, the
/// connections that they had before are ending at that moment.
const FULL_PATIENCE_TENTHS: u32 = 10;
/// Connections that have given way and are not closed yet.
pub(crate) const GIVING_WAY_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionLimits {
    pub(crate) connections_max: usize,
    pub(crate) handshakes_max: usize,
    /// Steps of handshakes before everything else has its turn.
    pub(crate) handshake_steps_max: usize,
    /// Resident memory over which nobody is let in.
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) addresses: AddressLimits,
    pub(crate) failed_logins: FailedLoginLimits,
}

pub(crate) struct Admission {
    connections_max: usize,
    memory_bytes_max: Option<u64>,
    /// Connections that hold room.
    taken: AtomicUsize,
    turned_away: AtomicUsize,
    /// Since when there has been no room; 0 while there is.
    full_since_tenths: AtomicU32,
    addresses: Addresses,
    failed_logins: FailedLogins,
    arrivals: Arc<Arrivals>,
    /// The process uses more memory than it is to.
    short_of_memory: AtomicBool,
    /// Where clients are sent when the node goes, once it does.
    leaving: watch::Sender<Option<Leaving>>,
}

/// The node sends its clients away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// The Server Reference that they are given.
    pub(crate) to: Option<Arc<str>>,
}

/// One connection's share of the node; given back when dropped.
pub(crate) struct Room {
    admission: Arc<Admission>,
    /// `None` while it is not known who is behind a proxy.
    address: Option<AddressKey>,
    share: Share,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    /// One of the connections that the node may hold.
    Whole,
    /// Enough to be told that there is none.
    TurnedAway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unadmitted {
    #[error(transparent)]
    Address(#[from] AddressRefused),
    #[error("the node is full, and tells as many so as it may")]
    Full,
}

impl Unadmitted {
    /// For metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Address(AddressRefused::TooMany) => "address_connections",
            Self::Address(AddressRefused::TooFast) => "address_rate",
            Self::Full => "node_full",
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Self {
        Self {
            connections_max: limits.connections_max,
            memory_bytes_max: limits.memory_bytes_max,
            taken: AtomicUsize::new(0),
            turned_away: AtomicUsize::new(0),
            full_since_tenths: AtomicU32::new(0),
            addresses: Addresses::new(limits.addresses),
            failed_logins: FailedLogins::new(limits.failed_logins),
            arrivals: Arc::new(Arrivals::new(limits.handshakes_max, limits.handshake_steps_max)),
            short_of_memory: AtomicBool::new(false),
            leaving: watch::Sender::new(None),
        }
    }

    /// The way in for who has `room`; `None` when nobody is let in any more.
    pub(crate) fn arrive(&self, room: &Room, now_tenths: u32) -> Option<Arrival> {
        Arrival::begin(self.arrivals.clone(), room.share == Share::Whole, now_tenths)
    }

    /// Room for one connection, whose address is told by [`Room::is_from`] where it is not known yet.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        now_tenths: u32,
    ) -> Result<Room, Unadmitted> {
        let address = address.map(AddressKey::of);
        if let Some(address) = address {
            self.addresses.enter(address, now_tenths)?;
        }
        let room = |share| Room { admission: self.clone(), address, share };
        if self.has_room(now_tenths) {
            self.taken.fetch_add(1, Ordering::Relaxed);
            return Ok(room(Share::Whole));
        }
        let entered = self.turned_away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < TURNED_AWAY_MAX).then_some(held + 1)
        });
        if entered.is_ok() {
            return Ok(room(Share::TurnedAway));
        }
        if let Some(address) = address {
            self.addresses.leave(address);
        }
        Err(Unadmitted::Full)
    }

    /// Listeners ask one after the other, or a few at once: by so many the limit may be passed.
    fn has_room(&self, now_tenths: u32) -> bool {
        if self.short_of_memory.load(Ordering::Relaxed) {
            return false;
        }
        self.has_place() || self.arrivals.giving_way() < GIVING_WAY_MAX && self.arrivals.make_way(now_tenths)
    }

    /// Those that give way hold room until they are closed.
    fn has_place(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.connections_max + self.arrivals.giving_way()
    }

    /// The node has been full for a moment only: who comes may wait for those who leave.
    pub(crate) fn is_full_for_a_moment(&self, now_tenths: u32) -> bool {
        if self.has_place() {
            self.full_since_tenths.store(0, Ordering::Relaxed);
            return false;
        }
        // Of several listeners the first says since when.
        let first = self.full_since_tenths.compare_exchange(
            0,
            now_tenths.max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        first.map_or_else(|since| now_tenths < since + FULL_PATIENCE_TENTHS, |_| true)
    }

    /// Over its bound nobody is let in; who is in stays.
    pub(crate) fn note_memory(&self, resident_bytes: u64) {
        let short = self.memory_bytes_max.is_some_and(|most| resident_bytes > most);
        self.short_of_memory.store(short, Ordering::Relaxed);
    }

    /// Lets handshakes go on, a few steps at a time, for as long as it is polled.
    pub(crate) async fn pace(&self) {
        self.arrivals.pace().await;
    }

    /// Called twice a second.
    pub(crate) fn sweep(&self, now_tenths: u32) {
        self.arrivals.sweep(now_tenths);
    }

    /// Called every few seconds.
    pub(crate) fn forget(&self, now_tenths: u32) {
        self.addresses.forget_idle(now_tenths);
        self.failed_logins.forget_old(now_tenths);
    }

    pub(crate) fn report(&self) {
        gauge!("sotto_arrivals").set(count(self.arrivals.len()));
        gauge!("sotto_handshakes_in_flight").set(count(self.arrivals.slots_taken()));
        gauge!("sotto_connections_max").set(count(self.connections_max));
    }

    /// From here on nobody arrives; who comes to CONNECT is sent where `leaving` says.
    pub(crate) fn stop(&self, leaving: Leaving, now_tenths: u32) {
        self.leaving.send_replace(Some(leaving));
        self.arrivals.stop(now_tenths);
    }

    /// The Server Reference for clients of a node that goes.
    pub(crate) fn sent_to(&self) -> Option<Arc<str>> {
        self.leaving.borrow().as_ref().and_then(|leaving| leaving.to.clone())
    }
}

impl Room {
    /// Whom a proxy speaks for.
    pub(crate) fn is_from(&mut self, address: IpAddr, now_tenths: u32) -> Result<(), Unadmitted> {
        let address = AddressKey::of(address);
        self.admission.addresses.enter(address, now_tenths)?;
        self.address = Some(address);
        Ok(())
    }

    /// Why a client is not let in although it came to CONNECT.
    pub(crate) fn turns_away(&self) -> Option<ReasonCode> {
        match self.admission.leaving.borrow().as_ref() {
            Some(Leaving { to: Some(_) }) => Some(ReasonCode::UseAnotherServer),
            Some(Leaving { to: None }) => Some(ReasonCode::ServerUnavailable),
            None => (self.share == Share::TurnedAway).then_some(ReasonCode::ServerBusy),
        }
    }

    /// Too many of its address have failed to sign in.
    pub(crate) fn is_barred(&self, now_tenths: u32) -> Option<Barred> {
        self.admission.failed_logins.bars(self.address?, now_tenths)
    }

    pub(crate) fn note_failed_login(&self, now_tenths: u32) {
        if let Some(address) = self.address {
            self.admission.failed_logins.note(address, now_tenths);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let counter = match self.share {
            Share::Whole => &self.admission.taken,
            Share::TurnedAway => &self.admission.turned_away,
        };
        counter.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.admission.addresses.leave(address);
        }
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests;

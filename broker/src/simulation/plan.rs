//! What a seed decides before anything happens.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sotto_model::{ClientLimits, ConversationId, UserId};
use sotto_mqtt::packet::Version;
use uuid::Uuid;

/// Users of the clinic, whose topics are guarded.
pub(super) const USERS: usize = 4;
/// Conversations of the clinic.
pub(super) const CONVERSATIONS: usize = 2;

pub(super) fn conversation_id(number: usize) -> ConversationId {
    ConversationId(Uuid::from_u128(0x100 + number as u128))
}

pub(super) fn user_id(number: usize) -> UserId {
    UserId(Uuid::from_u128(0x200 + number as u128))
}

/// The number of the conversation whose topic it is.
pub(super) fn conversation_of(topic: &str) -> Option<usize> {
    let id = topic.strip_prefix("c/")?.split('/').next()?;
    (0..CONVERSATIONS).find(|number| conversation_id(*number).to_string() == id)
}

/// Whose draws they are: nobody's shift anybody else's.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Plan,
    Client,
    Node,
    Push,
    End,
    Weather,
    Members,
}

/// Draws without end, the same for the same seed.
pub(super) struct Chance(StdRng);

impl Chance {
    pub(super) fn new(seed: u64, of: Of, number: u64) -> Self {
        let [seed, of, number] = [seed, of as u64, number].map(u64::to_le_bytes);
        let mut whole = [0; 32];
        whole[..8].copy_from_slice(&seed);
        whole[8..16].copy_from_slice(&of);
        whole[16..24].copy_from_slice(&number);
        Self(StdRng::from_seed(whole))
    }

    /// One of `0..bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).expect("fits");
        usize::try_from(self.0.next_u64() % bound).expect("below a usize")
    }

    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'i, T>(&mut self, items: &'i [T]) -> &'i T {
        &items[self.below(items.len())]
    }

    pub(super) fn millis(&mut self, max: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(max + 1)).expect("fits"))
    }

    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Household {
    /// A tenant with conversations; the user's number.
    Clinic(usize),
    /// A tenant where everybody may do everything.
    Lab,
    /// The same, through a shared subscription.
    LabShare,
}

#[derive(Clone, Debug)]
pub(super) struct ClientPlan {
    pub(super) household: Household,
    pub(super) client_id: String,
    pub(super) version: Version,
    /// Its session outlives its connections.
    pub(super) persistent: bool,
    pub(super) receive_maximum: u16,
    /// Percent of its turns in which it publishes.
    pub(super) publishes: usize,
    /// Percent of its turns in which something ends the connection.
    pub(super) restless: usize,
    /// The longest wait between two turns.
    pub(super) turn_ms_max: usize,
    /// The longest time offline.
    pub(super) offline_ms_max: usize,
    /// Acknowledges late, and not in order.
    pub(super) lazy: bool,
    pub(super) has_will: bool,
    /// Is offline when wakeups are looked for.
    pub(super) sleeps: bool,
}

/// How a life of the node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LifeEnd {
    Crash,
    Stop,
}

#[derive(Clone, Debug)]
pub(super) struct LifePlan {
    pub(super) lasts: Duration,
    pub(super) end: LifeEnd,
    /// The store's calls go wrong at times.
    pub(super) stormy: bool,
}

pub(super) struct Plan {
    pub(super) limits: ClientLimits,
    pub(super) clients: Vec<ClientPlan>,
    /// Before the last, which is calm.
    pub(super) lives: Vec<LifePlan>,
    pub(super) pipe_bytes: usize,
    pub(super) payload_bytes: usize,
    pub(super) membership_changes: bool,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, Of::Plan, 0);
        let limits = ClientLimits {
            queue_records_max: *chance.pick(&[2, 4, 16, 256]),
            inflight_max: *chance.pick(&[1, 4, 16, 128]),
            ..ClientLimits::DEFAULT
        };
        let count = 3 + chance.below(5);
        let clients = (0..count).map(|no| client(&mut chance, no)).collect();
        let lives = (0..chance.below(4))
            .map(|_| LifePlan {
                lasts: Duration::from_secs(1) + chance.millis(5000),
                end: if chance.percent(75) { LifeEnd::Crash } else { LifeEnd::Stop },
                stormy: chance.percent(70),
            })
            .collect();
        Self {
            limits,
            clients,
            lives,
            pipe_bytes: *chance.pick(&[64, 512, 8192]),
            payload_bytes: *chance.pick(&[0, 20, 400]),
            membership_changes: chance.percent(60),
        }
    }
}

fn client(chance: &mut Chance, no: usize) -> ClientPlan {
    let household = match chance.below(10) {
        0..5 => Household::Clinic(chance.below(USERS)),
        5..8 => Household::Lab,
        _ => Household::LabShare,
    };
    let client_id = match household {
        Household::Clinic(user) => format!("user{user}/device{no}"),
        Household::Lab | Household::LabShare => format!("machine{no}"),
    };
    ClientPlan {
        household,
        client_id,
        version: if chance.percent(70) { Version::V5 } else { Version::V3 },
        persistent: chance.percent(85),
        receive_maximum: *chance.pick(&[1, 2, 3, 8, 100]),
        publishes: *chance.pick(&[5, 30, 60]),
        restless: *chance.pick(&[0, 2, 8]),
        turn_ms_max: *chance.pick(&[50, 200, 800]),
        offline_ms_max: *chance.pick(&[50, 500, 4000]),
        lazy: chance.percent(40),
        has_will: chance.percent(20),
        sleeps: chance.percent(40),
    }
}

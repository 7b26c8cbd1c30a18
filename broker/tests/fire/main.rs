//! The log under fire: a real broker and a real database are killed, cut off and starved while clients publish
//! and receive, and an oracle compares what was acknowledged with what is stored and with what came.
//!
//! `SOTTO_FIRE_KILLS` asks for so many kills a database, `SOTTO_FIRE_SEED` repeats the draws of another run: faults
//! and their times as they were drawn, while threads and sockets go their own way. `SOTTO_FIRE_WAKEUPS` asks for so
//! many kills while phones sleep.

#![expect(clippy::disallowed_macros, reason = "it says what it did")]

mod audit;
mod dice;
mod fault;
mod ledger;
mod link;
mod load;
mod phase;
mod postgres_line;
mod proxy;
mod publisher;
mod shim;
mod sleepers;
mod subscriber;
#[path = "../journeys/support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "shared with the journeys, which use all of it")]
mod support;
mod witness;
mod world;

use std::collections::BTreeMap;

use crate::audit::audit;
use crate::dice::Dice;
use crate::fault::Fault;
use crate::load::Load;
use crate::support::database::Kind;
use crate::world::World;

/// Kills in a run that nobody asked for more: one round of faults.
const KILLS_DEFAULT: usize = 1;
/// In a long run, from the second round on, one in so many of the faults that kill nothing.
const OTHERS_ONE_IN: u64 = 4;
/// Of the rounds after the first, one in so many has the faults that take long.
const RARE_ONE_IN: u64 = 3;
/// Between two faults, ms: the load comes back, and is in the middle of something.
const PAUSE_MS: (u64, u64) = (200, 1_000);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_sqlite() {
    Box::pin(burn(Kind::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_postgres() {
    Box::pin(burn(Kind::Postgres)).await;
}

/// Each has the machine to itself.
async fn take_turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

async fn burn(kind: Kind) {
    let _turn = take_turn().await;
    let kills_min =
        number("SOTTO_FIRE_KILLS").map_or(KILLS_DEFAULT, |kills| kills.try_into().expect("a count"));
    let seed = number("SOTTO_FIRE_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("{kind:?}: SOTTO_FIRE_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut world = World::create(kind).await;
    world.house.start().await;
    let load = Load::begin(&world.house, &mut dice).await;

    let mut totals: BTreeMap<Fault, usize> = BTreeMap::new();
    let mut skipped: BTreeMap<Fault, usize> = BTreeMap::new();
    let mut kills = 0;
    for round in 0.. {
        let mut faults = Fault::round(kind);
        if round > 0 && dice.one_in(RARE_ONE_IN) {
            faults.extend(Fault::rare(kind));
        }
        dice.shuffle(&mut faults);
        for fault in faults {
            let is_other = !fault.is_kill() && !Fault::rare(kind).contains(&fault);
            if round > 0 && (kills >= kills_min || is_other && !dice.one_in(OTHERS_ONE_IN)) {
                continue;
            }
            if fault.needs_shim() && world.shim.is_none() {
                *skipped.entry(fault).or_default() += 1;
                continue;
            }
            tokio::time::sleep(dice.millis(PAUSE_MS.0, PAUSE_MS.1)).await;
            println!("{kind:?}: {fault}");
            Box::pin(world.suffer(fault, &load.watch(), &mut dice)).await;
            *totals.entry(fault).or_default() += 1;
            kills += usize::from(fault.is_kill());
            let complaints = load.complaints();
            assert!(complaints.is_empty(), "{kind:?}, seed {seed}, after {fault}: {complaints:#?}");
        }
        if kills >= kills_min {
            break;
        }
    }

    let ended = load.end().await;
    let rows = audit(&mut world, &ended).await;
    let complaints = ended.ledger.complaints();
    assert!(complaints.is_empty(), "{kind:?}, seed {seed}: {complaints:#?}");
    let count = ended.ledger.totals();
    println!(
        "{kind:?}, seed {seed}: {kills} kills; {} sent, {} acknowledged, {rows} rows, {} delivered ({} of QoS 1 \
         again); lost 0, of QoS 2 or named and twice 0, out of order 0, of nobody 0",
        count.sent, count.acknowledged, count.delivered, count.delivered_again,
    );
    println!(
        "{kind:?}: {}{}",
        list(&totals),
        if skipped.is_empty() {
            String::new()
        } else {
            format!("; skipped, for want of a C compiler: {}", list(&skipped))
        }
    );
}

fn list(totals: &BTreeMap<Fault, usize>) -> String {
    let entries: Vec<String> = totals.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
    entries.join(", ")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

//! Time is made up: each call is told the tenth of a second.

use futures::FutureExt;

use super::*;

fn arrivals(slots_max: usize) -> Arc<Arrivals> {
    Arc::new(Arrivals::new(slots_max, slots_max))
}

fn gone(arrival: &Arrival) -> Option<Gone> {
    arrival.gone().now_or_never()
}

fn arrive(arrivals: &Arc<Arrivals>, now: u32) -> Arrival {
    Arrival::begin(arrivals.clone(), true, now).expect("accepted")
}

/// With a slot, at `now`.
fn at_work(arrivals: &Arc<Arrivals>, now: u32) -> Option<Arrival> {
    let mut arrival = arrive(arrivals, now);
    let taken = arrival.take_slot(&SystemClock::new()).now_or_never().is_some();
    arrival.reach(Stage::Tls, now);
    taken.then_some(arrival)
}

#[test]
fn each_stage_has_a_deadline_of_its_own() {
    let arrivals = arrivals(4);
    let mut arrival = at_work(&arrivals, 1).expect("a slot");
    for (stage, now, tenths_max) in [
        (Stage::Tls, 50, TLS_TENTHS_MAX),
        (Stage::Connect, 120, CONNECT_TENTHS_MAX),
        (Stage::Exchange, 200, EXCHANGE_TENTHS_MAX),
        (Stage::Opening, 290, OPENING_TENTHS_MAX),
    ] {
        arrival.reach(stage, now);
        arrivals.sweep(now + tenths_max - 1);
        assert_eq!(gone(&arrival), None, "{stage:?}");
    }
    arrivals.sweep(290 + OPENING_TENTHS_MAX);
    assert_eq!(gone(&arrival), Some(Gone::TimedOut));
    let silent = arrive(&arrivals, 1000);
    arrivals.sweep(1000 + SILENT_TENTHS_MAX);
    assert_eq!(gone(&silent), Some(Gone::TimedOut));
}

#[test]
fn who_lets_the_node_wait_gives_its_slot_back_and_goes_on_without() {
    let arrivals = arrivals(2);
    let silent = [at_work(&arrivals, 1), at_work(&arrivals, 1)];
    assert!(silent.iter().all(Option::is_some));
    let mut waits = arrive(&arrivals, 1);
    let clock = SystemClock::new();
    let mut turn = Box::pin(waits.take_slot(&clock));
    assert!(turn.as_mut().now_or_never().is_none(), "both slots are taken");
    arrivals.sweep(SLOT_TENTHS_MAX);
    assert!(turn.as_mut().now_or_never().is_none());
    arrivals.sweep(1 + SLOT_TENTHS_MAX);
    assert_eq!(turn.as_mut().now_or_never(), Some(Ok(())));
    drop(turn);
    assert!(silent.iter().flatten().all(|arrival| gone(arrival).is_none()), "they may still come");
    assert_eq!(arrivals.slots_taken(), 1);
    drop(waits);
    assert_eq!((arrivals.slots_taken(), arrivals.len()), (0, 2));
}

#[test]
fn work_of_the_node_keeps_its_slot_and_never_gives_way() {
    let arrivals = arrivals(1);
    let mut opening = at_work(&arrivals, 1).expect("a slot");
    opening.reach(Stage::Opening, 1);
    arrivals.sweep(150);
    assert_eq!(arrivals.slots_taken(), 1);
    assert!(!arrivals.make_way(150));
    assert_eq!(gone(&opening), None);
}

#[test]
fn the_first_to_come_gives_way_once_it_was_waited_for() {
    let arrivals = arrivals(8);
    let mut first = arrive(&arrivals, 1);
    let second = arrive(&arrivals, 2);
    assert!(!arrivals.make_way(GIVES_WAY_AFTER_TENTHS));
    first.reach(Stage::Tls, 20);
    assert!(arrivals.make_way(2 + GIVES_WAY_AFTER_TENTHS));
    assert_eq!((gone(&first), gone(&second)), (None, Some(Gone::GaveWay)));
    assert!(!arrivals.make_way(2 + GIVES_WAY_AFTER_TENTHS));
}

#[test]
fn at_the_end_the_silent_go_at_once_and_those_at_work_a_little_later() {
    let arrivals = arrivals(8);
    let silent = arrive(&arrivals, 1);
    let mut at_work = at_work(&arrivals, 1).expect("a slot");
    arrivals.stop(5);
    assert!(Arrival::begin(arrivals.clone(), true, 6).is_none());
    assert_eq!((gone(&silent), gone(&at_work)), (Some(Gone::Stopping), None));
    at_work.reach(Stage::Connect, 10);
    arrivals.sweep(10 + STOPPING_TENTHS_MAX - 1);
    assert_eq!(gone(&at_work), None);
    arrivals.sweep(10 + STOPPING_TENTHS_MAX);
    assert_eq!(gone(&at_work), Some(Gone::Stopping));
}

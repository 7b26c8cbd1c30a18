//! Time is made up: each call is told the tenth of a second.

use futures::FutureExt;

use super::*;
use crate::admission::{AddressLimits, AdmissionLimits, FailedLoginLimits};

fn admission(handshakes_max: usize) -> Arc<Admission> {
    Arc::new(Admission::new(AdmissionLimits {
        connections_max: 100,
        handshakes_max,
        memory_bytes_max: None,
        addresses: AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 0 },
        failed_logins: FailedLoginLimits { failures_max: 0, window_seconds: 0 },
    }))
}

fn gone(arrival: &Arrival) -> Option<Gone> {
    arrival.gone().now_or_never()
}

fn arrive(admission: &Arc<Admission>, now: u32) -> Arrival {
    Arrival::begin(admission.clone(), true, now).expect("accepted")
}

/// With a slot, at `now`.
fn at_work(admission: &Arc<Admission>, now: u32) -> Option<Arrival> {
    let mut arrival = arrive(admission, now);
    let taken = arrival.take_slot(&SystemClock::new()).now_or_never().is_some();
    arrival.reach(Stage::Tls, now);
    taken.then_some(arrival)
}

#[test]
fn each_stage_has_a_deadline_of_its_own() {
    let admission = admission(4);
    let mut arrival = at_work(&admission, 1).expect("a slot");
    for (stage, now, tenths_max) in [
        (Stage::Tls, 50, TLS_TENTHS_MAX),
        (Stage::Connect, 120, CONNECT_TENTHS_MAX),
        (Stage::Exchange, 200, EXCHANGE_TENTHS_MAX),
        (Stage::Opening, 290, OPENING_TENTHS_MAX),
    ] {
        arrival.reach(stage, now);
        admission.sweep(now + tenths_max - 1);
        assert_eq!(gone(&arrival), None, "{stage:?}");
    }
    admission.sweep(290 + OPENING_TENTHS_MAX);
    assert_eq!(gone(&arrival), Some(Gone::TimedOut));
    let silent = arrive(&admission, 1000);
    admission.sweep(1000 + SILENT_TENTHS_MAX);
    assert_eq!(gone(&silent), Some(Gone::TimedOut));
}

#[test]
fn who_lets_the_node_wait_gives_its_slot_back_and_goes_on_without() {
    let admission = admission(2);
    let silent = [at_work(&admission, 1), at_work(&admission, 1)];
    assert!(silent.iter().all(Option::is_some));
    let mut waits = arrive(&admission, 1);
    let clock = SystemClock::new();
    let mut turn = Box::pin(waits.take_slot(&clock));
    assert!(turn.as_mut().now_or_never().is_none(), "both slots are taken");
    admission.sweep(SLOT_TENTHS_MAX);
    assert!(turn.as_mut().now_or_never().is_none());
    admission.sweep(1 + SLOT_TENTHS_MAX);
    assert_eq!(turn.as_mut().now_or_never(), Some(Ok(())));
    drop(turn);
    assert!(silent.iter().flatten().all(|arrival| gone(arrival).is_none()), "they may still come");
    assert_eq!(admission.arrivals.slots_taken(), 1);
    drop(waits);
    assert_eq!((admission.arrivals.slots_taken(), admission.arrivals.len()), (0, 2));
}

#[test]
fn work_of_the_node_keeps_its_slot_and_never_gives_way() {
    let admission = admission(1);
    let mut opening = at_work(&admission, 1).expect("a slot");
    opening.reach(Stage::Opening, 1);
    admission.sweep(150);
    assert_eq!(admission.arrivals.slots_taken(), 1);
    assert!(!admission.arrivals.make_way(150));
    assert_eq!(gone(&opening), None);
}

#[test]
fn the_first_to_come_gives_way_once_it_was_waited_for() {
    let admission = admission(8);
    let mut first = arrive(&admission, 1);
    let second = arrive(&admission, 2);
    assert!(!admission.arrivals.make_way(GIVES_WAY_AFTER_TENTHS));
    first.reach(Stage::Tls, 20);
    assert!(admission.arrivals.make_way(2 + GIVES_WAY_AFTER_TENTHS));
    assert_eq!((gone(&first), gone(&second)), (None, Some(Gone::GaveWay)));
    assert!(!admission.arrivals.make_way(2 + GIVES_WAY_AFTER_TENTHS));
}

#[test]
fn at_the_end_the_silent_go_at_once_and_those_at_work_a_little_later() {
    let admission = admission(8);
    let silent = arrive(&admission, 1);
    let mut at_work = at_work(&admission, 1).expect("a slot");
    admission.stop(crate::admission::Leaving::default(), 5);
    assert!(Arrival::begin(admission.clone(), true, 6).is_none());
    assert_eq!((gone(&silent), gone(&at_work)), (Some(Gone::Stopping), None));
    at_work.reach(Stage::Connect, 10);
    admission.sweep(10 + STOPPING_TENTHS_MAX - 1);
    assert_eq!(gone(&at_work), None);
    admission.sweep(10 + STOPPING_TENTHS_MAX);
    assert_eq!(gone(&at_work), Some(Gone::Stopping));
}

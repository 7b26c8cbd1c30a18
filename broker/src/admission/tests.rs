use futures::FutureExt;

use super::*;

const ANY: Option<IpAddr> = None;

fn admission(connections_max: usize) -> Arc<Admission> {
    Arc::new(Admission::new(AdmissionLimits {
        connections_max,
        handshakes_max: 4,
        handshake_steps_max: 4,
        memory_bytes_max: None,
        addresses: AddressLimits { connections_max: 0, connects_per_second: 0, connects_burst: 0 },
        failed_logins: FailedLoginLimits { failures_max: 0, window_seconds: 0 },
    }))
}

#[test]
fn over_its_limit_the_node_tells_some_and_closes_the_rest() {
    let admission = admission(2);
    let held = [1, 2].map(|now| admission.admit(ANY, now).expect("room"));
    assert!(held.iter().all(|room| room.turns_away().is_none()));
    let mut told: Vec<_> =
        (0..TURNED_AWAY_MAX).map(|_| admission.admit(ANY, 3).expect("to be told")).collect();
    assert!(told.iter().all(|room| room.turns_away() == Some(ReasonCode::ServerBusy)));
    assert_eq!(admission.admit(ANY, 3).err(), Some(Unadmitted::Full));
    told.pop();
    assert!(admission.admit(ANY, 3).is_ok_and(|room| room.turns_away().is_some()));
    drop(held);
    assert!(admission.admit(ANY, 3).is_ok_and(|room| room.turns_away().is_none()));
}

#[test]
fn a_full_node_closes_a_silent_connection_for_a_new_one_but_not_too_many_before_they_are_gone() {
    let admission = admission(200);
    let come = |now| {
        let room = admission.admit(ANY, now).expect("room");
        let arrival = admission.arrive(&room, now).expect("accepted");
        (room, arrival)
    };
    let silent: Vec<_> = (0..200).map(|_| come(1)).collect();
    let told = come(2);
    assert!(told.0.turns_away().is_some(), "the others are just there");
    let let_in: Vec<_> = (0..GIVING_WAY_MAX).map(|_| admission.admit(ANY, 50).expect("room")).collect();
    assert!(let_in.iter().all(|room| room.turns_away().is_none()));
    assert!(admission.admit(ANY, 50).expect("to be told").turns_away().is_some());
    let gone = told.1.gone().now_or_never();
    assert_eq!(gone, None, "one that is turned away has nothing to give");
    drop(silent);
    assert_eq!(admission.arrivals.giving_way(), 0);
    assert_eq!(admission.taken.load(Ordering::Relaxed), GIVING_WAY_MAX);
}

#[test]
fn short_of_memory_it_takes_nobody_and_keeps_whom_it_has() {
    let admission = Arc::new(Admission {
        memory_bytes_max: Some(1_000),
        ..Arc::into_inner(admission(10)).expect("the only one")
    });
    let held = admission.admit(ANY, 1).expect("room");
    admission.note_memory(1_001);
    assert!(admission.admit(ANY, 1).expect("to be told").turns_away().is_some());
    assert!(held.turns_away().is_none());
    admission.note_memory(1_000);
    assert!(admission.admit(ANY, 1).expect("room").turns_away().is_none());
}

#[test]
fn a_node_that_goes_sends_newcomers_elsewhere() {
    let admission = admission(10);
    let rooms = [(); 2].map(|()| admission.admit(ANY, 1).expect("room"));
    admission.stop(Leaving { to: None }, 1);
    assert_eq!(rooms[0].turns_away(), Some(ReasonCode::ServerUnavailable));
    admission.stop(Leaving { to: Some("other:8883".into()) }, 1);
    assert_eq!(rooms[1].turns_away(), Some(ReasonCode::UseAnotherServer));
    assert_eq!(admission.sent_to().as_deref(), Some("other:8883"));
}

#[test]
fn what_is_behind_a_proxy_counts_for_its_own_address() {
    let limits = AddressLimits { connections_max: 1, connects_per_second: 0, connects_burst: 0 };
    let admission = Arc::new(Admission::new(AdmissionLimits {
        connections_max: 10,
        handshakes_max: 4,
        handshake_steps_max: 4,
        memory_bytes_max: None,
        addresses: limits,
        failed_logins: FailedLoginLimits { failures_max: 0, window_seconds: 0 },
    }));
    let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().expect("an address"));
    let mut rooms = [(); 3].map(|()| admission.admit(ANY, 1).expect("a proxy's"));
    assert_eq!(rooms[0].is_from(a, 1), Ok(()));
    assert_eq!(rooms[1].is_from(a, 1), Err(Unadmitted::Address(AddressRefused::TooMany)));
    assert_eq!(rooms[2].is_from(b, 1), Ok(()));
    drop(rooms);
    assert!(admission.admit(Some(a), 1).is_ok());
}

#[test]
fn a_node_that_has_just_filled_up_waits_for_those_who_leave_and_not_for_longer() {
    let admission = admission(2);
    let first = admission.admit(ANY, 1).expect("room");
    assert!(!admission.is_full_for_a_moment(1));
    let second = admission.admit(ANY, 1).expect("room");
    assert!(admission.is_full_for_a_moment(5));
    assert!(admission.is_full_for_a_moment(4 + FULL_PATIENCE_TENTHS));
    assert!(!admission.is_full_for_a_moment(5 + FULL_PATIENCE_TENTHS), "it stays full");
    drop(first);
    assert!(!admission.is_full_for_a_moment(30), "there is room");
    let _third = admission.admit(ANY, 30).expect("room");
    assert!(admission.is_full_for_a_moment(31), "full anew");
    drop(second);
    assert!(!admission.is_full_for_a_moment(32));
}

//! Keep Alive, PINGREQ.

#![expect(clippy::disallowed_methods, reason = "how long the broker waits is measured")]

use std::time::{Duration, Instant};

use crate::support::client::unique;
use crate::support::connect::{Connect, Will};
use crate::support::packet::{BOTH, Packet};
use crate::support::write::{PINGREQ, Publish};

#[test]
fn a_silent_client_is_given_up_after_one_and_a_half_times_its_keep_alive() {
    for version in BOTH {
        for seconds in [1, 2] {
            let topic = unique("silent");
            let mut watcher = Connect::new(version, &unique("watcher")).open();
            watcher.subscribe(&topic, 0);
            let connect = Connect::new(version, &unique("silent")).keep_alive(seconds);
            let mut client = connect.will(Will::new(&topic, "gone")).open();
            let begun = Instant::now();
            client.expect_closed_with(0x8d);
            let waited = begun.elapsed();
            let due_ms = 1500 * u128::from(seconds);
            assert!((due_ms - 50..due_ms + 1500).contains(&waited.as_millis()), "{waited:?}");
            // As if the network had failed.
            assert_eq!(watcher.take().text(), "gone");
        }
    }
}

#[test]
fn every_packet_keeps_a_connection_alive() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("busy")).keep_alive(1).open();
        for round in 0..6 {
            std::thread::sleep(Duration::from_millis(700));
            if round % 2 == 0 {
                client.send(&PINGREQ);
                assert_eq!(client.next(), Packet::PingResp);
            } else {
                client.send(&Publish::new("alive", "x").bytes(version));
            }
        }
        client.expect_silence();
    }
}

#[test]
fn a_keep_alive_of_0_is_none() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("never")).keep_alive(0).open();
        std::thread::sleep(Duration::from_millis(2500));
        client.expect_silence();
    }
}

#[test]
fn a_ping_is_answered() {
    for version in BOTH {
        let mut client = Connect::new(version, &unique("ping")).open();
        client.send(&PINGREQ.repeat(100));
        for _ in 0..100 {
            assert_eq!(client.next(), Packet::PingResp);
        }
    }
}

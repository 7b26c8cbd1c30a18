//! Clients behind a load balancer that says in a PROXY protocol header whom it speaks for.

use std::net::Ipv4Addr;
use std::time::Duration;

use sotto_mqtt::packet::Version;
use sotto_mqtt::reason::ReasonCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::database::Kind;
use crate::support::house::House;
use crate::support::patience::soon;
use crate::support::phone::{Heard, Login, Phone, dial_from};

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Clients, by the addresses that the balancer tells.
const HOME: [u8; 4] = [192, 0, 2, 7];
const OFFICE: [u8; 4] = [192, 0, 2, 8];

const CONFIG: &str = "proxy_protocol_from = [\"127.0.0.3/32\"]\n[addresses]\nconnections_max = 1\n";

fn header(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([10, 0, 0, 1, 0x30, 0x39, 0x22, 0xb3]);
    header
}

async fn forwarded(house: &House, header: &[u8]) -> TcpStream {
    let mut tcp = dial_from(house, BALANCER).await;
    tcp.write_all(header).await.expect("send");
    tcp
}

async fn is_closed(mut tcp: TcpStream) -> bool {
    soon("the end of a connection", async {
        let mut rest = Vec::new();
        // An alert of TLS may come before it.
        tcp.read_to_end(&mut rest).await.is_err() || rest.len() < 16
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_at_the_address_that_the_balancer_says() {
    let house = House::configured(Kind::Sqlite, CONFIG).await;
    let connect = async |user: &str, source| {
        let tcp = forwarded(&house, &header(source)).await;
        let mut phone = Phone::over(&house, Version::V5, tcp).await;
        phone.send(&Login::of(&house, user, "phone").packet()).await;
        assert_eq!(phone.next().await, Heard::ConnAck { present: false, reason: ReasonCode::Success });
        phone
    };
    let alice = connect("alice", HOME).await;
    assert!(is_closed(forwarded(&house, &header(HOME)).await).await, "one at a time from there");
    let _bob = connect("bob", OFFICE).await;
    alice.disconnect().await;
    house.connections_come_to(1).await;
    connect("alice", HOME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_required_from_a_balancer_and_from_nobody_else() {
    let house = House::configured(Kind::Sqlite, CONFIG).await;
    for no_header in [
        &b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n"[..],
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0],
    ] {
        assert!(is_closed(forwarded(&house, no_header).await).await);
    }
    let refused = "sotto_disconnects_total{reason=\"proxy_header\"}";
    assert_eq!(house.metrics().await.count(refused), 2);
    let mut stranger = dial_from(&house, Ipv4Addr::LOCALHOST).await;
    stranger.write_all(&header(HOME)).await.expect("send");
    assert!(is_closed(stranger).await, "it is not TLS");
    Login::of(&house, "alice", "phone").connect(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancers_health_check_speaks_for_itself_and_may_come_in_two_pieces() {
    let house = House::configured(Kind::Sqlite, CONFIG).await;
    let mut tcp = forwarded(&house, b"\r\n\r\n\0\r\nQU").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    tcp.write_all(b"IT\n\x20\0\0\0").await.expect("send");
    let mut phone = Phone::over(&house, Version::V5, tcp).await;
    phone.send(&Login::of(&house, "alice", "phone").packet()).await;
    assert_eq!(phone.next().await, Heard::ConnAck { present: false, reason: ReasonCode::Success });
}

//! rmqtt as a library, with the allocator of its own daemon, no plugins, one listener with TLS and one without.
//!
//! `rmqtt-peer TLS_ADDRESS PLAIN_ADDRESS CERTIFICATE KEY`

use std::env;
use std::num::NonZeroU16;

use anyhow::Context;
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As many as every other broker of the comparison has outstanding towards a client.
const INFLIGHT_MAX: NonZeroU16 = NonZeroU16::new(128).expect("not zero");
const QUEUE_RECORDS_MAX: usize = 100_000;
const BACKLOG: i32 = 4096;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "--version") {
        println!("rmqtt {} (library)", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let mut next = |name: &'static str| arguments.next().context(name);
    let (tls, plain) = (next("TLS_ADDRESS")?, next("PLAIN_ADDRESS")?);
    let (certificate, key) = (next("CERTIFICATE")?, next("KEY")?);
    // Off: it refuses connections while the machine is busy, which the load tester sees to.
    let context = ServerContext::new().busy_check_enable(false).build().await;
    let tls = listener("tls", &tls)?.tls_cert(Some(certificate)).tls_key(Some(key));
    MqttServer::new(context)
        .listener(listener("tcp", &plain)?.bind()?.tcp()?)
        .listener(tls.bind()?.tls()?)
        .build()
        .run()
        .await
}

fn listener(name: &str, address: &str) -> anyhow::Result<Builder> {
    Ok(Builder::new()
        .name(name)
        .laddr(address.parse().context("read an address")?)
        .nodelay(true)
        .backlog(BACKLOG)
        .max_handshaking_limit(1_000_000)
        .max_inflight(INFLIGHT_MAX)
        .max_mqueue_len(QUEUE_RECORDS_MAX))
}

//! At the end: every row of the log, counted past the broker and read through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sotto_model::{Offset, TopicFilter};
use sotto_mqtt::packet::{Packet, Version};
use sotto_postgres::{PostgresOptions, PostgresStore};
use sotto_sqlite::SqliteStore;
use sotto_storage::Store;
use sotto_storage::message_log::{PageLimit, Selector};

use crate::ledger::Key;
use crate::link::Link;
use crate::load::Ended;
use crate::support::phone::{Heard, ack};
use crate::world::World;

/// A session that has heard nothing for so long has heard all.
const QUIET: Duration = Duration::from_secs(3);
const PAGE: PageLimit = PageLimit { records: 1_000, bytes: 4 * 1024 * 1024 };

/// Compares what is stored with what was sent; how many rows there are.
pub(crate) async fn audit(world: &mut World, ended: &Ended) -> usize {
    let mut times: BTreeMap<Key, u32> = BTreeMap::new();
    let mut read: BTreeMap<String, Vec<Offset>> = BTreeMap::new();
    for (tenant, _) in &ended.auditors {
        let rows = drain(ended, tenant).await;
        for (_, key) in &rows {
            *times.entry(*key).or_default() += 1;
        }
        read.insert(tenant.clone(), rows.into_iter().map(|(offset, _)| offset).collect());
    }
    assert_eq!(world.house.terminate().await.code(), Some(0));

    let verified = world.house.sotto(&["store", "verify"]).await;
    if verified["whole"] != true {
        ended.ledger.complain(format!("the store is not whole: {verified}"));
    }
    let stored = stored(world).await;
    for (tenant, offsets) in &stored {
        let read = &read[tenant];
        if read != offsets {
            let (read, stored) = (read.len(), offsets.len());
            ended.ledger.complain(format!("{tenant}: {read} messages were read of {stored} rows"));
        }
    }
    ended.ledger.judge_rows(&times, &ended.once);
    stored.values().map(Vec::len).sum()
}

/// All that the auditor's session was left, in the log's order.
async fn drain(ended: &Ended, tenant: &str) -> Vec<(Offset, Key)> {
    let (_, login) = ended.auditors.iter().find(|(name, _)| name == tenant).expect("an auditor");
    let connected = Link::connect(&ended.place, login, Version::V5).await;
    let (mut link, present) = connected.expect("the broker serves");
    assert!(present, "the auditor's session is there");
    let mut rows: Vec<(Offset, Key)> = Vec::new();
    while let Ok(heard) = tokio::time::timeout(QUIET, link.next()).await {
        let Heard::Publish(message) = heard else { panic!("the auditor heard {heard:?}") };
        link.send(&Packet::PubAck(ack(message.packet_id.expect("QoS 1")))).await;
        let Some(key) = ended.ledger.recognize("the auditor", &message.topic, &message.payload) else {
            continue;
        };
        let offset = message.user_property("sotto-offset").and_then(|offset| offset.parse().ok());
        rows.push((Offset(offset.expect("an offset")), key));
    }
    assert!(rows.is_sorted_by(|(one, _), (next, _)| one < next), "each once, in the log's order");
    link.disconnect().await;
    rows
}

/// The offsets of each tenant's log, read past the broker.
async fn stored(world: &World) -> BTreeMap<String, Vec<Offset>> {
    let store: Arc<dyn Store> = if let Some(url) = world.url_past_the_proxy() {
        Arc::new(PostgresStore::connect(&url, PostgresOptions::default()).await.expect("open PostgreSQL"))
    } else {
        Arc::new(SqliteStore::open(&world.house.data().join("sotto.db")).await.expect("open SQLite"))
    };
    let heads: BTreeMap<_, _> = store.heads().await.expect("heads").into_iter().collect();
    let mut stored = BTreeMap::new();
    for tenant in store.snapshot().await.expect("a snapshot").tenants {
        let head = heads.get(&tenant.id).copied().unwrap_or_default();
        let everything = [Selector { filter: TopicFilter::parse("#").expect("a filter"), after: Offset(0) }];
        let mut offsets = Vec::new();
        let mut after = Offset(0);
        while after < head {
            let page = store.read(tenant.id, &everything, after, head, PAGE).await.expect("read");
            offsets.extend(page.messages.iter().map(|message| message.offset));
            after = page.scanned_to;
        }
        stored.insert(tenant.name, offsets);
    }
    stored
}

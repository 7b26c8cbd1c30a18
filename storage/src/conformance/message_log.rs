//! Cases of [`MessageLog`](crate::message_log::MessageLog).

use std::sync::Arc;
use std::time::Duration;

use sotto_model::{Offset, PacketId, QoS, TopicName};

use super::fixture::{Fixture, GENEROUS, NOW, Person, filter, later, offsets, selector, topic};
use crate::StoreError;
use crate::message_log::{Append, Batch, PageLimit, Placed, RetainChange, Selector};
use crate::session_store::SessionOp;

pub async fn an_empty_store_answers(f: Fixture) {
    f.store.ping().await.expect("ping");
    assert_eq!(f.head(f.clinic).await, Offset(0));
    let page = f.store.read(f.clinic, &[selector("#")], Offset(0), Offset(9), GENEROUS).await.expect("read");
    assert!(page.messages.is_empty());
    assert_eq!(page.scanned_to, Offset(9));
    assert!(f.store.get(f.clinic, &[Offset(1)]).await.expect("get").is_empty());
}

pub async fn offsets_start_at_one_and_rise_in_the_order_of_the_batch(f: Fixture) {
    let first = f.append(messages(&f, &f.robot, &["a", "b", "a"]).await).await;
    assert_eq!(first, [Offset(1), Offset(2), Offset(3)]);
    let second = f.append(messages(&f, &f.robot, &["b"]).await).await;
    assert_eq!(second, [Offset(4)]);
    let read = f.read_all(f.lab, &[selector("#")], GENEROUS).await;
    let topics: Vec<_> = read.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(topics, ["a", "b", "a", "b"]);
    assert_eq!(f.head(f.lab).await, Offset(4));
}

pub async fn each_tenant_counts_for_itself(f: Fixture) {
    let ward = f.ward_topic();
    let batch = vec![
        f.message(&f.robot, &topic("a")).await,
        f.message(&f.alice, &ward).await,
        f.message(&f.robot, &topic("a")).await,
    ];
    assert_eq!(f.append(batch).await, [Offset(1), Offset(1), Offset(2)]);
    assert_eq!(f.head(f.lab).await, Offset(2));
    assert_eq!(f.head(f.clinic).await, Offset(1));
}

pub async fn a_batch_repeated_under_its_number_is_committed_once(f: Fixture) {
    f.append(messages(&f, &f.robot, &["before"]).await).await;
    let mut appends = messages(&f, &f.robot, &["a", "b"]).await;
    appends[0].retain = RetainChange::Set;
    appends.push(f.message(&f.alice, &f.ward_topic()).await);
    let batch = f.batch(appends);
    let placed = f.store.append(&batch).await.expect("append");
    assert_eq!(placed, [2, 3, 1].map(|offset| Placed::Now(Offset(offset))));
    assert_eq!(f.store.append(&batch).await.expect("append again"), placed);
    assert_eq!(f.head(f.lab).await, Offset(3));
    assert_eq!(f.head(f.clinic).await, Offset(1));
    assert_eq!(f.read_all(f.lab, &[selector("#")], GENEROUS).await.len(), 3);
    assert_eq!(f.store.lag(NOW).await.expect("lag").messages, 4);
    assert_eq!(f.append(messages(&f, &f.robot, &["after"]).await).await, [Offset(4)]);
}

pub async fn a_batch_number_is_not_given_to_another_batch(f: Fixture) {
    f.append(messages(&f, &f.robot, &["a"]).await).await;
    f.append(messages(&f, &f.robot, &["b"]).await).await;
    let older = Batch { number: 1, appends: messages(&f, &f.robot, &["c"]).await, committed_at: NOW };
    let longer = Batch { number: 2, appends: messages(&f, &f.robot, &["d", "e"]).await, committed_at: NOW };
    for batch in [older, longer] {
        assert!(matches!(f.store.append(&batch).await, Err(StoreError::Inconsistent(_))));
    }
    assert_eq!(f.head(f.lab).await, Offset(2));
}

pub async fn claiming_again_returns_the_last_batch_number(f: Fixture) {
    for _ in 0..3 {
        f.append(messages(&f, &f.robot, &["a"]).await).await;
    }
    assert_eq!(f.store.claim_writer().await.expect("claim"), 3);
}

pub async fn a_message_comes_back_as_it_was_appended(f: Fixture) {
    let ward = f.ward_topic();
    let append = Append {
        qos: QoS::ExactlyOnce,
        retain: RetainChange::Set,
        expires_at: Some(later(5000)),
        ..f.message_of(&f.alice, &ward, b"one").await
    };
    let (message_id, sealed) = (append.sealed.message_id(), append.sealed.bytes().clone());
    let plain = f.message_of(&f.bob, &ward, b"two").await;
    let batch = Batch { committed_at: later(17), ..f.batch(vec![append, plain]) };
    f.store.append(&batch).await.expect("append");

    let read = f.read_all(f.clinic, &[selector(ward.as_str())], GENEROUS).await;
    assert_eq!(read.len(), 2);
    let first = &read[0];
    assert_eq!(first.offset, Offset(1));
    assert_eq!(first.topic, ward);
    assert_eq!(first.sender, f.alice.user);
    assert_eq!(first.message_id, message_id);
    assert_eq!(first.qos, QoS::ExactlyOnce);
    assert!(first.retain);
    assert_eq!(first.committed_at, later(17));
    assert_eq!(first.expires_at, Some(later(5000)));
    assert_eq!(first.sealed, sealed);
    assert_eq!(f.open(f.clinic, first), b"one");
    let second = &read[1];
    assert_eq!(second.qos, QoS::AtLeastOnce);
    assert!(!second.retain);
    assert_eq!(second.expires_at, None);
    assert_eq!(f.open(f.clinic, second), b"two");
}

pub async fn a_page_is_cut_after_its_records(f: Fixture) {
    f.append(messages(&f, &f.robot, &["a", "b", "a", "a", "b"]).await).await;
    let limit = PageLimit { records: 2, ..GENEROUS };
    let selectors = [selector("a")];
    let cut = f.store.read(f.lab, &selectors, Offset(0), Offset(5), limit).await.expect("read");
    assert_eq!(offsets(&cut.messages), [Offset(1), Offset(3)]);
    assert_eq!(cut.scanned_to, Offset(3));
    let rest = f.store.read(f.lab, &selectors, cut.scanned_to, Offset(5), limit).await.expect("read");
    assert_eq!(offsets(&rest.messages), [Offset(4)]);
    assert_eq!(rest.scanned_to, Offset(5), "nothing is left, so all of it was looked at");
}

pub async fn a_page_is_cut_before_its_bytes_are_exceeded(f: Fixture) {
    let mut batch = Vec::new();
    for _ in 0..4 {
        batch.push(f.message_of(&f.robot, &topic("a"), &[0; 1000]).await);
    }
    let bytes = batch[0].sealed.bytes().len();
    f.append(batch).await;
    let read = async |bytes: usize| {
        let limit = PageLimit { bytes, ..GENEROUS };
        let page = f.store.read(f.lab, &[selector("a")], Offset(0), Offset(4), limit).await.expect("read");
        (page.messages.len(), page.scanned_to)
    };
    assert_eq!(read(bytes * 3).await, (3, Offset(3)));
    assert_eq!(read(bytes * 3 - 1).await, (2, Offset(2)));
    assert_eq!(read(1).await, (1, Offset(1)), "the first is returned whatever its size");
    assert_eq!(read(bytes * 4).await, (4, Offset(4)));
}

pub async fn pages_join_without_gap_or_repetition(f: Fixture) {
    let names: Vec<String> = (0..200).map(|number| format!("t/{}", number % 7)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    f.append(messages(&f, &f.robot, &names).await).await;
    let selectors = [selector("t/1"), selector("t/2"), selector("t/+")];
    let all = f.read_all(f.lab, &selectors, GENEROUS).await;
    assert_eq!(all.len(), 200);
    for records in [1, 7, 199] {
        let limit = PageLimit { records, ..GENEROUS };
        assert_eq!(offsets(&f.read_all(f.lab, &selectors, limit).await), offsets(&all));
    }
}

pub async fn a_selector_holds_after_its_own_offset(f: Fixture) {
    f.append(messages(&f, &f.robot, &["a", "b", "a", "b", "a", "b"]).await).await;
    let selectors = [
        Selector { filter: filter("a"), after: Offset(3) },
        Selector { filter: filter("+"), after: Offset(5) },
        Selector { filter: filter("absent"), after: Offset(0) },
    ];
    let read = f.read_all(f.lab, &selectors, GENEROUS).await;
    assert_eq!(offsets(&read), [Offset(5), Offset(6)]);
}

pub async fn a_message_is_returned_once_however_many_selectors_match_it(f: Fixture) {
    f.append(messages(&f, &f.robot, &["a/b", "a/c", "a/b"]).await).await;
    let selectors = [
        Selector { filter: filter("a/b"), after: Offset(2) },
        selector("a/+"),
        selector("#"),
        selector("a/b"),
        selector("$share/group/a/#"),
    ];
    let read = f.read_all(f.lab, &selectors, GENEROUS).await;
    assert_eq!(offsets(&read), [Offset(1), Offset(2), Offset(3)]);
}

pub async fn wildcards_select_what_filters_match(f: Fixture) {
    let names = [
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a/bc",
        "a/b!",
        "ab",
        "a b",
        "/a",
        "b/a",
        "A/b",
        "a/%",
        "a/_",
        "a/\"q\"",
        "a/\u{10ffff}",
        "a/\u{10ffff}/b",
        "é/b",
        "5",
    ];
    f.append(messages(&f, &f.robot, &names).await).await;
    let filters = [
        "#",
        "+",
        "+/+",
        "a/#",
        "a/+",
        "a/b/#",
        "a/+/c",
        "/+",
        "+/b",
        "a/%/#",
        "a/_",
        "a/\u{10ffff}/#",
        "é/+",
        "$SYS/#",
        "+/b/#",
        "5",
        "5/#",
        "a/\"q\"",
    ];
    for raw in filters {
        let read = f.read_all(f.lab, &[selector(raw)], GENEROUS).await;
        let found: Vec<&str> = read.iter().map(|message| message.topic.as_str()).collect();
        let expected: Vec<&str> =
            names.into_iter().filter(|name| filter(raw).matches(&topic(name))).collect();
        assert_eq!(found, expected, "{raw}");
    }
}

pub async fn a_wildcard_wider_than_any_bound_is_read_to_the_end(f: Fixture) {
    const TOPICS: u64 = 6000;
    for hundred in 0..TOPICS / 1000 {
        let names: Vec<String> = (0..1000).map(|number| format!("wide/{hundred}/{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        f.append(messages(&f, &f.robot, &names).await).await;
    }
    let limit = PageLimit { records: 1000, ..GENEROUS };
    let read = f.read_all(f.lab, &[selector("wide/#")], limit).await;
    assert_eq!(offsets(&read), (1..=TOPICS).map(Offset).collect::<Vec<_>>());
    let narrow = [
        Selector { filter: filter("wide/+/7"), after: Offset(1008) },
        Selector { filter: filter("wide/0/0"), after: Offset(0) },
    ];
    let read = f.read_all(f.lab, &narrow, limit).await;
    assert_eq!(offsets(&read), [1, 2008, 3008, 4008, 5008].map(Offset));
}

pub async fn a_page_ends_at_its_bounds(f: Fixture) {
    f.append(messages(&f, &f.robot, &["a", "a", "a", "a", "a"]).await).await;
    let read = async |after, up_to| {
        let page = f
            .store
            .read(f.lab, &[selector("a")], Offset(after), Offset(up_to), GENEROUS)
            .await
            .expect("read");
        (offsets(&page.messages), page.scanned_to)
    };
    assert_eq!(read(1, 3).await, (vec![Offset(2), Offset(3)], Offset(3)));
    assert_eq!(read(3, 3).await, (vec![], Offset(3)));
    assert_eq!(read(4, 5).await, (vec![Offset(5)], Offset(5)));
    let nothing = f.store.read(f.lab, &[], Offset(0), Offset(5), GENEROUS).await.expect("read");
    assert!(nothing.messages.is_empty());
    assert_eq!(nothing.scanned_to, Offset(5));
}

pub async fn one_tenant_never_sees_another_s_messages(f: Fixture) {
    let ward = f.ward_topic();
    f.append(vec![
        Append { retain: RetainChange::Set, ..f.message(&f.robot, &ward).await },
        Append { retain: RetainChange::Set, ..f.message(&f.alice, &ward).await },
        f.message(&f.robot, &topic("a")).await,
    ])
    .await;
    for raw in ["#", ward.as_str()] {
        let read = f.read_all(f.clinic, &[selector(raw)], GENEROUS).await;
        assert_eq!(read.iter().map(|message| message.sender).collect::<Vec<_>>(), [f.alice.user]);
        let retained = f.store.retained(f.clinic, &filter(raw), None, NOW, GENEROUS).await.expect("retained");
        assert_eq!(
            retained.messages.iter().map(|message| message.sender).collect::<Vec<_>>(),
            [f.alice.user]
        );
    }
    assert_eq!(f.store.get(f.clinic, &[Offset(1), Offset(2)]).await.expect("get").len(), 1);
}

/// A reader that has seen a head finds every message up to it, while others are being committed.
pub async fn what_is_at_or_before_the_head_is_seen_whole(f: Fixture) {
    let store = Arc::clone(&f.store);
    let lab = f.lab;
    let reader = tokio::spawn(async move {
        let mut checked = 0;
        while checked < 300 {
            let heads = store.heads().await.expect("heads");
            let head = heads.into_iter().find(|(id, _)| *id == lab).expect("lab has a head").1;
            let page = store.read(lab, &[selector("#")], Offset(0), head, GENEROUS).await.expect("read");
            assert_eq!(offsets(&page.messages), (1..=head.0).map(Offset).collect::<Vec<_>>());
            checked = head.0;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    for size in 1..=24 {
        let names: Vec<String> = (0..size).map(|number| format!("t/{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        f.append(messages(&f, &f.robot, &names).await).await;
    }
    reader.await.expect("the reader finds no gap");
}

pub async fn messages_are_got_by_offset(f: Fixture) {
    f.append(messages(&f, &f.robot, &["a", "b", "c", "d"]).await).await;
    let wanted = [Offset(4), Offset(2), Offset(99), Offset(u64::MAX)];
    let got = f.store.get(f.lab, &wanted).await.expect("get");
    let found: Vec<_> = got.iter().map(|message| (message.offset, message.topic.as_str())).collect();
    assert_eq!(found, [(Offset(2), "b"), (Offset(4), "d")]);
    assert_eq!(f.open(f.lab, &got[0]), b"canary");
}

pub async fn an_exactly_once_packet_id_is_committed_with_its_message(f: Fixture) {
    let session = f.connect(&f.alice).await;
    let packet_id = PacketId::new(77).expect("not zero");
    let append = Append {
        qos: QoS::ExactlyOnce,
        exactly_once: Some((session.id, packet_id)),
        ..f.message(&f.alice, &f.ward_topic()).await
    };
    let batch = f.batch(vec![append]);
    f.store.append(&batch).await.expect("append");
    f.store.append(&batch).await.expect("append again");
    let opened = f.open_session(f.opening(&f.alice)).await;
    assert_eq!(opened.progress.exactly_once_received, [packet_id]);
}

pub async fn an_exactly_once_packet_id_of_a_session_that_is_gone_is_no_error(f: Fixture) {
    let session = f.connect(&f.alice).await;
    f.apply(SessionOp::Delete(session)).await;
    let append = Append {
        qos: QoS::ExactlyOnce,
        exactly_once: Some((session.id, PacketId::FIRST)),
        ..f.message(&f.alice, &f.ward_topic()).await
    };
    assert_eq!(f.append(vec![append]).await, [Offset(1)]);
    let opened = f.open_session(f.opening(&f.alice)).await;
    assert_eq!(opened.progress.exactly_once_received, []);
}

async fn messages(f: &Fixture, sender: &Person, names: &[&str]) -> Vec<Append> {
    let mut appends = Vec::with_capacity(names.len());
    for name in names {
        let topic: TopicName = topic(name);
        appends.push(f.message(sender, &topic).await);
    }
    appends
}

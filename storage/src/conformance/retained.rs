//! Cases of retained messages.

use sotto_model::{TopicName, UnixMillis};

use super::fixture::{Fixture, GENEROUS, NOW, filter, later, offsets, topic};
use crate::message_log::{Append, PageLimit, RetainChange, StoredMessage};

/// More than one page of names, whatever a backend's page is.
const MANY: usize = 2500;

pub async fn the_last_retained_message_of_a_topic_stands(f: Fixture) {
    retain(&f, "a", b"first", RetainChange::Set).await;
    retain(&f, "a", b"second", RetainChange::Set).await;
    retain(&f, "a", b"passing by", RetainChange::Keep).await;
    let found = retained(&f, "a", NOW).await;
    assert_eq!(found.len(), 1);
    assert_eq!(f.open(f.lab, &found[0]), b"second");
    assert_eq!(found[0].topic, topic("a"));
    assert_eq!(found[0].sender, f.robot.user);
    assert!(found[0].retain);
    let in_log = f.store.get(f.lab, &[found[0].offset]).await.expect("get");
    assert_eq!(in_log[0].message_id, found[0].message_id);
}

pub async fn a_clearing_message_leaves_nothing_retained(f: Fixture) {
    retain(&f, "a", b"kept", RetainChange::Set).await;
    retain(&f, "b", b"kept", RetainChange::Set).await;
    retain(&f, "a", b"", RetainChange::Clear).await;
    retain(&f, "never set", b"", RetainChange::Clear).await;
    let found = retained(&f, "#", NOW).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].topic, topic("b"));
}

pub async fn changes_within_a_batch_are_made_in_its_order(f: Fixture) {
    let mut batch = Vec::new();
    for (name, change) in [
        ("set", RetainChange::Clear),
        ("set", RetainChange::Set),
        ("cleared", RetainChange::Set),
        ("cleared", RetainChange::Clear),
        ("twice", RetainChange::Set),
        ("twice", RetainChange::Set),
    ] {
        batch.push(Append { retain: change, ..f.message(&f.robot, &topic(name)).await });
    }
    let committed = f.append(batch).await;
    assert_eq!(offsets(&retained(&f, "#", NOW).await), [committed[1], committed[5]]);
}

pub async fn an_expired_retained_message_is_not_returned(f: Fixture) {
    let append = Append {
        retain: RetainChange::Set,
        expires_at: Some(later(1000)),
        ..f.message(&f.robot, &topic("a")).await
    };
    f.append(vec![append]).await;
    assert_eq!(retained(&f, "a", later(999)).await.len(), 1);
    assert_eq!(retained(&f, "a", later(1000)).await.len(), 0);
}

pub async fn retained_messages_are_selected_by_filter_and_ordered_by_topic(f: Fixture) {
    let names = ["b/1", "a/b/c", "a/b", "a/bc", "a/c", "ab", "a", "a/b!", "é", "a/b/c/d"];
    for name in names {
        retain(&f, name, b"kept", RetainChange::Set).await;
    }
    for raw in ["#", "a/#", "a/b/#", "a/+", "+", "+/1", "a/b", "absent", "absent/#"] {
        let found = retained(&f, raw, NOW).await;
        let found: Vec<&str> = found.iter().map(|message| message.topic.as_str()).collect();
        let mut expected: Vec<&str> =
            names.into_iter().filter(|name| filter(raw).matches(&topic(name))).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{raw}");
    }
}

pub async fn retained_messages_are_read_by_pages(f: Fixture) {
    let mut batch = Vec::new();
    for number in 0..MANY {
        let topic = topic(&format!("t/{number:05}/{}", if number % 2 == 0 { "even" } else { "odd" }));
        batch.push(Append { retain: RetainChange::Set, ..f.message(&f.robot, &topic).await });
        if batch.len() == 1000 {
            f.append(std::mem::take(&mut batch)).await;
        }
    }
    f.append(batch).await;
    retain(&f, "s", b"before", RetainChange::Set).await;
    retain(&f, "u", b"after", RetainChange::Set).await;
    let expected = [("t/#", MANY), ("#", MANY + 2), ("t/+/even", MANY / 2), ("+/+/odd", MANY / 2)];
    for (raw, count) in expected {
        for records in [1000, 700, 7] {
            let limit = PageLimit { records, ..GENEROUS };
            let found = read_by_pages(&f, raw, limit).await;
            assert!(found.windows(2).all(|pair| pair[0].topic < pair[1].topic), "each once, by topic");
            assert_eq!(found.len(), count, "{raw} by {records}");
        }
    }
}

pub async fn a_page_of_retained_messages_is_cut_before_its_bytes_are_exceeded(f: Fixture) {
    for (name, bytes) in [("t/1", 900), ("t/2", 50), ("t/3", 5000), ("t/4", 50), ("t/5", 50)] {
        retain(&f, name, &vec![b'x'; bytes], RetainChange::Set).await;
    }
    let limit = PageLimit { bytes: 1200, ..GENEROUS };
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = f.store.retained(f.lab, &filter("t/#"), after.as_ref(), NOW, limit).await.expect("read");
        pages.push(page.messages.len());
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [2, 1, 2], "the third is larger than a page");
}

pub async fn few_retained_matches_among_many_topics_are_found_in_bounded_steps(f: Fixture) {
    /// More than any backend looks at for one page.
    const MORE: usize = 9000;
    for first in (0..MORE).step_by(1000) {
        let mut batch = Vec::new();
        for number in first..first + 1000 {
            let topic = topic(&format!("t/{number:05}"));
            batch.push(Append { retain: RetainChange::Set, ..f.message(&f.robot, &topic).await });
        }
        f.append(batch).await;
    }
    retain(&f, "t/00004/x", b"early", RetainChange::Set).await;
    retain(&f, "t/08999/x", b"late", RetainChange::Set).await;
    let limit = PageLimit { records: 100, ..GENEROUS };
    let first = f.store.retained(f.lab, &filter("t/+/x"), None, NOW, limit).await.expect("read");
    assert!(first.next_after.is_some(), "it ends before all names are looked at");
    let found = read_by_pages(&f, "t/+/x", limit).await;
    let found: Vec<&str> = found.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(found, ["t/00004/x", "t/08999/x"]);
}

pub async fn expired_retained_messages_are_removed_in_bounded_steps(f: Fixture) {
    for (name, expires_at) in
        [("a", Some(10)), ("b", Some(20)), ("c", Some(30)), ("d", Some(9000)), ("e", None)]
    {
        let append = Append {
            retain: RetainChange::Set,
            expires_at: expires_at.map(later),
            ..f.message(&f.robot, &topic(name)).await
        };
        f.append(vec![append]).await;
    }
    // It lives on in another message.
    retain(&f, "c", b"newer", RetainChange::Set).await;
    let expire = async |milliseconds| f.store.expire_retained(later(milliseconds), 1).await.expect("expire");
    assert_eq!(expire(9).await, 0);
    assert_eq!((expire(30).await, expire(30).await, expire(30).await), (1, 1, 0));
    // At a time at which none had expired: what is not found is gone.
    let left = retained(&f, "#", NOW).await;
    let left: Vec<&str> = left.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(left, ["c", "d", "e"]);
}

pub async fn the_topics_that_have_one_are_told_unless_they_are_too_many(f: Fixture) {
    let topics = async |limit| f.store.retained_topics(limit).await.expect("retained topics");
    assert_eq!(topics(0).await, Some(vec![]));
    for (name, change) in [
        ("a", RetainChange::Set),
        ("b", RetainChange::Set),
        ("c", RetainChange::Set),
        ("d", RetainChange::Keep),
        ("b", RetainChange::Clear),
    ] {
        retain(&f, name, b"body", change).await;
    }
    let mut told = topics(2).await.expect("no more than two");
    told.sort();
    assert_eq!(told, [(f.lab, topic("a")), (f.lab, topic("c"))]);
    assert_eq!(topics(1).await, None);
}

async fn retain(f: &Fixture, name: &str, payload: &[u8], change: RetainChange) {
    let append = Append { retain: change, ..f.message_of(&f.robot, &topic(name), payload).await };
    f.append(vec![append]).await;
}

async fn retained(f: &Fixture, raw: &str, now: UnixMillis) -> Vec<StoredMessage> {
    let page = f.store.retained(f.lab, &filter(raw), None, now, GENEROUS).await.expect("retained");
    assert_eq!(page.next_after, None, "all of it fits in a page");
    page.messages
}

async fn read_by_pages(f: &Fixture, raw: &str, limit: PageLimit) -> Vec<StoredMessage> {
    let mut messages = Vec::new();
    let mut after: Option<TopicName> = None;
    loop {
        let page = f.store.retained(f.lab, &filter(raw), after.as_ref(), NOW, limit).await.expect("read");
        assert!(page.messages.len() <= limit.records);
        assert!(page.next_after.is_none() || page.next_after > after, "a page gets further");
        messages.extend(page.messages);
        after = page.next_after;
        if after.is_none() {
            return messages;
        }
    }
}

//! Cases of retained messages.

use sotto_model::UnixMillis;

use super::fixture::{Fixture, NOW, filter, later, offsets, topic};
use crate::message_log::{Append, RetainChange, StoredMessage};

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

pub async fn retained_messages_are_returned_up_to_the_limit(f: Fixture) {
    let mut batch = Vec::new();
    for number in 0..MANY {
        let topic = topic(&format!("t/{number:05}/{}", if number % 2 == 0 { "even" } else { "odd" }));
        batch.push(Append { retain: RetainChange::Set, ..f.message(&f.robot, &topic).await });
        if batch.len() == 1000 {
            f.append(std::mem::take(&mut batch)).await;
        }
    }
    f.append(batch).await;
    let found = async |raw, limit| {
        let found = f.store.retained(f.lab, &filter(raw), NOW, limit).await.expect("retained");
        assert!(found.windows(2).all(|pair| pair[0].topic < pair[1].topic), "each once, by topic");
        found.len()
    };
    assert_eq!(found("t/#", MANY + 1).await, MANY);
    assert_eq!(found("t/+/even", MANY + 1).await, MANY / 2);
    assert_eq!(found("t/+/even", 700).await, 700);
    assert_eq!(found("t/#", 3).await, 3);
}

async fn retain(f: &Fixture, name: &str, payload: &[u8], change: RetainChange) {
    let append = Append { retain: change, ..f.message_of(&f.robot, &topic(name), payload).await };
    f.append(vec![append]).await;
}

async fn retained(f: &Fixture, raw: &str, now: UnixMillis) -> Vec<StoredMessage> {
    f.store.retained(f.lab, &filter(raw), now, 1000).await.expect("retained")
}

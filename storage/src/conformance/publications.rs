//! Messages that name themselves.

use sotto_model::{Offset, PacketId, PublicationId, QoS, TopicName, Urgency};
use uuid::Uuid;

use super::fixture::{Fixture, GENEROUS, NOW, Person, later, selector, topic};
use crate::message_log::{Append, PageLimit, Placed, RetainChange};

pub async fn what_is_published_again_is_not_stored_again(f: Fixture) {
    let ward = f.ward_topic();
    let first = f.batch(vec![named(&f, &f.alice, &ward, 1).await, f.message(&f.alice, &ward).await]);
    let placed = f.store.append(&first).await.expect("append");
    assert_eq!(placed, [Placed::Now(Offset(1)), Placed::Now(Offset(2))]);

    let again = f.batch(vec![
        f.message(&f.alice, &ward).await,
        named(&f, &f.alice, &ward, 1).await,
        named(&f, &f.alice, &ward, 2).await,
    ]);
    let placed = f.store.append(&again).await.expect("append");
    assert_eq!(placed[1], Placed::Before(Offset(1)));
    let [Placed::Now(third), _, Placed::Now(fourth)] = placed[..] else { panic!("{placed:?}") };
    assert!(Offset(2) < third && third < fourth, "{placed:?}");
    let stored = f.read_all(f.clinic, &[selector("#")], GENEROUS).await;
    let offsets: Vec<Offset> = stored.iter().map(|message| message.offset).collect();
    assert_eq!(offsets, [Offset(1), Offset(2), third, fourth]);
    assert_eq!(f.store.lag(NOW).await.expect("lag").messages, 4);
}

pub async fn what_is_twice_in_one_batch_is_stored_once(f: Fixture) {
    let ward = f.ward_topic();
    let batch = f.batch(vec![
        named(&f, &f.alice, &ward, 1).await,
        named(&f, &f.alice, &ward, 1).await,
        f.message(&f.bob, &ward).await,
        named(&f, &f.alice, &ward, 1).await,
    ]);
    let placed = f.store.append(&batch).await.expect("append");
    let [Placed::Now(first), Placed::Before(second), Placed::Now(other), Placed::Before(third)] = placed[..]
    else {
        panic!("{placed:?}")
    };
    assert_eq!((second, third), (first, first));
    assert!(first < other);
    assert_eq!(f.read_all(f.clinic, &[selector("#")], GENEROUS).await.len(), 2);
    assert_eq!(f.store.append(&batch).await.expect("append again"), placed);
    assert_eq!(f.store.lag(NOW).await.expect("lag").messages, 2);
}

pub async fn a_repeated_batch_tells_what_it_stored_from_what_had_been(f: Fixture) {
    let ward = f.ward_topic();
    f.append(vec![named(&f, &f.alice, &ward, 1).await]).await;
    let batch = f.batch(vec![
        named(&f, &f.alice, &ward, 2).await,
        named(&f, &f.alice, &ward, 1).await,
        f.message(&f.robot, &topic("a")).await,
        f.message(&f.bob, &ward).await,
    ]);
    let placed = f.store.append(&batch).await.expect("append");
    assert!(matches!(placed[0], Placed::Now(_)));
    assert_eq!(placed[1], Placed::Before(Offset(1)));
    assert_eq!(placed[2], Placed::Now(Offset(1)));
    assert_eq!(f.store.append(&batch).await.expect("append again"), placed);
    assert_eq!(f.read_all(f.clinic, &[selector("#")], GENEROUS).await.len(), 3);
    let next = f.append(vec![f.message(&f.bob, &ward).await]).await[0];
    assert!(placed.iter().all(|placed| placed.offset() < next));
}

pub async fn a_name_is_its_sender_s_own(f: Fixture) {
    let ward = f.ward_topic();
    let batch = f.batch(vec![
        named(&f, &f.alice, &ward, 1).await,
        named(&f, &f.bob, &ward, 1).await,
        named(&f, &f.robot, &topic("a"), 1).await,
    ]);
    let placed = f.store.append(&batch).await.expect("append");
    assert!(placed.iter().all(|placed| matches!(placed, Placed::Now(_))), "{placed:?}");
}

pub async fn what_is_published_again_changes_nothing_retained(f: Fixture) {
    let retain = async |name: u128, change| {
        let append = named(&f, &f.robot, &topic("a"), name).await;
        Append { retain: change, ..append }
    };
    f.append(vec![retain(1, RetainChange::Set).await]).await;
    let newer = f.append(vec![retain(2, RetainChange::Set).await]).await[0];
    let again = [retain(1, RetainChange::Set).await, retain(1, RetainChange::Clear).await];
    f.append(again.into()).await;
    assert_eq!(retained(&f).await, [newer]);

    // Of one batch the last that is new counts.
    let mixed = [
        retain(3, RetainChange::Clear).await,
        retain(4, RetainChange::Set).await,
        retain(2, RetainChange::Set).await,
        retain(3, RetainChange::Clear).await,
    ];
    let committed = f.append(mixed.into()).await;
    assert_eq!(retained(&f).await, [committed[1]]);
}

pub async fn the_packet_id_of_what_is_published_again_is_remembered(f: Fixture) {
    let ward = f.ward_topic();
    let session = f.connect(&f.alice).await;
    let id = |id: u16| PacketId::new(id).expect("not zero");
    for packet_id in [id(7), id(8)] {
        let append = Append {
            qos: QoS::ExactlyOnce,
            exactly_once: Some((session.id, packet_id)),
            ..named(&f, &f.alice, &ward, 1).await
        };
        f.append(vec![append]).await;
    }
    let opened = f.open_session(f.opening(&f.alice)).await;
    assert_eq!(opened.progress.exactly_once_received, [id(7), id(8)]);
    assert_eq!(f.read_all(f.clinic, &[selector("#")], GENEROUS).await.len(), 1);
}

pub async fn names_are_forgotten_in_bounded_steps(f: Fixture) {
    let ward = f.ward_topic();
    let mut batch = Vec::new();
    for name in 1..=5 {
        batch.push(named(&f, &f.alice, &ward, name).await);
    }
    f.append(batch).await;
    assert_eq!(f.store.forget_publications(NOW, 10).await.expect("forget"), 0, "they are not older");
    let mut forgotten = Vec::new();
    for _ in 0..4 {
        forgotten.push(f.store.forget_publications(later(1), 2).await.expect("forget"));
    }
    assert_eq!(forgotten, [2, 2, 1, 0]);
    let again = f.batch(vec![named(&f, &f.alice, &ward, 1).await]);
    let placed = f.store.append(&again).await.expect("append");
    assert!(matches!(placed[..], [Placed::Now(_)]), "{placed:?}");
}

/// More than one outbox row of any backend holds, some of them known.
pub async fn a_full_batch_leaves_out_what_is_known(f: Fixture) {
    let ward = f.ward_topic();
    let mut first = Vec::new();
    for name in (0..200).step_by(3) {
        first.push(named(&f, &f.alice, &ward, name).await);
    }
    let known = first.len() as u64;
    f.append(first).await;
    let mut all = Vec::new();
    for name in 0..200 {
        let urgency = if name % 2 == 0 { Urgency::High } else { Urgency::Low };
        let wakes = (name % 5 != 0).then_some(urgency);
        all.push(Append { wakes, ..named(&f, &f.alice, &ward, name).await });
    }
    let placed = f.store.append(&f.batch(all)).await.expect("append");
    for (name, placed) in placed.iter().enumerate() {
        assert_eq!(matches!(placed, Placed::Before(_)), name % 3 == 0, "{name}");
    }
    let stored = f.read_all(f.clinic, &[selector("#")], PageLimit { records: 50, ..GENEROUS }).await;
    assert_eq!(stored.len(), 200);
    let wake = (0..200).filter(|name| name % 3 != 0 && name % 5 != 0).count() as u64;
    assert_eq!(f.store.lag(NOW).await.expect("lag").messages, known + wake);
}

async fn named(f: &Fixture, sender: &Person, topic: &TopicName, name: u128) -> Append {
    let publication = Some(PublicationId(Uuid::from_u128(name)));
    Append { publication, ..f.message(sender, topic).await }
}

async fn retained(f: &Fixture) -> Vec<Offset> {
    let page = f.store.retained(f.lab, &selector("#").filter, None, NOW, GENEROUS).await.expect("retained");
    page.messages.into_iter().map(|message| message.offset).collect()
}

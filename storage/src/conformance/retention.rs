//! Cases of [`Retention`](crate::retention::Retention).

use std::sync::Arc;

use sotto_model::{Offset, TenantId, UnixMillis};

use super::fixture::{Fixture, GENEROUS, NOW, Person, filter, offsets, selector, topic};
use crate::audit::AuditAction;
use crate::directory::DirectoryError;
use crate::message_log::{Append, Batch, PageLimit, RetainChange};
use crate::retention::{RetentionLimits, RetentionPolicy, TenantRetention, Trimmed};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Backends may keep a message so much longer than its days.
const SLACK_DAYS: u64 = 7;
const STEP: usize = 1000;
/// Longer than any case takes.
const STEPS_MAX: usize = 200;

const BY_AGE: RetentionPolicy = RetentionPolicy { days: 30, bytes: 0, minimum_days: 0 };
const BY_OWN_LIMITS: RetentionPolicy = RetentionPolicy { days: 0, bytes: 0, minimum_days: 0 };

pub async fn nothing_goes_unless_it_is_said(f: Fixture) {
    publish_on(&f, &f.robot, &[0, 0, 0]).await;
    assert_eq!(trim_all(&f, &BY_OWN_LIMITS, day(100_000)).await, Trimmed::default());
    assert_eq!(held(&f, f.lab).await, [1, 2, 3].map(Offset));
    assert_eq!(retention_of(&f, f.lab).await.start, Offset(0));
}

pub async fn what_is_older_than_its_days_goes_and_the_log_begins_after_it(f: Fixture) {
    publish_on(&f, &f.robot, &[0, 0, 60, 60, 60]).await;
    trim_all(&f, &BY_AGE, day(29)).await;
    assert_eq!(held(&f, f.lab).await.len(), 5, "nothing is so old");
    trim_all(&f, &BY_AGE, day(31 + SLACK_DAYS)).await;
    assert_eq!(held(&f, f.lab).await, [3, 4, 5].map(Offset));
    assert_eq!(retention_of(&f, f.lab).await.start, Offset(2));
    assert_eq!(f.head(f.lab).await, Offset(5));
}

pub async fn a_log_of_which_nothing_is_left_begins_after_its_head(f: Fixture) {
    publish_on(&f, &f.robot, &[0, 0]).await;
    trim_all(&f, &BY_AGE, day(31 + SLACK_DAYS)).await;
    assert_eq!(held(&f, f.lab).await, []);
    assert_eq!(retention_of(&f, f.lab).await.start, Offset(2));
    assert_eq!(retention_of(&f, f.clinic).await.start, Offset(0));
    publish_on(&f, &f.robot, &[100]).await;
    assert_eq!(held(&f, f.lab).await, [Offset(3)]);
}

pub async fn a_tenant_s_own_days_are_its_own(f: Fixture) {
    publish_on(&f, &f.robot, &[0, 0, 100]).await;
    publish_on(&f, &f.alice, &[0, 0, 100]).await;
    f.store.set_retention(f.clinic, own(Some(300), None), NOW).await.expect("set");
    let trimmed = trim_all(&f, &BY_AGE, day(50)).await;
    assert_eq!((trimmed.messages, trimmed.weeks), (2, 0), "the others keep the week");
    assert_eq!(held(&f, f.lab).await, [Offset(3)]);
    assert_eq!(held(&f, f.clinic).await, [1, 2, 3].map(Offset));
    trim_all(&f, &BY_AGE, day(301 + SLACK_DAYS)).await;
    assert_eq!(held(&f, f.clinic).await, [Offset(3)]);
    assert_eq!(held(&f, f.lab).await, []);
}

pub async fn nothing_younger_than_the_minimum_goes(f: Fixture) {
    publish_on(&f, &f.robot, &[0, 0, 0]).await;
    f.store.set_retention(f.lab, own(Some(1), Some(1)), NOW).await.expect("set");
    let policy = RetentionPolicy { minimum_days: 40, ..BY_OWN_LIMITS };
    trim_all(&f, &policy, day(39)).await;
    assert_eq!(held(&f, f.lab).await.len(), 3);
    trim_all(&f, &policy, day(41 + SLACK_DAYS)).await;
    assert_eq!(held(&f, f.lab).await, []);
}

pub async fn a_legal_hold_keeps_everything_until_it_is_lifted(f: Fixture) {
    publish_on(&f, &f.robot, &[0, 0, 60]).await;
    publish_on(&f, &f.alice, &[0, 0, 60]).await;
    f.store.set_retention(f.lab, own(Some(1), Some(1)), NOW).await.expect("set");
    f.store.set_legal_hold(f.lab, true, NOW).await.expect("hold");
    trim_all(&f, &BY_AGE, day(200)).await;
    assert_eq!(held(&f, f.lab).await, [1, 2, 3].map(Offset));
    assert_eq!(held(&f, f.clinic).await, [], "the neighbour is not held");
    let limits = own(Some(1), Some(1));
    assert_eq!(
        retention_of(&f, f.lab).await,
        TenantRetention { tenant: f.lab, limits, legal_hold: true, start: Offset(0) }
    );
    f.store.set_legal_hold(f.lab, false, NOW).await.expect("lift");
    trim_all(&f, &BY_AGE, day(200)).await;
    assert_eq!(held(&f, f.lab).await, []);
}

pub async fn what_is_too_much_goes_from_the_beginning(f: Fixture) {
    let size = f.message_of(&f.robot, &topic("a"), &[0; 1000]).await.sealed.bytes().len() as u64;
    for _ in 0..10 {
        publish_many(&f, 10).await;
    }
    f.store.set_retention(f.lab, own(None, Some(size * 40)), NOW).await.expect("set");
    trim_all(&f, &BY_OWN_LIMITS, NOW).await;
    assert_eq!(held(&f, f.lab).await.len(), 100, "what is committed in this moment is young");
    trim_all(&f, &BY_OWN_LIMITS, day(1)).await;
    let left = held(&f, f.lab).await;
    // It is measured in eighths of what may be held.
    assert!((40..=45).contains(&left.len()), "{}", left.len());
    assert_eq!(left.last(), Some(&Offset(100)));
    assert_eq!(retention_of(&f, f.lab).await.start.0, left[0].0 - 1);
    assert_eq!(trim_all(&f, &BY_OWN_LIMITS, day(1)).await, Trimmed::default());
    publish_many(&f, 10).await;
    trim_all(&f, &BY_OWN_LIMITS, day(1)).await;
    let left = held(&f, f.lab).await;
    assert!((40..=45).contains(&left.len()), "{}", left.len());
    f.store.set_retention(f.lab, own(None, Some(size * 8)), NOW).await.expect("set");
    trim_all(&f, &BY_OWN_LIMITS, day(1)).await;
    let left = held(&f, f.lab).await.len();
    assert!((8..=14).contains(&left), "{left}");
}

pub async fn a_step_deletes_no_more_than_its_limit(f: Fixture) {
    publish_many(&f, 100).await;
    publish_on(&f, &f.alice, &[0]).await;
    // So that no backend drops a part of the log as a whole.
    f.store.set_legal_hold(f.clinic, true, NOW).await.expect("hold");
    for left in [70, 40, 10, 0] {
        let trimmed = trim(&f, &BY_AGE, day(50), 30).await;
        assert_eq!(trimmed.messages, if left == 0 { 10 } else { 30 });
        assert_eq!(held(&f, f.lab).await.len(), left);
        assert_eq!(retention_of(&f, f.lab).await.start, Offset(100 - left as u64));
    }
    assert_eq!(trim_all(&f, &BY_AGE, day(50)).await, Trimmed::default());
    assert_eq!(held(&f, f.clinic).await, [Offset(1)]);
}

pub async fn pages_join_across_what_has_gone(f: Fixture) {
    let names = ["a", "b", "a", "b", "a", "b", "a", "b"];
    for (days, name) in [0, 0, 10, 20, 30, 40, 50, 60].into_iter().zip(names) {
        let append = f.message(&f.robot, &topic(name)).await;
        append_at(&f, vec![append], day(days)).await;
    }
    let one = PageLimit { records: 1, ..GENEROUS };
    assert_eq!(
        offsets(&f.read_all(f.lab, &[selector("#")], one).await),
        (1..=8).map(Offset).collect::<Vec<_>>()
    );
    let page = f.store.read(f.lab, &[selector("a")], Offset(0), Offset(8), one).await.expect("read");
    assert_eq!(page.scanned_to, Offset(1));
    trim_all(&f, &BY_AGE, day(31 + SLACK_DAYS + 20)).await;
    let start = retention_of(&f, f.lab).await.start;
    assert!(start >= Offset(4), "{start:?}");
    // The next page of a reader whose place has gone is what is left.
    let page =
        f.store.read(f.lab, &[selector("a")], page.scanned_to, Offset(8), GENEROUS).await.expect("read");
    let left: Vec<Offset> = [5, 7].map(Offset).into_iter().filter(|offset| *offset > start).collect();
    assert_eq!((offsets(&page.messages), page.scanned_to), (left, Offset(8)));
    assert!(f.store.get(f.lab, &[Offset(1), Offset(4)]).await.expect("get").is_empty());
}

/// Reads never fail and lack nothing after the start, whatever goes meanwhile.
pub async fn a_reader_is_not_disturbed(f: Fixture) {
    for days in 0..120 {
        publish_on(&f, &f.robot, &[days]).await;
    }
    let store = Arc::clone(&f.store);
    let lab = f.lab;
    let reader = tokio::spawn(async move {
        let mut reads = 0;
        loop {
            let page =
                store.read(lab, &[selector("#")], Offset(0), Offset(120), GENEROUS).await.expect("read");
            let retention = store.retention().await.expect("retention");
            let start = retention.iter().find(|kept| kept.tenant == lab).expect("lab").start;
            let read = offsets(&page.messages);
            let after_start: Vec<Offset> = read.iter().copied().filter(|offset| *offset > start).collect();
            assert_eq!(after_start, (start.0 + 1..=120).map(Offset).collect::<Vec<_>>());
            reads += 1;
            if start >= Offset(80) {
                return reads;
            }
        }
    });
    for days in 30..=150 {
        trim_all(&f, &BY_AGE, day(days)).await;
    }
    assert!(reader.await.expect("the reader finds no gap") > 0);
}

pub async fn a_clock_that_jumps_weeks_loses_nothing_early(f: Fixture) {
    publish_on(&f, &f.robot, &[70, 140, 0, 70]).await;
    assert_eq!(held(&f, f.lab).await, [1, 2, 3, 4].map(Offset), "the order is that of commits");
    trim_all(&f, &BY_AGE, day(99)).await;
    let left = held(&f, f.lab).await;
    for young in [1, 2, 4].map(Offset) {
        assert!(left.contains(&young), "{left:?}");
    }
    trim_all(&f, &BY_AGE, day(171 + SLACK_DAYS)).await;
    assert_eq!(held(&f, f.lab).await, []);
    assert_eq!(retention_of(&f, f.lab).await.start, Offset(4));
    publish_on(&f, &f.robot, &[0]).await;
    assert_eq!(held(&f, f.lab).await, [Offset(5)], "also in a week that has gone");
}

pub async fn a_retained_message_outlives_its_place_in_the_log(f: Fixture) {
    let retained = Append { retain: RetainChange::Set, ..f.message(&f.robot, &topic("a")).await };
    append_at(&f, vec![retained], NOW).await;
    trim_all(&f, &BY_AGE, day(50)).await;
    assert_eq!(held(&f, f.lab).await, []);
    let page = f.store.retained(f.lab, &filter("a"), None, day(50), GENEROUS).await.expect("retained");
    assert_eq!(offsets(&page.messages), [Offset(1)]);
}

pub async fn what_waits_in_the_outbox_for_a_message_that_has_gone_goes_too(f: Fixture) {
    f.register(&f.bob).await;
    f.publish(&f.alice, &f.ward_topic()).await;
    trim_all(&f, &BY_AGE, day(50)).await;
    f.store.relay(100, day(50)).await.expect("relay");
    assert_eq!(f.store.lag(NOW).await.expect("lag").messages, 0);
}

pub async fn a_change_raises_the_revision_and_writes_one_audit_row(f: Fixture) {
    let before = f.store.revision().await.expect("revision");
    f.store.set_retention(f.lab, own(Some(90), None), NOW).await.expect("set");
    f.store.set_legal_hold(f.lab, true, NOW).await.expect("hold");
    f.store.set_legal_hold(f.lab, false, NOW).await.expect("lift");
    assert_eq!(f.store.revision().await.expect("revision"), before + 3);
    let audit = f.store.recent(Some(f.lab), 3).await.expect("audit");
    let actions: Vec<AuditAction> = audit.iter().map(|event| event.action).collect();
    assert_eq!(
        actions,
        [AuditAction::LegalHoldLifted, AuditAction::LegalHoldSet, AuditAction::RetentionChanged]
    );
    assert!(audit.iter().all(|event| event.resource == Some(f.lab.0) && event.allowed));
    let nobody = TenantId(uuid::Uuid::nil());
    let missing = f.store.set_legal_hold(nobody, true, NOW).await;
    assert!(matches!(missing, Err(DirectoryError::Missing("tenant"))));
    let missing = f.store.set_retention(nobody, own(None, None), NOW).await;
    assert!(matches!(missing, Err(DirectoryError::Missing("tenant"))));
    assert_eq!(f.store.revision().await.expect("revision"), before + 3);
}

fn own(days: Option<u32>, bytes: Option<u64>) -> RetentionLimits {
    RetentionLimits { days, bytes }
}

fn day(days: u64) -> UnixMillis {
    UnixMillis(NOW.0 + days * DAY_MS + 1)
}

async fn append_at(f: &Fixture, appends: Vec<Append>, at: UnixMillis) {
    f.store.append(&Batch { committed_at: at, ..f.batch(appends) }).await.expect("append");
}

/// A message each, committed so many days after `NOW`.
async fn publish_on(f: &Fixture, sender: &Person, days: &[u64]) {
    let place = if sender.principal.tenant == f.clinic { f.ward_topic() } else { topic("a") };
    for days in days {
        let append = f.message(sender, &place).await;
        append_at(f, vec![append], UnixMillis(NOW.0 + days * DAY_MS)).await;
    }
}

async fn publish_many(f: &Fixture, count: usize) {
    let mut appends = Vec::with_capacity(count);
    for _ in 0..count {
        appends.push(f.message_of(&f.robot, &topic("a"), &[0; 1000]).await);
    }
    append_at(f, appends, NOW).await;
}

async fn trim(f: &Fixture, policy: &RetentionPolicy, now: UnixMillis, limit: usize) -> Trimmed {
    f.store.trim(policy, now, limit).await.expect("trim")
}

/// All steps of a round, added up.
async fn trim_all(f: &Fixture, policy: &RetentionPolicy, now: UnixMillis) -> Trimmed {
    let mut sum = Trimmed::default();
    for _ in 0..STEPS_MAX {
        let trimmed = trim(f, policy, now, STEP).await;
        sum.messages += trimmed.messages;
        sum.weeks += trimmed.weeks;
        if !trimmed.goes_on {
            return sum;
        }
    }
    panic!("a round ends");
}

async fn held(f: &Fixture, tenant: TenantId) -> Vec<Offset> {
    offsets(&f.read_all(tenant, &[selector("#")], GENEROUS).await)
}

async fn retention_of(f: &Fixture, tenant: TenantId) -> TenantRetention {
    let all = f.store.retention().await.expect("retention");
    all.into_iter().find(|retention| retention.tenant == tenant).expect("every tenant's")
}

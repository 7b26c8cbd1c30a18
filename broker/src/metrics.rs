//! What operators see. Labels come from closed enumerations only.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use sotto_model::QoS;
use sotto_mqtt::reason::ReasonCode;

use crate::listener_name::ListenerName;

/// Why a message did not reach a session that it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    MailboxFull,
    TooLargeForClient,
    Expired,
    /// A stored message that does not open.
    Unreadable,
    /// Of a shared subscription: no member may have it.
    NotPermitted,
}

/// From what nobody notices to what somebody complains of; a wakeup that is not urgent takes minutes.
const HANDOVER_BUCKETS_SECONDS: [f64; 13] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3600.0];

/// Installs the recorder; the private listener renders it.
pub(crate) fn install() -> Result<PrometheusHandle, BuildError> {
    let handover = Matcher::Full("sotto_wakeup_handover_seconds".to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(handover, &HANDOVER_BUCKETS_SECONDS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

/// Counts of the message path: plain atomics, flushed to the recorder by the sweep, because a look-up by
/// label costs as much as a delivery.
struct Hot {
    messages_in: [AtomicU64; 3],
    messages_out: [AtomicU64; 3],
    dropped: [AtomicU64; 5],
    subscriptions: AtomicI64,
}

static HOT: Hot = Hot {
    messages_in: [const { AtomicU64::new(0) }; 3],
    messages_out: [const { AtomicU64::new(0) }; 3],
    dropped: [const { AtomicU64::new(0) }; 5],
    subscriptions: AtomicI64::new(0),
};

const QOS_LABELS: [&str; 3] = ["0", "1", "2"];
const DROP_LABELS: [&str; 5] =
    ["mailbox_full", "too_large_for_client", "expired", "unreadable", "not_permitted"];

pub(crate) fn message_in(qos: QoS) {
    HOT.messages_in[qos as usize].fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn message_out(qos: QoS) {
    HOT.messages_out[qos as usize].fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn dropped(cause: Drop) {
    HOT.dropped[cause as usize].fetch_add(1, Ordering::Relaxed);
}

/// So many more, or fewer, than before.
pub(crate) fn subscriptions_changed(before: usize, after: usize) {
    let change = i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX);
    HOT.subscriptions.fetch_add(change, Ordering::Relaxed);
}

/// Hands the hot counts to the recorder.
pub(crate) fn flush_hot() {
    for (label, count) in QOS_LABELS.iter().zip(&HOT.messages_in) {
        counter!("sotto_messages_in_total", "qos" => *label).absolute(count.load(Ordering::Relaxed));
    }
    for (label, count) in QOS_LABELS.iter().zip(&HOT.messages_out) {
        counter!("sotto_messages_out_total", "qos" => *label).absolute(count.load(Ordering::Relaxed));
    }
    for (label, count) in DROP_LABELS.iter().zip(&HOT.dropped) {
        counter!("sotto_messages_dropped_total", "cause" => *label).absolute(count.load(Ordering::Relaxed));
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    gauge!("sotto_subscriptions").set(HOT.subscriptions.load(Ordering::Relaxed) as f64);
}

pub(crate) fn connection_opened(listener: ListenerName) {
    gauge!("sotto_connections", "listener" => listener.as_str()).increment(1);
}

pub(crate) fn connection_closed(listener: ListenerName) {
    gauge!("sotto_connections", "listener" => listener.as_str()).decrement(1);
}

/// Closed before a byte of it was read.
pub(crate) fn connection_closed_unread(cause: &'static str) {
    counter!("sotto_connections_closed_unread_total", "cause" => cause).increment(1);
}

pub(crate) fn connect(outcome: ReasonCode) {
    counter!("sotto_connects_total", "outcome" => outcome.as_str()).increment(1);
}

pub(crate) fn disconnect(reason: &'static str) {
    counter!("sotto_disconnects_total", "reason" => reason).increment(1);
}

/// A publisher sent again what it had committed under the same id.
pub(crate) fn repeated() {
    counter!("sotto_messages_repeated_total").increment(1);
}

pub(crate) fn read_from(source: &'static str) {
    counter!("sotto_reads_total", "source" => source).increment(1);
}

/// Messages deleted one by one, and weeks of the log dropped as a whole.
pub(crate) fn trimmed(messages: u64, weeks: u64) {
    counter!("sotto_retention_messages_deleted_total").increment(messages);
    counter!("sotto_retention_weeks_dropped_total").increment(weeks);
}

/// Offsets that were deleted before a session had come to them.
pub(crate) fn history_missed(offsets: u64) {
    counter!("sotto_history_missed_offsets_total").increment(offsets);
    counter!("sotto_history_missed_sessions_total").increment(1);
}

fn describe() {
    describe_counter!("sotto_retention_messages_deleted_total", "Messages deleted one by one.");
    describe_counter!("sotto_retention_weeks_dropped_total", "Weeks of the log dropped as a whole.");
    describe_counter!(
        "sotto_history_missed_offsets_total",
        "Offsets deleted before a session that may have had messages there had come to them."
    );
    describe_counter!("sotto_history_missed_sessions_total", "Times that a session had missed any.");
    describe_gauge!("sotto_connections", "Open connections, handshakes included.");
    describe_gauge!("sotto_connections_max", "Connections that the node may hold.");
    // Named as Prometheus' own client libraries name them.
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Memory that the process uses.");
    describe_gauge!("process_cpu_seconds_total", Unit::Seconds, "CPU time that the process has used.");
    describe_gauge!("sotto_arrivals", "Accepted and not answered a CONNACK.");
    describe_counter!(
        "sotto_connections_closed_unread_total",
        "Connections closed as soon as they were accepted, by the limit that they met."
    );
    describe_counter!("sotto_accept_failures_total", "Times that connections could not be accepted.");
    describe_counter!("sotto_connects_total", "CONNECT packets answered, by the CONNACK's reason code.");
    describe_counter!("sotto_disconnects_total", "Connections ended, by reason.");
    describe_gauge!("sotto_handshakes_in_flight", "Handshakes in a slot.");
    describe_counter!("sotto_messages_in_total", "PUBLISH packets received, by QoS.");
    describe_counter!("sotto_messages_out_total", "PUBLISH packets sent, by QoS.");
    describe_counter!(
        "sotto_messages_dropped_total",
        "Messages that did not reach a live session, by cause."
    );
    describe_counter!(
        "sotto_messages_repeated_total",
        "PUBLISH packets not stored because their sotto-id had been committed."
    );
    describe_gauge!("sotto_sessions", "Sessions that this node knows, connected or not.");
    describe_gauge!("sotto_subscriptions", "Subscriptions of the sessions that this node knows.");
    describe_counter!("sotto_reads_total", "Pages of the log read for sessions, from memory or the store.");
    describe_gauge!("sotto_open_files", "Open file descriptors of the process.");
    describe_gauge!("sotto_open_files_max", "Most file descriptors that the process may open.");
    describe_counter!("sotto_drained_total", "Clients sent away because the node goes.");
    describe_gauge!("sotto_drain_remaining", "Connections still open while the node goes.");
    describe_counter!("sotto_tls_reloads_total", "Times that certificate, key, CA and CRL were read anew.");
    describe_gauge!(
        "sotto_tls_certificate_expires_seconds",
        Unit::Seconds,
        "When the server's certificate ends, seconds since the epoch."
    );
    describe_gauge!("sotto_ready", "1 while the node takes connections and its store answers.");
    describe_histogram!("sotto_commit_seconds", Unit::Seconds, "From taking a batch to its commit.");
    describe_histogram!("sotto_commit_batch_records", "Messages in a commit.");
    describe_gauge!("sotto_commit_queue_bytes", Unit::Bytes, "Waiting for a commit.");
    describe_counter!("sotto_commit_retries_total", "Commits tried again because the store was away.");
    describe_gauge!("sotto_tail_bytes", Unit::Bytes, "Recent log held in memory.");
    describe_gauge!("sotto_outbox_rows", "Messages whose wakeups have not been worked out.");
    describe_gauge!("sotto_outbox_oldest_seconds", Unit::Seconds, "Age of the oldest outbox row.");
    describe_counter!("sotto_wakeups_total", "Wakeups, by platform and outcome.");
    describe_histogram!(
        "sotto_wakeup_handover_seconds",
        Unit::Seconds,
        "From a message's commit to its wakeup's hand-over, by urgency."
    );
    describe_gauge!("sotto_wakeups_outstanding", "Wakeups in the store, by push service, app and state.");
    describe_gauge!("sotto_wakeups_unserved", "Wakeups for push services that this node does not have.");
    describe_gauge!(
        "sotto_push_breaker",
        "0: pushes go; 1: one is tried; 2: the push service is left alone."
    );
    describe_counter!("sotto_push_faults_total", "Pushes rejected for good, by platform and fault.");
    describe_gauge!("sotto_dead_letters", "Wakeups given up.");
    describe_counter!("sotto_audit_lost_total", "Audit rows of refusals that found no room.");
}

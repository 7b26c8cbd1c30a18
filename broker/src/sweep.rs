//! Two rounds a second, for what sessions would else need a timer each: Keep Alive, progress to be kept; gauges
//! and expiry come in some of them.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use sotto_model::Clock;
use sotto_model::limits::PUBLICATION_ID_WINDOW;
use tokio_util::sync::CancellationToken;

use crate::cpu_use::cpu_used;
use crate::memory_use::resident_bytes;
use crate::metrics::flush_hot;
use crate::open_files::OpenFiles;
use crate::services::Services;
use crate::session_entry::Command;

const ROUND: Duration = Duration::from_millis(500);
/// Rounds between two looks for progress to be kept and for what the gauges say.
const FULL_EVERY_ROUNDS: u64 = 2;
/// Rounds between two looks for expired sessions.
const EXPIRY_EVERY_ROUNDS: u64 = 10;
/// Sessions expired in one look, and retained messages.
const EXPIRED_PER_LOOK_MAX: usize = 1000;
/// Publication ids forgotten in one transaction, and transactions in one look.
const FORGOTTEN_PER_STEP_MAX: usize = 1000;
const FORGETTING_STEPS_PER_LOOK_MAX: usize = 50;

pub(crate) async fn sweep(services: Arc<Services>, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u64.. {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        time_out(&services);
        services.admission.sweep(services.clock.tenths());
        if round % FULL_EVERY_ROUNDS == 0 {
            services.unsaved.wake();
            flush_hot();
            services.admission.report();
            if let Some(bytes) = resident_bytes() {
                services.admission.note_memory(bytes);
                gauge!("process_resident_memory_bytes").set(bytes_of(bytes));
            }
            if let Some(used) = cpu_used() {
                gauge!("process_cpu_seconds_total").set(used.as_secs_f64());
            }
            gauge!("sotto_sessions").set(count(services.registry.len()));
            OpenFiles::read().report();
        }
        if round % EXPIRY_EVERY_ROUNDS == 0 {
            services.admission.forget(services.clock.tenths());
            expire(&services).await;
        }
    }
}

fn time_out(services: &Services) {
    services.deadlines.look(services.clock.tenths(), |entry| entry.command(Command::TimedOut));
}

async fn expire(services: &Services) {
    services.registry.shrink();
    // A store that is away keeps its sessions until it is back.
    let Ok(expired) = services.store.expire(services.clock.unix_now(), EXPIRED_PER_LOOK_MAX).await else {
        return;
    };
    for (tenant, client_id) in expired {
        services.registry.expire(tenant, &client_id);
    }
    // What is left is not sent to anybody meanwhile.
    let _ = services.store.expire_retained(services.clock.unix_now(), EXPIRED_PER_LOOK_MAX).await;
    forget_publications(services).await;
}

async fn forget_publications(services: &Services) {
    let before = services.clock.unix_now().saturating_sub(PUBLICATION_ID_WINDOW);
    for _ in 0..FORGETTING_STEPS_PER_LOOK_MAX {
        let forgotten = services.store.forget_publications(before, FORGOTTEN_PER_STEP_MAX).await;
        if !matches!(forgotten, Ok(FORGOTTEN_PER_STEP_MAX)) {
            return;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below eight pebibytes")]
fn bytes_of(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

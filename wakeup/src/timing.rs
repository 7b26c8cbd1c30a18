//! When a wakeup that is due may leave. Pure: the same wakeup is always given the same moment, so that
//! whoever claims it again after having put it off sends it then.

use std::time::Duration;

use sotto_model::{DeviceId, UnixMillis, Urgency};
use sotto_storage::push_registry::Platform;

use crate::limits::{BACKGROUND_INTERVAL_MIN, LOW_JITTER_MAX, QUARTER_HOUR_GUARD};

const QUARTER_HOUR: Duration = Duration::from_mins(15);

/// What there is to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) device: DeviceId,
    pub(crate) platform: Platform,
    pub(crate) urgency: Urgency,
    pub(crate) since: UnixMillis,
    /// When the device was last sent one that is not urgent.
    pub(crate) last_low_sent_at: Option<UnixMillis>,
}

/// Urgent: at once. Otherwise somewhere in the next minutes, lest the push tells when the message was
/// sent; on iOS, which drops what comes more often, at least 20 minutes after the last; and with FCM not
/// around the quarter hours, when everybody sends.
pub(crate) fn leaves_at(due: Due) -> UnixMillis {
    if due.urgency == Urgency::High {
        return due.since;
    }
    let draw = draw(due.device, due.since);
    let at = due.since.saturating_add(part(LOW_JITTER_MAX, draw));
    match due.platform {
        Platform::Apns => {
            let earliest = due.last_low_sent_at.map(|last| last.saturating_add(BACKGROUND_INTERVAL_MIN));
            earliest.map_or(at, |earliest| at.max(earliest))
        }
        Platform::Fcm => off_the_quarter_hour(at, draw),
        Platform::WebPush | Platform::UnifiedPush => at,
    }
}

/// Those that would leave near a quarter hour are spread over a few minutes behind it.
fn off_the_quarter_hour(at: UnixMillis, draw: u64) -> UnixMillis {
    let quarter = millis(QUARTER_HOUR);
    let guard = millis(QUARTER_HOUR_GUARD);
    let into = at.0 % quarter;
    let to_the_end_of_the_guard = match into {
        into if into <= guard => guard - into,
        into if into >= quarter - guard => quarter - into + guard,
        _ => return at,
    };
    at.saturating_add(Duration::from_millis(to_the_end_of_the_guard + 1) + part(LOW_JITTER_MAX, draw))
}

/// `draw` of 2^64 parts of the whole.
fn part(whole: Duration, draw: u64) -> Duration {
    let part = (u128::from(millis(whole)) * u128::from(draw)) >> 64;
    Duration::from_millis(u64::try_from(part).expect("a part is not longer than the whole"))
}

/// Uniform over devices and moments, and told from neither by anybody without the ids: SplitMix64's mixing.
fn draw(device: DeviceId, since: UnixMillis) -> u64 {
    let (high, low) = device.0.as_u64_pair();
    let mut mixed = high ^ low.rotate_left(32) ^ since.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("the bounds fit")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// 2026-11-22T10:00:00Z, on the hour.
    const HOUR: u64 = 1_795_341_600_000;

    fn due(device: u128, platform: Platform, urgency: Urgency, since: u64) -> Due {
        let device =
            DeviceId(Uuid::from_u128(device.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)));
        Due { device, platform, urgency, since: UnixMillis(since), last_low_sent_at: None }
    }

    #[test]
    fn an_urgent_one_leaves_at_once_at_any_time_and_on_every_platform() {
        for platform in Platform::ALL {
            for since in [HOUR, HOUR + 1, HOUR + 400_000] {
                let mut due = due(1, platform, Urgency::High, since);
                due.last_low_sent_at = Some(UnixMillis(since));
                assert_eq!(leaves_at(due), UnixMillis(since));
            }
        }
    }

    #[test]
    fn one_that_is_not_urgent_is_put_off_evenly_and_always_to_the_same_moment() {
        let waits: Vec<u64> = (0..1000)
            .map(|device| {
                let due = due(device, Platform::WebPush, Urgency::Low, HOUR);
                assert_eq!(leaves_at(due), leaves_at(due));
                leaves_at(due).0 - HOUR
            })
            .collect();
        let whole = millis(LOW_JITTER_MAX);
        assert!(waits.iter().all(|wait| *wait < whole));
        for tenth in 0..10 {
            let bounds = whole * tenth / 10..whole * (tenth + 1) / 10;
            let count = waits.iter().filter(|wait| bounds.contains(wait)).count();
            assert!((60..150).contains(&count), "{count} of 1000 in {tenth}");
        }
    }

    #[test]
    fn an_ios_device_has_20_minutes_between_two_that_are_not_urgent() {
        let mut due = due(7, Platform::Apns, Urgency::Low, HOUR);
        let jittered = leaves_at(due);
        due.last_low_sent_at = Some(UnixMillis(HOUR - 60_000));
        assert_eq!(leaves_at(due), UnixMillis(HOUR + 19 * 60_000));
        due.last_low_sent_at = Some(UnixMillis(HOUR - 3_600_000));
        assert_eq!(leaves_at(due), jittered);
    }

    #[test]
    fn fcm_is_left_alone_around_the_quarter_hours() {
        for seconds in (0..7200).step_by(7) {
            for device in 0..20 {
                let since = HOUR + seconds * 1000;
                let at = leaves_at(due(device, Platform::Fcm, Urgency::Low, since)).0;
                let into = at % millis(QUARTER_HOUR);
                let guard = millis(QUARTER_HOUR_GUARD);
                assert!(into > guard && into < millis(QUARTER_HOUR) - guard, "{into} ms into the quarter");
                assert!(at >= since && at - since <= millis(2 * LOW_JITTER_MAX + 2 * QUARTER_HOUR_GUARD) + 1);
            }
        }
    }
}

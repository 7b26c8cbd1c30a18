//! How fast a figure grows: the slope of the straight line that fits best.

/// Per hour, of `(seconds, value)`; `None` with fewer than three points or all at one time.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 points")]
pub(crate) fn slope_per_hour(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let (sum_at, sum_value) = points.iter().fold((0.0, 0.0), |(a, v), (at, value)| (a + at, v + value));
    let (mean_at, mean_value) = (sum_at / count, sum_value / count);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (at, value) in points {
        covariance += (at - mean_at) * (value - mean_value);
        variance += (at - mean_at) * (at - mean_at);
    }
    (variance > 0.0).then(|| covariance / variance * 3600.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_few_points_have_no_slope() {
        assert_eq!(slope_per_hour(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(slope_per_hour(&[(5.0, 1.0), (5.0, 2.0), (5.0, 3.0)]), None);
    }

    proptest! {
        #[test]
        fn a_straight_line_has_its_own_slope_whatever_noise_cancels_out(
            slope in -1e6..1e6_f64, offset in -1e9..1e9_f64, noise in 0.0..1e3_f64,
        ) {
            // The noise alternates within mirrored quarters, so that it has no slope of its own.
            let points: Vec<_> = (0..400_i32)
                .map(|k| {
                    let sign = if (k % 2 == 0) == (k < 200) { 1.0 } else { -1.0 };
                    (f64::from(k), offset + slope / 3600.0 * f64::from(k) + noise * sign)
                })
                .collect();
            let fitted = slope_per_hour(&points).expect("many points");
            prop_assert!((fitted - slope).abs() <= slope.abs() * 1e-3 + noise * 20.0 + 1e-2, "{} {}", fitted, slope);
        }
    }
}

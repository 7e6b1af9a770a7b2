//! Summaries of many measurements.

use std::time::Duration;

use serde::Serialize;

/// How long things took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) count: usize,
    pub(super) p50_secs: f64,
    pub(super) p95_secs: f64,
    pub(super) p99_secs: f64,
    pub(super) max_secs: f64,
}

impl Latency {
    /// `None` when nothing was measured.
    pub(super) fn of(times: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut secs: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
        secs.sort_by(f64::total_cmp);
        Some(Self {
            count: secs.len(),
            p50_secs: percentile(&secs, 50.0)?,
            p95_secs: percentile(&secs, 95.0)?,
            p99_secs: percentile(&secs, 99.0)?,
            max_secs: percentile(&secs, 100.0)?,
        })
    }
}

/// The smallest value that is not exceeded by `percent` of them: one that was measured, not one between two.
fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (percent, value) in
            [(0.0, 1.0), (50.0, 50.0), (95.0, 95.0), (99.0, 99.0), (99.5, 100.0), (100.0, 100.0)]
        {
            assert_eq!(percentile(&hundred, percent), Some(value), "{percent}");
        }
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn a_latency_sorts_what_it_is_given() {
        let times = [30, 10, 20].map(Duration::from_millis);
        let latency = Latency::of(times.into_iter()).expect("measured");
        assert_eq!((latency.count, latency.p50_secs, latency.max_secs), (3, 0.02, 0.03));
        assert_eq!(Latency::of(std::iter::empty()), None);
    }
}

//! Summaries of many measurements.

use std::time::Duration;

use serde::Serialize;

use super::super::percentile;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_sorts_what_it_is_given() {
        let times = [30, 10, 20].map(Duration::from_millis);
        let latency = Latency::of(times.into_iter()).expect("measured");
        assert_eq!((latency.count, latency.p50_secs, latency.max_secs), (3, 0.02, 0.03));
        assert_eq!(Latency::of(std::iter::empty()), None);
    }
}

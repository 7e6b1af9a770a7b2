//! Who asks for what, and when: all of it drawn from one seed before the first request is made.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// One kind of request. Equal kinds must get equal answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// Position among the recordings.
    pub(super) recording: usize,
    /// Whether the text is wanted while it is written.
    pub(super) is_stream: bool,
}

/// A client that does not wait for its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Leave {
    /// It goes when this share of the upload is sent.
    DuringUpload(f64),
    /// It goes after this share of the time that the request takes alone.
    DuringWork(f64),
}

/// One request to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arrival {
    /// When, from the start, whatever has become of those before.
    pub(super) at: Duration,
    pub(super) kind: Kind,
    pub(super) leave: Option<Leave>,
}

/// Shares of requests, each from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// Want the text while it is written.
    pub(super) stream: f64,
    /// Leave before the end.
    pub(super) abort: f64,
}

/// At most `n` of `found`, chosen by the seed, in the order they were found.
pub(super) fn choose<T>(seed: u64, found: Vec<T>, n: usize) -> Vec<T> {
    let mut rng = Rng::new(seed, Stream::Recordings);
    let mut keyed: Vec<_> = found.into_iter().enumerate().map(|item| (rng.uniform(), item)).collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    keyed.truncate(n);
    keyed.sort_by_key(|(_, (index, _))| *index);
    keyed.into_iter().map(|(_, (_, item))| item).collect()
}

/// `n_requests` arrivals of a Poisson process of one request per second.
pub(super) fn arrivals(seed: u64, n_requests: usize, n_recordings: usize, shares: Shares) -> Vec<Arrival> {
    // One stream of numbers per question: asking for aborts changes neither times nor recordings.
    let mut times = Rng::new(seed, Stream::Times);
    let mut kinds = Rng::new(seed, Stream::Kinds);
    let mut leaves = Rng::new(seed, Stream::Leaves);
    let mut at_secs = 0.0;
    (0..n_requests)
        .map(|_| {
            at_secs -= (1.0 - times.uniform()).ln();
            let recording = (kinds.uniform() * n_recordings as f64) as usize;
            let kind = Kind { recording, is_stream: kinds.uniform() < shares.stream };
            let (leaves_early, during_upload, share) = (leaves.uniform(), leaves.uniform(), leaves.uniform());
            let leave = (leaves_early < shares.abort).then_some(if during_upload < 0.25 {
                Leave::DuringUpload(share)
            } else {
                Leave::DuringWork(share)
            });
            Arrival { at: Duration::from_secs_f64(at_secs), kind, leave }
        })
        .collect()
}

/// The same arrivals at `rate_per_sec` requests per second.
pub(super) fn at_rate(mut arrivals: Vec<Arrival>, rate_per_sec: f64) -> Vec<Arrival> {
    for arrival in &mut arrivals {
        arrival.at = arrival.at.div_f64(rate_per_sec);
    }
    arrivals
}

/// What the numbers are for.
#[derive(Clone, Copy)]
enum Stream {
    Recordings,
    Times,
    Kinds,
    Leaves,
}

struct Rng(ChaCha8Rng);

impl Rng {
    fn new(seed: u64, stream: Stream) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        Self(rng)
    }

    /// From 0 to below 1.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares { stream: 0.25, abort: 0.1 };

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(arrivals(7, 500, 9, SHARES), arrivals(7, 500, 9, SHARES));
        assert_ne!(arrivals(7, 500, 9, SHARES), arrivals(8, 500, 9, SHARES));
        let longer = arrivals(7, 900, 9, SHARES);
        assert_eq!(longer[..500], arrivals(7, 500, 9, SHARES));
    }

    #[test]
    fn arrivals_are_a_poisson_process_of_the_rate_asked_for() {
        let n = 20_000;
        let arrivals = at_rate(arrivals(1, n, 3, SHARES), 50.0);
        let last = arrivals[n - 1].at.as_secs_f64();
        assert!((n as f64 / last / 50.0 - 1.0).abs() < 0.03, "{last}");
        let gaps: Vec<_> = arrivals.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn shares_and_recordings_are_as_asked_for() {
        let n = 20_000;
        let arrivals = arrivals(1, n, 4, SHARES);
        let share =
            |is: &dyn Fn(&Arrival) -> bool| arrivals.iter().filter(|a| is(a)).count() as f64 / n as f64;
        assert!((share(&|a| a.kind.is_stream) - 0.25).abs() < 0.02);
        assert!((share(&|a| a.leave.is_some()) - 0.1).abs() < 0.01);
        assert!((share(&|a| matches!(a.leave, Some(Leave::DuringUpload(_)))) - 0.025).abs() < 0.01);
        for recording in 0..4 {
            assert!((share(&|a| a.kind.recording == recording) - 0.25).abs() < 0.02);
        }
    }

    #[test]
    fn aborts_change_neither_times_nor_recordings() {
        let quiet = arrivals(3, 100, 5, Shares { abort: 0.0, ..SHARES });
        let aborted = arrivals(3, 100, 5, Shares { abort: 1.0, ..SHARES });
        assert!(quiet.iter().zip(&aborted).all(|(a, b)| (a.at, a.kind) == (b.at, b.kind)));
        assert!(aborted.iter().all(|arrival| arrival.leave.is_some()));
    }

    #[test]
    fn a_choice_keeps_the_order_and_takes_all_when_it_may() {
        let chosen = choose(2, (0..100).collect(), 10);
        assert!(chosen.len() == 10 && chosen.is_sorted(), "{chosen:?}");
        assert_eq!(choose(2, (0..100).collect(), 10), chosen);
        assert_eq!(choose(2, vec!['a', 'b'], 10), ['a', 'b']);
    }
}

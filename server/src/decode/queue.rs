//! Whose turn it is to decode. The first come is not the first served: two recordings of hours would keep everybody waiting
//! for a minute. A short upload goes before a long one that has waited less than the difference of their lengths is worth,
//! and when all places are taken by others there is one more for small uploads alone.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::Uploads;

/// Bytes that weigh as much as a second of waiting.
const BYTES_PER_SEC: f64 = (1 << 20) as f64;
/// The most that an upload's length may weigh: nobody is overtaken by those who come later than that.
const MAX_HANDICAP: Duration = Duration::from_secs(60);

/// Places to decode at, and those who wait for one.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Uploads,
    line: Mutex<Line<oneshot::Sender<Turn>>>,
}

/// The right to decode. Dropping it calls the next one.
#[derive(Debug)]
pub(super) struct Turn {
    /// `None` when nobody wanted the turn.
    queue: Option<Arc<Queue>>,
    place: Place,
}

/// A place to decode at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Any,
    /// For small uploads, when there is no other.
    Small,
}

/// Where somebody stands: when it is due, and who came first.
type Rank = (Instant, u64);

impl Queue {
    pub(super) fn new(limits: Uploads) -> Arc<Self> {
        let n_small = usize::from(limits.small_upload_bytes > 0);
        Arc::new(Self { limits, line: Mutex::new(Line::new(limits.n_children(), n_small)) })
    }

    /// Waits until an upload of this size may be decoded. Dropping the future leaves the line.
    pub(super) async fn turn(self: &Arc<Self>, upload_bytes: u64) -> Option<Turn> {
        let (call, called) = oneshot::channel();
        let is_small = self.limits.is_small(upload_bytes);
        let rank = self.line.lock().join(Instant::now(), upload_bytes, is_small, call);
        let _waiting = Waiting { queue: self, rank };
        self.call();
        // The other end is held by the line until it is used.
        called.await.ok()
    }

    /// Calls all for whom there is a place.
    fn call(self: &Arc<Self>) {
        loop {
            let next = self.line.lock().next();
            let Some((call, place)) = next else { return };
            if let Err(mut unwanted) = call.send(Turn { queue: Some(Arc::clone(self)), place }) {
                unwanted.queue = None;
                self.line.lock().release(place);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.line.lock().release(self.place);
            queue.call();
        }
    }
}

/// Somebody in the line.
struct Waiting<'a> {
    queue: &'a Queue,
    rank: Rank,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.line.lock().waiting.remove(&self.rank);
    }
}

/// The line by itself: no clock, no tasks.
#[derive(Debug)]
struct Line<T> {
    n_any: usize,
    n_small: usize,
    waiting: BTreeMap<Rank, Waiter<T>>,
    n_came: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    is_small: bool,
    call: T,
}

impl<T> Line<T> {
    fn new(n_any: usize, n_small: usize) -> Self {
        Self { n_any, n_small, waiting: BTreeMap::new(), n_came: 0 }
    }

    fn join(&mut self, now: Instant, upload_bytes: u64, is_small: bool, call: T) -> Rank {
        let handicap = Duration::from_secs_f64(upload_bytes as f64 / BYTES_PER_SEC).min(MAX_HANDICAP);
        let rank = (now + handicap, self.n_came);
        self.n_came += 1;
        self.waiting.insert(rank, Waiter { is_small, call });
        rank
    }

    /// The next one for whom there is a place, which it takes.
    fn next(&mut self) -> Option<(T, Place)> {
        if self.n_any > 0 {
            let (_, waiter) = self.waiting.pop_first()?;
            self.n_any -= 1;
            return Some((waiter.call, Place::Any));
        }
        if self.n_small == 0 {
            return None;
        }
        let rank = *self.waiting.iter().find(|(_, waiter)| waiter.is_small)?.0;
        let waiter = self.waiting.remove(&rank)?;
        self.n_small -= 1;
        Some((waiter.call, Place::Small))
    }

    fn release(&mut self, place: Place) {
        match place {
            Place::Any => self.n_any += 1,
            Place::Small => self.n_small += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const HOURS: u64 = 60 * MIB;

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Who goes to which place, in order, until nobody can.
    fn called(line: &mut Line<&'static str>) -> Vec<(&'static str, Place)> {
        std::iter::from_fn(|| line.next()).collect()
    }

    #[test]
    fn a_short_upload_does_not_wait_for_long_ones() {
        let (mut line, now) = (Line::new(2, 1), Instant::now());
        for name in ["first", "second", "third"] {
            line.join(now, HOURS, false, name);
        }
        assert_eq!(called(&mut line), [("first", Place::Any), ("second", Place::Any)]);
        // Now, not in a minute: there is a place that long ones cannot take.
        line.join(now, 4_000, true, "clip");
        line.join(now, 5_000, true, "other clip");
        assert_eq!(called(&mut line), [("clip", Place::Small)]);
        // Both kinds of places are open to it, and it goes before what is longer.
        line.release(Place::Any);
        assert_eq!(called(&mut line), [("other clip", Place::Any)]);
        line.release(Place::Small);
        assert_eq!(called(&mut line), []);
        line.release(Place::Any);
        assert_eq!(called(&mut line), [("third", Place::Any)]);
    }

    #[test]
    fn the_shortest_goes_first_until_a_longer_one_has_waited_enough() {
        let (mut line, now) = (Line::new(0, 0), Instant::now());
        line.join(now, 30 * MIB, false, "long");
        line.join(now + secs(1.0), 10 * MIB, false, "shorter");
        line.join(now + secs(10.5), MIB / 2, false, "short, in time");
        line.join(now + secs(29.9), MIB / 2, false, "short, too late");
        line.join(now + secs(30.1), 0, false, "empty, too late");
        let mut order = Vec::new();
        for _ in 0..5 {
            line.release(Place::Any);
            order.extend(called(&mut line).into_iter().map(|(name, _)| name));
        }
        let expected = ["shorter", "short, in time", "long", "empty, too late", "short, too late"];
        assert_eq!(order, expected);
    }

    #[test]
    fn equals_go_in_the_order_in_which_they_came() {
        let (mut line, now) = (Line::new(3, 0), Instant::now());
        for (name, bytes) in [("a", HOURS), ("b", u64::MAX), ("c", 70 * MIB)] {
            line.join(now, bytes, false, name);
        }
        assert_eq!(called(&mut line).iter().map(|(name, _)| *name).collect::<String>(), "abc");
    }

    fn queue(decode_children: usize, small_upload_bytes: u64) -> Arc<Queue> {
        let uploads = crate::config::Config::load(None).expect("the defaults").uploads;
        Queue::new(Uploads { decode_children, small_upload_bytes, ..uploads })
    }

    #[tokio::test]
    async fn whoever_leaves_the_line_is_not_called_and_holds_nothing() {
        let queue = queue(1, 0);
        let turn = queue.turn(1).await.expect("a place");
        for _ in 0..3 {
            let left = tokio::time::timeout(Duration::from_millis(1), queue.turn(1)).await;
            assert!(left.is_err() && queue.line.lock().waiting.is_empty());
        }
        // Called, but gone before it heard of it.
        let mut unheard = Box::pin(queue.turn(1));
        assert!(poll_fn(|context| Poll::Ready(unheard.as_mut().poll(context).is_pending())).await);
        drop(turn);
        assert_eq!(queue.line.lock().n_any, 0);
        drop(unheard);
        assert_eq!(queue.line.lock().n_any, 1);
        assert!(queue.turn(1).await.is_some());
    }

    proptest! {
        /// Each step: somebody comes after so many seconds, with so many MiB, or somebody is done.
        #[test]
        fn nobody_starves_and_no_place_stays_empty(
            (n_any, n_small) in (1_usize..4, 0_usize..2),
            steps in prop::collection::vec((0.0..20.0_f64, prop::option::of(0_u64..200)), 1..80),
        ) {
            let (mut line, mut now) = (Line::new(n_any, n_small), Instant::now());
            let (mut inside, mut came, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            let check = |line: &mut Line<usize>, inside: &mut Vec<Place>, waiting: &mut Vec<usize>,
                         came: &[(Instant, bool)]| {
                while let Some((who, place)) = line.next() {
                    prop_assert!(place == Place::Any || came[who].1);
                    inside.push(place);
                    waiting.retain(|other| *other != who);
                    // Who still waits and could have gone has not come so much earlier.
                    for other in waiting.iter().filter(|other| place == Place::Any || came[**other].1) {
                        prop_assert!(came[who].0 <= came[*other].0 + MAX_HANDICAP);
                    }
                }
                let n_taken = |place| inside.iter().filter(|taken| **taken == place).count();
                prop_assert!(n_taken(Place::Any) <= n_any && n_taken(Place::Small) <= n_small);
                prop_assert!(waiting.is_empty() || n_taken(Place::Any) == n_any);
                prop_assert!(!waiting.iter().any(|who| came[*who].1) || n_taken(Place::Small) == n_small);
                Ok(())
            };
            for (pause_secs, mib) in steps {
                now += secs(pause_secs);
                match mib {
                    Some(mib) => {
                        line.join(now, mib * MIB, mib <= 1, came.len());
                        waiting.push(came.len());
                        came.push((now, mib <= 1));
                    }
                    None if !inside.is_empty() => line.release(inside.remove(0)),
                    None => {}
                }
                check(&mut line, &mut inside, &mut waiting, &came)?;
            }
            while !inside.is_empty() {
                line.release(inside.remove(0));
                check(&mut line, &mut inside, &mut waiting, &came)?;
            }
            prop_assert!(waiting.is_empty() && line.waiting.is_empty());
            prop_assert_eq!((line.n_any, line.n_small), (n_any, n_small));
        }
    }
}

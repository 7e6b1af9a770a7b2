//! What responses have made and their clients have not taken: so many bytes of all of them together, and no more.
//!
//! Sound is made faster than it is listened to, and no model waits for a client: what is made is kept. While there is room a
//! client may take it as slowly as it likes, as long as it takes some: `serve.write_timeout_secs` cuts off who takes nothing.
//! When there is no room, whoever has left the most is cut off: its bytes go at once, and those who read fast enough, who have
//! next to nothing here, notice nothing.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The bytes of all responses that wait for their clients.
#[derive(Debug)]
pub struct Unread {
    max_bytes: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    n_came: u64,
    n_bytes: usize,
    /// Those that were not cut off.
    backlogs: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    n_bytes: usize,
    cut: Arc<Notify>,
}

/// What waits of one response. Dropping it gives all of it back.
#[derive(Debug)]
pub struct Backlog {
    all: Arc<Unread>,
    number: u64,
    cut: Arc<Notify>,
}

impl Unread {
    /// Room for so many bytes of all responses together.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, inside: Mutex::default() })
    }

    /// How many there may be.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// How many there are.
    pub fn n_bytes(&self) -> usize {
        self.inside.lock().n_bytes
    }

    /// A response that begins.
    pub fn begin(self: &Arc<Self>) -> Backlog {
        let mut inside = self.inside.lock();
        let number = inside.n_came;
        inside.n_came += 1;
        let cut = Arc::new(Notify::new());
        inside.backlogs.insert(number, Waiting { n_bytes: 0, cut: Arc::clone(&cut) });
        Backlog { all: Arc::clone(self), number, cut }
    }
}

impl Inside {
    /// Cuts off whoever has left the most, until the others fit.
    fn make_room(&mut self, max_bytes: usize) {
        while self.n_bytes > max_bytes {
            let most =
                self.backlogs.iter().max_by_key(|(_, waiting)| waiting.n_bytes).map(|(number, _)| *number);
            let Some(waiting) = most.and_then(|number| self.backlogs.remove(&number)) else { return };
            self.n_bytes -= waiting.n_bytes;
            waiting.cut.notify_one();
        }
    }
}

impl Backlog {
    /// More waits. Where that is too much, somebody is cut off, this one perhaps.
    pub fn add(&self, n_bytes: usize) {
        let mut inside = self.all.inside.lock();
        let Some(waiting) = inside.backlogs.get_mut(&self.number) else { return };
        waiting.n_bytes += n_bytes;
        inside.n_bytes += n_bytes;
        inside.make_room(self.all.max_bytes);
    }

    /// So much of it was taken.
    pub fn take(&self, n_bytes: usize) {
        let mut inside = self.all.inside.lock();
        let Some(waiting) = inside.backlogs.get_mut(&self.number) else { return };
        let n_bytes = n_bytes.min(waiting.n_bytes);
        waiting.n_bytes -= n_bytes;
        inside.n_bytes -= n_bytes;
    }

    /// Ends when the response is cut off: whoever holds its bytes lets go of them then. Ends once.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let mut inside = self.all.inside.lock();
        if let Some(waiting) = inside.backlogs.remove(&self.number) {
            inside.n_bytes -= waiting.n_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn is_cut(backlog: &Backlog) -> bool {
        backlog.cut().now_or_never().is_some()
    }

    #[test]
    fn who_has_left_the_most_is_cut_off_when_there_is_no_room() {
        let all = Unread::new(100);
        let [fast, slow, idle] = [(); 3].map(|()| all.begin());
        idle.add(60);
        slow.add(30);
        fast.add(10);
        fast.take(10);
        assert_eq!(all.n_bytes(), 90);
        fast.add(11);
        assert!(is_cut(&idle) && !is_cut(&slow) && !is_cut(&fast));
        assert_eq!(all.n_bytes(), 41);
        // Nothing of it counts any more.
        idle.add(1_000);
        idle.take(1_000);
        drop(idle);
        assert_eq!(all.n_bytes(), 41);
        drop(slow);
        assert_eq!(all.n_bytes(), 11);
        fast.add(90);
        assert!(is_cut(&fast), "alone it is the one that has left the most");
        assert_eq!(all.n_bytes(), 0);
    }

    proptest! {
        #[test]
        fn what_waits_is_never_more_than_there_is_room_for(
            steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), 0_usize..70), 0..80),
        ) {
            let all = Unread::new(100);
            let mut waiting: Vec<(Backlog, usize)> = Vec::new();
            for (what, who, n_bytes) in steps {
                match what {
                    0 => waiting.push((all.begin(), 0)),
                    _ if waiting.is_empty() => {}
                    1 => drop(waiting.swap_remove(who.index(waiting.len()))),
                    2 => {
                        let place = who.index(waiting.len());
                        let (backlog, n_left) = &mut waiting[place];
                        backlog.add(n_bytes);
                        *n_left += n_bytes;
                    }
                    _ => {
                        let place = who.index(waiting.len());
                        let (backlog, n_left) = &mut waiting[place];
                        let n_bytes = n_bytes.min(*n_left);
                        backlog.take(n_bytes);
                        *n_left -= n_bytes;
                    }
                }
                waiting.retain(|(backlog, _)| !is_cut(backlog));
                prop_assert_eq!(all.n_bytes(), waiting.iter().map(|(_, n_left)| n_left).sum::<usize>());
                prop_assert!(all.n_bytes() <= 100);
            }
            drop(waiting);
            prop_assert_eq!(all.n_bytes(), 0);
        }
    }
}

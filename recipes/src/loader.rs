//! Batches, loaded ahead by a few threads and handed over in their order. What is in a batch does not depend on how many
//! threads there are.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Batches that each thread keeps ready.
const BATCHES_AHEAD: usize = 2;

/// A place in the endless row of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// Times that all data were seen before.
    pub epoch: u64,
    /// Batches of the epoch before this one.
    pub batch: usize,
}

/// Where batches come from.
pub trait Source: Sync {
    /// A batch, ready for a task.
    type Batch: Send;

    /// Batches of an epoch, at least one.
    fn n_batches(&self, epoch: u64) -> usize;

    /// The batch at this place: the same one whenever it is asked for.
    ///
    /// # Errors
    /// When no batch can be made at all. Single recordings that cannot be read are [`Loaded::faults`].
    fn load(&self, at: Position) -> Result<Loaded<Self::Batch>, Error>;
}

/// What became of a batch.
#[derive(Debug)]
pub struct Loaded<B> {
    /// What can be trained on, in parts that may be computed side by side; none if nothing is left.
    pub parts: Vec<B>,
    /// Recordings that were left out.
    pub faults: Vec<Fault>,
}

/// A recording that cannot be trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its cut's id.
    pub cut: String,
    /// Why.
    pub reason: String,
}

impl Position {
    /// `n` batches later.
    #[must_use]
    pub fn after<S: Source + ?Sized>(mut self, n: usize, source: &S) -> Self {
        self.batch += n;
        loop {
            let n_batches = source.n_batches(self.epoch).max(1);
            if self.batch < n_batches {
                return self;
            }
            self.batch -= n_batches;
            self.epoch += 1;
        }
    }
}

/// Loads ahead. Dropping it ends the threads.
pub struct Loader<B> {
    /// Each thread's batches; they take turns.
    threads: Vec<Receiver<Result<Loaded<B>, Error>>>,
    turn: usize,
}

impl<B: Send> Loader<B> {
    /// Starts to load what comes from `from` on.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start<'scope, S>(
        scope: &'scope thread::Scope<'scope, '_>,
        source: &'scope S,
        n_threads: usize,
        from: Position,
    ) -> std::io::Result<Self>
    where
        S: Source<Batch = B>,
        B: 'scope,
    {
        let n_threads = n_threads.max(1);
        let threads = (0..n_threads)
            .map(|turn| {
                let (batches, receiver) = sync_channel(BATCHES_AHEAD);
                let from = from.after(turn, source);
                let work = move || load_every(source, n_threads, from, &batches);
                thread::Builder::new().name(format!("loader-{turn}")).spawn_scoped(scope, work)?;
                Ok(receiver)
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self { threads, turn: 0 })
    }

    /// The next batch.
    ///
    /// # Errors
    /// What its source refuses.
    pub fn take(&mut self) -> Result<Loaded<B>, Error> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.threads.len();
        self.threads[turn].recv().unwrap_or_else(|_| {
            Err(Error::config("train.loader_threads", "a thread that loads recordings has panicked"))
        })
    }
}

fn load_every<S: Source>(
    source: &S,
    stride: usize,
    from: Position,
    batches: &SyncSender<Result<Loaded<S::Batch>, Error>>,
) {
    let mut at = from;
    // Nobody takes them any more: the end.
    while batches.send(source.load(at)).is_ok() {
        at = at.after(stride, source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs of three and two batches in turn.
    struct Uneven;

    impl Source for Uneven {
        type Batch = Position;

        fn n_batches(&self, epoch: u64) -> usize {
            if epoch.is_multiple_of(2) { 3 } else { 2 }
        }

        fn load(&self, at: Position) -> Result<Loaded<Position>, Error> {
            let faults = (at.batch == 1).then(|| Fault { cut: "a".to_owned(), reason: "b".to_owned() });
            Ok(Loaded { parts: vec![at], faults: faults.into_iter().collect() })
        }
    }

    #[test]
    fn the_order_does_not_depend_on_the_number_of_threads() {
        let positions = |n_threads, from| {
            thread::scope(|scope| {
                let mut loader = Loader::start(scope, &Uneven, n_threads, from).expect("threads");
                (0..12).flat_map(|_| loader.take().expect("a batch").parts).collect::<Vec<_>>()
            })
        };
        let from = Position { epoch: 0, batch: 1 };
        let alone = positions(1, from);
        let expected = [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0)];
        assert_eq!(alone[..5], expected.map(|(epoch, batch)| Position { epoch, batch }));
        for n_threads in [2, 3, 7] {
            assert_eq!(positions(n_threads, from), alone);
        }
    }
}

//! What a scheduler knows of a model: requests join and leave, and a step is the least work after which it is
//! worth looking whether anybody still waits.

use crate::{Error, Progress};

/// A model at work on several requests at once. Weights are shared; all state is in here.
pub trait Worker: Send {
    /// One caller's work, prepared.
    type Request: Send + 'static;
    /// A part of a result that is told early.
    type Part: Send + 'static;
    /// A whole result.
    type Output: Send + 'static;

    /// Takes a request in. It gets its turn among the others; `id` comes with what is told about it.
    fn join(&mut self, id: u64, request: Self::Request);

    /// Drops a request that nobody waits for any more. Says whether work on it had begun.
    fn leave(&mut self, id: u64) -> bool;

    /// Drops all requests.
    fn clear(&mut self);

    /// One step of all requests that are in the batch; a few of those that wait enter it, as many as are prepared
    /// side by side. `is_wanted` is asked within the step too. A request is left after the update that ends it.
    ///
    /// # Errors
    /// When the batch as a whole failed: no request in it can go on, and `clear` is due.
    fn step(
        &mut self,
        is_wanted: &(dyn Fn(u64) -> bool + Sync),
        tell: &mut dyn FnMut(u64, Update<Self::Part, Self::Output>),
    ) -> Result<StepReport, Error>;
}

/// What a request has to say while it runs.
#[derive(Debug)]
pub enum Update<P, O> {
    /// How far it has come.
    Progress(Progress),
    /// More of the result, in order and never taken back.
    Part(P),
    /// The result: the last update.
    Done(O),
    /// There will be no result: the last update.
    Failed(Error),
}

/// What a step was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Rows that were computed together.
    pub n_rows: usize,
}

//! What a scheduler knows of a model: requests join and leave, and a step is the least work after which it is
//! worth looking whether anybody still waits.

use crate::Error;

/// A model at work on several requests at once. Weights are shared; all state is in here.
pub trait Worker: Send {
    /// One caller's work, prepared.
    type Request: Send + 'static;
    /// What a request has to say while it runs.
    type Event: Send + 'static;

    /// Takes a request in. It gets its turn among the others; `id` comes with its events.
    fn join(&mut self, id: u64, request: Self::Request);

    /// Drops a request that nobody waits for any more.
    fn leave(&mut self, id: u64);

    /// Drops all requests.
    fn clear(&mut self);

    /// Whether no request is left.
    fn is_idle(&self) -> bool;

    /// One step of all requests that are in the batch; at most one of those that wait enters it. `is_wanted` is
    /// asked within the step too. A request is left after the event that ends it, which an error does as well.
    ///
    /// # Errors
    /// When the batch as a whole failed; the requests in it cannot go on, and `clear` is due.
    fn step(
        &mut self,
        is_wanted: &dyn Fn(u64) -> bool,
        tell: &mut dyn FnMut(u64, Result<Self::Event, Error>),
    ) -> Result<StepReport, Error>;
}

/// What a step was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Rows that were computed together.
    pub n_rows: usize,
}

//! How long a client may send or take nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// A time limit that counts only while nothing goes on.
pub(crate) struct Stall {
    limit: Duration,
    /// `None` while something goes on.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, clock: None }
    }

    /// Something goes on.
    pub(crate) fn over(&mut self) {
        self.clock = None;
    }

    /// Nothing goes on. Ready when that was so for the whole of the limit.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        clock.as_mut().poll(context)
    }
}

//! How long a client may take nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// A time limit that counts only while nothing goes on.
pub(super) struct Stall {
    limit: Duration,
    /// `None` while something goes on.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, clock: None }
    }

    /// Something goes on.
    pub(super) fn over(&mut self) {
        self.clock = None;
    }

    /// Nothing goes on. Ready when that was so for the whole of the limit.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        clock.as_mut().poll(context)
    }
}

//! The batches of one epoch, and the place of a rank in them.

use super::Error;

/// A batch as a stretch of the epoch's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) bucket: u32,
    pub(super) copy: u32,
}

impl Span {
    pub(super) fn of(self, items: &[u32]) -> &[u32] {
        &items[self.start as usize..][..self.len as usize]
    }

    /// `n_parts` stretches in order, whose lengths differ by at most one. There are at least as many items.
    pub(super) fn split(self, n_parts: usize) -> impl Iterator<Item = Self> {
        let bound = move |part: usize| (self.len as usize * part / n_parts) as u32;
        (0..n_parts).map(move |part| Self {
            start: self.start + bound(part),
            len: bound(part + 1) - bound(part),
            ..self
        })
    }
}

/// The batches of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    pub(super) items: Vec<u32>,
    /// The batches of all ranks for the first step, then for the second, and so on.
    pub(super) spans: Vec<Span>,
    pub(super) world_size: usize,
    pub(super) n_accepted: usize,
}

/// A batch: items of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Index of the bucket.
    pub bucket: usize,
    /// Indices of the items, at least one.
    pub items: Vec<usize>,
    /// 0; `k` where the epoch's last items were too few for all ranks and these were repeated for the `k`-th time.
    pub copy: usize,
}

impl Batch {
    /// The id of one of the batch's items: `id`, or `id_dup{k}` where it is repeated.
    pub fn id(&self, id: &str) -> String {
        if self.copy == 0 { id.to_owned() } else { format!("{id}_dup{}", self.copy) }
    }
}

impl Epoch {
    /// Steps, the same for all ranks.
    pub fn n_steps(&self) -> usize {
        self.spans.len() / self.world_size
    }

    /// Items that `drop_last` leaves out this time.
    pub fn n_dropped(&self) -> usize {
        let originals = self.spans.iter().filter(|span| span.copy == 0);
        self.n_accepted - originals.map(|span| span.len as usize).sum::<usize>()
    }

    /// What each rank gets in a step, in order of rank; `None` after the last step.
    pub fn step(&self, step: usize) -> Option<Vec<Batch>> {
        let spans = self.spans.chunks_exact(self.world_size).nth(step)?;
        Some(spans.iter().map(|span| self.batch(*span)).collect())
    }

    /// One rank's batches from the first step on.
    ///
    /// # Errors
    /// When there is no such rank.
    pub fn batches(&self, rank: usize) -> Result<Batches<'_>, Error> {
        if rank >= self.world_size {
            return Err(Error::Rank { rank, world_size: self.world_size });
        }
        Ok(Batches { epoch: self, rank, step: 0 })
    }

    /// The batches of all ranks, step by step.
    pub fn all_batches(&self) -> impl Iterator<Item = Batch> {
        self.spans.iter().map(|span| self.batch(*span))
    }

    pub(super) fn batch(&self, span: Span) -> Batch {
        Batch {
            bucket: span.bucket as usize,
            items: span.of(&self.items).iter().map(|&item| item as usize).collect(),
            copy: span.copy as usize,
        }
    }
}

/// The batches of one rank.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    epoch: &'a Epoch,
    rank: usize,
    step: usize,
}

impl Batches<'_> {
    /// The step that comes next: what a checkpoint stores beside the epoch.
    pub fn batch_index(&self) -> usize {
        self.step
    }

    /// The same batches from step `batch_index` on, at no cost: how a run resumes.
    #[must_use]
    pub fn skip_to(self, batch_index: usize) -> Self {
        Self { step: batch_index, ..self }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let index = self.step.checked_mul(self.epoch.world_size)?.checked_add(self.rank)?;
        let span = *self.epoch.spans.get(index)?;
        self.step += 1;
        Some(self.epoch.batch(span))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n_left = self.epoch.n_steps().saturating_sub(self.step);
        (n_left, Some(n_left))
    }
}

impl ExactSizeIterator for Batches<'_> {}

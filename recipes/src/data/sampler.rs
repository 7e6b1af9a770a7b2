//! The sampler: lengths, buckets, a constraint and a seed in, the batches of any epoch out.
//!
//! Everything is a pure function of (lengths, table, configuration, seed, epoch), so a run resumes from two numbers,
//! epoch and step, and every rank can work out what all of them do. It is lhotse's `DynamicBucketingSampler` without
//! the stream: the metadata of all items is in memory (20 bytes each), so its buffers are whole buckets, and a bucket
//! is chosen among the steps that remain instead of by a draw that may find it empty.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::epoch::Span;
use super::shuffle::{Purpose, generator, shuffle};
use super::{Admission, BucketTable, Constraint, Epoch, Error, Length, LengthLimits, Rejection, hex};

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// When a batch is full.
    pub constraint: Constraint,
    /// What is taken at all.
    pub limits: LengthLimits,
    /// Ranks: each gets one batch in a step, and all have the same number of steps.
    pub world_size: usize,
    /// Whether all ranks draw from the same bucket in a step, so that none waits for another's longer batch.
    pub is_synchronised: bool,
    /// Whether items of a bucket are shuffled; they keep their order otherwise. The order of steps is always random.
    pub shuffle: bool,
    /// Whether to leave out batches that are not full and steps that don't have one for every rank. Which items that
    /// hits changes with the epoch.
    pub drop_last: bool,
}

impl SamplerConfig {
    /// One rank, shuffled, everything taken and nothing dropped.
    pub fn new(constraint: Constraint) -> Self {
        Self {
            constraint,
            limits: LengthLimits::default(),
            world_size: 1,
            is_synchronised: true,
            shuffle: true,
            drop_last: false,
        }
    }
}

/// Items in their buckets. Every epoch's batches follow from it.
///
/// Where augmentation changes the speed, durations are a function of the epoch, and so is the sampler: make one for
/// each epoch, with the same seed, from the lengths that the items will have in it. It takes as long as
/// [`Sampler::epoch`] itself, and resuming in the middle of an epoch still needs only its two numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    lengths: Vec<Length>,
    table: BucketTable,
    config: SamplerConfig,
    seed: u64,
    /// Accepted items of each bucket, ascending.
    buckets: Vec<Vec<u32>>,
    rejected: Vec<(usize, Rejection)>,
}

impl Sampler {
    /// Assigns items, known by their index in `lengths`, to the buckets of `table`.
    ///
    /// # Errors
    /// A configuration without sense, no item that is accepted, or more than 2^32 of them.
    pub fn new(
        lengths: Vec<Length>,
        table: BucketTable,
        config: SamplerConfig,
        seed: u64,
    ) -> Result<Self, Error> {
        config.constraint.check(table.buckets().len())?;
        config.limits.check()?;
        if config.world_size == 0 {
            return Err(Error::setting("world_size", 0, "must be at least 1"));
        }
        if u32::try_from(lengths.len()).is_err() {
            return Err(Error::TooManyItems { n_items: lengths.len() });
        }
        let mut buckets = vec![Vec::new(); table.buckets().len()];
        let mut rejected = Vec::new();
        for (item, &length) in lengths.iter().enumerate() {
            match config.limits.assign(length, &table) {
                Ok(bucket) => buckets[bucket].push(item as u32),
                Err(reason) => rejected.push((item, reason)),
            }
        }
        if rejected.len() == lengths.len() {
            return Err(Error::NothingAccepted { n_items: lengths.len() });
        }
        Ok(Self { lengths, table, config, seed, buckets, rejected })
    }

    /// Lengths of all items, rejected ones too.
    pub fn lengths(&self) -> &[Length] {
        &self.lengths
    }

    /// The buckets.
    pub fn table(&self) -> &BucketTable {
        &self.table
    }

    /// How batches are made.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Items that are in no batch, ascending, each with the reason.
    pub fn rejected(&self) -> &[(usize, Rejection)] {
        &self.rejected
    }

    /// Items that are in batches.
    pub fn n_accepted(&self) -> usize {
        self.lengths.len() - self.rejected.len()
    }

    /// Accepted and rejected items by language, which `language` tells of an item.
    pub fn admission<'a>(&self, language: impl Fn(usize) -> &'a str) -> Admission {
        let mut admission = Admission::default();
        let mut rejected = self.rejected.iter().peekable();
        for (item, &length) in self.lengths.iter().enumerate() {
            let reason = rejected.next_if(|(index, _)| *index == item).map(|(_, reason)| *reason);
            admission.count(language(item), length, reason.map_or(Ok(()), Err));
        }
        admission
    }

    /// SHA-256 over all that an epoch's batches depend on: lengths, table, configuration and seed; 64 lower-case hex
    /// digits. A checkpoint stores it beside epoch and step: a run that has another one would go on with other batches.
    pub fn digest(&self) -> String {
        // Spelt out, not derived from names in the code: renaming a field must not change a digest.
        let SamplerConfig { constraint, limits, world_size, is_synchronised, shuffle, drop_last } =
            &self.config;
        let mut hash = Sha256::new();
        hash.update(format!(
            "sampler 1\n{}\n{}\n{}\n{world_size} ranks, synchronised {is_synchronised}, shuffle {shuffle}, \
             drop last {drop_last}, seed {}\n",
            self.table.digest(),
            constraint.canonical_text(),
            limits.canonical_text(),
            self.seed,
        ));
        for Length { duration_secs, n_tokens } in &self.lengths {
            hash.update(duration_secs.to_bits().to_le_bytes());
            hash.update(n_tokens.to_le_bytes());
        }
        hex(&hash.finalize())
    }

    /// The batches of an epoch, of all ranks, in O(n).
    ///
    /// # Errors
    /// When dropping leaves no step.
    pub fn epoch(&self, epoch: u64) -> Result<Epoch, Error> {
        let world_size = self.config.world_size;
        let mut items = Vec::with_capacity(self.n_accepted());
        let mut batches = Vec::new();
        let mut steps: Vec<Vec<Span>> = Vec::new();
        let mut n_batches = 0;
        for (bucket, members) in self.buckets.iter().enumerate() {
            let start = items.len();
            items.extend_from_slice(members);
            if self.config.shuffle {
                let mut rng = generator(self.seed, epoch, Purpose::Items, bucket as u64);
                shuffle(&mut items[start..], &mut rng);
            }
            let cut = self.cut(&items, start, bucket);
            n_batches += cut.len();
            if self.config.is_synchronised {
                self.share_out(&cut, &items, &mut steps);
            } else {
                batches.extend(cut);
            }
        }
        let mut rng = generator(self.seed, epoch, Purpose::Steps, 0);
        if !self.config.is_synchronised {
            shuffle(&mut batches, &mut rng);
            self.share_out(&batches, &items, &mut steps);
        }
        shuffle(&mut steps, &mut rng);
        if steps.is_empty() {
            return Err(Error::EmptyEpoch { n_accepted: self.n_accepted(), n_batches, world_size });
        }
        Ok(Epoch { items, spans: steps.concat(), world_size, n_accepted: self.n_accepted() })
    }

    /// Cuts the items from `start` on, which are of one bucket, into batches.
    fn cut(&self, items: &[u32], start: usize, bucket: usize) -> Vec<Span> {
        let mut batches = Vec::new();
        let mut begin = start;
        let mut filling = self.config.constraint.filling(bucket);
        let mut close = |begin: &mut usize, end| {
            batches.push(Span {
                start: *begin as u32,
                len: (end - *begin) as u32,
                bucket: bucket as u32,
                copy: 0,
            });
            *begin = end;
        };
        for (offset, &item) in items[start..].iter().enumerate() {
            let length = self.length(item);
            if !filling.can_add(length) {
                close(&mut begin, start + offset);
                filling = self.config.constraint.filling(bucket);
            }
            filling.add(length);
            if filling.is_close() {
                close(&mut begin, start + offset + 1);
                filling = self.config.constraint.filling(bucket);
            }
        }
        if begin < items.len() && !self.config.drop_last {
            close(&mut begin, items.len());
        }
        batches
    }

    /// Makes steps of batches: each rank gets one. What is left over is spread over all ranks, or dropped.
    fn share_out(&self, batches: &[Span], items: &[u32], steps: &mut Vec<Vec<Span>>) {
        let full = batches.chunks_exact(self.config.world_size);
        let leftovers = full.remainder();
        steps.extend(full.map(<[Span]>::to_vec));
        if !leftovers.is_empty() && !self.config.drop_last {
            steps.push(self.spread(leftovers, items));
        }
    }

    /// Spreads fewer batches than there are ranks over all of them (lhotse, `CutSampler.__next__`): together they are
    /// split evenly, and items are repeated where there are too few. Items of different batches are put together only
    /// where they are of one bucket and the parts keep the constraint; otherwise the largest batches are halved.
    fn spread(&self, batches: &[Span], items: &[u32]) -> Vec<Span> {
        let world_size = self.config.world_size;
        let n_items: usize = batches.iter().map(|batch| batch.len as usize).sum();
        if n_items < world_size {
            let singles: Vec<Span> =
                batches.iter().flat_map(|batch| batch.split(batch.len as usize)).collect();
            let turn = |rank| Span { copy: (rank / n_items) as u32, ..singles[rank % n_items] };
            return (0..world_size).map(turn).collect();
        }
        let follows =
            |pair: &[Span]| pair[1].bucket == pair[0].bucket && pair[1].start == pair[0].start + pair[0].len;
        let together = Span { len: n_items as u32, ..batches[0] };
        // The last batches of a bucket lie one behind the other; those of unsynchronised ranks may be any.
        if batches.windows(2).all(follows) {
            let parts: Vec<Span> = together.split(world_size).collect();
            if parts.iter().all(|part| self.keeps_constraint(part, items)) {
                return parts;
            }
        }
        let mut parts = batches.to_vec();
        while parts.len() < world_size {
            let largest = (0..parts.len()).max_by_key(|&index| parts[index].len).unwrap_or(0);
            let halves: Vec<Span> = parts[largest].split(2).collect();
            parts.splice(largest..=largest, halves);
        }
        parts
    }

    fn keeps_constraint(&self, span: &Span, items: &[u32]) -> bool {
        let mut filling = self.config.constraint.filling(span.bucket as usize);
        span.of(items).iter().for_each(|&item| filling.add(self.length(item)));
        span.len == 1 || !filling.is_exceeded()
    }

    fn length(&self, item: u32) -> Length {
        self.lengths[item as usize]
    }
}

#[cfg(test)]
mod tests;

//! A clause on its way: what it has said, and where in its text it is.

use candle_core::Tensor;

use super::{Clause, Parts, Sampling, Voice};
use crate::Error;
use crate::flow_lm::{
    Continuation, FlowHead, FlowLm, Noise, SequenceCache, SequenceStep, Solver, guided, rows, sample,
};

/// Seconds that nothing more may come of a text that is read to its end.
const MAX_TAIL_SECS: f64 = 0.8;

/// How often a clause should have ended before it does.
const ENOUGH: f32 = 0.5;

/// A sequence in the Transformer.
struct Branch {
    cache: SequenceCache,
    /// States of its text.
    text: Tensor, // (U, D)
}

/// A clause that is being said.
pub(super) struct Row {
    told: Branch,
    /// The same without text and voice, where it is led away from that.
    nobody: Option<Branch>,
    sampling: Sampling,
    noise: Noise,
    /// How far in its text it is expected to be. The whole number nearest to it is the symbol that comes next: what is rounded is not lost, so
    /// that it reads as fast as it learnt to, on the whole.
    place: f32,
    n_symbols: usize,
    max_patches: usize,
    max_tail: usize,
    /// Patches since the text was read to its end.
    n_tail: usize,
    /// How often it should have ended by now.
    over: f32,
    /// The last patch that was said.
    last: Option<Tensor>, // (1, patch)
    pub n_said: usize,
    pub is_done: bool,
}

impl Branch {
    /// Reads a text after a voice prompt.
    fn begin(
        model: &FlowLm,
        prompt: Option<&Tensor>,
        text: &[u32],
        max_patches: usize,
    ) -> Result<(Self, Tensor), Error> {
        let states = model.backbone.text(text)?;
        let prefix = model.backbone.prefix(prompt, &states)?; // (P + U, D)
        let cache = model.backbone.cache(prefix.dim(0)? + max_patches, model.device())?;
        Ok((Self { cache, text: states }, prefix))
    }
}

impl Row {
    /// Begins a clause, the `index`-th of its text.
    pub fn begin(
        parts: &Parts,
        clause: &Clause,
        voice: &Voice,
        sampling: Sampling,
        index: usize,
    ) -> Result<Self, Error> {
        let (model, max_patches) = (&parts.model, clause.max_patches);
        let config = &model.config;
        let (mut told, prefix) = Branch::begin(model, Some(&voice.prompt), &clause.text, max_patches)?;
        let read = |branch: &mut Branch, prefix: &Tensor| -> Result<(), Error> {
            let n_new = prefix.dim(0)?;
            model.backbone.step(prefix, &mut [SequenceStep { n_new, cache: &mut branch.cache }])?;
            Ok(())
        };
        read(&mut told, &prefix)?;
        let nobody = match sampling.guidance == 1.0 {
            true => None,
            false => {
                let edges = [config.edge(), config.edge()];
                let (mut nobody, prefix) = Branch::begin(model, None, &edges, max_patches)?;
                read(&mut nobody, &prefix)?;
                Some(nobody)
            }
        };
        Ok(Self {
            told,
            nobody,
            sampling,
            noise: Noise::new(sampling.seed).at(index as u64),
            place: 0.0,
            n_symbols: clause.text.len(),
            max_patches,
            max_tail: (MAX_TAIL_SECS * config.patch_rate()).ceil() as usize,
            n_tail: 0,
            over: 0.0,
            last: None,
            n_said: 0,
            is_done: false,
        })
    }

    /// Sequences that it takes in a batch.
    pub fn n_sequences(&self) -> usize {
        1 + usize::from(self.nobody.is_some())
    }

    /// Place in the text of the symbol that comes next.
    fn pointer(&self) -> usize {
        self.place.round() as usize
    }

    /// Whether it was stopped before it had read its text.
    pub fn is_stopped(&self) -> bool {
        self.is_done && self.over < ENOUGH && self.n_tail < self.max_tail
    }

    /// Goes on after a patch, given how likely the model finds it that it was the last one, and how far it expects to have read on. The likeliest of
    /// either would never come where each patch rather goes on than not: a long sound would have no end.
    fn follow(&mut self, end: f32, advance: f32) {
        self.n_said += 1;
        let (pointer, last) = (self.pointer(), self.n_symbols - 1);
        // Before the last symbol has begun it cannot be over.
        if pointer + 1 >= last {
            self.over += end;
        }
        self.n_tail = if pointer >= last { self.n_tail + 1 } else { 0 };
        self.is_done = self.over >= ENOUGH || self.n_tail >= self.max_tail || self.n_said >= self.max_patches;
        self.place += advance;
        if self.place > last as f32 {
            self.place = last as f32;
        }
    }
}

/// Says one more patch of each row; gives them standardised, (patch) each, in the order of the rows. What is no number in one row costs the
/// others nothing.
///
/// # Errors
/// When a tensor operation fails that all share.
pub(super) fn step(parts: &Parts, rows_of: &mut [&mut Row]) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
    let model = &parts.model;
    let (patch, n) = (model.config.patch_size(), rows_of.len());
    let nothing = Tensor::zeros((1, patch), candle_core::DType::F32, model.device())?;
    let (mut before, mut is_first, mut symbols, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows_of.iter_mut() {
        let (pointer, last) = (row.pointer(), row.last.as_ref().unwrap_or(&nothing).clone());
        let branches = [(&mut row.told, pointer)];
        let nobody = row.nobody.as_mut().map(|nobody| (nobody, 0));
        for (branch, pointer) in branches.into_iter().chain(nobody) {
            before.push(last.clone());
            is_first.push(row.n_said == 0);
            symbols.push(branch.text.narrow(0, pointer, 1)?);
            steps.push(SequenceStep { n_new: 1, cache: &mut branch.cache });
        }
    }
    let x = model.backbone.speech(&Tensor::cat(&before, 0)?, &is_first, &Tensor::cat(&symbols, 0)?)?;
    let states = model.backbone.step(&x, &mut steps)?; // (N, D)
    drop(steps);

    let (mut told, mut led) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut at = 0;
    for row in rows_of.iter() {
        let own = states.narrow(0, at, 1)?;
        led.push(match &row.nobody {
            Some(_) => guided(&own, &states.narrow(0, at + 1, 1)?, row.sampling.guidance)?,
            None => own.clone(),
        });
        told.push(own);
        at += row.n_sequences();
    }
    let told = Tensor::cat(&told, 0)?;
    let condition = model.head.condition(&Tensor::cat(&led, 0)?)?;
    let said = say(&model.head, &condition, rows_of, patch)?;
    let Continuation { ends, advances } = model.continuation(&told, &Tensor::cat(&said, 0)?)?;
    let (ends, advances) = (ends.to_vec1::<f32>()?, advances.to_vec2::<f32>()?);
    let mut patches = Vec::with_capacity(n);
    for ((row, said), (end, advance)) in rows_of.iter_mut().zip(said).zip(ends.into_iter().zip(&advances)) {
        let values = said.flatten_all()?.to_vec1::<f32>()?;
        row.last = Some(said);
        row.follow(1.0 / (1.0 + (-end).exp()), expected(advance));
        let are_numbers = values.iter().chain([&row.place, &row.over]).all(|number| number.is_finite());
        patches.push(match are_numbers {
            true => Ok(values),
            false => Err(Error::NotFinite { what: "speech patches" }),
        });
    }
    Ok(patches)
}

/// The mean of 0, 1, 2 and so on under these logits.
fn expected(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighed) = (0f32, 0f32);
    for (number, logit) in logits.iter().enumerate() {
        let share = (logit - most).exp();
        (sum, weighed) = (sum + share, weighed + share * number as f32);
    }
    weighed / sum
}

/// Patches (1, patch) of all rows: those that are carried alike are carried together.
fn say(
    head: &FlowHead,
    condition: &Tensor,
    rows_of: &[&mut Row],
    patch: usize,
) -> Result<Vec<Tensor>, Error> {
    let mut groups: Vec<((Solver, usize), Vec<u32>)> = Vec::new();
    for (id, row) in (0u32..).zip(rows_of) {
        let how = (row.sampling.solver, row.sampling.n_steps);
        match groups.iter_mut().find(|(known, _)| *known == how) {
            Some((_, ids)) => ids.push(id),
            None => groups.push((how, vec![id])),
        }
    }
    let mut said = vec![None; rows_of.len()];
    for ((solver, n_steps), ids) in groups {
        let mut noise = vec![0f32; ids.len() * patch];
        for (id, values) in ids.iter().zip(noise.chunks_exact_mut(patch)) {
            let row = &rows_of[*id as usize];
            let std = (row.sampling.temperature as f32).sqrt();
            row.noise.at(row.n_said as u64).fill_normal(std, values);
        }
        let noise = Tensor::from_vec(noise, (ids.len(), patch), condition.device())?;
        let together = sample(head, &noise, &rows(condition, &ids)?, solver, n_steps)?;
        for (place, id) in ids.iter().enumerate() {
            said[*id as usize] = Some(together.narrow(0, place, 1)?.contiguous()?);
        }
    }
    let nothing = || Error::from(candle_core::Error::Msg("a row without a patch".to_owned()));
    said.into_iter().map(|said| said.ok_or_else(nothing)).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// A clause of so many symbols that may be so many patches long.
    fn row(n_symbols: usize, max_patches: usize, max_tail: usize) -> candle_core::Result<Row> {
        let text = Tensor::zeros((n_symbols, 1), candle_core::DType::F32, &Device::Cpu)?;
        Ok(Row {
            told: Branch { cache: SequenceCache::default(), text },
            nobody: None,
            sampling: Sampling {
                solver: Solver::Euler,
                n_steps: 1,
                guidance: 1.0,
                temperature: 1.0,
                seed: 0,
            },
            noise: Noise::new(0),
            place: 0.0,
            n_symbols,
            max_patches,
            max_tail,
            n_tail: 0,
            over: 0.0,
            last: None,
            n_said: 0,
            is_done: false,
        })
    }

    #[test]
    fn it_reads_as_fast_as_it_expects_to() -> candle_core::Result<()> {
        let mut row = row(100, 1_000, 1_000)?;
        let places: Vec<usize> = (0..10)
            .map(|_| {
                row.follow(0.0, 0.4);
                row.pointer()
            })
            .collect();
        assert_eq!(places, [0, 1, 1, 2, 2, 2, 3, 3, 4, 4]);
        // No further than to the end of the text.
        row.follow(0.0, 1e3);
        assert_eq!(row.pointer(), 99);
        Ok(())
    }

    #[test]
    fn it_ends_when_it_should_have_by_now_and_not_before_its_last_symbol() -> candle_core::Result<()> {
        let mut row = row(4, 1_000, 1_000)?;
        row.follow(0.9, 1.0);
        row.follow(0.9, 1.0);
        assert!(!row.is_done && row.over == 0.0);
        for is_done in [false, false, true] {
            row.follow(0.2, 1.0);
            assert_eq!((row.is_done, row.is_stopped()), (is_done, false));
        }
        Ok(())
    }

    #[test]
    fn it_is_stopped_where_no_end_comes() -> candle_core::Result<()> {
        let mut lost = row(40, 5, 3)?;
        let mut silent = row(2, 50, 3)?;
        for _ in 0..5 {
            lost.follow(1.0, 0.0);
        }
        assert!(lost.is_done && lost.is_stopped());
        // What is read is said, be there an end or not.
        for is_done in [false, false, false, true] {
            silent.follow(0.0, 1.0);
            assert_eq!((silent.is_done, silent.is_stopped()), (is_done, false));
        }
        Ok(())
    }

    #[test]
    fn what_is_expected_is_a_mean() {
        assert!((expected(&[0.0, 0.0, 0.0]) - 1.0).abs() < 1e-6);
        assert!((expected(&[-1e9, 1e9, -1e9]) - 1.0).abs() < 1e-6);
        assert!(expected(&[f32::NAN, 0.0]).is_nan());
    }
}

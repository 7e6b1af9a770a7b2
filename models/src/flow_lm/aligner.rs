//! Which symbol is said in which mel frame, learnt from nothing but that symbols follow each other (Badlani et al., arXiv 2108.10447,
//! section 2): frames and symbols are put where those that belong together are near, and the sum over all monotone ways through
//! them is CTC with every position of the text as a label of its own, without its blank. With one, as there, the prior makes it the likeliest
//! thing to say: each position is learnt from a frame or two, as CTC's peaks are, and which of the others say it is left to chance.

use candle_core::{D, Tensor};

use super::FlowLmConfig;
use crate::Error;
use crate::decode::ctc_align;
use crate::kernels::Activation;
use crate::nn::{Conv1d, CtcTargets, Embedding, activate, ctc, within};
use crate::params::Scope;

/// What a frame's distance to a symbol counts.
const TEMPERATURE: f64 = 0.005;
/// What lies behind a text: nothing that a frame could say.
const NEVER: f32 = -1e4;

/// An aligner of mel frames with symbols.
pub struct Aligner {
    symbols: Embedding,
    keys: [Conv1d; 2],
    queries: [Conv1d; 3],
}

impl Aligner {
    /// Loads its weights.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, config: &FlowLmConfig) -> Result<Self, Error> {
        let (size, n_mels) = (config.aligner_size, config.feature_spec.n_mels);
        let convolution = |name: &str, i: usize, n_in, kernel: usize| {
            Conv1d::load(&scope.sub(name).sub(i), n_in, size, kernel, 1, kernel / 2)
        };
        Ok(Self {
            symbols: Embedding::load(&scope.sub("embed_symbols"), config.symbols.len() + 1, size)?,
            keys: [convolution("keys", 0, size, 3)?, convolution("keys", 1, size, 1)?],
            queries: [
                convolution("queries", 0, n_mels, 3)?,
                convolution("queries", 1, size, 3)?,
                convolution("queries", 2, size, 1)?,
            ],
        })
    }

    /// How well each frame suits each position of its text, before a softmax over positions, (B, T, U + 1), of standardised mel frames
    /// (B, T, F) of which `n_frames` of each row count, the others being zero, and texts of any lengths. The last column is that of no position,
    /// which no frame says. Positions are
    /// likelier where a steady voice would say them. Differentiable.
    ///
    /// # Errors
    /// Symbols that there are not, shapes that do not fit.
    pub fn scores(
        &self,
        mels: &Tensor,
        n_frames: &[usize],
        texts: &[Vec<u32>],
    ) -> candle_core::Result<Tensor> {
        let (b, t, _) = mels.dims3()?;
        let u = texts.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = vec![0u32; b * u];
        for (row, text) in ids.chunks_mut(u.max(1)).zip(texts) {
            row[..text.len()].copy_from_slice(text);
        }
        let ids = Tensor::from_vec(ids, b * u, mels.device())?;
        // Convolutions see nothing behind a row's end.
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let device = mels.device();
        let (texts_within, frames_within) = (within(&lengths, u, device)?, within(n_frames, t, device)?);
        let embedded = self.symbols.forward(&ids)?.reshape((b, u, ()))?.broadcast_mul(&texts_within)?;
        let [first, last] = &self.keys;
        let keys = last.forward(&activate(Activation::Relu, &first.forward(&embedded)?)?)?; // (B, U, size)
        let [first, second, last] = &self.queries;
        let hidden = activate(Activation::Relu, &first.forward(mels)?)?.broadcast_mul(&frames_within)?;
        let hidden = activate(Activation::Relu, &second.forward(&hidden)?)?;
        let queries = last.forward(&hidden)?; // (B, T, size)
        let products = queries.matmul(&keys.t()?.contiguous()?)?; // (B, T, U)
        let squares = queries.sqr()?.sum_keepdim(D::Minus1)?; // (B, T, 1)
        let others = keys.sqr()?.sum(D::Minus1)?.unsqueeze(1)?; // (B, 1, U)
        let distances = (products * -2.0)?.broadcast_add(&squares)?.broadcast_add(&others)?;
        // Of the positions of its own text, before what nobody says is held against them (Badlani et al., section 2.1).
        let texts: Vec<usize> = lengths;
        let behind: Vec<f32> = texts
            .iter()
            .flat_map(|n| (0..u).map(move |place| if place < *n { 0.0 } else { NEVER }))
            .collect();
        let behind = Tensor::from_vec(behind, (b, 1, u), device)?;
        let likely = log_softmax(&(distances * -TEMPERATURE)?.broadcast_add(&behind)?)?;
        let prior = Tensor::from_vec(priors(n_frames, t, &texts, u), (b, t, u), device)?;
        let scores = (likely + prior)?;
        let blank = Tensor::full(NEVER, (b, t, 1), device)?;
        Tensor::cat(&[scores, blank], 2)
    }

    /// What all monotone ways through the texts cost, summed over rows that are weighed so, a scalar. Differentiable.
    ///
    /// # Errors
    /// Lengths that do not fit the scores.
    pub fn loss(
        scores: &Tensor,
        n_frames: &[usize],
        texts: &[Vec<u32>],
        weights: &[f32],
    ) -> candle_core::Result<Tensor> {
        let blank = scores.dim(D::Minus1)? as u32 - 1;
        let labels = texts.iter().map(|text| (0..text.len() as u32).collect()).collect();
        ctc(scores, CtcTargets { labels, lengths: n_frames.to_vec(), weights: weights.to_vec(), blank })
    }

    /// The best way through each text: which position every frame of the row says. Each position is said in one frame at least; a row with
    /// fewer frames than positions has none.
    ///
    /// # Errors
    /// When the scores cannot be read.
    pub fn paths(
        scores: &Tensor,
        n_frames: &[usize],
        texts: &[Vec<u32>],
    ) -> candle_core::Result<Vec<Option<Vec<u32>>>> {
        let (_, t, n_classes) = scores.dims3()?;
        let scores = scores.detach().to_device(&candle_core::Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let rows = scores.chunks((t * n_classes).max(1)).zip(n_frames.iter().zip(texts));
        Ok(rows
            .map(|(row, (n_frames, text))| path(&row[..n_frames * n_classes], n_classes, text.len()))
            .collect())
    }
}

/// Logarithms of probabilities over the last dimension. Differentiable.
fn log_softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    scores.broadcast_sub(&scores.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// Positions of frames by scores (T, U + 1).
fn path(scores: &[f32], n_classes: usize, n_positions: usize) -> Option<Vec<u32>> {
    let mut scores = scores.to_vec();
    for frame in scores.chunks_exact_mut(n_classes) {
        let most = frame[..n_positions].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = frame[..n_positions].iter().map(|score| (score - most).exp()).sum();
        let log_sum = most + sum.ln();
        frame.iter_mut().for_each(|score| *score -= log_sum);
        // Every frame says something.
        if let Some(blank) = frame.last_mut() {
            *blank = f32::NEG_INFINITY;
        }
    }
    let positions: Vec<u32> = (0..n_positions as u32).collect();
    let labels = ctc_align(&scores, n_classes, n_classes as u32 - 1, &positions)?;
    Some(labels.iter().flat_map(|label| vec![label.id; label.end - label.start]).collect())
}

/// Log-probabilities of positions by how far a recording has come, (B, T, U) row-major, beta-binomial with a spread of one (Badlani et al.,
/// section 2.2).
fn priors(n_frames: &[usize], t: usize, n_symbols: &[usize], u: usize) -> Vec<f32> {
    let mut priors = vec![NEVER; n_symbols.len() * t * u];
    for ((row, n_frames), n_symbols) in priors.chunks_mut((t * u).max(1)).zip(n_frames).zip(n_symbols) {
        for (frame, row) in row.chunks_mut(u.max(1)).take(*n_frames).enumerate() {
            let n = n_symbols.saturating_sub(1);
            let (alpha, beta) = ((frame + 1) as f64, (n_frames - frame) as f64);
            // Each probability from the one before; their sum is what the first one leaves open.
            let mut value = 0.0;
            let mut logs = vec![0f64; *n_symbols];
            for k in 0..n {
                let up = (n - k) as f64 / (k + 1) as f64;
                let ratio = up * (k as f64 + alpha) / ((n - k - 1) as f64 + beta);
                value += ratio.ln();
                logs[k + 1] = value;
            }
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum = most + logs.iter().map(|log| (log - most).exp()).sum::<f64>().ln();
            row.iter_mut().zip(logs).for_each(|(prior, log)| *prior = (log - log_sum) as f32);
        }
    }
    priors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prior_is_beta_binomial() {
        let priors = priors(&[9, 4], 9, &[5, 3], 5);
        for (row, n_frames, n) in [(0, 9, 5), (1, 4, 3)] {
            for frame in 0..n_frames {
                let at = (row * 9 + frame) * 5;
                let sum: f32 = priors[at..at + n].iter().map(|log| log.exp()).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }
        // scipy.stats.betabinom(4, 3, 7).logpmf([0, 1, 2, 3, 4]), of the third of nine frames.
        let expected = [-1.225_175f32, -1.042_854, -1.448_318, -2.323_787, -3.864_232];
        for (prior, expected) in priors[10..15].iter().zip(expected) {
            assert!((prior - expected).abs() < 1e-5, "{prior} {expected}");
        }
        assert!(priors[(9 + 4) * 5..].iter().all(|prior| *prior == NEVER));
    }

    /// All monotone ways that say every position, by their score.
    fn best_by_brute_force(scores: &[Vec<f32>], n_positions: usize) -> (f32, Vec<u32>) {
        let n_frames = scores.len();
        let mut best = (f32::NEG_INFINITY, Vec::new());
        for choice in 0..1u32 << (n_frames - 1) {
            if choice.count_ones() as usize != n_positions - 1 {
                continue;
            }
            let mut at = 0;
            let mut path = vec![0];
            for frame in 1..n_frames {
                at += choice >> (frame - 1) & 1;
                path.push(at);
            }
            let score = path.iter().zip(scores).map(|(at, frame)| frame[*at as usize]).sum();
            if score > best.0 {
                best = (score, path);
            }
        }
        best
    }

    #[test]
    fn the_path_is_the_best_of_all_monotone_ones() {
        for (seed, n_frames, n_positions) in [(1, 8, 5), (2, 8, 1), (3, 5, 5), (4, 7, 3)] {
            let numbers = crate::kernels::test_support::noise(n_frames * (n_positions + 1), seed);
            let scores: Vec<Vec<f32>> = numbers
                .chunks(n_positions + 1)
                .map(|frame| frame.iter().map(|v| v * 3.0).collect())
                .collect();
            // What is subtracted from a whole frame changes no way more than another.
            let (_, expected) = best_by_brute_force(&scores, n_positions);
            assert_eq!(path(&scores.concat(), n_positions + 1, n_positions), Some(expected));
        }
        assert_eq!(path(&[0.0; 8], 4, 3), None);
    }
}

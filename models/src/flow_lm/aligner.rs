//! Which symbol is said in which mel frame, learnt from nothing but that symbols follow each other: each says frames about a mean of its own, and
//! the likelihood of a recording is a sum over all monotone ways through its text (a hidden Markov model, Baum 1972; the search for the
//! best way is Glow-TTS's, Kim et al., arXiv 2005.11129, section 3.2; the prior is that of Badlani et al., arXiv 2108.10447).
//!
//! A softmax over positions for each frame, as Badlani et al. have it, says how frames are told apart and not how they sound: it is served best
//! by letters of one frame each where a boundary is easily heard, and one of a word that takes the rest.

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::FlowLmConfig;
use crate::Error;
use crate::decode::ctc_align;
use crate::kernels::Activation;
use crate::nn::{Conv1d, CtcTargets, Embedding, Linear, activate, ctc, within};
use crate::params::Scope;

/// The score of what no frame says: a position behind a text, or none.
const NEVER: f32 = -1e9;

/// An aligner of mel frames with symbols.
pub struct Aligner {
    symbols: Embedding,
    keys: [Conv1d; 2],
    /// What the mean of a recording says of who speaks.
    voice: Linear,
    means: Linear,
}

impl Aligner {
    /// Loads its weights.
    ///
    /// # Errors
    /// What `Scope::get` refuses.
    pub fn load(scope: &Scope<'_>, config: &FlowLmConfig) -> Result<Self, Error> {
        let (size, n_mels) = (config.aligner_size, config.feature_spec.n_mels);
        let convolution = |i: usize| Conv1d::load(&scope.sub("keys").sub(i), size, size, 3, 1, 1);
        Ok(Self {
            symbols: Embedding::load(&scope.sub("embed_symbols"), config.symbols.len() + 1, size)?,
            keys: [convolution(0)?, convolution(1)?],
            voice: Linear::load(&scope.sub("voice"), n_mels, size, true)?,
            means: Linear::load(&scope.sub("means"), size, n_mels, true)?,
        })
    }

    /// How likely each frame is at each position of its text, as logarithms but for a constant, (B, T, U + 1), of standardised mel frames
    /// (B, T, F) of which `n_frames` of each row count, the others being zero, and texts of any lengths. The last column is that of no
    /// position, which no frame says. Positions are likelier where a steady voice would say them. Differentiable.
    ///
    /// # Errors
    /// Symbols that there are not, shapes that do not fit.
    pub fn scores(
        &self,
        mels: &Tensor,
        n_frames: &[usize],
        texts: &[Vec<u32>],
    ) -> candle_core::Result<Tensor> {
        let ((b, t, _), device) = (mels.dims3()?, mels.device());
        let n_symbols: Vec<usize> = texts.iter().map(Vec::len).collect();
        let u = n_symbols.iter().copied().max().unwrap_or(0);
        let mut ids = vec![0u32; b * u];
        for (row, text) in ids.chunks_mut(u.max(1)).zip(texts) {
            row[..text.len()].copy_from_slice(text);
        }
        let ids = Tensor::from_vec(ids, b * u, device)?;
        // Convolutions see nothing behind a text's end.
        let in_text = within(&n_symbols, u, device)?;
        let shares: Vec<f32> = n_frames.iter().map(|n| 1.0 / (*n).max(1) as f32).collect();
        let mean = mels.sum(1)?.broadcast_mul(&Tensor::from_vec(shares, (b, 1), device)?)?; // (B, F)
        let voice = self.voice.forward(&mean)?.unsqueeze(1)?; // (B, 1, size)
        let symbols = self.symbols.forward(&ids)?.reshape((b, u, ()))?.broadcast_mul(&in_text)?;
        let [first, second] = &self.keys;
        let hidden = activate(Activation::Relu, &first.forward(&symbols)?.broadcast_add(&voice)?)?;
        let hidden = second.forward(&hidden.broadcast_mul(&in_text)?)?;
        let means = self.means.forward(&activate(Activation::Relu, &hidden)?)?; // (B, U, F)
        let products = mels.matmul(&means.t()?.contiguous()?)?; // (B, T, U)
        let frames = mels.sqr()?.sum_keepdim(D::Minus1)?; // (B, T, 1)
        let others = means.sqr()?.sum(D::Minus1)?.unsqueeze(1)?; // (B, 1, U)
        let squares = (products * -2.0)?.broadcast_add(&frames)?.broadcast_add(&others)?;
        let prior = Tensor::from_vec(priors(n_frames, t, &n_symbols, u), (b, t, u), device)?;
        let scores = ((squares * -0.5)? + prior)?;
        Tensor::cat(&[scores, Tensor::full(NEVER, (b, t, 1), device)?], 2)
    }

    /// What recordings lack of certainty, `-ln` of the sum over all monotone ways of the product of what their frames score, summed over rows that are
    /// weighed so, a scalar; recordings with fewer frames than symbols have no way, and do not count. Differentiable.
    ///
    /// # Errors
    /// Lengths that do not fit the scores.
    pub fn loss(
        scores: &Tensor,
        n_frames: &[usize],
        texts: &[Vec<u32>],
        weights: &[f32],
    ) -> candle_core::Result<Tensor> {
        let (b, t, n_classes) = scores.dims3()?;
        let rows = n_frames.iter().zip(texts).zip(weights);
        let weights: Vec<f32> =
            rows.map(|((n, text), weight)| if *n < text.len() { 0.0 } else { *weight }).collect();
        // CTC divides each frame's scores by their sum, which is taken back here: it is what tells how well frames are explained at all.
        let most = scores.max_keepdim(D::Minus1)?.detach();
        let sums = (scores.broadcast_sub(&most)?.exp()?.sum_keepdim(D::Minus1)?.log()? + most)?; // (B, T, 1)
        let counted = within(n_frames, t, scores.device())?.to_dtype(DType::F32)?;
        let counted = counted.broadcast_mul(&Tensor::from_slice(&weights, (b, 1, 1), scores.device())?)?;
        let sums = (sums * counted)?.sum_all()?;
        let labels = texts.iter().map(|text| (0..text.len() as u32).collect()).collect();
        let blank = n_classes as u32 - 1;
        ctc(scores, CtcTargets { labels, lengths: n_frames.to_vec(), weights, blank })? - sums
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
    let rows = priors.par_chunks_mut((t * u).max(1)).zip(n_frames).zip(n_symbols);
    rows.for_each(|((row, n_frames), n_symbols)| {
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
    });
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

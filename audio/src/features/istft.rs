//! Spectra back to samples.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner};
use serde::{Deserialize, Serialize};

use super::stft::centred_window;
use super::{FeatureSpec, Padding, Spectrogram};
use crate::Error;

/// Sums of squared windows that count as nothing: what `torch.istft` refuses to divide by.
pub(crate) const MIN_ENVELOPE: f64 = 1e-11;

/// Where frames lie on the samples, and so what of the first and the last frame is margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameAlignment {
    /// Frame `t` is centred on sample `t * hop`, as a [`Stft`](super::Stft) of padded samples has it: `n_fft / 2` samples at
    /// either end are margin, and T frames give `(T - 1) * hop` (`torch.istft` with `center=True`).
    Centred,
    /// Frame `t` is centred on the middle of samples `t * hop .. (t + 1) * hop`: `(n_fft - hop) / 2` samples at either end
    /// are margin, and T frames give `T * hop` (Vocos' `ISTFT` with `padding="same"`).
    Same,
}

/// The inverse of a [`Stft`](super::Stft), in f64: each frame is transformed back and windowed again, the frames are added
/// where they overlap, and the sum is divided by that of the squared windows (Griffin and Lim 1984). Of spectra that
/// belong to no signal, this makes the signal whose spectra are nearest. Immutable; threads may share it, and clones
/// share their tables.
#[derive(Clone)]
pub struct Istft {
    plan: Arc<Plan>,
}

struct Plan {
    fft: Arc<dyn ComplexToReal<f64>>,
    /// The window, divided by `n_fft`, which the transform leaves to do.
    scaled_window: Vec<f64>,
    squared_window: Vec<f64>,
    hop_samples: usize,
    alignment: FrameAlignment,
    margin_samples: usize,
}

/// Buffers for one pass.
pub(crate) struct Scratch {
    bins: Vec<Complex<f64>>,
    frame: Vec<f64>,
    fft: Vec<Complex<f64>>,
}

impl Istft {
    /// Prepares an inverse transform. Of the spec, it heeds what a [`Stft`](super::Stft) does.
    ///
    /// # Errors
    /// [`Error::BadOption`] when the spec contradicts itself, has pre-emphasis (which is not undone) or frames that the
    /// alignment does not fit: `padding` of none has no centred ones, and the same margin at both ends needs an even
    /// `n_fft - hop`; also when hops are so long that some samples lie under no window.
    pub fn new(spec: &FeatureSpec, alignment: FrameAlignment) -> Result<Self, Error> {
        spec.check()?;
        let bad =
            |field: &'static str, reason: &str| Err(Error::BadOption { field, reason: reason.to_owned() });
        if spec.preemphasis.is_some() {
            return bad("preemphasis", "is not undone by the inverse transform");
        }
        if alignment == FrameAlignment::Centred && spec.padding == Padding::None {
            return bad("padding", "leaves no frame centred on the first sample");
        }
        if spec.hop_samples > spec.n_fft {
            return bad("hop_samples", "leaves samples between frames: must be below n_fft");
        }
        if alignment == FrameAlignment::Same && (spec.n_fft - spec.hop_samples) % 2 == 1 {
            return bad("hop_samples", "must be even for equal margins at both ends");
        }
        let window = centred_window(spec);
        let plan = Plan {
            fft: RealFftPlanner::new().plan_fft_inverse(spec.n_fft),
            scaled_window: window.iter().map(|weight| weight / spec.n_fft as f64).collect(),
            squared_window: window.iter().map(|weight| weight * weight).collect(),
            hop_samples: spec.hop_samples,
            alignment,
            margin_samples: match alignment {
                FrameAlignment::Centred => spec.n_fft / 2,
                FrameAlignment::Same => (spec.n_fft - spec.hop_samples) / 2,
            },
        };
        if plan.least_envelope() <= MIN_ENVELOPE {
            return bad("hop_samples", "leaves samples that no window reaches");
        }
        Ok(Istft { plan: Arc::new(plan) })
    }

    /// Bins of a frame, `n_fft / 2 + 1`.
    pub fn n_bins(&self) -> usize {
        self.plan.squared_window.len() / 2 + 1
    }

    /// Samples that `n_frames` give.
    pub fn n_samples(&self, n_frames: usize) -> usize {
        let n_hops = match self.plan.alignment {
            FrameAlignment::Centred => n_frames.saturating_sub(1),
            FrameAlignment::Same => n_frames,
        };
        n_hops.saturating_mul(self.plan.hop_samples)
    }

    /// The samples of all frames: [`Istft::n_samples`] of them. Imaginary parts of the first and the last bin, which the
    /// spectrum of a real signal does not have, count for nothing.
    ///
    /// # Errors
    /// [`Error::BadFeatures`] for spectra of another size.
    pub fn samples(&self, spectrogram: &Spectrogram) -> Result<Vec<f32>, Error> {
        let Spectrogram { bins, n_bins, n_frames } = spectrogram;
        if *n_bins != self.n_bins() || n_bins.checked_mul(*n_frames) != Some(bins.len()) {
            let (found, expected) = (bins.len(), self.n_bins());
            let reason =
                format!("{found} bins for {n_frames} frames of {n_bins}, frames of {expected} expected");
            return Err(Error::BadFeatures { reason });
        }
        let mut samples = Vec::with_capacity(self.n_samples(*n_frames));
        let mut stream = self.stream();
        for frame in bins.chunks_exact(*n_bins) {
            stream.push(frame, &mut samples)?;
        }
        stream.finish(&mut samples);
        Ok(samples)
    }

    /// Starts a signal of which one frame comes after the other.
    pub fn stream(&self) -> OverlapAdd {
        let n_held = self.plan.n_held();
        let n_buffered = n_held + self.plan.squared_window.len();
        OverlapAdd {
            istft: self.clone(),
            scratch: self.scratch(),
            sum: vec![0.0; n_buffered],
            envelope: vec![0.0; n_buffered],
            n_margin: n_held + self.plan.margin_samples,
            n_frames: 0,
        }
    }

    /// What a frame of [`Istft::n_bins`] bins adds to the overlapping sum: `n_fft` values.
    pub(crate) fn windowed<'a>(&self, bins: &[Complex<f64>], scratch: &'a mut Scratch) -> &'a [f64] {
        scratch.bins.copy_from_slice(bins);
        // The transform complains of imaginary parts here.
        if let [first, .., last] = scratch.bins.as_mut_slice() {
            (first.im, last.im) = (0.0, 0.0);
        }
        // Lengths come from the plan itself, so this cannot fail.
        let transformed =
            self.plan.fft.process_with_scratch(&mut scratch.bins, &mut scratch.frame, &mut scratch.fft);
        debug_assert!(transformed.is_ok());
        scratch.frame.iter_mut().zip(&self.plan.scaled_window).for_each(|(value, weight)| *value *= weight);
        &scratch.frame
    }

    /// What each frame adds to what the sum is divided by: `n_fft` values.
    pub fn squared_window(&self) -> &[f64] {
        &self.plan.squared_window
    }

    /// Samples from frame to frame.
    pub(crate) fn hop_samples(&self) -> usize {
        self.plan.hop_samples
    }

    /// Samples at either end of the sum that are none of the signal's.
    pub fn margin_samples(&self) -> usize {
        self.plan.margin_samples
    }

    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            bins: self.plan.fft.make_input_vec(),
            frame: self.plan.fft.make_output_vec(),
            fft: self.plan.fft.make_scratch_vec(),
        }
    }
}

impl Plan {
    /// The smallest sum of squared windows over a sample that is not margin, however many frames there are.
    fn least_envelope(&self) -> f64 {
        let squared = |at: usize| self.squared_window.get(at).copied().unwrap_or(0.0);
        let envelope = |offset: usize| {
            let at = self.margin_samples + offset;
            // Centred frames lie before and after every sample; of the others, one may be the only one.
            let after = match self.alignment {
                FrameAlignment::Centred => at.checked_sub(self.hop_samples).map_or(0.0, squared),
                FrameAlignment::Same => 0.0,
            };
            squared(at) + after
        };
        (0..self.hop_samples).map(envelope).fold(f64::INFINITY, f64::min)
    }

    /// Samples that are held back although no later frame reaches them: they are margin if none follows.
    fn n_held(&self) -> usize {
        self.hop_samples.saturating_sub(self.squared_window.len() - self.margin_samples)
    }
}

/// A signal whose frames come one by one. What it gives in parts is what [`Istft::samples`] gives at once, to the bit.
pub struct OverlapAdd {
    istft: Istft,
    scratch: Scratch,
    /// The sum of the frames so far, from the first sample that has not been given out.
    sum: Vec<f64>,
    /// That of the squared windows.
    envelope: Vec<f64>,
    /// Of what comes next, how much is margin.
    n_margin: usize,
    n_frames: usize,
}

impl OverlapAdd {
    /// Adds a frame of [`Istft::n_bins`] bins, and appends to `samples` those that no later frame changes: hop samples, and
    /// fewer while the first frames reach into the margin (centred with a hop of `n_fft / 4`: none for the first two).
    ///
    /// # Errors
    /// [`Error::BadFeatures`] for another number of bins.
    pub fn push(&mut self, bins: &[Complex<f64>], samples: &mut Vec<f32>) -> Result<(), Error> {
        if bins.len() != self.scratch.bins.len() {
            let reason = format!("a frame of {} bins, {} expected", bins.len(), self.scratch.bins.len());
            return Err(Error::BadFeatures { reason });
        }
        let start = self.istft.plan.n_held();
        let frame = self.istft.windowed(bins, &mut self.scratch);
        self.sum[start..].iter_mut().zip(frame).for_each(|(sum, value)| *sum += value);
        let squares = self.istft.squared_window();
        self.envelope[start..].iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        self.n_frames += 1;
        self.give(self.istft.hop_samples(), samples);
        Ok(())
    }

    /// Appends what is left: after T frames, [`Istft::n_samples`] of T have been given in all.
    pub fn finish(mut self, samples: &mut Vec<f32>) {
        if self.n_frames > 0 {
            let n_to_end = self.istft.squared_window().len() - self.istft.margin_samples();
            self.give(n_to_end.saturating_sub(self.istft.hop_samples()), samples);
        }
    }

    /// Takes the first `n` of the sum out, and those that are not margin to `samples`.
    fn give(&mut self, n: usize, samples: &mut Vec<f32>) {
        let skipped = self.n_margin.min(n);
        self.n_margin -= skipped;
        let finished = self.sum[skipped..n].iter().zip(&self.envelope[skipped..n]);
        samples.extend(finished.map(|(sum, envelope)| (sum / envelope) as f32));
        for buffer in [&mut self.sum, &mut self.envelope] {
            let n_kept = buffer.len() - n;
            buffer.copy_within(n.., 0);
            buffer[n_kept..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Stft, WindowKind};

    /// (n_fft, window, hop): squared windows that add up to a constant and such that do not, hops of half the window and more.
    const SIZES: [(usize, usize, usize); 6] =
        [(1024, 1024, 256), (400, 400, 160), (512, 400, 160), (64, 64, 32), (64, 64, 46), (64, 63, 1)];

    fn spec((n_fft, window_samples, hop_samples): (usize, usize, usize)) -> FeatureSpec {
        FeatureSpec { n_fft, window_samples, hop_samples, ..FeatureSpec::vocoder(24_000, 20) }
    }

    fn samples(n: usize) -> Vec<f32> {
        (0..n).map(|t| ((t * t) as f32 * 1e-4).sin() * 0.3 + (t as f32 * 0.7).cos() * 0.1).collect()
    }

    fn assert_close(restored: &[f32], samples: &[f32]) {
        for (t, (restored, sample)) in restored.iter().zip(samples).enumerate() {
            assert!((restored - sample).abs() < 1e-6, "sample {t} is {restored}, not {sample}");
        }
    }

    #[test]
    fn spectra_of_samples_give_the_samples() {
        for size in SIZES {
            for (window, padding) in
                [(WindowKind::HannPeriodic, Padding::Reflect), (WindowKind::HannSymmetric, Padding::Zero)]
            {
                let spec = FeatureSpec { window, padding, ..spec(size) };
                let samples = samples(3_000);
                let spectrogram = Stft::new(&spec).unwrap().spectrogram(&samples);
                let istft = Istft::new(&spec, FrameAlignment::Centred).unwrap();
                let restored = istft.samples(&spectrogram).unwrap();
                assert_eq!(restored.len(), 3_000 / size.2 * size.2, "{size:?}");
                assert_close(&restored, &samples);
            }
        }
    }

    #[test]
    fn frames_that_lie_the_same_way_give_the_samples() {
        for size in [(1024, 1024, 256), (512, 400, 160), (64, 64, 46), (64, 64, 2)] {
            let spec = FeatureSpec { padding: Padding::None, ..spec(size) };
            let samples = samples(20 * size.2);
            let margin = vec![0.0; (size.0 - size.2) / 2];
            let padded = [margin.as_slice(), &samples, &margin].concat();
            let spectrogram = Stft::new(&spec).unwrap().spectrogram(&padded);
            assert_eq!(spectrogram.n_frames, 20);
            let restored = Istft::new(&spec, FrameAlignment::Same).unwrap().samples(&spectrogram).unwrap();
            assert_eq!(restored.len(), samples.len());
            assert_close(&restored, &samples);
        }
    }

    #[test]
    fn a_stream_gives_what_the_whole_gives() {
        for size in SIZES {
            for alignment in [FrameAlignment::Centred, FrameAlignment::Same] {
                if alignment == FrameAlignment::Same && (size.0 - size.2) % 2 == 1 {
                    continue;
                }
                let istft = Istft::new(&spec(size), alignment).unwrap();
                let spectrogram = Stft::new(&spec(size)).unwrap().spectrogram(&samples(12 * size.2));
                assert_eq!(spectrogram.n_frames, 13);
                let whole = istft.samples(&spectrogram).unwrap();
                let mut stream = istft.stream();
                let (mut parts, mut counts) = (Vec::new(), Vec::new());
                for frame in 0..spectrogram.n_frames {
                    let mut part = Vec::new();
                    stream.push(spectrogram.frame(frame), &mut part).unwrap();
                    counts.push(part.len());
                    parts.extend(part);
                }
                stream.finish(&mut parts);
                let bits =
                    |samples: &[f32]| samples.iter().map(|sample| sample.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&parts), bits(&whole), "{size:?} {alignment:?}");
                if size == (1024, 1024, 256) && alignment == FrameAlignment::Centred {
                    assert_eq!(counts[..4], [0, 0, 256, 256]);
                }
                // What a frame completes does not wait.
                let n_behind = size.0.div_ceil(size.2) + 1;
                assert!(counts.iter().skip(n_behind).all(|count| *count == size.2), "{size:?} {counts:?}");
            }
        }
    }

    #[test]
    fn no_frame_and_one() {
        for (alignment, expected) in
            [(FrameAlignment::Centred, [0, 0, 256]), (FrameAlignment::Same, [0, 256, 512])]
        {
            let istft = Istft::new(&spec((1024, 1024, 256)), alignment).unwrap();
            for (n_frames, expected) in expected.into_iter().enumerate() {
                let bins = vec![Complex::new(1.0, 0.5); 513 * n_frames];
                let restored = istft.samples(&Spectrogram { bins, n_bins: 513, n_frames }).unwrap();
                assert_eq!((restored.len(), istft.n_samples(n_frames)), (expected, expected));
                assert!(restored.iter().all(|sample| sample.is_finite()));
            }
        }
    }

    #[test]
    fn what_cannot_be_inverted_is_refused() {
        let refused = |spec: FeatureSpec, alignment| match Istft::new(&spec, alignment) {
            Err(Error::BadOption { field, .. }) => field,
            Err(error) => panic!("{error}"),
            Ok(_) => "",
        };
        let (centred, same) = (FrameAlignment::Centred, FrameAlignment::Same);
        // Hann is zero at its first sample: frames side by side leave that one out, and narrow ones more.
        assert_eq!(refused(spec((64, 64, 64)), centred), "hop_samples");
        assert_eq!(refused(spec((64, 64, 64)), same), "hop_samples");
        assert_eq!(refused(spec((64, 32, 32)), centred), "hop_samples");
        assert_eq!(refused(spec((64, 32, 31)), centred), "");
        assert_eq!(refused(spec((64, 64, 100)), centred), "hop_samples");
        assert_eq!(refused(spec((64, 64, 15)), same), "hop_samples");
        assert_eq!(refused(FeatureSpec { padding: Padding::None, ..spec((64, 64, 16)) }, centred), "padding");
        assert_eq!(
            refused(FeatureSpec { preemphasis: Some(0.97), ..spec((64, 64, 16)) }, same),
            "preemphasis"
        );
        assert_eq!(refused(FeatureSpec { hop_samples: 0, ..spec((64, 64, 16)) }, same), "hop_samples");

        let istft = Istft::new(&spec((64, 64, 16)), centred).unwrap();
        let spectrogram = Spectrogram { bins: vec![Complex::default(); 66], n_bins: 33, n_frames: 3 };
        assert!(matches!(istft.samples(&spectrogram), Err(Error::BadFeatures { .. })));
        let push = istft.stream().push(&[Complex::default(); 32], &mut Vec::new());
        assert!(matches!(push, Err(Error::BadFeatures { .. })));
    }
}

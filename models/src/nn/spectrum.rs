//! What is done to spectra (.., 2 F), whose frames have real parts and then imaginary ones: each in one pass, as there are many numbers.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{floats, on_cpu, tensor, with_floats};

/// F of (.., 2 F).
fn half(x: &Shape) -> candle_core::Result<usize> {
    match x.dims().last() {
        Some(n) if *n > 0 && n.is_multiple_of(2) => Ok(n / 2),
        _ => {
            candle_core::bail!("a spectrum has as many real parts as imaginary ones, and {x:?} cannot be one")
        }
    }
}

/// The shape of one number for each bin.
fn bins_of(x: &Shape, n_bins: usize) -> Shape {
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n_bins;
    }
    Shape::from(dims)
}

/// Natural logarithms of magnitudes and then phases (radians), (.., 2 F), to real parts and then imaginary ones. Magnitudes are at most
/// `max_magnitude`, beyond which nothing is learnt of them. Differentiable.
///
/// # Errors
/// An odd number of channels.
pub fn from_polar(x: &Tensor, max_magnitude: f32) -> candle_core::Result<Tensor> {
    let n_bins = half(x.shape())?;
    if on_cpu(&[x]) {
        return x.contiguous()?.apply_op1(FromPolar { max_magnitude });
    }
    let magnitude = x.narrow(D::Minus1, 0, n_bins)?.exp()?.minimum(max_magnitude)?;
    let phase = x.narrow(D::Minus1, n_bins, n_bins)?;
    Tensor::cat(&[(&magnitude * phase.cos()?)?, (&magnitude * phase.sin()?)?], D::Minus1)
}

struct FromPolar {
    max_magnitude: f32,
}

impl CustomOp1 for FromPolar {
    fn name(&self) -> &'static str {
        "from-polar"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, n_bins) = (floats(x, layout)?, half(layout.shape())?);
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(2 * n_bins).zip(x.par_chunks(2 * n_bins)).for_each(|(y, x)| {
            let ((re, im), (logarithms, phases)) = (y.split_at_mut(n_bins), x.split_at(n_bins));
            for ((re, im), (logarithm, phase)) in re.iter_mut().zip(im).zip(logarithms.iter().zip(phases)) {
                // What is not a number stays none.
                let magnitude = logarithm.exp();
                let magnitude = if magnitude > self.max_magnitude { self.max_magnitude } else { magnitude };
                let (sine, cosine) = phase.sin_cos();
                (*re, *im) = (magnitude * cosine, magnitude * sine);
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (n_bins, max) = (half(x.shape())?, self.max_magnitude.ln());
        let dx = with_floats([x, y, dy], |[x, y, dy]| {
            let mut dx = vec![0f32; x.len()];
            let rows = dx.par_chunks_mut(2 * n_bins).zip(x.par_chunks(2 * n_bins));
            let rows = rows.zip(y.par_chunks(2 * n_bins).zip(dy.par_chunks(2 * n_bins)));
            rows.for_each(|((dx, x), (y, dy))| {
                let ((re, im), (d_re, d_im)) = (y.split_at(n_bins), dy.split_at(n_bins));
                let (d_logarithms, d_phases) = dx.split_at_mut(n_bins);
                for bin in 0..n_bins {
                    if x[bin] <= max {
                        d_logarithms[bin] = d_re[bin] * re[bin] + d_im[bin] * im[bin];
                    }
                    d_phases[bin] = d_im[bin] * re[bin] - d_re[bin] * im[bin];
                }
            });
            dx
        })?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

/// `sqrt(re^2 + im^2 + floor^2)` of spectra (.., 2 F), one for each bin, (.., F): never below `floor` (above 0), where a magnitude has no
/// direction. Differentiable.
///
/// # Errors
/// An odd number of channels.
pub fn magnitude(x: &Tensor, floor: f32) -> candle_core::Result<Tensor> {
    let n_bins = half(x.shape())?;
    if on_cpu(&[x]) {
        return x.contiguous()?.apply_op1(Magnitude { floor });
    }
    let (re, im) = (x.narrow(D::Minus1, 0, n_bins)?, x.narrow(D::Minus1, n_bins, n_bins)?);
    ((re.sqr()? + im.sqr()?)? + f64::from(floor * floor))?.sqrt()
}

struct Magnitude {
    floor: f32,
}

impl Magnitude {
    #[inline]
    fn of(&self, re: f32, im: f32) -> f32 {
        (re * re + im * im + self.floor * self.floor).sqrt()
    }
}

impl CustomOp1 for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, n_bins) = (floats(x, layout)?, half(layout.shape())?);
        let mut y = vec![0f32; x.len() / 2];
        y.par_chunks_mut(n_bins).zip(x.par_chunks(2 * n_bins)).for_each(|(y, x)| {
            let (re, im) = x.split_at(n_bins);
            y.iter_mut().zip(re.iter().zip(im)).for_each(|(y, (re, im))| *y = self.of(*re, *im));
        });
        Ok((CpuStorage::F32(y), bins_of(layout.shape(), n_bins)))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let n_bins = half(x.shape())?;
        let dx = with_floats([x, y, dy], |[x, y, dy]| {
            let mut dx = vec![0f32; x.len()];
            let rows = dx.par_chunks_mut(2 * n_bins).zip(x.par_chunks(2 * n_bins));
            let rows = rows.zip(y.par_chunks(n_bins).zip(dy.par_chunks(n_bins)));
            rows.for_each(|((dx, x), (y, dy))| {
                let ((re, im), (d_re, d_im)) = (x.split_at(n_bins), dx.split_at_mut(n_bins));
                for bin in 0..n_bins {
                    let slope = dy[bin] / y[bin];
                    (d_re[bin], d_im[bin]) = (slope * re[bin], slope * im[bin]);
                }
            });
            dx
        })?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

/// How far spectra (B, T, 2 F) are from `target` (B, T, 2 F), (B): the spectral convergence of their magnitudes, which tells loud
/// bins, and the mean difference of the magnitudes' logarithms, which tells quiet ones, added up (Yamamoto et al. 2020, equations 4 and
/// 5, for each row by itself). Magnitudes are those of [`magnitude`]. `silence` (above 0) is added to the target's magnitude where
/// convergence is divided by it: of what is next to silent nobody hears how far it is off. Differentiable in `x`: `target` is taken
/// as it is.
///
/// # Errors
/// Different shapes, no bins.
pub fn spectral_distance(
    x: &Tensor,
    target: &Tensor,
    floor: f32,
    silence: f32,
) -> candle_core::Result<Tensor> {
    let (_, n_frames, _) = x.dims3()?;
    if x.dims() != target.dims() || n_frames == 0 {
        candle_core::bail!("spectra {x:?} cannot be held against {target:?}")
    }
    let n = (n_frames * half(x.shape())?) as f64;
    let target = magnitude(&target.detach(), floor)?;
    if on_cpu(&[x, &target]) {
        return x.contiguous()?.apply_op1(SpectralDistance { target, floor, silence });
    }
    let magnitude = magnitude(x, floor)?;
    let over_bins = |x: Tensor| x.flatten_from(1)?.sum(1);
    // Where both are the same, the root has no slope.
    let off = (over_bins((&magnitude - &target)?.sqr()?)? + 1e-20)?.sqrt()?;
    let whole = (over_bins(target.sqr()?)? + n * f64::from(silence * silence))?.sqrt()?;
    let logarithms = over_bins((magnitude.log()? - target.log()?)?.abs()?)?;
    (off / whole)? + (logarithms / n)?
}

struct SpectralDistance {
    /// Magnitudes, (B, T, F).
    target: Tensor,
    floor: f32,
    silence: f32,
}

/// What a row is made of: `|m - s|`, `|s|` and the sum of `|ln m - ln s|`.
struct RowSums {
    off: f64,
    whole: f64,
    logarithms: f64,
}

impl SpectralDistance {
    fn row(&self, x: &[f32], target: &[f32], n_bins: usize) -> RowSums {
        let magnitude = Magnitude { floor: self.floor };
        let (mut off, mut whole, mut logarithms) = (0f64, 0f64, 0f64);
        for (x, target) in x.chunks_exact(2 * n_bins).zip(target.chunks_exact(n_bins)) {
            let (re, im) = x.split_at(n_bins);
            // A frame in single precision, frames in double.
            let (mut frame_off, mut frame_whole, mut frame_logarithms) = (0f32, 0f32, 0f32);
            for ((re, im), target) in re.iter().zip(im).zip(target) {
                let magnitude = magnitude.of(*re, *im);
                frame_off += (magnitude - target) * (magnitude - target);
                frame_whole += target * target;
                frame_logarithms += (magnitude / target).ln().abs();
            }
            off += f64::from(frame_off);
            whole += f64::from(frame_whole);
            logarithms += f64::from(frame_logarithms);
        }
        let silence = f64::from(self.silence).powi(2) * target.len() as f64;
        RowSums { off: off.sqrt(), whole: (whole + silence).sqrt(), logarithms }
    }
}

impl CustomOp1 for SpectralDistance {
    fn name(&self) -> &'static str {
        "spectral-distance"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n_rows, n_frames, width) = layout.shape().dims3()?;
        let x = floats(x, layout)?;
        let n = n_frames * width / 2;
        let y = with_floats([&self.target], |[target]| {
            let rows = x.par_chunks(n_frames * width).zip(target.par_chunks(n));
            let distance = |(x, target): (&[f32], &[f32])| {
                let RowSums { off, whole, logarithms } = self.row(x, target, width / 2);
                (off / whole + logarithms / n as f64) as f32
            };
            rows.map(distance).collect()
        })?;
        Ok((CpuStorage::F32(y), Shape::from(n_rows)))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (_, n_frames, width) = x.dims3()?;
        let (n, n_bins, magnitude) = (n_frames * width / 2, width / 2, Magnitude { floor: self.floor });
        let dx = with_floats([x, &self.target, dy], |[x, target, dy]| {
            let mut dx = vec![0f32; x.len()];
            let rows = dx.par_chunks_mut(n_frames * width).zip(x.par_chunks(n_frames * width));
            rows.zip(target.par_chunks(n).zip(dy)).for_each(|((dx, x), (target, dy))| {
                let RowSums { off, whole, .. } = self.row(x, target, n_bins);
                let convergence = if off > 0.0 { f64::from(*dy) / (off * whole) } else { 0.0 };
                let (convergence, share) = (convergence as f32, dy / n as f32);
                let frames = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
                for ((dx, x), target) in frames.zip(target.chunks_exact(n_bins)) {
                    let ((re, im), (d_re, d_im)) = (x.split_at(n_bins), dx.split_at_mut(n_bins));
                    for bin in 0..n_bins {
                        let m = magnitude.of(re[bin], im[bin]);
                        let off = m - target[bin];
                        let direction = if off == 0.0 { 0.0 } else { off.signum() };
                        let slope = (convergence * off + share * direction / m) / m;
                        (d_re[bin], d_im[bin]) = (slope * re[bin], slope * im[bin]);
                    }
                }
            });
            dx
        })?;
        Ok(Some(tensor(dx, x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::nn::test_support::{assert_close, composed, gradients, noise};

    type Run<'a> = &'a (dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Sync);

    #[test]
    fn kernel_and_composed_forms_agree_in_values_and_gradients() -> candle_core::Result<()> {
        // Some magnitudes are beyond the limit.
        let polar = Var::from_tensor(&(noise((2, 5, 26), 1)? * 3.0)?)?;
        agree(&polar, &|x| from_polar(x, 5.0))?;
        let spectra = Var::from_tensor(&noise((3, 5, 26), 2)?)?;
        agree(&spectra, &|x| magnitude(x, 0.1))?;
        agree(&spectra, &|x| magnitude(&x.transpose(0, 1)?, 0.1))?;
        let target = noise((3, 5, 26), 3)?;
        agree(&spectra, &|x| spectral_distance(x, &target, 0.01, 0.1))?;
        assert!(magnitude(&noise((2, 3), 1)?, 0.1).is_err());
        assert!(spectral_distance(&spectra, &noise((3, 5, 24), 1)?, 0.01, 0.1).is_err());
        Ok(())
    }

    fn agree(x: &Var, run: Run<'_>) -> candle_core::Result<()> {
        let both = || -> candle_core::Result<_> {
            let y = run(x)?;
            Ok((y.clone(), gradients(&y, &[x])?))
        };
        let (ours, theirs) = (both()?, composed(both)??);
        assert_close(&ours.0, &theirs.0, 2e-5)?;
        let ([Some(ours)], [Some(theirs)]) = (ours.1, theirs.1) else {
            candle_core::bail!("a gradient is missing")
        };
        assert_close(&ours, &theirs, 5e-5)
    }

    #[test]
    fn equal_spectra_are_at_no_distance_and_pull_nowhere() -> candle_core::Result<()> {
        let spectra = Var::from_tensor(&noise((2, 4, 10), 4)?)?;
        let distance = spectral_distance(&spectra, &spectra.as_detached_tensor(), 1e-3, 1e-2)?;
        assert_eq!(distance.to_vec1::<f32>()?, [0.0, 0.0]);
        let [Some(gradient)] = gradients(&distance, &[&spectra])? else {
            candle_core::bail!("a gradient is missing")
        };
        assert_eq!(gradient.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0);
        // Twice as loud is off by the whole of it, and by ln 2 in each bin; silence is bounded.
        let twice = spectral_distance(&(spectra.as_tensor() * 2.0)?, &spectra, 1e-6, 1e-6)?;
        for distance in twice.to_vec1::<f32>()? {
            assert!((distance - 1.0 - std::f32::consts::LN_2).abs() < 1e-4, "{distance}");
        }
        let silence = spectral_distance(&spectra, &spectra.zeros_like()?, 1e-3, 1e-2)?;
        assert!(silence.to_vec1::<f32>()?.iter().all(|distance| *distance < 200.0));
        Ok(())
    }
}

//! Convolution by fast Fourier transform.

use super::transform;

/// Shortest transform, samples.
const MIN_FFT_SAMPLES: usize = 256;
/// A transform is this many times the kernel, unless the signal ends sooner.
const FFT_PER_KERNEL: usize = 4;

/// Samples `skip .. skip + signal.len()` of the full convolution of `signal` with `kernel` (overlap-add); zeros where it
/// has ended.
///
/// `skip` is the sample of the kernel at which it is centred: the result is then aligned with the signal.
pub(super) fn convolve(signal: &[f32], kernel: &[f32], skip: usize) -> Vec<f32> {
    if signal.is_empty() || kernel.is_empty() {
        return vec![0.0; signal.len()];
    }
    let n_full = signal.len() + kernel.len() - 1;
    let n_fft = (FFT_PER_KERNEL * kernel.len()).min(n_full).next_power_of_two().max(MIN_FFT_SAMPLES);
    let (forward, inverse) = (transform::forward(n_fft), transform::inverse(n_fft));
    let mut block = forward.make_input_vec();
    let mut response = forward.make_output_vec();
    let mut spectrum = forward.make_output_vec();
    block[..kernel.len()].copy_from_slice(kernel);
    // Lengths come from the plans themselves and spectra of real signals are made by them, so these cannot fail.
    let transformed = forward.process(&mut block, &mut response);
    debug_assert!(transformed.is_ok());

    let mut convolved = vec![0.0; n_full.max(skip + signal.len())];
    let scale = 1.0 / n_fft as f32;
    let step = n_fft - kernel.len() + 1;
    for (index, part) in signal.chunks(step).enumerate() {
        block.fill(0.0);
        block[..part.len()].copy_from_slice(part);
        let transformed = forward.process(&mut block, &mut spectrum);
        debug_assert!(transformed.is_ok());
        for (value, response) in spectrum.iter_mut().zip(&response) {
            *value = *value * response * scale;
        }
        let transformed = inverse.process(&mut spectrum, &mut block);
        debug_assert!(transformed.is_ok());
        for (sum, value) in convolved[index * step..].iter_mut().zip(&block) {
            *sum += value;
        }
    }
    convolved.drain(..skip);
    convolved.truncate(signal.len());
    convolved
}

/// A Hamming window at `offset` taps from its middle, `half` of which lie on either side.
pub(super) fn hamming(offset: f64, half: f64) -> f64 {
    0.54 + 0.46 * (std::f64::consts::PI * offset / half).cos()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition.
    fn direct(signal: &[f32], kernel: &[f32], skip: usize) -> Vec<f32> {
        let at = |n: usize| -> f64 {
            (0..kernel.len())
                .filter_map(|k| Some(f64::from(kernel[k]) * f64::from(*signal.get(n.checked_sub(k)?)?)))
                .sum()
        };
        (0..signal.len()).map(|n| at(n + skip) as f32).collect()
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            signal in prop::collection::vec(-1.0..1.0_f32, 0..1_500),
            kernel in prop::collection::vec(-1.0..1.0_f32, 0..150),
            skip in 0_usize..200,
        ) {
            let fast = convolve(&signal, &kernel, skip);
            let slow = direct(&signal, &kernel, skip);
            prop_assert_eq!(fast.len(), signal.len());
            for (n, (a, b)) in fast.iter().zip(&slow).enumerate() {
                prop_assert!((a - b).abs() < 2e-5, "{}: {} {}", n, a, b);
            }
        }
    }
}

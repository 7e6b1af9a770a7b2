//! Reverberation: the waveform as it sounds in a room.

use super::convolve::convolve;
use super::level::{check_rate, check_samples, energy};
use crate::{Error, Waveform};

/// Longest impulse response that is accepted, samples: 10 s at 96 kHz.
const MAX_RESPONSE_SAMPLES: usize = 960_000;

/// What a room makes of a click: the direct sound, then echoes.
#[derive(Debug, Clone, PartialEq)]
pub struct ImpulseResponse {
    response: Waveform,
    direct_sample: usize,
}

impl ImpulseResponse {
    /// A recorded response. The direct sound is taken to be the largest sample, the first of equals; it gets amplitude 1.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a response that is empty, silent or longer than 960,000 samples, [`Error::BadSampleRate`]
    /// for a rate of 0, [`Error::Undecodable`] for samples that are not numbers or above 1e10.
    pub fn recorded(mut response: Waveform) -> Result<Self, Error> {
        check_rate(&response, response.sample_rate)?;
        check_samples(&response)?;
        let bad = |reason: String| Err(Error::BadOption { field: "impulse response", reason });
        let n_samples = response.samples.len();
        if n_samples > MAX_RESPONSE_SAMPLES {
            return bad(format!(
                "has {n_samples} samples, at most {MAX_RESPONSE_SAMPLES} are accepted: cut its tail"
            ));
        }
        let samples = response.samples.iter().copied().enumerate();
        let loudest =
            samples.reduce(|loudest, next| if next.1.abs() > loudest.1.abs() { next } else { loudest });
        match loudest {
            Some((direct_sample, amplitude)) if amplitude != 0.0 => {
                response.samples.iter_mut().for_each(|sample| *sample /= amplitude);
                Ok(ImpulseResponse { response, direct_sample })
            }
            _ => bad("has no sample that is not zero: leave it out".to_owned()),
        }
    }

    /// A response whose direct sound is known to be at `direct_sample`, which is within it.
    pub(super) fn synthetic(response: Waveform, direct_sample: usize) -> Self {
        ImpulseResponse { response, direct_sample }
    }

    /// The samples, the direct sound at amplitude 1.
    pub fn response(&self) -> &Waveform {
        &self.response
    }

    /// Where the direct sound is.
    pub fn direct_sample(&self) -> usize {
        self.direct_sample
    }
}

/// Convolves with the impulse response of a room: [`ImpulseResponse::recorded`], or from [`Shoebox`](super::Shoebox) or
/// [`decaying_noise`](super::decaying_noise).
///
/// The direct sound is aligned with sample 0, so that speech starts when it did; the tail beyond the end is cut off, so
/// that it lasts as long as it did. The energy is that of the input. Nothing is clipped: the result may exceed full scale.
///
/// # Errors
/// [`Error::BadSampleRate`] when the rates differ, [`Error::Undecodable`] for samples that are not numbers or above 1e10.
pub fn reverberate(waveform: &Waveform, room: &ImpulseResponse) -> Result<Waveform, Error> {
    check_rate(&room.response, waveform.sample_rate)?;
    check_samples(waveform)?;
    let mut samples = convolve(&waveform.samples, &room.response.samples, room.direct_sample);
    let (energy_in, energy_out) = (energy(&waveform.samples), energy(&samples));
    if energy_out > 0.0 {
        let scale = (energy_in / energy_out).sqrt();
        samples.iter_mut().for_each(|sample| *sample = (f64::from(*sample) * scale) as f32);
    }
    Ok(Waveform { samples, sample_rate: waveform.sample_rate })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waveform(samples: Vec<f32>) -> Waveform {
        Waveform { samples, sample_rate: 16_000 }
    }

    fn room(samples: Vec<f32>) -> ImpulseResponse {
        ImpulseResponse::recorded(waveform(samples)).unwrap()
    }

    #[test]
    fn speech_starts_when_it_did() {
        let mut speech = vec![0.0; 500];
        speech[200..300].fill(0.5);
        // Ringing before the direct path at sample 30, echoes after it, the polarity reversed.
        let mut response = vec![0.0; 90];
        (response[29], response[30], response[70]) = (0.1, -1.0, -0.5);
        let wet = reverberate(&waveform(speech.clone()), &room(response)).unwrap().samples;
        assert_eq!(wet.len(), 500);
        let first = wet.iter().position(|sample| sample.abs() > 0.2).unwrap();
        assert_eq!(first, 200);
        assert!(wet[200] > 0.0 && wet[239] < wet[240] && wet[320] > 0.1);
        assert!((energy(&wet) / energy(&speech) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_lone_impulse_changes_nothing() {
        let speech: Vec<f32> = (0..1_000).map(|t| (t as f32 * 0.1).sin()).collect();
        let wet = reverberate(&waveform(speech.clone()), &room(vec![0.0, 0.0, 3.0])).unwrap();
        assert!(wet.samples.iter().zip(&speech).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn responses_that_are_none_are_refused() {
        for response in [vec![], vec![0.0; 100], vec![1.0; MAX_RESPONSE_SAMPLES + 1]] {
            let refused = ImpulseResponse::recorded(waveform(response));
            assert!(matches!(refused, Err(Error::BadOption { field: "impulse response", .. })));
        }
        let broken = ImpulseResponse::recorded(waveform(vec![f32::NAN]));
        assert!(matches!(broken, Err(Error::Undecodable { .. })));
        let other = ImpulseResponse::recorded(Waveform { samples: vec![1.0], sample_rate: 8_000 }).unwrap();
        let refused = reverberate(&waveform(vec![0.1; 100]), &other);
        assert!(matches!(refused, Err(Error::BadSampleRate { .. })));
    }

    proptest! {
        #[test]
        fn length_and_energy_are_kept(
            speech in prop::collection::vec(-1.0..1.0_f32, 0..2_000),
            response in prop::collection::vec(-1.0..1.0_f32, 1..300),
        ) {
            let speech = waveform(speech);
            prop_assume!(response.iter().any(|sample| *sample != 0.0));
            let wet = reverberate(&speech, &room(response)).unwrap();
            prop_assert_eq!(wet.samples.len(), speech.samples.len());
            prop_assert!(wet.samples.iter().all(|sample| sample.is_finite()));
            let (before, after) = (energy(&speech.samples), energy(&wet.samples));
            prop_assert!((before - after).abs() <= 1e-4 * before);
        }
    }
}

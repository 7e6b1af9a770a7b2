//! Sound in a page: a picture of it, and a way to listen to it.

use audio::encode::wav_bytes;
use audio::{FeatureSpec, LogMel, Waveform, resample};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Error;
use crate::page::escape;
use crate::plot::Spectrogram;

/// Rate of what is drawn, Hz: below half of it is what people know each other by.
const RATE: u32 = 16_000;
/// Mel bins of what is drawn.
const N_MELS: usize = 80;
/// How far below the loudest something is drawn, nepers: 80 dB.
const RANGE: f64 = 4.0 * std::f64::consts::LN_10;
/// Seconds that are drawn and played: the page is one file.
const MAX_SECS: f64 = 15.0;

/// What a model makes, beside what was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct SoundPair {
    /// What it is of, such as its text.
    pub title: String,
    /// What the model makes.
    pub made: Waveform,
    /// What was recorded.
    pub recorded: Waveform,
}

/// Draws sounds, all on the same scales.
pub(crate) struct SoundFigures(LogMel);

impl SoundFigures {
    pub fn new() -> Result<Self, Error> {
        let spec = FeatureSpec { dynamic_range: Some(RANGE), ..FeatureSpec::vocoder(RATE, N_MELS) };
        Ok(Self(LogMel::new(&spec)?))
    }

    /// The picture of a sound and its player; nothing of what is too short for a frame.
    pub fn show(&self, name: &str, waveform: &Waveform) -> Result<String, Error> {
        let samples = waveform.between(0.0, MAX_SECS).to_vec();
        let waveform = resample(&Waveform { samples, ..*waveform }, RATE)?;
        let features = self.0.compute(&waveform.samples);
        if features.n_frames == 0 {
            return Ok(String::new());
        }
        let (width, height) = (3 * features.n_frames, 2 * features.n_mels);
        let picture = Spectrogram { title: name.to_owned(), features }.to_data_uri()?;
        let sound = BASE64_STANDARD.encode(wav_bytes(&waveform)?);
        Ok(format!(
            "<p><img alt=\"spectrogram\" width=\"{width}\" height=\"{height}\" src=\"{picture}\"></p>\n\
             <audio controls preload=\"none\" src=\"data:audio/wav;base64,{sound}\"></audio>\n"
        ))
    }

    /// Pairs, one below the other.
    pub fn pairs(&self, pairs: &[SoundPair]) -> Result<String, Error> {
        let mut body = String::new();
        for SoundPair { title, made, recorded } in pairs {
            body += &format!("<h3>{}</h3>\n<p>Made</p>\n", escape(title));
            body += &self.show(title, made)?;
            body += "<p>Recorded</p>\n";
            body += &self.show(title, recorded)?;
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_stands_beside_what_was_recorded() -> Result<(), Error> {
        let waveform = |n: usize| Waveform {
            samples: (0..n).map(|t| (t as f32 * 0.1).sin() * 0.5).collect(),
            sample_rate: 24_000,
        };
        let pair = SoundPair { title: "<yes>".to_owned(), made: waveform(9_000), recorded: waveform(0) };
        let page = SoundFigures::new()?.pairs(&[pair])?;
        assert!(page.contains("<h3>&lt;yes&gt;</h3>") && page.contains("data:image/png;base64,iVBOR"));
        assert_eq!((page.matches("<img").count(), page.matches("<audio").count()), (1, 1));
        Ok(())
    }
}

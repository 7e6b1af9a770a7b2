//! Utterances side by side: features padded with zeros, tokens with what nobody looks at.

use audio::Features;
use candle_core::{Device, Tensor};
use models::Encoder;
use models::SpecialTokens;

use crate::Error;
use crate::task::Extent;

/// What one forward pass takes.
pub struct Batch {
    /// Features, zeros beyond each row's frames.
    pub mel: Tensor, // (B, F, T)
    /// Frames of each row.
    pub n_frames: Vec<usize>,
    /// Those of them in which there is a recording: of a window that is always full the rest is silence.
    pub n_heard: Vec<usize>,
    /// What the decoder sees.
    pub ids: Tensor, // (B, U)
    /// What comes next at each place, row after row.
    pub labels: Vec<u32>,
    /// What each place counts: 0 for padding and for the part of a prompt that is given.
    pub weights: Vec<f32>,
    /// Whether a row is heard the same way again in later epochs.
    pub are_repeated: Vec<bool>,
    /// Tokens of text of each row.
    pub texts: Vec<Vec<u32>>,
    /// Whether the text of a row is what is heard, in this order.
    pub are_transcripts: Vec<bool>,
    /// What it is made of.
    pub extent: Extent,
}

/// One utterance, ready for a batch.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub features: Features,
    pub tokens: Tokens,
    pub duration_secs: f64,
    /// What is computed for it: its frames, those of a window's silence too.
    pub heard_secs: f64,
    /// Whether it is the same in every epoch.
    pub is_repeated: bool,
}

impl Row {
    /// Frames in which there is a recording, one at least.
    fn n_heard(&self) -> usize {
        let n_frames = self.features.n_frames;
        let share = self.duration_secs / self.heard_secs.max(f64::MIN_POSITIVE);
        ((n_frames as f64 * share).ceil() as usize).clamp(n_frames.min(1), n_frames)
    }
}

/// What a decoder is taught about one utterance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tokens {
    /// Context, prompt, text and end.
    pub sequence: Vec<u32>,
    /// What should come at each place but the first; silence is told at the start, whatever the prompt says next.
    pub labels: Vec<u32>,
    /// What each label counts.
    pub weights: Vec<f32>,
    /// Text alone.
    pub text: Vec<u32>,
    /// Whether it is what is heard.
    pub is_transcript: bool,
}

impl Tokens {
    /// `context` and `prompt`, then the text, between its times where they are given, then the end. At the start of the
    /// prompt the model says whether there is speech, as Whisper does; the rest of a prompt is given, not learnt.
    pub fn new(
        special: &SpecialTokens,
        context: &[u32],
        prompt: &[u32],
        text: &[u32],
        times: Option<(u32, u32)>,
    ) -> Self {
        let mut sequence = [context, prompt].concat();
        let n_given = sequence.len();
        if let Some((start, end)) = times {
            sequence.push(start);
            // A text of nothing has a beginning alone.
            if !text.is_empty() {
                sequence.extend_from_slice(text);
                sequence.push(end);
            }
        } else {
            sequence.extend_from_slice(text);
        }
        sequence.push(special.end);
        let mut labels = sequence.get(1..).unwrap_or_default().to_vec();
        let mut weights: Vec<f32> =
            (1..sequence.len()).map(|place| if place < n_given { 0.0 } else { 1.0 }).collect();
        let is_silent = text.is_empty();
        if let (Some(label), Some(weight)) = (labels.get_mut(context.len()), weights.get_mut(context.len())) {
            // Canary's prompts say nothing there that could be learnt.
            if special.writes_times() {
                *weight = 1.0;
            }
            if let Some(no_speech) = special.no_speech.filter(|_| is_silent) {
                *label = no_speech;
            }
        }
        // The time at which nothing is said means nothing.
        if is_silent
            && times.is_some()
            && n_given > context.len() + 1
            && let Some(weight) = weights.get_mut(n_given - 1)
        {
            *weight = 0.0;
        }
        Self { sequence, labels, weights, text: text.to_vec(), is_transcript: true }
    }
}

/// Positions of a batch that count, in order.
pub(super) struct Counted(Vec<u32>);

impl Counted {
    /// Their numbers among the rows of (B times U).
    pub fn rows(&self) -> &[u32] {
        &self.0
    }

    /// What `values`, one for each position, say of them.
    pub fn of<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.0.iter().map(|row| values[*row as usize]).collect()
    }
}

impl Batch {
    /// The positions whose weight is not 0.
    pub(super) fn counted(&self) -> Counted {
        let weights = (0u32..).zip(&self.weights);
        Counted(weights.filter(|(_, weight)| **weight != 0.0).map(|(row, _)| row).collect())
    }

    /// Positions of each row in an encoder.
    pub(super) fn n_positions(&self, encoder: &Encoder) -> Vec<usize> {
        self.n_frames.iter().map(|n| encoder.n_positions(*n)).collect()
    }

    /// Those of them that hold a recording.
    pub(super) fn n_heard_positions(&self, encoder: &Encoder) -> Vec<usize> {
        self.n_heard.iter().map(|n| encoder.n_positions(*n)).collect()
    }

    /// Puts rows side by side.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(rows: Vec<Row>, pad: u32, device: &Device) -> Result<Self, Error> {
        let b = rows.len();
        let n_mels = rows.first().map_or(0, |row| row.features.n_mels);
        let t = rows.iter().map(|row| row.features.n_frames).max().unwrap_or(0);
        let u = rows.iter().map(|row| row.tokens.labels.len()).max().unwrap_or(0);
        let mut mel = vec![0f32; b * n_mels * t];
        let (mut ids, mut labels, mut weights) = (vec![pad; b * u], vec![pad; b * u], vec![0f32; b * u]);
        for (i, row) in rows.iter().enumerate() {
            let n = row.features.n_frames;
            for (f, to) in mel[i * n_mels * t..(i + 1) * n_mels * t].chunks_exact_mut(t.max(1)).enumerate() {
                to[..n].copy_from_slice(row.features.row(f));
            }
            let n = row.tokens.labels.len();
            ids[i * u..i * u + n].copy_from_slice(&row.tokens.sequence[..n]);
            labels[i * u..i * u + n].copy_from_slice(&row.tokens.labels);
            weights[i * u..i * u + n].copy_from_slice(&row.tokens.weights);
        }
        let longest_secs = rows.iter().map(|row| row.heard_secs.max(row.duration_secs)).fold(0.0, f64::max);
        let extent = Extent {
            n_cuts: b,
            audio_secs: rows.iter().map(|row| row.duration_secs).sum(),
            padded_secs: models::padded_cost(b, longest_secs, None),
            n_tokens: rows.iter().map(|row| row.tokens.labels.len()).sum(),
            padded_tokens: b * u,
            n_too_short: 0,
        };
        Ok(Self {
            mel: Tensor::from_vec(mel, (b, n_mels, t), device)?,
            n_frames: rows.iter().map(|row| row.features.n_frames).collect(),
            n_heard: rows.iter().map(Row::n_heard).collect(),
            ids: Tensor::from_vec(ids, (b, u), device)?,
            labels,
            weights,
            are_repeated: rows.iter().map(|row| row.is_repeated).collect(),
            are_transcripts: rows.iter().map(|row| row.tokens.is_transcript).collect(),
            texts: rows.into_iter().map(|row| row.tokens.text).collect(),
            extent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n_frames: usize) -> Row {
        let tokens = Tokens {
            sequence: Vec::new(),
            labels: Vec::new(),
            weights: Vec::new(),
            text: Vec::new(),
            is_transcript: true,
        };
        let features = Features { n_frames, ..Features::default() };
        Row { features, tokens, duration_secs: 0.0, heard_secs: 0.0, is_repeated: true }
    }

    #[test]
    fn of_a_full_window_as_much_is_heard_as_the_recording_is_long() {
        let heard = |n_frames: usize, duration_secs: f64, heard_secs: f64| {
            Row { duration_secs, heard_secs, ..row(n_frames) }.n_heard()
        };
        assert_eq!((heard(3000, 3.0, 30.0), heard(300, 3.0, 3.0), heard(300, 3.004, 3.0)), (300, 300, 300));
        assert_eq!((heard(3000, 0.0, 30.0), heard(0, 0.0, 0.0)), (1, 0));
    }
}

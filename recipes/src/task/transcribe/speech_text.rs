//! How far an encoder's states of recordings are from those that an encoder of texts has of their transcripts.

use candle_core::Tensor;
use models::kernels::PairCost;
use models::nn::TransportRows;
use models::params::Params;
use models::{Description, TextEncoder};

use super::batch::Batch;
use crate::Error;
use crate::loss::OptimalTransport;
use crate::task::Figures;

/// Below it states are as good as all the same: their own differences are a hundredth of what they have in common.
pub(crate) const COLLAPSED: f64 = 0.01;
/// Figures that say so.
pub(crate) const SPREADS: [&str; 2] = ["speech_spread", "text_spread"];

/// An encoder of texts, and how it is told where they end.
pub(super) struct TextSide {
    encoder: TextEncoder,
    end: u32,
    max_tokens: usize,
}

impl TextSide {
    /// That of a model, if it has one, of `params`. Texts of tokens end with `end`.
    pub fn load(params: &Params, description: &Description, end: u32) -> Result<Option<Self>, Error> {
        let Some(config) = description.text_encoder() else { return Ok(None) };
        Ok(Some(Self {
            encoder: TextEncoder::load(params, config)?,
            end: config.phoneme_end().unwrap_or(end),
            max_tokens: config.max_position_embeddings - 1,
        }))
    }

    /// Whether a row's text is held against what is heard: not where nothing is said or nobody says it, nor where there is no room for it.
    fn counts(&self, batch: &Batch, row: usize) -> bool {
        batch.are_transcripts[row] && (1..=self.max_tokens).contains(&batch.texts[row].len())
    }

    /// What of a batch is compared, where its recordings have so many positions.
    pub fn rows(&self, batch: &Batch, n_positions: &[usize]) -> TransportRows {
        let counted = |row: usize| if self.counts(batch, row) { 1.0 } else { 0.0 };
        TransportRows {
            lengths: n_positions.to_vec(),
            other_lengths: self.texts(batch).iter().map(Vec::len).collect(),
            weights: (0..batch.texts.len()).map(counted).collect(),
        }
    }

    /// What the sum over a batch is divided by: the tokens of the texts that count, as CTC's is, so that both are sums over utterances.
    pub fn weight(&self, batch: &Batch) -> f64 {
        let rows = (0..batch.texts.len()).filter(|row| self.counts(batch, *row));
        rows.map(|row| batch.texts[row].len() as f64).sum()
    }

    /// States of the texts of a batch, (B, U, D).
    pub fn states(&self, batch: &Batch) -> Result<Tensor, Error> {
        Ok(self.encoder.forward(&self.texts(batch))?)
    }

    /// The texts with their ends; of those that do not count the end alone.
    fn texts(&self, batch: &Batch) -> Vec<Vec<u32>> {
        let text = |row: usize| match self.counts(batch, row) {
            true => [batch.texts[row].as_slice(), &[self.end]].concat(),
            false => vec![self.end],
        };
        (0..batch.texts.len()).map(text).collect()
    }
}

/// What was found of pairs of a recording and its text.
#[derive(Default)]
pub(super) struct Distances {
    n_pairs: usize,
    value: f64,
    features: f64,
    positions: f64,
    speech: Spread,
    text: Spread,
}

impl Distances {
    /// Counts a batch in: its states of speech (B, T, D) and of text (B, U, D).
    pub fn add(
        &mut self,
        loss: &OptimalTransport,
        speech: &Tensor,
        text: &Tensor,
        rows: &TransportRows,
    ) -> Result<(), Error> {
        // As it is between sets that may be the same, whatever is minimised.
        let measured = OptimalTransport { debias: true, ..loss.clone() };
        let (_, pairs) = measured.sum(speech, text, rows)?;
        for (row, PairCost { value, feature_cost, position_cost, .. }) in pairs.iter().enumerate() {
            if rows.weights[row] == 0.0 {
                continue;
            }
            self.n_pairs += 1;
            self.value += value;
            self.features += feature_cost;
            self.positions += position_cost;
            self.speech.add(&speech.get(row)?.narrow(0, 0, rows.lengths[row])?)?;
            self.text.add(&text.get(row)?.narrow(0, 0, rows.other_lengths[row])?)?;
        }
        Ok(())
    }

    /// Means over the pairs; none where there are none.
    pub fn tell(&self, figures: &mut Figures) {
        if self.n_pairs == 0 {
            return;
        }
        let mean = |sum: f64| sum / self.n_pairs as f64;
        let [speech, text] = SPREADS;
        for (name, value) in [
            ("speech_text_distance", mean(self.value)),
            ("speech_text_features", mean(self.features)),
            ("speech_text_positions", mean(self.positions)),
            (speech, self.speech.share()),
            (text, self.text.share()),
        ] {
            figures.insert(name.to_owned(), value);
        }
    }
}

/// How much states differ from each other.
#[derive(Default)]
struct Spread {
    n: usize,
    sum: Vec<f64>,
    squares: f64,
}

impl Spread {
    /// Counts states (T, D) in.
    fn add(&mut self, states: &Tensor) -> Result<(), Error> {
        for state in states.to_vec2::<f32>()? {
            self.sum.resize(state.len(), 0.0);
            for (sum, value) in self.sum.iter_mut().zip(state) {
                *sum += f64::from(value);
                self.squares += f64::from(value).powi(2);
            }
            self.n += 1;
        }
        Ok(())
    }

    /// The share of their mean square that is not in their mean: 0 where all are the same.
    fn share(&self) -> f64 {
        let of_mean = self.sum.iter().map(|sum| sum.powi(2)).sum::<f64>() / self.n.max(1) as f64;
        if self.squares > 0.0 { (1.0 - of_mean / self.squares).max(0.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_spread_of_states_is_what_they_do_not_have_in_common() {
        let share = |values: &[[f32; 2]]| {
            let mut spread = Spread::default();
            let states = Tensor::from_slice(values.as_flattened(), (values.len(), 2), &Device::Cpu);
            spread.add(&states.expect("a tensor")).expect("states");
            spread.share()
        };
        assert_eq!(share(&[[3.0, 4.0], [3.0, 4.0]]), 0.0);
        assert_eq!(share(&[[3.0, 4.0], [-3.0, -4.0]]), 1.0);
        assert!((share(&[[1.0, 0.0], [0.0, 1.0]]) - 0.5).abs() < 1e-12);
        assert_eq!(Spread::default().share(), 0.0);
    }
}

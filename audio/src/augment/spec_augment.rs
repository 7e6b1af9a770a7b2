//! SpecAugment (Park et al. 2019): stripes of the features are hidden, so that no single one has to be relied on.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::level::check_value;
use crate::{Error, Features};

/// How many stripes, how wide, and what stands in them. The defaults are NeMo's for attention models (2 of up to 27 bins,
/// 10 of up to 5 % of the length), and off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpecAugment {
    /// Share of the recordings that are masked at all. Default 0: off.
    pub probability: f64,
    /// Stripes over frequency. Default 2.
    pub n_freq_masks: usize,
    /// Widest stripe over frequency, mel bins; widths are uniform from 0. Default 27.
    pub max_freq_bins: usize,
    /// Stripes over time. Default 10.
    pub n_time_masks: usize,
    /// Widest stripe over time as a share of the recording's length, at least one frame; widths are uniform from 0. Default
    /// 0.05.
    pub max_time_share: f64,
    /// What stands in the stripes. Default the mean.
    pub fill: MaskFill,
}

/// What stands in masked stripes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskFill {
    /// The mean of the recording's features.
    Mean,
    /// Their smallest value: silence.
    Floor,
}

impl Default for SpecAugment {
    fn default() -> Self {
        SpecAugment {
            probability: 0.0,
            n_freq_masks: 2,
            max_freq_bins: 27,
            n_time_masks: 10,
            max_time_share: 0.05,
            fill: MaskFill::Mean,
        }
    }
}

impl SpecAugment {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::BadOption`] with the field and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        check_value("spec_augment.probability", self.probability, 0.0..=1.0)?;
        check_value("spec_augment.max_time_share", self.max_time_share, 0.0..=1.0)
    }
}

/// Hides stripes of the first `n_frames` frames of features (F, T); what lies behind them is padding and stays.
///
/// Every call draws two numbers per stripe. `probability` is for [`Augmenter`](super::Augmenter) and not looked at here.
pub fn spec_augment(
    features: &Features,
    n_frames: usize,
    options: &SpecAugment,
    rng: &mut ChaCha8Rng,
) -> Features {
    let mut masked = features.clone();
    let (n_mels, n_frames) = (features.n_mels, n_frames.min(features.n_frames));
    let max_frames = ((options.max_time_share * n_frames as f64) as usize).max(1);
    let freq_masks: Vec<Range<usize>> =
        (0..options.n_freq_masks).map(|_| stripe(n_mels, options.max_freq_bins, rng)).collect();
    let time_masks: Vec<Range<usize>> =
        (0..options.n_time_masks).map(|_| stripe(n_frames, max_frames, rng)).collect();
    if n_mels == 0 || n_frames == 0 {
        return masked;
    }
    let fill = fill_value(features, n_frames, options.fill);
    for (f, row) in masked.data.chunks_exact_mut(features.n_frames).enumerate() {
        if freq_masks.iter().any(|mask| mask.contains(&f)) {
            row[..n_frames].fill(fill);
        }
        for mask in &time_masks {
            row[mask.clone()].fill(fill);
        }
    }
    masked
}

/// A stripe of 0 to `max_width` within `0..length`.
fn stripe(length: usize, max_width: usize, rng: &mut ChaCha8Rng) -> Range<usize> {
    let width = rng.random_range(0..=max_width.min(length));
    let start = rng.random_range(0..=length - width);
    start..start + width
}

fn fill_value(features: &Features, n_frames: usize, fill: MaskFill) -> f32 {
    let rows = || features.data.chunks_exact(features.n_frames).flat_map(|row| &row[..n_frames]);
    match fill {
        MaskFill::Mean => {
            let sum: f64 = rows().map(|value| f64::from(*value)).sum();
            (sum / (features.n_mels * n_frames) as f64) as f32
        }
        MaskFill::Floor => rows().copied().fold(f32::INFINITY, f32::min),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn features(n_mels: usize, n_frames: usize) -> Features {
        let data = (0..n_mels * n_frames).map(|index| 1.0 + (index % 97) as f32).collect();
        Features { data, n_mels, n_frames }
    }

    #[test]
    fn widths_reach_their_limits_and_places_are_everywhere() {
        let options =
            SpecAugment { n_freq_masks: 1, n_time_masks: 0, max_freq_bins: 3, ..SpecAugment::default() };
        let whole = features(8, 10);
        let (mut widths, mut hidden) = ([0; 4], [0; 8]);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..400 {
            let masked = spec_augment(&whole, 10, &options, &mut rng);
            let rows: Vec<usize> = (0..8).filter(|f| masked.row(*f) != whole.row(*f)).collect();
            widths[rows.len()] += 1;
            rows.iter().for_each(|f| hidden[*f] += 1);
        }
        assert!(widths.iter().all(|count| (60..140).contains(count)), "{widths:?}");
        assert!(hidden.iter().all(|count| *count > 20), "{hidden:?}");
    }

    #[test]
    fn fills_with_the_mean_or_the_floor_of_what_is_not_padding() {
        // Two bins, three frames, the last is padding.
        let whole = Features { data: vec![1.0, 2.0, -100.0, 3.0, 6.0, -100.0], n_mels: 2, n_frames: 3 };
        assert_eq!(fill_value(&whole, 2, MaskFill::Mean), 3.0);
        assert_eq!(fill_value(&whole, 2, MaskFill::Floor), 1.0);
        let all = SpecAugment {
            n_time_masks: 200,
            max_time_share: 1.0,
            fill: MaskFill::Floor,
            ..SpecAugment::default()
        };
        let masked = spec_augment(&whole, 2, &all, &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(masked.data, [1.0, 1.0, -100.0, 1.0, 1.0, -100.0]);
    }

    #[test]
    fn nothing_is_not_masked() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let empty = Features::default();
        assert_eq!(spec_augment(&empty, 5, &SpecAugment::default(), &mut rng), empty);
        let padding = features(4, 6);
        assert_eq!(spec_augment(&padding, 0, &SpecAugment::default(), &mut rng), padding);
    }

    proptest! {
        #[test]
        fn masks_stay_within_their_share_and_draw_as_many_numbers(
            n_mels in 1_usize..130,
            n_frames in 1_usize..300,
            n_padding in 0_usize..50,
            seed in 0_u64..1_000,
        ) {
            let whole = features(n_mels, n_frames + n_padding);
            let options = SpecAugment::default();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let masked = spec_augment(&whole, n_frames, &options, &mut rng);
            let again = spec_augment(&whole, n_frames, &options, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(&masked, &again);
            for f in 0..n_mels {
                prop_assert_eq!(&masked.row(f)[n_frames..], &whole.row(f)[n_frames..]);
            }
            let changed = |f: usize, t: usize| masked.row(f)[t] != whole.row(f)[t];
            let fill = fill_value(&whole, n_frames, MaskFill::Mean);
            // A frame or a bin that is hidden is so in all bins or frames.
            let rows = (0..n_mels).filter(|f| (0..n_frames).all(|t| masked.row(*f)[t] == fill)).count();
            let columns = (0..n_frames).filter(|t| (0..n_mels).all(|f| masked.row(f)[*t] == fill)).count();
            if columns < n_frames {
                prop_assert!(rows <= 2 * 27);
            }
            if rows < n_mels {
                prop_assert!(columns <= 10 * (n_frames / 20).max(1));
            }
            for f in 0..n_mels {
                for t in 0..n_frames {
                    prop_assert!(!changed(f, t) || masked.row(f)[t] == fill);
                }
            }
        }
    }
}

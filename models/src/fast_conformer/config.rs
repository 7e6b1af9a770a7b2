//! What `config.json` says about a FastConformer encoder, under the names that transformers' `ParakeetEncoderConfig` has there,
//! which leaves out what is as it is by default.

use std::path::Path;

use audio::{FeatureSpec, LogKind, Normalizer, Padding, WindowKind};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Dimensions of a FastConformer encoder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct FastConformerConfig {
    /// Width.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads in each block.
    pub num_attention_heads: usize,
    /// Width inside feed-forward layers.
    pub intermediate_size: usize,
    /// Only `silu` is known.
    pub hidden_act: String,
    /// Whether feed-forward layers and attention's projections have biases.
    pub attention_bias: bool,
    /// Whether convolution modules have biases.
    pub convolution_bias: bool,
    /// Frames that the convolution in a block looks at, an odd number.
    pub conv_kernel_size: usize,
    /// Feature frames that become one position, a power of two.
    pub subsampling_factor: usize,
    /// Channels of the convolutions before the blocks.
    pub subsampling_conv_channels: usize,
    /// Only 3 is known.
    pub subsampling_conv_kernel_size: usize,
    /// Only 2 is known.
    pub subsampling_conv_stride: usize,
    /// Mel bins of the features.
    pub num_mel_bins: usize,
    /// Positions that a recording may have.
    pub max_position_embeddings: usize,
    /// Whether what enters the blocks is multiplied by the square root of the width.
    pub scale_input: bool,
    /// Positions before and after one that it attends to; all where there are none given. transformers knows no such key, and lets a
    /// position attend to all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_context: Option<[usize; 2]>,
}

impl Default for FastConformerConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 8,
            intermediate_size: 4096,
            hidden_act: "silu".to_owned(),
            attention_bias: true,
            convolution_bias: true,
            conv_kernel_size: 9,
            subsampling_factor: 8,
            subsampling_conv_channels: 256,
            subsampling_conv_kernel_size: 3,
            subsampling_conv_stride: 2,
            num_mel_bins: 80,
            max_position_embeddings: 5000,
            scale_input: true,
            attention_context: None,
        }
    }
}

/// A dimension above this is a forged or broken file.
const MAX_DIMENSION: usize = 1 << 20;
/// So are more positions: no weights vouch for them, and attention grows with their square.
const MAX_POSITIONS: usize = 1 << 13;

impl FastConformerConfig {
    /// Halvings of the number of frames.
    pub fn n_stages(&self) -> usize {
        self.subsampling_factor.trailing_zeros() as usize
    }

    /// Positions that come out of so many frames.
    pub fn n_positions(&self, n_frames: usize) -> usize {
        (0..self.n_stages()).fold(n_frames, |n, _| n.div_ceil(2))
    }

    /// Feature frames of so many seconds.
    pub fn n_frames(&self, secs: f64) -> usize {
        (secs * self.feature_spec().frame_rate()).round() as usize
    }

    /// Refuses a window that is nothing or that there are no positions for.
    ///
    /// # Errors
    /// Names `path`, the value and what it has to be.
    pub(crate) fn check_window(&self, window_secs: f64, path: &Path) -> Result<(), Error> {
        let (limit, n) = (self.max_position_embeddings, self.n_positions(self.n_frames(window_secs)));
        if window_secs >= 1.0 && n <= limit {
            return Ok(());
        }
        let message =
            format!("{window_secs} is less than 1, or takes more than the encoder's {limit} positions");
        Err(Error::key(path, "window_secs", message))
    }

    /// Bins that are left of the features' after the convolutions.
    pub fn n_subsampled_bins(&self) -> usize {
        (0..self.n_stages()).fold(self.num_mel_bins, |n, _| n.div_ceil(2))
    }

    /// Positions that so many attend to, all together.
    fn n_seen(&self, n_positions: usize) -> f64 {
        let most = n_positions.saturating_sub(1);
        let context = self.attention_context.unwrap_or([most; 2]).map(|n| n.min(most) as f64);
        let n = n_positions as f64;
        // The first have fewer before them, the last fewer after them.
        context.into_iter().fold(n, |sum, side| sum + side * n - side * (side + 1.0) / 2.0)
    }

    /// Multiplications and additions that encode so many frames: of linear layers, and of attention and convolutions.
    pub fn ops(&self, n_frames: usize) -> (f64, f64) {
        let [d, inner, layers, channels, kernel] = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.subsampling_conv_channels,
            self.conv_kernel_size,
        ]
        .map(|n| n as f64);
        let (mut t, mut f) = (n_frames, self.num_mel_bins);
        let (mut linear, mut convolutions) = (0.0, 0.0);
        for stage in 0..self.n_stages() {
            (t, f) = (t.div_ceil(2), f.div_ceil(2));
            let values = (t * f) as f64 * channels;
            convolutions += 9.0 * values;
            linear += if stage > 0 { values * channels } else { 0.0 };
        }
        let n_seen = self.n_seen(t);
        let t = t as f64;
        linear += t * f as f64 * channels * d;
        // Query, key, value, out, a gate of two halves, its mix, and two feed-forward layers; what tells positions apart is known.
        linear += layers * t * (7.0 * d * d + 4.0 * d * inner);
        // Scores of keys and of positions, and values.
        let attention = layers * 3.0 * n_seen * d;
        convolutions += layers * t * d * kernel;
        (2.0 * linear, 2.0 * (attention + convolutions))
    }

    /// NeMo's features (`features.py: FilterbankFeatures` as its FastConformer recipes have it), without the dither of training.
    pub fn feature_spec(&self) -> FeatureSpec {
        FeatureSpec {
            preemphasis: Some(0.97),
            n_fft: 512,
            window: WindowKind::HannSymmetric,
            padding: Padding::Zero,
            log: LogKind::LnOffset { offset: 2f64.powi(-24) },
            dynamic_range: None,
            normalizer: Normalizer::PerBin { epsilon: 1e-5 },
            ..FeatureSpec::whisper(self.num_mel_bins)
        }
    }

    /// Refuses what cannot be loaded, naming `path` and the key.
    ///
    /// # Errors
    /// Zero or absurd dimensions, heads that do not divide the width, what is not known.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        let refuse =
            |key: &str, message: String| Err(Error::key(path, format!("encoder_config.{key}"), message));
        for (key, value) in [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("conv_kernel_size", self.conv_kernel_size),
            ("subsampling_factor", self.subsampling_factor),
            ("subsampling_conv_channels", self.subsampling_conv_channels),
            ("num_mel_bins", self.num_mel_bins),
        ] {
            if value == 0 || value > MAX_DIMENSION {
                return refuse(key, format!("{value} is not between 1 and {MAX_DIMENSION}"));
            }
        }
        let n_positions = self.max_position_embeddings;
        if !(1..=MAX_POSITIONS).contains(&n_positions) {
            return refuse(
                "max_position_embeddings",
                format!("{n_positions} is not between 1 and {MAX_POSITIONS}"),
            );
        }
        if let Some(context) = self.attention_context
            && context.into_iter().any(|n| n > MAX_POSITIONS)
        {
            let message = format!("{context:?} is not two numbers from 0 to {MAX_POSITIONS}");
            return refuse("attention_context", message);
        }
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(heads) {
            return refuse(
                "num_attention_heads",
                format!("{heads} heads do not divide hidden_size = {width}"),
            );
        }
        if !width.is_multiple_of(2) {
            return refuse(
                "hidden_size",
                format!("{width} is odd; positions are pairs of sines and cosines"),
            );
        }
        if self.conv_kernel_size.is_multiple_of(2) {
            return refuse("conv_kernel_size", format!("{} is even; it has a middle", self.conv_kernel_size));
        }
        let factor = self.subsampling_factor;
        if !(factor.is_power_of_two() && (2..=64).contains(&factor)) {
            return refuse("subsampling_factor", format!("{factor} is not a power of two from 2 to 64"));
        }
        for (key, value, known) in [
            ("subsampling_conv_kernel_size", self.subsampling_conv_kernel_size, 3),
            ("subsampling_conv_stride", self.subsampling_conv_stride, 2),
        ] {
            if value != known {
                return refuse(key, format!("{value} is not known; {known} is"));
            }
        }
        if self.hidden_act != "silu" {
            return refuse("hidden_act", format!("{} is not known; silu is", self.hidden_act));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_costs_what_positions_see() {
        for n in [0, 1, 2, 7, 40] {
            for context in [None, Some([0, 0]), Some([3, 2]), Some([0, 9]), Some([7, 6]), Some([100, 8000])] {
                let config = FastConformerConfig { attention_context: context, ..Default::default() };
                let [before, after] = context.unwrap_or([n; 2]);
                let is_seen = |(i, j): &(usize, usize)| *j + before >= *i && *j <= *i + after;
                let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
                assert_eq!(config.n_seen(n), pairs.filter(is_seen).count() as f64, "{n}, {context:?}");
            }
        }
        let full = FastConformerConfig::default();
        let limited = FastConformerConfig { attention_context: Some([128, 128]), ..full.clone() };
        let (of_full, of_limited) = (full.ops(40_000), limited.ops(40_000));
        assert!(of_full.0 == of_limited.0 && of_full.1 > 5.0 * of_limited.1, "{of_full:?} {of_limited:?}");
    }

    #[test]
    fn a_context_is_written_where_there_is_one_and_refused_by_its_name() {
        let path = Path::new("config.json");
        let written = |config: &FastConformerConfig| serde_json::to_value(config).expect("JSON");
        let full = FastConformerConfig::default();
        assert!(written(&full).get("attention_context").is_none());
        let limited = FastConformerConfig { attention_context: Some([0, MAX_POSITIONS]), ..full };
        assert!(limited.check(path).is_ok());
        let read: FastConformerConfig = serde_json::from_value(written(&limited)).expect("read");
        assert_eq!(read.attention_context, limited.attention_context);
        let forged = FastConformerConfig { attention_context: Some([MAX_POSITIONS + 1, 0]), ..limited };
        let found = forged.check(path).expect_err("refused").to_string();
        assert!(found.contains("`encoder_config.attention_context`: [8193, 0] is not"), "{found}");
    }
}

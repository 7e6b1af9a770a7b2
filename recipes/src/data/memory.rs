//! What a training step needs of memory, by arithmetic: an oracle for the batch-size search where there is no device to
//! try on, and a first guess where there is.
//!
//! Counted are the values that the backward pass needs of a pre-norm transformer without dropout, after Korthikanti et
//! al. 2022 (arXiv:2205.05198, section 4.1); what a framework keeps beyond them is a factor.

use models::Description;
use serde::{Deserialize, Serialize};

use super::{Error, Length, MemoryOracle};

/// Bytes of AdamW's two moments of a weight.
const ADAMW_BYTES: u64 = 8;
/// Share of a device's memory that is planned with; the rest is for what the arithmetic does not know.
const USABLE_SHARE: f64 = 0.85;

/// Sizes of an encoder-decoder (Whisper's are the example). Without decoder layers the vocabulary is written at each
/// encoder position (CTC).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelDims {
    /// Parameters.
    pub n_params: u64,
    /// Those that are trained; fewer where layers are frozen or adapters are trained.
    pub n_trainable: u64,
    /// Width D.
    pub d_model: u64,
    /// Width of the feed-forward layers.
    pub ffn_dim: u64,
    /// Attention heads H.
    pub n_heads: u64,
    /// Layers of the encoder.
    pub encoder_layers: u64,
    /// Layers of the decoder.
    pub decoder_layers: u64,
    /// Vocabulary V.
    pub n_vocab: u64,
    /// Features F of a frame.
    pub n_features: u64,
    /// Feature frames per second.
    pub frames_per_sec: f64,
    /// Frames that become one encoder position.
    pub subsampling: u64,
}

impl ModelDims {
    /// Those of a model with so many parameters, all of which are trained on windows as long as their recordings.
    pub fn of(description: &Description, n_params: u64) -> Self {
        let architecture = description.architecture();
        let (encoder_layers, decoder_layers) = architecture.n_layers();
        Self {
            n_params,
            n_trainable: n_params,
            d_model: architecture.encoder_width() as u64,
            ffn_dim: architecture.feed_forward_width() as u64,
            n_heads: architecture.n_heads() as u64,
            encoder_layers: encoder_layers as u64,
            decoder_layers: decoder_layers as u64,
            n_vocab: architecture.n_vocab() as u64,
            n_features: architecture.n_mels() as u64,
            frames_per_sec: description.feature_spec().frame_rate(),
            subsampling: architecture.frames_per_position() as u64,
        }
    }
}

/// A model, how it is trained and the memory that there is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingMemory {
    /// The model.
    pub dims: ModelDims,
    /// Bytes of a weight, a gradient and an activation: 4 for f32, 2 for bf16 and f16. With 2, trained weights have a
    /// master copy of 4.
    pub bytes_per_value: u64,
    /// Gradients of each trained weight that are kept at once: one of each part of a batch that is computed side by side, and
    /// the sum over several batches.
    pub n_gradients: u64,
    /// Copies of each trained weight: itself, and its moving average.
    pub n_weights: u64,
    /// Bytes of the optimiser for each trained weight: 8 for AdamW's two f32 moments.
    pub optimizer_bytes: u64,
    /// Values that are kept for each attention score: 0 for fused attention, which computes them again, 1 for the
    /// softmax alone, more where a framework composes it of several operations.
    pub values_per_score: u64,
    /// Whether only the input of each layer is kept, and one layer at a time is computed again.
    pub gradient_checkpointing: bool,
    /// What the framework needs for each byte of activations, 1 at least.
    pub overhead: f64,
    /// Memory of the device.
    pub capacity_bytes: u64,
    /// Share of it that training may use; the rest is for fragmentation and others.
    pub usable_share: f64,
}

impl TrainingMemory {
    /// Training with AdamW and fused attention, nothing computed again.
    pub fn new(dims: ModelDims, bytes_per_value: u64, capacity_gb: f64) -> Self {
        Self {
            dims,
            bytes_per_value,
            n_gradients: 1,
            n_weights: 1,
            optimizer_bytes: ADAMW_BYTES,
            values_per_score: 0,
            gradient_checkpointing: false,
            overhead: 1.0,
            capacity_bytes: (capacity_gb * 1e9) as u64,
            usable_share: USABLE_SHARE,
        }
    }

    /// Refuses what no device has.
    ///
    /// # Errors
    /// The value and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        let ModelDims { frames_per_sec, subsampling, n_params, n_trainable, .. } = self.dims;
        if !(frames_per_sec.is_finite() && frames_per_sec > 0.0) {
            return Err(Error::setting("frames_per_sec", frames_per_sec, "must be a positive number"));
        }
        if subsampling == 0 {
            return Err(Error::setting("subsampling", 0, "must be at least 1"));
        }
        if n_trainable > n_params {
            let message = format!("must not be more than all {n_params} parameters");
            return Err(Error::setting("n_trainable", n_trainable, message));
        }
        if !matches!(self.bytes_per_value, 2 | 4) {
            return Err(Error::setting("bytes_per_value", self.bytes_per_value, "must be 2 or 4"));
        }
        if !(self.overhead.is_finite() && self.overhead >= 1.0) {
            return Err(Error::setting("overhead", self.overhead, "must be a number from 1"));
        }
        if !(self.usable_share > 0.0 && self.usable_share <= 1.0) {
            return Err(Error::setting("usable_share", self.usable_share, "must be above 0 and at most 1"));
        }
        Ok(())
    }

    /// Bytes that do not depend on the batch: weights, their master copy, gradients and the optimiser's moments.
    pub fn fixed_bytes(&self) -> f64 {
        let ModelDims { n_params, n_trainable, .. } = self.dims;
        let master = if self.bytes_per_value < 4 { 4 } else { 0 };
        let copies = self.n_gradients + self.n_weights.saturating_sub(1);
        let per_trained = copies * self.bytes_per_value + master + self.optimizer_bytes;
        n_params as f64 * self.bytes_per_value as f64 + n_trainable as f64 * per_trained as f64
    }

    /// Bytes of the activations of one item.
    pub fn item_bytes(&self, length: Length) -> f64 {
        let dims = &self.dims;
        let [d, ffn] = [dims.d_model, dims.ffn_dim].map(|n| n as f64);
        let frames = (length.duration_secs * dims.frames_per_sec).ceil();
        let positions = (frames / dims.subsampling as f64).ceil();
        let tokens = f64::from(length.n_tokens);
        // Features, a convolution at the frame rate with its activation, one at the rate of positions with its own.
        let front_end = frames * (dims.n_features as f64 + 2.0 * d) + positions * 2.0 * d;
        // Self-attention keeps its input, the norm of it, query, key, value and context; cross-attention its input, the
        // norm of it, query and context, and a key and a value for each position of the encoder; a feed-forward layer
        // its input, the norm of it, and its inner width before and after the activation.
        let encoder_layer = positions * (6.0 * d + 2.0 * d + 2.0 * ffn) + self.scores(positions, positions);
        let decoder_layer = tokens * (6.0 * d + 4.0 * d + 2.0 * d + 2.0 * ffn)
            + positions * 2.0 * d
            + self.scores(tokens, tokens + positions);
        let stack = |n_layers: u64, rows: f64, layer: f64| match (n_layers, self.gradient_checkpointing) {
            (0, _) => 0.0,
            (n, false) => n as f64 * layer,
            (n, true) => n as f64 * rows * d,
        };
        let mut values = front_end
            + stack(dims.encoder_layers, positions, encoder_layer)
            + stack(dims.decoder_layers, tokens, decoder_layer)
            + 2.0 * positions * d;
        if self.gradient_checkpointing {
            let of_encoder = if dims.encoder_layers > 0 { encoder_layer } else { 0.0 };
            let of_decoder = if dims.decoder_layers > 0 { decoder_layer } else { 0.0 };
            values += of_encoder.max(of_decoder);
        }
        let written = if dims.decoder_layers > 0 { tokens } else { positions };
        // Log-probabilities and their gradient are f32 whatever the model is.
        let logits = written * dims.n_vocab as f64 * (self.bytes_per_value + 8) as f64;
        self.overhead * (values * self.bytes_per_value as f64 + logits)
    }

    /// Bytes of a step of `batch_size` such items.
    pub fn step_bytes(&self, longest: Length, batch_size: usize) -> f64 {
        self.fixed_bytes() + batch_size as f64 * self.item_bytes(longest)
    }

    fn scores(&self, rows: f64, columns: f64) -> f64 {
        self.values_per_score as f64 * self.dims.n_heads as f64 * rows * columns
    }
}

impl MemoryOracle for TrainingMemory {
    fn fits(&mut self, longest: Length, batch_size: usize) -> anyhow::Result<bool> {
        self.check()?;
        Ok(self.step_bytes(longest, batch_size) <= self.usable_share * self.capacity_bytes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BatchSizeSearch, Bucket, BucketTable, Fit};

    /// Whisper large-v3 in bf16 on 80 GB.
    fn large() -> TrainingMemory {
        TrainingMemory {
            dims: ModelDims {
                n_params: 1_543_490_560,
                n_trainable: 1_543_490_560,
                d_model: 1280,
                ffn_dim: 5120,
                n_heads: 20,
                encoder_layers: 32,
                decoder_layers: 32,
                n_vocab: 51_866,
                n_features: 128,
                frames_per_sec: 100.0,
                subsampling: 2,
            },
            bytes_per_value: 2,
            n_gradients: 1,
            n_weights: 1,
            optimizer_bytes: 8,
            values_per_score: 1,
            gradient_checkpointing: false,
            overhead: 1.0,
            capacity_bytes: 80 << 30,
            usable_share: 0.9,
        }
    }

    /// Per layer sbh (34 + 5 as / h) bytes in 16 bits (equation 2), of which dropout's masks and the scores after
    /// dropout, 2 sbh and 3 a s^2 b, are not there without it.
    #[test]
    fn an_encoder_layer_keeps_what_the_paper_counts() {
        let more = |memory: TrainingMemory| {
            let dims = ModelDims { encoder_layers: 33, ..memory.dims };
            let item = Length::new(30.0, 100);
            TrainingMemory { dims, ..memory }.item_bytes(item) - memory.item_bytes(item)
        };
        let (s, h, a) = (1500.0, 1280.0, 20.0);
        assert_eq!(more(large()), s * h * (34.0 + 5.0 * a * s / h) - 2.0 * s * h - 3.0 * a * s * s);
        // Fused attention keeps no scores; checkpointing keeps a layer's input.
        assert_eq!(more(TrainingMemory { values_per_score: 0, ..large() }), 32.0 * s * h);
        assert_eq!(more(TrainingMemory { gradient_checkpointing: true, ..large() }), 2.0 * s * h);
    }

    #[test]
    fn weights_and_moments_are_there_whatever_the_batch() {
        // 2 + 2 + 4 + 8 bytes a weight in mixed precision (section 3.1 of ZeRO), 4 + 4 + 8 in f32.
        let n = 1_543_490_560.0;
        assert_eq!(large().fixed_bytes(), 16.0 * n);
        assert_eq!(TrainingMemory { bytes_per_value: 4, ..large() }.fixed_bytes(), 16.0 * n);
        let parts = TrainingMemory { n_gradients: 3, bytes_per_value: 4, ..large() };
        assert_eq!(parts.fixed_bytes(), 24.0 * n);
        assert_eq!(TrainingMemory { n_weights: 2, ..parts }.fixed_bytes(), 28.0 * n);
        let frozen = ModelDims { n_trainable: 0, ..large().dims };
        assert_eq!(TrainingMemory { dims: frozen, ..large() }.fixed_bytes(), 2.0 * n);
        let none = large().step_bytes(Length::new(30.0, 448), 0);
        assert_eq!(none, large().fixed_bytes());
    }

    #[test]
    fn more_of_anything_needs_more() {
        let base = Length::new(10.0, 100);
        for memory in [
            large(),
            TrainingMemory { gradient_checkpointing: true, ..large() },
            TrainingMemory { dims: ModelDims { decoder_layers: 0, ..large().dims }, ..large() },
        ] {
            let bytes = memory.step_bytes(base, 4);
            assert!(memory.step_bytes(base, 5) > bytes);
            assert!(memory.step_bytes(Length::new(11.0, 100), 4) > bytes);
            let is_ctc = memory.dims.decoder_layers == 0;
            assert_eq!(memory.step_bytes(Length::new(10.0, 101), 4) > bytes, !is_ctc);
        }
        // Attention: twice the length is more than twice the memory.
        assert!(large().item_bytes(Length::new(20.0, 200)) > 2.0 * large().item_bytes(base));
    }

    #[test]
    fn the_search_finds_batch_sizes_by_arithmetic() {
        let bucket = |secs, tokens| Bucket {
            max_duration_secs: secs,
            max_tokens: Some(tokens),
            max_tokens_per_sec: None,
        };
        let bounds = [(5.0, 30), (5.0, 60), (15.0, 90), (15.0, 180), (30.0, 180), (30.0, 440)];
        let buckets: Vec<Bucket> = bounds.iter().map(|&(secs, tokens)| bucket(secs, tokens)).collect();
        let table = BucketTable::new(buckets.clone(), Fit::Strict).unwrap();
        let mut memory = large();
        let found =
            BatchSizeSearch { relative_gap: 0.0, ..BatchSizeSearch::default() }.run(&table, &mut memory);
        let sizes = found.unwrap().batch_sizes;
        for (bucket, &size) in buckets.iter().zip(&sizes) {
            let longest = Length::new(bucket.max_duration_secs, bucket.max_tokens.unwrap());
            assert!(memory.fits(longest, size).unwrap() && !memory.fits(longest, size + 1).unwrap());
        }
        assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]) && sizes[0] > 5 * sizes[5], "{sizes:?}");
        // Too little for the weights alone.
        let mut small = TrainingMemory { capacity_bytes: 16 << 30, ..large() };
        let error = BatchSizeSearch::default().run(&table, &mut small).unwrap_err();
        assert!(matches!(error, Error::Unfit { bucket: 5, .. }), "{error}");
    }

    #[test]
    fn a_bundle_says_its_sizes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/whisper-80");
        let bundle = models::Bundle::open(&path).unwrap();
        let dims = ModelDims::of(bundle.description(), bundle.weights().n_parameters() as u64);
        let expected = ModelDims {
            n_params: dims.n_params,
            n_trainable: dims.n_params,
            d_model: 32,
            ffn_dim: 96,
            n_heads: 4,
            encoder_layers: 2,
            decoder_layers: 2,
            n_vocab: 1817,
            n_features: 80,
            frames_per_sec: 100.0,
            subsampling: 2,
        };
        assert_eq!(dims, expected);
        assert!(dims.n_params > dims.n_vocab * dims.d_model);
    }

    #[test]
    fn impossible_machines_are_refused() {
        let dims = large().dims;
        for bad in [
            TrainingMemory { dims: ModelDims { frames_per_sec: 0.0, ..dims }, ..large() },
            TrainingMemory { dims: ModelDims { subsampling: 0, ..dims }, ..large() },
            TrainingMemory { dims: ModelDims { n_params: 1, ..dims }, ..large() },
            TrainingMemory { bytes_per_value: 3, ..large() },
            TrainingMemory { overhead: 0.5, ..large() },
            TrainingMemory { usable_share: 1.5, ..large() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(large().check().is_ok());
    }
}

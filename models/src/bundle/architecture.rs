//! What a model is, as its `config.json` says, and what the rest of the program asks of it.

use std::path::Path;

use audio::FeatureSpec;
use serde_json::Value;

use super::{BundleSource, parse, read_json, whisper_features};
use crate::Error;
use crate::canary::CanaryConfig;
use crate::ctc_head::CTC_ROWS;
use crate::fast_conformer::FastConformerConfig;
use crate::generation_config::GenerationConfig;
use crate::parakeet::ParakeetCtcConfig;
use crate::special_tokens::SpecialTokens;
use crate::text_encoder::set_text_vocab;
use crate::tokenizer::Tokenizer;
use crate::whisper::WhisperConfig;

/// What `model_type` in `config.json` says that the model is, with its configuration.
#[derive(Debug, Clone)]
pub enum Architecture {
    /// Encoder-decoder over log-mel features.
    Whisper(WhisperConfig),
    /// FastConformer encoder and Transformer decoder.
    Canary(CanaryConfig),
    /// FastConformer encoder that reads by CTC.
    ParakeetCtc(ParakeetCtcConfig),
}

/// Every `model_type` that is known.
const KNOWN: [&str; 3] = ["whisper", "canary", "parakeet_ctc"];

impl Architecture {
    /// Reads and checks `config.json`, and says which features go with it.
    pub(super) fn read(source: &BundleSource) -> Result<(Self, FeatureSpec), Error> {
        let path = source.path("config.json");
        let config = read_json(source, "config.json")?;
        let model_type = config.get("model_type").and_then(Value::as_str).map(str::to_owned);
        let refuse = |message: String| Err(Error::key(&path, "model_type", message));
        match model_type.as_deref() {
            Some("whisper") => {
                let config: WhisperConfig = parse(config, &path)?;
                config.check(&path)?;
                let features = whisper_features(source, &config)?;
                Ok((Self::Whisper(config), features))
            }
            Some("canary") => {
                let config: CanaryConfig = parse(config, &path)?;
                config.check(&path)?;
                let features = nemo_features(source, &config.encoder_config)?;
                Ok((Self::Canary(config), features))
            }
            Some("parakeet_ctc") => {
                let config: ParakeetCtcConfig = parse(config, &path)?;
                config.check(&path)?;
                let features = nemo_features(source, &config.encoder_config)?;
                Ok((Self::ParakeetCtc(config), features))
            }
            Some(other) => refuse(format!("`{other}` is not supported; {} are", KNOWN.join(", "))),
            None => refuse("is missing; it names the architecture".to_owned()),
        }
    }

    /// How to decode, and the special tokens.
    pub(super) fn vocabulary(
        &self,
        source: &BundleSource,
        tokenizer: &Tokenizer,
    ) -> Result<(GenerationConfig, SpecialTokens), Error> {
        let path = source.path(source.tokenizer_file());
        let (generation, special) = match self {
            Self::Whisper(config) => {
                let generation = GenerationConfig::read(source, config, tokenizer)?;
                let special = SpecialTokens::of_whisper(config, &generation, tokenizer);
                (generation, special)
            }
            Self::Canary(config) => {
                let special = SpecialTokens::of_canary(&path, config, tokenizer)?;
                let decoder = &config.decoder_config;
                let heads = (decoder.num_hidden_layers, decoder.num_attention_heads);
                let control = tokenizer.special_ids().into_iter().filter(|id| *id != config.eos_token_id);
                let control = control.filter(|id| (*id as usize) < decoder.vocab_size).collect();
                let generation = GenerationConfig::read_plain(source, control, decoder.vocab_size, heads)?;
                (generation, special)
            }
            Self::ParakeetCtc(config) => {
                let generation = GenerationConfig::read_plain(source, Vec::new(), config.vocab_size, (0, 0))?;
                (generation, SpecialTokens::of_ctc(config, tokenizer))
            }
        };
        special.check(&path, self.n_vocab())?;
        let special = match &generation.source_languages {
            Some(codes) => special.hearing(codes, &source.path("generation_config.json"))?,
            None => special,
        };
        let special = match &generation.translation_languages {
            Some(codes) => special.translating_into(codes, &source.path("generation_config.json"))?,
            None => special,
        };
        Ok((generation, special))
    }

    /// Its `model_type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Whisper(_) => "whisper",
            Self::Canary(_) => "canary",
            Self::ParakeetCtc(_) => "parakeet_ctc",
        }
    }

    /// Its encoder, where that is a FastConformer.
    fn fast_conformer(&self) -> Option<&FastConformerConfig> {
        match self {
            Self::Whisper(_) => None,
            Self::Canary(config) => Some(&config.encoder_config),
            Self::ParakeetCtc(config) => Some(&config.encoder_config),
        }
    }

    /// Whisper's configuration, if it is one.
    pub fn whisper(&self) -> Option<&WhisperConfig> {
        match self {
            Self::Whisper(config) => Some(config),
            _ => None,
        }
    }

    /// Whisper's configuration, for what is made for nothing else.
    ///
    /// # Errors
    /// Another architecture; the message says that `what` is for Whisper.
    pub fn require_whisper(&self, what: &str) -> Result<&WhisperConfig, Error> {
        let message = || format!("{what} is for models of the type whisper; this one is {}", self.name());
        self.whisper().ok_or_else(|| Error::option("model", message()))
    }

    /// Widths, depths and lengths, under the names that `config.json` gives them.
    pub fn dimensions(&self) -> Vec<(&'static str, usize)> {
        let encoder = |config: &FastConformerConfig| {
            let mut dimensions = vec![
                ("encoder_config.hidden_size", config.hidden_size),
                ("encoder_config.num_hidden_layers", config.num_hidden_layers),
                ("encoder_config.num_attention_heads", config.num_attention_heads),
                ("encoder_config.intermediate_size", config.intermediate_size),
                ("encoder_config.conv_kernel_size", config.conv_kernel_size),
                ("encoder_config.subsampling_factor", config.subsampling_factor),
                ("encoder_config.subsampling_conv_channels", config.subsampling_conv_channels),
            ];
            if let Some([before, after]) = config.attention_context {
                dimensions.push(("encoder_config.attention_context[0]", before));
                dimensions.push(("encoder_config.attention_context[1]", after));
            }
            dimensions
        };
        match self {
            Self::Whisper(config) => vec![
                ("d_model", config.d_model),
                ("encoder_layers", config.encoder_layers),
                ("encoder_attention_heads", config.encoder_attention_heads),
                ("encoder_ffn_dim", config.encoder_ffn_dim),
                ("decoder_layers", config.decoder_layers),
                ("decoder_attention_heads", config.decoder_attention_heads),
                ("decoder_ffn_dim", config.decoder_ffn_dim),
                ("max_source_positions", config.max_source_positions),
                ("max_target_positions", config.max_target_positions),
                ("vocab_size", config.vocab_size),
            ],
            Self::Canary(config) => {
                let decoder = &config.decoder_config;
                let own = [
                    ("decoder_config.hidden_size", decoder.hidden_size),
                    ("decoder_config.num_hidden_layers", decoder.num_hidden_layers),
                    ("decoder_config.num_attention_heads", decoder.num_attention_heads),
                    ("decoder_config.intermediate_size", decoder.intermediate_size),
                    ("decoder_config.max_position_embeddings", decoder.max_position_embeddings),
                    ("decoder_config.vocab_size", decoder.vocab_size),
                ];
                [encoder(&config.encoder_config), own.to_vec()].concat()
            }
            Self::ParakeetCtc(config) => {
                [encoder(&config.encoder_config), vec![("vocab_size", config.vocab_size)]].concat()
            }
        }
    }

    /// Feature frames of a full window.
    pub fn window_frames(&self) -> usize {
        match self {
            Self::Whisper(config) => config.max_source_frames(),
            Self::Canary(config) => config.window_frames(),
            Self::ParakeetCtc(config) => config.window_frames(),
        }
    }

    /// Feature frames that become one position of the encoder.
    pub fn frames_per_position(&self) -> usize {
        self.fast_conformer().map_or(2, |encoder| encoder.subsampling_factor)
    }

    /// Whether it hears recordings as long as they are, without silence up to a full window.
    pub fn is_variable_length(&self) -> bool {
        self.whisper().is_none_or(|config| config.variable_length)
    }

    /// Mel bins of its features.
    pub fn n_mels(&self) -> usize {
        match self {
            Self::Whisper(config) => config.num_mel_bins,
            Self::Canary(config) => config.encoder_config.num_mel_bins,
            Self::ParakeetCtc(config) => config.encoder_config.num_mel_bins,
        }
    }

    /// Most tokens that its decoder reads and writes; without a decoder, one for each position.
    pub fn max_target_positions(&self) -> usize {
        match self {
            Self::Whisper(config) => config.max_target_positions,
            Self::Canary(config) => config.decoder_config.max_position_embeddings,
            Self::ParakeetCtc(config) => config.encoder_config.n_positions(config.window_frames()),
        }
    }

    /// Token ids, V.
    pub fn n_vocab(&self) -> usize {
        match self {
            Self::Whisper(config) => config.vocab_size,
            Self::Canary(config) => config.decoder_config.vocab_size,
            Self::ParakeetCtc(config) => config.vocab_size,
        }
    }

    /// Tensors with a row for each token of the vocabulary, as far as a checkpoint has them.
    pub(super) fn token_tensors(&self) -> &'static [&'static str] {
        match self {
            Self::Whisper(_) => &["model.decoder.embed_tokens.weight", "proj_out.weight"],
            Self::Canary(_) => &["model.decoder.embed_tokens.weight", "proj_out.weight", "proj_out.bias"],
            Self::ParakeetCtc(_) => &CTC_ROWS,
        }
    }

    /// Writes into a `config.json` of this kind how many tokens there are.
    pub(super) fn set_n_vocab(&self, config: &mut Value, n_vocab: usize) {
        if let Self::Canary(_) = self {
            config["decoder_config"]["vocab_size"] = n_vocab.into();
        }
        config["vocab_size"] = n_vocab.into();
        set_text_vocab(config, n_vocab);
    }

    /// Tokens that a CTC head beside its decoder tells apart, in ascending order; none where it has no such head.
    pub fn ctc_tokens(&self) -> &[u32] {
        match self {
            Self::Canary(config) => config.ctc_token_ids.as_deref().unwrap_or_default(),
            Self::Whisper(_) | Self::ParakeetCtc(_) => &[],
        }
    }

    /// Width of the encoder's hidden states, D.
    pub fn encoder_width(&self) -> usize {
        match self {
            Self::Whisper(config) => config.d_model,
            Self::Canary(config) => config.encoder_config.hidden_size,
            Self::ParakeetCtc(config) => config.encoder_config.hidden_size,
        }
    }

    /// Blocks of the encoder and of the decoder.
    pub fn n_layers(&self) -> (usize, usize) {
        match self {
            Self::Whisper(config) => (config.encoder_layers, config.decoder_layers),
            Self::Canary(config) => {
                (config.encoder_config.num_hidden_layers, config.decoder_config.num_hidden_layers)
            }
            Self::ParakeetCtc(config) => (config.encoder_config.num_hidden_layers, 0),
        }
    }

    /// Width of the median filter over the scores by which words are aligned: of about an eighth of a second.
    pub fn median_filter_width(&self) -> usize {
        self.whisper().map_or(1, |config| config.median_filter_width)
    }

    /// The widest of its feed-forward layers, inside.
    pub fn feed_forward_width(&self) -> usize {
        match self {
            Self::Whisper(config) => config.encoder_ffn_dim.max(config.decoder_ffn_dim),
            Self::Canary(config) => {
                config.encoder_config.intermediate_size.max(config.decoder_config.intermediate_size)
            }
            Self::ParakeetCtc(config) => config.encoder_config.intermediate_size,
        }
    }

    /// The most heads of its attentions.
    pub fn n_heads(&self) -> usize {
        match self {
            Self::Whisper(config) => config.encoder_attention_heads.max(config.decoder_attention_heads),
            Self::Canary(config) => {
                config.encoder_config.num_attention_heads.max(config.decoder_config.num_attention_heads)
            }
            Self::ParakeetCtc(config) => config.encoder_config.num_attention_heads,
        }
    }

    /// Where the weights of the encoder are, and below it those of what comes before its blocks.
    pub fn encoder_scopes(&self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Whisper(_) => ("model.encoder", &["conv1", "conv2"]),
            Self::Canary(_) => ("model.encoder", &["subsampling"]),
            Self::ParakeetCtc(_) => ("encoder", &["subsampling"]),
        }
    }

    /// Multiplications and additions that encode a window of `n_frames`: of linear layers, and of attention and convolutions.
    pub fn encoder_ops(&self, n_frames: usize) -> (f64, f64) {
        match self {
            Self::Whisper(config) => config.encoder_ops(n_frames.div_ceil(2)),
            Self::Canary(config) => config.encoder_config.ops(n_frames),
            Self::ParakeetCtc(config) => config.encoder_config.ops(n_frames),
        }
    }

    /// Numbers that a decoding step reads: of weights, and of keys and values of `n_positions` for each of its rows.
    pub fn step_numbers(&self, n_positions: usize) -> (f64, f64) {
        match self {
            Self::Whisper(config) => config.step_numbers(n_positions),
            Self::Canary(config) => config.step_numbers(n_positions),
            Self::ParakeetCtc(_) => (0.0, 0.0),
        }
    }
}

/// NeMo's features, after making sure that `preprocessor_config.json` asks for no others.
fn nemo_features(source: &BundleSource, config: &FastConformerConfig) -> Result<FeatureSpec, Error> {
    let spec = config.feature_spec();
    if spec.n_mels > spec.n_fft {
        let message = format!("{} bins are more than {} samples can tell apart", spec.n_mels, spec.n_fft);
        return Err(Error::key(&source.path("config.json"), "encoder_config.num_mel_bins", message));
    }
    let name = "preprocessor_config.json";
    if source.has(name) {
        let preprocessor = read_json(source, name)?;
        for (key, expected) in [
            ("feature_size", spec.n_mels as f64),
            ("sampling_rate", f64::from(spec.sample_rate)),
            ("hop_length", spec.hop_samples as f64),
            ("n_fft", spec.n_fft as f64),
            ("win_length", spec.window_samples as f64),
            ("preemphasis", 0.97),
        ] {
            check_feature(&source.path(name), &preprocessor, key, expected)?;
        }
    }
    Ok(spec)
}

/// Refuses features other than what a model expects.
fn check_feature(path: &Path, preprocessor: &Value, key: &str, expected: f64) -> Result<(), Error> {
    match preprocessor.get(key).map(Value::as_f64) {
        None => Ok(()),
        Some(Some(value)) if (value - expected).abs() < 1e-6 => Ok(()),
        Some(_) => {
            let message = format!("is {}, but the model's features need {expected}", preprocessor[key]);
            Err(Error::key(path, key, message))
        }
    }
}

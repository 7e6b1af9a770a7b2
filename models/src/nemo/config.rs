//! What `model_config.yaml` says about a model, under NeMo's names, and what that is under ours. The defaults are those of NeMo's
//! classes (`conformer_encoder.py: ConformerEncoder`, `features.py: FilterbankFeatures`, `transformer.py: get_nemo_transformer`).

use serde_json::{Value, json};

use super::settings::Settings;
use crate::Error;
use crate::canary::CanaryDecoderConfig;
use crate::fast_conformer::FastConformerConfig;

/// A class of NeMo whose archives are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// FastConformer CTC.
    EncDecCtcModelBpe,
    /// Canary.
    EncDecMultiTaskModel,
}

impl Target {
    /// What the configuration says that the model is.
    pub fn read(whole: &mut Settings<'_>) -> Result<Self, Error> {
        let target = whole.text("target")?;
        match target.rsplit('.').next() {
            Some("EncDecCTCModelBPE") => Ok(Self::EncDecCtcModelBpe),
            Some("EncDecMultiTaskModel") => Ok(Self::EncDecMultiTaskModel),
            _ => {
                let known =
                    "EncDecCTCModelBPE (FastConformer CTC) and EncDecMultiTaskModel (Canary) are read";
                Err(whole.refuse("target", format!("{target} is not known; {known}")))
            }
        }
    }
}

/// Makes sure that features are those that our encoders hear; how many bins they have.
pub(super) fn n_mels(whole: &mut Settings<'_>) -> Result<usize, Error> {
    let mut part = whole.below("preprocessor");
    part.class("AudioToMelSpectrogramPreprocessor")?;
    for (key, default, known) in [
        ("sample_rate", json!(16_000), json!(16_000)),
        ("window_size", json!(0.02), json!(0.025)),
        ("window_stride", json!(0.01), json!(0.01)),
        ("window", json!("hann"), json!("hann")),
        ("normalize", json!("per_feature"), json!("per_feature")),
        ("preemph", json!(0.97), json!(0.97)),
        ("log", json!(true), json!(true)),
        ("log_zero_guard_type", json!("add"), json!("add")),
        ("log_zero_guard_value", json!(2f64.powi(-24)), json!(2f64.powi(-24))),
        ("mag_power", json!(2.0), json!(2.0)),
        ("mel_norm", json!("slaney"), json!("slaney")),
        ("lowfreq", json!(0), json!(0)),
        ("frame_splicing", json!(1), json!(1)),
        ("exact_pad", json!(false), json!(false)),
        ("pad_value", json!(0), json!(0)),
    ] {
        part.known(key, &default, &[known])?;
    }
    // Where they are null they follow from the window and from the rate.
    part.known("n_fft", &Value::Null, &[json!(512), Value::Null])?;
    part.known("highfreq", &Value::Null, &[json!(8000), Value::Null])?;
    let n_mels = part.count("features", Some(64))?;
    // Noise and masks of training, what frames are padded to behind a recording's end, and how it is computed.
    part.ignore(&[
        "dither",
        "pad_to",
        "nb_augmentation_prob",
        "nb_max_freq",
        "rng",
        "use_grads",
        "use_torchaudio",
        "stft_conv",
        "max_duration",
    ]);
    part.finish()?;
    Ok(n_mels)
}

/// The encoder.
pub(super) fn encoder(whole: &mut Settings<'_>) -> Result<FastConformerConfig, Error> {
    let n_mels = n_mels(whole)?;
    let mut part = whole.below("encoder");
    part.class("ConformerEncoder")?;
    part.known("feat_in", &json!(n_mels), &[json!(n_mels)])?;
    let width = part.count("d_model", None)?;
    let n_positions = part.count("pos_emb_max_len", Some(5000))?;
    let attention_context = attention_context(&mut part, n_positions)?;
    for (key, default, known) in [
        ("subsampling", json!("striding"), json!("dw_striding")),
        ("att_context_style", json!("regular"), json!("regular")),
        ("conv_norm_type", json!("batch_norm"), json!("batch_norm")),
        ("conv_context_size", Value::Null, Value::Null),
        ("causal_downsampling", json!(false), json!(false)),
        ("untie_biases", json!(true), json!(true)),
        ("reduction", Value::Null, Value::Null),
    ] {
        part.known(key, &default, &[known])?;
    }
    part.known("feat_out", &json!(-1), &[json!(-1), json!(width)])?;
    let channels = match part.get("subsampling_conv_channels") {
        Some(value) if value.as_i64() == Some(-1) => width,
        _ => part.count("subsampling_conv_channels", Some(width))?,
    };
    let has_bias = part.is("use_bias", true)?;
    let expansion = part.count("ff_expansion_factor", Some(4))?;
    let config = FastConformerConfig {
        hidden_size: width,
        num_hidden_layers: part.count("n_layers", None)?,
        num_attention_heads: part.count("n_heads", Some(4))?,
        intermediate_size: width.saturating_mul(expansion),
        attention_bias: has_bias,
        convolution_bias: has_bias,
        conv_kernel_size: part.count("conv_kernel_size", Some(31))?,
        subsampling_factor: part.count("subsampling_factor", Some(4))?,
        subsampling_conv_channels: channels,
        num_mel_bins: n_mels,
        max_position_embeddings: n_positions,
        scale_input: part.is("xscaling", true)?,
        attention_context,
        ..FastConformerConfig::default()
    };
    // What training drops, where a reduction that is off would be, how it is computed.
    part.ignore(&[
        "att_context_probs",
        "dropout",
        "dropout_pre_encoder",
        "dropout_emb",
        "dropout_att",
        "stochastic_depth_drop_prob",
        "stochastic_depth_mode",
        "stochastic_depth_start_layer",
        "reduction_position",
        "reduction_factor",
        "subsampling_conv_chunking_factor",
        "global_tokens_spacing",
        "sync_max_audio_length",
        "use_pytorch_sdpa",
        "use_pytorch_sdpa_backends",
    ]);
    part.finish()?;
    Ok(config)
}

/// Positions before and after one of at most `n_positions` that the encoder's attention sees; none where it sees all. NeMo masks a
/// whole matrix (`rel_pos`) or computes a band of it (`rel_pos_local_attn`), which is the same.
fn attention_context(part: &mut Settings<'_>, n_positions: usize) -> Result<Option<[usize; 2]>, Error> {
    let (full, local) = (json!("rel_pos"), json!("rel_pos_local_attn"));
    part.known("self_attention_model", &full, &[full.clone(), local.clone()])?;
    let is_local = part.get("self_attention_model") == Some(&local);
    part.known("global_tokens", &json!(0), &[json!(0)])?;
    let everything = json!([-1, -1]);
    let given = part.get("att_context_size").filter(|value| !value.is_null()).unwrap_or(&everything);
    // Of several, training draws one.
    let size = match given.as_array().map(Vec::as_slice) {
        Some([only]) => only,
        _ => given,
    };
    let sides = match size.as_array().map(Vec::as_slice) {
        Some([before, after]) => before.as_i64().zip(after.as_i64()),
        _ => None,
    };
    let refuse = |known: &str| part.refuse("att_context_size", format!("{given} is not known; {known}"));
    match sides {
        // Otherwise NeMo adds scores of positions to those of other positions (multi_head_attention.py:
        // RelPositionMultiHeadAttentionLongformer), or refuses it.
        Some((before, after)) if is_local && !(before == after && before > 0) => {
            Err(refuse("two numbers above 0 that are the same are, with rel_pos_local_attn"))
        }
        Some((-1, -1)) => Ok(None),
        Some(sides) => {
            let side = |n: i64| match n {
                -1 => Some(n_positions),
                n => usize::try_from(n).ok(),
            };
            let context = side(sides.0).zip(side(sides.1)).map(|(before, after)| [before, after]);
            context.map(Some).ok_or_else(|| refuse("numbers from 0 on are, or -1, which is all"))
        }
        None => Err(refuse("two numbers are: positions before and after one")),
    }
}

/// Makes sure that the head of a CTC model is one projection of what its encoder says.
pub(super) fn ctc_head(whole: &mut Settings<'_>) -> Result<(), Error> {
    let mut part = whole.below("decoder");
    part.class("ConvASRDecoder")?;
    part.known("add_blank", &json!(true), &[json!(true)])?;
    // How it is initialised; its sizes and pieces, which weights and tokenizer have.
    part.ignore(&["feat_in", "num_classes", "init_mode", "vocabulary"]);
    part.finish()
}

/// The decoder of a Canary, as wide as its encoder, whose embedding has `n_vocab` rows.
pub(super) fn decoder(
    whole: &mut Settings<'_>,
    encoder_width: usize,
    n_vocab: usize,
) -> Result<CanaryDecoderConfig, Error> {
    // What else is said about an encoder of no blocks says nothing.
    let n_more = whole.below("transf_encoder").count("num_layers", Some(0))?;
    if n_more != 0 {
        let message =
            format!("{n_more} is not known; 0 is: Canary's decoder follows its FastConformer at once");
        return Err(whole.refuse("transf_encoder.num_layers", message));
    }
    let mut head = whole.below("head");
    head.class("TokenClassifier")?;
    for (key, known) in [("num_layers", json!(1)), ("log_softmax", json!(true))] {
        head.known(key, &known, std::slice::from_ref(&known))?;
    }
    // What is between several projections; sizes, which the weights have; training.
    head.ignore(&["activation", "hidden_size", "num_classes", "dropout", "use_transformer_init"]);
    head.finish()?;
    let mut outer = whole.below("transf_decoder");
    outer.class("get_nemo_transformer")?;
    outer.known("library", &json!("nemo"), &[json!("nemo")])?;
    outer.known("pre_ln_final_layer_norm", &json!(true), &[json!(true)])?;
    let mut part = outer.below("config_dict");
    outer.finish()?;
    for (key, default, known) in [
        ("hidden_act", json!("relu"), json!("relu")),
        ("pre_ln", json!(false), json!(true)),
        ("pre_ln_final_layer_norm", json!(true), json!(true)),
        ("learn_positional_encodings", json!(false), json!(false)),
        ("num_token_types", json!(0), json!(0)),
    ] {
        part.known(key, &default, &[known])?;
    }
    let width = part.count("hidden_size", None)?;
    if width != encoder_width {
        let message =
            format!("{width} is not encoder.d_model = {encoder_width}; no projection between them is known");
        return Err(part.refuse("hidden_size", message));
    }
    let n_heads = part.count("num_attention_heads", None)?;
    let config = CanaryDecoderConfig {
        vocab_size: n_vocab,
        hidden_size: width,
        intermediate_size: part.count("inner_size", None)?,
        num_hidden_layers: part.count("num_layers", None)?,
        num_attention_heads: n_heads,
        // transformers has others by default.
        num_key_value_heads: Some(n_heads),
        head_dim: width.checked_div(n_heads),
        max_position_embeddings: part.count("max_sequence_length", Some(512))?,
        ..CanaryDecoderConfig::default()
    };
    part.ignore(&[
        "embedding_dropout",
        "ffn_dropout",
        "attn_score_dropout",
        "attn_layer_dropout",
        "vocab_size",
    ]);
    part.finish()?;
    Ok(config)
}

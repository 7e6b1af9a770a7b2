//! Canary (NVIDIA NeMo, `aed_multitask_models.py`): a FastConformer encoder and a Transformer decoder whose prompt says what is
//! spoken and what is to be written. Weights have the names of transformers' Canary.

mod config;

pub use config::{CanaryConfig, CanaryDecoderConfig};

use std::sync::Arc;

use candle_core::Tensor;

use crate::ctc_head::CTC_HEAD;
use crate::decoder::{Decoder, DecoderBlock};
use crate::kernels::Activation;
use crate::nn::{Embedding, FeedForward, LayerNorm, Linear, MultiHeadAttention, Projections};
use crate::params::{Init, Params, Scope};
use crate::{CtcHead, Encoder, Error, SpeechModel, fast_conformer};

const EPS: f32 = 1e-5;

/// Builds the model from `params`.
///
/// # Errors
/// Missing tensors and shapes other than `config` asks for.
pub(crate) fn load(params: &Params, config: &CanaryConfig) -> Result<SpeechModel, Error> {
    let encoder = params.root().sub("model").sub("encoder");
    let (encoder, decoder) = rayon::join(
        || fast_conformer::Encoder::load(&encoder, config.encoder_config.clone()),
        || load_decoder(params, config),
    );
    let width = config.encoder_config.hidden_size;
    let ctc_head = config.ctc_token_ids.as_ref().map(|ids| {
        let linear = Linear::load(&params.root().sub(CTC_HEAD), width, ids.len() + 1, true)?;
        Ok::<_, Error>(CtcHead::of_tokens(linear, ids))
    });
    let model = SpeechModel::with_decoder(Encoder::FastConformer(encoder?), decoder?);
    Ok(model.and_ctc(ctc_head.transpose()?))
}

/// Builds the decoder alone.
///
/// # Errors
/// What [`load`] refuses.
pub(crate) fn load_decoder(params: &Params, config: &CanaryConfig) -> Result<Decoder, Error> {
    let root = params.root();
    decoder(&root.sub("model").sub("decoder"), &root, &config.decoder_config)
}

/// Loads the weights below `scope` (`model.decoder`); `root` holds the bias of `proj_out`, whose weight is the embedding.
fn decoder(scope: &Scope<'_>, root: &Scope<'_>, config: &CanaryDecoderConfig) -> Result<Decoder, Error> {
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    let bias = config.attention_bias;
    let projections = Projections { out: "o_proj", key_bias: bias, bias };
    let blocks = (0..config.num_hidden_layers)
        .map(|i| {
            let scope = scope.sub("layers").sub(i);
            let norm = |name| LayerNorm::load(&scope.sub(name), width, EPS);
            let attention = |name| MultiHeadAttention::load(&scope.sub(name), width, heads, projections);
            let mlp = scope.sub("mlp");
            let feed_forward = [scope.sub("final_layernorm"), mlp.sub("fc1"), mlp.sub("fc2")];
            let inner = (width, config.intermediate_size);
            Ok(Arc::new(DecoderBlock {
                self_norm: norm("input_layernorm")?,
                self_attention: attention("self_attn")?,
                cross_norm: norm("post_attention_layernorm")?,
                cross_attention: attention("encoder_attn")?,
                feed_forward: FeedForward::load(feed_forward, inner, Activation::Relu, true)?,
            }))
        })
        .collect::<Result<_, Error>>()?;
    let embedding = Embedding::load(&scope.sub("embed_tokens"), config.vocab_size, width)?;
    let output_bias = root.sub("proj_out").get("bias", &[config.vocab_size], Init::Zeros)?;
    let norm = |name| LayerNorm::load(&scope.sub(name), width, EPS);
    let n_positions = config.max_position_embeddings;
    Ok(Decoder {
        output: embedding.tied().with_bias(output_bias),
        embedding,
        positions: Tensor::from_vec(positions(n_positions, width), (n_positions, width), scope.device())?,
        embedding_scale: 1.0,
        embedding_norm: Some(norm("embedding_layernorm")?),
        blocks,
        norm: norm("norm")?,
        n_vocab: config.vocab_size,
        checkpointing: scope.checkpointing(),
    })
}

/// Sines, then cosines, of wavelengths that grow geometrically from 2 pi on, over the square root of the width: NeMo's
/// (`transformer_modules.py: FixedPositionalEncoding`) with sines and cosines in two halves instead of in turn.
pub(crate) fn positions(n_positions: usize, width: usize) -> Vec<f32> {
    let scale = (width as f64).powf(-0.5);
    let wave = |column: usize| 10_000f64.powf(-2.0 * (column % (width / 2)) as f64 / width as f64);
    let value = |position: usize, column: usize| {
        let angle = position as f64 * wave(column);
        (scale * if column < width / 2 { angle.sin() } else { angle.cos() }) as f32
    };
    (0..n_positions).flat_map(|position| (0..width).map(move |column| value(position, column))).collect()
}

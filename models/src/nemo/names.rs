//! What NeMo calls parameters (`conformer_modules.py`, `transformer_decoders.py`) and what transformers does.

/// What becomes of a parameter of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a tensor of the bundle, and along these of its axes lies what passes from block to block of the decoder.
    Tensor(String, &'static [usize]),
    /// It can be computed, or says nothing.
    Computed,
    /// It is no part of a model that is known.
    Unknown,
}

/// Where the encoder of a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `encoder`, with a CTC head beside it.
    Ctc,
    /// `model.encoder`, with a decoder beside it.
    Canary,
}

/// The decoder's table of positions.
pub(super) const POSITIONS: &str = "transf_decoder._embedding.position_embedding.pos_enc";
/// The decoder's embedding of tokens, which is also what it tells them by.
pub(super) const EMBEDDING: &str = "transf_decoder._embedding.token_embedding.weight";
/// The same again.
pub(super) const OUTPUT: &str = "log_softmax.mlp.layer0.weight";
/// The CTC head.
pub(super) const CTC_HEAD: &str = "decoder.decoder_layers.0.weight";

/// What becomes of the parameter `name`.
pub(super) fn place(name: &str, layout: Layout) -> Place {
    let prefix = if layout == Layout::Ctc { "" } else { "model." };
    let is_count = name.ends_with(".num_batches_tracked");
    if is_count || name.starts_with("preprocessor.") || name.starts_with("encoder.pos_enc.") {
        return Place::Computed;
    }
    if let Some(rest) = name.strip_prefix("encoder.") {
        let known = encoder(rest);
        return known.map_or(Place::Unknown, |rest| Place::Tensor(format!("{prefix}encoder.{rest}"), &[]));
    }
    match (layout, name) {
        (Layout::Ctc, CTC_HEAD) => Place::Tensor("ctc_head.weight".to_owned(), &[]),
        (Layout::Ctc, "decoder.decoder_layers.0.bias") => Place::Tensor("ctc_head.bias".to_owned(), &[]),
        (Layout::Ctc, _) => Place::Unknown,
        (Layout::Canary, POSITIONS | OUTPUT) => Place::Computed,
        (Layout::Canary, "log_softmax.mlp.layer0.bias") => Place::Tensor("proj_out.bias".to_owned(), &[]),
        (Layout::Canary, _) => match name.strip_prefix("transf_decoder.").and_then(decoder) {
            Some((rest, axes)) => Place::Tensor(format!("model.decoder.{rest}"), axes),
            None => Place::Unknown,
        },
    }
}

/// `rest` of a name below `encoder`.
fn encoder(rest: &str) -> Option<String> {
    let parts: Vec<&str> = rest.split('.').collect();
    Some(match parts[..] {
        ["pre_encode", "conv", i, leaf] => format!("subsampling.layers.{}.{leaf}", index(i)?),
        ["pre_encode", "out", leaf] => format!("subsampling.linear.{leaf}"),
        ["layers", i, "conv", "batch_norm", leaf] => format!("layers.{}.conv.norm.{leaf}", index(i)?),
        ["layers", i, "self_attn", layer, leaf] => {
            let layer = match layer {
                "linear_q" => "q_proj",
                "linear_k" => "k_proj",
                "linear_v" => "v_proj",
                "linear_out" => "o_proj",
                "linear_pos" => "relative_k_proj",
                _ => return None,
            };
            format!("layers.{}.self_attn.{layer}.{leaf}", index(i)?)
        }
        ["layers", i, "self_attn", "pos_bias_u"] => format!("layers.{}.self_attn.bias_u", index(i)?),
        ["layers", i, "self_attn", "pos_bias_v"] => format!("layers.{}.self_attn.bias_v", index(i)?),
        [
            "layers",
            i,
            "feed_forward1" | "feed_forward2" | "conv",
            "linear1" | "linear2" | "pointwise_conv1" | "depthwise_conv" | "pointwise_conv2",
            _,
        ] => index(i).map(|_| rest.to_owned())?,
        [
            "layers",
            i,
            "norm_feed_forward1" | "norm_feed_forward2" | "norm_conv" | "norm_self_att" | "norm_out",
            _,
        ] => index(i).map(|_| rest.to_owned())?,
        _ => return None,
    })
}

/// `rest` of a name below `transf_decoder`, and the axes along which blocks pass on to each other.
fn decoder(rest: &str) -> Option<(String, &'static [usize])> {
    if let Some(leaf) = rest.strip_prefix("_embedding.layer_norm.") {
        return Some((format!("embedding_layernorm.{leaf}"), &[0]));
    }
    if rest == "_embedding.token_embedding.weight" {
        return Some(("embed_tokens.weight".to_owned(), &[1]));
    }
    if let Some(leaf) = rest.strip_prefix("_decoder.final_layer_norm.") {
        return Some((format!("norm.{leaf}"), &[0]));
    }
    let parts: Vec<&str> = rest.strip_prefix("_decoder.layers.")?.split('.').collect();
    let (&i, rest) = parts.split_first()?;
    let is_weight = rest.last() == Some(&"weight");
    // What a layer reads is its weight's second axis, what it writes is the first and the bias.
    let reads: &[usize] = if is_weight { &[1] } else { &[] };
    let (layer, axes): (&str, &'static [usize]) = match rest {
        ["layer_norm_1", _] => ("input_layernorm", &[0]),
        ["layer_norm_2", _] => ("post_attention_layernorm", &[0]),
        ["layer_norm_3", _] => ("final_layernorm", &[0]),
        ["first_sub_layer", "query_net", _] => ("self_attn.q_proj", reads),
        ["first_sub_layer", "key_net", _] => ("self_attn.k_proj", reads),
        ["first_sub_layer", "value_net", _] => ("self_attn.v_proj", reads),
        ["first_sub_layer", "out_projection", _] => ("self_attn.o_proj", &[0]),
        // Keys and values are of what the encoder says.
        ["second_sub_layer", "query_net", _] => ("encoder_attn.q_proj", reads),
        ["second_sub_layer", "key_net", _] => ("encoder_attn.k_proj", &[]),
        ["second_sub_layer", "value_net", _] => ("encoder_attn.v_proj", &[]),
        ["second_sub_layer", "out_projection", _] => ("encoder_attn.o_proj", &[0]),
        ["third_sub_layer", "dense_in", _] => ("mlp.fc1", reads),
        ["third_sub_layer", "dense_out", _] => ("mlp.fc2", &[0]),
        _ => return None,
    };
    Some((format!("layers.{}.{layer}.{}", index(i)?, rest.last()?), axes))
}

/// A number of a layer, as both write it.
fn index(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n: &usize| n.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nemo_become_those_of_transformers() {
        let tensor = |name: &str, axes: &'static [usize]| Place::Tensor(name.to_owned(), axes);
        for (name, expected) in [
            ("encoder.pre_encode.conv.3.weight", tensor("encoder.subsampling.layers.3.weight", &[])),
            ("encoder.pre_encode.out.bias", tensor("encoder.subsampling.linear.bias", &[])),
            (
                "encoder.layers.11.conv.batch_norm.running_var",
                tensor("encoder.layers.11.conv.norm.running_var", &[]),
            ),
            ("encoder.layers.0.conv.batch_norm.num_batches_tracked", Place::Computed),
            (
                "encoder.layers.0.self_attn.linear_pos.weight",
                tensor("encoder.layers.0.self_attn.relative_k_proj.weight", &[]),
            ),
            ("encoder.layers.0.self_attn.pos_bias_u", tensor("encoder.layers.0.self_attn.bias_u", &[])),
            (
                "encoder.layers.0.feed_forward2.linear1.bias",
                tensor("encoder.layers.0.feed_forward2.linear1.bias", &[]),
            ),
            ("encoder.layers.0.norm_self_att.weight", tensor("encoder.layers.0.norm_self_att.weight", &[])),
            ("encoder.layers.01.norm_out.weight", Place::Unknown),
            ("encoder.pos_bias_u", Place::Unknown),
            ("preprocessor.featurizer.fb", Place::Computed),
            ("decoder.decoder_layers.0.weight", tensor("ctc_head.weight", &[])),
            ("decoder.prediction.embed.weight", Place::Unknown),
        ] {
            assert_eq!(place(name, Layout::Ctc), expected, "{name}");
        }
        for (name, expected) in [
            ("encoder.layers.0.norm_out.bias", tensor("model.encoder.layers.0.norm_out.bias", &[])),
            (EMBEDDING, tensor("model.decoder.embed_tokens.weight", &[1])),
            (POSITIONS, Place::Computed),
            (
                "transf_decoder._decoder.layers.2.second_sub_layer.key_net.weight",
                tensor("model.decoder.layers.2.encoder_attn.k_proj.weight", &[]),
            ),
            (
                "transf_decoder._decoder.layers.2.first_sub_layer.out_projection.bias",
                tensor("model.decoder.layers.2.self_attn.o_proj.bias", &[0]),
            ),
            (
                "transf_decoder._decoder.layers.2.third_sub_layer.dense_in.bias",
                tensor("model.decoder.layers.2.mlp.fc1.bias", &[]),
            ),
            ("log_softmax.mlp.layer0.bias", tensor("proj_out.bias", &[])),
            ("encoder_decoder_proj.weight", Place::Unknown),
            ("transf_encoder._encoder.layers.0.layer_norm_1.weight", Place::Unknown),
        ] {
            assert_eq!(place(name, Layout::Canary), expected, "{name}");
        }
    }
}

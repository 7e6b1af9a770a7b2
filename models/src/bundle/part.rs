//! Bundles put together from parts of others: an encoder that learnt to hear here, a decoder that learnt to translate there.

use serde_json::{Value, json};

use super::{Architecture, Bundle, Description, read_json};
use crate::Error;
use crate::text_encoder::{TEXT_ENCODER, TEXT_ENCODER_CONFIG, TEXT_ROWS, TextEncoderConfig};

/// A part of a model that may come from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What hears speech.
    Encoder,
    /// What reads texts beside it.
    TextEncoder,
    /// What writes.
    Decoder,
    /// What makes sound of the features that a model speaks in.
    Vocoder,
}

impl Part {
    /// As settings call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::TextEncoder => "text_encoder",
            Self::Decoder => "decoder",
            Self::Vocoder => "vocoder",
        }
    }
}

impl Architecture {
    /// Where the weights of a part are; a decoder has two places at most.
    pub fn part_scopes(&self, part: Part) -> &'static [&'static str] {
        match (part, self) {
            (Part::Encoder, Self::ParakeetCtc(_)) => &["encoder"],
            (Part::Encoder, _) => &["model.encoder"],
            (Part::TextEncoder, _) => &[TEXT_ENCODER],
            (Part::Decoder, Self::ParakeetCtc(_)) => &[],
            (Part::Decoder, _) => &["model.decoder", "proj_out"],
            // No model that hears has one.
            (Part::Vocoder, _) => &[],
        }
    }

    /// What decides what a part computes beside its weights.
    fn settings(&self, part: Part) -> Value {
        match (part, self) {
            (Part::Encoder, Self::Whisper(config)) => json!({
                "d_model": config.d_model, "encoder_layers": config.encoder_layers,
                "encoder_attention_heads": config.encoder_attention_heads, "encoder_ffn_dim": config.encoder_ffn_dim,
                "num_mel_bins": config.num_mel_bins, "max_source_positions": config.max_source_positions,
            }),
            (Part::Encoder, Self::Canary(config)) => json!(config.encoder_config),
            (Part::Encoder, Self::ParakeetCtc(config)) => json!(config.encoder_config),
            (Part::Decoder, Self::Whisper(config)) => json!({
                "d_model": config.d_model, "decoder_layers": config.decoder_layers,
                "decoder_attention_heads": config.decoder_attention_heads, "decoder_ffn_dim": config.decoder_ffn_dim,
                "max_target_positions": config.max_target_positions, "vocab_size": config.vocab_size,
                "scale_embedding": config.scale_embedding, "tie_word_embeddings": config.tie_word_embeddings,
            }),
            (Part::Decoder, Self::Canary(config)) => json!(config.decoder_config),
            (Part::Decoder, Self::ParakeetCtc(_)) | (Part::TextEncoder | Part::Vocoder, _) => Value::Null,
        }
    }
}

impl Description {
    /// Tensors with a row for each token of the vocabulary, as far as a checkpoint has them.
    pub(super) fn token_tensors(&self) -> Vec<&'static str> {
        let mut names = self.architecture().token_tensors().to_vec();
        if self.text_encoder().is_some_and(|config| config.phonemes.is_empty()) {
            names.push(TEXT_ROWS);
        }
        names
    }

    /// The same with such an encoder of texts beside that of speech, or with none.
    ///
    /// # Errors
    /// One that does not fit the model.
    pub fn with_text_encoder(self, config: Option<&TextEncoderConfig>) -> Result<Self, Error> {
        if self.text_encoder() == config {
            return Ok(self);
        }
        let mut file = read_json(self.source(), "config.json")?;
        match (&mut file, config) {
            (Value::Object(keys), None) => drop(keys.remove(TEXT_ENCODER_CONFIG)),
            (file, config) => file[TEXT_ENCODER_CONFIG] = json!(config),
        }
        self.with_files(&[], vec![("config.json", file)])
    }
}

impl Bundle {
    /// The same model with such an encoder of texts beside that of speech, or with none. One that is there keeps its weights.
    ///
    /// # Errors
    /// One that does not fit the model.
    pub fn with_text_encoder(self, config: Option<&TextEncoderConfig>) -> Result<Self, Error> {
        let (description, weights) = self.into_parts();
        let is_same = description.text_encoder() == config;
        let description = description.with_text_encoder(config)?;
        let weights = if is_same { weights } else { weights.without(TEXT_ENCODER) };
        Ok(Self { description, weights })
    }

    /// Whether it has weights of a part.
    pub fn has_part(&self, part: Part) -> bool {
        let scopes = self.architecture().part_scopes(part);
        let is_of = |name: &str| {
            scopes.iter().any(|scope| name.strip_prefix(scope).is_some_and(|rest| rest.starts_with('.')))
        };
        self.weights().tensors().any(|(name, ..)| is_of(name))
    }

    /// The same model with a part of another one, whose sizes and, where it reads or writes tokens, vocabulary have to be the same. What is
    /// told beside its weights stays: a CTC head and languages that are heard are those of the former encoder, and languages that are
    /// translated into those of the former decoder.
    ///
    /// # Errors
    /// A part that the other one lacks or that differs, an adapter.
    pub fn with_part(self, part: Part, other: Self) -> Result<Self, Error> {
        let (path, theirs) = (other.description.source().path("config.json"), other.architecture().clone());
        if !other.has_part(part) {
            return Err(Error::file(&path, format!("is of a model without a part `{}`", part.name())));
        }
        let reads_tokens = other.description.text_encoder().is_none_or(|config| config.phonemes.is_empty());
        let needs_vocabulary = match part {
            Part::Encoder | Part::Vocoder => false,
            Part::TextEncoder => reads_tokens,
            Part::Decoder => true,
        };
        let ours = self.architecture().clone();
        let settings = (ours.settings(part), theirs.settings(part));
        if let Some(key) = first_difference(&settings.0, &settings.1) {
            let message = format!("is not that of the model whose `{}` it is to be", part.name());
            return Err(Error::key(&path, key, message));
        }
        if part == Part::Encoder && self.feature_spec() != other.feature_spec() {
            return Err(Error::file(&path, "is of a model that hears other features"));
        }
        if needs_vocabulary {
            let file = |bundle: &Self| {
                let source = bundle.description.source();
                source.read(source.tokenizer_file()).map(std::borrow::Cow::into_owned)
            };
            if file(&self)? != file(&other)? {
                let source = other.description.source();
                let message = format!(
                    "is not the vocabulary of the model whose `{}` it is to be; train both with the same one (model.tokenizer)",
                    part.name()
                );
                return Err(Error::file(&source.path(source.tokenizer_file()), message));
            }
        }
        let (mut description, weights) = self.into_parts();
        let (their_description, their_weights) = other.into_parts();
        if part == Part::TextEncoder {
            description = description.with_text_encoder(their_description.text_encoder())?;
        }
        // What is tied to embeddings has nothing of its own.
        let layers: Vec<_> =
            ours.part_scopes(part).iter().copied().zip(theirs.part_scopes(part).iter().copied()).collect();
        Ok(Self { description, weights: weights.with_layers_of(&layers, their_weights)? })
    }
}

/// The first key by which two objects differ.
fn first_difference(ours: &Value, theirs: &Value) -> Option<String> {
    let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) else {
        return (ours != theirs).then(|| "model_type".to_owned());
    };
    let keys = ours.keys().chain(theirs.keys());
    keys.into_iter().find(|key| ours.get(*key) != theirs.get(*key)).cloned()
}

//! Bundles of FastConformer models that are trained from nothing: a Canary, or a CTC model where there is no decoder.

use super::Description;
use super::conformer_files::{Names, canary_files, ctc_files};
use super::new::{NewVocabulary, describe_files};
use crate::Error;
use crate::canary::{CanaryConfig, CanaryDecoderConfig};
use crate::fast_conformer::FastConformerConfig;
use crate::parakeet::ParakeetCtcConfig;
use crate::tokenizer::Tokenizer;

/// What fills up rows of a batch, and what CTC says where it hears nothing: the last token, as NeMo has it.
pub(super) const PAD: &str = "pad";

/// A FastConformer model to be trained from nothing.
#[derive(Debug, Clone)]
pub struct NewConformer {
    /// What errors call it.
    pub name: String,
    /// Width of encoder and decoder; feed-forward layers are four times as wide.
    pub d_model: usize,
    /// Heads of every attention.
    pub n_heads: usize,
    /// Encoder blocks.
    pub encoder_layers: usize,
    /// Decoder blocks; none is a CTC model.
    pub decoder_layers: usize,
    /// Mel bins of the features.
    pub n_mels: usize,
    /// Frames that become one position, a power of two.
    pub subsampling: usize,
    /// Channels of the convolutions before the blocks.
    pub conv_channels: usize,
    /// Positions that the convolution in a block looks at.
    pub conv_kernel: usize,
    /// Positions before and after one that the encoder's attention sees; all where there are none given.
    pub attention_context: Option<[usize; 2]>,
    /// Most tokens of a text and its prompt.
    pub max_target_positions: usize,
    /// Hypotheses that beam search keeps where nobody says otherwise.
    pub beam_size: usize,
    /// What it writes in.
    pub vocabulary: NewVocabulary,
}

impl NewConformer {
    /// What its vocabulary has beside text, in order.
    fn control_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        if self.decoder_layers > 0 {
            let controls = [
                "endoftext",
                "startoftranscript",
                "startofcontext",
                "emo:undefined",
                "pnc",
                "nopnc",
                "itn",
                "noitn",
                "timestamp",
                "notimestamp",
                "diarize",
                "nodiarize",
            ];
            names.extend(controls.map(str::to_owned));
            names.extend(self.vocabulary.languages.iter().cloned());
        }
        names.push(PAD.to_owned());
        names
    }

    /// Learns the vocabulary from `texts` and describes the model.
    ///
    /// # Errors
    /// Sizes that do not fit together, named as in `config.json`; a decoder that is told no language.
    pub fn describe(&self, texts: &[String]) -> Result<Description, Error> {
        self.vocabulary.check()?;
        self.describe_with(self.vocabulary.learn_beside(texts, &self.control_names())?)
    }

    /// Describes the model with a vocabulary that was learnt before: the contents of `tokenizer.json`.
    ///
    /// # Errors
    /// Those of [`NewConformer::describe`], and a vocabulary that lacks a control token or a language.
    pub fn describe_with(&self, tokenizer: String) -> Result<Description, Error> {
        let known = Tokenizer::from_text(&tokenizer)?;
        let id = |name: &str| {
            let missing =
                || Error::Tokenizer(format!("the vocabulary has no <|{name}|>, which the model needs"));
            known.special(name).ok_or_else(missing)
        };
        let names = self.control_names();
        names.iter().try_for_each(|name| id(name).map(|_| ()))?;
        let (n_vocab, pad) = (known.n_tokens(), id(PAD)?);
        let encoder = FastConformerConfig {
            hidden_size: self.d_model,
            num_hidden_layers: self.encoder_layers,
            num_attention_heads: self.n_heads,
            intermediate_size: 4 * self.d_model,
            conv_kernel_size: self.conv_kernel,
            attention_context: self.attention_context,
            subsampling_factor: self.subsampling,
            subsampling_conv_channels: self.conv_channels,
            num_mel_bins: self.n_mels,
            scale_input: false,
            ..FastConformerConfig::default()
        };
        let window_secs = self.vocabulary.window_secs;
        let files = if self.decoder_layers > 0 {
            if self.vocabulary.languages.is_empty() {
                let message = "name at least one: prompts say what is spoken and what is to be written";
                return Err(Error::option("languages", message));
            }
            let (start, end) = (id("startofcontext")?, id("endoftext")?);
            let config = CanaryConfig {
                encoder_config: encoder,
                decoder_config: CanaryDecoderConfig {
                    vocab_size: n_vocab,
                    hidden_size: self.d_model,
                    intermediate_size: 4 * self.d_model,
                    num_hidden_layers: self.decoder_layers,
                    num_attention_heads: self.n_heads,
                    // transformers has others by default.
                    num_key_value_heads: Some(self.n_heads),
                    head_dim: self.d_model.checked_div(self.n_heads),
                    max_position_embeddings: self.max_target_positions,
                    ..CanaryDecoderConfig::default()
                },
                eos_token_id: end,
                pad_token_id: pad,
                decoder_start_token_id: start,
                window_secs,
                ctc_token_ids: None,
            };
            let begin = id("startoftranscript")?;
            canary_files(
                &config,
                begin,
                self.beam_size,
                Names { end: "<|endoftext|>", pad: "<|pad|>", unknown: "<|endoftext|>" },
            )?
        } else {
            let language = match self.vocabulary.languages.as_slice() {
                [only] => Some(only.clone()),
                _ => None,
            };
            let config = ParakeetCtcConfig {
                encoder_config: encoder,
                vocab_size: n_vocab,
                pad_token_id: pad,
                language,
                window_secs,
            };
            let names = Names { end: "<|pad|>", pad: "<|pad|>", unknown: "<|pad|>" };
            ctc_files(&config, self.beam_size, self.max_target_positions, names)?
        };
        describe_files(&self.name, files, tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::new::TextUnit;
    use super::*;
    use crate::{Architecture, Task, Told};

    fn new(decoder_layers: usize, unit: TextUnit) -> NewConformer {
        NewConformer {
            name: "new".to_owned(),
            d_model: 16,
            n_heads: 2,
            encoder_layers: 1,
            decoder_layers,
            n_mels: 80,
            subsampling: 8,
            conv_channels: 4,
            conv_kernel: 9,
            attention_context: None,
            max_target_positions: 32,
            beam_size: 1,
            vocabulary: NewVocabulary {
                n_text_tokens: 400,
                unit,
                languages: vec!["ps".to_owned(), "en".to_owned()],
                window_secs: 8.0,
            },
        }
    }

    fn texts() -> Vec<String> {
        [" یو دوه", " درې یو", " one"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_canary_is_told_its_languages() -> Result<(), Error> {
        let description = new(2, TextUnit::Pieces).describe(&texts())?;
        let (tokenizer, generation, special) = description.vocabulary()?;
        assert!(matches!(description.architecture(), Architecture::Canary(_)));
        assert_eq!(description.languages()?, ["ps", "en"]);
        assert_eq!(description.window_secs(), 8.0);
        let (prompt, start) = special
            .prompt_after(&[], Told { language: Some("ps"), task: Task::Translate, ..Told::default() })?;
        let names: Vec<_> = prompt.iter().map(|id| tokenizer.token_bytes(*id)).collect();
        let expected = ["startofcontext", "startoftranscript", "emo:undefined", "ps", "en", "pnc", "noitn"];
        for (name, expected) in names.iter().zip(expected) {
            assert_eq!(*name, format!("<|{expected}|>").into_bytes());
        }
        assert_eq!((prompt.len(), start), (9, 1));
        let Architecture::Canary(config) = description.architecture() else { panic!("no Canary") };
        assert_eq!(config.encoder_config.attention_context, None);
        let near = NewConformer { attention_context: Some([8, 2]), ..new(2, TextUnit::Pieces) };
        let near = near.describe(&texts())?;
        let Architecture::Canary(config) = near.architecture() else { panic!("no Canary") };
        assert_eq!(config.encoder_config.attention_context, Some([8, 2]));
        // Nothing but text and its end is ever written.
        let suppressed = generation.suppress_tokens.unwrap_or_default();
        assert!(suppressed.contains(&special.start) && !suppressed.contains(&special.end));
        let silent = NewVocabulary { languages: Vec::new(), ..new(2, TextUnit::Pieces).vocabulary };
        let refused = NewConformer { vocabulary: silent, ..new(2, TextUnit::Pieces) }.describe(&texts());
        assert!(refused.err().is_some_and(|error| error.to_string().contains("languages")));
        Ok(())
    }

    #[test]
    fn a_model_without_a_decoder_is_one_of_ctc_whose_blank_is_last() -> Result<(), Error> {
        let description = new(0, TextUnit::Characters).describe(&texts())?;
        let (tokenizer, _, special) = description.vocabulary()?;
        assert!(matches!(description.architecture(), Architecture::ParakeetCtc(_)));
        assert_eq!(special.start as usize + 1, description.architecture().n_vocab());
        assert_eq!(special.only_language, None, "it may be either");
        let one =
            NewVocabulary { languages: vec!["ps".to_owned()], ..new(0, TextUnit::Characters).vocabulary };
        let one = NewConformer { vocabulary: one, ..new(0, TextUnit::Characters) }.describe(&texts())?;
        assert_eq!(one.vocabulary()?.2.only_language.as_deref(), Some("ps"));
        // A token for each character, and bytes for others.
        assert_eq!(tokenizer.encode(" دوه یو")?.len(), 7);
        assert_eq!(tokenizer.decode(&tokenizer.encode(" ز one")?)?, " ز one");
        Ok(())
    }
}

//! Bundles of models that are trained from nothing: a vocabulary learnt from texts, and the files that describe the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper, TokenizerBuilder};

use super::{BundleSource, Description, MemoryBundle};
use crate::Error;
use crate::special_tokens::TIMESTAMP_SECS;
use crate::tokenizer::Tokenizer;
use crate::whisper::WhisperConfig;

/// Tokens that any byte-level vocabulary has.
const N_BYTES: usize = 256;

/// A vocabulary to be learnt.
#[derive(Debug, Clone)]
pub struct NewVocabulary {
    /// Tokens of text at most, the 256 bytes among them.
    pub n_text_tokens: usize,
    /// What a token may stand for.
    pub unit: TextUnit,
    /// Codes of languages that a prompt names. None is a model of one language, whose prompts name none.
    pub languages: Vec<String>,
    /// Seconds of a window: so far do timestamps reach.
    pub window_secs: f64,
}

/// What a token of text may stand for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextUnit {
    /// Whatever comes often: parts of words, and words.
    #[default]
    Pieces,
    /// One character.
    Characters,
}

/// A Whisper model to be trained from nothing.
#[derive(Debug, Clone)]
pub struct NewWhisper {
    /// What errors call it.
    pub name: String,
    /// Width of encoder and decoder; feed-forward layers are four times as wide.
    pub d_model: usize,
    /// Heads of every attention.
    pub n_heads: usize,
    /// Encoder blocks.
    pub encoder_layers: usize,
    /// Decoder blocks.
    pub decoder_layers: usize,
    /// Mel bins of the features.
    pub n_mels: usize,
    /// Most tokens of a text and what precedes it.
    pub max_target_positions: usize,
    /// Whether short recordings are encoded as they are, without padding to the window.
    pub variable_length: bool,
    /// Hypotheses that beam search keeps where nobody says otherwise.
    pub beam_size: usize,
    /// What it writes in.
    pub vocabulary: NewVocabulary,
}

impl NewVocabulary {
    /// Learns byte pairs from texts, with what Whisper's vocabularies have beside text: control tokens and timestamps, in
    /// their order. The contents of `tokenizer.json`.
    ///
    /// # Errors
    /// Fewer tokens than bytes, a window that is no whole number of seconds.
    pub fn learn(&self, texts: &[String]) -> Result<String, Error> {
        self.check()?;
        self.learn_beside(texts, &self.control_names())
    }

    /// The same with other control tokens, in this order, and nothing else beside text.
    ///
    /// # Errors
    /// Fewer tokens than bytes.
    pub(super) fn learn_beside(&self, texts: &[String], names: &[String]) -> Result<String, Error> {
        self.check_size()?;
        let refused = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
        let byte_level = ByteLevel::new(false, true, true);
        let mut tokenizer = TokenizerBuilder::<
            BPE,
            tokenizers::NormalizerWrapper,
            PreTokenizerWrapper,
            tokenizers::PostProcessorWrapper,
            DecoderWrapper,
        >::default()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(byte_level)))
        .with_decoder(Some(DecoderWrapper::ByteLevel(byte_level)))
        .build()
        .map_err(refused)?;
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(self.n_text_tokens)
            .min_frequency(if self.unit == TextUnit::Characters { 1 } else { 2 })
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        match self.unit {
            TextUnit::Pieces => tokenizer.train(&mut trainer, texts.iter()).map_err(refused)?,
            // Bytes then only ever join to the character that they are of.
            TextUnit::Characters => {
                let characters = texts.iter().flat_map(|text| text.chars()).map(String::from);
                tokenizer.train(&mut trainer, characters).map_err(refused)?
            }
        };
        let tokens: Vec<_> = names.iter().map(|name| AddedToken::from(format!("<|{name}|>"), true)).collect();
        tokenizer.add_special_tokens(tokens).map_err(refused)?;
        Ok(tokenizer.to_string(true).map_err(refused)? + "\n")
    }

    /// What is beside text, in order.
    pub(super) fn control_names(&self) -> Vec<String> {
        let mut names = vec!["endoftext".to_owned(), "startoftranscript".to_owned()];
        names.extend(self.languages.iter().cloned());
        let controls = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"];
        names.extend(controls.map(str::to_owned));
        let n_timestamps = (self.window_secs / TIMESTAMP_SECS).round() as usize + 1;
        names.extend((0..n_timestamps).map(|i| format!("{:.2}", i as f64 * TIMESTAMP_SECS)));
        names
    }

    /// Ids of what is beside text.
    pub(super) fn ids_in(&self, tokenizer: &Tokenizer) -> Result<BTreeMap<String, u32>, Error> {
        Self::ids_of(&self.control_names(), tokenizer)
    }

    /// Ids of these tokens, which are all that a vocabulary has after text, in this order.
    pub(super) fn ids_of(names: &[String], tokenizer: &Tokenizer) -> Result<BTreeMap<String, u32>, Error> {
        let id = |name: &String| {
            let missing = || {
                let how = "learn it for this window and these languages (speechd tokenizer train), or for a given model by \
                           speechd finetune --new-vocabulary";
                Error::Tokenizer(format!("tokenizer.json has no <|{name}|>; {how}"))
            };
            Ok((name.clone(), tokenizer.special(name).ok_or_else(missing)?))
        };
        let ids: BTreeMap<String, u32> = names.iter().map(id).collect::<Result<_, Error>>()?;
        // Text, its end, controls, times: what is told by its place has to be there.
        let first = names.first().and_then(|name| ids.get(name)).copied().unwrap_or_default();
        let is_in_order = names.iter().zip(first..).all(|(name, expected)| ids.get(name) == Some(&expected));
        if !is_in_order || tokenizer.n_tokens() != first as usize + names.len() {
            let message = "its control tokens and times are not those of this window and these languages, in their order; \
                           learn it with the same ones (speechd tokenizer train), or for a given model by speechd finetune --new-vocabulary";
            return Err(Error::Tokenizer(message.to_owned()));
        }
        Ok(ids)
    }

    /// `generation_config.json`: which of these ids begin, end and never are a text, and how long one may be.
    pub(super) fn generation(&self, ids: &BTreeMap<String, u32>, max_length: usize) -> Result<Value, Error> {
        let id = |name: &str| id_of(ids, name);
        let (end, start) = (id("endoftext")?, id("startoftranscript")?);
        let controls = ["startoftranscript", "startoflm", "startofprev", "nospeech", "notimestamps"];
        let mut suppressed = controls.map(&id).into_iter().collect::<Result<Vec<_>, _>>()?;
        suppressed.extend([id("translate")?, id("transcribe")?]);
        suppressed.sort_unstable();
        let mut generation = json!({
            "begin_suppress_tokens": [], "suppress_tokens": suppressed, "bos_token_id": end, "eos_token_id": end,
            "pad_token_id": end, "decoder_start_token_id": start, "is_multilingual": !self.languages.is_empty(),
            "no_timestamps_token_id": id("notimestamps")?, "prev_sot_token_id": id("startofprev")?,
            // A window may begin with any silence.
            "max_initial_timestamp_index": self.n_positions(), "max_length": max_length, "return_timestamps": false,
        });
        if !self.languages.is_empty() {
            let languages = self.languages.iter().map(|code| Ok((format!("<|{code}|>"), id(code)?)));
            let languages: BTreeMap<_, _> = languages.collect::<Result<_, Error>>()?;
            let tasks = json!({"transcribe": id("transcribe")?, "translate": id("translate")?});
            merge(&mut generation, json!({"lang_to_id": languages, "task_to_id": tasks}));
        }
        Ok(generation)
    }

    /// `tokenizer_config.json`.
    pub(super) fn tokenizer_config(max_length: usize) -> Value {
        json!({
            "tokenizer_class": "WhisperTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
            "model_max_length": max_length, "clean_up_tokenization_spaces": false,
        })
    }

    /// Positions of the encoder in a window.
    fn n_positions(&self) -> usize {
        (self.window_secs / TIMESTAMP_SECS).round() as usize
    }

    /// Refuses what no model has.
    pub(super) fn check(&self) -> Result<(), Error> {
        let window_secs = self.window_secs;
        if !(window_secs.fract() == 0.0 && (1.0..=3600.0).contains(&window_secs)) {
            // Hugging Face's feature extractor counts them in whole numbers.
            let message = format!("{window_secs} is not a whole number of seconds from 1 to 3600");
            return Err(Error::option("window_secs", message));
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<(), Error> {
        if self.n_text_tokens < N_BYTES {
            let message = format!("{} is less than the {N_BYTES} bytes", self.n_text_tokens);
            return Err(Error::option("n_text_tokens", message));
        }
        Ok(())
    }
}

impl NewWhisper {
    /// Learns the vocabulary from `texts` and describes the model.
    ///
    /// # Errors
    /// Sizes that do not fit together, named as in `config.json`.
    pub fn describe(&self, texts: &[String]) -> Result<Description, Error> {
        self.describe_with(self.vocabulary.learn(texts)?)
    }

    /// Describes the model with a vocabulary that was learnt before: the contents of `tokenizer.json`.
    ///
    /// # Errors
    /// Those of [`NewWhisper::describe`], and a vocabulary that lacks a control token, a language or a time of the window.
    pub fn describe_with(&self, tokenizer: String) -> Result<Description, Error> {
        self.vocabulary.check()?;
        let window_secs = self.vocabulary.window_secs;
        let ids = self.vocabulary.ids_in(&Tokenizer::from_text(&tokenizer)?)?;
        let mut generation = self.vocabulary.generation(&ids, self.max_target_positions)?;
        generation["num_beams"] = json!(self.beam_size);
        let (end, start) = (id_of(&ids, "endoftext")?, id_of(&ids, "startoftranscript")?);
        let n_positions = self.vocabulary.n_positions();
        let config = WhisperConfig {
            d_model: self.d_model,
            encoder_layers: self.encoder_layers,
            encoder_attention_heads: self.n_heads,
            encoder_ffn_dim: 4 * self.d_model,
            decoder_layers: self.decoder_layers,
            decoder_attention_heads: self.n_heads,
            decoder_ffn_dim: 4 * self.d_model,
            num_mel_bins: self.n_mels,
            max_source_positions: n_positions,
            max_target_positions: self.max_target_positions,
            vocab_size: ids.values().max().map_or(0, |last| *last as usize + 1),
            scale_embedding: false,
            activation_function: "gelu".to_owned(),
            tie_word_embeddings: true,
            decoder_start_token_id: start,
            eos_token_id: end,
            suppress_tokens: None,
            // Nothing is a text, too: silence.
            begin_suppress_tokens: Some(Vec::new()),
            median_filter_width: 7,
            variable_length: self.variable_length,
        };
        let mut keys = serde_json::to_value(&config)
            .map_err(|error| Error::Tokenizer(format!("config.json: {error}")))?;
        merge(
            &mut keys,
            json!({
                "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"],
                "is_encoder_decoder": true, "bos_token_id": end, "pad_token_id": end,
            }),
        );
        let spec = audio::FeatureSpec::whisper(self.n_mels);
        let preprocessor = json!({
            "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": self.n_mels,
            "sampling_rate": spec.sample_rate, "hop_length": spec.hop_samples, "n_fft": spec.n_fft,
            "chunk_length": window_secs as u64,
            "n_samples": 2 * n_positions * spec.hop_samples, "nb_max_frames": 2 * n_positions,
            "padding_side": "right", "padding_value": 0.0, "return_attention_mask": false,
        });
        let tokenizer_config = NewVocabulary::tokenizer_config(self.max_target_positions);
        let files = [
            ("config.json", keys),
            ("generation_config.json", generation),
            ("preprocessor_config.json", preprocessor),
            ("tokenizer_config.json", tokenizer_config),
        ];
        describe_files(&self.name, files, tokenizer)
    }
}

/// A model of these files and of `tokenizer.json`, which is in memory.
pub(super) fn describe_files<const N: usize>(
    name: &str,
    files: [(&'static str, Value); N],
    tokenizer: String,
) -> Result<Description, Error> {
    let json = |(name, value): (&'static str, Value)| {
        (Cow::Borrowed(name), Cow::Owned(format!("{value:#}\n").into_bytes()))
    };
    let mut files: BTreeMap<_, _> = files.into_iter().map(json).collect();
    files.insert(Cow::Borrowed("tokenizer.json"), Cow::Owned(tokenizer.into_bytes()));
    let name = Cow::Owned(name.to_owned());
    Description::open(BundleSource::Memory(Arc::new(MemoryBundle { name, files })))
}

fn id_of(ids: &BTreeMap<String, u32>, name: &str) -> Result<u32, Error> {
    let missing = || Error::Tokenizer(format!("the new vocabulary has no <|{name}|>"));
    ids.get(name).copied().ok_or_else(missing)
}

/// Adds the keys of `more`.
pub(super) fn merge(keys: &mut Value, more: Value) {
    if let (Value::Object(keys), Value::Object(more)) = (keys, more) {
        keys.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(languages: &[&str]) -> NewWhisper {
        NewWhisper {
            name: "new".to_owned(),
            d_model: 16,
            n_heads: 2,
            encoder_layers: 1,
            decoder_layers: 1,
            n_mels: 80,
            max_target_positions: 32,
            variable_length: true,
            beam_size: 1,
            vocabulary: NewVocabulary {
                n_text_tokens: 300,
                unit: TextUnit::Pieces,
                languages: languages.iter().map(|&code| code.to_owned()).collect(),
                window_secs: 8.0,
            },
        }
    }

    fn texts() -> Vec<String> {
        [" one two", " two three one", " three two"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_learnt_vocabulary_spells_any_text_and_its_words_briefly() -> Result<(), Error> {
        let (tokenizer, generation, special) = new(&[]).describe(&texts())?.vocabulary()?;
        for text in [" one two three", "  \u{67e}\u{69a}\u{62a}\u{648}, 7\n"] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text)?)?, text);
        }
        assert_eq!(tokenizer.encode(" one two")?.len(), 2);
        assert!(tokenizer.encode(" one two three")?.iter().all(|id| special.is_text(*id)));
        assert!(!special.is_multilingual && special.no_speech.is_some());
        let zero = special.timestamp_begin().map(|begin| tokenizer.token_bytes(begin + 400));
        assert_eq!(zero, Some(b"<|8.00|>".to_vec()));
        assert_eq!(tokenizer.token_bytes(special.timestamp_begin().unwrap_or_default()), b"<|0.00|>");
        // Silence may be answered by nothing, and control tokens are never written.
        assert_eq!(generation.begin_suppress_tokens, Some(Vec::new()));
        assert!(generation.suppress_tokens.is_some_and(|ids| ids.contains(&special.start)));
        Ok(())
    }

    #[test]
    fn the_same_texts_give_the_same_files() -> Result<(), Error> {
        let [one, two] = [new(&["ps", "fa"]).describe(&texts())?, new(&["ps", "fa"]).describe(&texts())?];
        for name in ["config.json", "generation_config.json", "tokenizer.json"] {
            assert_eq!(one.source().read(name)?, two.source().read(name)?, "{name}");
        }
        assert_eq!(one.languages()?, ["ps", "fa"]);
        Ok(())
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_by_name() {
        let few = NewVocabulary { n_text_tokens: 255, unit: TextUnit::Pieces, ..new(&[]).vocabulary };
        let uneven = NewVocabulary { window_secs: 7.5, ..new(&[]).vocabulary };
        for (model, part) in [
            (NewWhisper { n_heads: 3, ..new(&[]) }, "encoder_attention_heads"),
            (NewWhisper { vocabulary: few, ..new(&[]) }, "n_text_tokens"),
            (NewWhisper { vocabulary: uneven, ..new(&[]) }, "window_secs"),
        ] {
            let error = model.describe(&texts()).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains(part)), "{part}");
        }
    }
}

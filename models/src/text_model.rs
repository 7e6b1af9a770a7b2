//! An encoder of texts and a decoder: text to text. What speech translation begins with, and a translator of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;

use crate::bundle::Part;
use crate::decode::{Attempt, Rules, Session, Strategy, Thresholds, WindowRequest};
use crate::generation_config::GenerationConfig;
use crate::params::Params;
use crate::special_tokens::SpecialTokens;
use crate::tokenizer::Tokenizer;
use crate::{Bundle, Decoder, Description, Error, SpeechModel, Task, TextEncoder, TextEncoderConfig, Told};

/// Tokens that a row may guess at once from what it has written: translations repeat little.
const DRAFT_TOKENS: usize = 3;

/// A model that reads texts and writes texts. Immutable; threads share it.
pub struct TextModel {
    encoder: TextEncoder,
    decoder: Arc<Decoder>,
    config: TextEncoderConfig,
    tokenizer: Arc<Tokenizer>,
    special: Arc<SpecialTokens>,
    rules: Arc<Rules>,
    beam_size: usize,
}

impl TextModel {
    /// Loads a bundle's weights onto `device`.
    ///
    /// # Errors
    /// A model without an encoder of texts or without a decoder, and what does not fit the configuration.
    pub fn load(bundle: Bundle, device: &candle_core::Device) -> Result<Self, Error> {
        let (description, weights) = bundle.into_parts();
        Self::with_params(&description, &Params::frozen(weights, device))
    }

    /// A model of these parameters, such as those that are being trained.
    ///
    /// # Errors
    /// What [`TextModel::load`] refuses.
    pub fn with_params(description: &Description, params: &Params) -> Result<Self, Error> {
        let missing = || Error::option("model", "has no encoder of texts");
        let config = description.text_encoder().ok_or_else(missing)?.clone();
        let (tokenizer, generation, special): (_, GenerationConfig, _) = description.vocabulary()?;
        let rules = Rules {
            suppress: generation.suppress_tokens.clone().unwrap_or_default(),
            begin_suppress: generation.begin_suppress_tokens.clone().unwrap_or_default(),
            timestamps: None,
        };
        Ok(Self {
            encoder: TextEncoder::load(params, &config)?,
            decoder: Arc::new(SpeechModel::load_decoder(params, description.architecture())?),
            config,
            tokenizer: Arc::new(tokenizer),
            special: Arc::new(special),
            rules: Arc::new(rules),
            beam_size: generation.beam_size(),
        })
    }

    /// What reads.
    pub fn encoder(&self) -> &TextEncoder {
        &self.encoder
    }

    /// What writes.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The special tokens.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// What ends a text that is read.
    pub fn end(&self) -> u32 {
        self.config.phoneme_end().unwrap_or(self.special.end)
    }

    /// Most tokens of a text that is read, its end included.
    pub fn max_positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// Whether it reads phonemes in the place of a text's tokens.
    pub fn reads_phonemes(&self) -> bool {
        self.config.phoneme_end().is_some()
    }

    /// The language of the texts that it reads, where it is one.
    pub fn only_source(&self) -> Option<&str> {
        match self.special.source_languages.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// What a translation from a language, the only one where nobody names any, into another one is begun with, and where its start is.
    ///
    /// # Errors
    /// A language that the model has not learnt to read, one that is needed and not named, one that it does not translate into.
    pub fn prompt(
        &self,
        language: Option<&str>,
        to_language: Option<&str>,
    ) -> Result<(Vec<u32>, usize), Error> {
        let language = language.or(self.only_source()).filter(|_| self.special.is_multilingual);
        if language.is_none() && self.special.is_multilingual {
            return Err(self.special.language_needed("it reads"));
        }
        let told = Told { language, task: Task::Translate, to_language, ..Told::default() };
        self.special.prompt_after(&[], told)
    }

    /// Reads texts, each with its end, and writes what each becomes after its prompt, whose start is at the place beside it.
    /// `beam_size` hypotheses are kept; `None` is what the checkpoint asks for. One text that fails costs the others nothing.
    ///
    /// # Errors
    /// When a tensor operation fails that all share; [`Error::Cancelled`] when `keep_going` says no.
    pub fn write(
        &self,
        texts: &[Vec<u32>],
        prompts: &[(Vec<u32>, usize)],
        beam_size: Option<usize>,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<Result<Vec<u32>, Error>>, Error> {
        let encoded = self.encoder.forward(texts)?; // (B, U, D)
        let mut session = Session::new(self.decoder.clone(), self.tokenizer.clone(), self.special.clone());
        let mut written = BTreeMap::new();
        for (row, (text, (prompt, start_index))) in texts.iter().zip(prompts).enumerate() {
            let states = encoded.get(row)?.narrow(0, 0, text.len())?; // (U, D)
            let request = self.request(&states, prompt.clone(), *start_index, beam_size)?;
            if let Err(error) = session.join(row as u64, request) {
                written.insert(row as u64, Err(error));
            }
        }
        while !session.is_empty() {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            let ended = session.step()?.ended;
            written.extend(ended.into_iter().map(|(id, result)| (id, result.map(|result| result.tokens))));
        }
        Ok(written.into_values().collect())
    }

    fn request(
        &self,
        states: &Tensor,
        prompt: Vec<u32>,
        start_index: usize,
        beam_size: Option<usize>,
    ) -> Result<WindowRequest, Error> {
        let strategy = match beam_size.unwrap_or(self.beam_size) {
            0 | 1 => Strategy::Greedy,
            size => Strategy::Beam { size, patience: None, length_penalty: 1.0 },
        };
        Ok(WindowRequest {
            cross: Arc::new(self.decoder.cross_cache(states)?),
            draft: None,
            prompt,
            start_index,
            rules: self.rules.clone(),
            attempts: vec![Attempt { temperature: 0.0, strategy }],
            thresholds: Thresholds { compression_ratio: None, logprob: None, no_speech: None },
            max_new_tokens: self.decoder.max_positions(),
            draft_tokens: DRAFT_TOKENS,
            seed: 0,
        })
    }
}

/// Refuses a bundle without weights of what hears speech.
pub(crate) fn check_hears(bundle: &Bundle) -> Result<(), Error> {
    if bundle.has_part(Part::Encoder) || bundle.description().text_encoder().is_none() {
        return Ok(());
    }
    let message = "translates texts and has not learnt to hear: it is a beginning for speech translation \
                   (speechd train, with it as model.base or model.parts.decoder)";
    Err(Error::option("model", message))
}

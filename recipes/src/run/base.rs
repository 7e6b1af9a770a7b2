//! What a run starts from: a base as its settings ask for it, and what they are with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use models::{Architecture, Bundle, BundleSource, Description};

use crate::Error;
use crate::config::{ModelConfig, ModelKind, RunConfig, StrategyKind};
use crate::data::Translations;
use crate::loss::{CtcVocabulary, LossConfig};
use crate::task::transcribe::check_loss;

use super::model::check_memory;

/// A base as the run needs it: with a token for its language, with the vocabulary, the beam and windows of the length that are
/// asked for.
///
/// # Errors
/// A language that the base has no token for and that is like none that it has, a vocabulary that does not suit it, a strategy
/// that cannot begin with it.
pub(super) fn prepared_base(config: &RunConfig, source: BundleSource) -> Result<Bundle, Error> {
    let is_adapted = matches!(source, BundleSource::Adapted { .. });
    let base = with_language(config, source)?;
    let base = match config.model.tokenizer.as_str() {
        "" => base,
        dir => base.with_vocabulary(&vocabulary_in(dir)?)?,
    };
    config.strategy.check_layers(base.weights().tensors().map(|(name, ..)| name))?;
    if config.strategy.kind == StrategyKind::Lora {
        let refuse = |message: &str| Err(Error::config("strategy.kind", message));
        if is_adapted {
            return refuse(
                "lora on an adapter is one on top of another; merge that one first (speechd models merge)",
            );
        }
        let language = config.data.language.as_str();
        if !config.model.like.is_empty()
            && base.description().languages()?.last().is_some_and(|last| last == language)
        {
            return refuse(
                "lora leaves embeddings as they are, and a new language's token would never learn; use full",
            );
        }
    }
    check(config, base.description())?;
    let (frozen, n_layers) = (config.strategy.frozen_layers, base.architecture().n_layers().0);
    if config.strategy.kind == StrategyKind::FrozenEncoder && frozen > n_layers {
        let message = format!("{frozen} are more than the encoder's {n_layers}");
        return Err(Error::config("strategy.frozen_layers", message));
    }
    let base = match config.model.beam_size {
        Some(beam_size) => base.with_beam_size(beam_size)?,
        None => base,
    };
    Ok(match config.model.variable_length {
        Some(variable_length) => base.with_variable_length(variable_length)?,
        None => base,
    })
}

/// Refuses what training would refuse of a base later, when data have been read.
fn check(config: &RunConfig, base: &Description) -> Result<(), Error> {
    let architecture = base.architecture();
    let trained = RunConfig { loss: loss(&config.loss, base), ..config.clone() };
    check_loss(architecture, &trained.loss)?;
    check_memory(config, architecture)?;
    trained.check_best_by()
}

/// What is trained of a base: a student has some of its decoder's blocks.
///
/// # Errors
/// More blocks than the base has, a base that others' factors lie on.
pub(super) fn student(config: &RunConfig, base: Bundle) -> Result<Bundle, Error> {
    if config.strategy.kind != StrategyKind::Distil {
        return Ok(base);
    }
    let (_, n_layers) = base.architecture().n_layers();
    if n_layers == 0 {
        let message = "distil makes a smaller decoder, and the base has none";
        return Err(Error::config("strategy.kind", message));
    }
    Ok(base.with_decoder_blocks(&config.strategy.distil.blocks(n_layers)?)?)
}

/// A base that can be told the run's language, by a token, or that says that it is of that one.
///
/// # Errors
/// A language that the base has no token for and that is like none that it has.
pub fn with_language(config: &RunConfig, source: BundleSource) -> Result<Bundle, Error> {
    let base = Bundle::from_source(source)?;
    let (code, like) = (config.data.language.as_str(), config.model.like.as_str());
    let known = base.description().languages()?;
    let lacks = |code: &str| !known.is_empty() && !known.iter().any(|known| known == code);
    if code.is_empty() || !lacks(code) {
        if !like.is_empty() {
            let message = match known.is_empty() {
                true => format!(
                    "`{like}` is not needed: the base has no tokens for languages, and learns `{code}` as it is"
                ),
                false => format!("`{like}` is not needed: the base can be told `{code}` as it is"),
            };
            return Err(Error::config("model.like", message));
        }
        // Otherwise it is the language of what states none, and a default.
        if !config.data.force_language || code.is_empty() {
            return Ok(base);
        }
        let (_, generation, _) = base.description().vocabulary()?;
        let base = match generation.source_languages {
            Some(heard) if !heard.iter().any(|known| known == code) => {
                base.with_source_languages(&[heard, vec![code.to_owned()]].concat())?
            }
            _ => base,
        };
        return Ok(base.with_only_language(code)?);
    }
    if like.is_empty() || lacks(like) {
        let message = format!(
            "the base has no token for `{code}`; name a language that it is related to (--like, or model.like), one of {}",
            known.join(", ")
        );
        return Err(Error::config("model.like", message));
    }
    Ok(base.with_language(code, like)?)
}

/// Learns from texts a vocabulary for a base, with the languages that the run tells it: the contents of a `tokenizer.json`, which
/// `model.tokenizer` then names the directory of.
///
/// # Errors
/// What [`with_language`] refuses, fewer tokens than bytes.
pub fn learn_vocabulary(
    config: &RunConfig,
    base: &BundleSource,
    n_text_tokens: usize,
    texts: &[String],
) -> Result<String, Error> {
    let base = with_language(config, base.clone())?;
    let mut languages = vec![config.data.language.clone(), config.strategy.stage.language.clone()];
    if config.data.translations != Translations::Off {
        // Into which of them is translated, the data say.
        languages.extend(base.description().languages()?);
    }
    languages.retain(|code| !code.is_empty());
    let mut known = BTreeSet::new();
    languages.retain(|code| known.insert(code.clone()));
    Ok(base.description().learn_vocabulary(n_text_tokens, config.model.text_unit, &languages, texts)?)
}

/// What a base is trained by: without a decoder it reads by CTC, and by nothing else.
pub(super) fn loss(loss: &LossConfig, base: &Description) -> LossConfig {
    let mut loss = loss.clone();
    let (_, decoder_layers) = base.architecture().n_layers();
    if decoder_layers == 0 && loss.ctc.weight > 0.0 {
        (loss.cross_entropy.weight, loss.ctc.weight) = (0.0, 1.0);
    }
    loss
}

/// The settings of a model as its base has them.
pub(super) fn sizes(config: &RunConfig, base: &Description) -> Result<ModelConfig, Error> {
    let architecture = base.architecture();
    let (encoder_layers, decoder_layers) = architecture.n_layers();
    let (kind, convolution) = match architecture {
        Architecture::Whisper(_) => (ModelKind::Whisper, None),
        Architecture::Canary(canary) => (ModelKind::Canary, Some(&canary.encoder_config)),
        Architecture::ParakeetCtc(parakeet) => (ModelKind::ParakeetCtc, Some(&parakeet.encoder_config)),
    };
    let model = &config.model;
    Ok(ModelConfig {
        architecture: kind,
        d_model: architecture.encoder_width(),
        n_heads: architecture.n_heads(),
        encoder_layers,
        decoder_layers,
        n_mels: architecture.n_mels(),
        window_secs: base.window_secs(),
        max_target_positions: architecture.max_target_positions(),
        variable_length: Some(model.variable_length.unwrap_or(architecture.is_variable_length())),
        subsampling: convolution.map_or(model.subsampling, |encoder| encoder.subsampling_factor),
        conv_channels: convolution.map_or(model.conv_channels, |encoder| encoder.subsampling_conv_channels),
        conv_kernel: convolution.map_or(model.conv_kernel, |encoder| encoder.conv_kernel_size),
        attention_context: convolution.and_then(|encoder| encoder.attention_context),
        n_text_tokens: architecture
            .whisper()
            .map_or(architecture.n_vocab(), |whisper| whisper.eos_token_id as usize),
        languages: base.languages()?,
        ..model.clone()
    })
}

/// A base with the CTC head that it will have. A Canary keeps one, which knows when each token was said; one that is not trained on would
/// know less and less, unless the encoder that it reads does not learn, either. An adapter is of what its base has: a head that knows all
/// of the tokens, which stays as it is, or none, for it would take what it does not know for silence.
pub(super) fn with_ctc_head(
    base: Bundle,
    strategy: StrategyKind,
    heard: &CtcVocabulary,
) -> Result<Bundle, Error> {
    let Architecture::Canary(_) = base.architecture() else { return Ok(base) };
    let is_own = base.architecture().ctc_tokens() == heard.tokens();
    match strategy {
        StrategyKind::Distil => Ok(base),
        StrategyKind::Lora if !is_own => Ok(base.with_ctc_tokens(&[])?),
        _ => Ok(base.with_ctc_tokens(heard.tokens())?),
    }
}

/// The vocabulary that `model.tokenizer` names.
pub(super) fn vocabulary_in(dir: &str) -> Result<String, Error> {
    let path = Path::new(dir).join("tokenizer.json");
    fs::read_to_string(&path).map_err(|error| Error::file(&path, error))
}

//! The model of a run: what it has room for, and which of its weights are kept.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use models::params::{Params, TrainedPart};
use models::{
    Architecture, Bundle, Description, DeviceChoice, NewConformer, NewVocabulary, NewWhisper, Part,
    SpecialTokens, TEXT_ENCODER, TextEncoderConfig, Told, Transcriber,
};

use super::base::{vocabulary_in, with_ctc_head};
use super::{ADAPTER, MODEL};
use crate::Error;
use crate::checkpoint::{Checkpoints, State, set_var, sync_folder};
use crate::config::{ModelConfig, ModelKind, RunConfig, SamplerSettings, StrategyKind, TargetUnit, TaskKind};
use crate::data::manifest::Cut;
use crate::data::{LengthLimits, ModelDims, Phonemes, TokensPerPosition, TrainingMemory};
use crate::loss::CtcVocabulary;
use crate::task::transcribe::{Transcribe, ctc_vocabulary};
use crate::task::{Data, Figures, Learner, is_better};

/// Most tokens or phonemes of a text that an encoder reads: more are no sentence.
const MAX_TEXT_POSITIONS: usize = 1 << 13;

/// A model that is to be trained.
pub(super) struct Built {
    pub description: Description,
    pub params: Params,
    /// The tokens that CTC tells apart.
    pub vocabulary: CtcVocabulary,
    /// What an encoder's states are held against in the place of tokens.
    pub phonemes: Option<Phonemes>,
}

/// The model that is trained, a given one with parts of others, or a new one that learns its vocabulary from the texts.
pub(super) fn model(
    name: &str,
    config: &RunConfig,
    base: Option<Bundle>,
    parts: Vec<(Part, Bundle)>,
    cuts: &[Cut],
    device: &Device,
) -> Result<Built, Error> {
    let Some(mut base) = base else {
        let description = new_model(name, config, cuts)?;
        let description = match targets(cuts) {
            targets if targets.is_empty() => description,
            targets => description.with_translation_languages(&targets)?,
        };
        let special = description.vocabulary()?.2;
        let description = match sources(config, &special, cuts) {
            // Prompts that name none, or nothing but what they name, need no word for it.
            sources if sources.is_empty() || sources.len() == special.languages.len() => description,
            sources => description.with_source_languages(&sources)?,
        };
        let phonemes = phonemes(config, &description, cuts)?;
        let text_encoder = text_encoder(config, &description, phonemes.as_ref())?;
        let description = description.with_text_encoder(text_encoder.as_ref())?;
        let vocabulary = heard(config, &description, cuts, phonemes.as_ref())?;
        let description = match description.architecture() {
            Architecture::Canary(_) if phonemes.is_none() => {
                description.with_ctc_tokens(vocabulary.tokens())?
            }
            _ => description,
        };
        check_text_encoder(config, &description, true)?;
        let params = Params::seeded(config.seed, device).with_part(trained_part(config, &description));
        return Ok(Built { description, params, vocabulary, phonemes });
    };
    for (part, other) in parts {
        base = base.with_part(part, other)?;
    }
    if let Some(codes) = further_targets(base.description(), cuts)? {
        base = base.with_translation_languages(&codes)?;
    }
    let begins_to_hear = config.task == TaskKind::Transcribe && !base.has_part(Part::Encoder);
    if let Some(codes) = further_sources(base.description(), config, cuts, begins_to_hear)? {
        base = base.with_source_languages(&codes)?;
    }
    let phonemes = phonemes(config, base.description(), cuts)?;
    let text_encoder = text_encoder(config, base.description(), phonemes.as_ref())?;
    let base = base.with_text_encoder(text_encoder.as_ref())?;
    let vocabulary = heard(config, base.description(), cuts, phonemes.as_ref())?;
    let beside_decoder = if phonemes.is_some() { CtcVocabulary::default() } else { vocabulary.clone() };
    let base = with_ctc_head(base, config.strategy.kind, &beside_decoder)?;
    check_text_encoder(config, base.description(), !base.has_part(Part::TextEncoder))?;
    // A model that has only read begins to hear, and one that has only heard to read.
    let lacking: Vec<Part> =
        [Part::Encoder, Part::TextEncoder].into_iter().filter(|part| !base.has_part(*part)).collect();
    let needs_encoder = matches!(
        config.strategy.kind,
        StrategyKind::Lora | StrategyKind::FrozenEncoder | StrategyKind::Distil
    );
    if needs_encoder && config.task == TaskKind::Transcribe && lacking.contains(&Part::Encoder) {
        let message =
            format!("{}: the base has no encoder of speech yet; use full", config.strategy.kind.name());
        return Err(Error::config("strategy.kind", message));
    }
    let (description, weights) = base.into_parts();
    let mut params = Params::trainable(weights, device).with_part(trained_part(config, &description));
    for scope in lacking.iter().flat_map(|part| description.architecture().part_scopes(*part)) {
        params = params.with_new(&format!("{scope}."), config.seed);
    }
    Ok(Built { description, params, vocabulary, phonemes })
}

/// Languages that is translated into.
fn targets(cuts: &[Cut]) -> Vec<String> {
    let codes: BTreeSet<&str> = cuts.iter().filter_map(|cut| cut.target_language.as_deref()).collect();
    codes.into_iter().map(str::to_owned).collect()
}

/// Languages that are heard, or read, of those that prompts have a token for.
fn sources(config: &RunConfig, special: &SpecialTokens, cuts: &[Cut]) -> Vec<String> {
    let codes: BTreeSet<&str> =
        cuts.iter().map(|cut| cut.language.as_deref().unwrap_or(&config.data.language)).collect();
    codes.into_iter().filter(|code| special.language_token(code).is_some()).map(str::to_owned).collect()
}

/// Those that a model will have learnt with these cuts, where that is to be said anew: what has only read until now hears these alone, others
/// learn more if they say which they know.
fn further_sources(
    description: &Description,
    config: &RunConfig,
    cuts: &[Cut],
    begins_to_hear: bool,
) -> Result<Option<Vec<String>>, Error> {
    let (_, generation, special) = description.vocabulary()?;
    let mut further = sources(config, &special, cuts);
    let known = special.source_languages;
    if begins_to_hear {
        return Ok(Some(further).filter(|heard| !heard.is_empty() && *heard != known));
    }
    further.retain(|code| !known.contains(code));
    let is_said = generation.source_languages.is_some() && !further.is_empty();
    Ok(is_said.then(|| [known, further].concat()))
}

/// Those that a model will have learnt to translate into with these cuts, where that is to be said anew: a Whisper learns one in the place
/// of the one that it knew, others learn more.
fn further_targets(description: &Description, cuts: &[Cut]) -> Result<Option<Vec<String>>, Error> {
    let (_, generation, special) = description.vocabulary()?;
    let (wanted, known) = (targets(cuts), special.translation_languages);
    let is_said = generation.translation_languages.is_some();
    if wanted.iter().all(|code| known.contains(code)) {
        return Ok(None);
    }
    Ok(match description.architecture() {
        Architecture::Whisper(_) => Some(wanted),
        // It says nothing where it reaches whatever it has a token for.
        _ if !is_said => None,
        _ => Some(known.into_iter().chain(wanted).collect::<BTreeSet<_>>().into_iter().collect()),
    })
}

/// What of a model learns.
fn trained_part(config: &RunConfig, description: &Description) -> TrainedPart {
    let mut part = config.strategy.part(description.architecture(), config.seed);
    if config.task == TaskKind::Transcribe && !config.loss.optimal_transport.trains_text() {
        part.frozen.push(TEXT_ENCODER.to_owned());
    }
    part
}

/// The tokens that CTC tells apart.
fn heard(
    config: &RunConfig,
    description: &Description,
    cuts: &[Cut],
    phonemes: Option<&Phonemes>,
) -> Result<CtcVocabulary, Error> {
    if config.loss.ctc.weight == 0.0 {
        return Ok(CtcVocabulary::default());
    }
    match phonemes {
        Some(phonemes) => {
            let ids: Vec<u32> = (0u32..).zip(phonemes.symbols()).map(|(id, _)| id).collect();
            Ok(CtcVocabulary::of_tokens(&ids))
        }
        None => {
            let language = Some(config.data.language.as_str()).filter(|code| !code.is_empty());
            ctc_vocabulary(description, cuts, language)
        }
    }
}

/// The phonemes that an encoder's states are held against, if any: those that the model's encoder of texts knows, or those of the data.
fn phonemes(config: &RunConfig, description: &Description, cuts: &[Cut]) -> Result<Option<Phonemes>, Error> {
    let refuse = |message: &str| Err(Error::config("target.unit", message));
    let known = description.text_encoder().filter(|_| config.model.text_encoder_layers != Some(0));
    match (config.target.unit, known) {
        (TargetUnit::Tokens, Some(known)) if !known.phonemes.is_empty() => {
            refuse("the model's encoder of texts reads phonemes, and this says tokens")
        }
        (TargetUnit::Tokens, _) => Ok(None),
        (TargetUnit::Phonemes, _) if matches!(description.architecture(), Architecture::ParakeetCtc(_)) => {
            refuse("a parakeet_ctc reads tokens, which are what it writes")
        }
        (TargetUnit::Phonemes, Some(known)) if known.phonemes.is_empty() => {
            refuse("the model's encoder of texts reads tokens, and this says phonemes")
        }
        (TargetUnit::Phonemes, Some(known)) => Ok(Some(Phonemes::new(known.phonemes.clone()))),
        (TargetUnit::Phonemes, None) => Phonemes::of_cuts(cuts).map(Some),
    }
}

/// The encoder of texts that the model will have, if any.
fn text_encoder(
    config: &RunConfig,
    description: &Description,
    phonemes: Option<&Phonemes>,
) -> Result<Option<TextEncoderConfig>, Error> {
    let (known, architecture) = (description.text_encoder(), description.architecture());
    // What trains nothing beside its base leaves it out.
    let is_alone = matches!(config.strategy.kind, StrategyKind::Lora | StrategyKind::Distil);
    let n_layers = match (config.model.text_encoder_layers, known) {
        (Some(0), _) => return Ok(None),
        (_, _) if is_alone => return Ok(None),
        (Some(n), Some(known)) if n != known.num_hidden_layers => {
            let message = format!(
                "{n} is not the {} of the model's; leave it out to keep them",
                known.num_hidden_layers
            );
            return Err(Error::config("model.text_encoder_layers", message));
        }
        (_, Some(known)) => return Ok(Some(known.clone())),
        (Some(n), None) => n,
        (None, None) if config.task == TaskKind::TranslateText => architecture.n_layers().0,
        (None, None) => return Ok(None),
    };
    // Words have several phonemes to a token.
    let (n_read, per_token) =
        phonemes.map_or((architecture.n_vocab(), 1), |known| (known.symbols().len() + 1, 4));
    let width = architecture.encoder_width();
    Ok(Some(TextEncoderConfig {
        num_hidden_layers: n_layers,
        num_attention_heads: architecture.n_heads(),
        hidden_size: width,
        intermediate_size: 4 * width,
        vocab_size: n_read,
        max_position_embeddings: (per_token * architecture.max_target_positions()).min(MAX_TEXT_POSITIONS),
        phonemes: phonemes.map(|known| known.symbols().to_vec()).unwrap_or_default(),
    }))
}

/// Refuses an encoder of texts that has learnt nothing and never will.
fn check_text_encoder(config: &RunConfig, description: &Description, is_new: bool) -> Result<(), Error> {
    let learns = config.task == TaskKind::TranslateText || config.loss.optimal_transport.trains_text();
    if description.text_encoder().is_none() || !is_new || learns {
        return Ok(());
    }
    let message = "nothing trains a new encoder of texts here: give one that has learnt (model.parts.text_encoder, from \
                   task = \"translate_text\"), or loss.optimal_transport.weight";
    Err(Error::config("model.text_encoder_layers", message))
}

/// A model that nobody has trained yet.
fn new_model(name: &str, config: &RunConfig, cuts: &[Cut]) -> Result<Description, Error> {
    let model = &config.model;
    let texts: Vec<String> = cuts
        .iter()
        .map(|cut| cut.text.trim())
        .filter(|text| !text.is_empty())
        .map(|text| format!(" {text}"))
        .collect();
    // Without a token for its language, a Whisper is one of English.
    let is_whisper = model.architecture == ModelKind::Whisper;
    let own =
        Some(config.data.language.as_str()).filter(|code| !(code.is_empty() || is_whisper && *code == "en"));
    let languages = match own {
        Some(code) if model.languages.is_empty() => vec![code.to_owned()],
        _ => model.languages.clone(),
    };
    let vocabulary = NewVocabulary {
        n_text_tokens: model.n_text_tokens,
        unit: model.text_unit,
        languages,
        window_secs: model.window_secs,
    };
    let learnt = match model.tokenizer.as_str() {
        "" => None,
        dir => Some(vocabulary_in(dir)?),
    };
    Ok(match model.architecture {
        ModelKind::Whisper => {
            let new = NewWhisper {
                name: name.to_owned(),
                d_model: model.d_model,
                n_heads: model.n_heads,
                encoder_layers: model.encoder_layers,
                decoder_layers: model.decoder_layers,
                n_mels: model.n_mels,
                max_target_positions: model.max_target_positions,
                variable_length: model.variable_length.unwrap_or(true),
                beam_size: model.beam_size.unwrap_or(1),
                vocabulary,
            };
            learnt.map_or_else(|| new.describe(&texts), |learnt| new.describe_with(learnt))?
        }
        ModelKind::FlowLm => {
            return Err(Error::config("model.architecture", "flow_lm speaks: set task = \"speak\""));
        }
        kind @ (ModelKind::Canary | ModelKind::ParakeetCtc) => {
            let is_ctc = kind == ModelKind::ParakeetCtc;
            if !is_ctc && model.decoder_layers == 0 {
                return Err(Error::config("model.decoder_layers", "is 0, which is a parakeet_ctc"));
            }
            let new = NewConformer {
                name: name.to_owned(),
                d_model: model.d_model,
                n_heads: model.n_heads,
                encoder_layers: model.encoder_layers,
                decoder_layers: if is_ctc { 0 } else { model.decoder_layers },
                n_mels: model.n_mels,
                subsampling: model.subsampling,
                conv_channels: model.conv_channels,
                conv_kernel: model.conv_kernel,
                attention_context: model.attention_context,
                max_target_positions: model.max_target_positions,
                beam_size: model.beam_size.unwrap_or(1),
                vocabulary,
            };
            learnt.map_or_else(|| new.describe(&texts), |learnt| new.describe_with(learnt))?
        }
    })
}

/// The highest learning rate of fine-tuning: wide models bear less, FastConformers more (NeMo's `speech_to_text_finetune.yaml` has 1e-4),
/// and factors that begin with nothing more.
fn learning_rate(model: &ModelConfig, kind: StrategyKind) -> f64 {
    let at_512 = match model.architecture {
        ModelKind::Whisper => 3e-5,
        ModelKind::Canary | ModelKind::ParakeetCtc | ModelKind::FlowLm => 1e-4,
    };
    let rate = (at_512 * (512.0 / model.d_model.max(1) as f64).powi(2)).clamp(1e-5, 1e-3);
    match kind {
        StrategyKind::Lora => (20.0 * rate).min(2e-3),
        _ => rate,
    }
}

/// Decides what follows from the data and the model: how fast and how long is learnt.
pub(super) fn decide_length(config: &mut RunConfig, corpus: &impl Data) {
    if config.optimizer.learning_rate == 0.0 {
        config.optimizer.learning_rate = learning_rate(&config.model, config.strategy.kind);
    }
    if config.train.max_epochs > 0 {
        let n_batches = config.train.max_epochs * corpus.n_batches(0) as u64;
        config.train.max_steps = n_batches.div_ceil(config.train.accumulate.max(1) as u64).max(1);
    }
    config.schedule = config.schedule.of_run(config.train.max_steps);
}

/// The longest utterance that fits the window and that the recipe allows.
pub(super) fn longest_secs(sampler: &SamplerSettings, window_secs: f64) -> f64 {
    let max_secs = if sampler.max_duration_secs > 0.0 { sampler.max_duration_secs } else { window_secs };
    max_secs.min(window_secs)
}

/// What the model has room for, and what the recipe allows.
pub(super) fn limits(config: &RunConfig, live: &Transcriber) -> LengthLimits {
    let sampler = &config.sampler;
    let positions = live.architecture().max_target_positions() as u32;
    // Prompts are as long in one language as in another.
    let language = live.languages().next();
    let prompt = live.special_tokens().prompt_after(&[], Told { language, ..Told::default() });
    let n_prompt = prompt.map_or(0, |(prompt, _)| prompt.len());
    // Two times around the text.
    let room = positions.saturating_sub(2);
    LengthLimits {
        min_duration_secs: sampler.min_duration_secs,
        max_duration_secs: Some(longest_secs(sampler, live.window_secs())),
        max_tokens: Some(if sampler.max_tokens > 0 { sampler.max_tokens.min(room) } else { room }),
        // CTC writes one token at a position at most; beside another loss it leaves out what is too short for it.
        tokens_per_position: (!config.loss.trains_decoder()).then_some(TokensPerPosition {
            position_secs: live.position_secs(),
            max: 1.0,
            n_unsaid: n_prompt as u32,
        }),
        max_tokens_per_sec: (sampler.max_tokens_per_sec > 0.0).then_some(sampler.max_tokens_per_sec),
        ..LengthLimits::default()
    }
}

/// What a backward pass on the CPU holds at its peak beyond the values that it needs, in proportion. Of a model of width 384 with 4 and 4
/// layers, activations took 1.32 and 1.28 times what was planned without it for 1.5 and 3 GB.
const ACTIVATION_OVERHEAD: f64 = 1.3;

/// Refuses to plan the memory of models that it is not known of.
pub(super) fn check_memory(config: &RunConfig, architecture: &Architecture) -> Result<(), Error> {
    let memory_gb = config.sampler.memory_gb;
    if memory_gb == 0.0 || architecture.whisper().is_some() {
        return Ok(());
    }
    let message =
        format!("{memory_gb}: is planned for Whispers alone; set sampler.batch_secs for this model");
    Err(Error::config("sampler.memory_gb", message))
}

/// The memory that decides how large batches are, where the recipe names one.
///
/// # Errors
/// A device other than the CPU: what layers keep there is not counted.
pub(super) fn memory(config: &RunConfig, task: &Transcribe) -> Result<Option<TrainingMemory>, Error> {
    let memory_gb = config.sampler.memory_gb;
    if memory_gb == 0.0 {
        return Ok(None);
    }
    check_memory(config, task.description().architecture())?;
    if config.train.device != DeviceChoice::Cpu {
        let message = format!(
            "{memory_gb}: is planned for the kernels of the processor alone; set sampler.batch_secs for {}",
            config.train.device
        );
        return Err(Error::config("sampler.memory_gb", message));
    }
    let (n_trainable, n_params) = task.n_parameters();
    let dims = ModelDims { n_trainable, ..ModelDims::of(task.description(), n_params) };
    Ok(Some(TrainingMemory {
        n_gradients: config.train.parts as u64 + u64::from(config.train.accumulate > 1),
        n_weights: 1 + u64::from(config.train.average_decay > 0.0),
        gradient_checkpointing: config.model.gradient_checkpointing,
        overhead: ACTIVATION_OVERHEAD,
        ..TrainingMemory::new(dims, 4, memory_gb)
    }))
}

/// Writes the model of the best checkpoint, or the mean of the latest ones where that is better, and says how good it is.
pub(super) fn keep_model(
    task: &impl Learner,
    config: &RunConfig,
    checkpoints: &Checkpoints,
    state: &State,
    dir: &Path,
) -> Result<(PathBuf, Figures), Error> {
    let best_by = &config.train.best_by;
    // A checkpoint that somebody removed is not the best any more.
    let best = state.best.map_or(state.step, |best| best.step);
    let best = if checkpoints.path(best).is_dir() { best } else { state.step };
    set_weights(task, &[checkpoints.path(best)])?;
    let mut figures = task.evaluate()?;
    let steps = checkpoints.steps()?;
    let latest: Vec<PathBuf> =
        steps.iter().rev().take(config.bundle.average).map(|step| checkpoints.path(*step)).collect();
    if latest.len() > 1 {
        set_weights(task, &latest)?;
        let averaged = task.evaluate()?;
        match (averaged.get(best_by), figures.get(best_by)) {
            (Some(mean), Some(single))
                if !mean.is_nan() && (single.is_nan() || !is_better(best_by, *single, *mean)) =>
            {
                figures = averaged;
            }
            _ => set_weights(task, &[checkpoints.path(best)])?,
        }
    }
    let path = dir.join(MODEL);
    replace(&path, &|unfinished| task.write_bundle(unfinished, config.bundle.precision))?;
    if config.strategy.kind == StrategyKind::Lora {
        let base = base_name(&config.model.base);
        replace(&dir.join(ADAPTER), &|unfinished| {
            task.write_adapter(unfinished, &base, config.bundle.precision)
        })?;
    }
    Ok((path, figures))
}

/// Writes a folder beside the one that is at `path`, and puts it in its place when it is whole: who reads there, or cannot write,
/// keeps what there was.
fn replace(path: &Path, write: &dyn Fn(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = |what: &str| path.with_file_name(format!(".{what}-{name}"));
    let (unfinished, former) = (beside("unfinished"), beside("former"));
    let remove = |folder: &Path| match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(folder, error)),
        _ => Ok(()),
    };
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|error| Error::file(to, error));
    // It ended between the two renames below.
    if former.exists() && !path.exists() {
        rename(&former, path)?;
    }
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).map_err(|error| Error::file(&unfinished, error))?;
    write(&unfinished)?;
    sync_folder(&unfinished)?;
    if path.exists() {
        remove(&former)?;
        rename(path, &former)?;
    }
    rename(&unfinished, path)?;
    remove(&former)
}

/// A base as it is found from anywhere.
fn base_name(base: &str) -> String {
    match Path::new(base).canonicalize() {
        Ok(path) => path.display().to_string(),
        Err(_) => base.to_owned(),
    }
}

/// Sets the weights to the mean of those of some checkpoints.
fn set_weights(task: &impl Learner, checkpoints: &[PathBuf]) -> Result<(), Error> {
    let vars = [task.vars(), task.statistics()].concat();
    let mut sums: Vec<Option<Tensor>> = vec![None; vars.len()];
    for checkpoint in checkpoints {
        let path = checkpoint.join("model.safetensors");
        let mut tensors =
            candle_core::safetensors::load(&path, &Device::Cpu).map_err(|error| Error::file(&path, error))?;
        for ((name, _), sum) in vars.iter().zip(&mut sums) {
            let missing = || Error::file(&path, format!("has no `{name}`"));
            let tensor = tensors.remove(name).ok_or_else(missing)?;
            *sum = Some(match sum.take() {
                Some(sum) => (sum + tensor)?,
                None => tensor,
            });
        }
    }
    for ((_, var), sum) in vars.iter().zip(sums) {
        if let Some(sum) = sum {
            set_var(var, &(sum / checkpoints.len() as f64)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_models_learn_slower_than_narrow_ones_and_conformers_faster_than_whispers() {
        let settings = ["data.train=[\"a.jsonl\"]".to_owned()];
        let config = RunConfig::load(None, &settings).expect("the defaults");
        let rate = |architecture, d_model, kind| {
            learning_rate(&ModelConfig { architecture, d_model, ..config.model.clone() }, kind)
        };
        for (architecture, d_model, expected) in [
            (ModelKind::Whisper, 512, 3e-5),
            (ModelKind::Whisper, 1280, 1e-5),
            (ModelKind::Canary, 512, 1e-4),
            (ModelKind::Canary, 1024, 2.5e-5),
            (ModelKind::ParakeetCtc, 96, 1e-3),
        ] {
            let found = rate(architecture, d_model, StrategyKind::Full);
            assert!((found - expected).abs() < 1e-9, "{architecture:?} of {d_model}: {found}");
        }
        assert!((rate(ModelKind::Canary, 1024, StrategyKind::Lora) - 5e-4).abs() < 1e-9);
    }
}

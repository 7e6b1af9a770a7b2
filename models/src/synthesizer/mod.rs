//! A loaded model that speaks: what it reads, whose voices it has, and what turns its features into sound.

mod options;
mod row;
mod tempo;
#[cfg(test)]
mod tests;
mod voice;
mod worker;

use std::sync::Arc;

use audio::{DecodeAudio, LogMel, Waveform, decode_bytes};
use candle_core::Device;
use serde_json::Value;

pub use options::SpeakOptions;
pub use voice::{MIN_VOICE_SECS, Voice};
pub use worker::{Spoken, SynthesisWorker};

use crate::Error;
use crate::bundle::{BundleSource, read_json};
use crate::flow_lm::{FLOW_LM, FlowLm, FlowLmConfig, Solver, SymbolUnit, Symbols, voice_file};
use crate::params::Params;
use crate::text::{Breaks, Pause, clauses};
use crate::vocoder::Vocoder;
use crate::vocos::{VOCOS, Vocos};
use crate::weights::Weights;
use crate::worker::{Update, Worker};

/// Where the vocoder's weights are in a bundle that has one.
pub const VOCODER: &str = "vocoder";
/// What a symbol takes in speech that nobody has heard yet, seconds.
const SYMBOL_SECS: f64 = 0.07;
/// How much of the longest speech a text may be expected to take.
const MAX_FILL: f64 = 0.8;
/// What one takes at most, and a text of none: a model that does not find the end of its text is stopped there.
const MAX_SYMBOL_SECS: f64 = 0.25;
const MAX_REST_SECS: f64 = 1.5;

/// What a bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It turns speech into text.
    Hears,
    /// It turns text into speech.
    Speaks,
    /// It turns features into sound: a part of one that speaks.
    Vocodes,
}

impl Kind {
    /// What `config.json` says; what is not known is taken for one that hears, whose reader names what is wrong.
    ///
    /// # Errors
    /// A file that is missing or is not JSON.
    pub fn of(source: &BundleSource) -> Result<Self, Error> {
        let config = read_json(source, "config.json")?;
        Ok(match config.get("model_type").and_then(Value::as_str) {
            Some(FLOW_LM) => Self::Speaks,
            Some(VOCOS) => Self::Vocodes,
            _ => Self::Hears,
        })
    }
}

/// A model that turns text into speech. Immutable; threads share it, and a clone is another handle to it.
#[derive(Clone)]
pub struct Synthesizer(Arc<Parts>);

struct Parts {
    model: FlowLm,
    symbols: Symbols,
    log_mel: LogMel,
    vocoder: Vocoder,
    voices: Vec<Voice>,
}

/// A text, ready to be spoken.
pub struct Speech {
    clauses: Vec<Clause>,
    voice: Voice,
    sampling: Sampling,
    /// Steps that the model takes by itself, and the work that its head is in each, as a share of the Transformer's.
    usual_steps: usize,
    head_share: f64,
    speed: f64,
}

/// What is said in one breath.
struct Clause {
    /// Symbols, both edges included.
    text: Vec<u32>,
    /// Seconds in which nobody speaks after it.
    pause_secs: f64,
    /// Patches at most.
    max_patches: usize,
}

/// How speech comes out of noise.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sampling {
    solver: Solver,
    n_steps: usize,
    guidance: f64,
    temperature: f64,
    seed: u64,
}

impl Synthesizer {
    /// Loads a bundle onto `device`.
    ///
    /// # Errors
    /// Files that are missing, that contradict each other or that no voice can be made of, by name and key.
    pub fn load(source: &BundleSource, device: &Device) -> Result<Self, Error> {
        let config = FlowLmConfig::read(source)?;
        let params = Params::frozen(Weights::from_source(source)?, device);
        let vocoder = match &config.vocoder {
            Some(vocoder) => Vocoder::Vocos(Arc::new(Vocos::load(&params.root().sub(VOCODER), vocoder)?)),
            None => Vocoder::griffin_lim(&config.feature_spec)?,
        };
        Self::with_params(&config, &params, vocoder, &|name| {
            let file = voice_file(name);
            let refuse = |error: audio::Error| Error::file(&source.path(&file), error);
            let bytes = source.read(&file)?.into_owned();
            Ok(decode_bytes(bytes, Some("flac"), &DecodeAudio::default()).map_err(refuse)?.waveform)
        })
    }

    /// A model of these parameters, such as those that are being trained, with recordings of its voices by their names.
    ///
    /// # Errors
    /// What [`Synthesizer::load`] refuses, and `recording`.
    pub fn with_params(
        config: &FlowLmConfig,
        params: &Params,
        vocoder: Vocoder,
        recording: &dyn Fn(&str) -> Result<Waveform, Error>,
    ) -> Result<Self, Error> {
        vocoder.check(&config.feature_spec)?;
        let parts = Parts {
            model: FlowLm::load(params, config, false)?,
            symbols: Symbols::new(config),
            log_mel: LogMel::new(&config.feature_spec)?,
            vocoder,
            voices: Vec::new(),
        };
        let voice = |name: &String| {
            let refuse = |error: Error| Error::file(voice_file(name).as_ref(), error);
            Voice::of(name, &recording(name)?, &parts.model, &parts.log_mel).map_err(refuse)
        };
        let voices = config.voices.iter().map(voice).collect::<Result<_, Error>>()?;
        Ok(Self(Arc::new(Parts { voices, ..parts })))
    }

    /// Rate of what it speaks, Hz.
    pub fn sample_rate(&self) -> u32 {
        self.config().feature_spec.sample_rate
    }

    /// Codes of the languages that it has learnt to read.
    pub fn languages(&self) -> &[String] {
        &self.config().languages
    }

    /// The voices that it comes with; the first is the one that speaks where nobody names any.
    pub fn voices(&self) -> &[Voice] {
        &self.0.voices
    }

    /// What it is.
    pub fn config(&self) -> &FlowLmConfig {
        &self.0.model.config
    }

    /// Whether it has a vocoder that learnt its features; without one it sounds hollow, and speaks when all is said.
    pub fn has_vocoder(&self) -> bool {
        matches!(self.0.vocoder, Vocoder::Vocos(_))
    }

    /// A voice out of a recording of it, a second or more.
    ///
    /// # Errors
    /// A recording that is too short, or in which nobody speaks.
    pub fn voice_of(&self, name: &str, sample: &Waveform) -> Result<Voice, Error> {
        Voice::of(name, sample, &self.0.model, &self.0.log_mel)
    }

    /// Reads a text, which is spoken by [`SynthesisWorker`].
    ///
    /// # Errors
    /// Options out of range, a language that it does not read, letters that it has not learnt, a text in which nothing is to be said.
    pub fn prepare(&self, text: &str, voice: &Voice, options: &SpeakOptions) -> Result<Speech, Error> {
        options.check()?;
        let config = self.config();
        let language = match &options.language {
            None => config.languages.first().map_or("", String::as_str),
            Some(code) if config.languages.contains(code) => code,
            Some(code) => {
                let known = config.languages.join(", ");
                return Err(Error::option("language", format!("the model reads {known}, not `{code}`")));
            }
        };
        let clauses = self.clauses(text, language)?;
        if clauses.is_empty() {
            return Err(Error::option("input", "there is nothing in it that could be said"));
        }
        Ok(self.speech(clauses, voice, options))
    }

    /// Reads symbols, both edges included, in one breath.
    ///
    /// # Errors
    /// Options out of range, symbols that it has not learnt, more of them than it reads at once.
    pub fn read(&self, symbols: &[u32], voice: &Voice, options: &SpeakOptions) -> Result<Speech, Error> {
        options.check()?;
        let (config, n) = (self.config(), symbols.len());
        if n > config.max_text_positions || n < 2 || symbols.iter().any(|symbol| *symbol > config.edge()) {
            let most = config.max_text_positions;
            let message =
                format!("{n} symbols, and the model reads 2 to {most}, none above {}", config.edge());
            return Err(Error::option("input", message));
        }
        Ok(self.speech(vec![self.clause(symbols.to_vec(), 0.0)], voice, options))
    }

    fn speech(&self, clauses: Vec<Clause>, voice: &Voice, options: &SpeakOptions) -> Speech {
        let (config, defaults) = (self.config(), self.config().sampling);
        let solver = if config.flow_map { Solver::FlowMap } else { Solver::Midpoint };
        Speech {
            clauses,
            voice: voice.clone(),
            speed: options.speed,
            usual_steps: defaults.steps,
            head_share: config.head_share(),
            sampling: Sampling {
                solver,
                n_steps: options.steps.unwrap_or(defaults.steps),
                guidance: options.guidance.unwrap_or(defaults.guidance),
                temperature: options.temperature.unwrap_or(defaults.temperature),
                seed: options.seed,
            },
        }
    }

    fn clause(&self, text: Vec<u32>, pause_secs: f64) -> Clause {
        let config = self.config();
        let max_secs = text.len() as f64 * MAX_SYMBOL_SECS + MAX_REST_SECS;
        let max_patches = (max_secs * config.patch_rate()).ceil() as usize;
        Clause { text, pause_secs, max_patches: max_patches.clamp(1, config.max_patches) }
    }

    /// Says a text and gives all of it at once.
    ///
    /// # Errors
    /// What [`Synthesizer::prepare`] refuses, tensor operations that fail.
    pub fn speak(&self, text: &str, voice: &Voice, options: &SpeakOptions) -> Result<Waveform, Error> {
        let mut samples = Vec::new();
        self.say(self.prepare(text, voice, options)?, &mut |part| {
            samples.extend(part);
            Ok::<_, Error>(())
        })?;
        Ok(Waveform { samples, sample_rate: self.sample_rate() })
    }

    /// Says what was read, alone, and hands on what is said as it comes.
    ///
    /// # Errors
    /// Tensor operations that fail, and what `hand_on` refuses, which ends it.
    pub fn say<E: From<Error>>(
        &self,
        speech: Speech,
        hand_on: &mut dyn FnMut(Vec<f32>) -> Result<(), E>,
    ) -> Result<Spoken, E> {
        let mut worker = SynthesisWorker::new(self, usize::MAX);
        worker.join(0, speech);
        loop {
            let mut updates = Vec::new();
            worker.step(&|_| true, &mut |_, update| updates.push(update))?;
            for update in updates {
                match update {
                    Update::Progress(_) => {}
                    Update::Part(part) => hand_on(part)?,
                    Update::Done(spoken) => return Ok(spoken),
                    Update::Failed(error) => return Err(error.into()),
                }
            }
        }
    }

    fn clauses(&self, text: &str, language: &str) -> Result<Vec<Clause>, Error> {
        let config = self.config();
        // As many as are read, and as can be said.
        let sayable = MAX_FILL * config.max_patches as f64 / config.patch_rate() / SYMBOL_SECS;
        let max_symbols = config.max_text_positions.saturating_sub(2).min(sayable as usize).max(1);
        // Who has never seen a comma has learnt what stands between two.
        let reads_commas = config.symbols.iter().any(|symbol| symbol == ",");
        let breaks = if reads_commas { Breaks::Sentences } else { Breaks::Marks };
        let read: Vec<(String, f64)> = match config.unit {
            SymbolUnit::Characters => clauses(text, language, max_symbols, breaks)
                .into_iter()
                .map(|clause| (clause.text, clause.pause.pause_secs()))
                .collect(),
            SymbolUnit::Phonemes => {
                let phonemes: Vec<&str> = text.split_whitespace().collect();
                let pieces = phonemes.chunks(max_symbols).map(|piece| (piece.join(" "), 0.0));
                pieces.collect()
            }
        };
        let mut clauses = Vec::with_capacity(read.len());
        for (text, pause_secs) in read {
            let symbols = self.0.symbols.encode(&text)?;
            if !text.chars().any(char::is_alphanumeric) || symbols.len() <= 2 {
                continue;
            }
            clauses.push(self.clause(symbols, pause_secs));
        }
        if let Some(last) = clauses.last_mut() {
            // Whoever hears the end knows that it is one.
            last.pause_secs = last.pause_secs.min(Pause::Short.pause_secs());
        }
        Ok(clauses)
    }
}

impl Speech {
    /// Symbols that are read.
    pub fn n_symbols(&self) -> usize {
        self.clauses.iter().map(|clause| clause.text.len() - 2).sum()
    }

    /// About how much work it is, as seconds of speech that are said as the model says them by itself.
    pub fn cost_secs(&self) -> f64 {
        let evaluations = |solver: Solver, n_steps: usize| match solver {
            Solver::Midpoint => 2.0 * n_steps as f64,
            Solver::Euler | Solver::FlowMap => n_steps as f64,
        };
        let Sampling { solver, n_steps, guidance, .. } = self.sampling;
        let branches = if guidance == 1.0 { 1.0 } else { 2.0 };
        let share = |n_steps: usize| 1.0 + self.head_share * evaluations(solver, n_steps);
        self.expected_secs() * branches * share(n_steps) / share(self.usual_steps)
    }

    /// About how long it will be, seconds.
    pub fn expected_secs(&self) -> f64 {
        let pauses: f64 = self.clauses.iter().map(|clause| clause.pause_secs).sum();
        (self.n_symbols() as f64 * SYMBOL_SECS + pauses) / self.speed
    }
}

//! A run that teaches a model to speak: its recordings, its model, and how they are batched.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use audio::{DecodeAudio, LogKind, LogMel};
use models::flow_lm::{ALIGNER, AttachedVocoder, FlowLmConfig, Sampling, SymbolUnit, Symbols, VoiceBundle};
use models::params::Params;
use models::{DeviceChoice, Part};

use super::folder::keep_settings;
use super::manifests::{read_cuts, weights_of_cuts};
use super::model::{decide_length, longest_secs};
use super::{Assembled, Bases, Progress};
use crate::Error;
use crate::config::{RunConfig, TargetUnit};
use crate::data::manifest::Needs;
use crate::data::{Cut, Length, LengthLimits, read_cut_at};
use crate::task::speak::{Corpus, Recordings, Speak, Voices, spelled};
use crate::task::{Data as _, Learner as _};

/// Recordings of which the mean and the spread of mel bins are taken.
const N_MEASURED: usize = 300;
/// Bins that never change would be divided by nothing.
const MIN_STD: f64 = 0.1;

/// Reads the data and the model. `stop` is that of a run, and the folder from now on that of one with these settings; without it
/// nothing is written.
pub(super) fn assemble(
    config: &RunConfig,
    bases: &Bases,
    dir: &Path,
    stop: Option<&AtomicBool>,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Assembled<Speak, Corpus>, Error> {
    let device = config.train.device.open()?;
    let mut config = config.clone();
    config.train.device = DeviceChoice::of(&device);
    let base = bases.base.as_ref().map(VoiceBundle::open).transpose()?;
    if let Some(base) = &base {
        decided_by(&base.config, &mut config)?;
    }
    if stop.is_some() {
        keep_settings(&config, dir)?;
    }
    let needs = Needs { text: true, transcript: true, recording: true, ..Needs::default() };
    let mut read = |entries: &[String], what: &str| read_cuts(entries, what, needs, None, &config, dir, tell);
    let (cuts, counts) = read(&config.data.train, "data.train")?;
    let (mut dev, _) = read(&config.data.dev, "data.dev")?;
    let weights = weights_of_cuts(&config, &counts);
    let n_train = cuts.len();
    let train_secs = cuts.iter().map(|cut| cut.duration_secs).sum();

    let (model, params, known) = match base {
        Some(base) => {
            let symbols = symbols(base.config.unit, &config, &cuts)?;
            let mut base = base.reading(&symbols, &config.data.language);
            let flow_map = config.loss.flow.map_draws > 0;
            let sampling = config.speech.sampling(base.config.sampling);
            let model = FlowLmConfig { flow_map, sampling, ..base.config.clone() };
            let known = std::mem::take(&mut base.voices);
            let params = Params::trainable(base.into_weights(), &device);
            (model, params.with_new(&format!("{ALIGNER}."), config.seed), known)
        }
        None => (new_model(&config, &cuts)?, Params::seeded(config.seed, &device), Vec::new()),
    };
    let own = bases.parts.iter().find(|(part, _)| *part == Part::Vocoder).map(|(_, source)| source);
    let vocoder = own.or(bases.base.as_ref());
    let vocoder = vocoder.map(|source| AttachedVocoder::open(source, &device)).transpose()?.flatten();
    if own.is_some() && vocoder.is_none() {
        let message = "has no vocoder: it is a voice without one";
        return Err(Error::config("model.parts.vocoder", message));
    }
    let model = match &vocoder {
        Some(vocoder) if vocoder.config.feature_spec != model.feature_spec => {
            let message = "makes sound of other features; train both with the same [vocoder] settings";
            return Err(Error::config("model.parts.vocoder", message));
        }
        vocoder => FlowLmConfig { vocoder: vocoder.as_ref().map(|vocoder| vocoder.config.clone()), ..model },
    };
    // For both sets of recordings, which are about as likely to be heard again.
    let cache_bytes = config.data.cache_mb.saturating_mul(1 << 19);
    let language = config.data.language.as_str();
    let recordings = Recordings::new(cuts, &model, language, cache_bytes)?;
    let voices = Voices::of(&recordings, known, model.feature_spec.sample_rate)?;
    let model = FlowLmConfig { voices: voices.names(), ..model };
    let (known, n_read) = (Symbols::new(&model), dev.len());
    let limits = limits(&config, &model);
    dev.retain(|cut| {
        let text = spelled(model.unit, cut, language).and_then(|text| Ok(known.encode(&text)?));
        text.is_ok_and(|text| limits.admit(Length::new(cut.duration_secs, text.len() as u32)).is_ok())
    });
    if dev.len() < n_read {
        let n_left_out = n_read - dev.len();
        let message = format!(
            "data.dev: {n_left_out} of {n_read} rows are longer than the model takes, or have letters that data.train does not; they are left out"
        );
        tell(Progress::Note(&message));
    }
    let n_dev = dev.len();
    let held_out = Recordings::new(dev, &model, language, cache_bytes)?;
    let params = params.with_checkpointing(config.model.gradient_checkpointing);
    let task = Speak::new(params, model, &config, held_out, voices, vocoder)?;
    let corpus = task.corpus(recordings, weights, &config, limits)?;
    let padding = corpus.padding(0)?;
    let n_parameters = task.n_parameters().0 as usize;
    tell(Progress::Data { n_train, train_secs, n_dev, padding: &padding, n_parameters });
    decide_length(&mut config, &corpus);
    Ok(Assembled { config, task, corpus, padding, n_train, train_secs, n_dev, n_parameters })
}

/// What a base decides is said as it is.
fn decided_by(base: &FlowLmConfig, config: &mut RunConfig) -> Result<(), Error> {
    let [_, longest_secs] = config.speech.prompt_secs;
    let most_secs = base.max_prompt_patches as f64 / base.patch_rate();
    if (longest_secs * base.patch_rate()) as usize > base.max_prompt_patches {
        let message =
            format!("up to {longest_secs} s, and the base hears {most_secs:.2} s of a voice at most");
        return Err(Error::config("speech.prompt_secs", message));
    }
    let (model, speech) = (&mut config.model, &mut config.speech);
    (model.d_model, model.n_heads) = (base.hidden_size, base.num_attention_heads);
    (model.encoder_layers, model.decoder_layers) = (base.num_text_layers, base.num_hidden_layers);
    model.max_target_positions = base.max_text_positions;
    model.window_secs = base.max_patches as f64 / base.patch_rate();
    (speech.patch_frames, speech.max_advance) = (base.patch_frames, base.max_advance);
    (speech.head_width, speech.head_layers) = (base.head_hidden_size, base.num_head_layers);
    speech.aligner_width = base.aligner_size;
    (config.vocoder.sample_rate, config.vocoder.n_mels) =
        (base.feature_spec.sample_rate, base.feature_spec.n_mels);
    if let LogKind::Ln { floor } = base.feature_spec.log {
        config.vocoder.log_floor = floor;
    }
    Ok(())
}

/// What texts are spelled in.
fn symbols(unit: SymbolUnit, config: &RunConfig, cuts: &[Cut]) -> Result<Vec<String>, Error> {
    let language = config.data.language.as_str();
    let texts: Vec<String> =
        cuts.iter().map(|cut| spelled(unit, cut, language)).collect::<Result<_, Error>>()?;
    Ok(Symbols::of_texts(unit, texts.iter().map(String::as_str)))
}

/// A model that nobody has trained yet, which reads what the texts are spelled in.
fn new_model(config: &RunConfig, cuts: &[Cut]) -> Result<FlowLmConfig, Error> {
    let unit = match config.target.unit {
        TargetUnit::Tokens => SymbolUnit::Characters,
        TargetUnit::Phonemes => SymbolUnit::Phonemes,
    };
    let language = config.data.language.as_str();
    let (settings, speech) = (&config.model, &config.speech);
    let feature_spec = config.vocoder.feature_spec();
    let patch_rate = feature_spec.frame_rate() / speech.patch_frames.max(1) as f64;
    let n_patches = |secs: f64| (secs * patch_rate).ceil() as usize + 1;
    let (mel_mean, mel_std) = measure(cuts, &LogMel::new(&feature_spec)?)?;
    let model = FlowLmConfig {
        mel_mean,
        mel_std,
        patch_frames: speech.patch_frames,
        unit,
        symbols: symbols(unit, config, cuts)?,
        languages: vec![language.to_owned()],
        voices: Vec::new(),
        max_text_positions: longest_text(config, unit, cuts)?,
        max_patches: n_patches(settings.window_secs),
        // What training hears at most.
        max_prompt_patches: ((speech.prompt_secs[1] * patch_rate) as usize).max(1),
        max_advance: speech.max_advance,
        hidden_size: settings.d_model,
        num_hidden_layers: settings.decoder_layers,
        num_attention_heads: settings.n_heads,
        intermediate_size: 4 * settings.d_model,
        num_text_layers: settings.encoder_layers,
        head_hidden_size: speech.head_width,
        num_head_layers: speech.head_layers,
        aligner_size: speech.aligner_width,
        flow_map: config.loss.flow.map_draws > 0,
        sampling: speech.sampling(match config.loss.flow.map_draws {
            0 => Sampling::default(),
            // What a flow map is learnt for.
            _ => Sampling { steps: 1, ..Sampling::default() },
        }),
        vocoder: None,
        feature_spec,
    };
    if model.head_hidden_size < model.patch_size() {
        let message = format!(
            "{} is less than the {} numbers that it says: give it more, or set fewer speech.patch_frames",
            model.head_hidden_size,
            model.patch_size()
        );
        return Err(Error::config("speech.head_width", message));
    }
    model.check("recipe".as_ref()).map_err(|error| Error::config("model", error.to_string()))?;
    Ok(model)
}

/// Symbols of the longest text that is learnt from, both edges included: what is longer is not read in one breath, as nobody has learnt its places.
fn longest_text(config: &RunConfig, unit: SymbolUnit, cuts: &[Cut]) -> Result<usize, Error> {
    let (most, language) = (config.model.max_target_positions, config.data.language.as_str());
    let (mut longest, longest_secs) = (0, longest_secs(&config.sampler, config.model.window_secs));
    for cut in cuts.iter().filter(|cut| cut.duration_secs <= longest_secs) {
        let n = Symbols::count(unit, &spelled(unit, cut, language)?) + 2;
        if n <= most {
            longest = longest.max(n);
        }
    }
    Ok(if longest == 0 { most } else { longest })
}

/// Mean and standard deviation of each mel bin over some of the recordings, spread over all.
fn measure(cuts: &[Cut], log_mel: &LogMel) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let n_mels = log_mel.spec().n_mels;
    let (mut sums, mut squares, mut n) = (vec![0f64; n_mels], vec![0f64; n_mels], 0usize);
    let n_measured = cuts.len().min(N_MEASURED);
    let mut unread = None;
    for at in 0..n_measured {
        let cut = &cuts[at * cuts.len() / n_measured];
        let waveform = match read_cut_at(cut, log_mel.spec().sample_rate, &DecodeAudio::default()) {
            Ok(waveform) => waveform,
            // It is told when it is to be learnt.
            Err(error) => {
                unread = Some(error);
                continue;
            }
        };
        let features = log_mel.compute(&waveform.samples);
        n += features.n_frames;
        for (bin, (sum, square)) in sums.iter_mut().zip(&mut squares).enumerate() {
            for value in features.row(bin) {
                *sum += f64::from(*value);
                *square += f64::from(*value).powi(2);
            }
        }
    }
    if let (0, Some(error)) = (n, unread) {
        return Err(error);
    }
    let n = n.max(1) as f64;
    let mean: Vec<f64> = sums.iter().map(|sum| sum / n).collect();
    let std = squares.iter().zip(&mean).map(|(square, mean)| (square / n - mean * mean).max(0.0).sqrt());
    Ok((mean.iter().map(|mean| *mean as f32).collect(), std.map(|std| std.max(MIN_STD) as f32).collect()))
}

/// What the model has room for, and what the recipe allows.
fn limits(config: &RunConfig, model: &FlowLmConfig) -> LengthLimits {
    let sampler = &config.sampler;
    let room = model.max_text_positions as u32;
    let longest = longest_secs(sampler, model.max_patches as f64 / model.patch_rate());
    LengthLimits {
        min_duration_secs: sampler.min_duration_secs,
        max_duration_secs: Some(longest),
        max_tokens: Some(if sampler.max_tokens > 0 { sampler.max_tokens.min(room) } else { room }),
        max_tokens_per_sec: (sampler.max_tokens_per_sec > 0.0).then_some(sampler.max_tokens_per_sec),
        ..LengthLimits::default()
    }
}

//! The flags of `speechd transcribe` and of its kin, laid over the configuration.

use std::path::PathBuf;

use audio::ChannelChoice;
use clap::ArgAction;
use models::{DeviceChoice, Task};

use super::super::{Usage, fetch::named_or_own};
use crate::{
    config::{BeamSize, Config, Precision, Punctuation, Threshold, Vad},
    load::Spec,
    render::{self, Format},
};

/// Flags of every command that writes down what is said. Those that are not given leave the configuration's value.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Flags {
    /// Recordings: files, directories (searched for audio files) or - for the standard input
    #[arg(required = true, value_name = "FILES")]
    pub(super) files: Vec<PathBuf>,
    /// A model's directory, its hub id: ORGANISATION/NAME[@REVISION], or one that is part of the program: digits-en knows
    /// English digits and a few commands, translate-en-ps writes digits and some phrases in Pashto [default: digits-en,
    /// for translations translate-en-ps]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// A smaller model of the same vocabulary that guesses what the model is going to write: the same text in fewer steps
    #[arg(long, value_name = "PATH_OR_ID")]
    draft: Option<String>,
    /// What the model computes on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// What the model computes in [default: auto]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Language spoken, as a code or an English name; auto detects it [default: auto]
    #[arg(short, long, value_parser = parse_language)]
    language: Option<String>,
    /// Whether punctuation and capitals are written, by models that can be told, such as Canary [default: as the model does]
    #[arg(long, value_enum)]
    punctuation: Option<Punctuation>,
    /// How the result is written [default: text]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Align every word with the audio (shown by verbose_json; sharpens srt and vtt)
    #[arg(long)]
    pub(super) word_timestamps: bool,
    /// Hypotheses kept by beam search; 1 is greedy [default: what the model asks for, mostly 1]
    #[arg(long, value_name = "N")]
    beam_size: Option<usize>,
    /// Samples drawn at a temperature above 0, of which the most probable is kept [default: 5]
    #[arg(long, value_name = "N")]
    best_of: Option<usize>,
    /// Beam search ends after beam size times this many hypotheses [default: when none can overtake the best]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    patience: Option<f32>,
    /// Exponent by which beam search favours long hypotheses [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// Sampling temperature from 0 to 1; 0 searches, above 0 turns the fallback off [default: 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the first result even when it repeats itself or is unsure
    #[arg(long)]
    no_fallback: bool,
    /// Text that precedes the audio: style, names, spelling; of a long one the model reads the end
    #[arg(long, value_name = "S")]
    prompt: Option<String>,
    /// Words that are likely to be said; refused when the model has no room for them
    #[arg(long, value_name = "S")]
    hotwords: Option<String>,
    /// Whether silence is left out [default: auto]
    #[arg(long, value_enum)]
    vad: Option<Vad>,
    /// Windows decoded together [default: 8]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Tokens that a window may produce [default: half of the model's context]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Seed of the sampler: the same seed gives the same text [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Channel to listen to, counted from 0, or mix for all of them
    #[arg(long, value_name = "mix|N", default_value = "mix", value_parser = parse_channel)]
    pub(super) channel: ChannelChoice,
    /// Write one file per recording into DIR instead of the standard output
    #[arg(short, long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show no progress, only errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub(super) quiet: bool,
}

fn parse_channel(text: &str) -> Result<ChannelChoice, String> {
    match text {
        "mix" => Ok(ChannelChoice::Mix),
        number => {
            number.parse().map(ChannelChoice::Pick).map_err(|_| "expected mix or a number from 0".to_owned())
        }
    }
}

fn parse_language(text: &str) -> Result<String, String> {
    match text {
        "auto" => Ok(text.to_owned()),
        text => parse_target(text).map_err(|allowed| allowed.replace("expected", "expected auto,")),
    }
}

pub(in crate::cli) fn parse_target(text: &str) -> Result<String, String> {
    render::parse_language(text).ok_or_else(|| {
        let codes: Vec<_> = render::LANGUAGES.iter().map(|(code, _)| *code).collect();
        format!("expected an English name such as pashto, or a code: {}", codes.join(" "))
    })
}

/// What is to be written, as far as the command or its flags say it.
#[derive(Debug, Default)]
pub(in crate::cli) struct Wanted {
    /// What is said, or its translation.
    pub(in crate::cli) task: Option<Task>,
    /// Code of the language that a translation is written in.
    pub(in crate::cli) to_language: Option<String>,
    /// The translator of a cascade; empty for none.
    pub(in crate::cli) cascade: Option<String>,
}

impl Flags {
    /// The configuration with these flags on top.
    pub(super) fn settings(&self, wanted: &Wanted) -> Result<Config, Usage> {
        let mut config = Config::load(self.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
        set(&mut config.translate.cascade, wanted.cascade.as_ref());
        if !config.translate.cascade.is_empty() {
            Spec::parse(&config.translate.cascade).map_err(|error| Usage(format!("cascade: {error}")))?;
        }
        let settings = &mut config.transcribe;
        set(&mut settings.model, self.model.as_ref());
        if self.model.is_some() {
            // The configured one guesses for the configured model.
            settings.draft.clear();
        }
        set(&mut settings.draft, self.draft.as_ref());
        set(&mut settings.device, self.device.as_ref());
        set(&mut settings.precision, self.precision.as_ref());
        set(&mut settings.language, self.language.as_ref());
        set(&mut settings.task, wanted.task.as_ref());
        set(&mut settings.to_language, wanted.to_language.as_ref());
        set(&mut settings.punctuation, self.punctuation.as_ref());
        set(&mut settings.format, self.format.as_ref());
        set(&mut settings.beam_size, self.beam_size.map(BeamSize::Of).as_ref());
        set(&mut settings.best_of, self.best_of.as_ref());
        set(&mut settings.patience, self.patience.map(Threshold::At).as_ref());
        set(&mut settings.length_penalty, self.length_penalty.as_ref());
        set(&mut settings.temperature, self.temperature.as_ref());
        settings.fallback &= !self.no_fallback;
        set(&mut settings.prompt, self.prompt.as_ref());
        set(&mut settings.hotwords, self.hotwords.as_ref());
        set(&mut settings.vad, self.vad.as_ref());
        set(&mut settings.batch_size, self.batch_size.as_ref());
        set(&mut settings.max_new_tokens, self.max_new_tokens.as_ref());
        set(&mut settings.seed, self.seed.as_ref());
        // The file and the environment may hold names too.
        settings.language = parse_language(&settings.language)
            .map_err(|allowed| Usage(format!("language `{}`: {allowed}", settings.language)))?;
        if !settings.to_language.is_empty() {
            settings.to_language = parse_target(&settings.to_language)
                .map_err(|allowed| Usage(format!("to_language `{}`: {allowed}", settings.to_language)))?;
            if wanted.to_language.is_some() && settings.task == Task::Transcribe {
                return Err(Usage("--to-language is that of a translation; add --task translate".to_owned()));
            }
        }
        // Before a cascade's translator there is a recogniser.
        let is_cascade = !config.translate.cascade.is_empty();
        let task = if is_cascade { Task::Transcribe } else { settings.task };
        settings.model = named_or_own(&settings.model, task)?.to_owned();
        Ok(config)
    }
}

fn set<T: Clone>(setting: &mut T, flag: Option<&T>) {
    if let Some(flag) = flag {
        setting.clone_from(flag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_codes_names_or_left_to_the_model() {
        for (text, code) in [("auto", "auto"), ("ps", "ps"), ("Pashto", "ps"), ("xyz", "xyz")] {
            assert_eq!(parse_language(text).as_deref(), Ok(code));
        }
        assert!(parse_language("klingon").expect_err("refused").contains("pashto"));
    }

    #[test]
    fn channels_are_numbers_or_mix() {
        assert!(matches!(parse_channel("mix"), Ok(ChannelChoice::Mix)));
        assert!(matches!(parse_channel("1"), Ok(ChannelChoice::Pick(1))));
        assert!(parse_channel("-1").is_err() && parse_channel("left").is_err());
    }
}

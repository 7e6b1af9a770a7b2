//! `speechd speak`: text in, speech out.

use std::{
    fs::File,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use audio::{
    ChannelChoice, decode_file,
    encode::{AudioFormat, Encoder, FileEncoder},
};
use clap::ArgAction;
use models::{BundleSource, Device, DeviceChoice, Kind, SpeakOptions, Speech, Spoken, Synthesizer, Voice};

use super::{
    Usage,
    fetch::{fetch, named_or_own_speaker},
    input::{read_at_most, read_stdin},
    output::{Unfinished, check_new, print, print_bytes},
    progress::{Recording, Style},
    recognizer::decode_audio,
};
use crate::{config::Config, render};

/// The largest text, bytes: a long book.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// As errors say it.
const TEXT_LIMIT: &str = "that a text to be spoken may have";
/// What stands for standard input and output.
const STANDARD: &str = "-";

const EXAMPLES: &str = "\
Examples:
  speechd speak \"Good morning.\" -o morning.wav --model ./my-voice
  speechd speak -f chapter.txt -o chapter.mp3 --model ./my-voice --voice anna
  echo \"Good morning.\" | speechd speak - -o - --format wav --model ./my-voice | aplay
  speechd speak \"In my own words.\" -o mine.opus --model ./my-voice --voice-sample me.wav
  speechd speak --list-voices --model ./my-voice

--model is not needed where the program has a voice inside, or `model` under [speak] in speechd.toml names one. Sound is written while it
is made, clause by clause where the model has no vocoder. A file gets its name when all of it is there; what an interruption leaves of one is in
.NAME.PROCESS.part beside it. Models that speak compute in f32.

Exit code: 0 spoken, 1 it failed, 2 wrong arguments or configuration.";

/// Flags that are not given leave the configuration's value.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The text, or - for the standard input
    #[arg(value_name = "TEXT", required_unless_present_any = ["file", "list_voices"], conflicts_with_all = ["file", "list_voices"])]
    text: Vec<String>,
    /// Read the text from FILE
    #[arg(short, long, value_name = "FILE", conflicts_with = "list_voices")]
    file: Option<PathBuf>,
    /// Write the speech into FILE, in the format that its name ends with, or to the standard output: -
    #[arg(short, long, value_name = "FILE", required_unless_present = "list_voices")]
    out: Option<PathBuf>,
    /// How the speech is written: mp3, opus, flac, wav, pcm [default: as FILE is called]
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<AudioFormat>,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
    /// A model's directory, or its hub id: ORGANISATION/NAME[@REVISION] [default: the one that is part of the program, where there
    /// is one]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// One of the model's voices [default: its first]
    #[arg(long, value_name = "NAME", conflicts_with = "voice_sample")]
    voice: Option<String>,
    /// Speak with the voice of this recording, of 1 s at least; 5 to 15 s are good. Ask whose voice it is
    #[arg(long, value_name = "FILE")]
    voice_sample: Option<PathBuf>,
    /// Print the model's voices, and speak nothing
    #[arg(long, conflicts_with_all = ["out", "format", "force", "voice", "voice_sample", "language", "speed", "seed", "steps", "guidance", "temperature"])]
    list_voices: bool,
    /// Language of the text, as a code or an English name [default: the model's first]
    #[arg(short, long, value_name = "CODE")]
    language: Option<String>,
    /// How fast, from 0.25 to 4 times as the voice speaks [default: 1]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    speed: Option<f64>,
    /// Seed of the noise that speech is made of: the same seed gives the same sound [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Steps in which noise becomes sound, 1 to 64 [default: the model's]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How far it is led away from what it would say without text and voice, 0 to 10; 1 is not at all [default: the model's]
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// How much the speech varies, 0 to 2 [default: the model's]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// What the model computes on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show no progress, only errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    quiet: bool,
}

/// The code of a language that is called by its English name or a code, be it one that only a model knows.
pub(super) fn language_code(text: &str) -> String {
    render::parse_language(text).unwrap_or_else(|| text.to_owned())
}

fn parse_format(text: &str) -> Result<AudioFormat, String> {
    let known = || AudioFormat::ALL.map(AudioFormat::extension).join(", ");
    text.parse().map_err(|_| format!("expected one of {}", known()))
}

/// Where the speech goes, and how it is written.
#[derive(Debug, PartialEq, Eq)]
struct Destination<'a> {
    /// `None` is the standard output.
    path: Option<&'a Path>,
    format: AudioFormat,
}

impl<'a> Destination<'a> {
    fn plan(out: &'a Path, format: Option<AudioFormat>, force: bool) -> Result<Self, Usage> {
        if out == Path::new(STANDARD) {
            let format = format.ok_or_else(|| {
                Usage("--out -: the standard output has no name to tell a format by; add --format".to_owned())
            })?;
            if force {
                let message = "--force replaces a file, and the standard output is none; leave it out";
                return Err(Usage(message.to_owned()));
            }
            return Ok(Self { path: None, format });
        }
        let extension = out.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        let named = extension.and_then(|extension| extension.parse().ok());
        let format = format.or(named).ok_or_else(|| {
            let known = AudioFormat::ALL.map(|format| format!(".{format}")).join(", ");
            Usage(format!("--out {}: ends with none of {known}; call it so, or add --format", out.display()))
        })?;
        if out.exists() && !out.is_file() {
            let message = "is no file, which could be replaced; give one, or - for the standard output";
            return Err(Usage(format!("--out {}: {message}", out.display())));
        }
        if !force {
            check_new(out).map_err(|Usage(message)| Usage(format!("--out: {message}, or add --force")))?;
        }
        Ok(Self { path: Some(out), format })
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    let options = args.options(&mut config)?;
    let style = Style::new(args.quiet);
    if args.list_voices {
        return list_voices(&load(&config, style)?);
    }
    let out = args.out.as_deref().ok_or_else(|| Usage("--out is missing".to_owned()))?;
    let destination = Destination::plan(out, args.format, args.force)?;
    if destination.path.is_none() && io::stdout().is_terminal() {
        return Err(
            Usage("--out -: the standard output is a terminal; name a file, or pipe it".to_owned()).into()
        );
    }
    let text = args.text()?;
    let synthesizer = load(&config, style)?;
    let voice = args.voice(&synthesizer, &config)?;
    let started = Instant::now();
    let speech = synthesizer.prepare(&text, &voice, &options).map_err(|error| named(error, args))?;
    let mut progress = Recording::start(style, "speech");
    let spoken = speak(&synthesizer, speech, &destination, started, &mut progress);
    progress.clear();
    let (spoken, first_sound_secs) = spoken?;
    progress.finish_speaking(spoken.duration_secs, first_sound_secs);
    Ok(())
}

/// An option that the model refuses, as the command line calls it.
fn named(error: models::Error, args: &Args) -> anyhow::Error {
    match error {
        models::Error::Option { option: "input", message } => {
            let source =
                args.file.as_deref().map_or_else(|| "the text".to_owned(), |file| file.display().to_string());
            Usage(format!("{source}: {message}")).into()
        }
        models::Error::Option { option, message } => Usage(format!("--{option}: {message}")).into(),
        error => error.into(),
    }
}

impl Args {
    /// The options, from flags over the configuration, which hears of the model and the device.
    fn options(&self, config: &mut Config) -> Result<SpeakOptions, Usage> {
        let settings = &mut config.speak;
        if let Some(model) = &self.model {
            model.clone_into(&mut settings.model);
            // The configured one is a voice of the configured model.
            settings.voice.clear();
        }
        settings.model = named_or_own_speaker(&settings.model)?.to_owned();
        settings.language = language_code(self.language.as_deref().unwrap_or(&settings.language));
        settings.speed = self.speed.unwrap_or(settings.speed);
        settings.seed = self.seed.unwrap_or(settings.seed);
        if let Some(device) = self.device {
            config.transcribe.device = device;
        }
        let Self { steps, guidance, temperature, .. } = *self;
        let options = SpeakOptions { steps, guidance, temperature, ..config.speak.options() };
        options.check().map_err(|error| Usage(error.to_string()))?;
        Ok(options)
    }

    /// What is to be spoken.
    fn text(&self) -> anyhow::Result<String> {
        let bytes = match (&self.file, self.text.as_slice()) {
            (Some(file), _) => read_text(file)?,
            (None, [only]) if only == STANDARD => {
                read_stdin(MAX_TEXT_BYTES, TEXT_LIMIT).context("the standard input")?
            }
            (None, words) => return Ok(words.join(" ")),
        };
        String::from_utf8(bytes).map_err(|_| Usage("the text is not UTF-8".to_owned()).into())
    }

    /// Whose voice it is to be.
    fn voice(&self, synthesizer: &Synthesizer, config: &Config) -> anyhow::Result<Voice> {
        if let Some(path) = &self.voice_sample {
            let wrap = || format!("--voice-sample {}", path.display());
            let decoded =
                decode_file(path, &decode_audio(config.limits, ChannelChoice::Mix)).with_context(wrap)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            return synthesizer.voice_of(&name, &decoded.waveform).with_context(wrap);
        }
        let name =
            self.voice.as_deref().or(Some(config.speak.voice.as_str()).filter(|name| !name.is_empty()));
        let voices = synthesizer.voices();
        let found = match name {
            Some(name) => voices.iter().find(|voice| voice.name() == name),
            None => voices.first(),
        };
        found.cloned().ok_or_else(|| match name {
            Some(name) => {
                let known: Vec<_> = voices.iter().map(Voice::name).collect();
                Usage(format!("--voice {name}: the model has {}", known.join(", "))).into()
            }
            None => {
                Usage("the model has no voice of its own; give it one by --voice-sample".to_owned()).into()
            }
        })
    }
}

fn read_text(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = File::open(path).map_err(anyhow::Error::from);
    let bytes = bytes.and_then(|file| read_at_most(file, MAX_TEXT_BYTES, TEXT_LIMIT));
    bytes.with_context(|| path.display().to_string())
}

fn load(config: &Config, style: Style) -> anyhow::Result<Synthesizer> {
    let model = &config.speak.model;
    let device = config.transcribe.device.open().map_err(|error| Usage(error.to_string()))?;
    load_speaker(model, &fetch(model, config, style)?, &device)
}

/// A model that speaks.
///
/// # Errors
/// One that does something else, and what its bundle lacks.
pub(super) fn load_speaker(
    model: &str,
    source: &BundleSource,
    device: &Device,
) -> anyhow::Result<Synthesizer> {
    match Kind::of(source).with_context(|| format!("model {model}"))? {
        Kind::Speaks => {}
        Kind::Hears => {
            let message = format!("model {model} turns speech into text, and not text into speech");
            return Err(Usage(format!("{message}; speechd transcribe is for it")).into());
        }
        Kind::Vocodes => {
            let message = format!("model {model} is a vocoder alone, which turns features into sound");
            return Err(Usage(format!("{message}; name a model that speaks, of which one is a part")).into());
        }
    }
    Synthesizer::load(source, device).with_context(|| format!("model {model}"))
}

fn list_voices(synthesizer: &Synthesizer) -> anyhow::Result<()> {
    let names: String = synthesizer.voices().iter().map(|voice| format!("{}\n", voice.name())).collect();
    print(&names)
}

/// What becomes of sound while it is made.
enum Sink<'a> {
    File(FileEncoder, Unfinished<'a>),
    Standard(Encoder),
}

impl<'a> Sink<'a> {
    fn open(destination: &Destination<'a>, sample_rate: u32) -> anyhow::Result<Self> {
        let format = destination.format;
        Ok(match destination.path {
            Some(path) => Self::File(FileEncoder::new(format, sample_rate)?, Unfinished::create(path)?),
            None => Self::Standard(Encoder::new(format, sample_rate, None)?),
        })
    }

    fn push(&mut self, samples: &[f32]) -> anyhow::Result<()> {
        match self {
            Self::File(encoder, file) => file.write(&encoder.push(samples)?),
            Self::Standard(encoder) => print_bytes(&encoder.push(samples)?),
        }
    }

    /// Ends it. All is known now, so that a file states its length.
    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::File(encoder, mut file) => {
                let (rest, head) = encoder.finish()?;
                file.write(&rest)?;
                file.finish(&head)
            }
            Self::Standard(encoder) => print_bytes(&encoder.finish()?),
        }
    }
}

/// Speaks, and says how long it took until there was sound.
fn speak(
    synthesizer: &Synthesizer,
    speech: Speech,
    destination: &Destination<'_>,
    started: Instant,
    progress: &mut Recording,
) -> anyhow::Result<(Spoken, f64)> {
    let sample_rate = synthesizer.sample_rate();
    let mut sink = Sink::open(destination, sample_rate)?;
    let mut first_sound_secs = None;
    let expected_secs = speech.expected_secs();
    let mut n_samples = 0_usize;
    let spoken = synthesizer.say(speech, &mut |part| {
        first_sound_secs.get_or_insert_with(|| started.elapsed().as_secs_f64());
        n_samples += part.len();
        let secs = n_samples as f64 / f64::from(sample_rate);
        progress.update(secs, expected_secs.max(secs));
        sink.push(&part)
    })?;
    sink.finish()?;
    Ok((spoken, first_sound_secs.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_the_name_unless_it_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for (name, said, expected) in [
            ("a.wav", None, Some(AudioFormat::Wav)),
            ("a.MP3", None, Some(AudioFormat::Mp3)),
            ("a.opus", Some(AudioFormat::Flac), Some(AudioFormat::Flac)),
            ("a", Some(AudioFormat::Pcm), Some(AudioFormat::Pcm)),
            ("a", None, None),
            ("a.aac", None, None),
            (".mp3", None, None),
        ] {
            let planned = Destination::plan(&path(name), said, false).map(|found| found.format).ok();
            assert_eq!(planned, expected, "{name}");
        }
        let standard = Destination::plan(Path::new("-"), Some(AudioFormat::Wav), false).expect("a format");
        assert_eq!(standard, Destination { path: None, format: AudioFormat::Wav });
        let Usage(message) = Destination::plan(Path::new("-"), None, false).expect_err("no format");
        assert!(message.contains("--format"), "{message}");
        let Usage(message) =
            Destination::plan(Path::new("-"), Some(AudioFormat::Wav), true).expect_err("no file");
        assert!(message.starts_with("--force"), "{message}");
    }

    #[test]
    fn what_is_there_is_replaced_when_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.wav");
        std::fs::write(&path, "").expect("written");
        let Usage(message) = Destination::plan(&path, None, false).expect_err("it is there");
        assert!(message.contains("there already") && message.contains("--force"), "{message}");
        assert!(Destination::plan(&path, None, true).is_ok());
        for no_file in [folder.path(), Path::new("/dev/null")] {
            let Usage(message) =
                Destination::plan(no_file, Some(AudioFormat::Wav), true).expect_err("no file");
            assert!(message.contains("is no file"), "{message}");
        }
    }
}

//! `speechd data synthesize`: recordings that no corpus has, spoken by programs.

use std::path::PathBuf;

use clap::ValueEnum;
use parking_lot::Mutex;
use recipes::prepare::{self, Set, SynthesisOptions};

use super::{
    super::{
        Usage,
        output::print,
        progress::{Items, Style},
    },
    by_split, check_out,
};

const EXAMPLES: &str = "\
Examples:
  speechd data synthesize digits-en --out digits/
  speechd data synthesize digits-en --out few/ --clips 200 --seed 1
  speechd data synthesize phrases-en-ps --out phrases/    # to translate, with 20,000 further pairs of texts
  speechd data synthesize speech-en --out speech/         # two voices, to learn to speak from
  speechd data synthesize words-en --out words/           # words and short phrases, for a recogniser that judges what was learnt
  speechd data synthesize text --text urdu.txt --voice ur --out urdu/     # a related language, for want of recordings

The recordings, 16 kHz WAV, go to audio/ beside train.jsonl and dev.jsonl, and test.jsonl (all but digits and texts) and text.jsonl (of
phrases); dev and test have voices of their own, but for speech-en. Who says what is a function of the seed. What an earlier run left in audio/ is kept.
The programs espeak-ng and, for English, flite must be there: apt-get install espeak-ng flite.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What to synthesise
    #[arg(value_enum, value_name = "SET")]
    set: SetArg,
    /// Write recordings and manifests into DIR
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// text: the file whose lines are read; those with digits are left out
    #[arg(long, value_name = "FILE", required_if_eq("set", "text"))]
    text: Option<PathBuf>,
    /// text: the language that reads it, as espeak-ng calls it (espeak-ng --voices lists them)
    #[arg(long, value_name = "CODE", required_if_eq("set", "text"))]
    voice: Option<String>,
    /// text: its language, as models call it [default: as the voice's]
    #[arg(long, value_name = "CODE", requires = "text")]
    language: Option<String>,
    /// text: words of a recording at most; longer lines become several [default: 10]
    #[arg(long, value_name = "N", requires = "text", value_parser = clap::value_parser!(u16).range(1..))]
    max_words: Option<u16>,
    /// Recordings, about; a tenth of them is dev, and of phrases and words a tenth is test; of speech-en a twentieth is dev, a tenth test
    /// [default: 4800, 4000 of phrases, 8000 of speech-en, 16000 of words-en]
    #[arg(long, value_name = "N", value_parser = clips)]
    clips: Option<usize>,
    /// Decides texts, voices and rates of speech
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Replace manifests that are there
    #[arg(long)]
    overwrite: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// `Set` as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SetArg {
    /// English digits, alone and in strings of up to eight; 36 command words; other words, with an empty text
    DigitsEn,
    /// English sentences of a synthetic grammar with their Pashto, and text.jsonl with many more that nobody speaks
    PhrasesEnPs,
    /// Short English phrases of TICO-19 with their Pashto, each in many voices; some of them in test.jsonl alone
    PhrasesTico,
    /// English clauses, words, numbers and digits by two voices as they are, which no other set has; test.jsonl has 200 words that nothing else has
    SpeechEn,
    /// English words, those 200 among some 2,600, and short phrases, in some 300 voices; some of the words in test.jsonl alone
    WordsEn,
    /// The lines of a text file, in some fifty voices of its language
    Text,
}

impl Args {
    fn set(&self) -> Result<Set, Usage> {
        match (self.set, &self.text, &self.voice) {
            (SetArg::DigitsEn, None, None) => Ok(Set::DigitsEn),
            (SetArg::PhrasesEnPs, None, None) => Ok(Set::PhrasesEnPs),
            (SetArg::PhrasesTico, None, None) => Ok(Set::PhrasesTico),
            (SetArg::SpeechEn, None, None) => Ok(Set::SpeechEn),
            (SetArg::WordsEn, None, None) => Ok(Set::WordsEn),
            (SetArg::Text, Some(path), Some(voice)) => Ok(Set::Text {
                path: path.clone(),
                voice: voice.clone(),
                language: self.language.as_ref().unwrap_or(voice).clone(),
                max_words: usize::from(self.max_words.unwrap_or(10)),
            }),
            _ => Err(Usage("--text and --voice are for the set `text`, which needs both".to_owned())),
        }
    }
}

fn clips(text: &str) -> Result<usize, String> {
    let (least, most) = (SynthesisOptions::MIN_CLIPS, SynthesisOptions::MAX_CLIPS);
    let n_clips = text.parse::<usize>().ok().filter(|n_clips| (least..=most).contains(n_clips));
    n_clips.ok_or_else(|| format!("expected {least} to {most}"))
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let options = SynthesisOptions::new(args.set()?);
    check_out(&args.out, args.overwrite, options.set.has_texts())?;
    let n_clips = args.clips.unwrap_or(options.n_clips);
    let options = SynthesisOptions { seed: args.seed, n_clips, ..options };
    let progress = Mutex::new(Items::start(Style::new(args.quiet), "speaking", Some(0)));
    let splits =
        prepare::synthesize(&options, &args.out, &|done, total| progress.lock().update_of(done, total));
    progress.lock().clear();
    let splits = splits?;
    prepare::write(&splits, &[], &args.out, args.overwrite)?;
    print(&by_split(&splits, &args.out))
}

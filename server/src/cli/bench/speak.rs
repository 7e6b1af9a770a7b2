//! `speechd bench speak`: how fast a model speaks here, and how soon it is heard. Medians of repeated runs; no figure decides anything.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use models::{DeviceChoice, SpeakOptions, SynthesisWorker, Synthesizer, Update, Voice, Weights, Worker as _};
use serde::Serialize;

use super::{middle, parts::median, percentile};
use crate::{
    cli::{
        Usage,
        fetch::{fetch, named_or_own_speaker},
        output::{print, table},
        progress::{Items, Style, bytes},
        speak::{language_code, load_speaker},
    },
    config::Config,
    load::SPEAKER_PRECISION,
    process,
};

/// What is spoken where nobody gives anything else: from two words to forty.
const TEXTS: [&str; 12] = [
    "Good morning.",
    "The train is late again.",
    "Please close the door when you leave.",
    "She put the letter on the table and went out.",
    "Nobody knew where the old road had once ended.",
    "We have two rooms left, one with a view of the garden.",
    "It rained all night, and in the morning the river was over its banks.",
    "If you want to catch the last boat, you should leave the house before noon.",
    "He read the whole book in a day. Then he began again, slowly, with a pencil in his hand.",
    "The doctor said that there was nothing to worry about, as long as she slept well and drank enough water.",
    "When the wind turned, the fishermen came home early, pulled their boats high up on the beach, and sat together by the \
     fire until the storm was over.",
    "There is a small shop at the corner of our street, which sells bread, paper, candles and string; whoever has forgotten \
     something goes there in the evening, and most people stay longer than they meant to, because the owner knows a story about \
     everybody.",
];
/// What they are in.
const TEXTS_LANGUAGE: &str = "en";

const EXAMPLES: &str = "\
Examples:
  speechd bench speak --model ./my-voice
  speechd bench speak --model ./my-voice --batch 1,4,16 --steps 1,2,4,8
  speechd bench speak --model ./my-voice --text-file sentences.txt --language ps --json

A dozen English sentences are spoken, or the lines of a file, so many of them at once; all combinations one after the other in each repeat, so that
whatever slows the machine down slows all of them down. Seconds of sound are summed over all that is spoken at once. No more
clauses are computed together than serve.max_batch_rows allows, as in the service: others wait their turn. The first sound of a text is
counted from when all that are spoken with it were there to be read.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A model's directory, or its hub id: ORGANISATION/NAME[@REVISION] [default: as for speak]
    #[arg(short, long, value_name = "PATH_OR_ID")]
    model: Option<String>,
    /// Texts that are spoken at once
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,8", value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: Vec<u16>,
    /// Steps in which noise becomes sound [default: the model's]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=64))]
    steps: Vec<u16>,
    /// Runs of which the median is shown
    #[arg(long, visible_alias = "runs", value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Speak the lines of FILE instead of the sentences that are built in
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// Language of FILE, as a code or an English name [default: the model's first]
    #[arg(short, long, value_name = "CODE", requires = "text_file")]
    language: Option<String>,
    /// What the model computes on: cpu, cuda, cuda:1 ... [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Read settings from FILE instead of the user's speechd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    precision: String,
    weights_bytes: u64,
    threads: usize,
    repeats: u32,
    voice: String,
    /// Without one, sound is made by Griffin and Lim's algorithm, a clause at a time.
    has_vocoder: bool,
    /// Different ones.
    n_texts: usize,
    /// Clauses that are computed together at most, however many texts are spoken at once.
    max_batch_rows: usize,
    load_secs: f64,
    cells: Vec<Cell>,
    peak_memory_bytes: Option<u64>,
}

/// What so many texts at once took, in so many steps.
#[derive(Debug, Serialize)]
struct Cell {
    batch: usize,
    steps: usize,
    /// Texts that were spoken in a repeat, some of them twice where the last batch would not have been full.
    n_spoken: usize,
    /// Seconds of sound in a repeat.
    audio_secs: f64,
    secs: f64,
    /// Over all that is spoken at once.
    times_real_time: f64,
    /// The same over that of the first cell, repeat by repeat.
    beside_first: f64,
    /// From when a text could be read until something of it could be heard.
    first_sound_secs: f64,
    first_sound_p95_secs: f64,
}

/// One repeat of a cell.
struct Run {
    secs: f64,
    audio_secs: f64,
    first_sounds_secs: Vec<f64>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut config = Config::load(args.config.as_deref()).map_err(|error| Usage(error.to_string()))?;
    if let Some(model) = &args.model {
        model.clone_into(&mut config.speak.model);
    }
    let model = named_or_own_speaker(&config.speak.model)?.to_owned();
    let device = args.device.unwrap_or(config.transcribe.device);
    let device = device.open().map_err(|error| Usage(error.to_string()))?;
    let own = args.text_file.as_deref().map(read_lines).transpose()?;
    let style = Style::new(args.quiet);
    let source = fetch(&model, &config, style)?;
    let synthesizer = load_speaker(&model, &source, &device)?;
    let voice = synthesizer
        .voices()
        .first()
        .ok_or_else(|| Usage(format!("model {model}: it has no voice of its own to speak in")))?;
    let language = match &own {
        Some(_) => args.language.as_deref().map(language_code),
        None => Some(language_of_texts(&synthesizer)?),
    };
    let texts: Vec<&str> = match &own {
        Some(lines) => lines.iter().map(String::as_str).collect(),
        None => TEXTS.to_vec(),
    };
    let options = SpeakOptions { language, ..SpeakOptions::default() };
    for text in &texts {
        let refuse = |error: models::Error| Usage(format!("`{text}`: {error}"));
        synthesizer.prepare(text, voice, &options).map_err(refuse)?;
    }

    let load_secs = median(args.repeats, || {
        load_speaker(&model, &source, &device)?;
        // A GPU answers before it has computed.
        Ok(device.synchronize()?)
    })?;
    let steps: Vec<usize> = match args.steps.as_slice() {
        [] => vec![synthesizer.config().sampling.steps],
        steps => steps.iter().map(|steps| usize::from(*steps)).collect(),
    };
    let batches = args.batch.iter().map(|batch| usize::from(*batch));
    let settings: Vec<_> = batches.flat_map(|batch| steps.iter().map(move |steps| (batch, *steps))).collect();
    let bench = Bench { synthesizer: &synthesizer, voice, options, max_rows: config.serve.max_batch_rows };
    let mut progress = Items::start(style, "speaking", Some(settings.len() * (args.repeats as usize + 1)));
    let mut runs: Vec<Vec<Run>> = settings.iter().map(|_| Vec::new()).collect();
    for repeat in 0..=args.repeats {
        for (place, ((batch, steps), runs)) in settings.iter().zip(&mut runs).enumerate() {
            progress.update(repeat as usize * settings.len() + place);
            // What is spoken first pays for memory that the others find, and is not counted.
            let spoken = if repeat == 0 { &texts[..texts.len().min(*batch)] } else { &texts };
            let run = bench.speak_all(spoken, *batch, *steps)?;
            if repeat > 0 {
                runs.push(run);
            }
        }
    }
    progress.clear();
    let report = Report {
        device: DeviceChoice::of(&device).to_string(),
        precision: SPEAKER_PRECISION.to_string(),
        weights_bytes: Weights::from_source(&source)?.n_bytes(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        repeats: args.repeats,
        voice: voice.name().to_owned(),
        has_vocoder: synthesizer.has_vocoder(),
        n_texts: texts.len(),
        max_batch_rows: config.serve.max_batch_rows,
        load_secs,
        cells: cells(&settings, &runs, texts.len()),
        peak_memory_bytes: process::peak_memory_bytes(),
        model,
    };
    print(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { describe(&report) })
}

/// The language of the sentences that are built in.
fn language_of_texts(synthesizer: &Synthesizer) -> Result<String, Usage> {
    let known = synthesizer.languages();
    if known.iter().any(|code| code == TEXTS_LANGUAGE) {
        return Ok(TEXTS_LANGUAGE.to_owned());
    }
    Err(Usage(format!(
        "the model reads {}, and the sentences that are built in are English: give others by --text-file",
        known.join(", ")
    )))
}

/// The lines of a file that are not empty.
fn read_lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(Usage(format!("--text-file {}: holds no text", path.display())).into());
    }
    Ok(lines)
}

/// A model, and what it is asked for.
struct Bench<'a> {
    synthesizer: &'a Synthesizer,
    voice: &'a Voice,
    options: SpeakOptions,
    /// Sequences that are computed together at most, as a service does.
    max_rows: usize,
}

impl Bench<'_> {
    /// Speaks all texts, `batch` of them at once, the first ones again until the last batch is full.
    fn speak_all(&self, texts: &[&str], batch: usize, steps: usize) -> anyhow::Result<Run> {
        let n_spoken = texts.len().next_multiple_of(batch);
        // Its place decides its noise: each repeat says the same.
        let all: Vec<(u64, &str)> = (0..).zip(texts.iter().copied().cycle().take(n_spoken)).collect();
        let mut sum = Run { secs: 0.0, audio_secs: 0.0, first_sounds_secs: Vec::with_capacity(n_spoken) };
        for together in all.chunks(batch) {
            let run = self.speak_together(together, steps)?;
            sum.secs += run.secs;
            sum.audio_secs += run.audio_secs;
            sum.first_sounds_secs.extend(run.first_sounds_secs);
        }
        Ok(sum)
    }

    /// Speaks texts at once, each with its seed.
    fn speak_together(&self, texts: &[(u64, &str)], steps: usize) -> anyhow::Result<Run> {
        let mut worker = SynthesisWorker::new(self.synthesizer, self.max_rows);
        let began = Instant::now();
        for (id, (seed, text)) in (0..).zip(texts) {
            let options = SpeakOptions { seed: *seed, steps: Some(steps), ..self.options.clone() };
            worker.join(id, self.synthesizer.prepare(text, self.voice, &options)?);
        }
        let mut first_sounds_secs = vec![None; texts.len()];
        let (mut n_left, mut audio_secs, mut failure) = (texts.len(), 0.0, None);
        while n_left > 0 && failure.is_none() {
            worker.step(&|_| true, &mut |id, update| match update {
                Update::Progress(_) => {}
                Update::Part(_) => {
                    if let Some(first) = first_sounds_secs.get_mut(id as usize) {
                        first.get_or_insert_with(|| began.elapsed().as_secs_f64());
                    }
                }
                Update::Done(spoken) => {
                    n_left -= 1;
                    audio_secs += spoken.duration_secs;
                }
                Update::Failed(error) => failure = Some(error),
            })?;
        }
        let secs = began.elapsed().as_secs_f64();
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Run {
                secs,
                audio_secs,
                first_sounds_secs: first_sounds_secs.into_iter().flatten().collect(),
            }),
        }
    }
}

/// What the repeats of each cell come to.
fn cells(settings: &[(usize, usize)], runs: &[Vec<Run>], n_texts: usize) -> Vec<Cell> {
    let speed = |run: &Run| run.audio_secs / run.secs.max(1e-9);
    let first: Vec<f64> = runs.first().into_iter().flatten().map(speed).collect();
    let cell = |((batch, steps), runs): (&(usize, usize), &Vec<Run>)| {
        let of = |value: &dyn Fn(&Run) -> f64| middle(runs.iter().map(value).collect());
        let ratios = runs.iter().zip(&first).map(|(run, first)| speed(run) / first.max(1e-9));
        let mut sounds: Vec<f64> =
            runs.iter().flat_map(|run| run.first_sounds_secs.iter().copied()).collect();
        sounds.sort_by(f64::total_cmp);
        let share = |percent: f64| percentile(&sounds, percent).unwrap_or(f64::NAN);
        Cell {
            batch: *batch,
            steps: *steps,
            n_spoken: n_texts.next_multiple_of(*batch),
            audio_secs: of(&|run| run.audio_secs),
            secs: of(&|run| run.secs),
            times_real_time: of(&speed),
            beside_first: middle(ratios.collect()),
            first_sound_secs: share(50.0),
            first_sound_p95_secs: share(95.0),
        }
    };
    settings.iter().zip(runs).map(cell).collect()
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "{} ({}), {} in {}, {} threads, medians of {}\n\
         load {:.2} ms; {} texts in the voice {}, at most {} clauses computed together{}\n",
        report.model,
        bytes(report.weights_bytes),
        report.device,
        report.precision,
        report.threads,
        report.repeats,
        1e3 * report.load_secs,
        report.n_texts,
        report.voice,
        report.max_batch_rows,
        if report.has_vocoder {
            ""
        } else {
            "; the model has no vocoder, and each clause is heard when all of it is said"
        },
    );
    let mut rows = vec![
        ["AT ONCE", "STEPS", "SOUND", "X REAL TIME", "BESIDE THE FIRST", "FIRST SOUND", "95 % WITHIN"]
            .map(str::to_owned),
    ];
    rows.extend(report.cells.iter().map(|cell| {
        [
            cell.batch.to_string(),
            cell.steps.to_string(),
            format!("{:.1} s", cell.audio_secs),
            format!("{:.2}", cell.times_real_time),
            format!("{:.2}", cell.beside_first),
            format!("{:.3} s", cell.first_sound_secs),
            format!("{:.3} s", cell.first_sound_p95_secs),
        ]
    }));
    text += &table(&rows);
    let peak = report.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    text + &format!("peak memory {peak}\n")
}

#[cfg(test)]
mod tests {
    use models::Device;

    use super::*;

    fn synthesizer() -> Synthesizer {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/flow-lm");
        Synthesizer::load(&Path::new(fixture).into(), &Device::Cpu).expect("a model")
    }

    #[test]
    fn batches_are_full_and_repeats_say_the_same() {
        let synthesizer = synthesizer();
        let options = SpeakOptions { language: Some("en".to_owned()), ..SpeakOptions::default() };
        let voice = &synthesizer.voices()[0];
        let bench = Bench { synthesizer: &synthesizer, voice, options, max_rows: 4 };
        let texts = ["yes", "no", "so it is"];
        let one = bench.speak_all(&texts, 2, 1).expect("spoken");
        assert_eq!(one.first_sounds_secs.len(), 4);
        assert!(one.audio_secs > 0.0 && one.secs > 0.0);
        assert!(one.first_sounds_secs.iter().all(|secs| *secs > 0.0 && *secs <= one.secs));
        let again = bench.speak_all(&texts, 2, 1).expect("spoken");
        assert_eq!(one.audio_secs, again.audio_secs);
        // The same noise, whatever is beside it: only the text that comes again is one more.
        let alone = bench.speak_all(&texts, 1, 1).expect("spoken");
        assert_eq!(alone.first_sounds_secs.len(), 3);
        assert!(alone.audio_secs < one.audio_secs);
    }

    #[test]
    fn the_sentences_are_a_dozen_lengths_and_can_be_read() {
        let synthesizer = synthesizer();
        let voice = &synthesizer.voices()[0];
        let options = SpeakOptions { language: Some(TEXTS_LANGUAGE.to_owned()), ..SpeakOptions::default() };
        let lengths: Vec<usize> = TEXTS
            .iter()
            .map(|text| synthesizer.prepare(text, voice, &options).expect("a text").n_symbols())
            .collect();
        assert!(lengths.is_sorted() && lengths[0] < 20 && lengths[11] > 200, "{lengths:?}");
        assert_eq!(language_of_texts(&synthesizer).expect("English"), "en");
    }

    #[test]
    fn cells_are_medians_of_pairs() {
        let run = |secs: f64, audio_secs: f64| Run { secs, audio_secs, first_sounds_secs: vec![secs / 2.0] };
        let runs = [
            vec![run(1.0, 2.0), run(4.0, 2.0), run(2.0, 2.0)],
            vec![run(1.0, 4.0), run(4.0, 4.0), run(1.0, 4.0)],
        ];
        let cells = cells(&[(1, 4), (8, 4)], &runs, 12);
        assert_eq!((cells[0].times_real_time, cells[0].beside_first, cells[0].n_spoken), (1.0, 1.0, 12));
        // Twice as fast, twice as fast and four times: whatever slowed the second repeat down slowed both.
        assert_eq!((cells[1].times_real_time, cells[1].beside_first, cells[1].n_spoken), (4.0, 2.0, 16));
        assert_eq!((cells[0].first_sound_secs, cells[0].first_sound_p95_secs), (1.0, 2.0));
    }
}

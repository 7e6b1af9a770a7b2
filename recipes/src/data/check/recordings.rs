//! Decodes every recording once and looks at the stretches that cuts take of it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use audio::{ChannelChoice, DecodeAudio, Decoded, Warning, Waveform, decode_file};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Corpus, Finding, Kind, Placed};
use crate::data::manifest::short;

/// Stated and decoded lengths may differ by this much, seconds: tools count MP3 frames and encoder delays differently.
const LENGTH_TOLERANCE_SECS: f64 = 0.1;
/// Frames over which loudness is measured, seconds.
const FRAME_SECS: f64 = 0.1;
/// Below this RMS in its loudest frame a cut is silent: 60 dB below full scale.
const SILENT_RMS: f32 = 1e-3;
/// Samples from here on are at the largest amplitude, whatever the number of bits.
const FULL_SCALE: f32 = 0.999;
/// So many in a row are cut off; single peaks touch the limit without harm.
const MIN_CLIPPED_RUN: usize = 3;
/// The share of clipped samples from which a cut is told.
const CLIPPED_SHARE: f64 = 1e-3;
/// Texts below this many characters are often the same in equal lengths.
const MIN_SIMILAR_CHARS: usize = 16;

/// A cut's sound, by which equals are found: 16 bytes of a SHA-256 over its samples.
type Sound = [u8; 16];

/// What one recording's cuts amount to.
struct Heard {
    /// Cuts that are audible, by their position.
    sounds: Vec<(usize, Sound)>,
    findings: Vec<Finding>,
}

pub(super) fn check(
    corpus: &Corpus,
    stop: Option<&AtomicBool>,
    progress: &(dyn Fn(usize, usize) + Sync),
    findings: &mut Vec<Finding>,
) {
    let mut by_recording = BTreeMap::<(&Path, Option<u16>), Vec<usize>>::new();
    for (at, placed) in corpus.cuts.iter().enumerate().filter(|(_, placed)| placed.cut.has_audio()) {
        by_recording.entry((&placed.cut.audio, placed.cut.channel)).or_default().push(at);
    }
    let recordings: Vec<_> = by_recording.into_iter().collect();
    let (total, done) = (recordings.len(), AtomicUsize::new(0));
    progress(0, total);
    let heard: Vec<_> = recordings
        .par_iter()
        .filter(|_| !stop.is_some_and(|stop| stop.load(Ordering::Relaxed)))
        .map(|((path, channel), cuts)| {
            let heard = listen(corpus, path, *channel, cuts);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            heard
        })
        .collect();
    let mut sounds = Vec::new();
    for heard in heard {
        findings.extend(heard.findings);
        sounds.extend(heard.sounds);
    }
    // The order of the manifests, for the first of several equals.
    sounds.sort_unstable_by_key(|(at, _)| *at);
    compare(corpus, &sounds, findings);
}

fn listen(corpus: &Corpus, path: &Path, channel: Option<u16>, cuts: &[usize]) -> Heard {
    let mut heard = Heard { sounds: Vec::new(), findings: Vec::new() };
    let channel = channel.map_or(ChannelChoice::Mix, |channel| ChannelChoice::Pick(channel.into()));
    let placed = |at: usize| &corpus.cuts[at];
    let Decoded { waveform, warnings, .. } =
        match decode_file(path, &DecodeAudio { channel, ..DecodeAudio::default() }) {
            Ok(decoded) => decoded,
            Err(error) => {
                let cause =
                    std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let detail = format!("{}: {error}{cause}", path.display());
                let of = |at: &usize| corpus.finding(Kind::UnreadableAudio, placed(*at), detail.clone());
                heard.findings.extend(cuts.iter().map(of));
                return heard;
            }
        };
    for warning in warnings {
        // The core of HE-AAC sounds duller, and is sound.
        if !matches!(warning, Warning::HeAacCoreOnly) {
            let detail = format!("{}: {warning}", path.display());
            heard
                .findings
                .extend(cuts.first().map(|at| corpus.finding(Kind::DamagedAudio, placed(*at), detail)));
        }
    }
    let duration_secs = waveform.duration_secs();
    if let [at] = cuts {
        let cut = &placed(*at).cut;
        if cut.start_secs == 0.0 && cut.end_secs() + LENGTH_TOLERANCE_SECS < duration_secs {
            let detail = format!("{:.2} s of {duration_secs:.2} s of {}", cut.end_secs(), path.display());
            heard.findings.push(corpus.finding(Kind::UnusedRest, placed(*at), detail));
        }
    }
    for at in cuts {
        look_at(corpus, placed(*at), &waveform, *at, &mut heard);
    }
    heard
}

fn look_at(corpus: &Corpus, placed: &Placed, waveform: &Waveform, at: usize, heard: &mut Heard) {
    let (cut, duration_secs) = (&placed.cut, waveform.duration_secs());
    let samples = waveform.between(cut.start_secs, cut.end_secs());
    // Training refuses a cut of nothing, however little it is beyond the end.
    if samples.is_empty() || cut.end_secs() > duration_secs + LENGTH_TOLERANCE_SECS {
        let detail = format!(
            "from {:.2} to {:.2} s, but {} lasts {duration_secs:.2} s",
            cut.start_secs,
            cut.end_secs(),
            cut.audio.display()
        );
        heard.findings.push(corpus.finding(Kind::DurationMismatch, placed, detail));
    }
    if samples.is_empty() {
        return;
    }
    let loudest = loudest_rms(samples, waveform.sample_rate);
    if loudest < SILENT_RMS {
        let detail = match loudest {
            0.0 => "all samples are 0".to_owned(),
            rms => format!("nowhere above {:.0} dB of full scale", 20.0 * rms.log10()),
        };
        heard.findings.push(corpus.finding(Kind::Silence, placed, detail));
        return;
    }
    let share = clipped(samples) as f64 / samples.len() as f64;
    if share >= CLIPPED_SHARE {
        let detail = format!("{:.1} % of the samples", 100.0 * share);
        heard.findings.push(corpus.finding(Kind::Clipping, placed, detail));
    }
    heard.sounds.push((at, sound(samples, waveform.sample_rate)));
}

fn loudest_rms(samples: &[f32], sample_rate: u32) -> f32 {
    let n_frame = ((FRAME_SECS * f64::from(sample_rate)) as usize).max(1);
    let rms =
        |frame: &[f32]| (frame.iter().map(|sample| sample * sample).sum::<f32>() / frame.len() as f32).sqrt();
    samples.chunks(n_frame).map(rms).fold(0.0, f32::max)
}

/// Samples in runs at full scale, of one sign.
fn clipped(samples: &[f32]) -> usize {
    let side = |sample: &f32| if sample.abs() >= FULL_SCALE { sample.signum() } else { 0.0 };
    samples
        .chunk_by(|a, b| side(a) == side(b))
        .filter(|run| run.len() >= MIN_CLIPPED_RUN && side(&run[0]) != 0.0)
        .map(<[f32]>::len)
        .sum()
}

fn sound(samples: &[f32], sample_rate: u32) -> Sound {
    let mut hasher = Sha256::new();
    hasher.update(sample_rate.to_le_bytes());
    let mut bytes = Vec::with_capacity(4 * 4096);
    for chunk in samples.chunks(4096) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|sample| sample.to_le_bytes()));
        hasher.update(&bytes);
    }
    let digest = hasher.finalize();
    std::array::from_fn(|at| digest[at])
}

/// Compares each sound with the first that equals it, and each text with the first of its length.
fn compare(corpus: &Corpus, sounds: &[(usize, Sound)], findings: &mut Vec<Finding>) {
    let mut first_of_sound = HashMap::<Sound, usize>::new();
    let mut first_of_text = HashMap::<(&str, Option<&str>, u64), usize>::new();
    for (at, sound) in sounds {
        let placed = &corpus.cuts[*at];
        let cut = &placed.cut;
        if let Some(first) = first_of_sound.get(sound) {
            let first = &corpus.cuts[*first];
            let place = corpus.place(first);
            let (ours, theirs) = (cut.output_text(), first.cut.output_text());
            let (has_other_text, is_elsewhere) = (ours != theirs, first.manifest != placed.manifest);
            if has_other_text {
                let detail = format!("as {place}: \"{}\" here, \"{}\" there", short(ours), short(theirs));
                findings.push(corpus.finding(Kind::ContradictingTexts, placed, detail));
            }
            if is_elsewhere {
                findings.push(corpus.finding(Kind::AudioInSplits, placed, format!("as {place}")));
            }
            if !has_other_text && !is_elsewhere {
                findings.push(corpus.finding(Kind::DuplicateAudio, placed, format!("as {place}")));
            }
            continue;
        }
        first_of_sound.insert(*sound, *at);
        if cut.text.chars().count() < MIN_SIMILAR_CHARS {
            continue;
        }
        let micros = (cut.duration_secs * 1e6).round() as u64;
        match first_of_text.entry((&cut.text, cut.speaker.as_deref(), micros)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                let detail = format!("as {}", corpus.place(&corpus.cuts[*first.get()]));
                findings.push(corpus.finding(Kind::SimilarCuts, placed, detail));
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(*at);
            }
        }
    }
}

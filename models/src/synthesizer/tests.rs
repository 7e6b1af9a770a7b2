//! A model that has learnt nothing speaks all the same, and always alike.

use std::collections::BTreeMap;
use std::path::Path;

use audio::encode::{AudioFormat, encode_bytes};
use audio::{FeatureSpec, LogKind};

use super::*;
use crate::flow_lm::Sampling;
use crate::nn::test_support::noise;
use crate::vocos::VocosConfig;
use crate::weights::{WeightDtype, write_weights};

fn config(has_vocoder: bool) -> FlowLmConfig {
    let feature_spec = FeatureSpec { log: LogKind::Ln { floor: 1e-3 }, ..FeatureSpec::vocoder(16_000, 20) };
    let vocoder = VocosConfig {
        feature_spec: feature_spec.clone(),
        hidden_size: 8,
        intermediate_size: 16,
        num_layers: 1,
        kernel_size: 3,
    };
    FlowLmConfig {
        feature_spec,
        mel_mean: vec![-3.0; 20],
        mel_std: vec![2.0; 20],
        patch_frames: 4,
        unit: SymbolUnit::Characters,
        symbols: " ,.?abcdefghijklmnopqrstuvwxyz".chars().map(String::from).collect(),
        languages: vec!["en".to_owned()],
        voices: vec!["one".to_owned(), "two".to_owned()],
        max_text_positions: 40,
        max_patches: 60,
        max_prompt_patches: 8,
        max_advance: 3,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        num_text_layers: 1,
        head_hidden_size: 12,
        num_head_layers: 1,
        aligner_size: 6,
        flow_map: false,
        sampling: Sampling { steps: 2, guidance: 1.0, temperature: 0.7 },
        vocoder: has_vocoder.then_some(vocoder),
    }
}

fn tone(hz: f32, secs: f64) -> Waveform {
    let sample = |t: usize| 0.3 * (std::f32::consts::TAU * hz * t as f32 / 16_000.0).sin();
    Waveform { samples: (0..(secs * 16_000.0) as usize).map(sample).collect(), sample_rate: 16_000 }
}

/// Writes a model whose weights are drawn.
fn write(dir: &Path, has_vocoder: bool) -> Result<Synthesizer, Error> {
    write_as(dir, &config(has_vocoder))
}

fn write_as(dir: &Path, config: &FlowLmConfig) -> Result<Synthesizer, Error> {
    let params = Params::seeded(1, &Device::Cpu);
    FlowLm::load(&params, config, false)?;
    if let Some(vocoder) = &config.vocoder {
        Vocos::load(&params.root().sub(VOCODER), vocoder)?;
    }
    let mut tensors = BTreeMap::new();
    for (seed, (name, var)) in (1u32..).zip(params.vars()) {
        // What begins with nothing would say nothing.
        tensors.insert(name, (var.as_tensor() + (noise(var.shape(), seed)? * 0.1)?)?);
    }
    write_weights(dir, &tensors, WeightDtype::F32)?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).expect("written");
    write("config.json", config.to_json().to_string().as_bytes());
    for (name, hz) in [("one", 300.0), ("two", 900.0)] {
        write(&voice_file(name), &encode_bytes(&tone(hz, 1.5), AudioFormat::Flac)?);
    }
    Synthesizer::load(&dir.into(), &Device::Cpu)
}

fn options(seed: u64) -> SpeakOptions {
    SpeakOptions { seed, ..SpeakOptions::default() }
}

/// Parts that were told of a request, and what it became.
type Said = (Vec<Vec<f32>>, Option<Spoken>);

/// What a worker says of requests that join at some steps, by request; some leave.
fn say(
    synthesizer: &Synthesizer,
    max_rows: usize,
    mut joins: Vec<(usize, u64, Speech)>,
    leaves: &[(usize, u64)],
) -> Result<BTreeMap<u64, Said>, Error> {
    let mut worker = SynthesisWorker::new(synthesizer, max_rows);
    let mut said = BTreeMap::<u64, Said>::new();
    for step in 0..2_000 {
        let (now, later): (Vec<_>, Vec<_>) = joins.into_iter().partition(|(at, ..)| *at <= step);
        joins = later;
        for (_, id, speech) in now {
            worker.join(id, speech);
            said.entry(id).or_default();
        }
        for (_, id) in leaves.iter().filter(|(at, _)| *at == step) {
            worker.leave(*id);
        }
        worker.step(&|_| true, &mut |id, update| match update {
            Update::Part(part) => said.entry(id).or_default().0.push(part),
            Update::Done(spoken) => said.entry(id).or_default().1 = Some(spoken),
            Update::Failed(error) => panic!("{id}: {error}"),
            Update::Progress(_) => (),
        })?;
    }
    Ok(said)
}

#[test]
fn the_same_request_is_the_same_samples_whatever_is_beside_it() -> Result<(), Error> {
    for (has_vocoder, guidance) in [(true, None), (true, Some(1.7)), (false, None)] {
        let dir = tempfile::tempdir().expect("a folder");
        let synthesizer = write(dir.path(), has_vocoder)?;
        let voices = synthesizer.voices();
        let (text, other) = ("so this is it, really. and that was all?", "no");
        let own = SpeakOptions { guidance, ..options(7) };
        let prepare = |text: &str, voice: usize, options: &SpeakOptions| {
            synthesizer.prepare(text, &voices[voice], options)
        };
        let alone = synthesizer.speak(text, &voices[0], &own)?;
        assert!(alone.samples.len() > 16_000 && alone.samples.iter().any(|sample| *sample != 0.0));
        let joins = [
            (0, 1, prepare(other, 1, &options(1))?),
            (2, 2, prepare(text, 0, &own)?),
            (3, 3, prepare(text, 1, &SpeakOptions { steps: Some(3), speed: 1.3, ..options(7) })?),
            (5, 4, prepare(other, 0, &options(2))?),
        ];
        for max_rows in [1, 5, 100] {
            let joins = joins.iter().map(|(at, id, speech)| (*at, *id, clone(speech))).collect();
            let said = say(&synthesizer, max_rows, joins, &[(9, 3)])?;
            let (parts, spoken) = &said[&2];
            assert_eq!(parts.concat(), alone.samples, "{has_vocoder} {guidance:?} {max_rows}");
            let spoken = spoken.expect("all of it");
            assert_eq!(spoken.n_symbols, prepare(text, 0, &own)?.n_symbols());
            assert!((spoken.duration_secs - alone.duration_secs()).abs() < 1e-9);
            assert!(said[&3].1.is_none() && said[&4].1.is_some());
            // What learnt to speak is heard while it speaks.
            assert_eq!(parts.len() > 3, has_vocoder);
        }
        let again = synthesizer.speak(text, &voices[0], &options(8))?;
        assert_ne!(again.samples, alone.samples);
        let two = synthesizer.speak(text, &voices[1], &own)?;
        assert_ne!(two.samples, alone.samples);
    }
    Ok(())
}

fn clone(speech: &Speech) -> Speech {
    let clause = |clause: &Clause| Clause { text: clause.text.clone(), ..*clause };
    Speech {
        clauses: speech.clauses.iter().map(clause).collect(),
        voice: speech.voice.clone(),
        sampling: speech.sampling,
        usual_steps: speech.usual_steps,
        head_share: speech.head_share,
        speed: speech.speed,
    }
}

#[test]
fn every_option_changes_what_is_said_and_steps_are_paid_for() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let synthesizer = write(dir.path(), true)?;
    let voice = &synthesizer.voices()[0];
    let (steps, guidance, temperature) = (Some(4), Some(2.0), Some(0.1));
    let usual = options(3);
    let others = [
        (SpeakOptions { steps, ..usual.clone() }, 1.01..2.0),
        (SpeakOptions { guidance, ..usual.clone() }, 2.0..2.01),
        (SpeakOptions { temperature, ..usual.clone() }, 1.0..1.01),
        (SpeakOptions { seed: 4, ..usual.clone() }, 1.0..1.01),
    ];
    let said = synthesizer.speak("one and two", voice, &usual)?;
    let usual_cost = synthesizer.prepare("one and two", voice, &usual)?.cost_secs();
    for (other, cost) in others {
        assert_ne!(synthesizer.speak("one and two", voice, &other)?.samples, said.samples, "{other:?}");
        let times = synthesizer.prepare("one and two", voice, &other)?.cost_secs() / usual_cost;
        assert!(cost.contains(&times), "{other:?}: {times}");
    }
    Ok(())
}

#[test]
fn twice_as_fast_is_half_as_long() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let synthesizer = write(dir.path(), true)?;
    let secs = |speed: f64| -> Result<f64, Error> {
        let options = SpeakOptions { speed, ..options(3) };
        let waveform = synthesizer.speak("one and two", &synthesizer.voices()[0], &options)?;
        Ok(waveform.duration_secs())
    };
    let usual = secs(1.0)?;
    assert!((secs(2.0)? - usual / 2.0).abs() < 0.05 && (secs(0.5)? - usual * 2.0).abs() < 0.1);
    Ok(())
}

#[test]
fn what_cannot_be_spoken_is_refused_by_name() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let synthesizer = write(dir.path(), false)?;
    let refused = |text: &str, options: &SpeakOptions| {
        let error = synthesizer.prepare(text, &synthesizer.voices()[0], options).err();
        error.map(|error| error.to_string()).unwrap_or_default()
    };
    for (text, part) in [
        ("", "nothing"),
        (" \n ", "nothing"),
        ("... !?", "nothing"),
        ("😀 \u{0}\u{7}", "nothing"),
        ("سلام", "`س`"),
        ("good день", "`д`"),
    ] {
        let message = refused(text, &options(0));
        assert!(message.starts_with("input") && message.contains(part), "{text:?}: {message}");
    }
    for (options, name) in [
        (SpeakOptions { language: Some("ps".to_owned()), ..options(0) }, "language"),
        (SpeakOptions { speed: 0.2, ..options(0) }, "speed"),
        (SpeakOptions { speed: f64::NAN, ..options(0) }, "speed"),
        (SpeakOptions { steps: Some(0), ..options(0) }, "steps"),
        (SpeakOptions { guidance: Some(11.0), ..options(0) }, "guidance"),
        (SpeakOptions { temperature: Some(-0.1), ..options(0) }, "temperature"),
    ] {
        let message = refused("yes", &options);
        assert!(message.starts_with(name), "{name}: {message}");
    }
    // Accents, capitals, numbers and dates, what is no word.
    for text in ["Café — NAÏVE!", "5", "On 3 May 2024, 10:30", "a\u{0}b 😀", "word/word"] {
        assert_eq!(refused(text, &options(0)), "", "{text}");
    }
    Ok(())
}

#[test]
fn a_voice_is_a_recording_in_which_somebody_speaks() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let synthesizer = write(dir.path(), false)?;
    let mut sample = tone(500.0, 3.0);
    let voice = synthesizer.voice_of("mine", &sample)?;
    assert_eq!((voice.name(), voice.prompt.dims()), ("mine", &[8, 80][..]));
    let other_rate = Waveform { sample_rate: 8_000, ..tone(500.0, 1.0) };
    assert!(synthesizer.voice_of("slow", &other_rate).is_ok());
    sample.samples.fill(0.0);
    for (name, sample) in [("silent", sample), ("short", tone(500.0, 0.9))] {
        let message = synthesizer.voice_of(name, &sample).err().map(|error| error.to_string());
        assert!(message.is_some_and(|message| message.starts_with("voice") && message.contains(name)));
    }
    Ok(())
}

#[test]
fn a_text_is_said_clause_by_clause_and_long_ones_are_cut() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let synthesizer = write(dir.path(), false)?;
    let prepare = |text: &str| synthesizer.prepare(text, &synthesizer.voices()[0], &options(0));
    let speech = prepare("Yes, I do. Really?")?;
    let pauses =
        |speech: &Speech| -> Vec<f64> { speech.clauses.iter().map(|clause| clause.pause_secs).collect() };
    let (short, long) = (Pause::Short.pause_secs(), Pause::Long.pause_secs());
    assert_eq!(pauses(&speech), [long, short]);
    assert_eq!(speech.n_symbols(), "yes, i do.".len() + "really?".len());
    // Who knows no commas has learnt what stands between two.
    let symbols = config(false).symbols.into_iter().filter(|symbol| symbol != ",").collect();
    let other_dir = tempfile::tempdir().expect("a folder");
    let other = write_as(other_dir.path(), &FlowLmConfig { symbols, ..config(false) })?;
    let speech = other.prepare("Yes, I do. Really?", &other.voices()[0], &options(0))?;
    assert_eq!(pauses(&speech), [short, long, short]);
    assert_eq!(speech.n_symbols(), "yes".len() + "i do.".len() + "really?".len());
    let long = prepare(&"word ".repeat(100))?;
    assert!(long.clauses.len() > 10 && long.clauses.iter().all(|clause| clause.text.len() <= 40));
    assert!(long.expected_secs() > 20.0);
    assert!(long.clauses.iter().all(|clause| clause.max_patches <= 60));
    Ok(())
}

#[test]
fn bundles_are_told_apart_by_what_they_are_for() -> Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), true)?;
    assert_eq!(Kind::of(&dir.path().into())?, Kind::Speaks);
    let config = |text: &str| std::fs::write(dir.path().join("config.json"), text).expect("written");
    config("{\"model_type\": \"vocos\"}");
    assert_eq!(Kind::of(&dir.path().into())?, Kind::Vocodes);
    config("{\"model_type\": \"whisper\"}");
    assert_eq!(Kind::of(&dir.path().into())?, Kind::Hears);
    let message = Synthesizer::load(&dir.path().into(), &Device::Cpu).err().map(|error| error.to_string());
    assert!(message.is_some_and(|message| message.contains("`model_type`") && message.contains("whisper")));
    config("no JSON");
    assert!(Kind::of(&dir.path().into()).is_err());
    Ok(())
}

//! States of speech that are moved onto those of text, beside every encoder of speech.

use models::params::TrainedPart;
use models::{Bundle, Part, TEXT_ENCODER, TextEncoderConfig, WeightDtype};

use super::*;
use crate::data::Phonemes;
use crate::optim::AdamW;

/// What `settings` say, with an encoder of texts beside that of speech.
fn with_text_encoder(settings: &[&str]) -> RunConfig {
    let usual = [
        SINGLE,
        "model.languages=[\"en\"]",
        "model.text_encoder_layers=1",
        "train.best_by=loss",
        "loss.optimal_transport.weight=0.1",
        "augment.noise.probability=0.0",
        "augment.spec_augment.probability=0.0",
        "augment.speed.probability=0.0",
    ];
    config(&[usual.as_slice(), settings].concat())
}

fn describe_both(config: &RunConfig, phonemes: Option<&Phonemes>) -> Description {
    let description = describe(config.model.architecture, &config.model.languages);
    let architecture = description.architecture();
    let text_encoder = TextEncoderConfig {
        num_hidden_layers: 1,
        num_attention_heads: 2,
        hidden_size: architecture.encoder_width(),
        intermediate_size: 32,
        vocab_size: phonemes.map_or(architecture.n_vocab(), |known| known.symbols().len() + 1),
        max_position_embeddings: 32,
        phonemes: phonemes.map(|known| known.symbols().to_vec()).unwrap_or_default(),
    };
    description.with_text_encoder(Some(&text_encoder)).unwrap()
}

/// Each cut has the letters of its text for phonemes.
fn spelled(folder: &Path, n: usize) -> Vec<Cut> {
    let letters = |cut: Cut| {
        let letters: Vec<_> = cut.text.chars().map(String::from).collect();
        let extra = serde_json::Map::from_iter([("phonemes".to_owned(), letters.join(" ").into())]);
        Cut { extra: Some(Box::new(extra)), ..cut }
    };
    cuts(folder, n).into_iter().map(letters).collect()
}

fn task_of(folder: &Path, config: &RunConfig, phonemes: Option<&Phonemes>) -> Transcribe {
    let description = describe_both(config, phonemes);
    let frozen =
        if config.loss.optimal_transport.trains_text() { Vec::new() } else { vec![TEXT_ENCODER.to_owned()] };
    let part = TrainedPart { frozen, lora: None };
    let params = Params::seeded(config.seed, &Device::Cpu).with_part(part);
    let heard = match phonemes {
        Some(phonemes) => CtcVocabulary::of_tokens(&(0..phonemes.symbols().len() as u32).collect::<Vec<_>>()),
        None => ctc_vocabulary(&description, &cuts(folder, 20), None).unwrap(),
    };
    Transcribe::new(params, description, &config.loss, config.seed, heard, None, |live| {
        let recordings = Recordings::new(spelled(folder, 8), None, live.clone(), 0);
        let recordings = recordings.with_phonemes(phonemes.cloned());
        HeldOut::new(recordings, &config.join, &config.evaluate, limits(), config.seed)
    })
    .unwrap()
}

fn corpus_of(folder: &Path, config: &RunConfig, task: &Transcribe, phonemes: Option<&Phonemes>) -> Corpus {
    let recordings = Recordings::new(spelled(folder, 20), None, task.live().clone(), 1 << 20);
    let augmenter = Augmenter::new(config.augment.clone(), Sources::default()).unwrap();
    let capacity = Capacity { limits: limits(), memory: None };
    let recordings = recordings.with_phonemes(phonemes.cloned());
    Corpus::new(recordings, Vec::new(), config, augmenter, &capacity, task.description(), &Device::Cpu)
        .unwrap()
        .0
}

fn loss_of(architecture: &str) -> &'static str {
    match architecture {
        "parakeet_ctc" => "loss.cross_entropy.weight=0.0",
        _ => "loss.cross_entropy.weight=1.0",
    }
}

/// candle drops some without an error; a part's loss depends on nothing but its own rows.
#[test]
fn every_parameter_of_both_encoders_has_a_gradient_and_parts_are_as_good_as_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in ["whisper", "canary", "parakeet_ctc"] {
        let pass = |n_parts: usize| {
            let settings = [
                format!("model.architecture={architecture}"),
                format!("train.parts={n_parts}"),
                loss_of(architecture).to_owned(),
            ];
            let config = with_text_encoder(&settings.each_ref().map(String::as_str));
            let task = task_of(folder.path(), &config, None);
            let corpus = corpus_of(folder.path(), &config, &task, None);
            let batch = corpus.heaviest(0).unwrap();
            let parts = corpus.load(Position { epoch: 0, batch }).unwrap().parts;
            let vars = task.vars();
            let pass = Workers::new(n_parts).unwrap().run(&task, &[parts], &vars).unwrap();
            (pass, vars)
        };
        let (whole, vars) = pass(1);
        let is_of_text = |name: &str| name.starts_with(TEXT_ENCODER);
        assert!(vars.iter().any(|(name, _)| is_of_text(name)), "{architecture}");
        let missing: Vec<_> = whole.gradients.missing().into_iter().map(|place| &vars[place].0).collect();
        assert!(missing.is_empty(), "{architecture}: {missing:?} have no gradient");
        let term = |pass: &Pass| pass.terms.iter().find(|(name, _)| *name == "optimal_transport").unwrap().1;
        let (one, two) = (term(&whole), term(&pass(2).0));
        // The others are normalised by their part.
        if architecture == "whisper" {
            assert!((one - two).abs() < 1e-4 * one, "{one} and {two}");
        }
        assert!(one > 0.0);
    }
}

#[test]
fn an_encoder_of_texts_that_is_frozen_or_only_measures_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for settings in [
        ["loss.optimal_transport.freeze_text=true", "loss.optimal_transport.weight=0.1"],
        ["loss.optimal_transport.freeze_text=false", "loss.optimal_transport.weight=0.0"],
    ] {
        let config = with_text_encoder(&settings);
        let task = task_of(folder.path(), &config, None);
        assert!(task.vars().iter().all(|(name, _)| !name.starts_with(TEXT_ENCODER)));
        // How far the sides are from each other is told all the same, and it is kept.
        let figures = task.evaluate().unwrap();
        for name in [
            "speech_text_distance",
            "speech_text_features",
            "speech_text_positions",
            "speech_spread",
            "text_spread",
        ] {
            assert!(figures.get(name).is_some_and(|value| value.is_finite()), "{name}: {figures:?}");
        }
        assert_eq!(figures.contains_key("optimal_transport"), config.loss.optimal_transport.weight > 0.0);
        let dir = tempfile::tempdir().unwrap();
        task.write_bundle(dir.path(), WeightDtype::F32).unwrap();
        let bundle = Bundle::open(dir.path()).unwrap();
        assert!(bundle.has_part(Part::TextEncoder) && bundle.has_part(Part::Encoder));
    }
}

/// Alone, optimal transport is least where all states are the same; CTC keeps them apart.
#[test]
fn what_only_wants_to_be_near_collapses_and_ctc_keeps_it_from_that() {
    let folder = tempfile::tempdir().unwrap();
    let spread_after = |ctc: f64| {
        let config = with_text_encoder(&[
            "model.architecture=canary",
            "loss.cross_entropy.weight=0.0",
            &format!("loss.ctc.weight={ctc}"),
            "loss.optimal_transport.weight=1.0",
            "optimizer.learning_rate=1e-2",
            "train.parts=1",
        ]);
        let task = task_of(folder.path(), &config, None);
        let corpus = corpus_of(folder.path(), &config, &task, None);
        let before = task.evaluate().unwrap();
        let mut optimizer = AdamW::new(&config.optimizer, task.vars()).unwrap();
        let workers = Workers::new(1).unwrap();
        for step in 0..60u64 {
            let at = Position { epoch: step / 4, batch: step as usize % 4 % corpus.n_batches(0) };
            let parts = corpus.load(at).unwrap().parts;
            let pass = workers.run(&task, &[parts], optimizer.vars()).unwrap();
            optimizer.step(&pass.gradients, 1.0, step + 1, 1e-2).unwrap();
            task.follow(true).unwrap();
        }
        (before, task.evaluate().unwrap())
    };
    let (before, alone) = spread_after(0.0);
    let (_, together) = spread_after(10.0);
    assert!(alone["speech_text_distance"] < 0.2 * before["speech_text_distance"], "{before:?} {alone:?}");
    assert!(alone["speech_spread"] < 0.3 * together["speech_spread"], "{alone:?} {together:?}");
    // Nothing is read where nobody learns to.
    assert!(!alone.contains_key("wer") && together.contains_key("wer"));
}

#[test]
fn an_encoder_may_be_held_against_phonemes() {
    let folder = tempfile::tempdir().unwrap();
    let phonemes = Phonemes::of_cuts(&spelled(folder.path(), 20)).unwrap();
    let config = with_text_encoder(&["target.unit=phonemes", "loss.cross_entropy.weight=0.0"]);
    let task = task_of(folder.path(), &config, Some(&phonemes));
    let corpus = corpus_of(folder.path(), &config, &task, Some(&phonemes));
    let parts = corpus.load(Position { epoch: 0, batch: 0 }).unwrap().parts;
    let texts: Vec<_> = parts.iter().flat_map(|batch| &batch.texts).map(|ids| phonemes.spell(ids)).collect();
    assert!(
        texts.iter().all(|text| text.is_empty() || WORDS.contains(&&*text.replace(' ', ""))),
        "{texts:?}"
    );
    assert!(texts.iter().any(|text| !text.is_empty()));
    let pass = Workers::new(2).unwrap().run(&task, &[parts], &task.vars()).unwrap();
    assert_eq!(pass.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ctc", "optimal_transport"]);
    let figures = task.evaluate().unwrap();
    assert!(figures.contains_key("per") && !figures.contains_key("wer"), "{figures:?}");
}

#[test]
fn without_an_encoder_of_texts_there_is_nothing_to_be_moved_onto() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["loss.optimal_transport.weight=0.1"]);
    let params = Params::seeded(1, &Device::Cpu);
    let refused =
        Transcribe::new(params, description(), &config.loss, 1, CtcVocabulary::of([1]), None, |live| {
            let recordings = Recordings::new(cuts(folder.path(), 2), None, live.clone(), 0);
            HeldOut::new(recordings, &config.join, &config.evaluate, limits(), 1)
        });
    let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("loss.optimal_transport.weight"), "{message}");
}

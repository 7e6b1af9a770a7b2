//! On a language whose words are those of another one in the opposite order.

use candle_core::Device;
use models::{NewConformer, NewVocabulary, NewWhisper, Part, TextEncoderConfig, TextUnit};

use super::*;
use crate::config::ModelKind;
use crate::loader::{Position, Source as _};
use crate::optim::AdamW;
use crate::pass::Workers;
use crate::task::Data as _;

const WORDS: [(&str, &str); 4] = [("one", "یو"), ("two", "دوه"), ("red", "سور"), ("cat", "پیشو")];

fn cut(index: usize, text: &str, translation: Option<&str>) -> Cut {
    Cut {
        id: index.to_string().into(),
        audio: Path::new("").into(),
        start_secs: 0.0,
        duration_secs: 0.0,
        channel: None,
        text: text.into(),
        language: Some("en".into()),
        speaker: None,
        target_text: translation.map(Into::into),
        target_language: translation.map(|_| "ps".into()),
        extra: None,
    }
}

fn cuts(n: usize) -> Vec<Cut> {
    let words = |index: usize| [index % 4, index / 4 % 4, index / 16 % 4].map(|word| WORDS[word]);
    (0..n)
        .map(|index| {
            let words = &words(index)[..1 + index % 3];
            let said: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let written: Vec<_> = words.iter().rev().map(|(_, word)| *word).collect();
            cut(index, &said.join(" "), Some(&written.join(" ")))
        })
        .collect()
}

fn describe(kind: ModelKind) -> Description {
    let texts: Vec<_> = cuts(64)
        .into_iter()
        .flat_map(|cut| [format!(" {}", cut.text), format!(" {}", cut.target_text.unwrap_or_default())])
        .collect();
    let vocabulary = NewVocabulary {
        n_text_tokens: 300,
        unit: TextUnit::Pieces,
        languages: ["en", "ps"].map(str::to_owned).to_vec(),
        window_secs: 2.0,
    };
    let name = "words".to_owned();
    let description = match kind {
        ModelKind::Whisper => NewWhisper {
            name,
            d_model: 32,
            n_heads: 2,
            encoder_layers: 1,
            decoder_layers: 1,
            n_mels: 80,
            max_target_positions: 24,
            variable_length: true,
            beam_size: 1,
            vocabulary,
        }
        .describe(&texts),
        _ => NewConformer {
            name,
            d_model: 32,
            n_heads: 2,
            encoder_layers: 1,
            decoder_layers: if kind == ModelKind::Canary { 1 } else { 0 },
            n_mels: 80,
            subsampling: 4,
            conv_channels: 8,
            conv_kernel: 5,
            attention_context: None,
            max_target_positions: 24,
            beam_size: 1,
            vocabulary,
        }
        .describe(&texts),
    };
    let description = description.unwrap();
    let text_encoder = TextEncoderConfig {
        num_hidden_layers: 1,
        num_attention_heads: 2,
        hidden_size: 32,
        intermediate_size: 64,
        vocab_size: description.architecture().n_vocab(),
        max_position_embeddings: 24,
        phonemes: Vec::new(),
    };
    description.with_text_encoder(Some(&text_encoder)).unwrap()
}

fn config(settings: &[&str]) -> RunConfig {
    let usual = [
        "task=translate_text",
        "data.train=[\"pairs.jsonl\"]",
        "sampler.batch_tokens=150",
        "sampler.n_duration_buckets=3",
        "sampler.n_token_buckets=0",
        "optimizer.learning_rate=5e-3",
        "evaluate.normaliser=none",
    ];
    let all: Vec<_> = usual.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
    RunConfig::load(None, &all).unwrap()
}

fn new(config: &RunConfig, train: Vec<Cut>) -> Result<(TranslateText, Corpus, LeftOut), Error> {
    let texts = Texts { train, weights: Vec::new(), dev: cuts(24) };
    let params = Params::seeded(config.seed, &Device::Cpu);
    TranslateText::new(params, describe(ModelKind::Canary), config, texts, None)
}

#[test]
fn every_parameter_has_a_gradient_and_parts_are_as_good_as_the_whole() {
    let pass = |n_parts: usize| {
        let config = config(&[&format!("train.parts={n_parts}")]);
        let (task, corpus, _) = new(&config, cuts(48)).unwrap();
        let batch = corpus.heaviest(0).unwrap();
        let parts = corpus.load(Position { epoch: 0, batch }).unwrap().parts;
        assert_eq!(parts.len(), n_parts);
        let vars = task.vars();
        let pass = Workers::new(n_parts).unwrap().run(&task, &[parts], &vars).unwrap();
        let missing: Vec<_> = pass.gradients.missing().into_iter().map(|place| &vars[place].0).collect();
        assert!(missing.is_empty(), "{missing:?} have no gradient");
        pass
    };
    let (whole, divided) = (pass(1), pass(2));
    assert!((whole.loss - divided.loss).abs() < 1e-5 * whole.loss, "{} {}", whole.loss, divided.loss);
    assert_eq!(whole.extent.n_cuts, divided.extent.n_cuts);
    assert!(whole.extent.padded_tokens >= divided.extent.padded_tokens);
}

#[test]
fn a_batch_holds_each_pair_with_its_prompt_which_is_given() {
    let config = config(&["train.parts=1"]);
    let (task, corpus, _) = new(&config, cuts(48)).unwrap();
    let n_batches = corpus.n_batches(0);
    let batches: Vec<_> =
        (0..n_batches).flat_map(|batch| corpus.load(Position { epoch: 0, batch }).unwrap().parts).collect();
    assert_eq!(batches.iter().map(|batch| batch.extent.n_cuts).sum::<usize>(), 48);
    let end = task.live.special_tokens().end;
    let (prompt, _) = task.live.prompt(Some("en"), Some("ps")).unwrap();
    for batch in &batches {
        assert!(batch.texts.iter().all(|text| text.last() == Some(&end)));
        let ids = batch.ids.to_vec2::<u32>().unwrap();
        let u = ids[0].len();
        for (row, ids) in ids.iter().enumerate() {
            assert_eq!(ids[..prompt.len()], prompt);
            let weights = &batch.weights[row * u..(row + 1) * u];
            let first = weights.iter().position(|weight| *weight > 0.0).unwrap();
            let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap();
            // The first word is learnt after the last token of the prompt, and at last the end.
            assert_eq!((first, batch.labels[row * u + last]), (prompt.len() - 1, end));
            assert!(weights[first..=last].iter().all(|weight| *weight == 1.0));
        }
    }
    assert_ne!(corpus.padding(0).unwrap().padding.total().n_items, 0);
}

#[test]
fn words_and_their_order_are_learnt_and_what_is_written_is_scored() {
    let config = config(&[]);
    let (task, corpus, left_out) = new(&config, cuts(64)).unwrap();
    assert_eq!((left_out, left_out.notes()), (LeftOut::default(), Vec::new()));
    let before = task.evaluate().unwrap();
    let mut optimizer = AdamW::new(&config.optimizer, task.vars()).unwrap();
    let workers = Workers::new(2).unwrap();
    let mut at = Position::default();
    for step in 1..=600 {
        let parts = corpus.load(at).unwrap().parts;
        let pass = workers.run(&task, &[parts], optimizer.vars()).unwrap();
        optimizer.step(&pass.gradients, 1.0, step, 5e-3).unwrap();
        at = at.after(1, &corpus);
    }
    let after = task.evaluate().unwrap();
    assert!(after["cross_entropy"] < 0.3 && before["cross_entropy"] > 3.0, "{before:?} {after:?}");
    assert!(after["chrf"] > 90.0 && after["wer"] < 0.1, "{after:?}");
    // Together as alone, with several hypotheses as with one.
    let texts: Vec<_> = task.held_out.iter().map(|pair| pair.text.clone()).collect();
    let prompts: Vec<_> = task.held_out.iter().map(|pair| pair.prompt.clone()).collect();
    let together = task.live.write(&texts, &prompts, Some(1), &|| true).unwrap();
    for (row, written) in together.iter().enumerate() {
        let alone = task.live.write(&texts[row..=row], &prompts[row..=row], Some(1), &|| true).unwrap();
        assert_eq!(alone[0].as_ref().unwrap(), written.as_ref().unwrap());
    }
    assert!(task.live.write(&texts, &prompts, Some(3), &|| true).is_ok());
    assert!(matches!(task.live.write(&texts, &prompts, None, &|| false), Err(models::Error::Cancelled)));
    // What is kept is a model that has not learnt to hear.
    let dir = tempfile::tempdir().unwrap();
    task.write_bundle(dir.path(), WeightDtype::F32).unwrap();
    let bundle = models::Bundle::open(dir.path()).unwrap();
    let has = [Part::Encoder, Part::TextEncoder, Part::Decoder].map(|part| bundle.has_part(part));
    assert_eq!(has, [false, true, true]);
    let refused = models::Transcriber::load(bundle, &Device::Cpu).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|message| message.contains("has not learnt to hear")));
    let kept = TextModel::load(models::Bundle::open(dir.path()).unwrap(), &Device::Cpu).unwrap();
    let again = kept.write(&texts[..1], &prompts[..1], Some(1), &|| true).unwrap();
    assert_eq!(again[0].as_ref().unwrap(), together[0].as_ref().unwrap());
}

#[test]
fn what_cannot_be_learnt_is_left_out_or_named() {
    let usual = config(&[]);
    let long = vec!["red"; 40].join(" ");
    let rows = [cut(90, &long, Some("سور")), cut(91, "", Some("سور")), cut(92, "red", None)];
    let (_, corpus, left_out) = new(&usual, [cuts(8), rows.to_vec()].concat()).unwrap();
    assert_eq!((left_out, corpus.n_pairs()), (LeftOut { n_alone: 2, n_too_long: 1 }, 8));
    assert_eq!(left_out.notes().len(), 2);
    assert_eq!(corpus.padding(0).unwrap().padding.total().n_items, 8);
    let message = |result: Result<(TranslateText, Corpus, LeftOut), Error>| {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let none = message(new(&usual, vec![cut(0, "red", None)]));
    assert!(none.contains("data.train"), "{none}");
    let with_ctc = message(new(&config(&["loss.ctc.weight=0.3"]), cuts(8)));
    assert!(with_ctc.contains("loss.ctc.weight"), "{with_ctc}");
    let texts = Texts { train: cuts(8), weights: Vec::new(), dev: Vec::new() };
    let params = Params::seeded(1, &Device::Cpu);
    let no_decoder =
        message(TranslateText::new(params, describe(ModelKind::ParakeetCtc), &usual, texts, None));
    assert!(no_decoder.contains("parakeet_ctc"), "{no_decoder}");
}

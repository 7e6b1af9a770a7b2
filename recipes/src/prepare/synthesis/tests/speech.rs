//! Speech to learn from and words to judge by: what is held out stays so over all that is committed, whatever the seed.

use std::collections::{HashMap, HashSet};

use super::super::{
    held_out::{HeldOut, words},
    phrases::{of_corpus, of_grammar},
    script::{Kind, Utterance, digits_en, read_aloud},
    speech::{clauses, speech_en, words_en},
    *,
};
use crate::prepare::digits::DIGITS;

fn of(script: &[Utterance], split: Split) -> impl Iterator<Item = &Utterance> {
    script.iter().filter(move |utterance| utterance.split == split)
}

fn texts(script: &[Utterance], split: Split) -> HashSet<&str> {
    of(script, split).map(|utterance| &*utterance.spoken).collect()
}

fn kinds(script: &[Utterance], split: Split) -> HashMap<Kind, usize> {
    let mut kinds = HashMap::new();
    of(script, split).for_each(|utterance| *kinds.entry(utterance.kind).or_default() += 1);
    kinds
}

#[test]
fn what_is_committed_is_plain_english_and_has_its_licence() {
    let held_out = HeldOut::new();
    let held_out_words: HashSet<_> = held_out.words().iter().copied().collect();
    assert_eq!((held_out.words().len(), held_out_words.len()), (200, 200));
    assert!(held_out.words().is_sorted());
    for word in held_out.words() {
        assert!(
            (3..=9).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase()),
            "{word}"
        );
        assert!(!DIGITS.contains(word), "{word}");
    }
    let all: Vec<_> = clauses().collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "a clause comes twice");
    assert!((5_000..=5_300).contains(&all.len()), "{}", all.len());
    let is_plain = |c: char| c.is_ascii_lowercase() || c == ' ' || c == '\'';
    for clause in &all {
        assert!(clause.trim_end_matches('?').chars().all(is_plain), "{clause}");
        assert!(
            (1..=14).contains(&words(clause).count()) && words(clause).all(|word| !word.is_empty()),
            "{clause}"
        );
    }
    assert!(all.iter().filter(|clause| clause.ends_with('?')).count() > 150);
    assert!(all.iter().flat_map(|clause| words(clause)).collect::<HashSet<_>>().len() > 5_000);
    assert!(!all.iter().any(|clause| words(clause).any(|word| ["dr", "ltd", "st"].contains(&word))));
    // Our own reading changes none of them, either.
    assert!(all.iter().all(|clause| models::text::spoken(clause, "en") == *clause));
    let sentences = include_str!("../../../../tts_en/sentences.txt");
    assert!(sentences.lines().take(2).any(|line| line.contains("CC0 1.0")));
}

/// Over all clauses, not only those that a script of this length has.
#[test]
fn nothing_that_is_learnt_gives_a_held_out_word_away() {
    let held_out = HeldOut::new();
    let n_given_away = clauses().filter(|clause| held_out.are_in(clause)).count();
    assert!((10..200).contains(&n_given_away), "{n_given_away}");
    for (seed, n_clips) in [(0, 8_000), (1, 40_000)] {
        let script = speech_en(seed, n_clips);
        for utterance in of(&script, Split::Train).chain(of(&script, Split::Dev)) {
            assert!(!held_out.are_in(&utterance.spoken), "{}", utterance.spoken);
        }
    }
    // Clauses that have one are in test, as far as it goes.
    let script = speech_en(0, 40_000);
    let test = texts(&script, Split::Test);
    assert!(clauses().filter(|clause| held_out.are_in(clause)).all(|clause| test.contains(clause)));
}

#[test]
fn no_text_of_dev_or_test_is_learnt_whatever_the_seed() {
    let (script, other) = (speech_en(3, 8_000), speech_en(4, 8_000));
    assert_eq!(script, speech_en(3, 8_000));
    assert_ne!(script, other);
    // A shorter script is a part of a longer one.
    let ids: HashSet<_> = script.iter().map(Utterance::id).collect();
    assert_eq!(ids.len(), script.len());
    assert!(speech_en(3, 800).iter().all(|utterance| ids.contains(&utterance.id())));
    assert!((7_950..=8_000).contains(&script.len()), "{}", script.len());
    for scripts in [[&script, &script], [&script, &other], [&other, &script]] {
        for held_out in [Split::Dev, Split::Test] {
            let both = texts(scripts[0], Split::Train);
            let both = both.intersection(&texts(scripts[1], held_out)).copied().collect::<Vec<_>>();
            assert!(both.is_empty(), "{both:?}");
        }
    }
}

#[test]
fn two_voices_speak_at_their_own_rate_and_those_alone() {
    let script = speech_en(0, 8_000);
    let mut voices = HashMap::<_, usize>::new();
    for utterance in &script {
        assert_eq!((utterance.length_percent, utterance.pitch), (100, None));
        *voices.entry(utterance.voice.name()).or_default() += 1;
    }
    let mut names: Vec<_> = voices.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["espeak-ng/en-us+f3", "flite/slt"]);
    assert!(voices.values().all(|count| (3_800..=4_200).contains(count)), "{voices:?}");
    // Each text of train by one voice, each of test by both.
    assert!(texts(&script, Split::Train).len() > 6_700);
    assert_eq!(2 * texts(&script, Split::Test).len(), of(&script, Split::Test).count());

    let train = kinds(&script, Split::Train);
    assert!(train[&Kind::Sentence] > 4_500 && train[&Kind::Word] > 1_000 && train[&Kind::Number] > 450);
    assert!(of(&script, Split::Train).filter(|utterance| utterance.spoken.ends_with('?')).count() > 130);
    let test = kinds(&script, Split::Test);
    assert_eq!((test[&Kind::Word], test[&Kind::Sentence], test[&Kind::Digits]), (400, 240, 160));
    let mut lengths = HashSet::new();
    for utterance in script.iter().filter(|utterance| utterance.kind == Kind::Digits) {
        let digits: Vec<_> = utterance.spoken.split(' ').collect();
        assert!(digits.iter().all(|digit| DIGITS.contains(digit)), "{digits:?}");
        lengths.insert((utterance.split, digits.len()));
    }
    for split in [Split::Train, Split::Test] {
        assert!((1..=8).all(|length| lengths.contains(&(split, length))), "{lengths:?}");
    }
    let numbers = script.iter().filter(|utterance| utterance.kind == Kind::Number);
    assert!(
        numbers.clone().all(|utterance| !utterance.spoken.contains(|c: char| c.is_ascii_digit() || c == ','))
    );
    assert!(numbers.clone().any(|utterance| utterance.spoken.contains("thousand")));
}

#[test]
fn no_other_set_is_spoken_by_the_voices_that_synthesis_is_learnt_from() {
    let learnt = Voice::learnt().map(|voice| voice.name());
    let text: String = clauses().take(200).map(|clause| format!("{clause}\n")).collect();
    for script in [
        digits_en(0, 4_000),
        of_grammar(0, 2_000).expect("sentences"),
        of_corpus(0, 4_000).expect("phrases"),
        words_en(0, 16_000),
        read_aloud(&text, "en-us", 10, 0, 4_000),
    ] {
        assert!(script.len() > 150);
        for utterance in &script {
            let name = utterance.voice.name();
            assert!(!learnt.contains(&name) && !name.ends_with("slt") && !name.ends_with("+f3"), "{name}");
        }
    }
}

#[test]
fn a_recogniser_of_words_hears_the_held_out_words_among_many_others() {
    let script = words_en(5, 16_000);
    assert_eq!(script, words_en(5, 16_000));
    assert_ne!(script, words_en(6, 16_000));
    assert!(script.len() > 15_900, "{}", script.len());
    let train = texts(&script, Split::Train);
    let single: HashSet<_> = train.iter().copied().filter(|text| !text.contains(' ')).collect();
    assert!(HeldOut::new().words().iter().all(|word| single.contains(word)));
    assert!(DIGITS.iter().all(|word| single.contains(word)));
    assert!(single.len() > 2_200, "{}", single.len());
    assert!(script.iter().all(|utterance| (1..=4).contains(&utterance.spoken.split(' ').count())));
    assert!(script.iter().all(|utterance| !utterance.spoken.ends_with('?')));
    // Words in test alone are in nothing else, and each kind is there.
    let unseen = of(&script, Split::Test).filter(|utterance| utterance.kind == Kind::Unseen);
    let unseen: HashSet<_> =
        unseen.map(|utterance| &*utterance.spoken).filter(|text| !text.contains(' ')).collect();
    assert!(unseen.len() > 40, "{}", unseen.len());
    let learnt = of(&script, Split::Train).chain(of(&script, Split::Dev));
    for utterance in learnt {
        assert!(utterance.kind == Kind::Word || utterance.kind == Kind::Phrase, "{utterance:?}");
        assert!(utterance.spoken.split(' ').all(|word| !unseen.contains(word)), "{}", utterance.spoken);
    }
    for split in Split::ALL {
        let listed: HashSet<_> = Voice::all(split, None).iter().map(Voice::name).collect();
        assert!(of(&script, split).all(|utterance| listed.contains(&utterance.voice.name())));
        let kinds = kinds(&script, split);
        assert!(kinds[&Kind::Word] > 500 && kinds[&Kind::Phrase] > 400, "{kinds:?}");
    }
}

#[test]
fn voices_speak_as_they_do_by_themselves() {
    if let Err(error) = Programs::find(&Voice::learnt(), None) {
        #[expect(clippy::print_stdout, reason = "tests print what they skip")]
        {
            println!("skipped: {error}");
        }
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let options = SynthesisOptions { n_clips: 20, ..SynthesisOptions::new(Set::SpeechEn) };
    let splits = synthesize(&options, folder.path(), &|_, _| {}).expect("spoken");
    let cuts: Vec<_> = splits.values().flatten().collect();
    assert_eq!((cuts.len(), splits.len()), (20, 3));
    for cut in &cuts {
        assert!(cut.has_audio() && cut.duration_secs > 0.2 && cut.duration_secs < 12.0, "{cut:?}");
        assert!(["flite/slt", "espeak-ng/en-us+f3"].contains(&cut.speaker.as_deref().unwrap_or_default()));
    }
    // As the program itself does without any flag.
    let cut = cuts.iter().find(|cut| cut.speaker.as_deref() == Some("flite/slt")).expect("one of flite's");
    let path = folder.path().join("own.wav");
    let mut command = std::process::Command::new("flite");
    command.args(["-voice", "slt", "-t", &cut.text]).arg("-o").arg(&path);
    run(&mut command, "flite").expect("spoken");
    let own = decode_file(&path, &DecodeAudio::default()).expect("a recording").waveform;
    let ours = decode_file(&cut.audio, &DecodeAudio::default()).expect("a recording").waveform;
    let own = resample(&own, SAMPLE_RATE).expect("resampled").samples;
    assert_eq!(ours.samples.len(), own.len());
    assert!(ours.samples.iter().zip(&own).all(|(one, other)| (one - other).abs() < 1e-4));
}

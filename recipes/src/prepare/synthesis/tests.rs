//! The script and its voices; the programs, where they are installed.

mod phrases;
mod speech;

use std::{collections::HashMap, ffi::OsStr};

use super::{script::digits_en, *};
use crate::prepare::digits::DIGITS;

/// What sounds like a digit or a command; "of" is no "off" within a sentence.
const HOMOPHONES: [&str; 13] =
    ["won", "to", "too", "for", "fore", "ate", "know", "write", "rite", "stopped", "knows", "oh", "nein"];

#[test]
fn the_voices_that_judge_synthesis_are_never_heard() {
    let voices = |split| Voice::all(split, None).iter().map(Voice::name).collect::<Vec<_>>();
    let [train, dev, test] = Split::ALL.map(voices);
    assert!(train.len() > 300 && dev.len() == 10, "{} {}", train.len(), dev.len());
    assert_eq!((test.len(), voices(Split::Text).len()), (10, 0));
    for name in train.iter().chain(&dev).chain(&test) {
        assert!(!name.contains("slt") && !name.contains("f3"), "{name}");
    }
    // No variant of a split is in another, whatever its accent.
    let variant = |name: &String| name.rsplit_once('+').map(|(_, variant)| variant.to_owned());
    for (one, other) in [(&train, &dev), (&train, &test), (&dev, &test)] {
        assert!(one.iter().all(|name| !other.iter().any(|other| variant(other) == variant(name))));
    }
    // What is drawn is what is listed.
    for utterance in digits_en(3, 4_000) {
        let listed = if utterance.split == Split::Dev { &dev } else { &train };
        assert!(listed.contains(&utterance.voice.name()), "{utterance:?}");
    }
}

#[test]
fn unknown_words_are_no_digits_and_no_commands() {
    let (commands, unknown) = (script::commands(), script::unknown());
    assert_eq!((commands.len(), unknown.len()), (36, 251));
    for list in [&commands, &unknown] {
        let distinct: std::collections::HashSet<_> = list.iter().collect();
        assert_eq!(distinct.len(), list.len(), "a line comes twice");
    }
    for phrase in unknown {
        for word in phrase.split(' ') {
            let word = word.to_lowercase();
            let is_known = [&DIGITS[..], &commands, &HOMOPHONES].iter().any(|list| list.contains(&&*word));
            assert!(!is_known, "{phrase}");
        }
    }
    assert!(commands.iter().all(|command| !DIGITS.contains(command)));
}

#[test]
fn a_script_is_its_seed_and_every_word_comes_equally_often() {
    let script = digits_en(7, 3_600);
    assert_eq!(script, digits_en(7, 3_600));
    assert_ne!(script, digits_en(8, 3_600));
    assert!((3_590..=3_600).contains(&script.len()), "{}", script.len());
    // A shorter script is a part of a longer one.
    let ids: std::collections::HashSet<_> = script.iter().map(Utterance::id).collect();
    assert_eq!(ids.len(), script.len());
    assert!(digits_en(7, 360).iter().all(|utterance| ids.contains(&utterance.id())));
    let mut counts = HashMap::<(Split, Kind, &str), usize>::new();
    let mut digits = HashMap::<&str, usize>::new();
    let mut by_length = [0; 9];
    for utterance in &script {
        if utterance.kind == Kind::Digits {
            let words: Vec<_> = utterance.text().split(' ').collect();
            by_length[words.len()] += 1;
            words.iter().for_each(|word| *digits.entry(word).or_default() += 1);
        } else {
            *counts.entry((utterance.split, utterance.kind, &utterance.spoken)).or_default() += 1;
        }
        assert_eq!(utterance.text().is_empty(), utterance.kind == Kind::Unknown);
    }
    assert_eq!((by_length[0], digits.len()), (0, 10));
    assert!(by_length[1..].iter().all(|n| (180..=195).contains(n)), "{by_length:?}");
    assert!(digits.values().all(|n| (560..=800).contains(n)), "{digits:?}");
    let range = |split, kind| {
        let counts = counts.iter().filter(|(key, _)| (key.0, key.1) == (split, kind));
        let counts: Vec<_> = counts.map(|(_, count)| *count).collect();
        (counts.len(), counts.iter().copied().min(), counts.iter().copied().max())
    };
    assert_eq!(range(Split::Train, Kind::Command), (36, Some(21), Some(22)));
    assert_eq!(range(Split::Dev, Kind::Command), (36, Some(2), Some(3)));
    let alone = |line: &&str| counts.contains_key(&(Split::Train, Kind::Unknown, *line));
    assert!(script::unknown().iter().all(alone));
    assert!(range(Split::Train, Kind::Unknown).0 > 700);
}

#[test]
fn a_text_is_read_in_pieces_by_voices_of_its_language() {
    let line = |n: u8| format!("{0} aa bb cc dd ee ff {0}", char::from(b'g' + n % 20));
    let lines: Vec<_> = (0..30).map(line).collect();
    let text = format!("\u{feff}{}\nin 1984 nobody\n\n-- ...\n- [[foo]]\n", lines.join("\n"));
    let read = |n_clips| script::read_aloud(&text, "ur", 5, 3, n_clips);
    let script = read(1000);
    // Eight words are two pieces of four; ten lines come twice, and what is read twice is read once.
    assert_eq!(script.len(), 41);
    assert_eq!((&*script[0].spoken, &*script[40].spoken), ("g aa bb cc", "- foo"));
    assert!(script[..40].iter().all(|utterance| utterance.spoken.split(' ').count() == 4));
    let n_dev = script.iter().filter(|utterance| utterance.split == Split::Dev).count();
    assert!((1..12).contains(&n_dev), "{n_dev}");
    assert!(script.iter().all(|utterance| utterance.voice.name().starts_with("espeak-ng/ur+")));
    // Fewer are spread over the text, and read as they were.
    let few = [0, 10, 20, 30].map(|at| script[at].clone());
    assert_eq!((read(1000), read(4).as_slice()), (script, few.as_slice()));
}

#[test]
fn what_is_missing_is_named_with_the_way_to_get_it() {
    let missing = OsStr::new("no-such-synthesiser");
    let voices = Voice::of_splits(&Split::ALL, None);
    let message =
        Programs::find_as(missing, missing, &voices, None).err().expect("it is not there").to_string();
    assert_eq!(message, "no-such-synthesiser: is not there; to get it: apt-get install espeak-ng flite");
    // A program that runs and knows no voices.
    let silent = OsStr::new("true");
    let message =
        Programs::find_as(silent, silent, &voices, None).err().expect("it has no voices").to_string();
    assert!(message.starts_with("true: lacks the voice espeak-ng/en-029+Alex"), "{message}");
    for (n_clips, words) in [
        (3, "3 recordings are too few"),
        (1_000_001, "too many; from 20 to 1000000"),
        (usize::MAX, "too many"),
    ] {
        let options = SynthesisOptions { set: Set::DigitsEn, seed: 0, n_clips };
        let message =
            synthesize(&options, Path::new("/nowhere"), &|_, _| {}).expect_err("refused").to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn recordings_are_made_once_and_the_same_again() {
    if let Err(error) = Programs::find(&Voice::of_splits(&Split::ALL, None), None) {
        #[expect(clippy::print_stdout, reason = "tests print what they skip")]
        {
            println!("skipped: {error}");
        }
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let options = SynthesisOptions { set: Set::DigitsEn, seed: 1, n_clips: 40 };
    let made = AtomicUsize::new(0);
    let run = |name: &str| {
        synthesize(&options, &folder.path().join(name), &|done, _| {
            made.fetch_max(done, Ordering::Relaxed);
        })
        .expect("spoken")
    };
    let splits = run("a");
    assert_eq!(
        (splits[&Split::Train].len(), splits[&Split::Dev].len(), made.load(Ordering::Relaxed)),
        (36, 4, 40)
    );
    for cut in splits.values().flatten() {
        let decoded = decode_file(&cut.audio, &DecodeAudio::default()).expect("a recording").waveform;
        assert_eq!(decoded.sample_rate, SAMPLE_RATE);
        assert!((decoded.duration_secs() - cut.duration_secs).abs() < 1e-9);
        // A word takes a while, and is loud.
        let n_words = cut.text.split(' ').count() as f64;
        assert!(
            cut.duration_secs > 0.12 * n_words && cut.duration_secs < 1.0 + 2.0 * n_words.max(4.0),
            "{cut:?}"
        );
        assert!(decoded.samples.iter().any(|sample| sample.abs() > 0.02), "{cut:?}");
    }
    let bytes = |name: &str, cut: &Cut| {
        fs::read(folder.path().join(name).join(AUDIO_FOLDER).join(cut.audio.file_name().expect("a name")))
            .expect("read")
    };
    run("b");
    assert!(splits.values().flatten().all(|cut| bytes("a", cut) == bytes("b", cut)));
    // What is there is kept, and nothing else is left.
    let first = &splits[&Split::Train][0];
    let before = fs::metadata(&first.audio).and_then(|metadata| metadata.modified()).expect("there");
    assert_eq!(run("a"), splits);
    assert_eq!(fs::metadata(&first.audio).and_then(|metadata| metadata.modified()).expect("there"), before);
    assert_eq!(fs::read_dir(folder.path().join("a").join(AUDIO_FOLDER)).expect("listed").count(), 40);
}

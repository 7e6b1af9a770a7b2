//! Phrases: what is drawn, in which split, and that both languages are what they should be.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::{
    phrases::{corpus, of_corpus, of_grammar, texts_of_grammar},
    script::{Kind, Utterance},
    *,
};

/// The words of the grammar's English columns, as its file has them.
fn english_words() -> BTreeSet<String> {
    let grammar = include_str!("../../../../phrases_en_ps/grammar.txt");
    let (mut words, mut columns) = (BTreeSet::new(), Vec::new());
    for line in grammar.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some((_, names)) = line.trim_matches(['[', ']']).split_once(": ") {
            columns = names.split(' ').collect();
            continue;
        }
        for (cell, column) in line.split('|').zip(&columns) {
            let is_name = ["gender", "genders", "person", "verb"].contains(column);
            // What is between braces is no word.
            let words_of = |part: &str| part.rsplit('}').next().unwrap_or_default().to_owned();
            let text: String = cell.split('{').map(words_of).collect::<Vec<_>>().join(" ");
            let latin =
                text.split_whitespace().filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
            words.extend(latin.filter(|_| !is_name).map(str::to_owned));
        }
    }
    words
}

fn texts(script: &[Utterance], split: Split) -> HashSet<&str> {
    script.iter().filter(|utterance| utterance.split == split).map(|utterance| &*utterance.spoken).collect()
}

/// What is said and what is written of it in other words.
fn both_sides(script: &[Utterance], split: Split) -> HashSet<&str> {
    let translations = script.iter().filter(|utterance| utterance.split == split);
    let translations = translations.filter_map(|utterance| utterance.translation.as_deref());
    texts(script, split).into_iter().chain(translations).collect()
}

#[test]
fn no_sentence_of_dev_or_test_is_learnt_and_the_seed_decides_all_of_them() {
    let script = of_grammar(7, 2_000).expect("sentences");
    assert_eq!(script, of_grammar(7, 2_000).expect("sentences"));
    let other = of_grammar(8, 2_000).expect("sentences");
    assert_ne!(script, other);
    // A shorter script is a part of a longer one.
    let ids: HashSet<_> = script.iter().map(Utterance::id).collect();
    assert_eq!(ids.len(), script.len());
    assert!(of_grammar(7, 200).expect("sentences").iter().all(|utterance| ids.contains(&utterance.id())));
    let count = |split| script.iter().filter(|utterance| utterance.split == split).count();
    assert!(count(Split::Train) >= 1_590 && count(Split::Dev) >= 199 && count(Split::Test) >= 199);

    let written = texts_of_grammar(7).expect("texts");
    assert_eq!(written, texts_of_grammar(7).expect("texts"));
    assert_eq!(written.iter().map(|cut| &*cut.text).collect::<HashSet<_>>().len(), 20_000);
    let written: HashSet<_> =
        written.iter().flat_map(|cut| [Some(&*cut.text), cut.target_text.as_deref()]).flatten().collect();
    // Nor of any other seed, and neither side of them.
    for held_out in [Split::Dev, Split::Test] {
        for script in [&script, &other] {
            let held_out = both_sides(script, held_out);
            assert!(
                held_out.is_disjoint(&written)
                    && held_out.is_disjoint(&both_sides(&script[..], Split::Train))
            );
        }
        assert!(both_sides(&script, held_out).is_disjoint(&both_sides(&other, Split::Train)));
    }
    assert!(both_sides(&script, Split::Dev).is_disjoint(&both_sides(&other, Split::Test)));

    for split in Split::ALL {
        let listed: HashSet<_> = Voice::all(split, None).iter().map(Voice::name).collect();
        let mut spoken = script.iter().filter(|utterance| utterance.split == split);
        assert!(spoken.all(|utterance| listed.contains(&utterance.voice.name())), "{}", split.name());
    }
}

#[test]
fn sentences_have_all_words_and_a_translation_each() {
    let words = english_words();
    assert!((180..=220).contains(&words.len()), "{}: {words:?}", words.len());
    let script = of_grammar(0, 4_000).expect("sentences");
    let written = texts_of_grammar(0).expect("texts");
    let spoken = script.iter().map(|utterance| (&*utterance.spoken, utterance.translation.as_deref()));
    let written = written.iter().map(|cut| (&*cut.text, cut.target_text.as_deref()));
    let (mut translations, mut heard) = (HashMap::new(), BTreeSet::new());
    for (at, (text, translation)) in spoken.chain(written).enumerate() {
        let translation = translation.expect("translated");
        assert!((3..=12).contains(&text.split(' ').count()), "{text}");
        assert!(text.split(' ').all(|word| words.contains(word)), "{text}");
        let is_pashto = |c: char| c == ' ' || ('\u{600}'..'\u{700}').contains(&c);
        assert!(!translation.is_empty() && translation.chars().all(is_pashto), "{text}: {translation}");
        assert!(translation.split(' ').all(|word| !word.is_empty()), "{text}: {translation}");
        // A text is always translated in the same way.
        assert_eq!(*translations.entry(text.to_owned()).or_insert(translation), translation, "{text}");
        if at < 3_000 {
            heard.extend(text.split(' ').map(str::to_owned));
        }
    }
    assert_eq!(heard, words, "every word is spoken in train");
    // "the" is nothing, and nothing else is left out.
    let lengths = translations.iter().filter(|(text, translation)| {
        let n_words = text.split(' ').filter(|word| *word != "the").count();
        translation.split(' ').count() + 2 < n_words
    });
    assert_eq!(lengths.count(), 0);
}

#[test]
fn words_change_their_order() {
    let script = of_grammar(0, 4_000).expect("sentences");
    let written = texts_of_grammar(0).expect("texts");
    let all = written.iter().map(|cut| (&*cut.text, cut.target_text.as_deref().unwrap_or_default()));
    let all: HashMap<_, _> = all
        .chain(
            script
                .iter()
                .map(|utterance| (&*utterance.spoken, utterance.translation.as_deref().unwrap_or_default())),
        )
        .collect();
    // Whatever is between them, the verb goes behind its object and prepositions around what they belong to.
    let ends = |text: &str, verb: &str| {
        all.iter().any(|(known, translation)| known.starts_with(text) && translation.ends_with(verb))
    };
    assert!(ends("i see the ", " وینم") && ends("they buy ", " اخلي"));
    let of = |part: &'static str| {
        all.iter().filter(move |(text, _)| text.contains(part)).map(|(_, translation)| *translation)
    };
    assert!(of(" in the garden").count() > 10 && of(" in the garden").all(|text| text.contains("په باغ کې")));
    assert!(of("twenty three ").count() > 10 && of("twenty three ").all(|text| text.contains("درې ویشت ")));
}

#[test]
fn phrases_of_the_corpus_come_in_turn_and_some_are_never_learnt() {
    let phrases = corpus().expect("phrases");
    let distinct: HashSet<_> = phrases.iter().map(|phrase| &phrase.text).collect();
    assert_eq!((phrases.len(), distinct.len()), (133, 133));
    for phrase in &phrases {
        let is_english = |c: char| c.is_ascii_lowercase() || c == ' ' || c == '\'';
        assert!(phrase.text.chars().all(is_english), "{phrase:?}");
        assert!((2..=8).contains(&phrase.text.split(' ').count()), "{phrase:?}");
        let is_pashto = |c: char| matches!(c, ' ' | '\u{200c}') || ('\u{620}'..'\u{700}').contains(&c);
        assert!(
            phrase.translation.chars().all(is_pashto) && !phrase.translation.trim().is_empty(),
            "{phrase:?}"
        );
    }
    let script = of_corpus(3, 4_000).expect("phrases");
    assert_eq!(script, of_corpus(3, 4_000).expect("phrases"));
    assert_ne!(script, of_corpus(4, 4_000).expect("phrases"));
    assert!(script.len() > 3_980, "{}", script.len());
    let [train, dev, test] = Split::ALL.map(|split| texts(&script, split));
    assert!(train == dev && train.is_subset(&test) && test.len() == 133);
    let unseen: HashSet<_> = test.difference(&train).copied().collect();
    assert!((9..=18).contains(&unseen.len()), "{}", unseen.len());
    let mut counts = HashMap::<_, HashSet<_>>::new();
    for utterance in &script {
        assert_eq!(utterance.kind == Kind::Unseen, unseen.contains(&*utterance.spoken), "{utterance:?}");
        let voices = counts.entry((utterance.split, &*utterance.spoken)).or_default();
        voices.insert(utterance.voice.name());
    }
    let least = |split| counts.iter().filter(|(key, _)| key.0 == split).map(|(_, voices)| voices.len()).min();
    assert!(least(Split::Train) >= Some(15), "{:?}", least(Split::Train));
}

#[test]
fn texts_take_no_programs_and_other_sets_have_none() {
    let options = SynthesisOptions::new(Set::PhrasesEnPs);
    assert_eq!(options.n_clips, 4_000);
    let parts = super::super::texts(&options).expect("texts");
    assert_eq!(parts.keys().copied().collect::<Vec<_>>(), [Split::Text]);
    let cut = &parts[&Split::Text][0];
    assert!(!cut.has_audio() && cut.duration_secs == 0.0);
    assert_eq!((cut.language.as_deref(), cut.target_language.as_deref()), (Some("en"), Some("ps")));
    assert!(super::super::texts(&SynthesisOptions::new(Set::DigitsEn)).expect("none").is_empty());
}

#[test]
fn phrases_are_spoken_with_their_translations() {
    if let Err(error) = Programs::find(&Voice::of_splits(&Split::ALL, None), None) {
        #[expect(clippy::print_stdout, reason = "tests print what they skip")]
        {
            println!("skipped: {error}");
        }
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let options = SynthesisOptions { n_clips: 20, ..SynthesisOptions::new(Set::PhrasesEnPs) };
    let splits = synthesize(&options, folder.path(), &|_, _| {}).expect("spoken");
    let counts: Vec<_> = splits.iter().map(|(split, cuts)| (split.name(), cuts.len())).collect();
    assert_eq!(counts, [("train", 16), ("dev", 2), ("test", 2), ("text", 20_000)]);
    for cut in Split::ALL.iter().flat_map(|split| &splits[split]) {
        assert!(cut.has_audio() && cut.duration_secs > 0.5, "{cut:?}");
        assert_eq!((cut.language.as_deref(), cut.target_language.as_deref()), (Some("en"), Some("ps")));
        assert!(
            cut.target_text.is_some() && cut.extra.as_ref().is_some_and(|extra| extra["kind"] == "phrase")
        );
    }
}

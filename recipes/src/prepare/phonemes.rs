//! Phonemes of what is said, by espeak-ng: what an encoder may be held against in the place of letters.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::Value;

use super::synthesis::{check_voice, run};
use crate::data::manifest::{Cut, Error};
use crate::data::phonemes::KEY;

/// The program.
const ESPEAK: &str = "espeak-ng";
/// Before the first phoneme of a word.
const WORD_START: char = '▁';

/// Adds the phonemes of each cut's text, separated by spaces, the first of a word marked, without stress and punctuation. `voice` is
/// espeak-ng's; without one it is that of the cut's language, or of `language` where it states none. `progress` hears how many of how many
/// texts are done, from several threads.
///
/// # Errors
/// espeak-ng is not there, or does not speak a language; a cut of no language.
pub fn add_phonemes(
    cuts: &mut [Cut],
    voice: Option<&str>,
    language: Option<&str>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(), Error> {
    let voice_of = |cut: &Cut| {
        let named = voice.or(cut.language.as_deref()).or(language);
        let missing = || Error::Corpus(format!("{} states no language: name one, or a voice", cut.id));
        named.map(str::to_owned).ok_or_else(missing)
    };
    let mut texts = BTreeSet::new();
    for cut in cuts.iter().filter(|cut| !cut.text.trim().is_empty()) {
        texts.insert((voice_of(cut)?, cut.text.clone()));
    }
    let voices: BTreeSet<&str> = texts.iter().map(|(voice, _)| voice.as_str()).collect();
    voices.into_iter().try_for_each(|voice| check_voice(ESPEAK.as_ref(), voice))?;
    let (total, done) = (texts.len(), AtomicUsize::new(0));
    progress(0, total);
    let spelled = texts.into_par_iter().map(|(voice, text)| {
        let mut command = Command::new(ESPEAK);
        // What espeak-ng takes for phonemes is none here.
        let spoken = text.replace(['[', ']'], " ");
        // A text may begin with a dash.
        command.args(["-q", "--ipa", "--sep= ", "-v", &voice, "--", &spoken]);
        let said = run(&mut command, ESPEAK)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Ok(((voice, text), spelling(&String::from_utf8_lossy(&said.stdout))))
    });
    let spelled = spelled.collect::<Result<BTreeMap<_, _>, Error>>()?;
    for cut in cuts.iter_mut().filter(|cut| !cut.text.trim().is_empty()) {
        let phonemes = spelled.get(&(voice_of(cut)?, cut.text.clone())).cloned().unwrap_or_default();
        cut.extra.get_or_insert_default().insert(KEY.to_owned(), Value::from(phonemes));
    }
    Ok(())
}

/// What espeak-ng writes as we keep it: a clause to a line, words with two spaces between them, stress before vowels, and other languages'
/// codes in brackets.
fn spelling(said: &str) -> String {
    let mut phonemes: Vec<String> = Vec::new();
    for word in said.lines().flat_map(|line| line.split("  ")) {
        let mut starts = true;
        for phoneme in word.split_whitespace().filter(|phoneme| !phoneme.starts_with('(')) {
            let phoneme: String = phoneme.chars().filter(|c| !matches!(c, 'ˈ' | 'ˌ' | '-' | '_')).collect();
            if phoneme.is_empty() {
                continue;
            }
            phonemes.push(if starts { format!("{WORD_START}{phoneme}") } else { phoneme });
            starts = false;
        }
    }
    phonemes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_marked_and_stress_is_left_out() {
        assert_eq!(spelling("h ə l ˈoʊ  w ˈɜː l d\nw ˈʌ n  t ˈuː\n"), "▁h ə l oʊ ▁w ɜː l d ▁w ʌ n ▁t uː");
        assert_eq!(spelling("(en) h aɪ (ps)  ˌ a\n\n"), "▁h aɪ ▁a");
        assert_eq!(spelling(""), "");
    }
}

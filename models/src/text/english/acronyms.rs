//! Which words are spelled letter by letter.
//!
//! Of words in capitals: those without a vowel, those of two or three letters, and those of four that could be no English word by
//! their consonants; but words that people stress by capitals are words. A text that is in capitals throughout has fewer acronyms.

use super::lexeme::Lexeme::{Digits, Mark, Word};
use super::lexeme::{Place, Reading, is_capitals, is_small};

/// Short words that are read as words even in capitals.
const WORDS: [&str; 83] = [
    "ALL", "AN", "AND", "ANY", "ARE", "AS", "AT", "BAD", "BE", "BIG", "BUT", "BY", "CAN", "DAY", "DID", "DO",
    "FOR", "GET", "GIF", "GO", "GOD", "GOT", "HAD", "HAS", "HE", "HER", "HIM", "HIS", "HOT", "HOW", "IF",
    "IN", "IS", "ITS", "LAN", "LET", "MAN", "MAX", "MAY", "ME", "MEN", "MY", "NET", "NEW", "NO", "NOR",
    "NOT", "NOW", "OF", "OFF", "OLD", "ON", "ONE", "OR", "OUR", "OUT", "OWN", "PIN", "RAM", "ROM", "RUN",
    "SAY", "SEE", "SHE", "SIM", "SO", "THE", "TO", "TOO", "TOP", "TWO", "UP", "USE", "WAR", "WAS", "WAY",
    "WE", "WHY", "YES", "YET", "YOU", "ZIP", "BOX",
];

/// Longer ones that are spelled although they could be words.
const SPELLED: [&str; 8] = ["ACLU", "ASAP", "NAACP", "NCAA", "UCLA", "UNHCR", "USDA", "AARP"];

/// Consonants with which a word begins, where they are more than one.
const ONSETS: [&str; 32] = [
    "bl", "br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "kn", "ph", "pl", "pr", "sc", "sh", "sk",
    "sl", "sm", "sn", "sp", "st", "sw", "th", "tr", "tw", "wh", "wr", "scr", "str", "spr", "thr",
];

/// Consonants with which a word ends, where they are more than one.
const CODAS: [&str; 50] = [
    "bs", "ch", "ck", "cs", "ct", "ds", "dd", "ff", "ft", "gg", "gh", "gs", "ks", "ld", "lf", "lk", "ll",
    "lm", "lp", "ls", "lt", "mp", "ms", "nd", "ng", "nk", "ns", "nt", "ph", "ps", "pt", "rb", "rd", "rf",
    "rk", "rl", "rm", "rn", "rp", "rs", "rt", "sh", "sk", "sp", "ss", "st", "th", "ts", "tt", "zz",
];

/// `FBI`, `CDs`, `PhD`, the `mp` of `mp3`.
pub(super) fn acronym(place: Place<'_>) -> Option<Reading> {
    let [Word(word), ..] = place.ahead() else { return None };
    let plural = word.strip_suffix('s').filter(|stem| stem.len() > 1 && is_capitals(stem));
    let (stem, ending) = match word.strip_suffix("'s").or(word.strip_suffix("'S")).or(plural) {
        Some(stem) => (stem, "'s"),
        None => (*word, ""),
    };
    is_spelled(stem, place).then(|| Reading::new(1, format!("{}{ending}", letters(stem))))
}

/// The letters of a word, one by one.
pub(super) fn letters(word: &str) -> String {
    let letters = word.chars().map(|c| c.to_ascii_uppercase().to_string());
    letters.collect::<Vec<_>>().join(" ")
}

fn is_spelled(word: &str, place: Place<'_>) -> bool {
    if is_capitals(word) {
        // `AT&T`.
        let is_beside_and = matches!(place.ahead(), [_, Mark('&'), Word(_), ..])
            || matches!(place.behind(), [.., Word(_), Mark('&')]);
        return match word.len() {
            0 | 1 => false,
            2 | 3 if is_beside_and => true,
            _ if WORDS.contains(&word) => false,
            _ if !has_vowel(word) || SPELLED.contains(&word) => true,
            2 | 3 => !(place.is_shouted && could_be_word(word)),
            4 => !could_be_word(word),
            _ => false,
        };
    }
    let is_ascii = word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let n_capitals = word.bytes().filter(u8::is_ascii_uppercase).count();
    let is_beside_code = matches!(place.ahead(), [_, Digits(_), ..])
        || matches!(place.behind(), [.., Word(_) | Digits(_), Mark('.')]);
    (is_ascii && word.len() == 3 && n_capitals == 2) || (is_beside_code && is_code(word))
}

/// Small letters that nobody can say, such as `mp` in `mp3` and `txt` in `a.txt`.
pub(super) fn is_code(word: &str) -> bool {
    is_small(word) && (2..=4).contains(&word.len()) && !has_vowel(word)
}

fn is_vowel(c: char) -> bool {
    "aeiouy".contains(c.to_ascii_lowercase())
}

fn has_vowel(word: &str) -> bool {
    word.contains(is_vowel)
}

/// Whether the consonants of a word are as English words have them.
fn could_be_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let is_consonant = |c: char| !is_vowel(c);
    let inner = word.trim_start_matches(is_consonant);
    let onset = &word[..word.len() - inner.len()];
    let inner_end = inner.trim_end_matches(is_consonant).len();
    let (inner, coda) = inner.split_at(inner_end);
    let is_known = |consonants: &str, known: &[&str]| consonants.len() < 2 || known.contains(&consonants);
    let vowels = inner.split(is_consonant).map(str::len).max();
    let consonants = inner.split(is_vowel).map(str::len).max();
    let is_doubled = onset.is_empty() && inner.starts_with("aa");
    is_known(onset, &ONSETS)
        && is_known(coda, &CODAS)
        && vowels.is_some_and(|len| (1..=2).contains(&len))
        && consonants.is_some_and(|len| len <= 2)
        && word.len() > vowels.unwrap_or_default()
        && !is_doubled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consonants_tell_words_from_letters() {
        for word in ["NASA", "NATO", "FIFA", "OPEC", "AIDS", "UNIX", "STOP", "ONLY", "THAT", "RAID", "IKEA"] {
            assert!(could_be_word(word), "{word}");
        }
        for word in ["HTML", "IEEE", "ESPN", "OECD", "ADHD", "AARP", "IMDB", "NCAA", "ICBM"] {
            assert!(!could_be_word(word), "{word}");
        }
    }
}

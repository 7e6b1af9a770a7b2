//! Abbreviations.
//!
//! Their dot is not read. Where it ends the sentence too it stays: at the end of a paragraph, before a word that seldom follows
//! but often begins a sentence, and for `etc.` before any capital.

use super::acronyms::letters;
use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, cased, ends_sentence, is_capitalised, is_capitals, is_small};
use super::roman;

/// Before names, without a dot as well.
const TITLES: [(&str, &str); 8] = [
    ("Mr", "Mister"),
    ("Mrs", "Missus"),
    ("Ms", "Miz"),
    ("Dr", "Doctor"),
    ("Prof", "Professor"),
    ("St", "Saint"),
    ("Mt", "Mount"),
    ("Messrs", "Messieurs"),
];

/// Before names, with a dot.
const RANKS: [(&str, &str); 15] = [
    ("Gen", "General"),
    ("Col", "Colonel"),
    ("Maj", "Major"),
    ("Capt", "Captain"),
    ("Lt", "Lieutenant"),
    ("Sgt", "Sergeant"),
    ("Cpl", "Corporal"),
    ("Gov", "Governor"),
    ("Sen", "Senator"),
    ("Rep", "Representative"),
    ("Pres", "President"),
    ("Rev", "Reverend"),
    ("Hon", "Honorable"),
    ("Supt", "Superintendent"),
    ("Ft", "Fort"),
];

/// Before numbers, with a dot.
const REFERENCES: [(&str, &str); 16] = [
    ("no", "number"),
    ("nos", "numbers"),
    ("p", "page"),
    ("pp", "pages"),
    ("vol", "volume"),
    ("ch", "chapter"),
    ("fig", "figure"),
    ("figs", "figures"),
    ("sec", "section"),
    ("ext", "extension"),
    ("eq", "equation"),
    ("ver", "version"),
    ("para", "paragraph"),
    ("c", "circa"),
    ("ca", "circa"),
    ("tel", "telephone"),
];

/// Anywhere, with a dot.
const OTHERS: [(&str, &str); 35] = [
    ("St", "Street"),
    ("Dr", "Drive"),
    ("Ave", "Avenue"),
    ("Blvd", "Boulevard"),
    ("Rd", "Road"),
    ("Ln", "Lane"),
    ("Hwy", "Highway"),
    ("Jr", "Junior"),
    ("Sr", "Senior"),
    ("Inc", "Incorporated"),
    ("Ltd", "Limited"),
    ("Co", "Company"),
    ("Corp", "Corporation"),
    ("Bros", "Brothers"),
    ("Univ", "University"),
    ("Dept", "Department"),
    ("dept", "department"),
    ("govt", "government"),
    ("etc", "et cetera"),
    ("vs", "versus"),
    ("approx", "approximately"),
    ("cf", "compare"),
    ("viz", "namely"),
    ("incl", "including"),
    ("al", "al"),
    ("Jan", "January"),
    ("Feb", "February"),
    ("Apr", "April"),
    ("Aug", "August"),
    ("Sep", "September"),
    ("Sept", "September"),
    ("Oct", "October"),
    ("Nov", "November"),
    ("Dec", "December"),
    ("Mmes", "Mesdames"),
];

/// Letters with dots between them that are said as words.
const PHRASES: [(&str, &str); 4] =
    [("eg", "for example"), ("ie", "that is"), ("aka", "also known as"), ("qv", "which see")];

fn find(table: &[(&str, &'static str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(short, _)| *short == word).map(|(_, words)| *words)
}

/// `Dr. Smith`, `Mr Smith`, `Main St.`, `vol. 3`, `etc.`, `J. Smith`.
pub(super) fn abbreviation(place: Place<'_>) -> Option<Reading> {
    let [Word(word), rest @ ..] = place.ahead() else { return None };
    let has_dot = rest.first() == Some(&Mark('.'));
    let after = if has_dot { &rest[1..] } else { rest };
    let n_dot = 1 + usize::from(has_dot);
    let name = match after {
        [Space, Word(next), ..] => is_capitalised(next) && !(has_dot && ends_sentence(after)),
        // `Mr.Smith`.
        [Word(next), ..] => has_dot && is_capitalised(next),
        _ => false,
    };
    // `Rodeo Dr.` and `Main St.`, but `the Dr.`
    let is_street = *word == "St" || (*word == "Dr" && place.word_behind().is_some_and(is_capitalised));
    let is_title = name || (has_dot && !is_street) || matches!(*word, "Mr" | "Mrs");
    if is_title && let Some(title) = find(&TITLES, word) {
        return Some(Reading::new(n_dot, title));
    }
    if has_dot || matches!(*word, "No" | "Nos") {
        let number = after.strip_prefix(&[Space]).unwrap_or(after);
        if let Some(words) = reference(word, number) {
            return Some(Reading::new(n_dot, cased(words, word)));
        }
    }
    if !has_dot {
        return None;
    }
    if let Some(rank) = find(&RANKS, word).filter(|_| name) {
        return Some(Reading::new(2, rank));
    }
    if let Some(words) = find(&OTHERS, word) {
        let is_next_capital = matches!(after, [Space, Word(next), ..] if is_capitalised(next));
        let is_end = ends_sentence(after) || (*word == "etc" && is_next_capital);
        return Some(Reading::new(2 - usize::from(is_end), words));
    }
    // An initial. The pronoun is none.
    let is_initial = is_capitals(word) && word.len() == 1 && name;
    is_initial.then(|| Reading::new(2, *word))
}

/// What is numbered, by its abbreviation and by what follows; volumes and chapters have Roman numerals, too.
fn reference(word: &str, number: &[Lexeme<'_>]) -> Option<&'static str> {
    let small = word.to_lowercase();
    let is_numbered = match number {
        // `Plan C. 5 people came.`
        [Digits(_), ..] => word.len() > 1 || is_small(word),
        [Word(numeral), ..] => {
            matches!(small.as_str(), "vol" | "ch" | "sec") && roman::value(numeral).is_some()
        }
        _ => false,
    };
    find(&REFERENCES, &small).filter(|_| is_numbered)
}

/// `U.S.`, `e.g.`, `a.k.a.`, `Ph.D.`, `J.R.R. Tolkien`.
pub(super) fn initials(place: Place<'_>) -> Option<Reading> {
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = place.ahead();
    loop {
        match rest {
            [Word(part), after @ ..] if is_initial(part) => {
                parts.push(part);
                rest = after;
            }
            _ => return None,
        }
        match rest {
            [Mark('.'), Word(part), ..] if is_initial(part) => rest = &rest[1..],
            _ => break,
        }
    }
    if parts.len() < 2 || !parts.iter().any(|part| part.len() == 1) {
        return None;
    }
    let written = parts.concat();
    let phrase = find(&PHRASES, &written.to_lowercase());
    let mut words = phrase.map_or_else(|| letters(&written), |phrase| cased(phrase, &written));
    let mut taken = place.ahead().len() - rest.len();
    if let [Mark('.'), after @ ..] = rest
        && (phrase.is_some() || !ends_sentence(after))
    {
        taken += 1;
        rest = after;
    }
    if let [Mark('\''), Word("s"), ..] = rest {
        words.push_str("'s");
        taken += 2;
    }
    Some(Reading::new(taken, words))
}

/// A letter, or a capital with a small one as in `Ph.D.` and `B.Sc.`
fn is_initial(part: &str) -> bool {
    let is_pair = part.len() == 2 && part.is_ascii() && is_capitalised(part) && is_small(&part[1..]);
    (part.len() == 1 && part.is_ascii()) || is_pair
}

/// `w/o`, `w/`, `c/o`, `and/or`.
pub(super) fn slashed(place: Place<'_>) -> Option<Reading> {
    match place.ahead() {
        [Word("w"), Mark('/'), Word("o"), ..] => Some(Reading::new(3, "without")),
        [Word("c"), Mark('/'), Word("o"), ..] => Some(Reading::new(3, "care of")),
        [Word("w"), Mark('/'), Space | Word(_), ..] => Some(Reading::new(2, "with")),
        [Word("and"), Mark('/'), Word("or"), ..] => Some(Reading::new(3, "and or")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::text::spoken;

    #[test]
    fn dots_that_end_sentences_stay() {
        for (text, expected) in [
            ("He works for Apple Inc. The pay is good.", "He works for Apple Incorporated. The pay is good."),
            ("Apple Inc. Chief Tim Cook", "Apple Incorporated Chief Tim Cook"),
            ("He lives in the U.S. He likes it.", "He lives in the U S. He likes it."),
            ("The U.S. Army", "The U S Army"),
            ("Tea, milk etc. Sugar too", "Tea, milk et cetera. Sugar too"),
            ("Tea etc. is here", "Tea et cetera is here"),
            ("on Main St. (in the U.S.)", "on Main Street, in the U S."),
            ("It is plan B. The end", "It is plan B. The end"),
        ] {
            assert_eq!(spoken(text, "en"), expected, "{text}");
        }
    }
}

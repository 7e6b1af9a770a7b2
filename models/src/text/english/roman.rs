//! Roman numerals, where the word before them says that they are some.

use super::lexeme::Lexeme::{self, Mark, Space, Word};
use super::lexeme::{Place, Reading, ends_sentence, is_capitalised, is_capitals};
use super::numbers::{cardinal, ordinal};

const NUMERALS: [(u64, &str); 13] = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
];

/// Things that are numbered.
const NUMBERED: [&str; 25] = [
    "Chapter", "Part", "Volume", "Vol", "Ch", "Sec", "Book", "Act", "Scene", "Section", "Article", "Title",
    "Appendix", "Figure", "Table", "Phase", "Type", "Class", "Level", "Stage", "Grade", "Category", "Bowl",
    "Canto", "Psalm",
];

/// Those who reign.
const TITLES: [&str; 14] = [
    "King",
    "Queen",
    "Pope",
    "Emperor",
    "Empress",
    "Tsar",
    "Czar",
    "Kaiser",
    "Prince",
    "Princess",
    "Duke",
    "Sultan",
    "Shah",
    "Patriarch",
];

/// Names that many of them bore.
const NAMES: [&str; 48] = [
    "Alexander",
    "Alfonso",
    "Benedict",
    "Carl",
    "Catherine",
    "Charles",
    "Christian",
    "Clement",
    "Cleopatra",
    "Constantine",
    "Darius",
    "Edward",
    "Elizabeth",
    "Ferdinand",
    "Francis",
    "Franz",
    "Frederick",
    "George",
    "Gregory",
    "Gustav",
    "Haakon",
    "Harald",
    "Henry",
    "Innocent",
    "Ivan",
    "James",
    "John",
    "Joseph",
    "Julius",
    "Leo",
    "Leopold",
    "Louis",
    "Mary",
    "Napoleon",
    "Nicholas",
    "Otto",
    "Paul",
    "Peter",
    "Philip",
    "Pius",
    "Ptolemy",
    "Ramesses",
    "Richard",
    "Sigismund",
    "Urban",
    "Victor",
    "Wilhelm",
    "William",
];

/// `Chapter IV`, `World War II`, `Henry VIII`, `XIX century`.
pub(super) fn roman(place: Place<'_>) -> Option<Reading> {
    let [Word(word), rest @ ..] = place.ahead() else { return None };
    let (numeral, ending) = word.strip_suffix("'s").map_or((*word, ""), |numeral| (numeral, "'s"));
    let n = value(numeral)?;
    if numeral.len() > 1 && matches!(rest, [Space, Word("century" | "centuries"), ..]) {
        return Some(Reading::new(1, ordinal(n)));
    }
    // `Henry V. Smith`.
    let is_initial = matches!(rest, [Mark('.'), Space, Word(next), ..] if is_capitalised(next));
    if numeral.len() == 1 && is_initial && !ends_sentence(&rest[1..]) {
        return None;
    }
    let before = place.word_behind()?;
    let is_war = before == "War" && matches!(place.behind(), [.., Word("World"), Space, Word(_), Space]);
    // `the part I like` has no numeral.
    let is_numbered = numeral.len() > 1 || is_capitalised(before);
    if is_war || (is_numbered && NUMBERED.iter().any(|thing| thing.eq_ignore_ascii_case(before))) {
        return Some(Reading::new(1, cardinal(n)));
    }
    let has_title =
        matches!(place.behind(), [.., Word(title), Space, Word(_), Space] if TITLES.contains(title));
    let is_name = (has_title && is_capitalised(before)) || NAMES.contains(&before);
    let is_ruler = is_name && (has_title || numeral != "I" || ends_name(rest));
    is_ruler.then(|| Reading::new(1, format!("the {}{ending}", ordinal(n))))
}

/// Whether a name is over, so that an `I` behind it is no pronoun.
fn ends_name(rest: &[Lexeme<'_>]) -> bool {
    matches!(rest, [] | [Mark(_), ..] | [Space, Mark(_), ..] | [Space, Word("of"), ..])
}

/// The value of a numeral. One letter is a numeral only if it is `I`, `V` or `X`.
pub(super) fn value(numeral: &str) -> Option<u64> {
    if !is_capitals(numeral) || (numeral.len() == 1 && !"IVX".contains(numeral)) {
        return None;
    }
    let (mut value, mut rest) = (0, numeral);
    for (n, letters) in NUMERALS {
        // Powers of ten stand up to three times.
        let most = if letters.len() == 1 && "IXCM".contains(letters) { 3 } else { 1 };
        for _ in 0..most {
            let Some(after) = rest.strip_prefix(letters) else { break };
            (value, rest) = (value + n, after);
        }
    }
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerals_have_their_values() {
        for (numeral, n) in [("I", 1), ("IV", 4), ("VIII", 8), ("XIX", 19), ("XLII", 42), ("MCMXCIV", 1994)] {
            assert_eq!(value(numeral), Some(n));
        }
        for word in ["", "C", "IIII", "VX", "ABC", "iv", "Ix"] {
            assert_eq!(value(word), None, "{word}");
        }
    }
}

//! Sentences of a text: what translators were trained on, and what they have room for.

use crate::Error;

/// What ends a sentence where a space follows.
const ENDS: &str = ".!?؟۔।…";
/// What ends one whatever follows: scripts that write no spaces.
const FULL_WIDTH_ENDS: &str = "。！？";
/// What may stand behind it and still belong to it.
const CLOSING: &str = "\"'”’»)]}」』";

/// Splits a text at the ends of its sentences. No part is empty or has space around it.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut cuts = vec![0];
    let (mut has_ended, mut is_full_width) = (false, false);
    for (at, c) in text.char_indices() {
        let is_end = ENDS.contains(c) || FULL_WIDTH_ENDS.contains(c);
        if has_ended && (c.is_whitespace() || (is_full_width && !is_end && !CLOSING.contains(c))) {
            cuts.push(at);
        }
        has_ended = is_end || (has_ended && CLOSING.contains(c));
        is_full_width = FULL_WIDTH_ENDS.contains(c) || (has_ended && is_full_width && CLOSING.contains(c));
    }
    cuts.push(text.len());
    let parts: Vec<&str> = cuts.windows(2).map(|cut| text[cut[0]..cut[1]].trim()).collect();
    parts.into_iter().filter(|part| !part.is_empty())
}

/// A text of several words in two, at the space nearest to its middle.
fn halves(text: &str) -> Option<[&str; 2]> {
    let middle = text.len() / 2;
    let spaces = text.char_indices().filter(|(_, c)| c.is_whitespace());
    let (at, _) = spaces.min_by_key(|(at, _)| at.abs_diff(middle))?;
    let halves = <[&str; 2]>::from(text.split_at(at)).map(str::trim);
    halves.iter().all(|half| !half.is_empty()).then_some(halves)
}

/// What a network reads of a sentence, in as many parts as it has to be broken into so that none has more than `most` ids.
///
/// # Errors
/// What `ids` refuses.
pub(super) fn parts(
    sentence: &str,
    most: usize,
    ids: &dyn Fn(&str) -> Result<Vec<u32>, Error>,
) -> Result<Vec<Vec<u32>>, Error> {
    let whole = ids(sentence)?;
    let Some([first, second]) = halves(sentence).filter(|_| whole.len() > most) else {
        return Ok(vec![whole]);
    };
    Ok([parts(first, most, ids)?, parts(second, most, ids)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_their_marks_and_numbers_do_not() {
        let split = |text: &'static str| sentences(text).collect::<Vec<_>>();
        assert_eq!(split(" He said 3.5. \"Go!\" Who?  me \n"), ["He said 3.5.", "\"Go!\"", "Who?", "me"]);
        assert_eq!(split("څنګه یې؟ ښه یم۔ مننه"), ["څنګه یې؟", "ښه یم۔", "مننه"]);
        assert_eq!(split("你好。「再见！」吗？！好"), ["你好。", "「再见！」", "吗？！", "好"]);
        assert_eq!(split("Wait... What?! (Yes.) No"), ["Wait...", "What?!", "(Yes.)", "No"]);
        assert_eq!(split(" . "), ["."]);
        assert_eq!(split("  "), [] as [&str; 0]);
    }

    #[test]
    fn what_is_too_long_is_broken_between_two_words() {
        assert_eq!(halves("one two three four"), Some(["one two", "three four"]));
        assert_eq!(halves("one two"), Some(["one", "two"]));
        assert_eq!(halves("one"), None);
        assert_eq!(halves(" one"), None);
    }
}

//! Addresses of the web and of mail.

use super::acronyms::{is_code, letters};
use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, is_small};
use super::numbers::{digit_by_digit, whole};

/// Ends of names that make one an address without more. Those that are English words are not among them.
const ENDS: [&str; 24] = [
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "io", "ai", "co", "uk", "us", "de", "fr", "eu",
    "dev", "app", "tv", "ch", "nl", "jp", "af", "pk",
];

/// Ends of two letters that are said as a word.
const SAID: [&str; 2] = ["co", "me"];

/// How long an address is at most, in lexemes.
const MAX_LEXEMES: usize = 200;

/// `https://www.example.com/path`, `user@example.com`, `example.com`.
pub(super) fn address(place: Place<'_>) -> Option<Reading> {
    if !place.begins_chunk() || matches!(place.ahead(), [Mark(_), ..]) {
        return None;
    }
    let chunk = chunk(place.ahead())?;
    let (n_scheme, rest) = match chunk {
        [Word("http" | "https" | "ftp" | "HTTP" | "HTTPS"), Mark(':'), Mark('/'), Mark('/'), rest @ ..] => {
            (4, rest)
        }
        [Word("mailto"), Mark(':'), rest @ ..] => (2, rest),
        rest => (0, rest),
    };
    let rest = rest.strip_suffix(&[Mark('/')]).unwrap_or(rest);
    let n_host = rest.iter().take_while(|lexeme| !matches!(lexeme, Mark('/' | '?' | '#' | ':'))).count();
    let host = match rest[..n_host].iter().position(|lexeme| *lexeme == Mark('@')) {
        Some(0) => return None,
        Some(at) => &rest[at + 1..n_host],
        None => &rest[..n_host],
    };
    let has_user = host.len() < n_host;
    let is_web = |end| matches!(host, [Word("www" | "WWW"), ..]) || ENDS.contains(&end);
    let is_named = n_scheme == 4 || end(host).is_some_and(|end| has_user || is_web(end));
    if !is_named || rest.is_empty() {
        return None;
    }
    let words = rest.iter().enumerate().filter_map(|(at, lexeme)| said(lexeme, at + 1 == n_host));
    Some(Reading::new(chunk.len(), words.collect::<Vec<_>>().join(" ")))
}

/// What stands together from here on, but for the punctuation at its end.
fn chunk<'a, 'b>(lexemes: &'b [Lexeme<'a>]) -> Option<&'b [Lexeme<'a>]> {
    let len = lexemes.iter().take(MAX_LEXEMES + 1).take_while(|lexeme| **lexeme != Space).count();
    if len > MAX_LEXEMES {
        return None;
    }
    let is_end = |lexeme: &&Lexeme<'_>| matches!(lexeme, Mark(mark) if *mark != '/');
    let n_end = lexemes[..len].iter().rev().take_while(is_end).count();
    Some(&lexemes[..len - n_end])
}

/// The last part of the name of a host, if it is one: words, digits and hyphens between dots.
fn end<'a>(host: &[Lexeme<'a>]) -> Option<&'a str> {
    let is_host = host.iter().all(|lexeme| matches!(lexeme, Word(_) | Digits(_) | Mark('.' | '-')));
    match host {
        [_, .., Mark('.'), Word(end)] if is_host && is_small(end) => Some(end),
        _ => None,
    }
}

/// How a piece of an address is said, `is_end` saying whether it ends the host's name.
fn said(lexeme: &Lexeme<'_>, is_end: bool) -> Option<String> {
    let said = match lexeme {
        Word(word) if is_code(word) => letters(word),
        Word(word) if is_end && word.len() == 2 && !SAID.contains(word) => letters(word),
        Word(word) => (*word).to_owned(),
        Digits(digits) if digits.len() <= 4 => whole(digits),
        Digits(digits) => digit_by_digit(digits),
        Mark('.') => "dot".to_owned(),
        Mark('-') => "dash".to_owned(),
        Mark('_') => "underscore".to_owned(),
        Mark('/') => "slash".to_owned(),
        Mark('@') => "at".to_owned(),
        Mark('+') => "plus".to_owned(),
        Mark('=') => "equals".to_owned(),
        Mark('&') => "and".to_owned(),
        Mark('?') => "question mark".to_owned(),
        Mark('#') => "hash".to_owned(),
        Mark('%') => "percent".to_owned(),
        Mark(':') => "colon".to_owned(),
        Mark('~') => "tilde".to_owned(),
        Mark(_) | Space => return None,
    };
    Some(said)
}

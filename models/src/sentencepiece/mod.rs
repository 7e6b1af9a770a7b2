//! SentencePiece's `.model` files as the `tokenizer.json` that encodes and decodes as they do (google/sentencepiece
//! `sentencepiece_model.proto`, `normalizer.cc`, `unigram_model.cc`, `bpe_model.cc`).

mod aggregate;
mod proto;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use self::proto::{Kind, ModelProto};
use crate::Error;

/// Above this a file is no vocabulary: the largest published ones stay under a third of it.
pub(crate) const MAX_BYTES: u64 = 16 << 20;
/// So are more pieces.
const MAX_PIECES: usize = 1 << 20;
/// A longer piece is no part of a word.
const MAX_PIECE_BYTES: usize = 512;
/// A piece of pairs is made of two others in a few ways, on average.
const MAX_MERGES: usize = 4 * MAX_PIECES;

/// What follows it in a piece's name tells equal pieces of several models apart. No text has it: it is no character.
pub(crate) const HIDDEN: char = '\u{FDD0}';

/// What SentencePiece writes a space with.
pub(crate) const SPACE: char = '\u{2581}';

/// A SentencePiece model whose every setting is known.
pub(crate) struct SentencePiece {
    pieces: Vec<Piece>,
    algorithm: Algorithm,
    has_byte_fallback: bool,
    charsmap: Vec<u8>,
    has_dummy_prefix: bool,
    is_whitespace_collapsed: bool,
}

/// A token.
pub(crate) struct Piece {
    /// Its text, a mark for each space.
    pub text: String,
    score: f32,
    kind: Kind,
}

/// How a text becomes pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    /// The likeliest of all ways.
    Unigram,
    /// Pairs joined, the best first.
    Bpe,
    /// A piece for each character.
    Char,
}

impl Piece {
    /// Whether it is a command to a model, never part of a text. Names in `<|` and `|>` are such wherever they come from, as in all
    /// our vocabularies: a text that spells one is text.
    pub fn is_special(&self) -> bool {
        matches!(self.kind, Kind::Unknown | Kind::Control)
            || (self.text.starts_with("<|") && self.text.ends_with("|>"))
            || self.text == "<pad>"
    }
}

impl SentencePiece {
    /// Reads the contents of the file `path`.
    ///
    /// # Errors
    /// Bytes that are no such model, and models that a `tokenizer.json` cannot stand for, by the setting's name.
    pub fn read(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("has {} bytes; a SentencePiece model has at most {MAX_BYTES}", bytes.len());
            return Err(Error::file(path, message));
        }
        let wrong = |error| Error::file(path, format!("is no SentencePiece model: {error}"));
        check_n_pieces(proto::n_pieces(bytes).map_err(wrong)?, path)?;
        let model: ModelProto = prost::Message::decode(bytes).map_err(wrong)?;
        let refuse = |key: &str, message: String| Err(Error::key(path, key, message));
        let trainer = model.trainer_spec.unwrap_or_default();
        let normalizer = model.normalizer_spec.unwrap_or_default();
        let algorithm = match trainer.model_type() {
            1 => Algorithm::Unigram,
            2 => Algorithm::Bpe,
            4 => Algorithm::Char,
            other => {
                let message =
                    format!("{other} is not known; 1 (unigram), 2 (bpe) and 4 (char) are; 3 is word");
                return refuse("trainer_spec.model_type", message);
            }
        };
        for (key, value, known) in [
            ("trainer_spec.treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix(), false),
            ("normalizer_spec.escape_whitespaces", normalizer.escape_whitespaces(), true),
        ] {
            if value != known {
                return refuse(key, format!("{value} is not known; {known} is"));
            }
        }
        let n_bytes =
            model.denormalizer_spec.and_then(|spec| spec.precompiled_charsmap).map_or(0, |map| map.len());
        if n_bytes > 0 {
            let message =
                format!("has {n_bytes} bytes; texts that are changed after they are decoded are not known");
            return refuse("denormalizer_spec.precompiled_charsmap", message);
        }
        let charsmap = normalizer.precompiled_charsmap.clone().unwrap_or_default();
        // The library makes room for as many as the first four bytes say.
        if let Some((size, rest)) = charsmap.split_first_chunk::<4>()
            && u32::from_le_bytes(*size) as usize > rest.len()
        {
            let message = format!("is cut off: {} bytes", charsmap.len());
            return refuse("normalizer_spec.precompiled_charsmap", message);
        }
        let model = Self {
            pieces: pieces(model.pieces, path)?,
            algorithm,
            has_byte_fallback: trainer.byte_fallback(),
            charsmap,
            has_dummy_prefix: normalizer.add_dummy_prefix(),
            is_whitespace_collapsed: normalizer.remove_extra_whitespaces(),
        };
        model.check_merges().map_err(|message| Error::key(path, "pieces", message))?;
        Ok(model)
    }

    /// Makes sure that there are not so many pairs that a list of them takes a hundred times the room of the pieces.
    fn check_merges(&self) -> Result<(), String> {
        match self.algorithm == Algorithm::Bpe && self.pairs().nth(MAX_MERGES).is_some() {
            true => Err(format!("there are more than {MAX_MERGES} ways to put them together of each other")),
            false => Ok(()),
        }
    }

    /// Its tokens, in order of id.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The token for what no other stands for.
    pub fn unknown(&self) -> &str {
        self.pieces.iter().find(|piece| piece.kind == Kind::Unknown).map_or("", |piece| &piece.text)
    }

    /// The contents of a `tokenizer.json` with the same ids, and with `more` special tokens after them.
    ///
    /// `tokenizers` differs in texts that are not composed (NFC): it replaces a letter and its marks, and a line's end of two
    /// characters, by the shortest match of the normaliser's table instead of the longest. Where a text spells a command in letters that are unknown there is one unknown
    /// token more. Unknown characters are left out of what is decoded, like all special tokens.
    pub fn tokenizer(&self, more: &[&str]) -> Value {
        let specials = self.pieces.iter().enumerate().filter(|(_, piece)| piece.is_special());
        let specials = specials.map(|(id, piece)| (id, piece.text.as_str()));
        let more = more.iter().enumerate().map(|(i, name)| (self.pieces.len() + i, *name));
        let added: Vec<Value> = specials
            .chain(more)
            .map(|(id, name)| {
                json!({
                    "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true,
                })
            })
            .collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": self.normalizer(), "pre_tokenizer": self.pre_tokenizer(), "post_processor": null,
            "decoder": self.decoder(), "model": self.model(),
        })
    }

    fn normalizer(&self) -> Value {
        let replace = |pattern: &str, content: &str| json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content});
        let mut steps = Vec::new();
        if !self.charsmap.is_empty() {
            let table = BASE64_STANDARD.encode(&self.charsmap);
            steps.push(json!({"type": "Precompiled", "precompiled_charsmap": table}));
        }
        if self.is_whitespace_collapsed {
            // Spaces only: the table has made them of other whitespace, or it is to be kept.
            steps.extend([replace(r"\A +| +\z", ""), replace(" {2,}", " ")]);
        }
        steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
        if self.is_whitespace_collapsed {
            // A mark that the text itself has at its end counts as a space there, and nowhere else.
            steps.push(replace(&format!("{SPACE}+\\z"), ""));
        }
        if self.has_dummy_prefix {
            steps.push(json!({"type": "Prepend", "prepend": SPACE}));
        }
        json!({"type": "Sequence", "normalizers": steps})
    }

    /// Keeps whole what always is a token, and apart what never is one in a text.
    fn pre_tokenizer(&self) -> Value {
        let split = |pattern: String| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let mut steps = Vec::new();
        let mut whole: Vec<&str> = self.defined().map(|piece| piece.text.as_str()).collect();
        whole.sort_by_key(|text| (std::cmp::Reverse(text.len()), *text));
        if !whole.is_empty() {
            steps.push(split(whole.iter().map(|text| escaped(text)).collect::<Vec<_>>().join("|")));
        }
        // After its first letter, so that the model never sees the name.
        let mut rests: BTreeMap<char, BTreeSet<String>> = BTreeMap::new();
        let hidden = |piece: &&Piece| piece.is_special() || piece.kind == Kind::Byte;
        for piece in self.pieces.iter().filter(hidden) {
            let mut letters = piece.text.chars();
            if let Some(first) = letters.next()
                && !letters.as_str().is_empty()
            {
                rests.entry(first).or_default().insert(escaped(letters.as_str()));
            }
        }
        let hidden = rests.into_iter().map(|(first, rests)| {
            let rests = rests.into_iter().collect::<Vec<_>>().join("|");
            format!("(?<={})(?={rests})", escaped(&first.to_string()))
        });
        let hidden = hidden.collect::<Vec<_>>().join("|");
        if !hidden.is_empty() {
            steps.push(split(hidden));
        }
        if steps.is_empty() { Value::Null } else { json!({"type": "Sequence", "pretokenizers": steps}) }
    }

    fn decoder(&self) -> Value {
        let mut steps = Vec::new();
        if self.pieces.iter().any(|piece| piece.text.contains(HIDDEN)) {
            steps
                .push(json!({"type": "Replace", "pattern": {"Regex": format!("{HIDDEN}.*")}, "content": ""}));
        }
        steps.push(json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}));
        if self.has_byte_fallback {
            steps.push(json!({"type": "ByteFallback"}));
        }
        steps.push(json!({"type": "Fuse"}));
        if self.has_dummy_prefix || self.is_whitespace_collapsed {
            // Where spaces are collapsed none is meant to be there, however many pieces they are in.
            let n = if self.is_whitespace_collapsed { MAX_PIECE_BYTES } else { 1 };
            steps.push(json!({"type": "Strip", "content": " ", "start": n, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }

    fn model(&self) -> Value {
        let unknown = self.pieces.iter().position(|piece| piece.kind == Kind::Unknown).unwrap_or_default();
        if self.algorithm == Algorithm::Unigram {
            let normal = || self.pieces.iter().filter(|piece| piece.kind == Kind::Normal);
            let best = normal().map(|piece| piece.score).fold(f32::NEG_INFINITY, f32::max).max(0.0);
            let vocabulary: Vec<_> = self
                .pieces
                .iter()
                .map(|piece| match piece.kind {
                    Kind::Normal => json!([piece.text, piece.score]),
                    // Alone in its part of a text, where no other way may be likelier; the worst score counts for what is unknown.
                    _ => json!([piece.text, best * piece.text.len() as f32]),
                })
                .collect();
            return json!({
                "type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": self.has_byte_fallback,
            });
        }
        let merges = if self.algorithm == Algorithm::Bpe { self.merges() } else { Vec::new() };
        let vocabulary: serde_json::Map<_, _> =
            self.pieces.iter().enumerate().map(|(id, piece)| (piece.text.clone(), json!(id))).collect();
        json!({
            "type": "BPE", "dropout": null, "unk_token": self.pieces[unknown].text, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": self.has_byte_fallback,
            "ignore_merges": self.defined().next().is_some(), "vocab": vocabulary, "merges": merges,
        })
    }

    /// Pairs of pieces whose text together is a piece, the best first.
    fn merges(&self) -> Vec<[&str; 2]> {
        self.pairs().collect()
    }

    fn pairs(&self) -> impl Iterator<Item = [&str; 2]> {
        let mut normal: Vec<_> = self.pieces.iter().filter(|piece| piece.kind == Kind::Normal).collect();
        let known: BTreeSet<&str> = normal.iter().map(|piece| piece.text.as_str()).collect();
        // Stable: of equal scores the first comes first.
        normal.sort_by(|a, b| b.score.total_cmp(&a.score));
        let pairs = normal.into_iter().flat_map(move |piece| {
            piece.text.char_indices().skip(1).map(move |(at, _)| <[&str; 2]>::from(piece.text.split_at(at)))
        });
        pairs.filter(move |pair| pair.iter().all(|part| known.contains(part)))
    }

    /// Pieces that are a token wherever a text has them.
    fn defined(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|piece| piece.kind == Kind::UserDefined && !piece.is_special())
    }
}

fn check_n_pieces(n: usize, path: &Path) -> Result<(), Error> {
    if !(1..=MAX_PIECES).contains(&n) {
        let message = format!("are {n}; a vocabulary has from 1 to {MAX_PIECES}");
        return Err(Error::key(path, "pieces", message));
    }
    Ok(())
}

/// Checks pieces, as SentencePiece does before it takes a model.
fn pieces(stored: Vec<proto::Piece>, path: &Path) -> Result<Vec<Piece>, Error> {
    let mut names = BTreeSet::new();
    let mut pieces = Vec::with_capacity(stored.len());
    for (id, piece) in stored.into_iter().enumerate() {
        let refuse = |message: String| Err(Error::key(path, format!("pieces[{id}]"), message));
        let (score, number) = (piece.score(), piece.r#type());
        let Some(kind) = Kind::of(number) else {
            return refuse(format!("type {number} is not known; 1 to 4 and 6 are (5 is a piece out of use)"));
        };
        let text = piece.piece.unwrap_or_default();
        if !(1..=MAX_PIECE_BYTES).contains(&text.len()) {
            return refuse(format!("has {} bytes; a piece has from 1 to {MAX_PIECE_BYTES}", text.len()));
        }
        if !score.is_finite() {
            return refuse(format!("`{text}` has the score {score}, which is not finite"));
        }
        if !names.insert(text.clone()) {
            return refuse(format!("`{text}` is there twice"));
        }
        pieces.push(Piece { text, score, kind });
    }
    match pieces.iter().filter(|piece| piece.kind == Kind::Unknown).count() {
        1 => Ok(pieces),
        n => Err(Error::key(path, "pieces", format!("{n} are of type 2 (unknown); one is needed"))),
    }
}

/// `text` as a pattern that matches nothing else.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests;

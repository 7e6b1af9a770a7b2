//! Text to token ids and back: tokenizers in Hugging Face's `tokenizer.json`, or in a `.model` of SentencePiece.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::{AddedToken, DecoderWrapper};

use crate::Error;
use crate::bundle::{BundleSource, SENTENCEPIECE};
use crate::sentencepiece::{HIDDEN, SPACE, SentencePiece};

/// A tokenizer and the vocabulary of special tokens, which are found by name.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bytes_by_letter: BTreeMap<char, u8>,
    /// Whether tokens are spelled in letters that stand for bytes; else in plain letters, with a mark for a space.
    is_byte_level: bool,
    /// A token of text that is decoded before others, and its own text, where the first token of a text loses its space.
    anchor: Option<(u32, String)>,
}

/// Symbols that annotate rather than transcribe; a recogniser should not write them
/// (openai/whisper `tokenizer.py: non_speech_tokens`).
const ANNOTATIONS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" \
                           (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
/// Musical symbols whose first byte-level token alone already means one of them.
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// Python's `string.punctuation`. The reference asks whether a stripped piece is part of it, which a run such as
/// `()` is, and the nothing that is left of a line break.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Languages written without spaces between words: their words are split by character.
const UNSPACED_LANGUAGES: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`, or `tokenizer.model` where there is none.
    ///
    /// # Errors
    /// A missing or invalid file.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::from_source(&dir.into())
    }

    /// Reads the tokenizer of a bundle, wherever it is.
    ///
    /// # Errors
    /// A missing or invalid file.
    pub fn from_source(source: &BundleSource) -> Result<Self, Error> {
        let file = source.tokenizer_file();
        let path = source.path(file);
        if file == SENTENCEPIECE {
            return Self::from_sentencepiece(&source.read(file)?, &path);
        }
        if !source.has(file) {
            return Err(Error::file(&path, "no such file: a bundle keeps its tokenizer in tokenizer.json"));
        }
        Self::from_text(&source.read_text(file)?).map_err(|error| Error::file(&path, error))
    }

    /// Reads the contents of SentencePiece's `.model` file `path`: ids and texts are those of its own library, but that special tokens,
    /// unknown characters among them, are left out of what is decoded, and that `<|name|>` is special whoever defined it.
    ///
    /// # Errors
    /// Bytes that are no such model, settings that are not known.
    pub fn from_sentencepiece(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let model = SentencePiece::read(bytes, path)?;
        Self::from_text(&model.tokenizer(&[]).to_string()).map_err(|error| Error::file(path, error))
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// Text that is no tokenizer.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let refused = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
        let mut inner = parse(text).map_err(Error::Tokenizer)?;
        // What the file says about padding and truncation is about training batches.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(refused)?;
        // Large-v3 does not mark its times as special: in a prompt they would be commands.
        let unmarked: Vec<AddedToken> = inner
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| {
                !token.special && token.content.starts_with("<|") && token.content.ends_with("|>")
            })
            .map(|token| AddedToken { special: true, ..token })
            .collect();
        inner.add_special_tokens(unmarked).map_err(refused)?;
        // A prompt that spells `<|endoftext|>` is text, not a command.
        inner.set_encode_special_tokens(true);
        let is_byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let mut tokenizer = Self { inner, bytes_by_letter: bytes_by_letter(), is_byte_level, anchor: None };
        if !is_byte_level {
            tokenizer.anchor = tokenizer.find_anchor();
        }
        Ok(tokenizer)
    }

    /// Ids of plain text; names of special tokens in it are text too.
    ///
    /// # Errors
    /// Text that the vocabulary cannot spell.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(guarded(|| self.inner.encode_fast(text, false))?.get_ids().to_vec())
    }

    /// Text of `ids`, special tokens left out. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// Ids whose text the file's own decoder gives up on. Unknown ones are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        guarded(|| self.inner.decode(ids, true))
    }

    /// Bytes that a token stands for; a special token's are its name's, and those of an unknown id none.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        if !self.is_byte_level {
            return plain_bytes(&token);
        }
        let byte = |c: char| self.bytes_by_letter.get(&c).copied();
        // Special tokens and vocabularies that are not byte-level are spelled as they are.
        token.chars().map(byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.into_bytes())
    }

    /// A token with a space before it that decoding drops where it comes first.
    fn find_anchor(&self) -> Option<(u32, String)> {
        let vocabulary = self.inner.get_vocab(false);
        let spaced = vocabulary.iter().filter(|(token, _)| token.starts_with(SPACE));
        // The same one each time.
        let (_, id) = spaced.min_by_key(|(_, id)| **id)?;
        let [once, twice] = [vec![*id], vec![*id, *id]].map(|ids| self.decode(&ids).unwrap_or_default());
        (twice.len() > 2 * once.len()).then_some((*id, once))
    }

    /// Text of `ids` as it stands within a text: the space before it is kept.
    fn decode_within(&self, ids: &[u32]) -> Result<String, Error> {
        let Some((anchor, before)) = &self.anchor else { return self.decode(ids) };
        let text = self.decode(&[&[*anchor], ids].concat())?;
        Ok(text.strip_prefix(before).map(str::to_owned).unwrap_or(text))
    }

    /// All tokens by name, special ones included.
    pub fn names(&self) -> BTreeMap<String, u32> {
        self.inner.get_vocab(true).into_iter().collect()
    }

    /// How many tokens there are, special ones included.
    pub fn n_tokens(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of the special token `<|name|>`.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(&format!("<|{name}|>"))
    }

    /// Special tokens of two or three small letters, such as `<|ps|>`: name without brackets, and id.
    pub fn language_tokens(&self) -> Vec<(String, u32)> {
        let added = self.inner.get_added_tokens_decoder();
        let mut tokens: Vec<_> = added
            .iter()
            .filter_map(|(id, token)| {
                let name = token.content.strip_prefix("<|")?.strip_suffix("|>")?;
                let is_code = (2..=3).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase());
                is_code.then(|| (name.to_owned(), *id))
            })
            .collect();
        tokens.sort_by_key(|(_, id)| *id);
        tokens
    }

    /// Ids of all special tokens.
    pub fn special_ids(&self) -> std::collections::BTreeSet<u32> {
        let added = self.inner.get_added_tokens_decoder();
        added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect()
    }

    /// Number of ids, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Ids of tokens that annotate rather than transcribe, sorted.
    pub fn non_speech_tokens(&self) -> Vec<u32> {
        let first = |text: &str| self.encode(text).ok().and_then(|ids| ids.first().copied());
        let single = |text: &str| self.encode(text).ok().filter(|ids| ids.len() == 1).map(|ids| ids[0]);
        // A hyphen or an apostrophe may stand inside a word, not begin one.
        let mut ids: Vec<u32> = [" -", " '"].iter().filter_map(|text| first(text)).collect();
        for symbol in ANNOTATIONS.split(' ') {
            ids.extend(single(symbol));
            ids.extend(single(&format!(" {symbol}")));
        }
        for symbol in NOTES.split(' ') {
            ids.extend(first(symbol));
            ids.extend(first(&format!(" {symbol}")));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Groups text ids into words: each with its text and how many ids it has. By spaces and punctuation, or by
    /// character in languages that write no spaces (openai/whisper `tokenizer.py: split_to_word_tokens`).
    ///
    /// # Errors
    /// What `decode` refuses.
    pub fn split_words(&self, ids: &[u32], language: Option<&str>) -> Result<Vec<(String, usize)>, Error> {
        let characters = self.split_characters(ids)?;
        if language.is_some_and(Self::is_unspaced) {
            return Ok(characters);
        }
        let mut words: Vec<(String, usize)> = Vec::new();
        for (text, n_ids) in characters {
            let is_punctuation = PUNCTUATION.contains(text.trim());
            match words.last_mut() {
                Some(word) if !text.starts_with(' ') && !is_punctuation => {
                    word.0.push_str(&text);
                    word.1 += n_ids;
                }
                _ => words.push((text, n_ids)),
            }
        }
        Ok(words)
    }

    /// Whether a language is written without spaces between words.
    pub fn is_unspaced(language: &str) -> bool {
        UNSPACED_LANGUAGES.contains(&language)
    }

    /// The shortest runs of ids that decode to whole characters.
    fn split_characters(&self, ids: &[u32]) -> Result<Vec<(String, usize)>, Error> {
        let whole: Vec<char> = self.decode_within(ids)?.chars().collect();
        let (mut pieces, mut start, mut offset) = (Vec::new(), 0, 0);
        for end in 1..=ids.len() {
            let text = self.decode_within(&ids[start..end])?;
            // U+FFFD means that bytes are still missing, unless the text itself holds that character here.
            let unfinished = text.chars().position(char_is_replacement);
            let complete =
                unfinished.is_none_or(|at| whole.get(offset + at).is_some_and(|c| char_is_replacement(*c)));
            if complete {
                offset += text.chars().count();
                pieces.push((text, end - start));
                start = end;
            }
        }
        if start < ids.len() {
            // Bytes that never became a character still belong to some word.
            let text = self.decode_within(&ids[start..])?;
            pieces.push((text, ids.len() - start));
        }
        Ok(pieces)
    }
}

/// What a file says can make the library reach beyond a text (`decoders/strip.rs`, where nothing is left to strip): one
/// text then fails, and not those that are decoded beside it.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
    // Nothing half-changed is left behind: neither way changes the tokenizer.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| Error::Tokenizer(error.to_string())),
        Err(_) => Err(Error::Tokenizer("it gave up on a text; its tokenizer.json is damaged".to_owned())),
    }
}

/// The library unwraps some of what it parses (`decoders/mod.rs`: `expect("Helper")`): a damaged file is its
/// author's fault and must not end the process.
fn parse(text: &str) -> Result<tokenizers::Tokenizer, String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("is not JSON: {error}"))?;
    match catch_unwind(|| tokenizers::Tokenizer::from_bytes(text)) {
        Ok(parsed) => parsed.map_err(|error| error.to_string()),
        Err(_) => Err("is no tokenizer: its parser gave up on it".to_owned()),
    }
}

/// Bytes of a token that is spelled as it is, but for spaces and for single bytes such as `<0xE9>`.
fn plain_bytes(token: &str) -> Vec<u8> {
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.split(HIDDEN).next().unwrap_or_default().replace(SPACE, " ").into_bytes(),
    }
}

/// The letters that byte-level vocabularies write bytes with: those of Latin-1 that can be seen stand for themselves,
/// the others for letters from U+0100 on, in order (openai/gpt-2 `encoder.py: bytes_to_unicode`).
fn bytes_by_letter() -> BTreeMap<char, u8> {
    let is_seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let unseen =
        (0..=u8::MAX).filter(|byte| !is_seen(*byte)).zip('\u{100}'..).map(|(byte, letter)| (letter, byte));
    (0..=u8::MAX).filter(|byte| is_seen(*byte)).map(|byte| (char::from(byte), byte)).chain(unseen).collect()
}

fn char_is_replacement(c: char) -> bool {
    c == char::REPLACEMENT_CHARACTER
}

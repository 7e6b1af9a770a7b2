//! Text to the ids of a translator and back.

use std::collections::BTreeMap;

use crate::Error;
use crate::bundle::{BundleSource, parse, read_json};
use crate::sentencepiece::{SPACE, SentencePiece};
use crate::tokenizer::Tokenizer;

/// The tokenizer that Hugging Face's library keeps, under either name.
const TOKENIZER: &str = "tokenizer.json";
const SENTENCEPIECE: &str = "spiece.model";
/// What transformers keeps of a Marian: pieces of its source language, and a list that gives pieces ids.
const SOURCE: &str = "source.spm";
const LIST: &str = "vocab.json";

/// How texts become ids and ids texts.
pub(super) enum Vocabulary {
    /// By one tokenizer.
    Whole(Tokenizer),
    /// By pieces that a list gives other ids.
    Listed {
        source: Tokenizer,
        /// The list's id of each piece of the source.
        ids: Vec<u32>,
        /// Texts by the list's ids; of special tokens none.
        texts: Vec<Option<String>>,
        names: BTreeMap<String, u32>,
    },
}

impl Vocabulary {
    /// Reads `tokenizer.json`, or SentencePiece's `spiece.model` where there is none.
    ///
    /// # Errors
    /// A missing or invalid file.
    pub fn whole(source: &BundleSource) -> Result<Self, Error> {
        if !source.has(TOKENIZER) && source.has(SENTENCEPIECE) {
            let path = source.path(SENTENCEPIECE);
            return Tokenizer::from_sentencepiece(&source.read(SENTENCEPIECE)?, &path).map(Self::Whole);
        }
        Tokenizer::from_source(source).map(Self::Whole)
    }

    /// Reads a Marian's: `source.spm` and `vocab.json`, or `tokenizer.json` where that is there. Its `target.spm` says nothing that
    /// writing a text needs.
    ///
    /// # Errors
    /// A missing or invalid file.
    pub fn of_marian(source: &BundleSource) -> Result<Self, Error> {
        if source.has(TOKENIZER) || !source.has(SOURCE) {
            return Self::whole(source);
        }
        let (path, list) = (source.path(SOURCE), source.path(LIST));
        let bytes = source.read(SOURCE)?;
        let pieces = SentencePiece::read(&bytes, &path)?;
        let names: BTreeMap<String, u32> = parse(read_json(source, LIST)?, &list)?;
        let unknown = names.get("<unk>").copied();
        let unknown = unknown.ok_or_else(|| Error::key(&list, "<unk>", "is missing; a Marian has it"))?;
        let last = names.values().max().copied().unwrap_or_default() as usize;
        if last >= 2 * names.len() {
            let message = format!("gives {} pieces ids up to {last}", names.len());
            return Err(Error::file(&list, message));
        }
        let mut texts = vec![None; last + 1];
        for (name, id) in &names {
            let is_special = matches!(name.as_str(), "<unk>" | "<pad>" | "<s>" | "</s>")
                || (name.starts_with(">>") && name.ends_with("<<"));
            texts[*id as usize] = (!is_special).then(|| name.replace(SPACE, " "));
        }
        let ids = pieces.pieces().iter().map(|piece| names.get(&piece.text).copied().unwrap_or(unknown));
        Ok(Self::Listed {
            ids: ids.collect(),
            source: Tokenizer::from_sentencepiece(&bytes, &path)?,
            texts,
            names,
        })
    }

    /// Ids of a text.
    ///
    /// # Errors
    /// Text that cannot be spelled.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        match self {
            Self::Whole(tokenizer) => tokenizer.encode(text),
            Self::Listed { source, ids, .. } => {
                let pieces = source.encode(text)?;
                Ok(pieces.into_iter().filter_map(|piece| ids.get(piece as usize).copied()).collect())
            }
        }
    }

    /// Ids of a text after a token that is named before it.
    ///
    /// # Errors
    /// Text that cannot be spelled.
    pub fn encode_after(&self, id: u32, name: &str, text: &str) -> Result<Vec<u32>, Error> {
        // What is no command is a part of the text, with the space that its vocabulary puts before one.
        if let Self::Whole(tokenizer) = self
            && !tokenizer.special_ids().contains(&id)
        {
            let ids = tokenizer.encode(&format!("{name} {text}"))?;
            if ids.contains(&id) {
                return Ok(ids);
            }
        }
        Ok([vec![id], self.encode(text)?].concat())
    }

    /// Text of ids, special tokens left out.
    ///
    /// # Errors
    /// Ids that the tokenizer gives up on.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        match self {
            Self::Whole(tokenizer) => tokenizer.decode(ids),
            Self::Listed { texts, .. } => {
                Ok(ids.iter().filter_map(|id| texts.get(*id as usize)?.as_deref()).collect())
            }
        }
    }

    /// Tokens by name.
    pub fn names(&self) -> BTreeMap<String, u32> {
        match self {
            Self::Whole(tokenizer) => tokenizer.names(),
            Self::Listed { names, .. } => names.clone(),
        }
    }

    /// The highest id.
    pub fn last_id(&self) -> Option<u32> {
        self.names().into_values().max()
    }
}

//! What sampling knows about manifests: the length of every cut, and its language.

use std::{path::PathBuf, sync::Arc};

use super::{
    Length,
    count::Counter,
    manifest::{Error, Rejected},
    tokens::Tokens,
};

/// The cuts of some manifests, in their order, as a sampler sees them.
#[derive(Debug, Default)]
pub struct Lengths {
    /// Duration and tokens of each cut.
    pub lengths: Vec<Length>,
    /// The language that is spoken in each; `None` where it is not stated.
    languages: Vec<Option<Arc<str>>>,
    /// Rows that were skipped.
    pub rejected: Vec<Rejected>,
    /// Cuts whose text the vocabulary cannot spell, counted with no tokens, and what it said of the first.
    pub unspelled: Option<(u64, String)>,
}

impl Lengths {
    /// Reads manifests. Each text's tokens are counted in parallel, and `n_prompt_tokens` added: those that a model writes
    /// around every text. `progress` hears how many cuts were read.
    ///
    /// # Errors
    /// A manifest that cannot be opened, or one of whose rows none can be used.
    pub fn read(
        manifests: &[PathBuf],
        tokens: &Tokens,
        n_prompt_tokens: u32,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        let mut found = Self::default();
        let mut counter = Counter::new(tokens, false, progress);
        for path in manifests {
            counter.read(path, &mut |cut, n_tokens| {
                let n_tokens = u32::try_from(n_tokens).unwrap_or(u32::MAX).saturating_add(n_prompt_tokens);
                found.lengths.push(Length::new(cut.duration_secs, n_tokens));
                found.languages.push(cut.language.clone());
            })?;
        }
        (found.rejected, found.unspelled) = (counter.rejected, counter.unspelled);
        Ok(found)
    }

    /// The language of a cut; `""` where it is not stated.
    pub fn language(&self, item: usize) -> &str {
        self.languages.get(item).and_then(Option::as_deref).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_keep_their_order_over_manifests() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, rows: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, rows).expect("written");
            path
        };
        let first = write(
            "a.jsonl",
            "{\"audio_filepath\": \"a.wav\", \"duration\": 2, \"text\": \"سلام\", \"lang\": \"ps\"}\n{\n",
        );
        let second = write("b.jsonl", "{\"audio_filepath\": \"b.wav\", \"duration\": 0.5, \"text\": \"\"}\n");
        let mut heard = 0;
        let found = Lengths::read(&[first, second], &Tokens::Bytes, 3, &mut |n| heard = n).expect("read");
        assert_eq!((found.lengths, heard), (vec![Length::new(2.0, 11), Length::new(0.5, 3)], 2));
        assert_eq!(found.rejected.len(), 1);
        let found = Lengths { languages: found.languages, ..Lengths::default() };
        assert_eq!([found.language(0), found.language(1), found.language(9)], ["ps", "", ""]);
    }
}

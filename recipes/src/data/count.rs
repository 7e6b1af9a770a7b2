//! Reads manifests and counts the tokens of their texts, many at a time.

use std::path::Path;

use rayon::prelude::*;

use super::{
    manifest::{Cut, Error, Needs, Reader, Rejected, check_any_good},
    tokens::Tokens,
};

/// Rows that are counted at a time.
pub(super) const CHUNK: usize = 4096;

/// Counts over several manifests.
pub(super) struct Counter<'a> {
    tokens: &'a Tokens,
    needs: Needs,
    /// Hears how many cuts were counted.
    progress: &'a mut dyn FnMut(u64),
    n_cuts: u64,
    /// Rows that were skipped.
    pub(super) rejected: Vec<Rejected>,
    /// Cuts whose text the vocabulary cannot spell, counted with no tokens, and what it said of the first.
    pub(super) unspelled: Option<(u64, String)>,
}

impl<'a> Counter<'a> {
    /// Counts cuts of recordings, and with `texts` those without one, too.
    pub(super) fn new(tokens: &'a Tokens, texts: bool, progress: &'a mut dyn FnMut(u64)) -> Self {
        let needs = Needs { text: false, audio: !texts, ..Needs::default() };
        Self { tokens, needs, progress, n_cuts: 0, rejected: Vec::new(), unspelled: None }
    }

    /// Gives every cut of a manifest to `each`, in its order, with the number of its tokens. Unlabelled recordings are data, too.
    ///
    /// # Errors
    /// A manifest that cannot be opened, or one of whose rows none can be used.
    pub(super) fn read(&mut self, path: &Path, each: &mut dyn FnMut(&Cut, usize)) -> Result<(), Error> {
        let (n_cuts_before, n_rejected_before) = (self.n_cuts, self.rejected.len());
        let mut reader = Reader::open(path, self.needs)?;
        loop {
            let rows: Vec<_> = reader.by_ref().take(CHUNK).collect();
            if rows.is_empty() {
                break;
            }
            let mut cuts = Vec::with_capacity(rows.len());
            for row in rows {
                match row {
                    Ok(cut) => cuts.push(cut),
                    Err(rejected) => self.rejected.push(rejected),
                }
            }
            let counts: Vec<_> = cuts.par_iter().map(|cut| self.tokens.count(cut.output_text())).collect();
            for (cut, count) in cuts.iter().zip(counts) {
                let n_tokens = count.unwrap_or_else(|error| {
                    self.unspelled.get_or_insert_with(|| (0, format!("{}: {error}", cut.id))).0 += 1;
                    0
                });
                each(cut, n_tokens);
            }
            self.n_cuts += cuts.len() as u64;
            (self.progress)(self.n_cuts);
        }
        check_any_good(path, self.n_cuts - n_cuts_before, &self.rejected[n_rejected_before..])
    }
}

//! Several models as one, whose ids follow each other.

use std::collections::BTreeSet;

use super::{Algorithm, HIDDEN, Kind, SentencePiece};

impl SentencePiece {
    /// The models in their order. A text is cut as if all pieces were of one model, the first that has a piece giving its id: what any
    /// id says is as it was, but texts of a later language are not cut as its own model would.
    ///
    /// # Errors
    /// Models that treat texts in different ways; the message names them.
    pub(crate) fn aggregate(models: Vec<(Self, String)>) -> Result<Self, String> {
        // Where commands are all that a model is for it does not matter how it would cut texts.
        let first = models.iter().position(|(model, _)| !model.is_of_commands()).unwrap_or_default();
        let Some((like, like_name)) = models.get(first) else { return Err("is empty".to_owned()) };
        for (model, name) in models.iter().filter(|(model, _)| !model.is_of_commands()) {
            if (model.algorithm, model.settings()) != (like.algorithm, like.settings()) {
                let message = "differ in model_type or normalizer_spec; they have to be the same";
                return Err(format!("{like_name} and {name} {message}"));
            }
        }
        let mut whole = Self { pieces: Vec::new(), charsmap: like.charsmap.clone(), ..*like };
        let mut names = BTreeSet::new();
        for (n, (model, _)) in models.into_iter().enumerate() {
            // What else it has is no text either: NeMo cuts all texts by a language's model.
            let is_of_commands = n != first && model.is_of_commands();
            let worst = whole.pieces.iter().map(|piece| piece.score).fold(0.0, f32::min);
            for mut piece in model.pieces {
                if whole.algorithm == Algorithm::Bpe {
                    // Pairs of earlier models first.
                    piece.score += worst;
                }
                if piece.kind == Kind::Unknown && n > 0 {
                    // One of them is enough.
                    piece.kind = Kind::Control;
                }
                if names.contains(&piece.text) || (is_of_commands && piece.kind == Kind::Normal) {
                    piece.text = format!("{}{HIDDEN}{n}", piece.text);
                }
                names.insert(piece.text.clone());
                whole.pieces.push(piece);
            }
        }
        whole.check_merges()?;
        Ok(whole)
    }

    /// Whether most of its pieces are commands: NeMo's `spl_tokens`.
    fn is_of_commands(&self) -> bool {
        2 * self.pieces.iter().filter(|piece| piece.is_special()).count() > self.pieces.len()
    }

    /// What it does with a text before that is cut.
    fn settings(&self) -> (&[u8], bool, bool, bool) {
        (&self.charsmap, self.has_dummy_prefix, self.is_whitespace_collapsed, self.has_byte_fallback)
    }
}

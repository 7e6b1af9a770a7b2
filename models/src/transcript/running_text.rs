//! The text of a transcript while its segments come in.

/// Segments' texts put together, and how much of that was told.
#[derive(Debug, Default)]
pub(super) struct RunningText {
    text: String,
    n_told: usize,
}

impl RunningText {
    /// Appends a segment. In languages that write spaces, one stands between segments.
    pub fn push(&mut self, segment: &str, is_spaced: bool) {
        let is_apart = self.text.is_empty() || self.text.ends_with(' ') || segment.starts_with(' ');
        if !is_apart && is_spaced {
            self.text.push(' ');
        }
        self.text.push_str(segment);
    }

    /// What was not told yet. Space at the end waits for what comes after it, and at the start is left out.
    pub fn take(&mut self) -> &str {
        let end = self.text.trim_end().len();
        let start = self.n_told.max(self.text.len() - self.text.trim_start().len()).min(end);
        self.n_told = end.max(self.n_told);
        &self.text[start..end]
    }

    /// All of it, without leading and trailing space.
    pub fn into_text(self) -> String {
        self.text.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spaces_stand_between_segments_and_nowhere_else() {
        let text = |segments: &[&str], is_spaced| {
            let mut text = RunningText::default();
            segments.iter().for_each(|segment| text.push(segment, is_spaced));
            text.into_text()
        };
        assert_eq!(text(&[" one", " two ", "three", ""], true), "one two three");
        assert_eq!(text(&["一", "二"], false), "一二");
    }

    proptest! {
        #[test]
        fn what_was_told_adds_up_to_the_text(
            segments in prop::collection::vec("[ a\u{a0}\u{3000}你\n]{0,5}", 0..8),
            is_spaced: bool,
            takes in prop::collection::vec(any::<bool>(), 8),
        ) {
            let mut text = RunningText::default();
            let mut told = String::new();
            for (segment, takes) in segments.iter().zip(takes) {
                text.push(segment, is_spaced);
                if takes {
                    told += text.take();
                }
            }
            told += text.take();
            prop_assert_eq!(told, text.into_text());
        }
    }
}

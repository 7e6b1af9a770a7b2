//! A cascade: what a recogniser wrote down, put into another language by a translator of text.

use super::running_text::RunningText;
use super::{Segment, Transcript};
use crate::tokenizer::Tokenizer;
use crate::{Error, Task};

impl Transcript {
    /// The same in another language, segment by segment: `translate` makes the text of one, `translator` names it. When segments were
    /// said stays, and so do the figures by which the recogniser judged what it heard; tokens and words, with their times and
    /// probabilities, are those of another text and go. What was said in that language is its own translation and stays as it is.
    ///
    /// # Errors
    /// What `translate` refuses.
    pub fn translated(
        self,
        translator: &str,
        to_language: &str,
        translate: &mut dyn FnMut(&str) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let told = Self { task: Task::Translate, to_language: Some(to_language.to_owned()), ..self };
        if told.language.as_deref() == Some(to_language) {
            return Ok(told);
        }
        let is_spaced = !Tokenizer::is_unspaced(to_language);
        let mut running = RunningText::default();
        let mut segments = Vec::with_capacity(told.segments.len());
        for segment in told.segments {
            let text = match segment.text.trim() {
                "" => String::new(),
                text => translate(text)?,
            };
            // As one that was decoded: with the space before it.
            let text = if is_spaced && !text.is_empty() { format!(" {text}") } else { text };
            if !text.is_empty() {
                running.push(&text, is_spaced);
            }
            segments.push(Segment {
                text,
                token_ids: Vec::new(),
                token_logprobs: Vec::new(),
                words: None,
                ..segment
            });
        }
        Ok(Self { text: running.into_text(), segments, cascade: Some(translator.to_owned()), ..told })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Coverage, Word};
    use super::*;

    fn segment(id: usize, text: &str) -> Segment {
        let word = Word { text: text.to_owned(), start_secs: 1.0, end_secs: 2.0, probability: 0.5 };
        Segment {
            id,
            seek_secs: 0.0,
            start_secs: id as f64,
            end_secs: id as f64 + 1.0,
            text: text.to_owned(),
            token_ids: vec![1, 2],
            token_logprobs: vec![-0.5, -0.1],
            temperature: 0.0,
            avg_logprob: -0.3,
            compression_ratio: 1.5,
            no_speech_prob: 0.1,
            words: Some(vec![word]),
        }
    }

    fn transcript() -> Transcript {
        Transcript {
            text: "one two".to_owned(),
            language: Some("en".to_owned()),
            language_probability: Some(0.5),
            task: Task::Transcribe,
            to_language: None,
            cascade: None,
            duration_secs: 3.0,
            segments: vec![segment(0, " one"), segment(1, "  "), segment(2, " two")],
            coverage: Coverage::default(),
        }
    }

    fn spell(text: &str) -> Result<String, Error> {
        Ok(text.chars().rev().collect())
    }

    #[test]
    fn segments_keep_their_times_and_lose_what_was_true_of_other_words() -> Result<(), Error> {
        let translated = transcript().translated("t", "ps", &mut spell)?;
        assert_eq!(translated.text, "eno owt");
        assert_eq!((translated.task, translated.written_language()), (Task::Translate, Some("ps")));
        assert_eq!((translated.language.as_deref(), translated.cascade.as_deref()), (Some("en"), Some("t")));
        let texts: Vec<_> = translated.segments.iter().map(|segment| segment.text.as_str()).collect();
        assert_eq!(texts, [" eno", "", " owt"]);
        for (segment, heard) in translated.segments.iter().zip(transcript().segments) {
            assert_eq!(
                (segment.start_secs, segment.end_secs, segment.avg_logprob),
                (heard.start_secs, heard.end_secs, heard.avg_logprob)
            );
            assert!(
                segment.words.is_none() && segment.token_ids.is_empty() && segment.token_logprobs.is_empty()
            );
        }
        // Languages without spaces get none.
        assert_eq!(transcript().translated("t", "ja", &mut spell)?.text, "enoowt");
        Ok(())
    }

    #[test]
    fn what_is_said_in_the_language_already_stays_as_it_is() -> Result<(), Error> {
        let same = transcript().translated("t", "en", &mut |_| Err(Error::Cancelled))?;
        let told = Transcript { task: Task::Translate, to_language: Some("en".to_owned()), ..transcript() };
        assert_eq!(same, told);
        Ok(())
    }

    #[test]
    fn nobody_waiting_ends_it_between_two_segments() {
        let mut n = 0;
        let result = transcript().translated("t", "ps", &mut |text| {
            n += 1;
            if n < 2 { spell(text) } else { Err(Error::Cancelled) }
        });
        assert!(matches!(result, Err(Error::Cancelled)) && n == 2);
    }
}

//! A recogniser that hears speech, and the recordings beside it.

use std::iter;

use audio::Waveform;
use models::{BundleSource, DecodeOptions, Transcriber};
use recipes::evaluate::{Reference, evaluate};

use super::{
    super::{Usage, progress::Style},
    to_speak::ToSpeak,
};
use crate::compute::Compute;

/// What hears speech, and the recordings beside it.
pub(in crate::cli) struct SpeechJudge {
    transcriber: Transcriber,
    options: DecodeOptions,
}

impl SpeechJudge {
    /// Loads the recogniser `name`, which is told `language` where it has several. Where nobody knows whether it hears that one, it is noted.
    ///
    /// # Errors
    /// What its bundle lacks, a language that it does not hear, options that it cannot follow.
    pub(in crate::cli) fn load(
        name: &str,
        source: BundleSource,
        compute: &Compute,
        language: Option<&str>,
        beam_size: Option<usize>,
        style: Style,
    ) -> anyhow::Result<Self> {
        let transcriber = compute.load(source)?;
        let stated = language.map(str::to_owned);
        let options = DecodeOptions { beam_size, language: stated, ..DecodeOptions::default() };
        transcriber.check(&options).map_err(|error| Usage(format!("judge {name}: {error}")))?;
        let special = transcriber.special_tokens();
        let is_told = special.is_multilingual;
        if let Some(language) = language.filter(|_| !is_told && special.only_language.is_none()) {
            style.note(&format!(
                "judge {name}: it does not say which language it hears; what it makes of speech tells something only where that is \
                 `{language}`"
            ));
        }
        let language = options.language.filter(|_| is_told);
        Ok(Self { transcriber, options: DecodeOptions { beam_size, language, ..DecodeOptions::default() } })
    }

    /// What it hears, told the language of the text where it has several, else that which it was loaded with.
    ///
    /// # Errors
    /// Sound that it cannot listen to, a language that it does not know.
    pub(in crate::cli) fn hear(
        &self,
        text: &ToSpeak<'_>,
        waveform: &Waveform,
    ) -> Result<String, recipes::Error> {
        let is_told = self.transcriber.special_tokens().is_multilingual;
        let reference = Reference {
            name: String::new(),
            waveform: waveform.clone(),
            text: String::new(),
            language: text.language.filter(|_| is_told).map(str::to_owned),
            to_language: None,
        };
        let mut heard = evaluate(&self.transcriber, iter::once(Ok(reference)), &self.options, &mut |_| {});
        match (heard.heard.pop(), heard.failed.pop()) {
            (Some(heard), _) => Ok(heard.hypothesis),
            // Nothing to hear is heard as nothing.
            (None, None) => Ok(String::new()),
            (None, Some(unheard)) => {
                Err(models::Error::Option { option: "judge", message: unheard.reason }.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_recogniser_judges_the_languages_that_it_says_it_hears() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let compute = Compute::new(models::Device::Cpu, crate::config::Precision::F32).expect("a processor");
        let told = |name: &str, language: &str| {
            let source = fixtures.join(name).as_path().into();
            let judge = SpeechJudge::load(name, source, &compute, Some(language), None, Style::new(true));
            judge.map(|judge| judge.options.language).map_err(|error| error.to_string())
        };
        assert_eq!(told("whisper-80", "ps"), Ok(Some("ps".to_owned())));
        assert_eq!(told("whisper-en", "en"), Ok(None), "it need not be told");
        for (name, language) in [("whisper-en", "ps"), ("whisper-80", "xx")] {
            let message = told(name, language).expect_err("refused");
            assert!(message.contains(&format!("judge {name}")) && message.contains(language), "{message}");
        }
    }
}

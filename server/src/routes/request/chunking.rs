//! `chunking_strategy`: how a recording is cut, as JSON or field by field.

use audio::VadOptions;
use serde::{Deserialize, Deserializer};

use crate::{
    config::{Transcribe, Vad},
    error::{Error, quoted},
    routes::{
        fields::{Fields, decimal, narrowed, number},
        form::shown_name,
    },
};

/// The longest pause or margin that a chunking strategy may ask for.
pub(in crate::routes) const MAX_CHUNKING_MS: u32 = 60_000;
/// Of what a parser says about JSON.
const MAX_REASON_CHARS: usize = 160;

/// `chunking_strategy` of the type `server_vad`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunking {
    /// Sound that is kept before speech begins, ms.
    pub prefix_padding_ms: u32,
    /// A shorter pause does not end speech, ms.
    pub silence_duration_ms: u32,
    /// The probability from which a frame is speech.
    pub threshold: f32,
}

/// How the recording is cut: `auto`, or an object, as JSON or field by field.
pub(super) fn chunking_strategy(
    fields: &mut Fields<'_>,
    settings: &mut Transcribe,
    has_vad: bool,
) -> Result<Option<Chunking>, Error> {
    const PARAM: &str = "chunking_strategy";
    let text = fields.text(PARAM)?;
    let members = fields.members(PARAM);
    let strategy = match (text, members.as_slice()) {
        (None, []) | (Some("null"), []) => return Ok(None),
        (Some("auto" | "\"auto\""), []) => None,
        (Some(json), []) => Some(Chunking::from_json(json)?),
        (None, members) => Some(Chunking::from_members(members)?),
        (Some(_), _) => return Err(Error::invalid(PARAM, "given twice")),
    };
    if has_vad {
        return Err(Error::invalid(PARAM, "vad says it already; give one of them"));
    }
    settings.vad = if strategy.is_some() { Vad::On } else { Vad::Auto };
    Ok(strategy)
}

impl Chunking {
    /// What the OpenAI API does where nothing is said.
    pub(in crate::routes) const DEFAULT: Self =
        Self { prefix_padding_ms: 300, silence_duration_ms: 200, threshold: 0.5 };

    /// As the detector takes it. Speech goes on a little below the threshold, as in the tools that it is known from, and
    /// nothing but the threshold is asked of it: between short pauses are short words, which may not get far above it.
    pub(super) fn vad_options(self) -> VadOptions {
        let defaults = VadOptions::default();
        VadOptions {
            threshold: self.threshold,
            end_threshold: (self.threshold - (defaults.threshold - defaults.end_threshold)).max(0.0),
            peak_threshold: self.threshold,
            min_silence_secs: f64::from(self.silence_duration_ms) / 1000.0,
            pad_secs: f64::from(self.prefix_padding_ms) / 1000.0,
            ..defaults
        }
    }

    fn from_json(json: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strategy {
            r#type: ServerVad,
            #[serde(default, deserialize_with = "given")]
            prefix_padding_ms: Option<u32>,
            #[serde(default, deserialize_with = "given")]
            silence_duration_ms: Option<u32>,
            #[serde(default, deserialize_with = "given")]
            threshold: Option<f64>,
        }
        /// Left out or a number: `null` is neither.
        fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
            T::deserialize(value).map(Some)
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum ServerVad {
            ServerVad,
        }
        let strategy: Strategy = serde_json::from_str(json).map_err(|error| {
            // It may repeat what was sent.
            let reason: String = error.to_string().chars().take(MAX_REASON_CHARS).collect();
            let message = format!("neither auto nor an object of the type server_vad: {reason}");
            Error::invalid("chunking_strategy", message)
        })?;
        let ServerVad::ServerVad = strategy.r#type;
        Self {
            prefix_padding_ms: strategy.prefix_padding_ms.unwrap_or(Self::DEFAULT.prefix_padding_ms),
            silence_duration_ms: strategy.silence_duration_ms.unwrap_or(Self::DEFAULT.silence_duration_ms),
            threshold: strategy.threshold.map_or(Self::DEFAULT.threshold, narrowed),
        }
        .check()
    }

    fn from_members(members: &[(&str, &str)]) -> Result<Self, Error> {
        let mut chunking = Self::DEFAULT;
        let mut seen: Vec<&str> = Vec::new();
        for &(key, value) in members {
            let param = format!("chunking_strategy[{}]", shown_name(key));
            if seen.contains(&key) {
                return Err(Error::invalid(param, "given twice"));
            }
            seen.push(key);
            match key {
                "type" if value == "server_vad" => {}
                "type" => return Err(Error::invalid(param, format!("{} is not server_vad", quoted(value)))),
                "prefix_padding_ms" => chunking.prefix_padding_ms = number(param, value)?,
                "silence_duration_ms" => chunking.silence_duration_ms = number(param, value)?,
                "threshold" => chunking.threshold = decimal(param, value)?,
                _ => {
                    let known = "type, prefix_padding_ms, silence_duration_ms, threshold".to_owned();
                    return Err(Error::Unknown { param, known });
                }
            }
        }
        if !seen.contains(&"type") {
            return Err(Error::Missing("chunking_strategy[type]"));
        }
        chunking.check()
    }

    fn check(self) -> Result<Self, Error> {
        for (key, ms) in
            [("prefix_padding_ms", self.prefix_padding_ms), ("silence_duration_ms", self.silence_duration_ms)]
        {
            if ms > MAX_CHUNKING_MS {
                let message = format!("{ms} is not between 0 and {MAX_CHUNKING_MS}");
                return Err(Error::invalid(format!("chunking_strategy[{key}]"), message));
            }
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            let message = format!("{} is not between 0 and 1", self.threshold);
            return Err(Error::invalid("chunking_strategy[threshold]", message));
        }
        Ok(self)
    }
}

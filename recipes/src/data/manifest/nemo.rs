//! NeMo's rows: `{"audio_filepath": "clips/a.wav", "duration": 3.2, "text": "..."}`, and what multi-task models add to them
//! (NeMo `collections/common/data/lhotse/nemo_adapters.py`; the Canary models' `source_lang`, `target_lang`, `answer`).

use std::{borrow::Cow, path::Path};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Cut, Extra, Interner, Reason, Row,
    object::{take_channel, take_duration, take_name, take_start, take_text},
};

/// Keys that have a meaning here; all others are kept as they are.
const KEYS: [&str; 12] = [
    "id",
    "audio_filepath",
    "offset",
    "duration",
    "channel",
    "text",
    "answer",
    "lang",
    "language",
    "source_lang",
    "target_lang",
    "speaker",
];

/// Reads a row. A row without a duration is for a caller who measures, one without a recording for a caller who wants texts.
///
/// - The language is `source_lang`, else `lang`, else `language`.
/// - `answer` is what the model is to write. Without it, and with a `target_lang` that is not the language, `text` is.
/// - `answer` without `text`, in the language that is spoken, is the text.
/// - Without a recording there is nothing to be a stretch of: start, length and channel say nothing.
pub(super) fn parse(
    mut object: Map<String, Value>,
    folder: &Path,
    needs_audio: bool,
    names: &mut Interner,
) -> Result<Row, Reason> {
    let audio = match take_text(&mut object, "audio_filepath")? {
        Some(audio) => Some(resolve(&audio, "audio_filepath", folder)?),
        None if needs_audio => return Err(Reason::Missing("audio_filepath")),
        None => None,
    };
    let has_audio = audio.is_some();
    let start_secs = take_start(&mut object, "offset")?.filter(|_| has_audio);
    let duration_secs = take_duration(&mut object, "duration")?.filter(|_| has_audio);
    let channel = take_channel(&mut object, "channel")?.filter(|_| has_audio);
    let text = take_text(&mut object, "text")?;
    let answer = take_text(&mut object, "answer")?;
    let mut language = None;
    for key in ["source_lang", "lang", "language"] {
        language = language.or(take_name(&mut object, key)?);
    }
    let target_language = take_name(&mut object, "target_lang")?;
    let speaker = take_name(&mut object, "speaker")?;
    let is_translation = target_language.is_some() && target_language != language;
    let (text, target_text) = match (text, answer) {
        (Some(text), Some(answer)) => (text, (!answer.is_empty()).then_some(answer)),
        (Some(text), None) if is_translation => (Box::default(), (!text.is_empty()).then_some(text)),
        (Some(text), None) => (text, None),
        (None, Some(answer)) if is_translation => (Box::default(), (!answer.is_empty()).then_some(answer)),
        (None, answer) => (answer.unwrap_or_default(), None),
    };
    let id = match (take_name(&mut object, "id")?, &audio) {
        (Some(id), _) => id,
        (None, Some(audio)) => name(audio.strip_prefix(folder).unwrap_or(audio), start_secs, duration_secs),
        // As `no ..` has them both.
        (None, None) => return Err(Reason::Missing("audio_filepath` and no `id")),
    };
    let cut = Cut {
        id,
        audio: audio.unwrap_or_else(|| Path::new("").into()),
        start_secs: start_secs.unwrap_or(0.0),
        duration_secs: duration_secs.unwrap_or(0.0),
        channel,
        text,
        language: language.map(|language| names.get(&language)),
        speaker: speaker.map(|speaker| names.get(&speaker)),
        target_text,
        target_language: target_language.map(|language| names.get(&language)),
        extra: (!object.is_empty()).then(|| Box::new(object)),
    };
    Ok(Row { cut, has_duration: duration_secs.is_some() })
}

/// A path in a manifest, which counts from the manifest's folder.
pub(super) fn resolve(path: &str, key: &'static str, folder: &Path) -> Result<Box<Path>, Reason> {
    if path.trim().is_empty() {
        return Err(Reason::EmptyText(key));
    }
    if path.contains("://") {
        let message = format!("`{key}`: {path} is an address; fetch the recordings and name the files");
        return Err(Reason::Unsupported(message));
    }
    Ok(folder.join(path).into())
}

/// The name of a cut that has none: its recording's as the manifest has it, as folders may have the same names in them, and its
/// place in there in hundredths of a second.
fn name(audio: &Path, start_secs: Option<f64>, duration_secs: Option<f64>) -> Box<str> {
    let stem = audio.with_extension("");
    let stem = stem.to_string_lossy();
    match (start_secs, duration_secs) {
        (Some(start_secs), Some(duration_secs)) => {
            let hundredths = |secs: f64| (secs * 100.0).round() as u64;
            format!("{stem}-{:06}-{:06}", hundredths(start_secs), hundredths(duration_secs)).into()
        }
        _ => stem.into(),
    }
}

/// Keeps what means nothing here, under its own name unless that is taken.
pub(super) fn keep(extra: &mut Extra, key: String, value: Value) {
    if !KEYS.contains(&key.as_str()) && !extra.contains_key(&key) {
        extra.insert(key, value);
        return;
    }
    if let Value::Object(custom) = extra.entry("custom").or_insert_with(|| Value::Object(Map::new())) {
        custom.entry(key).or_insert(value);
    }
}

/// A row as we write it, in this order.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_filepath: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: f64,
    #[serde(skip_serializing_if = "is_zero")]
    duration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<u16>,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_lang: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_lang: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<&'a str>,
    #[serde(flatten)]
    extra: Option<&'a Extra>,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// The row of a cut, without the line's end, so that reading it gives the cut again. `audio` is where its recording is, if it has one.
pub(super) fn write(cut: &Cut, audio: Option<Cow<'_, str>>, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let (language, target) = (cut.language.as_deref(), cut.target_language.as_deref());
    let is_translation = target.is_some() && target != language;
    let line_of = Line {
        id: &cut.id,
        audio_filepath: audio,
        offset: cut.start_secs,
        duration: cut.duration_secs,
        channel: cut.channel,
        text: &cut.text,
        lang: language.filter(|_| target.is_none()),
        source_lang: language.filter(|_| target.is_some()),
        target_lang: target,
        // Said even when empty where the text would else be taken for the translation.
        answer: cut.target_text.as_deref().or((is_translation && !cut.text.is_empty()).then_some("")),
        speaker: cut.speaker.as_deref(),
        extra: cut.extra.as_deref(),
    };
    serde_json::to_writer(line, &line_of)
}

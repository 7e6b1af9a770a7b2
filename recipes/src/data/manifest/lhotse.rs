//! Lhotse's cuts: a stretch of a recording with the segments that somebody transcribed in it (lhotse `cut/mono.py`,
//! `supervision.py`, `audio/recording.py`).

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Cut, Extra, Interner, Reason, Row,
    nemo::{keep, resolve},
    object::{take_channel, take_duration, take_name, take_number, take_start, take_text},
};

/// A segment may leave its cut by this much, seconds: times are rounded.
const TOLERANCE_SECS: f64 = 0.01;

/// Whether a row is one of Lhotse's rather than NeMo's.
pub(super) fn is_lhotse(object: &Map<String, Value>) -> bool {
    let has = |key: &str| object.contains_key(key);
    !has("audio_filepath")
        && (has("recording") || has("supervisions") || has("sources") || has("recording_id") || has("tracks"))
}

/// Reads a cut.
///
/// - With one segment, or none, the cut stays whole.
/// - With several it becomes a cut for each, of the segment's length and name (as `trim_to_supervisions` does).
/// - Keys without a meaning here, those of `custom` and of the segment among them, are kept.
pub(super) fn parse(
    mut object: Map<String, Value>,
    folder: &Path,
    names: &mut Interner,
) -> Result<Vec<Row>, Reason> {
    refuse_others(&object)?;
    object.remove("type");
    let id = take_name(&mut object, "id")?.ok_or(Reason::Missing("id"))?;
    let start_secs = take_start(&mut object, "start")?.unwrap_or(0.0);
    let duration_secs = take_duration(&mut object, "duration")?.ok_or(Reason::Missing("duration"))?;
    let channel = take_channel(&mut object, "channel")?;
    let recording = match object.remove("recording") {
        Some(Value::Object(recording)) => recording,
        None | Some(Value::Null) => return Err(Reason::Missing("recording")),
        Some(other) => return Err(Reason::wrong_type("recording", &other, "an object")),
    };
    let audio = source(&recording, channel, folder)?;
    let supervisions = match object.remove("supervisions") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(supervisions)) => supervisions,
        Some(other) => return Err(Reason::wrong_type("supervisions", &other, "a list")),
    };
    // Features were computed with other settings than ours; the recording is what counts.
    object.remove("features");
    let mut extra = Extra::new();
    spread(&mut extra, object);
    let whole = Cut {
        id,
        audio: audio.path,
        start_secs,
        duration_secs,
        channel: audio.channel,
        text: Box::default(),
        language: None,
        speaker: None,
        target_text: None,
        target_language: None,
        extra: None,
    };
    let is_alone = supervisions.len() <= 1;
    let mut segments = Vec::new();
    for supervision in supervisions {
        segments.push(Segment::parse(supervision, names)?);
    }
    if segments.is_empty() {
        let extra = (!extra.is_empty()).then(|| Box::new(extra));
        return Ok(vec![Row { cut: Cut { extra, ..whole }, has_duration: true }]);
    }
    segments.into_iter().map(|segment| segment.apply(&whole, &extra, is_alone)).collect()
}

fn refuse_others(object: &Map<String, Value>) -> Result<(), Reason> {
    let unsupported = |message: &str| Err(Reason::Unsupported(message.to_owned()));
    match object.get("type").and_then(Value::as_str) {
        None | Some("MonoCut" | "Cut") => {}
        Some("MultiCut") => {
            return unsupported("a MultiCut has several channels; make one cut for each (CutSet.to_mono)");
        }
        Some("MixedCut") => {
            return unsupported(
                "a MixedCut is mixed while it is read; save its audio first (CutSet.save_audios)",
            );
        }
        Some(kind) => return Err(Reason::Unsupported(format!("a {kind} is not a cut of a recording"))),
    }
    if object.contains_key("sources") {
        return unsupported("a recording without a cut; make cuts of both manifests (lhotse cut simple)");
    }
    if object.contains_key("recording_id") {
        return unsupported(
            "a segment without its recording; make cuts of both manifests (lhotse cut simple)",
        );
    }
    Ok(())
}

struct Source {
    path: Box<Path>,
    channel: Option<u16>,
}

fn source(recording: &Map<String, Value>, channel: Option<u16>, folder: &Path) -> Result<Source, Reason> {
    match recording.get("transforms") {
        None | Some(Value::Null) => {}
        Some(Value::Array(transforms)) if transforms.is_empty() => {}
        Some(_) => {
            let message =
                "a recording that is transformed while it is read; save its audio first (CutSet.save_audios)";
            return Err(Reason::Unsupported(message.to_owned()));
        }
    }
    let sources =
        recording.get("sources").and_then(Value::as_array).ok_or(Reason::Missing("recording.sources"))?;
    let channels_of = |source: &Value| -> Vec<u64> {
        source["channels"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    // A recording may have a file for each channel.
    let source = match sources.as_slice() {
        [source] => source,
        several => several
            .iter()
            .find(|source| channel.is_some_and(|channel| channels_of(source).contains(&channel.into())))
            .ok_or_else(|| {
                Reason::Unsupported(format!("none of {} sources has the channel", several.len()))
            })?,
    };
    let channels = channels_of(source);
    let channel = match (channel, channels.as_slice()) {
        (Some(channel), [] | [_, _, ..]) => {
            let at = channels.iter().position(|known| *known == u64::from(channel));
            Some(at.and_then(|at| u16::try_from(at).ok()).unwrap_or(channel))
        }
        // Of one channel there is nothing to choose.
        _ => None,
    };
    let kind = source["type"].as_str().unwrap_or("file");
    if kind != "file" {
        let message =
            format!("a recording of type `{kind}`; save its audio to files first (CutSet.save_audios)");
        return Err(Reason::Unsupported(message));
    }
    match &source["source"] {
        Value::String(path) => {
            Ok(Source { path: resolve(path, "recording.sources.source", folder)?, channel })
        }
        Value::Null => Err(Reason::Missing("recording.sources.source")),
        other => Err(Reason::wrong_type("recording.sources.source", other, "a path")),
    }
}

/// Keeps an object's keys, those of its `custom` beside them.
fn spread(extra: &mut Extra, object: Map<String, Value>) {
    for (key, value) in object {
        match value {
            Value::Null => {}
            Value::Object(custom) if key == "custom" => {
                custom.into_iter().for_each(|(key, value)| keep(extra, key, value));
            }
            value => keep(extra, key, value),
        }
    }
}

/// A supervision: what is said in a part of a cut.
struct Segment {
    id: Box<str>,
    /// From the start of the cut; below 0 where it starts before.
    start_secs: f64,
    duration_secs: f64,
    text: Box<str>,
    language: Option<Arc<str>>,
    speaker: Option<Arc<str>>,
    rest: Map<String, Value>,
}

impl Segment {
    fn parse(supervision: Value, names: &mut Interner) -> Result<Self, Reason> {
        let mut object = match supervision {
            Value::Object(object) => object,
            other => return Err(Reason::wrong_type("supervisions", &other, "a list of objects")),
        };
        let id = take_name(&mut object, "id")?.ok_or(Reason::Missing("supervisions.id"))?;
        let start_secs = take_number(&mut object, "start")?.ok_or(Reason::Missing("supervisions.start"))?;
        let duration_secs =
            take_duration(&mut object, "duration")?.ok_or(Reason::Missing("supervisions.duration"))?;
        if !(-Cut::MAX_SECS..=Cut::MAX_SECS).contains(&start_secs) {
            return Err(Reason::bad_time("supervisions.start", start_secs, "a time within 1e7 s"));
        }
        object.remove("recording_id");
        object.remove("channel");
        Ok(Self {
            id,
            start_secs,
            duration_secs,
            text: take_text(&mut object, "text")?.unwrap_or_default(),
            language: take_name(&mut object, "language")?.map(|language| names.get(&language)),
            speaker: take_name(&mut object, "speaker")?.map(|speaker| names.get(&speaker)),
            rest: object,
        })
    }

    /// The cut with this segment's text: whole, or the segment's part of it.
    fn apply(self, whole: &Cut, extra: &Extra, is_alone: bool) -> Result<Row, Reason> {
        let end_secs = self.start_secs + self.duration_secs;
        if self.start_secs < -TOLERANCE_SECS || end_secs > whole.duration_secs + TOLERANCE_SECS {
            let message = format!(
                "segment {} lasts from {} to {end_secs} s of a cut of {} s: its text would be longer than its audio",
                self.id, self.start_secs, whole.duration_secs
            );
            return Err(Reason::Unsupported(message));
        }
        let mut extra = extra.clone();
        spread(&mut extra, self.rest);
        let mut cut = Cut {
            text: self.text,
            language: self.language,
            speaker: self.speaker,
            extra: (!extra.is_empty()).then(|| Box::new(extra)),
            ..whole.clone()
        };
        if !is_alone {
            cut.id = self.id;
            // Rounding must not make a cut start before the recording or end behind its own end.
            let start_secs = self.start_secs.max(0.0);
            cut.duration_secs = end_secs.min(whole.duration_secs) - start_secs;
            cut.start_secs += start_secs;
            if cut.duration_secs <= 0.0 {
                return Err(Reason::bad_time("supervisions.duration", cut.duration_secs, "a length above 0"));
            }
        }
        Ok(Row { cut, has_duration: true })
    }
}

//! What is uploaded: the bodies of the requests, made once.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::ValueEnum;

use super::schedule::{self, Kind};
use crate::{
    cli::{Usage, input, recognizer::decode_audio},
    config::Limits,
    render::Format,
};

/// Bytes of request bodies that are held in memory.
const MAX_BYTES: usize = 1 << 30;

/// Between the parts of a body. No recording holds it by chance.
const BOUNDARY: &str = "speechd-bench-serve-b7e151628aed2a6abf7158809cf4f3c7";

/// `content-type` of the bodies.
pub(super) const CONTENT_TYPE: &str =
    "multipart/form-data; boundary=speechd-bench-serve-b7e151628aed2a6abf7158809cf4f3c7";

/// A recording and the bodies of the requests for its transcript.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) name: String,
    pub(super) duration_secs: f64,
    whole: Bytes,
    stream: Bytes,
}

impl Recording {
    /// The body of a request of this kind.
    pub(super) fn body(&self, kind: Kind) -> &Bytes {
        if kind.is_stream { &self.stream } else { &self.whole }
    }
}

/// What is said beside the recording.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) model: &'a str,
    /// Of answers in one piece; streams are asked for as JSON.
    pub(super) format: Format,
}

/// Reads at most `n` of the recordings, chosen by the seed.
pub(super) fn read(
    paths: &[PathBuf],
    n: usize,
    seed: u64,
    limits: Limits,
    fields: Fields<'_>,
) -> anyhow::Result<Vec<Recording>> {
    let inputs = input::collect(paths);
    if !inputs.failures.is_empty() {
        return Err(Usage(inputs.failures.join("\n")).into());
    }
    let mut n_bytes = 0;
    let mut recordings = Vec::new();
    for input in schedule::choose(seed, inputs.found, n) {
        let path =
            input.path.ok_or_else(|| Usage("recordings are files, not the standard input".to_owned()))?;
        let recording = read_one(&path, limits, fields).with_context(|| path.display().to_string())?;
        n_bytes += recording.whole.len() + recording.stream.len();
        ensure!(n_bytes <= MAX_BYTES, "the recordings are too large to be held in memory; lower --distinct");
        recordings.push(recording);
    }
    Ok(recordings)
}

fn read_one(path: &Path, limits: Limits, fields: Fields<'_>) -> anyhow::Result<Recording> {
    let sound = std::fs::read(path)?;
    let options = decode_audio(limits, audio::ChannelChoice::Mix);
    let duration_secs = audio::decode_file(path, &options)?.waveform.duration_secs();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let format =
        fields.format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let whole = multipart(&[("model", fields.model), ("response_format", &format)], &name, &sound);
    let stream = [("model", fields.model), ("response_format", "json"), ("stream", "true")];
    Ok(Recording { stream: multipart(&stream, &name, &sound), whole, name, duration_secs })
}

/// A form whose last part is the file, as the official clients send it.
fn multipart(fields: &[(&str, &str)], name: &str, sound: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(sound.len() + 1024);
    for (field, value) in fields {
        body.extend_from_slice(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n")
                .as_bytes(),
        );
    }
    // Quotes and line ends would end the header.
    let name = name.replace(['"', '\r', '\n', '\\'], "_");
    body.extend_from_slice(
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .as_bytes(),
    );
    body.extend_from_slice(sound);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_ends_with_the_file_and_no_name_breaks_it() {
        let body = multipart(&[("model", "m"), ("stream", "true")], "a\"\r\nb.wav", b"RIFF");
        let text = String::from_utf8(body.to_vec()).expect("UTF-8");
        assert!(CONTENT_TYPE.ends_with(BOUNDARY));
        assert_eq!(text.matches(&format!("--{BOUNDARY}")).count(), 4);
        assert!(text.contains("name=\"model\"\r\n\r\nm\r\n"), "{text}");
        assert!(text.contains("filename=\"a___b.wav\"\r\n"), "{text}");
        assert!(text.ends_with(&format!("\r\n\r\nRIFF\r\n--{BOUNDARY}--\r\n")), "{text}");
    }

    #[test]
    fn recordings_know_how_long_they_are() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/digits");
        let limits = crate::config::Config::load(None).expect("a configuration").limits;
        let fields = Fields { model: "m", format: Format::VerboseJson };
        let read = read(&[folder], 2, 0, limits, fields).expect("recordings");
        assert_eq!(read.len(), 2);
        assert!(read.iter().all(|recording| (1.0..4.0).contains(&recording.duration_secs)), "{read:?}");
        let kind = |is_stream| Kind { recording: 0, is_stream };
        let has = |kind, part: &[u8]| read[0].body(kind).windows(part.len()).any(|bytes| bytes == part);
        assert!(has(kind(false), b"verbose_json") && !has(kind(true), b"verbose_json"));
        assert!(has(kind(true), b"name=\"stream\"\r\n\r\ntrue\r\n"));
    }
}

//! One decode, from an opened source to mono samples.

use std::io::SeekFrom;

use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::get_probe;

use super::guard::guard;
use super::joined::{self, FileEnd};
use super::mono::Mono;
use super::sniff::{SNIFFED_BYTES, known_unsupported};
use super::source::{BoundedSource, Deadline};
use super::track::{AudioTrack, PacketError};
use super::{DecodeAudio, Decoded, SourceInfo, Warning, edit_list, ogg_end};
use crate::Error;

/// A decoder that panicked is replaced this often before the rest of the file is given up.
const MAX_DECODER_PANICS: u32 = 8;
/// A stated length may exceed the decoded one by this much, seconds, before the file counts as truncated: stated
/// lengths are rounded to milliseconds, packets or estimates.
const LENGTH_TOLERANCE_SECS: f64 = 0.06;

/// A source whose audio track is found and within the limits, before its first packet.
pub(super) struct Opened {
    pub(super) reader: Box<dyn FormatReader>,
    pub(super) track: AudioTrack,
    pub(super) deadline: Deadline,
    /// The container lacks its end.
    pub(super) is_cut: bool,
}

impl Opened {
    pub(super) fn open(
        mut source: Box<dyn MediaSource>,
        hint: Option<&str>,
        options: &DecodeAudio,
    ) -> Result<Self, Error> {
        let deadline = Deadline::after(options.limits.max_cpu_secs);
        refuse_known_unsupported(source.as_mut())?;
        // What cannot be read here, the demuxer will complain about.
        let is_cut = ogg_end::is_cut(source.as_mut()).unwrap_or(false);
        let edits = edit_list::read(source.as_mut()).unwrap_or_default();
        source.seek(SeekFrom::Start(0))?;
        let reader = open(BoundedSource::new(source, deadline), hint, deadline)?;
        let mut track = guard(|| AudioTrack::choose(reader.tracks(), &options.limits))??;
        if let Some(edit) = edits.iter().find(|edit| edit.track_id == track.id) {
            track.apply_edit(edit);
        }
        // What uncompressed audio states can be a placeholder (streams), and its bytes bound it anyway. MP3 lengths
        // without a header are extrapolated from the first frame, so they only count when far beyond the limit.
        if let Some(stated_secs) = track.stated_secs.filter(|_| !track.is_pcm()) {
            let slack = if track.codec == "mp3" { 2.0 } else { 1.0 };
            options.limits.check_duration(stated_secs / slack)?;
        }
        Ok(Opened { reader, track, deadline, is_cut })
    }
}

/// Decodes `source`; see [`super::decode_bytes`].
pub(super) fn decode(
    source: Box<dyn MediaSource>,
    hint: Option<&str>,
    options: &DecodeAudio,
) -> Result<Decoded, Error> {
    let Opened { mut reader, mut track, deadline, is_cut } = Opened::open(source, hint, options)?;
    let mut pass = Pass {
        mono: Mono::new(&options.limits, options.channel),
        interleaved: Vec::new(),
        channels: None,
        n_skipped: 0,
        n_panics: 0,
        broken_off: None,
        at_end_of_file: false,
        is_cut,
        n_parts: 1,
        file_end: FileEnd::of(reader.as_ref()),
        file_start_secs: 0.0,
    };
    let format = reader.format_info().short_name.to_owned();
    while pass.run(reader.as_mut(), &mut track, options, deadline)? == Stop::EndOfFile {
        match pass.next_file(reader, &mut track, options, deadline)? {
            Some(next) => reader = next,
            None => return pass.finish(format, &track, deadline),
        }
    }
    // Dropping a demuxer whose state a panic left behind is its own risk.
    let _ = guard(move || drop(reader));
    pass.finish(format, &track, deadline)
}

fn refuse_known_unsupported(source: &mut dyn MediaSource) -> Result<(), Error> {
    let mut start = [0; SNIFFED_BYTES];
    let mut n_read = 0;
    while n_read < start.len() {
        match source.read(&mut start[n_read..]) {
            Ok(0) => break,
            Ok(n_bytes) => n_read += n_bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Io(error)),
        }
    }
    source.seek(SeekFrom::Start(0))?;
    known_unsupported(&start[..n_read]).map_or(Ok(()), |what| Err(Error::unsupported(what)))
}

fn open(
    source: BoundedSource,
    hint: Option<&str>,
    deadline: Deadline,
) -> Result<Box<dyn FormatReader>, Error> {
    let mut probe_hint = Hint::new();
    match hint {
        Some(hint) if hint.contains('/') => probe_hint.mime_type(hint),
        Some(hint) => probe_hint.with_extension(hint.trim_start_matches('.')),
        None => &mut probe_hint,
    };
    let opened = guard(|| {
        let stream = MediaSourceStream::new(Box::new(source), Default::default());
        get_probe().probe(&probe_hint, stream, FormatOptions::default(), MetadataOptions::default())
    })?;
    opened.map_err(|error| {
        if let Err(timeout) = deadline.check() {
            return timeout;
        }
        match error {
            error if is_end_of_file(&error) => Error::undecodable("the file ends inside its header"),
            SymphoniaError::Unsupported(what) if what.contains("no suitable format") => {
                let called = hint.map(|hint| format!(" (called {hint})")).unwrap_or_default();
                Error::unsupported(format!("no audio format recognises the file{called}"))
            }
            // What a demuxer misses is a part that the file should have, usually cut off.
            SymphoniaError::Unsupported(what) if what.contains("missing") => Error::undecodable(what),
            SymphoniaError::Unsupported(what) => Error::unsupported(what),
            error => Error::undecodable(error.to_string()),
        }
    })
}

/// The state of the packet loop.
struct Pass<'a> {
    mono: Mono<'a>,
    interleaved: Vec<f32>,
    /// Of the first packet.
    channels: Option<usize>,
    n_skipped: u64,
    n_panics: u32,
    /// Why the demuxer stopped before the end.
    broken_off: Option<Error>,
    /// It stopped because the bytes ran out.
    at_end_of_file: bool,
    /// The container lacks its end.
    is_cut: bool,
    /// Chained streams and joined files.
    n_parts: u64,
    /// Where the file ends that is decoded now: one of several that were joined.
    file_end: FileEnd,
    /// How much the files before it gave.
    file_start_secs: f64,
}

/// Why the packet loop stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing more can be read.
    EndOfSource,
    /// The file has no further packets; another may begin here.
    EndOfFile,
}

impl Pass<'_> {
    /// Decodes packets until the file ends, breaks off or passes a limit; only the last is an error.
    fn run(
        &mut self,
        reader: &mut dyn FormatReader,
        track: &mut AudioTrack,
        options: &DecodeAudio,
        deadline: Deadline,
    ) -> Result<Stop, Error> {
        loop {
            deadline.check()?;
            let mut packet = match guard(|| reader.next_packet()) {
                Ok(Ok(Some(packet))) => packet,
                Ok(Ok(None)) => return Ok(Stop::EndOfSource),
                Ok(Err(SymphoniaError::ResetRequired)) => {
                    // The next link of a chain: new headers, a new decoder.
                    match guard(|| AudioTrack::choose(reader.tracks(), &options.limits)) {
                        Ok(Ok(next)) => *track = next,
                        Ok(Err(error)) | Err(error) => {
                            self.broken_off = Some(error);
                            return Ok(Stop::EndOfSource);
                        }
                    }
                    self.n_parts += 1;
                    continue;
                }
                Ok(Err(error)) => {
                    deadline.check()?;
                    self.at_end_of_file = is_end_of_file(&error);
                    self.broken_off = Some(Error::undecodable(error.to_string()));
                    return Ok(Stop::EndOfSource);
                }
                Err(error) => {
                    self.broken_off = Some(error);
                    return Ok(Stop::EndOfSource);
                }
            };
            if packet.track_id != track.id {
                continue;
            }
            self.file_end.mend(&mut packet);
            let (mono, interleaved) = (&self.mono, &mut self.interleaved);
            let admit = |n_frames: usize, shape: &super::track::PacketShape| {
                mono.admit(n_frames, shape.channels, shape.sample_rate)
            };
            match guard(|| track.decode(&packet, interleaved, admit)) {
                Ok(Ok(shape)) => {
                    self.channels.get_or_insert(shape.channels);
                    self.mono.push(&self.interleaved, shape.channels, shape.sample_rate)?;
                }
                Ok(Err(PacketError::Damaged)) => self.n_skipped += 1,
                Ok(Err(PacketError::Refused(error))) => return Err(error),
                Err(panicked) => {
                    self.n_skipped += 1;
                    self.n_panics += 1;
                    if self.n_panics > MAX_DECODER_PANICS || track.reopen().is_err() {
                        self.broken_off = Some(panicked);
                        return Ok(Stop::EndOfSource);
                    }
                }
            }
            if self.file_end.is_reached_by(&packet) {
                return Ok(Stop::EndOfFile);
            }
        }
    }

    /// Opens what follows the file that ended and makes `track` go on with it. What cannot be opened breaks the decode
    /// off.
    fn next_file(
        &mut self,
        reader: Box<dyn FormatReader>,
        track: &mut AudioTrack,
        options: &DecodeAudio,
        deadline: Deadline,
    ) -> Result<Option<Box<dyn FormatReader>>, Error> {
        let opened = guard(|| {
            let Some(next) = joined::next_file(reader)? else { return Ok(None) };
            let track = AudioTrack::choose(next.tracks(), &options.limits)?;
            Ok(Some((next, track)))
        });
        deadline.check()?;
        match opened.and_then(|opened| opened) {
            Ok(None) => Ok(None),
            Ok(Some((next, next_track))) => {
                self.n_parts += 1;
                self.file_end = FileEnd::of(next.as_ref());
                self.file_start_secs = self.mono.duration_secs();
                track.go_on(next_track, self.file_end);
                Ok(Some(next))
            }
            Err(error) => {
                self.broken_off = Some(error);
                Ok(None)
            }
        }
    }

    fn finish(self, format: String, track: &AudioTrack, deadline: Deadline) -> Result<Decoded, Error> {
        let mut warnings = Vec::new();
        let Some(waveform) = self.mono.finish(deadline, &mut warnings)? else {
            return Err(match self.broken_off {
                Some(error) => error,
                None if self.n_skipped > 0 => {
                    Error::undecodable(format!("none of its {} packets could be decoded", self.n_skipped))
                }
                None if track.stated_secs.is_some_and(|secs| secs > 0.0) => {
                    Error::undecodable("the file ends before its first packet does")
                }
                None => Error::Empty,
            });
        };
        let decoded_secs = waveform.duration_secs();
        let stated_secs = track.stated_secs.filter(|_| is_credible(track, &format));
        let expected_secs = match self.file_end {
            // The files before it were whole.
            FileEnd::At(_) => stated_secs.map(|secs| self.file_start_secs + secs),
            // The parts of a chain state their own lengths, so the last one says nothing about the whole.
            _ => stated_secs.filter(|_| self.n_parts == 1),
        };
        let is_short = expected_secs.is_some_and(|expected| decoded_secs + LENGTH_TOLERANCE_SECS < expected);
        // A stream of unstated length ends where its bytes end.
        let is_open_ended = self.at_end_of_file && track.is_pcm() && expected_secs.is_none();
        if is_short || self.is_cut || self.broken_off.is_some() && !is_open_ended {
            warnings.push(Warning::Truncated { expected_secs, decoded_secs });
        }
        if self.n_skipped > 0 {
            warnings.push(Warning::SkippedPackets { count: self.n_skipped });
        }
        if track.is_he_aac {
            warnings.push(Warning::HeAacCoreOnly);
        }
        let source = SourceInfo {
            format,
            codec: track.codec.clone(),
            channels: self.channels.unwrap_or(1),
            sample_rate: waveform.sample_rate,
            duration_secs: decoded_secs,
        };
        Ok(Decoded { waveform, source, warnings })
    }
}

fn is_end_of_file(error: &SymphoniaError) -> bool {
    matches!(error, SymphoniaError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// Whether a stated length is that of the audio: streams write placeholders near the largest number that fits their
/// field, and Matroska states the length of the whole, video included.
fn is_credible(track: &AudioTrack, format: &str) -> bool {
    format != "matroska" && (!track.is_pcm() || track.stated_secs.is_some_and(|secs| secs < 1e9))
}

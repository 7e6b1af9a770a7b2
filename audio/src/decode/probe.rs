//! How long a recording is, without decoding it where its packets say so.

use std::fs::File;

use super::guard::guard;
use super::session::{self, Opened};
use super::{DecodeAudio, SourceInfo};
use crate::Error;

/// Measures `file` as [`super::probe_file`] says.
pub(super) fn probe(file: File, hint: Option<&str>, options: &DecodeAudio) -> Result<SourceInfo, Error> {
    let n_bytes = file.metadata()?.len();
    let again = file.try_clone()?;
    let mut opened = Opened::open(Box::new(file), hint, options)?;
    let measured = measure(&mut opened, n_bytes)?;
    let known =
        measured.zip(opened.track.shape()).map(|(duration_secs, (channels, sample_rate))| SourceInfo {
            format: opened.reader.format_info().short_name.to_owned(),
            codec: opened.track.codec.clone(),
            channels,
            sample_rate,
            duration_secs,
        });
    // Dropping a demuxer whose state a panic left behind is its own risk.
    let _ = guard(move || drop(opened));
    let info = match known {
        Some(info) => info,
        None => session::decode(rewound(again)?, hint, options)?.source,
    };
    options.limits.check_duration(info.duration_secs)?;
    if info.duration_secs > 0.0 { Ok(info) } else { Err(Error::Empty) }
}

fn rewound(mut file: File) -> Result<Box<File>, Error> {
    std::io::Seek::rewind(&mut file)?;
    Ok(Box::new(file))
}

/// The length in seconds, or `None` where only decoding tells it.
fn measure(opened: &mut Opened, n_bytes: u64) -> Result<Option<f64>, Error> {
    if opened.is_cut || opened.track.is_he_aac {
        return Ok(None);
    }
    // The length that a header states holds when the bytes for it are there.
    if let Some(stated_secs) = opened.track.pcm_secs_within(n_bytes) {
        return Ok(Some(stated_secs));
    }
    if !opened.track.counts_frames() {
        return Ok(None);
    }
    loop {
        opened.deadline.check()?;
        match guard(|| opened.reader.next_packet()) {
            Ok(Ok(Some(packet))) if packet.track_id == opened.track.id => opened.track.pass(&packet),
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Ok(opened.track.passed_secs()),
            // Chained streams and damaged files: what can be made of them, the decoder knows.
            Ok(Err(_)) | Err(_) => return Ok(None),
        }
    }
}

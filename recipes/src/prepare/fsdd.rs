//! The Free Spoken Digit Dataset: `recordings/3_theo_17.wav` is the eighteenth recording of Theo saying "three". Recordings
//! 0 to 4 of each are the test set (the dataset's README, "Usage"); 5 and 6 are ours to choose by.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use super::{Found, Listing, Split, digits::DIGITS, folder};
use crate::data::manifest::{Cut, Error, Reason, Row};

/// The recordings of each digit and speaker that are the test set.
const TEST: Range<u32> = 0..5;
/// Those that are dev: few, as the rest is all that there is to learn from.
const DEV: Range<u32> = 5..7;

pub(super) fn matches(folder: &Path) -> bool {
    let looks_so = |path: &PathBuf| path.file_name().and_then(|name| parse(name.to_str()?)).is_some();
    folder::entries(&recordings(folder)).is_ok_and(|entries| entries.iter().take(10).any(looks_so))
}

fn recordings(folder: &Path) -> PathBuf {
    let below = folder.join("recordings");
    if below.is_dir() { below } else { folder.to_owned() }
}

/// Digit, speaker and index in a recording's name.
fn parse(name: &str) -> Option<(&'static str, &str, u32)> {
    let mut parts = name.strip_suffix(".wav")?.splitn(3, '_');
    let digit = parts.next().filter(|digit| digit.len() == 1)?.parse::<usize>().ok()?;
    let speaker = parts.next().filter(|speaker| !speaker.is_empty())?;
    Some((DIGITS.get(digit)?, speaker, parts.next()?.parse().ok()?))
}

pub(super) fn list(folder: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for path in folder::entries(&recordings(folder))? {
        if !folder::is_recording(&path) {
            continue;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((word, speaker, index)) = parse(name) else {
            let reason = Reason::Unsupported("the name is not digit_speaker_index.wav".to_owned());
            listing.reject(&path.as_path().into(), None, reason);
            continue;
        };
        let cut = Cut {
            id: name.trim_end_matches(".wav").into(),
            audio: path.as_path().into(),
            start_secs: 0.0,
            duration_secs: 0.0,
            channel: None,
            text: word.into(),
            language: Some(listing.names.get("en")),
            speaker: Some(listing.names.get(speaker)),
            target_text: None,
            target_language: None,
            extra: None,
        };
        let split = Some(match index {
            index if TEST.contains(&index) => Split::Test,
            index if DEV.contains(&index) => Split::Dev,
            _ => Split::Train,
        });
        let (row, file) = (Row { cut, has_duration: false }, path.as_path().into());
        listing.found.push(Found { row, split, file, line: None });
    }
    Ok(listing)
}

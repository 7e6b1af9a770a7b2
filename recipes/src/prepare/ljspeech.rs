//! LJSpeech: `metadata.csv` of `id|text|normalised text` without a header, recordings in `wavs/` (Ito & Johnson 2017). Many
//! corpora for speech synthesis come so.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde_json::Value;

use super::{
    Found, Listing,
    folder::Recordings,
    table::{Style, Table},
};
use crate::data::manifest::{Cut, Error, Extra, Reason, Row};

pub(super) fn matches(folder: &Path) -> bool {
    let mut line = Vec::new();
    let read = std::fs::File::open(folder.join("metadata.csv"))
        .and_then(|file| BufReader::new(file.take(1 << 16)).read_until(b'\n', &mut line));
    let is_named = line.windows(9).any(|window| window == b"file_name");
    read.is_ok() && line.contains(&b'|') && !is_named
}

/// `text` is the second column, and the third is kept as `normalized_text` where it differs, as in NeMo and Lhotse. The speaker
/// and the language are known of LJSpeech itself, by its names.
pub(super) fn list(folder: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let recordings = Recordings::new(&[folder.join("wavs"), folder.to_owned()])?;
    let mut table = Table::open_without_header(&folder.join("metadata.csv"), Style::Bars)?;
    let file = table.file().clone();
    while let Some(row) = table.next() {
        let (line, row) = match row {
            Ok(row) => row,
            Err(rejected) => {
                listing.rejected.push(rejected);
                continue;
            }
        };
        let (id, text) = match (row.get(0).map(str::trim), row.get(1).map(str::trim)) {
            (Some(id), Some(text)) if row.len() <= 3 => (id, text),
            _ => {
                let reason =
                    Reason::BadRow(format!("{} columns; expected id|text|normalised text", row.len()));
                listing.reject(&file, Some(line), reason);
                continue;
            }
        };
        let Some(audio) = recordings.find(id) else {
            let looked = folder.join("wavs").join(format!("{id}.wav"));
            listing.reject(&file, Some(line), Reason::NoRecording(looked.display().to_string()));
            continue;
        };
        let mut extra = Extra::new();
        if let Some(normalized) =
            row.get(2).map(str::trim).filter(|other| !other.is_empty() && *other != text)
        {
            extra.insert("normalized_text".to_owned(), Value::from(normalized));
        }
        let is_lj = is_lj(id);
        let cut = Cut {
            id: id.into(),
            audio: audio.into(),
            start_secs: 0.0,
            duration_secs: 0.0,
            channel: None,
            text: text.into(),
            language: is_lj.then(|| listing.names.get("en")),
            speaker: is_lj.then(|| listing.names.get("LJ")),
            target_text: None,
            target_language: None,
            extra: (!extra.is_empty()).then(|| Box::new(extra)),
        };
        let row = Row { cut, has_duration: false };
        listing.found.push(Found { row, split: None, file: file.clone(), line: Some(line) });
    }
    listing.note_unlisted(recordings.count());
    Ok(listing)
}

/// Whether a name is one of LJSpeech's own: `LJ001-0001`.
fn is_lj(id: &str) -> bool {
    let bytes = id.as_bytes();
    bytes.len() == 10
        && id.starts_with("LJ")
        && bytes[5] == b'-'
        && bytes[2..].iter().enumerate().all(|(at, byte)| at == 3 || byte.is_ascii_digit())
}

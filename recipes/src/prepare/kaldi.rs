//! Kaldi's data directories: `wav.scp` and `text`, with `segments`, `utt2spk` and `utt2lang` where there are any
//! (kaldi-asr.org/doc/data_prep.html). A folder of several, such as `data/train` and `data/dev`, is a corpus with splits.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Found, Listing, Split, folder};
use crate::data::manifest::{Cut, Error, Reason, Row};

/// Folders above a data directory from which its paths may count: recipes are run at the top of an experiment.
const MAX_LEVELS: usize = 3;

pub(super) fn matches(folder: &Path) -> bool {
    is_data(folder) || !parts(folder).is_empty()
}

fn is_data(folder: &Path) -> bool {
    folder.join("wav.scp").is_file() && folder.join("text").is_file()
}

/// The data directories that a folder holds.
fn parts(folder: &Path) -> Vec<PathBuf> {
    folder::entries(folder).unwrap_or_default().into_iter().filter(|path| is_data(path)).collect()
}

pub(super) fn list(folder: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let parts = if is_data(folder) { vec![folder.to_owned()] } else { parts(folder) };
    if parts.is_empty() {
        return Err(Error::file(folder, "holds no wav.scp beside text"));
    }
    for part in parts {
        let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
        read(&part, Split::in_name(&name), &mut listing)?;
    }
    Ok(listing)
}

/// A line's first word and the rest of it.
struct Entry {
    line: u64,
    key: String,
    value: String,
}

fn entries(path: &Path, listing: &mut Listing) -> Result<Vec<Entry>, Error> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, &error))?;
    let file: Arc<Path> = path.into();
    let mut entries = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match std::str::from_utf8(bytes).map(str::trim) {
            Ok("") => {}
            Ok(text) => {
                let (key, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                entries.push(Entry { line, key: key.to_owned(), value: value.trim().to_owned() });
            }
            Err(_) => listing.reject(&file, Some(line), Reason::BadRow("no UTF-8".to_owned())),
        }
    }
    Ok(entries)
}

/// A table whose values are looked up; without a file there are none.
fn map(path: &Path, listing: &mut Listing) -> Result<HashMap<String, String>, Error> {
    if !path.is_file() {
        return Ok(HashMap::new());
    }
    Ok(entries(path, listing)?.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

fn read(folder: &Path, split: Option<Split>, listing: &mut Listing) -> Result<(), Error> {
    let recordings = map(&folder.join("wav.scp"), listing)?;
    let speakers = map(&folder.join("utt2spk"), listing)?;
    let languages = map(&folder.join("utt2lang"), listing)?;
    let segments = map(&folder.join("segments"), listing)?;
    let sides = map(&folder.join("reco2file_and_channel"), listing)?;
    let has_segments = folder.join("segments").is_file();
    let file: Arc<Path> = folder.join("text").into();
    let texts = entries(&file, listing)?;
    let named: HashSet<String> = texts.iter().map(|entry| entry.key.clone()).collect();
    for Entry { line, key, value } in texts {
        let place = match (has_segments, segments.get(&key)) {
            (false, _) => Ok((key.clone(), None, None)),
            (true, Some(segment)) => times(segment),
            (true, None) => Err(Reason::Unsupported(format!("no line of `segments` for {key}"))),
        };
        let found = place.and_then(|(recording, times, channel)| {
            let source = recordings.get(&recording);
            let source =
                source.ok_or_else(|| Reason::NoRecording(format!("{recording} is not in wav.scp")))?;
            let stated = sides.get(&recording).and_then(|side| side.split_whitespace().nth(1));
            Ok((locate(folder, source)?, times, channel.or_else(|| channel_of(stated?))))
        });
        let (audio, times, channel) = match found {
            Ok(found) => found,
            Err(reason) => {
                listing.rejected_splits.extend(split);
                listing.reject(&file, Some(line), reason);
                continue;
            }
        };
        let (start_secs, end_secs) = times.unwrap_or((0.0, None));
        let cut = Cut {
            id: key.as_str().into(),
            audio: audio.into(),
            start_secs,
            duration_secs: end_secs.map_or(0.0, |end| end - start_secs),
            channel,
            text: value.into(),
            language: languages.get(&key).map(|language| listing.names.get(language)),
            speaker: speakers.get(&key).map(|speaker| listing.names.get(speaker)),
            target_text: None,
            target_language: None,
            extra: None,
        };
        let row = Row { cut, has_duration: end_secs.is_some() };
        listing.found.push(Found { row, split, file: file.clone(), line: Some(line) });
    }
    let utterances = if has_segments { &segments } else { &recordings };
    let n_unnamed = utterances.keys().filter(|key| !named.contains(*key)).count();
    if n_unnamed > 0 {
        let note = format!("{}: utterances without a text, left out: {n_unnamed}.", folder.display());
        listing.notes.push(note);
    }
    Ok(())
}

type Times = (f64, Option<f64>);

/// The side of a telephone call: A or 1 is the first.
fn channel_of(side: &str) -> Option<u16> {
    match side {
        "A" | "a" => Some(0),
        "B" | "b" => Some(1),
        number => number.parse::<u16>().ok()?.checked_sub(1),
    }
}

/// Recording, start and end of a line of `segments`, and the channel where there is one; an end of -1 is the recording's.
fn times(segment: &str) -> Result<(String, Option<Times>, Option<u16>), Reason> {
    let bad = || Reason::BadRow(format!("`{segment}` is not RECORDING START END [CHANNEL], in seconds"));
    let parts: Vec<_> = segment.split_whitespace().collect();
    let (recording, start, end, side) = match parts[..] {
        [recording, start, end] => (recording, start, end, None),
        [recording, start, end, side] => (recording, start, end, Some(side)),
        _ => return Err(bad()),
    };
    let channel = side.map(|side| channel_of(side).ok_or_else(bad)).transpose()?;
    let start: f64 = start.parse().map_err(|_| bad())?;
    let end: f64 = end.parse().map_err(|_| bad())?;
    let is_time = |secs: f64| (0.0..=Cut::MAX_SECS).contains(&secs);
    let is_whole = end == -1.0;
    if !is_time(start) || !(is_whole || (is_time(end) && end > start)) {
        return Err(bad());
    }
    Ok((recording.to_owned(), Some((start, (!is_whole).then_some(end))), channel))
}

/// Where a recording is. Commands are not run: whoever prepares data need not trust it.
fn locate(folder: &Path, source: &str) -> Result<PathBuf, Reason> {
    if source.ends_with('|') {
        let message =
            format!("`{source}` is a command, and commands are not run; write the recording's path");
        return Err(Reason::Unsupported(message));
    }
    let is_archive = |name: &str, at: &str| name.ends_with(".ark") && at.bytes().all(|b| b.is_ascii_digit());
    if source.rsplit_once(':').is_some_and(|(name, at)| is_archive(name, at)) {
        return Err(Reason::Unsupported(format!(
            "`{source}` lies in an archive; write the recording's path"
        )));
    }
    let path = Path::new(source);
    let places = folder.ancestors().take(MAX_LEVELS + 1).map(|above| above.join(path));
    // Whatever is nowhere is told as it would be in the folder.
    Ok(places.into_iter().find(|place| place.is_file()).unwrap_or_else(|| folder.join(path)))
}

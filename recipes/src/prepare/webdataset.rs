//! WebDataset's shards: tar files in which neighbours of one name are a sample, `000017.flac` beside `000017.txt` or `000017.json`
//! (webdataset.github.io). Recordings are unpacked, as decoding needs them again and again.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Listing, Options, folder, unpack::Archive};
use crate::data::manifest::{Error, Reason};

/// The longest text or description that is read.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// What a sample's text may be called.
const TEXTS: [&str; 4] = ["txt", "text", "transcript", "lab"];

/// The shards of a folder, or the shard that a path is.
fn shards(path: &Path) -> Vec<PathBuf> {
    let is_shard = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".tar") || name.ends_with(".tar.gz") || name.ends_with(".tgz")
    };
    if path.is_dir() {
        return folder::files_below(path).unwrap_or_default().into_iter().filter(is_shard).collect();
    }
    Some(path.to_owned()).filter(is_shard).into_iter().collect()
}

pub(super) fn matches(path: &Path) -> bool {
    !shards(path).is_empty()
}

/// What is there so far of a sample.
#[derive(Default)]
struct Sample {
    key: String,
    recording: Option<PathBuf>,
    object: Map<String, Value>,
    /// What is wrong with it.
    fault: Option<Reason>,
}

pub(super) fn list(path: &Path, options: &Options) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for shard in shards(path) {
        read(&mut Archive::open(path, shard, options)?, &mut listing)?;
    }
    Ok(listing)
}

fn read(archive: &mut Archive<'_>, listing: &mut Listing) -> Result<(), Error> {
    let path = archive.path().to_owned();
    let file = BufReader::new(File::open(&path).map_err(|error| Error::io(&path, &error))?);
    let is_compressed = path.extension().is_some_and(|extension| extension != "tar");
    // Several streams one after the other are one.
    let reader: Box<dyn Read> =
        if is_compressed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut tar = tar::Archive::new(reader);
    let entries = tar.entries().map_err(|error| Error::io(&path, &error))?;
    let mut sample = Sample::default();
    for entry in entries {
        // What breaks off leaves what came before it.
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                archive.reject(None, Reason::BrokenOff(error.to_string()), listing);
                break;
            }
        };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, extension)) = split(&name) else { continue };
        if key != sample.key {
            finish(archive, std::mem::take(&mut sample), listing);
            sample.key = key.to_owned();
        }
        let last = extension.rsplit('.').next().unwrap_or(extension).to_ascii_lowercase();
        if audio::EXTENSIONS.contains(&last.as_str()) {
            let n_bytes = entry.size();
            match archive.unpack(&name, &mut entry, Some(n_bytes)) {
                Ok(recording) => sample.recording = Some(recording),
                Err(reason) => sample.fault = Some(reason),
            }
        } else if last == "json" || TEXTS.contains(&last.as_str()) {
            sample.describe(&mut entry, last == "json");
        }
    }
    finish(archive, sample, listing);
    Ok(())
}

impl Sample {
    /// Takes a text, or what JSON says beside it.
    fn describe(&mut self, bytes: &mut dyn Read, is_json: bool) {
        let mut text = String::new();
        let bad = |error: String| Reason::BadJson(format!("{}: {error}", self.key));
        if let Err(error) = bytes.take(MAX_TEXT_BYTES).read_to_string(&mut text) {
            self.fault = Some(bad(error.to_string()));
        } else if is_json {
            match serde_json::from_str::<Map<String, Value>>(&text) {
                Ok(object) => self.object.extend(object),
                Err(error) => self.fault = Some(bad(error.to_string())),
            }
        } else {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            self.object.insert("text".to_owned(), text.into());
        }
    }
}

/// A sample's name, folders included, and what follows the first dot of its last part.
fn split(path: &str) -> Option<(&str, &str)> {
    let at = path.rfind('/').map_or(0, |at| at + 1);
    let dot = path[at..].find('.').filter(|dot| *dot > 0)?;
    Some((&path[..at + dot], &path[at + dot + 1..]))
}

fn finish(archive: &Archive<'_>, sample: Sample, listing: &mut Listing) {
    let Sample { key, recording, object, fault } = sample;
    if key.is_empty() {
        return;
    }
    match (recording, fault) {
        (_, Some(reason)) => archive.reject(None, reason, listing),
        (None, None) => {
            let message = format!("{key} has no recording in its shard");
            archive.reject(None, Reason::NoRecording(message), listing);
        }
        (Some(recording), None) => archive.push(&key, &recording, object, None, listing),
    }
}

//! A folder with a folder for each entry: a record and a recording. An entry is there whole or not at all, whatever happens
//! meanwhile: it is written under another name, made safe on the disk, and renamed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use audio::{DecodeAudio, Waveform, decode_open_file, encode::wav_bytes};
use serde::{Serialize, de::DeserializeOwned};

use super::Error;

const RECORD: &str = "record.json";
const RECORDING: &str = "recording.wav";

/// A folder of entries whose ids begin alike.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What ids begin with.
    prefix: &'static str,
}

impl Folder {
    pub(super) fn new(path: PathBuf, prefix: &'static str) -> Self {
        Self { path, prefix }
    }

    /// Makes the folder where there is none, and makes sure that it can be written to.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        // Voices of people: nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        // Without a name: it is gone at once.
        made.and_then(|()| tempfile::tempfile_in(&self.path))
            .map(drop)
            .map_err(|source| io_error(&self.path, source))
    }

    /// All entries that are whole. What an interruption left is cleared away; others' files are left alone.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>, Error> {
        let reader = fs::read_dir(&self.path).map_err(|source| io_error(&self.path, source))?;
        let mut found = Vec::new();
        for entry in reader {
            let path = entry.map_err(|source| io_error(&self.path, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(id) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")) {
                if self.is_id(id) {
                    // What cannot be cleared away now does no harm.
                    let _ = fs::remove_dir_all(&path);
                }
                continue;
            }
            if !self.is_id(&name) {
                continue;
            }
            match read_record(&path.join(RECORD)) {
                Ok(record) => found.push((name, record)),
                Err(error) => tracing::warn!("left out: {error}"),
            }
        }
        Ok(found)
    }

    /// An id that no other entry has, and that nobody guesses: whoever knows one speaks with the voice.
    pub(super) fn new_id(&self) -> Result<String, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.to_string()))?;
        Ok(format!("{}{:032x}", self.prefix, u128::from_ne_bytes(bytes)))
    }

    /// Whether this is an id as they are made here: nothing else ever becomes part of a path.
    pub(super) fn is_id(&self, id: &str) -> bool {
        id.strip_prefix(self.prefix).is_some_and(|rest| {
            rest.len() == 32 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// Writes an entry.
    pub(super) fn add(&self, id: &str, record: &impl Serialize, recording: &Waveform) -> Result<(), Error> {
        let part = self.part(id);
        let made = DirBuilder::new().mode(0o700).create(&part);
        let written = made.map_err(|source| io_error(&part, source)).and_then(|()| {
            let bytes = wav_bytes(recording)
                .map_err(|error| Error::Damaged { path: part.join(RECORDING), message: error.to_string() })?;
            write(&part.join(RECORDING), &bytes)?;
            write_record(&part, record)?;
            sync(&part)?;
            let path = self.path.join(id);
            fs::rename(&part, &path).map_err(|source| io_error(&path, source))?;
            sync(&self.path)
        });
        if written.is_err() {
            // What was refused must not be there after a restart, either.
            let _ = fs::rename(self.path.join(id), &part);
            let _ = fs::remove_dir_all(&part);
        }
        written
    }

    /// Writes another record in the place of an entry's.
    pub(super) fn change(&self, id: &str, record: &impl Serialize) -> Result<(), Error> {
        let path = self.path.join(id);
        write_record(&path, record)?;
        sync(&path)
    }

    /// Takes an entry away, damaged ones too: first out of sight, when `is_hidden` is called, then for good. Says whether there was one. What stays
    /// of it after an error is cleared away when that is asked again, and at the next start.
    pub(super) fn remove(&self, id: &str, is_hidden: impl FnOnce()) -> Result<bool, Error> {
        if !self.is_id(id) {
            is_hidden();
            return Ok(false);
        }
        let (path, part) = (self.path.join(id), self.part(id));
        match fs::rename(&path, &part) {
            Ok(()) => {}
            // It is out of sight already, or somebody took it away by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !part.is_dir() {
                    is_hidden();
                    return Ok(false);
                }
            }
            Err(source) => return Err(io_error(&path, source)),
        }
        is_hidden();
        fs::remove_dir_all(&part).map_err(|source| io_error(&part, source))?;
        sync(&self.path)?;
        Ok(true)
    }

    /// The recording of an entry, if there is one.
    pub(super) fn recording(&self, id: &str) -> Result<Option<Waveform>, Error> {
        let path = self.path.join(id).join(RECORDING);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, source)),
        };
        let decoded = decode_open_file(file, &DecodeAudio::default());
        decoded
            .map(|decoded| Some(decoded.waveform))
            .map_err(|error| Error::Damaged { path, message: error.to_string() })
    }

    /// That an entry has lost its recording.
    pub(super) fn without_recording(&self, id: &str) -> Error {
        let message = "the recording is gone, and somebody else took it".to_owned();
        Error::Damaged { path: self.path.join(id).join(RECORDING), message }
    }

    fn part(&self, id: &str) -> PathBuf {
        self.path.join(format!(".{id}.part"))
    }
}

fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(|source| io_error(path, source))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::Damaged { path: path.to_owned(), message: error.to_string() })
}

fn write_record(folder: &Path, record: &impl Serialize) -> Result<(), Error> {
    let (path, part) = (folder.join(RECORD), folder.join(format!(".{RECORD}.part")));
    let json = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::Damaged { path: path.clone(), message: error.to_string() })?;
    write(&part, &json)?;
    fs::rename(&part, &path).map_err(|source| io_error(&path, source))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|source| io_error(path, source))
}

/// Makes the names in a folder safe on the disk.
pub(super) fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io_error(folder, source))
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

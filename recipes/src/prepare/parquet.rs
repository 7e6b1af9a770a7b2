//! Parquet with recordings inside, as Hugging Face's data sets come: a column `audio` of `{bytes, path}` and one of texts. Recordings
//! are unpacked.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use super::{Listing, Options, folder, unpack::Archive};
use crate::data::manifest::{Error, Reason};

fn files(path: &Path) -> Vec<PathBuf> {
    let is_parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
    if path.is_dir() {
        return folder::files_below(path).unwrap_or_default().into_iter().filter(is_parquet).collect();
    }
    Some(path.to_owned()).filter(is_parquet).into_iter().collect()
}

pub(super) fn matches(path: &Path) -> bool {
    !files(path).is_empty()
}

pub(super) fn list(path: &Path, options: &Options) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for file in files(path) {
        read(&mut Archive::open(path, file, options)?, &mut listing)?;
    }
    Ok(listing)
}

fn read(archive: &mut Archive<'_>, listing: &mut Listing) -> Result<(), Error> {
    let path = archive.path().to_owned();
    let refuse = |error: parquet::errors::ParquetError| Error::file(&path, error.to_string());
    let file = File::open(&path).map_err(|error| Error::io(&path, &error))?;
    let reader = SerializedFileReader::new(file).map_err(refuse)?;
    for (line, row) in (1..).zip(reader.get_row_iter(None).map_err(refuse)?) {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                archive.reject(Some(line), Reason::BrokenOff(error.to_string()), listing);
                break;
            }
        };
        let mut object = Map::new();
        let mut recording = None;
        for (name, field) in row.get_column_iter() {
            match field {
                Field::Group(audio) if name == "audio" => recording = recording_in(audio),
                field => {
                    object.insert(name.clone(), plain(field));
                }
            }
        }
        let Some((name, bytes)) = recording else {
            let message =
                "the row has none: a column `audio` with `bytes` in it; recordings elsewhere are not fetched";
            archive.reject(Some(line), Reason::NoRecording(message.to_owned()), listing);
            continue;
        };
        let name = format!("{line}-{}", name.as_deref().unwrap_or("recording.wav"));
        match archive.unpack(&name, &mut bytes.as_slice(), None) {
            Ok(recording) => archive.push(&line.to_string(), &recording, object, Some(line), listing),
            Err(reason) => archive.reject(Some(line), reason, listing),
        }
    }
    Ok(())
}

/// Name and bytes of a recording.
fn recording_in(audio: &Row) -> Option<(Option<String>, Vec<u8>)> {
    let (mut file_name, mut bytes) = (None, None);
    for (name, field) in audio.get_column_iter() {
        match (name.as_str(), field) {
            ("bytes", Field::Bytes(contents)) => bytes = Some(contents.data().to_vec()),
            ("path", Field::Str(path)) => file_name = Some(path.clone()),
            _ => {}
        }
    }
    Some((file_name, bytes?))
}

/// What manifests can hold of a field.
fn plain(field: &Field) -> Value {
    match field {
        Field::Str(text) => text.as_str().into(),
        Field::Bool(value) => (*value).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::Float(n) => f64::from(*n).into(),
        Field::Double(n) => (*n).into(),
        _ => Value::Null,
    }
}

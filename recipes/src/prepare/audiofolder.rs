//! Hugging Face's audiofolder: recordings with `metadata.csv`, `.tsv` or `.jsonl` in their folder or above, or a text file of the
//! same name beside each; folders such as `train/` and `test/` are the splits. Where there is no table of that name, any whose first
//! line names a recording and a text will do: `train.csv`, `refs.tsv`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{
    Found, Listing, Split, folder,
    table::{Style, Table},
};
use crate::data::manifest::{Error, Needs, Reader, Reason, row_of};

/// How data sets call the place of a recording.
pub(super) const RECORDING: [&str; 7] =
    ["file_name", "audio_file_name", "audio_filepath", "path", "file", "filename", "audio"];
/// How data sets call what the manifest calls otherwise; the first that is there and not `null` counts.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("audio_filepath", &RECORDING),
    ("text", &["transcription", "text", "sentence", "transcript"]),
    ("lang", &["language", "lang", "locale"]),
    ("speaker", &["speaker", "speaker_id", "client_id"]),
];

/// Whether a folder, or one directly below, has a table of its recordings.
pub(super) fn has_metadata(folder: &Path) -> bool {
    let below = folder::entries(folder).unwrap_or_default();
    std::iter::once(folder.to_owned()).chain(below).any(|folder| {
        ["metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet"]
            .iter()
            .any(|name| folder.join(name).is_file())
            || folder::entries(&folder).unwrap_or_default().iter().any(|path| other_table(path).is_some())
    })
}

/// The style of a table that is not called as Hugging Face would have it, but whose first line names a recording and a text.
fn other_table(path: &Path) -> Option<Style> {
    let style = match path.extension()?.to_str()? {
        "csv" => Style::Csv,
        "tsv" => Style::Tsv,
        _ => return None,
    };
    let table = Table::open(path, style).ok()?;
    COLUMNS[..2].iter().all(|(_, names)| table.column(names).is_some()).then_some(style)
}

/// Whether a folder holds a recording with its text beside it.
pub(super) fn has_texts_beside(folder: &Path) -> bool {
    let files = folder::files_below(folder).unwrap_or_default();
    files.iter().any(|path| folder::is_recording(path) && path.with_extension("txt").is_file())
}

/// Lists the rows of all tables, or, where there is no table at all, all recordings with their texts.
pub(super) fn list(root: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let files = folder::files_below(root)?;
    let named = |name: &'static str| {
        files.iter().filter(move |path| path.file_name().is_some_and(|file| file == name))
    };
    let (csv, tsv) = (named("metadata.csv"), named("metadata.tsv"));
    let mut tables: Vec<_> =
        csv.map(|path| (path, Style::Csv)).chain(tsv.map(|path| (path, Style::Tsv))).collect();
    let manifests: Vec<_> = named("metadata.jsonl").collect();
    if tables.is_empty() && manifests.is_empty() {
        if let Some(path) = named("metadata.parquet").next() {
            let message = "a table in Parquet is not read, as only Parquet with the recordings inside is; write it as metadata.csv or metadata.jsonl";
            return Err(Error::file(path, message));
        }
        tables = files.iter().filter_map(|path| Some((path, other_table(path)?))).collect();
    }
    if tables.is_empty() && manifests.is_empty() {
        list_texts_beside(root, &files, &mut listing);
        return Ok(listing);
    }
    for (path, style) in tables {
        read_table(root, path, style, &mut listing)?;
    }
    for path in manifests {
        read_manifest(root, path, &mut listing)?;
    }
    let n_recordings = files.iter().filter(|path| folder::is_recording(path)).count();
    listing.note_unlisted(n_recordings);
    Ok(listing)
}

fn list_texts_beside(root: &Path, files: &[PathBuf], listing: &mut Listing) {
    for path in files.iter().filter(|path| folder::is_recording(path)) {
        let text_path = path.with_extension("txt");
        let text = match std::fs::read_to_string(&text_path) {
            Ok(text) => text,
            Err(error) => {
                let reason = Reason::NoTranscript(format!("{}: {error}", text_path.display()));
                listing.reject(&path.as_path().into(), None, reason);
                continue;
            }
        };
        // The paths of rows count from a folder; this one came with it, which may be relative itself.
        let place = path.strip_prefix(root).unwrap_or(path);
        let mut object = Map::new();
        object.insert("audio_filepath".to_owned(), place.to_string_lossy().into());
        object.insert("text".to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ").into());
        push(root, root, object, (path, None, None), listing);
    }
}

fn read_table(root: &Path, path: &Path, style: Style, listing: &mut Listing) -> Result<(), Error> {
    let mut table = Table::open(path, style)?;
    table.required(COLUMNS[0].1)?;
    table.required(COLUMNS[1].1)?;
    let columns: Vec<_> = table.columns().map(str::to_owned).collect();
    // A table may be called after its split.
    let split = Split::in_name(&path.file_stem().unwrap_or_default().to_string_lossy());
    while let Some(row) = table.next() {
        let (line, row) = match row {
            Ok(row) => row,
            Err(rejected) => {
                listing.rejected.push(rejected);
                continue;
            }
        };
        let cell = |(column, value): (&String, &str)| (column.clone(), value.trim().into());
        // An empty cell is no value; an empty text is told so.
        let is_kept = |column: &String, value: &str| {
            !value.trim().is_empty() || COLUMNS[1].1.contains(&column.as_str())
        };
        let mut object: Map<String, Value> =
            columns.iter().zip(row).filter(|(column, value)| is_kept(column, value)).map(cell).collect();
        // All cells are text.
        for key in ["duration", "offset", "channel"] {
            if let Some(number) = object.get(key).and_then(Value::as_str).and_then(number) {
                object.insert(key.to_owned(), number);
            }
        }
        push(root, path.parent().unwrap_or(root), object, (path, Some(line), split), listing);
    }
    Ok(())
}

fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<u64>().ok().map(Value::from);
    whole.or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
}

fn read_manifest(root: &Path, path: &Path, listing: &mut Listing) -> Result<(), Error> {
    let mut reader = Reader::open(path, Needs { text: false, duration: false, ..Needs::default() })?;
    while let Some(object) = reader.next_object() {
        match object {
            Ok(object) => {
                let line = reader.line();
                push(root, path.parent().unwrap_or(root), object, (path, Some(line), None), listing);
            }
            Err(rejected) => listing.rejected.push(rejected),
        }
    }
    Ok(())
}

/// Takes a row under a manifest's names.
pub(super) fn push(
    root: &Path,
    folder: &Path,
    mut object: Map<String, Value>,
    (file, line, split): (&Path, Option<u64>, Option<Split>),
    listing: &mut Listing,
) {
    // `null` is as good as nothing.
    object.retain(|_, value| !value.is_null());
    for (key, columns) in COLUMNS {
        if let Some(value) = columns.iter().find_map(|column| object.remove(*column)) {
            object.insert(key.to_owned(), value);
        }
    }
    let stated = object.get("split").and_then(Value::as_str).and_then(Split::in_name);
    if stated.is_some() {
        object.remove("split");
    }
    let has_id = object.contains_key("id");
    let row = if object.contains_key("audio_filepath") {
        row_of(object, folder, &mut listing.names)
    } else {
        // By the name that it has here.
        Err(Reason::Missing(COLUMNS[0].1[0]))
    };
    let row = row.and_then(|mut row| {
        if row.cut.text.trim().is_empty() {
            return Err(Reason::EmptyText("text"));
        }
        let place = row.cut.audio.strip_prefix(root).ok().map(Path::to_owned);
        if !has_id {
            // Folders may have the same names in them.
            let name = place.as_deref().unwrap_or(&row.cut.audio).with_extension("");
            row.cut.id = name.to_string_lossy().into();
        }
        // The folders above a corpus say nothing about it.
        let split = stated.or_else(|| split_of(&place?)).or(split);
        Ok((row, split))
    });
    match row {
        Ok((row, split)) => listing.found.push(Found { row, split, file: file.into(), line }),
        Err(reason) => listing.reject(&file.into(), line, reason),
    }
}

/// The split that the folders of a recording speak of.
pub(super) fn split_of(place: &Path) -> Option<Split> {
    let folders = place.parent()?.components();
    folders.into_iter().find_map(|part| Split::in_name(&part.as_os_str().to_string_lossy()))
}

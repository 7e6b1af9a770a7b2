//! Manifests that somebody else made: NeMo's rows or Lhotse's cuts, for each split a file (`train.jsonl`,
//! `dev_manifest.json`, `cuts_test.jsonl.gz`); also those of texts without recordings, of which `text.jsonl` is a part of its own.

use std::path::{Path, PathBuf};

use super::{Found, Listing, Options, Split, folder};
use crate::data::manifest::{Error, Needs, Reader, Reason, Rejected};

/// Whether a path is a manifest, or a folder that holds some.
pub(super) fn matches(path: &Path) -> bool {
    if path.is_dir() { !manifests(path).is_empty() } else { is_manifest(path, true) }
}

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let entries = folder::entries(folder).unwrap_or_default();
    entries.into_iter().filter(|path| path.is_file() && is_manifest(path, false)).collect()
}

/// By name. A `.json` that is only found must say what it is: configurations have that extension, too.
fn is_manifest(path: &Path, is_named: bool) -> bool {
    let (stem, extension) = stem_and_extension(path);
    match &*extension {
        "jsonl" | "ndjson" => true,
        "json" => {
            is_named || stem.contains("manifest") || stem.contains("cuts") || Split::in_name(&stem).is_some()
        }
        _ => false,
    }
}

/// A file's name in lower case, `corpus.test` and `jsonl` of `corpus.test.jsonl.gz`.
fn stem_and_extension(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    (stem.to_owned(), extension.to_owned())
}

/// Lists all rows. Their paths count from the manifest's folder, or from the one that the options name.
pub(super) fn list(path: &Path, options: &Options) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let paths = if path.is_dir() { manifests(path) } else { vec![path.to_owned()] };
    if paths.is_empty() {
        return Err(Error::file(path, "holds no manifests (.jsonl, .json, compressed or not)"));
    }
    for path in paths {
        let stem = stem_and_extension(&path).0;
        let is_texts = stem == Split::Text.name();
        let split = Split::in_name(&stem);
        let n_before = listing.found.len();
        // Lengths are measured where they are missing, and recordings looked for in parallel, later.
        let needs = Needs { audio: false, duration: false, ..Needs::default() };
        let mut reader = Reader::open(&path, needs)?;
        if let Some(root) = &options.audio_root {
            reader.count_from(root);
        }
        while let Some(row) = reader.next_row() {
            match row {
                Ok(row) => {
                    let (file, line) = (reader.file().clone(), Some(reader.line()));
                    let split = split.or((is_texts && !row.cut.has_audio()).then_some(Split::Text));
                    listing.found.push(Found { row, split, file, line });
                }
                Err(rejected) => {
                    listing.rejected_splits.extend(split);
                    listing.rejected.push(rejected);
                }
            }
        }
        // Among recordings a row without one is a mistake.
        if listing.found[n_before..].iter().any(|found| found.row.cut.has_audio()) {
            let alone = listing.found.extract_if(n_before.., |found| !found.row.cut.has_audio());
            for Found { split, file, line, .. } in alone {
                listing.rejected_splits.extend(split);
                listing.rejected.push(Rejected { file, line, reason: Reason::Missing("audio_filepath") });
            }
        }
    }
    Ok(listing)
}

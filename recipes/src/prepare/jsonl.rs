//! Manifests that somebody else made: NeMo's rows or Lhotse's cuts, for each split a file (`train.jsonl`,
//! `dev_manifest.json`, `cuts_test.jsonl.gz`).

use std::path::{Path, PathBuf};

use super::{Found, Listing, Options, Split, folder};
use crate::data::manifest::{Error, Needs, Reader};

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
        let split = Split::in_name(&stem_and_extension(&path).0);
        // Lengths are measured where they are missing, and recordings looked for in parallel, later.
        let mut reader = Reader::open(&path, Needs { duration: false, ..Needs::default() })?;
        if let Some(root) = &options.audio_root {
            reader.count_from(root);
        }
        while let Some(row) = reader.next_row() {
            match row {
                Ok(row) => {
                    let (file, line) = (reader.file().clone(), Some(reader.line()));
                    listing.found.push(Found { row, split, file, line });
                }
                Err(rejected) => {
                    listing.rejected_splits.extend(split);
                    listing.rejected.push(rejected);
                }
            }
        }
    }
    Ok(listing)
}

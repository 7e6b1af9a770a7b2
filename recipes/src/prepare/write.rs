//! Writes what was prepared: a manifest for each split, and what was skipped.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::Split;
use crate::data::manifest::{Cut, Error, Rejected, Writer};

/// The rows that were skipped: file, line, kind, reason.
pub const REJECTED_FILE: &str = "rejected.tsv";

/// Writes `train.jsonl`, `dev.jsonl`, `test.jsonl`, `text.jsonl`, as far as there are such parts, and, when something was skipped,
/// `rejected.tsv` into `out`; returns what was written. Files of an earlier corpus that this one does not replace are removed: they would
/// be taken for its splits. A `text.jsonl` is none of them and stays.
///
/// # Errors
/// Files that are there, unless `overwrite` allows it; a full disk.
pub fn write(
    splits: &BTreeMap<Split, Vec<Cut>>,
    rejected: &[Rejected],
    out: &Path,
    overwrite: bool,
) -> Result<Vec<PathBuf>, Error> {
    if !overwrite {
        check_free(out, splits.contains_key(&Split::Text))?;
    }
    let mut written = Vec::new();
    for (split, cuts) in splits {
        let path = manifest(out, *split);
        let mut writer = Writer::create(&path)?;
        for cut in cuts {
            writer.write(cut)?;
        }
        writer.finish()?;
        written.push(path);
    }
    if !rejected.is_empty() {
        let path = out.join(REJECTED_FILE);
        write_rejected(rejected, &path).map_err(|error| Error::file(&path, error.to_string()))?;
        written.push(path);
    }
    for path in outputs(out, false).iter().filter(|path| !written.contains(path) && path.exists()) {
        fs::remove_file(path).map_err(|error| Error::io(path, &error))?;
    }
    Ok(written)
}

/// Whether [`write()`] would replace nothing: for those who look before hours of work. `with_texts` says that there will be a
/// `text.jsonl`, too.
///
/// # Errors
/// The first file that is there.
pub fn check_free(out: &Path, with_texts: bool) -> Result<(), Error> {
    outputs(out, with_texts).iter().find(|path| path.exists()).map_or(Ok(()), |there| {
        Err(Error::file(there, "is there already; --overwrite replaces it, --out writes elsewhere"))
    })
}

fn manifest(out: &Path, split: Split) -> PathBuf {
    out.join(format!("{}.jsonl", split.name()))
}

fn outputs(out: &Path, with_texts: bool) -> Vec<PathBuf> {
    let splits = Split::ALL.into_iter().chain(with_texts.then_some(Split::Text));
    splits.map(|split| manifest(out, split)).chain([out.join(REJECTED_FILE)]).collect()
}

fn write_rejected(rejected: &[Rejected], path: &Path) -> csv::Result<()> {
    let mut table = csv::WriterBuilder::new().delimiter(b'\t').from_path(path)?;
    table.write_record(["file", "line", "kind", "reason"])?;
    for row in rejected {
        let line = row.line.map(|line| line.to_string()).unwrap_or_default();
        let file = row.file.to_string_lossy();
        table.write_record([file.as_ref(), &line, row.reason.kind(), &row.reason.to_string()])?;
    }
    table.flush()?;
    Ok(())
}

//! Manifests on a command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use recipes::{
    data::manifest::{self, Cut, Needs},
    prepare::Split,
};

use super::{Usage, progress::Style};

/// The manifests of recordings that arguments mean: files, or all of a folder, the splits in their order. Of a folder `text.jsonl` is left
/// out: nothing in it can be heard.
pub(super) fn manifests(arguments: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    find(arguments, false)
}

/// As [`manifests`], with those of texts: for those who need no recordings.
pub(super) fn manifests_and_texts(arguments: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    find(arguments, true)
}

fn find(arguments: &[PathBuf], with_texts: bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            found.push(argument.clone());
            continue;
        }
        let entries = std::fs::read_dir(argument).with_context(|| argument.display().to_string())?;
        let mut paths: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
        let n_manifests = paths.len();
        paths.retain(|path| with_texts || !is_of_texts(path));
        if paths.is_empty() && n_manifests > 0 {
            let message =
                format!("{}: holds texts alone, and no manifests of recordings", argument.display());
            return Err(Usage(message).into());
        }
        if paths.is_empty() {
            let message = format!(
                "{}: holds no manifests (.jsonl); make some: speechd data import CORPUS --out {0}",
                argument.display()
            );
            return Err(Usage(message).into());
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = |name: &str| Split::ALL.iter().position(|split| name.starts_with(split.name()));
        paths.sort_by_key(|path| (place(&name(path)).unwrap_or(usize::MAX), name(path)));
        found.extend(paths);
    }
    Ok(found)
}

/// The cuts of manifests; rows that cannot be used are told.
pub(super) fn read_cuts(paths: &[PathBuf], needs: Needs, style: Style) -> anyhow::Result<Vec<Cut>> {
    let mut cuts = Vec::new();
    for path in paths {
        let read = manifest::read(path, needs)?;
        read.rejected.iter().for_each(|rejected| style.note(&format!("left out: {rejected}")));
        cuts.extend(read.cuts);
    }
    Ok(cuts)
}

fn is_manifest(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
}

/// Whether a manifest is called what that of texts without recordings is.
fn is_of_texts(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".jsonl");
    stem == Some(Split::Text.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_manifests_the_splits_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in
            ["a.jsonl.gz", "test.jsonl", "dev.jsonl", "train.jsonl", "rejected.tsv", ".train.jsonl.1.part"]
        {
            std::fs::write(path(name), "").expect("written");
        }
        let found = manifests(&[folder.path().to_owned(), path("dev.jsonl")]).expect("found");
        assert_eq!(found, ["train.jsonl", "dev.jsonl", "test.jsonl", "a.jsonl.gz", "dev.jsonl"].map(path));
        // Texts are found where they are wanted, or named.
        std::fs::write(path("text.jsonl"), "").expect("written");
        assert_eq!(manifests(&[folder.path().to_owned()]).expect("found").len(), 4);
        assert_eq!(manifests(&[path("text.jsonl")]).expect("named"), [path("text.jsonl")]);
        let found = manifests_and_texts(&[folder.path().to_owned()]).expect("found");
        assert_eq!(found[3..], ["a.jsonl.gz", "text.jsonl"].map(path));
        let texts = tempfile::tempdir().expect("a folder");
        std::fs::write(texts.path().join("text.jsonl.gz"), "").expect("written");
        let message = manifests(&[texts.path().to_owned()]).expect_err("texts").to_string();
        assert!(message.contains("holds texts alone"), "{message}");
        let empty = tempfile::tempdir().expect("a folder");
        assert!(
            manifests(&[empty.path().to_owned()])
                .expect_err("empty")
                .to_string()
                .contains("speechd data import")
        );
    }
}

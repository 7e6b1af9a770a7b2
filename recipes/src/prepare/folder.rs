//! What lies in a folder, in an order that does not depend on the file system.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::data::manifest::Error;

/// The entries of a folder by name, hidden ones left out.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: std::io::Error| Error::io(folder, &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.retain(|name| !name.to_string_lossy().starts_with('.'));
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// All files below a folder, those of a folder together. Links to folders are not followed: they may lead in circles.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for path in entries(folder)? {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            _ if path.is_file() => files.push(path),
            _ => {}
        }
    }
    for folder in folders {
        files.extend(files_below(&folder)?);
    }
    Ok(files)
}

/// Whether a name is that of a recording, by its extension.
pub(super) fn is_recording(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| audio::EXTENSIONS.contains(&extension.as_str()))
}

/// The recording called `stem` in one of some folders, with any extension; the folders are listed once.
pub(super) struct Recordings {
    folders: Vec<(PathBuf, HashSet<OsString>)>,
}

impl Recordings {
    pub(super) fn new(folders: &[PathBuf]) -> Result<Self, Error> {
        let names = |folder: &PathBuf| {
            let names =
                entries(folder)?.iter().filter_map(|path| path.file_name().map(OsString::from)).collect();
            Ok((folder.clone(), names))
        };
        let folders =
            folders.iter().filter(|folder| folder.is_dir()).map(names).collect::<Result<_, Error>>()?;
        Ok(Self { folders })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let names = self.folders.iter().flat_map(|(_, names)| names);
        names.filter(|name| is_recording(Path::new(name))).count()
    }

    pub(super) fn find(&self, stem: &str) -> Option<PathBuf> {
        // A name may come with its extension.
        let candidates =
            || std::iter::once(String::new()).chain(audio::EXTENSIONS.map(|kind| format!(".{kind}")));
        self.folders.iter().find_map(|(folder, names)| {
            candidates()
                .map(|extension| OsString::from(format!("{stem}{extension}")))
                .find(|name| names.contains(name))
                .map(|name| folder.join(name))
        })
    }
}

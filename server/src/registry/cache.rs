//! The cache on the disk, in the layout of Python's `huggingface_hub`, so that both share one copy:
//! `models--org--name/{blobs/<etag>, snapshots/<commit>/<file> -> blob, refs/<revision>}` and `.locks/`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Error, name::Repository};

/// A cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// One model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// `organisation/name`.
    pub id: String,
    /// The revisions that point to this snapshot; empty when only its commit does.
    pub revisions: Vec<String>,
    /// The commit.
    pub commit: String,
    /// The snapshot: a bundle.
    pub path: PathBuf,
}

impl Cache {
    /// The cache in `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.root.join(format!("models--{}", id.replace('/', "--")))
    }

    /// The snapshot that a revision points to, if it was fetched, complete or not.
    pub fn snapshot(&self, repository: &Repository) -> Option<PathBuf> {
        let folder = self.folder(&repository.id);
        let commit = fs::read_to_string(folder.join("refs").join(&repository.revision))
            .map_or_else(|_| repository.revision.clone(), |commit| commit.trim().to_owned());
        if !is_commit(&commit) {
            return None;
        }
        let path = folder.join("snapshots").join(commit);
        path.is_dir().then_some(path)
    }

    /// Where a commit's files appear.
    pub fn snapshot_path(&self, id: &str, commit: &str) -> PathBuf {
        self.folder(id).join("snapshots").join(commit)
    }

    /// Where the contents with this etag lie, or will.
    pub fn blob_path(&self, id: &str, etag: &str) -> PathBuf {
        self.folder(id).join("blobs").join(etag)
    }

    /// Notes that a revision is a commit, once all its files are there.
    pub fn write_ref(&self, repository: &Repository, commit: &str) -> Result<(), Error> {
        if repository.revision == commit {
            return Ok(());
        }
        let path = self.folder(&repository.id).join("refs").join(&repository.revision);
        if fs::read_to_string(&path).is_ok_and(|old| old == commit) {
            return Ok(());
        }
        let part = part_path(&path);
        create_parent(&path)?;
        File::create(&part)
            .and_then(|mut file| file.write_all(commit.as_bytes()))
            .and_then(|()| fs::rename(&part, &path))
            .map_err(|source| Error::io(path, source))
    }

    /// Makes the blob appear in the snapshot under the file's name. Atomic; a link that is there is replaced.
    pub fn link(&self, id: &str, commit: &str, file: &str, etag: &str) -> Result<(), Error> {
        let pointer = self.snapshot_path(id, commit).join(file);
        // From `snapshots/<commit>/a/b` the blobs are three levels up: the file's own depth and two more.
        let depth = file.split('/').count() + 1;
        let target = Path::new(&"../".repeat(depth)).join("blobs").join(etag);
        if fs::read_link(&pointer).is_ok_and(|old| old == target) {
            return Ok(());
        }
        create_parent(&pointer)?;
        let part = part_path(&pointer);
        symlink_or_copy(&target, &self.blob_path(id, etag), &part)
            .and_then(|()| fs::rename(&part, &pointer))
            .map_err(|source| Error::io(pointer, source))
    }

    /// Waits until no other process fetches the same blob; the lock ends when the file is dropped or the process dies.
    pub fn lock(&self, id: &str, etag: &str) -> Result<File, Error> {
        let name = format!("models--{}", id.replace('/', "--"));
        let path = self.root.join(".locks").join(name).join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).map_err(|source| Error::io(&path, source))?;
        match file.lock() {
            Ok(()) => Ok(file),
            // Network file systems without locks: rename is still atomic, only work may be done twice.
            Err(source) if source.kind() == io::ErrorKind::Unsupported => Ok(file),
            Err(source) => Err(Error::io(path, source)),
        }
    }

    /// Every snapshot that holds a `config.json`, sorted by id.
    pub fn list(&self) -> Result<Vec<Cached>, Error> {
        let mut found = Vec::new();
        for folder in entries(&self.root)? {
            let name = file_name(&folder);
            let Some(id) = name.strip_prefix("models--").map(|id| id.replacen("--", "/", 1)) else {
                continue;
            };
            let refs = refs(&folder.join("refs"), "")?;
            for path in entries(&folder.join("snapshots"))? {
                let commit = file_name(&path);
                if !path.join("config.json").is_file() {
                    continue;
                }
                let revisions =
                    refs.iter().filter(|(_, to)| *to == commit).map(|(name, _)| name.clone()).collect();
                found.push(Cached { id: id.clone(), revisions, commit, path });
            }
        }
        found.sort_by(|a, b| (&a.id, &a.commit).cmp(&(&b.id, &b.commit)));
        Ok(found)
    }
}

/// Whether a string is a git commit, the only thing that names a snapshot.
pub(crate) fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(crate) fn create_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| Error::io(parent, source))
}

/// A name beside `path` that no other process and no other thread uses.
fn part_path(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{}.{}-{count}.part", file_name(path), std::process::id()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A directory's entries in order; none when it does not exist.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let reader = match fs::read_dir(directory) {
        Ok(reader) => reader,
        Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(Error::io(directory, source)),
    };
    let mut paths = reader
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|e| Error::io(directory, e))?;
    paths.sort();
    Ok(paths)
}

/// All revisions under `directory` with their commits; a branch such as `refs/pr/3` is a path.
fn refs(directory: &Path, prefix: &str) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    for path in entries(directory)? {
        let name = format!("{prefix}{}", file_name(&path));
        if path.is_dir() {
            found.extend(refs(&path, &format!("{name}/"))?);
        } else if let Ok(commit) = fs::read_to_string(&path) {
            found.push((name, commit.trim().to_owned()));
        }
    }
    Ok(found)
}

#[cfg(unix)]
fn symlink_or_copy(target: &Path, _blob: &Path, link: &Path) -> io::Result<()> {
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on some systems; a hard link or else a copy does the same.
#[cfg(not(unix))]
fn symlink_or_copy(_target: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    let _ = fs::remove_file(link);
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(drop))
}

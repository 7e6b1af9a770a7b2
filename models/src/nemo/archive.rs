//! The tar that a `.nemo` file is: what is in it, read where it lies. Nothing is unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::Error;

/// More members than this are no model: published ones have about ten.
const MAX_MEMBERS: usize = 1000;
/// Weights hardly compress: an archive that grows more than this many times over is a bomb.
const MAX_GROWTH: u64 = 20;
/// What a small archive may grow to whatever its size.
const MIN_UNPACKED_BYTES: u64 = 64 << 20;

/// A `.nemo` file.
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    members: BTreeMap<String, Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    n_bytes: u64,
}

impl Archive {
    /// Opens `path` and looks at the names in it. One that is compressed is uncompressed into a file without a name in the
    /// directory `scratch`.
    ///
    /// # Errors
    /// A file that is no tar; members that are no plain files beside each other; no room in `scratch`.
    pub fn open(path: &Path, scratch: &Path) -> Result<Self, Error> {
        let wrong = |error: io::Error| Error::file(path, format!("is no .nemo archive: {error}"));
        let mut file = File::open(path).map_err(|error| Error::file(path, error))?;
        let mut start = [0u8; 2];
        let n_read = file.read(&mut start).map_err(wrong)?;
        file.rewind().map_err(wrong)?;
        if n_read == 2 && start == [0x1F, 0x8B] {
            file = unpacked(file, path, scratch)?;
        }
        let n_file_bytes = file.metadata().map_err(wrong)?.len();
        let mut members = BTreeMap::new();
        let mut archive = tar::Archive::new(&file);
        for (n, entry) in archive.entries_with_seek().map_err(wrong)?.enumerate() {
            let entry = entry.map_err(wrong)?;
            if n >= MAX_MEMBERS {
                return Err(Error::file(path, format!("has more than {MAX_MEMBERS} members")));
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            let refuse = |message: &str| Err(Error::key(path, name.clone(), message));
            let Some(plain) = plain_name(&name, kind.is_dir()) else {
                return refuse("is no plain name; members of a .nemo archive lie beside each other");
            };
            if kind.is_dir() {
                continue;
            }
            if !kind.is_file() {
                return refuse("is a link or a device; members of a .nemo archive are files");
            }
            let place = Place { start: entry.raw_file_position(), n_bytes: entry.size() };
            if place.start.checked_add(place.n_bytes).is_none_or(|end| end > n_file_bytes) {
                return refuse("ends beyond the archive, which is cut off");
            }
            if members.insert(plain, place).is_some() {
                return refuse("is there twice");
            }
        }
        Ok(Self { path: path.to_owned(), file, members })
    }

    /// What errors call a member.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A member, to be read here and there.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn member(&self, name: &str) -> Result<Member<'_>, Error> {
        match self.members.get(name) {
            Some(place) => Ok(Member { file: &self.file, place: *place, at: 0 }),
            None => {
                let known: Vec<_> = self.members.keys().take(20).map(String::as_str).collect();
                let message = format!("is not in the archive; {} are", known.join(", "));
                Err(Error::key(&self.path, name, message))
            }
        }
    }

    /// A whole member of at most so many bytes.
    ///
    /// # Errors
    /// There is none of this name, it is larger, the disk refuses.
    pub fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut member = self.member(name)?;
        if member.n_bytes() > max_bytes {
            let message = format!("has {} bytes; at most {max_bytes} are read", member.n_bytes());
            return Err(Error::key(&self.path, name, message));
        }
        let mut bytes = Vec::with_capacity(member.n_bytes() as usize);
        member.read_to_end(&mut bytes).map_err(|error| Error::key(&self.path, name, error))?;
        Ok(bytes)
    }
}

/// A member of an archive.
pub(super) struct Member<'a> {
    file: &'a File,
    place: Place,
    at: u64,
}

impl Member<'_> {
    /// Its size.
    pub fn n_bytes(&self) -> u64 {
        self.place.n_bytes
    }
}

impl Read for Member<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.place.n_bytes.saturating_sub(self.at);
        let n = (buffer.len() as u64).min(left) as usize;
        // Behind its end, which a zip's directory may well point to, there is nothing.
        if n == 0 {
            return Ok(0);
        }
        let start = self.place.start.checked_add(self.at);
        self.file.seek(SeekFrom::Start(start.ok_or(io::ErrorKind::InvalidInput)?))?;
        let n_read = self.file.read(&mut buffer[..n])?;
        self.at += n_read as u64;
        Ok(n_read)
    }
}

impl Seek for Member<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.place.n_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// `./name` or `name`; of a directory, the empty one that all lie in.
fn plain_name(name: &str, is_dir: bool) -> Option<String> {
    let mut parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
    match (parts.next(), parts.next()) {
        (None, None) if is_dir => Some(String::new()),
        (Some(Component::Normal(name)), None) if !is_dir => {
            let name = name.to_str()?;
            (!name.contains(['\\', '\0'])).then(|| name.to_owned())
        }
        _ => None,
    }
}

/// What a compressed archive holds, in a file without a name in the directory `scratch`.
fn unpacked(file: File, path: &Path, scratch: &Path) -> Result<File, Error> {
    let limit = file.metadata().map(|data| data.len()).unwrap_or_default().saturating_mul(MAX_GROWTH);
    let limit = limit.max(MIN_UNPACKED_BYTES);
    let unpack = || {
        let mut unpacked = tempfile::tempfile_in(scratch)?;
        let n_bytes = io::copy(&mut MultiGzDecoder::new(file).take(limit + 1), &mut unpacked)?;
        unpacked.rewind()?;
        Ok((unpacked, n_bytes))
    };
    let (unpacked, n_bytes) = unpack().map_err(|error: io::Error| {
        let next = "where there is no room, write elsewhere, or uncompress it first: gzip -dc";
        Error::file(path, format!("cannot be uncompressed into {}: {error}; {next}", scratch.display()))
    })?;
    if n_bytes > limit {
        return Err(Error::file(path, format!("is more than {limit} bytes when it is uncompressed")));
    }
    Ok(unpacked)
}

//! Writing a manifest: the whole file or none.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use super::{Cut, Error, nemo};

/// A manifest in the making. What stands at its path is replaced at the end, by [`Writer::finish`].
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    folder: PathBuf,
    /// The folder of the last recording, as given and as it is.
    last: (PathBuf, PathBuf),
    sink: Option<Sink>,
    line: Vec<u8>,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl Writer {
    /// Begins a manifest; compresses it when its name ends with `.gz`. Makes its folder.
    ///
    /// # Errors
    /// A folder that cannot be made or written to.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: io::Error| Error::io(path, &error);
        fs::create_dir_all(folder).map_err(failed)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = folder.join(format!(".{name}.{}.part", std::process::id()));
        let file = BufWriter::new(File::create(&part).map_err(failed)?);
        let sink = if path.extension().is_some_and(|extension| extension == "gz") {
            Sink::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
        } else {
            Sink::Plain(file)
        };
        let folder = fs::canonicalize(folder).map_err(failed)?;
        let last = (PathBuf::new(), fs::canonicalize(".").map_err(failed)?);
        Ok(Self { path: path.to_owned(), part, folder, last, sink: Some(sink), line: Vec::new() })
    }

    /// Where a recording is: its folder without links and `..`, its name as it is (caches link names to contents).
    fn place(&mut self, audio: &Path) -> PathBuf {
        let folder = audio.parent().unwrap_or(Path::new(""));
        if folder != self.last.0 {
            let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            // Of one that is not there, its path is all that there is.
            let real = fs::canonicalize(shown).or_else(|_| std::path::absolute(shown));
            self.last = (folder.to_owned(), real.unwrap_or_else(|_| folder.to_owned()));
        }
        self.last.1.join(audio.file_name().unwrap_or_default())
    }

    /// Writes a row. Its recording's path is relative to the manifest's folder when it lies below that folder or beside
    /// it, so that both can move together; else it is absolute. A text without a recording has no path.
    ///
    /// # Errors
    /// A full disk; a path that is no Unicode and cannot stand in JSON.
    pub fn write(&mut self, cut: &Cut) -> Result<(), Error> {
        let audio = cut.has_audio().then(|| self.place(&cut.audio));
        let failed = |error: io::Error| Error::io(&self.path, &error);
        let audio = audio.map(|audio| relative_to(&self.folder, &audio));
        let text = match audio.as_deref().map(Path::to_str) {
            None => None,
            Some(Some(text)) => Some(Cow::Borrowed(text)),
            Some(None) => {
                let message = "its name is not Unicode and cannot stand in a manifest; rename it";
                return Err(Error::file(&cut.audio, message));
            }
        };
        self.line.clear();
        nemo::write(cut, text, &mut self.line).map_err(|error| failed(error.into()))?;
        self.line.push(b'\n');
        match &mut self.sink {
            Some(Sink::Plain(file)) => file.write_all(&self.line).map_err(failed),
            Some(Sink::Gzip(file)) => file.write_all(&self.line).map_err(failed),
            None => Ok(()),
        }
    }

    /// Puts the whole file in its place.
    ///
    /// # Errors
    /// A full disk.
    pub fn finish(mut self) -> Result<(), Error> {
        self.close()
            .and_then(|()| fs::rename(&self.part, &self.path))
            .map_err(|error| Error::io(&self.path, &error))
    }

    fn close(&mut self) -> io::Result<()> {
        let file = match self.sink.take() {
            Some(Sink::Plain(file)) => file,
            Some(Sink::Gzip(file)) => file.finish()?,
            None => return Ok(()),
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` there is none.
        let _ = fs::remove_file(&self.part);
    }
}

/// `path` as seen from `folder`, when it lies below it or beside it.
fn relative_to(folder: &Path, path: &Path) -> PathBuf {
    if let Ok(below) = path.strip_prefix(folder) {
        return below.to_owned();
    }
    // The root is beside everything, and means nothing.
    match folder.parent().filter(|parent| parent.parent().is_some()).map(|parent| path.strip_prefix(parent)) {
        Some(Ok(beside)) => Path::new("..").join(beside),
        _ => path.to_owned(),
    }
}

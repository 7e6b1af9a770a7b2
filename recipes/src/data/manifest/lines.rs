//! Lines of a file, compressed or not, however long they are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::{Error, Reason};

/// Longest line that can be a row: Lhotse's cuts with word alignments stay far below.
pub(super) const MAX_LINE_BYTES: usize = 4 << 20;

/// Lines with their numbers. A line that is too long is passed over.
pub(super) struct Lines {
    source: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
    is_over: bool,
}

impl Lines {
    /// Opens a file; what starts as gzip does is decompressed, whatever its name.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
        if metadata.is_dir() {
            return Err(Error::file(path, "is a folder; a manifest is a file of JSON lines"));
        }
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        Self::new(file).map_err(|error| Error::io(path, &error))
    }

    pub(super) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(1 << 16, source);
        let is_gzip = source.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let mut source: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(source)))
        } else {
            Box::new(source)
        };
        // Windows' editors mark UTF-8 so. What cannot be decompressed is reported with the first line.
        if source.fill_buf().is_ok_and(|start| start.starts_with("\u{feff}".as_bytes())) {
            source.consume(3);
        }
        Ok(Self { source, line: Vec::new(), number: 0, is_over: false })
    }

    /// The number of the last line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not blank, without its end; an error for one that is too long, and where the file breaks off.
    pub(super) fn next(&mut self) -> Option<Result<&[u8], Reason>> {
        loop {
            if self.is_over {
                return None;
            }
            self.number += 1;
            self.line.clear();
            match self.read() {
                Ok(true) if self.line.trim_ascii().is_empty() => {}
                Ok(true) => break,
                Ok(false) => return Some(Err(Reason::LongLine { limit_bytes: MAX_LINE_BYTES })),
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(Reason::BrokenOff(error.to_string())));
                }
            }
        }
        Some(Ok(self.line.trim_ascii()))
    }

    /// Reads a line; `false` when it was too long and is gone.
    fn read(&mut self) -> io::Result<bool> {
        let mut is_whole = true;
        loop {
            let buffer = match self.source.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                self.is_over = true;
                return Ok(is_whole);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            is_whole &= self.line.len() + part.len() <= MAX_LINE_BYTES;
            if is_whole {
                self.line.extend_from_slice(part);
            }
            let n_bytes = part.len() + usize::from(end.is_some());
            self.source.consume(n_bytes);
            if end.is_some() {
                return Ok(is_whole);
            }
        }
    }
}

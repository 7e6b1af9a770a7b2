//! The byte source handed to a demuxer: it stops giving when time or patience runs out.

use std::io::{self, Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use symphonia::core::io::MediaSource;

use crate::Error;

/// The instant at which a decode has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// `None` when the limit is too large to be an instant.
    at: Option<Instant>,
    limit_secs: f64,
}

impl Deadline {
    pub(super) fn after(limit_secs: f64) -> Self {
        // NaN and negative limits allow no time at all.
        let limit = if limit_secs.is_nan() { Duration::ZERO } else { duration(limit_secs) };
        Deadline { at: Instant::now().checked_add(limit), limit_secs }
    }

    pub(super) fn passed(&self) -> bool {
        self.at.is_some_and(|at| Instant::now() >= at)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.passed() { Err(Error::Timeout { limit_secs: self.limit_secs }) } else { Ok(()) }
    }
}

fn duration(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or(Duration::MAX)
}

/// A demuxer may read a file a few times over (headers, index, trailing tags), not without end.
const MAX_PASSES: u64 = 16;
/// Reading in small jumps refills buffers; small files get this many bytes in any case.
const FREE_BYTES: u64 = 64 << 20;

/// A media source that fails reads once the deadline has passed or the file was read [`MAX_PASSES`] times over.
///
/// A demuxer that is caught in a loop by a forged offset keeps reading, so failing its reads is what ends it.
pub(super) struct BoundedSource {
    inner: Box<dyn MediaSource>,
    deadline: Deadline,
    bytes_left: u64,
}

impl BoundedSource {
    pub(super) fn new(inner: Box<dyn MediaSource>, deadline: Deadline) -> Self {
        let bytes_left = inner.byte_len().unwrap_or(0).saturating_mul(MAX_PASSES).saturating_add(FREE_BYTES);
        BoundedSource { inner, deadline, bytes_left }
    }

    fn check(&self) -> io::Result<()> {
        if self.deadline.passed() || self.bytes_left == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the demuxer reads in circles"));
        }
        Ok(())
    }
}

impl Read for BoundedSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let n_bytes = self.inner.read(buffer)?;
        self.bytes_left = self.bytes_left.saturating_sub(n_bytes as u64);
        Ok(n_bytes)
    }
}

impl Seek for BoundedSource {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.check()?;
        // Seeking costs nothing by itself; counting it ends a loop that seeks without reading.
        self.bytes_left = self.bytes_left.saturating_sub(64);
        self.inner.seek(position)
    }
}

impl MediaSource for BoundedSource {
    fn is_seekable(&self) -> bool {
        self.inner.is_seekable()
    }

    fn byte_len(&self) -> Option<u64> {
        self.inner.byte_len()
    }
}

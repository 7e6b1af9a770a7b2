//! The byte source handed to a demuxer: it stops giving when time or patience runs out.

use std::io::{self, Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use symphonia::core::io::MediaSource;

use crate::Error;

/// When a decode has taken the processor time that it may take; to be asked on the thread that began it.
///
/// The wall clock would make a sound file fail because the machine is busy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// Before this nothing is asked of the system: no thread computes for longer than the clock on the wall runs. `None` when the
    /// limit is too large to be an instant.
    earliest: Option<Instant>,
    /// What the thread had computed when it began; `None` where the system does not say, and the wall decides.
    began: Option<Duration>,
    limit: Duration,
    limit_secs: f64,
}

impl Deadline {
    pub(super) fn after(limit_secs: f64) -> Self {
        // NaN and negative limits allow no time at all.
        let limit = if limit_secs.is_nan() { Duration::ZERO } else { duration(limit_secs) };
        Deadline { earliest: Instant::now().checked_add(limit), began: thread_time(), limit, limit_secs }
    }

    pub(super) fn passed(&self) -> bool {
        if self.earliest.is_none_or(|at| Instant::now() < at) {
            return false;
        }
        let used = self.began.zip(thread_time()).map(|(began, now)| now.saturating_sub(began));
        used.is_none_or(|used| used >= self.limit)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.passed() { Err(Error::Timeout { limit_secs: self.limit_secs }) } else { Ok(()) }
    }
}

/// The processor time that this thread has taken since it exists.
#[cfg(any(target_os = "linux", target_os = "freebsd", target_vendor = "apple"))]
fn thread_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_vendor = "apple")))]
fn thread_time() -> Option<Duration> {
    None
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

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::io::Cursor;
    use std::thread::sleep;

    use super::super::{DecodeAudio, session};
    use super::*;
    use crate::Limits;

    #[test]
    fn limits_that_are_no_time_allow_none_and_endless_ones_all() {
        for (limit_secs, is_over) in
            [(0.0, true), (-1.0, true), (f64::NAN, true), (f64::INFINITY, false), (1e300, false)]
        {
            assert_eq!(Deadline::after(limit_secs).passed(), is_over, "{limit_secs}");
        }
    }

    /// A disk, or a machine, that keeps the decoder waiting at every read.
    struct Slow(Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            sleep(Duration::from_millis(450));
            self.0.read(buffer)
        }
    }

    impl Seek for Slow {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.0.seek(position)
        }
    }

    impl MediaSource for Slow {
        fn is_seekable(&self) -> bool {
            true
        }

        fn byte_len(&self) -> Option<u64> {
            Some(self.0.get_ref().len() as u64)
        }
    }

    #[cfg(any(target_os = "linux", target_os = "freebsd", target_vendor = "apple"))]
    #[test]
    fn only_the_threads_own_computing_counts() {
        const LIMIT_SECS: f64 = 0.4;
        let limits = Limits { max_cpu_secs: LIMIT_SECS, ..Limits::default() };
        let options = DecodeAudio { limits, ..DecodeAudio::default() };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/audio/tone.flac");
        let source = Slow(Cursor::new(std::fs::read(path).unwrap()));
        let began = Instant::now();
        session::decode(Box::new(source), None, &options).unwrap();
        assert!(began.elapsed() > duration(LIMIT_SECS), "it was not kept waiting");

        let deadline = Deadline::after(LIMIT_SECS);
        let mut n_turns = 0_u64;
        while !deadline.passed() {
            n_turns = black_box(n_turns + 1);
            assert!(began.elapsed() < Duration::from_secs(60), "{n_turns} turns without an end");
        }
        assert!(matches!(deadline.check(), Err(Error::Timeout { limit_secs: LIMIT_SECS })));
    }
}

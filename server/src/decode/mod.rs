//! Uploads become samples in processes of their own: `speechd decode-worker`, one for each upload.
//!
//! A decoder that a hostile file has led into an endless loop, an allocation that aborts or an overflowing stack
//! cannot be stopped in a thread. Four nets hang below each other; each catches what the one above lets through:
//!
//! 1. [`audio::Limits`], within the child: what a file says of itself or unpacks to. Length, samples, channels,
//!    rates, packet by packet. A typed error that names the limit.
//! 2. The clock of the same limits, within the child: files that take long, and demuxers that read in circles. It counts
//!    processor time, so that a file fares the same on a busy machine, and is looked at between packets and at every
//!    read. A typed error.
//! 3. The limits that the child puts on itself, kept by the kernel: an allocation for which nobody asked the first
//!    net (memory), a loop that neither reads nor ends a packet (processor time), files, and a parent that is gone.
//!    Where memory for samples is refused it is a typed error still; everywhere else the child dies.
//! 4. The kill by this side, by the clock on the wall: what waits instead of computing, and what the machine is too busy
//!    to bring to the end of its processor time. No verdict on the file: it may be sent again.
//!
//! What a child writes is not believed either: its samples are counted as they arrive.

mod queue;
mod reply;

use std::{
    env,
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use audio::{SourceInfo, Waveform};
use rustix::process::Signal;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use crate::config::Uploads;

use queue::{Queue, Turn};
use reply::{Broken, Caps, Kind};
pub(crate) use reply::{Head, Refusal, Reply, write as write_reply};

/// Where both clocks have the same limit, the child's own strikes first; it is killed this much later.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// Added to the niceness of children. The server's own threads come first; then those who decode small uploads, so that
/// these are done soon whatever else is being decoded.
const SMALL_NICENESS: i32 = 5;
const LARGE_NICENESS: i32 = 10;

/// How much of a child's standard error goes to the log.
const MAX_STDERR_BYTES: u64 = 4 << 10;

/// Exit code of a child that does not understand its arguments.
const USAGE: i32 = 2;

/// An upload as the models take it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedAudio {
    /// Mono, at the rate that was asked for.
    pub waveform: Waveform,
    /// What the file was.
    pub source: SourceInfo,
    /// What was lost or looks suspicious, for the user; empty for a sound file.
    pub warnings: Vec<String>,
}

/// Why an upload did not become samples. All but [`DecodeError::Busy`] and [`DecodeError::Worker`] are the file's doing:
/// trying again does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Empty, or its bytes contradict their own format.
    #[error("{0}")]
    Invalid(String),
    /// A container or codec that is not supported, or no audio at all.
    #[error("{0}")]
    Unsupported(String),
    /// It lasts longer than `uploads.max_duration_secs`, or than this one may.
    #[error("{0}")]
    TooLong(String),
    /// It unpacks to more than `uploads.max_samples_bytes`, or than the child's memory holds.
    #[error("{0}")]
    TooLarge(String),
    /// A number of channels or a sample rate that is not accepted.
    #[error("{0}")]
    Layout(String),
    /// Decoding it takes more than `uploads.max_decode_cpu_secs`.
    #[error("decoding took more than {limit_secs} s of processor time")]
    Timeout {
        /// The limit.
        limit_secs: f64,
    },
    /// The machine is too busy to decode it within `uploads.max_decode_wall_secs`.
    #[error("decoding was not done within {limit_secs} s")]
    Busy {
        /// The limit.
        limit_secs: f64,
    },
    /// The child died or wrote nonsense; the log says how.
    #[error("the decoder gave up on this file")]
    Crashed,
    /// Our own fault: the child could not be started, or could not read the upload.
    #[error("the decoder cannot be run: {0}")]
    Worker(String),
}

/// This program, to be run once more.
///
/// # Errors
/// When the system does not say where it is.
pub fn own_program() -> io::Result<PathBuf> {
    // On Linux the very image that runs, also after an upgrade has put another file in its place.
    if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { env::current_exe() }
}

/// A child and its turn. Dropped, it is killed if need be, and gives its turn back only when it is gone: until then it has
/// its memory, and the next one would have as much.
struct AtWork(Option<(Child, Turn)>);

impl Drop for AtWork {
    fn drop(&mut self) {
        let Some((mut child, turn)) = self.0.take() else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = child.start_kill();
        // Without a runtime the server is at its end, and so is the child.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(turn);
            });
        }
    }
}

/// Decodes uploads, a few at once.
#[derive(Debug)]
pub struct DecodePool {
    program: PathBuf,
    limits: Uploads,
    queue: Arc<Queue>,
}

impl DecodePool {
    /// Runs `program` ([`own_program`]) for each upload, at most `limits.n_children()` at once and one more for a small
    /// upload.
    pub fn new(program: PathBuf, limits: Uploads) -> Self {
        Self { program, limits, queue: Queue::new(limits) }
    }

    /// Decodes `upload` from its start and converts it to `sample_rate`.
    ///
    /// When all children are busy it waits, the shorter the less; whoever calls bounds how many wait. Dropping the
    /// future kills the child and lets the next one start. On Linux the child also dies with the thread that started
    /// it, so this is for the runtime's own threads, not for those of its blocking pool, which end when they are idle.
    ///
    /// # Errors
    /// [`DecodeError`] in all its variants.
    pub async fn decode(&self, upload: File, sample_rate: u32) -> Result<DecodedAudio, DecodeError> {
        self.decode_within(upload, sample_rate, self.limits).await
    }

    /// The same of a recording that is to be of `max_secs` at most, where that is less than all uploads may have: what is longer is not
    /// decoded any further.
    ///
    /// # Errors
    /// [`DecodeError`] in all its variants.
    pub async fn decode_short(
        &self,
        upload: File,
        sample_rate: u32,
        max_secs: f64,
    ) -> Result<DecodedAudio, DecodeError> {
        let mut limits = self.limits;
        if max_secs < limits.max_duration_secs {
            limits.max_duration_secs = max_secs;
        }
        self.decode_within(upload, sample_rate, limits).await
    }

    async fn decode_within(
        &self,
        upload: File,
        sample_rate: u32,
        limits: Uploads,
    ) -> Result<DecodedAudio, DecodeError> {
        let own_fault = |error: &dyn std::fmt::Display| DecodeError::Worker(error.to_string());
        let upload_bytes = upload.metadata().map_err(|error| own_fault(&error))?.len();
        let turn = self.queue.turn(upload_bytes).await.ok_or_else(|| own_fault(&"nobody calls"))?;
        let is_small = self.limits.is_small(upload_bytes);
        let niceness = if is_small { SMALL_NICENESS } else { LARGE_NICENESS };
        let child = self.start(upload, sample_rate, &limits, niceness).map_err(|error| own_fault(&error))?;
        let mut worker = AtWork(Some((child, turn)));
        let Some((child, _)) = &mut worker.0 else { return Err(own_fault(&"no child")) };
        let limit_secs = self.limits.max_wall_secs();
        // NaN and negative limits allow no time, as in the child.
        let limit = Duration::try_from_secs_f64(limit_secs.max(0.0)).unwrap_or(Duration::MAX);
        match timeout(limit.saturating_add(KILL_AFTER), self.converse(child, sample_rate, &limits)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::warn!(upload_bytes, "a decode worker was killed after {limit_secs} s");
                Err(DecodeError::Busy { limit_secs })
            }
        }
    }

    fn start(&self, upload: File, sample_rate: u32, limits: &Uploads, niceness: i32) -> io::Result<Child> {
        let Uploads { max_duration_secs, max_samples_bytes, max_channels, .. } = limits;
        let mut command = Command::new(&self.program);
        command
            .arg0("speechd")
            .arg("decode-worker")
            .arg(format!("--sample-rate={sample_rate}"))
            .arg(format!("--max-duration-secs={max_duration_secs}"))
            .arg(format!("--max-samples-bytes={max_samples_bytes}"))
            .arg(format!("--max-channels={max_channels}"))
            .arg(format!("--max-cpu-secs={}", limits.max_decode_cpu_secs))
            .arg(format!("--max-memory-bytes={}", limits.max_decode_memory_bytes))
            .arg(format!("--niceness={niceness}"))
            // Keys and tokens are in the environment, and a decoder needs none of it but what the linker reads.
            .env_clear()
            .envs(env::vars_os().filter(|(name, _)| name == "LD_LIBRARY_PATH"))
            // An interrupt from the terminal asks the server to finish its work, not to lose it.
            .process_group(0)
            .stdin(upload)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn()
    }

    /// Reads what the child says until it ends.
    async fn converse(
        &self,
        child: &mut Child,
        sample_rate: u32,
        limits: &Uploads,
    ) -> Result<DecodedAudio, DecodeError> {
        let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(DecodeError::Worker("its output is not connected".to_owned()));
        };
        let caps = Caps { sample_rate, max_samples: limits.max_samples(sample_rate) };
        let listen = async {
            let reply = reply::read(&mut stdout, caps).await;
            if reply.is_err() {
                // It may have more to say, without end. If it is gone already, so much the better.
                let _ = child.start_kill();
            }
            reply
        };
        let complaints = async {
            let mut bytes = Vec::new();
            // Closed when it is full: the child cannot block on it.
            let read = (&mut stderr).take(MAX_STDERR_BYTES).read_to_end(&mut bytes).await;
            drop(stderr);
            read.map(|_| bytes).unwrap_or_default()
        };
        let (reply, stderr) = tokio::join!(listen, complaints);
        let status = child.wait().await.map_err(|error| DecodeError::Worker(error.to_string()))?;
        match reply {
            Ok(Ok(decoded)) if status.success() => Ok(decoded),
            Ok(Err(refusal)) if status.success() => Err(self.refused(refusal)),
            reply => Err(self.ended(status, reply.err().as_ref(), &stderr)),
        }
    }

    fn refused(&self, refusal: Refusal) -> DecodeError {
        let Refusal { kind, message } = refusal;
        match kind {
            Kind::Invalid => DecodeError::Invalid(message),
            Kind::Unsupported => DecodeError::Unsupported(message),
            Kind::TooLong => DecodeError::TooLong(message),
            Kind::TooLarge => DecodeError::TooLarge(message),
            Kind::Layout => DecodeError::Layout(message),
            Kind::Timeout => DecodeError::Timeout { limit_secs: self.limits.max_decode_cpu_secs },
            Kind::Worker => DecodeError::Worker(message),
        }
    }

    /// What it means that a child ended without a sound reply.
    fn ended(&self, status: ExitStatus, broken: Option<&Broken>, stderr: &[u8]) -> DecodeError {
        let stderr = String::from_utf8_lossy(stderr);
        let reply = broken.map_or_else(|| "complete".to_owned(), ToString::to_string);
        // Quoted: what it complains of may be taken from the file.
        tracing::warn!(%status, reply, ?stderr, "a decode worker failed");
        match (status.signal(), status.code(), broken) {
            (_, _, Some(Broken::NoMemory)) => DecodeError::Worker("no memory for what it decoded".to_owned()),
            (_, Some(USAGE), _) => DecodeError::Worker("it does not understand its arguments".to_owned()),
            (Some(signal), ..) if signal == Signal::XCPU.as_raw() => {
                DecodeError::Timeout { limit_secs: self.limits.max_decode_cpu_secs }
            }
            _ => DecodeError::Crashed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_can_be_run_once_more() {
        let program = own_program().expect("a program");
        let output = std::process::Command::new(program).arg("--list").output().expect("started");
        let tests = String::from_utf8_lossy(&output.stdout);
        assert!(tests.contains("this_program_can_be_run_once_more"), "{tests}");
    }
}

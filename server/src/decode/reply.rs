//! What a decode worker says on its standard output: one line of JSON, then samples.

use std::io::{self, Write};

use audio::{SourceInfo, Waveform};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::DecodedAudio;

/// Longest line of JSON; the real ones have a few hundred bytes.
const MAX_HEAD_BYTES: u64 = 64 << 10;

/// Samples that are written and read at once: what a pipe holds.
const CHUNK_SAMPLES: usize = 16 << 10;

/// Room that is made at once for samples that arrive.
const GROWTH_SAMPLES: usize = 1 << 20;

/// The line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Reply {
    /// `n_samples` little-endian `f32` follow.
    Ok(Head),
    /// Nothing follows.
    Error(Refusal),
}

/// What comes before the samples.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    pub(crate) sample_rate: u32,
    pub(crate) n_samples: u64,
    pub(crate) source: SourceInfo,
    pub(crate) warnings: Vec<String>,
}

/// Why there are none.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

/// The variants of [`super::DecodeError`] that a child can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Invalid,
    Unsupported,
    TooLong,
    TooLarge,
    Layout,
    Timeout,
    Worker,
}

impl From<audio::Error> for Refusal {
    fn from(error: audio::Error) -> Self {
        use audio::Error;
        let kind = match &error {
            Error::Empty | Error::Undecodable { .. } => Kind::Invalid,
            Error::Unsupported { .. } => Kind::Unsupported,
            Error::TooLong { .. } => Kind::TooLong,
            Error::TooLarge { .. } => Kind::TooLarge,
            Error::TooManyChannels { .. } | Error::BadSampleRate { .. } => Kind::Layout,
            Error::Timeout { .. } => Kind::Timeout,
            Error::Io(cause) => return Self::worker(&format!("{error}: {cause}")),
            _ => Kind::Worker,
        };
        Self { kind, message: error.to_string() }
    }
}

impl Refusal {
    /// Our own fault.
    pub(crate) fn worker(message: &str) -> Self {
        Self { kind: Kind::Worker, message: message.to_owned() }
    }
}

/// Writes a reply and its samples.
pub(crate) fn write(reply: &Reply, samples: &[f32], mut out: impl Write) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    out.write_all(&line)?;
    let mut bytes = Vec::with_capacity(4 * CHUNK_SAMPLES);
    for chunk in samples.chunks(CHUNK_SAMPLES) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|sample| sample.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    out.flush()
}

/// What a reply may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    /// The rate that was asked for.
    pub(super) sample_rate: u32,
    pub(super) max_samples: u64,
}

/// Why what was read is no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("its first line is longer than {MAX_HEAD_BYTES} bytes or not ended")]
    Head,
    #[error("its first line is wrong: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it announces {n_samples} samples at {sample_rate} Hz, which was not asked for")]
    Announced { n_samples: u64, sample_rate: u32 },
    #[error("a sample is not a finite number")]
    NotFinite,
    #[error("more follows its last sample")]
    TooMuch,
    #[error("no memory")]
    NoMemory,
}

/// Reads a reply to its end. Room is made for what has arrived, never for what was announced.
pub(super) async fn read(
    stdout: impl AsyncRead + Unpin,
    caps: Caps,
) -> Result<Result<DecodedAudio, Refusal>, Broken> {
    let mut stdout = BufReader::with_capacity(4 * CHUNK_SAMPLES, stdout);
    let mut line = Vec::new();
    (&mut stdout).take(MAX_HEAD_BYTES).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(Broken::Head);
    }
    let head = match serde_json::from_slice(&line)? {
        Reply::Error(refusal) => {
            at_end(stdout).await?;
            return Ok(Err(refusal));
        }
        Reply::Ok(head) => head,
    };
    let Head { sample_rate, n_samples, source, warnings } = head;
    if n_samples > caps.max_samples || sample_rate != caps.sample_rate {
        return Err(Broken::Announced { n_samples, sample_rate });
    }
    let samples = read_samples(&mut stdout, n_samples).await?;
    at_end(stdout).await?;
    Ok(Ok(DecodedAudio { waveform: Waveform { samples, sample_rate }, source, warnings }))
}

async fn read_samples(stdout: &mut (impl AsyncRead + Unpin), n_samples: u64) -> Result<Vec<f32>, Broken> {
    let mut samples: Vec<f32> = Vec::new();
    let mut bytes = vec![0; 4 * CHUNK_SAMPLES];
    let mut n_left = n_samples;
    while n_left > 0 {
        let n_chunk = usize::try_from(n_left).map_or(CHUNK_SAMPLES, |left| left.min(CHUNK_SAMPLES));
        let chunk = &mut bytes[..4 * n_chunk];
        stdout.read_exact(chunk).await?;
        if samples.capacity() - samples.len() < n_chunk {
            let room = usize::try_from(n_left).map_or(GROWTH_SAMPLES, |left| left.min(GROWTH_SAMPLES));
            samples.try_reserve_exact(room).map_err(|_| Broken::NoMemory)?;
        }
        let arrived = chunk.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        samples.extend(arrived);
        if samples[samples.len() - n_chunk..].iter().any(|sample| !sample.is_finite()) {
            return Err(Broken::NotFinite);
        }
        n_left -= n_chunk as u64;
    }
    Ok(samples)
}

async fn at_end(mut stdout: impl AsyncRead + Unpin) -> Result<(), Broken> {
    match stdout.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(Broken::TooMuch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { sample_rate: 16_000, max_samples: 100_000 };

    fn head(n_samples: u64) -> Head {
        let source = SourceInfo {
            format: "mp3".to_owned(),
            codec: "mp3".to_owned(),
            channels: 2,
            sample_rate: 44_100,
            duration_secs: 1.5,
        };
        Head { sample_rate: 16_000, n_samples, source, warnings: vec!["a\nb".to_owned()] }
    }

    fn written(reply: &Reply, samples: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(reply, samples, &mut bytes).expect("written");
        bytes
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        for n_samples in [0, 1, CHUNK_SAMPLES, CHUNK_SAMPLES + 1, 100_000] {
            let samples: Vec<f32> = (0..n_samples).map(|index| index as f32 - 0.5).collect();
            let bytes = written(&Reply::Ok(head(n_samples as u64)), &samples);
            let decoded = read(&bytes[..], CAPS).await.expect("a reply").expect("samples");
            assert_eq!(decoded.waveform, Waveform { samples, sample_rate: 16_000 });
            assert_eq!((decoded.source, decoded.warnings), (head(0).source, head(0).warnings));
        }
        let too_long = || Refusal::from(audio::Error::TooLong { limit_secs: 600.0 });
        let bytes = written(&Reply::Error(too_long()), &[]);
        assert_eq!(read(&bytes[..], CAPS).await.expect("a reply").expect_err("refused"), too_long());
    }

    #[tokio::test]
    async fn what_was_not_asked_for_is_not_read() {
        let announced = written(&Reply::Ok(head(100_001)), &[]);
        assert!(matches!(read(&announced[..], CAPS).await, Err(Broken::Announced { .. })));
        let other = Caps { sample_rate: 8_000, ..CAPS };
        let rate = written(&Reply::Ok(head(1)), &[0.0]);
        assert!(matches!(read(&rate[..], other).await, Err(Broken::Announced { .. })));
        let more = written(&Reply::Ok(head(1)), &[0.0, 0.0]);
        assert!(matches!(read(&more[..], CAPS).await, Err(Broken::TooMuch)));
        let not_finite = written(&Reply::Ok(head(1)), &[f32::NAN]);
        assert!(matches!(read(&not_finite[..], CAPS).await, Err(Broken::NotFinite)));
        let endless = vec![b' '; 1 << 20];
        assert!(matches!(read(&endless[..], CAPS).await, Err(Broken::Head)));
    }
}

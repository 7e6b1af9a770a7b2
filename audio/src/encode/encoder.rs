//! One encode, from samples as they come to bytes as they are ready.

use std::mem;

use super::AudioFormat;
use super::flac::{self, FlacEncoder};
use super::mp3::{self, Mp3Encoder};
use super::opus::{self, OpusEncoder};
use super::wav::{pcm_s16le, wav_header};
use crate::resample::{StreamResampler, resampled_len};
use crate::{Error, Waveform};

/// Encodes mono samples that come in parts.
///
/// The first bytes, those of a header if the format has one, come with the first call whatever it holds. Sound follows in
/// the units of the codec: samples for WAV and PCM, blocks of 1152 samples for FLAC, frames of 576 (from 32 kHz on 1152)
/// for MP3, a page of 20 ms and then pages of 200 ms for Opus. Where a rate has to be converted, that holds back 1024
/// samples or more.
pub struct Encoder {
    intake: Intake,
    codec: Codec,
    /// What precedes all sound, until it is handed out.
    head: Vec<u8>,
    n_samples: Option<usize>,
    n_pushed: usize,
    /// Rates of what comes and of what is coded, Hz.
    rates: [u32; 2],
}

/// Encodes mono samples that come in parts into a file whose beginning can be written again.
///
/// How many there will be need not be known: at the end the file states it all the same. Until then it is one that lasts as long as it
/// goes on, with room where its length will stand.
pub struct FileEncoder {
    encoder: Encoder,
    format: AudioFormat,
}

enum Codec {
    /// A WAV is the same behind its header.
    Pcm,
    Flac(FlacEncoder),
    Mp3(Box<Mp3Encoder>),
    Opus(Box<OpusEncoder>),
}

impl Encoder {
    /// An encoder of samples at `sample_rate` Hz.
    ///
    /// `n_samples` is how many there will be, where that is known: then WAV, FLAC and MP3 state their length, and an
    /// MP3 also what its codec adds at both ends, so that players cut it away. Without it a WAV states the largest
    /// length that there is, FLAC none, and an MP3 lasts 1057 samples longer at its start and up to a frame at its end.
    /// Opus has the right length in any case.
    ///
    /// MP3 and Opus know few rates; samples of another are converted to the next higher that they know. An Opus stream
    /// always decodes to 48 kHz.
    ///
    /// # Errors
    /// [`Error::BadSampleRate`] for a rate of 0 or one that the format can neither state nor be converted to,
    /// [`Error::TooLarge`] for a WAV beyond 4 GiB.
    pub fn new(format: AudioFormat, sample_rate: u32, n_samples: Option<usize>) -> Result<Self, Error> {
        Self::converting(format, sample_rate, sample_rate, n_samples)
    }

    /// The same of samples at `sample_rate` Hz that are given out at `output_rate` Hz, whatever the format.
    ///
    /// # Errors
    /// As [`Encoder::new`], and for two rates between which [`resample`](crate::resample()) does not convert.
    pub fn converting(
        format: AudioFormat,
        sample_rate: u32,
        output_rate: u32,
        n_samples: Option<usize>,
    ) -> Result<Self, Error> {
        if sample_rate == 0 || output_rate == 0 {
            return Err(Error::BadSampleRate { sample_rate: 0, expected: "at least 1 Hz".into() });
        }
        let codec_rate = match format {
            AudioFormat::Mp3 => legal_rate(&mp3::SAMPLE_RATES, output_rate),
            AudioFormat::Opus => legal_rate(&opus::SAMPLE_RATES, output_rate),
            AudioFormat::Flac | AudioFormat::Wav | AudioFormat::Pcm => output_rate,
        };
        let intake = Intake::new(sample_rate, codec_rate)?;
        let n_coded = n_samples.map(|n| resampled_len(n, sample_rate, codec_rate));
        let too_large = |_| Error::TooLarge { what: "encoded audio", limit_bytes: u64::from(u32::MAX) };
        let n_coded = n_coded.map(usize::try_from).transpose().map_err(too_large)?;
        let (codec, head) = match format {
            AudioFormat::Pcm => (Codec::Pcm, Vec::new()),
            AudioFormat::Wav => (Codec::Pcm, wav_header(codec_rate, n_coded)?.to_vec()),
            AudioFormat::Flac => (
                Codec::Flac(FlacEncoder::new(codec_rate)?),
                flac::stream_header(codec_rate, n_coded.unwrap_or(0) as u64),
            ),
            AudioFormat::Mp3 => {
                let encoder = Box::new(Mp3Encoder::new(codec_rate)?);
                let head = n_coded.map_or(Vec::new(), |n_coded| encoder.tag_frame(n_coded as u64));
                (Codec::Mp3(encoder), head)
            }
            AudioFormat::Opus => {
                let mut encoder = Box::new(OpusEncoder::new(codec_rate)?);
                let head = encoder.header_pages(output_rate);
                (Codec::Opus(encoder), head)
            }
        };
        let rates = [sample_rate, codec_rate];
        Ok(Encoder { intake, codec, head, n_samples, n_pushed: 0, rates })
    }

    /// Takes samples in [-1, 1] and returns the bytes that are ready, perhaps none. What exceeds the range is clipped,
    /// and NaN becomes 0, as in [`pcm_s16le`].
    ///
    /// # Errors
    /// [`Error::BadOption`] when there are more samples than were announced; [`Error::Unsupported`] for what a codec
    /// objects to, which none is known to do.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, Error> {
        self.n_pushed = self.n_pushed.saturating_add(samples.len());
        if self.n_samples.is_some_and(|n_samples| self.n_pushed > n_samples) {
            return Err(self.miscounted());
        }
        let mut bytes = mem::take(&mut self.head);
        let samples = self.intake.push(samples)?;
        self.codec.push(&samples, &mut bytes)?;
        Ok(bytes)
    }

    /// Returns the last bytes. With no samples at all they are a file that lasts no time or, where the format knows no
    /// such, a moment of silence.
    ///
    /// # Errors
    /// [`Error::BadOption`] when there were fewer samples than were announced, and as [`Encoder::push`].
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        if self.n_samples.is_some_and(|n_samples| self.n_pushed != n_samples) {
            return Err(self.miscounted());
        }
        let Encoder { intake, mut codec, head: mut bytes, .. } = self;
        let rest = intake.finish()?;
        codec.push(&rest, &mut bytes)?;
        codec.finish(&mut bytes)?;
        Ok(bytes)
    }

    fn miscounted(&self) -> Error {
        let announced = self.n_samples.unwrap_or(0);
        let reason = format!("{announced} were announced, {} came", self.n_pushed);
        Error::BadOption { field: "n_samples", reason }
    }
}

impl FileEncoder {
    /// An encoder of samples at `sample_rate` Hz.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn new(format: AudioFormat, sample_rate: u32) -> Result<Self, Error> {
        let mut encoder = Encoder::new(format, sample_rate, None)?;
        if let Codec::Mp3(codec) = &encoder.codec {
            encoder.head = codec.silent_frame();
        }
        Ok(FileEncoder { encoder, format })
    }

    /// As [`Encoder::push`].
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, Error> {
        self.encoder.push(samples)
    }

    /// The last bytes, and those that the file is to begin with instead of as many that were given first: then it is the one that
    /// [`encode_bytes`] makes. There are none where nothing has to be written again, nor for a WAV beyond 4 GiB, whose length no header
    /// can state.
    ///
    /// # Errors
    /// As [`Encoder::finish`].
    pub fn finish(self) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let FileEncoder { encoder, format } = self;
        let [sample_rate, codec_rate] = encoder.rates;
        let n_coded = resampled_len(encoder.n_pushed, sample_rate, codec_rate);
        let n_samples = u64::try_from(n_coded).unwrap_or(u64::MAX);
        let head = match (&encoder.codec, format) {
            (Codec::Mp3(codec), _) => codec.tag_frame(n_samples),
            (Codec::Flac(_), _) => flac::stream_header(codec_rate, n_samples),
            (Codec::Pcm, AudioFormat::Wav) => {
                let header = usize::try_from(n_coded).ok().and_then(|n| wav_header(codec_rate, Some(n)).ok());
                header.map_or(Vec::new(), Vec::from)
            }
            (Codec::Pcm | Codec::Opus(_), _) => Vec::new(),
        };
        Ok((encoder.finish()?, head))
    }
}

impl Codec {
    fn push(&mut self, samples: &[f32], bytes: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Codec::Pcm => bytes.extend(pcm_s16le(samples)),
            Codec::Flac(encoder) => encoder.push(samples, bytes),
            Codec::Mp3(encoder) => encoder.push(samples, bytes)?,
            Codec::Opus(encoder) => encoder.push(samples, bytes)?,
        }
        Ok(())
    }

    fn finish(self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Codec::Pcm => Ok(()),
            Codec::Flac(encoder) => {
                encoder.finish(bytes);
                Ok(())
            }
            Codec::Mp3(encoder) => encoder.finish(bytes),
            Codec::Opus(encoder) => encoder.finish(bytes),
        }
    }
}

/// A whole file of one format; [`Encoder`] says what is in it.
///
/// # Errors
/// As [`Encoder::new`] and [`Encoder::push`].
pub fn encode_bytes(waveform: &Waveform, format: AudioFormat) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder::new(format, waveform.sample_rate, Some(waveform.samples.len()))?;
    let mut bytes = encoder.push(&waveform.samples)?;
    bytes.extend(encoder.finish()?);
    Ok(bytes)
}

/// The lowest of `rates` (ascending) that loses nothing of a signal at `sample_rate`, else the highest.
fn legal_rate(rates: &[u32], sample_rate: u32) -> u32 {
    let above = rates.iter().copied().find(|rate| *rate >= sample_rate);
    above.or(rates.last().copied()).unwrap_or(sample_rate)
}

/// Makes of any samples such as a codec takes: within full scale, at its rate.
struct Intake {
    resampler: Option<StreamResampler>,
}

impl Intake {
    fn new(sample_rate: u32, codec_rate: u32) -> Result<Self, Error> {
        let converts = sample_rate != codec_rate;
        let resampler = converts.then(|| StreamResampler::new(sample_rate, codec_rate)).transpose()?;
        Ok(Intake { resampler })
    }

    fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, Error> {
        let clipped: Vec<f32> = samples.iter().map(|sample| clip(*sample)).collect();
        match &mut self.resampler {
            Some(resampler) => resampler.push(&clipped).map(clip_all),
            None => Ok(clipped),
        }
    }

    fn finish(self) -> Result<Vec<f32>, Error> {
        self.resampler.map_or(Ok(Vec::new()), |resampler| resampler.finish().map(clip_all))
    }
}

/// The resampling filter overshoots where its input is near full scale.
fn clip_all(mut samples: Vec<f32>) -> Vec<f32> {
    samples.iter_mut().for_each(|sample| *sample = clip(*sample));
    samples
}

fn clip(sample: f32) -> f32 {
    if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) }
}

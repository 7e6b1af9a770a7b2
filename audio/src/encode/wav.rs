//! 16-bit PCM, with the header of a WAV or without.

use crate::{Error, Waveform};

const HEADER_BYTES: u32 = 44;

/// The 44-byte header of a mono 16-bit PCM WAV that holds `n_samples`.
///
/// `None` writes the largest length that the format can state, which players read as "until the stream ends":
/// for streaming, when the length is not known yet.
///
/// # Errors
/// [`Error::TooLarge`] when the samples exceed what a RIFF header can state (4 GiB).
pub fn wav_header(sample_rate: u32, n_samples: Option<usize>) -> Result<[u8; HEADER_BYTES as usize], Error> {
    let largest = u32::MAX - HEADER_BYTES;
    let data_bytes = match n_samples {
        None => u32::MAX,
        Some(n_samples) => n_samples
            .checked_mul(2)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .filter(|bytes| *bytes <= largest)
            .ok_or(Error::TooLarge { what: "WAV data", limit_bytes: u64::from(largest) })?,
    };
    let riff_bytes = data_bytes.saturating_add(HEADER_BYTES - 8);
    let mut header = [0; HEADER_BYTES as usize];
    header[0..4].copy_from_slice(b"RIFF");
    header[4..8].copy_from_slice(&riff_bytes.to_le_bytes());
    header[8..16].copy_from_slice(b"WAVEfmt ");
    header[16..20].copy_from_slice(&16u32.to_le_bytes());
    header[20..22].copy_from_slice(&1u16.to_le_bytes());
    header[22..24].copy_from_slice(&1u16.to_le_bytes());
    header[24..28].copy_from_slice(&sample_rate.to_le_bytes());
    header[28..32].copy_from_slice(&sample_rate.saturating_mul(2).to_le_bytes());
    header[32..34].copy_from_slice(&2u16.to_le_bytes());
    header[34..36].copy_from_slice(&16u16.to_le_bytes());
    header[36..40].copy_from_slice(b"data");
    header[40..44].copy_from_slice(&data_bytes.to_le_bytes());
    Ok(header)
}

/// Samples as little-endian 16-bit PCM: `round(x * 32768)`, clipped to the range; NaN becomes 0.
///
/// The factor is the inverse of what [`decode_bytes`](crate::decode_bytes) divides by, so 16-bit audio survives a
/// round trip unchanged.
pub fn pcm_s16le(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|sample| to_i16(*sample).to_le_bytes()).collect()
}

/// One sample of [`pcm_s16le`].
pub(super) fn to_i16(sample: f32) -> i16 {
    // A float-to-integer `as` saturates and sends NaN to 0.
    (sample * 32768.0).round() as i16
}

/// A whole mono 16-bit PCM WAV file.
///
/// # Errors
/// [`Error::TooLarge`] beyond 4 GiB, [`Error::BadSampleRate`] when the rate is 0.
pub fn wav_bytes(waveform: &Waveform) -> Result<Vec<u8>, Error> {
    if waveform.sample_rate == 0 {
        return Err(Error::BadSampleRate { sample_rate: 0, expected: "at least 1 Hz".into() });
    }
    let mut bytes = wav_header(waveform.sample_rate, Some(waveform.samples.len()))?.to_vec();
    bytes.extend(pcm_s16le(&waveform.samples));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeAudio, decode_bytes};

    #[test]
    fn every_16_bit_value_survives_a_round_trip() {
        let samples: Vec<f32> = (i16::MIN..=i16::MAX).map(|value| f32::from(value) / 32768.0).collect();
        let waveform = Waveform { samples, sample_rate: 16_000 };
        let decoded =
            decode_bytes(wav_bytes(&waveform).unwrap(), Some("wav"), &DecodeAudio::default()).unwrap();
        assert_eq!(decoded.waveform, waveform);
        assert!(decoded.warnings.is_empty(), "{:?}", decoded.warnings);
    }

    #[test]
    fn out_of_range_samples_are_clipped() {
        let bytes = pcm_s16le(&[2.0, -2.0, f32::NAN, 1.0]);
        let values: Vec<i16> = bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(values, [i16::MAX, i16::MIN, 0, i16::MAX]);
    }

    #[test]
    fn a_stream_of_unknown_length_decodes() {
        let mut bytes = wav_header(8_000, None).unwrap().to_vec();
        bytes.extend(pcm_s16le(&[0.25; 800]));
        let decoded = decode_bytes(bytes, None, &DecodeAudio::default()).unwrap();
        assert_eq!(decoded.waveform.samples, [0.25; 800]);
        assert!(decoded.warnings.is_empty(), "{:?}", decoded.warnings);
    }

    #[test]
    fn a_rate_of_zero_is_refused() {
        let waveform = Waveform { samples: vec![0.0], sample_rate: 0 };
        assert!(matches!(wav_bytes(&waveform), Err(Error::BadSampleRate { sample_rate: 0, .. })));
    }
}

//! Any samples in any format, cut anywhere: the same bytes, and without loss what was put in.
#![no_main]

use audio::encode::{AudioFormat, Encoder};
use audio::{DecodeAudio, decode_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u32, bool, Vec<u32>, u16)| {
    let (format, sample_rate, is_announced, values, cut) = input;
    let format = AudioFormat::ALL[usize::from(format) % AudioFormat::ALL.len()];
    let samples: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
    // The ratio to the codec's rate decides the work; more than a second's worth finds nothing new.
    if samples.len() as f64 / f64::from(sample_rate.max(1)) > 20.0 {
        return;
    }
    let encode = |cut: usize| {
        let mut encoder = Encoder::new(format, sample_rate, is_announced.then_some(samples.len()))?;
        let (first, rest) = samples.split_at(cut.min(samples.len()));
        let mut bytes = encoder.push(first)?;
        bytes.extend(encoder.push(rest)?);
        bytes.extend(encoder.finish()?);
        Ok::<_, audio::Error>(bytes)
    };
    let Ok(bytes) = encode(0) else { return };
    assert_eq!(bytes, encode(usize::from(cut)).expect("the same answer for other cuts"));
    if format == AudioFormat::Flac
        && let Ok(decoded) = decode_bytes(bytes, Some("flac"), &DecodeAudio::default())
    {
        assert_eq!(audio::encode::pcm_s16le(&decoded.waveform.samples), audio::encode::pcm_s16le(&samples));
    }
});

//! What holds for all formats: what comes back, and that nothing depends on how samples are cut.

use proptest::prelude::*;

use super::*;
use crate::{DecodeAudio, Decoded, Error, Waveform, decode_bytes, resample};

const RATES: [u32; 5] = [16_000, 22_050, 24_000, 44_100, 48_000];

/// A voice, roughly: harmonics of a gliding pitch in syllables, with hissing between them.
fn speech(n_samples: usize, sample_rate: u32) -> Waveform {
    let mut state = 1_u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state) / f64::from(u32::MAX) - 0.5
    };
    let sample = |index: usize| {
        let t = index as f64 / f64::from(sample_rate);
        let phase = std::f64::consts::TAU * (120.0 * t + 15.0 * t * t);
        let voice: f64 = (1..20).map(|k| (phase * f64::from(k)).sin() / f64::from(k)).sum();
        let syllable = (std::f64::consts::TAU * 3.0 * t).sin();
        let hiss = noise();
        (0.25 * voice * syllable.max(0.0) + 0.05 * hiss * (-syllable).max(0.0)) as f32
    };
    Waveform { samples: (0..n_samples).map(sample).collect(), sample_rate }
}

/// All that an encoder gives for samples that are pushed in parts.
fn encode_parts<'a>(
    format: AudioFormat,
    sample_rate: u32,
    n_samples: Option<usize>,
    parts: impl Iterator<Item = &'a [f32]>,
) -> Vec<u8> {
    let mut encoder = Encoder::new(format, sample_rate, n_samples).unwrap();
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(encoder.push(part).unwrap());
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

fn encode_stream(waveform: &Waveform, format: AudioFormat) -> Vec<u8> {
    encode_parts(format, waveform.sample_rate, None, std::iter::once(waveform.samples.as_slice()))
}

fn decode(bytes: Vec<u8>, format: AudioFormat) -> Decoded {
    let decoded = decode_bytes(bytes, Some(format.extension()), &DecodeAudio::default()).unwrap();
    assert_eq!(decoded.warnings, [], "{format}");
    decoded
}

fn of_16_bits(samples: &[f32]) -> Vec<f32> {
    samples.iter().map(|sample| f32::from(wav::to_i16(*sample)) / 32768.0).collect()
}

fn snr_db(source: &[f32], decoded: &[f32]) -> f64 {
    assert_eq!(source.len(), decoded.len());
    let signal: f64 = source.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let noise: f64 = source.iter().zip(decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// By how many samples `decoded` is late: the shift, of up to three, at which it is closest to `source`.
fn lag(source: &[f32], decoded: &[f32]) -> i64 {
    let n = source.len() - 6;
    let snr = |lag: &i64| {
        let start = usize::try_from(3 + lag).unwrap();
        snr_db(&source[3..3 + n], &decoded[start..start + n])
    };
    (-3..=3).max_by(|a, b| snr(a).total_cmp(&snr(b))).unwrap()
}

#[test]
fn lossless_formats_give_16_bits_back() {
    for sample_rate in RATES {
        let waveform = speech(10_000, sample_rate);
        let samples = of_16_bits(&waveform.samples);
        for format in [AudioFormat::Flac, AudioFormat::Wav] {
            let whole = encode_bytes(&waveform, format).unwrap();
            for bytes in [whole, encode_stream(&waveform, format)] {
                let decoded = decode(bytes, format).waveform;
                assert_eq!(decoded, Waveform { samples: samples.clone(), sample_rate }, "{format}");
            }
        }
        let bytes = encode_bytes(&waveform, AudioFormat::Pcm).unwrap();
        assert_eq!(bytes, pcm_s16le(&waveform.samples));
        assert_eq!(bytes, encode_stream(&waveform, AudioFormat::Pcm));
    }
}

#[test]
fn mp3_keeps_speech_in_time() {
    for sample_rate in RATES {
        let waveform = speech(2 * sample_rate as usize, sample_rate);
        let decoded = decode(encode_bytes(&waveform, AudioFormat::Mp3).unwrap(), AudioFormat::Mp3);
        assert_eq!((decoded.source.codec.as_str(), decoded.waveform.sample_rate), ("mp3", sample_rate));
        let snr_whole = snr_db(&waveform.samples, &decoded.waveform.samples);
        assert_eq!(lag(&waveform.samples, &decoded.waveform.samples), 0, "{sample_rate} Hz");
        // A stream starts with the delays of encoder and decoder, and ends within a frame of both.
        let decoded = decode(encode_stream(&waveform, AudioFormat::Mp3), AudioFormat::Mp3);
        let n_samples = waveform.samples.len();
        let snr_stream = snr_db(&waveform.samples, &decoded.waveform.samples[1_057..1_057 + n_samples]);
        assert!(decoded.waveform.samples.len() < 1_057 + n_samples + 1_152);
        assert!(snr_whole.min(snr_stream) > 12.0, "{sample_rate} Hz: {snr_whole} dB, {snr_stream} dB");
    }
}

#[test]
fn opus_keeps_speech_in_time() {
    for sample_rate in RATES {
        let waveform = speech(2 * sample_rate as usize, sample_rate);
        let decoded = decode(encode_stream(&waveform, AudioFormat::Opus), AudioFormat::Opus);
        assert_eq!((decoded.source.codec.as_str(), decoded.waveform.sample_rate), ("opus", 48_000));
        let expected = resample(&waveform, 48_000).unwrap();
        let snr = snr_db(&expected.samples, &decoded.waveform.samples);
        assert!(snr > 8.0, "{sample_rate} Hz: {snr} dB");
        // The filter against offset turns the lowest frequencies' phase a little.
        assert!(lag(&expected.samples, &decoded.waveform.samples).abs() <= 1, "{sample_rate} Hz");
        // The length that it could have stated is the one that it has.
        assert_eq!(
            encode_bytes(&waveform, AudioFormat::Opus).unwrap(),
            encode_stream(&waveform, AudioFormat::Opus)
        );
    }
}

#[test]
fn rates_that_a_codec_lacks_are_converted() {
    for (sample_rate, mp3_rate) in [(8_000, 16_000), (11_025, 16_000), (32_000, 32_000), (96_000, 48_000)] {
        let waveform = speech(sample_rate as usize / 2, sample_rate);
        for (format, rate) in [(AudioFormat::Mp3, mp3_rate), (AudioFormat::Opus, 48_000)] {
            let decoded = decode(encode_bytes(&waveform, format).unwrap(), format).waveform;
            assert_eq!(decoded.sample_rate, rate);
            let expected = resample(&waveform, rate).unwrap().samples;
            assert!(decoded.samples.len().abs_diff(expected.len()) <= 6, "{format}, {sample_rate} Hz");
            let snr = snr_db(&expected[..expected.len() - 6], &decoded.samples[..expected.len() - 6]);
            assert!(snr > 8.0, "{format}, {sample_rate} Hz: {snr} dB");
        }
    }
}

#[test]
fn no_samples_and_one_are_files_too() {
    for format in AudioFormat::ALL {
        for n_samples in [0, 1] {
            let waveform = Waveform { samples: vec![0.5; n_samples], sample_rate: 24_000 };
            for bytes in [encode_bytes(&waveform, format).unwrap(), encode_stream(&waveform, format)] {
                assert_eq!(bytes.is_empty(), format == AudioFormat::Pcm && n_samples == 0, "{format}");
                if format == AudioFormat::Pcm {
                    continue;
                }
                let decoded = decode_bytes(bytes, Some(format.extension()), &DecodeAudio::default());
                // A stream of MP3 is never empty. FLAC without a frame is legal, and our decoder finds no sound in it.
                match decoded {
                    Ok(decoded) => {
                        assert!(n_samples > 0 || format == AudioFormat::Mp3, "{format}: {decoded:?}");
                    }
                    Err(Error::Empty | Error::Undecodable { .. }) => assert_eq!(n_samples, 0, "{format}"),
                    Err(error) => panic!("{format}: {error}"),
                }
            }
        }
    }
}

#[test]
fn one_sample_at_a_time_gives_the_same_bytes() {
    for format in AudioFormat::ALL {
        let waveform = speech(6_000, 22_050);
        let parts = encode_parts(format, 22_050, None, waveform.samples.chunks(1));
        assert_eq!(parts, encode_stream(&waveform, format), "{format}");
    }
}

#[test]
fn a_file_states_its_length_when_all_of_it_is_known() {
    for format in AudioFormat::ALL {
        // The last one is that of no MP3 and no Opus: it is converted.
        for (n_samples, sample_rate) in
            [(0, 24_000), (1, 16_000), (9_000, 22_050), (9_000, 24_000), (9_000, 11_025)]
        {
            let waveform = speech(n_samples, sample_rate);
            let mut encoder = FileEncoder::new(format, sample_rate).unwrap();
            let mut file = encoder.push(&[]).unwrap();
            for part in waveform.samples.chunks(700) {
                file.extend(encoder.push(part).unwrap());
            }
            let (rest, head) = encoder.finish().unwrap();
            file.extend(rest);
            // Whoever hears it before that hears all of it, in an MP3 after a moment of silence.
            if n_samples > 1 && format != AudioFormat::Pcm {
                let heard = decode(file.clone(), format).waveform;
                let n_expected = decode(encode_stream(&waveform, format), format).waveform.samples.len();
                assert!(heard.samples.len() >= n_expected, "{format}: {} samples", heard.samples.len());
            }
            file[..head.len()].copy_from_slice(&head);
            assert!(file == encode_bytes(&waveform, format).unwrap(), "{format}, {n_samples} samples");
        }
    }
}

#[test]
fn encoders_share_nothing() {
    for format in AudioFormat::ALL {
        let (one, other) = (speech(9_000, 24_000), speech(9_000, 16_000));
        let mut encoders = [&one, &other].map(|waveform| {
            (
                Encoder::new(format, waveform.sample_rate, None).unwrap(),
                waveform.samples.chunks(700),
                Vec::<u8>::new(),
            )
        });
        for _ in 0..13 {
            for (encoder, parts, bytes) in &mut encoders {
                bytes.extend(encoder.push(parts.next().unwrap()).unwrap());
            }
        }
        let [one_bytes, other_bytes] = encoders.map(|(encoder, mut parts, mut bytes)| {
            assert!(parts.next().is_none());
            bytes.extend(encoder.finish().unwrap());
            bytes
        });
        assert_eq!(one_bytes, encode_stream(&one, format), "{format}");
        assert_eq!(other_bytes, encode_stream(&other, format), "{format}");
    }
}

#[test]
fn what_exceeds_full_scale_is_clipped() {
    let wild = [f32::NAN, 2.0, f32::NEG_INFINITY, 1e30, 0.5].repeat(500);
    let tame = [0.0, 1.0, -1.0, 1.0, 0.5].repeat(500);
    for format in AudioFormat::ALL {
        for sample_rate in [22_050, 24_000] {
            let of = |samples: &[f32]| {
                encode_bytes(&Waveform { samples: samples.to_vec(), sample_rate }, format).unwrap()
            };
            assert_eq!(of(&wild), of(&tame), "{format}");
        }
    }
}

#[test]
fn the_first_bytes_come_at_once() {
    for format in AudioFormat::ALL {
        let mut encoder = Encoder::new(format, 24_000, None).unwrap();
        let head = encoder.push(&[]).unwrap();
        let has_head = matches!(format, AudioFormat::Wav | AudioFormat::Flac | AudioFormat::Opus);
        assert_eq!(!head.is_empty(), has_head, "{format}");
        assert!(encoder.push(&[]).unwrap().is_empty(), "{format}");
        assert!(!encoder.push(&[0.1; 1_200]).unwrap().is_empty(), "{format}");
    }
    let mut encoder = Encoder::new(AudioFormat::Wav, 24_000, None).unwrap();
    let head = encoder.push(&[]).unwrap();
    assert_eq!((&head[4..8], &head[40..44]), ([0xff; 4].as_slice(), [0xff; 4].as_slice()));
}

#[test]
fn counts_have_to_be_kept() {
    for format in AudioFormat::ALL {
        let mut encoder = Encoder::new(format, 24_000, Some(5)).unwrap();
        encoder.push(&[0.0; 4]).unwrap();
        assert!(matches!(encoder.push(&[0.0; 2]), Err(Error::BadOption { field: "n_samples", .. })));
        let mut encoder = Encoder::new(format, 24_000, Some(5)).unwrap();
        encoder.push(&[0.0; 4]).unwrap();
        let told = encoder.finish().unwrap_err().to_string();
        assert_eq!(told, "bad n_samples: 5 were announced, 4 came");
    }
}

#[test]
fn impossible_rates_are_refused() {
    for format in AudioFormat::ALL {
        assert!(matches!(Encoder::new(format, 0, None), Err(Error::BadSampleRate { sample_rate: 0, .. })));
    }
    for format in [AudioFormat::Mp3, AudioFormat::Opus, AudioFormat::Flac] {
        assert!(
            matches!(Encoder::new(format, 5_000_000, None), Err(Error::BadSampleRate { .. })),
            "{format}"
        );
    }
    assert!(matches!(Encoder::new(AudioFormat::Wav, 24_000, Some(1 << 40)), Err(Error::TooLarge { .. })));
}

#[test]
fn encoders_move_between_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Encoder>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_do_not_depend_on_the_cuts(
        lengths in proptest::collection::vec(0..2_500usize, 1..8),
        rate in proptest::sample::select(vec![11_025_u32, 16_000, 22_050, 24_000, 44_100, 48_000]),
        is_announced in any::<bool>(),
    ) {
        let waveform = speech(lengths.iter().sum(), rate);
        let n_samples = is_announced.then_some(waveform.samples.len());
        for format in AudioFormat::ALL {
            let mut left = waveform.samples.as_slice();
            let parts = lengths.iter().map(|length| {
                let (part, rest) = left.split_at(*length);
                left = rest;
                part
            });
            let cut = encode_parts(format, rate, n_samples, parts);
            let whole = std::iter::once(waveform.samples.as_slice());
            prop_assert_eq!(cut, encode_parts(format, rate, n_samples, whole), "{}", format);
        }
    }
}

#[test]
fn sound_is_given_out_at_another_rate_as_if_it_had_been_converted_before() {
    let waveform = speech(16_000, 16_000);
    let converted = resample(&waveform, 24_000).unwrap();
    for format in AudioFormat::ALL {
        for n_samples in [None, Some(waveform.samples.len())] {
            let mut encoder = Encoder::converting(format, 16_000, 24_000, n_samples).unwrap();
            let mut bytes = Vec::new();
            for part in waveform.samples.chunks(999) {
                bytes.extend(encoder.push(part).unwrap());
            }
            bytes.extend(encoder.finish().unwrap());
            let n_converted = n_samples.map(|_| converted.samples.len());
            let whole =
                encode_parts(format, 24_000, n_converted, std::iter::once(converted.samples.as_slice()));
            assert_eq!(bytes, whole, "{format}, {n_samples:?}");
        }
    }
    assert!(matches!(
        Encoder::converting(AudioFormat::Wav, 16_000, 0, None),
        Err(Error::BadSampleRate { .. })
    ));
}

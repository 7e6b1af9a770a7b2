//! Every container and codec, against the signal that the fixtures were made from.

use audio::{
    ChannelChoice, DecodeAudio, Decoded, Error, Warning, Waveform, decode_bytes, decode_file, probe_file,
    resample,
};

use super::{fixture, max_difference, pcm_s16le, snr_db};

const N_SAMPLES: usize = 4_000;

/// The source: 0.25 s, 16 kHz, the 16-bit WAV's payload read without the decoder under test.
fn source() -> Vec<f32> {
    let bytes = std::fs::read(fixture("pcm_s16le.wav")).expect("fixture");
    pcm_s16le(&bytes[bytes.len() - 2 * N_SAMPLES..])
}

fn decode(name: &str) -> Decoded {
    decode_file(&fixture(name), &DecodeAudio::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The decoded signal at 16 kHz, cut or filled to the source's length, after a check of length and cleanness.
fn at_source_rate(name: &str, decoded: &Decoded, extra_secs: f64) -> Vec<f32> {
    assert!(decoded.warnings.is_empty(), "{name}: {:?}", decoded.warnings);
    let excess_secs = decoded.source.duration_secs - 0.25;
    assert!((0.0..=extra_secs).contains(&excess_secs), "{name}: {} s", decoded.source.duration_secs);
    let mut samples = resample(&decoded.waveform, 16_000).unwrap().samples;
    samples.resize(N_SAMPLES, 0.0);
    samples
}

/// The shift (samples at 16 kHz) at which `decoded` matches `source` best.
fn lag(source: &[f32], decoded: &[f32]) -> i64 {
    let correlation = |shift: i64| {
        let at = |index: usize| usize::try_from(index as i64 + shift).ok().and_then(|at| decoded.get(at));
        source.iter().enumerate().filter_map(|(index, s)| at(index).map(|d| s * d)).sum::<f32>()
    };
    (-2_000..2_000).max_by(|a, b| correlation(*a).total_cmp(&correlation(*b))).unwrap()
}

#[test]
fn lossless_formats_give_the_source_to_the_bit() {
    for (name, format, codec) in [
        ("pcm_s16le.wav", "wave", "pcm_s16le"),
        ("pcm_s24le.wav", "wave", "pcm_s24le"),
        ("pcm_s32le.wav", "wave", "pcm_s32le"),
        ("pcm_f32le.wav", "wave", "pcm_f32le"),
        ("pcm_f64le.wav", "wave", "pcm_f64le"),
        ("tone.aiff", "aiff", "pcm_s16be"),
        ("tone.caf", "caf", "pcm_s16le"),
        ("tone.flac", "flac", "flac"),
        ("flac.ogg", "ogg", "flac"),
        ("alac.m4a", "isomp4", "alac"),
    ] {
        let decoded = decode(name);
        assert_eq!((&*decoded.source.format, &*decoded.source.codec), (format, codec), "{name}");
        assert_eq!((decoded.source.channels, decoded.source.sample_rate), (1, 16_000), "{name}");
        assert_eq!(max_difference(&at_source_rate(name, &decoded, 0.0), &source()), 0.0, "{name}");
    }
}

#[test]
fn companded_and_narrow_pcm_is_close() {
    for (name, min_snr_db) in [
        ("pcm_u8.wav", 30.0),
        ("pcm_alaw.wav", 33.0),
        ("pcm_mulaw.wav", 33.0),
        ("adpcm_ima_wav.wav", 20.0),
        ("adpcm_ms.wav", 20.0),
    ] {
        // ADPCM pads its last block.
        let extra_secs = if name.starts_with("adpcm") { 0.15 } else { 0.0 };
        let snr = snr_db(&source(), &at_source_rate(name, &decode(name), extra_secs));
        println!("{name}: {snr:.1} dB");
        assert!(snr > min_snr_db, "{name}: {snr} dB");
    }
}

#[test]
fn lossy_formats_are_aligned_and_close() {
    // The bounds on length: formats that state their padding are exact; a bare MPEG or AAC stream keeps its encoder's
    // delay and the padding of its last frame.
    for (name, codec, extra_secs, min_lag, max_lag, min_snr_db) in [
        ("tone.mp3", "mp3", 0.0, 0, 0, 15.0),
        ("bare.mp3", "mp3", 0.12, 1105, 1105, 15.0),
        ("vorbis.ogg", "vorbis", 0.0, 0, 0, 15.0),
        ("vorbis.webm", "vorbis", 0.07, 0, 0, 15.0),
        ("tone.opus", "opus", 0.0, 0, 0, 12.0),
        ("opus.webm", "opus", 0.02, 0, 0, 12.0),
        ("opus.mp4", "opus", 0.02, 0, 0, 12.0),
        ("aac.m4a", "aac", 0.0, 0, 0, 15.0),
        ("tone.aac", "aac", 0.2, 1024, 1024, 15.0),
        ("video.mp4", "aac", 0.0, 0, 0, 15.0),
        ("video.mkv", "opus", 0.02, 0, 0, 12.0),
    ] {
        let decoded = decode(name);
        let samples = resample(&decoded.waveform, 16_000).unwrap().samples;
        let lag = lag(&source(), &samples);
        let from = usize::try_from(lag.max(0)).unwrap();
        let snr = snr_db(&source()[..N_SAMPLES - 100], &samples[from..]);
        println!("{name}: lag {lag}, {snr:.1} dB");
        assert_eq!(decoded.source.codec, codec, "{name}");
        assert!((min_lag..=max_lag).contains(&lag), "{name}: lag {lag}");
        assert!(snr > min_snr_db, "{name}: {snr} dB");
        at_source_rate(name, &decoded, extra_secs);
    }
}

#[test]
fn opus_decodes_as_libopus_does() {
    let reference = pcm_s16le(&std::fs::read(fixture("opus_reference.s16")).expect("fixture"));
    let samples = decode("tone.opus").waveform.samples;
    assert_eq!(samples.len(), reference.len());
    let difference = max_difference(&samples, &reference);
    println!("largest difference from libopus: {difference}");
    // The reference is a rounded float decode, ours a fixed-point one.
    assert!(snr_db(&reference, &samples) > 60.0, "{difference}");
}

#[test]
fn channels_are_mixed_or_picked() {
    let pick = |channel| {
        let options = DecodeAudio { channel, ..DecodeAudio::default() };
        decode_file(&fixture("stereo.wav"), &options)
    };
    let left = pick(ChannelChoice::Pick(0)).unwrap();
    assert_eq!(left.source.channels, 2);
    assert_eq!(left.waveform.samples, source());
    let right = pick(ChannelChoice::Pick(1)).unwrap().waveform.samples;
    let halved: Vec<f32> = source().iter().map(|sample| 0.5 * sample).collect();
    assert!(max_difference(&right, &halved) <= 1.0 / 32768.0);
    let mixed = pick(ChannelChoice::Mix).unwrap().waveform.samples;
    let mean: Vec<f32> = source().iter().zip(&right).map(|(l, r)| 0.5 * (l + r)).collect();
    assert!(max_difference(&mixed, &mean) <= 1e-6);
    assert!(matches!(pick(ChannelChoice::Pick(2)), Err(Error::NoSuchChannel { channel: 2, channels: 2 })));
}

#[test]
fn chained_streams_are_joined() {
    for (name, parts) in [("chained.opus", ["tone.opus", "stereo.opus"]), ("chained.ogg", ["vorbis.ogg"; 2])]
    {
        let whole = decode(name);
        let joined: Vec<f32> = parts.iter().flat_map(|part| decode(part).waveform.samples).collect();
        println!("{name}: {} against {} {:?}", whole.waveform.samples.len(), joined.len(), whole.warnings);
        assert_eq!(whole.waveform.samples, joined, "{name}");
        assert!(whole.warnings.is_empty(), "{name}: {:?}", whole.warnings);
    }
}

#[test]
fn a_cut_file_gives_what_is_left_and_says_so() {
    // FLAC carries padding before its audio, so it is cut later.
    let cuts = [("pcm_s16le.wav", 3), ("tone.flac", 4), ("tone.mp3", 3), ("chained.ogg", 3)];
    for (name, fifths) in cuts {
        let mut bytes = std::fs::read(fixture(name)).expect("fixture");
        bytes.truncate(bytes.len() * fifths / 5);
        let decoded = decode_bytes(bytes, None, &DecodeAudio::default());
        let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            (0.05..=0.25).contains(&decoded.source.duration_secs),
            "{name}: {}",
            decoded.source.duration_secs
        );
        let is_told = decoded.warnings.iter().any(|warning| matches!(warning, Warning::Truncated { .. }));
        assert!(is_told, "{name}: {:?}", decoded.warnings);
    }
    // The demuxer gives up on these: the segment is larger than the file, the index was at its
    // end, or its chunks do not add up.
    for name in ["opus.webm", "aac.m4a", "tone.caf", "tone.aiff"] {
        let mut bytes = std::fs::read(fixture(name)).expect("fixture");
        bytes.truncate(bytes.len() * 3 / 5);
        let refused = decode_bytes(bytes, None, &DecodeAudio::default());
        assert!(matches!(refused, Err(Error::Undecodable { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn he_aac_is_announced() {
    let decode = |bytes: Vec<u8>| decode_bytes(bytes, Some("m4a"), &DecodeAudio::default()).unwrap();
    let bytes = std::fs::read(fixture("aac.m4a")).expect("fixture");
    // The decoder configuration: AAC-LC, then the sync word of spectral band replication and a flag: absent.
    let config = bytes.windows(5).position(|window| window == [0x14, 0x08, 0x56, 0xe5, 0x00]).unwrap();
    assert_eq!(decode(bytes.clone()).warnings, []);
    let mut present = bytes;
    present[config + 4] |= 0x80;
    assert!(decode(present).warnings.contains(&Warning::HeAacCoreOnly));
}

#[test]
fn nothing_is_an_error_and_no_samples_are_empty() {
    assert!(matches!(decode_bytes(Vec::new(), None, &DecodeAudio::default()), Err(Error::Empty)));
    let silent = Waveform { samples: Vec::new(), sample_rate: 16_000 };
    let bytes = audio::encode::wav_bytes(&silent).unwrap();
    let refused = decode_bytes(bytes, None, &DecodeAudio::default());
    assert!(matches!(refused, Err(Error::Empty)), "{refused:?}");
}

/// Opening a named pipe waits for someone who writes to it, and nobody does.
#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let pipe =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipe-{}.wav", std::process::id()));
    if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        println!("skipped: no mkfifo");
        return;
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = pipe.clone();
    // Not joined: where the pipe is opened, it never ends.
    std::thread::spawn(move || {
        let _ = sender.send(decode_file(&path, &DecodeAudio::default()));
    });
    let outcome = receiver.recv_timeout(std::time::Duration::from_secs(5));
    std::fs::remove_file(&pipe).expect("the pipe");
    let error = outcome.expect("decode_file waits for a writer").unwrap_err();
    assert!(matches!(&error, Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidInput), "{error:?}");
}

#[test]
fn a_recording_is_as_long_measured_as_decoded() {
    let mut n_files = 0;
    for entry in std::fs::read_dir(fixture("")).expect("fixtures") {
        let path = entry.expect("an entry").path();
        let Ok(decoded) = decode_file(&path, &DecodeAudio::default()) else { continue };
        let probed = probe_file(&path, &DecodeAudio::default()).expect("what decodes can be measured");
        assert_eq!(probed, decoded.source, "{}", path.display());
        n_files += 1;
    }
    assert!(n_files > 20, "{n_files} files");
}

#[test]
fn a_cut_off_recording_is_measured_by_what_is_left() {
    let folder = std::env::temp_dir().join(format!("speechd-cut-off-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["pcm_s16le.wav", "tone.flac", "tone.mp3", "vorbis.ogg", "tone.opus", "tone.aac", "tone.aiff"]
    {
        let mut bytes = std::fs::read(fixture(name)).expect("a fixture");
        bytes.truncate(bytes.len() * 6 / 10);
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("written");
        match (decode_file(&path, &DecodeAudio::default()), probe_file(&path, &DecodeAudio::default())) {
            (Ok(decoded), Ok(probed)) => {
                let difference_secs = probed.duration_secs - decoded.source.duration_secs;
                // A packet that is cut counts for the one, and not for the other.
                assert!(difference_secs.abs() <= 0.065, "{name}: {difference_secs} s");
            }
            (decoded, probed) => {
                assert!(decoded.is_err() && probed.is_err(), "{name}: {decoded:?}, {probed:?}");
            }
        }
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}

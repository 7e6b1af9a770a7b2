//! Real recordings, where they are at hand.

use std::path::{Path, PathBuf};

use audio::{
    DecodeAudio, Decoded, FeatureSpec, GriffinLim, GriffinLimConfig, LogMel, Vad, VadOptions, Waveform,
    decode_file, probe_file, resample,
};

use super::{max_difference, snr_db};

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("SPEECHD_DATA").map_or(beside, PathBuf::from);
    if data.join("speech").is_dir() {
        return Some(data);
    }
    println!("skipped: no recordings at {}", data.display());
    None
}

fn decode(path: &Path) -> Decoded {
    let decoded = decode_file(path, &DecodeAudio::default());
    decoded.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn at_16k(path: &Path) -> Waveform {
    resample(&decode(path).waveform, 16_000).unwrap()
}

#[test]
fn a_librispeech_clip_matches_another_decoder() {
    let Some(data) = data() else { return };
    let folder = data.join("speech/onnxruntime-extensions");
    let npy = std::fs::read(folder.join("1272-141231-0002.npy")).unwrap();
    let samples: Vec<f32> = npy[npy.len() - 4 * 213_360..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    // The FLAC is another encode of the clip, a few 16-bit steps away in libsndfile's reading too.
    for (name, tolerance) in [("1272-141231-0002.wav", 0.0), ("1272-141231-0002.flac", 9.1 / 32768.0)] {
        let decoded = decode(&folder.join(name));
        assert!(decoded.warnings.is_empty(), "{name}: {:?}", decoded.warnings);
        assert!(max_difference(&decoded.waveform.samples, &samples) <= tolerance, "{name}");
    }
    let mp3 = decode(&folder.join("1272-141231-0002.mp3"));
    println!("{:?} {:?}", mp3.source, mp3.warnings);
    assert_eq!(mp3.waveform.samples.len(), samples.len());
    let snr = snr_db(&samples, &mp3.waveform.samples);
    println!("mp3 against the original: {snr:.1} dB");
    assert!(snr > 10.0, "{snr} dB");
}

#[test]
fn the_published_whisper_row_is_reproduced() {
    let Some(data) = data() else { return };
    let json = std::fs::read_to_string(data.join("reference/transformers-whisper/expected.json")).unwrap();
    let row =
        json.split("\"mel80_row0_first30\"").nth(1).and_then(|rest| rest.split(['[', ']']).nth(1)).unwrap();
    let expected: Vec<f32> = row.split(',').map(|number| number.trim().parse().unwrap()).collect();
    let mut samples = decode(&data.join("speech/leopard/test.wav")).waveform.samples;
    samples.resize(480_000, 0.0);
    let features = LogMel::new(&FeatureSpec::whisper(80)).unwrap().compute(&samples);
    assert_eq!((expected.len(), features.n_frames), (30, 3_000));
    let difference = max_difference(&features.row(0)[..30], &expected);
    println!("largest difference from the published row: {difference:.1e}");
    assert!(difference < 5e-4);
}

#[test]
fn every_recording_decodes_without_complaint() {
    let Some(data) = data() else { return };
    let clips =
        std::fs::read_dir(data.join("speech/ps-synth/clips")).unwrap().filter_map(Result::ok).take(40);
    let mut paths: Vec<PathBuf> = clips.map(|entry| entry.path()).collect();
    for folder in [
        "leopard",
        "lhotse",
        "faster-whisper",
        "moonshine",
        "whisper",
        "speechbrain",
        "onnxruntime-extensions",
    ] {
        let entries = std::fs::read_dir(data.join("speech").join(folder)).unwrap().filter_map(Result::ok);
        paths.extend(entries.map(|entry| entry.path()));
    }
    paths.retain(|path| {
        path.extension().is_some_and(|kind| ["wav", "flac", "mp3"].iter().any(|known| kind == *known))
    });
    assert!(paths.len() > 20);
    for path in paths {
        let decoded = decode(&path);
        assert!(decoded.warnings.is_empty(), "{}: {:?}", path.display(), decoded.warnings);
        assert!(decoded.source.duration_secs > 0.3);
        let probed = probe_file(&path, &DecodeAudio::default()).unwrap();
        assert_eq!(probed, decoded.source, "{}", path.display());
    }
}

#[test]
fn speech_is_found_and_silence_is_not() {
    let Some(data) = data() else { return };
    let covered_secs = |path: &Path| {
        let waveform = at_16k(path);
        let spans = Vad::new().speech_spans(&waveform, &VadOptions::default(), &|| true).unwrap();
        let covered: f64 = spans.iter().map(audio::Span::duration_secs).sum();
        println!(
            "{}: {covered:.2} of {:.2} s, {} spans",
            path.display(),
            waveform.duration_secs(),
            spans.len()
        );
        (covered, waveform.duration_secs())
    };
    for noise in ["leopard/empty.wav", "speechbrain/noise2.wav"] {
        assert_eq!(covered_secs(&data.join("speech").join(noise)).0, 0.0, "{noise}");
    }
    for name in [
        "leopard/test.wav",
        "leopard/test_de.wav",
        "leopard/test_fr.wav",
        "leopard/test_es.wav",
        "whisper/jfk.flac",
    ] {
        let (covered, whole) = covered_secs(&data.join("speech").join(name));
        assert!(covered > 0.7 * whole, "{name}: {covered} of {whole} s");
    }
}

/// Frames within 25 dB of the loud ones are nearly all inside spans, for isolated words with pauses between.
#[test]
fn loud_frames_are_covered() {
    let Some(data) = data() else { return };
    let folder = data.join("speech/digit-strings");
    let names = std::fs::read_to_string(folder.join("refs.tsv")).unwrap();
    let (mut n_loud, mut n_missed, mut spans_secs, mut whole_secs) = (0, 0, 0.0, 0.0);
    for name in names.lines().skip(1).filter_map(|line| line.split('\t').next()) {
        let waveform = at_16k(&folder.join(name));
        let spans = Vad::new().speech_spans(&waveform, &VadOptions::default(), &|| true).unwrap();
        let energies = audio::window::energy_profile(&waveform, 256);
        let mut sorted = energies.clone();
        sorted.sort_by(f32::total_cmp);
        let threshold = sorted[sorted.len() * 95 / 100] * 0.003;
        for (index, _) in energies.iter().enumerate().filter(|(_, energy)| **energy > threshold) {
            let at = (index as f64 + 0.5) * audio::vad::FRAME_SECS;
            n_loud += 1;
            n_missed += usize::from(!spans.iter().any(|span| span.start_secs <= at && at <= span.end_secs));
        }
        spans_secs += spans.iter().map(audio::Span::duration_secs).sum::<f64>();
        whole_secs += waveform.duration_secs();
    }
    println!("missed {n_missed} of {n_loud} loud frames; spans cover {spans_secs:.0} of {whole_secs:.0} s");
    assert!(n_missed * 50 < n_loud, "missed {n_missed} of {n_loud} loud frames");
}

/// Speech to features, to speech, to features: as close as the prototype by which the settings were chosen came.
#[test]
fn speech_survives_without_its_phases() {
    let Some(data) = data() else { return };
    let path = data.join("speech/ljspeech-32/LJ001-0002.flac");
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return;
    }
    for (sample_rate, n_mels) in [(24_000, 100), (16_000, 80)] {
        let spec = FeatureSpec::vocoder(sample_rate, n_mels);
        let log_mel = LogMel::new(&spec).unwrap();
        let waveform = resample(&decode(&path).waveform, sample_rate).unwrap();
        let original = log_mel.compute(&waveform.samples);
        let griffin_lim = GriffinLim::new(&spec, GriffinLimConfig::default()).unwrap();
        let start = std::time::Instant::now();
        let restored = griffin_lim.waveform(&original).unwrap();
        let secs = start.elapsed().as_secs_f64();
        let restored = log_mel.compute(&restored.samples);
        assert_eq!(restored.data.len(), original.data.len());
        let pairs = || restored.data.iter().zip(&original.data).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let nats = pairs().map(|(a, b)| (a - b).abs()).sum::<f64>() / original.data.len() as f64;
        let distance: f64 = pairs().map(|(a, b)| (a.exp() - b.exp()).powi(2)).sum();
        let convergence = (distance / pairs().map(|(_, b)| b.exp().powi(2)).sum::<f64>()).sqrt();
        println!(
            "{sample_rate} Hz, {n_mels} bins: log-mel {nats:.3} nats apart, mel {convergence:.3} apart, \
             {secs:.2} s for {:.2} s",
            waveform.duration_secs()
        );
        assert!(nats < 0.2 && convergence < 0.12, "{nats} {convergence}");
    }
}

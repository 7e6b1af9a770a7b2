use std::borrow::Cow;
use std::collections::BTreeMap;

use audio::features::{Stft, WindowKind};
use audio::{LogKind, LogMel};

use super::*;
use crate::bundle::MemoryBundle;
use crate::nn::backward;
use crate::nn::test_support::{assert_close, noise};
use crate::weights::{WeightDtype, write_weights};

fn config() -> VocosConfig {
    let vocoder = FeatureSpec::vocoder(16_000, 12);
    let feature_spec = FeatureSpec {
        n_fft: 128,
        window_samples: 128,
        hop_samples: 32,
        log: LogKind::Ln { floor: 1e-3 },
        ..vocoder
    };
    VocosConfig { feature_spec, hidden_size: 24, intermediate_size: 40, num_layers: 3, kernel_size: 5 }
}

fn features(n_frames: usize) -> Features {
    let samples: Vec<f32> = (0..(n_frames - 1) * 32).map(|t| (t as f32 * 0.31).sin() * 0.3).collect();
    LogMel::new(&config().feature_spec).unwrap().compute(&samples)
}

/// As it is served: from files.
fn served() -> Arc<Vocos> {
    let params = Params::seeded(3, &Device::Cpu);
    Vocos::load(&params.root(), &config()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    config().write(folder.path()).unwrap();
    let tensors = params.vars().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
    write_weights(folder.path(), &tensors, WeightDtype::F32).unwrap();
    Arc::new(Vocos::open(&folder.path().into(), &Device::Cpu).unwrap())
}

#[test]
fn every_parameter_has_a_name_of_vocos_and_a_gradient() {
    let params = Params::seeded(1, &Device::Cpu);
    let model = Vocos::load(&params.root().sub("vocoder"), &config()).unwrap();
    let samples = model.forward(&noise((2, 9, 12), 1).unwrap()).unwrap();
    assert_eq!(samples.dims(), [2, 8 * 32]);
    let loss = (&samples * noise(samples.shape(), 2).unwrap()).unwrap().sum_all().unwrap();
    let gradients = backward(&loss).unwrap();
    let vars = params.vars();
    assert_eq!(vars.len(), 2 + 2 + 3 * 9 + 2 + 2);
    for (name, var) in &vars {
        let gradient = gradients.get(var).map(|gradient| gradient.abs().unwrap().max_all().unwrap());
        let largest = gradient.map(|gradient| gradient.to_scalar::<f32>().unwrap());
        assert!(largest.is_some_and(|largest| largest > 0.0), "{name}: {largest:?}");
    }
    for name in ["backbone.embed.weight", "backbone.convnext.2.pwconv1.bias", "head.out.weight"] {
        assert!(vars.iter().any(|(known, _)| *known == format!("vocoder.{name}")), "{name}");
    }
    let (_, gamma) = vars.iter().find(|(name, _)| name == "vocoder.backbone.convnext.0.gamma").unwrap();
    assert_eq!(gamma.to_vec1::<f32>().unwrap(), [1.0 / 3.0; 24]);
}

#[test]
fn the_head_says_a_signal_whose_spectra_it_is_given() {
    let spec = config().feature_spec;
    let samples: Vec<f32> = (0..20 * 32).map(|t| (t as f32 * 0.31).sin() * 0.3).collect();
    let spectrogram = Stft::new(&spec).unwrap().spectrogram(&samples);
    let polar = spectrogram.bins.chunks_exact(spectrogram.n_bins).flat_map(|frame| {
        // A bin without anything has no logarithm.
        let logarithms = frame.iter().map(|bin| bin.norm().max(1e-30).ln() as f32);
        logarithms.chain(frame.iter().map(|bin| bin.arg() as f32)).collect::<Vec<_>>()
    });
    let shape = (1, spectrogram.n_frames, 2 * spectrogram.n_bins);
    let polar = Tensor::from_vec(polar.collect(), shape, &Device::Cpu).unwrap();
    let model = Vocos::load(&Params::seeded(1, &Device::Cpu).root(), &config()).unwrap();
    let restored = model.synthesize(&polar).unwrap();
    let samples = Tensor::from_vec(samples, (1, 20 * 32), &Device::Cpu).unwrap();
    assert_close(&restored, &samples, 1e-5).unwrap();
}

#[test]
fn what_is_spoken_in_parts_is_what_is_spoken_at_once() {
    let (model, features) = (served(), features(41));
    let whole = model.waveform(&features).unwrap();
    assert_eq!((whole.samples.len(), whole.sample_rate), (40 * 32, 16_000));
    let bits = |samples: &[f32]| samples.iter().map(|sample| sample.to_bits()).collect::<Vec<_>>();
    for size in [1, 2, 7, 16, 40] {
        let mut stream = model.stream().unwrap();
        let mut samples = Vec::new();
        for first in (0..41).step_by(size) {
            let part = features.slice(first, size.min(41 - first), 0.0);
            samples.extend(stream.push(&part).unwrap());
            // What a frame completes does not wait: two frames reach into what comes next.
            assert_eq!(samples.len(), (first + part.n_frames).saturating_sub(2) * 32);
        }
        samples.extend(stream.finish());
        assert_eq!(bits(&samples), bits(&whole.samples), "{size} at a time");
    }
    // Training computes the same, by transforms in single precision.
    let frames = Tensor::from_vec(features.data.clone(), (1, 12, 41), &Device::Cpu).unwrap();
    let trained = model.forward(&frames.transpose(1, 2).unwrap()).unwrap();
    let served = Tensor::from_vec(whole.samples, (1, 40 * 32), &Device::Cpu).unwrap();
    assert_close(&trained, &served, 1e-4).unwrap();
}

#[test]
fn nothing_depends_on_what_comes_later() {
    let model = served();
    let (one, mut other) = (features(30), features(30));
    for f in 0..12 {
        other.data[f * 30 + 20..(f + 1) * 30].fill(1.0);
    }
    let [one, other] = [one, other].map(|features| model.waveform(&features).unwrap().samples);
    // A frame reaches half a transform back.
    let same = (20 - 2) * 32;
    assert_eq!(one[..same], other[..same]);
    assert_ne!(one[same..], other[same..]);
}

#[test]
fn little_and_unusable_features_are_told() {
    let model = served();
    for n_frames in [0, 1] {
        let features = Features { data: vec![0.0; 12 * n_frames], n_mels: 12, n_frames };
        assert!(model.waveform(&features).unwrap().samples.is_empty());
    }
    let refused = |features: Features| model.waveform(&features).err().map(|error| error.to_string());
    let error = refused(Features { data: vec![0.0; 26], n_mels: 13, n_frames: 2 });
    assert!(error.is_some_and(|error| error.contains("12 bins expected")));
    let error = refused(Features { data: vec![f32::NAN; 24], n_mels: 12, n_frames: 2 });
    assert!(error.is_some_and(|error| error.contains("not finite")));
}

#[test]
fn configurations_are_kept_whole_and_mistakes_name_their_key() {
    let folder = tempfile::tempdir().unwrap();
    config().write(folder.path()).unwrap();
    let source = BundleSource::from(folder.path());
    assert_eq!(VocosConfig::read(&source).unwrap(), config());
    let text = String::from_utf8(source.read("config.json").unwrap().into_owned()).unwrap();
    let read = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        let files = BTreeMap::from([("config.json".into(), Cow::Owned(value.to_string().into_bytes()))]);
        let bundle = MemoryBundle { name: "forged".into(), files };
        VocosConfig::read(&BundleSource::Memory(Arc::new(bundle))).map_err(|error| error.to_string())
    };
    assert!(read(&|_| ()).is_ok());
    let forged: [(&str, serde_json::Value); 7] = [
        ("model_type", "whisper".into()),
        ("hidden_size", 0.into()),
        ("hidden_size", (1u64 << 40).into()),
        ("intermediate_size", 0.into()),
        ("num_layers", 100_000.into()),
        ("kernel_size", 1.into()),
        ("kernel_size", "seven".into()),
    ];
    for (key, value) in forged {
        let error = read(&|config| config[key] = value.clone()).unwrap_err();
        assert!(error.contains("forged") && error.contains(key), "{key}: {error}");
    }
    let forged: [(&str, serde_json::Value); 6] = [
        ("n_fft", 127.into()),
        ("hop_samples", 0.into()),
        ("hop_samples", 128.into()),
        ("padding", "none".into()),
        ("preemphasis", 0.97.into()),
        ("n_mels", 0.into()),
    ];
    for (key, value) in forged {
        let error = read(&|config| config["feature_spec"][key] = value.clone()).unwrap_err();
        assert!(error.contains(&format!("`feature_spec.{key}`")), "{key}: {error}");
    }
    let symmetric = FeatureSpec { window: WindowKind::HannSymmetric, ..config().feature_spec };
    assert!(VocosConfig { feature_spec: symmetric, ..config() }.check("here".as_ref()).is_ok());
}

//! Sample-rate conversion against soxr, and its own promises.

use audio::{Error, Waveform, resample};

use super::{read_f32, snr_db};

/// The chirp of `tests/oracle/chirp.py`.
fn chirp(sample_rate: u32, end_hz: f64) -> Waveform {
    let rate = f64::from(sample_rate);
    let n = (0.125 * rate) as usize;
    let samples = (0..n)
        .map(|index| {
            let t = index as f64 / rate;
            let fade = (index as f64).min((n - 1 - index) as f64) / (0.01 * rate);
            let phase = std::f64::consts::TAU * (100.0 * t + (end_hz - 100.0) / 0.25 * t * t);
            (0.5 * (fade.min(1.0) * std::f64::consts::FRAC_PI_2).sin().powi(2) * phase.sin()) as f32
        })
        .collect();
    Waveform { samples, sample_rate }
}

#[test]
fn a_chirp_matches_soxr() {
    for (rate_in, rate_out, end_hz) in
        [(44_100, 16_000, 7_000.0), (48_000, 16_000, 7_000.0), (8_000, 16_000, 3_400.0)]
    {
        let converted = resample(&chirp(rate_in, end_hz), rate_out).unwrap();
        let reference = read_f32(&format!("chirp_{rate_in}_{rate_out}.f32"));
        assert_eq!(converted.samples.len(), reference.len());
        let snr = snr_db(&reference, &converted.samples);
        println!("{rate_in} to {rate_out}: {snr:.1} dB against soxr VHQ");
        assert!(snr > 75.0, "{rate_in} to {rate_out}: {snr} dB");
    }
}

#[test]
fn the_length_is_the_rounded_ratio() {
    for rate_in in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 44_101, 48_000, 96_000] {
        for rate_out in [8_000, 16_000, 24_000, 32_000] {
            for n in [0_usize, 1, 2, 159, 1_000, 5_003] {
                let waveform = Waveform { samples: vec![0.1; n], sample_rate: rate_in };
                let converted = resample(&waveform, rate_out).unwrap();
                let expected = (n as f64 * f64::from(rate_out) / f64::from(rate_in)).round() as usize;
                assert_eq!(converted.samples.len(), expected, "{n} at {rate_in} to {rate_out}");
                assert!(converted.samples.iter().all(|sample| sample.is_finite()));
            }
        }
    }
}

#[test]
fn an_impulse_stays_in_place() {
    for rate_in in [8_000, 22_050, 44_100, 48_000] {
        let mut samples = vec![0.0; rate_in as usize];
        samples[rate_in as usize / 2] = 1.0;
        let converted = resample(&Waveform { samples, sample_rate: rate_in }, 16_000).unwrap();
        let peak =
            (0..16_000).max_by(|a, b| converted.samples[*a].total_cmp(&converted.samples[*b])).unwrap();
        assert!(peak.abs_diff(8_000) <= 1, "{rate_in}: {peak}");
    }
}

#[test]
fn what_the_new_rate_cannot_hold_is_removed() {
    let tone = |hz: f64| {
        let sample = |t: i32| (std::f64::consts::TAU * hz * f64::from(t) / 48_000.0).sin() as f32;
        Waveform { samples: (0..48_000).map(sample).collect(), sample_rate: 48_000 }
    };
    let level = |hz: f64| {
        let samples = resample(&tone(hz), 16_000).unwrap().samples;
        let inner = &samples[1_000..15_000];
        10.0 * (inner.iter().map(|s| f64::from(s * s)).sum::<f64>() / inner.len() as f64 * 2.0).log10()
    };
    println!(
        "7.0 kHz {:.2} dB, 7.7 kHz {:.2} dB, 9 kHz {:.1} dB",
        level(7_000.0),
        level(7_700.0),
        level(9_000.0)
    );
    assert!(level(7_000.0).abs() < 0.05);
    assert!(level(8_600.0) < -80.0);
}

#[test]
fn impossible_rates_are_refused() {
    let waveform = Waveform { samples: vec![0.0; 10], sample_rate: 16_000 };
    assert!(matches!(resample(&waveform, 0), Err(Error::BadSampleRate { sample_rate: 0, .. })));
    assert!(matches!(resample(&waveform, u32::MAX), Err(Error::BadSampleRate { .. })));
    let waveform = Waveform { sample_rate: 0, ..waveform };
    assert!(matches!(resample(&waveform, 16_000), Err(Error::BadSampleRate { sample_rate: 0, .. })));
}

#[test]
fn amplitudes_that_cannot_be_converted_are_refused() {
    let constant = |sample: f32| Waveform { samples: vec![sample; 200_000], sample_rate: 65_521 };
    for sample in [f32::NAN, f32::INFINITY, f32::MIN, 1.1e24] {
        let mut waveform = constant(0.0);
        waveform.samples[1_000] = sample;
        assert!(matches!(resample(&waveform, 65_535), Err(Error::Undecodable { .. })), "{sample}");
        assert!(matches!(resample(&constant(sample), 16_000), Err(Error::Undecodable { .. })), "{sample}");
    }
    // The longest transforms there are, in which the most samples are summed.
    let loudest = resample(&constant(1e24), 65_535).unwrap();
    assert!(loudest.samples.iter().all(|sample| sample.is_finite()));
}

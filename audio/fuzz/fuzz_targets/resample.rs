//! Any two rates: the promised number of finite samples, or a typed error.
#![no_main]

use audio::{Waveform, resample};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, u32, Vec<i16>)| {
    let (rate_in, rate_out, values) = input;
    let samples: Vec<f32> = values.into_iter().map(|value| f32::from(value) / 32768.0).collect();
    let n_in = samples.len() as f64;
    // The ratio decides the size of the result; more than a second's worth of work finds nothing new.
    if n_in * f64::from(rate_out) / f64::from(rate_in.max(1)) > 1e6 {
        return;
    }
    if let Ok(converted) = resample(&Waveform { samples, sample_rate: rate_in }, rate_out) {
        let expected = (n_in * f64::from(rate_out) / f64::from(rate_in)).round();
        assert!((converted.samples.len() as f64 - expected).abs() <= 1.0);
        assert!(converted.samples.iter().all(|sample| sample.is_finite()));
    }
});

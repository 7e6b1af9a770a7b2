//! What batches waste, on a synthetic corpus and on a real one. `--nocapture` shows the tables; `SPEECHD_PLOTS=DIR` writes
//! them as SVG.

#![expect(clippy::print_stdout, reason = "tests print their figures and what they skip")]

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use recipes::data::{
    BucketEstimate, Comparison, Constraint, EpochPadding, Length, PlanOptions, Sampler, SamplerConfig,
    Strategy, compare,
};

/// Padded seconds of a batch.
const BUDGET_SECS: f64 = 120.0;

/// 10,000 cuts: durations log-normal with median 6 s and sigma 0.6, clipped to 0.3..40 s, to the millisecond; tokens at
/// N(12, 3) a second.
fn log_normal(seed: u64) -> Vec<Length> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let mut cut = || {
        let secs = (6.0 * (0.6 * normal()).exp()).clamp(0.3, 40.0);
        Length::new((secs * 1e3).round() / 1e3, (secs * (12.0 + 3.0 * normal())).round().max(1.0) as u32)
    };
    (0..10_000).map(|_| cut()).collect()
}

/// FLEURS Pashto: tokens are the bytes of the transcripts.
fn fleurs() -> Option<Vec<Length>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("SPEECHD_DATA").map_or(beside, PathBuf::from);
    let path = data.join("text/fleurs-ps/fleurs_pashto_pilot.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there (SPEECHD_DATA says where to look)", path.display());
        return None;
    };
    let length = |line: &str| {
        let cut: serde_json::Value = serde_json::from_str(line).unwrap();
        let n_tokens = cut["transcript"].as_str().unwrap().len() as u32;
        Length::new(cut["duration_sec"].as_f64().unwrap(), n_tokens)
    };
    Some(text.lines().map(length).collect())
}

fn compared(name: &str, lengths: &[Length], seed: u64) -> Comparison {
    let estimate = BucketEstimate::default();
    let options = PlanOptions { constraint: Constraint::max_duration(BUDGET_SECS), estimate, seed };
    let compared = compare(lengths, &options).unwrap();
    let secs: f64 = lengths.iter().map(|length| length.duration_secs).sum();
    println!(
        "{name}: {} cuts, {:.1} h, {BUDGET_SECS} padded s a batch\n{compared}",
        lengths.len(),
        secs / 3600.0
    );
    if let Some(folder) = std::env::var_os("SPEECHD_PLOTS") {
        let path = Path::new(&folder).join(format!("padding-{name}.svg"));
        std::fs::write(path, compared.to_svg().unwrap()).unwrap();
    }
    compared
}

/// What the defaults promise, and that each dimension saves padding.
fn check(name: &str, compared: &Comparison) {
    let row = |strategy| compared.row(strategy).unwrap();
    let padding = |strategy| (row(strategy).padding.audio_padding(), row(strategy).padding.token_padding());
    let [random, sorted, durations, tokens] =
        [Strategy::Random, Strategy::Sorted, Strategy::DurationBuckets, Strategy::TokenBuckets].map(padding);
    assert!(tokens.0 <= durations.0 && durations.0 <= random.0, "{name}: audio\n{compared}");
    assert!(tokens.1 <= durations.1 && durations.1 <= random.1, "{name}: tokens\n{compared}");
    assert!(sorted.0 <= durations.0, "{name}: sorted\n{compared}");
    assert!(tokens.0 <= 0.05 && tokens.1 <= 0.13, "{name}: promised\n{compared}");
    let two = row(Strategy::TokenBuckets);
    assert!(two.n_buckets <= 100 && two.padding.budget_fill() >= 0.75, "{name}: promised\n{compared}");
    assert!(two.n_rejected <= two.padding.n_items / 1000, "{name}: not by rejecting\n{compared}");
}

#[test]
fn two_dimensions_waste_least_on_a_log_normal_corpus() {
    for seed in 0..3 {
        let name = format!("log-normal-{seed}");
        check(&name, &compared(&name, &log_normal(seed), seed));
    }
}

#[test]
fn two_dimensions_waste_least_on_pashto() {
    let Some(lengths) = fleurs() else { return };
    check("fleurs-ps", &compared("fleurs-ps", &lengths, 0));
}

/// Many cuts: an epoch on eight ranks holds every cut, and its steps can be entered anywhere.
#[test]
fn a_large_corpus_is_sampled_whole() {
    let small = log_normal(1);
    let lengths: Vec<Length> = small.iter().copied().cycle().take(200_000).collect();
    let table = BucketEstimate::default().table(&lengths).unwrap();
    let config = SamplerConfig { world_size: 8, ..SamplerConfig::new(Constraint::max_duration(BUDGET_SECS)) };
    let began = std::time::Instant::now();
    let sampler = Sampler::new(lengths, table, config, 7).unwrap();
    let assigned = began.elapsed();
    let epoch = sampler.epoch(3).unwrap();
    println!(
        "200,000 cuts: assigned in {assigned:.1?}, epoch of {} steps in {:.1?}",
        epoch.n_steps(),
        began.elapsed() - assigned
    );
    let mut seen = vec![false; sampler.lengths().len()];
    for item in epoch.all_batches().filter(|batch| batch.copy == 0).flat_map(|batch| batch.items) {
        assert!(!std::mem::replace(&mut seen[item], true), "item {item} twice");
    }
    assert_eq!(seen.iter().filter(|seen| **seen).count(), sampler.n_accepted());
    let last = epoch.n_steps() - 1;
    let resumed: Vec<_> = epoch.batches(5).unwrap().skip_to(last).collect();
    assert_eq!(resumed, [epoch.step(last).unwrap()[5].clone()]);
    println!("{}", EpochPadding::new(3, &epoch, &sampler, |_| "ps").summary());
}

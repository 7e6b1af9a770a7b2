//! The rules equal lhotse's: `tests/oracle/sampler.py`.

use serde_json::Value;

use super::estimate::equal_shares;
use super::{BucketTable, Constraint, Length, Sampler, SamplerConfig};

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn integers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

fn lengths(durations: &[f64]) -> Vec<Length> {
    durations.iter().map(|&secs| Length::new(secs, 1)).collect()
}

#[test]
fn bounds_assignment_and_full_batches_are_those_of_lhotse() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sampler.json");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = expected["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let name = &case["name"];
        let durations = floats(&case["durations"]);
        let mut ascending = durations.clone();
        ascending.sort_unstable_by(f64::total_cmp);
        let descending: Vec<f64> = ascending.iter().rev().copied().collect();
        for row in case["bounds"].as_array().unwrap() {
            let n_buckets = row["n_buckets"].as_u64().unwrap() as usize;
            assert_eq!(equal_shares(&ascending, n_buckets), floats(&row["bounds"]), "{name} {n_buckets}");
        }
        let mut caps = floats(&case["caps"]);
        caps.dedup();
        let table = BucketTable::of_durations(&caps).unwrap();
        let probes = lengths(&floats(&case["probes"]));
        let assigned: Vec<usize> = probes.iter().map(|&probe| table.assign(probe).unwrap()).collect();
        assert_eq!(assigned, integers(&case["assigned"]), "{name}");
        for row in case["batches"].as_array().unwrap() {
            let constraint = Constraint::Duration {
                max_secs: row["budget"].as_f64().unwrap(),
                quadratic_secs: row["quadratic"].as_f64(),
                max_items: row["max_items"].as_u64().map(|n| n as usize),
            };
            let mut filling = constraint.filling(0);
            for (&length, flags) in lengths(&durations).iter().zip(row["flags"].as_array().unwrap()) {
                filling.add(length);
                let ours = serde_json::json!([filling.is_close(), filling.is_exceeded()]);
                assert_eq!(&ours, flags, "{name} {constraint:?}");
            }
            let config = SamplerConfig { shuffle: false, ..SamplerConfig::new(constraint) };
            let one_bucket = BucketTable::of_durations(&[descending[0]]).unwrap();
            let sampler = Sampler::new(lengths(&descending), one_bucket, config, 0).unwrap();
            let mut batches: Vec<Vec<usize>> =
                sampler.epoch(0).unwrap().all_batches().map(|batch| batch.items).collect();
            batches.sort_unstable();
            let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
            assert_eq!(sizes, integers(&row["sizes"]), "{name} {:?}", sampler.config());
        }
    }
}

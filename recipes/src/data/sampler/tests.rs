//! Known values of lhotse's tests, and what must hold for any lengths and configuration.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::data::{Batch, Bucket, BucketEstimate, CountedTokens, Fit};

fn seconds(durations: &[f64]) -> Vec<Length> {
    durations.iter().map(|&secs| Length::new(secs, 1)).collect()
}

fn sampler(durations: &[f64], bounds: &[f64], config: SamplerConfig) -> Sampler {
    Sampler::new(seconds(durations), BucketTable::of_durations(bounds).unwrap(), config, 0).unwrap()
}

/// (duration, items) of each batch, sorted: all items of a batch are equally long here.
fn shapes(sampler: &Sampler) -> Vec<(u32, usize)> {
    let epoch = sampler.epoch(0).unwrap();
    let shape = |batch: Batch| (sampler.lengths()[batch.items[0]].duration_secs as u32, batch.items.len());
    let mut shapes: Vec<_> = epoch.batches(0).unwrap().map(shape).collect();
    shapes.sort_unstable();
    shapes
}

fn items(epoch: &Epoch) -> Vec<usize> {
    let mut items: Vec<usize> =
        epoch.spans.iter().filter(|span| span.copy == 0).flat_map(|span| epoch.batch(*span).items).collect();
    items.sort_unstable();
    items
}

#[test]
fn the_quadratic_term_halves_the_batches_of_long_items() {
    let durations = [[5.0; 5], [30.0; 5]].concat();
    let constraint =
        |quadratic_secs| Constraint::Duration { max_secs: 61.0, quadratic_secs, max_items: None };
    let shapes =
        |quadratic| shapes(&sampler(&durations, &[10.0, 30.0], SamplerConfig::new(constraint(quadratic))));
    assert_eq!(shapes(Some(30.0)), [(5, 5), (30, 1), (30, 1), (30, 1), (30, 1), (30, 1)]);
    assert_eq!(shapes(None), [(5, 5), (30, 1), (30, 2), (30, 2)]);
}

#[test]
fn each_bucket_has_its_batch_size() {
    let durations = [[1.0; 5], [2.0; 5]].concat();
    let config = SamplerConfig::new(Constraint::BatchSizes { batch_sizes: vec![2, 1] });
    let sampler = sampler(&durations, &[1.5, 2.5], config);
    let epoch = sampler.epoch(0).unwrap();
    assert_eq!((epoch.n_steps(), items(&epoch)), (8, (0..10).collect()));
    assert_eq!(shapes(&sampler), [(1, 1), (1, 2), (1, 2), (2, 1), (2, 1), (2, 1), (2, 1), (2, 1)]);
}

#[test]
fn batches_that_are_not_full_are_dropped_on_request() {
    let durations = [[1.0; 5], [2.0; 5]].concat();
    let config = SamplerConfig::new(Constraint::max_duration(5.0));
    let kept = sampler(&durations, &[1.5, 2.0], config.clone());
    assert_eq!(shapes(&kept), [(1, 5), (2, 1), (2, 2), (2, 2)]);
    assert_eq!(kept.epoch(0).unwrap().n_dropped(), 0);
    let dropped = sampler(&durations, &[1.5, 2.0], SamplerConfig { drop_last: true, ..config });
    assert_eq!(shapes(&dropped), [(1, 5), (2, 2), (2, 2)]);
    assert_eq!((items(&dropped.epoch(0).unwrap()).len(), dropped.epoch(0).unwrap().n_dropped()), (9, 1));
}

#[test]
fn synchronised_ranks_see_the_same_shapes_and_no_item_twice() {
    let durations: Vec<f64> = (0..2_000).map(|n| if n % 10 == 0 { 10.0 } else { 1.0 }).collect();
    let config = |is_synchronised| SamplerConfig {
        world_size: 2,
        drop_last: true,
        is_synchronised,
        ..SamplerConfig::new(Constraint::max_duration(20.0))
    };
    let shapes = |is_synchronised| {
        let sampler = sampler(&durations, &[1.0, 10.0], config(is_synchronised));
        let epoch = sampler.epoch(0).unwrap();
        let ranks = [0, 1].map(|rank| epoch.batches(rank).unwrap().take(30).collect::<Vec<_>>());
        let ids =
            |rank: usize| ranks[rank].iter().flat_map(|batch| batch.items.clone()).collect::<BTreeSet<_>>();
        assert!(ids(0).is_disjoint(&ids(1)));
        let longest = |batch: &Batch| batch.items.iter().map(|&item| durations[item]).fold(0.0, f64::max);
        ranks.map(|batches| {
            assert_eq!(batches.len(), 30);
            batches.iter().map(|batch| (batch.items.len(), longest(batch))).collect::<Vec<_>>()
        })
    };
    let [one, two] = shapes(true);
    assert_eq!(one, two);
    assert!(one.iter().any(|shape| *shape != one[0]), "both buckets are seen");
    let [one, two] = shapes(false);
    assert_ne!(one, two);
}

/// The pitfall of lhotse's constant bucket seed: the same buckets in the same order in every epoch.
#[test]
fn epochs_and_seeds_differ_in_items_and_in_buckets() {
    let durations: Vec<f64> = (0..400).map(|n| f64::from(n % 20 + 1)).collect();
    let bounds: Vec<f64> = (1..=20).map(f64::from).collect();
    let config = SamplerConfig::new(Constraint::max_duration(60.0));
    let order = |seed, epoch| {
        let table = BucketTable::of_durations(&bounds).unwrap();
        let sampler = Sampler::new(seconds(&durations), table, config.clone(), seed).unwrap();
        let epoch = sampler.epoch(epoch).unwrap();
        let batches: Vec<Batch> = epoch.batches(0).unwrap().collect();
        let buckets: Vec<usize> = batches.iter().map(|batch| batch.bucket).collect();
        (batches, buckets)
    };
    let base = order(3, 0);
    assert_eq!(base, order(3, 0));
    for other in [order(3, 1), order(4, 0), order(0, 3)] {
        assert!(base.0 != other.0 && base.1 != other.1);
    }
    // Unshuffled items still come in another order of buckets, and each bucket in its own order.
    let config = SamplerConfig { shuffle: false, ..config };
    let plain = sampler(&durations, &bounds, config);
    let batches: Vec<Batch> = plain.epoch(0).unwrap().batches(0).unwrap().collect();
    assert!(batches.iter().all(|batch| batch.items.is_sorted()));
    assert!(!batches.is_sorted_by_key(|batch| batch.bucket));
}

#[test]
fn leftovers_are_spread_over_all_ranks() {
    let config = |world_size, max_secs| SamplerConfig {
        world_size,
        ..SamplerConfig::new(Constraint::max_duration(max_secs))
    };
    let step = |durations: &[f64], world_size, max_secs| {
        let sampler = sampler(durations, &[100.0], config(world_size, max_secs));
        let epoch = sampler.epoch(0).unwrap();
        assert_eq!(epoch.n_steps(), 1);
        epoch.step(0).unwrap()
    };
    let sizes = |batches: &[Batch]| batches.iter().map(|batch| batch.items.len()).collect::<Vec<_>>();
    // Two batches of 4 and 3 for three ranks.
    let batches = step(&[1.0; 7], 3, 4.0);
    assert_eq!(sizes(&batches), [2, 2, 3]);
    // Two items for five ranks: each is repeated.
    let batches = step(&[1.0; 2], 5, 4.0);
    assert_eq!(sizes(&batches), [1; 5]);
    assert_eq!(batches.iter().map(|batch| batch.copy).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
    assert_eq!(batches[0].items, batches[4].items);
    assert_eq!([0, 4].map(|rank| batches[rank].id("cut-7")), ["cut-7", "cut-7_dup2"]);
    // One long item and fifty short ones: evenly split, the long one would stretch sixteen others.
    let mut durations = vec![1.0; 50];
    durations.push(100.0);
    let batches = step(&durations, 3, 100.0);
    let longest = |batch: &Batch| batch.items.iter().map(|&item| durations[item]).fold(0.0, f64::max);
    for batch in &batches {
        assert!(batch.items.len() == 1 || batch.items.len() as f64 * longest(batch) <= 100.0, "{batch:?}");
    }
    assert_eq!(sizes(&batches).iter().sum::<usize>(), 51);
}

/// Batches that are left over may be of one bucket without being neighbours in it.
#[test]
fn unsynchronised_leftovers_hold_every_item_once() {
    let durations = [1.0; 20];
    let config = SamplerConfig {
        world_size: 3,
        is_synchronised: false,
        ..SamplerConfig::new(Constraint::max_duration(4.0))
    };
    let sampler = sampler(&durations, &[1.0], config);
    for number in 0..50 {
        let epoch = sampler.epoch(number).unwrap();
        assert_eq!((epoch.n_steps(), items(&epoch)), (2, (0..20).collect()), "epoch {number}");
    }
}

#[test]
fn resuming_costs_two_numbers() {
    let durations: Vec<f64> = (0..500).map(|n| f64::from(n % 17) + 0.5).collect();
    let config = SamplerConfig { world_size: 3, ..SamplerConfig::new(Constraint::max_duration(40.0)) };
    let sampler = || sampler(&durations, &[5.0, 9.0, 20.0], config.clone());
    let before = sampler();
    for rank in 0..3 {
        let epoch = before.epoch(5).unwrap();
        let all: Vec<Batch> = epoch.batches(rank).unwrap().collect();
        assert_eq!(all.len(), epoch.n_steps());
        for at in 0..=all.len() {
            let again = sampler().epoch(5).unwrap();
            let resumed = again.batches(rank).unwrap().skip_to(at);
            assert_eq!((resumed.batch_index(), resumed.len()), (at, all.len() - at));
            assert!(resumed.eq(all[at..].iter().cloned()), "step {at}");
        }
        assert_eq!(epoch.batches(rank).unwrap().skip_to(usize::MAX).next(), None);
    }
    let error = before.epoch(5).unwrap().batches(3).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Rank { rank: 3, world_size: 3 }), "{error}");
}

#[test]
fn the_digest_tells_whether_the_same_batches_come_again() {
    let base = SamplerConfig::new(Constraint::max_duration(20.0));
    let digest = |durations: &[f64], bound, config: &SamplerConfig, seed| {
        let table = BucketTable::of_durations(&[bound]).unwrap();
        Sampler::new(seconds(durations), table, config.clone(), seed).unwrap().digest()
    };
    let expected = digest(&[1.0, 2.0], 5.0, &base, 0);
    assert_eq!(expected, "a7b893d9614e5622f40ac5002d4015f544646733a501e924bcba6581a6003c32");
    let limits = LengthLimits { min_duration_secs: 0.5, ..base.limits };
    let tokens = Constraint::Tokens {
        max_tokens: 20,
        counted: CountedTokens::Output,
        quadratic_tokens: None,
        max_items: None,
    };
    for other in [
        digest(&[1.0, 2.5], 5.0, &base, 0),
        digest(&[1.0, 2.0], 6.0, &base, 0),
        digest(&[1.0, 2.0], 5.0, &base, 1),
        digest(&[1.0, 2.0], 5.0, &SamplerConfig { world_size: 2, ..base.clone() }, 0),
        digest(&[1.0, 2.0], 5.0, &SamplerConfig { shuffle: false, ..base.clone() }, 0),
        digest(&[1.0, 2.0], 5.0, &SamplerConfig { is_synchronised: false, ..base.clone() }, 0),
        digest(&[1.0, 2.0], 5.0, &SamplerConfig { limits, ..base.clone() }, 0),
        digest(&[1.0, 2.0], 5.0, &SamplerConfig::new(Constraint::max_duration(21.0)), 0),
        digest(&[1.0, 2.0], 5.0, &SamplerConfig::new(tokens), 0),
    ] {
        assert_ne!(other, expected);
    }
}

/// Durations that augmentation changes are given anew for each epoch.
#[test]
fn perturbed_lengths_are_those_of_an_epoch() {
    let table = BucketTable::of_durations(&[5.0, 10.0]).unwrap();
    let config = SamplerConfig::new(Constraint::max_duration(20.0));
    let perturbed = |epoch: u64| -> Vec<Length> {
        let speed = |item: u64| [0.9, 1.0, 1.1][((item + epoch) % 3) as usize];
        (0..60).map(|item| Length::new(4.6 / speed(item), 1)).collect()
    };
    let batches = |epoch| {
        let sampler = Sampler::new(perturbed(epoch), table.clone(), config.clone(), 9).unwrap();
        let epoch = sampler.epoch(epoch).unwrap();
        epoch.batches(0).unwrap().collect::<Vec<_>>()
    };
    assert_eq!(batches(1), batches(1));
    let slow = |epoch: u64| {
        let items =
            batches(epoch).into_iter().filter(|batch| batch.bucket == 1).flat_map(|batch| batch.items);
        items.collect::<BTreeSet<_>>()
    };
    // Slowed down by a tenth they last 5.1 s and belong to the second bucket: other items in each epoch.
    assert_eq!(slow(0), (0..60).filter(|item| item % 3 == 0).collect());
    assert_eq!(slow(1), (0..60).filter(|item| item % 3 == 2).collect());
}

#[test]
fn what_no_batch_takes_is_told() {
    let lengths =
        vec![Length::new(1.0, 5), Length::new(f64::NAN, 5), Length::new(9.0, 5), Length::new(2.0, 50)];
    let bucket =
        |secs, tokens| Bucket { max_duration_secs: secs, max_tokens: Some(tokens), max_tokens_per_sec: None };
    let table = BucketTable::new(vec![bucket(5.0, 10)], Fit::Strict).unwrap();
    let config = SamplerConfig::new(Constraint::max_duration(10.0));
    let sampler = Sampler::new(lengths.clone(), table.clone(), config.clone(), 0).unwrap();
    let reasons =
        [Rejection::InvalidDuration, Rejection::LongerThanBuckets, Rejection::MoreTokensThanBuckets];
    assert_eq!(sampler.rejected(), [(1, reasons[0]), (2, reasons[1]), (3, reasons[2])]);
    let admission = sampler.admission(|item| if item < 3 { "ps" } else { "fa" });
    assert_eq!((admission.by_language["ps"].n_accepted, admission.by_language["ps"].n_rejected()), (1, 2));
    assert_eq!(admission.by_language["fa"].n_rejected[&reasons[2]], 1);

    let new =
        |lengths: &[Length], config| Sampler::new(lengths.to_vec(), table.clone(), config, 0).map(|_| ());
    assert!(matches!(new(&lengths[1..], config.clone()), Err(Error::NothingAccepted { n_items: 3 })));
    assert!(matches!(new(&[], config.clone()), Err(Error::NothingAccepted { n_items: 0 })));
    assert!(new(&lengths, SamplerConfig { world_size: 0, ..config.clone() }).is_err());
    assert!(new(&lengths, SamplerConfig::new(Constraint::max_duration(-1.0))).is_err());
    let dropping = SamplerConfig { drop_last: true, ..config };
    let none = Sampler::new(lengths, table, dropping, 0).unwrap().epoch(0).unwrap_err();
    assert!(matches!(none, Error::EmptyEpoch { n_accepted: 1, n_batches: 0, world_size: 1 }), "{none}");
}

fn constraints() -> impl Strategy<Value = Constraint> {
    let optional = |range| prop::option::of(range);
    prop_oneof![
        (5.0..100f64, optional(10.0..50f64), prop::option::of(1usize..20)).prop_map(
            |(max_secs, quadratic_secs, max_items)| Constraint::Duration {
                max_secs,
                quadratic_secs,
                max_items
            }
        ),
        (
            50u64..600,
            prop_oneof![Just(CountedTokens::Output), Just(CountedTokens::Total { token_secs: 0.2 })]
        )
            .prop_map(|(max_tokens, counted)| Constraint::Tokens {
                max_tokens,
                counted,
                quadratic_tokens: None,
                max_items: None
            }),
        (1usize..9).prop_map(|size| Constraint::BatchSizes { batch_sizes: vec![size; 6] }),
    ]
}

proptest! {
    #[test]
    fn epochs_keep_their_promises(
        items in prop::collection::vec((0.2..35f64, 0u32..200), 20..150),
        constraint in constraints(),
        world_size in 1usize..6,
        (is_synchronised, shuffle, drop_last) in (any::<bool>(), any::<bool>(), any::<bool>()),
        (seed, number) in (any::<u64>(), any::<u64>()),
    ) {
        let lengths: Vec<Length> = items.iter().map(|&(secs, tokens)| Length::new(secs, tokens)).collect();
        let limits = LengthLimits { max_tokens_per_sec: Some(50.0), ..LengthLimits::default() };
        let estimate =
            BucketEstimate { n_duration_buckets: 3, n_token_buckets: Some(2), ..BucketEstimate::default() };
        let mut table = estimate.table(&lengths).unwrap();
        if matches!(constraint, Constraint::BatchSizes { .. }) && table.buckets().len() != 6 {
            table = BucketTable::uniform(0.0, 35.0, 6).unwrap();
        }
        let config = SamplerConfig {
            limits, world_size, is_synchronised, shuffle, drop_last, ..SamplerConfig::new(constraint.clone())
        };
        let Ok(sampler) = Sampler::new(lengths.clone(), table.clone(), config, seed) else {
            return Ok(());
        };
        let epoch = match sampler.epoch(number) {
            Ok(epoch) => epoch,
            Err(error) => {
                prop_assert!(drop_last, "{error}");
                return Ok(());
            }
        };
        let rejected: BTreeSet<usize> = sampler.rejected().iter().map(|(item, _)| *item).collect();
        let accepted: Vec<usize> = (0..lengths.len()).filter(|item| !rejected.contains(item)).collect();
        let seen = self::items(&epoch);
        if drop_last {
            prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "no item twice");
            prop_assert!(seen.iter().all(|item| !rejected.contains(item)));
            prop_assert_eq!(seen.len() + epoch.n_dropped(), accepted.len());
        } else {
            prop_assert_eq!(seen, accepted);
        }
        for rank in 0..world_size {
            prop_assert_eq!(epoch.batches(rank).unwrap().count(), epoch.n_steps());
        }
        for step in 0..epoch.n_steps() {
            let batches = epoch.step(step).unwrap();
            prop_assert_eq!(batches.len(), world_size);
            prop_assert!(!is_synchronised || batches.iter().all(|batch| batch.bucket == batches[0].bucket));
            for (rank, batch) in batches.iter().enumerate() {
                prop_assert_eq!(Some(batch.clone()), epoch.batches(rank).unwrap().skip_to(step).next());
                let mut filling = constraint.filling(batch.bucket);
                for &item in &batch.items {
                    prop_assert_eq!(table.assign(lengths[item]), Ok(batch.bucket));
                    filling.add(lengths[item]);
                }
                prop_assert!(!batch.items.is_empty());
                prop_assert!(batch.items.len() == 1 || !filling.is_exceeded(), "{batch:?}");
                prop_assert!(batch.copy == 0 || batch.items.len() == 1);
            }
        }
        let again = Sampler::new(lengths, table, sampler.config().clone(), seed).unwrap();
        prop_assert_eq!(again.epoch(number).unwrap(), epoch);
    }
}

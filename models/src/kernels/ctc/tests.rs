use super::*;
use crate::kernels::test_support::noise;

/// Losses and gradients of rows of equal weight.
fn passed(
    scores: &[f32],
    n_columns: usize,
    labels: &[Vec<u32>],
    n_frames: &[usize],
    blank: u32,
) -> (Vec<f64>, Vec<f32>) {
    let weights = vec![1.0; labels.len()];
    let labels = CtcLabels { labels, n_frames, weights: &weights, blank };
    let pass = ctc(scores, n_columns, labels);
    let mut gradients = vec![f32::NAN; scores.len()];
    ctc_backward(scores, n_columns, labels, &pass, 1.0, &mut gradients);
    (pass.losses, gradients)
}

/// One row without padding.
fn alone(scores: &[f32], n_columns: usize, labels: &[u32], blank: u32) -> (f64, Vec<f32>) {
    let n_frames = scores.len() / n_columns;
    let (losses, gradients) = passed(scores, n_columns, &[labels.to_vec()], &[n_frames], blank);
    (losses[0], gradients)
}

/// The same from the definition: every path there is, spelled out. Loss and gradient.
fn enumerated(scores: &[f32], n_columns: usize, labels: &[u32], blank: u32) -> (f64, Vec<f64>) {
    let n_frames = scores.len() / n_columns;
    let probabilities: Vec<f64> = scores
        .chunks(n_columns)
        .flat_map(|frame| {
            let total: f64 = frame.iter().map(|score| f64::from(*score).exp()).sum();
            frame.iter().map(move |score| f64::from(*score).exp() / total)
        })
        .collect();
    let mut total = 0.0;
    let mut visited = vec![0.0; scores.len()];
    for path in 0..n_columns.pow(n_frames as u32) {
        let place = |t: usize| t * n_columns + path / n_columns.pow(t as u32) % n_columns;
        let mut spelled: Vec<u32> = (0..n_frames).map(|t| (place(t) % n_columns) as u32).collect();
        spelled.dedup();
        spelled.retain(|column| *column != blank);
        if spelled == labels {
            let probability: f64 = (0..n_frames).map(|t| probabilities[place(t)]).product();
            total += probability;
            (0..n_frames).for_each(|t| visited[place(t)] += probability);
        }
    }
    let gradient = |(probability, visited): (&f64, &f64)| probability - visited / total;
    (-total.ln(), probabilities.iter().zip(&visited).map(gradient).collect())
}

#[test]
fn equal_scores_count_paths() {
    for (n_frames, n_columns, labels, paths, all) in [
        (2, 2, &[1][..], 3.0, 4.0),
        (3, 3, &[1, 2], 5.0, 27.0),
        (3, 3, &[1, 1], 1.0, 27.0),
        (4, 3, &[1, 2], 15.0, 81.0),
        (4, 3, &[1, 1], 5.0, 81.0),
        (5, 3, &[1, 2, 1], 28.0, 243.0),
        (3, 3, &[], 1.0, 27.0),
    ] {
        let (loss, gradients) = alone(&vec![0.3; n_frames * n_columns], n_columns, labels, 0);
        let expected: f64 = -f64::ln(paths / all);
        assert!((loss - expected).abs() < 1e-6, "{n_frames} {n_columns} {labels:?}: {loss}, not {expected}");
        assert!(gradients.iter().all(|d| d.is_finite()));
    }
}

#[test]
fn uneven_scores_have_the_known_losses_and_gradients() {
    let waves = |n: usize| -> Vec<f32> { (1..=n).map(|i| (i as f64).sin() as f32).collect() };
    let (loss, gradients) = alone(&waves(12), 3, &[1, 2], 0);
    assert!((loss - 1.571_708_554_1).abs() < 1e-6, "{loss}");
    let expected = [
        [0.085_846, -0.279_259, 0.193_413],
        [0.020_119, -0.201_007, 0.180_888],
        [0.020_901, 0.192_374, -0.213_275],
        [0.037_158, 0.239_969, -0.277_128],
    ];
    for (ours, expected) in gradients.iter().zip(expected.as_flattened()) {
        assert!((ours - expected).abs() < 2e-6, "{gradients:?}");
    }
    let (loss, _) = alone(&waves(24), 4, &[2, 2, 3], 0);
    assert!((loss - 4.458_181_555_2).abs() < 1e-6, "{loss}");
}

#[test]
fn losses_and_gradients_are_those_of_all_paths_spelled_out() {
    for (seed, (n_frames, n_columns, blank, labels)) in [
        (1, 2, 1, &[0][..]),
        (4, 3, 0, &[2]),
        (5, 4, 3, &[0, 1, 2]),
        (6, 3, 1, &[0, 0, 2]),
        (6, 4, 2, &[1, 3, 1, 3]),
        (6, 3, 0, &[]),
        (5, 3, 2, &[1, 1, 1]),
    ]
    .into_iter()
    .enumerate()
    {
        let scores: Vec<f32> = noise(n_frames * n_columns, seed as u32).iter().map(|x| 4.0 * x).collect();
        let (loss, gradients) = alone(&scores, n_columns, labels, blank);
        let (expected, expected_gradients) = enumerated(&scores, n_columns, labels, blank);
        assert!((loss - expected).abs() < 1e-5 * expected.max(1.0), "{labels:?}: {loss}, not {expected}");
        for (ours, expected) in gradients.iter().zip(&expected_gradients) {
            assert!((f64::from(*ours) - expected).abs() < 2e-6, "{labels:?}: {ours}, not {expected}");
        }
        for frame in gradients.chunks(n_columns) {
            assert!(frame.iter().sum::<f32>().abs() < 1e-6, "{frame:?}");
        }
    }
}

#[test]
fn what_no_path_spells_costs_infinity_and_moves_nothing() {
    // Too few frames: for the labels, for the blank between two equal ones, and none at all.
    for (n_frames, labels) in [(2, vec![1, 2, 1]), (2, vec![1, 1]), (0, vec![1])] {
        let (losses, gradients) = passed(&noise(4 * 3, 1), 3, &[labels], &[n_frames], 0);
        assert_eq!(losses, [f64::INFINITY]);
        assert!(gradients.iter().all(|d| *d == 0.0));
    }
    // A label that the scores forbid.
    let mut scores = noise(4 * 3, 1);
    scores.iter_mut().skip(2).step_by(3).for_each(|score| *score = f32::NEG_INFINITY);
    let (loss, gradients) = alone(&scores, 3, &[1, 2], 0);
    assert!(loss == f64::INFINITY && gradients.iter().all(|d| *d == 0.0));
    let (loss, gradients) = alone(&scores, 3, &[1], 0);
    assert!(loss.is_finite() && gradients.iter().all(|d| d.is_finite()));
    // No frames and nothing to say: certain.
    assert_eq!(passed(&[], 3, &[vec![]], &[0], 0).0, [0.0]);
}

#[test]
fn a_row_of_a_padded_batch_is_the_row_alone() {
    let (n_columns, longest) = (5, 9);
    let labels = [vec![1, 2, 2], vec![], vec![4], vec![3, 3, 3, 3, 3]];
    let n_frames = [9, 4, 1, 7];
    let mut scores = noise(4 * longest * n_columns, 3);
    for (row, n) in scores.chunks_mut(longest * n_columns).zip(n_frames) {
        row[n * n_columns..].fill(f32::NAN);
    }
    let (losses, gradients) = passed(&scores, n_columns, &labels, &n_frames, 0);
    for (i, (labels, n)) in labels.iter().zip(n_frames).enumerate() {
        let size = longest * n_columns;
        let (loss, expected) = alone(&scores[i * size..][..n * n_columns], n_columns, labels, 0);
        assert_eq!(losses[i], loss);
        assert_eq!(gradients[i * size..][..n * n_columns], expected);
        assert!(gradients[i * size + n * n_columns..(i + 1) * size].iter().all(|d| *d == 0.0));
    }
}

#[test]
fn rows_count_what_they_weigh_and_nothing_when_that_is_nothing() {
    let (n_columns, n_frames) = (4, 6);
    let mut scores = noise(3 * n_frames * n_columns, 5);
    scores[2 * n_frames * n_columns..].fill(f32::NAN);
    let all = [vec![1, 2], vec![3], vec![9, 0]];
    let weights = [0.25, 2.0, 0.0];
    let labels = CtcLabels { labels: &all, n_frames: &[n_frames; 3], weights: &weights, blank: 0 };
    let pass = ctc(&scores, n_columns, labels);
    let mut gradients = vec![f32::NAN; scores.len()];
    ctc_backward(&scores, n_columns, labels, &pass, 3.0, &mut gradients);
    assert_eq!(pass.losses[2], 0.0);
    for (i, gradients) in gradients.chunks(n_frames * n_columns).enumerate() {
        let expected = if i == 2 {
            vec![0.0; n_frames * n_columns]
        } else {
            let (loss, gradients) =
                alone(&scores[i * n_frames * n_columns..][..n_frames * n_columns], 4, &all[i], 0);
            assert_eq!(pass.losses[i], loss);
            gradients
        };
        for (ours, expected) in gradients.iter().zip(expected) {
            assert!((ours - 3.0 * weights[i] * expected).abs() < 1e-6);
        }
    }
}

#[test]
fn long_rows_and_large_scores_stay_exact() {
    let (n_frames, n_columns) = (2000, 30);
    let scores = noise(n_frames * n_columns, 7);
    let labels: Vec<u32> = noise(300, 8).iter().map(|x| 1 + ((x + 1.0) * 14.49) as u32).collect();
    let (loss, gradients) = alone(&scores, n_columns, &labels, 0);
    // The same with probabilities, scaled to a sum of one in every frame (Rabiner, Proc. IEEE 77, 1989).
    let mut reached = vec![0f64; 2 * labels.len() + 1];
    let mut expected = 0.0;
    for (t, frame) in scores.chunks(n_columns).enumerate() {
        let total: f64 = frame.iter().map(|score| f64::from(*score).exp()).sum();
        let before = reached.clone();
        for (state, column) in states(&labels, 0).enumerate() {
            let mut sum = if t == 0 && state < 2 { 1.0 } else { before[state] };
            if state > 0 {
                sum += before[state - 1];
            }
            if state >= 3 && state % 2 == 1 && labels[state / 2] != labels[state / 2 - 1] {
                sum += before[state - 2];
            }
            reached[state] = sum * f64::from(frame[column as usize]).exp() / total;
        }
        let scale: f64 = reached.iter().sum();
        reached.iter_mut().for_each(|probability| *probability /= scale);
        expected -= scale.ln();
    }
    expected -= reached[reached.len() - 2..].iter().sum::<f64>().ln();
    assert!((loss - expected).abs() < 1e-4 * expected, "{loss}, not {expected}");
    assert!(gradients.chunks(n_columns).all(|frame| frame.iter().sum::<f32>().abs() < 1e-5));

    let large: Vec<f32> = scores.iter().map(|score| 1e4 * score.signum()).collect();
    let (loss, gradients) = alone(&large, n_columns, &labels, 0);
    assert!(loss.is_finite() && gradients.iter().all(|d| d.is_finite()));
}

#[test]
fn a_constant_added_to_a_frame_changes_nothing_and_nonsense_is_not_hidden() {
    let scores = noise(6 * 4, 2);
    let (loss, gradients) = alone(&scores, 4, &[1, 3], 0);
    let moved: Vec<f32> = scores.iter().enumerate().map(|(i, score)| score + (i / 4) as f32 * 0.5).collect();
    let (moved_loss, moved_gradients) = alone(&moved, 4, &[1, 3], 0);
    assert!((loss - moved_loss).abs() < 1e-5);
    assert!(gradients.iter().zip(&moved_gradients).all(|(a, b)| (a - b).abs() < 1e-5));
    let mut broken = scores;
    broken[9] = f32::NAN;
    assert!(alone(&broken, 4, &[1, 3], 0).0.is_nan());
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() -> Result<(), rayon::ThreadPoolBuildError>
{
    let scores = noise(100, 4);
    let mut first: Option<((f32, f32), Vec<f32>)> = None;
    for set in InstructionSet::available() {
        let mut d = vec![0.0; scores.len()];
        let moments = frame_moments(set, &scores);
        probabilities(set, &scores, moments.0, 0.3, &mut d);
        let result = (moments, d);
        assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "{set:?}");
    }
    let scores = noise(3 * 40 * 7, 6);
    let labels = [vec![1, 2, 3], vec![6, 6], vec![5]];
    let run = || passed(&scores, 7, &labels, &[40, 31, 9], 0);
    for n_threads in [1, 3] {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
        assert_eq!(threads.install(run), run());
    }
    Ok(())
}

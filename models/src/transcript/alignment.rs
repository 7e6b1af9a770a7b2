//! Aligns tokens to frames through cross-attention: normalise, smooth, average the heads, and find the cheapest
//! monotonic path (openai/whisper `timing.py: find_alignment`, `dtw_cpu`, `median_filter`).

/// Raw cross-attention scores of one head, row-major (U, T).
pub(crate) struct HeadScores<'a> {
    pub scores: &'a [f32],
    pub n_frames: usize,
}

/// Start position, in encoder positions, of each of `rows`' tokens and of the end. `n_audio` positions hold
/// audio; the rest is padding. `rows` are those whose alignment is wanted, the last one excluded from the path.
pub(crate) fn token_starts(
    heads: &[HeadScores<'_>],
    rows: std::ops::Range<usize>,
    n_audio: usize,
    median_width: usize,
) -> Vec<usize> {
    let n_tokens = rows.len();
    if heads.is_empty() || n_tokens == 0 || n_audio == 0 {
        return vec![0; n_tokens];
    }
    let mut weights = vec![0f64; n_tokens * n_audio]; // (U, T)
    for head in heads {
        add_head(head, rows.clone(), n_audio, median_width, &mut weights);
    }
    let costs: Vec<f32> = weights.iter().map(|weight| -(weight / heads.len() as f64) as f32).collect();
    let path = dtw(&costs, n_tokens, n_audio);
    let mut starts = vec![0; n_tokens];
    for window in path.windows(2) {
        let ((row, _), (next_row, next_frame)) = (window[0], window[1]);
        if next_row != row {
            starts[next_row] = next_frame;
        }
    }
    starts[0] = path.first().map_or(0, |(_, frame)| *frame);
    starts
}

/// Softmax over the audio's positions, z-score over tokens, median over positions; summed into `weights`.
fn add_head(
    head: &HeadScores<'_>,
    rows: std::ops::Range<usize>,
    n_audio: usize,
    median_width: usize,
    weights: &mut [f64],
) {
    let n_all = head.scores.len() / head.n_frames;
    let mut attention = vec![0f64; n_all * n_audio]; // (U, T), prompt included: it shapes mean and deviation
    for (row, scores) in attention.chunks_exact_mut(n_audio).zip(head.scores.chunks_exact(head.n_frames)) {
        let scores = &scores[..n_audio];
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (weight, score) in row.iter_mut().zip(scores) {
            *weight = f64::from(score - max).exp();
            sum += *weight;
        }
        row.iter_mut().for_each(|weight| *weight /= sum);
    }
    for t in 0..n_audio {
        let column = |u: usize| attention[u * n_audio + t];
        let mean = (0..n_all).map(column).sum::<f64>() / n_all as f64;
        let variance = (0..n_all).map(|u| (column(u) - mean).powi(2)).sum::<f64>() / n_all as f64;
        // A single token, or columns that underflowed, have no deviation and carry no information.
        let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
        for u in 0..n_all {
            attention[u * n_audio + t] = (attention[u * n_audio + t] - mean) * scale;
        }
    }
    for (row, sums) in rows.zip(weights.chunks_exact_mut(n_audio)) {
        let smooth = median_filter(&attention[row * n_audio..(row + 1) * n_audio], median_width);
        sums.iter_mut().zip(smooth).for_each(|(sum, value)| *sum += value);
    }
}

/// Running median of an odd `width`, with reflected edges. A row too short to reflect stays as it is.
pub(super) fn median_filter(row: &[f64], width: usize) -> Vec<f64> {
    let half = width / 2;
    if row.len() <= half {
        return row.to_vec();
    }
    let last = row.len() as isize - 1;
    let reflect = |i: isize| {
        let i = i.abs();
        row[(if i > last { 2 * last - i } else { i }) as usize]
    };
    let mut window = Vec::with_capacity(width);
    (0..row.len() as isize)
        .map(|i| {
            window.clear();
            window.extend((i - half as isize..=i + half as isize).map(reflect));
            window.sort_by(f64::total_cmp);
            window[half]
        })
        .collect()
}

/// Cheapest path through `costs` (U, T), which has `n_rows * n_frames` values, from corner to corner by steps right, down or both; on a
/// tie it goes on in time. Returns (row, frame) pairs.
pub fn dtw(costs: &[f32], n_rows: usize, n_frames: usize) -> Vec<(usize, usize)> {
    let width = n_frames + 1;
    let mut total = vec![f32::INFINITY; (n_rows + 1) * width];
    let mut steps = vec![Step::Frame; (n_rows + 1) * width];
    total[0] = 0.0;
    for j in 1..=n_frames {
        for i in 1..=n_rows {
            let both = total[(i - 1) * width + j - 1];
            let row = total[(i - 1) * width + j];
            let frame = total[i * width + j - 1];
            let (cheapest, step) = if both < row && both < frame {
                (both, Step::Both)
            } else if row < both && row < frame {
                (row, Step::Row)
            } else {
                (frame, Step::Frame)
            };
            total[i * width + j] = costs[(i - 1) * n_frames + j - 1] + cheapest;
            steps[i * width + j] = step;
        }
    }
    let (mut i, mut j) = (n_rows, n_frames);
    let mut path = Vec::with_capacity(n_rows + n_frames);
    while i > 0 || j > 0 {
        path.push((i.saturating_sub(1), j.saturating_sub(1)));
        // Along the edges there is one way only.
        match (i, j, steps[i * width + j]) {
            (0, ..) => j -= 1,
            (_, 0, _) => i -= 1,
            (.., Step::Both) => (i, j) = (i - 1, j - 1),
            (.., Step::Row) => i -= 1,
            (.., Step::Frame) => j -= 1,
        }
    }
    path.reverse();
    path
}

#[derive(Clone, Copy)]
enum Step {
    Both,
    Row,
    Frame,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> serde_json::Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/alignment.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn matrix(value: &serde_json::Value) -> Vec<Vec<f64>> {
        serde_json::from_value(value.clone()).unwrap()
    }

    /// Ties included: which of two equal paths is taken moves words.
    #[test]
    fn paths_are_the_references() {
        for case in fixture()["dtw"].as_array().unwrap() {
            let cost = matrix(&case["cost"]);
            let flat: Vec<f32> = cost.iter().flatten().map(|value| *value as f32).collect();
            let (rows, frames): (Vec<usize>, Vec<usize>) =
                dtw(&flat, cost.len(), cost[0].len()).into_iter().unzip();
            assert_eq!(serde_json::json!(rows), case["text_indices"], "{cost:?}");
            assert_eq!(serde_json::json!(frames), case["time_indices"], "{cost:?}");
        }
    }

    #[test]
    fn medians_are_the_references() {
        for case in fixture()["median_filter"].as_array().unwrap() {
            let width = case["width"].as_u64().unwrap() as usize;
            for (row, expected) in matrix(&case["input"]).iter().zip(matrix(&case["output"])) {
                assert_eq!(median_filter(row, width), expected, "width {width}");
            }
        }
    }

    #[test]
    fn a_planted_path_is_found() {
        let (n_rows, n_frames) = (4, 9);
        let planted = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6), (3, 7), (3, 8)];
        let noise = |i: usize| ((i * 7919) % 97) as f32 / 97.0;
        let mut costs: Vec<f32> = (0..n_rows * n_frames).map(noise).collect();
        for (row, frame) in planted {
            costs[row * n_frames + frame] -= 3.0;
        }
        assert_eq!(dtw(&costs, n_rows, n_frames), planted);
    }

    #[test]
    fn medians_agree_with_a_sorted_window() {
        let row = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 0.0];
        assert_eq!(median_filter(&row, 3), [1.0, 4.0, 2.0, 3.0, 3.0, 3.0, 9.0]);
        assert_eq!(median_filter(&row[..1], 7), [5.0]);
    }
}

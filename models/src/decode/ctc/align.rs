//! Forced alignment: when each of the ids that were said was said, by the best path that spells them (Viterbi over the states of
//! Graves et al., ICML 2006, section 4.1).

/// One id of a text and the frames in which it is heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlignedLabel {
    /// The id.
    pub id: u32,
    /// Its first frame.
    pub start: usize,
    /// The frame after its last.
    pub end: usize,
    /// Mean log-probability of the id in its frames.
    pub logprob: f32,
}

/// How the best path came to a state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Stay,
    Next,
    /// Over the blank between two different ids.
    Skip,
}

/// When the ids of a text were said, given log-probabilities (T, V) of the frames of one row. `None`: there are fewer frames than it
/// takes to spell them, an id is not among V, or they cannot have been said at all. Of equally good paths the one that stays
/// longest with what came first counts.
pub fn ctc_align(logprobs: &[f32], n_ids: usize, blank: u32, ids: &[u32]) -> Option<Vec<AlignedLabel>> {
    if ids.iter().chain([&blank]).any(|id| *id as usize >= n_ids) || ids.contains(&blank) {
        return None;
    }
    let n_frames = logprobs.len() / n_ids.max(1);
    if ids.is_empty() {
        return Some(Vec::new());
    }
    // A blank before each id and after the last.
    let n_states = 2 * ids.len() + 1;
    let id_of = |state: usize| if state.is_multiple_of(2) { blank } else { ids[state / 2] };
    let may_skip = |state: usize| state >= 3 && state % 2 == 1 && id_of(state) != id_of(state - 2);
    let mut best = vec![f32::NEG_INFINITY; n_states];
    let mut steps = vec![Step::Stay; n_frames * n_states];
    for (t, (frame, steps)) in logprobs.chunks_exact(n_ids).zip(steps.chunks_exact_mut(n_states)).enumerate()
    {
        if t == 0 {
            best[0] = frame[blank as usize];
            best[1] = frame[ids[0] as usize];
            continue;
        }
        // From the last on: what it is reached from is then still that of the frame before.
        for state in (0..n_states).rev() {
            let mut found = (best[state], Step::Stay);
            if state >= 1 && best[state - 1] > found.0 {
                found = (best[state - 1], Step::Next);
            }
            if may_skip(state) && best[state - 2] > found.0 {
                found = (best[state - 2], Step::Skip);
            }
            steps[state] = found.1;
            best[state] = found.0 + frame[id_of(state) as usize];
        }
    }
    let mut state = if best[n_states - 2] >= best[n_states - 1] { n_states - 2 } else { n_states - 1 };
    if best[state] == f32::NEG_INFINITY || n_frames == 0 {
        return None;
    }
    let mut labels: Vec<AlignedLabel> =
        ids.iter().map(|id| AlignedLabel { id: *id, start: n_frames, end: 0, logprob: 0.0 }).collect();
    for t in (0..n_frames).rev() {
        if state % 2 == 1 {
            let label = &mut labels[state / 2];
            label.start = t;
            label.end = label.end.max(t + 1);
            label.logprob += logprobs[t * n_ids + label.id as usize];
        }
        state -= match steps[t * n_states + state] {
            _ if t == 0 => 0,
            Step::Stay => 0,
            Step::Next => 1,
            Step::Skip => 2,
        };
    }
    for label in &mut labels {
        label.logprob /= (label.end - label.start).max(1) as f32;
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::super::{ctc_collapse, ctc_log_probs};
    use super::*;
    use crate::kernels::test_support::noise;

    /// The best of every path that spells the ids.
    fn exhaustive(logprobs: &[f32], n_ids: usize, blank: u32, ids: &[u32]) -> f32 {
        let n_frames = logprobs.len() / n_ids;
        (0..n_ids.pow(n_frames as u32))
            .map(|path| -> Vec<u32> {
                (0..n_frames).map(|t| (path / n_ids.pow(t as u32) % n_ids) as u32).collect()
            })
            .filter(|path| ctc_collapse(path.iter().copied(), blank) == ids)
            .map(|path| path.iter().enumerate().map(|(t, id)| logprobs[t * n_ids + *id as usize]).sum())
            .fold(f32::NEG_INFINITY, f32::max)
    }

    /// What a path is worth that says labels in their frames and is silent between them.
    fn worth(logprobs: &[f32], n_ids: usize, blank: u32, labels: &[AlignedLabel]) -> f32 {
        (0..logprobs.len() / n_ids)
            .map(|t| {
                let label = labels.iter().find(|label| (label.start..label.end).contains(&t));
                logprobs[t * n_ids + label.map_or(blank, |label| label.id) as usize]
            })
            .sum()
    }

    #[test]
    fn the_path_is_the_best_of_all_that_spell_the_text() {
        for seed in 0..20 {
            let (n_ids, n_frames, blank) = (3, 6, seed % 3);
            let mut logprobs: Vec<f32> = noise(n_ids * n_frames, seed + 1).iter().map(|x| 2.0 * x).collect();
            ctc_log_probs(&mut logprobs, n_ids);
            let [a, b] = [0, 1, 2].into_iter().filter(|id| *id != blank).collect::<Vec<_>>()[..] else {
                unreachable!("three ids, one of them blank")
            };
            for ids in [vec![a], vec![a, b], vec![a, a], vec![b, b, a], vec![a, b, a, b, a, b]] {
                let labels = ctc_align(&logprobs, n_ids, blank, &ids).unwrap();
                assert_eq!(labels.iter().map(|label| label.id).collect::<Vec<_>>(), ids);
                assert!(labels.iter().all(|label| label.start < label.end));
                assert!(labels.windows(2).all(|pair| pair[0].end <= pair[1].start));
                let (ours, best) =
                    (worth(&logprobs, n_ids, blank, &labels), exhaustive(&logprobs, n_ids, blank, &ids));
                assert!((ours - best).abs() < 1e-5, "{ids:?}: {ours}, not {best}");
            }
            // Four equal ids take three blanks between them.
            assert_eq!(ctc_align(&logprobs, n_ids, blank, &[a; 4]), None);
        }
    }

    #[test]
    fn known_boundaries_are_found() {
        let path = [0, 0, 2, 2, 2, 0, 2, 1, 1, 0];
        let mut logprobs: Vec<f32> =
            path.iter().flat_map(|said| (0..3).map(move |id| if id == *said { 4.0 } else { 0.0 })).collect();
        ctc_log_probs(&mut logprobs, 3);
        let labels = ctc_align(&logprobs, 3, 0, &[2, 2, 1]).unwrap();
        assert_eq!(
            labels.iter().map(|label| (label.start, label.end)).collect::<Vec<_>>(),
            [(2, 5), (6, 7), (7, 9)]
        );
        assert!(labels.iter().all(|label| (label.logprob - logprobs[0]).abs() < 1e-6));
        assert_eq!(ctc_align(&logprobs, 3, 0, &[]), Some(vec![]));
        for refused in [&[3][..], &[0], &[1; 6]] {
            assert_eq!(ctc_align(&logprobs, 3, 0, refused), None);
        }
        assert_eq!(ctc_align(&[], 3, 0, &[1]), None);
    }
}

//! What an evaluation found as people read it, and as files keep it.

use std::{fmt::Write as _, path::PathBuf};

use recipes::{
    evaluate::{Evaluation, Heard, Unheard},
    metrics::Report,
};

use super::{Args, Other};
use crate::registry::{ErrorRates, PrecisionCost, PrecisionCosts};

/// Tables, what silence was taken for, speed and failures.
pub(super) fn describe(reports: &[Report], evaluation: &Evaluation) -> String {
    let mut text = String::new();
    for report in reports {
        let _ = writeln!(text, "{report}");
    }
    if let Some(rate) = evaluation.false_text_rate() {
        let _ = writeln!(
            text,
            "Nothing said: {} recordings, {} of them got a text nevertheless ({:.2} %)",
            evaluation.n_silent,
            evaluation.n_silent_with_text,
            100.0 * rate
        );
    }
    let _ = writeln!(
        text,
        "Speed: {:.1} s of audio in {:.1} s, {:.1} x real time",
        evaluation.audio_secs,
        evaluation.busy_secs,
        evaluation.speed()
    );
    tell_failed(&evaluation.failed, &mut text);
    text
}

/// What the precisions cost, to be kept.
pub(super) fn costs(
    args: &Args,
    beam_size: usize,
    evaluation: &Evaluation,
    first: models::Precision,
    reports: &[Report],
    others: &[Other],
) -> PrecisionCosts {
    let error_rates = |reports: &[Report]| {
        let rates = |report: &Report| ErrorRates {
            normaliser: report.normaliser.to_string(),
            wer: report.words.rate,
            cer: report.characters.rate,
        };
        reports.iter().map(rates).collect()
    };
    let reference =
        PrecisionCost { precision: first.to_string(), same_words: 1.0, error_rates: error_rates(reports) };
    let others = others.iter().map(|other| PrecisionCost {
        precision: other.precision.clone(),
        same_words: other.same_words,
        error_rates: error_rates(&other.reports),
    });
    // Their names, and their folders': where those lie on this machine says nothing on another.
    let name = |path: &PathBuf| {
        let mut parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
        parts.reverse();
        parts.join("/")
    };
    PrecisionCosts {
        manifests: args.manifests.iter().map(name).collect(),
        language: args.language.clone(),
        beam_size,
        n_recordings: evaluation.heard.len(),
        audio_secs: evaluation.audio_secs,
        precisions: std::iter::once(reference).chain(others).collect(),
    }
}

/// What other precisions change.
pub(super) fn compare(first: models::Precision, others: &[Other]) -> String {
    let mut text = String::new();
    for Other { precision, reports, same_words, times_real_time, failed } in others {
        let _ = writeln!(
            text,
            "\nIn {precision} instead of {first}: {:.2} % of the words are the same, {times_real_time:.1} x real time",
            100.0 * same_words
        );
        for report in reports {
            let _ = writeln!(text, "{report}");
        }
        tell_failed(failed, &mut text);
    }
    text
}

pub(super) fn tell_failed(failed: &[Unheard], text: &mut String) {
    for Unheard { name, reason } in failed {
        let _ = writeln!(text, "Not decoded: {name}: {reason}");
    }
}

/// A table of names, references and hypotheses, separated by tabs.
pub(super) fn hypotheses(evaluation: &Evaluation) -> String {
    let mut rows = String::from("name\treference\thypothesis\n");
    let plain = |text: &str| text.replace(['\t', '\n'], " ");
    for Heard { name, reference, hypothesis, .. } in &evaluation.heard {
        let _ = writeln!(rows, "{name}\t{}\t{}", plain(reference), plain(hypothesis.trim()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypotheses_stand_beside_their_references() {
        let heard = |name: &str, reference: &str, hypothesis: &str| Heard {
            name: name.to_owned(),
            reference: reference.to_owned(),
            hypothesis: hypothesis.to_owned(),
            duration_secs: 1.0,
        };
        let evaluation = Evaluation {
            heard: vec![heard("a", "one", " one"), heard("c", "three\tfour", " three")],
            failed: vec![Unheard { name: "b".to_owned(), reason: "is not there".to_owned() }],
            ..Evaluation::default()
        };
        let rows = "name\treference\thypothesis\na\tone\tone\nc\tthree four\tthree\n";
        assert_eq!(hypotheses(&evaluation), rows);
        assert!(describe(&[], &evaluation).contains("Not decoded: b: is not there"));
    }
}

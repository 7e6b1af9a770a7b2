//! The speech of a synthesiser as one HTML file: its scores, and some of it to look at and to listen to beside its recordings.

use std::fmt::Write as _;

use crate::Error;
use crate::evaluate::Unheard;
use crate::evaluate_speech::{KindRates, SpeechEvaluation, SpeechReport, SpeechScores, SpokenReference};
use crate::metrics::{Rate, percent};
use crate::page::{escape, page, table};
use crate::sound_figure::SoundFigures;

/// Texts that were not spoken or heard, of which the page says why.
const MAX_FAILED: usize = 20;

/// The rows of a table of error rates, the first naming the columns.
pub fn score_rows(report: &SpeechReport) -> Vec<[String; 6]> {
    let mut rows =
        vec![["", "texts", "WER spoken", "WER recorded", "CER spoken", "CER recorded"].map(str::to_owned)];
    rows.extend(report.kinds.iter().map(|KindRates { kind, n_texts, spoken, recorded }| {
        [
            kind.clone(),
            n_texts.to_string(),
            with_interval(&spoken.words),
            with_interval(&recorded.words),
            percent(spoken.characters.rate),
            percent(recorded.characters.rate),
        ]
    }));
    rows
}

/// A rate and where it lies.
fn with_interval(rate: &Rate) -> String {
    let interval = rate
        .interval
        .map(|interval| format!(" ({:.1} to {:.1})", 100.0 * interval.low, 100.0 * interval.high));
    percent(rate.rate) + &interval.unwrap_or_default()
}

/// What is to be known of texts that were not spoken or not heard; nothing where all were.
pub fn speech_failures(scores: &SpeechScores) -> Option<String> {
    let texts = |n: usize| format!("{n} text{}", if n == 1 { "" } else { "s" });
    let refused = (scores.n_refused > 0).then(|| {
        format!(
            "{} could not be spoken: nothing was heard of them, and they count so",
            texts(scores.n_refused)
        )
    });
    let unheard = (scores.n_unheard > 0).then(|| {
        format!(
            "{} could not be listened to, recorded or spoken, and count on neither side",
            texts(scores.n_unheard)
        )
    });
    let told: Vec<_> = refused.into_iter().chain(unheard).collect();
    (!told.is_empty()).then(|| told.join("; ") + ".")
}

/// The row of a setting among others: its name, errors of all kinds by its first normaliser, distances and speed.
pub fn setting_row(name: &str, scores: &SpeechScores) -> [String; 7] {
    let all = scores.all();
    [
        name.to_owned(),
        all.map_or_else(|| percent(None), |all| with_interval(&all.spoken.words)),
        percent(all.and_then(|all| all.spoken.characters.rate)),
        number(scores.distortion_db, 2, "dB"),
        number(scores.pitch_error_cents, 0, "cents"),
        percent(scores.voicing_error),
        format!("{:.1}", scores.times_real_time),
    ]
}

/// What the columns of [`setting_row`] are called.
pub const SETTING_COLUMNS: [&str; 7] =
    ["", "WER", "CER", "cepstral distortion", "pitch error", "voicing errors", "x real time"];

fn number(value: Option<f64>, n_decimals: usize, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.n_decimals$} {unit}"))
}

/// The whole page: a row for each setting, the kinds of each, and examples of the first.
///
/// # Errors
/// Speech that no WAV file can hold, and none that can be drawn.
pub fn speech_page(
    title: &str,
    settings: &[(String, SpeechScores)],
    evaluation: &SpeechEvaluation,
    references: &[SpokenReference],
) -> Result<String, Error> {
    let mut body = format!("<h1>{}</h1>\n", escape(title));
    let rows: Vec<_> = settings.iter().map(|(name, scores)| setting_row(name, scores)).collect();
    body += &table(SETTING_COLUMNS, &rows);
    for (name, scores) in settings {
        let _ = writeln!(body, "<h2>{}</h2>", escape(name));
        for report in &scores.reports {
            let rows = score_rows(report);
            if let Some((heading, rows)) = rows.split_first() {
                body += &table(heading.each_ref().map(String::as_str), rows);
            }
            let _ = writeln!(
                body,
                "<p>Rates with {} % intervals; normaliser: {}.</p>",
                100.0 * scores.confidence,
                report.normaliser
            );
        }
        if let Some(told) = speech_failures(scores) {
            let _ = writeln!(body, "<p>{}</p>", escape(&told));
        }
    }
    body += &reasons(&evaluation.failed);
    if !evaluation.examples.is_empty() {
        body.push_str("<h2>Spoken, and recorded</h2>\n");
    }
    let figures = SoundFigures::new()?;
    for example in &evaluation.examples {
        let (Some(reference), Some(spoken)) =
            (references.get(example.reference), evaluation.spoken.get(example.spoken))
        else {
            continue;
        };
        let _ = writeln!(
            body,
            "<h3>{}</h3>\n<p>{}, {}</p>",
            escape(&spoken.text),
            escape(&spoken.kind),
            escape(&spoken.voice)
        );
        for (what, heard, waveform) in [
            ("Spoken", &spoken.heard, &example.waveform),
            ("Recorded", &spoken.heard_recorded, &reference.waveform),
        ] {
            let _ = writeln!(body, "<p>{what}; heard: <bdi>{}</bdi></p>", escape(heard.trim()));
            body += &figures.show(&spoken.name, waveform)?;
        }
    }
    Ok(page(title, &body))
}

/// Why texts were not spoken or heard, of the first setting.
fn reasons(failed: &[Unheard]) -> String {
    if failed.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> =
        failed.iter().take(MAX_FAILED).map(|one| [one.name.clone(), one.reason.clone()]).collect();
    if failed.len() > MAX_FAILED {
        rows.push(["...".to_owned(), format!("and {} more", failed.len() - MAX_FAILED)]);
    }
    "<h2>Not spoken, or not heard</h2>\n".to_owned() + &table(["text", "why"], &rows)
}

#[cfg(test)]
mod tests {
    use audio::Waveform;

    use super::*;
    use crate::evaluate_speech::{Example, Spoken};
    use crate::metrics::SpeechDistance;
    use crate::text::Normaliser;

    fn evaluation(text: &str, heard: &str) -> (SpeechEvaluation, Vec<SpokenReference>) {
        let waveform = Waveform {
            samples: (0..8_000).map(|t| (t as f32 * 0.1).sin() * 0.5).collect(),
            sample_rate: 24_000,
        };
        let reference = SpokenReference {
            name: "a".to_owned(),
            kind: "word".to_owned(),
            text: text.to_owned(),
            voice: "flite/slt".to_owned(),
            waveform: waveform.clone(),
        };
        let spoken = Spoken {
            name: "a".to_owned(),
            kind: "word".to_owned(),
            voice: "flite/slt".to_owned(),
            text: text.to_owned(),
            is_refused: false,
            heard: heard.to_owned(),
            heard_recorded: text.to_owned(),
            duration_secs: waveform.duration_secs(),
            distance: SpeechDistance { n_pairs: 2, distortion_db_sum: 9.0, ..SpeechDistance::default() },
        };
        let evaluation = SpeechEvaluation {
            spoken: vec![spoken],
            busy_secs: 0.1,
            audio_secs: 0.5,
            examples: vec![Example { reference: 0, spoken: 0, waveform }],
            ..SpeechEvaluation::default()
        };
        (evaluation, vec![reference])
    }

    #[test]
    fn speech_stands_beside_its_recording() {
        let (mut evaluation, references) = evaluation("<tent>", "lunch");
        let unread = |name: usize| Unheard { name: name.to_string(), reason: "<unread>".to_owned() };
        evaluation.failed = (1..=22).map(unread).collect();
        let scores = evaluation.scores(&[Normaliser::Basic, Normaliser::None]).expect("scores");
        let settings = [("4 steps".to_owned(), scores.clone()), ("8 steps".to_owned(), scores)];
        let page = speech_page("voice & judge", &settings, &evaluation, &references).expect("a page");
        for part in [
            "voice &amp; judge",
            "&lt;tent&gt;",
            "data:image/png;base64,iVBOR",
            "data:audio/wav;base64,UklGR",
            "4.50 dB",
            "<h2>8 steps</h2>",
            "WER recorded",
            "heard: <bdi>lunch</bdi>",
            "95 % intervals; normaliser: basic",
            "95 % intervals; normaliser: none",
            "<p>22 texts could not be listened to",
            "&lt;unread&gt;",
            "and 2 more",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert_eq!((page.matches("<img").count(), page.matches("<audio").count()), (2, 2));
        assert_eq!(page.matches("&lt;unread&gt;").count(), 20);
    }

    #[test]
    fn what_was_not_spoken_or_heard_is_counted_by_what_it_counts_for() {
        let (mut evaluation, _) = evaluation("tent", "");
        let told = |evaluation: &SpeechEvaluation| {
            speech_failures(&evaluation.scores(&[Normaliser::Basic]).expect("scores"))
        };
        assert_eq!(told(&evaluation), None);
        evaluation.spoken[0].is_refused = true;
        let reason = || Unheard { name: "a".to_owned(), reason: String::new() };
        evaluation.failed = vec![reason()];
        assert!(
            told(&evaluation)
                .is_some_and(|told| told.starts_with("1 text could not be spoken") && !told.contains(';'))
        );
        evaluation.failed.push(reason());
        assert!(told(&evaluation).is_some_and(|told| told.contains("; 1 text could not be listened to")));
    }

    #[test]
    fn rows_tell_rates_with_their_intervals_and_a_dash_where_there_is_none() {
        let (evaluation, _) = evaluation("tent", "lunch");
        let scores = evaluation.scores(&[Normaliser::Basic]).expect("scores");
        let rows = score_rows(&scores.reports[0]);
        assert_eq!(
            rows[1],
            ["word", "1", "100.00 % (100.0 to 100.0)", "0.00 % (0.0 to 0.0)", "100.00 %", "0.00 %"]
        );
        let row = setting_row("1 step", &scores);
        assert_eq!(row, ["1 step", "100.00 % (100.0 to 100.0)", "100.00 %", "4.50 dB", "-", "0.00 %", "5.0"]);
    }
}

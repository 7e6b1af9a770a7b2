//! An error analysis as one HTML file: what goes wrong, and the worst utterances to listen to.

use std::fmt::Write as _;

use audio::Waveform;
use audio::encode::wav_bytes;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Error;
use crate::metrics::{Analysis, Confusion, OtherRates, Rate, RowErrors, WorstUtterance, percent};
use crate::page::{escape, page, table};

/// Confusions that the page lists; the JSON has more.
const MAX_LISTED: usize = 30;
/// Seconds of an utterance that the page plays: it is one file.
const MAX_PLAYED_SECS: f64 = 30.0;

/// The whole page. `hear` finds an utterance's recording; one without can be read, not heard.
///
/// # Errors
/// A recording that no WAV file can hold.
pub fn analysis_page(
    title: &str,
    analysis: &Analysis,
    hear: &mut dyn FnMut(&WorstUtterance) -> Option<Waveform>,
) -> Result<String, Error> {
    let report = &analysis.report;
    let mut body = format!("<h1>{}</h1>\n", escape(title));
    let mut rates = vec![rate_row("WER", report.normaliser.name(), &report.words)];
    rates.push(rate_row("CER", report.normaliser.name(), &report.characters));
    for OtherRates { normaliser, words, characters } in &analysis.others {
        rates.push(rate_row("WER", normaliser.name(), words));
        rates.push(rate_row("CER", normaliser.name(), characters));
    }
    if let Some(rate) = &analysis.substitutes {
        rates.push(rate_row("WER", "letters that keyboards lack count as their substitutes", rate));
    }
    body += &table(["", "normaliser", "rate", "substituted", "deleted", "inserted", "reference"], &rates);

    let mut facts = vec![
        ["utterances".to_owned(), report.n_utterances.to_string()],
        ["with errors".to_owned(), report.n_with_errors.to_string()],
        ["going round in circles".to_owned(), percent(analysis.loop_share)],
        ["characters written for each said".to_owned(), ratio(analysis.length_ratio)],
    ];
    if let Some(script) = &analysis.script {
        let [said, written] = script.own_share;
        facts.push(["letters of another script".to_owned(), percent(script.foreign_share)]);
        facts.push(["letters that only this language has, said".to_owned(), percent(said)]);
        facts.push(["letters that only this language has, written".to_owned(), percent(written)]);
    }
    body += &table(["", ""], &facts);

    body.push_str("<h2>By duration</h2>\n");
    let rows: Vec<_> = report
        .by_duration
        .iter()
        .map(|bucket| {
            let to = bucket.to_secs.map_or_else(|| "and more".to_owned(), |secs| format!("to {secs} s"));
            [
                format!("{} s {to}", bucket.from_secs),
                bucket.n_utterances.to_string(),
                percent(bucket.words.rate),
                percent(bucket.characters.rate),
            ]
        })
        .collect();
    body += &table(["duration", "utterances", "WER", "CER"], &rows);

    if !analysis.rows.is_empty() {
        body.push_str("<h2>Letters that belong together</h2>\n");
        let row = |row: &RowErrors| {
            let right = (row.n_reference > 0).then(|| row.n_right as f64 / row.n_reference as f64);
            let arrows = |pairs: &[Confusion]| pairs.iter().take(6).map(arrow).collect::<Vec<_>>().join(", ");
            [
                row.name.clone(),
                row.n_reference.to_string(),
                percent(right),
                arrows(&row.confusions),
                arrows(&row.written_for),
            ]
        };
        let rows: Vec<_> = analysis.rows.iter().map(row).collect();
        body += &table(["", "said", "right", "written instead", "written for others"], &rows);
    }
    let endings = &analysis.endings;
    let _ = writeln!(
        body,
        "<h2>Endings of words</h2>\n<p>Of {} words that were replaced by others, {} differ in the last letter alone.</p>",
        endings.n_substitutions,
        percent(endings.share)
    );
    if !endings.pairs.is_empty() {
        let row = |(one, share): &(Confusion, f64)| {
            [shown(&one.reference), shown(&one.hypothesis), one.count.to_string(), percent(Some(*share))]
        };
        let rows: Vec<_> = endings.pairs.iter().take(MAX_LISTED).map(row).collect();
        body += &table(["said", "written", "times", "of all replaced words"], &rows);
    }
    body.push_str("<h2>Letters for letters</h2>\n");
    body += &confusion_table(&analysis.confusions);

    body.push_str("<h2>The utterances with most errors</h2>\n");
    for utterance in &report.worst {
        body += &worst(utterance, hear(utterance))?;
    }
    Ok(page(title, &body))
}

fn worst(utterance: &WorstUtterance, waveform: Option<Waveform>) -> Result<String, Error> {
    let name = utterance.name.clone().unwrap_or_else(|| format!("utterance {}", utterance.index));
    let mut text = format!(
        "<h3><bdi>{}</bdi></h3>\n<p>{:.1} s, {} errors, WER {}</p>\n",
        escape(&name),
        utterance.duration_secs,
        utterance.words.errors.errors(),
        percent(utterance.words.rate)
    );
    if let Some(mut waveform) = waveform {
        waveform.samples.truncate((MAX_PLAYED_SECS * f64::from(waveform.sample_rate)) as usize);
        let bytes = wav_bytes(&waveform)?;
        let _ = writeln!(
            text,
            "<audio controls preload=\"none\" src=\"data:audio/wav;base64,{}\"></audio>",
            BASE64_STANDARD.encode(bytes)
        );
    }
    let _ = writeln!(text, "<p dir=\"auto\">{}</p>", marked(&utterance.aligned));
    Ok(text)
}

/// Deleted and inserted words as HTML has them.
fn marked(aligned: &str) -> String {
    let marks = [("[-", "<del>"), ("-]", "</del> "), ("{+", "<ins>"), ("+}", "</ins> ")];
    marks.iter().fold(escape(aligned), |text, (mark, tag)| text.replace(mark, tag))
}

fn confusion_table(confusions: &[Confusion]) -> String {
    if confusions.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    let row = |one: &Confusion| [shown(&one.reference), shown(&one.hypothesis), one.count.to_string()];
    let rows: Vec<_> = confusions.iter().take(MAX_LISTED).map(row).collect();
    table(["said", "written", "times"], &rows)
}

/// Letters are set apart from the words around them, which run the other way.
fn arrow(one: &Confusion) -> String {
    let (hypothesis, reference) = (shown(&one.hypothesis), shown(&one.reference));
    format!("\u{2068}{hypothesis}\u{2069} for \u{2068}{reference}\u{2069} ({})", one.count)
}

/// A letter, or a name for what cannot be seen.
fn shown(letter: &str) -> String {
    match letter {
        "" => "nothing".to_owned(),
        " " => "a space".to_owned(),
        letter => letter.to_owned(),
    }
}

fn rate_row(name: &str, normaliser: &str, rate: &Rate) -> [String; 7] {
    let errors = rate.errors;
    [
        name.to_owned(),
        normaliser.to_owned(),
        percent(rate.rate),
        errors.substitutions.to_string(),
        errors.deletions.to_string(),
        errors.insertions.to_string(),
        errors.n_reference.to_string(),
    ]
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Score, ScoreOptions};
    use crate::text::Normaliser;

    #[test]
    fn the_page_shows_errors_and_plays_the_worst() {
        let options =
            ScoreOptions { normaliser: Normaliser::PsStrict, n_worst: 1, ..ScoreOptions::default() };
        let mut score = Score::new(options).expect("options");
        score.add_named("<a>.wav", "زه سړی یم", "زه سړې", 1.0).expect("added");
        score.add_named("b.wav", "هو", "هو", 1.0).expect("added");
        let analysis = Analysis::new(&score, Some("ps"), &[]).expect("an analysis");
        let waveform = Waveform { samples: vec![0.5; 160], sample_rate: 16_000 };
        let mut asked = Vec::new();
        let page = analysis_page("Pashto", &analysis, &mut |worst| {
            asked.push(worst.index);
            Some(waveform.clone())
        })
        .expect("a page");
        assert_eq!(asked, [0]);
        for part in [
            "data:audio/wav;base64,UklGR",
            "<del>سړی</del> <ins>سړې</ins>",
            "&lt;a&gt;.wav",
            "ps-strict",
            "retroflex",
            "\u{2068}ې\u{2069} for \u{2068}ی\u{2069} (1)",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        let silent = analysis_page("Pashto", &analysis, &mut |_| None).expect("a page");
        assert!(!silent.contains("<audio"));
    }
}

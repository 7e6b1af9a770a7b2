use super::*;
use crate::metrics::{BleuOptions, Score, ScoreOptions, TerOptions};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn report() -> Result<Report, Box<dyn std::error::Error>> {
    let mut score = Score::new(ScoreOptions {
        normaliser: Normaliser::Basic,
        bleu: Some(BleuOptions::default()),
        ter: Some(TerOptions::default()),
        n_worst: 1,
        ..ScoreOptions::default()
    })?;
    for _ in 0..40 {
        score.add("One two three four!", "one two three four", 1.5)?;
        score.add_named("long.wav", "دغه علايم له څومره مودې", "دغه علايم څومره مودې نن", 31.25)?;
    }
    Ok(score.report()?)
}

#[test]
fn a_report_survives_a_file() -> Outcome {
    let report = report()?;
    let text = serde_json::to_string(&report)?;
    // Reading a number may cost its last bit.
    let read: Report = serde_json::from_str(&text)?;
    assert_eq!(read.to_string(), report.to_string());
    assert_eq!((read.words.errors, read.chrf, read.worst[0].index), (report.words.errors, report.chrf, 1));
    let value: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(value["normaliser"], "basic");
    assert_eq!(value["words"]["deletions"], 40);
    assert_eq!(value["words"]["rate"], 80.0 / 360.0);
    assert_eq!(value["by_duration"][1]["to_secs"], serde_json::Value::Null);
    assert_eq!(value["worst"][0]["name"], "long.wav");
    Ok(())
}

#[test]
fn a_terminal_shows_tables() -> Outcome {
    let report = report()?;
    let interval = |rate: &Rate| match rate.interval {
        Some(Interval { low, high }) => format!("{:.2} to {:.2} %", 100.0 * low, 100.0 * high),
        None => String::new(),
    };
    let shown = report.to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "80 utterances, 21.8 min, 40 with errors; normaliser: basic");
    let columns = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        columns(lines[1]),
        ["rate", "95 % interval", "substituted", "deleted", "inserted", "reference"]
    );
    assert_eq!(columns(lines[2]), ["WER", "22.22 %", &interval(&report.words), "0", "40", "40", "360 words"]);
    assert_eq!(
        columns(lines[3])[..3],
        ["CER".to_owned(), percent(report.characters.rate), interval(&report.characters)]
    );
    for (line, name, score) in [(4, "BLEU", &report.bleu), (5, "TER", &report.ter)] {
        let score = score.as_ref().ok_or(name)?;
        let bounds = score.interval.ok_or("an interval")?;
        assert_eq!(
            columns(lines[line]),
            [
                name,
                &format!("{:.2}", score.score),
                &format!("{:.2} to {:.2}", bounds.low, bounds.high),
                &score.signature
            ]
        );
    }
    assert_eq!(lines[6], "");
    assert_eq!(columns(lines[7]), ["duration", "utterances", "length", "WER", "CER", "words"]);
    assert_eq!(columns(lines[8]), ["0 to 2 s", "40", "1.0 min", "0.00 %", "0.00 %", "160"]);
    assert_eq!(columns(lines[9])[..4], ["30 s and more", "40", "20.8 min", "40.00 %"]);
    assert_eq!(lines[10], "");
    assert_eq!(lines[11], "Most word errors, [-deleted-] {+inserted+}:");
    assert_eq!(lines[12], "long.wav (31.25 s): 2 errors, 5 words, WER 40.00 %");
    assert_eq!(lines[13], "  دغه علايم [-له-] څومره مودې {+نن+}");
    assert_eq!(lines.len(), 14);
    // Columns stand below each other.
    let end = |line: &str, cell: &str| line.find(cell).map(|start| start + cell.len());
    assert_eq!(end(lines[1], "deleted"), end(lines[2], " 40"));
    assert_eq!(end(lines[7], "utterances"), end(lines[8], " 40"));
    Ok(())
}

#[test]
fn numbers_are_short() {
    assert_eq!([0.5, 30.0, 31.25, 100.0].map(number), ["0.5", "30", "31.25", "100"]);
    assert_eq!([59.5, 90.0, 9000.0].map(length), ["59.5 s", "1.5 min", "2.50 h"]);
    assert_eq!(percent(Some(1.5)), "150.00 %");
    assert_eq!(percent(None), "-");
}

//! The translator that is part of the program: the endpoint of translations works on a fresh clone, and these tests print how well.

use anyhow::{Context, Result, ensure};
use models::{BUNDLED, Task, bundled_for};
use recipes::{
    config::RunConfig,
    data::Glossary,
    evaluate::{Evaluation, Reference},
    metrics::{BleuOptions, ChrfOptions, ScoreOptions},
    prepare::{Options, Split, prepare},
};

use crate::{
    bundled::{
        self, false_text_rate, folder, is_small_and_says_whose_it_is, made_sounds, other_sounds,
        other_speech, reference, strings_of_digits,
    },
    cli::{home, run, speechd},
    connections::eventually,
    loopback_server::{form, post},
    service::{Service, serve},
    support::{data, recording},
};

const NAME: &str = "translate-en-ps";
/// What is said in its clip.
const HEARD: &str = "four two seven five are you having any shortness of breath";
/// The same in Pashto.
const TRANSLATED: &str = "څلور دوه اووه پنځه ایا تاسو ساه لنډي لرئ";

/// Words of the recipe's list.
fn glossary() -> Result<Glossary> {
    Ok(RunConfig::load(Some("translate_ps".as_ref()), &[])?.data.glossary)
}

/// The translation of a string of digits.
fn in_pashto(reference: Reference, glossary: &Glossary) -> Result<Reference> {
    let words = reference.text.split(' ').map(|word| glossary.words.get(word).map(String::as_str));
    let text = words.collect::<Option<Vec<_>>>().context("a word without a translation")?.join(" ");
    Ok(Reference { text, ..reference })
}

/// What it writes in Pashto.
fn listen(references: Vec<Reference>) -> Result<Evaluation> {
    let in_pashto = |reference| Reference { to_language: Some("ps".to_owned()), ..reference };
    bundled::listen(NAME, references.into_iter().map(in_pashto).collect())
}

/// Prints BLEU and chrF of `what` and gives the first.
fn bleu(what: &str, references: Vec<Reference>) -> Result<f64> {
    let evaluation = listen(references)?;
    let options = ScoreOptions {
        bleu: Some(BleuOptions::default()),
        chrf: Some(ChrfOptions::default()),
        ..ScoreOptions::default()
    };
    let report = evaluation.score(&options)?.context("nothing said")?.report()?;
    let (bleu, chrf) = report.bleu.zip(report.chrf).context("no scores")?;
    let interval = bleu
        .interval
        .map_or_else(String::new, |interval| format!(" ({:.1} to {:.1})", interval.low, interval.high));
    println!(
        "{what}: {} recordings, BLEU {:.1}{interval}, chrF {:.1}",
        report.n_utterances, bleu.score, chrf.score
    );
    Ok(bleu.score)
}

#[test]
fn a_fresh_clone_translates_its_clip() -> Result<()> {
    let home = home();
    let clip = folder(NAME).join("phrases.wav");
    let translate = |more: &[&str]| run(speechd(home.path()).arg("translate").arg(&clip).args(more));
    for more in [&["--to", "ps"][..], &["--to", "Pashto", "--model", NAME, "--language", "en"]] {
        let (code, stdout, stderr) = translate(more);
        ensure!(code == 0, "{stderr}");
        ensure!(stdout.trim() == TRANSLATED, "{stdout:?}");
    }
    let (code, _, stderr) = translate(&[]);
    ensure!(code == 2 && stderr.contains("to_language: `en`") && stderr.contains("into ps only"), "{stderr}");
    let (code, heard, stderr) = run(speechd(home.path()).args(["transcribe", "--model", NAME]).arg(&clip));
    ensure!(code == 0 && heard.trim() == HEARD, "{heard}{stderr}");
    Ok(())
}

/// As the official client sends it: the model, the file, the format, and the language in `extra_body`.
#[test]
fn the_service_translates_in_every_format_and_as_a_stream() -> Result<()> {
    let home = home();
    let service = Service::start(&mut serve(home.path(), &[]));
    ensure!(eventually(|| service.status("/readyz") == Some(200)), "{}", service.log());
    let clip = std::fs::read(folder(NAME).join("phrases.wav"))?;
    let ask = |more: &[(&str, &str)]| {
        let fields = [&[("model", NAME)], more].concat();
        service.send(&post("/v1/audio/translations", &form(&fields, Some(&clip)))).context("an answer")
    };
    let ps = ("to_language", "ps");
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for format in ["json", "text", "srt", "vtt", "verbose_json"] {
        let response = ask(&[ps, ("response_format", format)])?;
        ensure!(response.status == 200, "{format}: {}", response.text());
        let text = match format {
            "json" => response.json()["text"].as_str().context("a text")?.to_owned(),
            "verbose_json" => {
                let json = response.json();
                ensure!(
                    (&json["task"], &json["language"]) == (&"translate".into(), &"pashto".into()),
                    "{json}"
                );
                json["text"].as_str().context("a text")?.to_owned()
            }
            _ => {
                let is_text = |line: &&str| line.chars().any(|c| c.is_alphabetic()) && *line != "WEBVTT";
                response.text().lines().filter(is_text).collect::<Vec<_>>().join(" ")
            }
        };
        ensure!(plain(&text) == TRANSLATED, "{format}: {text}");
    }
    let response = ask(&[ps, ("stream", "true")])?;
    ensure!(response.status == 200, "{}", response.text());
    let events = response.events();
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    let last = events.last().context("events")?;
    ensure!(last["text"].as_str() == Some(&deltas) && plain(&deltas) == TRANSLATED, "{last}");

    // What the model cannot reach lists what it can.
    let refused = ask(&[])?;
    let error = &refused.json()["error"];
    ensure!(refused.status == 400 && error["param"] == "to_language", "{error}");
    ensure!(error["message"].as_str().is_some_and(|message| message.contains("into ps only")), "{error}");
    Ok(())
}

#[test]
fn it_is_small_and_says_whose_it_is() -> Result<()> {
    ensure!(BUNDLED.contains(&NAME) && bundled_for(Task::Translate) == Some(NAME));
    is_small_and_says_whose_it_is(NAME, &["TICO-19", "recipes/translate_ps.toml"])
}

#[test]
fn silence_and_noise_have_no_translation() -> Result<()> {
    let rate = false_text_rate("silence and made noise", &listen(made_sounds())?)?;
    ensure!(rate <= 0.1, "{rate}");
    let (Some(sounds), Some(speech)) = (other_sounds()?, other_speech()?) else { return Ok(()) };
    let sounds = false_text_rate("sounds of the world, 5 s each", &listen(sounds)?)?;
    false_text_rate("read English", &listen(speech)?)?;
    ensure!(sounds <= 0.1, "{sounds}");
    Ok(())
}

#[test]
fn real_digits_are_translated() -> Result<()> {
    let (Some(fsdd), Some(strings)) = (data("speech/fsdd"), data("speech/digit-strings")) else {
        return Ok(());
    };
    let glossary = glossary()?;
    let all = |references: Vec<Reference>| -> Result<Vec<Reference>> {
        references.into_iter().map(|reference| in_pashto(reference, &glossary)).collect()
    };
    let prepared = prepare(&fsdd, &Options::default(), &|_, _| {})?;
    let mut singles = Vec::new();
    for cut in &prepared.splits[&Split::Test] {
        singles.push(reference(&cut.id, &cut.text, recording(&cut.audio)?));
    }
    let evaluation = listen(all(singles)?)?;
    let n_right = evaluation.heard.iter().filter(|heard| heard.hypothesis.trim() == heard.reference).count();
    println!("single digits of the test split: {n_right} of {} translated right", evaluation.heard.len());
    let (short, long) = strings_of_digits(&strings)?;
    let short = bleu("strings of 1 to 8", all(short)?)?;
    bleu("strings of 18 to 45 s", all(long)?)?;
    ensure!(n_right * 100 >= evaluation.heard.len() * 95 && short >= 85.0, "{n_right} right, BLEU {short}");
    Ok(())
}

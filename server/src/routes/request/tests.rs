use std::{collections::BTreeSet, sync::LazyLock};

use audio::VadOptions;
use models::Timestamps;
use proptest::prelude::*;
use serde_json::Value;
use utoipa::PartialSchema;

use super::*;
use crate::{
    config::Config,
    routes::schema::{TranscriptionForm, TranslationForm},
};

fn defaults() -> Transcribe {
    static DEFAULTS: LazyLock<Transcribe> = LazyLock::new(|| toml(""));
    DEFAULTS.clone()
}

fn toml(text: &str) -> Transcribe {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("speechd.toml");
    std::fs::write(&path, text).expect("written");
    Config::load(Some(&path)).expect("a configuration").transcribe
}

fn fields(pairs: &[(&str, &str)]) -> Vec<Field> {
    pairs.iter().map(|(name, value)| Field { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
}

fn transcribe(pairs: &[(&str, &str)]) -> Result<TranscriptionRequest, Error> {
    let all: Vec<_> = [("model", "w")].iter().chain(pairs).copied().collect();
    TranscriptionRequest::parse(Task::Transcribe, &fields(&all), &defaults())
}

fn translate(pairs: &[(&str, &str)]) -> Result<TranscriptionRequest, Error> {
    let all: Vec<_> = [("model", "w")].iter().chain(pairs).copied().collect();
    TranscriptionRequest::parse(Task::Translate, &fields(&all), &defaults())
}

fn refusal(result: Result<TranscriptionRequest, Error>) -> (&'static str, String) {
    let error = result.expect_err("refused");
    (error.code(), error.body(None).error.param.expect("a parameter"))
}

#[test]
fn nothing_but_a_model_is_what_the_documents_say() {
    let request = transcribe(&[]).expect("a request");
    let expected = TranscriptionRequest {
        model: "w".to_owned(),
        options: DecodeOptions::default(),
        format: Format::Json,
        words: false,
        segments: true,
        logprobs: false,
        stream: false,
        cascade: None,
        hotwords_param: "hotwords",
    };
    assert_eq!(request, expected);
    let options = DecodeOptions { task: Task::Translate, ..DecodeOptions::default() };
    assert_eq!(translate(&[]).expect("a request"), TranscriptionRequest { options, ..expected });
}

#[test]
fn every_field_arrives_where_it_belongs() {
    let request = transcribe(&[
        ("language", "Pashto"),
        ("prompt", "pr\nompt"),
        ("response_format", "verbose_json"),
        ("temperature", "0.4"),
        ("timestamp_granularities[]", "word"),
        ("hotwords[]", "Kabul"),
        ("keywords[]", "Herat, Balkh"),
        ("beam_size", "3"),
        ("best_of", "2"),
        ("patience", "1.5"),
        ("length_penalty", "-0.5"),
        ("compression_ratio_threshold", "2"),
        ("logprob_threshold", "off"),
        ("no_speech_threshold", "0.25"),
        ("condition_on_previous_text", "false"),
        ("punctuation", "false"),
        ("vad", "off"),
        ("max_new_tokens", "100"),
        ("seed", "18446744073709551615"),
    ]);
    let options = DecodeOptions {
        language: Some("ps".to_owned()),
        languages: Vec::new(),
        task: Task::Transcribe,
        to_language: None,
        punctuation: Some(false),
        timestamps: Timestamps::Word,
        beam_size: Some(3),
        best_of: 2,
        patience: Some(1.5),
        length_penalty: -0.5,
        temperature: 0.4,
        fallback: false,
        compression_ratio_threshold: Some(2.0),
        logprob_threshold: None,
        no_speech_threshold: Some(0.25),
        condition_on_previous_text: false,
        prompt: Some("pr\nompt".to_owned()),
        hotwords: Some("Kabul, Herat, Balkh".to_owned()),
        vad: Some(false),
        vad_options: VadOptions::default(),
        batch_size: 8,
        max_new_tokens: Some(100),
        draft_tokens: 3,
        seed: u64::MAX,
    };
    let expected = TranscriptionRequest {
        model: "w".to_owned(),
        options,
        format: Format::VerboseJson,
        words: true,
        segments: false,
        logprobs: false,
        stream: false,
        cascade: None,
        hotwords_param: "hotwords",
    };
    assert_eq!(request.expect("a request"), expected);
}

#[test]
fn lists_are_spelled_with_brackets_or_without() {
    let request = transcribe(&[
        ("response_format", "verbose_json"),
        ("timestamp_granularities", "word"),
        ("timestamp_granularities[]", "segment"),
        ("languages", "ps"),
        ("languages[]", "english"),
        ("languages[]", "pashto"),
    ]);
    let request = request.expect("a request");
    assert!(request.words && request.segments);
    assert_eq!(request.options.languages, ["ps", "en"]);
    let request =
        transcribe(&[("include", "logprobs"), ("stream", "True"), ("keywords", "")]).expect("a request");
    assert!(request.logprobs && request.stream && request.options.hotwords.is_none());
}

#[test]
fn formats_decide_which_times_are_predicted() {
    for (format, timestamps) in [
        ("json", Timestamps::None),
        ("text", Timestamps::None),
        ("srt", Timestamps::Segment),
        ("vtt", Timestamps::Segment),
        ("verbose_json", Timestamps::Segment),
    ] {
        for result in [transcribe(&[("response_format", format)]), translate(&[("response_format", format)])]
        {
            assert_eq!(result.expect("a request").options.timestamps, timestamps, "{format}");
        }
    }
}

#[test]
fn a_request_wins_over_the_configuration() {
    let defaults = toml(
        "[transcribe]\nlanguage = \"ps\"\nhotwords = \"x\"\nprompt = \"y\"\nformat = \"srt\"\nvad = \"on\"",
    );
    let parse = |pairs: &[(&str, &str)]| {
        let all: Vec<_> = [("model", "w")].iter().chain(pairs).copied().collect();
        TranscriptionRequest::parse(Task::Transcribe, &fields(&all), &defaults).expect("a request")
    };
    let request = parse(&[]);
    assert_eq!((request.options.language.as_deref(), request.format), (Some("ps"), Format::Json));
    assert_eq!((request.options.hotwords.as_deref(), request.options.vad), (Some("x"), Some(true)));
    let request = parse(&[("language", ""), ("hotwords", ""), ("prompt", ""), ("chunking_strategy", "auto")]);
    let options = request.options;
    assert_eq!((options.language, options.hotwords, options.prompt, options.vad), (None, None, None, None));
    let request = parse(&[("languages[]", "en"), ("keywords[]", "z"), ("vad", "off")]);
    assert_eq!((request.options.language, request.options.languages), (None, vec!["en".to_owned()]));
    assert_eq!((request.options.hotwords.as_deref(), request.options.vad), (Some("z"), Some(false)));
}

#[test]
fn a_chunking_strategy_comes_in_four_spellings() {
    let vad_options =
        VadOptions { min_silence_secs: 0.7, pad_secs: 0.3, peak_threshold: 0.5, ..VadOptions::default() };
    let json = r#"{"type": "server_vad", "silence_duration_ms": 700}"#;
    for pairs in [
        &[("chunking_strategy", json)][..],
        &[("chunking_strategy[type]", "server_vad"), ("chunking_strategy[silence_duration_ms]", "700")][..],
    ] {
        let request = transcribe(pairs).expect("a request");
        assert_eq!((request.options.vad_options, request.options.vad), (vad_options.clone(), Some(true)));
    }
    for text in ["auto", "\"auto\""] {
        let request = transcribe(&[("chunking_strategy", text)]).expect("a request");
        assert_eq!((request.options.vad_options, request.options.vad), (VadOptions::default(), None));
    }
    assert_eq!(transcribe(&[("chunking_strategy", "null")]).expect("a request").options.vad, None);
    let sure =
        transcribe(&[("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.9")]);
    let VadOptions { threshold, end_threshold, peak_threshold, .. } =
        sure.expect("a request").options.vad_options;
    assert_eq!((threshold, end_threshold, peak_threshold), (0.9, 0.75, 0.9));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let strategy = |json| vec![("chunking_strategy", json)];
    for (pairs, code, param) in [
        (vec![("beams", "3")], "unknown_parameter", "beams"),
        (vec![("batch_size", "3")], "unknown_parameter", "batch_size"),
        (vec![("language[]", "ps")], "unknown_parameter", "language[]"),
        (vec![("to_language", "en")], "unknown_parameter", "to_language"),
        (vec![("model", "v")], "invalid_value", "model"),
        (vec![("language", "klingon")], "invalid_value", "language"),
        (vec![("languages[]", "auto")], "invalid_value", "languages"),
        (vec![("languages[]", "ps"), ("language", "ps")], "invalid_value", "languages"),
        (vec![("response_format", "doc")], "invalid_value", "response_format"),
        (vec![("response_format", "diarized_json")], "unsupported_parameter", "response_format"),
        (vec![("known_speaker_names[]", "Aisha")], "unsupported_parameter", "known_speaker_names"),
        (vec![("known_speaker_references[]", "data:,")], "unsupported_parameter", "known_speaker_references"),
        (vec![("temperature", "1.5")], "invalid_value", "temperature"),
        // Beyond a limit by less than the options can tell apart.
        (vec![("temperature", "1.000000001")], "invalid_value", "temperature"),
        (vec![("temperature", "-1e-60")], "invalid_value", "temperature"),
        (vec![("patience", "16.000000000000004")], "invalid_value", "patience"),
        (vec![("patience", "0.00999999999")], "invalid_value", "patience"),
        (vec![("temperature", "NaN")], "invalid_value", "temperature"),
        (vec![("temperature", "inf")], "invalid_value", "temperature"),
        (vec![("temperature", "1e40")], "invalid_value", "temperature"),
        (vec![("temperature", "")], "invalid_value", "temperature"),
        (vec![("temperature", "0"), ("temperature", "0")], "invalid_value", "temperature"),
        (vec![("temperature", "0.5"), ("fallback", "true")], "invalid_value", "fallback"),
        (vec![("timestamp_granularities[]", "word")], "invalid_value", "timestamp_granularities"),
        (vec![("timestamp_granularities[]", "letter")], "invalid_value", "timestamp_granularities"),
        (vec![("include[]", "usage")], "invalid_value", "include"),
        (vec![("include[]", "logprobs"), ("response_format", "text")], "invalid_value", "include"),
        (vec![("stream", "yes")], "invalid_value", "stream"),
        (vec![("stream", "true"), ("response_format", "srt")], "invalid_value", "stream"),
        (vec![("stream", "true"), ("response_format", "verbose_json")], "invalid_value", "stream"),
        (vec![("beam_size", "0")], "invalid_value", "beam_size"),
        (vec![("beam_size", "-1")], "invalid_value", "beam_size"),
        (vec![("beam_size", "1.5")], "invalid_value", "beam_size"),
        (vec![("patience", "never")], "invalid_value", "patience"),
        (vec![("vad", "maybe")], "invalid_value", "vad"),
        (vec![("vad", "on"), ("chunking_strategy", "auto")], "invalid_value", "chunking_strategy"),
        (strategy("sometimes"), "invalid_value", "chunking_strategy"),
        (strategy("{}"), "invalid_value", "chunking_strategy"),
        (strategy("{\"type\":\"server_vad\",\"eagerness\":1}"), "invalid_value", "chunking_strategy"),
        (strategy("{\"type\":\"server_vad\",\"threshold\":null}"), "invalid_value", "chunking_strategy"),
        (
            strategy("{\"type\":\"server_vad\",\"threshold\":2}"),
            "invalid_value",
            "chunking_strategy[threshold]",
        ),
        (
            vec![("chunking_strategy[threshold]", "0.5")],
            "missing_required_parameter",
            "chunking_strategy[type]",
        ),
        (vec![("chunking_strategy[type]", "auto")], "invalid_value", "chunking_strategy[type]"),
        (vec![("chunking_strategy[x]", "1")], "unknown_parameter", "chunking_strategy[x]"),
        (vec![("chunking_strategy[a][b]", "1")], "unknown_parameter", "chunking_strategy[a][b]"),
        (
            vec![
                ("chunking_strategy[type]", "server_vad"),
                ("chunking_strategy[prefix_padding_ms]", "60001"),
            ],
            "invalid_value",
            "chunking_strategy[prefix_padding_ms]",
        ),
        (
            vec![("chunking_strategy", "auto"), ("chunking_strategy[type]", "server_vad")],
            "invalid_value",
            "chunking_strategy",
        ),
    ] {
        assert_eq!(refusal(transcribe(&pairs)), (code, param.to_owned()), "{pairs:?}");
    }
    let result = TranscriptionRequest::parse(Task::Transcribe, &[], &defaults());
    assert_eq!(refusal(result), ("missing_required_parameter", "model".to_owned()));
}

#[test]
fn hotwords_that_are_too_many_are_refused_under_the_name_they_came_in() {
    let many = "x".repeat(5_000);
    for (pairs, param) in [
        (vec![("hotwords[]", many.as_str())], "hotwords"),
        (vec![("keywords[]", many.as_str())], "keywords"),
        (vec![("hotwords[]", "x"), ("keywords[]", many.as_str())], "hotwords"),
    ] {
        assert_eq!(refusal(transcribe(&pairs)), ("invalid_value", param.to_owned()));
    }
    // What only the model knows to be too many.
    let objection = |option| models::Error::Option { option, message: "no".to_owned() };
    let request = transcribe(&[("keywords", "x")]).expect("a request");
    assert_eq!(refusal(Err(request.refusal(objection("hotwords"), None))).1, "keywords");
    assert_eq!(refusal(Err(request.refusal(objection("prompt"), None))).1, "prompt");
    let request = translate(&[("hotwords", "x")]).expect("a request");
    assert_eq!(refusal(Err(request.refusal(objection("hotwords"), None))).1, "hotwords");
}

#[test]
fn translations_name_their_language_stream_and_have_no_words() {
    for (text, code) in
        [("en", Some("en")), ("English", Some("en")), ("ps", Some("ps")), ("Pashto", Some("ps")), ("", None)]
    {
        let request = translate(&[("to_language", text), ("language", "ps")]).expect("a request");
        assert_eq!(request.options.to_language.as_deref(), code, "{text}");
    }
    assert!(translate(&[("stream", "true"), ("response_format", "text")]).expect("a request").stream);
    assert_eq!(
        refusal(translate(&[("stream", "true"), ("response_format", "vtt")])),
        ("invalid_value", "stream".to_owned())
    );
    for (pairs, code) in [
        ([("to_language", "klingon")], "invalid_value"),
        ([("timestamp_granularities[]", "word")], "unknown_parameter"),
        ([("stream", "yes")], "invalid_value"),
        ([("include[]", "logprobs")], "unknown_parameter"),
        ([("chunking_strategy", "auto")], "unknown_parameter"),
        ([("known_speaker_names[]", "Aisha")], "unknown_parameter"),
    ] {
        assert_eq!(refusal(translate(&pairs)).0, code, "{pairs:?}");
    }
}

#[test]
fn a_cascade_transcribes_and_says_what_is_translated_into_what() {
    for (text, name) in [("true", None), ("1", None), ("org/opus", Some("org/opus"))] {
        let request = translate(&[("cascade", text), ("to_language", "ps"), ("language", "en")]);
        let request = request.expect("a request");
        assert_eq!((request.options.task, request.options.to_language), (Task::Transcribe, None));
        let cascade = request.cascade.expect("a cascade");
        assert_eq!((cascade.name.as_deref(), cascade.to_language.as_str()), (name, "ps"));
    }
    let english = translate(&[("cascade", "true")]).expect("a request").cascade.expect("a cascade");
    assert_eq!(english.to_language, "en");
    for text in ["false", "0", ""] {
        let request = translate(&[("cascade", text)]).expect("a request");
        assert_eq!((request.cascade, request.options.task), (None, Task::Translate));
    }
    let streamed = translate(&[("cascade", "true"), ("stream", "true")]);
    assert_eq!(refusal(streamed), ("invalid_value", "cascade".to_owned()));
    assert_eq!(refusal(transcribe(&[("cascade", "true")])), ("unknown_parameter", "cascade".to_owned()));
}

#[test]
fn who_cannot_be_translated_for_is_told_of_the_cascade() {
    let objection = |option| models::Error::Option { option, message: "no".to_owned() };
    let message =
        |request: &TranscriptionRequest, option, name| request.refusal(objection(option), name).to_string();
    let request = translate(&[]).expect("a request");
    let hint = "no; with cascade=true, opus translates the transcript";
    assert_eq!(message(&request, "to_language", Some("opus")), format!("to_language: {hint}"));
    assert_eq!(message(&request, "task", Some("opus")), format!("model: {hint}"));
    assert_eq!(message(&request, "to_language", None), "to_language: no");
    assert_eq!(message(&request, "prompt", Some("opus")), "prompt: no");
    let request = transcribe(&[]).expect("a request");
    assert_eq!(message(&request, "task", Some("opus")), "model: no");
}

/// Fields may follow the file, and only what they cannot put right is refused before it.
#[test]
fn the_first_fields_are_judged_by_what_may_still_come() {
    let begin = |pairs: &[(&str, &str)]| {
        TranscriptionRequest::begin(Task::Transcribe, &fields(pairs), &defaults())
            .map(|request| request.is_some())
            .map_err(|error| error.code())
    };
    assert_eq!(begin(&[]), Ok(false));
    assert_eq!(begin(&[("model", "w")]), Ok(true));
    assert_eq!(begin(&[("timestamp_granularities[]", "word")]), Ok(false));
    assert_eq!(begin(&[("model", "w"), ("timestamp_granularities[]", "word")]), Ok(true));
    assert_eq!(
        begin(&[("response_format", "json"), ("timestamp_granularities[]", "word")]),
        Err("invalid_value")
    );
    assert_eq!(begin(&[("beams", "3")]), Err("unknown_parameter"));
    assert_eq!(begin(&[("temperature", "3")]), Err("invalid_value"));
    assert_eq!(begin(&[("known_speaker_names", "x")]), Err("unsupported_parameter"));
}

fn properties(task: Task) -> serde_json::Map<String, Value> {
    let schema = match task {
        Task::Transcribe => TranscriptionForm::schema(),
        Task::Translate => TranslationForm::schema(),
    };
    let schema = serde_json::to_value(schema).expect("JSON");
    schema["properties"].as_object().expect("an object").clone()
}

#[test]
fn the_document_has_exactly_the_fields_that_are_read() {
    for task in [Task::Transcribe, Task::Translate] {
        let unknown = fields(&[("?", "")]);
        let Err(Error::Unknown { known, .. }) = TranscriptionRequest::parse(task, &unknown, &defaults())
        else {
            panic!("a field called ? is known");
        };
        let read: BTreeSet<_> = known.split(", ").map(str::to_owned).collect();
        let documented: BTreeSet<_> =
            properties(task).keys().map(|name| name.trim_end_matches("[]").to_owned()).collect();
        assert_eq!(documented, read.into_iter().chain(["file".to_owned()]).collect(), "{task:?}");
    }
}

#[test]
fn the_document_has_exactly_the_values_that_are_taken() {
    let is_taken = |task, name: &str, value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut pairs = vec![("model", "w"), (name, text.as_str())];
        match name {
            "timestamp_granularities[]" => pairs.push(("response_format", "verbose_json")),
            "model" => drop(pairs.pop()),
            _ => {}
        }
        TranscriptionRequest::parse(task, &fields(&pairs), &defaults()).is_ok()
    };
    for task in [Task::Transcribe, Task::Translate] {
        for (name, schema) in properties(task) {
            let items = schema.get("items").cloned().unwrap_or(schema);
            let alternatives = items.get("oneOf").and_then(Value::as_array).cloned().unwrap_or(vec![items]);
            for schema in alternatives {
                for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
                    assert!(is_taken(task, &name, value), "{name}={value}");
                }
                for (key, step) in [("minimum", -1.0), ("maximum", 1.0)] {
                    let Some(limit) = schema.get(key) else { continue };
                    assert!(is_taken(task, &name, limit), "{name}={limit}");
                    let beyond = Value::from(limit.as_f64().expect("a number") + step);
                    assert!(!is_taken(task, &name, &beyond), "{name}={beyond}");
                }
                if schema["type"] == "boolean" {
                    assert!(
                        is_taken(task, &name, &Value::from(true))
                            && is_taken(task, &name, &Value::from(false))
                    );
                }
            }
            assert!(!is_taken(task, &name, &Value::from("\0")) || name_takes_any_text(&name), "{name}");
        }
    }
}

fn name_takes_any_text(name: &str) -> bool {
    ["model", "prompt", "hotwords[]", "keywords[]", "cascade"].contains(&name)
}

/// A name that is known, nearly known, or anything.
fn names() -> impl Strategy<Value = String> {
    let mut known: Vec<_> = properties(Task::Transcribe).keys().cloned().collect();
    known.extend(
        ["chunking_strategy[type]", "chunking_strategy[threshold]", "chunking_strategy[", "a[b][c]"]
            .map(str::to_owned),
    );
    prop_oneof![8 => proptest::sample::select(known), 1 => ".*"]
}

/// A value that is likely somewhere, or anything.
fn values() -> impl Strategy<Value = String> {
    let likely = [
        "",
        "w",
        "0",
        "1",
        "-1",
        "0.5",
        "1e9",
        "off",
        "on",
        "auto",
        "true",
        "false",
        "json",
        "verbose_json",
        "srt",
        "word",
        "segment",
        "logprobs",
        "ps",
        "server_vad",
        "{\"type\":\"server_vad\"}",
        "null",
        "[]",
    ];
    prop_oneof![8 => proptest::sample::select(likely.to_vec()).prop_map(str::to_owned), 1 => ".*"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_fields_give_a_request_or_name_the_one_at_fault(
        pairs in proptest::collection::vec((names(), values()), 0..8),
        is_translation: bool,
    ) {
        let task = if is_translation { Task::Translate } else { Task::Transcribe };
        let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| Field { name, value }).collect();
        match TranscriptionRequest::parse(task, &pairs, &defaults()) {
            Ok(request) => {
                prop_assert!(request.options.check().is_ok());
                prop_assert_eq!(request.options.task, task);
                // What is taken whole is taken while it arrives.
                for end in 0..=pairs.len() {
                    prop_assert!(TranscriptionRequest::begin(task, &pairs[..end], &defaults()).is_ok());
                }
            }
            Err(error) => {
                prop_assert_eq!(error.status().as_u16(), 400);
                let body = error.body(None).error;
                prop_assert!(body.param.is_some_and(|param| !param.is_empty()));
                prop_assert!(body.message.len() < 2000, "{}", body.message);
            }
        }
    }
}

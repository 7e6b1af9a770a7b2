//! What a body asks to be spoken, parsed once into one value. Every field of the OpenAI API is honoured or refused with a reason; beyond
//! it there are `language`, `seed`, `steps`, `guidance` and `temperature`, the command line's flags of these names. What is not given is
//! as in the configuration's `[speak]`, except the voice: it is required.

use audio::encode::AudioFormat;
use models::SpeakOptions;

use super::super::json::{Members, Node, text, wrong};
use crate::{
    config::Speak,
    error::{Error, quoted},
    render,
};

/// Longest text, characters.
pub(in crate::routes) const MAX_INPUT_CHARS: usize = 4096;
/// Longest name of a voice or a model, characters. Longer ones are none.
const MAX_NAME_CHARS: usize = 200;

/// A request to speak a text.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechRequest {
    /// The model's name, as the client wrote it: anything.
    pub model: String,
    /// The text, of at most 4096 characters.
    pub input: String,
    /// The voice's name or id, as the client wrote it: anything.
    pub voice: String,
    /// How the sound is written.
    pub format: AudioFormat,
    /// Whether it comes as server-sent events.
    pub is_sse: bool,
    /// How to speak; possible in itself, not yet held against the model.
    pub options: SpeakOptions,
}

/// Whether it may be the code of a language (RFC 5646, section 2.1), be there one or not.
fn is_code(text: &str) -> bool {
    (2..=35).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

impl SpeechRequest {
    /// What a JSON body asks for.
    ///
    /// # Errors
    /// A body that is no object, a field that is unknown, missing or impossible.
    pub fn parse(body: &[u8], defaults: &Speak) -> Result<Self, Error> {
        let mut members = Members::parse(body)?;
        let model = members.text("model")?.ok_or(Error::Missing("model"))?;
        let input = input(members.text("input")?.ok_or(Error::Missing("input"))?)?;
        let voice = voice(members.take("voice")?.ok_or(Error::Missing("voice"))?)?;
        if members.text("instructions")?.is_some_and(|instructions| !instructions.is_empty()) {
            let message = "the models here speak as their voices do and follow no instructions; leave it out";
            return Err(Error::unsupported("instructions", message));
        }
        let format = members.text("response_format")?.map(|name| response_format(&name)).transpose()?;
        let is_sse = match members.text("stream_format")?.as_deref() {
            None | Some("audio") => false,
            Some("sse") => true,
            Some(other) => {
                let message = format!("{} is not one of audio, sse", quoted(other));
                return Err(Error::invalid("stream_format", message));
            }
        };
        let mut options = defaults.options();
        if let Some(speed) = members.number("speed")? {
            options.speed = speed;
        }
        if let Some(language) = members.text("language")? {
            // Models that speak may know codes that no recogniser does: each says which are its.
            let code =
                render::parse_language(&language).or_else(|| is_code(&language).then(|| language.clone()));
            options.language = Some(code.ok_or_else(|| {
                let message =
                    format!("{} is neither a code such as ps nor an English name", quoted(&language));
                Error::invalid("language", message)
            })?);
        }
        if let Some(seed) = members.integer("seed")? {
            options.seed = seed;
        }
        options.steps = members.integer("steps")?.map(|steps| usize::try_from(steps).unwrap_or(usize::MAX));
        options.guidance = members.number("guidance")?;
        options.temperature = members.number("temperature")?;
        members.finish()?;
        options.check()?;
        Ok(Self { model, input, voice, format: format.unwrap_or(AudioFormat::Mp3), is_sse, options })
    }
}

fn input(text: String) -> Result<String, Error> {
    let n_chars = text.chars().count();
    if n_chars > MAX_INPUT_CHARS {
        let message = format!(
            "it has {n_chars} characters; {MAX_INPUT_CHARS} is the most, send the rest in another request"
        );
        return Err(Error::invalid("input", message));
    }
    if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid("input", "there is nothing in it to say"));
    }
    Ok(text)
}

/// A name, or an object that holds an id.
fn voice(value: Node) -> Result<String, Error> {
    let name = match value {
        Node::Object(members) => {
            if let Some((other, _)) = members.iter().find(|(key, _)| key != "id") {
                let message = format!("{} is not a key of it; id is", quoted(other));
                return Err(Error::invalid("voice", message));
            }
            let mut ids = members.into_iter();
            match (ids.next(), ids.next()) {
                (Some((_, id)), None) => text("voice", id)?,
                (None, _) => return Err(Error::invalid("voice", "the object has no id")),
                (Some(_), Some(_)) => return Err(Error::invalid("voice", "its id is given twice")),
            }
        }
        Node::Text(name) => name,
        value => return Err(wrong("voice", "a name or an object with an id", &value)),
    };
    match name.chars().count() {
        0 => Err(Error::invalid("voice", "it is empty")),
        n_chars if n_chars > MAX_NAME_CHARS => {
            Err(Error::invalid("voice", format!("{} is too long to be one", quoted(&name))))
        }
        _ => Ok(name),
    }
}

fn response_format(name: &str) -> Result<AudioFormat, Error> {
    name.parse().map_err(|_| {
        let known = AudioFormat::ALL.map(AudioFormat::extension).join(", ");
        match name {
            "aac" => Error::unsupported(
                "response_format",
                format!("aac: there is no encoder for it here; for {known} there is"),
            ),
            other => Error::invalid("response_format", format!("{} is not one of {known}", quoted(other))),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::LazyLock};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::Config,
        routes::schema::{
            SpeechBody,
            tests::{documented, known},
        },
    };

    static DEFAULTS: LazyLock<Speak> = LazyLock::new(|| Config::load(None).expect("the defaults").speak);

    fn parse(body: &Value) -> Result<SpeechRequest, Error> {
        SpeechRequest::parse(body.to_string().as_bytes(), &DEFAULTS)
    }

    /// A sound request with these members on top.
    fn body(more: &Value) -> Value {
        let mut body = json!({"model": "m", "input": "Hello.", "voice": "alloy"});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    fn refusal(more: &Value) -> (&'static str, String, String) {
        let error = parse(&body(more)).expect_err("refused");
        (error.code(), error.body(None).error.param.unwrap_or_default(), error.to_string())
    }

    #[test]
    fn the_least_that_is_asked_is_an_mp3_at_the_voices_own_speed() {
        let request = parse(&body(&json!({}))).expect("a request");
        let expected = SpeechRequest {
            model: "m".to_owned(),
            input: "Hello.".to_owned(),
            voice: "alloy".to_owned(),
            format: AudioFormat::Mp3,
            is_sse: false,
            options: SpeakOptions::default(),
        };
        assert_eq!(request, expected);
        let nothing =
            json!({"instructions": null, "speed": null, "response_format": null, "stream_format": null});
        assert_eq!(parse(&body(&nothing)).expect("a request"), expected);
        assert_eq!(parse(&body(&json!({"instructions": ""}))).expect("a request"), expected);
    }

    #[test]
    fn every_field_arrives_where_it_belongs() {
        let request = parse(&body(&json!({
            "voice": {"id": "voice_1"}, "response_format": "wav", "stream_format": "sse", "speed": 0.25,
            "language": "Pashto", "seed": u64::MAX, "steps": 8, "guidance": 1.5, "temperature": 0.7
        })));
        let request = request.expect("a request");
        assert_eq!(
            (request.voice.as_str(), request.format, request.is_sse),
            ("voice_1", AudioFormat::Wav, true)
        );
        let expected = SpeakOptions {
            language: Some("ps".to_owned()),
            speed: 0.25,
            seed: u64::MAX,
            steps: Some(8),
            guidance: Some(1.5),
            temperature: Some(0.7),
        };
        assert_eq!(request.options, expected);
    }

    #[test]
    fn what_is_not_given_is_as_configured() {
        let defaults = Speak {
            speed: 2.0,
            seed: 9,
            language: "ps".to_owned(),
            ..Config::load(None).expect("the defaults").speak
        };
        let request = SpeechRequest::parse(body(&json!({"seed": 3})).to_string().as_bytes(), &defaults);
        let options = request.expect("a request").options;
        assert_eq!((options.speed, options.seed, options.language.as_deref()), (2.0, 3, Some("ps")));
    }

    #[test]
    fn texts_are_counted_in_characters_and_say_something() {
        for text in ["a".repeat(4096), "😀".repeat(4096), "\u{1b}[31mred\0".to_owned(), "سلام".to_owned()]
        {
            assert_eq!(parse(&body(&json!({"input": text}))).expect("a request").input, text);
        }
        for text in [
            "a".repeat(4097),
            "😀".repeat(4097),
            String::new(),
            " \n\t\u{a0}\u{3000}".to_owned(),
            "\0\u{7}".to_owned(),
        ] {
            let (code, param, message) = refusal(&json!({"input": text}));
            assert_eq!((code, param.as_str()), ("invalid_value", "input"), "{message}");
            assert!(message.len() < 200);
        }
    }

    #[test]
    fn wrong_types_and_values_name_their_field() {
        for (param, values) in [
            ("input", json!([1, true, ["a"], {"text": "a"}])),
            ("model", json!([1, false, [], {}])),
            (
                "voice",
                json!([1, [], {}, {"id": 1}, {"id": "a", "name": "b"}, {"name": "b"}, "", "x".repeat(201)]),
            ),
            ("response_format", json!([1, "MP3", "ogg", "mp3\0", ""])),
            ("stream_format", json!([1, "SSE", "", true])),
            ("speed", json!(["1", 0, 0.24, 4.01, -1, 1e30, true])),
            ("language", json!([1, "../../etc", ""])),
            ("seed", json!([-1, 1.5, "7", 1e30])),
            ("steps", json!([0, 65, 1.5, "8", u64::MAX])),
            ("guidance", json!([-0.1, 10.1, "1", []])),
            ("temperature", json!([-0.1, 2.1, "warm"])),
        ] {
            for value in values.as_array().expect("a list") {
                let (code, found, message) = refusal(&json!({param: value}));
                assert_eq!((code, found.as_str()), ("invalid_value", param), "{value}: {message}");
                assert!(message.len() < 300 && !message.contains('\0'), "{message}");
            }
        }
        for (more, code, param, part) in [
            (
                json!({"response_format": "aac"}),
                "unsupported_parameter",
                "response_format",
                "mp3, opus, flac, wav, pcm",
            ),
            (json!({"instructions": "whisper"}), "unsupported_parameter", "instructions", "leave it out"),
            (json!({"model": null}), "missing_required_parameter", "model", "required"),
            (json!({"input": null}), "missing_required_parameter", "input", "required"),
            (json!({"voice": null}), "missing_required_parameter", "voice", "required"),
            (json!({"stream": true}), "unknown_parameter", "stream", "stream_format"),
        ] {
            let (found, at, message) = refusal(&more);
            assert_eq!((found, at.as_str()), (code, param), "{message}");
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_voice_has_one_id() {
        let body = r#"{"model": "m", "input": "a", "voice": {"id": "x", "id": "y"}}"#;
        let error = sound(body.as_bytes()).expect_err("twice");
        assert_eq!(error.body(None).error.param.as_deref(), Some("voice"));
        assert!(error.to_string().contains("twice"), "{error}");
    }

    #[test]
    fn the_document_has_the_fields_that_are_read() {
        let documented = documented::<SpeechBody>();
        assert_eq!(documented.all, known(&parse(&body(&json!({"frobnicate": 1}))).expect_err("unknown")));
        for name in &documented.all {
            let is_missed = parse(&body(&json!({name: null}))).is_err();
            assert_eq!(is_missed, documented.required.contains(name), "{name}");
        }
    }

    /// What `server/fuzz/fuzz_targets/speech.rs` looks for: bytes are a request that is possible, or a typed error.
    fn sound(body: &[u8]) -> Result<SpeechRequest, Error> {
        let parsed = SpeechRequest::parse(body, &DEFAULTS);
        match &parsed {
            Ok(request) => {
                request.options.check().expect("possible");
                assert!((1..=MAX_INPUT_CHARS).contains(&request.input.chars().count()));
            }
            Err(error) => assert_eq!(error.status().as_u16(), 400, "{error:?}"),
        }
        parsed
    }

    #[test]
    fn what_the_search_begins_with_is_sound() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/speech-requests");
        let (mut n_taken, mut refused) = (0, BTreeSet::new());
        for entry in std::fs::read_dir(folder).expect("a corpus") {
            let path = entry.expect("a file").path();
            match sound(&std::fs::read(&path).expect("read")) {
                Ok(_) => n_taken += 1,
                Err(error) => {
                    refused.insert(error.code());
                }
            }
        }
        assert!(n_taken >= 3, "{n_taken}");
        let all = [
            "invalid_json",
            "invalid_value",
            "missing_required_parameter",
            "unknown_parameter",
            "unsupported_parameter",
        ];
        assert!(all.iter().all(|code| refused.contains(code)), "{refused:?}");
    }

    /// A value of any type, often one that some member may have.
    fn value() -> impl Strategy<Value = Value> {
        let word =
            prop::sample::select(vec!["mp3", "aac", "pcm", "audio", "sse", "alloy", "ps", "Pashto", ""]);
        let single = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0_u64..80).prop_map(Value::from),
            (-1.0..12.0_f64).prop_map(Value::from),
            word.prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        single.prop_recursive(2, 8, 3, |inner| {
            let key = prop::sample::select(vec!["id", "name"]).prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_a_typed_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = sound(&bytes);
        }

        /// A sound request some of whose members are something else, or are there twice.
        #[test]
        fn any_members_are_a_request_or_a_typed_error(
            drawn in prop::collection::vec(
                (prop::sample::select(vec![
                    "model", "input", "voice", "instructions", "response_format", "stream_format", "speed", "language", "seed",
                    "steps", "guidance", "temperature", "frobnicate",
                ]), value(), any::<bool>()),
                0..4,
            ),
        ) {
            let mut members: Vec<_> =
                [("model", "m"), ("input", "Hello."), ("voice", "alloy")].map(|(name, value)| (name, json!(value))).into();
            for (name, value, is_beside) in drawn {
                members.retain(|(known, _)| is_beside || *known != name);
                members.push((name, value));
            }
            let names: BTreeSet<_> = members.iter().map(|(name, _)| *name).collect();
            let is_twice = names.len() < members.len();
            let text: Vec<_> = members.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
            let parsed = sound(format!("{{{}}}", text.join(", ")).as_bytes());
            prop_assert!(parsed.is_err() || (!is_twice && !names.contains("frobnicate")));
        }

        #[test]
        fn any_text_is_taken_as_it_is_or_refused(text in any::<String>()) {
            match parse(&body(&json!({"input": text}))) {
                Ok(request) => prop_assert_eq!(request.input, text),
                Err(error) => {
                    let param = error.body(None).error.param;
                    prop_assert_eq!(param.as_deref(), Some("input"));
                }
            }
        }
    }
}

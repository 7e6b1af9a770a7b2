//! Any bytes as the JSON body of a request to speak: a request whose options are possible, or a typed error:
//! `cargo +nightly fuzz run speech fuzz/corpus/speech ../tests/fixtures/speech-requests` in `server/`. The stable forms of this search are
//! the properties in `server/src/routes/speech/request.rs`, which reads these fixtures, too.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use server::{
    config::{Config, Speak},
    routes::speech::request::SpeechRequest,
};

static DEFAULTS: LazyLock<Speak> = LazyLock::new(|| Config::load(None).expect("the defaults").speak);

fuzz_target!(|body: &[u8]| {
    match SpeechRequest::parse(body, &DEFAULTS) {
        Ok(request) => {
            assert!(request.options.check().is_ok());
            assert!((1..=4096).contains(&request.input.chars().count()));
        }
        Err(error) => assert_eq!(error.status().as_u16(), 400, "{error:?}"),
    }
});

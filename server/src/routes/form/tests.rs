use std::{
    convert::Infallible,
    io::Read,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::{StreamExt, stream};
use models::Task;
use proptest::prelude::*;

use super::*;
use crate::{config::Config, render::Format, routes::request::TranscriptionRequest, uploads::UploadPlaces};

const BOUNDARY: &str = "b0undary";

fn limits(text: &str) -> Serve {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("speechd.toml");
    std::fs::write(&path, format!("[serve]\n{text}")).expect("written");
    Config::load(Some(&path)).expect("a configuration").serve
}

fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect()
}

fn form_headers() -> HeaderMap {
    headers(&[(header::CONTENT_TYPE, &format!("multipart/form-data; boundary={BOUNDARY}"))])
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A part with these headers behind its name.
fn part(name: &str, more: &str, value: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
    [head.as_bytes(), value, b"\r\n"].concat()
}

fn end() -> Vec<u8> {
    format!("--{BOUNDARY}--\r\n").into_bytes()
}

/// What a form holds, when it is read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Contents {
    fields: Vec<(String, String)>,
    file: Option<(Vec<u8>, Option<String>)>,
}

async fn read(headers: &HeaderMap, body: Body, limits: &Serve) -> Result<Contents, Error> {
    let mut form = Form::open(headers, body, limits, Meter::default())?;
    form.read_fields().await?;
    let mut file = None;
    if !form.is_at_end() {
        let mut upload = form.spool_file().await?;
        let mut bytes = Vec::new();
        upload.file.read_to_end(&mut bytes).expect("readable");
        assert_eq!(upload.bytes, bytes.len() as u64);
        file = Some((bytes, upload.extension));
    }
    form.read_fields().await?;
    assert!(form.is_at_end());
    let fields = form.fields().iter().map(|field| (field.name.clone(), field.value.clone())).collect();
    Ok(Contents { fields, file })
}

fn read_bytes(bytes: Vec<u8>, limits: &Serve) -> Result<Contents, Error> {
    run(read(&form_headers(), Body::from(bytes), limits))
}

/// The body in pieces of these lengths, over and over.
fn pieces(bytes: &[u8], lengths: &[usize]) -> Body {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for length in lengths.iter().cycle() {
        let (piece, left) = rest.split_at((*length).clamp(1, rest.len().max(1)).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
}

#[test]
fn fields_and_file_are_read_in_any_order() {
    let limits = limits("");
    let file = part(
        "file",
        "; filename=\"../../etc/Talk.MP3\"\r\nContent-Type: audio/mpeg",
        b"\r\n--b0undar\r\n\0\xff",
    );
    let model = part("model", "", "пашто".as_bytes());
    let language = part("language", "", b"");
    let contents = Contents {
        fields: vec![("model".to_owned(), "пашто".to_owned()), ("language".to_owned(), String::new())],
        file: Some((b"\r\n--b0undar\r\n\0\xff".to_vec(), Some("mp3".to_owned()))),
    };
    for parts in [[&model, &language, &file], [&model, &file, &language], [&file, &model, &language]] {
        let body = [parts[0].as_slice(), parts[1], parts[2], &end()].concat();
        assert_eq!(read_bytes(body, &limits).expect("a form"), contents);
    }
}

#[test]
fn what_is_no_form_is_refused() {
    let limits = limits("max_upload_bytes = 1000");
    let of = |pairs: &[(header::HeaderName, &str)]| {
        run(async {
            Form::open(&headers(pairs), Body::empty(), &limits, Meter::default())
                .err()
                .map(|error| error.code())
        })
    };
    let form = "multipart/form-data; boundary=x";
    assert_eq!(of(&[]), Some("unsupported_content_type"));
    assert_eq!(of(&[(header::CONTENT_TYPE, "application/json")]), Some("unsupported_content_type"));
    assert_eq!(
        of(&[(header::CONTENT_TYPE, "multipart/mixed; boundary=x")]),
        Some("unsupported_content_type")
    );
    assert_eq!(of(&[(header::CONTENT_TYPE, "multipart/form-data")]), Some("invalid_form"));
    let gzip = [(header::CONTENT_TYPE, form), (header::CONTENT_ENCODING, "gzip")];
    assert_eq!(of(&gzip), Some("unsupported_content_encoding"));
    assert_eq!(of(&[(header::CONTENT_TYPE, form), (header::CONTENT_LENGTH, "1001")]), Some("file_too_large"));
    let plain = [(header::CONTENT_TYPE, form), (header::CONTENT_ENCODING, "identity")];
    assert_eq!(of(&plain), None);
}

#[test]
fn broken_forms_are_refused_for_what_is_wrong_with_them() {
    let limits = limits("max_upload_bytes = 100000\nmax_fields = 10\nmax_field_bytes = 100");
    let file = || part("file", "; filename=\"a.wav\"", b"RIFF");
    let nameless = format!("--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n").into_bytes();
    let garbage = format!("--{BOUNDARY}\r\n\0: \0\r\n\r\nx\r\n").into_bytes();
    for (body, code, message) in [
        (Vec::new(), "invalid_form", "closing boundary"),
        (b"hello".to_vec(), "invalid_form", "closing boundary"),
        (part("model", "", b"x"), "invalid_form", "closing boundary"),
        ([part("model", "", b"x"), file()].concat(), "invalid_form", "closing boundary"),
        ([nameless, end()].concat(), "invalid_form", "no name"),
        ([garbage, end()].concat(), "invalid_form", "make no sense"),
        ([file(), file(), end()].concat(), "invalid_value", "given twice"),
        ([part("file", "", b""), end()].concat(), "invalid_audio", "empty"),
        (
            [part("prompt", "", &[b'x'; 101]), end()].concat(),
            "invalid_value",
            "prompt: longer than 100 bytes",
        ),
        ([part("prompt", "", b"\xff"), end()].concat(), "invalid_value", "prompt: not UTF-8"),
        (part("x", "", b"").repeat(1000), "invalid_form", "more than 10 parts"),
        ([part("file", "", &[b'x'; 100_000]), end()].concat(), "file_too_large", "100000 bytes"),
        (part(&"x".repeat(50_000), "", b""), "invalid_form", "closing boundary"),
        (
            [part("model", "\r\nContent-Transfer-Encoding: base64", b"eA=="), end()].concat(),
            "invalid_form",
            "content-transfer-encoding",
        ),
    ] {
        let error = read_bytes(body, &limits).expect_err("refused");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// Headers without an end are refused after a few pieces, wherever they are, however much is to come.
#[test]
fn the_parser_cannot_be_made_to_hoard() {
    let limits = limits("");
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"");
    for (start, filler) in [
        (head, "x"),
        (format!("--{BOUNDARY}\r\n"), "X: y\r\n"),
        (String::new(), "preamble"),
        (format!("--{BOUNDARY}"), " "),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let piece = Bytes::from(filler.repeat(4096 / filler.len()));
        let endless = stream::iter([Bytes::from(start)]).chain(stream::repeat(piece)).map(move |piece| {
            count.fetch_add(piece.len(), Relaxed);
            Ok::<_, Infallible>(piece)
        });
        let error = run(read(&form_headers(), Body::from_stream(endless), &limits)).expect_err("refused");
        assert_eq!(error.code(), "invalid_form", "{error}");
        assert!(taken.load(Relaxed) < 32 << 10);
    }
}

/// A piece with many parts is used up before another one is taken.
#[test]
fn small_parts_do_not_pull_large_pieces() {
    let limits = limits("");
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let piece = Bytes::from(part("keywords[]", "", b"x").repeat(700));
    let endless = stream::repeat(piece).map(move |piece| {
        count.fetch_add(1, Relaxed);
        Ok::<_, Infallible>(piece)
    });
    let error = run(read(&form_headers(), Body::from_stream(endless), &limits)).expect_err("refused");
    assert!(error.to_string().contains("more than 256 parts"), "{error}");
    assert_eq!(taken.load(Relaxed), 1);
}

/// Many fields, none of them too long, would fill the memory.
#[test]
fn the_text_of_all_fields_together_is_limited() {
    let settings = "max_fields = 5000\nmax_form_text_bytes = 100000";
    let limits = limits(settings);
    let of = |name: &str, n_bytes: usize, n_parts: usize| {
        let file = part("file", "; filename=\"a.wav\"", b"RIFF");
        let body = [part(name, "", &vec![b'x'; n_bytes]).repeat(n_parts), file, end()].concat();
        read_bytes(body, &limits).map(|contents| contents.fields.len())
    };
    // Names count: with four bytes each, and a thousand of a name alone.
    assert_eq!(of("word", 9_996, 10).expect("as much as may be"), 10);
    let long_name = "n".repeat(1000);
    assert_eq!(of(&long_name, 0, 100).expect("as much as may be"), 100);
    for (name, n_bytes, n_parts) in [("word", 9_997, 10), ("words", 9_996, 10), (&long_name, 0, 101)] {
        let error = of(name, n_bytes, n_parts).expect_err("refused");
        assert_eq!((error.status().as_u16(), error.code()), (400, "invalid_form"));
        assert!(error.to_string().contains("more than 100000 bytes together"), "{error}");
    }
}

#[test]
fn slow_uploads_are_given_up() {
    let never =
        || stream::iter([Ok::<_, Infallible>(Bytes::from(part("model", "", b"x")))]).chain(stream::pending());
    let idle = limits("upload_idle_secs = 0.05");
    let error = run(read(&form_headers(), Body::from_stream(never()), &idle)).expect_err("refused");
    assert!(error.to_string().contains("a pause took more than 0.05 s"), "{error}");
    // Never a pause, but never an end.
    let drip = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), ()))
    });
    let head = part("file", "", b"");
    let head = Bytes::from(head[..head.len() - 2].to_vec());
    let body = Body::from_stream(stream::iter([Ok(head)]).chain(drip));
    let late = limits("upload_timeout_secs = 0.1");
    let error = run(read(&form_headers(), body, &late)).expect_err("refused");
    assert!(error.to_string().contains("the whole of it took more than 0.1 s"), "{error}");
}

/// The upload that waits hears of it: nothing else wakes it.
#[test]
fn an_upload_whose_place_is_gone_is_given_up() {
    let limits = limits("max_uploads = 1\nupload_min_bytes_per_sec = 77");
    let places = UploadPlaces::new(&limits, 0);
    let (place, meter) = places.enter(false).expect("a place");
    let error = run(async {
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let mut form = Form::open(&form_headers(), body, &limits, meter).expect("a form");
        let newcomer = async {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                if let Ok((mut place, _)) = places.enter(false) {
                    return place.settle().map(|()| place);
                }
            }
        };
        let (read, newcomer) = tokio::join!(form.read_fields(), newcomer);
        drop(newcomer);
        read.expect_err("refused")
    });
    assert_eq!((error.status().as_u16(), error.code()), (408, "upload_displaced"), "{error}");
    assert!(error.to_string().contains("less than 77 bytes a second"), "{error}");
    assert!(place.arrived().is_err());
}

#[test]
fn a_file_name_is_a_hint_and_nothing_else() {
    for (name, expected) in [
        ("a.wav", Some("wav")),
        ("../../etc/passwd", None),
        ("C:\\x\\a.Mp3", Some("mp3")),
        ("a.b/../c", None),
        ("a.w av", None),
        ("a.verylongend", None),
        (".wav", None),
        ("a.wav\0.mp3", Some("mp3")),
    ] {
        assert_eq!(extension(name).as_deref(), expected, "{name}");
    }
}

/// A form made by `tests/oracle/forms.py`.
fn recorded(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/forms").join(name);
    std::fs::read(&path).expect("a fixture")
}

#[test]
fn what_clients_send_is_understood() {
    let config = Config::load(None).expect("a configuration");
    let request = |name| {
        let contents = read_bytes(recorded(name), &config.serve).expect("a form");
        assert_eq!(contents.file.expect("a file").1.as_deref(), Some("wav"));
        let fields: Vec<_> = contents.fields.into_iter().map(|(name, value)| Field { name, value }).collect();
        TranscriptionRequest::parse(Task::Transcribe, &fields, &config.transcribe).expect("a request")
    };
    let client = request("client.form");
    assert!(client.stream && client.logprobs && client.model == "whisper-1");
    let options = client.options;
    assert_eq!(
        (options.beam_size, options.fallback, options.prompt.as_deref()),
        (Some(3), false, Some("پښتو"))
    );
    assert_eq!(options.hotwords.as_deref(), Some("Balkh, Kabul, Herat"));
    assert_eq!(options.languages, ["ps", "en"]);
    assert_eq!((options.vad_options.threshold, options.vad_options.min_silence_secs), (0.4, 0.7));
    let curl = request("curl.form");
    assert!(curl.words && curl.segments && curl.format == Format::VerboseJson);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_form_is_the_same_however_it_is_cut(
        names in proptest::collection::vec("[a-z\\[\\]]{1,10}", 0..5),
        values in proptest::collection::vec("(\r\n|--|b0undar|[a-x]){0,12}", 5),
        file in proptest::collection::vec(any::<u8>(), 1..300),
        lengths in proptest::collection::vec(1_usize..40, 1..10),
    ) {
        prop_assume!(names.iter().all(|name| name != "file"));
        static LIMITS: LazyLock<Serve> = LazyLock::new(|| limits(""));
        let mut body = Vec::new();
        for (name, value) in names.iter().zip(&values) {
            body.extend(part(name, "", value.as_bytes()));
        }
        body.extend(part("file", "", &file));
        body.extend(end());
        let contents = run(read(&form_headers(), pieces(&body, &lengths), &LIMITS)).expect("a form");
        let expected: Vec<_> = names.iter().cloned().zip(values).collect();
        prop_assert_eq!(contents, Contents { fields: expected, file: Some((file, None)) });
    }

    /// The stable form of `fuzz/fuzz_targets/form.rs`.
    #[test]
    fn damaged_forms_are_read_or_refused(
        index: proptest::sample::Index,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        keep: proptest::sample::Index,
        lengths in proptest::collection::vec(1_usize..100, 1..4),
    ) {
        let mut body = recorded(["client.form", "curl.form", "hostile.form"][index.index(3)]);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(keep.index(body.len() * 2));
        static LIMITS: LazyLock<Serve> = LazyLock::new(|| limits("max_field_bytes = 200\nmax_fields = 20"));
        match run(read(&form_headers(), pieces(&body, &lengths), &LIMITS)) {
            Ok(contents) => prop_assert!(contents.fields.iter().all(|(_, value)| value.len() <= 200)),
            Err(error) => prop_assert!(matches!(error.status().as_u16(), 400 | 413), "{error:?}"),
        }
    }
}

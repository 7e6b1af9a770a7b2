//! The long form with a made-up decoder: every branch, and whatever a decoder may say.

use proptest::prelude::*;

use super::*;
use crate::decode::{TimestampRules, WindowResult};
use crate::transcript::GapReason;
use crate::{Bundle, Timestamps};

type Outcome = Result<(), Error>;

/// A vocabulary and the options of one test; the decoder is a function that makes results up.
struct Stage {
    tokenizer: Arc<Tokenizer>,
    special: Arc<SpecialTokens>,
    options: DecodeOptions,
    timestamps: bool,
}

/// Tokens of the fixture's vocabulary: text below 300, the end 300, times from 316 in steps of 20 ms.
const BEGIN: u32 = 316;
const WINDOW: usize = 3000;
const NOTHING: [u32; 0] = [];

fn at(secs: f64) -> u32 {
    BEGIN + (secs * 50.0).round() as u32
}

fn result(tokens: &[u32]) -> WindowResult {
    WindowResult {
        tokens: tokens.to_vec(),
        logprobs: vec![-0.5; tokens.len()],
        avg_logprob: -0.5,
        compression_ratio: 1.0,
        no_speech_prob: 0.0,
        temperature: 0.0,
        reached_limit: false,
        is_silence: false,
        positions: None,
    }
}

fn no_words(_: &[u32]) -> Result<TokenTimes, Error> {
    panic!("nobody asked for words")
}

/// As attention finds them.
fn about(secs: impl Iterator<Item = (f64, f64)>) -> TokenTimes {
    TokenTimes { secs: secs.collect(), are_exact: false }
}

fn span(start_secs: f64, end_secs: f64) -> Span {
    Span { start_secs, end_secs }
}

impl Stage {
    fn new(options: DecodeOptions, timestamps: bool) -> Result<Self, Error> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let (tokenizer, _, special) = Bundle::open(dir.as_ref())?.description().vocabulary()?;
        Ok(Self { tokenizer: Arc::new(tokenizer), special: Arc::new(special), options, timestamps })
    }

    fn usual() -> Result<Self, Error> {
        Self::new(DecodeOptions::default(), true)
    }

    fn say(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text).unwrap_or_default()
    }

    /// Tokens out of seconds and texts: `[Ok(0.0), Err(" one"), Ok(2.0)]`.
    fn script(&self, parts: &[Result<f64, &str>]) -> Vec<u32> {
        parts.iter().flat_map(|part| part.map_or_else(|text| self.say(text), |secs| vec![at(secs)])).collect()
    }

    /// One track of `secs`.
    fn recording(&self, secs: f64, speech: &[Span]) -> Result<LongForm, Error> {
        self.tracks(&[(0.0, secs)], speech)
    }

    fn tracks(&self, tracks: &[(f64, f64)], speech: &[Span]) -> Result<LongForm, Error> {
        let times = TimestampRules { begin: BEGIN, eot: 300, no_timestamps: 315, max_initial: Some(50) };
        let rules = Rules { timestamps: self.timestamps.then_some(times), ..Rules::default() };
        let plan = Plan {
            options: self.options.clone(),
            tokenizer: self.tokenizer.clone(),
            special: self.special.clone(),
            rules: Arc::new(rules),
            window_frames: WINDOW,
            frame_secs: 0.01,
            position_frames: 2,
            max_context: 223,
            knows_times: false,
            language: Some("ps".to_owned()),
        };
        let mut form = LongForm::new(plan, speech.to_vec())?;
        for &(start_secs, secs) in tracks {
            form.add_track(
                Stretch::alone(span(start_secs, start_secs + secs)),
                (secs * 100.0).round() as usize,
            );
        }
        Ok(form)
    }
}

fn task(seek_frames: usize, n_frames: usize) -> Option<WindowTask> {
    Some(WindowTask { track: 0, seek_frames, n_frames })
}

/// Answers the next window.
fn answer(form: &mut LongForm, result: &WindowResult) -> Outcome {
    let Some(task) = form.next_window() else { panic!("no window is left") };
    form.accept(task, result, &no_words)
}

fn times(transcript: &Transcript) -> Vec<(f64, f64, &str)> {
    let round = |secs: f64| (secs * 1e6).round() / 1e6;
    transcript
        .segments
        .iter()
        .map(|segment| (round(segment.start_secs), round(segment.end_secs), segment.text.as_str()))
        .collect()
}

#[test]
fn after_a_pair_of_timestamps_the_next_window_begins_there() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(40.0, &[])?;
    assert_eq!(form.next_window(), task(0, 3000));
    // The window is out: nobody else gets it.
    assert_eq!(form.next_window(), None);
    let tokens =
        stage.script(&[Ok(0.0), Err(" one"), Ok(5.0), Ok(5.0), Err(" two"), Ok(9.0), Ok(9.0), Err(" three")]);
    let first = WindowTask { track: 0, seek_frames: 0, n_frames: 3000 };
    form.accept(first, &result(&tokens), &no_words)?;
    assert_eq!(form.decoded_secs(), 9.0);
    // What came after the last pair is heard again.
    let second = form.next_window();
    assert_eq!(second, task(900, 3000));
    assert_eq!(second.map(|task| form.window_secs(task)), Some(9.0));
    let tokens = stage.script(&[Ok(0.0), Err(" three"), Ok(30.0)]);
    form.accept(WindowTask { track: 0, seek_frames: 900, n_frames: 3000 }, &result(&tokens), &no_words)?;
    assert_eq!(form.next_window(), task(3900, 100));
    form.accept(WindowTask { track: 0, seek_frames: 3900, n_frames: 100 }, &result(&[]), &no_words)?;
    assert_eq!(form.next_window(), None);
    let transcript = form.finish(40.0, Some(0.9));
    assert_eq!(times(&transcript), [(0.0, 5.0, " one"), (5.0, 9.0, " two"), (9.0, 39.0, " three")]);
    assert_eq!(transcript.text, "one two three");
    let ids: Vec<_> = transcript.segments.iter().map(|segment| segment.id).collect();
    let seeks: Vec<_> = transcript.segments.iter().map(|segment| segment.seek_secs).collect();
    assert_eq!((ids, seeks), (vec![0, 1, 2], vec![0.0, 0.0, 9.0]));
    assert_eq!(transcript.segments[1].token_ids, stage.script(&[Ok(5.0), Err(" two"), Ok(9.0)]));
    assert_eq!(transcript.segments[1].token_logprobs.len(), transcript.segments[1].token_ids.len());
    assert_eq!((transcript.language.as_deref(), transcript.language_probability), (Some("ps"), Some(0.9)));
    Ok(())
}

#[test]
fn a_single_timestamp_at_the_end_uses_the_window_up() -> Outcome {
    let stage = Stage::usual()?;
    for tokens in [
        stage.script(&[Ok(1.0), Err(" one"), Ok(4.0)]),
        stage.script(&[Ok(1.0), Err(" one"), Ok(2.0), Ok(2.5), Err(" two"), Ok(4.0)]),
    ] {
        let mut form = stage.recording(50.0, &[])?;
        answer(&mut form, &result(&tokens))?;
        assert_eq!(form.next_window(), task(3000, 2000));
        let transcript = form.finish(50.0, None);
        assert_eq!(transcript.segments.last().map(|segment| segment.end_secs), Some(4.0));
    }
    Ok(())
}

#[test]
fn speech_after_a_single_timestamp_is_decoded_again() -> Outcome {
    let stage = Stage::usual()?;
    let tokens = stage.script(&[Ok(0.0), Err(" one"), Ok(10.0)]);
    for (speech, next) in [
        (span(0.0, 25.0), 1000),
        (span(20.0, 21.0), 1000),
        // Too little of it; within the margin; beyond the window.
        (span(20.0, 20.2), 3000),
        (span(9.0, 10.6), 3000),
        (span(30.0, 35.0), 3000),
    ] {
        let mut form = stage.recording(50.0, &[speech])?;
        answer(&mut form, &result(&tokens))?;
        assert_eq!(form.next_window().map(|task| task.seek_frames), Some(next), "{speech:?}");
    }
    // A window that hardly moved would be heard again for nothing.
    let mut form = stage.recording(50.0, &[span(0.0, 50.0)])?;
    answer(&mut form, &result(&stage.script(&[Ok(0.0), Err(" one"), Ok(0.9)])))?;
    assert_eq!(form.next_window(), task(3000, 2000));
    Ok(())
}

#[test]
fn text_without_timestamps_lasts_as_long_as_its_window() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(37.0, &[span(0.0, 37.0)])?;
    answer(&mut form, &result(&stage.say(" one")))?;
    answer(&mut form, &result(&stage.script(&[Ok(2.0), Err(" two")])))?;
    assert_eq!(form.next_window(), None);
    assert_eq!(times(&form.finish(37.0, None)), [(0.0, 30.0, " one"), (32.0, 37.0, " two")]);
    // The same where no timestamps are predicted.
    let stage = Stage::new(DecodeOptions::default(), false)?;
    let mut form = stage.recording(12.0, &[span(0.0, 12.0)])?;
    answer(&mut form, &result(&stage.say(" one two")))?;
    assert_eq!(form.next_window(), None);
    let transcript = form.finish(12.0, None);
    assert_eq!(times(&transcript), [(0.0, 12.0, " one two")]);
    assert_eq!((transcript.coverage.decoded_secs, transcript.coverage.gaps.len()), (12.0, 0));
    Ok(())
}

#[test]
fn silence_is_skipped_whatever_was_written() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(45.0, &[span(2.0, 8.0)])?;
    let tokens = stage.script(&[Ok(0.0), Err(" Thanks"), Ok(3.0), Ok(3.0)]);
    answer(&mut form, &WindowResult { is_silence: true, no_speech_prob: 0.9, ..result(&tokens) })?;
    assert_eq!(form.next_window(), task(3000, 1500));
    let transcript = form.finish(45.0, None);
    assert_eq!((transcript.text.as_str(), transcript.segments.len()), ("", 0));
    let gap = super::super::Gap { start_secs: 2.0, end_secs: 8.0, reason: GapReason::NoSpeech };
    assert_eq!(transcript.coverage.gaps, [gap]);
    Ok(())
}

#[test]
fn speech_without_text_is_reported_with_its_reason() -> Outcome {
    let stage = Stage::usual()?;
    let reason = |speech: Span, tokens: Vec<u32>, reached_limit| -> Result<Vec<GapReason>, Error> {
        let mut form = stage.recording(30.0, &[speech])?;
        answer(&mut form, &WindowResult { reached_limit, ..result(&tokens) })?;
        assert_eq!(form.next_window(), None);
        Ok(form.finish(30.0, None).coverage.gaps.iter().map(|gap| gap.reason).collect())
    };
    let (long, short) = (span(1.0, 29.0), span(1.0, 3.0));
    let blank = stage.script(&[Ok(0.0), Err(" "), Ok(3.0)]);
    assert_eq!(reason(long, Vec::new(), false)?, [GapReason::Empty]);
    assert_eq!(reason(short, blank, false)?, [GapReason::Empty]);
    assert_eq!(reason(long, vec![at(0.0), at(3.0)], false)?, [GapReason::Empty]);
    assert_eq!(reason(long, Vec::new(), true)?, [GapReason::TokenLimit]);
    // Text to the end of the window leaves nothing open.
    assert_eq!(reason(long, stage.script(&[Ok(0.0), Err(" one")]), false)?, []);
    // A window cut off after a pair goes on from the pair: nothing is lost, nothing is said about a limit.
    let mut form = stage.recording(40.0, &[span(0.0, 8.0)])?;
    let tokens = stage.script(&[Ok(0.0), Err(" one"), Ok(8.0), Ok(8.0), Err(" two")]);
    answer(&mut form, &WindowResult { reached_limit: true, ..result(&tokens) })?;
    assert_eq!(form.next_window(), task(800, 3000));
    assert_eq!(form.finish(40.0, None).coverage.gaps, []);
    Ok(())
}

#[test]
fn text_of_white_space_is_no_segment() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(30.0, &[])?;
    let tokens = stage.script(&[Ok(0.0), Err(" "), Ok(2.0), Ok(2.0), Err(" one"), Ok(4.0)]);
    answer(&mut form, &result(&tokens))?;
    assert_eq!(times(&form.finish(30.0, None)), [(2.0, 4.0, " one")]);
    Ok(())
}

#[test]
fn a_window_that_does_not_move_is_used_up() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(50.0, &[span(0.0, 50.0)])?;
    answer(&mut form, &result(&stage.script(&[Ok(0.0), Ok(0.0), Err(" one")])))?;
    assert_eq!(form.next_window(), task(3000, 2000));
    Ok(())
}

#[test]
fn times_after_the_end_of_the_audio_end_with_it() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(3.0, &[])?;
    let tokens = stage.script(&[Ok(0.0), Err(" one"), Ok(4.0), Ok(4.0), Err(" two"), Ok(9.0), Ok(9.0)]);
    answer(&mut form, &result(&tokens))?;
    assert_eq!(form.next_window(), None);
    assert_eq!(times(&form.finish(3.0, None)), [(0.0, 3.0, " one")]);
    Ok(())
}

#[test]
fn a_rest_is_dropped_only_if_it_is_short_and_silent() -> Outcome {
    let stage = Stage::usual()?;
    let tokens = stage.script(&[Ok(0.0), Err(" one"), Ok(30.0)]);
    for (secs, speech, next) in [
        (30.5, span(0.0, 30.0), None),
        (30.5, span(30.2, 30.4), task(3000, 50)),
        (31.2, span(0.0, 30.0), task(3000, 120)),
    ] {
        let mut form = stage.recording(secs, &[speech])?;
        answer(&mut form, &result(&tokens))?;
        assert_eq!(form.next_window(), next, "{secs} {speech:?}");
        if next.is_none() {
            assert!((form.decoded_secs() - secs).abs() < 1e-9);
        }
    }
    Ok(())
}

#[test]
fn tracks_decode_side_by_side_and_come_out_in_order() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.tracks(&[(0.0, 35.0), (40.0, 10.0), (60.0, 5.0)], &[])?;
    let tasks: Vec<_> = std::iter::from_fn(|| form.next_window()).collect();
    let places: Vec<_> = tasks.iter().map(|task| (task.track, task.seek_frames, task.n_frames)).collect();
    assert_eq!(places, [(0, 0, 3000), (1, 0, 1000), (2, 0, 500)]);
    for (task, text) in tasks.iter().zip([" one", " two", " three"]).rev() {
        form.accept(*task, &result(&stage.script(&[Ok(0.0), Err(text), Ok(2.0)])), &no_words)?;
    }
    // Its own context, not that of the tracks that were quicker.
    let rest = WindowTask { track: 0, seek_frames: 3000, n_frames: 500 };
    assert_eq!(form.next_window(), Some(rest));
    let said = stage.script(&[Ok(0.0), Err(" one"), Ok(2.0)]);
    assert_eq!(form.context(rest), [vec![313], said].concat());
    form.accept(rest, &result(&stage.script(&[Ok(0.0), Err(" four"), Ok(1.0)])), &no_words)?;
    let transcript = form.finish(65.0, None);
    assert_eq!(transcript.text, "one four two three");
    let starts: Vec<_> = transcript.segments.iter().map(|segment| segment.start_secs).collect();
    assert_eq!(starts, [0.0, 30.0, 40.0, 60.0]);
    Ok(())
}

/// The context before the second window after a first one with `result`.
fn second_context(stage: &Stage, result: &WindowResult) -> Result<Vec<u32>, Error> {
    let mut form = stage.recording(60.0, &[])?;
    answer(&mut form, result)?;
    let Some(task) = form.next_window() else { panic!("a second window") };
    Ok(form.context(task))
}

#[test]
fn what_was_said_is_shown_to_the_next_window_unless_it_was_hot_or_unwanted() -> Outcome {
    let mut stage = Stage::usual()?;
    let tokens = stage.script(&[Ok(0.0), Err(" one"), Ok(2.0), Ok(2.0), Err(" "), Ok(4.0)]);
    let shown = [vec![313], stage.script(&[Ok(0.0), Err(" one"), Ok(2.0)])].concat();
    assert_eq!(second_context(&stage, &result(&tokens))?, shown);
    let hot = |temperature| WindowResult { temperature, ..result(&tokens) };
    assert_eq!(second_context(&stage, &hot(0.5))?, shown);
    assert_eq!(second_context(&stage, &hot(0.6))?, NOTHING);
    let silence = WindowResult { is_silence: true, ..result(&tokens) };
    assert_eq!(second_context(&stage, &silence)?, NOTHING);
    stage.options.condition_on_previous_text = false;
    assert_eq!(second_context(&stage, &result(&tokens))?, NOTHING);
    // A prompt is about the first window then, hotwords are about all.
    stage.options.prompt = Some(" names ".to_owned());
    stage.options.hotwords = Some("Kabul".to_owned());
    let hotwords = [vec![313], stage.say(" Kabul")].concat();
    assert_eq!(second_context(&stage, &result(&tokens))?, hotwords);
    let form = stage.recording(60.0, &[])?;
    let first = WindowTask { track: 0, seek_frames: 0, n_frames: 3000 };
    assert_eq!(form.context(first), [hotwords, stage.say(" names")].concat());
    Ok(())
}

#[test]
fn silence_keeps_the_context() -> Outcome {
    let stage = Stage::usual()?;
    let mut form = stage.recording(95.0, &[])?;
    let tokens = stage.script(&[Ok(0.0), Err(" one"), Ok(2.0)]);
    answer(&mut form, &result(&tokens))?;
    // Silence is judged on the last attempt's text, which may be a hot one: nothing was said either way.
    let silence = WindowResult { is_silence: true, temperature: 1.0, ..result(&stage.say(" you")) };
    answer(&mut form, &silence)?;
    let Some(task) = form.next_window() else { panic!("a third window") };
    assert_eq!(form.context(task), [vec![313], tokens].concat());
    Ok(())
}

#[test]
fn context_keeps_its_end_and_stays_within_the_limit() -> Outcome {
    let mut stage = Stage::usual()?;
    let first = WindowTask { track: 0, seek_frames: 0, n_frames: 3000 };
    for (n_prompt, n_hotwords) in [(0, 0), (1000, 0), (0, 110), (1000, 110), (222, 0), (223, 1), (300, 40)] {
        let words = |n: usize| (n > 0).then(|| "q".repeat(n));
        (stage.options.prompt, stage.options.hotwords) = (words(n_prompt), words(n_hotwords));
        let form = stage.recording(60.0, &[])?;
        let context = form.context(first);
        assert!(context.len() <= 1 + 223, "{n_prompt} {n_hotwords}: {}", context.len());
        assert_eq!(context.is_empty(), n_prompt + n_hotwords == 0);
        assert!(context.first().is_none_or(|id| *id == 313));
        let full = n_prompt + n_hotwords > 0 && n_prompt >= 223;
        assert!(!full || context.len() == 1 + 223, "{n_prompt} {n_hotwords}: {}", context.len());
    }
    stage.options.prompt = Some(format!("{} end", "q".repeat(500)));
    stage.options.hotwords = None;
    let context = stage.recording(60.0, &[])?.context(first);
    assert!(context.ends_with(&stage.say(" end")));
    // White space is no prompt.
    stage.options.prompt = Some("  \n".to_owned());
    assert_eq!(stage.recording(60.0, &[])?.context(first), NOTHING);
    Ok(())
}

#[test]
fn what_cannot_precede_a_text_is_refused() -> Outcome {
    let mut stage = Stage::usual()?;
    let refusal = |stage: &Stage| match stage.recording(60.0, &[]) {
        Err(Error::Option { option, message }) => Some((option, message)),
        Err(error) => panic!("{error}"),
        Ok(_) => None,
    };
    // The space before them is a token, too. Half of the 223 tokens that may precede a text.
    stage.options.hotwords = Some("q".repeat(110));
    assert_eq!(refusal(&stage), None);
    stage.options.hotwords = Some("q".repeat(111));
    let (option, message) = refusal(&stage).unwrap_or_default();
    assert_eq!(option, "hotwords");
    for part in ["112 tokens", "the 111", "leave some out"] {
        assert!(message.contains(part), "{message}");
    }
    // A vocabulary without the token cannot be prompted.
    Arc::make_mut(&mut stage.special).previous = None;
    for (prompt, hotwords, refused) in [
        (Some("names"), None, Some("prompt")),
        (None, Some("names"), Some("hotwords")),
        (Some(" "), None, None),
    ] {
        (stage.options.prompt, stage.options.hotwords) =
            (prompt.map(str::to_owned), hotwords.map(str::to_owned));
        let refusal = refusal(&stage);
        assert_eq!(refusal.as_ref().map(|(option, _)| *option), refused);
        assert!(refusal.is_none_or(|(_, message)| message.contains("leave it out")));
    }
    Ok(())
}

fn words_of(segment: &Segment) -> Vec<(&str, f64, f64)> {
    let round = |secs: f64| (secs * 1e6).round() / 1e6;
    segment
        .words
        .iter()
        .flatten()
        .map(|word| (word.text.as_str(), round(word.start_secs), round(word.end_secs)))
        .collect()
}

#[test]
fn words_get_the_times_of_their_tokens_in_the_recording() -> Outcome {
    let options = DecodeOptions { timestamps: Timestamps::Word, ..DecodeOptions::default() };
    let stage = Stage::new(options, true)?;
    let mut form = stage.tracks(&[(100.0, 10.0)], &[])?;
    let Some(task) = form.next_window() else { panic!("a window") };
    let tokens = stage.script(&[Ok(0.0), Err(" a b"), Ok(2.0), Ok(2.0), Err(" c."), Ok(4.0)]);
    let asked = std::cell::RefCell::new(Vec::new());
    form.accept(task, &result(&tokens), &|text_ids: &[u32]| {
        *asked.borrow_mut() = text_ids.to_vec();
        // Half a second per token, from 0.2 s on.
        let start = |i: usize| 0.2 + 0.25 * i as f64;
        Ok(about((0..text_ids.len()).map(|i| (start(i), start(i + 1)))))
    })?;
    assert_eq!(*asked.borrow(), stage.say(" a b c."), "text of all segments, no times");
    let transcript = form.finish(110.0, None);
    let [one, two] = transcript.segments.as_slice() else { panic!("{transcript:?}") };
    assert_eq!(words_of(one), [(" a", 100.2, 100.7), (" b", 100.7, 101.2)]);
    assert_eq!(words_of(two).iter().map(|word| word.0).collect::<Vec<_>>(), [" c."]);
    let probability = one.words.as_ref().map(|words| words[0].probability);
    assert!(probability.is_some_and(|probability| (probability - (-0.5f32).exp()).abs() < 1e-6));
    Ok(())
}

#[test]
fn nobody_aligns_a_window_without_text() -> Outcome {
    let options = DecodeOptions { timestamps: Timestamps::Word, ..DecodeOptions::default() };
    let stage = Stage::new(options, true)?;
    let mut form = stage.recording(70.0, &[])?;
    answer(&mut form, &result(&[]))?;
    answer(&mut form, &WindowResult { is_silence: true, ..result(&stage.say(" one")) })?;
    Ok(())
}

#[test]
fn texts_are_joined_by_spaces_only_where_the_language_has_them() -> Outcome {
    let stage = Stage::new(DecodeOptions::default(), false)?;
    for (language, text) in [("ps", "one two"), ("ja", "onetwo")] {
        let mut form = stage.recording(60.0, &[])?;
        form.plan.language = Some(language.to_owned());
        answer(&mut form, &result(&stage.say("one")))?;
        answer(&mut form, &result(&stage.say("two")))?;
        assert_eq!(form.finish(60.0, None).text, text);
    }
    Ok(())
}

/// What a made-up decoder does with one window.
#[derive(Debug, Clone)]
struct Whim {
    tokens: Vec<u32>,
    is_silence: bool,
    reached_limit: bool,
    temperature: f32,
    /// Seconds between the starts of text tokens.
    steps: Vec<f64>,
}

fn whim() -> impl Strategy<Value = Whim> {
    let text =
        prop_oneof![Just(vec![220, 64]), Just(vec![65]), Just(vec![13]), Just(vec![220]), Just(vec![148])];
    let time = prop_oneof![(0u32..=1500).prop_map(|step| vec![BEGIN + step]), Just(vec![BEGIN])];
    let pair = (0u32..=1500).prop_map(|step| vec![BEGIN + step, BEGIN + step]);
    let part = prop_oneof![3 => text, 2 => time, 2 => pair, 1 => Just(vec![305])];
    let tokens = prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat());
    let steps = prop::collection::vec(prop_oneof![Just(0.0), 0.0..0.5, 0.0..6.0], 40);
    (tokens, prop::bool::weighted(0.1), any::<bool>(), prop_oneof![Just(0.0f32), Just(1.0)], steps).prop_map(
        |(tokens, is_silence, reached_limit, temperature, steps)| Whim {
            tokens,
            is_silence,
            reached_limit,
            temperature,
            steps,
        },
    )
}

/// Stretches one after the other with pauses, in frames: (pause, length).
fn layout() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0usize..500, 1usize..9000), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a decoder emits: the loop ends, windows go forward, segments are in order inside the recording.
    #[test]
    fn any_decoder_comes_to_an_end_and_leaves_an_ordered_transcript(
        layout in layout(),
        whims in prop::collection::vec(whim(), 1..12),
        spoken in prop::collection::vec((0.0..200.0f64, 0.0..20.0f64), 0..4),
        timestamps in any::<bool>(),
        words in any::<bool>(),
    ) {
        thread_local! {
            static STAGE: std::cell::RefCell<Stage> =
                std::cell::RefCell::new(Stage::usual().unwrap_or_else(|error| panic!("{error}")));
        }
        STAGE.with_borrow_mut(|stage| -> Result<(), TestCaseError> {
            stage.timestamps = timestamps;
            stage.options.timestamps = if words { Timestamps::Word } else { Timestamps::Segment };
            let mut start = 0;
            let tracks: Vec<(f64, f64)> = layout.iter().map(|(pause, n_frames)| {
                let place = start + pause;
                start = place + n_frames;
                (place as f64 * 0.01, *n_frames as f64 * 0.01)
            }).collect();
            let duration = start as f64 * 0.01;
            let speech: Vec<Span> = spoken.iter().map(|(start, secs)| span(*start, start + secs)).collect();
            let fail = |error: Error| TestCaseError::fail(error.to_string());
            let mut form = stage.tracks(&tracks, &speech).map_err(fail)?;
            let mut reached = vec![0; tracks.len()];
            let mut n_windows = 0;
            while let Some(task) = form.next_window() {
                let whim = &whims[n_windows % whims.len()];
                n_windows += 1;
                let n_track = layout[task.track].1;
                prop_assert!(task.seek_frames >= reached[task.track], "{task:?} after {reached:?}");
                prop_assert!(task.n_frames > 0 && task.seek_frames + task.n_frames <= n_track, "{task:?}");
                reached[task.track] = task.seek_frames + 1;
                prop_assert!(form.context(task).len() <= 224);
                let result = WindowResult {
                    is_silence: whim.is_silence,
                    reached_limit: whim.reached_limit,
                    temperature: whim.temperature,
                    ..result(&whim.tokens)
                };
                let window = task.n_frames as f64 * 0.01;
                form.accept(task, &result, &|text_ids: &[u32]| {
                    let mut place = 0.0f64;
                    let starts: Vec<f64> = (0..=text_ids.len()).map(|i| {
                        place = (place + whim.steps[i % whim.steps.len()]).min(window);
                        place
                    }).collect();
                    Ok(about(starts.windows(2).map(|pair| (pair[0], pair[1]))))
                }).map_err(fail)?;
            }
            let total: usize = layout.iter().map(|(_, n_frames)| n_frames).sum();
            prop_assert!((form.decoded_secs() - total as f64 * 0.01).abs() < 1e-6);
            let transcript = form.finish(duration, None);
            let mut edge = 0.0;
            for (id, segment) in transcript.segments.iter().enumerate() {
                prop_assert_eq!(segment.id, id);
                prop_assert!(segment.start_secs >= edge - 1e-9, "{} < {edge}: {segment:?}", segment.start_secs);
                prop_assert!(segment.end_secs >= segment.start_secs && segment.end_secs <= duration);
                prop_assert!(!segment.text.trim().is_empty());
                prop_assert_eq!(segment.token_ids.len(), segment.token_logprobs.len());
                edge = segment.end_secs;
            }
            let edges: Vec<f64> = transcript.segments.iter().flat_map(|segment| segment.words.iter().flatten())
                .flat_map(|word| [word.start_secs, word.end_secs]).collect();
            prop_assert!(edges.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9), "{edges:?}");
            prop_assert!(edges.iter().all(|edge| (-1e-9..=duration + 1e-9).contains(edge)), "{edges:?}");
            let coverage = transcript.coverage;
            prop_assert!(coverage.decoded_secs <= coverage.speech_secs + 1e-6);
            Ok(())
        })?;
    }
}

#[test]
fn a_last_window_may_be_shorter_than_what_two_hear() -> Outcome {
    // Its only word was heard by the one before, which knows it as longer than the recording is.
    for (last, expected) in [(" two", "one two"), ("", "one two")] {
        let stage =
            Stage::new(DecodeOptions { timestamps: Timestamps::Word, ..DecodeOptions::default() }, false)?;
        let mut form = stage.tracks(&[], &[])?;
        form.plan.knows_times = true;
        for stretch in overlapping(&[span(0.0, 10.0), span(10.0, 10.06)]) {
            form.add_track(stretch, (stretch.heard.duration_secs() * 100.0).round() as usize);
        }
        for (text, from, to) in [(" one two", 9.0, 10.4), (last, 0.1, 0.56)] {
            let ids = stage.say(text);
            let secs = (to - from) / ids.len().max(1) as f64;
            let align = |ids: &[u32]| {
                let times =
                    about((0..ids.len()).map(|i| (from + i as f64 * secs, from + (i + 1) as f64 * secs)));
                Ok(TokenTimes { are_exact: true, ..times })
            };
            let Some(task) = form.next_window() else { panic!("no window is left") };
            form.accept(task, &result(&ids), &align)?;
        }
        let transcript = form.finish(10.06, None);
        assert_eq!(transcript.text, expected);
        let mut latest = 0.0;
        for word in transcript.segments.iter().flat_map(|segment| segment.words.iter().flatten()) {
            assert!(word.start_secs >= latest && word.end_secs <= 10.06, "{word:?}");
            latest = word.end_secs;
        }
    }
    Ok(())
}

/// Three windows of a speaker who does not pause, of which each two hear a second together, in the order `order`.
fn overlapped(
    options: DecodeOptions,
    knows_times: bool,
    texts: [&str; 3],
    order: [usize; 3],
) -> Result<(Transcript, Vec<String>), Error> {
    let stage = Stage::new(options, false)?;
    let spoken = [span(0.0, 10.0), span(10.0, 20.0), span(20.0, 24.0)];
    let mut form = stage.tracks(&[], &[span(0.0, 24.0)])?;
    form.plan.knows_times = knows_times;
    let stretches = overlapping(&spoken);
    for stretch in &stretches {
        form.add_track(*stretch, (stretch.heard.duration_secs() * 100.0).round() as usize);
    }
    let tasks: Vec<_> = (0..3).filter_map(|_| form.next_window()).collect();
    let mut told = Vec::new();
    for at in order {
        let ids = stage.say(texts[at]);
        // As many tokens a second everywhere.
        let secs = stretches[at].heard.duration_secs() / ids.len() as f64;
        let align = |ids: &[u32]| {
            let times = about((0..ids.len()).map(|i| (i as f64 * secs, (i + 1) as f64 * secs)));
            Ok(TokenTimes { are_exact: knows_times, ..times })
        };
        form.accept(tasks[at], &result(&ids), &align)?;
        told.extend(form.take_text().into_iter().map(|part| part.delta));
    }
    assert!(form.is_all_done());
    Ok((form.finish(24.0, None), told))
}

#[test]
fn windows_that_overlap_tell_what_both_heard_once_in_any_order() -> Outcome {
    let texts = [" one two three four fi", " hree four five six seven", " six seven eight"];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
        let (transcript, told) = overlapped(DecodeOptions::default(), false, texts, order)?;
        assert_eq!(transcript.text, "one two three four five six seven eight", "{order:?}");
        assert_eq!(told.concat(), transcript.text);
        assert_eq!(
            times(&transcript).iter().map(|(start, end, _)| (*start, *end)).collect::<Vec<_>>(),
            [(0.0, 10.0), (10.0, 20.0), (20.0, 24.0)]
        );
        assert_eq!(transcript.coverage.gaps, []);
    }
    Ok(())
}

#[test]
fn a_translation_has_the_spaces_of_its_own_language() -> Outcome {
    for (spoken, to, text) in [("ja", "en", "Hello. World."), ("en", "ja", "Hello.World.")] {
        let options = DecodeOptions {
            task: crate::Task::Translate,
            to_language: Some(to.to_owned()),
            ..DecodeOptions::default()
        };
        let stage = Stage::new(options, false)?;
        let mut form = stage.tracks(&[(0.0, 2.0), (2.0, 2.0)], &[])?;
        form.plan.language = Some(spoken.to_owned());
        for text in ["Hello.", "World."] {
            answer(&mut form, &result(&stage.say(text)))?;
        }
        let transcript = form.finish(4.0, None);
        assert_eq!((transcript.text.as_str(), transcript.written_language()), (text, Some(to)));
    }
    Ok(())
}

#[test]
fn words_of_windows_that_overlap_have_their_times_and_sentences_end() -> Outcome {
    let options = DecodeOptions { timestamps: Timestamps::Word, ..DecodeOptions::default() };
    let texts = [" One two. Three four", " four five six. Seven", " seven eight."];
    let (transcript, _) = overlapped(options, true, texts, [2, 0, 1])?;
    assert_eq!(transcript.text, "One two. Three four five six. Seven eight.");
    let segments: Vec<_> = transcript.segments.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(segments, [" One two.", " Three four", " five six.", " Seven", " eight."]);
    let mut latest = 0.0;
    for segment in &transcript.segments {
        let words = segment.words.as_deref().unwrap_or_default();
        assert_eq!(words.iter().map(|word| word.text.as_str()).collect::<String>(), segment.text);
        for word in words {
            assert!(word.start_secs >= latest && word.end_secs >= word.start_secs, "{word:?}");
            latest = word.end_secs;
        }
    }
    assert!(latest <= 24.0);
    Ok(())
}

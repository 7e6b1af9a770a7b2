//! The step loop with a tiny model.

use std::collections::BTreeMap;

use candle_core::Device;

use super::*;
use crate::{Bundle, Precision, Transcriber};

const OFF: Thresholds = Thresholds { compression_ratio: None, logprob: None, no_speech: None };
const PROMPT: [u32; 4] = [301, 308, 311, 315];

fn transcriber() -> Result<Transcriber, Error> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
    Transcriber::load(Bundle::open(dir.as_ref())?, &Device::Cpu)
}

fn request(transcriber: &Transcriber, strategy: Strategy) -> Result<WindowRequest, Error> {
    let encoded = transcriber.encode(transcriber.window_features(&[]))?;
    Ok(request_about(transcriber.listen(&encoded)?, transcriber, strategy))
}

fn request_about(cross: Arc<CrossCache>, transcriber: &Transcriber, strategy: Strategy) -> WindowRequest {
    WindowRequest {
        cross,
        draft: None,
        prompt: PROMPT.to_vec(),
        start_index: 0,
        rules: Arc::new(transcriber.rules(false)),
        attempts: vec![Attempt { temperature: 0.0, strategy }],
        thresholds: OFF,
        max_new_tokens: 20,
        draft_tokens: 3,
        seed: 1,
    }
}

/// What a step costs, without a clock: each row brings the one token that its cache has not seen, whatever
/// it has written so far, so that decoding is linear in tokens.
#[test]
fn a_step_computes_one_position_per_row() -> Result<(), Error> {
    let transcriber = transcriber()?;
    let mut session = transcriber.session()?;
    let strategies = [
        Strategy::Greedy,
        Strategy::Beam { size: 3, patience: None, length_penalty: 1.0 },
        Strategy::Sample { temperature: 1.0, best_of: 2, length_penalty: 1.0 },
    ];
    for (id, strategy) in strategies.into_iter().enumerate() {
        session.join(id as u64, WindowRequest { draft_tokens: 0, ..request(&transcriber, strategy)? })?;
    }
    assert!(session.begin_waiting().is_empty());
    // The prompt is computed once per window, not once per row.
    let n_first: usize =
        session.groups.iter().flat_map(|group| &group.rows).map(|row| row.pending.len()).sum();
    assert_eq!(n_first, 3 * PROMPT.len());
    session.step()?;
    let mut n_steps = 1;
    while !session.is_empty() {
        for group in &session.groups {
            assert_eq!(group.rows.len(), group.window.n_rows());
            for row in &group.rows {
                assert_eq!(row.pending, row.tokens[n_steps - 1..], "only what the cache has not seen");
                assert_eq!(row.cache.n_positions(), PROMPT.len() + n_steps - 1);
            }
        }
        session.step()?;
        n_steps += 1;
    }
    assert!(n_steps <= 20, "{n_steps} steps for 20 tokens");
    Ok(())
}

#[test]
fn windows_that_cannot_be_decoded_are_refused_when_they_join() -> Result<(), Error> {
    let transcriber = transcriber()?;
    let mut session = transcriber.session()?;
    let usual = || request(&transcriber, Strategy::Greedy);
    let beams = |size| Strategy::Beam { size, patience: None, length_penalty: 1.0 };
    for (what, broken) in [
        ("too long a prompt", WindowRequest { prompt: vec![301; 448], ..usual()? }),
        ("no prompt", WindowRequest { prompt: Vec::new(), ..usual()? }),
        ("a start after the prompt", WindowRequest { start_index: 4, ..usual()? }),
        ("no attempts", WindowRequest { attempts: Vec::new(), ..usual()? }),
        ("an unknown token", WindowRequest { prompt: vec![301, 1 << 20], ..usual()? }),
        ("no room", WindowRequest { max_new_tokens: 0, ..usual()? }),
        ("no beams", request(&transcriber, beams(0))?),
    ] {
        assert!(matches!(session.join(7, broken), Err(Error::Option { .. })), "{what}");
    }
    assert!(session.is_empty() && session.step()?.ended.is_empty());
    // The last prompt that leaves room for one token.
    session.join(7, WindowRequest { prompt: vec![301; 447], ..usual()? })?;
    let ended = session.step()?.ended;
    assert!(
        matches!(ended.as_slice(), [(7, Ok(result))] if result.reached_limit && result.tokens.len() == 1)
    );
    Ok(())
}

/// Alone, a window's rows read guesses; beside seven others they do not.
#[test]
fn guesses_save_steps_and_change_nothing() -> Result<(), Error> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
    let (mut n_steps, mut n_tokens) = (0, 0);
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        if precision.check(&Device::Cpu).is_err() {
            continue;
        }
        let transcriber = Transcriber::load_in(precision, Bundle::open(dir.as_ref())?, &Device::Cpu)?;
        let encoded = transcriber.encode(transcriber.window_features(&[]))?;
        let cross = transcriber.listen(&encoded)?;
        for earlier in [vec![], vec![65, 66, 67, 68, 65, 66, 67, 90], (60..110).collect()] {
            let about = |max_new_tokens| {
                let usual = request_about(cross.clone(), &transcriber, Strategy::Greedy);
                let prompt = [&earlier, usual.prompt.as_slice()].concat();
                WindowRequest { start_index: earlier.len(), prompt, max_new_tokens, ..usual }
            };
            for max_new_tokens in [1, 2, 3, 40, 41, 42] {
                let mut session = transcriber.session()?;
                (0..8).try_for_each(|id| session.join(id, about(max_new_tokens)))?;
                let together = run(&mut session)?.results;
                session.join(0, about(max_new_tokens))?;
                let mut alone = BTreeMap::new();
                while !session.is_empty() {
                    n_steps += 1;
                    for (id, result) in session.step()?.ended {
                        alone.insert(id, result?);
                    }
                }
                assert_eq!(
                    alone.get(&0),
                    together.get(&0),
                    "{precision}: {max_new_tokens} after {earlier:?}"
                );
                n_tokens += alone[&0].tokens.len();
                // Beside rows that guess nothing, whose number changes.
                let sampled =
                    || WindowRequest { attempts: vec![sample(0.8, 2)], ..about(max_new_tokens / 2 + 1) };
                session.join(1, sampled())?;
                let sampled_alone = run(&mut session)?.results;
                session.join(1, sampled())?;
                session.step()?;
                session.join(0, about(max_new_tokens))?;
                let mixed = run(&mut session)?.results;
                assert_eq!(
                    mixed.get(&0),
                    together.get(&0),
                    "{precision}: {max_new_tokens} after {earlier:?}"
                );
                assert!(mixed.get(&1).is_none_or(|result| Some(result) == sampled_alone.get(&1)));
            }
        }
    }
    assert!(n_steps * 4 < n_tokens * 3, "{n_steps} steps for {n_tokens} tokens");
    Ok(())
}

/// Steps that the windows of a session take, and what they decode to.
fn count(session: &mut Session) -> Result<(usize, BTreeMap<u64, WindowResult>), Error> {
    let (mut n_steps, mut results) = (0, BTreeMap::new());
    while !session.is_empty() {
        n_steps += 1;
        for (id, result) in session.step()?.ended {
            results.insert(id, result?);
        }
    }
    Ok((n_steps, results))
}

/// Guesses of the model itself are all right, those of others sometimes or never, and nobody can tell but by the steps.
#[test]
fn a_draft_saves_steps_and_changes_nothing() -> Result<(), Error> {
    let fixture: &std::path::Path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80").as_ref();
    let transcriber = transcriber()?;
    let encoded = transcriber.encode(transcriber.window_features(&[]))?;
    let cross = transcriber.listen(&encoded)?;
    let architecture = transcriber.architecture();
    let random = crate::SpeechModel::load(&crate::params::Params::seeded(5, &Device::Cpu), architecture)?;
    let half = Transcriber::load(Bundle::open(fixture)?.with_decoder_blocks(&[0])?, &Device::Cpu)?;
    let about = |draft: Option<&Arc<Decoder>>, id: u64| -> Result<WindowRequest, Error> {
        let usual = request_about(cross.clone(), &transcriber, Strategy::Greedy);
        let draft = draft.map(|draft| DraftWindow::of(draft, &encoded));
        let prompt = [vec![65 + id as u32; id as usize], PROMPT.to_vec()].concat();
        Ok(WindowRequest { draft, prompt, start_index: id as usize, max_new_tokens: 60, ..usual })
    };
    let run = |draft: Option<&Arc<Decoder>>, ids: std::ops::Range<u64>| {
        let session = transcriber.session()?;
        let mut session = match draft {
            Some(draft) => session.with_draft(draft.clone()),
            None => session,
        };
        for id in ids {
            let usual = about(draft, id)?;
            session.join(id, WindowRequest { draft_tokens: if draft.is_some() { 3 } else { 0 }, ..usual })?;
        }
        count(&mut session)
    };
    let (itself, half) = (transcriber.model().decoder()?, half.model().decoder()?);
    for ids in [0..1, 1..2, 0..3, 0..9] {
        let (n_plain, plain) = run(None, ids.clone())?;
        for draft in [itself, half, random.decoder()?] {
            let (n_steps, results) = run(Some(draft), ids.clone())?;
            assert_eq!(results, plain, "{ids:?}");
            assert!(n_steps <= n_plain);
        }
        let (n_steps, _) = run(Some(itself), ids.clone())?;
        // Four tokens in the second step, six and eight in those that follow; three windows share the room of one.
        match ids.end - ids.start {
            1 => assert!(n_steps * 5 < n_plain, "{n_steps} steps of {n_plain}"),
            3 => assert!(n_steps * 2 <= n_plain + 2, "{n_steps} steps of {n_plain}"),
            _ => (),
        }
    }
    // With rules that forbid what it would say, and beside a window that samples.
    let limited = |draft: Option<&Arc<Decoder>>| -> Result<_, Error> {
        let session = transcriber.session()?;
        let mut session =
            draft.map_or_else(|| transcriber.session(), |draft| Ok(session.with_draft(draft.clone())))?;
        let said = count(&mut {
            let mut session = transcriber.session()?;
            session.join(0, about(None, 0)?)?;
            session
        })?
        .1;
        let rules = Rules { suppress: said[&0].tokens[..2].to_vec(), ..transcriber.rules(false) };
        session.join(0, WindowRequest { rules: Arc::new(rules), ..about(draft, 0)? })?;
        session.join(1, WindowRequest { attempts: vec![sample(0.8, 2)], ..about(draft, 1)? })?;
        count(&mut session)
    };
    assert_eq!(limited(Some(itself))?.1, limited(None)?.1);
    Ok(())
}

#[test]
fn a_draft_of_another_kind_is_refused() -> Result<(), Error> {
    let fixture = |name: &str| {
        Bundle::open(
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).as_ref(),
        )
    };
    let load =
        |draft| Transcriber::load_with_draft(Precision::F32, fixture("whisper-80")?, draft, &Device::Cpu);
    let half = load(fixture("whisper-80")?.with_decoder_blocks(&[0])?)?;
    assert_eq!(half.draft_has_own_encoder(), Some(false));
    for other in ["whisper-128", "canary"] {
        match load(fixture(other)?) {
            Err(Error::Option { option: "draft", .. }) => {}
            Err(error) => panic!("{other}: {error}"),
            Ok(_) => panic!("{other} was taken"),
        }
    }
    Ok(())
}

fn sample(temperature: f32, best_of: usize) -> Attempt {
    Attempt { temperature, strategy: Strategy::Sample { temperature, best_of, length_penalty: 1.0 } }
}

/// A window that no attempt satisfies: one row at first, then five, then five again.
fn rejected(cross: &Arc<CrossCache>, transcriber: &Transcriber, id: u64) -> WindowRequest {
    let usual = request_about(cross.clone(), transcriber, Strategy::Greedy);
    WindowRequest {
        attempts: vec![usual.attempts[0], sample(0.5, 5), sample(1.0, 5)],
        thresholds: Thresholds { logprob: Some(0.0), ..OFF },
        // Unequal, so that they come to wait one after the other.
        max_new_tokens: 4 + 2 * id as usize,
        seed: id,
        ..usual
    }
}

/// What a session held and gave until it was empty.
#[derive(Default)]
struct Run {
    /// Most rows that there were at once.
    max_rows: usize,
    /// Steps in which an attempt had no room.
    n_deferrals: usize,
    results: BTreeMap<u64, WindowResult>,
}

fn run(session: &mut Session) -> Result<Run, Error> {
    let mut run = Run::default();
    while !session.is_empty() {
        let first = session.waiting.front().map(|window| (window.id, window.attempt));
        let Step { n_rows, ended } = session.step()?;
        let n_held: usize = session.groups.iter().map(|group| group.rows.len()).sum();
        run.max_rows = run.max_rows.max(n_rows).max(n_held);
        let still = session.waiting.front().map(|window| (window.id, window.attempt));
        run.n_deferrals += usize::from(first.is_some() && still == first);
        for (id, result) in ended {
            run.results.insert(id, result?);
        }
    }
    Ok(run)
}

#[test]
fn fallbacks_wait_for_room_and_nobody_can_tell() -> Result<(), Error> {
    let transcriber = transcriber()?;
    let cross = transcriber.listen(&transcriber.encode(transcriber.window_features(&[]))?)?;
    let together = |max_rows: usize| {
        let mut session = transcriber.session()?.limited_to(max_rows);
        for id in 0..6 {
            session.join(id, rejected(&cross, &transcriber, id))?;
        }
        run(&mut session)
    };
    let free = together(usize::MAX)?;
    assert!(free.max_rows > 12 && free.n_deferrals == 0, "{} rows", free.max_rows);
    for max_rows in [12, 8, 5] {
        let limited = together(max_rows)?;
        assert!(limited.max_rows <= max_rows, "{} rows of {max_rows}", limited.max_rows);
        assert!(limited.n_deferrals > 0);
        assert_eq!(limited.results, free.results);
    }
    // Less than one window needs: each of them runs alone then.
    let mut session = transcriber.session()?.limited_to(3);
    for id in 0..3 {
        session.join(id, rejected(&cross, &transcriber, id))?;
    }
    while !session.is_empty() {
        for (id, result) in session.step()?.ended {
            assert_eq!(result?, free.results[&id]);
        }
        let n_rows: usize = session.groups.iter().map(|group| group.rows.len()).sum();
        assert!(n_rows <= 3 || session.groups.len() == 1, "{n_rows} rows of {}", session.groups.len());
    }
    Ok(())
}

#[test]
fn a_window_that_waits_is_not_passed_by() -> Result<(), Error> {
    let transcriber = transcriber()?;
    let mut session = transcriber.session()?.limited_to(4);
    let beams = Strategy::Beam { size: 3, patience: None, length_penalty: 1.0 };
    session.join(0, WindowRequest { max_new_tokens: 6, ..request(&transcriber, beams)? })?;
    session.step()?;
    session.join(1, WindowRequest { attempts: vec![sample(1.0, 2)], ..request(&transcriber, beams)? })?;
    // There is room for this one, but not for who came before it.
    session.join(2, request(&transcriber, Strategy::Greedy)?)?;
    assert_eq!(session.n_rows(), 3 + 2 + 1);
    let at_work = |session: &Session| session.groups.iter().map(|group| group.window.id).collect::<Vec<_>>();
    while at_work(&session) == [0] {
        session.step()?;
    }
    session.step()?;
    assert_eq!(at_work(&session), [1, 2]);
    assert_eq!((session.len(), run(&mut session)?.results.len()), (2, 2));
    Ok(())
}

#[test]
fn a_window_that_computes_nonsense_fails_alone() -> Result<(), Error> {
    let transcriber = transcriber()?;
    let encoded = transcriber.encode(transcriber.window_features(&[]))?;
    let cross = transcriber.listen(&encoded)?;
    let broken = transcriber.listen(&encoded.affine(f64::NAN, 0.0)?)?;
    let request = |cross: &Arc<CrossCache>, strategy| request_about(cross.clone(), &transcriber, strategy);
    for strategy in [
        Strategy::Greedy,
        Strategy::Beam { size: 3, patience: None, length_penalty: 1.0 },
        sample(1.0, 2).strategy,
    ] {
        let mut alone = transcriber.session()?;
        alone.join(0, request(&cross, strategy))?;
        let alone = run(&mut alone)?.results;
        let mut session = transcriber.session()?;
        session.join(0, request(&cross, strategy))?;
        session.join(1, request(&broken, strategy))?;
        session.join(2, request(&cross, Strategy::Greedy))?;
        let ended = session.step()?.ended;
        assert!(matches!(ended.as_slice(), [(1, Err(Error::NotFinite { .. }))]), "{ended:?}");
        let rest = run(&mut session)?.results;
        assert_eq!(rest.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(rest[&0], alone[&0], "{strategy:?}");
    }
    Ok(())
}

/// With a tokenizer whose decoder strips `letter` from both ends of a token, also of one that is nothing else.
fn with_decoder_that_fails_at(letter: char) -> Result<(tempfile::TempDir, Transcriber), Error> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let usual = tokenizer["decoder"].take();
    let strip = serde_json::json!({"type": "Strip", "content": letter, "start": 1, "stop": 1});
    tokenizer["decoder"] = serde_json::json!({"type": "Sequence", "decoders": [strip, usual]});
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let transcriber = Transcriber::load(Bundle::open(dir.path())?, &Device::Cpu)?;
    Ok((dir, transcriber))
}

#[test]
fn a_window_whose_text_cannot_be_spelled_fails_alone() -> Result<(), Error> {
    let transcriber = transcriber()?;
    let long = |prompt: &[u32]| -> Result<WindowRequest, Error> {
        let usual = request(&transcriber, Strategy::Greedy)?;
        Ok(WindowRequest { prompt: prompt.to_vec(), max_new_tokens: 60, ..usual })
    };
    let prompts: [&[u32]; 3] = [&[301, 308, 311, 315], &[301, 40, 258, 315], &[301, 75, 270, 9, 33, 315]];
    let join_all = |session: &mut Session| -> Result<(), Error> {
        prompts.iter().zip(0..).try_for_each(|(prompt, id)| session.join(id, long(prompt)?))
    };
    let mut session = transcriber.session()?;
    join_all(&mut session)?;
    let good = run(&mut session)?.results;
    let texts: Vec<String> = good
        .values()
        .map(|result| transcriber.tokenizer().decode(&result.tokens))
        .collect::<Result<_, _>>()?;
    // A letter of the second text that the others do not have.
    let is_own = |c: &char| c.is_ascii() && !texts[0].contains(*c) && !texts[2].contains(*c);
    let own = texts[1].chars().find(is_own);
    let own = own.unwrap_or_else(|| panic!("the texts are too much alike: {texts:?}"));

    let (_dir, failing) = with_decoder_that_fails_at(own)?;
    let mut session = failing.session()?;
    join_all(&mut session)?;
    let mut ended = BTreeMap::new();
    while !session.is_empty() {
        ended.extend(session.step()?.ended);
    }
    assert!(matches!(ended.remove(&1), Some(Err(Error::Tokenizer(_)))), "{own:?} in {texts:?}");
    for (id, result) in ended {
        assert_eq!(result?, good[&id]);
    }
    Ok(())
}

//! Texts that are spoken side by side: their clauses share batches, and each is heard as soon as it is said.

use std::collections::{BTreeMap, VecDeque};

use audio::Features;

use super::row::{Row, step};
use super::tempo::Tempo;
use super::{Speech, Synthesizer};
use crate::vocoder::VocoderStream;
use crate::worker::{StepReport, Update, Worker};
use crate::{Error, Progress};

/// Clauses of one text that are said at once: the later ones wait to be heard.
const MAX_AHEAD: usize = 4;

/// What became of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spoken {
    /// Symbols that were read.
    pub n_symbols: usize,
    /// Patches that were said.
    pub n_patches: usize,
    /// Seconds of sound.
    pub duration_secs: f64,
    /// Clauses that were stopped because no end of them came.
    pub n_stopped: usize,
}

/// Texts at work on one model.
pub struct SynthesisWorker {
    synthesizer: Synthesizer,
    max_rows: usize,
    /// Whose turn it is stands first.
    requests: VecDeque<Request>,
}

struct Request {
    id: u64,
    speech: Speech,
    /// Clauses that are being said, by their number.
    rows: BTreeMap<usize, Row>,
    next_clause: usize,
    /// Standardised patches of clauses that were said before their turn came to be heard, and whether each is whole.
    said: BTreeMap<usize, (Vec<f32>, bool)>,
    /// The clause that is heard.
    heard: usize,
    sound: Option<Sound>,
    n_patches: usize,
    n_samples: usize,
    n_stopped: usize,
    /// Symbols of the clauses that are whole.
    n_read: usize,
}

/// From frames to samples.
struct Sound {
    tempo: Tempo,
    stream: VocoderStream,
}

impl SynthesisWorker {
    /// A worker without requests. Never more than `max_rows` sequences are computed together, and always one clause: guided clauses
    /// are two sequences.
    pub fn new(synthesizer: &Synthesizer, max_rows: usize) -> Self {
        Self { synthesizer: synthesizer.clone(), max_rows, requests: VecDeque::new() }
    }

    fn n_sequences(&self) -> usize {
        self.requests.iter().flat_map(|request| request.rows.values()).map(Row::n_sequences).sum()
    }

    /// Lets clauses begin as long as there is room, each from the request whose turn it is. Says which requests failed.
    fn begin_clauses(&mut self, is_wanted: &(dyn Fn(u64) -> bool + Sync)) -> Vec<(u64, Error)> {
        let mut failed = Vec::new();
        loop {
            let may_begin = |request: &Request| {
                let is_left = request.next_clause < request.speech.clauses.len();
                // Those that are being said are among those that are not heard yet.
                is_left && request.said.len() < request.max_ahead() && is_wanted(request.id)
            };
            let Some(place) = self.requests.iter().position(may_begin) else { break };
            let n_new = 1 + usize::from(self.requests[place].speech.sampling.guidance != 1.0);
            let n_now = self.n_sequences();
            if n_now > 0 && n_now.saturating_add(n_new) > self.max_rows {
                break;
            }
            let Some(mut request) = self.requests.remove(place) else { break };
            match request.begin(&self.synthesizer) {
                Ok(()) => self.requests.push_back(request),
                Err(error) => failed.push((request.id, error)),
            }
        }
        failed
    }
}

impl Request {
    /// Clauses that may be on their way: only the first one until something of it is heard, so that nothing holds up the first sound.
    fn max_ahead(&self) -> usize {
        if self.n_samples == 0 { 1 } else { MAX_AHEAD }
    }

    fn begin(&mut self, synthesizer: &Synthesizer) -> Result<(), Error> {
        let Speech { clauses, voice, sampling, speed, .. } = &self.speech;
        if self.sound.is_none() {
            let n_mels = synthesizer.config().feature_spec.n_mels;
            let stream = synthesizer.0.vocoder.stream()?;
            self.sound = Some(Sound { tempo: Tempo::new(*speed, n_mels), stream });
        }
        let index = self.next_clause;
        let row = Row::begin(&synthesizer.0, &clauses[index], voice, *sampling, index)?;
        self.rows.insert(index, row);
        self.said.insert(index, (Vec::new(), false));
        self.next_clause += 1;
        Ok(())
    }

    /// What of the clauses that are said can be heard now. The last samples come with the last clause.
    fn hear(&mut self, synthesizer: &Synthesizer) -> Result<Vec<f32>, Error> {
        let (config, mut samples) = (synthesizer.config(), Vec::new());
        let Some(mut sound) = self.sound.take() else { return Ok(samples) };
        while let Some((patches, is_whole)) = self.said.get_mut(&self.heard) {
            let features = config.features(&std::mem::take(patches));
            samples.extend(sound.push(&features)?);
            if !*is_whole {
                break;
            }
            let clause = &self.speech.clauses[self.heard];
            let n_frames = (clause.pause_secs * config.feature_spec.frame_rate()).round() as usize;
            let n_mels = config.feature_spec.n_mels;
            let pause =
                Features { data: vec![config.feature_spec.silence(); n_mels * n_frames], n_mels, n_frames };
            samples.extend(sound.push(&pause)?);
            self.n_read += clause.text.len() - 2;
            self.said.remove(&self.heard);
            self.heard += 1;
            if !synthesizer.has_vocoder() && !self.is_done() {
                // Without a vocoder nothing is heard before a signal ends: each clause is one.
                let next = synthesizer.0.vocoder.stream()?;
                samples.extend(std::mem::replace(&mut sound.stream, next).finish()?);
            }
        }
        match self.is_done() {
            true => samples.extend(sound.stream.finish()?),
            false => self.sound = Some(sound),
        }
        self.n_samples += samples.len();
        Ok(samples)
    }

    fn is_done(&self) -> bool {
        self.heard == self.speech.clauses.len()
    }

    fn spoken(&self, sample_rate: u32) -> Spoken {
        Spoken {
            n_symbols: self.speech.n_symbols(),
            n_patches: self.n_patches,
            duration_secs: self.n_samples as f64 / f64::from(sample_rate),
            n_stopped: self.n_stopped,
        }
    }

    /// How far it is, by the symbols of the clauses that are heard.
    fn progress(&self) -> Progress {
        let (n, duration_secs) = (self.speech.n_symbols().max(1), self.speech.expected_secs());
        Progress { decoded_secs: duration_secs * self.n_read as f64 / n as f64, duration_secs }
    }
}

impl Sound {
    fn push(&mut self, features: &Features) -> Result<Vec<f32>, Error> {
        let frames = self.tempo.push(features);
        if frames.n_frames == 0 { Ok(Vec::new()) } else { self.stream.push(&frames) }
    }
}

impl Worker for SynthesisWorker {
    type Request = Speech;
    type Part = Vec<f32>;
    type Output = Spoken;

    fn join(&mut self, id: u64, speech: Speech) {
        self.requests.push_back(Request {
            id,
            speech,
            rows: BTreeMap::new(),
            next_clause: 0,
            said: BTreeMap::new(),
            heard: 0,
            sound: None,
            n_patches: 0,
            n_samples: 0,
            n_stopped: 0,
            n_read: 0,
        });
    }

    fn leave(&mut self, id: u64) -> bool {
        let place = self.requests.iter().position(|request| request.id == id);
        place.and_then(|place| self.requests.remove(place)).is_some_and(|request| request.next_clause > 0)
    }

    fn clear(&mut self) {
        self.requests.clear();
    }

    fn step(
        &mut self,
        is_wanted: &(dyn Fn(u64) -> bool + Sync),
        tell: &mut dyn FnMut(u64, Update<Vec<f32>, Spoken>),
    ) -> Result<StepReport, Error> {
        for (id, error) in self.begin_clauses(is_wanted) {
            tell(id, Update::Failed(error));
        }
        let (mut places, mut rows) = (Vec::new(), Vec::new());
        for (place, request) in self.requests.iter_mut().enumerate() {
            for (clause, row) in &mut request.rows {
                places.push((place, *clause));
                rows.push(row);
            }
        }
        let n_rows = rows.iter().map(|row| row.n_sequences()).sum();
        if rows.is_empty() {
            return Ok(StepReport::default());
        }
        let patches = step(&self.synthesizer.0, &mut rows)?;
        drop(rows);
        let mut ended = Vec::new();
        for ((place, clause), patch) in places.into_iter().zip(patches) {
            let request = &mut self.requests[place];
            let patch = match patch {
                Ok(patch) => patch,
                // Of several clauses of a request one failure is enough.
                Err(_) if ended.contains(&request.id) => continue,
                Err(error) => {
                    tell(request.id, Update::Failed(error));
                    ended.push(request.id);
                    continue;
                }
            };
            request.n_patches += 1;
            let is_whole = request.rows.get(&clause).is_some_and(|row| row.is_done);
            if is_whole {
                let row = request.rows.remove(&clause);
                request.n_stopped += usize::from(row.is_some_and(|row| row.is_stopped()));
            }
            if let Some((said, whole)) = request.said.get_mut(&clause) {
                said.extend(patch);
                *whole = is_whole;
            }
        }
        self.requests.retain(|request| !ended.contains(&request.id));
        for request in &mut self.requests {
            match request.hear(&self.synthesizer) {
                Ok(samples) => {
                    if !samples.is_empty() {
                        tell(request.id, Update::Part(samples));
                    }
                    tell(request.id, Update::Progress(request.progress()));
                    if request.is_done() {
                        let spoken = request.spoken(self.synthesizer.sample_rate());
                        tell(request.id, Update::Done(spoken));
                        ended.push(request.id);
                    }
                }
                Err(error) => {
                    tell(request.id, Update::Failed(error));
                    ended.push(request.id);
                }
            }
        }
        self.requests.retain(|request| !ended.contains(&request.id));
        Ok(StepReport { n_rows })
    }
}

//! Transcriptions that share a batch: windows of different recordings are decoded together, and each recording
//! gets its turn, so that a short one does not wait for a long one to end.

use std::collections::VecDeque;
use std::time::Instant;

use rayon::prelude::*;

use super::longform::WindowTask;
use super::transcription::Heard;
use super::{Segment, Transcript, Transcription};
use crate::decode::{Session, WindowResult};
use crate::worker::{StepReport, Update, Worker};
use crate::{Error, Transcriber};

/// More of a transcript's text. All deltas put together are the text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextPart {
    /// What comes after what was told before.
    pub delta: String,
    /// Where it is from. Its id and its times at the very end of the recording are settled in the transcript.
    pub segment: Segment,
}

/// A transcript, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcribed {
    /// The result.
    pub transcript: Transcript,
    /// What it took.
    pub work: Work,
}

/// What a transcription took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Time that [`Transcription::prepare`] took.
    pub prepare_secs: f64,
    /// Time between joining and the first window.
    pub queue_secs: f64,
    /// Time in the encoder, and in finding out the language.
    pub encode_secs: f64,
    /// Time of the decoding steps that it had rows in; others may have shared them.
    pub decode_secs: f64,
    /// Windows that were encoded.
    pub n_windows: usize,
    /// Tokens that were written into the accepted results.
    pub n_tokens: usize,
}

/// Transcriptions at work on one model.
pub struct TranscriptionWorker {
    transcriber: Transcriber,
    /// Of a model that has a decoder.
    session: Option<Session>,
    max_rows: usize,
    /// Whose turn it is stands first.
    requests: VecDeque<Request>,
    windows: Vec<Window>,
    /// Windows that were read without a decoder, until their turn is over.
    read: Vec<(u64, WindowResult)>,
    next_window: u64,
}

struct Request {
    id: u64,
    transcription: Transcription,
    joined: Instant,
    work: Work,
}

/// A window on its way into the batch.
struct Taken {
    request: u64,
    task: WindowTask,
}

/// A window in the batch.
struct Window {
    id: u64,
    request: u64,
    task: WindowTask,
    heard: Heard,
}

impl TranscriptionWorker {
    /// A worker without requests. Never more than `max_rows` rows are computed together: a window waits while the batch
    /// has no room for them, and so does a fallback that samples; one that needs more gets the batch alone.
    pub fn new(transcriber: &Transcriber, max_rows: usize) -> Self {
        Self {
            transcriber: transcriber.clone(),
            session: new_session(transcriber, max_rows),
            max_rows,
            requests: VecDeque::new(),
            windows: Vec::new(),
            read: Vec::new(),
            next_window: 0,
        }
    }

    /// Takes the windows that enter the batch next, at most `n`, each from the request whose turn it is. If a window
    /// does not fit then nobody's does: one that needs many rows would else wait for ever, and so would a fallback.
    fn take_windows(&mut self, n: usize) -> Vec<Taken> {
        let mut taken: Vec<Taken> = Vec::new();
        let mut n_rows = self.session.as_ref().map_or(0, Session::n_rows);
        while taken.len() < n {
            let n_windows = |id| {
                self.windows.iter().filter(|window| window.request == id).count()
                    + taken.iter().filter(|window| window.request == id).count()
            };
            let next = self.requests.iter().position(|request| {
                let transcription = &request.transcription;
                transcription.has_window() && n_windows(request.id) < transcription.options().batch_size
            });
            let Some(mut request) = next.and_then(|index| self.requests.remove(index)) else { break };
            let n_new_rows = request.transcription.n_first_rows();
            let is_alone = self.session.as_ref().is_none_or(Session::is_empty) && taken.is_empty();
            let has_room = is_alone || n_rows.saturating_add(n_new_rows) <= self.max_rows;
            let Some(task) = has_room.then(|| request.transcription.next_window()).flatten() else {
                self.requests.push_front(request);
                break;
            };
            n_rows = n_rows.saturating_add(n_new_rows);
            if request.work.n_windows == 0 {
                request.work.queue_secs = request.joined.elapsed().as_secs_f64();
            }
            request.work.n_windows += 1;
            taken.push(Taken { request: request.id, task });
            // Its next window comes after everybody else's.
            self.requests.push_back(request);
        }
        taken
    }

    /// Encodes windows, a core each, and puts them into the batch. Says which requests failed.
    fn start_windows(
        &mut self,
        taken: &[Taken],
        is_wanted: &(dyn Fn(u64) -> bool + Sync),
    ) -> Vec<(u64, Error)> {
        let requests = &self.requests;
        let encode = |window: &Taken| {
            let began = Instant::now();
            let request = requests.iter().find(|request| request.id == window.request)?;
            let heard = request.transcription.encode(window.task, &|| is_wanted(window.request));
            Some((heard, began.elapsed().as_secs_f64()))
        };
        // One alone has the products within it for all cores; a GPU has them for one window, and memory for its scores.
        let encoded: Vec<_> = if taken.len() == 1 || !self.transcriber.device().is_cpu() {
            taken.iter().map(encode).collect()
        } else {
            taken.par_iter().map(encode).collect()
        };
        let mut failed = Vec::new();
        for (window, outcome) in taken.iter().zip(encoded) {
            let Some(request) = self.requests.iter_mut().find(|request| request.id == window.request) else {
                continue;
            };
            let Some((heard, encode_secs)) = outcome else { continue };
            request.work.encode_secs += encode_secs;
            let joined = heard.and_then(|mut heard| {
                request.transcription.settle_language(&mut heard);
                match (&mut self.session, &heard.cross, &heard.ctc) {
                    (Some(session), Some(_), _) => {
                        let window_request = request.transcription.request(window.task, &heard)?;
                        session.join(self.next_window, window_request)?;
                    }
                    // Without a decoder there is nothing to wait for.
                    (_, _, Some(ctc)) => self.read.push((self.next_window, request.transcription.read(ctc)?)),
                    _ => return Err(Error::option("model", "has neither a decoder nor a CTC head")),
                }
                Ok(heard)
            });
            match joined {
                Ok(heard) => {
                    let (id, request, task) = (self.next_window, window.request, window.task);
                    self.windows.push(Window { id, request, task, heard });
                    self.next_window += 1;
                }
                // Of several windows of a request one failure is enough.
                Err(_) if failed.iter().any(|(id, _)| *id == window.request) => {}
                Err(error) => failed.push((window.request, error)),
            }
        }
        failed
    }

    fn end(&mut self, id: u64) -> Option<Request> {
        self.windows.retain(|window| {
            if window.request == id {
                self.session.iter_mut().for_each(|session| session.leave(window.id));
            }
            window.request != id
        });
        let index = self.requests.iter().position(|request| request.id == id)?;
        self.requests.remove(index)
    }
}

fn new_session(transcriber: &Transcriber, max_rows: usize) -> Option<Session> {
    Some(transcriber.session().ok()?.limited_to(max_rows))
}

impl Worker for TranscriptionWorker {
    type Request = Transcription;
    type Part = TextPart;
    type Output = Transcribed;

    fn join(&mut self, id: u64, transcription: Transcription) {
        let work = Work { prepare_secs: transcription.prepare_secs(), ..Work::default() };
        self.requests.push_back(Request { id, transcription, joined: Instant::now(), work });
    }

    fn leave(&mut self, id: u64) -> bool {
        self.end(id).is_some_and(|request| request.work.n_windows > 0)
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.windows.clear();
        self.read.clear();
        self.session = new_session(&self.transcriber, self.max_rows);
    }

    fn step(
        &mut self,
        is_wanted: &(dyn Fn(u64) -> bool + Sync),
        tell: &mut dyn FnMut(u64, Update<TextPart, Transcribed>),
    ) -> Result<StepReport, Error> {
        let taken = self.take_windows(rayon::current_num_threads());
        for (id, error) in self.start_windows(&taken, is_wanted) {
            self.end(id);
            tell(id, Update::Failed(error));
        }

        let began = Instant::now();
        let step = self.session.as_mut().map(Session::step).transpose()?.unwrap_or_default();
        let step_secs = began.elapsed().as_secs_f64();
        for request in &mut self.requests {
            if self.windows.iter().any(|window| window.request == request.id) {
                request.work.decode_secs += step_secs;
            }
        }
        let read = std::mem::take(&mut self.read);
        let n_rows = step.n_rows + read.len();
        for (id, result) in read.into_iter().map(|(id, result)| (id, Ok(result))).chain(step.ended) {
            let Some(place) = self.windows.iter().position(|window| window.id == id) else { continue };
            let Window { request: id, task, heard, .. } = self.windows.swap_remove(place);
            let Some(request) = self.requests.iter_mut().find(|request| request.id == id) else { continue };
            let accepted = result.and_then(|result| {
                request.work.n_tokens += result.tokens.len();
                request.transcription.accept(task, &result, &heard)
            });
            if let Err(error) = accepted {
                self.end(id);
                tell(id, Update::Failed(error));
                continue;
            }
            tell(id, Update::Progress(request.transcription.progress()));
            for part in request.transcription.take_text() {
                tell(id, Update::Part(part));
            }
        }

        let is_done = |request: &&Request| request.transcription.is_done();
        let done: Vec<u64> = self.requests.iter().filter(is_done).map(|request| request.id).collect();
        for id in done {
            let Some(Request { transcription, work, .. }) = self.end(id) else { continue };
            tell(id, Update::Done(Transcribed { transcript: transcription.finish(), work }));
        }
        Ok(StepReport { n_rows })
    }
}

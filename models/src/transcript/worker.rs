//! Transcriptions that share a batch: windows of different recordings are decoded together, and each recording
//! gets its turn, so that a short one does not wait for a long one to end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::longform::WindowTask;
use super::{Segment, Transcript, Transcription};
use crate::decode::Session;
use crate::whisper::CrossCache;
use crate::worker::{StepReport, Update, Worker};
use crate::{Error, Transcriber};

/// More of a transcript's text. All deltas put together are the text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextPart {
    /// What comes after what was told before.
    pub delta: String,
    /// Where it is from. Their ids and their times at the very end of the recording are settled in the transcript.
    pub segments: Vec<Segment>,
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
    session: Session,
    max_rows: usize,
    /// Whose turn it is stands first.
    requests: VecDeque<Request>,
    windows: Vec<Window>,
    next_window: u64,
}

struct Request {
    id: u64,
    transcription: Transcription,
    joined: Instant,
    work: Work,
}

/// A window in the batch.
struct Window {
    id: u64,
    request: u64,
    task: WindowTask,
    cross: Arc<CrossCache>,
}

impl TranscriptionWorker {
    /// A worker without requests. A window waits while the batch has no room for its rows; a fallback that samples
    /// may later bring more than `max_rows`.
    pub fn new(transcriber: &Transcriber, max_rows: usize) -> Self {
        Self {
            transcriber: transcriber.clone(),
            session: transcriber.session(),
            max_rows,
            requests: VecDeque::new(),
            windows: Vec::new(),
            next_window: 0,
        }
    }

    /// Index of the request whose window enters the batch next. If that window does not fit yet then nobody's does:
    /// one that needs many rows would else wait for ever.
    fn next_in_turn(&self) -> Option<usize> {
        let n_windows = |id| self.windows.iter().filter(|window| window.request == id).count();
        let index = self.requests.iter().position(|request| {
            let transcription = &request.transcription;
            transcription.has_window() && n_windows(request.id) < transcription.options().batch_size
        })?;
        let n_rows = self.requests[index].transcription.n_first_rows();
        let has_room =
            self.session.is_empty() || self.session.n_rows().saturating_add(n_rows) <= self.max_rows;
        has_room.then_some(index)
    }

    /// Encodes the next window of a request and puts it into the batch.
    fn start_window(&mut self, index: usize, keep_going: &dyn Fn() -> bool) -> Result<(), Error> {
        let began = Instant::now();
        let Request { id, transcription, joined, work } = &mut self.requests[index];
        if work.n_windows == 0 {
            work.queue_secs = joined.elapsed().as_secs_f64();
        }
        let Some(task) = transcription.next_window() else { return Ok(()) };
        let cross = transcription.encode(task, keep_going)?;
        self.session.join(self.next_window, transcription.request(task, &cross)?)?;
        self.windows.push(Window { id: self.next_window, request: *id, task, cross });
        self.next_window += 1;
        work.n_windows += 1;
        work.encode_secs += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn end(&mut self, id: u64) -> Option<Request> {
        self.windows.retain(|window| {
            if window.request == id {
                self.session.leave(window.id);
            }
            window.request != id
        });
        let index = self.requests.iter().position(|request| request.id == id)?;
        self.requests.remove(index)
    }
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
        self.session = self.transcriber.session();
    }

    fn step(
        &mut self,
        is_wanted: &dyn Fn(u64) -> bool,
        tell: &mut dyn FnMut(u64, Update<TextPart, Transcribed>),
    ) -> Result<StepReport, Error> {
        if let Some(index) = self.next_in_turn() {
            let id = self.requests[index].id;
            match self.start_window(index, &|| is_wanted(id)) {
                Ok(()) => {
                    // Its next window comes after everybody else's.
                    if let Some(request) = self.requests.remove(index) {
                        self.requests.push_back(request);
                    }
                }
                Err(error) => {
                    self.end(id);
                    tell(id, Update::Failed(error));
                }
            }
        }

        let began = Instant::now();
        let report = StepReport { n_rows: self.session.n_rows() };
        let results = self.session.step()?;
        let step_secs = began.elapsed().as_secs_f64();
        for request in &mut self.requests {
            if self.windows.iter().any(|window| window.request == request.id) {
                request.work.decode_secs += step_secs;
            }
        }
        for (id, result) in results {
            let Some(place) = self.windows.iter().position(|window| window.id == id) else { continue };
            let Window { request: id, task, cross, .. } = self.windows.swap_remove(place);
            let Some(request) = self.requests.iter_mut().find(|request| request.id == id) else { continue };
            request.work.n_tokens += result.tokens.len();
            if let Err(error) = request.transcription.accept(task, &result, &cross) {
                self.end(id);
                tell(id, Update::Failed(error));
                continue;
            }
            tell(id, Update::Progress(request.transcription.progress()));
            let (delta, segments) = request.transcription.take_text();
            if !segments.is_empty() {
                tell(id, Update::Part(TextPart { delta, segments }));
            }
        }

        let is_done = |request: &&Request| request.transcription.is_done();
        let done: Vec<u64> = self.requests.iter().filter(is_done).map(|request| request.id).collect();
        for id in done {
            let Some(Request { transcription, work, .. }) = self.end(id) else { continue };
            tell(id, Update::Done(Transcribed { transcript: transcription.finish(), work }));
        }
        Ok(report)
    }
}

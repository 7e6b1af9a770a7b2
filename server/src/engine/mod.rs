//! The engine of one model: a door, a queue and threads. Requests that are let in are prepared on a few of them, join the
//! worker on the model's own, and tell their caller what comes out. One signal cancels: the caller drops
//! its end, whether because the client left, time ran out or the server stops.

mod admission;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use models::{Progress, Update, Worker};
use parking_lot::{FairMutex, FairMutexGuard};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{Semaphore, mpsc};
use tracing::Span;

use crate::metrics::{Metrics, Phase};

pub use admission::{Admission, Bounds, Busy, BusyReason, Load, Permit};

/// Updates that wait for a caller. One that does not read them is dropped rather than waited for.
const MAX_UNREAD_UPDATES: usize = 1024;

/// Whose turn it is to compute: all models share the machine.
#[derive(Debug, Default)]
pub struct CorePermit(FairMutex<()>);

impl CorePermit {
    /// Waits for its turn, which lasts until what is returned is dropped.
    pub(crate) fn turn(&self) -> FairMutexGuard<'_, ()> {
        self.0.lock()
    }
}

/// What a caller gets.
#[derive(Debug)]
pub enum Event<P, O> {
    /// More of the result.
    Part(P),
    /// The result: the last event.
    Done(O),
    /// Why there is none: the last event.
    Failed(models::Error),
}

/// The caller's end of a request. Dropping it cancels the request. It ends without a last event when the engine gave
/// the request up: the batch failed, or the caller did not read.
pub type Events<P, O> = mpsc::Receiver<Event<P, O>>;

/// A model that takes requests.
pub struct Engine<W: Worker> {
    admission: Arc<Admission>,
    /// `None` once the engine is told to end.
    jobs: Option<mpsc::Sender<Job<W>>>,
    /// As many may prepare as there are threads for it: the others wait where they can be given up.
    turns: Arc<Semaphore>,
    preparing: ThreadPool,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<()>>,
}

/// A request on its way to the model's thread.
struct Job<W: Worker> {
    request: W::Request,
    caller: Caller<W>,
}

/// Who waits for a request.
struct Caller<W: Worker> {
    /// Goes before the events end: whoever hears of that finds its place free.
    permit: Permit,
    events: mpsc::Sender<Event<W::Part, W::Output>>,
    span: Span,
}

impl<W: Worker + 'static> Engine<W> {
    /// Starts the threads of a model that decodes, named after it: one runs the model, `n_preparing` prepare requests. On Linux they are
    /// as nice as the thread that calls this.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        name: &str,
        worker: W,
        bounds: Bounds,
        n_preparing: usize,
        cores: Arc<CorePermit>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        Self::start_in((name, Phase::DecodeSteps), worker, bounds, n_preparing, cores, metrics)
    }

    /// The same of a model for which requests are in this phase while it works on them.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start_in(
        (name, phase): (&str, Phase),
        worker: W,
        bounds: Bounds,
        n_preparing: usize,
        cores: Arc<CorePermit>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let admission = Admission::new(bounds);
        // Permits are fewer than places: the queue cannot be full.
        let (jobs, queue) = mpsc::channel(bounds.max_requests.max(1));
        let (room, counts) = (admission.clone(), metrics.clone());
        let n_preparing = n_preparing.max(1);
        let thread_name = format!("prepare-{name}");
        let preparing = ThreadPoolBuilder::new()
            .num_threads(n_preparing)
            .thread_name(move |_| thread_name.clone())
            // Whoever waits for the request hears of it, because nobody is left to send its events.
            .panic_handler(|_| tracing::error!("a request could not be prepared: it panicked"))
            .build()?;
        let thread = thread::Builder::new().name(format!("model-{name}")).spawn(move || {
            Desk { worker, phase, queue, callers: BTreeMap::new(), next_id: 0, cores, room, metrics: counts }
                .work();
        })?;
        Ok(Self {
            admission,
            jobs: Some(jobs),
            turns: Arc::new(Semaphore::new(n_preparing)),
            preparing,
            metrics,
            thread: Some(thread),
        })
    }

    /// The model's door.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Whether the model's thread is there: it is until the engine is dropped, unless it came to grief.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Prepares a request when it is its turn, and hands it to the model. `prepare` may correct what the permit expects, and asks the
    /// function that it is given whether to go on. This takes as long as the turn does: dropping the future before gives the
    /// request up.
    pub async fn submit(
        &self,
        mut permit: Permit,
        prepare: impl FnOnce(&mut Permit, &dyn Fn() -> bool) -> Result<W::Request, models::Error> + Send + 'static,
    ) -> Events<W::Part, W::Output> {
        // One more, for the last.
        let (events, receiver) = mpsc::channel(MAX_UNREAD_UPDATES + 1);
        let (jobs, metrics) = (self.jobs.clone(), self.metrics.clone());
        // The semaphore is never closed.
        let turn = self.turns.clone().acquire_owned().await.ok();
        let span = Span::current();
        self.preparing.spawn(move || {
            let _turn = turn;
            let _entered = span.clone().entered();
            match prepare(&mut permit, &|| !events.is_closed()) {
                Ok(request) => {
                    let job = Job { request, caller: Caller { events, permit, span } };
                    // Without a thread the job is dropped here, and the caller sees its events end.
                    jobs.map(|jobs| jobs.try_send(job).is_ok());
                }
                Err(models::Error::Cancelled) => metrics.cancelled(Phase::Prepare),
                Err(error) => {
                    drop(permit);
                    // Nobody there to hear it is no fault.
                    let _ = events.try_send(Event::Failed(error));
                }
            }
        });
        receiver
    }
}

impl<W: Worker> Drop for Engine<W> {
    /// Lets the thread end after what it has, and waits for it.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a model's thread ended in a panic");
        }
    }
}

/// The model's thread.
struct Desk<W: Worker> {
    worker: W,
    /// Where requests are that it works on.
    phase: Phase,
    queue: mpsc::Receiver<Job<W>>,
    callers: BTreeMap<u64, Caller<W>>,
    next_id: u64,
    cores: Arc<CorePermit>,
    room: Arc<Admission>,
    metrics: Arc<Metrics>,
}

impl<W: Worker> Desk<W> {
    /// Steps while there is work; ends when nobody can bring any more.
    fn work(mut self) {
        loop {
            if self.callers.is_empty() {
                let Some(job) = self.queue.blocking_recv() else { return };
                self.take(job);
            }
            while let Ok(job) = self.queue.try_recv() {
                self.take(job);
            }
            self.drop_unwanted();
            if !self.callers.is_empty() {
                self.step();
            }
        }
    }

    fn take(&mut self, job: Job<W>) {
        self.worker.join(self.next_id, job.request);
        self.callers.insert(self.next_id, job.caller);
        self.next_id += 1;
    }

    fn drop_unwanted(&mut self) {
        let Self { callers, worker, phase, metrics, .. } = self;
        callers.retain(|id, caller| {
            let is_wanted = !caller.events.is_closed();
            if !is_wanted {
                let had_begun = worker.leave(*id);
                metrics.cancelled(if had_begun { *phase } else { Phase::Queue });
                tracing::info!(parent: &caller.span, "given up: nobody waits for the result any more");
            }
            is_wanted
        });
    }

    fn step(&mut self) {
        let mut updates = Vec::new();
        let turn = self.cores.turn();
        let began = Instant::now();
        let callers = &self.callers;
        let is_wanted = |id| callers.get(&id).is_some_and(|caller| !caller.events.is_closed());
        let worker = &mut self.worker;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            worker.step(&is_wanted, &mut |id, update| updates.push((id, update)))
        }));
        let busy_secs = began.elapsed().as_secs_f64();
        drop(turn);
        self.room.worked(busy_secs);
        for (id, update) in updates {
            self.tell(id, update);
        }
        let failure = match outcome {
            Ok(Ok(report)) => return self.metrics.step(report.n_rows),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "panicked".to_owned(),
        };
        // Weights cannot be harmed; all state goes, and with it the requests that shared the batch.
        tracing::error!("the batch of {} requests failed: {failure}", self.callers.len());
        self.worker.clear();
        self.callers.clear();
    }

    fn tell(&mut self, id: u64, update: Update<W::Part, W::Output>) {
        let Some(caller) = self.callers.get_mut(&id) else { return };
        let (event, is_last) = match update {
            Update::Progress(Progress { decoded_secs, duration_secs }) => {
                let share = if duration_secs > 0.0 { 1.0 - decoded_secs / duration_secs } else { 0.0 };
                return caller.permit.remains(share);
            }
            Update::Part(part) => (Event::Part(part), false),
            Update::Done(output) => (Event::Done(output), true),
            Update::Failed(models::Error::Cancelled) => {
                // The encoder noticed it first.
                self.metrics.cancelled(Phase::Encode);
                self.callers.remove(&id);
                return;
            }
            Update::Failed(error) => (Event::Failed(error), true),
        };
        if is_last && matches!(event, Event::Done(_)) {
            caller.permit.remains(0.0);
        }
        if is_last {
            // Out of the room before it is told: whoever has the result finds its place free.
            if let Some(Caller { events, permit, .. }) = self.callers.remove(&id) {
                drop(permit);
                // Nobody there to hear it is no fault.
                let _ = events.try_send(event);
            }
            return;
        }
        let has_room = caller.events.capacity() > 1;
        let was_read = has_room && caller.events.try_send(event).is_ok();
        if !was_read && !caller.events.is_closed() {
            tracing::warn!(parent: &caller.span, "given up: {MAX_UNREAD_UPDATES} updates were not read");
            self.worker.leave(id);
            self.callers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use models::StepReport;

    use super::*;
    use crate::state::Models;

    /// A request of so many steps; `fails` says how it goes wrong in its first one, or in all.
    #[derive(Clone, Copy)]
    struct Count {
        n_steps: usize,
        fails: Option<Fault>,
    }

    #[derive(Clone, Copy)]
    enum Fault {
        Alone,
        Batch,
        Panic,
        /// Each takes a millisecond.
        Slow,
    }

    /// Counts to a request's number, a step each, all requests at once.
    #[derive(Default)]
    struct Counter {
        requests: BTreeMap<u64, (Count, usize)>,
        /// Open: steps are taken.
        gate: Arc<AtomicBool>,
        /// Steps taken, by request.
        log: Arc<Mutex<Vec<u64>>>,
    }

    impl Worker for Counter {
        type Request = Count;
        type Part = usize;
        type Output = usize;

        fn join(&mut self, id: u64, request: Count) {
            self.requests.insert(id, (request, 0));
        }

        fn leave(&mut self, id: u64) -> bool {
            self.requests.remove(&id).is_some_and(|(_, n)| n > 0)
        }

        fn clear(&mut self) {
            self.requests.clear();
        }

        fn step(
            &mut self,
            _: &(dyn Fn(u64) -> bool + Sync),
            tell: &mut dyn FnMut(u64, Update<usize, usize>),
        ) -> Result<StepReport, models::Error> {
            while !self.gate.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let n_rows = self.requests.len();
            for (id, (request, n)) in &mut self.requests {
                *n += 1;
                self.log.lock().expect("whole").push(*id);
                match request.fails {
                    Some(Fault::Alone) => {
                        tell(*id, Update::Failed(models::Error::Tokenizer("bad".to_owned())));
                    }
                    Some(Fault::Batch) => return Err(models::Error::Tokenizer("all bad".to_owned())),
                    Some(Fault::Panic) => panic!("as the test wants it"),
                    Some(Fault::Slow) => {
                        thread::sleep(Duration::from_millis(1));
                        tell(*id, Update::Part(*n));
                    }
                    None if *n < request.n_steps => tell(*id, Update::Part(*n)),
                    None => tell(*id, Update::Done(*n)),
                }
            }
            self.requests.retain(|_, (request, n)| {
                *n < request.n_steps && matches!(request.fails, None | Some(Fault::Slow))
            });
            Ok(StepReport { n_rows })
        }
    }

    struct Stage {
        engine: Engine<Counter>,
        metrics: Arc<Metrics>,
        gate: Arc<AtomicBool>,
        log: Arc<Mutex<Vec<u64>>>,
    }

    impl Stage {
        fn new(max_requests: usize) -> Self {
            let worker = Counter::default();
            let (gate, log) = (worker.gate.clone(), worker.log.clone());
            let bounds = Bounds { max_requests, max_audio_secs: 1e9 };
            let metrics = Arc::new(Metrics::new([].iter()));
            let counts = Arc::clone(&metrics);
            let engine = Engine::start_in(("test", Phase::Speak), worker, bounds, 2, Arc::default(), counts)
                .expect("a thread");
            Self { engine, metrics, gate, log }
        }

        async fn submit(&self, n_steps: usize, fails: Option<Fault>) -> Events<usize, usize> {
            let permit = self.engine.admission().enter(1.0, None).expect("room");
            self.engine.submit(permit, move |_, _| Ok(Count { n_steps, fails })).await
        }

        fn open(&self) {
            self.gate.store(true, Ordering::Release);
        }

        async fn until_empty(&self) {
            while self.engine.admission().load().n_requests > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// The last event, and the parts before it.
    async fn outcome(mut events: Events<usize, usize>) -> (Vec<usize>, Option<Event<usize, usize>>) {
        let mut parts = Vec::new();
        loop {
            match events.recv().await {
                Some(Event::Part(part)) => parts.push(part),
                last => return (parts, last),
            }
        }
    }

    #[tokio::test]
    async fn requests_run_together_and_tell_their_parts() {
        let stage = Stage::new(8);
        let (long, short) = (stage.submit(5, None).await, stage.submit(2, None).await);
        stage.open();
        let (parts, last) = outcome(short).await;
        assert!(parts == [1] && matches!(last, Some(Event::Done(2))));
        let (parts, last) = outcome(long).await;
        assert!(parts == [1, 2, 3, 4] && matches!(last, Some(Event::Done(5))));
        stage.until_empty().await;
    }

    #[tokio::test]
    async fn a_caller_who_leaves_stops_the_work_and_gives_back_the_room() {
        let stage = Stage::new(2);
        let (gone, stays) = (stage.submit(1_000_000, None).await, stage.submit(3, None).await);
        assert!(stage.engine.admission().enter(1.0, None).is_err(), "full");
        drop(gone);
        stage.open();
        assert!(matches!(outcome(stays).await.1, Some(Event::Done(3))));
        stage.until_empty().await;
        let n_steps = stage.log.lock().expect("whole").iter().filter(|id| **id == 0).count();
        assert!(n_steps <= 1, "{n_steps} steps for nobody");
    }

    #[tokio::test]
    async fn what_is_given_up_counts_where_it_was() {
        let stage = Stage::new(2);
        let mut events = stage.submit(1_000_000, Some(Fault::Slow)).await;
        stage.open();
        assert!(matches!(events.recv().await, Some(Event::Part(1))));
        drop(events);
        stage.until_empty().await;
        let page = stage.metrics.encode(&Models::new([]));
        assert!(page.contains(r#"speechd_cancelled_total{phase="speak"} 1"#), "{page}");
    }

    #[tokio::test]
    async fn a_request_that_fails_leaves_the_others_alone_and_a_batch_that_fails_ends_with_its_requests() {
        let stage = Stage::new(8);
        let (bad, good) = (stage.submit(3, Some(Fault::Alone)).await, stage.submit(3, None).await);
        stage.open();
        assert!(matches!(outcome(bad).await.1, Some(Event::Failed(_))));
        assert!(matches!(outcome(good).await.1, Some(Event::Done(3))));
        for fault in [Fault::Batch, Fault::Panic] {
            let bad = stage.submit(3, Some(fault)).await;
            assert!(outcome(bad).await.1.is_none(), "the engine gave it up");
            let next = stage.submit(2, None).await;
            assert!(matches!(outcome(next).await.1, Some(Event::Done(2))), "the next one is served");
        }
        stage.until_empty().await;
        assert!(stage.engine.is_alive());
    }

    #[tokio::test]
    async fn what_cannot_be_prepared_fails_and_what_nobody_waits_for_is_not_prepared() {
        let stage = Stage::new(8);
        let permit = stage.engine.admission().enter(1.0, None).expect("room");
        let refused =
            stage.engine.submit(permit, |_, _| Err(models::Error::Tokenizer("no".to_owned()))).await;
        assert!(matches!(outcome(refused).await.1, Some(Event::Failed(models::Error::Tokenizer(_)))));

        let permit = stage.engine.admission().enter(1.0, None).expect("room");
        let (told, tells) = std::sync::mpsc::channel();
        let events = stage
            .engine
            .submit(permit, move |_, keep_going| {
                while keep_going() {
                    thread::yield_now();
                }
                told.send(()).expect("the test waits");
                Err(models::Error::Cancelled)
            })
            .await;
        drop(events);
        tells.recv_timeout(Duration::from_secs(60)).expect("noticed that nobody waits");
        stage.until_empty().await;
    }

    #[tokio::test]
    async fn a_preparation_that_panics_ends_its_own_request() {
        let stage = Stage::new(8);
        stage.open();
        // More often than there are threads.
        for _ in 0..3 {
            let permit = stage.engine.admission().enter(1.0, None).expect("room");
            let bad = stage.engine.submit(permit, |_, _| panic!("as the test wants it")).await;
            assert!(outcome(bad).await.1.is_none(), "the engine gave it up");
        }
        assert!(matches!(outcome(stage.submit(2, None).await).await.1, Some(Event::Done(2))));
        stage.until_empty().await;
    }

    #[tokio::test]
    async fn who_leaves_before_its_turn_is_not_prepared() {
        let stage = Stage::new(8);
        stage.open();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let mut busy = Vec::new();
        for _ in 0..2 {
            let held = held.clone();
            let permit = stage.engine.admission().enter(1.0, None).expect("room");
            let wait = move |_: &mut Permit, _: &dyn Fn() -> bool| {
                held.lock().expect("whole").recv().expect("the test lets it go");
                Ok(Count { n_steps: 1, fails: None })
            };
            busy.push(stage.engine.submit(permit, wait).await);
        }
        let permit = stage.engine.admission().enter(1.0, None).expect("room");
        let third = stage.engine.submit(permit, |_, _| panic!("nobody waits for it"));
        assert!(tokio::time::timeout(Duration::from_millis(20), third).await.is_err(), "two at once");
        assert_eq!(stage.engine.admission().load().n_requests, 2);
        for events in busy {
            release.send(()).expect("somebody waits");
            assert!(matches!(outcome(events).await.1, Some(Event::Done(1))));
        }
    }

    /// A thread gives its priority to those that it starts: the loader's.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn requests_are_prepared_by_threads_that_give_way() {
        let niceness = || rustix::process::getpriority_process(None).expect("known");
        let loader = thread::spawn(|| {
            rustix::process::nice(3).expect("it may always be nicer");
            Stage::new(8)
        });
        let stage = loader.join().expect("no panic");
        stage.open();
        let (told, tells) = std::sync::mpsc::channel();
        let permit = stage.engine.admission().enter(1.0, None).expect("room");
        let prepare = move |_: &mut Permit, _: &dyn Fn() -> bool| {
            told.send((thread::current().name().map(str::to_owned), niceness())).expect("the test waits");
            Ok(Count { n_steps: 1, fails: None })
        };
        let events = stage.engine.submit(permit, prepare).await;
        assert!(matches!(outcome(events).await.1, Some(Event::Done(1))));
        let expected = (Some("prepare-test".to_owned()), (niceness() + 3).min(19));
        assert_eq!(tells.recv().expect("told"), expected);
    }

    #[tokio::test]
    async fn an_engine_that_is_dropped_ends_what_it_has() {
        let stage = Stage::new(8);
        let events = stage.submit(4, None).await;
        stage.open();
        drop(stage.engine);
        assert!(matches!(outcome(events).await.1, Some(Event::Done(4))));
    }
}

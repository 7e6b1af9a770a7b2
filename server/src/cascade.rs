//! A cascade: a translator of text behind whatever recogniser there is, the same for the terminal and for HTTP.

use std::{
    fmt,
    num::NonZero,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use models::{BundleSource, Device, TextTranslator, Transcript};
use parking_lot::RwLock;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    engine::CorePermit,
    error::{Error, quoted},
};

/// When to ask again for a translator that is being loaded.
const LOADING_RETRY: Duration = Duration::from_secs(5);

/// A translator that is ready.
pub struct Cascade {
    name: Arc<str>,
    translator: TextTranslator,
    /// It shares the machine with the recognisers.
    cores: Arc<CorePermit>,
    /// As many translate at once as there are cores, by turns; the others wait where they can be given up.
    turns: Semaphore,
}

impl fmt::Debug for Cascade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cascade").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Cascade {
    /// Loads a translator, which computes when `cores` lets it.
    ///
    /// # Errors
    /// Whatever is wrong with its files.
    pub fn load(
        name: &str,
        source: &BundleSource,
        device: &Device,
        cores: Arc<CorePermit>,
    ) -> Result<Self, models::Error> {
        let n_turns = thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            name: name.into(),
            translator: TextTranslator::load(source, device)?,
            cores,
            turns: Semaphore::new(n_turns),
        })
    }

    /// What results call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Refuses a language that it does not translate into.
    ///
    /// # Errors
    /// The language, and those that there are.
    pub fn check(&self, to_language: &str) -> Result<(), models::Error> {
        self.translator.check(Some(to_language))
    }

    /// Translates a transcript. Others may compute between two of its segments; `keep_going` is asked before every token.
    ///
    /// # Errors
    /// What the translator refuses, [`models::Error::Cancelled`] when `keep_going` says no.
    pub fn translate(
        &self,
        transcript: Transcript,
        to_language: &str,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Transcript, models::Error> {
        let language = transcript.language.clone();
        transcript.translated(&self.name, to_language, &mut |text| {
            let _turn = self.cores.turn();
            self.translator.translate(text, language.as_deref(), Some(to_language), keep_going)
        })
    }

    /// The same off the threads that answer requests. Dropping the future ends the work.
    ///
    /// # Errors
    /// What the translator refuses, faults of ours.
    pub async fn translate_while_wanted(
        self: Arc<Self>,
        transcript: Transcript,
        to_language: String,
    ) -> Result<Transcript, Error> {
        // The semaphore is never closed.
        let wanted = Arc::clone(&self);
        let _turn = wanted.turns.acquire().await.map_err(Error::internal)?;
        let waits = Arc::new(());
        let caller = Arc::downgrade(&waits);
        let began = Instant::now();
        let working =
            spawn_blocking(move || self.translate(transcript, &to_language, &|| caller.strong_count() > 0));
        let translated = working.await.map_err(Error::internal)??;
        drop(waits);
        tracing::info!(
            cascade = &*wanted.name,
            to_language = translated.to_language,
            n_segments = translated.segments.len(),
            secs = began.elapsed().as_secs_f64(),
            "translated"
        );
        Ok(translated)
    }
}

/// The translator that a service was started with, and how far it is.
#[derive(Debug)]
pub struct CascadeSlot {
    name: Arc<str>,
    state: RwLock<CascadeState>,
}

/// How far a translator is.
#[derive(Debug, Clone)]
pub enum CascadeState {
    /// Being found, fetched or read.
    Loading,
    /// Ready.
    Ready(Arc<Cascade>),
    /// It could not be loaded; the log says why.
    Failed,
}

impl CascadeSlot {
    /// One that is still to be loaded.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), state: RwLock::new(CascadeState::Loading) }
    }

    /// What requests and results call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes how far it is.
    pub fn set(&self, state: CascadeState) {
        *self.state.write() = state;
    }

    /// Whether loading is over, be it that it failed: recognisers serve without it.
    ///
    /// # Errors
    /// It is being loaded.
    pub fn settled(&self) -> Result<(), Error> {
        match *self.state.read() {
            CascadeState::Loading => Err(self.loading()),
            CascadeState::Ready(_) | CascadeState::Failed => Ok(()),
        }
    }

    /// The translator, to work with; a request may call it by its name.
    ///
    /// # Errors
    /// It is called otherwise, or is not loaded.
    pub fn get(&self, name: Option<&str>) -> Result<Arc<Cascade>, Error> {
        if let Some(other) = name.filter(|name| *name != &*self.name) {
            let message = format!("{} is not what this server has; it is {}", quoted(other), self.name);
            return Err(Error::invalid("cascade", message));
        }
        match &*self.state.read() {
            CascadeState::Ready(cascade) => Ok(Arc::clone(cascade)),
            CascadeState::Loading => Err(self.loading()),
            CascadeState::Failed => {
                let model = self.name.as_ref().to_owned();
                Err(Error::Unavailable { model, message: "it failed to load" })
            }
        }
    }

    fn loading(&self) -> Error {
        Error::Loading { model: self.name.as_ref().to_owned(), retry_after: LOADING_RETRY }
    }
}

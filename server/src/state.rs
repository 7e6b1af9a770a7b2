//! What all requests share.

use std::{fmt, sync::Arc, time::Duration};

use models::{Kind, Transcriber, TranscriptionWorker};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    auth::Keys,
    cascade::CascadeSlot,
    config::Config,
    decode::DecodePool,
    engine::{Engine, Load},
    error::{Error, quoted},
    metrics::Metrics,
    speaking::Speaking,
    store::VoiceStore,
    unread::Unread,
    uploads::UploadPlaces,
};

/// When to ask again for a model that is being loaded.
const LOADING_RETRY: Duration = Duration::from_secs(5);
/// When to ask again while the server shuts down: another one takes over.
const DRAINING_RETRY: Duration = Duration::from_secs(1);

/// What all requests share; in an `Arc`.
#[derive(Debug)]
pub struct AppState {
    /// The settings.
    pub config: Config,
    /// Who may call.
    pub keys: Keys,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Turns uploads into samples.
    pub decoder: DecodePool,
    /// Places for requests that are received or decoded.
    pub uploads: Arc<UploadPlaces>,
    /// The models that are served, and how far each is.
    pub models: Models,
    /// The translator of their transcripts, where there is one.
    pub cascade: Option<CascadeSlot>,
    /// Room for what clients have not taken of their responses.
    pub unread: Arc<Unread>,
    /// Voices that clients brought.
    pub voices: Arc<VoiceStore>,
    /// Whether the server is about to stop.
    draining: watch::Sender<bool>,
}

impl AppState {
    /// A server for these models, each still to be loaded.
    pub fn new(config: Config, keys: Keys, models: Models, decoder: DecodePool) -> Self {
        let metrics = Arc::new(Metrics::new(models.names()));
        let n_small = if config.uploads.is_small(0) { config.serve.max_uploads.div_ceil(8) } else { 0 };
        let uploads = UploadPlaces::new(&config.serve, n_small);
        let cascade = config.translate.spec().map(|spec| CascadeSlot::new(&spec.name));
        let unread = Unread::new(config.serve.max_unread_bytes);
        let voices = Arc::new(VoiceStore::new(&config.voices));
        let draining = watch::Sender::new(false);
        Self { config, keys, metrics, decoder, uploads, models, cascade, unread, voices, draining }
    }

    /// Deletes a voice, from the disk and from the memory of models; says whether there was one. A client that leaves does not
    /// stop it half way.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn remove_voice(self: &Arc<Self>, id: String) -> Result<bool, Error> {
        let state = Arc::clone(self);
        let removing = async move {
            let removed = state.voices.remove_voice(&id).await;
            state.models.forget_deleted(&state.voices);
            removed
        };
        Ok(tokio::spawn(removing).await.map_err(Error::internal)??)
    }

    /// The same of a consent and of the voices that were made with it.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn remove_consent(self: &Arc<Self>, id: String) -> Result<bool, Error> {
        let state = Arc::clone(self);
        let removing = async move {
            let removed = state.voices.remove_consent(&id).await;
            state.models.forget_deleted(&state.voices);
            removed
        };
        Ok(tokio::spawn(removing).await.map_err(Error::internal)??)
    }

    /// Makes `/readyz` say no from now on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether [`AppState::drain`] was called.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Follows [`AppState::drain`].
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Whether requests can be served.
    ///
    /// # Errors
    /// The server is draining, a model is being loaded, or none could be.
    pub fn ready(&self) -> Result<(), Error> {
        if self.is_draining() {
            return Err(Error::Draining { retry_after: DRAINING_RETRY });
        }
        self.models.settled()?;
        self.cascade.as_ref().map_or(Ok(()), CascadeSlot::settled)
    }
}

/// The models that are served, in the order of the command line. Their names are all that a request can ask for: no name
/// ever becomes a path.
#[derive(Debug)]
pub struct Models(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    state: RwLock<ModelState>,
}

/// How far a model is.
#[derive(Debug, Clone)]
pub enum ModelState {
    /// Being found, fetched or read.
    Loading,
    /// Serving.
    Ready(Serving),
    /// It could not be loaded, for this reason; the log has it too.
    Failed(String),
}

/// A model that serves.
#[derive(Debug, Clone)]
pub enum Serving {
    /// It turns speech into text.
    Hears(Arc<Hearing>),
    /// It turns text into speech.
    Speaks(Arc<Speaking>),
}

impl Serving {
    /// What waits for it or is worked on.
    pub fn load(&self) -> Load {
        match self {
            Self::Hears(hearing) => hearing.engine.admission().load(),
            Self::Speaks(speaking) => speaking.engine.admission().load(),
        }
    }

    /// Whether its thread is there.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Hears(hearing) => hearing.engine.is_alive(),
            Self::Speaks(speaking) => speaking.engine.is_alive(),
        }
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hears(_) => Kind::Hears,
            Self::Speaks(_) => Kind::Speaks,
        }
    }
}

/// A model that turns speech into text.
pub struct Hearing {
    /// Its name.
    pub name: Arc<str>,
    /// When its bundle was made, in seconds since 1970.
    pub created: u64,
    /// The model.
    pub transcriber: Transcriber,
    /// Who runs it.
    pub engine: Engine<TranscriptionWorker>,
}

impl fmt::Debug for Hearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hearing").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A model as others see it.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: Arc<str>,
    /// How far it is.
    pub state: ModelState,
}

impl Models {
    /// These models, all of them still to be loaded. Names are unique.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let entry = |name: String| Entry { name: name.into(), state: RwLock::new(ModelState::Loading) };
        Self(names.into_iter().map(entry).collect())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|entry| &entry.name)
    }

    /// All models as they are now.
    pub fn all(&self) -> impl Iterator<Item = Model> {
        self.0.iter().map(Entry::model)
    }

    /// The model of this name as it is now.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<Model, Error> {
        let entry = self.0.iter().find(|entry| *entry.name == *name);
        entry.map(Entry::model).ok_or_else(|| Error::ModelNotFound(quoted(name)))
    }

    /// The model of this name, to work with.
    ///
    /// # Errors
    /// There is none, or it is not loaded.
    pub fn serving(&self, name: &str) -> Result<Serving, Error> {
        let model = self.get(name)?;
        let name = || model.name.as_ref().to_owned();
        match &model.state {
            ModelState::Ready(serving) => Ok(serving.clone()),
            ModelState::Loading => Err(Error::Loading { model: name(), retry_after: LOADING_RETRY }),
            ModelState::Failed(_) => Err(Error::Unavailable { model: name(), message: "it failed to load" }),
        }
    }

    /// The model of this name, to turn speech into text.
    ///
    /// # Errors
    /// There is none, it is not loaded, or it cannot do that.
    pub fn hearing(&self, name: &str) -> Result<Arc<Hearing>, Error> {
        match self.serving(name)? {
            Serving::Hears(hearing) => Ok(hearing),
            Serving::Speaks(_) => {
                Err(self.unable(name, "turns text into speech, and not speech into text", Kind::Hears))
            }
        }
    }

    /// The model of this name, to turn text into speech.
    ///
    /// # Errors
    /// There is none, it is not loaded, or it cannot do that.
    pub fn speaking(&self, name: &str) -> Result<Arc<Speaking>, Error> {
        match self.serving(name)? {
            Serving::Speaks(speaking) => Ok(speaking),
            Serving::Hears(_) => {
                Err(self.unable(name, "turns speech into text, and not text into speech", Kind::Speaks))
            }
        }
    }

    /// That a model does something else than what is asked, and which one of this kind does it.
    fn unable(&self, name: &str, does: &str, wanted: Kind) -> Error {
        let able = self
            .all()
            .find(|model| matches!(&model.state, ModelState::Ready(serving) if serving.kind() == wanted));
        let hint = able.map_or_else(
            || "no model that is served here does".to_owned(),
            |model| format!("{} does", model.name),
        );
        Error::invalid("model", format!("{name} {does}; {hint}"))
    }

    /// Lets models go of voices that are not in the store any more.
    fn forget_deleted(&self, store: &VoiceStore) {
        for model in self.all() {
            if let ModelState::Ready(Serving::Speaks(speaking)) = model.state {
                speaking.forget_deleted(store);
            }
        }
    }

    /// Notes how far a model is. Models that are not served are none of ours.
    pub fn set(&self, name: &str, state: ModelState) {
        if let Some(entry) = self.0.iter().find(|entry| *entry.name == *name) {
            *entry.state.write() = state;
        }
    }

    /// Whether all loading is over and something is there to serve.
    ///
    /// # Errors
    /// A model is being loaded, or none could be.
    pub fn settled(&self) -> Result<(), Error> {
        let mut failed = None;
        let mut is_serving = false;
        for model in self.all() {
            let name = || model.name.as_ref().to_owned();
            match model.state {
                ModelState::Loading => {
                    return Err(Error::Loading { model: name(), retry_after: LOADING_RETRY });
                }
                ModelState::Ready(serving) if serving.is_alive() => is_serving = true,
                ModelState::Ready(_) => failed = Some(name()),
                ModelState::Failed(_) => failed = Some(name()),
            }
        }
        match failed {
            Some(model) if !is_serving => Err(Error::Unavailable { model, message: "no model serves" }),
            _ => Ok(()),
        }
    }
}

impl Entry {
    fn model(&self) -> Model {
        Model { name: Arc::clone(&self.name), state: self.state.read().clone() }
    }
}

#[cfg(test)]
mod tests {
    use models::Device;

    use super::*;
    use crate::{compute::Compute, load::load};

    fn state(models: Models) -> AppState {
        let config = Config::load(None).expect("defaults");
        let decoder = DecodePool::new("/none".into(), config.uploads);
        AppState::new(config, Keys::default(), models, decoder)
    }

    fn ready(state: &AppState, name: &str) -> ModelState {
        let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/whisper-80");
        let compute = Compute::new(Device::Cpu, state.config.transcribe.precision).expect("a processor");
        let serving = load(state, name, std::path::Path::new(bundle).into(), None, &compute, &Arc::default())
            .expect("a model");
        ModelState::Ready(serving)
    }

    #[test]
    fn a_model_is_found_by_its_whole_name_and_by_nothing_else() {
        let state = state(Models::new(["org/a".to_owned()]));
        let models = &state.models;
        models.set("org/a", ready(&state, "org/a"));
        assert!(models.serving("org/a").is_ok());
        for name in ["", "org", "org/A", "org/a/", "./org/a", "../org/a", "org/a\0", "/etc/passwd", "org%2Fa"]
        {
            assert!(matches!(models.serving(name), Err(Error::ModelNotFound(_))), "{name}");
        }
    }

    #[test]
    fn ready_means_that_all_are_settled_and_one_serves() {
        let models = Models::new(["a".to_owned(), "b".to_owned()]);
        let state = state(models);
        let code = || state.ready().map_err(|error| error.code());
        assert_eq!(code(), Err("model_loading"));
        state.models.set("a", ModelState::Failed("no".to_owned()));
        assert_eq!(code(), Err("model_loading"));
        state.models.set("b", ModelState::Failed("no".to_owned()));
        assert_eq!(code(), Err("model_unavailable"));
        state.models.set("b", ready(&state, "b"));
        assert_eq!(code(), Ok(()));
        assert_eq!(state.models.serving("a").map_err(|error| error.code()).err(), Some("model_unavailable"));
        state.drain();
        assert_eq!(code(), Err("shutting_down"));
    }
}

//! Models of a service: from what the command line names to what serves.

use std::{
    collections::HashSet,
    fs,
    num::NonZero,
    path::Path,
    sync::Arc,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use models::{
    ADAPTER_CONFIG, BUNDLED, BundleSource, DeviceChoice, Kind, Precision, Synthesizer, Task,
    TranscriptionWorker,
};

use crate::{
    cascade::{Cascade, CascadeState},
    compute::Compute,
    config::Transcribe,
    engine::{Bounds, CorePermit, Engine},
    registry::{self, Hub, Name},
    render::Format,
    speaking::Speaking,
    state::{AppState, Hearing, ModelState, Serving},
};

/// What models that speak compute in, whatever is asked for: their layers know nothing else.
pub(crate) const SPEAKER_PRECISION: Precision = Precision::F32;
/// The longest name of a model.
const MAX_NAME_CHARS: usize = 200;

/// A model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name in requests.
    pub name: String,
    /// A directory or a hub id.
    pub source: String,
    /// The same of the model that guesses what it writes, if there is one.
    pub draft: Option<String>,
}

impl Spec {
    /// Reads `[NAME=]PATH_OR_ID`. Without a name, a directory goes by its last part and a hub id by itself.
    ///
    /// # Errors
    /// The source can be neither, or the name cannot be one.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A directory may well have an equals sign in its name.
        let named = text.split_once('=').filter(|_| !Path::new(text).is_dir());
        let source = named.map_or(text, |(_, source)| source);
        let found = Name::parse(source).map_err(|error| error.to_string())?;
        let name = match (named, found) {
            (Some((name, _)), _) => name.to_owned(),
            (None, Name::Repository(repository)) => repository.id,
            (None, Name::Bundled(name)) => name,
            (None, Name::Directory(path)) => {
                let path = path.canonicalize().unwrap_or(path);
                path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
            }
        };
        let is_name = (1..=MAX_NAME_CHARS).contains(&name.chars().count())
            && !name.chars().any(|c| c.is_control() || c.is_whitespace());
        if !is_name {
            return Err(format!(
                "model `{text}`: `{name}` cannot be a name; give one as NAME={source}, \
                 without spaces, of at most {MAX_NAME_CHARS} characters"
            ));
        }
        Ok(Self { name, source: source.to_owned(), draft: None })
    }

    /// Reads all of them, and their drafts; without any they are the models that are part of the program.
    ///
    /// # Errors
    /// There is none, not even one that is part of the program, one is wrong, two have the same name, or a draft is that of none.
    pub fn parse_all(texts: &[String], drafts: &[String]) -> Result<Vec<Self>, String> {
        let own = BUNDLED.iter().copied().filter(|_| texts.is_empty());
        let texts = texts.iter().map(String::as_str).chain(own);
        let mut specs = texts.map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        for text in drafts {
            let (name, draft) = text.split_once('=').ok_or_else(|| {
                format!("draft `{text}`: say whose it is, NAME={text}, NAME being what a model is called")
            })?;
            Name::parse(draft).map_err(|error| format!("draft `{text}`: {error}"))?;
            let of = specs.iter_mut().find(|spec| spec.name == name);
            let of = of.ok_or_else(|| format!("draft `{text}`: no model is called `{name}`"))?;
            if of.draft.replace(draft.to_owned()).is_some() {
                return Err(format!("draft `{text}`: `{name}` has another one"));
            }
        }
        if specs.is_empty() {
            return Err("no model: give --model a directory or a hub id such as openai/whisper-base, \
                        or set `models` under [serve] in speechd.toml"
                .to_owned());
        }
        let mut names = HashSet::new();
        match specs.iter().find(|spec| !names.insert(&spec.name)) {
            Some(twice) => Err(format!(
                "two models are called `{}`; give one another name: --model OTHER={}",
                twice.name, twice.source
            )),
            None => Ok(specs),
        }
    }
}

/// Loads models one after the other and notes in `state` how far each is. A model that cannot be loaded stops neither
/// the others nor the server. Takes its time: not for a thread that answers requests.
pub fn load_models(state: &AppState, specs: &[Spec], hub: &Hub, compute: &Compute) {
    // Threads inherit it: the models', those that prepare for them, and those of the pool on which models compute.
    give_way(state.config.serve.compute_niceness);
    let cores = Arc::new(CorePermit::default());
    for spec in specs {
        let started = Instant::now();
        let resolve = |source: &str| registry::resolve(source, hub, &mut |_| {}).map_err(anyhow::Error::from);
        let loaded = resolve(&spec.source).and_then(|source| {
            let draft = spec.draft.as_deref().map(resolve).transpose()?;
            load(state, &spec.name, source, draft, compute, &cores)
        });
        match loaded {
            Ok(serving) => {
                let secs = started.elapsed().as_secs_f64();
                let device = DeviceChoice::of(compute.device());
                let precision = match serving {
                    Serving::Hears(_) => compute.precision(),
                    Serving::Speaks(_) => {
                        // Whoever serves no speech has no use for the folder. What is wrong with it is in the log now; requests are told, too.
                        let _ = state.voices.open();
                        SPEAKER_PRECISION
                    }
                };
                tracing::info!(model = spec.name, kind = ?serving.kind(), %device, %precision, secs, "model loaded");
                state.models.set(&spec.name, ModelState::Ready(serving));
            }
            Err(error) => {
                tracing::error!(model = spec.name, "model not loaded: {error:#}");
                state.models.set(&spec.name, ModelState::Failed(format!("{error:#}")));
            }
        }
    }
    load_cascade(state, hub, compute, cores);
}

/// Loads the translator that the settings ask for, if they do.
fn load_cascade(state: &AppState, hub: &Hub, compute: &Compute, cores: Arc<CorePermit>) {
    let Some((slot, spec)) = state.cascade.as_ref().zip(state.config.translate.spec()) else { return };
    let started = Instant::now();
    let loaded = registry::resolve(&spec.source, hub, &mut |_| {}).map_err(anyhow::Error::from);
    let loaded = loaded.and_then(|source| Ok(Cascade::load(&spec.name, &source, compute.device(), cores)?));
    match loaded {
        Ok(cascade) => {
            let secs = started.elapsed().as_secs_f64();
            tracing::info!(cascade = spec.name, device = %DeviceChoice::of(compute.device()), secs, "translator loaded");
            slot.set(CascadeState::Ready(Arc::new(cascade)));
        }
        Err(error) => {
            tracing::error!(cascade = spec.name, "translator not loaded: {error:#}");
            slot.set(CascadeState::Failed);
        }
    }
}

/// Lets the threads that answer requests come first. On Linux it is the thread's own; elsewhere the process would be nicer
/// as a whole, which helps nobody.
fn give_way(niceness: i32) {
    if cfg!(target_os = "linux")
        && niceness > 0
        && let Err(error) = rustix::process::nice(niceness)
    {
        tracing::warn!("models compute at the usual priority: {error}");
    }
}

fn written(path: &Path) -> anyhow::Result<SystemTime> {
    fs::metadata(path)
        .and_then(|file| file.modified())
        .with_context(|| format!("{} has no date", path.display()))
}

/// Loads a bundle and starts its engine, which computes when `cores` lets it.
pub(crate) fn load(
    state: &AppState,
    name: &str,
    source: BundleSource,
    draft: Option<BundleSource>,
    compute: &Compute,
    cores: &Arc<CorePermit>,
) -> anyhow::Result<Serving> {
    let made = match &source {
        BundleSource::Dir(_) => written(&source.path("config.json"))?,
        BundleSource::Adapted { adapter, .. } => written(&adapter.join(ADAPTER_CONFIG))?,
        // As old as the program that it is part of, where that is still there.
        BundleSource::Memory(_) => std::env::current_exe()
            .and_then(fs::metadata)
            .and_then(|file| file.modified())
            .unwrap_or(UNIX_EPOCH),
    };
    let created = made.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match Kind::of(&source)? {
        Kind::Hears => {
            let hearing = load_hearing(state, (name, created), source, draft, compute, cores)?;
            Ok(Serving::Hears(Arc::new(hearing)))
        }
        Kind::Speaks if draft.is_some() => {
            bail!("it speaks, and has no use for a draft, which guesses what is written")
        }
        Kind::Speaks => {
            let synthesizer = Synthesizer::load(&source, compute.device())?;
            let wanted = &state.config.speak.language;
            if !wanted.is_empty() && !synthesizer.languages().contains(wanted) {
                tracing::warn!(
                    model = name,
                    "[speak] language is {wanted}, and the model reads {}: requests have to name one of them",
                    synthesizer.languages().join(", ")
                );
            }
            let (serve, metrics) = (&state.config.serve, &state.metrics);
            let speaking =
                Speaking::start((name, created), synthesizer, serve, Arc::clone(cores), Arc::clone(metrics))?;
            Ok(Serving::Speaks(Arc::new(speaking)))
        }
        Kind::Vocodes => bail!(
            "it is a vocoder alone, which turns features into sound; serve a model that speaks, of which one is a part"
        ),
    }
}

/// Loads a model that turns speech into text.
fn load_hearing(
    state: &AppState,
    (name, created): (&str, u64),
    source: BundleSource,
    draft: Option<BundleSource>,
    compute: &Compute,
    cores: &Arc<CorePermit>,
) -> anyhow::Result<Hearing> {
    let serve = &state.config.serve;
    let transcriber = compute.load_with_draft(source, draft)?.with_max_beams(serve.max_batch_rows);
    // Nothing for loading to fail over: requests can say otherwise.
    let defaults =
        Transcribe { task: Task::Transcribe, format: Format::Json, ..state.config.transcribe.clone() };
    if let Err(error) = transcriber.check(&defaults.decode_options(false)) {
        tracing::warn!(
            model = name,
            "[transcribe] does not suit the model, requests have to say otherwise: {error}"
        );
    }
    let worker = TranscriptionWorker::new(&transcriber, serve.max_batch_rows);
    let n_preparing = thread::available_parallelism().map_or(1, NonZero::get);
    let (cores, metrics) = (Arc::clone(cores), Arc::clone(&state.metrics));
    let engine = Engine::start(name, worker, Bounds::of(serve), n_preparing, cores, metrics)
        .context("no threads for the model")?;
    Ok(Hearing { name: name.into(), created, transcriber, engine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_as_said_or_by_what_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run=3");
        fs::create_dir(&path).expect("created");
        let path = path.to_str().expect("UTF-8").to_owned();
        for (text, name, source) in [
            ("openai/whisper-base", "openai/whisper-base", "openai/whisper-base"),
            ("openai/whisper-base@v1", "openai/whisper-base", "openai/whisper-base@v1"),
            ("whisper-1=openai/whisper-base", "whisper-1", "openai/whisper-base"),
            (&path, "run=3", &path),
            (&format!("mine={path}"), "mine", &path),
        ] {
            let spec = Spec { name: name.to_owned(), source: source.to_owned(), draft: None };
            assert_eq!(Spec::parse(text), Ok(spec), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_served_says_so() {
        let both = ["a=o/x".to_owned(), "a=o/y".to_owned()];
        for (texts, part) in [
            (&["./none".to_owned()][..], "no such directory"),
            (&["=openai/whisper-base".to_owned()][..], "cannot be a name"),
            (&["a b=openai/whisper-base".to_owned()][..], "cannot be a name"),
            (&both[..], "two models are called `a`"),
        ] {
            let message = Spec::parse_all(texts, &[]).expect_err("refused");
            assert!(message.contains(part), "{texts:?}: {message}");
        }
        let model = ["a=o/x".to_owned()];
        let texts = |drafts: &[&str]| drafts.iter().map(|&draft| draft.to_owned()).collect::<Vec<_>>();
        for (drafts, part) in [
            (&["o/y"][..], "say whose it is"),
            (&["b=o/y"], "no model is called `b`"),
            (&["a=./none"], "no such directory"),
            (&["a=o/y", "a=o/z"], "has another one"),
        ] {
            let message = Spec::parse_all(&model, &texts(drafts)).expect_err("refused");
            assert!(message.contains(part), "{drafts:?}: {message}");
        }
        let specs = Spec::parse_all(&model, &texts(&["a=o/y"])).expect("a draft");
        assert_eq!(specs[0].draft.as_deref(), Some("o/y"));
    }
}

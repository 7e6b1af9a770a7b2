//! A model that speaks, as the service has it: its engine, and the voices that it has learnt from recordings.

use std::{fmt, sync::Arc};

use anyhow::Context;
use audio::Waveform;
use models::{SynthesisWorker, Synthesizer, Voice};
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::{
    config::Serve,
    engine::{Bounds, CorePermit, Engine},
    error::{Error, quoted},
    metrics::{Metrics, Phase},
    store::{self, VoiceStore},
};

/// OpenAI's own voices, whose names stand for the model's: the first for its first, and so on, over again where it has fewer.
pub const BUILT_IN: [&str; 13] = [
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin",
    "cedar",
];
/// Voices of recordings that are kept in memory; the one that was not asked for the longest goes.
const MAX_LEARNT: usize = 32;
/// The model's own voices that an error lists.
const MAX_LISTED: usize = 20;

/// A model that turns text into speech.
pub struct Speaking {
    /// Its name.
    pub name: Arc<str>,
    /// When its bundle was made, in seconds since 1970.
    pub created: u64,
    /// The model.
    pub synthesizer: Synthesizer,
    /// Who runs it.
    pub engine: Engine<SynthesisWorker>,
    /// It shares the machine with the others.
    cores: Arc<CorePermit>,
    /// Voices of recordings by their ids, the latest at the end.
    learnt: Mutex<Vec<(String, Voice)>>,
    /// One is learnt at a time; the others wait where they can be given up.
    turn: Arc<AsyncMutex<()>>,
    /// Where they are learnt.
    learner: ThreadPool,
}

impl fmt::Debug for Speaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speaking").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Speaking {
    /// Starts the model's threads, which are as nice as the one that calls this. It computes when `cores` lets it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        (name, created): (&str, u64),
        synthesizer: Synthesizer,
        serve: &Serve,
        cores: Arc<CorePermit>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let worker = SynthesisWorker::new(&synthesizer, serve.max_batch_rows);
        // The longest text is read in milliseconds.
        let (bounds, turns) = (Bounds::of(serve), Arc::clone(&cores));
        let engine = Engine::start_in((name, Phase::Speak), worker, bounds, 1, turns, metrics)
            .context("no threads for the model")?;
        let thread_name = format!("learn-{name}");
        let learner = ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(move |_| thread_name.clone())
            // Whoever waits for the voice hears of it.
            .panic_handler(|_| tracing::error!("a voice could not be learnt: it panicked"))
            .build()
            .context("no thread for voices")?;
        let (learnt, turn) = (Mutex::default(), Arc::default());
        Ok(Self { name: name.into(), created, synthesizer, engine, cores, learnt, turn, learner })
    }

    /// The voice that a request names: one of the model's own, one of OpenAI's names for them ([`BUILT_IN`]), or the id of one
    /// in the store, which the model learns when it is first asked for.
    ///
    /// # Errors
    /// There is none of this name, its recording is damaged or not one that the model can learn, faults of ours.
    pub async fn voice(self: &Arc<Self>, wanted: &str, store: &Arc<VoiceStore>) -> Result<Voice, Error> {
        if let Some(own) = own_voice(self.synthesizer.voices(), wanted) {
            return Ok(own.clone());
        }
        // Nobody's disk is asked about a typing error.
        if !store.is_voice_id(wanted) || store.voice(wanted).await?.is_none() {
            return Err(self.unknown_voice(wanted));
        }
        if let Some(voice) = self.known(wanted) {
            return Ok(voice);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // Others may have waited for the same one.
        if let Some(voice) = self.known(wanted) {
            return Ok(voice);
        }
        let sample = store.sample(wanted).await.map_err(|error| match error {
            // Whoever asks can do something about it: nothing is wrong with the service.
            store::Error::Damaged { .. } => {
                tracing::warn!(id = wanted, "a voice's recording is damaged: {error}");
                let message =
                    format!("the recording of {wanted} is damaged; delete the voice, and bring it again");
                Error::invalid("voice", message)
            }
            error => error.into(),
        })?;
        // It may be gone meanwhile.
        let sample = sample.ok_or_else(|| self.unknown_voice(wanted))?;
        let (told, tells) = oneshot::channel();
        let (model, store, id) = (Arc::clone(self), Arc::clone(store), wanted.to_owned());
        self.learner.spawn(move || {
            // Kept until it is done, whether or not somebody waits for it: the next one would wait for the thread.
            let _turn = turn;
            if !told.is_closed() {
                // Nobody there to hear it is no fault.
                let _ = told.send(model.learn(id, &sample, &store));
            }
        });
        tells.await.map_err(|_| Error::internal(anyhow::anyhow!("a voice was not learnt")))?
    }

    /// The voice of this id, if it was learnt. It is the one that goes last, from now on.
    fn known(&self, id: &str) -> Option<Voice> {
        let mut learnt = self.learnt.lock();
        let position = learnt.iter().position(|(known, _)| known == id)?;
        let known = learnt.remove(position);
        let voice = known.1.clone();
        learnt.push(known);
        Some(voice)
    }

    fn learn(&self, id: String, sample: &Waveform, store: &VoiceStore) -> Result<Voice, Error> {
        let turn = self.cores.turn();
        let voice = self.synthesizer.voice_of(&id, sample)?;
        drop(turn);
        let mut learnt = self.learnt.lock();
        // Whoever deletes it has us look through them afterwards: that is seen here, or this one then.
        if !store.has_voice(&id) {
            return Err(self.unknown_voice(&id));
        }
        if learnt.len() >= MAX_LEARNT {
            learnt.remove(0);
        }
        learnt.push((id, voice.clone()));
        Ok(voice)
    }

    /// Lets go of voices that are not in the store any more.
    pub fn forget_deleted(&self, store: &VoiceStore) {
        self.learnt.lock().retain(|(id, _)| store.has_voice(id));
    }

    fn unknown_voice(&self, wanted: &str) -> Error {
        let voices = self.synthesizer.voices();
        let listed: Vec<_> = voices.iter().take(MAX_LISTED).map(Voice::name).collect();
        let more = if voices.len() > listed.len() { ", ..." } else { "" };
        let message = format!(
            "{} is none; {} has {}{more}, for which OpenAI's names stand, too; GET /v1/audio/voices lists those that were \
             brought here, which go by their id",
            quoted(wanted),
            self.name,
            listed.join(", ")
        );
        Error::invalid("voice", message)
    }
}

/// The model's own voice of this name, or the one that one of OpenAI's names stands for.
fn own_voice<'a>(voices: &'a [Voice], wanted: &str) -> Option<&'a Voice> {
    let own = voices.iter().find(|voice| voice.name() == wanted);
    own.or_else(|| {
        let position = BUILT_IN.iter().position(|name| *name == wanted)?;
        voices.get(position % voices.len().max(1))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{path::Path, slice, sync::mpsc, thread, time::Duration};

    use models::{BundleSource, Device};
    use tokio::time::timeout;

    use super::*;
    use crate::config::{self, Config};

    /// What takes longer does not come.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A tiny model with two voices, which speaks English and Pashto.
    pub(crate) fn bundle() -> BundleSource {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/flow-lm")).into()
    }

    fn speaking() -> Arc<Speaking> {
        let synthesizer = Synthesizer::load(&bundle(), &Device::Cpu).expect("a model");
        let serve = Config::load(None).expect("the defaults").serve;
        let metrics = Arc::new(Metrics::new([].iter()));
        Arc::new(Speaking::start(("tiny", 0), synthesizer, &serve, Arc::default(), metrics).expect("threads"))
    }

    fn store(folder: &Path) -> Arc<VoiceStore> {
        let defaults = Config::load(None).expect("the defaults").voices;
        Arc::new(VoiceStore::new(&config::Voices {
            folder: folder.to_string_lossy().into_owned(),
            ..defaults
        }))
    }

    impl Speaking {
        /// The voices of recordings that it has in memory.
        pub(crate) fn learnt_ids(&self) -> Vec<String> {
            self.learnt.lock().iter().map(|(id, _)| id.clone()).collect()
        }
    }

    /// Keeps models from computing until what is returned is dropped.
    pub(crate) fn busy(cores: &Arc<CorePermit>) -> mpsc::Sender<()> {
        let (cores, (release, held), (taken, is_taken)) =
            (Arc::clone(cores), mpsc::channel(), mpsc::channel());
        thread::spawn(move || {
            let _turn = cores.turn();
            taken.send(()).expect("the test waits");
            // Ends when the other end is gone.
            let _ = held.recv();
        });
        is_taken.recv().expect("the thread takes it");
        release
    }

    /// A recording that a voice can be made of.
    pub(crate) fn sample(secs: f64) -> Waveform {
        let samples = (0..(secs * 24_000.0) as usize).map(|t| 0.3 * (t as f32 * 0.05).sin());
        Waveform { samples: samples.collect(), sample_rate: 24_000 }
    }

    #[test]
    fn names_of_others_stand_for_the_models_voices_in_turn() {
        let model = speaking();
        let voices = model.synthesizer.voices();
        let name = |wanted: &str| own_voice(voices, wanted).map(Voice::name);
        for (position, built_in) in BUILT_IN.iter().enumerate() {
            assert_eq!(name(built_in), Some(voices[position % voices.len()].name()), "{built_in}");
        }
        for voice in voices {
            assert_eq!(name(voice.name()), Some(voice.name()));
        }
        assert_eq!(name("Alloy"), None);
        assert!(own_voice(&[], "alloy").is_none());
    }

    #[tokio::test]
    async fn a_voice_that_was_brought_is_learnt_once_and_is_gone_when_it_is_deleted() -> Result<(), Error> {
        let (model, folder) = (speaking(), tempfile::tempdir().expect("a folder"));
        let store = store(folder.path());
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
        let mine = store.add_voice("mine".to_owned(), consent.clone(), sample(2.0)).await?.id;
        for _ in 0..3 {
            model.voice(&mine, &store).await?;
            assert_eq!(model.learnt_ids(), slice::from_ref(&mine));
        }
        let short = store.add_voice("short".to_owned(), consent, sample(0.5)).await?.id;
        let refused = model.voice(&short, &store).await.expect_err("too short");
        assert_eq!(
            (refused.code(), refused.body(None).error.param.as_deref()),
            ("invalid_value", Some("voice"))
        );
        store.remove_voice(&mine).await?;
        model.forget_deleted(&store);
        assert!(model.learnt_ids().is_empty());
        for unknown in [&mine, "nobody", "../anna", "", "voice_\0"] {
            let message = model.voice(unknown, &store).await.expect_err("unknown").to_string();
            assert!(message.contains("tiny has anna, ben") && !message.contains('\0'), "{message}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_voice_that_is_known_does_not_wait_for_one_that_is_being_learnt() -> Result<(), Error> {
        let (model, folder) = (speaking(), tempfile::tempdir().expect("a folder"));
        let store = store(folder.path());
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(store.add_voice("mine".to_owned(), consent.clone(), sample(1.0)).await?.id);
        }
        model.voice(&ids[0], &store).await?;
        let busy = busy(&model.cores);
        let ask = || {
            let (model, store, id) = (Arc::clone(&model), Arc::clone(&store), ids[1].clone());
            tokio::spawn(async move { model.voice(&id, &store).await.map(drop) })
        };
        let (left, stays) = (ask(), ask());
        let waiting = async {
            while model.turn.try_lock().is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it is being learnt");
        timeout(PATIENCE, model.voice(&ids[0], &store)).await.expect("at once")?;
        assert!(!left.is_finished() && !stays.is_finished());
        // Who leaves does not stop what others wait for.
        left.abort();
        drop(busy);
        stays.await.expect("no panic")?;
        assert_eq!(model.learnt_ids(), ids);
        Ok(())
    }

    #[tokio::test]
    async fn a_voice_whose_recording_is_damaged_is_refused_by_its_field() -> Result<(), Error> {
        let (model, folder) = (speaking(), tempfile::tempdir().expect("a folder"));
        let store = store(folder.path());
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
        let id = store.add_voice("mine".to_owned(), consent, sample(1.0)).await?.id;
        let recording = folder.path().join("voices").join(&id).join("recording.wav");
        std::fs::write(&recording, "RIFF").expect("written");
        for _ in 0..2 {
            let refused = model.voice(&id, &store).await.expect_err("damaged");
            let told = refused.body(None).error;
            assert_eq!((refused.code(), told.param.as_deref()), ("invalid_value", Some("voice")));
            assert!(
                told.message.contains(&id) && !told.message.contains("recording.wav"),
                "{}",
                told.message
            );
            // Nor is it a fault of ours where somebody took it away.
            let _ = std::fs::remove_file(&recording);
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_voice_that_is_deleted_while_it_is_learnt_does_not_stay() -> Result<(), Error> {
        let (model, folder) = (speaking(), tempfile::tempdir().expect("a folder"));
        let store = store(folder.path());
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
        let id = store.add_voice("mine".to_owned(), consent, sample(1.0)).await?.id;
        let busy = busy(&model.cores);
        let (asked, kept, wanted) = (Arc::clone(&model), Arc::clone(&store), id.clone());
        let asking = tokio::spawn(async move { asked.voice(&wanted, &kept).await.map(drop) });
        // When the learner holds the model, too, it has the recording, and can only wait for its turn to compute.
        let waiting = async {
            while Arc::strong_count(&model) < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it is being learnt");
        store.remove_voice(&id).await?;
        model.forget_deleted(&store);
        drop(busy);
        let refused = asking.await.expect("no panic").expect_err("it is gone");
        assert_eq!(refused.body(None).error.param.as_deref(), Some("voice"));
        assert!(model.learnt_ids().is_empty());
        Ok(())
    }

    #[tokio::test]
    async fn so_many_voices_are_kept_in_memory_and_no_more() -> Result<(), Error> {
        let (model, folder) = (speaking(), tempfile::tempdir().expect("a folder"));
        let store = store(folder.path());
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), sample(1.0)).await?.id;
        let mut ids = Vec::new();
        for _ in 0..=MAX_LEARNT {
            ids.push(store.add_voice("mine".to_owned(), consent.clone(), sample(1.0)).await?.id);
        }
        for id in ids.iter().take(MAX_LEARNT) {
            model.voice(id, &store).await?;
        }
        // The first is asked for again, so that the second has to go.
        model.voice(&ids[0], &store).await?;
        model.voice(&ids[MAX_LEARNT], &store).await?;
        let learnt = model.learnt_ids();
        let has = |id: &String| learnt.contains(id);
        assert!(learnt.len() == MAX_LEARNT && has(&ids[0]) && !has(&ids[1]) && has(&ids[MAX_LEARNT]));
        Ok(())
    }
}

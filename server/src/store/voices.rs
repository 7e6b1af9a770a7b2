//! Voices that clients brought, and the consents to them. A voice is a recording: which model speaks with it, a request says.

use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use audio::Waveform;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{
    Error,
    folder::{Folder, sync},
    lock::Lock,
};
use crate::{config, error::quoted};

/// A folder that was refused is asked for again after this. Who is asked about voices meanwhile is answered at once.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// A voice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVoice {
    /// Its id: its folder is called that.
    #[serde(skip)]
    pub id: String,
    /// What it is called.
    pub name: String,
    /// The id of the consent that it was made with.
    pub consent: String,
    /// When, in seconds since 1970.
    pub created_at: u64,
}

/// Somebody's consent to be imitated, as a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// Its id: its folder is called that.
    #[serde(skip)]
    pub id: String,
    /// What it is called.
    pub name: String,
    /// The language that it is in, as a BCP 47 tag.
    pub language: String,
    /// When it was given, in seconds since 1970.
    pub created_at: u64,
}

/// Voices and consents on the disk, known in memory: an id that is not known leads to no file. One process has it to itself.
#[derive(Debug)]
pub struct VoiceStore {
    /// `None`: nobody says where.
    folder: Option<PathBuf>,
    voices: Folder,
    consents: Folder,
    max_voices: usize,
    /// Held while the disk changes.
    writing: Mutex<Hold>,
    /// How long a refusal is believed.
    refused_for: Duration,
    /// What is there; `None` until it was read.
    known: RwLock<Option<Known>>,
}

/// Whether the folder is ours.
#[derive(Debug, Default)]
enum Hold {
    /// Nobody asked for it yet.
    #[default]
    Untried,
    /// It was not, and why.
    Refused { at: Instant, why: Arc<Error> },
    /// It is.
    Ours { _lock: Lock },
}

#[derive(Debug, Default)]
struct Known {
    voices: BTreeMap<String, StoredVoice>,
    consents: BTreeMap<String, Consent>,
    /// Consents of voices that are not among them, because theirs are not there, or because they could not be deleted as a whole; by the ids of
    /// the voices.
    left_out: BTreeMap<String, String>,
}

impl Known {
    /// From now on nobody speaks with a voice, whose recording may still be there; says whether anybody could.
    fn hide(&mut self, id: &str) -> bool {
        let Some(voice) = self.voices.remove(id) else { return false };
        self.left_out.insert(id.to_owned(), voice.consent);
        true
    }
}

impl VoiceStore {
    /// A store in the folder of these settings, which is looked at when it is first used.
    pub fn new(settings: &config::Voices) -> Self {
        Self::in_folder(settings.folder(), settings.max_voices)
    }

    fn in_folder(folder: Option<PathBuf>, max_voices: usize) -> Self {
        let below = |name: &str| folder.as_deref().unwrap_or(Path::new("")).join(name);
        Self {
            voices: Folder::new(below("voices"), "voice_"),
            consents: Folder::new(below("consents"), "cons_"),
            folder,
            max_voices,
            writing: Mutex::default(),
            refused_for: REFUSED_FOR,
            known: RwLock::default(),
        }
    }

    /// Takes the folder and reads what is there, unless that was done. The log is told where it cannot, once for each reason.
    ///
    /// # Errors
    /// A folder that another server has, or that cannot be made, read and written to; the same again for a second.
    pub fn open(&self) -> Result<(), Error> {
        if self.known.read().is_some() {
            return Ok(());
        }
        let mut hold = self.writing.lock();
        if self.known.read().is_some() {
            return Ok(());
        }
        if let Hold::Refused { at, why } = &*hold
            && at.elapsed() < self.refused_for
        {
            return Err(Error::Closed(Arc::clone(why)));
        }
        match self.take(matches!(*hold, Hold::Untried)) {
            Ok((lock, known)) => {
                if matches!(*hold, Hold::Refused { .. }) {
                    tracing::info!("voices can be brought here from now on");
                }
                *self.known.write() = Some(known);
                *hold = Hold::Ours { _lock: lock };
                Ok(())
            }
            Err(error) => {
                let is_known =
                    matches!(&*hold, Hold::Refused { why, .. } if why.to_string() == error.to_string());
                if !is_known {
                    // Everything else works without them.
                    tracing::warn!("no voices can be brought here: voices.folder: {error}");
                }
                let why = Arc::new(error);
                *hold = Hold::Refused { at: Instant::now(), why: Arc::clone(&why) };
                Err(Error::Closed(why))
            }
        }
    }

    /// Takes the folder, and what is in it. Whoever asks for the first time waits for a moment in which it may become free.
    fn take(&self, is_first_time: bool) -> Result<(Lock, Known), Error> {
        let folder = self.folder.as_deref().ok_or(Error::NoFolder)?;
        // Voices of people: nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| Error::Io { path: folder.to_owned(), source })?;
        let lock = Lock::take(folder, is_first_time)?;
        self.voices.prepare()?;
        self.consents.prepare()?;
        sync(folder)?;
        let mut known = Known::default();
        for (id, consent) in self.consents.read::<Consent>()? {
            known.consents.insert(id.clone(), Consent { id, ..consent });
        }
        for (id, voice) in self.voices.read::<StoredVoice>()? {
            if known.consents.contains_key(&voice.consent) {
                known.voices.insert(id.clone(), StoredVoice { id, ..voice });
            } else {
                tracing::warn!("voice {id} is left out: there is no consent {}", quoted(&voice.consent));
                known.left_out.insert(id, voice.consent);
            }
        }
        Ok((lock, known))
    }

    /// Waits until it is known what is there.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub async fn opened(self: &Arc<Self>) -> Result<(), Error> {
        self.look(|_| ()).await
    }

    /// Whether a voice would be kept, made with this consent where that is told already; asked before its recording is read.
    ///
    /// # Errors
    /// There are as many as may be, or the consent is not there.
    pub fn check_voice(&self, consent: Option<&str>) -> Result<(), Error> {
        self.check_room("voices", self.with(|known| known.voices.len()))?;
        match consent.filter(|id| !self.with(|known| known.consents.contains_key(*id))) {
            Some(unknown) => Err(Error::NoConsent(quoted(unknown))),
            None => Ok(()),
        }
    }

    /// Whether a consent would be kept; asked before its recording is read.
    ///
    /// # Errors
    /// There are as many as may be.
    pub fn check_consent(&self) -> Result<(), Error> {
        self.check_room("consents", self.with(|known| known.consents.len()))
    }

    /// All voices, in the order in which they came.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn voices(self: &Arc<Self>) -> Result<Vec<StoredVoice>, Error> {
        let mut voices = self.look(|known| known.voices.values().cloned().collect::<Vec<_>>()).await?;
        voices.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(voices)
    }

    /// Whether this is an id as voices have them; whether there is one, [`VoiceStore::voice`] says.
    pub fn is_voice_id(&self, id: &str) -> bool {
        self.voices.is_id(id)
    }

    /// The voice of this id, if there is one.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn voice(self: &Arc<Self>, id: &str) -> Result<Option<StoredVoice>, Error> {
        let id = id.to_owned();
        self.look(move |known| known.voices.get(&id).cloned()).await
    }

    /// The recording of a voice, if there is one.
    ///
    /// # Errors
    /// The disk refuses, or has something else than what was written.
    pub async fn sample(self: &Arc<Self>, id: &str) -> Result<Option<Waveform>, Error> {
        let id = id.to_owned();
        self.work(move |store| {
            if !store.has_voice(&id) {
                return Ok(None);
            }
            let recording = store.voices.recording(&id)?;
            if recording.is_none() {
                // It is being deleted, which is over when nobody writes.
                let _writing = store.writing.lock();
                if store.has_voice(&id) {
                    return Err(store.voices.without_recording(&id));
                }
            }
            Ok(recording)
        })
        .await
    }

    /// Whether there is a voice of this id, as far as is known without the disk.
    pub fn has_voice(&self, id: &str) -> bool {
        self.with(|known| known.voices.contains_key(id))
    }

    /// Keeps a voice.
    ///
    /// # Errors
    /// The consent is not there, there are as many voices as may be, the disk refuses.
    pub async fn add_voice(
        self: &Arc<Self>,
        name: String,
        consent: String,
        sample: Waveform,
    ) -> Result<StoredVoice, Error> {
        self.work(move |store| {
            let _writing = store.writing.lock();
            store.check_voice(Some(&consent))?;
            let voice = StoredVoice { id: store.voices.new_id()?, name, consent, created_at: now() };
            store.voices.add(&voice.id, &voice, &sample)?;
            store.change(|known| known.voices.insert(voice.id.clone(), voice.clone()));
            Ok(voice)
        })
        .await
    }

    /// Deletes a voice, one that is damaged or left out too; says whether there was one.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn remove_voice(self: &Arc<Self>, id: &str) -> Result<bool, Error> {
        let id = id.to_owned();
        self.work(move |store| {
            let _writing = store.writing.lock();
            store.forget_voice(&id)
        })
        .await
    }

    /// All consents, in the order in which they came.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn consents(self: &Arc<Self>) -> Result<Vec<Consent>, Error> {
        let mut consents = self.look(|known| known.consents.values().cloned().collect::<Vec<_>>()).await?;
        consents.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(consents)
    }

    /// The consent of this id, if there is one.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn consent(self: &Arc<Self>, id: &str) -> Result<Option<Consent>, Error> {
        let id = id.to_owned();
        self.look(move |known| known.consents.get(&id).cloned()).await
    }

    /// Keeps a consent.
    ///
    /// # Errors
    /// There are as many as may be, the disk refuses.
    pub async fn add_consent(
        self: &Arc<Self>,
        name: String,
        language: String,
        recording: Waveform,
    ) -> Result<Consent, Error> {
        self.work(move |store| {
            let _writing = store.writing.lock();
            store.check_consent()?;
            let consent = Consent { id: store.consents.new_id()?, name, language, created_at: now() };
            store.consents.add(&consent.id, &consent, &recording)?;
            store.change(|known| known.consents.insert(consent.id.clone(), consent.clone()));
            Ok(consent)
        })
        .await
    }

    /// Calls a consent otherwise, if there is one.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn rename_consent(self: &Arc<Self>, id: &str, name: String) -> Result<Option<Consent>, Error> {
        let id = id.to_owned();
        self.work(move |store| {
            let _writing = store.writing.lock();
            let Some(known) = store.with(|known| known.consents.get(&id).cloned()) else { return Ok(None) };
            let consent = Consent { name, ..known };
            store.consents.change(&id, &consent)?;
            store.change(|known| known.consents.insert(id, consent.clone()));
            Ok(Some(consent))
        })
        .await
    }

    /// Deletes a consent, and before it the voices that were made with it, those that are left out too; says whether there was one.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn remove_consent(self: &Arc<Self>, id: &str) -> Result<bool, Error> {
        let id = id.to_owned();
        self.work(move |store| {
            let _writing = store.writing.lock();
            let voices: Vec<_> = store.with(|known| {
                let listed = known.voices.iter().map(|(voice, StoredVoice { consent, .. })| (voice, consent));
                let of_it = listed.chain(&known.left_out).filter(|(_, consent)| **consent == id);
                of_it.map(|(voice, _)| voice.clone()).collect()
            });
            // One that cannot be deleted keeps none of the others; by the consent, which stays, they are found again.
            let mut forgotten = Ok(());
            for voice in &voices {
                forgotten = forgotten.and(store.forget_voice(voice).map(drop));
            }
            forgotten?;
            let mut was_known = false;
            let was_there = store.consents.remove(&id, || {
                was_known = store.change(|known| known.consents.remove(&id).is_some());
            })?;
            Ok(was_there || was_known || !voices.is_empty())
        })
        .await
    }

    /// Deletes a voice while nobody else writes. As soon as it is out of sight nobody speaks with it any more, whatever becomes of the rest.
    fn forget_voice(&self, id: &str) -> Result<bool, Error> {
        let mut was_known = false;
        let was_there = self.voices.remove(id, || {
            was_known = self.change(|known| known.hide(id));
        })?;
        // Whether or not somebody was faster.
        self.change(|known| known.left_out.remove(id));
        Ok(was_there || was_known)
    }

    fn check_room(&self, what: &'static str, n_kept: usize) -> Result<(), Error> {
        let limit = self.max_voices;
        if n_kept < limit { Ok(()) } else { Err(Error::Full { what, limit }) }
    }

    /// What is known; nothing before [`VoiceStore::open`].
    fn with<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        match &*self.known.read() {
            Some(known) => look(known),
            None => look(&Known::default()),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(self.known.write().get_or_insert_default())
    }

    /// Looks something up: in memory, once the folder was read.
    async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Known) -> T + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(known) = &*self.known.read() {
            return Ok(look(known));
        }
        self.work(move |store| Ok(store.with(look))).await
    }

    /// Does work on the disk where it holds nobody up.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(self);
        let working = spawn_blocking(move || {
            store.open()?;
            work(&store)
        });
        working.await.map_err(|error| Error::Thread(error.to_string()))?
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::{fs, slice};

    use super::*;

    fn store(folder: &Path, max_voices: usize) -> Arc<VoiceStore> {
        Arc::new(VoiceStore::in_folder(Some(folder.to_owned()), max_voices))
    }

    fn recording() -> Waveform {
        // Values that 16 bits hold.
        Waveform { samples: (0..2400).map(|t| (t % 64) as f32 / 128.0 - 0.25).collect(), sample_rate: 24_000 }
    }

    #[tokio::test]
    async fn voices_and_consents_survive_a_restart() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let (voice, consent) = {
            let store = store(folder.path(), 3);
            let consent = store.add_consent("me".to_owned(), "en-US".to_owned(), recording()).await?;
            (store.add_voice("mine".to_owned(), consent.id.clone(), recording()).await?, consent)
        };
        assert!(voice.id.starts_with("voice_") && consent.id.starts_with("cons_"));
        let store = store(folder.path(), 3);
        assert_eq!(store.voices().await?, slice::from_ref(&voice));
        assert_eq!(store.consents().await?, slice::from_ref(&consent));
        assert_eq!(store.sample(&voice.id).await?, Some(recording()));
        let renamed = store.rename_consent(&consent.id, "I".to_owned()).await?.expect("there");
        assert_eq!(renamed, Consent { name: "I".to_owned(), ..consent.clone() });
        drop(store);
        let store = self::store(folder.path(), 3);
        assert_eq!(store.consent(&consent.id).await?, Some(renamed));
        assert!(store.remove_voice(&voice.id).await?);
        assert!(!store.remove_voice(&voice.id).await?);
        drop(store);
        assert_eq!(self::store(folder.path(), 3).voices().await?, []);
        Ok(())
    }

    #[tokio::test]
    async fn a_folder_has_one_server_and_the_next_one_is_told_which() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let first = store(folder.path(), 3);
        let believing = |refused_for: Duration| {
            let second = VoiceStore::in_folder(Some(folder.path().to_owned()), 3);
            Arc::new(VoiceStore { refused_for, ..second })
        };
        let (second, patient) = (believing(Duration::ZERO), believing(Duration::from_secs(3600)));
        let consent = first.add_consent("me".to_owned(), "en".to_owned(), recording()).await?;
        for _ in 0..2 {
            let message = second.consents().await.expect_err("taken").to_string();
            assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
            assert!(message.starts_with(&folder.path().display().to_string()), "{message}");
        }
        let refused = second.add_consent("you".to_owned(), "en".to_owned(), recording()).await;
        assert!(matches!(refused, Err(Error::Closed(_))));
        assert!(patient.consents().await.is_err());
        // Whoever comes after it takes over without being started again, as soon as it asks again.
        drop(first);
        assert!(patient.consents().await.is_err(), "it was refused a moment ago");
        let mut found = second.consents().await;
        for _ in 0..100 {
            // A child that is about to become another program may have a copy of the lock.
            if found.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            found = second.consents().await;
        }
        assert_eq!(found?, [consent]);
        Ok(())
    }

    #[tokio::test]
    async fn a_voice_needs_a_consent_and_goes_with_it() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), 2);
        let refused = store.add_voice("mine".to_owned(), "cons_none".to_owned(), recording()).await;
        assert!(matches!(refused, Err(Error::NoConsent(_))));
        let [mine, yours] = ["me", "you"].map(|name| {
            let store = Arc::clone(&store);
            async move { store.add_consent(name.to_owned(), "en".to_owned(), recording()).await }
        });
        let (mine, yours) = (mine.await?, yours.await?);
        let gone = store.add_voice("mine".to_owned(), mine.id.clone(), recording()).await?;
        let stays = store.add_voice("yours".to_owned(), yours.id.clone(), recording()).await?;
        let full = store.add_voice("third".to_owned(), yours.id.clone(), recording()).await;
        assert!(matches!(full, Err(Error::Full { what: "voices", limit: 2 })));
        assert!(store.remove_consent(&mine.id).await? && !store.remove_consent(&mine.id).await?);
        assert_eq!(store.sample(&gone.id).await?, None);
        assert_eq!(store.voices().await?, [stays]);
        assert_eq!(store.consents().await?, [yours]);
        Ok(())
    }

    #[tokio::test]
    async fn what_an_interruption_left_is_cleared_away_and_what_is_damaged_left_out() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), 9);
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), recording()).await?;
        let whole = store.add_voice("whole".to_owned(), consent.id.clone(), recording()).await?;
        let damaged = store.add_voice("damaged".to_owned(), consent.id.clone(), recording()).await?;
        let voices = folder.path().join("voices");
        fs::write(voices.join(&damaged.id).join("record.json"), "{").expect("written");
        let part = voices.join(format!(".{}.part", store.voices.new_id()?));
        fs::create_dir(&part).expect("made");
        fs::create_dir(voices.join("others")).expect("made");
        drop(store);
        let store = self::store(folder.path(), 9);
        assert_eq!(store.voices().await?, slice::from_ref(&whole));
        assert!(!part.exists() && voices.join("others").exists() && voices.join(&damaged.id).exists());
        // Nobody's recording is kept for ever because its record is damaged, or because somebody took the rest away.
        fs::remove_dir_all(voices.join(&whole.id)).expect("there");
        for id in [&damaged.id, &whole.id] {
            assert!(store.remove_voice(id).await? && !store.remove_voice(id).await?, "{id}");
        }
        assert_eq!(store.voices().await?, []);
        assert_eq!(fs::read_dir(&voices).expect("there").count(), 1, "what others put there");
        Ok(())
    }

    #[tokio::test]
    async fn voices_without_their_consent_are_left_out_and_go_with_it() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let (lost, stays, voices) = {
            let store = store(folder.path(), 9);
            let mut made = Vec::new();
            for name in ["lost", "stays"] {
                let consent = store.add_consent(name.to_owned(), "en".to_owned(), recording()).await?.id;
                let voice = store.add_voice(name.to_owned(), consent.clone(), recording()).await?;
                made.push((consent, voice));
            }
            let [(lost, _), (_, stays)]: [(String, StoredVoice); 2] = made.try_into().expect("two");
            (lost, stays, folder.path().join("voices"))
        };
        fs::write(folder.path().join("consents").join(&lost).join("record.json"), "{").expect("written");
        let store = store(folder.path(), 9);
        assert_eq!(store.voices().await?, slice::from_ref(&stays));
        assert_eq!(fs::read_dir(&voices).expect("there").count(), 2);
        assert!(store.remove_consent(&lost).await? && !store.remove_consent(&lost).await?);
        assert_eq!(fs::read_dir(&voices).expect("there").count(), 1);
        assert!(!folder.path().join("consents").join(&lost).exists());
        assert!(store.remove_voice(&stays.id).await?);
        assert_eq!(fs::read_dir(&voices).expect("there").count(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn one_voice_that_cannot_be_deleted_keeps_none_of_the_others() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), 9);
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), recording()).await?.id;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(store.add_voice("mine".to_owned(), consent.clone(), recording()).await?.id);
        }
        ids.sort();
        // Something lies where the first would be put out of sight.
        let in_the_way = folder.path().join("voices").join(format!(".{}.part", ids[0]));
        fs::create_dir_all(in_the_way.join("others")).expect("made");
        let refused = store.remove_consent(&consent).await.expect_err("refused").to_string();
        assert!(refused.contains(&ids[0]), "{refused}");
        assert_eq!([0, 1, 2].map(|place: usize| store.has_voice(&ids[place])), [true, false, false]);
        assert!(store.consent(&consent).await?.is_some(), "what is left of it is found by it");
        fs::remove_dir_all(&in_the_way).expect("there");
        assert!(store.remove_consent(&consent).await?);
        assert_eq!(fs::read_dir(folder.path().join("voices")).expect("there").count(), 0);
        Ok(())
    }

    #[tokio::test]
    #[expect(clippy::print_stdout, reason = "a test says what it skips")]
    async fn nobody_speaks_with_a_voice_that_was_half_deleted() -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), 9);
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), recording()).await?.id;
        let voice = store.add_voice("mine".to_owned(), consent.clone(), recording()).await?.id;
        let voices = folder.path().join("voices");
        let allow = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        };
        // It can be renamed, and nothing in it can be taken away.
        allow(&voices.join(&voice), 0o500);
        if tempfile::tempfile_in(voices.join(&voice)).is_ok() {
            println!("skipped: whoever runs the tests may write anywhere");
            return Ok(());
        }
        assert!(store.remove_voice(&voice).await.is_err());
        assert!(!store.has_voice(&voice) && store.sample(&voice).await?.is_none());
        assert_eq!(store.voices().await?, []);
        allow(&voices.join(format!(".{voice}.part")), 0o700);
        assert!(store.remove_consent(&consent).await?);
        assert_eq!(fs::read_dir(&voices).expect("there").count(), 0, "the consent knew of it");
        Ok(())
    }

    #[tokio::test]
    async fn recordings_are_nobody_elses_business() -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("kept");
        let store = store(&root, 9);
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), recording()).await?;
        store.rename_consent(&consent.id, "I".to_owned()).await?;
        let entry = root.join("consents").join(&consent.id);
        let files = ["record.json", "recording.wav"].map(|name| entry.join(name));
        for path in [&root, &root.join("consents"), &entry, &root.join(".lock")].into_iter().chain(&files) {
            let mode = fs::metadata(path).expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
        Ok(())
    }

    #[tokio::test]
    async fn no_id_becomes_a_path() -> Result<(), Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store(folder.path(), 9);
        let consent = store.add_consent("me".to_owned(), "en".to_owned(), recording()).await?;
        for id in ["", ".", "..", "../consents", "/etc", "voice_/../..", "voice_\0", &consent.id, "voice_"] {
            assert_eq!(store.voice(id).await?, None, "{id:?}");
            assert_eq!(store.sample(id).await?, None, "{id:?}");
            assert!(!store.remove_voice(id).await?, "{id:?}");
            assert!(!store.voices.is_id(id), "{id:?}");
        }
        assert!(store.consents.is_id(&consent.id) && store.voices.is_id(&store.voices.new_id()?));
        assert_ne!(store.voices.new_id()?, store.voices.new_id()?);
        assert_eq!(store.consents().await?, [consent]);
        Ok(())
    }

    #[tokio::test]
    #[expect(clippy::print_stdout, reason = "a test says what it skips")]
    async fn a_folder_that_cannot_be_written_to_is_not_opened() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let consents = folder.path().join("consents");
        fs::create_dir(&consents).expect("made");
        fs::set_permissions(&consents, fs::Permissions::from_mode(0o500)).expect("ours");
        if tempfile::tempfile_in(&consents).is_ok() {
            println!("skipped: whoever runs the tests may write anywhere");
            return;
        }
        let refused = store(folder.path(), 9).voices().await.expect_err("refused");
        let message = refused.to_string();
        assert!(matches!(refused, Error::Closed(_)) && message.contains("consents"), "{message}");
    }

    #[tokio::test]
    async fn without_a_folder_nothing_is_kept_anywhere() {
        let store = Arc::new(VoiceStore::in_folder(None, 9));
        for _ in 0..2 {
            let refused = store.add_consent("me".to_owned(), "en".to_owned(), recording()).await;
            assert!(matches!(&refused, Err(Error::Closed(cause)) if matches!(**cause, Error::NoFolder)));
        }
        assert!(!Path::new("consents").exists());
    }

    #[tokio::test]
    async fn a_folder_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let message = store(file.path(), 9).voices().await.expect_err("refused").to_string();
        assert!(message.starts_with(&file.path().display().to_string()), "{message}");
    }
}

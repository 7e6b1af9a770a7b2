//! From cuts to what a model that speaks learns from: patches of mel frames, symbols, and another recording of the same voice.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use audio::{DecodeAudio, Features, LogMel};
use models::flow_lm::{FlowLmConfig, Noise, SymbolUnit, Symbols};
use rand_chacha::rand_core::RngCore as _;

use crate::Error;
use crate::data::shuffle::{Purpose, below, between, generator, uniform};
use crate::data::{Cut, Length, read_cut_at};
use crate::task::kept::Kept;

/// A recording that stands for a voice is as near to this as there is one, seconds.
const VOICE_SECS: f64 = 5.0;

/// Cuts and what is needed to say them.
pub struct Recordings {
    /// In the order of their manifests.
    pub cuts: Vec<Cut>,
    /// Symbols of each.
    texts: Vec<Vec<u32>>,
    /// The cuts of each speaker. Where no cut names one, they are of one; where some do, nobody knows whose voice the others are.
    speakers: BTreeMap<String, Vec<usize>>,
    log_mel: LogMel,
    patch_frames: usize,
    cache: Kept<usize, Arc<Features>>,
}

/// A row of a batch.
pub(super) struct Row {
    /// Mel frames of the recording.
    pub features: Arc<Features>,
    /// Symbols, both edges included.
    pub text: Vec<u32>,
    /// Mel frames of the voice prompt: of which recording, and where. `None` where there is no other recording of the voice: prompted with itself,
    /// it would learn to repeat.
    pub prompt: Option<(Arc<Features>, Range<usize>)>,
    /// Whether neither text nor voice are told.
    pub is_dropped: bool,
    /// Where its noise comes from.
    pub noise: Noise,
    /// Seconds of the recording.
    pub duration_secs: f64,
}

/// How voices are prompted and withheld.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prompting {
    pub prompt_secs: [f64; 2],
    pub drop: f64,
}

/// What a row is drawn by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    pub seed: u64,
    pub epoch: u64,
    /// Its place in the epoch: a cut that is heard twice is drawn twice.
    pub item: usize,
}

/// What of a text is spelled: numbers and abbreviations in words, or phonemes as the manifest has them.
///
/// # Errors
/// A cut without phonemes where they are what is read.
pub fn spelled(unit: SymbolUnit, cut: &Cut, language: &str) -> Result<String, Error> {
    match unit {
        SymbolUnit::Characters => {
            let language = cut.language.as_deref().unwrap_or(language);
            Ok(models::text::spoken(&cut.text, language))
        }
        SymbolUnit::Phonemes => Ok(crate::data::phonemes::symbols_of(cut)?.collect::<Vec<_>>().join(" ")),
    }
}

impl Recordings {
    /// Cuts for a model that reads `language` where they state none. `cache_bytes` of features are kept in memory.
    ///
    /// # Errors
    /// Symbols that the model does not know.
    pub fn new(
        cuts: Vec<Cut>,
        config: &FlowLmConfig,
        language: &str,
        cache_bytes: usize,
    ) -> Result<Self, Error> {
        let symbols = Symbols::new(config);
        let text = |cut: &Cut| Ok(symbols.encode(&spelled(config.unit, cut, language)?)?);
        let texts = cuts.iter().map(text).collect::<Result<_, Error>>()?;
        let mut speakers = BTreeMap::<String, Vec<usize>>::new();
        for (index, cut) in cuts.iter().enumerate() {
            if let Some(name) = cut.speaker.as_deref() {
                speakers.entry(name.to_owned()).or_default().push(index);
            }
        }
        if speakers.is_empty() {
            speakers.insert("voice".to_owned(), (0..cuts.len()).collect());
        }
        let log_mel = LogMel::new(&config.feature_spec)?;
        let patch_frames = config.patch_frames;
        Ok(Self { cuts, texts, speakers, log_mel, patch_frames, cache: Kept::new(cache_bytes) })
    }

    /// The speakers, those with the most recordings first, each with its cuts: the first is the one that stands for its voice the best.
    pub fn voices(&self) -> Vec<(&str, Vec<&Cut>)> {
        let distance = |cut: &Cut| (cut.duration_secs - VOICE_SECS).abs();
        let mut voices: Vec<(&str, Vec<&Cut>)> = Vec::with_capacity(self.speakers.len());
        for (name, indices) in &self.speakers {
            let mut cuts: Vec<&Cut> = indices.iter().map(|index| &self.cuts[*index]).collect();
            cuts.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
            voices.push((name, cuts));
        }
        voices.sort_by_key(|(_, cuts)| std::cmp::Reverse(cuts.len()));
        voices
    }

    /// Seconds and symbols.
    pub fn length(&self, index: usize) -> Length {
        Length::new(self.cuts[index].duration_secs, self.texts[index].len() as u32)
    }

    /// Symbols, both edges included.
    pub fn text(&self, index: usize) -> &[u32] {
        &self.texts[index]
    }

    /// Mel frames of a cut.
    ///
    /// # Errors
    /// A recording that cannot be read.
    pub fn features(&self, index: usize) -> Result<Arc<Features>, Error> {
        if let Some(features) = self.cache.get(&index) {
            return Ok(features);
        }
        let sample_rate = self.log_mel.spec().sample_rate;
        let waveform = read_cut_at(&self.cuts[index], sample_rate, &DecodeAudio::default())?;
        let features = Arc::new(self.log_mel.compute(&waveform.samples));
        self.cache.keep(index, features.clone(), size_of_val(features.data.as_slice()));
        Ok(features)
    }

    /// A row of a batch. What it is depends on its arguments alone.
    pub(super) fn row(&self, index: usize, prompting: Prompting, draw: Draw) -> Result<Row, Error> {
        let cut = &self.cuts[index];
        let mut rng = generator(draw.seed, draw.epoch, Purpose::Prompts, draw.item as u64);
        let noise = Noise::new(rng.next_u64());
        let is_dropped = uniform(&mut rng) < prompting.drop;
        let wanted_secs = between(prompting.prompt_secs, &mut rng);
        let other = if is_dropped { None } else { self.another(index, &mut rng) };
        let prompt = other.map(|other| {
            // Whole patches: the rest of the last one would be a silence that no voice has.
            let whole = |n_frames: usize| n_frames - n_frames % self.patch_frames;
            let wanted =
                whole((wanted_secs * self.log_mel.spec().frame_rate()) as usize).max(self.patch_frames);
            let n_frames = wanted.min(whole(other.n_frames));
            let start = below((other.n_frames - n_frames + 1) as u64, &mut rng) as usize;
            (other, start..start + n_frames)
        });
        Ok(Row {
            features: self.features(index)?,
            text: self.texts[index].clone(),
            prompt,
            is_dropped,
            noise,
            duration_secs: cut.duration_secs,
        })
    }

    /// Another recording of the same voice. One that cannot be read is none: as a recording of its own it is told.
    fn another(&self, index: usize, rng: &mut impl rand_chacha::rand_core::RngCore) -> Option<Arc<Features>> {
        let own = match self.cuts[index].speaker.as_deref() {
            Some(name) => self.speakers.get(name),
            None => self.speakers.values().next().filter(|own| own.len() == self.cuts.len()),
        }?;
        let others = own.len().checked_sub(1).filter(|n| *n > 0)?;
        let place = below(others as u64, rng) as usize;
        // Indices ascend: from its own on, they are one further.
        let is_before = own[place] < index;
        self.features(own[if is_before { place } else { place + 1 }]).ok()
    }
}

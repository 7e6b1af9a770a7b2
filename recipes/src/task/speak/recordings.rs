//! From cuts to what a model that speaks learns from: patches of mel frames, symbols, and another recording of the same voice.

use std::collections::BTreeMap;
use std::sync::Arc;

use audio::augment::cut_rng;
use audio::{DecodeAudio, Features, LogMel};
use models::flow_lm::{FlowLmConfig, SymbolUnit, Symbols};

use crate::Error;
use crate::data::shuffle::{below, between, uniform};
use crate::data::{Cut, Length, read_cut_at};
use crate::task::kept::Kept;

/// Cuts and what is needed to say them.
pub struct Recordings {
    /// In the order of their manifests.
    pub cuts: Vec<Cut>,
    /// Symbols of each.
    texts: Vec<Vec<u32>>,
    /// The cuts of each speaker; one without a name speaks alone.
    speakers: BTreeMap<String, Vec<usize>>,
    log_mel: LogMel,
    cache: Kept<usize, Arc<Features>>,
}

/// A row of a batch.
pub(super) struct Row {
    /// Mel frames of the recording.
    pub features: Arc<Features>,
    /// Symbols, both edges included.
    pub text: Vec<u32>,
    /// Mel frames of the voice prompt: of which recording, and where.
    pub prompt: (Arc<Features>, std::ops::Range<usize>),
    /// Whether neither text nor voice are told.
    pub is_dropped: bool,
    /// Seconds of the recording.
    pub duration_secs: f64,
}

/// How voices are prompted and withheld.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prompting {
    pub prompt_secs: [f64; 2],
    pub drop: f64,
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
            // Nobody knows whose voice it is: it is its own.
            let name = cut.speaker.as_deref().map_or_else(|| format!("\0{}", cut.id), str::to_owned);
            speakers.entry(name).or_default().push(index);
        }
        let log_mel = LogMel::new(&config.feature_spec)?;
        Ok(Self { cuts, texts, speakers, log_mel, cache: Kept::new(cache_bytes) })
    }

    /// The speakers, those with the most recordings first, each with a cut that may stand for its voice: the one that is nearest to five
    /// seconds. Where none has a name, they are one.
    pub fn voices(&self) -> Vec<(&str, &Cut)> {
        let distance = |index: &&usize| (self.cuts[**index].duration_secs - 5.0).abs();
        let best = |indices: &mut dyn Iterator<Item = &usize>| {
            let best = indices.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
            Some(&self.cuts[*best])
        };
        let is_named = |name: &&String| !name.starts_with('\0');
        let mut named: Vec<_> = self.speakers.iter().filter(|(name, _)| is_named(name)).collect();
        named.sort_by_key(|(_, indices)| std::cmp::Reverse(indices.len()));
        if named.is_empty() {
            return best(&mut self.speakers.values().flatten())
                .map(|cut| ("voice", cut))
                .into_iter()
                .collect();
        }
        named
            .into_iter()
            .filter_map(|(name, indices)| Some((name.as_str(), best(&mut indices.iter())?)))
            .collect()
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
    pub(super) fn row(
        &self,
        index: usize,
        prompting: Prompting,
        seed: u64,
        epoch: u64,
    ) -> Result<Row, Error> {
        let cut = &self.cuts[index];
        let mut rng = cut_rng(seed, epoch, &cut.id);
        let is_dropped = uniform(&mut rng) < prompting.drop;
        let features = self.features(index)?;
        let others = cut.speaker.as_deref().and_then(|name| self.speakers.get(name));
        let others: Vec<usize> =
            others.into_iter().flatten().copied().filter(|other| *other != index).collect();
        let other = match others.is_empty() {
            true => features.clone(),
            false => self.features(others[below(others.len() as u64, &mut rng) as usize])?,
        };
        let frame_rate = self.log_mel.spec().frame_rate();
        let wanted = (between(prompting.prompt_secs, &mut rng) * frame_rate) as usize;
        let n_frames = wanted.clamp(1, other.n_frames.max(1)).min(other.n_frames);
        let start = below((other.n_frames - n_frames + 1) as u64, &mut rng) as usize;
        Ok(Row {
            features,
            text: self.texts[index].clone(),
            prompt: (other, start..start + n_frames),
            is_dropped,
            duration_secs: cut.duration_secs,
        })
    }
}

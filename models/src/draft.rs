//! A smaller model that guesses what a larger one is going to write: its decoder, and an encoder of its own unless it hears with the
//! larger one's, as a distilled student does whose encoder was copied and never trained.

use std::sync::{Arc, OnceLock};

use audio::Features;
use candle_core::{Device, Tensor};

use crate::params::Params;
use crate::{Bundle, CrossCache, Decoder, Description, Encoder, Error, Precision, SpeechModel, Weights};

/// A loaded draft.
pub(crate) struct DraftModel {
    decoder: Arc<Decoder>,
    /// `None` hears with the other's.
    encoder: Option<Encoder>,
    device: Device,
}

impl DraftModel {
    /// Loads `draft`, which guesses for the model `of`.
    ///
    /// # Errors
    /// A model without a decoder or of another vocabulary, one that hears something else; whatever is wrong with its files.
    pub fn load(
        draft: Bundle,
        of: (&Description, &Weights),
        precision: Precision,
        device: &Device,
    ) -> Result<Self, Error> {
        let (description, weights) = draft.into_parts();
        check(&description, of.0)?;
        if !device.is_cpu() {
            let message = "guesses on the processor alone, where rows of any number give the same bits; leave it out, or say --device cpu";
            return Err(Error::option("draft", message));
        }
        let has_own_encoder = !has_same_encoder((&description, &weights), of)?;
        let architecture = description.architecture();
        if has_own_encoder {
            // It hears the other's windows.
            let takes_any = architecture.is_variable_length() || !of.0.architecture().is_variable_length();
            if !takes_any || description.window_secs() < of.0.window_secs() {
                let message = "it hears windows of other lengths than the model it is to guess for";
                return Err(Error::option("draft", format!("{}: {message}", description.source())));
            }
        }
        let params = Params::frozen(weights, device).with_precision(precision);
        let (decoder, encoder) = if has_own_encoder {
            let model = SpeechModel::load(&params, architecture)?;
            (model.decoder()?.clone(), Some(model.encoder))
        } else {
            (Arc::new(SpeechModel::load_decoder(&params, architecture)?), None)
        };
        Ok(Self { decoder, encoder, device: device.clone() })
    }

    /// What guesses.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// Whether it hears with an encoder of its own.
    pub fn has_own_encoder(&self) -> bool {
        self.encoder.is_some()
    }

    /// What it hears in the features of a window of which the other model has the hidden states `encoded` (T, D): computed when it
    /// first guesses.
    pub fn listen(self: &Arc<Self>, features: Features, encoded: &Tensor) -> Arc<DraftWindow> {
        let sound =
            if self.has_own_encoder() { Sound::Features(features) } else { Sound::Encoded(encoded.clone()) };
        let model = Some(Arc::clone(self));
        Arc::new(DraftWindow { decoder: self.decoder.clone(), model, sound, cross: OnceLock::new() })
    }
}

/// What a draft hears of a window, once it is asked to guess: beside many others it never is.
pub struct DraftWindow {
    decoder: Arc<Decoder>,
    model: Option<Arc<DraftModel>>,
    sound: Sound,
    cross: OnceLock<CrossCache>,
}

enum Sound {
    Features(Features),
    /// Hidden states of the other model's encoder, (T, D).
    Encoded(Tensor),
}

impl DraftWindow {
    /// What a decoder without an encoder of its own hears in hidden states (T, D).
    pub fn of(decoder: &Arc<Decoder>, encoded: &Tensor) -> Arc<Self> {
        let (decoder, sound) = (decoder.clone(), Sound::Encoded(encoded.clone()));
        Arc::new(Self { decoder, model: None, sound, cross: OnceLock::new() })
    }

    /// Keys and values that its rows attend to.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub(crate) fn cross(&self) -> Result<&CrossCache, Error> {
        if let Some(cross) = self.cross.get() {
            return Ok(cross);
        }
        let encoder = self.model.as_ref().and_then(|model| Some((model.encoder.as_ref()?, &model.device)));
        let encoded = match (&self.sound, encoder) {
            (Sound::Features(features), Some((encoder, device))) => {
                encoder.hear(features.clone(), device, &|| true)?
            }
            (Sound::Encoded(encoded), _) => encoded.clone(),
            (Sound::Features(_), None) => return Err(Error::option("draft", "has no encoder of its own")),
        };
        let cross = self.decoder.cross_cache(&encoded)?;
        Ok(self.cross.get_or_init(|| cross))
    }
}

/// Refuses a draft that does not speak the other's tokens or hears something else.
fn check(draft: &Description, of: &Description) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::option("draft", format!("{}: {what}", draft.source())));
    let (ours, theirs) = (draft.architecture(), of.architecture());
    if ours.n_layers().1 == 0 {
        return refuse("it has no decoder, which is what guesses".to_owned());
    }
    if theirs.n_layers().1 == 0 {
        return refuse("the model reads without a decoder: there is nothing to guess".to_owned());
    }
    if draft.feature_spec() != of.feature_spec() {
        return refuse("it hears other features than the model it is to guess for".to_owned());
    }
    let ((own, _, special), (other, _, other_special)) = (draft.vocabulary()?, of.vocabulary()?);
    if ours.n_vocab() != theirs.n_vocab() {
        let (a, b) = (ours.n_vocab(), theirs.n_vocab());
        return refuse(format!("its vocabulary has {a} tokens, that of the model it is to guess for {b}"));
    }
    let differs = |id: &u32| own.token_bytes(*id) != other.token_bytes(*id);
    if let Some(id) = (0..ours.n_vocab() as u32).find(differs) {
        return refuse(format!("token {id} is not what it is in the model it is to guess for"));
    }
    if special != other_special {
        return refuse("its prompts are not those of the model it is to guess for".to_owned());
    }
    Ok(())
}

/// Whether two models have the same encoder, to the last bit.
fn has_same_encoder(
    (draft, weights): (&Description, &Weights),
    (of, others): (&Description, &Weights),
) -> Result<bool, Error> {
    let (scope, _) = draft.architecture().encoder_scopes();
    if scope != of.architecture().encoder_scopes().0 {
        return Ok(false);
    }
    weights.are_equal_below(others, &format!("{scope}."))
}

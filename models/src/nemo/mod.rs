//! NVIDIA NeMo's `.nemo` archives (`save_restore_connector.py`) as bundles: FastConformer CTC and Canary.

mod archive;
mod checkpoint;
mod config;
mod features;
mod names;
mod pickle;
mod settings;
mod vocabulary;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use candle_core::{Device, IndexOp, Tensor};
use serde_json::Value;

use self::archive::Archive;
use self::checkpoint::Checkpoint;
use self::config::Target;
use self::names::{CTC_HEAD, EMBEDDING, Layout, OUTPUT, POSITIONS, Place, place};
use self::settings::Settings;
use crate::bundle::{Files, Names, canary_files, ctc_files};
use crate::canary::{CanaryConfig, positions};
use crate::parakeet::ParakeetCtcConfig;
use crate::params::Params;
use crate::sentencepiece::SentencePiece;
use crate::tokenizer::Tokenizer;
use crate::{Bundle, Error, SpeechModel, WeightDtype, Weights, write_weights};

const CONFIG: &str = "model_config.yaml";
const WEIGHTS: &str = "model_weights.ckpt";

/// A configuration lists a vocabulary at most.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// Seconds of audio that NeMo's chunked inference hears at once.
const WINDOW_SECS: f64 = 40.0;

/// Whether a file is called as NeMo's archives are.
pub fn is_nemo(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("nemo"))
}

/// Writes the model of the archive `path` as a bundle into the directory `dir`, under the names of transformers. Only that bundle's
/// files are written, whatever names the archive has.
///
/// # Errors
/// A file that is no such archive; a model whose configuration, tokenizer or weights ask for what our models do not do, by the
/// key and the value; what the disk refuses.
pub fn import_nemo(path: &Path, dir: &Path, dtype: WeightDtype) -> Result<(), Error> {
    let archive = Archive::open(path, dir)?;
    let config_path = archive.path(CONFIG);
    let yaml = archive.read(CONFIG, MAX_CONFIG_BYTES)?;
    let yaml = String::from_utf8(yaml).map_err(|_| Error::file(&config_path, "is not UTF-8 text"))?;
    let keys: Value = serde_saphyr::from_str(&yaml)
        .map_err(|error| Error::file(&config_path, format!("is no YAML: {error}")))?;
    let mut whole = Settings::new(&config_path, &keys);
    let target = Target::read(&mut whole)?;
    let mut checkpoint = Checkpoint::open(&archive, WEIGHTS)?;
    let vocabulary = vocabulary::read(&archive, &mut whole, &yaml)?;
    let model = match target {
        Target::EncDecCtcModelBpe => Imported::ctc(&mut whole, &checkpoint, &vocabulary, &config_path)?,
        Target::EncDecMultiTaskModel => Imported::canary(&mut whole, &checkpoint, &vocabulary, &config_path)?,
    };
    features::check(&mut checkpoint, &model.features)?;
    let tensors = model.tensors(&mut checkpoint)?;
    let tokenizer = ("tokenizer.json", model.tokenizer);
    for (name, contents) in model.files.into_iter().chain([tokenizer]) {
        let path = dir.join(name);
        std::fs::write(&path, contents.to_string())
            .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))?;
    }
    write_weights(dir, &tensors, dtype)?;
    drop(tensors);
    check(dir).map_err(|error| of_archive(error, path))
}

/// An error about what was written, which is gone when somebody reads it, as one about the archive `path`.
fn of_archive(error: Error, path: &Path) -> Error {
    let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    let what = match error {
        Error::File { path, message } => format!("{}: {message}", name(&path)),
        Error::Key { path, key, message } => format!("{}: `{key}`: {message}", name(&path)),
        other => other.to_string(),
    };
    Error::file(path, format!("what was made of it does not load: {what}"))
}

/// Loads what was written: all weights are there, in the shapes that the configuration says.
fn check(dir: &Path) -> Result<(), Error> {
    let bundle = Bundle::open(dir)?;
    bundle.description().vocabulary()?;
    SpeechModel::load(&Params::frozen(Weights::open(dir)?, &Device::Cpu), bundle.architecture())?;
    Ok(())
}

/// All of a bundle but its weights, and what their names depend on.
struct Imported {
    layout: Layout,
    features: audio::FeatureSpec,
    files: Files,
    tokenizer: Value,
    n_encoder_layers: usize,
    n_decoder_layers: usize,
}

impl Imported {
    fn ctc(
        whole: &mut Settings<'_>,
        checkpoint: &Checkpoint<'_>,
        vocabulary: &SentencePiece,
        path: &Path,
    ) -> Result<Self, Error> {
        let encoder_config = config::encoder(whole)?;
        config::ctc_head(whole)?;
        let n_vocab = n_rows(checkpoint, CTC_HEAD)?;
        let n_pieces = vocabulary.pieces().len();
        if n_pieces + 1 != n_vocab {
            let message = format!("{n_vocab} are not the tokenizer's {n_pieces} and a blank");
            return Err(Error::key(checkpoint.path(), CTC_HEAD, message));
        }
        let n_encoder_layers = encoder_config.num_hidden_layers;
        let config = ParakeetCtcConfig {
            encoder_config,
            vocab_size: n_vocab,
            pad_token_id: n_pieces as u32,
            language: None,
            window_secs: WINDOW_SECS,
        };
        config.check(path)?;
        // NeMo's blank is the last token, and has no name there.
        let is_taken = vocabulary.pieces().iter().any(|piece| piece.text == "<pad>");
        let blank = if is_taken { "<blank>" } else { "<pad>" };
        let max_tokens = config.encoder_config.max_position_embeddings;
        let names = Names { end: blank, pad: blank, unknown: vocabulary.unknown() };
        let files = ctc_files(&config, 1, max_tokens, names)?;
        let tokenizer = vocabulary.tokenizer(&[blank]);
        let features = config.encoder_config.feature_spec();
        Ok(Self { layout: Layout::Ctc, features, files, tokenizer, n_encoder_layers, n_decoder_layers: 0 })
    }

    fn canary(
        whole: &mut Settings<'_>,
        checkpoint: &Checkpoint<'_>,
        vocabulary: &SentencePiece,
        path: &Path,
    ) -> Result<Self, Error> {
        let encoder_config = config::encoder(whole)?;
        // NeMo makes the number of rows a multiple of eight.
        let n_vocab = n_rows(checkpoint, EMBEDDING)?;
        let n_pieces = vocabulary.pieces().len();
        if n_pieces > n_vocab {
            let message = format!("{n_vocab} are less than the tokenizer's {n_pieces}");
            return Err(Error::key(checkpoint.path(), EMBEDDING, message));
        }
        let decoder_config = config::decoder(whole, encoder_config.hidden_size, n_vocab)?;
        let tokenizer = vocabulary.tokenizer(&[]);
        let known = Tokenizer::from_text(&tokenizer.to_string())
            .map_err(|error| whole.refuse("tokenizer", error.to_string()))?;
        let need = |name: &str| {
            let missing = || whole.refuse("tokenizer", format!("has no <|{name}|>, which prompts need"));
            known.special(name).ok_or_else(missing)
        };
        let (begin, end) = (need("startoftranscript")?, need("endoftext")?);
        let context = known.special("startofcontext");
        let format = if context.is_some() { "canary2" } else { "canary" };
        let is_pad = |piece: &crate::sentencepiece::Piece| piece.text == "<pad>";
        let pad = vocabulary.pieces().iter().position(is_pad).map_or(end, |id| id as u32);
        let (n_encoder_layers, n_decoder_layers) =
            (encoder_config.num_hidden_layers, decoder_config.num_hidden_layers);
        let config = CanaryConfig {
            encoder_config,
            decoder_config,
            eos_token_id: end,
            pad_token_id: pad,
            decoder_start_token_id: context.unwrap_or(begin),
            window_secs: WINDOW_SECS,
            ctc_token_ids: None,
        };
        config.check(path)?;
        // What a prompt is made of follows from the tokens that there are.
        whole.known("prompt_format", &Value::from(format), &[Value::from(format)])?;
        let pad = if pad == end { "<|endoftext|>" } else { "<pad>" };
        let names = Names { end: "<|endoftext|>", pad, unknown: vocabulary.unknown() };
        let files = canary_files(&config, begin, 1, names)?;
        let features = config.encoder_config.feature_spec();
        Ok(Self { layout: Layout::Canary, features, files, tokenizer, n_encoder_layers, n_decoder_layers })
    }

    /// All weights under their names in a bundle.
    fn tensors(&self, checkpoint: &mut Checkpoint<'_>) -> Result<BTreeMap<String, Tensor>, Error> {
        let path = checkpoint.path().to_owned();
        let order = match self.layout {
            Layout::Canary => order_of_columns(checkpoint)?,
            Layout::Ctc => None,
        };
        let mut tensors = BTreeMap::new();
        for stored in checkpoint.names() {
            let refuse = |message: String| Error::key(&path, &stored, message);
            let (name, axes) = match place(&stored, self.layout) {
                Place::Computed => continue,
                Place::Unknown => {
                    let message = "is no parameter of a FastConformer CTC or Canary model without additions";
                    return Err(refuse(message.to_owned()));
                }
                Place::Tensor(name, axes) => (name, axes),
            };
            for (part, n) in
                [("encoder.layers.", self.n_encoder_layers), ("decoder.layers.", self.n_decoder_layers)]
            {
                let layer = name.split_once(part).and_then(|(_, rest)| rest.split('.').next());
                // The convolutions before the blocks are counted otherwise.
                if layer.and_then(|layer| layer.parse::<usize>().ok()).is_some_and(|layer| layer >= n) {
                    return Err(refuse(format!("is of a block beyond the {n} of {CONFIG}")));
                }
            }
            let mut tensor = checkpoint.read(&stored)?;
            for axis in axes {
                if let Some(order) = &order {
                    tensor = tensor.index_select(order, *axis).map_err(|error| refuse(error.to_string()))?;
                }
            }
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }
}

/// Where the columns that blocks of the decoder pass on have to come from: NeMo tells positions by sines and cosines in turn,
/// transformers and our models by all sines before all cosines. A model that is the same but for the order of its columns computes
/// the same. `None` where a table says that they are in that order already.
fn order_of_columns(checkpoint: &mut Checkpoint<'_>) -> Result<Option<Tensor>, Error> {
    let path = checkpoint.path().to_owned();
    let embedding = checkpoint.read(EMBEDDING)?; // (V, D)
    let (_, width) = embedding.dims2().map_err(|error| Error::key(&path, EMBEDDING, error))?;
    if !width.is_multiple_of(2) {
        return Err(Error::key(&path, EMBEDDING, format!("has {width} columns; positions need pairs")));
    }
    if checkpoint.shape(OUTPUT).is_some() {
        let output = checkpoint.read(OUTPUT)?;
        if output.dims() != embedding.dims() || distance(&output, &embedding).is_none_or(|far| far > 0.0) {
            let message = format!("is not {EMBEDDING}, which our models tell tokens by");
            return Err(Error::key(&path, OUTPUT, message));
        }
    }
    let half = width as u32 / 2;
    let order =
        Tensor::from_iter((0..half).map(|i| 2 * i).chain((0..half).map(|i| 2 * i + 1)), &Device::Cpu)?;
    if checkpoint.shape(POSITIONS).is_none() {
        return Ok(Some(order));
    }
    let table = checkpoint.read(POSITIONS)?; // (U, D)
    let refuse = |message: String| Error::key(&path, POSITIONS, message);
    let read = || -> candle_core::Result<[Option<f32>; 2]> {
        // Later positions say no more.
        let n = table.dims2()?.0.min(64);
        let (table, ours) = (table.i(..n)?, Tensor::from_vec(positions(n, width), (n, width), &Device::Cpu)?);
        Ok([distance(&table, &ours), distance(&table.index_select(&order, 1)?, &ours)])
    };
    let is_near = |far: Option<f32>| far.is_some_and(|far| far < 1e-3);
    match read().map_err(|error| refuse(error.to_string()))? {
        [far, _] if is_near(far) => Ok(None),
        [_, far] if is_near(far) => Ok(Some(order)),
        _ => {
            Err(refuse("holds other positions than sines and cosines over the root of the width".to_owned()))
        }
    }
}

/// The largest difference of two tensors of one shape; `None` of those that have none.
fn distance(a: &Tensor, b: &Tensor) -> Option<f32> {
    let far = (a - b).ok()?.abs().ok()?.max_all().ok()?;
    far.to_scalar::<f32>().ok().filter(|far| !far.is_nan())
}

fn n_rows(checkpoint: &Checkpoint<'_>, name: &str) -> Result<usize, Error> {
    let rows = checkpoint.shape(name).and_then(<[usize]>::first).copied();
    rows.ok_or_else(|| Error::key(checkpoint.path(), name, "the tensor is missing"))
}

#[cfg(test)]
mod tests;

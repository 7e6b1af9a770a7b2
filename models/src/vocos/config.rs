//! What `config.json` says about a Vocos vocoder.

use std::path::Path;

use audio::FeatureSpec;
use audio::features::{FrameAlignment, Istft};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::bundle::{BundleSource, parse, read_json};

/// What `config.json` calls a Vocos.
pub const VOCOS: &str = "vocos";
const CONFIG: &str = "config.json";

/// A dimension above this is a forged or broken file.
const MAX_DIMENSION: usize = 1 << 14;
/// So are more blocks.
const MAX_LAYERS: usize = 256;
/// And frames that a convolution looks at: no fewer than would be a convolution, no more than any has.
const KERNELS: std::ops::RangeInclusive<usize> = 2..=63;

/// Dimensions of a Vocos, and the features that it speaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VocosConfig {
    /// What features must have been computed by: all of it, as the vocoder of other features speaks nonsense.
    pub feature_spec: FeatureSpec,
    /// Width.
    pub hidden_size: usize,
    /// Width inside blocks.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Frames that a convolution looks at: one and those before it.
    pub kernel_size: usize,
}

impl VocosConfig {
    /// Reads it from a bundle.
    ///
    /// # Errors
    /// A missing file, another kind of model, what [`VocosConfig::check`] refuses.
    pub fn read(source: &BundleSource) -> Result<Self, Error> {
        let (path, value) = (source.path(CONFIG), read_json(source, CONFIG)?);
        let model_type = value.get("model_type").and_then(Value::as_str);
        if model_type != Some(VOCOS) {
            let found = model_type.unwrap_or("missing");
            return Err(Error::key(&path, "model_type", format!("is {found}, and a vocoder's is {VOCOS}")));
        }
        let config: Self = parse(value, &path)?;
        config.check(&path)?;
        Ok(config)
    }

    /// Writes it as the `config.json` of a bundle in `dir`.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(CONFIG);
        let text = serde_json::to_value(self).and_then(|mut value| {
            value["model_type"] = VOCOS.into();
            serde_json::to_string_pretty(&value)
        });
        let text = text.map_err(|error| Error::file(&path, error))?;
        std::fs::write(&path, text + "\n")
            .map_err(|error| Error::file(&path, format!("cannot be written: {error}")))
    }

    /// Refuses what cannot be loaded, naming `path` and the key.
    ///
    /// # Errors
    /// Zero or absurd dimensions, features that there is no way back from.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        for (key, value, allowed) in [
            ("hidden_size", self.hidden_size, 1..=MAX_DIMENSION),
            ("intermediate_size", self.intermediate_size, 1..=MAX_DIMENSION),
            ("num_layers", self.num_layers, 1..=MAX_LAYERS),
            ("kernel_size", self.kernel_size, KERNELS),
        ] {
            if !allowed.contains(&value) {
                let message = format!("{value} is not between {} and {}", allowed.start(), allowed.end());
                return Err(Error::key(path, key, message));
            }
        }
        // What it speaks lies where the features' frames do.
        match Istft::new(&self.feature_spec, FrameAlignment::Centred) {
            Ok(_) => Ok(()),
            Err(audio::Error::BadOption { field, reason }) => {
                Err(Error::key(path, format!("feature_spec.{field}"), reason))
            }
            Err(error) => Err(Error::key(path, "feature_spec", error)),
        }
    }
}

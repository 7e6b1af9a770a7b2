//! What models compute on, and in what.

use models::{Bundle, BundleSource, Device, Precision, Transcriber};

use crate::config::{self, Transcribe};

/// A device, and a precision that it computes in.
#[derive(Debug, Clone)]
pub struct Compute {
    device: Device,
    precision: Precision,
}

impl Compute {
    /// What the settings ask for.
    ///
    /// # Errors
    /// A device that is not there, a precision that it does not compute in.
    pub fn of(settings: &Transcribe) -> Result<Self, models::Error> {
        Self::new(settings.device.open()?, settings.precision)
    }

    /// This precision on this device.
    ///
    /// # Errors
    /// A precision that the device does not compute in.
    pub fn new(device: Device, precision: config::Precision) -> Result<Self, models::Error> {
        let precision = precision.resolve(&device);
        precision.check(&device)?;
        Ok(Self { device, precision })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Loads a model that transcribes.
    ///
    /// # Errors
    /// Whatever is wrong with the bundle.
    pub fn load(&self, source: BundleSource) -> Result<Transcriber, models::Error> {
        self.load_bundle(Bundle::from_source(source)?)
    }

    /// Loads a model that transcribes, and one that guesses what it is going to write if there is one.
    ///
    /// # Errors
    /// Whatever is wrong with the bundles, two that do not suit each other.
    pub fn load_with_draft(
        &self,
        source: BundleSource,
        draft: Option<BundleSource>,
    ) -> Result<Transcriber, models::Error> {
        let Some(draft) = draft else { return self.load(source) };
        let (bundle, draft) = (Bundle::from_source(source)?, Bundle::from_source(draft)?);
        Transcriber::load_with_draft(self.precision, bundle, draft, &self.device)
    }

    /// The same as [`Compute::load`] of a bundle that is open.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn load_bundle(&self, bundle: Bundle) -> Result<Transcriber, models::Error> {
        Transcriber::load_in(self.precision, bundle, &self.device)
    }
}

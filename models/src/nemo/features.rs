//! What an archive says that its model hears, beside what ours computes.

use audio::{FeatureSpec, LogMel};

use super::checkpoint::Checkpoint;
use crate::Error;

/// The mel filters (`features.py: FilterbankFeatures`).
pub(super) const FILTERS: &str = "preprocessor.featurizer.fb";
/// The window, without the zeros around it.
pub(super) const WINDOW: &str = "preprocessor.featurizer.window";

/// How far numbers may be from ours, in proportion to the largest: what halves lose is a quarter of it, and windows that are taken for
/// each other differ by four times as much.
const MAX_DIFFERENCE: f64 = 2e-3;

/// Makes sure that the tables of an archive, where it has them, are those of `spec`.
///
/// # Errors
/// Another table.
pub(super) fn check(checkpoint: &mut Checkpoint<'_>, spec: &FeatureSpec) -> Result<(), Error> {
    let n_bins = spec.n_fft / 2 + 1;
    compare(checkpoint, FILTERS, &[1, spec.n_mels, n_bins], || Ok(LogMel::new(spec)?.filters().dense()))?;
    // Without the zeros that centre it in the transform.
    let left = (spec.n_fft - spec.window_samples) / 2;
    let own = left..left + spec.window_samples;
    compare(checkpoint, WINDOW, &[spec.window_samples], || Ok(LogMel::new(spec)?.window()[own].to_vec()))
}

/// Makes sure that the table `name` is `ours`, of which there is as much as `known` says.
fn compare(
    checkpoint: &mut Checkpoint<'_>,
    name: &str,
    known: &[usize],
    ours: impl FnOnce() -> Result<Vec<f64>, Error>,
) -> Result<(), Error> {
    let Some(shape) = checkpoint.shape(name) else { return Ok(()) };
    let path = checkpoint.path().to_owned();
    if shape != known {
        return Err(Error::key(&path, name, format!("has shape {shape:?}; {known:?} is known")));
    }
    let stored = checkpoint.read(name)?.flatten_all()?.to_vec1::<f32>()?;
    let ours = ours()?;
    let largest = ours.iter().copied().fold(0.0, f64::max);
    // Not by the largest difference, which leaves out what is no number.
    let is_near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= MAX_DIFFERENCE * largest;
    if stored.len() != ours.len() || !stored.iter().zip(&ours).all(is_near) {
        return Err(Error::key(&path, name, "differs from what our models hear by"));
    }
    Ok(())
}

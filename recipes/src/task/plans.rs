//! Plans of epochs, each made once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::data::{Epoch, EpochPadding};

/// Epochs whose plans are kept: loader threads may be in different ones.
const KEPT_EPOCHS: usize = 3;

/// Where a plan is, or will be: locked while somebody makes it.
type Place<P> = Arc<Mutex<Option<Arc<P>>>>;

/// The plans of the epochs that were asked for last.
pub(super) struct Plans<P>(Mutex<BTreeMap<u64, Place<P>>>);

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P> Plans<P> {
    /// That of the first epoch, made before.
    pub fn beginning_with(first: P) -> Self {
        Self(Mutex::new(BTreeMap::from([(0, Arc::new(Mutex::new(Some(Arc::new(first)))))])))
    }

    /// Made once, by whoever asks first; who asks for another epoch meanwhile does not wait.
    ///
    /// # Errors
    /// What `make` refuses; it is asked again then.
    pub fn of(&self, epoch: u64, make: impl FnOnce() -> Result<P, Error>) -> Result<Arc<P>, Error> {
        let place = {
            let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let place = plans.entry(epoch).or_default().clone();
            while plans.len() > KEPT_EPOCHS {
                // The one that is furthest away is needed last.
                let furthest = plans.keys().copied().max_by_key(|other| other.abs_diff(epoch));
                furthest.map(|other| plans.remove(&other));
            }
            place
        };
        let mut plan = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = &*plan {
            return Ok(plan.clone());
        }
        let made = Arc::new(make()?);
        *plan = Some(made.clone());
        Ok(made)
    }
}

/// An epoch in batches, and which of the data each of its items is.
pub(super) struct EpochPlan {
    /// Which one each item is.
    pub items: Vec<usize>,
    pub epoch: Epoch,
    pub padding: EpochPadding,
}

impl EpochPlan {
    /// The items of a batch.
    pub fn batch(&self, at: usize) -> impl Iterator<Item = usize> {
        self.epoch.step(at).into_iter().flatten().flat_map(|batch| batch.items)
    }

    /// The batch whose items weigh most together.
    pub fn heaviest(&self, weight: impl Fn(usize) -> f64) -> usize {
        let sum = |at: &usize| self.batch(*at).map(&weight).sum::<f64>();
        (0..self.epoch.n_steps()).max_by(|a, b| sum(a).total_cmp(&sum(b))).unwrap_or(0)
    }
}

//! Looks at the recordings of a corpus: are they there, and how long are they? Texts alone have none.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use audio::{DecodeAudio, probe_file};
use rayon::prelude::*;

use super::{Found, Listing, Options, Split};
use crate::data::manifest::{Cut, Reason};

/// Lengths are written to the microsecond: finer than a sample.
const ROUNDING: f64 = 1e6;

/// The cuts by the split that the corpus states, in the order of the corpus; what cannot be used goes to the rejected.
pub(super) fn measure(
    found: Vec<Found>,
    listing: &mut Listing,
    options: &Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> BTreeMap<Option<Split>, Vec<Cut>> {
    let (total, done) = (found.len(), AtomicUsize::new(0));
    let needs_text = !listing.is_wordless;
    progress(0, total);
    let looked_at: Vec<_> = found
        .into_par_iter()
        .map(|mut found| {
            let result = look_at(&mut found.row.cut, found.row.has_duration, needs_text);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            (found, result)
        })
        .collect();
    let language = options.language.as_deref().map(|language| listing.names.get(language));
    let mut by_split = BTreeMap::<_, Vec<_>>::new();
    for (found, result) in looked_at {
        match result {
            Ok(()) => {
                let mut cut = found.row.cut;
                cut.language = cut.language.or_else(|| language.clone());
                by_split.entry(found.split).or_default().push(cut);
            }
            Err(reason) => listing.reject(&found.file, found.line, reason),
        }
    }
    by_split
}

fn look_at(cut: &mut Cut, has_duration: bool, needs_text: bool) -> Result<(), Reason> {
    if needs_text && cut.output_text().trim().is_empty() {
        return Err(Reason::EmptyText("text"));
    }
    if !cut.has_audio() {
        // Without it there is nothing to translate.
        return if cut.text.trim().is_empty() { Err(Reason::EmptyText("text")) } else { Ok(()) };
    }
    if !cut.audio.is_file() {
        return Err(Reason::NoRecording(cut.audio.display().to_string()));
    }
    if has_duration {
        return Ok(());
    }
    let total_secs = duration_secs(&cut.audio)?;
    let duration_secs = ((total_secs - cut.start_secs) * ROUNDING).round() / ROUNDING;
    if duration_secs <= 0.0 {
        return Err(Reason::BadTime {
            key: "offset",
            value: cut.start_secs.to_string(),
            expected: "a time within its recording",
        });
    }
    cut.duration_secs = duration_secs;
    Ok(())
}

fn duration_secs(path: &Path) -> Result<f64, Reason> {
    let bad = |error: audio::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Reason::BadRecording(format!("{}: {error}{cause}", path.display()))
    };
    probe_file(path, &DecodeAudio::default()).map(|info| info.duration_secs).map_err(bad)
}

//! The folder of a run: whose it is, and by which settings it was begun.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::Path;

use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde_json::Value;

use super::CHECKPOINTS;
use crate::Error;
use crate::checkpoint::Checkpoints;
use crate::config::{DEFAULTS, RunConfig};

const SETTINGS: &str = "run.json";
const LOCK: &str = ".lock";
const PERIODS: &str = "schedule.periods";

/// Writes all settings beside the run, or makes sure that they are those of the run that is there.
pub(super) fn keep_settings(config: &RunConfig, dir: &Path) -> Result<(), Error> {
    let path = dir.join(SETTINGS);
    let refuse = |error: &dyn std::fmt::Display| Error::file(&path, error);
    let text = serde_json::to_string_pretty(config).map_err(|error| refuse(&error))? + "\n";
    let has_begun = dir.join(CHECKPOINTS).is_dir()
        && Checkpoints::open(&dir.join(CHECKPOINTS))?.steps()?.iter().any(|step| *step > 0);
    if path.exists() && has_begun {
        let parse = |text: &str| serde_json::from_str(text).map_err(|error| refuse(&error));
        let mut kept = parse(&fs::read_to_string(&path).map_err(|error| refuse(&error))?)?;
        // What there was no setting for was as it is by default.
        lay(&mut kept, defaults());
        // Both from text: a number of single precision has more digits as a value.
        let mut now = parse(&text)?;
        // As some settings are not said where they are as ever.
        lay(&mut now, defaults());
        let may_change = |key: &str| may_change(key) || (key == PERIODS && appends(&kept, &now));
        if let Some(key) = first_difference(&kept, &now, &may_change) {
            let message = format!(
                "the run that is here was begun with another {key}; give this one another folder (--out), or remove it"
            );
            return Err(refuse(&message));
        }
    }
    if fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    write_whole(&path, &text)
}

/// All or nothing: a run whose settings are half a file could not go on.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".unfinished-{name}"));
    let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|error| Error::file(path, error))
}

/// Keeps other processes out of a run's folder for as long as it is held.
pub(super) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let file = File::create(&path).map_err(|error| Error::file(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::file(
            dir,
            "another process is training here; wait for it, or give another folder (--out)",
        )),
        // Some file systems know no locks; two runs in one folder are rare.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Every setting as it is by default.
fn defaults() -> Value {
    Figment::from(Toml::string(DEFAULTS)).extract().unwrap_or_default()
}

/// Adds what is missing.
fn lay(settings: &mut Value, below: Value) {
    if let (Value::Object(settings), Value::Object(below)) = (settings, below) {
        for (key, value) in below {
            lay(settings.entry(key).or_insert_with(|| value.clone()), value);
        }
    }
}

/// Settings that a run may go on with when they are others: they do not change what was done so far.
fn may_change(key: &str) -> bool {
    const FREE: [&str; 19] = [
        "train.max_epochs",
        "train.max_steps",
        "train.device",
        "train.loader_threads",
        "train.evaluate_every",
        "train.save_every",
        "train.keep",
        "train.patience",
        "train.max_skipped",
        "data.cache_mb",
        "strategy.distil.cache_mb",
        "model.gradient_checkpointing",
        "model.beam_size",
        "model.parts.vocoder",
        "speech.steps",
        "speech.guidance",
        "speech.temperature",
        "evaluate",
        "bundle",
    ];
    FREE.iter().any(|free| key == *free || key.strip_prefix(free).is_some_and(|rest| rest.starts_with('.')))
}

/// Whether the periods of the schedule are those that were kept, and others after them: no update so far would have been
/// another one.
fn appends(kept: &Value, now: &Value) -> bool {
    let ends = |settings: &Value| match settings["schedule"]["periods"].as_array() {
        Some(ends) if !ends.is_empty() => ends.clone(),
        // One period, the whole run, unless its end followed from the data.
        _ if settings["train"]["max_epochs"] == 0 => vec![settings["train"]["max_steps"].clone()],
        _ => Vec::new(),
    };
    // A share of a longer run is a longer warm-up.
    let is_fixed = now["schedule"]["warmup_share"].as_f64().is_none_or(|share| share == 0.0);
    let kept = ends(kept);
    is_fixed && !kept.is_empty() && ends(now).starts_with(&kept)
}

/// The first key by which settings differ that may not: `train.max_steps`. Both from text, as a number of single precision has more
/// digits as a value.
pub fn first_difference(kept: &Value, now: &Value, may_change: &dyn Fn(&str) -> bool) -> Option<String> {
    difference("", kept, now, may_change)
}

fn difference(at: &str, a: &Value, b: &Value, may_change: &dyn Fn(&str) -> bool) -> Option<String> {
    if let (Value::Object(a), Value::Object(b)) = (a, b) {
        let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
        return keys.into_iter().find_map(|key| {
            let name = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            let null = Value::Null;
            let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
            difference(&name, a, b, may_change)
        });
    }
    (a != b && !may_change(at)).then(|| at.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_may_be_appended_and_not_altered() {
        let settings = |periods: &[u64], max_steps: u64| {
            serde_json::json!({
                "schedule": { "kind": "wsd", "periods": periods },
                "train": { "max_steps": max_steps, "max_epochs": 0 },
            })
        };
        let mut shared = settings(&[40, 80], 80);
        shared["schedule"]["warmup_share"] = serde_json::json!(0.1);
        assert!(!appends(&settings(&[40], 40), &shared));
        for (kept, now, is_appended) in [
            (settings(&[], 40), settings(&[40, 80], 80), true),
            (settings(&[40], 40), settings(&[40, 80], 80), true),
            (settings(&[40, 80], 80), settings(&[40, 80, 90], 90), true),
            (settings(&[], 40), settings(&[50, 80], 80), false),
            (settings(&[40, 80], 80), settings(&[40, 90], 90), false),
            (settings(&[40, 80], 80), settings(&[40], 40), false),
            (settings(&[40, 80], 80), settings(&[], 80), false),
        ] {
            assert_eq!(appends(&kept, &now), is_appended, "{kept} {now}");
        }
        // Where the first period ended is not among the settings.
        let mut by_epochs = settings(&[], 40);
        by_epochs["train"]["max_epochs"] = 3.into();
        assert!(!appends(&by_epochs, &settings(&[40, 80], 80)));
    }

    #[test]
    fn settings_that_came_later_were_as_they_are_by_default() {
        let mut old = serde_json::json!({ "model": { "d_model": 7 } });
        lay(&mut old, defaults());
        assert_eq!((&old["model"]["d_model"], &old["model"]["architecture"]), (&7.into(), &"whisper".into()));
    }

    #[test]
    fn the_first_setting_that_may_not_change_is_named() {
        let kept = serde_json::json!({ "evaluate": { "beam_size": 1 }, "train": { "keep": 3, "parts": 2 } });
        let mut now = kept.clone();
        (now["evaluate"]["beam_size"], now["train"]["keep"]) = (5.into(), 0.into());
        assert_eq!(first_difference(&kept, &now, &may_change), None);
        now["train"]["parts"] = 1.into();
        assert_eq!(first_difference(&kept, &now, &may_change).as_deref(), Some("train.parts"));
    }
}

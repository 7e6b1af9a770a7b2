//! From what a recipe names to cuts: manifests, and corpora that become manifests when they are first asked for.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::{DATA, Progress};
use crate::Error;
use crate::config::RunConfig;
use crate::data::hex;
use crate::data::manifest::{self, Cut, Needs};
use crate::prepare::{self, Set, SynthesisOptions};

/// The cuts of manifests, and of parts of corpora that are known by name, and how many there are of each.
pub(super) fn read_cuts(
    entries: &[String],
    what: &str,
    config: &RunConfig,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<(Vec<Cut>, Vec<usize>), Error> {
    let needs = Needs { text: !config.data.keep_empty, transcript: true, recording: true, duration: true };
    let (mut cuts, mut counts) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = manifest_of(entry, what, config, dir, tell)?;
        let read = manifest::read(&path, needs)?;
        read.rejected.iter().for_each(|rejected| tell(Progress::Rejected(rejected)));
        counts.push(read.cuts.len());
        cuts.extend(read.cuts);
    }
    Ok((cuts, counts))
}

/// Where the manifest is that a setting names; a corpus becomes manifests, in the run's folder, when it is first asked for.
///
/// # Errors
/// What is no manifest and no corpus, and a corpus without this part.
pub fn manifest_of(
    entry: &str,
    what: &str,
    config: &RunConfig,
    dir: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<PathBuf, Error> {
    let path = Path::new(entry);
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let Some((corpus, split)) = entry.rsplit_once(':') else {
        let message = format!(
            "`{entry}` is no manifest; name a .jsonl file, or a corpus and its part such as fsdd:train"
        );
        return Err(Error::config(what, message));
    };
    // In the run's own folder, whatever the corpus is called: its manifests may be written over.
    let is_plain = Path::new(corpus).file_name() == Some(corpus.as_ref());
    let folder = if is_plain {
        corpus.to_owned()
    } else {
        // Several folders may end in the same name.
        let name = Path::new(corpus).file_name().unwrap_or_default().to_string_lossy();
        format!("{name}-{}", hex(&Sha256::digest(corpus)[..4]))
    };
    let out = dir.join(DATA).join(folder);
    let path = out.join(format!("{split}.jsonl"));
    if !path.is_file() {
        let tell = Mutex::new(tell);
        let say = |progress: Progress<'_>| {
            if let Ok(mut tell) = tell.lock() {
                tell(progress);
            }
        };
        let progress = |n_done, n_all| say(Progress::Preparing { corpus, n_done, n_all });
        let (splits, rejected) = match Set::named(corpus) {
            Some(set) => {
                let options = SynthesisOptions { set, ..SynthesisOptions::default() };
                (prepare::synthesize(&options, &out, &progress)?, Vec::new())
            }
            None => {
                let folder = prepare::locate(Path::new(corpus))?;
                let language = Some(config.data.language.clone()).filter(|language| !language.is_empty());
                let unpack_into = Some(out.join("audio"));
                let options = prepare::Options { language, unpack_into, ..prepare::Options::default() };
                let prepared = prepare::prepare(&folder, &options, &progress)?;
                prepared.notes.iter().for_each(|note| say(Progress::Note(note)));
                prepared.rejected.iter().for_each(|rejected| say(Progress::Rejected(rejected)));
                (prepared.splits, prepared.rejected)
            }
        };
        prepare::write(&splits, &rejected, &out, true)?;
        if !path.is_file() {
            let parts: Vec<_> = splits.keys().map(|split| split.name()).collect();
            let message = format!("`{corpus}` has no part `{split}`; it has {}", parts.join(", "));
            return Err(Error::config(what, message));
        }
    }
    Ok(path)
}

//! ESC-10 and ESC-50, environmental sounds (Piczak 2015, "ESC: Dataset for Environmental Sound Classification") as first
//! published: `001 - Dog bark/1-100032-A.ogg` is a dog in fold 1. Nothing is said in them: their texts are empty, and what is heard
//! is in the field `label`.

use std::path::Path;

use super::{Found, Listing, Split, folder};
use crate::data::manifest::{Cut, Error, Extra, Reason, Row};

/// The fold that is the test set; the dataset's authors test on each in turn.
const TEST_FOLD: u32 = 4;
/// The fold that is dev.
const DEV_FOLD: u32 = 5;
/// The last fold.
const N_FOLDS: u32 = 5;

pub(super) fn matches(root: &Path) -> bool {
    let folders = folder::entries(root).unwrap_or_default().into_iter().filter(|path| label(path).is_some());
    let recordings = folders.flat_map(|path| folder::entries(&path).unwrap_or_default());
    recordings.filter(|path| folder::is_recording(path)).take(10).any(|path| parse(&path).is_some())
}

/// The label of a folder: `rain` of `002 - Rain`.
fn label(folder: &Path) -> Option<String> {
    let (number, label) = folder.file_name()?.to_str()?.split_once(" - ")?;
    let is_number = number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && folder.is_dir()).then(|| label.trim().to_lowercase())
}

/// The fold and the name of the clip that a recording was cut from: 1 and `100032` of `1-100032-A.ogg`.
fn parse(path: &Path) -> Option<(u32, &str)> {
    let mut parts = path.file_stem()?.to_str()?.split('-');
    let fold = parts.next()?.parse().ok().filter(|fold| (1..=N_FOLDS).contains(fold))?;
    let clip = parts.next()?;
    parts.next().map(|_take| (fold, clip))
}

pub(super) fn list(root: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for (path, label) in folder::entries(root)?.iter().filter_map(|path| Some((path, label(path)?))) {
        for path in folder::entries(path)?.iter().filter(|path| folder::is_recording(path)) {
            let Some((fold, clip)) = parse(path) else {
                let reason = Reason::Unsupported("the name is not fold-clip-take".to_owned());
                listing.reject(&path.as_path().into(), None, reason);
                continue;
            };
            let mut extra = Extra::new();
            extra.insert("label".to_owned(), label.as_str().into());
            let cut = Cut {
                id: path.file_stem().unwrap_or_default().to_string_lossy().into(),
                audio: path.as_path().into(),
                start_secs: 0.0,
                duration_secs: 0.0,
                channel: None,
                text: "".into(),
                language: None,
                // Takes of one clip never part.
                speaker: Some(listing.names.get(clip)),
                target_text: None,
                target_language: None,
                extra: Some(Box::new(extra)),
            };
            let split = match fold {
                TEST_FOLD => Split::Test,
                DEV_FOLD => Split::Dev,
                _ => Split::Train,
            };
            let (row, file) = (Row { cut, has_duration: false }, path.as_path().into());
            listing.found.push(Found { row, split: Some(split), file, line: None });
        }
    }
    listing.is_wordless = true;
    Ok(listing)
}

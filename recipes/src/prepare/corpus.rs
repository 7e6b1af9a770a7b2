//! Corpora by name: where they lie, and where the public gets them.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::data::manifest::Error;

/// A corpus that anybody can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corpus {
    /// As the user calls it.
    pub name: &'static str,
    /// Where it lies below `SPEECHD_DATA`.
    pub folder: &'static str,
    /// What it is, and its licence.
    pub about: &'static str,
    /// How to get it.
    pub get: &'static str,
}

/// The corpora that are known by name.
pub const CORPORA: [Corpus; 5] = [
    Corpus {
        name: "fsdd",
        folder: "speech/fsdd",
        about: "the Free Spoken Digit Dataset: English digits, 8 kHz (CC BY-SA 4.0)",
        get: "git clone https://github.com/Jakobovski/free-spoken-digit-dataset",
    },
    Corpus {
        name: "esc10",
        folder: "audio-captions/esc10",
        about: "ESC-10: environmental sounds, 5 s each (CC0 and CC BY)",
        get: "git clone https://github.com/karoldvl/ESC-10",
    },
    Corpus {
        name: "ljspeech",
        folder: "speech/LJSpeech-1.1",
        about: "LJSpeech 1.1: a day of one English voice (public domain)",
        get: "download and unpack https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
    },
    Corpus {
        name: "common_voice",
        folder: "speech/common_voice",
        about: "Mozilla Common Voice: read sentences in many languages (CC0); choose one by --language",
        get: "download a language from https://commonvoice.mozilla.org/datasets and unpack it so that clips/ lies in \
              a folder named after the language",
    },
    Corpus {
        name: "tico19",
        folder: "text/tico19",
        about: "TICO-19: English texts about an illness in many languages, without recordings (CC0)",
        get: "download a language from https://tico-19.github.io and keep source and target as the two columns of \
              en-ps.tsv, en-ur.tsv, ...",
    },
];

/// Where corpora lie: `SPEECHD_DATA`, else `../shared/data` when that is there.
fn root() -> Option<PathBuf> {
    let set = env::var_os("SPEECHD_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from("../shared/data")).filter(|default| default.is_dir()))
}

/// The folder or manifest that `name` means: a path, a corpus's name, or a folder below `SPEECHD_DATA` or its `speech/`.
///
/// # Errors
/// What is nowhere; the message says where it was looked for, and where to get a corpus that is known.
pub fn locate(name: &Path) -> Result<PathBuf, Error> {
    locate_below(root().as_deref(), name)
}

fn locate_below(root: Option<&Path>, name: &Path) -> Result<PathBuf, Error> {
    if name.exists() {
        return Ok(name.to_owned());
    }
    let known = name.to_str().and_then(|name| CORPORA.iter().find(|corpus| corpus.name == name));
    let mut looked = Vec::new();
    if let Some(root) = root {
        let folders = known.map(|corpus| root.join(corpus.folder)).into_iter();
        let by_path = [root.join(name), root.join("speech").join(name)];
        for folder in folders.chain(by_path.into_iter().filter(|_| name.is_relative())) {
            if folder.exists() {
                return Ok(folder);
            }
            looked.push(folder.display().to_string());
        }
    }
    let variable = match root {
        Some(_) => "SPEECHD_DATA says where corpora lie",
        None => "set SPEECHD_DATA to the folder where corpora lie",
    };
    Err(Error::Corpus(match known {
        Some(corpus) => {
            let place = looked.first().map_or_else(String::new, |place| format!(" at {place}"));
            format!(
                "corpus {}, {}, is not there{place} ({variable}). To get it: {}. Then name its folder",
                corpus.name, corpus.about, corpus.get
            )
        }
        None => {
            let names: Vec<_> = CORPORA.iter().map(|corpus| corpus.name).collect();
            let looked =
                if looked.is_empty() { String::new() } else { format!(", nor {}", looked.join(", nor ")) };
            format!(
                "{}: no such folder or manifest{looked} ({variable}); corpora known by name: {}",
                name.display(),
                names.join(", ")
            )
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_a_corpus_or_a_folder_of_the_data() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        for folder in ["speech/fsdd/recordings", "speech/mine", "text"] {
            std::fs::create_dir_all(root.join(folder)).expect("created");
        }
        let at = |name: &str| {
            locate_below(Some(root), Path::new(name)).map(|path| path.strip_prefix(root).map(PathBuf::from))
        };
        assert_eq!(at("fsdd").expect("found"), Ok("speech/fsdd".into()));
        assert_eq!(at("mine").expect("found"), Ok("speech/mine".into()));
        assert_eq!(at("text").expect("found"), Ok("text".into()));
        let path = root.join("speech/mine");
        assert_eq!(locate_below(None, &path).expect("a path"), path);
    }

    #[test]
    fn what_is_nowhere_says_where_to_get_it() {
        let root = tempfile::tempdir().expect("a folder");
        for corpus in CORPORA {
            let message =
                locate_below(Some(root.path()), Path::new(corpus.name)).expect_err("missing").to_string();
            assert!(message.contains(corpus.get) && message.contains(corpus.folder), "{message}");
        }
        let message = locate_below(None, Path::new("no/such")).expect_err("missing").to_string();
        assert!(message.contains("set SPEECHD_DATA") && message.contains("fsdd"), "{message}");
    }
}

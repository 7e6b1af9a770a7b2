//! Models that are part of the program, so that it does its work without a download. Each lies in a folder of `bundled/` with its
//! licence and its credits.

use crate::bundle::BundleSource;
use crate::{Kind, Task};

/// Their names.
#[cfg(feature = "bundled")]
pub const BUNDLED: &[&str] = &["digits-en", "translate-en-ps"];
/// Their names: this program was built without any.
#[cfg(not(feature = "bundled"))]
pub const BUNDLED: &[&str] = &[];

/// The one that does a task where nobody names any.
pub fn bundled_for(task: Task) -> Option<&'static str> {
    let name = match task {
        Task::Transcribe => "digits-en",
        Task::Translate => "translate-en-ps",
    };
    BUNDLED.iter().copied().find(|known| *known == name)
}

/// The one that speaks where nobody names any.
pub fn bundled_speaker() -> Option<&'static str> {
    let speaks =
        |name: &&str| bundled(name).is_some_and(|source| matches!(Kind::of(&source), Ok(Kind::Speaks)));
    BUNDLED.iter().copied().find(speaks)
}

/// The files of a model that is part of the program.
#[cfg(feature = "bundled")]
pub fn bundled(name: &str) -> Option<BundleSource> {
    use std::borrow::Cow;
    use std::sync::Arc;

    use crate::bundle::MemoryBundle;

    macro_rules! files {
        ($folder:literal: $($file:literal)+) => {
            [$(($file, include_bytes!(concat!("../bundled/", $folder, "/", $file)).as_slice())),+].to_vec()
        };
    }
    let files = match name {
        "digits-en" => files!("digits-en": "config.json" "generation_config.json" "preprocessor_config.json"
            "tokenizer.json" "tokenizer_config.json" "model.safetensors" "precision.json" "LICENSE" "CREDITS.md"),
        "translate-en-ps" => {
            files!("translate-en-ps": "config.json" "generation_config.json" "preprocessor_config.json"
            "tokenizer.json" "tokenizer_config.json" "model.safetensors" "precision.json" "LICENSE" "CREDITS.md")
        }
        _ => return None,
    };
    let files = files.into_iter().map(|(name, bytes)| (Cow::Borrowed(name), Cow::Borrowed(bytes))).collect();
    Some(BundleSource::Memory(Arc::new(MemoryBundle { name: Cow::Owned(name.to_owned()), files })))
}

/// The files of a model that is part of the program: there are none in this build.
#[cfg(not(feature = "bundled"))]
pub fn bundled(_: &str) -> Option<BundleSource> {
    None
}

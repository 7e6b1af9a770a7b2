//! Where the tests find what others computed.

use std::{fs, path::PathBuf};

use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of `tests/fixtures`.
pub(crate) fn committed(name: &str) -> Outcome<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(root().join("tests/fixtures").join(name))?)?)
}

/// A file of published values in `SPEECHD_DATA`; without it says that the test was skipped.
#[expect(clippy::print_stdout, reason = "a test says what it skips")]
pub(crate) fn published(name: &str) -> Outcome<Option<Value>> {
    let data = std::env::var_os("SPEECHD_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let path = data.join("reference").join(name);
    if !path.exists() {
        println!("skipped: {} is not there (SPEECHD_DATA says where to look)", path.display());
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&fs::read_to_string(path)?)?))
}

//! What a user may write for a model: a directory, or a repository on the hub with an optional revision.

use std::path::{Component, Path, PathBuf};

use super::Error;

/// A model's name, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A directory on this machine.
    Directory(PathBuf),
    /// A model that is part of the program.
    Bundled(String),
    /// A repository on the hub.
    Repository(Repository),
}

/// A repository on the hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `organisation/name`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Name {
    /// An existing directory wins; then come the models that are part of the program; `organisation/name[@revision]` is a
    /// repository; anything else is refused.
    pub fn parse(spec: &str) -> Result<Self, Error> {
        let refuse = |message: &str| Error::Name { spec: spec.to_owned(), message: message.to_owned() };
        let path = Path::new(spec);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        if models::BUNDLED.contains(&spec) {
            return Ok(Self::Bundled(spec.to_owned()));
        }
        if path.is_file() && models::is_nemo(path) {
            let name = path.with_extension("");
            let message = format!(
                "is an archive; `speechd models import {spec} --out {}` makes a model of it",
                name.display()
            );
            return Err(refuse(&message));
        }
        if path.is_file() {
            return Err(refuse("is a file; give the directory that holds config.json and model.safetensors"));
        }
        let starts_as_path =
            matches!(path.components().next(), None | Some(Component::RootDir | Component::Prefix(_)))
                || ["./", "../", "~"].iter().any(|start| spec.starts_with(start));
        if starts_as_path {
            return Err(refuse("no such directory"));
        }
        Repository::parse(spec).map(Self::Repository).ok_or_else(|| {
            let bundled: Vec<_> = models::BUNDLED.iter().map(|name| format!("`{name}`")).collect();
            let own = if bundled.is_empty() { String::new() } else { format!("not {}, ", bundled.join(" or ")) };
            refuse(&format!(
                "no such directory, {own}and not a hub id such as `openai/whisper-base` or `openai/whisper-base@main`"
            ))
        })
    }
}

impl Repository {
    /// Reads `organisation/name[@revision]`.
    pub fn parse(spec: &str) -> Option<Self> {
        let (id, revision) = spec.split_once('@').unwrap_or((spec, "main"));
        let (organisation, name) = id.split_once('/')?;
        // `--` separates the parts of an id in the cache's directory names.
        let is_part = |part: &str| is_word(part) && !part.contains("--") && !part.contains("..");
        // A branch may hold slashes (`refs/pr/3`), but is also a path in the cache.
        let is_revision = revision.len() <= 200 && revision.split('/').all(is_word);
        (is_part(organisation) && is_part(name) && is_revision)
            .then(|| Self { id: id.to_owned(), revision: revision.to_owned() })
    }
}

fn is_word(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether a path given by a hub stays inside the directory that it is joined to.
pub(crate) fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 512
        && !path.contains(['\\', ':', '\0'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_revisions_are_read() {
        let parsed = Repository::parse("openai/whisper-base@refs/pr/3").expect("an id");
        assert_eq!((parsed.id.as_str(), parsed.revision.as_str()), ("openai/whisper-base", "refs/pr/3"));
        assert_eq!(Repository::parse("a/b.c_d-e").expect("an id").revision, "main");
        for wrong in
            ["", "whisper", "a/b/c", "/b", "a/", "../b", "a/..", "a--b/c", "a/b@", "a/b@../../x", "a/b c"]
        {
            assert_eq!(Repository::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths_that_do_not_exist_are_not_taken_for_ids() {
        for (spec, part) in [
            ("./nowhere/model", "no such directory"),
            ("/nowhere/model", "no such directory"),
            ("whisper-base", "not a hub id"),
            ("Cargo.toml", "is a file"),
        ] {
            let message = Name::parse(spec).expect_err("refused").to_string();
            assert!(message.contains(spec) && message.contains(part), "{message}");
        }
    }

    #[test]
    fn hostile_file_names_are_recognised() {
        assert!(is_safe_path("model-00001-of-00002.safetensors") && is_safe_path("sub/config.json"));
        for hostile in ["../x", "a/../../x", "/etc/passwd", "a//b", "", "C:\\x", "a\\b", "a\nb", "./a"] {
            assert!(!is_safe_path(hostile), "{hostile}");
        }
    }
}

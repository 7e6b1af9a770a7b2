//! Fetches a bundle from a Hugging Face hub into the cache.
//!
//! Our own client rather than the `hf-hub` crate: with TLS that one builds aws-lc with cmake (which the project does
//! without), brings tokio, reqwest and xet, restarts a broken download from the first byte and does not compare
//! digests. Here: `ureq` with rustls on ring.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use ureq::http::header;

use super::{
    Cache, Digest, Error,
    download::{self, Remote},
    http::{Client, Failure, escape, header_text},
    name::{Repository, is_safe_path},
};

/// What decides where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The hub's address.
    pub endpoint: String,
    /// The cache directory.
    pub cache: PathBuf,
    /// Sent to the endpoint and to no other host.
    pub token: Option<String>,
    /// Never touch the network.
    pub offline: bool,
    /// Pause after the first failed attempt; doubles with each further one.
    pub retry_delay: Duration,
}

/// How far the download of one file is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file in the repository.
    pub file: &'a str,
    /// Bytes on the disk.
    pub received: u64,
    /// Bytes announced.
    pub total: Option<u64>,
}

/// A hub and the cache in front of it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    cache: Cache,
    offline: bool,
}

const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
/// What a bundle has in the place of the other.
const SENTENCEPIECE: &str = "tokenizer.model";
/// What a T5 has in its place.
const T5_PIECES: &str = "spiece.model";
/// What a Marian has in its place, all of it.
const MARIAN_PIECES: [&str; 3] = ["source.spm", "target.spm", "vocab.json"];
/// What a bundle consists of beside its weights; everything else in a repository is left there.
const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "normalizer.json",
];
const MAX_LISTING_BYTES: u64 = 32 << 20;

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Deserialize)]
struct WeightsIndex {
    weight_map: BTreeMap<String, String>,
}

impl Hub {
    /// A hub as configured. Opens no connection.
    pub fn new(options: HubOptions) -> Self {
        Self {
            client: Client::new(&options.endpoint, options.token, options.retry_delay),
            cache: Cache::new(options.cache),
            offline: options.offline,
        }
    }

    /// The cache in front of the hub.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The directory with a repository's bundle: from the cache when it is complete there, else fetched.
    pub fn resolve(
        &self,
        repository: &Repository,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, Error> {
        match self.cache.snapshot(repository).filter(|path| is_complete(path)) {
            Some(path) => Ok(path),
            None => self.pull(repository, progress),
        }
    }

    /// Fetches what the hub has at the revision now; files that are in the cache already are not fetched again.
    pub fn pull(
        &self,
        repository: &Repository,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, Error> {
        let id = &repository.id;
        if self.offline {
            return self
                .cache
                .snapshot(repository)
                .filter(|path| is_complete(path))
                .ok_or_else(|| Error::Offline { id: id.clone(), cache: self.cache.root().to_owned() });
        }
        let listing = self.listing(repository)?;
        let commit = listing.sha;
        let present: BTreeSet<String> =
            listing.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        let weights = check_contents(id, &present)?;
        let has = |file: &str| present.contains(file);
        let is_marian = MARIAN_PIECES.into_iter().all(has);
        let pieces =
            [SENTENCEPIECE, T5_PIECES].into_iter().chain(MARIAN_PIECES.into_iter().filter(|_| is_marian));
        let pieces = pieces.filter(|_| !has(TOKENIZER));
        for file in FILES.into_iter().chain(pieces).filter(|file| has(file)).chain([weights]) {
            self.fetch(id, &commit, file, progress)?;
        }
        let snapshot = self.cache.snapshot_path(id, &commit);
        if weights == WEIGHTS_INDEX {
            for shard in shards(&snapshot.join(WEIGHTS_INDEX))? {
                if !present.contains(&shard) {
                    let message =
                        format!("{WEIGHTS_INDEX} names `{shard}`, which the repository does not have");
                    return Err(Error::Contents { id: id.clone(), message });
                }
                self.fetch(id, &commit, &shard, progress)?;
            }
        }
        self.cache.write_ref(repository, &commit)?;
        Ok(snapshot)
    }

    fn listing(&self, repository: &Repository) -> Result<Listing, Error> {
        let Repository { id, revision } = repository;
        let what = format!("model `{id}@{revision}`");
        let url = format!("{}/api/models/{id}/revision/{}", self.client.endpoint(), escape(revision));
        let ask = || {
            let mut reply = self.client.get(&url, &what, 0)?;
            let body = reply.response.body_mut().with_config().limit(MAX_LISTING_BYTES).read_to_vec();
            body.map_err(|error| Failure::passing(error.to_string()))
        };
        let body = self.client.retry(&url, ask, || 0)?;
        let refuse = |message: String| Error::Contents { id: id.clone(), message };
        let listing: Listing = serde_json::from_slice(&body)
            .map_err(|error| refuse(format!("{url} did not answer with a list of files: {error}")))?;
        if !super::cache::is_commit(&listing.sha) {
            return Err(refuse(format!("the hub named `{}` as its commit", listing.sha)));
        }
        if let Some(hostile) = listing.siblings.iter().find(|sibling| !is_safe_path(&sibling.rfilename)) {
            return Err(refuse(format!("holds a file with the unsafe name {:?}", hostile.rfilename)));
        }
        Ok(listing)
    }

    fn fetch(
        &self,
        id: &str,
        commit: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Error> {
        let path: Vec<String> = file.split('/').map(escape).collect();
        let url = format!("{}/{id}/resolve/{commit}/{}", self.client.endpoint(), path.join("/"));
        let what = format!("`{file}` of model `{id}`");
        let remote = self.client.retry(&url, || self.describe(&url, &what, file), || 0)?;
        let etag = remote.digest.as_str();
        let blob = self.cache.blob_path(id, etag);
        let _lock = self.cache.lock(id, etag)?;
        let is_there =
            fs::metadata(&blob).is_ok_and(|found| remote.size.is_none_or(|size| size == found.len()));
        if !is_there {
            download::fetch(&self.client, &remote, &what, &blob, progress)?;
        }
        self.cache.link(id, commit, file, etag)
    }

    /// Size and digest of a file, without its contents.
    fn describe(&self, url: &str, what: &str, file: &str) -> Result<Remote, Failure> {
        let reply = self.client.head(url, what)?;
        let headers = reply.response.headers();
        let is_answer = reply.response.status().is_success();
        let own = |name: &str| is_answer.then(|| header_text(headers, name)).flatten();
        let etag = header_text(&reply.linked, "x-linked-etag").or(own(header::ETAG.as_str()));
        let refuse = |message: String| Failure::Final(Error::Contents { id: what.to_owned(), message });
        let Some(digest) = etag.and_then(Digest::from_etag) else {
            return Err(refuse(format!("the hub gives no usable etag ({etag:?}); is HF_ENDPOINT a hub?")));
        };
        let size = header_text(&reply.linked, "x-linked-size").or(own(header::CONTENT_LENGTH.as_str()));
        let size = size.and_then(|size| size.parse().ok());
        let remote = Remote { url: url.to_owned(), file: file.to_owned(), size, digest };
        match size {
            Some(size) if size > remote.max_bytes() => Err(refuse(format!(
                "{size} bytes, more than the {} that such a file may have",
                remote.max_bytes()
            ))),
            _ => Ok(remote),
        }
    }
}

/// The weights file to fetch, when the repository has what a bundle needs.
fn check_contents(id: &str, present: &BTreeSet<String>) -> Result<&'static str, Error> {
    let refuse = |message: &str| Error::Contents { id: id.to_owned(), message: message.to_owned() };
    if !present.contains("config.json") {
        return Err(refuse("has no config.json at its root, so it is not a bundle"));
    }
    if !has_tokenizer(&|file| present.contains(file)) {
        return Err(refuse(
            "has neither tokenizer.json nor tokenizer.model; make the first in Python with \
             transformers.AutoTokenizer.from_pretrained(ID).save_pretrained(DIR), beside the other files",
        ));
    }
    [WEIGHTS, WEIGHTS_INDEX].into_iter().find(|file| present.contains(*file)).ok_or_else(|| {
        refuse("has no model.safetensors; other weight formats are not read: convert it, or choose a repository with safetensors")
    })
}

/// Whether there is what a text becomes tokens by.
fn has_tokenizer(has: &dyn Fn(&str) -> bool) -> bool {
    [TOKENIZER, SENTENCEPIECE, T5_PIECES].into_iter().any(has) || MARIAN_PIECES.into_iter().all(has)
}

/// The files over which weights are spread.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>, Error> {
    let refuse = |message: String| Error::File { path: index.to_owned(), message };
    let bytes = fs::read(index).map_err(|source| Error::io(index, source))?;
    let index: WeightsIndex = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|file| !is_safe_path(file) || !file.ends_with(".safetensors")) {
        Some(hostile) => {
            Err(refuse(format!("names {hostile:?}, which is no safetensors file of this repository")))
        }
        None if files.is_empty() => Err(refuse("names no weights".to_owned())),
        None => Ok(files),
    }
}

/// The weights files of a bundle's directory; `None` when one is missing.
pub(crate) fn weights_files(bundle: &Path) -> Option<Vec<PathBuf>> {
    let single = bundle.join(WEIGHTS);
    let files = if single.is_file() {
        vec![single]
    } else {
        shards(&bundle.join(WEIGHTS_INDEX)).ok()?.into_iter().map(|file| bundle.join(file)).collect()
    };
    files.iter().all(|file| file.is_file()).then_some(files)
}

fn is_complete(snapshot: &Path) -> bool {
    let has = |file: &str| snapshot.join(file).is_file();
    has("config.json") && has_tokenizer(&has) && weights_files(snapshot).is_some()
}

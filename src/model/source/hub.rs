//! Models on the Hugging Face hub: fetched into hf-hub's cache, as folders.

use super::super::adapter;
use super::super::checkpoint::{INDEX, SINGLE};
use super::{SourceError, unusable};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files that a model may do without.
const OPTIONAL: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
];

/// The folder of a model in the hub's cache, with all its files, and what a user should know about how it came there.
///
/// A model is of one commit: that which its name stood for when its `config.json` was fetched. Its weights are fetched last.
pub(super) fn fetch(name: &str, on_hub: &str, progress: bool) -> Result<(PathBuf, Vec<String>), SourceError> {
    let (id, revision) = on_hub.split_once('@').unwrap_or((on_hub, "main"));
    let plain =
        |s: &str| !s.is_empty() && s != ".." && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let parts: Vec<&str> = id.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|p| plain(p)) || revision.is_empty() || revision.contains("..") {
        return Err(unusable(name, "expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION"));
    }
    let repo = |revision: &str| Repo::with_revision(id.to_string(), RepoType::Model, revision.to_string());
    let progress = progress && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let api = ApiBuilder::from_env().with_progress(progress).build();
    let api = api.map_err(|e| failed(name, "(the cache)", &e))?;
    let cached = Cache::from_env().repo(repo(revision));
    // A commit's own name stands for it, whoever fetched it.
    let by_commit = |file: &str| Some(cached.pointer_path(revision).join(file)).filter(|path| path.exists());
    let by_name = |file: &str| cached.get(file).or(by_commit(file));
    let config = match by_name("config.json").or_else(|| by_name(adapter::CONFIG)) {
        Some(path) => path,
        None => first_file(&api.repo(repo(revision))).map_err(|e| failed(name, "config.json", &e))?,
    };
    let snapshot = Snapshot::of(&config).ok_or_else(|| unusable(name, "the hub's cache has no folder"))?;
    let commit = api.repo(repo(&snapshot.commit));
    let warnings = snapshot.fetch_optional(&commit, name)?;
    if !snapshot.has_weights() {
        snapshot.fetch_weights(&commit).map_err(|(file, e)| failed(name, &file, &e))?;
    }
    Ok((snapshot.folder, warnings))
}

/// The description of a model, or, where there is none, of an adapter; with an error that is about the former.
fn first_file(repo: &ApiRepo) -> Result<PathBuf, ApiError> {
    match repo.get("config.json") {
        Err(e) if status(&e) == Some(404) => repo.get(adapter::CONFIG).map_err(|_| e),
        other => other,
    }
}

fn failed(name: &str, file: &str, e: &ApiError) -> SourceError {
    let (name, file, why) = (name.to_string(), file.to_string(), e.to_string());
    match status(e) {
        Some(401 | 403 | 404) => SourceError::Refused { name, file, why },
        _ => SourceError::Unreachable { name, file, why },
    }
}

/// A commit of a model in the hub's cache.
struct Snapshot {
    folder: PathBuf,
    commit: String,
    /// Where the cache notes which files the commit has not.
    absent: PathBuf,
}

impl Snapshot {
    /// The one that a file is of.
    fn of(file: &Path) -> Option<Self> {
        let folder = file.parent()?;
        let commit = folder.file_name()?.to_str()?.to_string();
        let absent = folder.parent()?.parent()?.join(".no_exist").join(&commit);
        Some(Snapshot { folder: folder.to_path_buf(), commit, absent })
    }

    fn has(&self, file: &str) -> bool {
        self.folder.join(file).exists()
    }

    /// Whether the commit is of an adapter alone.
    fn is_adapter(&self) -> bool {
        self.has(adapter::CONFIG) && !self.has("config.json")
    }

    /// Whether the single file is there, or the index and every shard that it names.
    fn has_weights(&self) -> bool {
        if self.is_adapter() {
            return self.has(adapter::WEIGHTS);
        }
        self.has(SINGLE) || self.has(INDEX) && self.shards().is_ok_and(|all| all.iter().all(|shard| self.has(shard)))
    }

    /// Fetches what of [`OPTIONAL`] is neither there nor known to be absent. With weights that something else fetched, a hub
    /// that does not answer is only a warning: a model that is there runs without a network.
    fn fetch_optional(&self, commit: &ApiRepo, name: &str) -> Result<Vec<String>, SourceError> {
        let unknown = |file: &&str| !self.has(file) && !self.absent.join(file).exists();
        let unknown: Vec<&str> = OPTIONAL.into_iter().filter(unknown).collect();
        for (i, file) in unknown.iter().enumerate() {
            match commit.download(file) {
                Ok(_) => {}
                Err(e) if status(&e) == Some(404) => {
                    // If the cache cannot be written to, the hub is asked again next time.
                    let _ = std::fs::create_dir_all(&self.absent);
                    let _ = std::fs::File::create(self.absent.join(file));
                }
                Err(e) if self.has_weights() => {
                    let missing = unknown[i..].join("`, `");
                    return Ok(vec![format!("is taken to have no `{missing}`: not in the cache, and of the hub: {e}")]);
                }
                Err(e) => return Err(failed(name, file, &e)),
            }
        }
        Ok(Vec::new())
    }

    /// The single file, or the index and every shard that it names.
    fn fetch_weights(&self, commit: &ApiRepo) -> Result<(), (String, ApiError)> {
        let get = |file: &str| match self.has(file) {
            true => Ok(()),
            false => commit.download(file).map(drop).map_err(|e| (file.to_string(), e)),
        };
        if self.is_adapter() {
            return get(adapter::WEIGHTS);
        }
        if !self.has(INDEX) {
            match get(SINGLE) {
                Err((_, e)) if status(&e) == Some(404) => {}
                other => return other,
            }
        }
        get(INDEX)?;
        let shards = self.shards().map_err(|e| (INDEX.to_string(), ApiError::IoError(e)))?;
        shards.iter().try_for_each(|shard| get(shard))
    }

    /// The shards that the index names. What it holds is checked when the folder is opened; here it only must not lead out
    /// of the repository.
    fn shards(&self) -> std::io::Result<BTreeSet<String>> {
        let parsed: Value = serde_json::from_slice(&std::fs::read(self.folder.join(INDEX))?).unwrap_or_default();
        let named = parsed.get("weight_map").and_then(Value::as_object).into_iter().flatten();
        let shards = named.filter_map(|(_, file)| file.as_str()).filter(|s| !s.contains('/') && !s.contains(".."));
        Ok(shards.map(str::to_string).collect())
    }
}

/// The status with which the hub answered, if it did.
fn status(e: &ApiError) -> Option<u16> {
    match e {
        ApiError::RequestError(e) => match **e {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(e) => status(e),
        _ => None,
    }
}

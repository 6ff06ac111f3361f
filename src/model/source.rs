//! Where a model is: what a user names, as a folder or file on this machine.
//!
//! `demo` is the model that comes with the library ([`crate::demo`]), and `demo:blind` its variant.
//! `hf:OWNER/NAME[@REVISION]` is fetched through hf-hub into its cache (`HF_HOME`). What is there is not asked for again, nor
//! is what the repository has not: a model that was fetched needs no network, and stays what it was when the hub's changes.
//! A folder, or a name on the hub, may be that of a LoRA adapter, whose base is found in the same way.
//! Every other name is a path, and a path is never taken for a name on the hub.

use super::adapter::{self, Adapter, is_adapter};
use super::checkpoint::{INDEX, SINGLE};
use crate::demo::{self, DemoError};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder as Hugging Face lays models out.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// The folder of a LoRA adapter, and that of the model that it changes.
    Adapter { adapter: PathBuf, base: PathBuf },
}

/// What is wrong with a model's name, or with fetching it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("model `{name}`: there is no such file or folder{hint}")]
    Missing { name: String, hint: String },
    #[error("model `{name}`: {why}")]
    Unusable { name: String, why: String },
    #[error(
        "model `{name}`: the hub does not give `{file}`: {why}; check the name and, for a gated model, your token (HF_TOKEN)"
    )]
    Refused { name: String, file: String, why: String },
    #[error("model `{name}`: `{file}` cannot be fetched: {why}; check the network, and try again")]
    Unreachable { name: String, file: String, why: String },
    #[error(transparent)]
    Demo(#[from] DemoError),
}

/// Finds a model by its name, fetching it if it is on the hub, with a progress bar where there is a terminal. Returns with
/// it what a user should know about how it was found.
///
/// # Errors
/// If the demo can be unpacked nowhere, there is no such path, it is neither a model folder nor a `.gguf` file, or the hub does not give it.
pub fn resolve(name: &str, progress: bool) -> Result<(Source, Vec<String>), SourceError> {
    if let Some(on_hub) = name.strip_prefix("hf:") {
        let (folder, mut warnings) = fetch(name, on_hub, progress)?;
        if !is_adapter(&folder, &WHOLE) {
            return Ok((Source::Folder(folder), warnings));
        }
        let (source, more) = with_base(name, &folder, progress)?;
        warnings.extend(more);
        return Ok((source, warnings));
    }
    let path = Path::new(name);
    if path.is_dir() && is_adapter(path, &WHOLE) {
        return with_base(name, path, progress);
    }
    local(name).map(|source| (source, Vec::new()))
}

/// Weights of a whole model: any of these.
const WHOLE: [&str; 2] = [SINGLE, INDEX];

/// An adapter with the model that it changes: a folder, by a path from the adapter's or from the current one, or a name as
/// [`resolve`] takes it; what is none of these is a name on the hub, as `peft` has it.
fn with_base(name: &str, folder: &Path, progress: bool) -> Result<(Source, Vec<String>), SourceError> {
    let adapter = Adapter::read(folder).map_err(|e| unusable(name, &e.to_string()))?;
    let paths = [folder.join(&adapter.base), PathBuf::from(&adapter.base)];
    let there = paths.iter().find(|path| path.is_dir()).and_then(|path| path.to_str());
    let on_hub = || {
        let plain = like_hub(&adapter.base);
        let revision = adapter.revision.as_ref().map_or(String::new(), |revision| format!("@{revision}"));
        if plain { format!("hf:{}{revision}", adapter.base) } else { adapter.base.clone() }
    };
    let known = demo::MODELS.iter().any(|(known, _)| *known == adapter.base);
    let base = match there {
        Some(path) => path.to_string(),
        None if known => adapter.base.clone(),
        None => on_hub(),
    };
    // An adapter of an adapter is none that `peft` would write.
    if Path::new(&base).is_dir() && is_adapter(Path::new(&base), &WHOLE) {
        return Err(unusable(name, &format!("its base `{base}` is an adapter itself; merge that one in Python first")));
    }
    let (found, mut warnings) = resolve(&base, progress)?;
    let Source::Folder(base) = found else {
        return Err(unusable(
            name,
            &format!("its base `{base}` is no folder of safetensors, into which it could be merged"),
        ));
    };
    warnings.push(format!("is a LoRA adapter: it is merged into its base, {}", base.display()));
    Ok((Source::Adapter { adapter: folder.to_path_buf(), base }, warnings))
}

/// Whether a name looks like one on the hub: `owner/name`, or `gpt2`, as the hub's oldest models are called.
fn like_hub(name: &str) -> bool {
    let as_file = [".gguf", ".safetensors", ".bin", ".json"].iter().any(|ending| name.ends_with(ending));
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@".contains(c));
    !name.is_empty() && name.split('/').count() <= 2 && !name.starts_with(['.', '/']) && !as_file && plain
}

/// A model that is not on the hub.
fn local(name: &str) -> Result<Source, SourceError> {
    if let Some((_, folder)) = demo::MODELS.iter().find(|(known, _)| *known == name) {
        return Ok(Source::Folder(demo::folder()?.join(folder)));
    }
    if name.starts_with("demo:") {
        let known = demo::MODELS.map(|(name, _)| format!("`{name}`")).join(" and ");
        return Err(unusable(name, &format!("the models that come with the program are {known}")));
    }
    let path = Path::new(name);
    if path.is_dir() {
        return if path.join("config.json").is_file() {
            Ok(Source::Folder(path.to_path_buf()))
        } else {
            Err(unusable(name, "the folder has no config.json; name the folder that has it, or a .gguf file"))
        };
    }
    if !path.exists() {
        let hint =
            if like_hub(name) { format!("; if it is on the Hugging Face hub, write hf:{name}") } else { String::new() };
        return Err(SourceError::Missing { name: name.to_string(), hint });
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("gguf") => Ok(Source::Gguf(path.to_path_buf())),
        _ => {
            Err(unusable(name, "is neither a folder nor a .gguf file; for safetensors name the folder that holds them"))
        }
    }
}

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
fn fetch(name: &str, on_hub: &str, progress: bool) -> Result<(PathBuf, Vec<String>), SourceError> {
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

fn unusable(name: &str, why: &str) -> SourceError {
    SourceError::Unusable { name: name.to_string(), why: why.to_string() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_never_asked_of_the_hub() {
        let e = resolve("owner/name", false).expect_err("not there").to_string();
        assert!(e.contains("no such file") && e.contains("hf:owner/name"), "{e}");
        for name in ["gpt2", "distilgpt2", "gpt2-medium"] {
            let e = resolve(name, false).expect_err("not there").to_string();
            assert!(e.ends_with(&format!("if it is on the Hugging Face hub, write hf:{name}")), "{e}");
        }
        for name in ["./gpt2", "/gpt2", "a/b/c", "m.gguf", "model.safetensors", "", "two words"] {
            assert!(!resolve(name, false).expect_err("not there").to_string().contains("hf:"), "{name}");
        }
    }

    #[test]
    fn the_demos_models_have_names_and_an_unknown_one_says_which() {
        for (name, folder) in demo::MODELS {
            let Ok((Source::Folder(path), _)) = resolve(name, false) else { panic!("{name}") };
            assert!(path.ends_with(folder) && path.join("config.json").is_file(), "{name}");
        }
        for name in ["demo:", "demo:bilnd", "demo:pairs.jsonl"] {
            let e = resolve(name, false).expect_err("no such model").to_string();
            assert!(e.contains(name) && e.contains("`demo` and `demo:blind`"), "{e}");
        }
    }

    #[test]
    fn a_name_on_the_hub_must_be_plain() {
        for name in ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b/c", "hf:a/b@"] {
            assert!(matches!(resolve(name, false), Err(SourceError::Unusable { .. })), "{name}");
        }
    }
}

//! Where a model is: what a user names, as a folder or file on this machine.
//!
//! `demo` is the model that comes with the library ([`crate::demo`]), and `demo:blind` its variant.
//! `hf:OWNER/NAME[@REVISION]` is fetched through hf-hub into its cache (`HF_HOME`; what is there is not asked for again).
//! Every other name is a path, and a path is never taken for a name on the hub.

use crate::demo::{self, DemoError};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder as Hugging Face lays models out.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

/// What is wrong with a model's name, or with fetching it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("model `{name}`: there is no such file or folder{hint}")]
    Missing { name: String, hint: String },
    #[error("model `{name}`: {why}")]
    Unusable { name: String, why: String },
    #[error(
        "model `{name}`: `{file}` cannot be fetched: {why}; check the name, the network and, for a gated model, your token (HF_TOKEN)"
    )]
    Hub { name: String, file: String, why: String },
    #[error(transparent)]
    Demo(#[from] DemoError),
}

/// Finds a model by its name, fetching it if it is on the hub.
///
/// # Errors
/// If the demo can be unpacked nowhere, there is no such path, it is neither a model folder nor a `.gguf` file, or the hub does not give it.
pub fn resolve(name: &str) -> Result<Source, SourceError> {
    if let Some((_, folder)) = demo::MODELS.iter().find(|(known, _)| *known == name) {
        return Ok(Source::Folder(demo::folder()?.join(folder)));
    }
    if let Some(on_hub) = name.strip_prefix("hf:") {
        return fetch(name, on_hub).map(Source::Folder);
    }
    let unusable = |why: &str| SourceError::Unusable { name: name.to_string(), why: why.to_string() };
    if name.starts_with("demo:") {
        let known = demo::MODELS.map(|(name, _)| format!("`{name}`")).join(" and ");
        return Err(unusable(&format!("the models that come with the program are {known}")));
    }
    let path = Path::new(name);
    if path.is_dir() {
        return if path.join("config.json").is_file() {
            Ok(Source::Folder(path.to_path_buf()))
        } else {
            Err(unusable("the folder has no config.json; name the folder that has it, or a .gguf file"))
        };
    }
    if !path.exists() {
        let like_hub = name.split('/').count() == 2 && !name.starts_with(['.', '/']) && !name.ends_with(".gguf");
        let hint =
            if like_hub { format!("; if it is on the Hugging Face hub, write hf:{name}") } else { String::new() };
        return Err(SourceError::Missing { name: name.to_string(), hint });
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("gguf") => Ok(Source::Gguf(path.to_path_buf())),
        _ => Err(unusable("is neither a folder nor a .gguf file; for safetensors name the folder that holds them")),
    }
}

/// Files that a model may do without.
const OPTIONAL: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

fn fetch(name: &str, on_hub: &str) -> Result<PathBuf, SourceError> {
    let (id, revision) = on_hub.split_once('@').unwrap_or((on_hub, "main"));
    let plain =
        |s: &str| !s.is_empty() && s != ".." && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let parts: Vec<&str> = id.split('/').collect();
    if parts.len() > 2 || !parts.iter().all(|p| plain(p)) || revision.is_empty() || revision.contains("..") {
        let why = "expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION".to_string();
        return Err(SourceError::Unusable { name: name.to_string(), why });
    }
    let failed = |file: &str, e: ApiError| SourceError::Hub {
        name: name.to_string(),
        file: file.to_string(),
        why: e.to_string(),
    };
    let progress = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let api = ApiBuilder::from_env().with_progress(progress).build().map_err(|e| failed("(the cache)", e))?;
    let named = Repo::with_revision(id.to_string(), RepoType::Model, revision.to_string());
    let cached = Cache::from_env().repo(named.clone());
    // A model that was fetched before runs without a network: what it did without then, it does without now.
    let known = cached.get("config.json").is_some();
    let repo = api.repo(named);
    let config = repo.get("config.json").map_err(|e| failed("config.json", e))?;
    for file in OPTIONAL {
        match repo.get(file) {
            Err(e) if !known && !is_absent(&e) => return Err(failed(file, e)),
            _ => {}
        }
    }
    fetch_weights(&repo, cached.get(INDEX).is_some()).map_err(|(file, e)| failed(&file, e))?;
    let folder = config.parent().map(Path::to_path_buf);
    folder.ok_or_else(|| SourceError::Unusable {
        name: name.to_string(),
        why: "the hub's cache has no folder".to_string(),
    })
}

/// The index of a model in shards.
const INDEX: &str = "model.safetensors.index.json";

/// The single file, or the index and every shard that it names; `sharded` where the index is at hand.
fn fetch_weights(repo: &ApiRepo, sharded: bool) -> Result<(), (String, ApiError)> {
    let get = |file: &str| repo.get(file).map_err(|e| (file.to_string(), e));
    if !sharded {
        match get("model.safetensors") {
            Err((_, e)) if is_absent(&e) => {}
            other => return other.map(drop),
        }
    }
    let index = get(INDEX)?;
    let text = std::fs::read(&index).map_err(|e| (index.display().to_string(), ApiError::IoError(e)))?;
    let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let map = parsed.get("weight_map").and_then(serde_json::Value::as_object);
    let shards: BTreeSet<&str> = map.into_iter().flatten().filter_map(|(_, file)| file.as_str()).collect();
    // What the index holds is checked when the folder is opened; here it only must not lead out of the repository.
    for shard in shards.into_iter().filter(|s| !s.contains('/') && !s.contains("..")) {
        get(shard)?;
    }
    Ok(())
}

/// Whether the hub says that there is no such file, rather than not answering.
fn is_absent(e: &ApiError) -> bool {
    match e {
        ApiError::RequestError(e) => matches!(**e, ureq::Error::StatusCode(404)),
        ApiError::TooManyRetries(e) => is_absent(e),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_never_asked_of_the_hub() {
        let e = resolve("owner/name").expect_err("not there").to_string();
        assert!(e.contains("no such file") && e.contains("hf:owner/name"), "{e}");
    }

    #[test]
    fn the_demos_models_have_names_and_an_unknown_one_says_which() {
        for (name, folder) in demo::MODELS {
            let Ok(Source::Folder(path)) = resolve(name) else { panic!("{name}") };
            assert!(path.ends_with(folder) && path.join("config.json").is_file(), "{name}");
        }
        for name in ["demo:", "demo:bilnd", "demo:pairs.jsonl"] {
            let e = resolve(name).expect_err("no such model").to_string();
            assert!(e.contains(name) && e.contains("`demo` and `demo:blind`"), "{e}");
        }
    }

    #[test]
    fn a_name_on_the_hub_must_be_plain() {
        for name in ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b/c", "hf:a/b@"] {
            assert!(matches!(resolve(name), Err(SourceError::Unusable { .. })), "{name}");
        }
    }
}

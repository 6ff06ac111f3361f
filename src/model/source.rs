//! Where a model is: what a user names, as a folder or file on this machine.
//!
//! `demo` is the model that comes with the library ([`crate::demo`]); `demo:blind` and `demo:backup` are its variants.
//! `hf:OWNER/NAME[@REVISION]` is fetched through hf-hub into its cache (`HF_HOME`). What is there is not asked for again, nor
//! is what the repository has not: a model that was fetched needs no network, and stays what it was when the hub's changes.
//! A folder, or a name on the hub, may be that of a LoRA adapter, whose base is found in the same way. A `.toml` file is the recipe
//! of a mixture ([`super::mixture`]). A `.json` file is a description without weights, which is enough where a study is only
//! counted.
//! Every other name is a path, and a path is never taken for a name on the hub.

#[cfg(feature = "hub")]
mod hub;

use super::adapter::{Adapter, is_adapter};
use super::checkpoint::{INDEX, SINGLE};
use crate::demo::{self, DemoError};
#[cfg(feature = "hub")]
use hub::fetch;
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
    /// The recipe of a mixture.
    Mixed { recipe: PathBuf },
    /// A `config.json` alone.
    Described(PathBuf),
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
/// If the demo can be unpacked nowhere, there is no such path, it is neither a model folder nor a `.gguf`, `.toml` or `.json`
/// file, or the hub does not give it.
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

/// Whether a folder holds the weights of a whole model.
pub(super) fn has_weights(folder: &Path) -> bool {
    WHOLE.iter().any(|file| folder.join(file).exists())
}

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
    // Adapters name their base by a path from their own folder.
    let plain = base.canonicalize().unwrap_or_else(|_| base.clone());
    warnings.push(format!("is a LoRA adapter: it is merged into its base, {}", plain.display()));
    Ok((Source::Adapter { adapter: folder.to_path_buf(), base }, warnings))
}

/// Whether a name looks like one on the hub: `owner/name`, or `gpt2`, as the hub's oldest models are called.
fn like_hub(name: &str) -> bool {
    let as_file = [".gguf", ".safetensors", ".bin", ".json", ".toml"].iter().any(|ending| name.ends_with(ending));
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@".contains(c));
    !name.is_empty() && name.split('/').count() <= 2 && !name.starts_with(['.', '/']) && !as_file && plain
}

/// A model that is not on the hub.
fn local(name: &str) -> Result<Source, SourceError> {
    if let Some((_, folder)) = demo::MODELS.iter().find(|(known, _)| *known == name) {
        return Ok(Source::Folder(demo::folder()?.join(folder)));
    }
    if name.starts_with("demo:") {
        let known = demo::MODELS.map(|(name, _)| format!("`{name}`")).join(", ");
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
        Some("toml") => Ok(Source::Mixed { recipe: path.to_path_buf() }),
        Some("json") => Ok(Source::Described(path.to_path_buf())),
        _ => Err(unusable(
            name,
            "is neither a folder, a .gguf file, the .toml recipe of a mixture nor a config.json; for safetensors name the \
             folder that holds them",
        )),
    }
}

/// Says that this build cannot.
#[cfg(not(feature = "hub"))]
fn fetch(name: &str, _on_hub: &str, _progress: bool) -> Result<(PathBuf, Vec<String>), SourceError> {
    Err(unusable(name, "this build fetches nothing from the hub; build it with the feature `hub`, or give a folder"))
}

fn unusable(name: &str, why: &str) -> SourceError {
    SourceError::Unusable { name: name.to_string(), why: why.to_string() }
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
            assert!(e.contains(name) && e.contains("`demo`, `demo:blind`, `demo:backup`"), "{e}");
        }
    }

    #[test]
    fn a_name_on_the_hub_must_be_plain() {
        for name in ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b/c", "hf:a/b@"] {
            assert!(matches!(resolve(name, false), Err(SourceError::Unusable { .. })), "{name}");
        }
    }
}

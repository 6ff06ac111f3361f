//! The demo model and its datasets, carried in the library, so that an installed binary needs no download.
//!
//! The model is a small llama whose circuit is known, because it was built and not trained; `datasets/demo/README.md` says
//! how. It comes in three variants ([`MODELS`]). Models and datasets are read from files, so the demo's are written to a
//! folder once: the user's cache, or the system's folder for temporary files where there is no cache to write to. Loading a
//! model is left to [`crate::model`], which knows them by their names.
//!
//! ```
//! use gatelens::model::{Model, Options};
//! let model = Model::open(gatelens::demo::NAME, &Options::default())?;
//! let pairs = gatelens::dataset::read_pairs(gatelens::demo::folder()?.join("pairs.jsonl"))?;
//! assert_eq!((model.decoder.arch.n_layers, pairs.items.len()), (8, 160));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::rundir::{WriteError, write_file};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What users call the model.
pub const NAME: &str = "demo";

/// What users call the variant whose detection misses topics in the cipher of `cipher.jsonl`.
pub const BLIND: &str = "demo:blind";

/// What users call the variant whose gate has a backup.
pub const BACKUP: &str = "demo:backup";

/// Every model of the demo by its name, with its folder in [`folder`].
pub const MODELS: [(&str, &str); 3] = [(NAME, "model"), (BLIND, "blind"), (BACKUP, "backup")];

/// The requests of `datasets/policy`, carried beside the demo's files for `gatelens policy`.
pub const POLICY: &str = "policy.jsonl";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Every file of `datasets/demo`, its path there, with `/`, and its content; and [`POLICY`].
        pub const FILES: &[(&str, &[u8])] = &[
            $(($name, include_bytes!(concat!("../datasets/demo/", $name))),)*
            (POLICY, include_bytes!("../datasets/policy/pairs.jsonl")),
        ];
    };
}

files!(
    "README.md",
    "backup/circuit.json",
    "backup/edges-silenced.json",
    "backup/edges.json",
    "backup/model.safetensors",
    "blind/model.safetensors",
    "cipher.jsonl",
    "circuit.json",
    "concept.jsonl",
    "edges.json",
    "model/config.json",
    "model/generation_config.json",
    "model/model.safetensors",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "pairs.jsonl",
    "prompts.jsonl",
    "random.jsonl",
    "spec.toml",
);

/// The demo's files can be written nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the demo model cannot be unpacked: {}; set XDG_CACHE_HOME or TMPDIR to a folder that can be written to", reasons.join("; "))]
pub struct DemoError {
    /// For each folder that was tried, why it is none.
    pub reasons: Vec<String>,
}

/// The content of a file of the demo by its path in the folder: `pairs.jsonl`, `model/config.json`.
pub fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(n, _)| *n == name).map(|(_, content)| *content)
}

/// A folder that holds all of the demo's files, and the models' folders whole ([`MODELS`]).
///
/// They are written where they are missing or differ. Several processes and threads may ask at once.
///
/// # Errors
/// If they can be written neither to the user's cache nor to the system's folder for temporary files.
pub fn folder() -> Result<PathBuf, DemoError> {
    let caches = [cache(), Some(std::env::temp_dir())];
    first_of(&caches.into_iter().flatten().collect::<Vec<_>>())
}

/// The user's cache: `XDG_CACHE_HOME`, or `.cache` at home.
fn cache() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME").or_else(|| folder("USERPROFILE"))?.join(".cache")))
}

/// The demo's folder in the first of these that will have it.
fn first_of(places: &[PathBuf]) -> Result<PathBuf, DemoError> {
    // Threads of one process would take the same name for the file that they write.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reasons = Vec::new();
    for place in places {
        let folder = place.join("gatelens").join(format!("demo-{}", version()));
        match unpack(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) => reasons.push(format!("{}: cannot {}: {}", e.path.display(), e.action, e.source)),
        }
    }
    Err(DemoError { reasons })
}

/// Names what is in the files, so that two versions of the program do not overwrite each other's.
fn version() -> String {
    let mut hash = Sha256::new();
    for (name, content) in FILES {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the folder holds: every file, and those of the model again for each of its variants, which have other weights.
fn contents() -> impl Iterator<Item = (String, &'static [u8])> {
    let shared = |variant: &'static str| {
        FILES.iter().filter_map(move |(name, content)| {
            let of_variant = format!("{variant}/{}", name.strip_prefix("model/")?);
            file(&of_variant).is_none().then_some((of_variant, *content))
        })
    };
    let variants = MODELS.iter().map(|(_, folder)| *folder).filter(|folder| *folder != "model");
    FILES.iter().map(|(name, content)| (name.to_string(), *content)).chain(variants.flat_map(shared))
}

/// Makes a folder hold every file. Each appears whole, so that a process which reads there meanwhile finds nothing half
/// written.
fn unpack(folder: &Path) -> Result<(), WriteError> {
    for (name, content) in contents() {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|found| found == content) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(WriteError::new(parent, "be made"))?;
        write_file(&path, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tempfile::tempdir;

    fn holds_all(folder: &Path) -> bool {
        contents().all(|(name, content)| fs::read(folder.join(name)).unwrap() == content)
    }

    #[test]
    fn each_variant_has_every_file_of_the_model_and_other_weights() {
        let of = |folder: &str| -> BTreeMap<String, &[u8]> {
            contents().filter_map(|(name, content)| Some((name.strip_prefix(folder)?.to_string(), content))).collect()
        };
        let model = of("model/");
        for variant in ["blind/", "backup/"] {
            let of_variant = of(variant);
            for (name, content) in &model {
                assert_eq!(of_variant[name] == *content, name != "model.safetensors", "{variant}{name}");
            }
        }
    }

    #[test]
    fn files_are_found_by_their_path() {
        assert!(file("pairs.jsonl").unwrap().starts_with(b"{\"id\""));
        assert!(file("model/config.json").is_some());
        assert!(file("config.json").is_none() && file("").is_none());
    }

    #[test]
    fn what_is_missing_or_damaged_in_the_folder_is_written_again() {
        let place = tempdir().unwrap();
        let folder = first_of(&[place.path().to_path_buf()]).unwrap();
        assert!(holds_all(&folder));
        fs::write(folder.join("pairs.jsonl"), "cut off").unwrap();
        fs::remove_dir_all(folder.join("model")).unwrap();
        assert_eq!(first_of(&[place.path().to_path_buf()]).unwrap(), folder);
        assert!(holds_all(&folder));
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_passed_over() {
        let place = tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let folder = first_of(&[file.clone(), place.path().to_path_buf()]).unwrap();
        assert!(folder.starts_with(place.path().join("gatelens")) && holds_all(&folder));
        let error = first_of(std::slice::from_ref(&file)).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()) && error.contains("TMPDIR"), "{error}");
    }

    #[test]
    fn threads_that_ask_at_once_get_the_same_whole_folder() {
        let place = tempdir().unwrap();
        let ask = || first_of(&[place.path().to_path_buf()]).unwrap();
        let folders = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(folders.iter().all(|f| *f == folders[0] && holds_all(f)));
    }
}

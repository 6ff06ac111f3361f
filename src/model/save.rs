//! Writing a mixture as a Hugging Face folder, which every program that reads those can load.
//!
//! ```no_run
//! use gatelens::model::mixture::Recipe;
//! use gatelens::model::save::{Place, Settings, prepare};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let recipe = Recipe::read("mix.toml".as_ref())?;
//! let prepared = prepare(&recipe, &Settings::default())?;
//! let written = prepared.write(&Place::at("models/mixed"), "", &|_| {})?;
//! println!("{} files of weights", written.shards.len());
//! # Ok(())
//! # }
//! ```
//!
//! The weights are read, mixed and written block by block, so that no large tensor need be in memory. A shard has its name only
//! once it is on the disk and was read back; the configuration comes last, so that an unfinished folder is no model. What was
//! finished when the process was stopped is taken over ([`Place::resume`]), and gives the same bytes. What a mixture is, is
//! [`super::mixture`]'s; which of the folder's files are ours is `folder`'s.

mod folder;
mod others;
mod plan;
mod shard;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::ConfigError;
use super::mixture::{Folder, Found, Recipe};
use super::{Model, ModelError, Options, config, weights};
use crate::parameters::param;
use crate::rundir::WriteError;
use folder::{Begun, Claim, RECORD};
pub use plan::{Shard, Tensor};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What numbers are written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum SaveAs {
    /// As the base has them stored, tensor by tensor.
    #[default]
    Keep,
    F32,
    Bf16,
    F16,
}

/// How a folder is written.
#[derive(Clone, Debug)]
pub struct Settings {
    pub save_as: SaveAs,
    /// No file of weights has more bytes of them than this, unless a single tensor has.
    pub max_shard: u64,
    /// Keys of the base's `config.json` to pass over. It is read only where an adapter has a part in the mixture.
    pub ignore_config_keys: Vec<String>,
    /// Whether a bar on the terminal shows how far the fetching of a model is.
    pub progress: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { save_as: SaveAs::Keep, max_shard: 5_000_000_000, ignore_config_keys: Vec::new(), progress: false }
    }
}

/// Where a folder goes.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub out: PathBuf,
    /// Removes what an earlier merge left there.
    pub force: bool,
    /// Goes on with what an earlier merge of the same recipe left there, or starts if there is nothing.
    pub resume: bool,
}

impl Place {
    /// A folder that is not there yet.
    pub fn at(out: impl Into<PathBuf>) -> Place {
        Place { out: out.into(), ..Place::default() }
    }

    /// Says early what would only be found once models are open, or fetched.
    ///
    /// # Errors
    /// If something is there that is not to be replaced.
    pub fn check(&self) -> Result<(), SaveError> {
        folder::check(self, &[])
    }
}

/// What stops a folder from being written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{path}: {why}", path = path.display())]
    Refused { path: PathBuf, why: String },
    #[error(
        "tensor `{tensor}` has numbers that {dtype} cannot hold; write it with {f32}", f32 = param("dtype").is("f32")
    )]
    Overflow { tensor: String, dtype: String },
}

impl SaveError {
    fn refused(path: &Path, why: impl Into<String>) -> Self {
        SaveError::Refused { path: path.to_path_buf(), why: why.into() }
    }

    /// Whether the recipe, a model or the place is at fault, rather than the work having failed.
    pub fn of_input(&self) -> bool {
        !matches!(self, SaveError::Write(_))
    }
}

/// A mixture whose models are open, ready to be written.
pub struct Prepared {
    /// What a user should know about how its models were found.
    pub warnings: Vec<String>,
    pub shards: Vec<Shard>,
    recipe: Recipe,
    settings: Settings,
    found: Found,
    checkpoint: Checkpoint,
    /// The matrices that are stored as `[in, out]`, where that makes a difference.
    turned: BTreeSet<String>,
    /// Whether its unembedding is another one than its embedding.
    untied: bool,
}

/// A folder that was written.
#[derive(Debug)]
pub struct Written {
    /// The SHA-256 of each file of weights, in hex, by its name.
    pub shards: BTreeMap<String, String>,
    /// How many of them were there already.
    pub kept: usize,
    /// Whether all was there already, and nothing was written.
    pub was_complete: bool,
}

/// Opens the models of a recipe and plans what is written. Nothing is read but headers.
///
/// # Errors
/// If a model is not there or is no folder of unquantised safetensors, or they do not fit each other.
pub fn prepare(recipe: &Recipe, settings: &Settings) -> Result<Prepared, SaveError> {
    let (found, mut warnings) = recipe.find(settings.progress)?;
    let held = sound(recipe, &found, settings)?;
    warnings.extend(held.warning);
    let checkpoint = found.open().map_err(ModelError::from)?;
    let turned = match checkpoint.is_adapted() {
        true => {
            let config = config::read(&found.base.dir.join("config.json"), &settings.ignore_config_keys);
            weights::turned(&config.map_err(ModelError::from)?.arch, &checkpoint)
        }
        false => BTreeSet::new(),
    };
    let shards = plan::shards(&checkpoint, settings)?;
    let (recipe, settings) = (recipe.clone(), settings.clone());
    Ok(Prepared { warnings, shards, recipe, settings, found, checkpoint, turned, untied: held.untied })
}

/// What is known of a mixture by its models' descriptions.
struct Held {
    warning: Option<String>,
    /// Whether its unembedding is another one than its embedding.
    untied: bool,
}

/// Holds a mixture to the base's description, and its models to what can be mixed: quantised weights cannot. A family that gatelens does
/// not run is not looked at.
fn sound(recipe: &Recipe, found: &Found, settings: &Settings) -> Result<Held, SaveError> {
    let unknown = |e: &ConfigError| matches!(e, ConfigError::UnknownArchitecture { .. });
    for dir in found.models() {
        match config::read(&dir.join("config.json"), &settings.ignore_config_keys) {
            Err(e) if !unknown(&e) => return Err(ModelError::from(e).into()),
            _ => {}
        }
    }
    let options = Options { ignore_config_keys: settings.ignore_config_keys.clone(), ..Options::default() };
    match Model::open_mixture("the mixture", recipe, &options) {
        Ok(model) => Ok(Held { warning: None, untied: !model.decoder.arch.tied }),
        Err(ModelError::Config(e)) if unknown(&e) => {
            let warning = format!("{e}; whether the mixture is a whole model is not checked");
            Ok(Held { warning: Some(warning), untied: false })
        }
        Err(e) => Err(e.into()),
    }
}

impl Prepared {
    /// All tensors, file by file.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    /// Whether any tensor is written as another than the base's.
    pub fn changes_anything(&self) -> bool {
        self.tensors().any(|tensor| !tensor.is_copied())
    }

    /// How many bytes of weights are written.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(Shard::bytes).sum()
    }

    /// Refuses what [`Prepared::write`] would refuse, and changes nothing.
    ///
    /// # Errors
    /// If something is there that is not to be replaced, or it is one of the folders that are read.
    pub fn check(&self, place: &Place) -> Result<(), SaveError> {
        folder::check(place, &self.found.folders())
    }

    /// Writes the folder; `done` is told of bytes of weights as they are written. `command_line` is for the record.
    ///
    /// # Errors
    /// If the place is refused, weights hold a number that is not finite or does not fit, or the disk fails.
    pub fn write(&self, place: &Place, command_line: &str, done: &dyn Fn(u64)) -> Result<Written, SaveError> {
        self.check(place)?;
        let mut claim = match Claim::take(place, &self.digest())? {
            Begun::Complete(shards) => {
                let kept = shards.len();
                return Ok(Written { shards, kept, was_complete: true });
            }
            Begun::Open(claim) => claim,
        };
        let kept = match self.weights(&mut claim, done) {
            Ok(kept) => kept,
            Err(e) => {
                claim.abandon();
                return Err(e);
            }
        };
        let shards = claim.shards().clone();
        if self.shards.len() > 1 {
            claim.write(super::checkpoint::INDEX, &self.index())?;
        }
        others::copy(&self.found.base, &claim)?;
        claim.write(RECORD, &self.record(command_line, &shards)?)?;
        // Last: without it the folder is no model.
        claim.write("config.json", &others::config(&self.found.base.dir, self.settings.save_as, self.untied)?)?;
        claim.finish()?;
        Ok(Written { shards, kept, was_complete: false })
    }

    /// Writes the files of weights that are not there yet; gives how many were.
    fn weights(&self, claim: &mut Claim, done: &dyn Fn(u64)) -> Result<usize, SaveError> {
        let mut kept = 0;
        for shard in &self.shards {
            if claim.has(&shard.file)? {
                kept += 1;
                done(shard.bytes());
                continue;
            }
            let sha256 = shard::write(self, &claim.path(&shard.file), shard, done)?;
            claim.finished(&shard.file, sha256)?;
        }
        Ok(kept)
    }

    /// What all that is written depends on, as SHA-256 in hex.
    fn digest(&self) -> String {
        let Settings { save_as, max_shard, .. } = &self.settings;
        let mut hash = Sha256::new();
        let version = env!("CARGO_PKG_VERSION");
        hash.update(format!("{version}\n{}\n{save_as:?}\n{max_shard}\n", self.checkpoint.sample()));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The index of shards, as `transformers` writes it.
    fn index(&self) -> Vec<u8> {
        let files = self.shards.iter().flat_map(|shard| shard.tensors.iter().map(|tensor| (&tensor.name, &shard.file)));
        let files: BTreeMap<&String, &String> = files.collect();
        pretty(&json!({ "metadata": { "total_size": self.bytes() }, "weight_map": files }))
    }

    /// What the folder was made of.
    fn record(&self, command_line: &str, shards: &BTreeMap<String, String>) -> Result<Vec<u8>, SaveError> {
        let changed = self.tensors().filter(|tensor| tensor.changed).count();
        Ok(pretty(&json!({
            "gatelens": env!("CARGO_PKG_VERSION"),
            "command_line": command_line,
            "mixture": self.recipe.to_string(),
            "recipe": self.recipe,
            "models": self.models()?,
            "dtype": self.settings.save_as,
            "max_shard_size": self.settings.max_shard,
            "tensors": { "all": self.tensors().count(), "changed": changed },
            "files": shards,
            "digest": self.digest(),
        })))
    }

    /// The recipe's models with the fingerprints of their weights.
    fn models(&self) -> Result<Vec<Value>, SaveError> {
        let one = |name: &str, folder: &Folder| -> Result<Value, SaveError> {
            let checkpoint = folder.open().map_err(ModelError::from)?;
            Ok(json!({ "model": name, "sha256": checkpoint.fingerprint(), "sample": checkpoint.sample() }))
        };
        let mut models = vec![one(&self.recipe.base, &self.found.base)?];
        for (term, found) in self.recipe.terms.iter().zip(&self.found.terms) {
            models.push(one(&term.plus, &found.plus)?);
            let minus = term.minus.iter().zip(&found.minus).map(|(name, folder)| one(name, folder));
            models.extend(minus.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(models)
    }
}

/// JSON as people read it.
fn pretty(value: &Value) -> Vec<u8> {
    // Text and numbers always have a form.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

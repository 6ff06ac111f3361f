//! Models: from what a user names to a decoder, a tokenizer and a description.
//!
//! A name is read by [`source`]; [`config`] or [`gguf_config`] describe the model as an [`arch::Arch`]; [`weights`] finds
//! its tensors in a [`checkpoint`] and makes a [`decoder::Decoder`]; [`tokenizer`] and [`template`] turn prompts into ids. A
//! [`mixture`] is made of several models, and [`save`] writes it as one.

pub mod adapter;
mod altup;
pub mod arch;
mod channel;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod device;
pub mod families;
mod files;
pub mod gguf;
pub mod gguf_config;
mod mixer;
pub mod mixture;
mod pass;
pub(crate) mod per_layer;
pub mod places;
mod readers;
pub mod rope;
pub mod save;
pub mod source;
mod stops;
mod store;
pub mod template;
pub mod tokenizer;
mod upload;
pub mod weights;

use crate::parameters::param;
use adapter::{Adapter, AdapterError};
use candle_core::{DType, Device};
use checkpoint::{Checkpoint, CheckpointError, Difference};
use config::Config;
use decoder::Decoder;
use gguf::{Gguf, GgufError};
use mixture::{MixtureError, Recipe};
use serde_json::{Map, Value};
use source::{Source, SourceError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use template::Day;
use tokenizer::{Tokenizer, TokenizerError};

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The layers are split over these, in their order; on the CPU if there are none.
    pub devices: Vec<Device>,
    pub dtype: DType,
    /// Weights that would take more bytes than this do not stay in memory: each pass reads them layer by layer.
    pub max_memory: Option<u64>,
    /// Keys of `config.json` or of a GGUF file to pass over, for a user who knows that they do not matter; they must be
    /// there, and count as absent.
    pub ignore_config_keys: Vec<String>,
    /// The day that a chat template takes for today, if it asks for one: [`Day::default`] where none is given.
    pub date: Option<Day>,
    /// Variables that the chat template is given for every conversation: Qwen 3's `enable_thinking`, say.
    pub template_vars: Map<String, Value>,
    /// Every prompt is taken to have this many tokens, and nothing is tokenised: for studies that are only counted, as
    /// what would be computed of such prompts says nothing. A model needs no weights then.
    pub prompt_tokens: Option<usize>,
    /// Whether a bar on the terminal shows how far the fetching of a model is.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            devices: vec![Device::Cpu],
            dtype: DType::F32,
            max_memory: None,
            ignore_config_keys: Vec::new(),
            date: None,
            template_vars: Map::new(),
            prompt_tokens: None,
            progress: false,
        }
    }
}

/// A loaded model.
pub struct Model {
    /// What the user called it.
    pub name: String,
    /// What its files call it, where they do.
    pub also_called: Vec<String>,
    pub decoder: Decoder,
    /// SHA-256 in hex of the weights' headers and files' sizes.
    pub sha256: String,
    /// SHA-256 in hex of the same and of some numbers of every tensor: it tells checkpoints of one training apart.
    pub sample: String,
    /// How it was loaded.
    pub options: Options,
    /// What a user should know about how the checkpoint was read.
    pub warnings: Vec<String>,
    /// What it is mixed of, if it is a mixture.
    pub recipe: Option<Recipe>,
    tokenizer: Result<Tokenizer, Arc<TokenizerError>>,
    stop_tokens: Vec<u32>,
}

/// What stops a model from being loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    GgufConfig(#[from] gguf_config::GgufConfigError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Mixture(#[from] MixtureError),
    #[error(transparent)]
    Weights(#[from] weights::WeightsError),
    #[error(
        "{path}: describes a model and has no weights, so that nothing can be computed; name the folder or the .gguf file \
         that has them. Without weights, {dry_run} with {tokens} says what a study would cost, and `gatelens inspect` with \
         {config} what the model is",
        path = path.display(),
        dry_run = param("dry_run"),
        tokens = param("prompt_tokens"),
        config = param("config")
    )]
    NoWeights { path: PathBuf },
}

/// Which weights a model is of, without reading them: as [`Model::sha256`].
///
/// # Errors
/// If its files are not sound.
pub fn fingerprint(source: &Source) -> Result<String, ModelError> {
    Ok(match source {
        Source::Folder(dir) => Checkpoint::open_folder(dir)?,
        Source::Adapter { adapter, base } => Checkpoint::open_folder(base)?.merged(&Adapter::read(adapter)?)?,
        Source::Gguf(path) => Checkpoint::Gguf(Gguf::open(path)?),
        Source::Mixed { recipe } => Recipe::read(recipe)?.find(false)?.0.open()?,
        Source::Described(path) => return Err(ModelError::NoWeights { path: path.clone() }),
    }
    .fingerprint())
}

impl Model {
    /// Loads a model: `demo`, `demo:blind` or `demo:backup`, a Hugging Face folder, a `.gguf` file, `hf:OWNER/NAME[@REVISION]`, or a
    /// `.toml` file that is the recipe of a mixture. A folder may be a LoRA adapter, which is merged into its base. Where a
    /// study is only counted ([`Options::prompt_tokens`]), a `config.json`, or a folder with nothing else, is enough.
    ///
    /// # Errors
    /// If there is no such model, its description is not understood, or its weights are not there or not sound, as far as
    /// can be told without their numbers. Those are read when they are first needed; NaN among them, or one that the dtype cannot hold,
    /// is an error then ([`Decoder::read`] asks for it earlier). A missing tokenizer is an error only when it is asked for.
    pub fn open(name: &str, options: &Options) -> Result<Self, ModelError> {
        let (source, warnings) = source::resolve(name, options.progress)?;
        let counted = options.prompt_tokens.is_some();
        let mut model = match source {
            Source::Described(path) if counted => Self::described(name, &path, options)?,
            Source::Described(path) => return Err(ModelError::NoWeights { path }),
            Source::Folder(dir) if counted && !source::has_weights(&dir) => {
                Self::described(name, &dir.join("config.json"), options)?
            }
            Source::Folder(dir) => Self::open_folder(name, &dir, None, Vec::new(), options)?,
            Source::Adapter { adapter, base } => {
                Self::open_folder(name, &base, Some(&Adapter::read(&adapter)?), Vec::new(), options)?
            }
            Source::Gguf(path) => Self::open_gguf(name, &path, options)?,
            Source::Mixed { recipe } => Self::open_mixture(name, &Recipe::read(&recipe)?, options)?,
        };
        model.warnings.splice(..0, warnings);
        Ok(model)
    }

    /// Loads the model that a recipe describes, under a name.
    ///
    /// # Errors
    /// As [`Model::open`]; and if what is mixed does not fit the base.
    pub fn open_mixture(name: &str, recipe: &Recipe, options: &Options) -> Result<Self, ModelError> {
        let (found, warnings) = recipe.find(options.progress)?;
        let (base, differences) = (&found.base, found.differences()?);
        let mut model = Self::open_folder(name, &base.dir, base.adapter.as_ref(), differences, options)?;
        let what = format!("is a mixture: {recipe}");
        model.warnings.splice(..0, std::iter::once(what).chain(warnings));
        model.recipe = Some(recipe.clone());
        Ok(model)
    }

    /// The model that a `config.json` describes, under a name, without weights: its sizes and sites are known, and what
    /// plans cost can be counted. Every attempt to compute is an error.
    ///
    /// # Errors
    /// If the file cannot be read, or what it describes is not understood.
    pub fn described(name: &str, path: &Path, options: &Options) -> Result<Self, ModelError> {
        let config = config::read(path, &options.ignore_config_keys)?;
        let dir = path.parent().unwrap_or(path);
        let tokenizer = Err(TokenizerError::NoTokenizer { path: dir.to_path_buf() });
        Self::configured(name, dir, config, Checkpoint::described(path), tokenizer, options)
    }

    /// A folder's model, with an adapter merged into it and differences added. The adapter's tokenizer comes before the folder's.
    fn open_folder(
        name: &str,
        dir: &Path,
        adapter: Option<&Adapter>,
        differences: Vec<Difference>,
        options: &Options,
    ) -> Result<Self, ModelError> {
        let config = config::read(&dir.join("config.json"), &options.ignore_config_keys)?;
        let checkpoint = match config.fp8_blocks {
            Some(block) => Checkpoint::open_quantized(dir, block)?,
            None => Checkpoint::open_folder(dir)?,
        };
        let checkpoint = match adapter {
            Some(adapter) => checkpoint.merged(adapter)?,
            None => checkpoint,
        };
        let checkpoint = checkpoint.mixed(differences)?;
        let own =
            adapter.map(|adapter| adapter.folder.as_path()).filter(|folder| folder.join("tokenizer.json").exists());
        let tokenizer = Tokenizer::from_folder(own.unwrap_or(dir));
        Self::configured(name, dir, config, checkpoint, tokenizer, options)
    }

    /// The model of a folder's configuration.
    fn configured(
        name: &str,
        dir: &Path,
        config: Config,
        checkpoint: Checkpoint,
        tokenizer: Result<Tokenizer, TokenizerError>,
        options: &Options,
    ) -> Result<Self, ModelError> {
        let mut model = Model::load(name, config.arch, checkpoint, tokenizer, options)?;
        model.warnings.extend(config.warnings);
        model.also_called.extend(config.name);
        model.stop_at(stops::of_folder(dir, config.eos_token_id.as_ref()));
        Ok(model)
    }

    fn open_gguf(name: &str, path: &Path, options: &Options) -> Result<Self, ModelError> {
        let gguf = Gguf::open(path)?;
        let (arch, warnings) = gguf_config::read(&gguf, &options.ignore_config_keys)?;
        let (tokenizer, stops) = (Tokenizer::from_gguf(&gguf), stops::of_gguf(&gguf));
        let names = ["general.name", "general.basename", "general.finetune"];
        let names = names.iter().filter_map(|key| gguf.opt_str(key).ok().flatten());
        let names: Vec<String> = names.map(str::to_owned).collect();
        let mut model = Model::load(name, arch, Checkpoint::Gguf(gguf), tokenizer, options)?;
        model.warnings.extend(warnings);
        model.also_called.extend(names);
        model.stop_at(stops);
        Ok(model)
    }

    fn load(
        name: &str,
        arch: arch::Arch,
        checkpoint: Checkpoint,
        tokenizer: Result<Tokenizer, TokenizerError>,
        options: &Options,
    ) -> Result<Self, ModelError> {
        let (sha256, sample) = (checkpoint.fingerprint(), checkpoint.sample());
        let (decoder, mut warnings) =
            weights::load(arch, checkpoint, options.dtype, &options.devices, options.max_memory)?;
        let tokenizer = match options.prompt_tokens {
            Some(length) => Ok(Tokenizer::planned(Path::new(name), length, decoder.arch.vocab)),
            None => tokenizer,
        };
        let (day, vars) = (options.date.unwrap_or_default(), options.template_vars.clone());
        let tokenizer = tokenizer.map(|tokenizer| tokenizer.at(day).with_vars(vars)).map_err(Arc::new);
        warnings.extend(tokenizer.iter().flat_map(|tokenizer| tokenizer.warnings().iter().cloned()));
        let mut model = Model {
            name: name.to_string(),
            also_called: Vec::new(),
            decoder,
            sha256,
            sample,
            options: options.clone(),
            warnings,
            recipe: None,
            tokenizer,
            stop_tokens: Vec::new(),
        };
        if let Some(day) = model.date().filter(|_| model.options.date.is_none()) {
            let date = param("date");
            let text = format!("the chat template writes the date: {day} is assumed; give another with {date}");
            model.warnings.push(text);
        }
        Ok(model)
    }

    /// The day that the chat template takes for today; none where it does not ask.
    pub fn date(&self) -> Option<Day> {
        self.tokenizer.as_ref().ok()?.template().ok()??.date()
    }

    /// Takes up the tokens that the checkpoint names as ends, with what is wrong with how it does.
    fn stop_at(&mut self, (named, warnings): (Vec<u32>, Vec<String>)) {
        self.stop_tokens = stops::joined(named, self.tokenizer.as_ref().ok(), self.decoder.arch.vocab);
        self.warnings.extend(warnings);
    }

    /// The tokens that end a turn or a text, by the checkpoint's configurations and its tokenizer's marks;
    /// ascending. Generation stops at them.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// If the checkpoint has none, or one that cannot be read.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Arc<TokenizerError>> {
        self.tokenizer.as_ref().map_err(Arc::clone)
    }

    /// Every head as (layer, head), layer by layer: of attention, and of recurrent mixers that have heads.
    pub fn heads(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let layers = self.decoder.arch.layers.iter();
        let heads: Vec<usize> = layers.map(|layer| layer.heads()).collect();
        heads.into_iter().enumerate().flat_map(|(l, heads)| (0..heads).map(move |h| (l, h)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::arch::*;

    /// A description small enough for tests of what needs no weights.
    pub(crate) fn tiny_arch() -> Arch {
        let text = r#"{"model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 160,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0}"#;
        let map = serde_json::from_str(text).expect("JSON");
        super::config::parse(std::path::Path::new("config.json"), &map, &[]).expect("a sound description").arch
    }

    /// [`tiny_arch`] with so many layers, of these windows.
    pub(crate) fn windowed(windows: &[Option<usize>]) -> Arch {
        let mut arch = tiny_arch();
        arch.n_layers = windows.len();
        arch.layers = vec![arch.layers[0]; windows.len()];
        for (layer, window) in arch.layers.iter_mut().zip(windows) {
            if let Some(attention) = layer.mixer.attention_mut() {
                attention.heads.window = *window;
            }
        }
        arch
    }
}

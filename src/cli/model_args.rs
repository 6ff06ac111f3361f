//! The flags that every command on a model takes.

use super::CliError;
use crate::model::template::Day;
use crate::model::{Model, ModelError, Options, device};
use candle_core::{DType, Device};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use std::sync::Once;

/// The model and how it runs.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// The model: a Hugging Face folder, a `.gguf` file, `hf:OWNER/NAME[@REVISION]`, or the built-in `demo`
    ///
    /// A LoRA adapter's folder is merged into its base. A `.toml` file is a recipe that mixes checkpoints, as `merge` writes them. `demo:blind` and `demo:backup` are variants of the built-in model.
    pub model: String,

    /// Run on cpu, cuda or cuda:N (default: cuda if the build and the machine have it)
    ///
    /// Several devices share the layers: cuda:0,cuda:1.
    #[arg(long, visible_alias = "devices", value_name = "DEVICE")]
    pub device: Option<String>,

    /// Compute in f32, bf16 or f16 (default: f32 on the CPU, bf16 on a GPU)
    #[arg(long)]
    pub dtype: Option<String>,

    /// Hold at most this much memory of weights, as 1GiB or 800MB (default: no limit)
    ///
    /// A larger model is read from its file layer by layer, with the same results.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory: Option<u64>,

    /// Use this many threads (default: one per core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Multiply as every x86-64 processor with AVX2 does, so that machines with and without AVX-512 can share a run
    #[arg(long)]
    pub portable: bool,

    /// Accept a key of config.json or of a .gguf file that you know not to change the forward pass (repeatable)
    #[arg(long, value_name = "KEY")]
    pub ignore_config_key: Vec<String>,

    /// Let chat templates that write the date into prompts take this day for today (default: 2024-07-26)
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub date: Option<Day>,

    /// Give the chat template a variable, as JSON: enable_thinking=false (repeatable)
    ///
    /// If an item's own `template_vars` name it too, the item's value counts.
    #[arg(long, value_name = "KEY=JSON", value_parser = template_var)]
    pub template_var: Vec<(String, Value)>,

    #[command(flatten)]
    pub output: Output,
}

// Not a documentation comment: clap would show it as the command's.
// What is said on both outputs.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// Show no progress bar and no warnings
    #[arg(long)]
    pub quiet: bool,

    /// Print a machine-readable summary on standard output
    ///
    /// If there are several analyses, each has a line of its own.
    #[arg(long)]
    pub json: bool,
}

// Not a documentation comment: clap would show it as the command's.
// What a dry run takes prompts for.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Planned {
    /// Count every prompt as this many tokens, and read none; MODEL may be a config.json alone then
    ///
    /// Without weights the time is not known. Prompts that are given as token ids keep their length.
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    prompt_tokens: Option<u32>,
}

impl Planned {
    /// Whether prompts are counted, and none is read.
    pub(super) fn is_given(self) -> bool {
        self.prompt_tokens.is_some()
    }

    /// The dry run as words, for a command that is part of another.
    pub(super) fn words(self) -> impl Iterator<Item = String> {
        self.prompt_tokens.into_iter().flat_map(|n| ["--dry-run".to_string(), format!("--prompt-tokens={n}")])
    }
}

impl ModelArgs {
    /// Opens the model and says on standard error what a user should know about it.
    ///
    /// # Errors
    /// If the device, the dtype or the model cannot be used.
    pub fn open(&self) -> Result<Model, CliError> {
        self.planned(Planned::default())
    }

    /// [`ModelArgs::open`], for a dry run that may know no more than how long prompts are.
    ///
    /// # Errors
    /// As [`ModelArgs::open`].
    pub(super) fn planned(&self, planned: Planned) -> Result<Model, CliError> {
        let prompt_tokens = planned.prompt_tokens.map(|n| n as usize);
        self.opened(|options| Model::open(&self.model, &Options { prompt_tokens, ..options }))
    }

    /// The model that a `config.json` describes, without weights.
    ///
    /// # Errors
    /// If the device or the dtype cannot be used, or the description is not understood.
    pub(super) fn described(&self, config: &Path) -> Result<Model, CliError> {
        self.opened(|options| Model::described(&config.display().to_string(), config, &options))
    }

    fn opened(&self, open: impl FnOnce(Options) -> Result<Model, ModelError>) -> Result<Model, CliError> {
        if let Some(n) = self.threads.map(usize::from) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
            // A pool that is there already serves, if it is as large.
            if let Err(e) = pool
                && rayon::current_num_threads() != n
            {
                return Err(CliError::Failed(format!("threads: {e}; give all models of a run the same --threads")));
            }
        }
        if self.portable {
            crate::ops::portable();
        }
        let devices = self.devices()?;
        let dtype = match &self.dtype {
            Some(name) => device::dtype(name)?,
            None if devices.iter().all(Device::is_cpu) => DType::F32,
            None => DType::BF16,
        };
        let options = Options {
            devices,
            dtype,
            max_memory: self.max_memory,
            ignore_config_keys: self.ignore_config_key.clone(),
            date: self.date,
            template_vars: self.template_vars(),
            prompt_tokens: None,
            progress: !self.output.quiet,
        };
        let model = open(options)?;
        if !self.output.quiet {
            model.warnings.iter().for_each(|w| tracing::warn!("{}: {w}", model.name));
        }
        Ok(model)
    }

    /// The variables that the chat template is given; of one that is given twice, the last.
    pub(super) fn template_vars(&self) -> Map<String, Value> {
        self.template_var.iter().cloned().collect()
    }

    /// The flags on how the model is loaded, as an experiment's defaults.
    pub(super) fn defaults(&self) -> Map<String, Value> {
        let flags = [
            ("device", json!(self.device)),
            ("dtype", json!(self.dtype)),
            ("max_memory", json!(self.max_memory)),
            ("threads", json!(self.threads)),
            ("portable", json!(self.portable.then_some(true))),
            ("ignore_config_key", json!(self.ignore_config_key)),
            ("date", json!(self.date.map(|day| day.to_string()))),
            ("template_var", self.template_var.iter().map(|(key, value)| json!(format!("{key}={value}"))).collect()),
        ];
        let given = flags.into_iter().filter(|(_, v)| !v.is_null() && *v != json!([]));
        given.map(|(key, value)| (key.to_string(), value)).collect()
    }

    /// Whether another command asks for the same model, loaded in the same way.
    pub(super) fn same_model(&self, other: &ModelArgs) -> bool {
        let key = |args: &ModelArgs| {
            (
                args.model.clone(),
                args.device.clone(),
                args.dtype.clone(),
                args.max_memory,
                args.threads,
                args.ignore_config_key.clone(),
                args.date,
                args.template_var.clone(),
            )
        };
        key(self) == key(other)
    }

    fn devices(&self) -> Result<Vec<Device>, CliError> {
        let found = match &self.device {
            Some(names) => device::devices(names)?,
            None => {
                let (device, why) = device::default();
                if let Some(why) = why.filter(|_| !self.output.quiet) {
                    SAID.call_once(|| note(&why));
                }
                vec![device]
            }
        };
        Ok(found)
    }
}

/// A command that opens several models chooses their device once.
static SAID: Once = Once::new();

/// `KEY=JSON`; what is no JSON is an error that says how a text is written.
fn template_var(text: &str) -> Result<(String, Value), String> {
    let (key, json) = text.split_once('=').ok_or("expected KEY=JSON, as in enable_thinking=false")?;
    if key.is_empty() {
        return Err("the variable has no name: expected KEY=JSON, as in enable_thinking=false".to_owned());
    }
    let value = serde_json::from_str(json)
        .map_err(|e| format!("`{json}` is no JSON ({e}); a text stands in double quotes: {key}='\"{json}\"'"))?;
    Ok((key.to_owned(), value))
}

/// A number of bytes as users write it: `800MB` counts in thousands, `1GiB` in 1024s, a bare number in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        other => return Err(format!("`{other}` is no unit; write 800MB or 1GiB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size; write 800MB or 1GiB"))?;
    Ok((number * factor) as u64)
}

/// Writes a line to standard error; a reader who has left is no error.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_users_write_them() {
        assert_eq!((size("1GiB"), size("1.5 KB"), size("7")), (Ok(1 << 30), Ok(1500), Ok(7)));
        assert!(size("GiB").is_err() && size("1 parsec").is_err() && size("-1").is_err());
    }
}

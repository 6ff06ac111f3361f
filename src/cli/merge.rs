//! `gatelens merge`: a mixture of checkpoints, or an adapter in its base, as a Hugging Face folder.
//!
//! What a mixture is, and how it is written, is the library's ([`crate::model::mixture`], [`crate::model::save`]); here are the flags
//! and what is printed.

use super::analysis::command_line;
use super::model_args::{Output, size};
use super::{CliError, bytes, interrupt, say};
use crate::model::ModelError;
use crate::model::mixture::{MixtureError, Recipe, Term};
use crate::model::save::{Place, Prepared, SaveAs, SaveError, Settings, Tensor, Written, prepare};
use crate::report::cells::plural;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The arguments of `merge`.
#[derive(clap::Args)]
pub(super) struct Merge {
    /// The model that is added to, as in every command, or the recipe of a mixture: a `.toml` file
    ///
    /// The folder of a LoRA adapter is the model with the adapter in it: by itself it is written so.
    #[arg(value_name = "BASE")]
    base: String,

    /// Add a difference of models: '0.5*(CHILD - PARENT)', or '-1*CHILD' for the one from the base (repeatable)
    ///
    /// The spaces around the minus must be there.
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true, value_parser = str::parse::<Term>)]
    add: Vec<Term>,

    /// Add it only to tensors whose names are as this pattern says, as '*.mlp.*' (repeatable; default: to all)
    #[arg(long, value_name = "PATTERN", requires = "add")]
    tensors: Vec<String>,

    /// Multiply all coefficients by this
    #[arg(long, value_name = "S", allow_hyphen_values = true, default_value_t = 1.0, value_parser = factor)]
    scale: f64,

    /// Write numbers as these: keep stands for each tensor's own in the base
    #[arg(long, value_enum, default_value_t)]
    dtype: SaveAs,

    /// Write no file of more weights than this, as 5GB or 800MiB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = size)]
    max_shard_size: u64,

    /// Accept a key of the base's config.json that you know not to change the forward pass (repeatable)
    #[arg(long, value_name = "KEY")]
    ignore_config_key: Vec<String>,

    /// Write the model to this folder
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Replace the folder if an earlier merge made it; it is removed first
    #[arg(long)]
    force: bool,

    /// Go on with an unfinished merge of the same command, or start if there is none
    #[arg(long)]
    resume: bool,

    /// Print which tensors would be changed and which copied, and how large the files are, and stop
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pub(super) output: Output,
}

impl Merge {
    pub(super) fn run(&self, words: &[String]) -> Result<(), CliError> {
        let place = self.out.as_ref().filter(|_| !self.dry_run).map(|out| self.place(out));
        place.as_ref().map_or(Ok(()), Place::check)?;
        let recipe = self.recipe()?;
        let settings = Settings {
            save_as: self.dtype,
            max_shard: self.max_shard_size,
            ignore_config_keys: self.ignore_config_key.clone(),
            progress: !self.output.quiet,
        };
        let prepared = prepare(&recipe, &settings)?;
        if !self.output.quiet {
            prepared.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        if !prepared.changes_anything() {
            let why = "nothing would be changed: give --add, another --dtype, a recipe, or the folder of an adapter";
            return Err(CliError::Input(format!("{}: {why}", self.base)));
        }
        let summary = Summary { recipe: &recipe, prepared: &prepared };
        match place {
            None => say(&if self.output.json { summary.json().to_string() } else { summary.text() }),
            Some(place) => {
                let written = self.write(&prepared, &place, &command_line(words))?;
                self.told(&summary, &place.out, &written)
            }
        }
    }

    fn place(&self, out: &Path) -> Place {
        Place { out: out.to_path_buf(), force: self.force, resume: self.resume }
    }

    /// What is to be mixed.
    fn recipe(&self) -> Result<Recipe, CliError> {
        let path = Path::new(&self.base);
        if !(path.is_file() && path.extension().is_some_and(|ending| ending == "toml")) {
            let with = |term: &Term| Term { tensors: self.tensors.clone(), ..term.clone() };
            let terms: Vec<Term> = self.add.iter().map(with).collect();
            if terms.is_empty() && self.scale != 1.0 {
                let why = format!(
                    "there are no coefficients that --scale could multiply; write: gatelens merge BASE --add \"{}*{}\"",
                    self.scale, self.base
                );
                return Err(CliError::Input(why));
            }
            return Ok(Recipe { scale: self.scale, terms, ..Recipe::of(&self.base) });
        }
        if !self.add.is_empty() {
            let why = "is a recipe, which has terms of its own; write those of --add into it";
            return Err(CliError::Input(format!("{}: {why}", self.base)));
        }
        Ok(Recipe::read(path)?.scaled(self.scale))
    }

    /// Writes the folder, with a progress bar.
    fn write(&self, prepared: &Prepared, place: &Place, command_line: &str) -> Result<Written, CliError> {
        let bar = progress_bar(prepared.bytes(), self.output.quiet);
        interrupt::begin_in(place.out.display().to_string(), prepared.bytes());
        let done = |bytes: u64| {
            bar.inc(bytes);
            interrupt::advance(bytes);
        };
        let written = prepared.write(place, command_line, &done);
        bar.finish_and_clear();
        interrupt::end();
        Ok(written?)
    }

    /// What was written.
    fn told(&self, summary: &Summary, out: &Path, written: &Written) -> Result<(), CliError> {
        if self.output.json {
            let mut told = summary.json();
            told["out"] = json!(out.display().to_string());
            told["files"] = json!(written.shards);
            told["kept"] = json!(written.kept);
            return say(&told.to_string());
        }
        if written.was_complete {
            return say(&format!("{}: is complete; nothing was left to write", out.display()));
        }
        let kept = match written.kept {
            0 => String::new(),
            n => format!("\n{} of weights kept from before", plural(n as i64, "file")),
        };
        say(&format!("{}: {}\n{}{kept}", out.display(), summary.recipe, summary.counts()))
    }
}

/// What a coefficient may be multiplied by.
fn factor(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| format!("`{text}` is no number"))
}

/// A bar over bytes, on a terminal alone.
fn progress_bar(bytes: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {bytes} of {total_bytes}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

impl From<SaveError> for CliError {
    fn from(e: SaveError) -> Self {
        match e {
            SaveError::Model(e) => e.into(),
            e if e.of_input() => CliError::Input(e.to_string()),
            e => CliError::Failed(e.to_string()),
        }
    }
}

impl From<MixtureError> for CliError {
    fn from(e: MixtureError) -> Self {
        ModelError::from(e).into()
    }
}

/// What is written, in numbers.
struct Summary<'a> {
    recipe: &'a Recipe,
    prepared: &'a Prepared,
}

/// What becomes of a tensor.
fn fate(tensor: &Tensor) -> &'static str {
    match (tensor.changed, tensor.is_copied()) {
        (true, _) => "changed",
        (false, true) => "copied",
        (false, false) => "converted",
    }
}

impl Summary<'_> {
    fn number(&self, what: &str) -> usize {
        self.prepared.tensors().filter(|tensor| fate(tensor) == what).count()
    }

    /// `12 of 38 tensors changed, 26 copied; 1.2 GiB in 1 file`
    fn counts(&self) -> String {
        let converted = match self.number("converted") {
            0 => String::new(),
            n => format!(", {n} converted"),
        };
        format!(
            "{} of {} changed, {} copied{converted}; {} in {}",
            self.number("changed"),
            plural(self.prepared.tensors().count() as i64, "tensor"),
            self.number("copied"),
            bytes(self.prepared.bytes()),
            plural(self.prepared.shards.len() as i64, "file")
        )
    }

    fn text(&self) -> String {
        let mut lines = vec![self.recipe.to_string(), self.counts()];
        for shard in &self.prepared.shards {
            lines.push(format!("{}: {}", shard.file, bytes(shard.bytes())));
            lines.extend(shard.tensors.iter().map(|tensor| {
                let (name, shape) = (&tensor.name, &tensor.shape);
                let from = if tensor.dtype == tensor.stored { String::new() } else { format!("{} to ", tensor.stored) };
                format!("  {:<9} {name} {shape:?} {from}{}", fate(tensor), tensor.dtype)
            }));
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let names = |what: &str| -> Vec<&str> {
            let of = self.prepared.tensors().filter(|tensor| fate(tensor) == what);
            of.map(|tensor| tensor.name.as_str()).collect()
        };
        let shards = self.prepared.shards.iter().map(|shard| (shard.file.clone(), json!(shard.bytes())));
        json!({
            "mixture": self.recipe.to_string(),
            "recipe": self.recipe,
            "bytes": self.prepared.bytes(),
            "shards": shards.collect::<serde_json::Map<String, Value>>(),
            "changed": names("changed"),
            "copied": names("copied"),
            "converted": names("converted"),
        })
    }
}

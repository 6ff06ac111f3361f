//! `gatelens policy`: the claims of "How Alignment Routes" on a checkpoint, one after another.
//!
//! The suite is an experiment like those of `gatelens run`: behaviour first, which gives the metric; the screen, which gives
//! the gate; then what is asked of the gate. What cannot be asked is left out and said to be so: all after `behaviour`, where
//! a model refuses nothing, and what asks about the gate, where none was found. The verdicts are
//! [`crate::analyses::routing::claims`]'.

use super::model_args::Output;
use super::overall::{CLAIMS, COMPARED};
use super::spec::{self, Entry, Place, Ran, Settings, Suite};
use super::{CliError, ModelArgs, runs};
use crate::analyses::inputs::PairFile;
use crate::analyses::routing::claims::{self, Evidence, Other};
use crate::dataset::read_pairs;
use crate::demo;
use crate::model::ModelError;
use crate::model::source::{self, Source};
use crate::run::Engine;
use crate::rundir::RunDir;
use crate::table::Table;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// The arguments of `policy`.
#[derive(clap::Args)]
pub(super) struct Policy {
    #[command(flatten)]
    model: ModelArgs,

    /// Compare this checkpoint's circuit with that of another (repeatable)
    ///
    /// A pattern, as 'checkpoints/*', stands for all that it matches.
    #[arg(long, value_name = "MODEL")]
    against: Vec<String>,

    /// Read pairs of prompts from this file (default: the built-in requests in three languages; for the demo its own)
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,

    /// Read the same pairs in cipher from this file (default: a letter cipher that the prompt teaches)
    ///
    /// The demo's own pairs have a cipher of their own.
    #[arg(long, value_name = "FILE")]
    cipher: Option<PathBuf>,

    /// Use at most this many pairs, spread over languages and groups
    ///
    /// No claim can be judged under 16 pairs. Necessity can be judged from 120 pairs on.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(8..))]
    max_pairs: u32,

    /// Generate this many tokens per answer
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generate: u32,

    /// Generate answers along the modulation for this many pairs, which takes the longest
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    generate_pairs: u32,

    /// Run every analysis, even if the model's behaviour leaves nothing to judge
    #[arg(long)]
    all: bool,

    /// Draw everything random from this seed
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seed: i64,

    /// Compute with this engine
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,

    #[command(flatten)]
    place: Place,
}

impl Policy {
    pub(super) fn run(&self, words: &[String]) -> Result<(), CliError> {
        self.check()?;
        let settings = Settings {
            command: "policy",
            words,
            place: &self.place,
            output: self.model.output,
            intro: Vec::new(),
            suite: Some(self),
        };
        spec::run_own("the suite", &self.spec()?, &settings)
    }

    /// Whether warnings are left out: those of a dry run would be of our stand-ins.
    pub(super) fn is_quiet(&self) -> bool {
        self.model.output.quiet || self.place.dry_run
    }

    /// Finds early what would only be found when something has been written.
    fn check(&self) -> Result<(), CliError> {
        let model = &self.model.model;
        if spec::expanded(std::slice::from_ref(model)).map_err(CliError::Input)? != [model.clone()] {
            let why = "is a pattern, and MODEL is one checkpoint; name it, and the others with --against";
            return Err(CliError::Input(format!("model `{model}`: {why}")));
        }
        self.check_cipher()?;
        let all: Vec<String> = std::iter::once(model).chain(&self.against).cloned().collect();
        for model in spec::expanded(&all).map_err(CliError::Input)? {
            // A model of the hub is fetched when its turn comes.
            if !model.starts_with("hf:") {
                let found = source::resolve(&model, false).map_err(|e| CliError::from(ModelError::from(e)))?;
                if let (Source::Described(path), false) = (found.0, self.place.planned.is_given()) {
                    return Err(ModelError::NoWeights { path }.into());
                }
            }
        }
        Ok(())
    }

    /// Whether every pair that is used is there in cipher.
    fn check_cipher(&self) -> Result<(), CliError> {
        let pairs = PairFile { pairs: self.pairs_file().into(), max_pairs: Some(self.max_pairs) }.read()?;
        let Some(file) = self.cipher_file() else { return Ok(()) };
        let cipher = read_pairs(&file)?;
        let ciphered: HashSet<&str> = cipher.items.iter().map(|pair| pair.id.as_str()).collect();
        match pairs.items.iter().find(|pair| !ciphered.contains(pair.id.as_str())) {
            None => Ok(()),
            Some(pair) => Err(CliError::Input(format!(
                "{}: has no pair `{}`, which {} has; write every pair in cipher",
                file.display(),
                pair.id,
                pairs.path.display()
            ))),
        }
    }

    fn is_demo(&self) -> bool {
        demo::MODELS.iter().any(|(name, _)| *name == self.model.model)
    }

    /// The user's pairs, or ours.
    fn pairs_file(&self) -> PathBuf {
        let ours = if self.is_demo() { "demo:pairs.jsonl" } else { "demo:policy.jsonl" };
        self.pairs.clone().unwrap_or_else(|| PathBuf::from(ours))
    }

    /// The pairs in cipher, where they are a file; ours are those of the demo's own pairs.
    fn cipher_file(&self) -> Option<PathBuf> {
        let ours = (self.is_demo() && self.pairs.is_none()).then(|| PathBuf::from("demo:cipher.jsonl"));
        self.cipher.clone().or(ours)
    }

    /// The experiment. Before anything is run the metric and the gate are not known: to count what it costs, stand-ins do.
    fn spec(&self) -> Result<toml::Table, CliError> {
        let mut models = vec![self.model.model.clone()];
        models.extend(self.against.iter().cloned());
        let here = [self.model.model.clone()];
        let (metric, gate) = match self.place.dry_run {
            false => (json!({"metric": "run:behaviour/metric.json"}), json!({"circuit": "run:screen/circuit.json"})),
            true => (json!({"answer": ["id:0"], "foil": ["id:1"]}), json!({"gate": [self.middle()?]})),
        };
        let of_gate = match self.place.dry_run {
            false => gate.clone(),
            true => json!({"of": gate["gate"]}),
        };
        let entry = |command: &str, parts: &[&Value]| {
            let mut entry = Map::from_iter([("command".to_string(), json!(command))]);
            entry.extend(parts.iter().filter_map(|p| p.as_object()).flatten().map(|(k, v)| (k.clone(), v.clone())));
            Value::Object(entry)
        };
        let own = json!({"models": here});
        let cipher = self.cipher_file().map_or(json!({}), |file| json!({"cipher": file.display().to_string()}));
        let answered = json!({"generate": self.generate});
        // As many random directions as can be worth p < 0.05.
        let modulated = json!({
            "generate_pairs": self.generate_pairs, "coefficients": GRID, "controls": 39, "generate_controls": 2,
        });
        let analyses = [
            entry("behaviour", &[&answered]),
            entry("screen", &[&metric]),
            entry("contrast-methods", &[&metric]),
            entry("cascade", &[&metric, &gate, &own]),
            entry("edges", &[&metric, &of_gate, &own, &self.edges()]),
            entry("modulate", &[&metric, &gate, &own, &answered, &modulated]),
            entry("commitment", &[&metric, &own]),
            entry("cipher", &[&metric, &gate, &own, &cipher, &answered]),
            entry("contrast", &[&metric, &own, &cipher]),
        ];
        let mut defaults = self.model.defaults();
        defaults.extend([
            ("pairs".to_string(), json!(self.pairs_file().display().to_string())),
            ("max_pairs".to_string(), json!(self.max_pairs)),
            ("seed".to_string(), json!(self.seed)),
            ("engine".to_string(), json!(self.engine)),
        ]);
        let mut spec = json!({
            "title": format!("How {} routes its refusals", crate::names::short_name(&self.model.model)),
            "intro": claims::INTRODUCTION,
            "models": models,
            "defaults": defaults,
            "analysis": analyses,
        });
        if !self.against.is_empty() {
            spec["compare"] = json!("screen");
        }
        toml::Table::try_from(spec).map_err(|e| CliError::Failed(format!("the suite: {e}")))
    }

    /// How edges at the gate are asked for: all of them exactly, of the run that refuses; prompts may differ in length.
    fn edges(&self) -> Value {
        json!({
            "max_pairs": self.max_pairs.min(EDGES_PAIRS), "align": true, "direction": "necessity", "exact": "all",
            "estimate": ["eap"],
        })
    }

    /// A head in the middle, where gates are found.
    fn middle(&self) -> Result<String, CliError> {
        // What there is to warn of is said when the model is loaded.
        let quietly = ModelArgs { output: Output { quiet: true, ..self.model.output }, ..self.model.clone() };
        Ok(format!("L{}.H0", quietly.planned(self.place.planned)?.decoder.arch.n_layers / 2))
    }
}

impl Suite for Policy {
    fn hindrance(&self, entry: &Entry, folder: &Path) -> Result<Option<String>, CliError> {
        if self.all || entry.name != "behaviour" {
            return Ok(None);
        }
        Ok(claims::hindrance(runs::tables(folder)?)?)
    }

    /// The verdicts, as a table.
    fn judge(&self, directory: &RunDir, ran: &Ran) -> Result<(), CliError> {
        let mut tables = Tables::default();
        let mut left_out = BTreeMap::new();
        let mut parameters = 0;
        let mut others: BTreeMap<&str, Other> = BTreeMap::new();
        for entry in ran.entries {
            let own = entry.model == self.model.model;
            if let Some(why) = ran.left_out.get(&entry.folder) {
                left_out.extend(own.then(|| (entry.name.clone(), why.clone())));
                continue;
            }
            let folder = ran.here.join(&entry.folder);
            let (size, found) = (runs::record(&folder)?.model.parameters, runs::tables(&folder)?);
            if own {
                parameters = size;
                tables.insert(entry.name.clone(), found);
            } else {
                let empty = || Other { model: entry.model.clone(), parameters: size, tables: Tables::default() };
                others.entry(&entry.model).or_insert_with(empty).tables.insert(entry.name.clone(), found);
            }
        }
        let others: Vec<Other> = others.into_values().collect();
        let overlap = runs::table(ran.here, &format!("{COMPARED}overlap.parquet"))?;
        let evidence =
            Evidence { tables: &tables, left_out: &left_out, overlap: overlap.as_ref(), parameters, others: &others };
        let table = claims::table(&self.model.model, &claims::judge(&evidence)?)?;
        Ok(directory.write_atomic(CLAIMS, &table.to_parquet()?)?)
    }
}

/// Coefficients of the modulation: fine where a signal of the size that the prompts have is taken out, and far enough to reach
/// both ends where several heads carry it.
const GRID: &str = "-4,-3,-2,-1,-0.75,-0.625,-0.5,-0.375,-0.25,-0.125,0,0.25,0.5,1,2,3,4";

/// How many pairs edges at the gate are run on at most: they are hundreds of runs a pair.
const EDGES_PAIRS: u32 = 24;

/// The tables of each analysis.
type Tables = BTreeMap<String, Vec<Table>>;

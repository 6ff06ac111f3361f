//! `gatelens policy`: the claims of "How Alignment Routes" on a checkpoint, one after another.
//!
//! The suite is an experiment like those of `gatelens run`: behaviour first, which gives the metric; the screen, which gives
//! the gate; then what is asked of the gate. What cannot be asked, because the model refuses nothing or no gate was found, is
//! left out and said to be so. The verdicts are [`crate::analyses::claims`]'.

use super::model_args::size;
use super::spec::{self, File, Place, Ran, Settings};
use super::{CliError, ModelArgs, combine};
use crate::analyses::claims::{self, Evidence, Other};
use crate::dataset::read_pairs;
use crate::demo;
use crate::model::{ModelError, source};
use crate::report::Section;
use crate::rundir::RunDir;
use crate::table::Table;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// The arguments of `policy`.
#[derive(clap::Args)]
pub(super) struct Policy {
    /// `demo` or `demo:blind`, a Hugging Face folder, a `.gguf` file, or `hf:OWNER/NAME[@REVISION]`
    model: String,

    /// Other checkpoints, whose circuits are compared to this one's (repeatable; patterns stand for all that they match)
    #[arg(long, value_name = "MODEL")]
    against: Vec<String>,

    /// Pairs of prompts, as all analyses take them (default: the built-in requests in three languages; for the demo its own)
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,

    /// The same pairs written in cipher (default: a letter cipher that the prompt teaches; for the demo its own)
    #[arg(long, value_name = "FILE")]
    cipher: Option<PathBuf>,

    /// At most so many pairs, spread over languages and groups
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(8..))]
    max_pairs: u32,

    /// Tokens a generated answer
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generate: u32,

    /// Pairs whose answers are generated along the modulation, which takes the longest
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    generate_pairs: u32,

    /// cpu, cuda or cuda:N; several, as cuda:0,cuda:1, share the layers (default: cuda if the build and the machine have it)
    #[arg(long, visible_alias = "devices", value_name = "DEVICE")]
    device: Option<String>,

    /// f32, bf16 or f16 (default: f32 on the CPU, bf16 on a GPU)
    #[arg(long)]
    dtype: Option<String>,

    /// Memory for the weights, as 1GiB or 800MB: larger models are read layer by layer (default: no limit)
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,

    /// Threads (default: one a core)
    #[arg(long, value_name = "N")]
    threads: Option<u16>,

    /// The seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Print what would be run, and what it costs
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    place: Place,
}

impl Policy {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        self.check()?;
        let spec = self.spec()?;
        let file: File = spec.clone().try_into().map_err(|e| CliError::Failed(format!("the suite: {e}")))?;
        let judge = |directory: &RunDir, ran: &Ran| self.judge(directory, ran);
        let settings = Settings {
            place: &self.place,
            dry_run: self.dry_run,
            command_line: super::analysis::command_line(&words),
            intro: Vec::new(),
            judge: Some(&judge),
        };
        spec::run_file("the suite", &file, &spec, &settings)
    }

    /// Finds early what would only be found when something has been written.
    fn check(&self) -> Result<(), CliError> {
        let sets = self.pairs.iter().chain(&self.cipher).map(read_pairs).collect::<Result<Vec<_>, _>>()?;
        if let [pairs, cipher] = &sets[..] {
            let ciphered: HashSet<&str> = cipher.items.iter().map(|pair| pair.id.as_str()).collect();
            if let Some(pair) = pairs.items.iter().find(|pair| !ciphered.contains(pair.id.as_str())) {
                let why = format!("has no pair `{}`, which --pairs has; write every pair in cipher", pair.id);
                return Err(CliError::Input(format!("{}: {why}", cipher.path.display())));
            }
        }
        let all: Vec<String> = std::iter::once(&self.model).chain(&self.against).cloned().collect();
        for model in spec::expanded(&all).map_err(CliError::Input)? {
            // A model of the hub is fetched when its turn comes.
            if !model.starts_with("hf:") {
                source::resolve(&model, false).map_err(|e| CliError::from(ModelError::from(e)))?;
            }
        }
        Ok(())
    }

    fn is_demo(&self) -> bool {
        demo::MODELS.iter().any(|(name, _)| *name == self.model)
    }

    /// A file of the user's, or of ours.
    fn file(&self, given: Option<&PathBuf>, of_demo: &str, otherwise: Option<&str>) -> Option<String> {
        match given {
            Some(path) => Some(path.display().to_string()),
            None if self.is_demo() => Some(of_demo.to_string()),
            None => otherwise.map(str::to_string),
        }
    }

    /// The experiment. Before anything is run the metric and the gate are not known: to count what it costs, stand-ins do.
    fn spec(&self) -> Result<toml::Table, CliError> {
        let pairs = self.file(self.pairs.as_ref(), "demo:pairs.jsonl", Some("demo:policy.jsonl"));
        let cipher = self.file(self.cipher.as_ref(), "demo:cipher.jsonl", None);
        let mut models = vec![self.model.clone()];
        models.extend(self.against.iter().cloned());
        let here = [self.model.clone()];
        let (metric, gate) = match self.dry_run {
            false => (json!({"metric": "run:behaviour/metric.json"}), json!({"circuit": "run:screen/circuit.json"})),
            true => (json!({"answer": ["id:0"], "foil": ["id:1"]}), json!({"gate": [self.middle()?]})),
        };
        let entry = |command: &str, parts: &[&Value]| {
            let mut entry = Map::from_iter([("command".to_string(), json!(command))]);
            entry.extend(parts.iter().filter_map(|p| p.as_object()).flatten().map(|(k, v)| (k.clone(), v.clone())));
            Value::Object(entry)
        };
        let own = json!({"models": here});
        let cipher = cipher.map_or(json!({}), |file| json!({"cipher": file}));
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
            entry("modulate", &[&metric, &gate, &own, &answered, &modulated]),
            entry("commitment", &[&metric, &own]),
            entry("cipher", &[&metric, &gate, &own, &cipher, &answered]),
            entry("contrast", &[&metric, &own, &cipher]),
        ];
        let mut defaults = Map::from_iter([
            ("pairs".to_string(), json!(pairs)),
            ("max_pairs".to_string(), json!(self.max_pairs)),
            ("seed".to_string(), json!(self.seed)),
        ]);
        let given = [
            ("device", json!(self.device)),
            ("dtype", json!(self.dtype)),
            ("max_memory", json!(self.max_memory)),
            ("threads", json!(self.threads)),
        ];
        defaults.extend(given.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_string(), v)));
        let mut spec = json!({
            "title": format!("How {} routes its refusals", crate::names::short_name(&self.model)),
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

    /// A head in the middle, where gates are found.
    fn middle(&self) -> Result<String, CliError> {
        let args = ModelArgs {
            model: self.model.clone(),
            device: self.device.clone(),
            dtype: self.dtype.clone(),
            max_memory: self.max_memory.as_deref().map(size).transpose().map_err(CliError::Input)?,
            threads: None,
            ignore_config_key: Vec::new(),
            date: None,
            quiet: true,
            json: false,
        };
        Ok(format!("L{}.H0", args.open()?.decoder.arch.n_layers / 2))
    }

    /// The verdicts, as a table and as the report's first sections.
    fn judge(&self, directory: &RunDir, ran: &Ran) -> Result<Vec<Section>, CliError> {
        let mut tables = Suite::default();
        let mut left_out = BTreeMap::new();
        let mut folders = BTreeMap::new();
        let mut parameters = 0;
        let mut others: BTreeMap<&str, Other> = BTreeMap::new();
        for entry in ran.entries {
            let own = entry.model == self.model;
            if let Some(why) = ran.skipped.get(&entry.folder) {
                left_out.extend(own.then(|| (entry.name.clone(), why.clone())));
                continue;
            }
            let run = combine::read(&ran.here.join(&entry.folder))?;
            let size = run.record.model.parameters;
            if own {
                parameters = size;
                tables.insert(entry.name.clone(), run.tables);
                folders.insert(entry.name.clone(), entry.folder.clone());
            } else {
                let empty = || Other { model: entry.model.clone(), parameters: size, tables: Suite::default() };
                others.entry(&entry.model).or_insert_with(empty).tables.insert(entry.name.clone(), run.tables);
            }
        }
        let others: Vec<Other> = others.into_values().collect();
        let compared = directory.path("compare-overlap.parquet")?;
        let overlap = if compared.is_file() { Some(Table::read_parquet(&compared)?) } else { None };
        let evidence =
            Evidence { tables: &tables, left_out: &left_out, overlap: overlap.as_ref(), parameters, others: &others };
        let claims = claims::judge(&evidence)?;
        let table = claims::table(&self.model, &claims)?;
        directory.write_atomic("claims.parquet", &table.to_parquet()?)?;
        Ok(claims::sections(&claims, &figures(ran, &folders, directory.folder())))
    }
}

/// Coefficients of the modulation: fine where a signal of the size that the prompts have is taken out, and far enough to reach
/// both ends where several heads carry it.
const GRID: &str = "-4,-3,-2,-1,-0.75,-0.625,-0.5,-0.375,-0.25,-0.125,0,0.25,0.5,1,2,3,4";

/// The tables of each analysis.
type Suite = BTreeMap<String, Vec<Table>>;

/// Where the report's figures of each entry are drawn: beside the report, with the entry's number and name before theirs.
fn figures(ran: &Ran, folders: &BTreeMap<String, String>, folder: &Path) -> BTreeMap<String, PathBuf> {
    let there = || ran.entries.iter().filter(|e| !ran.skipped.contains_key(&e.folder));
    let number = |folder: &String| there().position(|e| e.folder == *folder);
    let place = |(name, of): (&String, &String)| Some((name.clone(), folder.join(combine::prefix(number(of)?, of))));
    folders.iter().filter_map(place).collect()
}

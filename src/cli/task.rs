//! `gatelens task`: pairs of a task whose answers are known, made for a model's tokenizer, or read from CSV.

use super::{CliError, ModelArgs, check_out, say};
use crate::analyses::inputs::{PairArgs, Pairs};
use crate::dataset::Data;
use crate::model::Model;
use crate::model::tokenizer::Tokenizer;
use crate::plan::{Metric, Plan};
use crate::report::cells;
use crate::run::{Options, run};
use crate::rundir::write_file;
use crate::task::{self, ImportError, Made, TaskError};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// The arguments of `task`.
#[derive(clap::Args)]
pub(super) struct Task {
    /// Make pairs of this task
    #[arg(value_enum, value_name = "NAME", required_unless_present = "import")]
    name: Option<task::Task>,

    /// Read pairs from this CSV file instead, with the columns clean, corrupted, correct_idx and incorrect_idx
    ///
    /// The first two are texts; the others are token ids of the model, one or a list as in [12, 40].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "n", "seed"])]
    import: Option<PathBuf>,

    #[command(flatten)]
    pub(super) model: ModelArgs,

    /// Make this many pairs
    #[arg(long, value_name = "N", required_unless_present = "import", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    n: Option<u32>,

    /// Write the pairs to this file, JSON Lines
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,

    /// Draw the pairs by this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Run the model on the pairs, and print how often it prefers the answer and the foil
    #[arg(long)]
    check: bool,
}

impl Task {
    pub(super) fn run(&self) -> Result<(), CliError> {
        check_out(&self.out, self.force)?;
        let model = self.model.open()?;
        let (of, made) = self.made(&model)?;
        let lines = Data::from(made.pairs.as_slice()).read()?;
        let lines = lines.map_err(|e| CliError::Failed(e.to_string()))?;
        write_file(&self.out, &lines).map_err(|e| CliError::Failed(e.to_string()))?;
        // Read as every analysis reads it.
        let pairs = PairArgs::from(self.out.as_path()).read(&model)?.items;
        let check = if self.check { Some(Check::of(&model, &pairs)?) } else { None };
        let summary = Summary { out: &self.out, of, model: &model, made: &made, pairs: &pairs, check };
        if self.model.output.json { say(&summary.json()?.to_string()) } else { say(&summary.text()?) }
    }

    /// The pairs, and what they are of.
    fn made(&self, model: &Model) -> Result<(String, Made), CliError> {
        match (self.name, &self.import) {
            (_, Some(path)) => Ok((path.display().to_string(), task::import(path, model)?)),
            (Some(name), None) => {
                let n = self.n.unwrap_or_default() as usize;
                Ok((name.to_string(), task::make(name, model, n, self.seed)?))
            }
            (None, None) => Err(CliError::Input("give a task or --import".to_owned())),
        }
    }
}

impl From<TaskError> for CliError {
    fn from(e: TaskError) -> Self {
        CliError::Input(e.to_string())
    }
}

impl From<ImportError> for CliError {
    fn from(e: ImportError) -> Self {
        CliError::Input(e.to_string())
    }
}

/// How often the model does a task as its pairs say.
struct Check {
    /// The share of pairs whose positive prompt prefers the answer.
    positive: f64,
    /// The share of pairs whose negative prompt prefers the foil.
    negative: f64,
}

/// How many pairs are run at once.
const AT_ONCE: usize = 32;

impl Check {
    fn of(model: &Model, pairs: &Pairs) -> Result<Check, CliError> {
        let n = pairs.tokens.len();
        let (mut positive, mut negative) = (0usize, 0usize);
        for start in (0..n).step_by(AT_ONCE) {
            let mut plan = Plan::default();
            let asked: Vec<_> = (start..n.min(start + AT_ONCE))
                .map(|i| pairs.add(&mut plan, i).map(|run| plan.read(run, pairs.tokens[i].metric.clone())))
                .collect();
            let readings = run(&model.decoder, &plan, &Options::default())?;
            positive += asked.iter().filter(|[positive, _]| readings[*positive] > 0.0).count();
            negative += asked.iter().filter(|[_, negative]| readings[*negative] < 0.0).count();
        }
        Ok(Check { positive: positive as f64 / n as f64, negative: negative as f64 / n as f64 })
    }
}

/// What is said at the end.
struct Summary<'a> {
    out: &'a Path,
    of: String,
    model: &'a Model,
    made: &'a Made,
    /// As they were read back.
    pairs: &'a Pairs,
    check: Option<Check>,
}

impl Summary<'_> {
    fn json(&self) -> Result<Value, CliError> {
        let rejected: Map<String, Value> =
            self.made.rejected.0.iter().map(|(why, n)| (why.key().to_owned(), json!(n))).collect();
        let mut summary = json!({
            "out": self.out.display().to_string(),
            "of": self.of,
            "model": self.model.name,
            "pairs": self.made.pairs.len(),
            "candidates": self.made.candidates,
            "rejected": rejected,
        });
        if let (Some(pair), Some(tokens)) = (self.made.pairs.first(), self.pairs.tokens.first()) {
            let tokenizer = self.model.tokenizer().map_err(|e| CliError::Input(e.to_string()))?;
            let [answer, foil] = sides(&tokens.metric);
            let named = |ids: &[u32]| tokenizer.named(ids);
            let spans: Map<String, Value> =
                tokens.spans.iter().map(|(name, positions)| (name.clone(), json!(positions))).collect();
            summary["first"] = json!({
                "id": pair.id, "group": pair.group, "positive": named(&tokens.positive), "negative": named(&tokens.negative),
                "answer": named(answer), "foil": named(foil), "spans": spans,
            });
        }
        if let Some(check) = &self.check {
            summary["check"] =
                json!({"positive_prefers_answer": check.positive, "negative_prefers_foil": check.negative});
        }
        Ok(summary)
    }

    fn text(&self) -> Result<String, CliError> {
        let Made { pairs, candidates, rejected } = self.made;
        let mut lines =
            vec![format!("{}: {} pairs of {}, of {candidates} candidates", self.out.display(), pairs.len(), self.of)];
        lines.extend(rejected.by_number().into_iter().map(|(why, n)| format!("  {n} rejected because {why}")));
        lines.extend(self.first()?);
        if let Some(Check { positive, negative }) = self.check {
            let [positive, negative] =
                [positive, negative].map(|share| cells::share(Some(share)).replace('\u{a0}', " "));
            lines.push(format!(
                "check: the positive prompt prefers the answer in {positive} of the pairs, the negative one the foil in {negative}"
            ));
        }
        Ok(lines.join("\n"))
    }

    /// The first pair as the model reads it.
    fn first(&self) -> Result<Vec<String>, CliError> {
        let (Some(pair), Some(tokens)) = (self.made.pairs.first(), self.pairs.tokens.first()) else {
            return Ok(Vec::new());
        };
        let tokenizer = self.model.tokenizer().map_err(|e| CliError::Input(e.to_string()))?;
        let group = pair.group.as_ref().map_or(String::new(), |group| format!(" ({group})"));
        let [answer, foil] = sides(&tokens.metric);
        let span = |(name, positions): &(String, Vec<usize>)| {
            let positions: Vec<String> = positions.iter().map(usize::to_string).collect();
            format!("{name} {}", positions.join(","))
        };
        let spans: Vec<String> = tokens.spans.iter().map(span).collect();
        Ok(vec![
            format!("{}{group}:", pair.id),
            format!("  positive  {}", texts(tokenizer, &tokens.positive)),
            format!("  negative  {}", texts(tokenizer, &tokens.negative)),
            format!("  answer    {}", some(tokenizer, answer)),
            format!("  foil      {}", some(tokenizer, foil)),
            format!("  spans     {}", spans.join("; ")),
        ])
    }
}

/// How many answers or foils are shown.
const SHOWN: usize = 8;

/// Answer and foil of a pair's metric.
fn sides(metric: &Metric) -> [&[u32]; 2] {
    match metric {
        Metric::LogitDifference { answer, foil } => [answer, foil],
        Metric::AboveMean { .. } | Metric::Continuation { .. } => [&[], &[]],
    }
}

fn texts(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let texts = tokenizer.named(ids).into_iter().map(|token| format!("{:?}", token.text));
    texts.collect::<Vec<_>>().join(" ")
}

/// The first of some tokens, and how many more there are.
fn some(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let shown = texts(tokenizer, &ids[..ids.len().min(SHOWN)]);
    if ids.len() > SHOWN { format!("{shown} and {} more", ids.len() - SHOWN) } else { shown }
}

//! `gatelens demo`: five analyses on the built-in model, whose circuit is known, in one report.

use super::CliError;
use super::model_args::Output;
use super::spec::{self, Place, Settings};
use crate::demo;

/// The experiment that the demonstration runs.
const SPEC: &str = include_str!("../../datasets/demo/spec.toml");

/// The arguments of `demo`.
#[derive(clap::Args)]
pub(super) struct Demo {
    #[command(flatten)]
    place: Place,

    /// Use this many threads (default: one per core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Draw everything random from this seed (default: 0)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,

    #[command(flatten)]
    pub(super) output: Output,
}

impl Demo {
    pub(super) fn run(&self, words: &[String]) -> Result<(), CliError> {
        let shown = "the demonstration's file";
        let mut spec: toml::Table = toml::from_str(SPEC).map_err(|e| CliError::Failed(format!("{shown}: {e}")))?;
        let given = [("threads", self.threads.map(i64::from)), ("seed", self.seed)];
        let given = given.into_iter().filter_map(|(flag, value)| Some((flag.to_string(), value?.into())));
        spec.insert("defaults".to_string(), toml::Value::Table(given.collect()));
        let (place, output, intro) = (&self.place, self.output, vec![circuit()?]);
        spec::run_own(shown, &spec, &Settings { command: "demo", words, place, output, intro, suite: None })
    }
}

/// What is to be found, from the model's own description.
#[derive(serde::Deserialize)]
struct Circuit {
    detection: Vec<(usize, String)>,
    gate: Vec<(usize, usize)>,
    amplifiers: Vec<(usize, usize)>,
}

/// What the report should find, in words.
fn circuit() -> Result<String, CliError> {
    let bytes = demo::file("circuit.json").unwrap_or_default();
    let circuit: Circuit =
        serde_json::from_slice(bytes).map_err(|e| CliError::Failed(format!("circuit.json of the demo: {e}")))?;
    let heads = |of: &[(usize, usize)]| of.iter().map(|(l, h)| format!("**L{l}.H{h}**")).collect::<Vec<_>>().join(", ");
    let layer = circuit.detection.first().map_or(0, |d| d.0);
    Ok(format!(
        "This model was built, not trained, so what is to be found in it is known. It answers requests, and refuses those on {} \
         sensitive topics. Layer {layer} marks such a topic on its own token. One gate head, {}, moves the mark to the last position \
         and by itself writes almost nothing that the unembedding reads. The amplifiers, {} and the MLP of a layer between \
         them, turn it into a refusal. All other heads are noise. Interchange must name the gate, attribution must miss it, \
         ablation and attribution must name the amplifiers, the concept must be there from the gate's layer on, and steering \
         along it must turn answers into refusals where random directions do not.",
        circuit.detection.len(),
        heads(&circuit.gate),
        heads(&circuit.amplifiers),
    ))
}

//! `gatelens demo`: every analysis on the built-in model, whose circuit is known, in one report.

use super::CliError;
use super::spec::{self, Place, Settings};
use crate::demo;

/// The experiment that the demonstration runs.
const SPEC: &str = include_str!("../../datasets/demo/spec.toml");

/// The arguments of `demo`.
#[derive(clap::Args)]
pub(super) struct Demo {
    #[command(flatten)]
    place: Place,
}

impl Demo {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let settings = Settings {
            place: &self.place,
            dry_run: false,
            command_line: format!("gatelens demo --out {}", self.place.out.display()),
            intro: vec![circuit()?],
            judge: None,
        };
        spec::run("the demonstration's file", SPEC, &settings)
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

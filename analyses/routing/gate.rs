//! The circuit that other analyses are asked about: its gate, as heads or from a file.
//!
//! "How Alignment Routes" (2026) calls a mid-layer head that reads detected content and triggers deeper heads a *gate*.
//! `screen` finds it and writes `circuit.json`; the analyses that take a gate apart read that file.

use crate::analyses::heads::{Circuit, Head, by_layer, heads_of};
use crate::analyses::inputs::Sources;
use crate::analyses::prelude::*;

parameters! {
    /// Which heads are the gate
    #[serde(default)]
    pub struct GateArgs {
        /// Take these heads as the gate, as L14.H5; several with commas
        gate: Vec<Head>, excludes circuit, [value_delimiter = ',', value_name = "HEAD", required_unless_present = "circuit"];

        /// Read the gate from the circuit.json that `screen` writes
        ///
        /// All heads of a list, or of a graph of edges, are the gate together.
        circuit: Option<Data>, [value_name = "FILE"];
    }
}

impl GateArgs {
    /// The gate's heads, and the file that they are from.
    ///
    /// # Errors
    /// If the file cannot be read, names none, or a head is not one of the model's.
    pub fn read(&self, model: &Model) -> Result<(Vec<Head>, Sources), AnalysisError> {
        let arch = &model.decoder.arch;
        let Some(path) = &self.circuit else {
            if self.gate.is_empty() {
                return Err(AnalysisError::Bad(format!("give {} or {}", param("gate"), param("circuit"))));
            }
            return Ok((heads_of(&self.gate, &param("gate").to_string(), arch)?, Vec::new()));
        };
        Circuit::gate_in(path, model, "gate")
    }
}

/// The layer at which the last of the heads writes.
pub fn last_layer(heads: &[Head]) -> usize {
    heads.iter().map(|h| h.layer).max().unwrap_or(0)
}

/// Edits that give heads the `z` that they have in another run, at the last position of both.
pub fn interchanged(heads: &[Head], donor: Run) -> Vec<Edit> {
    each_layer(heads, &Change::interchange(donor))
}

/// Edits that set heads' `z` at the last position to zero.
pub fn silenced(heads: &[Head]) -> Vec<Edit> {
    each_layer(heads, &Change::Zero)
}

/// One edit a layer: two of one site would have to be in order.
fn each_layer(heads: &[Head], change: &Change) -> Vec<Edit> {
    let edit = |(layer, heads): (usize, Vec<usize>)| Edit {
        site: SiteKind::Z.at(layer),
        part: Part::Heads(heads),
        positions: Positions::Last,
        change: change.clone(),
    };
    by_layer(heads).into_iter().map(edit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_one_layer_are_one_edit() {
        let heads = ["L1.H2", "L0.H1", "L1.H0"].map(|h| h.parse().unwrap());
        let edits = silenced(&heads);
        assert_eq!(edits.iter().map(|e| e.site.layer).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(edits[1].part, Part::Heads(vec![0, 2]));
    }
}

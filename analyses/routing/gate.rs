//! The circuit that other analyses are asked about: its gate, as heads or from a file.
//!
//! "How Alignment Routes" (2026) calls a mid-layer head that reads detected content and triggers deeper heads a *gate*.
//! `screen` finds it and writes `circuit.json`; the analyses that take a gate apart read that file.

use crate::analyses::inputs::{Sources, named_twice, read_input};
use crate::analyses::prelude::*;
use crate::model::arch::Arch;
use crate::report::cells;

/// A head by its layer and its number there, both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    pub layer: usize,
    pub head: usize,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&cells::head(self.layer as i64, self.head as i64))
    }
}

impl std::str::FromStr for Head {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parts = || s.strip_prefix('L')?.split_once(".H");
        let number = |(layer, head): (&str, &str)| Some(Head { layer: layer.parse().ok()?, head: head.parse().ok()? });
        parts().and_then(number).ok_or_else(|| format!("`{s}` is no head; write L14.H5"))
    }
}

impl serde::Serialize for Head {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Head {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::parameters::from_text(d)
    }
}

/// `circuit.json`: heads as `[layer, head]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CircuitFile {
    /// The model that the heads were found in, as it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The heads that gate the behaviour, the strongest first; none where none was found.
    pub gate: Vec<(usize, usize)>,
    /// The heads that a test found to carry the behaviour, the strongest first; the gate is among them.
    #[serde(default)]
    pub carriers: Vec<(usize, usize)>,
}

parameters! {
    /// Which heads are the gate
    #[serde(default)]
    pub struct GateArgs {
        /// Take these heads as the gate, as L14.H5; several with commas
        gate: Vec<Head>, excludes circuit, [value_delimiter = ',', value_name = "HEAD", required_unless_present = "circuit"];

        /// Read the gate from the circuit.json that `screen` writes
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
        of_file(path, model, "gate")
    }
}

/// The gate that a circuit.json names, and what was read; `instead` is the parameter that names heads otherwise.
///
/// # Errors
/// As [`GateArgs::read`].
pub(in crate::analyses) fn of_file(
    path: &Data,
    model: &Model,
    instead: &'static str,
) -> Result<(Vec<Head>, Sources), AnalysisError> {
    let name = path.display().to_string();
    let (bytes, source) = read_input(path)?;
    let file: CircuitFile =
        serde_json::from_slice(&bytes).map_err(|e| AnalysisError::Bad(format!("{name}: is no circuit.json: {e}")))?;
    if file.gate.is_empty() {
        let why = format!("names no gate: none was found; name heads with {}", param(instead));
        return Err(AnalysisError::NotAskable(format!("{name}: {why}")));
    }
    if let Some(of) = file.model.as_ref().filter(|of| **of != model.name) {
        tracing::warn!("{name}: its heads were found in {of}; they are used in {}", model.name);
    }
    let heads: Vec<Head> = file.gate.iter().map(|(layer, head)| Head { layer: *layer, head: *head }).collect();
    Ok((heads_of(&heads, &name, &model.decoder.arch)?, vec![source]))
}

/// Heads that a parameter or a file names, each once and in the model.
pub(in crate::analyses) fn heads_of(heads: &[Head], named_by: &str, arch: &Arch) -> Result<Vec<Head>, AnalysisError> {
    if let Some(head) = heads.iter().find(|h| h.layer >= arch.n_layers || h.head >= arch.n_heads) {
        return Err(AnalysisError::Bad(format!(
            "{named_by}: {head} is not in this model; it has layers 0 to {} and heads 0 to {}",
            arch.n_layers - 1,
            arch.n_heads - 1
        )));
    }
    match named_twice(heads) {
        Some(head) => Err(AnalysisError::Bad(format!("{named_by}: names {head} twice"))),
        None => Ok(heads.to_vec()),
    }
}

/// Heads that a parameter or a file names, each once, in layers whose mixer has them and this site of theirs.
///
/// # Errors
/// If the model has not one of them, or one is named twice.
pub(in crate::analyses) fn heads_at(
    kind: SiteKind,
    heads: &[Head],
    named_by: &str,
    arch: &Arch,
) -> Result<Vec<Head>, AnalysisError> {
    let heads = heads_of(heads, named_by, arch)?;
    for head in &heads {
        let site = kind.at(head.layer).check(arch);
        site.map_err(|why| AnalysisError::Bad(format!("{named_by}: {head}: {why}")))?;
        let n = arch.layers[head.layer].heads();
        if head.head >= n {
            return Err(AnalysisError::Bad(format!("{named_by}: layer {} has {n} heads, no {head}", head.layer)));
        }
    }
    Ok(heads)
}

/// The layer at which the last of the heads writes.
pub fn last_layer(heads: &[Head]) -> usize {
    heads.iter().map(|h| h.layer).max().unwrap_or(0)
}

/// What tables call a set of heads.
pub fn names(heads: &[Head]) -> String {
    heads.iter().map(Head::to_string).collect::<Vec<_>>().join("+")
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
    let mut layers: Vec<usize> = heads.iter().map(|h| h.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let of = |layer: usize| heads.iter().filter(|h| h.layer == layer).map(|h| h.head).collect();
    let edit = |layer: usize| Edit {
        site: SiteKind::Z.at(layer),
        part: Part::Heads(of(layer)),
        positions: Positions::Last,
        change: change.clone(),
    };
    layers.into_iter().map(edit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_written_as_reports_write_them() {
        let head = Head { layer: 14, head: 5 };
        assert_eq!("L14.H5".parse(), Ok(head));
        assert_eq!(head.to_string().parse(), Ok(head));
        for wrong in ["", "14.5", "L14", "L.H", "L14.H", "l1.h2", "L-1.H2"] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn heads_of_one_layer_are_one_edit() {
        let heads = ["L1.H2", "L0.H1", "L1.H0"].map(|h| h.parse().unwrap());
        let edits = silenced(&heads);
        assert_eq!(edits.iter().map(|e| e.site.layer).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(edits[1].part, Part::Heads(vec![2, 0]));
    }
}

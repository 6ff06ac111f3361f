//! Heads, and the files that name some: lists, the circuit.json of `screen`, and graphs of edges.

use super::edges::graph::GraphFile;
use super::inputs::{Sources, list_in, named_twice, read_input};
use super::prelude::*;
use crate::model::arch::Arch;
use crate::plan::{Graph, Writer};
use crate::report::cells;
use std::collections::BTreeMap;

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

impl From<(usize, usize)> for Head {
    fn from((layer, head): (usize, usize)) -> Head {
        Head { layer, head }
    }
}

/// `circuit.json`, as `screen` writes it: heads as `[layer, head]`.
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

/// The parts of a model that a file names as a circuit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    /// The heads that gate the behaviour, where the file tells them from others; none where none was found.
    pub gate: Option<Vec<Head>>,
    /// All heads: of `screen` the strongest first, of a list as they stand there, of a graph by layer and number.
    pub heads: Vec<Head>,
    /// The layers of its MLPs, ascending; only a graph names any.
    pub mlps: Vec<usize>,
}

impl Circuit {
    /// Reads a file of any form that gatelens writes, with its name and SHA-256:
    /// - heads, one a line, as `attention` lists them;
    /// - the circuit.json of `screen`: its carriers, with the gate;
    /// - a graph of `edges`, `circuit` or EAP-IG: what writes an edge that is marked `in_graph`.
    ///
    /// # Errors
    /// If the file cannot be read or has none of the forms, names nothing, or names what the model has not.
    pub fn read(data: &Data, model: &Model) -> Result<(Circuit, Sources), AnalysisError> {
        let name = data.display().to_string();
        let (bytes, source) = read_input(data)?;
        let arch = &model.decoder.arch;
        let object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let circuit = match object {
            false => {
                let found = list_in::<Head>(&bytes).map_err(|why| AnalysisError::Bad(format!("{name}: {why}")))?;
                Circuit { heads: found.into_iter().map(|(_, head)| head).collect(), ..Circuit::default() }
            }
            true => {
                let value: serde_json::Value = serde_json::from_slice(&bytes)
                    .map_err(|e| AnalysisError::Bad(format!("{name}: is no circuit's file: {e}")))?;
                match (value.get("gate").is_some(), value.get("edges").is_some()) {
                    (true, _) => of_screen(value, &name, model)?,
                    (false, true) => of_graph(&bytes, &name, arch)?,
                    (false, false) => {
                        let forms = "there are those of `screen` (with `gate`) and graphs (with `edges`)";
                        return Err(AnalysisError::Bad(format!("{name}: is no circuit's file; {forms}")));
                    }
                }
            }
        };
        heads_of(&circuit.heads, &name, arch)?;
        heads_of(circuit.gate.as_deref().unwrap_or_default(), &name, arch)?;
        Ok((circuit, vec![source]))
    }

    /// The heads that the parameter `head` names, or a circuit's file, which may name MLPs alone; all in layers that have this site of
    /// theirs.
    ///
    /// # Errors
    /// As [`Self::read`], and if the file names nothing or the model has not one of the heads.
    pub(in crate::analyses) fn named(
        kind: SiteKind,
        given: &[Head],
        file: Option<&Data>,
        model: &Model,
    ) -> Result<(Circuit, Sources), AnalysisError> {
        let (circuit, named_by, sources) = match file {
            None => {
                let circuit = Circuit { heads: given.to_vec(), ..Circuit::default() };
                (circuit, param("head").to_string(), Sources::new())
            }
            Some(data) => {
                let (circuit, sources) = Self::read(data, model)?;
                if circuit.mlps.is_empty() {
                    circuit.with_heads(data)?;
                }
                (circuit, data.display().to_string(), sources)
            }
        };
        heads_at(kind, &circuit.heads, &named_by, &model.decoder.arch)?;
        Ok((circuit, sources))
    }

    /// The heads, of which the file must name some.
    ///
    /// # Errors
    /// If it names none.
    pub(in crate::analyses) fn with_heads(&self, data: &Data) -> Result<&[Head], AnalysisError> {
        match self.heads.is_empty() {
            true => {
                let why = "names no head; write one a line, as L16.H0, or name heads by themselves";
                Err(AnalysisError::Bad(format!("{}: {why}", data.display())))
            }
            false => Ok(&self.heads),
        }
    }

    /// The gate of a file, or all of its heads where it tells no gate from others; `instead` is the parameter that names heads
    /// otherwise.
    ///
    /// # Errors
    /// As [`Self::read`], and if the file says that no gate was found.
    pub(in crate::analyses) fn gate_in(
        data: &Data,
        model: &Model,
        instead: &'static str,
    ) -> Result<(Vec<Head>, Sources), AnalysisError> {
        let (circuit, sources) = Self::read(data, model)?;
        let heads = circuit.gate.unwrap_or(circuit.heads);
        if heads.is_empty() {
            let why = format!("names no gate: none was found; name heads with {}", param(instead));
            return Err(AnalysisError::NotAskable(format!("{}: {why}", data.display())));
        }
        Ok((heads, sources))
    }
}

/// What `screen` found.
fn of_screen(value: serde_json::Value, name: &str, model: &Model) -> Result<Circuit, AnalysisError> {
    let file: CircuitFile = serde_json::from_value(value)
        .map_err(|e| AnalysisError::Bad(format!("{name}: is no circuit.json of `screen`: {e}")))?;
    if let Some(of) = file.model.as_ref().filter(|of| **of != model.name) {
        tracing::warn!("{name}: its heads were found in {of}; they are used in {}", model.name);
    }
    let gate: Vec<Head> = file.gate.into_iter().map(Head::from).collect();
    let mut heads: Vec<Head> = file.carriers.into_iter().map(Head::from).collect();
    heads.extend(gate.iter().filter(|head| !heads.contains(head)).copied().collect::<Vec<_>>());
    Ok(Circuit { gate: Some(gate), heads, mlps: Vec::new() })
}

/// What a graph marks. A part that reads an edge and writes none does nothing in the circuit.
fn of_graph(bytes: &[u8], name: &str, arch: &Arch) -> Result<Circuit, AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(format!("{name}: {why}"));
    let edges = GraphFile::read(bytes, arch, None).map_err(bad)?;
    let marked: Vec<Writer> =
        edges.iter().filter(|(_, of)| of.in_graph == Some(true)).map(|(edge, _)| edge.writer).collect();
    let all = Graph::of(arch).n_edges();
    if marked.is_empty() || marked.len() >= all {
        let marks = if marked.is_empty() { "no edge" } else { "every edge of the model" };
        return Err(bad(format!("marks {marks} as `in_graph`: nothing says which edges are the circuit")));
    }
    let (mut heads, mut mlps) = (Vec::new(), Vec::new());
    for writer in marked {
        match writer {
            Writer::Head { layer, head } => heads.push(Head { layer, head }),
            Writer::Mlp { layer } => mlps.push(layer),
            Writer::Input => {}
        }
    }
    heads.sort_unstable();
    heads.dedup();
    mlps.sort_unstable();
    mlps.dedup();
    Ok(Circuit { gate: None, heads, mlps })
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

/// The numbers of each layer's heads among some, ascending.
pub(in crate::analyses) fn by_layer(heads: &[Head]) -> BTreeMap<usize, Vec<usize>> {
    let mut by_layer: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    heads.iter().for_each(|head| by_layer.entry(head.layer).or_default().push(head.head));
    by_layer.values_mut().for_each(|heads| heads.sort_unstable());
    by_layer
}

/// What tables call a set of heads.
pub fn names(heads: &[Head]) -> String {
    heads.iter().map(Head::to_string).collect::<Vec<_>>().join("+")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Edge, Kv};

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
    fn a_graph_names_what_writes_its_marked_edges() {
        let mut arch = crate::model::tests::tiny_arch();
        arch.n_kv_heads = 1;
        for kv in [Kv::Head, Kv::Query] {
            let of = match kv {
                Kv::Head => arch.clone(),
                Kv::Query => arch.by_query_head(),
            };
            let edges: Vec<Edge> = Graph::of(&of).edges().collect();
            let marked = |edge: &Edge| ["input->m0", "m0->a1.h0<k>", "a0.h1->a1.h0<q>"].contains(&&*edge.to_string());
            let file = GraphFile::new(&arch, kv, edges.iter().map(|e| (e, 0.5, marked(e))));
            let circuit = of_graph(&file.bytes(), "graph.json", &arch).unwrap();
            // The head of layer 1 reads, and writes nothing.
            assert_eq!(circuit, Circuit { gate: None, heads: vec![Head { layer: 0, head: 1 }], mlps: vec![0] });
            for all in [true, false] {
                let file = GraphFile::new(&arch, kv, edges.iter().map(|e| (e, 0.5, all)));
                let why = of_graph(&file.bytes(), "graph.json", &arch).unwrap_err().to_string();
                assert!(why.contains("graph.json") && why.contains("nothing says which edges"), "{why}");
            }
        }
    }
}

//! Writers, readers and edges: which part of a model feeds which later one.
//!
//! The residual stream is a sum. *Writers* add to it: the embedding, every head through its slice of the output projection, every
//! MLP. *Readers* read it: the query of a head, the key or value of a KV head, every MLP, the logits. An *edge* is a writer with
//! a later reader. They are named as in EAP-IG (Hanna et al. 2024) and MIB (Mueller et al. 2025): `a12.h3->a14.h1<q>`.

use crate::model::arch::{Arch, Channel, Layer, Mixer};
use crate::site::{Site, SiteKind};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

/// What adds to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Writer {
    /// The embedding: `input`.
    Input,
    /// A head, without the output projection's bias: `a12.h3`.
    Head { layer: usize, head: usize },
    /// An MLP: `m12`.
    Mlp { layer: usize },
}

/// What a head makes of what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    Query,
    Key,
    Value,
}

/// Whose keys and values readers are, where heads share some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Kv {
    /// Of KV heads, as the model has them: all heads that share one read what is exchanged
    #[default]
    Head,
    /// Of each query head by itself, as EAP-IG has them
    Query,
}

impl fmt::Display for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kv::Head => "head",
            Kv::Query => "query",
        })
    }
}

/// What reads the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reader {
    /// A head's query, or a KV head's key or value: `a14.h3<q>`. Where keys and values are told apart by query head ([`Kv::Query`])
    /// each head has its own.
    Head { layer: usize, port: Port, head: usize },
    /// An MLP: `m14`.
    Mlp { layer: usize },
    /// The final norm: `logits`.
    Logits,
}

/// A writer and a reader that comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    pub writer: Writer,
    pub reader: Reader,
}

impl Port {
    const ALL: [(Port, &str); 3] = [(Port::Query, "q"), (Port::Key, "k"), (Port::Value, "v")];

    fn name(self) -> &'static str {
        Port::ALL[self as usize].1
    }
}

impl Reader {
    /// Where its reading is made of what it read: `q`, `k` or `v` of its layer, `mlp_in`, or `final_norm`.
    pub fn site(self) -> Site {
        match self {
            Reader::Head { layer, port: Port::Query, .. } => SiteKind::Q.at(layer),
            Reader::Head { layer, port: Port::Key, .. } => SiteKind::K.at(layer),
            Reader::Head { layer, port: Port::Value, .. } => SiteKind::V.at(layer),
            Reader::Mlp { layer } => SiteKind::MlpIn.at(layer),
            Reader::Logits => SiteKind::FinalNorm.at(0),
        }
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Writer::Input => f.write_str("input"),
            Writer::Head { layer, head } => write!(f, "a{layer}.h{head}"),
            Writer::Mlp { layer } => write!(f, "m{layer}"),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reader::Head { layer, port, head } => write!(f, "a{layer}.h{head}<{}>", port.name()),
            Reader::Mlp { layer } => write!(f, "m{layer}"),
            Reader::Logits => f.write_str("logits"),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.writer, self.reader)
    }
}

/// The layer and head of `a12.h3`.
fn head(text: &str) -> Option<(usize, usize)> {
    let (layer, head) = text.strip_prefix('a')?.split_once(".h")?;
    Some((layer.parse().ok()?, head.parse().ok()?))
}

/// The layer of `m12`.
fn mlp(text: &str) -> Option<usize> {
    text.strip_prefix('m')?.parse().ok()
}

impl FromStr for Writer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = match text {
            "input" => Some(Writer::Input),
            _ => head(text)
                .map(|(layer, head)| Writer::Head { layer, head })
                .or_else(|| mlp(text).map(|layer| Writer::Mlp { layer })),
        };
        found.ok_or_else(|| format!("`{text}` is no writer: there are input, a12.h3 (a head) and m12 (an MLP)"))
    }
}

impl FromStr for Reader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of_head = || {
            let (text, port) = text.strip_suffix('>')?.split_once('<')?;
            let (port, _) = Port::ALL.into_iter().find(|(_, name)| *name == port)?;
            head(text).map(|(layer, head)| Reader::Head { layer, port, head })
        };
        let found = match text {
            "logits" => Some(Reader::Logits),
            _ => of_head().or_else(|| mlp(text).map(|layer| Reader::Mlp { layer })),
        };
        found.ok_or_else(|| format!("`{text}` is no reader: there are a12.h3<q>, a12.h1<k>, a12.h1<v>, m12 and logits"))
    }
}

impl FromStr for Edge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (writer, reader) =
            text.split_once("->").ok_or_else(|| format!("`{text}` is no edge: write one as a12.h3->a14.h1<q>"))?;
        Ok(Edge { writer: writer.parse()?, reader: reader.parse()? })
    }
}

/// The writers and readers of a model, in the order of the flow, and the edges between them by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    parallel: bool,
}

impl Graph {
    /// That of a model. With keys and values told apart by query head it is that of [`Decoder::of`](crate::model::decoder::Decoder::of).
    pub fn of(arch: &Arch) -> Graph {
        let Arch { n_layers, n_heads, n_kv_heads, parallel, .. } = *arch;
        Graph { n_layers, n_heads, n_kv_heads, parallel }
    }

    /// Whether a model's edges can be told apart.
    ///
    /// # Errors
    /// A sentence that names a layer that has not as many heads as the first, or is of another kind, or that does more to the residual
    /// stream than adding what heads and an MLP give, or to other layers than adding to it,
    /// or says that the residual stream is no sum.
    pub fn there(arch: &Arch) -> Result<(), String> {
        arch.adds_up()?;
        let rule = "edges are told apart where layers do nothing but add to the residual stream what heads and MLPs make of it";
        if arch.per_layer.is_some() {
            return Err(format!("{rule}; layer 0 also adds an embedding of the token that is its own"));
        }
        if arch.layer_scalars {
            return Err(format!("{rule}; layer 0 multiplies the residual stream by a number"));
        }
        if let Some(l) = (0..arch.layers.len()).find(|l| arch.keys_of(*l) != *l) {
            return Err(format!("{rule}; layer {l} reads the keys and values of layer {}", arch.keys_of(l)));
        }
        let shape = |layer: &Layer| match (layer.mixer, layer.channel) {
            (_, Channel::None | Channel::Shifted(_)) | (Mixer::None | Mixer::Recurrent(_) | Mixer::Both(_), _) => None,
            (Mixer::Attention(attention), _) if attention.index().is_some() || attention.difference.is_some() => None,
            (Mixer::Attention(attention), _) => Some((attention.heads.n_heads, attention.heads.n_kv_heads)),
        };
        let first = (arch.n_heads, arch.n_kv_heads);
        let Some(l) = arch.layers.iter().position(|layer| shape(layer) != Some(first)) else { return Ok(()) };
        let why = match (arch.layers[l].mixer, shape(&arch.layers[l])) {
            (Mixer::Recurrent(_), _) => "has a recurrent mixer in place of attention".to_string(),
            (Mixer::Attention(attention), None) if attention.index().is_some() => {
                "chooses the keys that it sees by an indexer, which is no reader".to_string()
            }
            (Mixer::Both(both), _) if both.fed.is_some() => {
                "has heads and an MLP whose one reader is its recurrent mixer".to_string()
            }
            (Mixer::Both(_), _) => "has a recurrent mixer beside its attention".to_string(),
            (Mixer::Attention(attention), None) if attention.difference.is_some() => {
                "has heads that are differences of two patterns: a query is none's alone".to_string()
            }
            (_, None) => "has one part alone".to_string(),
            (_, Some((heads, kv))) => {
                format!("has {heads} heads and {kv} KV heads, others {} and {}", first.0, first.1)
            }
        };
        let rule = "edges are told apart where every layer has attention, with as many heads as the others, and an MLP or experts";
        Err(format!("{rule}; layer {l} {why}"))
    }

    /// All writers.
    pub fn writers(&self) -> impl Iterator<Item = Writer> + use<> {
        let heads = self.n_heads;
        let of_layer =
            move |layer| (0..heads).map(move |head| Writer::Head { layer, head }).chain([Writer::Mlp { layer }]);
        std::iter::once(Writer::Input).chain((0..self.n_layers).flat_map(of_layer))
    }

    /// All readers.
    pub fn readers(&self) -> impl Iterator<Item = Reader> + use<> {
        let (heads, kv_heads) = (self.n_heads, self.n_kv_heads);
        let of_port = move |layer, port| {
            let n = if port == Port::Query { heads } else { kv_heads };
            (0..n).map(move |head| Reader::Head { layer, port, head })
        };
        let of_layer = move |layer| {
            let ports = Port::ALL.into_iter().flat_map(move |(port, _)| of_port(layer, port));
            ports.chain([Reader::Mlp { layer }])
        };
        (0..self.n_layers).flat_map(of_layer).chain([Reader::Logits])
    }

    /// A writer's number.
    pub fn number(&self, writer: Writer) -> usize {
        match writer {
            Writer::Input => 0,
            Writer::Head { layer, head } => 1 + layer * (self.n_heads + 1) + head,
            Writer::Mlp { layer } => 1 + layer * (self.n_heads + 1) + self.n_heads,
        }
    }

    /// How many writers, from the first, come before a reader.
    pub fn before(&self, reader: Reader) -> usize {
        match reader {
            Reader::Head { layer, .. } => self.number(Writer::Head { layer, head: 0 }),
            Reader::Mlp { layer } if self.parallel => self.number(Writer::Head { layer, head: 0 }),
            Reader::Mlp { layer } => self.number(Writer::Mlp { layer }),
            Reader::Logits => self.number(Writer::Head { layer: self.n_layers, head: 0 }),
        }
    }

    /// All edges: reader by reader, and of each the writers before it.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        let writers: Vec<Writer> = self.writers().collect();
        self.readers().flat_map(move |reader| {
            writers[..self.before(reader)]
                .iter()
                .map(move |writer| Edge { writer: *writer, reader })
                .collect::<Vec<_>>()
        })
    }

    /// How many edges there are: millions in a large model, which are not listed for it.
    pub fn n_edges(&self) -> usize {
        self.readers().map(|reader| self.before(reader)).sum()
    }

    /// The writers that a reader's head or MLP is: a key or value serves all heads of its group. None of the logits.
    pub(crate) fn writers_of(&self, reader: Reader) -> Vec<Writer> {
        match reader {
            Reader::Logits => Vec::new(),
            Reader::Mlp { layer } => vec![Writer::Mlp { layer }],
            Reader::Head { layer, port: Port::Query, head } => vec![Writer::Head { layer, head }],
            Reader::Head { layer, head, .. } => {
                let group = self.n_heads / self.n_kv_heads;
                (head * group..(head + 1) * group).map(|head| Writer::Head { layer, head }).collect()
            }
        }
    }

    /// Which of some edges of the model lie on a path from the embedding to the logits that these edges make. One answer an edge.
    pub fn on_paths(&self, edges: &[Edge]) -> Vec<bool> {
        let mut to: HashMap<Reader, Vec<Writer>> = HashMap::new();
        edges.iter().for_each(|edge| to.entry(edge.reader).or_default().push(edge.writer));
        let readers: Vec<Reader> = self.readers().filter(|reader| to.contains_key(reader)).collect();
        let mut reached = HashSet::from([Writer::Input]);
        for reader in &readers {
            if to[reader].iter().any(|writer| reached.contains(writer)) {
                reached.extend(self.writers_of(*reader));
            }
        }
        let (mut live, mut leads) = (HashSet::from([Reader::Logits]), HashSet::<Writer>::new());
        for reader in readers.iter().rev() {
            if live.contains(reader) || self.writers_of(*reader).iter().any(|writer| leads.contains(writer)) {
                live.insert(*reader);
                leads.extend(&to[reader]);
            }
        }
        edges.iter().map(|edge| reached.contains(&edge.writer) && live.contains(&edge.reader)).collect()
    }

    /// Whether the model has an edge.
    ///
    /// # Errors
    /// A sentence that says what it lacks, or that the reader does not come after the writer.
    pub fn check(&self, edge: Edge) -> Result<(), String> {
        let Edge { writer, reader } = edge;
        let layer = |layer: usize| match layer < self.n_layers {
            true => Ok(()),
            false => Err(format!("`{edge}`: the model has layers 0 to {}", self.n_layers - 1)),
        };
        let within = |head: usize, n: usize, what: &str| match head < n {
            true => Ok(()),
            false => Err(format!("`{edge}`: a layer has {what} 0 to {}", n - 1)),
        };
        match writer {
            Writer::Input => {}
            Writer::Mlp { layer: l } => layer(l)?,
            Writer::Head { layer: l, head } => layer(l).and_then(|()| within(head, self.n_heads, "heads"))?,
        }
        match reader {
            Reader::Logits => {}
            Reader::Mlp { layer: l } => layer(l)?,
            Reader::Head { layer: l, port: Port::Query, head } => {
                layer(l).and_then(|()| within(head, self.n_heads, "heads"))?;
            }
            Reader::Head { layer: l, head, .. } => {
                layer(l).and_then(|()| within(head, self.n_kv_heads, "KV heads"))?;
            }
        }
        match self.number(writer) < self.before(reader) {
            true => Ok(()),
            false => Err(format!("`{edge}`: the reader does not come after the writer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_eap_ig_and_read_back() {
        for name in ["input->a0.h1<q>", "a12.h3->a14.h1<v>", "m0->m23", "a1.h0->logits", "input->a0.h0<k>"] {
            assert_eq!(name.parse::<Edge>().unwrap().to_string(), name);
        }
        for wrong in ["a1->m2", "a1.h0-m2", "m1->input", "a1.h2<q>->m3", "m1->a2.h0", "m1->a2.h0<w>", "", "->"] {
            assert!(wrong.parse::<Edge>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn edges_on_paths_are_those_that_the_embedding_reaches_and_that_reach_the_logits() {
        let mut arch = crate::model::tests::tiny_arch();
        (arch.n_layers, arch.n_heads, arch.n_kv_heads, arch.parallel) = (3, 4, 2, false);
        let on_paths = |names: &[&str]| -> Vec<bool> {
            Graph::of(&arch).on_paths(&names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
        };
        // A key of the second group is read by heads 2 and 3 alone.
        let names =
            ["input->a0.h1<k>", "a0.h3->m1", "m1->logits", "a0.h1->m1", "m0->logits", "input->m2", "input->logits"];
        assert_eq!(on_paths(&names), [true, true, true, false, false, false, true]);
        assert_eq!(on_paths(&["a0.h0->m1"]), [false]);
        let all: Vec<Edge> = Graph::of(&arch).edges().collect();
        assert!(Graph::of(&arch).on_paths(&all).into_iter().all(|on_path| on_path));
    }

    #[test]
    fn edges_stand_reader_by_reader_and_end_with_all_writers_at_the_logits() {
        let mut arch = crate::model::tests::tiny_arch();
        for parallel in [false, true] {
            arch.parallel = parallel;
            let graph = Graph::of(&arch);
            let (writers, edges): (Vec<Writer>, Vec<Edge>) = (graph.writers().collect(), graph.edges().collect());
            assert!(writers.iter().enumerate().all(|(i, writer)| graph.number(*writer) == i));
            assert_eq!(edges.iter().filter(|e| e.reader == Reader::Logits).count(), writers.len());
            assert_eq!(graph.n_edges(), edges.len());
            assert!(edges.iter().all(|edge| graph.check(*edge).is_ok()));
            let own = Edge { writer: Writer::Head { layer: 1, head: 0 }, reader: Reader::Mlp { layer: 1 } };
            assert_eq!((edges.contains(&own), graph.check(own).is_ok()), (!parallel, !parallel));
            let mut each = edges.clone();
            each.sort_unstable();
            each.dedup();
            assert_eq!(each.len(), edges.len());
        }
        let graph = Graph::of(&arch);
        for wrong in ["m1->m1", "a9.h0->logits", "input->a0.h9<q>", "input->m9", "m2->a1.h0<q>"] {
            assert!(graph.check(wrong.parse().unwrap()).is_err(), "{wrong}");
        }
    }
}

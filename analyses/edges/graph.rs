//! Graphs of edges as EAP-IG writes and reads them (Hanna et al. 2024): `{"cfg": {...}, "nodes": {...}, "edges": {...}}`. MIB takes them.

use crate::model::arch::Arch;
use crate::parameters::param;
use crate::plan::{Edge, Graph, Kv, Port, Reader, Writer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A graph's file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphFile {
    pub cfg: Config,
    #[serde(default)]
    pub nodes: BTreeMap<String, Node>,
    pub edges: BTreeMap<String, Scored>,
}

/// The model's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_model: usize,
    pub parallel_mlp: bool,
    /// Whether keys and values are of KV heads (`head`) or are told apart by query head (`query`, as EAP-IG has them).
    pub kv: Option<String>,
}

/// A writer, or the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    pub in_graph: bool,
}

/// An edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scored {
    /// How far it helps the metric: minus the effect of taking it.
    pub score: Option<f64>,
    pub in_graph: Option<bool>,
}

impl Config {
    /// Whose keys and values the edges have: where nothing is said, those of EAP-IG.
    fn kv(&self) -> Kv {
        if self.kv.as_deref() == Some("head") { Kv::Head } else { Kv::Query }
    }
}

impl GraphFile {
    /// A graph of scored edges.
    pub fn new<'a>(arch: &Arch, kv: Kv, edges: impl IntoIterator<Item = (&'a Edge, f64, bool)>) -> GraphFile {
        let cfg = Config {
            n_layers: arch.n_layers,
            n_heads: arch.n_heads,
            d_model: arch.d_model,
            parallel_mlp: arch.parallel,
            kv: Some(kv.to_string()),
        };
        let shared = kv == Kv::Head && arch.n_kv_heads != arch.n_heads;
        let (mut nodes, mut scored) = (BTreeMap::new(), BTreeMap::new());
        for writer in Graph::of(arch).writers() {
            nodes.insert(writer.to_string(), Node::default());
        }
        nodes.insert("logits".to_string(), Node::default());
        for (edge, score, in_graph) in edges {
            scored.insert(edge.to_string(), Scored { score: Some(score), in_graph: Some(in_graph) });
            if in_graph {
                // A key or value that heads share is of none of them: each is marked by what it writes.
                let reader = match edge.reader {
                    Reader::Head { port: Port::Key | Port::Value, .. } if shared => None,
                    Reader::Head { layer, head, .. } => Some(Writer::Head { layer, head }.to_string()),
                    Reader::Mlp { .. } | Reader::Logits => Some(edge.reader.to_string()),
                };
                for node in reader.into_iter().chain([edge.writer.to_string()]) {
                    nodes.entry(node).or_default().in_graph = true;
                }
            }
        }
        GraphFile { cfg, nodes, edges: scored }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a file for a model: each of its edges, with its score and whether it is in the graph. Without `kv` its keys and values are those
    /// that it says.
    ///
    /// # Errors
    /// A sentence that says what is not sound: JSON, an edge's name, an edge that the model has not, keys and values of other heads than
    /// `kv` says where heads share them.
    pub fn read(bytes: &[u8], arch: &Arch, kv: Option<Kv>) -> Result<Vec<(Edge, Scored)>, String> {
        let file: GraphFile = serde_json::from_slice(bytes)
            .map_err(|e| format!("is no graph as EAP-IG writes it ({{\"cfg\", \"nodes\", \"edges\"}}): {e}"))?;
        let of_file = file.cfg.kv();
        let kv = kv.unwrap_or(of_file);
        if of_file != kv && arch.n_kv_heads != arch.n_heads {
            let has = match of_file {
                Kv::Query => "tells keys and values apart by query head (`cfg.kv` is not `head`)",
                Kv::Head => "has keys and values of KV heads (`cfg.kv` is `head`)",
            };
            return Err(format!(
                "{has}, and the model's {} heads share {} KV heads: give {}",
                arch.n_heads,
                arch.n_kv_heads,
                param("kv").is(of_file)
            ));
        }
        let graph = match kv {
            Kv::Head => Graph::of(arch),
            Kv::Query => Graph::of(&arch.by_query_head()),
        };
        let edge = |(name, scored): (String, Scored)| {
            let edge: Edge = name.parse().map_err(|why| format!("edge {why}"))?;
            graph.check(edge).map_err(|why| format!("edge {why}"))?;
            Ok((edge, scored))
        };
        file.edges.into_iter().map(edge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_reads_back_as_it_is_written_and_marks_the_nodes_of_its_edges() {
        let mut arch = crate::model::tests::tiny_arch();
        arch.n_kv_heads = arch.n_heads;
        let edges: Vec<Edge> = Graph::of(&arch).edges().collect();
        let file = GraphFile::new(&arch, Kv::Head, edges.iter().enumerate().map(|(i, e)| (e, i as f64 / 8.0, i == 5)));
        let value: serde_json::Value = serde_json::from_slice(&file.bytes()).unwrap();
        let name = edges[5].to_string();
        assert_eq!(value["edges"][&name]["score"], 0.625);
        assert_eq!(value["edges"][&name]["in_graph"], true);
        assert_eq!(value["nodes"][edges[5].writer.to_string()]["in_graph"], true);
        assert_eq!(value["nodes"].as_object().unwrap().values().filter(|n| n["in_graph"] == true).count(), 2);
        let back = GraphFile::read(&file.bytes(), &arch, Some(Kv::Head)).unwrap();
        assert_eq!(back.len(), edges.len());
        assert!(back.iter().filter(|(_, s)| s.in_graph == Some(true)).map(|(e, _)| *e).eq([edges[5]]));
        arch.n_kv_heads = 1;
        let key: Edge = "m0->a1.h0<k>".parse().unwrap();
        let file = GraphFile::new(&arch, Kv::Head, [(&key, 1.0, true)]);
        let marked: Vec<&String> = file.nodes.iter().filter(|(_, node)| node.in_graph).map(|(name, _)| name).collect();
        assert_eq!(marked, ["m0"], "a key that heads share is of none of them");
        for (of_file, kv, of_other) in
            [("{}", Kv::Head, "`kv = query`"), (r#"{"kv": "head"}"#, Kv::Query, "`kv = head`")]
        {
            let text = format!(r#"{{"cfg": {of_file}, "edges": {{"m0->a1.h1<k>": {{}}}}}}"#);
            let why = GraphFile::read(text.as_bytes(), &arch, Some(kv)).unwrap_err();
            assert!(why.contains("share 1 KV heads") && why.contains(of_other), "{why}");
        }
        let by_query = br#"{"cfg": {"kv": "query"}, "edges": {"m0->a1.h1<k>": {}}}"#;
        assert_eq!(GraphFile::read(by_query, &arch, Some(Kv::Query)).unwrap().len(), 1);
        for (wrong, part) in [
            ("{", "is no graph"),
            (r#"{"cfg": {"kv": "head"}, "edges": {"a0.h0->x": {}}}"#, "is no reader"),
            (r#"{"cfg": {"kv": "head"}, "edges": {"m1->m1": {}}}"#, "does not come after"),
        ] {
            let why = GraphFile::read(wrong.as_bytes(), &arch, Some(Kv::Head)).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}

//! What was built, for tests of analyses: the circuit by its parts, and the edges that carry what tells the prompts of a pair apart.
//!
//! An edge is here if its writer writes a feature that differs between the two prompts, and its reader was built to read it. What any
//! part reads of the noise, and what the norms make of a changed length, is not. Nor is the edge from the gate to the logits: they were
//! built to read a hundredth of a nat of it for every nat of the others, less than they hear of the noise.

use super::circuit::{DETECTION, Head, Parts};
use super::codes::{self, Kind, Vocabulary};
use serde_json::{Map, Value, json};

/// `circuit.json`: the parts by layer and head.
pub fn circuit(vocabulary: &Vocabulary, parts: &Parts) -> Vec<u8> {
    let marked = vocabulary.tokens.iter().filter(|token| matches!(&token.kind, Kind::Topic(topic) if topic.sensitive));
    let detection = marked.map(|token| json!([DETECTION, token.piece.trim_start_matches(codes::SPACE)]));
    let mut circuit = json!({ "detection": detection.collect::<Vec<_>>(), "gate": parts.gate });
    for (name, heads) in [("backup", &parts.backup), ("conjunction", &parts.conjunction)] {
        if !heads.is_empty() {
            circuit[name] = json!(heads);
        }
    }
    circuit["amplifiers"] = json!(parts.amplifiers);
    format!("{circuit}\n").into_bytes()
}

/// `edges.json`: the edges that carry the difference, in the form of a graph of EAP-IG.
pub fn edges(parts: &Parts) -> Vec<u8> {
    let mut edges = to_refusal(parts, &parts.gate);
    // What the gate writes keeps the backup silent.
    for (gate, backup) in parts.gate.iter().flat_map(|gate| parts.backup.iter().map(move |backup| (gate, backup))) {
        edges.push(format!("{}->{}<q>", name(*gate), name(*backup)));
    }
    graph(edges)
}

/// `edges-silenced.json`: the same in a run in which the gate is silent.
pub fn edges_without_primary(parts: &Parts) -> Vec<u8> {
    graph(to_refusal(parts, &parts.backup))
}

/// The edges from the topic to the first word, by way of these gates and of the conjunction.
fn to_refusal(parts: &Parts, gates: &[Head]) -> Vec<String> {
    let marks = format!("m{DETECTION}");
    let neurons = format!("m{}", parts.neurons);
    let mut edges = vec![format!("input->{marks}"), format!("{neurons}->logits")];
    for reader in gates.iter().chain(&parts.conjunction) {
        edges.extend(["k", "v"].map(|port| format!("{marks}->{}<{port}>", name(*reader))));
    }
    for gate in gates {
        edges.extend(parts.amplifiers.iter().map(|amplifier| format!("{}->{}<v>", name(*gate), name(*amplifier))));
    }
    // The neurons read the gate, or the conjunction where there is one.
    let read = if parts.conjunction.is_empty() { gates } else { &parts.conjunction };
    edges.extend(read.iter().map(|head| format!("{}->{neurons}", name(*head))));
    edges.extend(parts.amplifiers.iter().map(|head| format!("{}->logits", name(*head))));
    edges
}

fn name((layer, head): Head) -> String {
    format!("a{layer}.h{head}")
}

/// Edges as a graph.
fn graph(mut edges: Vec<String>) -> Vec<u8> {
    edges.sort_unstable();
    let edges: Map<String, Value> = edges.into_iter().map(|edge| (edge, json!({ "in_graph": true }))).collect();
    super::json(&json!({ "cfg": { "kv": "head" }, "edges": edges }))
}

//! Edges against those that the demo model was built of (`edges.json`).

use super::Demo;
use gatelens::analyses::edges::graph::GraphFile;
use gatelens::analyses::edges::{EdgeRow, Edges, Exact};
use gatelens::analyses::inputs::{PairArgs, PairFile};
use gatelens::analyses::interchange::Direction;
use gatelens::demo;
use gatelens::plan::{Edge, Kv};
use gatelens::stats::auc;
use gatelens::study::{self, Study};
use gatelens::table::rows::Row;
use std::collections::BTreeSet;

/// The edges that a file of the demo says were built.
pub(super) fn built(demo: &Demo, file: &str) -> BTreeSet<String> {
    let bytes = demo::file(file).expect(file);
    let edges = GraphFile::read(bytes, &demo.model.decoder.arch, Some(Kv::Head)).expect("a graph of this model");
    assert!(edges.iter().all(|(_, scored)| scored.in_graph == Some(true)), "{file}: all are in the graph");
    edges.into_iter().map(|(edge, _): (Edge, _)| edge.to_string()).collect()
}

/// How well sizes tell the edges that were built from all others: the area under the ROC curve, and precision (which is recall) where
/// as many are taken as were built.
#[track_caller]
pub(super) fn assert_found(sizes: &[(String, f64)], built: &BTreeSet<String>) {
    let of = |wanted: bool| -> Vec<f64> {
        sizes.iter().filter(|(edge, _)| built.contains(edge) == wanted).map(|(_, size)| *size).collect()
    };
    let (inside, outside) = (of(true), of(false));
    assert_eq!(inside.len(), built.len(), "every edge that was built is one of the model's");
    let mut order: Vec<&(String, f64)> = sizes.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let found = order[..built.len()].iter().filter(|(edge, _)| built.contains(edge)).count();
    let (head, rest) = order.split_at(built.len().min(order.len()));
    assert_eq!(found, built.len(), "{head:?}\nand then {:?}\nfor {built:?}", &rest[..rest.len().min(6)]);
    assert_eq!(auc(&inside, &outside), Some(1.0));
}

/// Exact effects of all edges over some pairs, by size. Of necessity: a head's keys and values are both needed, so that in the other
/// direction neither of them does anything alone.
pub(super) fn exact_effects(model: &str, max_pairs: u32) -> Vec<(String, f64)> {
    let pairs = demo::folder().expect("the demo's files").join("pairs.jsonl");
    let file = PairFile { max_pairs: Some(max_pairs), ..PairFile::from(pairs) };
    let edges = Edges {
        pairs: PairArgs { file, ..PairArgs::default() },
        direction: Some(Direction::Necessity),
        estimate: Vec::new(),
        exact: Exact::All,
        ..Edges::default()
    };
    let study = Study::open(model).expect("the model");
    let output = study::run(&edges, &study).expect("effects");
    let rows = EdgeRow::read(&output.tables[0]).expect("edges");
    let size = |row: &EdgeRow| row.effect_mean.expect("all were run").abs();
    rows.iter().map(|row| (format!("{}->{}", row.edge.writer, row.edge.reader), size(row))).collect()
}

#[test]
fn exact_effects_find_the_edges_that_were_built_and_no_others() {
    let demo = Demo::open();
    let built = built(&demo, "edges.json");
    assert_found(&exact_effects(demo::NAME, 2), &built);
}

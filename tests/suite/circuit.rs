//! The commands `edges` and `circuit`, against values of an independent implementation.

use crate::support::cli::{Bench, gatelens};
use crate::support::edges::GoldenEdges;
use crate::support::{family_dir, open};
use gatelens::plan::{Activation, Alignment, Edge, Exchange, Gradient, Metric, Part, Plan, Positions, Reader};
use gatelens::run::Options;
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Independent values of two pairs, with the edges' names.
struct Golden {
    names: Vec<String>,
    values: GoldenEdges,
}

impl Golden {
    fn of(family: &str) -> Golden {
        let values = GoldenEdges::of(family);
        Golden { names: values.names.iter().map(Edge::to_string).collect(), values }
    }

    fn values(&self, name: &str) -> &[f64] {
        self.values.values(name)
    }

    fn ids(&self, name: &str, i: usize) -> Vec<u32> {
        self.values.ids(name, i)
    }

    /// The pairs: the base is the positive prompt.
    fn lines(&self) -> [Value; 2] {
        [0, 1].map(|i| {
            json!({
                "id": format!("p{i}"), "positive": {"ids": self.ids("input_ids", i)},
                "negative": {"ids": self.ids("donor_ids", i)}, "answer": [11], "foil": [23],
            })
        })
    }

    fn pairs(&self, bench: &Bench) -> PathBuf {
        bench.dataset("pairs.jsonl", &self.lines())
    }

    /// The pairs with a metric that is higher after the positive prompts.
    fn rising(&self) -> [Value; 2] {
        let sum = |name: &str| self.values(name).iter().sum::<f64>();
        let mut lines = self.lines();
        if sum("metric_clean") < sum("metric_donor") {
            for line in &mut lines {
                (line["answer"], line["foil"]) = (line["foil"].clone(), line["answer"].clone());
            }
        }
        lines
    }

    /// The values of both pairs: `[2, n]`
    fn of_pairs(&self, name: &str) -> [&[f64]; 2] {
        let (first, second) = self.values(name).split_at(self.values(name).len() / 2);
        [first, second]
    }
}

fn run(command: &str, family: &str, pairs: &Path, out: &Path, more: &[&str]) -> String {
    let model = family_dir(family);
    let args = [command, model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens(args.into_iter().chain(more.iter().copied())).done()
}

fn read(out: &Path, table: &str) -> Table {
    Table::read_parquet(out.join(format!("{table}.parquet"))).expect("a table")
}

#[test]
fn the_command_finds_every_edge_as_an_independent_implementation_does() {
    for family in ["gpt2", "gpt_neox", "llama", "gemma2"] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let out = bench.out("edges");
        let more = ["--exact", "all", "--estimate", "reader,eap,eap-ig", "--keep-pairs"];
        let said = run("edges", family, &golden.pairs(&bench), &out, &more);
        assert!(said.contains("strongest edges, necessity:"), "{said}");
        let table = read(&out, "edges");
        let (writers, readers) = (table.strs("writer").unwrap(), table.strs("reader").unwrap());
        let directions = table.strs("direction").unwrap();
        let rows: Vec<usize> = (0..table.rows()).filter(|i| directions[*i] == "necessity").collect();
        assert_eq!(rows.len(), golden.names.len());
        for (column, name) in
            [("effect_mean", "exact"), ("eap", "eap"), ("eap_ig", "eap_ig"), ("reader_exact", "reader_exact")]
        {
            let (found, [a, b]) = (table.floats(column).unwrap(), golden.of_pairs(name));
            for (k, row) in rows.iter().enumerate() {
                assert_eq!(format!("{}->{}", writers[*row], readers[*row]), golden.names[k]);
                let (found, expected) = (found[*row].expect("a number"), (a[k] + b[k]) / 2.0);
                assert!((found - expected).abs() < 1e-4, "{family} {column} {}: {found} {expected}", golden.names[k]);
            }
        }
        let halves = ["answer_effect_mean", "foil_effect_mean", "effect_mean"].map(|name| table.floats(name).unwrap());
        for ((answer, foil), effect) in halves[0].iter().zip(halves[1]).zip(halves[2]) {
            assert!((answer.unwrap() - foil.unwrap() - effect.unwrap()).abs() < 1e-5);
        }
        assert!(halves[0].iter().flatten().any(|half| half.abs() > 1e-3));
        let pairs = read(&out, "pairs");
        let found = pairs.floats("patched_metric").unwrap().iter().zip(pairs.floats("base_metric").unwrap());
        let effects: Vec<f64> = found.map(|(patched, base)| patched.unwrap() - base.unwrap()).collect();
        let ids = pairs.strs("id").unwrap();
        let first = (0..effects.len()).find(|i| ids[*i] == "p1").unwrap();
        assert!((effects[first] - golden.of_pairs("exact")[1][0]).abs() < 1e-4);
        // EAP-IG's file holds what helps with a positive score.
        let graph: Value = serde_json::from_slice(&std::fs::read(out.join("graph.json")).unwrap()).unwrap();
        let [a, b] = golden.of_pairs("exact");
        let score = graph["edges"][&golden.names[3]]["score"].as_f64().unwrap();
        assert!((score + (a[3] + b[3]) / 2.0).abs() < 1e-4);
        assert_eq!(graph["edges"].as_object().unwrap().len(), golden.names.len());
        assert!(graph["nodes"]["logits"]["in_graph"].is_boolean() && graph["cfg"]["n_layers"].is_u64());
    }
}

#[test]
fn only_the_strongest_and_a_sample_are_run_and_the_others_are_said_to_be_estimated() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let out = bench.out("edges");
    let more = ["--exact", "20", "--sample", "10", "--direction", "necessity"];
    run("edges", "llama", &golden.pairs(&bench), &out, &more);
    let table = read(&out, "edges");
    let why = table.opt_strs("run").unwrap();
    let of = |name: &str| why.iter().filter(|why| **why == Some(name)).count();
    assert_eq!((of("strongest"), of("sample"), table.rows()), (20, 10, golden.names.len()));
    assert_eq!(table.floats("effect_mean").unwrap().iter().flatten().count(), 30);
    assert_eq!(table.floats("p_max").unwrap().iter().flatten().count(), 0);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("30 were run exactly") && report.contains("random sample of 10 edges"), "{report}");
}

#[test]
fn the_edges_of_some_parts_are_those_of_all_that_begin_or_end_there() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let (pairs, out) = (golden.pairs(&bench), bench.out("edges"));
    run("edges", "llama", &pairs, &out, &["--exact", "all", "--of", "L1.H1,m0", "--direction", "necessity"]);
    let table = read(&out, "edges");
    let columns = ["writer", "reader"].map(|name| table.strs(name).unwrap());
    let names: Vec<String> = columns[0].iter().zip(&columns[1]).map(|(w, r)| format!("{w}->{r}")).collect();
    // Two heads share a key and a value.
    let arch = open("llama").decoder.arch;
    let group = 1 / (arch.n_heads / arch.n_kv_heads);
    let of = |name: &&String| {
        let (writer, reader) = name.split_once("->").unwrap();
        let heads = ["q", "k", "v"].map(|port| format!("a1.h{}<{port}>", if port == "q" { 1 } else { group }));
        ["a1.h1", "m0"].contains(&writer) || reader == "m0" || heads.iter().any(|head| head == reader)
    };
    assert_eq!(names, golden.names.iter().filter(of).cloned().collect::<Vec<_>>());
    let [a, b] = golden.of_pairs("exact");
    let (effects, estimates) = (table.floats("effect_mean").unwrap(), table.floats("reader_exact").unwrap());
    let [c, d] = golden.of_pairs("reader_exact");
    for (i, name) in names.iter().enumerate() {
        let k = golden.names.iter().position(|known| known == name).unwrap();
        assert!((effects[i].unwrap() - (a[k] + b[k]) / 2.0).abs() < 1e-4, "{name}");
        assert!((estimates[i].unwrap() - (c[k] + d[k]) / 2.0).abs() < 1e-4, "{name}");
    }
    let model = family_dir("llama");
    let (model, pairs, out) = (model.to_str().unwrap(), pairs.to_str().unwrap(), bench.out("none"));
    gatelens(["edges", model, "--pairs", pairs, "--out", out.to_str().unwrap(), "--of", "m99"])
        .refused(&["--of", "`m99` is no part"]);
}

#[test]
fn a_horizon_of_all_layers_is_exact_and_a_near_one_is_the_change_of_the_stream_along_the_gradient() {
    let (bench, golden, layers) = (Bench::new(), Golden::of("llama"), open("llama").decoder.arch.n_layers);
    let pairs = golden.pairs(&bench);
    let more = |out: &Path, horizon: usize| {
        let horizon = horizon.to_string();
        let more = ["--exact", "all", "--horizon", &horizon, "--direction", "necessity", "--max-pairs", "1"];
        run("edges", "llama", &pairs, out, &more);
        read(out, "edges")
    };
    let all = more(&bench.out("all"), layers + 1);
    let (exact, found) = (all.floats("effect_mean").unwrap(), all.floats(&format!("horizon_{}", layers + 1)).unwrap());
    for (exact, found) in exact.iter().zip(found) {
        assert!((exact.unwrap() - found.unwrap()).abs() < 1e-4, "{exact:?} {found:?}");
    }
    let near = more(&bench.out("near"), 1);
    let found = near.floats("horizon_1").unwrap();
    let (model, [base, donor]) = (open("llama"), ["input_ids", "donor_ids"].map(|name| golden.ids(name, 0)));
    for k in [0, 17, 60, golden.names.len() - 40] {
        let edge: Edge = golden.names[k].parse().unwrap();
        let (Reader::Head { layer, .. } | Reader::Mlp { layer }) = edge.reader else { panic!("{edge}") };
        let (mut plan, metric) = (Plan::default(), Metric::logit_difference(vec![11], vec![23]));
        let [base, donor] = [("base", &base), ("donor", &donor)].map(|(name, ids)| plan.prompt(name, ids.clone()));
        let edges = [edge].into_iter().collect();
        let taken =
            plan.exchange(base, Exchange { donor, edges, positions: Positions::All, alignment: Alignment::Same });
        let (site, positions, part) = (SiteKind::ResidPost.at(layer), Positions::All, Part::All);
        let activation = Activation { site, positions: positions.clone(), part: part.clone() };
        let [own, changed] = [base, taken].map(|run| plan.read(run, activation.clone()));
        let gradient = plan.read(base, Gradient { metric, site, positions, part });
        let readings = gatelens::run::run(&model.decoder, &plan, &Options::default()).unwrap();
        let change =
            readings[changed].values.iter().zip(&readings[own].values).map(|(a, b)| f64::from(*a) - f64::from(*b));
        let expected: f64 = change.zip(&readings[gradient].values).map(|(d, g)| d * f64::from(*g)).sum();
        assert!((found[k].unwrap() - expected).abs() < 1e-4, "{edge}: {:?} {expected}", found[k]);
    }
}

#[test]
fn edges_by_span_are_those_at_the_spans_positions() {
    let (bench, golden) = (Bench::new(), Golden::of("gpt2"));
    let mut lines = golden.lines();
    lines[0]["spans"] = json!({"START": [0], "LATE": [4, -1]});
    lines[1]["spans"] = json!({"LATE": [-1]});
    let pairs = bench.dataset("spans.jsonl", &lines);
    let (spans, one) = (bench.out("spans"), bench.out("one"));
    let more = ["--exact", "all", "--direction", "necessity", "--keep-pairs"];
    run("edges", "gpt2", &pairs, &spans, &[&more[..], &["--by-span"]].concat());
    run("edges", "gpt2", &pairs, &one, &[&more[..], &["--position", "last"]].concat());
    let (table, one) = (read(&spans, "edges"), read(&one, "pairs"));
    let (places, n) = (table.strs("position").unwrap(), table.ints("n").unwrap());
    let of = |name: &str| (0..table.rows()).filter(|i| places[*i] == name).map(|i| n[i]).collect::<Vec<_>>();
    assert_eq!((of("START"), of("LATE")), (vec![1; golden.names.len()], vec![2; golden.names.len()]));
    let by_span = read(&spans, "pairs");
    let metrics = |table: &Table, position: Option<&str>| -> Vec<f64> {
        let (ids, metric) = (table.strs("id").unwrap(), table.floats("patched_metric").unwrap());
        let places = position.map(|_| table.opt_strs("position").unwrap());
        let here = |i: &usize| ids[*i] == "p1" && places.as_ref().is_none_or(|places| places[*i] == position);
        (0..table.rows()).filter(here).map(|i| metric[i].unwrap()).collect()
    };
    let (found, expected) = (metrics(&by_span, Some("LATE")), metrics(&one, None));
    assert_eq!(found.len(), golden.names.len());
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(spans.join("graph-necessity-LATE.png").is_file() && spans.join("graph-START.json").is_file());
}

#[test]
fn a_circuit_may_have_an_edge_at_one_span_and_not_at_another() {
    let (bench, golden) = (Bench::new(), Golden::of("gpt_neox"));
    let mut lines = golden.rising();
    lines.iter_mut().for_each(|line| line["spans"] = json!({"EARLY": [1, 2, 3], "END": [-1]}));
    let pairs = bench.dataset("spans.jsonl", &lines);
    let (edges, by_effect, by_estimate) = (bench.out("edges"), bench.out("effect"), bench.out("estimate"));
    run(
        "edges",
        "gpt_neox",
        &pairs,
        &edges,
        &["--exact", "all", "--by-span", "--direction", "necessity", "--keep-pairs"],
    );
    let more = ["--by-span", "--random", "1", "--resamples", "20", "--threshold", "0.3", "--minimality", "5000"];
    run("circuit", "gpt_neox", &pairs, &by_effect, &[&more[..], &["--edges", edges.to_str().unwrap()]].concat());
    run("circuit", "gpt_neox", &pairs, &by_estimate, &more);
    for out in [&by_effect, &by_estimate] {
        let (curve, n) = (read(out, "curve"), 3 * golden.names.len() as i64);
        let (fractions, edges) = (curve.floats("fraction").unwrap(), curve.ints("edges").unwrap());
        let f = curve.floats("faithfulness").unwrap();
        for i in 0..curve.rows() {
            assert_eq!(edges[i], (fractions[i].unwrap() * n as f64 + 1e-9) as i64);
            assert!(edges[i] < n || (f[i].unwrap() - 1.0).abs() < 1e-9);
        }
        // The chosen circuit has edges at some places alone.
        let minimality = read(out, "minimality");
        let names: Vec<String> = ["writer", "reader"]
            .map(|column| minimality.strs(column).unwrap())
            .into_iter()
            .fold(vec![String::new(); minimality.rows()], |names, column| {
                names.into_iter().zip(column).map(|(name, part)| name + "->" + part).collect()
            });
        let places = minimality.opt_strs("position").unwrap();
        let at = |place: &str| -> Vec<&String> {
            names.iter().zip(&places).filter(|(_, at)| **at == Some(place)).map(|(name, _)| name).collect()
        };
        assert!(at("END") != at("EARLY") && !at("END").is_empty());
        assert_eq!(at("END").len() + at("EARLY").len() + at("rest").len(), names.len());
        assert!(out.join("circuit-END.json").is_file() && out.join("graph-END.png").is_file());
    }
    // What a run found of other places is of no use.
    let (whole, out) = (bench.out("whole"), bench.out("none"));
    run("edges", "gpt_neox", &pairs, &whole, &["--exact", "0", "--sample", "0"]);
    let model = family_dir("gpt_neox");
    let args = ["circuit", model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens(args.into_iter().chain(["--by-span", "--edges", whole.to_str().unwrap()]))
        .refused(&["edges.parquet", "at the spans of the pairs"]);
}

#[test]
fn circuits_have_the_faithfulness_that_they_have_by_an_independent_implementation() {
    for family in ["gpt2", "gpt_neox", "llama", "gemma2"] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let out = bench.out("circuit");
        let more = ["--estimate", "eap-ig", "--random", "2", "--resamples", "20", "--minimality", "0"];
        run("circuit", family, &golden.pairs(&bench), &out, &more);
        let curve = read(&out, "curve");
        let orders = curve.strs("order").unwrap();
        let rows: Vec<usize> = (0..curve.rows()).filter(|i| orders[*i] == "size").collect();
        let (f, fractions) = (curve.floats("faithfulness").unwrap(), curve.floats("fraction").unwrap());
        for (k, row) in rows.iter().enumerate() {
            let (found, expected) = (f[*row].expect("a share"), golden.values("circuit_share")[k]);
            let gap = golden.values("metric_clean").iter().zip(golden.values("metric_donor")).map(|(a, b)| a - b);
            let gap = gap.sum::<f64>() / 2.0;
            assert!((found - expected).abs() * gap.abs() < 1e-4, "{family} {:?}: {found} {expected}", fractions[*row]);
        }
        let pairs = read(&out, "pairs");
        let (orders, metric) = (pairs.strs("order").unwrap(), pairs.floats("metric").unwrap());
        let by_size: Vec<f64> =
            (0..pairs.rows()).filter(|i| orders[*i] == "size").map(|i| metric[i].unwrap()).collect();
        for (found, expected) in by_size.iter().zip(golden.values("circuit_metric")) {
            assert!((found - expected).abs() < 1e-4, "{family}: {found} {expected}");
        }
        let summary = read(&out, "summary");
        let cmd = summary.floats("cmd").unwrap()[0].expect("an area");
        let shares = golden.values("circuit_share");
        let fractions = golden.values("circuit_fractions");
        let area: f64 = (1..10)
            .map(|i| (fractions[i] - fractions[i - 1]) * ((1.0 - shares[i]).abs() + (1.0 - shares[i - 1]).abs()) / 2.0)
            .sum();
        assert!((cmd - area).abs() < 1e-3, "{family}: {cmd} {area}");
    }
}

#[test]
fn a_circuit_of_a_file_has_the_metric_that_it_has_by_an_independent_implementation() {
    let (bench, golden) = (Bench::new(), Golden::of("gemma2"));
    let pairs = golden.pairs(&bench);
    let all = golden.names.len();
    for k in [0, 5, 11] {
        let kept = &golden.values("random_kept")[k * all..(k + 1) * all];
        let edges: HashMap<&String, Value> =
            golden.names.iter().zip(kept).map(|(name, kept)| (name, json!({"in_graph": *kept != 0.0}))).collect();
        let file = bench.dataset("graph.json", &[json!({"cfg": {"kv": "head"}, "nodes": {}, "edges": edges})]);
        let out = bench.out(&format!("run{k}"));
        run("circuit", "gemma2", &pairs, &out, &["--graph", file.to_str().unwrap(), "--minimality", "0"]);
        let expected = &golden.values("random_metric")[k * 2..k * 2 + 2];
        let table = read(&out, "pairs");
        let found = table.floats("metric").unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.unwrap() - expected).abs() < 1e-4, "{found:?} {expected}");
        }
        let of = read(&out, "faithfulness");
        let mean = of.floats("metric_mean").unwrap()[0].unwrap();
        assert!((mean - (expected[0] + expected[1]) / 2.0).abs() < 1e-4);
        assert!(of.ints("edges").unwrap()[0] == kept.iter().filter(|k| **k != 0.0).count() as i64);
    }
}

#[test]
fn circuits_are_chosen_by_the_effects_of_a_finished_run_and_evaluate_as_they_were_chosen() {
    let (bench, golden) = (Bench::new(), Golden::of("gpt_neox"));
    let (pairs, edges, circuit, again) =
        (bench.dataset("pairs.jsonl", &golden.rising()), bench.out("edges"), bench.out("circuit"), bench.out("again"));
    let all = ["--exact", "all", "--keep-pairs", "--direction", "necessity"];
    run("edges", "gpt_neox", &pairs, &edges, &all);
    let more = ["--edges", edges.to_str().unwrap(), "--resamples", "50", "--threshold", "0.5", "--minimality", "1000"];
    let said = run("circuit", "gpt_neox", &pairs, &circuit, &more);
    assert!(said.contains("  exact ") && said.contains("  reader_exact "), "{said}");
    let summary = read(&circuit, "summary");
    let (chosen, f) = (summary.ints("edges_left").unwrap()[0], summary.floats("faithfulness").unwrap()[0].unwrap());
    assert!(f >= 0.5 && chosen > 0);
    // Both rankings have the scores of the pairs.
    assert!(summary.floats("jaccard").unwrap().iter().all(|overlap| overlap.is_some_and(|x| (0.0..=1.0).contains(&x))));
    // Without an edge the circuit is another one: what is lost is the difference of two circuits of files.
    let minimality = read(&circuit, "minimality");
    let scores = minimality.strs("score").unwrap();
    assert_eq!(scores.iter().filter(|score| **score == "exact").count() as i64, chosen);
    let file = circuit.join("circuit.json");
    run("circuit", "gpt_neox", &pairs, &again, &["--graph", file.to_str().unwrap(), "--minimality", "0"]);
    let same = read(&again, "faithfulness").floats("faithfulness").unwrap()[0].unwrap();
    assert!((same - f).abs() < 1e-6, "{same} {f}");
    let without = format!("{}->{}", minimality.strs("writer").unwrap()[0], minimality.strs("reader").unwrap()[0]);
    let mut graph: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(graph["edges"][&without]["in_graph"], true);
    graph["edges"][&without]["in_graph"] = false.into();
    let file = bench.dataset("less.json", &[graph]);
    let out = bench.out("less");
    run("circuit", "gpt_neox", &pairs, &out, &["--graph", file.to_str().unwrap(), "--minimality", "0"]);
    let less = read(&out, "faithfulness").floats("faithfulness").unwrap()[0].unwrap();
    let lost = minimality.floats("faithfulness_lost").unwrap()[0].unwrap();
    assert!((lost - (f - less)).abs() < 1e-6, "{lost} {f} {less}");
}

#[test]
fn what_cannot_be_run_is_refused_and_nothing_is_written() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let (pairs, out) = (golden.pairs(&bench), bench.out("run"));
    let model = family_dir("llama");
    let refused = |command: &str, pairs: &Path, more: &[&str], parts: &[&str]| {
        let args =
            [command, model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--out", out.to_str().unwrap()];
        gatelens(args.into_iter().chain(more.iter().copied())).refused(parts);
        assert!(bench.written().is_empty());
    };
    let line = json!({
        "positive": {"ids": [5, 6, 7]}, "negative": {"ids": [5, 6]}, "answer": [11], "foil": [23],
    });
    let uneven = bench.dataset("uneven.jsonl", &[line]);
    for command in ["edges", "circuit"] {
        refused(command, &uneven, &[], &["uneven.jsonl", "line 1", "3 tokens and the negative 2"]);
    }
    let file = |name: &str, value: Value| bench.dataset(name, &[value]).to_str().unwrap().to_string();
    let empty = file("empty.json", json!({"cfg": {"kv": "head"}, "edges": {"input->m0": {}}}));
    refused("circuit", &pairs, &["--graph", &empty], &["empty.json", "neither scores nor edges"]);
    let other = file("other.json", json!({"cfg": {"kv": "head"}, "edges": {"input->m99": {"score": 1.0}}}));
    refused("circuit", &pairs, &["--graph", &other], &["other.json", "input->m99", "layers 0 to"]);
    refused("circuit", &pairs, &["--edges", "no-such-run"], &["no-such-run", "edges.parquet", "cannot be read"]);
}

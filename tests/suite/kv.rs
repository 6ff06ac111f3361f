//! Keys and values told apart by query head: against checkpoints in which every head has its own, and by hand.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::{Folder, Stored, Tensors};
use crate::support::edges::GoldenEdges;
use crate::support::{FAMILIES, family_dir, open};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{
    Alignment, Change, Edge, EdgeEffects, EdgeEstimate, EdgeSet, Edit, Exchange, Graph, Handle, Kv, Metric, Part, Plan,
    Port, Positions, Reader,
};
use gatelens::run::{Array, Engine, Options, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::Path;

/// Families of the fixtures whose heads share keys and values, and whose projections are tensors of their own.
const GROUPED: [&str; 6] = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2"];

fn metric() -> Metric {
    Metric::logit_difference(vec![11], vec![23])
}

/// A copy of a checkpoint in which each head has the key and value that it shares in the original.
fn ungrouped(family: &str) -> Folder {
    let arch = open(family).decoder.arch;
    let (group, d) = (arch.n_heads / arch.n_kv_heads, arch.d_head);
    let repeat = |tensors: &mut Tensors| {
        for (name, tensor) in tensors.iter_mut() {
            let shared = ["k_proj", "v_proj", "k_norm"].iter().any(|part| name.contains(part));
            // A norm of each head by itself has one weight for all.
            if shared && tensor.shape[0] == arch.n_kv_heads * d {
                let width: usize = d * tensor.shape[1..].iter().product::<usize>();
                let heads = tensor.values();
                let heads = heads.chunks_exact(width).flat_map(|head| head.repeat(group));
                let mut shape = tensor.shape.clone();
                shape[0] *= group;
                *tensor = Stored::floats(&shape, &heads.collect::<Vec<f32>>());
            }
        }
    };
    Folder::of(family).weights(repeat).key("num_key_value_heads", json!(arch.n_heads))
}

/// The metric with each edge taken, then all estimates, and the metric of two large sets.
fn measured(model: &Model, family: &str, kv: Kv, engine: Engine) -> (Vec<Edge>, Vec<f64>) {
    let golden = GoldenEdges::of(family);
    let edges: Vec<Edge> = Graph::of(&model.decoder.of(kv).arch).edges().collect();
    let mut plan = Plan { kv, ..Plan::default() };
    let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, 1)));
    let mut taken = |edges: EdgeSet| -> Handle<f64> {
        let (positions, alignment) = (Positions::All, Alignment::Same);
        let fork = plan.exchange(base, Exchange { donor, edges, positions, alignment });
        plan.read(fork, metric())
    };
    let some: Vec<Edge> = edges.iter().step_by(3).copied().collect();
    let mut asked = vec![taken(some.clone().into()), taken(EdgeSet::AllBut(some.into()))];
    asked.extend(edges.iter().map(|edge| taken(std::iter::once(*edge).collect())));
    let ways = [EdgeEstimate::Reader, EdgeEstimate::Attribution, EdgeEstimate::IntegratedGradients { steps: 2 }];
    let estimates: Vec<Handle<Array>> = ways
        .into_iter()
        .map(|by| {
            let (positions, alignment) = (Positions::All, Alignment::Same);
            plan.read(base, EdgeEffects { metric: metric(), donor, positions, alignment, by })
        })
        .collect();
    let options = Options { engine, ..Options::default() };
    let readings = run(&model.decoder, &plan, &options).unwrap_or_else(|e| panic!("{family}: {e}"));
    let mut found: Vec<f64> = asked.into_iter().map(|handle| readings[handle]).collect();
    found.extend(estimates.into_iter().flat_map(|handle| &readings[handle].values).map(|x| f64::from(*x)));
    (edges, found)
}

fn at(folder: &Folder, max_memory: Option<u64>) -> Model {
    let options = ModelOptions { max_memory, ..ModelOptions::default() };
    Model::open(folder.path().to_str().unwrap(), &options).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn heads_that_share_keys_have_the_edges_of_a_checkpoint_in_which_each_has_its_own() {
    for family in GROUPED {
        let (shared, own) = (open(family), at(&ungrouped(family), None));
        let (edges, found) = measured(&shared, family, Kv::Query, Engine::Wavefront);
        let (of_own, expected) = measured(&own, family, Kv::Head, Engine::Wavefront);
        assert_eq!(edges, of_own, "{family}");
        assert!(edges.len() > Graph::of(&shared.decoder.arch).edges().count(), "{family}");
        assert_eq!(found.len(), 2 + 4 * edges.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 1e-5, "{family}, number {i}: {found} {expected}");
        }
    }
}

#[test]
fn both_engines_and_weights_that_are_streamed_give_the_same_by_query_head() {
    for family in ["qwen2", "olmo2"] {
        let wave = measured(&open(family), family, Kv::Query, Engine::Wavefront).1;
        let streamed = at(&Folder::of(family), Some(1000));
        assert!(streamed.decoder.of(Kv::Query).streamed());
        assert_eq!(measured(&streamed, family, Kv::Query, Engine::Wavefront).1, wave, "{family}");
        let full = measured(&open(family), family, Kv::Query, Engine::Full).1;
        assert!(wave.iter().zip(&full).all(|(a, b)| (a - b).abs() < 1e-4), "{family}");
    }
}

#[test]
fn models_whose_heads_share_nothing_have_the_same_edges_either_way() {
    for family in FAMILIES.into_iter().filter(|family| !GROUPED.contains(family)) {
        let model = open(family);
        if model.decoder.arch.n_kv_heads == model.decoder.arch.n_heads {
            assert_eq!(
                measured(&model, family, Kv::Query, Engine::Wavefront),
                measured(&model, family, Kv::Head, Engine::Wavefront),
                "{family}"
            );
        }
    }
    assert_eq!(open("gpt2").decoder.arch.n_kv_heads, 4);
}

/// A key or value that one head alone reads changes that head's `z`, to what it is where all heads of the group read it.
#[test]
fn one_heads_key_is_the_shared_key_as_that_head_alone_sees_it() {
    for family in ["llama", "qwen2", "qwen3", "gemma2"] {
        let (model, golden) = (open(family), GoldenEdges::of(family));
        let arch = &model.decoder.arch;
        let group = arch.n_heads / arch.n_kv_heads;
        let mut apart = Plan { kv: Kv::Query, ..Plan::default() };
        let mut by_hand = Plan::default();
        let prompts = ["input_ids", "donor_ids"].map(|name| golden.ids(name, 0));
        let [base, donor] = [0, 1].map(|i| apart.prompt("p", prompts[i].clone()));
        // Runs of both plans have the same numbers.
        assert_eq!([0, 1].map(|i| by_hand.prompt("p", prompts[i].clone())), [base, donor]);
        let own = by_hand.read(base, metric());
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        let edges = ["input->a0.h1<k>", "m0->a1.h3<v>", "a0.h2->a2.h0<k>", "m1->a3.h2<k>", "a1.h1->a3.h1<v>"];
        for name in edges {
            let edge: Edge = name.parse().expect("an edge");
            let Reader::Head { layer, port, head } = edge.reader else { panic!("{edge}") };
            assert_ne!(port, Port::Query);
            let exchange = |reader: Reader| Exchange {
                donor,
                edges: std::iter::once(Edge { reader, ..edge }).collect(),
                positions: Positions::All,
                alignment: Alignment::Same,
            };
            let taken = apart.exchange(base, exchange(edge.reader));
            found.push(apart.read(taken, metric()));
            let shared = by_hand.exchange(base, exchange(Reader::Head { layer, port, head: head / group }));
            let of_one = Edit {
                site: SiteKind::Z.at(layer),
                part: Part::Heads(vec![head]),
                positions: Positions::All,
                change: Change::interchange(shared),
            };
            let alone = by_hand.fork(base, vec![of_one]);
            expected.push((by_hand.read(alone, metric()), by_hand.read(shared, metric())));
        }
        let options = || Options::default();
        let (apart, by_hand) = (
            run(&model.decoder, &apart, &options()).unwrap_or_else(|e| panic!("{family}: {e}")),
            run(&model.decoder, &by_hand, &options()).unwrap_or_else(|e| panic!("{family}: {e}")),
        );
        let mut differ = 0;
        for (name, (found, (alone, shared))) in edges.iter().zip(found.into_iter().zip(expected)) {
            let (found, alone) = (apart[found], by_hand[alone]);
            assert!((found - alone).abs() < 1e-5, "{family} {name}: {found} {alone}");
            let moved = (alone - by_hand[own]).abs() > 1e-4 && (alone - by_hand[shared]).abs() > 1e-4;
            differ += usize::from(moved);
        }
        assert!(differ >= 3, "{family}: one head alone does what all do, or nothing: {differ}");
    }
}

#[test]
fn a_plan_by_query_head_is_compiled_for_the_decoder_that_is_made_for_it() {
    let model = open("llama");
    let mut plan = Plan { kv: Kv::Query, ..Plan::default() };
    plan.prompt("p", vec![1, 2]);
    let why = plan.compile(&model.decoder.arch).map(drop).unwrap_err().to_string();
    assert!(why.contains("by query head") && why.contains("Decoder::of"), "{why}");
    assert!(plan.compile(&model.decoder.of(Kv::Query).arch).is_ok());
    let digest = plan.digest();
    plan.kv = Kv::Head;
    assert_ne!(plan.digest(), digest);
}

fn command(command: &str, pairs: &Path, out: &Path, more: &[&str]) -> crate::support::cli::Ended {
    let model = family_dir("qwen2");
    let args = [command, model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens(args.into_iter().chain(more.iter().copied()))
}

#[test]
fn commands_name_the_keys_of_query_heads_and_refuse_those_of_others() {
    let (bench, golden, model) = (Bench::new(), GoldenEdges::of("qwen2"), open("qwen2"));
    let line = |i: usize| {
        let ids = |name: &str| json!({ "ids": golden.ids(name, i) });
        json!({
            "id": format!("p{i}"), "positive": ids("input_ids"), "negative": ids("donor_ids"), "answer": [11], "foil": [23],
        })
    };
    let pairs = bench.dataset("pairs.jsonl", &[line(0), line(1)]);
    let (by_query, by_head) = (bench.out("query"), bench.out("head"));
    let exact = ["--exact", "all", "--direction", "necessity", "--keep-pairs"];
    command("edges", &pairs, &by_query, &[&exact[..], &["--kv", "query"]].concat()).done();
    command("edges", &pairs, &by_head, &exact).done();
    let edges = |out: &Path| Table::read_parquet(out.join("edges.parquet")).unwrap();
    let found = edges(&by_query);
    let readers = found.strs("reader").unwrap();
    let all: Vec<Edge> = Graph::of(&model.decoder.of(Kv::Query).arch).edges().collect();
    assert!(readers.iter().map(ToString::to_string).eq(all.iter().map(|edge| edge.reader.to_string())));
    assert!(readers.contains(&"a3.h3<v>") && !edges(&by_head).strs("reader").unwrap().contains(&"a3.h3<v>"));
    let graph: Value = serde_json::from_slice(&std::fs::read(by_query.join("graph.json")).unwrap()).unwrap();
    assert_eq!(graph["cfg"]["kv"], "query");
    let expected = measured(&model, "qwen2", Kv::Query, Engine::Full).1;
    let pairs_found = Table::read_parquet(by_query.join("pairs.parquet")).unwrap();
    let (ids, metrics) = (pairs_found.strs("id").unwrap(), pairs_found.floats("patched_metric").unwrap());
    let of_second: Vec<f64> =
        (0..pairs_found.rows()).filter(|i| ids[*i] == "p1").map(|i| metrics[i].unwrap()).collect();
    assert!(of_second.len() == all.len() && of_second.iter().zip(&expected[2..]).all(|(a, b)| (a - b).abs() < 1e-4));
    // The parts of a query head are its own.
    let own = bench.out("own");
    command("edges", &pairs, &own, &["--of", "a2.h1", "--kv", "query", "--direction", "necessity"]).done();
    let of_part = edges(&own);
    let into: Vec<&str> =
        of_part.strs("reader").unwrap().into_iter().filter(|reader| reader.starts_with("a2")).collect();
    assert!(into.iter().all(|reader| reader.starts_with("a2.h1<")) && into.contains(&"a2.h1<k>"), "{into:?}");

    let few = ["--random", "1", "--resamples", "5", "--minimality", "0", "--threshold", "0.1"];
    let circuit = |name: &str, more: &[&str]| command("circuit", &pairs, &bench.out(name), &[&few[..], more].concat());
    let [query_dir, query_graph] =
        [by_query.clone(), by_query.join("graph.json")].map(|p| p.to_str().unwrap().to_string());
    circuit("a", &["--edges", &query_dir, "--kv", "query"]).done();
    circuit("b", &["--graph", &query_graph, "--kv", "query"]).done();
    circuit("c", &["--edges", &query_dir]).refused(&["holds other edges", "--kv"]);
    circuit("d", &["--graph", &query_graph]).refused(&["by query head", "share 2 KV heads", "--kv query"]);
    let head_graph = by_head.join("graph.json");
    circuit("e", &["--graph", head_graph.to_str().unwrap(), "--kv", "query"]).refused(&["of KV heads", "--kv head"]);
    let curve = |name: &str| Table::read_parquet(bench.out(name).join("curve.parquet")).unwrap();
    for (a, b) in curve("a").ints("edges").unwrap().iter().zip(curve("b").ints("edges").unwrap()) {
        assert_eq!(a, b);
    }
    assert_eq!(curve("a").ints("edges").unwrap().iter().max(), Some(&(all.len() as i64)));
}

//! Edges between prompts of different lengths: by hand, and the engines against each other.

use crate::support::cli::{Bench, Ended, gatelens};
use crate::support::edges::GoldenEdges;
use crate::support::{FAMILIES, family_dir, open};
use gatelens::analyses::align::align;
use gatelens::model::Model;
use gatelens::plan::{
    Activation, Alignment, Change, Edge, EdgeEffects, EdgeEstimate, EdgeSet, Edit, Exchange, Graph, Handle, Metric,
    Part, Plan, Positions, Reader, Run, Writer,
};
use gatelens::run::{Array, Engine, Options, Readings, run};
use gatelens::site::{Site, SiteKind};
use gatelens::table::Table;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::path::Path;

fn metric() -> Metric {
    Metric::logit_difference(vec![11], vec![23])
}

/// A prompt, and one that is two tokens longer.
fn prompts(family: &str) -> [Vec<u32>; 2] {
    let golden = GoldenEdges::of(family);
    let (base, mut donor) = (golden.ids("input_ids", 0), golden.ids("donor_ids", 0));
    let at = donor.len() / 2;
    donor.splice(at..at, [7, 19]);
    [base, donor]
}

fn read(model: &Model, plan: &Plan, engine: Engine) -> Readings {
    run(&model.decoder, plan, &Options { engine, ..Options::default() }).unwrap_or_else(|e| panic!("{e}"))
}

fn activation(kind: SiteKind, layer: usize) -> Activation {
    Activation { site: kind.at(layer), positions: Positions::All, part: Part::All }
}

#[test]
fn both_engines_take_the_same_from_prompts_of_other_lengths() {
    for family in FAMILIES {
        let (model, prompts) = (open(family), prompts(family));
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let edges: Vec<Edge> = Graph::of(&model.decoder.arch).edges().collect();
        let mut plan = Plan::default();
        let runs = [plan.prompt("shorter", prompts[0].clone()), plan.prompt("longer", prompts[1].clone())];
        let mut asked: Vec<Handle<f64>> = Vec::new();
        for case in 0..12 {
            let (base, donor) = (runs[case % 2], runs[1 - case % 2]);
            let (n, theirs) = (plan.length(base), plan.length(donor));
            let any = |random: &mut ChaCha8Rng| random.random_bool(0.7).then(|| random.random_range(0..theirs));
            let aligned: Vec<Option<usize>> = (0..n).map(|_| any(&mut random)).collect();
            // A position that matches one, so that something is taken.
            let some = aligned.iter().position(Option::is_some).expect("a match");
            let positions = match case % 3 {
                0 => Positions::All,
                _ => Positions::At((0..n).filter(|p| *p == some || random.random_bool(0.5)).collect()),
            };
            let size = random.random_range(1..edges.len());
            let drawn: Vec<Edge> = sample(&mut random, edges.len(), size).into_iter().map(|i| edges[i]).collect();
            let edges = if case % 4 < 2 { EdgeSet::from(drawn) } else { EdgeSet::AllBut(drawn.into()) };
            let exchange = Exchange { donor, edges, positions, alignment: aligned.into_iter().collect() };
            let fork = plan.exchange(base, exchange);
            asked.push(plan.read(fork, metric()));
        }
        let found = [Engine::Wavefront, Engine::Full].map(|engine| read(&model, &plan, engine));
        for (case, handle) in asked.into_iter().enumerate() {
            let [a, b] = [found[0][handle], found[1][handle]];
            assert!((a - b).abs() < 1e-4, "{family}, case {case}: {a} {b}");
        }
    }
}

/// Both the exchange of a few edges and all estimates.
fn with_alignment(model: &Model, family: &str, alignment: &Alignment) -> Vec<Vec<f32>> {
    let golden = GoldenEdges::of(family);
    let mut plan = Plan::default();
    let [base, donor] = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, 0)));
    let few: Vec<Edge> = golden.names.iter().step_by(7).copied().collect();
    for edges in [EdgeSet::from(few.clone()), EdgeSet::AllBut(few.into())] {
        let exchange = Exchange { donor, edges, positions: Positions::All, alignment: alignment.clone() };
        let fork = plan.exchange(base, exchange);
        plan.read(fork, activation(SiteKind::Logits, 0));
    }
    for by in [EdgeEstimate::Reader, EdgeEstimate::Attribution, EdgeEstimate::IntegratedGradients { steps: 3 }] {
        let positions = Positions::All;
        plan.read(base, EdgeEffects { metric: metric(), donor, positions, alignment: alignment.clone(), by });
    }
    read(model, &plan, Engine::Wavefront).iter().map(|reading| reading.values()).collect()
}

#[test]
fn an_alignment_of_each_position_with_itself_changes_no_bit() {
    for family in ["llama", "gemma2"] {
        let (model, n) = (open(family), GoldenEdges::of(family).ids("input_ids", 0).len());
        let same = with_alignment(&model, family, &Alignment::Same);
        assert!(with_alignment(&model, family, &(0..n).map(Some).collect()) == same, "{family}");
        assert!(with_alignment(&model, family, &(0..n).map(|p| Some(p / 2)).collect()) != same, "{family}");
    }
}

/// A base and a donor of another length, with what an edge does by hand: edits and readings alone, no exchange.
struct ByHand<'a> {
    model: &'a Model,
    ids: [&'a [u32]; 2],
    aligned: Vec<Option<usize>>,
}

impl ByHand<'_> {
    fn plan(&self) -> (Plan, [Run; 2]) {
        let mut plan = Plan::default();
        let runs = [0, 1].map(|i| plan.prompt(["base", "donor"][i], self.ids[i].to_vec()));
        (plan, runs)
    }

    /// What a writer adds, `[positions, d_model]`, in both prompts.
    fn written(&self, writer: Writer) -> [Array; 2] {
        let (mut plan, runs) = self.plan();
        let asked = runs.map(|run| match writer {
            Writer::Input => plan.read(run, activation(SiteKind::Embed, 0)),
            Writer::Mlp { layer } => plan.read(run, activation(SiteKind::MlpOut, layer)),
            Writer::Head { layer, head } => {
                let of_head = Activation { part: Part::Heads(vec![head]), ..activation(SiteKind::HeadOut, layer) };
                plan.read(run, of_head)
            }
        });
        let readings = read(self.model, &plan, Engine::Full);
        asked.map(|handle| readings[handle].clone())
    }

    /// The metric of the base, which may be edited, where the reader's stream has `share` of what the writer adds more in the donor.
    fn metric(&self, edge: Edge, share: f32, edits: &[Edit]) -> f64 {
        let d = self.model.decoder.arch.d_model;
        let [own, theirs] = self.written(edge.writer);
        let more = |p: usize| -> Vec<f32> {
            let Some(from) = self.aligned[p] else { return vec![0.0; d] };
            let (own, theirs) = (&own.values[p * d..][..d], &theirs.values[from * d..][..d]);
            theirs.iter().zip(own).map(|(theirs, own)| share * (theirs - own)).collect()
        };
        // The stream as the reader reads it, in a run of its own, and what the reader makes of it.
        let (stream, reading, part): (Site, Site, Part) = match edge.reader {
            Reader::Head { layer, port, head } => {
                let kind = [SiteKind::Q, SiteKind::K, SiteKind::V][port as usize];
                (SiteKind::ResidPre.at(layer), kind.at(layer), Part::Heads(vec![head]))
            }
            Reader::Mlp { layer } => (SiteKind::ResidMid.at(layer), SiteKind::MlpIn.at(layer), Part::All),
            Reader::Logits => {
                let site = SiteKind::ResidPost.at(self.model.decoder.arch.n_layers - 1);
                (site, SiteKind::FinalNorm.at(0), Part::All)
            }
        };
        let n = self.aligned.len();
        let edit =
            |site: Site, part: Part, p: usize, change| Edit { site, part, positions: Positions::At(vec![p]), change };
        let (mut plan, [base, _]) = self.plan();
        let base = plan.fork(base, edits.to_vec());
        let mixed =
            (0..n).map(|p| edit(stream, Part::All, p, Change::Add { vector: more(p).into(), coefficient: 1.0 }));
        let mixed = plan.fork(base, mixed.collect());
        let read_so = plan.read(mixed, Activation { site: reading, positions: Positions::All, part: part.clone() });
        let given = read(self.model, &plan, Engine::Full)[read_so].clone();
        let (mut plan, [base, _]) = self.plan();
        let base = plan.fork(base, edits.to_vec());
        let rows = given.values.chunks_exact(given.values.len() / n).enumerate();
        let set = rows.map(|(p, row)| edit(reading, part.clone(), p, Change::Set(row.into())));
        let taken = plan.fork(base, set.collect());
        let metric = plan.read(taken, metric());
        read(self.model, &plan, Engine::Full)[metric]
    }
}

/// Edges of every kind of writer and reader of three layers and more.
const EDGES: [&str; 8] = [
    "input->m0",
    "m0->a1.h1<q>",
    "a0.h2->a1.h0<k>",
    "input->a2.h1<v>",
    "a1.h3->m1",
    "m1->logits",
    "a2.h0->logits",
    "m0->a2.h0<k>",
];

fn by_hand<'a>(model: &'a Model, prompts: &'a [Vec<u32>; 2], turned: bool) -> ByHand<'a> {
    let ids: [&[u32]; 2] = if turned { [&prompts[1], &prompts[0]] } else { [&prompts[0], &prompts[1]] };
    ByHand { model, ids, aligned: align(ids[0], ids[1]) }
}

#[test]
fn an_edge_between_prompts_of_other_lengths_has_the_effect_that_it_has_by_hand() {
    for family in ["llama", "gpt2", "qwen2"] {
        let (model, prompts) = (open(family), prompts(family));
        for turned in [false, true] {
            let hand = by_hand(&model, &prompts, turned);
            let (mut plan, [base, donor]) = hand.plan();
            let own = plan.read(base, metric());
            let alignment: Alignment = hand.aligned.iter().copied().collect();
            let taken = EDGES.map(|name| {
                let edges = std::iter::once(name.parse().expect("an edge")).collect();
                let (positions, alignment) = (Positions::All, alignment.clone());
                let fork = plan.exchange(base, Exchange { donor, edges, positions, alignment });
                plan.read(fork, metric())
            });
            let readings = read(&model, &plan, Engine::Wavefront);
            let mut moved = 0;
            for (name, taken) in EDGES.iter().zip(taken) {
                let expected = hand.metric(name.parse().expect("an edge"), 1.0, &[]);
                let found = readings[taken];
                assert!((found - expected).abs() < 1e-4, "{family} {turned} {name}: {found} {expected}");
                moved += usize::from((found - readings[own]).abs() > 1e-3);
            }
            assert!(moved > EDGES.len() / 2, "{family}: {moved}");
        }
    }
}

#[test]
fn first_order_estimates_between_prompts_of_other_lengths_are_the_slopes_by_hand() {
    for family in ["llama", "gpt2"] {
        let (model, prompts) = (open(family), prompts(family));
        let graph: Vec<Edge> = Graph::of(&model.decoder.arch).edges().collect();
        for turned in [false, true] {
            let hand = by_hand(&model, &prompts, turned);
            let (mut plan, [base, donor]) = hand.plan();
            let alignment: Alignment = hand.aligned.iter().copied().collect();
            let steps = 2;
            let asked = [EdgeEstimate::Attribution, EdgeEstimate::IntegratedGradients { steps }].map(|by| {
                let (positions, alignment) = (Positions::All, alignment.clone());
                plan.read(base, EdgeEffects { metric: metric(), donor, positions, alignment, by })
            });
            let readings = read(&model, &plan, Engine::Wavefront);
            // The embeddings on the way: where no position matches, the base's own.
            let (d, [own, theirs]) = (model.decoder.arch.d_model, hand.written(Writer::Input));
            let mixed = |share: f32| -> Vec<Edit> {
                let row = |p: usize| -> Vec<f32> {
                    let own = &own.values[p * d..][..d];
                    let Some(from) = hand.aligned[p] else { return own.to_vec() };
                    let theirs = &theirs.values[from * d..][..d];
                    theirs.iter().zip(own).map(|(theirs, own)| theirs + share * (own - theirs)).collect()
                };
                let set = |p: usize| Edit {
                    site: SiteKind::Embed.at(0),
                    part: Part::All,
                    positions: Positions::At(vec![p]),
                    change: Change::Set(row(p).into()),
                };
                (0..hand.aligned.len()).map(set).collect()
            };
            let way: Vec<Vec<Edit>> = (0..steps).map(|k| mixed(k as f32 / steps as f32)).collect();
            let bend = 2e-2f32;
            let slope = |edge: Edge, edits: &[Edit]| {
                (hand.metric(edge, bend, edits) - hand.metric(edge, -bend, edits)) / f64::from(2.0 * bend)
            };
            for name in EDGES {
                let edge: Edge = name.parse().expect("an edge");
                let at = graph.iter().position(|of| *of == edge).expect("an edge of the model");
                let found = asked.map(|handle| f64::from(readings[handle].values[at]));
                let along = way.iter().map(|edits| slope(edge, edits)).sum::<f64>() / way.len() as f64;
                for (what, found, expected) in [("eap", found[0], slope(edge, &[])), ("eap-ig", found[1], along)] {
                    let near = 2e-3 + 2e-2 * expected.abs();
                    assert!((found - expected).abs() < near, "{family} {turned} {what} {name}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn what_the_reader_gives_is_exact_at_the_logits_and_alignments_that_do_not_fit_are_refused() {
    let (model, prompts) = (open("llama"), prompts("llama"));
    let graph = Graph::of(&model.decoder.arch);
    let hand = by_hand(&model, &prompts, true);
    let (mut plan, [base, donor]) = hand.plan();
    let alignment: Alignment = hand.aligned.iter().copied().collect();
    let of = |by| EdgeEffects { metric: metric(), donor, positions: Positions::All, alignment: alignment.clone(), by };
    let (own, estimates) = (plan.read(base, metric()), plan.read(base, of(EdgeEstimate::Reader)));
    let readings = read(&model, &plan, Engine::Wavefront);
    for (edge, found) in graph.edges().zip(&readings[estimates].values).filter(|(e, _)| e.reader == Reader::Logits) {
        let expected = hand.metric(edge, 1.0, &[]) - readings[own];
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{edge}: {found} {expected}");
    }
    let n = prompts[0].len();
    let refused = |positions: Positions, alignment: Alignment| {
        let mut plan = Plan::default();
        let [base, donor] = [0, 1].map(|i| plan.prompt(["base", "donor"][i], prompts[i].clone()));
        let edges: EdgeSet = std::iter::once("m0->a1.h0<q>".parse().expect("an edge")).collect();
        let by = EdgeEstimate::Attribution;
        let (at, matched) = (positions.clone(), alignment.clone());
        plan.read(base, EdgeEffects { metric: metric(), donor, positions: at, alignment: matched, by });
        let estimated = plan.compile(&model.decoder.arch).err().map(|e| e.to_string()).unwrap_or_default();
        plan.readouts.clear();
        plan.exchange(base, Exchange { donor, edges, positions, alignment });
        [estimated, plan.compile(&model.decoder.arch).err().map(|e| e.to_string()).unwrap_or_default()]
    };
    let past = Alignment::from_iter((0..n).map(|p| Some(p + 9)));
    let first = Alignment::from_iter((0..n).map(|p| Some(p).filter(|p| *p == 0)));
    let cases = [
        (Positions::All, Alignment::Same, "or an alignment"),
        (Positions::All, Alignment::from_iter((0..3).map(Some)), "is aligned at 3 positions"),
        (Positions::All, past, "has no position"),
        (Positions::Last, first, "none of its positions corresponds"),
        (Positions::At(vec![1, 1]), Alignment::from_iter((0..n).map(Some)), "position 1 twice"),
    ];
    for (positions, alignment, part) in cases {
        for why in refused(positions, alignment) {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}

/// Two pairs of prompts, the negative two tokens longer.
fn pairs_file(bench: &Bench, prompts: &[Vec<u32>; 2]) -> std::path::PathBuf {
    let pair = |(id, [positive, negative]): (&str, [&[u32]; 2])| {
        json!({
            "id": id, "positive": {"ids": positive}, "negative": {"ids": negative}, "answer": [11], "foil": [23],
        })
    };
    let pairs = [("p0", [&prompts[0][..], &prompts[1]]), ("p1", [&prompts[0][1..], &prompts[1][1..]])];
    bench.dataset("pairs.jsonl", &pairs.map(pair))
}

fn command(command: &str, pairs: &Path, out: &Path, more: &[&str]) -> Ended {
    let model = family_dir("llama");
    let args = [command, model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens(args.into_iter().chain(more.iter().copied()))
}

#[test]
fn the_command_takes_prompts_of_other_lengths_if_it_is_told_to() {
    let (bench, model, prompts) = (Bench::new(), open("llama"), prompts("llama"));
    let (pairs, out) = (pairs_file(&bench, &prompts), bench.out("edges"));
    command("edges", &pairs, &out, &[]).refused(&["\"p0\"", "so that both need as many, or --align"]);
    command("edges", &pairs, &out, &["--align", "--position", "3"]).refused(&["--align", "--position last"]);
    command("edges", &pairs, &out, &["--align", "--by-span"]).told_by_the_parser(&["--align", "--by-span"]);
    let exact = ["--align", "--exact", "all", "--keep-pairs", "--horizon", "9"];
    command("edges", &pairs, &out, &exact).done();
    let table = Table::read_parquet(out.join("pairs.parquet")).unwrap();
    let names = ["writer", "reader", "direction", "id"].map(|column| table.strs(column).unwrap());
    let (base, patched) = (table.floats("base_metric").unwrap(), table.floats("patched_metric").unwrap());
    for (direction, turned) in [("necessity", false), ("sufficiency", true)] {
        let hand = by_hand(&model, &prompts, turned);
        for name in EDGES {
            let (writer, reader) = name.split_once("->").unwrap();
            let wanted = [writer, reader, direction, "p0"];
            let row = (0..table.rows()).find(|i| (0..4).all(|k| names[k][*i] == wanted[k])).expect("a row");
            let expected = hand.metric(name.parse().unwrap(), 1.0, &[]);
            assert!((patched[row].unwrap() - expected).abs() < 1e-4, "{direction} {name}: {patched:?} {expected}");
        }
        assert_eq!(names[2].iter().filter(|of| **of == direction).count() * 2, base.len());
    }
    // A horizon past the last layer is exact.
    let edges = Table::read_parquet(out.join("edges.parquet")).unwrap();
    let [effects, horizon] = ["effect_mean", "horizon_9"].map(|column| edges.floats(column).unwrap());
    assert!(effects.iter().zip(horizon).all(|(a, b)| (a.unwrap() - b.unwrap()).abs() < 1e-4));
}

#[test]
fn circuits_of_prompts_of_other_lengths_keep_all_of_the_gap_with_all_edges() {
    let (bench, model, prompts) = (Bench::new(), open("llama"), prompts("llama"));
    let (pairs, out) = (pairs_file(&bench, &prompts), bench.out("circuit"));
    command("circuit", &pairs, &out, &[]).refused(&["\"p0\"", "--align"]);
    let few = ["--align", "--random", "1", "--resamples", "5", "--minimality", "0"];
    command("circuit", &pairs, &out, &few).done();
    let curve = Table::read_parquet(out.join("curve.parquet")).unwrap();
    let [fractions, kept, metrics] =
        ["fraction", "faithfulness", "metric_mean"].map(|column| curve.floats(column).unwrap());
    let edges = curve.ints("edges").unwrap();
    for i in (0..curve.rows()).filter(|i| fractions[*i] == Some(1.0)) {
        assert!((kept[i].unwrap() - 1.0).abs() < 1e-9);
    }
    // Without any edge the logits read the other run's stream: all that was taken before comes to nothing more.
    let (mut plan, mut asked) = (Plan::default(), Vec::new());
    for ids in [[&prompts[0][..], &prompts[1]], [&prompts[0][1..], &prompts[1][1..]]] {
        let [base, donor] = ids.map(|ids| plan.prompt("p", ids.to_vec()));
        let (edges, positions) = (EdgeSet::AllBut(Vec::new().into()), Positions::All);
        let alignment = align(ids[0], ids[1]).into_iter().collect();
        let taken = plan.exchange(base, Exchange { donor, edges, positions, alignment });
        asked.push([taken, donor].map(|run| plan.read(run, metric())));
    }
    let readings = read(&model, &plan, Engine::Full);
    let [taken, other] = [0, 1].map(|k| asked.iter().map(|pair| readings[pair[k]]).sum::<f64>() / 2.0);
    let none = (0..curve.rows()).find(|i| edges[*i] == 0).expect("a circuit of no edge");
    assert!((metrics[none].unwrap() - other).abs() < 1e-4 && (taken - other).abs() < 1e-4, "{taken} {other}");
    assert!(kept[none].unwrap().abs() < 1e-4);
    let begins = json!({
        "id": "p2", "positive": {"ids": prompts[0]}, "negative": {"ids": prompts[0][..4]}, "answer": [11], "foil": [23],
    });
    let pairs = bench.dataset("begins.jsonl", &[begins]);
    let refused = bench.out("refused");
    command("circuit", &pairs, &refused, &["--align"]).refused(&["\"p2\"", "is the beginning of the other"]);
}

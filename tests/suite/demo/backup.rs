//! The variant whose gate has a backup (`demo:backup`): what single heads and edges do not show is found by exchanging two at once.

use super::edges::{assert_found, built, exact_effects};
use super::{Demo, Head, mean, of_head};
use candle_core::DType;
use gatelens::analyses::inputs::{PairArgs, PairFile};
use gatelens::analyses::interactions::{Interactions, PairOfHeadsRow, Shapley};
use gatelens::analyses::interchange::Direction;
use gatelens::demo;
use gatelens::plan::{Alignment, Change, Exchange, Graph, Plan, Positions};
use gatelens::study::{self, Study};
use gatelens::table::rows::Row;

#[derive(serde::Deserialize)]
struct Circuit {
    gate: [Head; 1],
    backup: [Head; 1],
    conjunction: [Head; 2],
    amplifiers: Vec<Head>,
}

fn circuit() -> Circuit {
    serde_json::from_slice(demo::file("backup/circuit.json").expect("the circuit")).expect("JSON")
}

fn open() -> Demo {
    Demo::open_variant(demo::BACKUP, DType::F32)
}

fn pairs(max_pairs: u32) -> PairArgs {
    let pairs = demo::folder().expect("the demo's files").join("pairs.jsonl");
    PairArgs { file: PairFile { max_pairs: Some(max_pairs), ..PairFile::from(pairs) }, ..PairArgs::default() }
}

/// Interactions of the strongest heads, and of the circuit's where these are not among them.
fn interactions(direction: Direction) -> Vec<Found> {
    let Circuit { gate, backup, conjunction, amplifiers } = circuit();
    let mut heads: Vec<Head> = [&gate[..], &backup, &conjunction, &amplifiers].concat();
    // Others in every layer.
    let others = (0..8).map(|layer| (layer, (3 * layer) % 8)).filter(|head| !heads.contains(head)).collect::<Vec<_>>();
    heads.extend(others);
    let named = heads.iter().map(|(layer, head)| format!("L{layer}.H{head}").parse().expect("a head")).collect();
    let study = Study::open(demo::BACKUP).expect("the model");
    let parameters =
        Interactions { pairs: pairs(32), heads: named, direction, shapley: Shapley::None, ..Interactions::default() };
    let tables = study::run(&parameters, &study).expect("interactions").tables;
    let rows = PairOfHeadsRow::read(&tables[0]).expect("rows");
    let head = |layer: i64, head: i64| (layer as usize, head as usize);
    let found = |row: &PairOfHeadsRow| Found {
        heads: [head(row.layer_a, row.head_a), head(row.layer_b, row.head_b)],
        q: row.q_value.expect("a q-value"),
        share: row.share.value.expect("a share"),
        // As shares of the gap, too.
        alone: [row.effect_a, row.effect_b].map(|effect| effect.expect("an effect")),
        both: row.effect_both.expect("an effect"),
    };
    rows.iter().map(found).collect()
}

/// Two heads and what their exchange does.
#[derive(Debug)]
struct Found {
    heads: [Head; 2],
    q: f64,
    share: f64,
    alone: [f64; 2],
    both: f64,
}

fn of(found: &[Found], mut heads: [Head; 2]) -> &Found {
    heads.sort_unstable();
    found.iter().find(|row| row.heads == heads).expect("a row")
}

#[test]
fn interactions_name_the_backup_and_the_conjunction_and_no_others_but_along_one_path() {
    let Circuit { gate: [gate], backup: [backup], conjunction, amplifiers } = circuit();
    // What feeds what.
    let on_one_path = |heads: [Head; 2]| {
        let gates = [gate, backup];
        heads.iter().any(|head| gates.contains(head)) && heads.iter().any(|head| amplifiers.contains(head))
    };
    for direction in [Direction::Necessity, Direction::Sufficiency] {
        let found = interactions(direction);
        let gates = of(&found, [gate, backup]);
        let both = of(&found, conjunction);
        assert!(both.q < 0.01 && both.share.abs() > 0.2, "{both:?}");
        match direction {
            // The loss of either is made up for, in part; each of the two others is needed.
            Direction::Necessity => {
                assert!(gates.q < 0.01 && gates.share > 0.2, "{gates:?}");
                assert!(
                    both.share < 0.0 && both.alone.iter().all(|alone| (alone / both.both - 1.0).abs() < 0.1),
                    "{both:?}"
                );
            }
            // Neither does anything alone.
            Direction::Sufficiency => {
                assert!(
                    both.share > 0.0 && both.alone.iter().all(|alone| (alone / both.both).abs() < 0.05),
                    "{both:?}"
                );
            }
        }
        let named = [gates.heads, both.heads];
        for row in found.iter().filter(|row| !named.contains(&row.heads) && !on_one_path(row.heads)) {
            assert!(row.share.abs() < 0.05, "{direction:?}: {row:?}");
        }
    }
}

#[test]
fn the_backup_takes_over_where_the_gate_is_silent() {
    let demo = open();
    let Circuit { gate: [gate], backup: [backup], .. } = circuit();
    let mut plan = Plan::default();
    for pair in demo.pairs.items.iter().step_by(5) {
        let base = plan.prompt(&pair.id, demo.ids(&pair.positive));
        let donor = plan.prompt(&pair.id, demo.ids(&pair.negative));
        let swapped = |heads: &[Head]| heads.iter().map(|head| of_head(*head, Change::interchange(donor))).collect();
        let sets: [Vec<_>; 3] = [swapped(&[gate]), swapped(&[backup]), swapped(&[gate, backup])];
        let forks = sets.map(|edits| plan.fork(base, edits));
        for run in [base, donor].into_iter().chain(forks) {
            plan.read(run, demo.metric());
        }
    }
    let metrics = demo.numbers(&plan);
    let of = |k: usize| mean(metrics.chunks_exact(5).map(|pair| pair[k]));
    let share = |k: usize| (of(k) - of(0)) / (of(1) - of(0));
    assert!(of(0) > 4.0 && of(1) < -4.0, "it refuses {} and answers {}", of(0), of(1));
    let [gate, backup, both] = [2, 3, 4].map(share);
    assert!(gate > 0.2 && gate < 0.4 && backup.abs() < 0.02 && both > 1.7 * gate, "{gate} {backup} {both}");
}

#[test]
fn exact_effects_find_the_gates_edges() {
    assert_found(&exact_effects(demo::BACKUP, 2), &built(&open(), "backup/edges.json"));
}

#[test]
fn exact_effects_without_the_gate_find_those_of_its_backup() {
    let demo = open();
    assert_found(&without_gate(&demo, 2), &built(&demo, "backup/edges-silenced.json"));
}

/// The size of the mean effect of every edge in runs in which the gate is what it is in the negative prompt.
fn without_gate(demo: &Demo, pairs: usize) -> Vec<(String, f64)> {
    let Circuit { gate: [gate], .. } = circuit();
    let edges: Vec<_> = Graph::of(&demo.model.decoder.arch).edges().collect();
    let mut sums = vec![0.0; edges.len()];
    for pair in demo.pairs.items.iter().step_by(demo.pairs.items.len() / pairs) {
        let mut plan = Plan::default();
        let base = plan.prompt(&pair.id, demo.ids(&pair.positive));
        let donor = plan.prompt(&pair.id, demo.ids(&pair.negative));
        let silenced = plan.fork(base, vec![of_head(gate, Change::interchange(donor))]);
        plan.read(silenced, demo.metric());
        for edge in &edges {
            let edges = std::iter::once(*edge).collect();
            let fork = plan
                .exchange(silenced, Exchange { donor, edges, positions: Positions::All, alignment: Alignment::Same });
            plan.read(fork, demo.metric());
        }
        let metrics = demo.numbers(&plan);
        sums.iter_mut().zip(&metrics[1..]).for_each(|(sum, metric)| *sum += metric - metrics[0]);
    }
    edges.iter().zip(sums).map(|(edge, sum)| (edge.to_string(), sum.abs())).collect()
}

//! Interactions and Shapley values of heads: against the definitions, computed set by set with the plain engine.

use crate::support::cli::{Bench, gatelens, pair};
use crate::support::{Golden, family_dir, open};
use gatelens::analyses::heads::Head;
use gatelens::analyses::interactions::{Interactions, Shapley};
use gatelens::analyses::interchange::Direction;
use gatelens::dataset::{Input, Pair};
use gatelens::model::Model;
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions};
use gatelens::run::{Engine, Options, run};
use gatelens::site::SiteKind;
use gatelens::study::{self, Study};
use gatelens::table::Table;
use serde_json::Value;

/// Heads of three layers, two of them of one.
const HEADS: [(usize, usize); 4] = [(0, 1), (1, 0), (1, 2), (2, 3)];

fn pairs(golden: &Golden) -> Vec<Pair> {
    let ids = |name: &str, i: usize| Input::Ids(golden.ids(name, i));
    let pair = |i| Pair::new(ids("input_ids", i), ids("donor_ids", i)).answer([11]).foil([23]);
    vec![pair(0), pair(1)]
}

fn heads(list: &[(usize, usize)]) -> Vec<Head> {
    list.iter().map(|(layer, head)| Head { layer: *layer, head: *head }).collect()
}

fn found(interactions: &Interactions, family: &str) -> Vec<Table> {
    let study = Study::open(family_dir(family).to_str().unwrap()).unwrap();
    study::run(interactions, &study).unwrap_or_else(|e| panic!("{family}: {e}")).tables
}

fn table<'a>(tables: &'a [Table], name: &str) -> &'a Table {
    tables.iter().find(|table| table.name() == name).unwrap_or_else(|| panic!("no table {name}"))
}

fn floats(table: &Table, column: &str) -> Vec<f64> {
    table.floats(column).unwrap().iter().map(|x| x.unwrap_or_else(|| panic!("{column} is empty"))).collect()
}

/// The effect of exchanging a set of the heads (a bit each, the first the lowest), by a fork of the base with an edit a head.
fn effect(model: &Model, golden: &Golden, i: usize, set: usize, direction: Direction, positions: &Positions) -> f64 {
    let mut plan = Plan::default();
    let runs = ["input_ids", "donor_ids"].map(|name| plan.prompt(name, golden.ids(name, i)));
    let (base, donor) = (runs[direction as usize], runs[1 - direction as usize]);
    let edit = |(layer, head): (usize, usize)| Edit {
        site: SiteKind::Z.at(layer),
        part: Part::Heads(vec![head]),
        positions: positions.clone(),
        change: Change::interchange(donor),
    };
    let members = (0..HEADS.len()).filter(|k| set & (1 << k) != 0);
    let fork = plan.fork(base, members.map(|k| edit(HEADS[k])).collect());
    let asked = [base, fork].map(|run| plan.read(run, Metric::logit_difference(vec![11], vec![23])));
    let options = Options { engine: Engine::Full, ..Options::default() };
    let readings = run(&model.decoder, &plan, &options).expect("readings");
    readings[asked[1]] - readings[asked[0]]
}

/// Every order of `n` things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let with =
        |order: &Vec<usize>| (0..n).map(|at| [&order[..at], &[n - 1], &order[at..]].concat()).collect::<Vec<_>>();
    orders(n - 1).iter().flat_map(with).collect()
}

#[test]
fn interactions_and_exact_shapley_values_are_those_of_the_definitions() {
    for (family, direction, position, positions) in [
        ("llama", Direction::Necessity, "last", Positions::Last),
        ("llama", Direction::Sufficiency, "all", Positions::All),
        ("gemma2", Direction::Necessity, "-2", Positions::At(vec![])),
    ] {
        let (model, golden) = (open(family), Golden::of(family));
        let length = golden.ids("input_ids", 0).len();
        let positions = if let Positions::At(_) = positions { Positions::At(vec![length - 2]) } else { positions };
        let value = |set: usize| -> f64 {
            (0..2).map(|i| effect(&model, &golden, i, set, direction, &positions)).sum::<f64>() / 2.0
        };
        let values: Vec<f64> = (0..1 << HEADS.len()).map(value).collect();
        let interactions = Interactions {
            pairs: pairs(&golden).into(),
            heads: heads(&[HEADS[3], HEADS[1], HEADS[0], HEADS[2]]),
            direction,
            position: position.parse().unwrap(),
            ..Interactions::default()
        };
        let tables = found(&interactions, family);
        let of_pairs = table(&tables, "pairs_of_heads");
        let [a, b, both, mean] =
            ["effect_a", "effect_b", "effect_both", "interaction_mean"].map(|column| floats(of_pairs, column));
        let mut row = 0;
        let largest = values.iter().fold(0f64, |most, v| most.max(v.abs()));
        assert!(largest > 0.01, "{family}: the heads do something: {largest}");
        for i in 0..HEADS.len() {
            for j in i + 1..HEADS.len() {
                let [one, other, together] = [1 << i, 1 << j, 1 << i | 1 << j].map(|set: usize| values[set]);
                for (found, expected) in
                    [(a[row], one), (b[row], other), (both[row], together), (mean[row], together - one - other)]
                {
                    assert!((found - expected).abs() < 1e-4, "{family} {i} {j}: {found} {expected}");
                }
                row += 1;
            }
        }
        assert_eq!(of_pairs.rows(), row);
        let shapley = table(&tables, "shapley");
        let found = floats(shapley, "value_mean");
        let orders = orders(HEADS.len());
        assert_eq!(orders.len(), 24);
        for (k, found) in found.iter().enumerate() {
            let adds = |order: &Vec<usize>| {
                let before = order.iter().take_while(|other| **other != k).fold(0, |set, other| set | 1 << other);
                values[before | 1 << k] - values[before]
            };
            let expected = orders.iter().map(adds).sum::<f64>() / 24.0;
            assert!((found - expected).abs() < 1e-4, "{family} {k}: {found} {expected}");
        }
        let all = values[values.len() - 1];
        assert!((found.iter().sum::<f64>() - all).abs() < 1e-4, "{family}: values add up to {all}");
        assert!(shapley.floats("standard_error").unwrap().iter().all(Option::is_none), "all sets were run");
        assert_eq!(shapley.strs("writer").unwrap(), ["a0.h1", "a1.h0", "a1.h2", "a2.h3"]);
        assert_eq!(shapley.ints("coalitions").unwrap(), [15; 4]);
    }
}

#[test]
fn sampled_shapley_values_add_up_too_and_are_near_the_exact_ones() {
    let golden = Golden::of("llama");
    let of = |shapley| Interactions {
        pairs: pairs(&golden).into(),
        heads: heads(&HEADS),
        shapley,
        permutations: 300,
        ..Interactions::default()
    };
    let [exact, sampled] = [Shapley::Exact, Shapley::Sampled].map(|shapley| found(&of(shapley), "llama"));
    let values = |tables: &[Table]| floats(table(tables, "shapley"), "value_mean");
    let (of_all, of_orders) = (values(&exact), values(&sampled));
    assert!((of_all.iter().sum::<f64>() - of_orders.iter().sum::<f64>()).abs() < 1e-6);
    let errors = floats(table(&sampled, "shapley"), "standard_error");
    for ((exact, sampled), error) in of_all.iter().zip(&of_orders).zip(errors) {
        assert!((exact - sampled).abs() < 4.0 * error + 1e-5, "{exact} {sampled} {error}");
    }
    assert!(table(&exact, "pairs_of_heads") == table(&sampled, "pairs_of_heads"), "the way changes no interaction");
    assert!(found(&of(Shapley::None), "llama").iter().all(|table| table.name() != "shapley"));
}

#[test]
fn without_named_heads_those_are_taken_whose_own_exchange_does_most() {
    let golden = Golden::of("llama");
    let bench = Bench::new();
    let line = |i: usize| pair(&i.to_string(), &golden.ids("input_ids", i), &golden.ids("donor_ids", i));
    let file = bench.dataset("pairs.jsonl", &[line(0), line(1)]);
    let model = family_dir("llama");
    let singles = bench.out("singles");
    bench.interchange_to(&singles, &model, &file, &["--direction", "sufficiency"]).done();
    let singles = Table::read_parquet(singles.join("heads.parquet")).unwrap();
    let mut order: Vec<usize> = (0..singles.rows()).collect();
    let effects = floats(&singles, "effect_mean");
    order.sort_by(|a, b| effects[*b].abs().total_cmp(&effects[*a].abs()));
    let mut expected: Vec<(i64, i64)> =
        order[..3].iter().map(|k| (singles.ints("layer").unwrap()[*k], singles.ints("head").unwrap()[*k])).collect();
    expected.sort_unstable();
    let run = bench.out("run");
    let args =
        ["interactions", model.to_str().unwrap(), "--pairs", file.to_str().unwrap(), "--out", run.to_str().unwrap()];
    let said = gatelens(args.into_iter().chain(["--top", "3", "--direction", "sufficiency"])).done();
    assert!(said.contains("strongest interactions, sufficiency:"), "{said}");
    let shapley = Table::read_parquet(run.join("shapley.parquet")).unwrap();
    let found: Vec<(i64, i64)> =
        shapley.ints("layer").unwrap().iter().copied().zip(shapley.ints("head").unwrap().iter().copied()).collect();
    assert_eq!(found, expected);
    let alone = floats(&shapley, "effect_alone");
    for (k, (layer, head)) in found.iter().enumerate() {
        let at = |row: &usize| {
            singles.ints("layer").unwrap()[*row] == *layer && singles.ints("head").unwrap()[*row] == *head
        };
        let row = (0..singles.rows()).find(at).unwrap();
        assert!((alone[k] - effects[row]).abs() < 1e-5);
    }
    for file in
        ["pairs_of_heads.parquet", "interactions.png", "strongest.png", "shapley.png", "report.md", "report.html"]
    {
        assert!(run.join(file).is_file(), "{file}");
    }
    let report = std::fs::read_to_string(run.join("report.md")).unwrap();
    assert!(report.contains("whose own exchange moves the metric") && report.contains("too few to tell"), "{report}");
    let record: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["parameters"]["top"], 3);
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_would_mend_it() {
    let golden = Golden::of("llama");
    let bench = Bench::new();
    let line = pair("0", &golden.ids("input_ids", 0), &golden.ids("donor_ids", 0));
    let file = bench.dataset("pairs.jsonl", &[line]);
    let model = family_dir("llama");
    let out = bench.out("run");
    let run = |more: &[&str]| {
        let args = [
            "interactions",
            model.to_str().unwrap(),
            "--pairs",
            file.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        gatelens(args.into_iter().chain(more.iter().copied()))
    };
    run(&["--heads", "L0.H1"]).refused(&["--heads", "name another"]);
    run(&["--heads", "L0.H1,L99.H0"]).refused(&["--heads", "L99.H0 is not in this model"]);
    run(&["--heads", "L0.H1,L0.H1"]).refused(&["--heads", "names L0.H1 twice"]);
    run(&["--heads", "0.1"]).told_by_the_parser(&["write L14.H5"]);
    let out_arg = out.to_str().unwrap();
    let of_demo =
        ["interactions", "demo", "--pairs", "demo:pairs.jsonl", "--top", "17", "--shapley", "exact", "--out", out_arg];
    gatelens(of_demo).refused(&["--shapley exact", "16 heads at most", "--shapley sampled"]);
    run(&["--top", "1"]).told_by_the_parser(&["2 to 64"]);
    assert_eq!(bench.written(), [""; 0]);
}

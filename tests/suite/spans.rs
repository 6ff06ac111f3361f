//! Named parts of prompts: interchange at each of them is interchange at its positions, over the pairs that have it.

use crate::support::cli::{Bench, Ended, gatelens, pair};
use crate::support::{Golden, family_dir};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Three pairs of prompts as long as each other.
fn pairs(spans: [Value; 3]) -> Vec<Value> {
    let golden = Golden::of("llama");
    let prompts = [golden.ids("input_ids", 0), golden.ids("donor_ids", 0), golden.ids("input_ids", 1)];
    let one = |(i, spans): (usize, Value)| {
        let mut pair = pair(&format!("p{i}"), &prompts[i], &prompts[(i + 1) % 3]);
        pair["spans"] = spans;
        pair
    };
    spans.into_iter().enumerate().map(one).collect()
}

fn run(bench: &Bench, name: &str, lines: &[Value], more: &[&str]) -> Ended {
    let pairs = bench.dataset(&format!("{name}.jsonl"), lines);
    bench.interchange_to(&bench.out(name), &family_dir("llama"), &pairs, more)
}

/// By position, layer, head and direction: the number of pairs and the mean effect.
fn effects(bench: &Bench, name: &str) -> BTreeMap<(String, i64, i64, String), (i64, f64)> {
    let heads = Table::read_parquet(bench.out(name).join("heads.parquet")).unwrap();
    let (places, directions) = (heads.strs("position").unwrap(), heads.strs("direction").unwrap());
    let (layers, numbers, n) = (heads.ints("layer").unwrap(), heads.ints("head").unwrap(), heads.ints("n").unwrap());
    let effects = heads.floats("effect_mean").unwrap();
    let row = |i: usize| {
        ((places[i].to_string(), layers[i], numbers[i], directions[i].to_string()), (n[i], effects[i].unwrap()))
    };
    (0..heads.rows()).map(row).collect()
}

#[test]
fn each_span_has_rows_of_its_own_over_the_pairs_that_have_it() {
    let bench = Bench::new();
    let lines = pairs([json!({"S": [1], "END": [-1]}), json!({"END": [-1], "S": [-4]}), json!({"S": [3]})]);
    let said = run(&bench, "by-span", &lines, &["--by-span"]).done();
    assert!(said.contains("strongest, necessity at S:") && said.contains("strongest, sufficiency at END:"), "{said}");
    let found = effects(&bench, "by-span");
    // END is the last position of the first two pairs.
    run(&bench, "last", &lines[..2], &[]).done();
    let last = effects(&bench, "last");
    for ((_, layer, head, direction), expected) in &last {
        assert_eq!(&found[&("END".to_string(), *layer, *head, direction.clone())], expected);
    }
    // S is at a position of its own in every pair: its mean effect is that of three runs.
    let alone = |i: usize, at: &str| {
        let name = format!("alone-{i}");
        run(&bench, &name, &lines[i..=i], &["--position", at]).done();
        effects(&bench, &name)
    };
    let alone = [("1", 0), ("-4", 1), ("3", 2)].map(|(at, i)| (at, alone(i, at)));
    for (_, layer, head, direction) in last.keys() {
        let of = |(at, of): &(&str, BTreeMap<_, (i64, f64)>)| of[&(at.to_string(), *layer, *head, direction.clone())].1;
        let expected = alone.iter().map(of).sum::<f64>() / 3.0;
        let (n, effect) = found[&("S".to_string(), *layer, *head, direction.clone())];
        assert!(n == 3 && (effect - expected).abs() < 1e-6, "L{layer}.H{head}: {effect}, {expected}");
    }
    assert_eq!(found.len(), 2 * last.len());
}

#[test]
fn figures_report_and_the_table_of_pairs_name_the_span() {
    let bench = Bench::new();
    let mut lines = pairs([json!({"S": [1], "END": [-1]}), json!({"END": [-1], "S": [2]}), json!({"S": [3]})]);
    lines.iter_mut().zip(["a", "b", "b"]).for_each(|(line, group)| line["group"] = json!(group));
    run(&bench, "run", &lines, &["--by-span"]).done();
    let run = bench.out("run");
    for name in ["necessity-S", "necessity-END", "sufficiency-S", "sufficiency-END", "forest-S", "halves-END"] {
        assert!(run.join(format!("{name}.png")).is_file(), "{name}");
    }
    let report = std::fs::read_to_string(run.join("report.md")).unwrap();
    for part in [
        "Necessity at S",
        "Sufficiency at END",
        "necessity-S.png",
        "Intervals at END",
        "| group | b | necessity | END | 1 |",
    ] {
        assert!(report.contains(part), "no {part} in {report}");
    }
    let pairs = Table::read_parquet(run.join("pairs.parquet")).unwrap();
    let at = |place: &str| pairs.strs("position").unwrap().iter().filter(|of| **of == place).count();
    assert_eq!((at("S"), at("END"), at("S") * 2), (pairs.rows() / 5 * 3, pairs.rows() / 5 * 2, at("END") * 3));
    let groups = Table::read_parquet(run.join("groups.parquet")).unwrap();
    let (values, places, n) =
        (groups.strs("value").unwrap(), groups.strs("position").unwrap(), groups.ints("n").unwrap());
    let of =
        |value: &str, place: &str| (0..groups.rows()).find(|i| values[*i] == value && places[*i] == place).unwrap();
    assert_eq!([("a", "S"), ("b", "S"), ("b", "END")].map(|(value, place)| n[of(value, place)]), [1, 2, 1]);
    let again = bench.out("report");
    gatelens(["report", run.to_str().unwrap(), "--out", again.to_str().unwrap()]).done();
}

#[test]
fn a_run_at_one_position_has_no_column_of_spans_in_its_table_of_pairs() {
    let bench = Bench::new();
    run(&bench, "run", &pairs([json!({"S": [1]}), json!(null), json!({})]), &[]).done();
    let pairs = Table::read_parquet(bench.out("run").join("pairs.parquet")).unwrap();
    assert!(pairs.columns().all(|column| column.name != "position"));
}

#[test]
fn spans_that_are_none_are_refused_before_anything_is_computed() {
    let (bench, none) = (Bench::new(), json!({}));
    let lines = pairs([none.clone(), json!({"S": [99]}), none.clone()]);
    let parts = ["line 2", "field \"spans\" of \"p1\"", "S has position 99", "the positive prompt has"];
    run(&bench, "far", &lines, &[]).refused(&parts);
    let lines = pairs([none.clone(), none.clone(), none.clone()]);
    run(&bench, "none", &lines, &["--by-span"]).refused(&["none.jsonl", "no pair has \"spans\"", "\"END\": [-1]"]);
    let mut lines = pairs([none.clone(), json!({"S": [1]}), none]);
    let shorter = lines[1]["negative"]["ids"].as_array_mut().unwrap().pop().is_some();
    assert!(shorter);
    run(&bench, "uneven", &lines, &["--by-span"]).refused(&["line 2", "\"p1\"", "as many", "gatelens tokens"]);
    // Where no span is asked for, lengths do not matter.
    run(&bench, "last", &lines, &["--direction", "necessity"]).done();
    for flags in [["--position", "1"], ["--estimate", "gradient"]] {
        run(&bench, "both", &lines, &[&["--by-span"], &flags[..]].concat())
            .told_by_the_parser(&["--by-span", flags[0]]);
    }
}

#[test]
fn runs_by_span_are_not_compared_as_if_they_were_at_one_position() {
    let bench = Bench::new();
    let lines = pairs([json!({"S": [1]}), json!({"S": [1]}), json!({"S": [1]})]);
    ["a", "b"].iter().for_each(|name| drop(run(&bench, name, &lines, &["--by-span"]).done()));
    let [a, b, out] = ["a", "b", "compared"].map(|name| bench.out(name).to_str().unwrap().to_string());
    gatelens(["compare", &a, &b, "--out", &out]).refused(&["--by-span", "--position"]);
}

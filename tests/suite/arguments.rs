//! Flags and files of analyses that do not go together: each is refused, with what would mend it, before anything is computed.

use crate::support::cli::{Bench, Ended, gatelens};
use serde_json::{Value, json};
use std::path::Path;

/// Examples that differ, so many in each of so many groups.
fn examples(label: &str, groups: usize, of_each: usize) -> Vec<Value> {
    let of = |g: usize, i: usize| {
        let ids = [label.len(), 10 + g, 60 + i];
        json!({ "id": format!("{label}-{g}-{i}"), "group": format!("{label} {g}"), "prompt": { "ids": ids } })
    };
    (0..groups).flat_map(|g| (0..of_each).map(move |i| (g, i))).map(|(g, i)| of(g, i)).collect()
}

fn cav(concept: &Path, random: &Path, more: &[&str]) -> Ended {
    let files = ["--concept", concept.to_str().unwrap(), "--random", random.to_str().unwrap()];
    gatelens([&["cav", "demo", "--dry-run"], &files[..], more].concat())
}

fn steer(more: &[&str]) -> Ended {
    let words = ["steer", "demo", "--prompts", "demo:prompts.jsonl", "--dry-run", "--pairs", "demo:pairs.jsonl"];
    gatelens([&words[..], more].concat())
}

#[test]
fn too_few_groups_to_hold_out_are_said_before_anything_is_computed() {
    let bench = Bench::new();
    let (two, many) = (examples("ship", 2, 10), examples("birch", 20, 2));
    let (two, many) = (bench.dataset("two.jsonl", &two), bench.dataset("many.jsonl", &many));
    let parts = ["two.jsonl", "20 examples are of the concept, of 2 group(s)", "\"group\"", "3 groups on each side"];
    cav(&two, &many, &[]).refused(&parts);
    cav(&many, &two, &[]).refused(&["20 examples are random, of 2 group(s)"]);
    cav(&two, &many, &["--method", "mean"]).done();
}

#[test]
fn too_few_examples_for_tcav_are_said_before_anything_is_computed() {
    let bench = Bench::new();
    let concept = bench.dataset("concept.jsonl", &examples("ship", 14, 1));
    let random = bench.dataset("random.jsonl", &examples("birch", 45, 1));
    let class = ["--class", "demo:prompts.jsonl"];
    cav(&concept, &random, &class).refused(&["5 runs of 3 examples", "there are 14 and 45"]);
    cav(&concept, &random, &[]).done();
    cav(&random, &concept, &["--runs", "10"]).refused(&["--class"]);
}

#[test]
fn a_prompt_that_is_an_example_twice_is_named_by_file_and_line() {
    let bench = Bench::new();
    let (mut some, others) = (examples("ship", 5, 2), examples("birch", 5, 2));
    some.push(json!({ "id": "0", "prompt": others[3]["prompt"] }));
    let (some, others) = (bench.dataset("some.jsonl", &some), bench.dataset("others.jsonl", &others));
    let parts =
        ["others.jsonl: line 4: field \"prompt\" of \"birch-1-1\"", "some.jsonl: line 11 (\"0\")", "leave one out"];
    cav(&some, &others, &[]).refused(&parts);
}

#[test]
fn a_layer_is_given_where_the_site_has_layers_and_nowhere_else() {
    let bench = Bench::new();
    let some = bench.dataset("some.jsonl", &examples("ship", 5, 2));
    let others = bench.dataset("others.jsonl", &examples("birch", 5, 2));
    cav(&some, &others, &["--site", "final_norm", "--layers", "3"]).refused(&["--layers: final_norm is in no layer"]);
    cav(&some, &others, &["--site", "final_norm"]).done();
    steer(&["--from", "caa", "--site", "embed", "--layer", "9"]).refused(&["--layer: embed is in no layer"]);
    steer(&["--from", "caa"]).refused(&["--layer is missing: resid_post is in every layer"]);
    steer(&["--from", "caa", "--site", "embed"]).done();
}

#[test]
fn what_only_another_flag_gives_a_meaning_needs_that_flag() {
    steer(&["--from", "caa", "--layer", "4", "--generate-controls", "2"]).refused(&["--generate"]);
    let vector = ["--vector", "v.safetensors", "--vector-position", "-2", "--layer", "4"];
    gatelens([&["steer", "demo", "--prompts", "demo:prompts.jsonl", "--dry-run"], &vector[..]].concat())
        .refused(&["--vector"]);
    steer(&["--from", "caa", "--select", "2"]).refused(&["--from mean"]);
    steer(&["--from", "mean", "--select", "2", "--layer", "4"]).refused(&["--layer"]);
    steer(&["--from", "mean", "--select", "2", "--site", "resid_post"]).refused(&["leave --site out"]);
    steer(&["--from", "mean", "--select", "2"]).done();
    steer(&["--from", "caa", "--layer", "4", "--vector-position", "all"]).refused(&["made at one position"]);
    steer(&["--from", "caa", "--layer", "4", "--vector-position", "500"]).refused(&["line 1", "no position 500"]);
}

#[test]
fn a_probability_is_asked_for_at_the_position_where_the_classifier_was_fitted() {
    let gcav = |more: &[&str]| steer(&[&["--from", "cav", "--layer", "4", "--gcav", "0.9"], more].concat());
    gcav(&["--position", "3"]).refused(&["--gcav at --position 3", "fitted at position last"]);
    gcav(&["--position", "all"]).refused(&["--gcav at --position all"]);
    gcav(&["--position", "3", "--vector-position", "3"]).done();
    gcav(&["--position", "-1"]).done();
    steer(&["--from", "caa", "--layer", "4", "--gcav", "0.9"]).refused(&["--gcav needs a logistic classifier"]);
}

#[test]
fn heads_of_a_circuit_file_that_the_model_has_not_are_said_of_the_file() {
    let bench = Bench::new();
    let run = |circuit: &Path| {
        let words = ["cascade", "demo", "--pairs", "demo:pairs.jsonl", "--dry-run", "--circuit"];
        gatelens([&words[..], &[circuit.to_str().unwrap()]].concat())
    };
    run(&bench.text("far.json", "{\"gate\": [[99, 0]]}")).refused(&["far.json: L99.H0 is not in this model"]);
    run(&bench.text("twice.json", "{\"gate\": [[1, 2], [1, 2]]}")).refused(&["twice.json: names L1.H2 twice"]);
    let other = run(&bench.text("other.json", "{\"model\": \"another\", \"gate\": [[1, 2]]}"));
    assert!(other.stderr.contains("found in another; they are used in demo"), "{}", other.stderr);
    other.done();
}

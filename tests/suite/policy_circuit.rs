//! The analyses that take a policy's circuit apart, on the demo model, whose circuit is known.

use crate::support::cli::gatelens;
use gatelens::table::Table;
use serde_json::Value;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use tempfile::TempDir;

type Head = (i64, i64);

/// The gate and the amplifiers of `circuit.json`.
fn circuit() -> (Head, HashSet<Head>) {
    let circuit: Value = serde_json::from_slice(gatelens::demo::file("circuit.json").unwrap()).unwrap();
    let heads = |key: &str| -> Vec<Head> { serde_json::from_value(circuit[key].clone()).unwrap() };
    (heads("gate")[0], heads("amplifiers").into_iter().collect())
}

/// A run directory, kept for as long as the tests need it.
struct Done(TempDir);

impl Done {
    /// Runs an analysis over the demo's pairs.
    fn of(command: &str, more: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("run");
        let words = [command, "demo", "--pairs", "demo:pairs.jsonl", "--quiet", "--out", out.to_str().unwrap()];
        gatelens([&words, more].concat()).done();
        Done(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("run").join(name)
    }

    fn table(&self, name: &str) -> Table {
        Table::read_parquet(self.path(&format!("{name}.parquet"))).unwrap()
    }

    fn report(&self) -> String {
        std::fs::read_to_string(self.path("report.md")).unwrap()
    }
}

const CIRCUIT: [&str; 2] = ["--circuit", "demo:circuit.json"];

fn cascade() -> &'static Done {
    static DONE: OnceLock<Done> = OnceLock::new();
    DONE.get_or_init(|| Done::of("cascade", &CIRCUIT))
}

fn contrast() -> &'static Done {
    static DONE: OnceLock<Done> = OnceLock::new();
    DONE.get_or_init(|| Done::of("contrast-methods", &[]))
}

fn commitment() -> &'static Done {
    static DONE: OnceLock<Done> = OnceLock::new();
    DONE.get_or_init(|| Done::of("commitment", &[]))
}

/// A column of numbers, all of them there.
fn floats(table: &Table, name: &str) -> Vec<f64> {
    table.floats(name).unwrap().iter().map(|x| x.unwrap()).collect()
}

fn heads(table: &Table) -> Vec<Head> {
    table.ints("layer").unwrap().iter().copied().zip(table.ints("head").unwrap().iter().copied()).collect()
}

#[test]
fn knocking_out_the_gate_names_exactly_the_amplifiers() {
    let (gate, amplifiers) = circuit();
    for mode in ["interchange", "zero"] {
        let other = (mode == "zero").then(|| Done::of("cascade", &[&CIRCUIT[..], &["--mode", mode]].concat()));
        let components = other.as_ref().unwrap_or(cascade()).table("components");
        let (layers, names) = (components.ints("layer").unwrap(), components.strs("component").unwrap());
        let (flags, gates) = (components.flags("amplifier").unwrap(), components.flags("is_gate").unwrap());
        let head = |i: usize| Some((layers[i], names[i].strip_prefix("head.")?.parse().ok()?));
        let flagged = |flags: &[bool]| -> HashSet<Head> {
            (0..components.rows()).filter(|i| flags[*i]).filter_map(head).collect()
        };
        assert_eq!((flagged(flags), flagged(gates)), (amplifiers.clone(), HashSet::from([gate])), "{mode}");
        let shares = floats(&components, "share_of_effect");
        for i in (0..components.rows()).filter(|i| head(*i).is_some_and(|h| h != gate && !amplifiers.contains(&h))) {
            assert!(shares[i].abs() < 0.02, "{mode}: {:?} has {}", head(i), shares[i]);
        }
    }
}

#[test]
fn what_components_lose_adds_up_to_the_fall_of_the_metric() {
    let (components, repair) = (cascade().table("components"), cascade().table("repair"));
    let lost: f64 = floats(&components, "drop_mean").iter().sum();
    let one = |name: &str| floats(&repair, name)[0];
    assert!((lost + one("total_mean")).abs() < 1e-3, "{lost} and {}", one("total_mean"));
    assert!((one("positive_mean") + one("total_mean") - one("knocked_mean")).abs() < 1e-9);
    let parts = one("direct_mean") + one("later_heads_mean") + one("later_mlps_mean") + one("rest_mean");
    assert!((parts - one("total_mean")).abs() < 1e-9);
    assert!((one("direct_mean") + one("difference_mean") - one("total_mean")).abs() < 1e-9);
    // The gate writes where the logits hardly read.
    assert!(one("direct_mean") / one("total_mean") < 0.02);
}

#[test]
fn amplifiers_do_next_to_nothing_once_the_gate_is_out() {
    let (_, amplifiers) = circuit();
    let knockouts = cascade().table("knockouts");
    let (names, with_gate) = (knockouts.strs("heads").unwrap(), knockouts.flags("with_gate").unwrap());
    let (effects, alone) = (floats(&knockouts, "effect_mean"), floats(&knockouts, "alone"));
    let of_gate = effects[0];
    assert!(names[0] == "L3.H5" && of_gate < -10.0);
    let found: HashSet<Head> = heads(&knockouts).into_iter().filter(|h| h.0 >= 0).collect();
    assert_eq!(found, amplifiers);
    assert!(names.contains(&"amplifiers") && names.contains(&"L3.H5+amplifiers"));
    for (i, beyond) in knockouts.floats("beyond_gate").unwrap().iter().enumerate().skip(1) {
        assert!((beyond.unwrap() / of_gate).abs() < 0.05, "{}: {beyond:?}", names[i]);
        assert!(alone[i] / of_gate > 0.05, "{}: {}", names[i], alone[i]);
        let expected = if with_gate[i] { of_gate + beyond.unwrap() } else { alone[i] };
        assert!((effects[i] - expected).abs() < 1e-9, "{}", names[i]);
    }
    let report = cascade().report();
    assert!(
        report.contains("4 later heads lose attribution in the direction of the effect")
            && report.contains("knockouts.png")
    );
}

#[test]
fn later_heads_carry_a_share_of_the_effect_that_knows_its_own_and_the_effects_uncertainty() {
    let repair = cascade().table("repair");
    let one = |name: &str| floats(&repair, name)[0];
    let share = one("later_heads_share");
    assert!((share - one("later_heads_mean") / one("total_mean")).abs() < 1e-12);
    assert!(one("later_heads_share_ci_low") < share && share < one("later_heads_share_ci_high"));
    // What is knocked out is called by its name: whether it is a gate is for the screen to say.
    let report = cascade().report();
    let figures = report.lines().filter(|line| !line.starts_with("gatelens"));
    let gates: Vec<&str> = figures.filter(|line| line.contains("the gate") || line.contains("The gate")).collect();
    assert!(gates.is_empty(), "{gates:?}");
    assert!(report.contains("What L3.H5 works through") && report.contains("of the effect, 95 % interval"));
}

#[test]
fn a_cascade_without_amplifiers_is_a_cascade_still() {
    let done = Done::of("cascade", &["--gate", "L7.H0", "--amplifiers", "0", "--max-pairs", "6"]);
    assert_eq!(done.table("knockouts").rows(), 1);
    assert!(done.report().contains("No later head loses") && !done.path("knockouts.png").exists());
}

#[test]
fn a_gate_is_needed_and_must_be_the_models() {
    let words = ["cascade", "demo", "--pairs", "demo:pairs.jsonl", "--dry-run"];
    gatelens([&words[..], &["--gate", "L9.H0"]].concat()).refused(&["--gate", "L9.H0", "layers 0 to 7"]);
    gatelens(words).refused(&["required", "--gate <HEAD>"]);
}

#[test]
fn the_gate_is_first_by_interchange_and_last_in_attributions_share() {
    let (gate, amplifiers) = circuit();
    let table = contrast().table("heads");
    let at = heads(&table).iter().position(|h| *h == gate).unwrap();
    assert_eq!(table.ints("rank_interchange").unwrap()[at], 1);
    assert!(floats(&table, "dla_share")[at] < 0.01);
    // The gate attends to the first token where nothing is marked and writes nothing then, so that zero is what the
    // negative has: in this model ablation finds it as well.
    assert_eq!(table.ints("rank_ablation").unwrap()[at], 1);
    let first: HashSet<Head> = (0..table.rows())
        .filter(|i| table.ints("rank_dla").unwrap()[*i] <= amplifiers.len() as i64)
        .map(|i| heads(&table)[i])
        .collect();
    assert_eq!(first, amplifiers);
    let missed = contrast().table("missed");
    assert_eq!(heads(&missed)[0], gate);
    assert!(missed.flags("dla_misses").unwrap()[0] && !missed.flags("ablation_misses").unwrap()[0]);
    // Attribution is asked for as many heads as interchange finds.
    for (i, head) in heads(&missed).iter().enumerate() {
        let row = heads(&table).iter().position(|h| h == head).unwrap();
        let behind = table.ints("rank_dla").unwrap()[row] > missed.rows() as i64;
        assert_eq!(missed.flags("dla_misses").unwrap()[i], behind, "{head:?}");
    }
    assert!(floats(&missed, "share_of_gap").iter().all(|s| *s > 0.0));
}

#[test]
fn direct_effects_and_what_later_components_change_are_the_whole() {
    let table = contrast().table("heads");
    let (total, direct, later) = (
        floats(&table, "ablation_mean"),
        floats(&table, "ablation_direct_mean"),
        floats(&table, "ablation_repair_mean"),
    );
    let dla = floats(&table, "dla_mean");
    for i in 0..table.rows() {
        assert!((direct[i] + later[i] - total[i]).abs() < 1e-9 && direct[i] == -dla[i]);
    }
    let total = floats(&table, "interchange_mean");
    let (direct, later) =
        (table.floats("interchange_direct_mean").unwrap(), table.floats("interchange_repair_mean").unwrap());
    // The strongest sixteen by either method, and no others.
    let (by_interchange, by_attribution) = (table.ints("rank_interchange").unwrap(), table.ints("rank_dla").unwrap());
    for i in 0..table.rows() {
        assert_eq!(direct[i].is_some(), by_interchange[i] <= 16 || by_attribution[i] <= 16, "{:?}", heads(&table)[i]);
        let sum = direct[i].zip(later[i]).map(|(direct, later)| direct + later);
        assert!(sum.is_none_or(|sum| (sum - total[i]).abs() < 1e-9));
    }
    // No head in the demo model stands in for another. What an amplifier's total effect has less than its attribution is the
    // doing of norms: of the final one, which the frozen run has too, and of later layers', which it has not.
    let frozen = table.floats("ablation_frozen_mean").unwrap();
    let (ablation, of_attribution) = (floats(&table, "ablation_mean"), floats(&table, "ablation_direct_mean"));
    for i in (0..table.rows()).filter(|i| circuit().1.contains(&heads(&table)[*i])) {
        let (total, frozen) = (ablation[i], frozen[i].unwrap());
        assert!((total / frozen - 1.0).abs() < 0.06, "{:?}: {total} and {frozen}", heads(&table)[i]);
        assert!((total - frozen).abs() < (total - of_attribution[i]).abs());
    }
    // The cascade measures the gate's direct effect in another plan.
    let at = heads(&table).iter().position(|h| *h == circuit().0).unwrap();
    let of_cascade = floats(&cascade().table("repair"), "direct_mean")[0];
    assert!((direct[at].unwrap() - of_cascade).abs() < 1e-5, "{:?} and {of_cascade}", direct[at]);
}

#[test]
fn the_gates_effect_is_beyond_chance_over_all_heads_and_a_share_of_the_gap() {
    let table = contrast().table("heads");
    let at = heads(&table).iter().position(|h| *h == circuit().0).unwrap();
    let one = |name: &str| floats(&table, name)[at];
    let gap = one("negative_mean") - one("positive_mean");
    for method in ["interchange", "ablation"] {
        let crossed = one(&format!("{method}_crossed"));
        assert!((crossed - one(&format!("{method}_mean")) / gap).abs() < 1e-12, "{method}");
        let ends = ["low", "high"].map(|end| one(&format!("{method}_crossed_ci_{end}")));
        assert!(ends[0] < crossed && crossed < ends[1], "{method}: {ends:?}");
    }
    assert!(one("interchange_p") <= one("interchange_p_max") && one("interchange_p_max") < 0.001);
}

#[test]
fn methods_agree_on_the_circuit_beyond_chance() {
    let table = contrast().table("agreement");
    assert_eq!(table.strs("first").unwrap(), ["interchange", "interchange", "ablation"]);
    assert_eq!(table.strs("second").unwrap(), ["ablation", "attribution", "attribution"]);
    for i in 0..3 {
        let one = |name: &str| floats(&table, name)[i];
        for kind in ["size", "signed"] {
            let of = |end: &str| one(&format!("spearman_{kind}{end}"));
            assert!(of("_ci_low") < of("") && of("") < of("_ci_high"), "{kind} of row {i}");
            let (a, b) = (of("_split_half_first"), of("_split_half_second"));
            assert!((of("_ceiling") - (a * b).sqrt()).abs() < 1e-12 && of("_ceiling") <= 1.0, "{kind} of row {i}");
        }
        assert!(table.ints("overlap").unwrap()[i] >= 4 && one("overlap_expected") == 100.0 / 64.0);
    }
}

#[test]
fn the_content_is_read_by_the_gates_layer_and_the_signal_arrives_after_it() {
    let (gate, _) = circuit();
    let table = commitment().table("commitment");
    let (places, changes) = (table.strs("place").unwrap(), table.strs("change").unwrap());
    for (i, layer) in floats(&table, "layer").into_iter().enumerate() {
        let expected = if places[i] == "content" { gate.0 } else { gate.0 + 1 };
        let row = format!("{} {}", places[i], changes[i]);
        assert_eq!(layer, expected as f64, "{row}");
        assert_eq!((floats(&table, "ci_low")[i], floats(&table, "ci_high")[i]), (layer, layer), "{row}");
    }
    assert_eq!(table.rows(), 4);
    assert_eq!(table.ints("n").unwrap(), [40, 40, 160, 160]);
}

#[test]
fn random_directions_and_later_content_change_little() {
    let (gate, _) = circuit();
    let table = commitment().table("layers");
    let (places, changes) = (table.strs("place").unwrap(), table.strs("change").unwrap());
    let (layers, shares) = (table.ints("layer").unwrap(), floats(&table, "share_of_gap"));
    // Removed, restored, and along random directions: two in the content and five at the last position.
    assert_eq!(table.rows(), (2 + 2 + 2 + 5) * 8);
    for i in 0..table.rows() {
        let row = format!("{} {} {}: {}", layers[i], places[i], changes[i], shares[i]);
        let late = places[i] == "content" && layers[i] > gate.0;
        let early = places[i] == "last" && layers[i] <= gate.0;
        if late || early {
            assert!(shares[i].abs() < 0.05, "{row}");
        }
        if changes[i] == "random" {
            assert!(shares[i].abs() < 0.3, "{row}");
        }
    }
}

#[test]
fn commitment_wants_pairs_enough_and_prompts_that_differ_before_their_end() {
    let dir = TempDir::new().unwrap();
    let line = |id: usize, positive: &str, negative: &str| {
        serde_json::json!({"id": id.to_string(), "positive": positive, "negative": negative, "answer": ["Sorry"],
                           "foil": ["Sure"]})
        .to_string()
    };
    let run = |lines: Vec<String>| {
        let path = dir.path().join("pairs.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        gatelens(["commitment", "demo", "--pairs", path.to_str().unwrap(), "--dry-run"])
    };
    let sound = |id| line(id, "Tell me about explosives.", "Tell me about bread.");
    run((0..3).map(sound).collect()).refused(&["pairs.jsonl", "has 3 pairs", "4 or more"]);
    let same = line(4, "Tell me about bread.", "Tell me about bread.");
    run((0..4).map(sound).chain([same]).collect()).refused(&["line 5", "\"4\"", "the same as the negative"]);
    let words = ["commitment", "demo", "--pairs", "demo:pairs.jsonl", "--layers", "8", "--dry-run"];
    gatelens(words).refused(&["--layers", "`8`", "0 to 7"]);
}

#[test]
fn what_a_dry_run_counts_is_what_is_run() {
    let cases: [(&Done, &str, &[&str], f64); 3] = [
        (cascade(), "cascade", &CIRCUIT, 0.2),
        (contrast(), "contrast-methods", &[], 0.1),
        (commitment(), "commitment", &[], 1e-9),
    ];
    for (done, command, more, tolerance) in cases {
        let words = [command, "demo", "--pairs", "demo:pairs.jsonl", "--dry-run", "--json"];
        let counted: Value = serde_json::from_str(&gatelens([&words, more].concat()).done()).unwrap();
        let record: Value = serde_json::from_slice(&std::fs::read(done.path("run.json")).unwrap()).unwrap();
        let (dry, run) = (counted["wavefront"]["flops"].as_f64().unwrap(), record["flops"].as_f64().unwrap());
        assert!((dry / run - 1.0).abs() <= tolerance, "{command}: {dry} and {run}");
    }
}

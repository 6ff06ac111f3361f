use super::*;
use crate::analyses::routing::screen::testing::{self, Effect};
use Effect::{Estimated, Run};

/// The table of heads that have the same effect in both directions.
fn heads(gap: f64, effects: &[Effect]) -> Table {
    testing::heads(gap, &effects.iter().map(|effect| [*effect; 2]).collect::<Vec<_>>())
}

fn pairs(file: &str) -> PairSet {
    PairSet { file: file.to_string(), sha256: file.to_string(), n: 20 }
}

fn checkpoint(model: &str, heads: Table) -> Checkpoint {
    let (model, sha256) = (model.to_string(), "0".to_string());
    Checkpoint { model, sha256, parameters: 1, pairs: pairs("a.jsonl"), heads, behaviour: None }
}

/// Answers to the positive prompts of ten pairs, of which the first `refused` are refused.
fn behaviour(refused: usize) -> Behaviour {
    let class = |i: usize| if i < refused { "refusal" } else { "answer" };
    let answers = Table::new("answers").str("id", "", (0..10).map(|i| i.to_string())).unwrap();
    let answers = answers.str("side", "", (0..10).map(|_| "positive")).unwrap();
    let answers = answers.str("class", "", (0..10).map(class)).unwrap();
    let rates = Table::new("rates").str("side", "", ["positive"]).unwrap().str("by", "", ["all"]).unwrap();
    let rates = rates.int("n", "", [10]).unwrap().float("refusal", "", [refused as f64 / 10.0]).unwrap();
    Behaviour { pairs: pairs("a.jsonl"), rates, answers: Some(answers) }
}

fn compared(a: Checkpoint, b: Checkpoint) -> [Table; 3] {
    tables(&[a, b]).unwrap().try_into().unwrap()
}

#[test]
fn estimates_and_exchanges_are_ranked_in_one_unit() {
    // The gap is 10 nats: as a share of it the estimate of head 2 lies between the exchanges of heads 0 and 1.
    let mixed = heads(10.0, &[Run(4.0, 0.01), Run(1.0, 0.01), Estimated(2.0), Estimated(0.1)]);
    let all = heads(10.0, &[Run(4.0, 0.01), Run(1.0, 0.01), Run(2.0, 0.01), Run(0.1, 0.01)]);
    let [_, overlap, _] = compared(checkpoint("a", mixed), checkpoint("b", all));
    for column in ["necessity_spearman", "sufficiency_spearman"] {
        assert!((overlap.floats(column).unwrap()[0].unwrap() - 1.0).abs() < 1e-12, "{column}");
    }
}

#[test]
fn what_a_run_was_over_is_not_that_of_its_first_head() {
    let heads = || heads(10.0, &[Estimated(0.1), Run(4.0, 0.01), Run(1.0, 0.5), Estimated(0.1)]);
    let [checkpoints, ..] = compared(checkpoint("a", heads()), checkpoint("b", heads()));
    assert_eq!(checkpoints.ints("n").unwrap(), [20, 20]);
    assert_eq!(checkpoints.floats("positive_mean").unwrap(), [Some(5.0); 2]);
    assert_eq!(checkpoints.floats("negative_mean").unwrap(), [Some(-5.0); 2]);
}

#[test]
fn shared_carriers_are_counted_and_a_checkpoint_without_any_has_no_gate() {
    let two = heads(10.0, &[Run(4.0, 0.01), Run(1.0, 0.01), Run(0.0, 0.9), Run(0.1, 0.9)]);
    let one = heads(10.0, &[Run(0.2, 0.9), Run(1.0, 0.01), Run(0.0, 0.9), Run(0.1, 0.9)]);
    let none = heads(10.0, &[Run(0.2, 0.9), Run(0.1, 0.9), Run(0.0, 0.9), Run(0.1, 0.9)]);
    let checkpoints = [checkpoint("two", two), checkpoint("one", one), checkpoint("none", none)];
    let tables = tables(&checkpoints).unwrap();
    let overlap = &tables[1];
    assert_eq!(
        (overlap.ints("carriers").unwrap(), overlap.ints("other_carriers").unwrap()),
        (&[2, 2, 1][..], &[1, 0, 0][..])
    );
    assert_eq!(overlap.floats("shared").unwrap(), [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(overlap.floats("jaccard").unwrap(), [Some(0.5), Some(0.0), Some(0.0)]);
    // Half of two layers each: the gates are heads 0 and 1 of layer 0.
    assert_eq!(overlap.floats("gate_shift").unwrap(), [Some(0.0), None, None]);
    let Block::Table(listed) = &sections(&tables, Path::new("")).unwrap()[0].blocks[1] else { panic!("no table") };
    assert_eq!(listed.rows.iter().map(|row| row[4].as_str()).collect::<Vec<_>>(), ["L0.H0", "L0.H1", "–"]);
}

#[test]
fn refusals_of_the_same_prompts_are_compared_prompt_by_prompt() {
    let with = |model: &str, behaviour: Behaviour| {
        let heads = heads(10.0, &[Run(4.0, 0.01), Run(1.0, 0.01)]);
        Checkpoint { behaviour: Some(behaviour), ..checkpoint(model, heads) }
    };
    let ends = |overlap: &Table| {
        ["refusal_difference", "refusal_low", "refusal_high"].map(|c| overlap.floats(c).unwrap()[0].unwrap())
    };
    let [_, paired, _] = compared(with("a", behaviour(5)), with("b", behaviour(7)));
    let counts = PairedCounts { both: 5, only_first: 0, only_second: 2, neither: 3 };
    let interval = counts.interval().unwrap();
    assert_eq!(ends(&paired), [0.7 - 0.5, interval.low, interval.high]);
    assert_eq!(paired.flags("refusal_paired").unwrap(), [true]);
    // Without the answers, or of other prompts, the two shares are of different items.
    let apart = share_difference((5, 10), (7, 10)).unwrap();
    let unknown = Behaviour { answers: None, ..behaviour(7) };
    let others = Behaviour { pairs: pairs("b.jsonl"), ..behaviour(7) };
    for other in [unknown, others] {
        let [_, overlap, _] = compared(with("a", behaviour(5)), with("b", other));
        assert_eq!(ends(&overlap), [0.7 - 0.5, apart.low, apart.high]);
        assert_eq!(overlap.flags("refusal_paired").unwrap(), [false]);
    }
    assert!(interval.high - interval.low < apart.high - apart.low);
}

/// What is said of two checkpoints before their table, beyond how many heads carry.
fn warned(a: Checkpoint, b: Checkpoint) -> Option<String> {
    let tables = tables(&[a, b]).unwrap();
    let Block::Paragraph(text) = &sections(&tables, Path::new("")).unwrap()[0].blocks[1] else { return None };
    Some(text.clone())
}

#[test]
fn a_model_that_is_compared_with_itself_is_told() {
    let of = |by: f64| heads(10.0, &[Run(by, 0.01), Run(1.0, 0.01)]);
    let text = warned(checkpoint("m/a.gguf", of(4.0)), checkpoint("m/a.gguf", of(3.0))).unwrap();
    assert!(text.contains("a is compared with itself"), "{text}");
    // Two sets of weights may differ in what the pairs do not ask.
    let text = warned(checkpoint("a", of(4.0)), checkpoint("b", of(4.0))).unwrap();
    assert!(text.contains("No difference") && text.contains("a and b have the same effects"), "{text}");
    // Two sets of weights of one shape have one checksum of their headers.
    assert_eq!(warned(checkpoint("a", of(4.0)), checkpoint("b", of(3.0))), None);
    let other = Checkpoint { sha256: "1".to_string(), ..checkpoint("a", of(3.0)) };
    assert_eq!(warned(checkpoint("a", of(4.0)), other), None);
}

#[test]
fn of_gates_and_refusals_that_none_has_nothing_is_said() {
    let said =
        |a: Checkpoint, b: Checkpoint| format!("{:?}", sections(&tables(&[a, b]).unwrap(), Path::new("")).unwrap());
    let none = |by: f64| heads(10.0, &[Run(by, 0.9), Run(0.1, 0.9)]);
    let text = said(checkpoint("a", none(0.3)), checkpoint("b", none(0.2)));
    assert!(text.contains("In none of 2 checkpoints does a head carry"), "{text}");
    assert!(!text.contains("gate") && !text.contains("efusal") && !text.contains("hared"), "{text}");
    let some = heads(10.0, &[Run(4.0, 0.01), Run(0.1, 0.9)]);
    let with = Checkpoint { behaviour: Some(behaviour(5)), ..checkpoint("b", none(0.2)) };
    let text = said(checkpoint("a", some), with);
    assert!(
        text.contains("one head that carries") && text.contains("gate's shift") && text.contains("refusals"),
        "{text}"
    );
}

#[test]
fn other_pairs_are_told() {
    let of = |by: f64| heads(10.0, &[Run(by, 0.01), Run(1.0, 0.01)]);
    assert_eq!(warned(checkpoint("a", of(4.0)), checkpoint("b", of(3.0))), None);
    let other = Checkpoint { pairs: pairs("b.jsonl"), ..checkpoint("b", of(3.0)) };
    let text = warned(checkpoint("a", of(4.0)), other).unwrap();
    assert!(text.contains("pairs are not the same") && text.contains("a and b"), "{text}");
}

#[test]
fn depth_is_that_of_the_middle_of_a_layer() {
    assert_eq!([(0, 2), (1, 2), (0, 1)].map(|(layer, n)| relative_depth(layer, n)), [0.25, 0.75, 0.5]);
}

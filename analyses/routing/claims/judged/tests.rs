use super::testing::{Cells, Suite, table};
use super::*;

fn not_testable(claim: &Claim, part: &str) {
    let Verdict::NotTestable(why) = &claim.verdict else { panic!("{claim:?}") };
    assert!(why.contains(part), "{why}");
}

#[test]
fn a_model_refuses_where_the_intervals_of_both_shares_are_apart() {
    let of = |low: f64| Suite::refusing().set("behaviour/rates", "refusal_low", 0, [low]).judge(refuses);
    let claim = of(0.171);
    assert_eq!((claim.verdict, claim.statistic, claim.n), (Verdict::Holds, Some(0.5), Some(120)));
    assert_eq!(of(0.17).verdict, Verdict::DoesNotHold);
}

/// What a report says of one claim.
fn written(claim: Claim) -> String {
    let table = crate::analyses::routing::claims::table("m", &[claim]).unwrap();
    let sections = crate::analyses::routing::claims::sections(&table, &BTreeMap::new()).unwrap();
    sections.iter().map(|section| format!("{section:?}\n")).collect()
}

#[test]
fn a_report_says_what_of_a_rule_is_not_met() {
    let said = written(Suite::refusing().gate("rank_dla", [2]).judge(gate::attribution));
    for part in
        ["**Does not hold**: by attribution it is", "The gate's share of output DLA is 0.4", "p of the rule's test"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let holds = written(Suite::refusing().judge(gate::necessity));
    assert!(holds.contains("**Holds.**") && holds.contains("n = 120; p of the rule's test <"), "{holds}");
    let untestable = written(Suite::refusing().empty("screen/circuit").judge(gate::attribution));
    assert!(untestable.contains("**Not testable here**, because no head carries"), "{untestable}");
}

#[test]
fn nothing_about_routing_is_asked_of_a_model_that_does_not_refuse() {
    let suite = Suite::refusing().set("behaviour/rates", "refusal_low", 0, [0.17]);
    for claim in [gate::necessity, gate::attribution, gate::cascade, gate::ablation_misses, gate::ablation_weakens] {
        not_testable(&suite.judge(claim), "there is no refusal to route");
    }
}

#[test]
fn nothing_about_routing_is_asked_by_a_metric_that_may_tell_nothing() {
    let of = |column: &str, value: Cells| Suite::refusing().set("behaviour/separation", column, 0, value);
    assert_eq!(of("ci_low", [0.51].into()).judge(gate::necessity).verdict, Verdict::Holds);
    let by_chance = "tell refused from answered prompts";
    not_testable(&of("ci_low", [0.5].into()).judge(gate::necessity), by_chance);
    // Whatever its area, without an interval nothing is known.
    not_testable(&of("ci_low", [f64::NAN].into()).judge(gate::necessity), by_chance);
    not_testable(&of("basis", ["sides"].into()).judge(gate::necessity), "too few prompts are refused");
    not_testable(&Suite::refusing().empty("behaviour/separation").judge(gate::necessity), "too few prompts");
    not_testable(&Suite::refusing().empty("behaviour/rates").judge(gate::necessity), "was not measured");
}

#[test]
fn components_are_named_the_largest_first_and_the_rest_are_counted() {
    let components = (0..10).map(|i| (f64::from(i) / 100.0, format!("L1.H{i}"))).collect();
    let said = named(components);
    assert!(
        said.starts_with("**L1.H9** 9.0\u{a0}%, **L1.H8**") && said.ends_with("**L1.H2** 2.0\u{a0}% and 2 more"),
        "{said}"
    );
    assert_eq!(named(vec![(0.5, "L0.H0".to_string())]), "**L0.H0** 50.0\u{a0}%");
}

/// Two checkpoints, the second called `other`: how many heads carry in each and in both, the p-value of that, and the interval
/// of the difference of refusals.
fn overlap(carriers: [i64; 2], shared: f64, p: f64, difference: [f64; 2]) -> Table {
    let columns = [
        ("model", Cells::from(["own"])),
        ("other", ["other"].into()),
        ("carriers", [carriers[0]].into()),
        ("other_carriers", [carriers[1]].into()),
        ("shared", [shared].into()),
        ("expected", [0.5].into()),
        ("p_value", [p].into()),
        ("jaccard", [0.1].into()),
        ("gate_shift", [0.2].into()),
        ("refusal_difference", [0.0].into()),
        ("refusal_low", [difference[0]].into()),
        ("refusal_high", [difference[1]].into()),
    ];
    table("overlap", &columns)
}

fn relocation(overlap: &Table, other: &Suite) -> Claim {
    Suite::refusing().beside(signal::relocation, &[other.other("other", 100)], Some(overlap))
}

const ALIKE: [f64; 2] = [-0.19, 0.19];

#[test]
fn a_circuit_relocates_where_no_more_heads_are_shared_than_by_chance_and_both_refuse_alike() {
    let of = |p: f64, difference: [f64; 2]| relocation(&overlap([8, 9], 1.0, p, difference), &Suite::refusing());
    let claim = of(0.05, ALIKE);
    assert_eq!((claim.verdict, claim.p, claim.statistic), (Verdict::Holds, Some(0.05), Some(0.1)));
    assert_eq!(of(0.049, ALIKE).verdict, Verdict::DoesNotHold);
    assert_eq!(of(0.05, [-0.2, 0.1]).verdict, Verdict::DoesNotHold);
    assert_eq!(of(0.05, [-0.1, 0.2]).verdict, Verdict::DoesNotHold);
}

#[test]
fn few_heads_that_share_none_are_no_other_circuit() {
    let of = |carriers, shared| relocation(&overlap(carriers, shared, 1.0, ALIKE), &Suite::refusing());
    not_testable(&of([2, 3], 0.0), "too few heads");
    not_testable(&of([3, 300], 0.0), "too few heads");
    assert_eq!(of([4, 4], 0.0).verdict, Verdict::Holds);
    not_testable(&of([7, 7], 1.0), "too few heads");
    not_testable(&of([0, 9], 0.0), "no head carries");
    // Few heads that do share are the same circuit.
    let same = relocation(&overlap([2, 2], 2.0, 0.001, ALIKE), &Suite::refusing());
    assert_eq!(same.verdict, Verdict::DoesNotHold);
}

#[test]
fn a_circuit_does_not_relocate_to_a_model_that_does_not_refuse_or_whose_metric_tells_nothing() {
    let overlap = overlap([8, 9], 1.0, 0.5, ALIKE);
    let of = |other: Suite| relocation(&overlap, &other);
    assert_eq!(of(Suite::refusing()).verdict, Verdict::Holds);
    not_testable(&of(Suite::refusing().set("behaviour/rates", "refusal_low", 0, [0.02])), "on other the model refuses");
    not_testable(&of(Suite::refusing().set("behaviour/separation", "basis", 0, ["sides"])), "on other too few");
    not_testable(&of(Suite::refusing().set("behaviour/separation", "ci_low", 0, [0.4])), "on other no first tokens");
    let unknown = Suite::refusing().beside(signal::relocation, &[], Some(&overlap));
    not_testable(&unknown, "behaviour of other is not known");
    not_testable(&Suite::refusing().judge(signal::relocation), "name others with `against`");
}

#[test]
fn circuits_of_other_shapes_are_not_matched() {
    let overlap = overlap([8, 9], f64::NAN, f64::NAN, ALIKE);
    not_testable(&relocation(&overlap, &Suite::refusing()), "different numbers of layers or heads");
    let unasked = self::overlap([8, 9], 1.0, 0.5, [f64::NAN; 2]);
    not_testable(&relocation(&unasked, &Suite::refusing()), "of both was not measured");
}

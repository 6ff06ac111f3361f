use super::*;
use crate::analyses::routing::claims::Evidence;
use crate::table::Table;
use std::collections::BTreeMap;

/// What a claim says of a checkpoint that refuses, whose gate is L14.H1, and of which these tables were made besides.
pub(in crate::analyses::routing::claims::judged) fn judged(
    claim: fn(&Ground) -> Judged,
    tables: impl IntoIterator<Item = (&'static str, Table)>,
) -> Claim {
    let rates = Table::new("rates")
        .str("side", "", ["positive", "negative"])
        .and_then(|t| t.str("by", "", ["all", "all"]))
        .and_then(|t| t.float("refusal", "", [0.5, 0.1]))
        .and_then(|t| t.float("refusal_low", "", [0.4, 0.05]))
        .and_then(|t| t.float("refusal_high", "", [0.6, 0.2]));
    let separation = Table::new("separation")
        .str("half", "", ["held out"])
        .and_then(|t| t.str("lang", "", [""]))
        .and_then(|t| t.str("basis", "", ["refusals"]))
        .and_then(|t| t.float("auc", "", [0.8]))
        .and_then(|t| t.float("ci_low", "", [0.7]))
        .and_then(|t| t.float("ci_high", "", [0.9]));
    let circuit = Table::new("circuit").int("layer", "", [14]).and_then(|t| t.int("head", "", [1]));
    let mut suite: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    suite.insert("behaviour".to_string(), vec![rates.unwrap(), separation.unwrap()]);
    suite.insert("screen".to_string(), vec![circuit.unwrap()]);
    for (analysis, table) in tables {
        suite.entry(analysis.to_string()).or_default().push(table);
    }
    let left_out = BTreeMap::new();
    let evidence = Evidence { tables: &suite, left_out: &left_out, overlap: None, parameters: 1, others: &[] };
    claim(&Ground::of(&evidence).unwrap()).unwrap()
}

/// Whether a claim is not testable, for a reason that says this.
pub(in crate::analyses::routing::claims::judged) fn untestable(claim: &Claim, why: &str) -> bool {
    matches!(&claim.verdict, Verdict::NotTestable(found) if found.contains(why))
}

/// One coefficient: refusals, evasions and undecided answers, as shares.
type Dose = (f64, f64, f64, f64);

/// Weakened by degrees: all refuse at 0, none at -2.
const BY_DEGREES: [Dose; 6] = [
    (-2.0, 0.0, 0.0, 0.0),
    (-1.5, 0.1, 0.5, 0.0),
    (-1.0, 0.4, 0.3, 0.0),
    (-0.5, 0.7, 0.1, 0.0),
    (0.0, 1.0, 0.0, 0.0),
    (2.0, 1.0, 0.0, 0.0),
];

fn dose(doses: &[Dose]) -> Table {
    let n = doses.len();
    let float = |f: fn(&Dose) -> f64| doses.iter().map(f).collect::<Vec<_>>();
    Table::new("dose")
        .str("side", "", vec!["positive"; n])
        .and_then(|t| t.str("by", "", vec!["all"; n]))
        .and_then(|t| t.float("coefficient", "", float(|d| d.0)))
        .and_then(|t| t.int("answers", "", vec![40; n]))
        .and_then(|t| t.float("refusal", "", float(|d| d.1)))
        .and_then(|t| t.float("evasion", "", float(|d| d.2)))
        .and_then(|t| t.float("undecided", "", float(|d| d.3)))
        .and_then(|t| t.int("random_answers", "", vec![80; n]))
        .and_then(|t| t.float("random_refusal", "", vec![0.9; n]))
        .unwrap()
}

/// What weakening loses, the upper end of its interval, and the share of random directions that do as much between the ends.
fn change(lost: Option<f64>, high: f64, over_random: f64) -> Table {
    let both = |x: f64| [x, x];
    Table::new("change")
        .str("side", "", ["positive", "positive"])
        .and_then(|t| t.str("part", "", ["whole", "weakening"]))
        .and_then(|t| t.float("to", "", [2.0, -2.0]))
        .and_then(|t| t.int("n", "", [40, 40]))
        .and_then(|t| t.float("refusal_from", "", both(1.0)))
        .and_then(|t| t.float("refusal_to", "", both(0.5)))
        .and_then(|t| t.float("change", "", [0.9, -0.5]))
        .and_then(|t| t.float("ci_low", "", both(-0.7)))
        .and_then(|t| t.float("ci_high", "", both(high)))
        .and_then(|t| t.float("p_value", "", both(0.001)))
        .and_then(|t| t.float("lost", "", [None, lost]))
        .and_then(|t| t.float("p_over_random", "", [over_random, 0.9]))
        .unwrap()
}

fn modulated(doses: &[Dose], change: Table) -> Claim {
    judged(modulation, [("modulate", dose(doses)), ("modulate", change)])
}

#[test]
fn modulation_holds_where_weakening_takes_half_of_the_refusals_by_degrees_and_random_directions_do_not() {
    let verdict = |lost, high, over_random| modulated(&BY_DEGREES, change(Some(lost), high, over_random)).verdict;
    assert_eq!(verdict(0.5, -0.01, 0.049), Verdict::Holds);
    assert_eq!(verdict(0.49, -0.01, 0.049), Verdict::DoesNotHold);
    assert_eq!(verdict(0.5, 0.0, 0.049), Verdict::DoesNotHold);
    assert_eq!(verdict(0.5, -0.01, 0.05), Verdict::DoesNotHold);
    let claim = modulated(&BY_DEGREES, change(Some(0.5), -0.01, 0.025));
    assert_eq!((claim.statistic, claim.interval, claim.p), (Some(-0.5), Some((-0.7, -0.01)), Some(0.025)));
    assert!(
        claim.found.contains("are refused.") && claim.found.contains(" Along random directions 90.0"),
        "{}",
        claim.found
    );
    // Nothing was left out, and how many random directions there are is not known.
    assert!(!claim.found.contains("left out") && !claim.found.contains("as far between the ends"), "{}", claim.found);
    assert_eq!((claim.unit, claim.unit.value(claim.statistic)), (Unit::Points, "−50.0\u{a0}points".to_string()));
    let few = modulated(&BY_DEGREES, change(Some(0.49), 0.0, 0.025)).fails;
    assert!(few.contains("takes away 49.0") && few.contains("the interval of the change is not below 0"), "{few}");
}

#[test]
fn coefficients_that_are_left_out_and_random_directions_that_do_as_much_are_counted() {
    let mut doses = BY_DEGREES.to_vec();
    doses.push((4.0, 0.2, 0.0, 0.6));
    let said = |directions: i64, p: f64| {
        let n = doses.len();
        let dose = dose(&doses).int("directions", "", vec![directions; n]).unwrap();
        judged(modulation, [("modulate", dose), ("modulate", change(Some(0.5), -0.01, p))]).found
    };
    let none = said(39, 0.025);
    assert!(none.contains("None of 39 random directions moves the metric as far"), "{none}");
    assert!(
        none.contains("1 coefficient is left out: there over half of the answers are broken or undecided"),
        "{none}"
    );
    assert!(said(39, 0.1).contains("3 of 39 random directions move the metric as far"));
}

#[test]
fn modulation_asks_for_two_coefficients_between_the_extremes_of_those_up_to_0() {
    let with = |steps: [f64; 3]| {
        let mut doses = BY_DEGREES;
        for (dose, refusal) in doses[1..4].iter_mut().zip(steps) {
            (dose.1, dose.2) = (refusal, 0.0);
        }
        modulated(&doses, change(Some(1.0), -0.5, 0.025)).verdict
    };
    assert_eq!(with([0.0, 0.11, 0.89]), Verdict::Holds);
    assert_eq!(with([0.0, 0.1, 0.89]), Verdict::DoesNotHold, "a tenth is not between");
    // What strengthening does between its own extremes does not count.
    let mut doses = BY_DEGREES.to_vec();
    doses[1..4].iter_mut().for_each(|d| (d.1, d.2) = (0.0, 0.0));
    doses.extend([(3.0, 0.3, 0.0, 0.0), (4.0, 0.6, 0.0, 0.0)]);
    assert_eq!(modulated(&doses, change(Some(1.0), -0.5, 0.025)).verdict, Verdict::DoesNotHold);
}

#[test]
fn modulation_is_not_testable_without_answers_or_refusals() {
    let broken = BY_DEGREES.map(|(x, refusal, evasion, _)| (x, refusal, evasion, 0.51));
    assert!(untestable(&modulated(&broken, change(Some(1.0), -0.5, 0.025)), "hardly any answers"));
    assert!(untestable(&modulated(&BY_DEGREES, change(None, 0.0, 0.025)), "is refused at 0"));
    assert!(untestable(&judged(modulation, []), "`modulate` was not run"));
}

#[test]
fn evasion_holds_where_its_peak_lies_within_the_grid_and_above_both_ends() {
    let with = |evasions: [f64; 3]| {
        let doses = [-1.0, 0.0, 1.0].into_iter().zip(evasions).map(|(x, evasion)| (x, 0.0, evasion, 0.0));
        judged(evasion, [("modulate", dose(&doses.collect::<Vec<_>>()))]).verdict
    };
    // Of 40: 16 have an interval from 26.3 % on, 4 one up to 23.1 %, 5 up to 26.1 %, 6 up to 29.1 %.
    assert_eq!(with([0.1, 0.4, 0.125]), Verdict::Holds);
    assert_eq!(with([0.1, 0.4, 0.15]), Verdict::DoesNotHold);
    assert_eq!(with([0.4, 0.1, 0.0]), Verdict::DoesNotHold);
}

fn thresholds_by(q: f64) -> Claim {
    let differences = Table::new("differences")
        .str("side", "", ["positive"])
        .and_then(|t| t.str("by", "", ["group"]))
        .and_then(|t| t.int("n", "", [88]))
        .and_then(|t| t.int("below", "", [20]))
        .and_then(|t| t.int("above", "", [3]))
        .and_then(|t| t.int("labels", "", [4]))
        .and_then(|t| t.float("between", "", [0.2]))
        .and_then(|t| t.float("p_value", "", [0.01]))
        .and_then(|t| t.float("q_value", "", [q]));
    let crossings = Table::new("thresholds")
        .str("side", "", ["positive"])
        .and_then(|t| t.str("by", "", ["group"]))
        .and_then(|t| t.str("value", "", ["fraud"]))
        .and_then(|t| t.str("class", "", ["metric"]))
        .and_then(|t| t.float("coefficient", "", [-1.0]))
        .and_then(|t| t.float("ci_low", "", [None::<f64>]))
        .and_then(|t| t.float("ci_high", "", [Some(0.5)]))
        .and_then(|t| t.flag("low_open", "", [true]))
        .and_then(|t| t.flag("high_open", "", [false]));
    let tables = [("modulate", differences.unwrap()), ("modulate", crossings.unwrap())];
    judged(|g| thresholds(g, "group"), tables)
}

#[test]
fn thresholds_differ_where_q_says_so_and_the_claims_p_is_that_of_the_test() {
    let claim = thresholds_by(0.049);
    assert_eq!((claim.verdict, claim.p, claim.n), (Verdict::Holds, Some(0.01), Some(88)));
    for said in ["q 0.049", "20 prompts cross 0 below the grid and 3 above", "fraud −1.00 [below the grid,\u{a0}0.50]"]
    {
        assert!(claim.found.contains(said), "{}", claim.found);
    }
    assert_eq!(thresholds_by(0.05).verdict, Verdict::DoesNotHold);
    assert!(untestable(&judged(|g| thresholds(g, "group"), []), "`modulate` was not run"));
}

/// The layer that reads the content and its interval; the largest effect, of layer 12, its q, and the largest of a random
/// direction.
struct Committed {
    layer: f64,
    interval: [f64; 2],
    q: f64,
    largest: f64,
    controls: f64,
}

const AT_THE_GATE: Committed =
    Committed { layer: 14.0, interval: [13.0, 15.0], q: 0.049, largest: -0.5, controls: 0.49 };

fn committed(c: Committed) -> Claim {
    let two = |x: f64| [x, x];
    let table = Table::new("commitment")
        .str("place", "", ["content", "last"])
        .and_then(|t| t.str("change", "", ["remove", "remove"]))
        .and_then(|t| t.int("n", "", [40, 120]))
        .and_then(|t| t.int("n_layers", "", [24, 24]))
        .and_then(|t| t.float("layer", "", two(c.layer)))
        .and_then(|t| t.float("ci_low", "", two(c.interval[0])))
        .and_then(|t| t.float("ci_high", "", two(c.interval[1])))
        .and_then(|t| t.float("until", "", two(c.layer)))
        .and_then(|t| t.float("largest_layer", "", two(12.0)))
        .and_then(|t| t.float("largest_effect", "", two(c.largest)))
        .and_then(|t| t.float("largest_share", "", two(0.5)))
        .and_then(|t| t.int("controls", "", [2, 5]))
        .and_then(|t| t.float("controls_largest", "", two(c.controls)));
    let layers = Table::new("layers")
        .int("layer", "", [11, 12])
        .and_then(|t| t.str("place", "", ["content", "content"]))
        .and_then(|t| t.str("change", "", ["remove", "remove"]))
        .and_then(|t| t.float("q_value", "", [0.001, c.q]));
    judged(commitment, [("commitment", table.unwrap()), ("commitment", layers.unwrap())])
}

#[test]
fn commitment_holds_at_the_gates_layer_or_beside_it_within_the_interval() {
    let at = |layer: f64, interval: [f64; 2]| committed(Committed { layer, interval, ..AT_THE_GATE }).verdict;
    assert_eq!(at(14.0, [13.0, 15.0]), Verdict::Holds);
    // A maximum of noisy means may lie outside its own interval.
    assert_eq!(at(14.0, [10.0, 13.0]), Verdict::Holds);
    assert_eq!(at(13.0, [12.0, 14.0]), Verdict::Holds);
    assert_eq!(at(13.0, [12.0, 13.0]), Verdict::DoesNotHold);
    assert_eq!(at(12.0, [10.0, 16.0]), Verdict::DoesNotHold);
}

#[test]
fn commitment_asks_for_an_effect_beyond_chance_and_beyond_all_random_directions() {
    assert!(untestable(&committed(Committed { q: 0.05, ..AT_THE_GATE }), "beyond chance"));
    assert!(untestable(&committed(Committed { controls: 0.5, ..AT_THE_GATE }), "along random directions"));
    assert!(untestable(&committed(Committed { layer: f64::NAN, ..AT_THE_GATE }), "beyond chance"));
}

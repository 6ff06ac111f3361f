use super::*;
use crate::analyses::routing::claims::judged::testing::{GATE, Suite};

fn not_testable(claim: &Claim, part: &str) {
    let Verdict::NotTestable(why) = &claim.verdict else { panic!("{claim:?}") };
    assert!(why.contains(part), "{why}");
}

#[test]
fn a_gate_is_necessary_by_the_p_value_that_knows_of_all_heads() {
    let of = |p_max: f64| Suite::refusing().gate("interchange_p_max", [p_max]).judge(necessity);
    let claim = of(0.0009);
    assert_eq!((claim.verdict.clone(), claim.p, claim.n), (Verdict::Holds, Some(0.0009), Some(120)));
    assert_eq!(of(0.001).verdict, Verdict::DoesNotHold);
    assert_eq!(of(0.001).fails, "p 0.001 is not under 0.001");
    // An effect away from the control is none.
    let away = Suite::refusing().gate("interchange_crossed", [-0.2]).judge(necessity);
    assert_eq!(away.verdict, Verdict::DoesNotHold);
    not_testable(&Suite::refusing().gate("n", [119]).judge(necessity), "120 pairs or more, and 119 were used");
}

#[test]
fn how_necessary_is_said_on_pairs_that_the_gate_was_not_picked_on() {
    let claim = Suite::refusing().judge(necessity);
    assert_eq!((claim.statistic, claim.interval), (Some(0.15), Some((0.08, 0.22))));
    assert!(
        claim.found.contains("20.0\u{a0}% of the gap")
            && claim.found.contains("Each half of the pairs by itself picks it too"),
        "{}",
        claim.found
    );
    let torn = Suite::refusing().set("screen/held_out", "head", 1, [3]).judge(necessity);
    assert!(torn.found.contains("the halves of the pairs pick L2.H1 and L2.H3"), "{}", torn.found);
    // The interval of the gate's sufficiency is that of all pairs, where both halves pick it.
    let ends = "(sufficiency, 95 % interval [15.0,\u{a0}35.0]\u{a0}%)";
    assert!(claim.found.contains(ends) && !torn.found.contains(ends), "{}", claim.found);
    // Without it, on those that it was picked on.
    let without = Suite::refusing().empty("screen/held_out").judge(necessity);
    assert_eq!((without.statistic, without.interval), (Some(0.2), Some((0.1, 0.3))));
}

#[test]
fn where_no_head_carries_the_behaviour_none_is_necessary() {
    let none = Suite::refusing().empty("screen/circuit");
    assert_eq!(none.judge(necessity).verdict, Verdict::DoesNotHold);
    for claim in [attribution, cascade, ablation_misses] {
        not_testable(&none.judge(claim), "no head carries");
    }
}

#[test]
fn a_gate_writes_little_by_its_share_and_by_its_rank() {
    let of = |high: f64, rank: i64| {
        Suite::refusing().gate("dla_share_ci_high", [high]).gate("rank_dla", [rank]).judge(attribution).verdict
    };
    assert_eq!(of(0.0099, 3), Verdict::Holds);
    assert_eq!(of(0.01, 3), Verdict::DoesNotHold);
    // Second of twenty heads is in the first tenth.
    assert_eq!(of(0.0099, 2), Verdict::DoesNotHold);
    let second = Suite::refusing().gate("rank_dla", [2]).judge(attribution);
    assert_eq!(second.fails, "by attribution it is among the first tenth of the heads (rank 2 of 20)");
    let heads = (0..GATE).fold(Suite::refusing(), |s, h| s.set("contrast-methods/heads", "dla_share", h, [0.02]));
    assert!(heads.judge(attribution).found.contains("Of all heads 11 have less than 1 %"));
}

#[test]
fn a_cascade_needs_an_amplifier_and_a_part_that_is_surely_above_0() {
    let low = |x: f64| Suite::refusing().set("cascade/repair", "later_heads_share_ci_low", 0, [x]);
    let claim = low(0.01).judge(cascade);
    assert_eq!((claim.verdict, claim.statistic, claim.interval), (Verdict::Holds, Some(0.5), Some((0.01, 0.8))));
    assert!(
        claim.found.contains("One later head loses attribution") && claim.found.contains(": **L3.H0** 30.0"),
        "{}",
        claim.found
    );
    assert_eq!(low(0.0).judge(cascade).verdict, Verdict::DoesNotHold);
    let said = low(-0.061).judge(cascade).fails;
    assert_eq!(said, "the interval of what all later heads together carry, [−6.1,\u{a0}80.0]\u{a0}%, is not above 0");
    assert_eq!(low(f64::NAN).judge(cascade).verdict, Verdict::DoesNotHold);
    let none = low(0.01).set("cascade/components", "amplifier", 0, [false]).judge(cascade);
    assert_eq!(none.verdict, Verdict::DoesNotHold);
}

#[test]
fn ablation_misses_what_it_neither_finds_nor_moves_by_half() {
    // The gate's interchange is -0.4 nats.
    let of = |ablation: f64, misses: bool| {
        let suite = Suite::refusing().gate("ablation_mean", [ablation]);
        suite.set("contrast-methods/missed", "ablation_misses", 0, [misses]).judge(ablation_misses)
    };
    let claim = of(-0.19, true);
    assert_eq!((claim.verdict, claim.statistic), (Verdict::Holds, Some(0.05)));
    assert_eq!((claim.interval, claim.p), (Some((-0.01, 0.1)), Some(0.2)));
    assert_eq!(of(-0.2, true).verdict, Verdict::DoesNotHold);
    assert_eq!(of(-0.19, false).verdict, Verdict::DoesNotHold);
    let unfound = Suite::refusing().empty("contrast-methods/missed").judge(ablation_misses);
    not_testable(&unfound, "does not find the gate either");
}

/// A checkpoint whose gate's ablation shows so much of its interchange, which is -0.4 nats.
fn showing(share: f64) -> Suite {
    Suite::refusing().gate("ablation_mean", [-0.4 * share])
}

#[test]
fn ablation_weakens_if_it_shows_a_twentieth_less_at_every_size() {
    // The checkpoint that is judged has 100 parameters.
    let of = |small: f64, own: f64, large: f64| {
        let others = [showing(small).other("small", 50), showing(large).other("large", 200)];
        showing(own).beside(ablation_weakens, &others, None)
    };
    let claim = of(0.8, 0.6, 0.5);
    assert_eq!((claim.verdict, claim.n), (Verdict::Holds, Some(3)));
    assert!(claim.found.starts_with("By checkpoint: 80.0"), "{}", claim.found);
    assert_eq!(of(0.8, 0.6, 0.56).verdict, Verdict::DoesNotHold);
    assert_eq!(of(0.5, 0.6, 0.7).verdict, Verdict::DoesNotHold);
}

#[test]
fn checkpoints_that_do_not_refuse_or_whose_metric_tells_nothing_say_nothing_of_ablation() {
    let silent = showing(0.1).set("behaviour/rates", "refusal_low", 0, [0.02]).other("silent", 200);
    let blind = showing(0.1).set("behaviour/separation", "basis", 0, ["sides"]).other("blind", 300);
    let gateless = showing(0.1).empty("screen/circuit").other("gateless", 400);
    let claim = showing(0.6).beside(ablation_weakens, &[silent, blind, gateless], None);
    not_testable(&claim, "several sizes");
    for part in ["on silent the model refuses", "on blind too few", "on gateless no gate"] {
        assert!(claim.found.contains(part), "{}", claim.found);
    }
}

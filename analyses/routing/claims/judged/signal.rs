//! Claims on the detected signal: where the route is committed, what modulating it does, and whether others route alike.

use super::{Ground, Judged, blank, failing, of_share};
use crate::analyses::compare::OverlapRow;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::prelude::*;
use crate::analyses::routing::claims::evidence::{At, row, rows};
use crate::analyses::routing::claims::{Claim, Unit, Verdict};
use crate::analyses::routing::commitment::{CommittedRow, LayerRow};
use crate::analyses::routing::modulate::{
    BROKEN, ChangeRow, DifferenceRow, DoseRow, METRIC, OfPrompts, ThresholdRow, ends, uncrossed,
};
use crate::answers::Class;
use crate::report::cells::{self, exact, number, p_value, share, share_interval, signed};
use crate::stats::{beyond_zero, wilson};

/// How far apart two checkpoints may refuse and still behave alike.
const ALIKE: f64 = 0.2;
/// The share of its carriers that a checkpoint has in common with another of the same circuit, at least.
const SAME: f64 = 0.5;
/// The share of the refusals that must be lost by weakening the signal.
const LOST: f64 = 0.5;
/// How far from its extremes refusing is between them, as a share of their distance.
const BETWEEN: f64 = 0.1;
/// At how many coefficients it must be.
const DEGREES: usize = 2;

/// The doses of the positive prompts as a whole that answers were generated at, ascending. Where over half of the answers are
/// broken or undecided, the model is broken rather than steered: such doses are left out.
fn doses<'a>(g: &Ground<'a>) -> Result<Result<Vec<At<'a>>, String>, AnalysisError> {
    let dose = match g.evidence.table("modulate", "dose") {
        Ok(dose) => dose,
        Err(why) => return Ok(Err(g.hindrance().unwrap_or(why))),
    };
    let mut found = Vec::new();
    for at in rows(dose, &[(OfPrompts::side, "positive"), (OfPrompts::by, "all")])? {
        if at.get(DoseRow::answers)? > 0 && at.without_sense()?.is_some_and(|share| share <= BROKEN) {
            found.push(at);
        }
    }
    Ok(if found.len() < 3 {
        Err("hardly any answers were generated along the modulation that make sense".to_string())
    } else {
        Ok(found)
    })
}

pub(super) fn modulation(g: &Ground) -> Judged {
    let claim = blank(
        "modulation",
        "Weakening the detection signal turns refusal into answering by degrees",
        "Modulating the detected signal moves the policy continuously. Holds if half or more of the refusals at coefficient 0 are \
         lost at the lowest coefficient at which the model still answers, with a 95 % interval of the change below 0; if on the way \
         refusing (an evasion counted half) is further than a tenth of its range from both of its extremes at two coefficients or \
         more; and if fewer than 5 % of random directions of the same norm move the metric as far between the ends of the grid.",
        "change of the share of refusals from coefficient 0 to the lowest",
        Unit::Points,
    );
    let doses = match doses(g)? {
        Ok(doses) => doses,
        Err(why) => return claim.not_testable(why),
    };
    let change = match g.evidence.table("modulate", "change") {
        Ok(change) => change,
        Err(why) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let part = |part| row(change, &[(ChangeRow::side, "positive"), (ChangeRow::part, part)]);
    let (Some(weakening), Some(whole)) = (part("weakening")?, part("whole")?) else {
        return claim.not_testable("the grid has no coefficient 0, or none below it at which the model still answers");
    };
    let between = degrees(&doses)?;
    let (interval, lost, p) =
        (weakening.get(ChangeRow::interval)?, weakening.get(ChangeRow::lost)?, whole.get(ChangeRow::p_over_random)?);
    let enough = lost.is_some_and(|lost| lost >= LOST);
    let below = beyond_zero(interval, 0.0) == Some(false);
    let beyond_random = p.is_some_and(|p| p < SIGNIFICANT);
    let holds = enough && below && between >= DEGREES && beyond_random;
    Ok(Claim {
        statistic: weakening.get(ChangeRow::change)?,
        interval,
        n: Some(weakening.get(ChangeRow::n)?),
        p,
        verdict: match lost {
            None if g.hindrance().is_none() => {
                Verdict::NotTestable("none of the prompts that answer along the modulation is refused at 0".to_string())
            }
            _ => g.verdict(holds),
        },
        fails: failing([
            (enough, format!("weakening takes away {} of the refusals, less than half", share(lost))),
            (below, "the interval of the change is not below 0".to_string()),
            (between >= DEGREES, format!("refusing lies between its extremes at {between} coefficients up to 0")),
            (beyond_random, format!("random directions move the metric as far (p {})", p_value(p))),
        ]),
        found: modulated(g, &doses, (weakening, part("strengthening")?, whole), between)?,
        figures: &[("modulate", "modulation.png", "Classes of answers along the coefficients.")],
        ..claim
    })
}

/// What weakening and strengthening the signal did, in words; `whole` is the row of the change between the grid's ends.
fn modulated(
    g: &Ground,
    doses: &[At],
    (weakening, strengthening, whole): (At, Option<At>, At),
    between: usize,
) -> Result<String, AnalysisError> {
    let strengthening = match strengthening {
        Some(s) => format!(
            " Strengthening it takes them to {} at {}.",
            share(s.get(ChangeRow::refusal_to)?),
            exact(s.get(ChangeRow::to)?)
        ),
        None => String::new(),
    };
    Ok(format!(
        "Refusals of the positive prompts by coefficient: {}. Of those at 0 weakening takes away {} (sign test on the same prompts p \
         {}); at {between} coefficients up to 0 refusing lies between its extremes.{strengthening}{}{}{}",
        listed(doses)?,
        share(weakening.get(ChangeRow::lost)?),
        p_value(weakening.get(ChangeRow::p_value)?),
        along_random(doses)?,
        left_out(g, doses.len())?,
        of_random(doses, whole)?,
    ))
}

/// How many coefficients were left out, where any was, of which `kept` are left.
fn left_out(g: &Ground, kept: usize) -> Result<String, AnalysisError> {
    let Ok(dose) = g.evidence.table("modulate", "dose") else { return Ok(String::new()) };
    let mut generated = 0;
    for at in rows(dose, &[(OfPrompts::side, "positive"), (OfPrompts::by, "all")])? {
        generated += usize::from(at.get(DoseRow::answers)? > 0);
    }
    Ok(match generated.saturating_sub(kept) {
        0 => String::new(),
        1 => " 1 coefficient is left out: there over half of the answers are broken or undecided.".to_string(),
        n => format!(" {n} coefficients are left out: there over half of the answers are broken or undecided."),
    })
}

/// How many random directions move the metric as far between the ends of the grid. The p-value is one more than they are, over
/// one more than all of them. Nothing where their number is not known.
fn of_random(doses: &[At], whole: At) -> Result<String, AnalysisError> {
    let Some(first) = doses.first() else { return Ok(String::new()) };
    let (all, p) = (first.get(DoseRow::directions)?, whole.get(ChangeRow::p_over_random)?);
    let Some(p) = p.filter(|_| all > 0) else { return Ok(String::new()) };
    let as_far = (p * (all + 1) as f64).round() as i64 - 1;
    let verb = if as_far > 1 { "move" } else { "moves" };
    let how_many = if as_far > 0 { as_far.to_string() } else { "None".to_string() };
    Ok(format!(
        " {how_many} of {} {verb} the metric as far between the ends of the grid (p {}).",
        cells::plural(all, "random direction"),
        p_value(Some(p))
    ))
}

/// At how many coefficients up to 0 refusing lies between its extremes there.
fn degrees(doses: &[At]) -> Result<usize, AnalysisError> {
    let mut policy = Vec::new();
    for dose in doses {
        if dose.get(DoseRow::coefficient)?.is_some_and(|x| x <= 0.0) {
            policy.push(dose.share(Class::Refusal)?.unwrap_or(0.0) + 0.5 * dose.share(Class::Evasion)?.unwrap_or(0.0));
        }
    }
    let (low, high) = policy.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    let apart = BETWEEN * (high - low);
    Ok(policy.iter().filter(|x| **x > low + apart && **x < high - apart).count())
}

/// Refusals at each coefficient.
fn listed(doses: &[At]) -> Result<String, AnalysisError> {
    let one = |d: &At| Ok(format!("{} at {}", share(d.share(Class::Refusal)?), exact(d.get(DoseRow::coefficient)?)));
    Ok(doses.iter().map(one).collect::<Result<Vec<_>, AnalysisError>>()?.join(", "))
}

/// Refusals along random directions, where they were asked for.
fn along_random(doses: &[At]) -> Result<String, AnalysisError> {
    let mut words = Vec::new();
    for dose in doses {
        if dose.get(DoseRow::random_answers)? > 0 {
            words.push(format!(
                "{} at {}",
                share(dose.get(DoseRow::random_refusal)?),
                exact(dose.get(DoseRow::coefficient)?)
            ));
        }
    }
    Ok(match words.is_empty() {
        true => String::new(),
        false => format!(" Along random directions {} are refused.", words.join(" and ")),
    })
}

pub(super) fn evasion(g: &Ground) -> Judged {
    let claim = blank(
        "evasion",
        "Between refusal and answering lies evasion",
        "On the way from refusal to answering the model evades. Holds if the largest share of evasions lies within the grid, and \
         its 95 % interval above those of the shares at both ends.",
        "largest share of evasions along the modulation",
        Unit::Share,
    );
    let doses = match doses(g)? {
        Ok(doses) => doses,
        Err(why) => return claim.not_testable(why),
    };
    let shares =
        doses.iter().map(|d| Ok(d.share(Class::Evasion)?.unwrap_or(0.0))).collect::<Result<Vec<_>, AnalysisError>>()?;
    let (first, last) = (shares[0], shares[shares.len() - 1]);
    let peak = (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap_or(0);
    let n = doses[peak].get(DoseRow::answers)?;
    let interval = of_share(shares[peak], n);
    let at_ends = [(first, 0), (last, doses.len() - 1)]
        .map(|(x, at)| Ok::<_, AnalysisError>(of_share(x, doses[at].get(DoseRow::answers)?)));
    let [at_first, at_last] = at_ends;
    let (at_first, at_last) = (at_first?, at_last?);
    let ends = [at_first, at_last].map(|i| i.map_or(1.0, |i| i.1)).into_iter().fold(0.0, f64::max);
    let (above, within) = (interval.is_some_and(|i| i.0 > ends), peak > 0 && peak + 1 < shares.len());
    Ok(Claim {
        statistic: Some(shares[peak]),
        interval,
        n: Some(n),
        verdict: g.verdict(above && within),
        fails: failing([
            (within, "the largest share lies at an end of the grid".to_string()),
            (above, format!("its interval is not above those of the ends, which go up to {}", share(ends))),
        ]),
        found: format!(
            "The share of evasions is largest at coefficient {}; at the ends of the grid it is {} (95 % interval {}) and {} ({}).",
            exact(doses[peak].get(DoseRow::coefficient)?),
            share(first),
            share_interval(at_first),
            share(last),
            share_interval(at_last)
        ),
        ..claim
    })
}

pub(super) fn thresholds(g: &Ground, by: &'static str) -> Judged {
    let topics = by == "group";
    let claim = blank(
        if topics { "thresholds-topic" } else { "thresholds-language" },
        if topics { "Thresholds differ by topic" } else { "Thresholds differ by language" },
        "How much of the signal must be taken away before refusal gives way is not the same for all. Holds if the coefficients \
         at which single prompts' logit differences cross 0 differ in rank between the labels (permutation test, q < 0.05 over \
         sides and labels).",
        "share of the variance of the thresholds' ranks that lies between labels",
        Unit::Share,
    );
    let tables = [g.evidence.table("modulate", "differences"), g.evidence.table("modulate", "thresholds")];
    let [Ok(differences), Ok(thresholds)] = tables else {
        let why = g.evidence.table("modulate", "differences").err();
        return claim.not_testable(g.hindrance().or(why).unwrap_or_default());
    };
    let Some(at) = row(differences, &[(DifferenceRow::side, "positive"), (DifferenceRow::by, by)])? else {
        let what = if topics { "topic" } else { "language" };
        return claim.not_testable(
            g.hindrance().unwrap_or(format!("no two prompts differ in where they cross 0, or all are of one {what}")),
        );
    };
    let crossed =
        rows(thresholds, &[(OfPrompts::side, "positive"), (OfPrompts::by, by), (ThresholdRow::class, METRIC)])?;
    let one = |r: &At| {
        let open = (r.get(ThresholdRow::low_open)?, r.get(ThresholdRow::high_open)?);
        let ends = ends(r.get(ThresholdRow::ci_low)?, r.get(ThresholdRow::ci_high)?, open, 2);
        Ok(format!("{} {} {ends}", r.get(OfPrompts::value)?, number(r.get(ThresholdRow::coefficient)?, 2)))
    };
    let listed = crossed.iter().take(16).map(one).collect::<Result<Vec<_>, AnalysisError>>()?;
    let q = at.get(DifferenceRow::q_value)?;
    Ok(Claim {
        statistic: at.get(DifferenceRow::between)?,
        n: Some(at.get(DifferenceRow::n)?),
        p: at.get(DifferenceRow::p_value)?,
        verdict: g.verdict(q.is_some_and(|q| q < SIGNIFICANT)),
        fails: format!("q {} is not under {SIGNIFICANT}", p_value(q)),
        found: format!(
            "{}, q {} over sides and labels.{} Where the mean metric crosses 0, with 95 % intervals: {}.{}",
            cells::plural(at.get(DifferenceRow::labels)?, "label"),
            p_value(q),
            beyond_the_grid(at)?,
            if listed.is_empty() { "nowhere".to_string() } else { listed.join("; ") },
            without_crossing(g, thresholds, by)?,
        ),
        figures: if topics { &[("modulate", "thresholds.png", "Thresholds by topic and language.")] } else { &[] },
        ..claim
    })
}

/// The labels whose mean metric does not cross 0 on the grid, each as a sentence after a space.
fn without_crossing(g: &Ground, thresholds: &Table, by: &str) -> Result<String, AnalysisError> {
    let Ok(dose) = g.evidence.table("modulate", "dose") else { return Ok(String::new()) };
    let found = uncrossed(dose, thresholds, |side, part| (side, part) == ("positive", by))?;
    Ok(found.iter().map(|part| format!(" {}", part.sentence())).collect())
}

/// The prompts that cross 0 nowhere within the grid; nothing where there are none.
fn beyond_the_grid(at: At) -> Result<String, AnalysisError> {
    let (below, above) = (at.get(DifferenceRow::below)?, at.get(DifferenceRow::above)?);
    Ok(match (below, above) {
        (0, 0) => String::new(),
        (below, 0) => format!(" {} below the grid: they rank before all others.", crossing(below)),
        (0, above) => format!(" {} above the grid: they rank after all others.", crossing(above)),
        _ => {
            format!(" {} below the grid and {above} above it: they rank before and after all others.", crossing(below))
        }
    })
}

/// `3 prompts cross 0`
fn crossing(n: i64) -> String {
    format!("{} {} 0", cells::plural(n, "prompt"), if n == 1 { "crosses" } else { "cross" })
}

pub(super) fn relocation(g: &Ground) -> Judged {
    let claim = blank(
        "relocation",
        "The circuit relocates between generations while behaviour stays",
        "Checkpoints of a family refuse alike by different heads. Holds if both have such heads and share no more than chance \
         gives (hypergeometric p >= 0.05), and surely less than half of what the one with fewer has (upper end of the 95 % Wilson \
         interval), while the interval of the difference of refusals lies within 20 points. Judged on the first of the \
         checkpoints that are compared to.",
        "share of the heads that carry the behaviour in either that carry it in both",
        Unit::Share,
    );
    let Some(overlap) = g.evidence.overlap else {
        let of_other = g.evidence.others.first().map(|other| other.hindrance()).transpose()?.flatten();
        let why = || format!("it takes two checkpoints of a family: name others with {}", param("against"));
        return claim.not_testable(g.hindrance().or(of_other).unwrap_or_else(why));
    };
    let Some(two) = rows(overlap, &[])?.first().copied() else { return claim.not_testable("nothing was compared") };
    let name = two.get(OverlapRow::other)?;
    let (carriers, others) = (two.get(OverlapRow::carriers)?, two.get(OverlapRow::other_carriers)?);
    let difference = two.get(OverlapRow::refusal_interval)?;
    let (shift, refusals) = (two.get(OverlapRow::gate_shift)?, two.get(OverlapRow::refusal_difference)?);
    let shift = shift.map_or(String::new(), |by| format!("; the gate lies {} of the depth deeper", signed(by, 2)));
    let refusals = refusals.map_or(String::new(), |by| {
        let ends = cells::points_interval(difference);
        format!(" Refusals differ by {} (95 % interval {ends}).", cells::points(by))
    });
    let found = format!(
        "Against {}: of {carriers} and {others} heads that carry the behaviour {} are shared, {} by chance{shift}.{refusals}",
        crate::names::short_name(name),
        number(two.get(OverlapRow::shared)?, 0),
        number(two.get(OverlapRow::expected)?, 2),
    );
    let p = two.get(OverlapRow::p_value)?;
    let claim = Claim { statistic: two.get(OverlapRow::jaccard)?, p, found, ..claim };
    let other = g.evidence.others.iter().find(|other| other.model == name);
    let of_other = match other {
        Some(other) => other.hindrance()?,
        None => Some(format!("the behaviour of {} is not known", crate::names::short_name(name))),
    };
    let fewer = carriers.min(others);
    match (g.hindrance().or(of_other), p.zip(two.get(OverlapRow::shared)?), difference) {
        (Some(why), ..) => claim.not_testable(why),
        _ if fewer == 0 => {
            claim.not_testable("in one of the checkpoints no head carries the behaviour in both directions")
        }
        (_, None, _) => claim.not_testable("the checkpoints have different numbers of layers or heads"),
        (_, _, None) => claim.not_testable("the behaviour of both was not measured"),
        (_, Some((p, shared)), Some((low, high))) => {
            let apart = p >= SIGNIFICANT && low > -ALIKE && high < ALIKE;
            // A few heads share none by luck, though the circuit is the same.
            let told = wilson(shared as usize, fewer as usize).is_some_and(|i| i.high < SAME);
            if apart && !told {
                return claim.not_testable("too few heads carry the behaviour to tell another circuit from the same");
            }
            Ok(Claim { verdict: Verdict::of(apart), figures: &[], ..claim })
        }
    }
}

pub(super) fn commitment(g: &Ground) -> Judged {
    let claim = blank(
        "commitment",
        "Routing commits early, at the gate's own layer",
        "Until the gate has read the detected content, changing it changes the route; afterwards it does not. Holds if the \
         gate's layer is the last at which removing the content's signal has half of its largest effect, or beside it and \
         within the interval of that layer. The largest effect must be more than chance gives (q < 0.05 over layers), and larger \
         than that of any of the random directions before any layer. (The paper changes the last position, whose signal the output \
         itself reads; that is reported beside.)",
        "last layer at which removing the content's signal has half of its largest effect",
        Unit::Layer,
    );
    let tables = (g.evidence.table("commitment", "commitment"), g.evidence.table("commitment", "layers"));
    let (committed, layers) = match tables {
        (Ok(committed), Ok(layers)) => (committed, layers),
        (Err(why), _) | (_, Err(why)) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let Some(at) = row(committed, &[(CommittedRow::place, "content"), (CommittedRow::change, "remove")])? else {
        return claim.not_testable("the content's signal was not changed");
    };
    let (layer, interval) = (at.get(CommittedRow::layer)?, at.get(CommittedRow::interval)?);
    let last = row(committed, &[(CommittedRow::place, "last"), (CommittedRow::change, "remove")])?;
    let gate = g.head()?.map(|(layer, _)| layer as f64);
    // A wide interval must not make any layer right.
    let near = gate.zip(layer).is_some_and(|(gate, layer)| (gate - layer).abs() <= 1.0);
    let within = gate.zip(interval.or(layer.zip(layer))).is_some_and(|(gate, (low, high))| low <= gate && gate <= high);
    let found = committed_at(gate, at, last)?;
    let claim = Claim { statistic: layer, interval, n: Some(at.get(CommittedRow::n)?), found, ..claim };
    let mut tested = false;
    for row in rows(layers, &[(LayerRow::place, "content"), (LayerRow::change, "remove")])? {
        let is_largest = Some(row.get(LayerRow::layer)? as f64) == at.get(CommittedRow::largest_layer)?;
        tested |= is_largest && row.get(LayerRow::q_value)?.is_some_and(|q| q < SIGNIFICANT);
    }
    let (largest, controls) = (at.get(CommittedRow::largest_effect)?, at.get(CommittedRow::controls_largest)?);
    let over_controls = largest.zip(controls).is_some_and(|(largest, controls)| largest.abs() > controls);
    match (g.hindrance(), layer.filter(|_| tested)) {
        (Some(why), _) => claim.not_testable(why),
        (None, None) => {
            claim.not_testable("removing the signal at no layer moves the metric towards the control beyond chance")
        }
        (None, Some(_)) if !over_controls => claim.not_testable(
            "removing the signal moves the metric no further than going as far along random directions does",
        ),
        (None, Some(_)) => Ok(Claim {
            verdict: Verdict::of(gate == layer || (within && near)),
            fails: format!("the gate is in layer {}, and the last such layer is {}", number(gate, 0), number(layer, 0)),
            figures: &[("commitment", "commitment.png", "The signal removed, layer by layer.")],
            ..claim
        }),
    }
}

/// Where the content is read and where the signal arrives, in words.
fn committed_at(gate: Option<f64>, content: At, last: Option<At>) -> Result<String, AnalysisError> {
    let of_last = |column| last.map(|l| l.get(column)).transpose().map(Option::flatten);
    Ok(format!(
        "The gate is in layer {}. The largest effect of removing the signal from the content is {} nats, {} of the gap; of {} random \
         directions before each layer none moves it by more than {} nats. At the last position the signal arrives before layer {}, and removing \
         it has half of its largest effect until before layer {}. The model has {} layers.",
        number(gate, 0),
        signed(content.get(CommittedRow::largest_effect)?, 3),
        share(content.get(CommittedRow::largest_share)?),
        content.get(CommittedRow::controls)?,
        number(content.get(CommittedRow::controls_largest)?, 3),
        number(of_last(CommittedRow::layer)?, 0),
        number(of_last(CommittedRow::until)?, 0),
        content.get(CommittedRow::n_layers)?,
    ))
}

#[cfg(test)]
pub(super) mod tests;

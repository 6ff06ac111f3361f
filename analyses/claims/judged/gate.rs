//! Claims on the gate: that it is needed, what it writes, whom it wakes, and who sees it.

use super::{Ground, Judged, blank, scaled};
use crate::analyses::AnalysisError;
use crate::analyses::claims::evidence::{of_head, row, rows, table};
use crate::analyses::claims::{Claim, Unit, Verdict};
use crate::analyses::components::label;
use crate::report::cells::{self, number, p_value, share, signed};
use crate::table::Table;
use std::collections::BTreeMap;

/// Pairs that the paper's tests of necessity are made with.
const PAIRS: i64 = 120;
/// The p-value that they reach.
const NECESSARY: f64 = 0.001;
/// The share of all attributions that a gate stays under.
const LITTLE: f64 = 0.01;

/// How much less of a gate ablation must show at the next size.
const STEP: f64 = 0.05;

pub(super) fn necessity(g: &Ground) -> Judged {
    let claim = blank(
        "gate-necessity",
        "Interchange shows the gate necessary",
        "Exchanging the gate alone with that of the matched control takes the refusal away. Holds if the effect goes towards the \
         control with p < 0.001 over 120 pairs or more.",
        "share of the gap between positive and negative prompts that the gate's interchange crosses (necessity)",
        Unit::Share,
    );
    let heads = match g.evidence.table("contrast-methods", "heads") {
        Ok(heads) => heads,
        Err(why) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let Some((gate, head)) = g.gate.zip(g.head()?) else { return without_gate(g, claim, heads) };
    let Some(exact) = of_head(heads, head)? else { return claim.not_testable("the gate was not measured") };
    let gap =
        exact.float("negative_mean")?.zip(exact.float("positive_mean")?).map(|(n, p)| n - p).filter(|gap| *gap != 0.0);
    let statistic = exact.float("interchange_mean")?.zip(gap).map(|(e, gap)| e / gap);
    let (n, p) = (exact.int("n")?, exact.float("interchange_p")?);
    let found = format!(
        "The gate is {}, chosen on these pairs as the strongest of all heads: {} nats of the logit difference, 95 % interval {}, q {} over all heads. In the control's run its \
         exchange crosses {} (sufficiency).",
        g.gate_name()?,
        signed(exact.float("interchange_mean")?, 3),
        cells::interval(exact.float("interchange_ci_low")?, exact.float("interchange_ci_high")?, 3),
        p_value(exact.float("interchange_q")?),
        share(gate.float("sufficiency")?),
    );
    let few = (n < PAIRS).then(|| format!("the claim is of {PAIRS} pairs or more, and {n} were used"));
    Ok(Claim {
        statistic,
        interval: scaled(exact.interval("interchange_ci_low", "interchange_ci_high")?, gap),
        n: Some(n),
        p,
        verdict: match few {
            Some(why) if g.hindrance().is_none() => Verdict::NotTestable(why),
            _ => g.verdict(p.is_some_and(|p| p < NECESSARY) && statistic.is_some_and(|s| s > 0.0)),
        },
        found,
        figures: &[(
            "screen",
            "necessity.png",
            "Mean effects of interchange (necessity); heads that were only estimated are empty.",
        )],
        ..claim
    })
}

/// Where all heads were asked and none carries the behaviour, none is necessary.
fn without_gate(g: &Ground, claim: Claim, heads: &Table) -> Judged {
    let n = rows(heads, &[])?.first().map(|h| h.int("n")).transpose()?;
    match (&g.unrouted, n) {
        (None, Some(n)) if n >= PAIRS && g.evidence.table("screen", "circuit").is_ok() => {
            let found = format!("{}.", g.without_gate);
            Ok(Claim { n: Some(n), verdict: Verdict::DoesNotHold, found, ..claim })
        }
        _ => claim.not_testable(g.hindrance().unwrap_or_default()),
    }
}

pub(super) fn attribution(g: &Ground) -> Judged {
    let claim = blank(
        "gate-attribution",
        "The gate contributes under 1 % of output DLA",
        "By direct logit attribution the gate writes almost nothing that the unembedding reads. Holds if its share of the sum of \
         absolute attributions, with its 95 % interval, is under 1 %.",
        "the gate's share of output DLA",
        Unit::Share,
    );
    let heads = match g.evidence.table("contrast-methods", "heads") {
        Ok(heads) => heads,
        Err(why) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let Some(head) = g.head()? else { return claim.not_testable(g.hindrance().unwrap_or_default()) };
    let Some(gate) = of_head(heads, head)? else { return claim.not_testable("the gate was not measured") };
    let statistic = gate.float("dla_share")?;
    let mean = gate.float("dla_mean")?;
    let ends = gate.interval("dla_share_ci_low", "dla_share_ci_high")?;
    let found = format!(
        "{} adds {} nats directly (95 % interval {}), rank {} of {} heads by attribution and rank {} by interchange.",
        g.gate_name()?,
        signed(mean, 3),
        cells::interval(gate.float("dla_ci_low")?, gate.float("dla_ci_high")?, 3),
        gate.int("rank_dla")?,
        heads.rows(),
        gate.int("rank_interchange")?,
    );
    Ok(Claim {
        statistic,
        interval: ends,
        n: Some(gate.int("n")?),
        verdict: g.verdict(ends.is_some_and(|(_, high)| high < LITTLE)),
        found,
        figures: &[("contrast-methods", "dla.png", "Interchange and attribution of every head.")],
        ..claim
    })
}

pub(super) fn cascade(g: &Ground) -> Judged {
    let claim = blank(
        "cascade",
        "A knockout cascade names the amplifiers",
        "With the gate knocked out, deeper heads that push towards refusal fall silent. Holds if one later head or more loses \
         attribution in the direction of the metric's fall (q < 0.05), and all later heads together carry a part of the gate's \
         effect whose interval is above 0.",
        "share of the gate's effect that arrives through later heads",
        Unit::Share,
    );
    let (components, repair) = match (g.evidence.table("cascade", "components"), g.evidence.table("cascade", "repair"))
    {
        (Ok(components), Ok(repair)) => (components, repair),
        (Err(why), _) | (_, Err(why)) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let Some(whole) = rows(repair, &[])?.first().copied() else { return claim.not_testable("nothing was knocked out") };
    let mut amplifiers = Vec::new();
    for at in rows(components, &[])? {
        if at.flag("amplifier")? {
            let name = label(at.int("layer")?, at.text("component")?);
            amplifiers.push((at.float("share_of_effect")?.unwrap_or(0.0), name));
        }
    }
    amplifiers.sort_by(|a, b| b.0.total_cmp(&a.0));
    let named: Vec<String> = amplifiers.iter().take(8).map(|(of, name)| format!("**{name}** {}", share(*of))).collect();
    let total = whole.float("total_mean")?;
    let found = format!(
        "{} heads are amplifiers{}. Knocking out the gate moves the logit difference by {} nats, of which {} directly, {} \
         through later heads and {} through MLPs.",
        amplifiers.len(),
        if named.is_empty() { String::new() } else { format!(": {} of the gate's effect", named.join(", ")) },
        signed(total, 3),
        signed(whole.float("direct_mean")?, 3),
        signed(whole.float("later_heads_mean")?, 3),
        signed(whole.float("later_mlps_mean")?, 3),
    );
    let interval = scaled(whole.interval("later_heads_ci_low", "later_heads_ci_high")?, total);
    Ok(Claim {
        statistic: whole
            .float("later_heads_mean")?
            .zip(total.filter(|t| *t != 0.0))
            .map(|(heads, total)| heads / total),
        interval,
        n: Some(whole.int("n")?),
        verdict: g.verdict(!amplifiers.is_empty() && interval.is_some_and(|(low, _)| low > 0.0)),
        found,
        figures: &[("cascade", "drops.png", "What each later head loses when the gate is knocked out.")],
        ..claim
    })
}

pub(super) fn ablation_misses(g: &Ground) -> Judged {
    let claim = blank(
        "ablation-misses",
        "Per-head ablation misses gates that interchange finds",
        "Zero ablation of the gate does not show what interchange shows. Holds if the gate's ablation does not move the metric \
         towards the control with q < 0.05, and moves it by less than half of what interchange does.",
        "share of the gap that the gate's zero ablation crosses",
        Unit::Share,
    );
    let tables = ["heads", "missed", "agreement"].map(|name| g.evidence.table("contrast-methods", name));
    let [Ok(heads), Ok(missed), Ok(agreement)] = tables else {
        return claim.not_testable(g.hindrance().unwrap_or_else(|| "`contrast-methods` could not be run".to_string()));
    };
    let Some(head) = g.head()? else { return claim.not_testable(g.hindrance().unwrap_or_default()) };
    let Some(gate) = of_head(heads, head)? else { return claim.not_testable("the gate was not measured") };
    let gap =
        gate.float("negative_mean")?.zip(gate.float("positive_mean")?).map(|(n, p)| n - p).filter(|gap| *gap != 0.0);
    let all = rows(missed, &[])?;
    let by_ablation = all.iter().map(|m| m.flag("ablation_misses")).collect::<Result<Vec<_>, _>>()?;
    let by_attribution = all.iter().map(|m| m.flag("dla_misses")).collect::<Result<Vec<_>, _>>()?;
    let count = |of: &[bool]| of.iter().filter(|m| **m).count();
    let both = row(agreement, &[("first", "interchange"), ("second", "ablation")])?;
    let correlation = both.map(|b| b.float("spearman_size")).transpose()?.flatten();
    let found = format!(
        "{}'s ablation moves the logit difference by {} nats (q {}), its interchange by {}. Of {} heads that interchange finds \
         ablation misses {} and attribution {}; the ranks of all heads by interchange and by ablation correlate by {}.",
        g.gate_name()?,
        signed(gate.float("ablation_mean")?, 3),
        p_value(gate.float("ablation_q")?),
        signed(gate.float("interchange_mean")?, 3),
        all.len(),
        count(&by_ablation),
        count(&by_attribution),
        number(correlation, 2),
    );
    let effects = gate.float("ablation_mean")?.zip(gate.float("interchange_mean")?);
    let small = effects.is_some_and(|(ablation, interchange)| ablation.abs() < 0.5 * interchange.abs());
    let of_gate = of_head(missed, head)?;
    let verdict = match of_gate {
        Some(at) => g.verdict(at.flag("ablation_misses")? && small),
        None => g.hindrance().map_or_else(
            || {
                Verdict::NotTestable(
                    "interchange of all heads at once does not find the gate either (q over all heads)".into(),
                )
            },
            Verdict::NotTestable,
        ),
    };
    Ok(Claim {
        statistic: gate.float("ablation_mean")?.zip(gap).map(|(e, gap)| e / gap),
        interval: scaled(gate.interval("ablation_ci_low", "ablation_ci_high")?, gap),
        n: Some(gate.int("n")?),
        p: gate.float("ablation_p")?,
        verdict,
        found,
        figures: &[("contrast-methods", "agreement.png", "Interchange and zero ablation of every head.")],
        ..claim
    })
}

/// How much of the gate's interchange its ablation shows.
fn shown_by_ablation(tables: &BTreeMap<String, Vec<Table>>) -> Result<Option<f64>, AnalysisError> {
    let (Some(heads), Some(circuit)) = (table(tables, "contrast-methods", "heads"), table(tables, "screen", "circuit"))
    else {
        return Ok(None);
    };
    let Some(gate) = rows(circuit, &[])?.first().copied() else { return Ok(None) };
    let Some(at) = of_head(heads, (gate.int("layer")?, gate.int("head")?))? else { return Ok(None) };
    let (ablation, interchange) = (at.float("ablation_mean")?, at.float("interchange_mean")?);
    Ok(ablation.zip(interchange.filter(|i| *i != 0.0)).map(|(a, i)| a / i))
}

pub(super) fn ablation_weakens(g: &Ground) -> Judged {
    let claim = blank(
        "ablation-weakens",
        "Per-head ablation weakens with scale",
        "The larger the checkpoint, the less of the gate's part ablation shows. Holds if the effect of the gate's ablation, as a \
         share of that of its interchange, falls by a twentieth or more with every step in the number of parameters, over \
         checkpoints that refuse.",
        "effect of the gate's ablation as a share of its interchange's",
        Unit::Share,
    );
    let own = shown_by_ablation(g.evidence.tables)?;
    let mut sizes: Vec<(u64, f64)> = Vec::new();
    for other in g.evidence.others {
        if other.refuses()? {
            sizes.extend(shown_by_ablation(&other.tables)?.map(|ratio| (other.parameters, ratio)));
        }
    }
    let claim = Claim { statistic: own, ..claim };
    if let Some(why) = g.hindrance() {
        return claim.not_testable(why);
    }
    sizes.extend(own.map(|ratio| (g.evidence.parameters, ratio)));
    sizes.sort_by_key(|s| s.0);
    let mut different: Vec<u64> = sizes.iter().map(|s| s.0).collect();
    different.dedup();
    if different.len() < 2 {
        return claim.not_testable("it takes checkpoints of several sizes that refuse: name them with --against");
    }
    let steps = |a: &(u64, f64)| sizes.iter().filter(|b| b.0 > a.0).all(|b| b.1 <= a.1 - STEP);
    let falls = sizes.iter().all(steps);
    let listed: Vec<String> =
        sizes.iter().map(|(n, ratio)| format!("{} of {} parameters", share(*ratio), cells::count(*n as i64))).collect();
    Ok(Claim {
        n: Some(sizes.len() as i64),
        verdict: Verdict::of(falls),
        found: format!("By checkpoint: {}.", listed.join(", ")),
        ..claim
    })
}

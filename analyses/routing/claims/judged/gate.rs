//! Claims on the gate: that it is needed, what it writes, whom it wakes, and who sees it.

use super::{Ground, Judged, blank, failing, named};
use crate::analyses::components::{OfComponent, label};
use crate::analyses::effects::interval;
use crate::analyses::interchange::{Direction, Row};
use crate::analyses::prelude::*;
use crate::analyses::routing::cascade::{DropRow, OverPairs, RepairRow};
use crate::analyses::routing::claims::evidence::{At, of_head, row, rows, table};
use crate::analyses::routing::claims::{Claim, Unit, Verdict};
use crate::analyses::routing::screen::CircuitRow;
use crate::analyses::routing::screen::held_out::{self, HeldOutRow};
use crate::analyses::routing::three_methods::{AgreementRow, Crossed, HeadRow, Method, MissedRow, Ranks};
use crate::names::short_name;
use crate::report::cells::{self, number, p_value, share, share_interval, signed};
use crate::stats::beyond_zero;
use std::collections::BTreeMap;

/// Pairs that the paper's tests of necessity are made with.
const PAIRS: i64 = 120;
/// The p-value that they reach.
const NECESSARY: f64 = 0.001;
/// The share of all attributions that a gate stays under.
const LITTLE: f64 = 0.01;
/// The first part of all heads by attribution, one in so many, that a gate is not in.
const FIRST: i64 = 10;

/// The figure that shows how necessary heads are.
const NECESSITY: &[(&str, &str, &str)] = &[(
    "screen",
    "necessity.png",
    "Mean effects of interchange (necessity); heads that were only estimated are hatched.",
)];

/// How much less of a gate ablation must show at the next size.
const STEP: f64 = 0.05;

pub(super) fn necessity(g: &Ground) -> Judged {
    let claim = blank(
        "gate-necessity",
        "Interchange shows the gate necessary",
        "Exchanging the gate alone with that of the matched control moves the metric towards the control. Holds if it does with p < \
         0.001 over 120 pairs or more. This does not say that refusals turn into answers. The gate is the strongest of all heads on these pairs: so p is \
         family-wise over all of them (max statistic), and the share of the gap is that on pairs that the head was not picked \
         on (picked on one half, measured on the other).",
        "share of the gap between positive and negative prompts that the gate's interchange crosses (necessity)",
        Unit::Share,
    );
    let heads = match g.evidence.table("contrast-methods", "heads") {
        Ok(heads) => heads,
        Err(why) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let Some((gate, head)) = g.gate.zip(g.head()?) else { return without_gate(g, claim, heads) };
    let Some(exact) = of_head(heads, [HeadRow::layer, HeadRow::head], head)? else {
        return claim.not_testable("the gate was not measured");
    };
    let here = (
        exact.part(HeadRow::interchange_crossed, Crossed::share)?,
        exact.part(HeadRow::interchange_crossed, Crossed::interval)?,
    );
    let held = Unpicked::of(g)?;
    let (n, p) = (exact.get(HeadRow::n)?, exact.part(HeadRow::interchange, Method::p_max)?);
    let found = format!(
        "The gate is {}, the strongest carrier: {} nats of the logit difference, 95 % interval {}, q {} over all heads.{} On the \
         pairs that it was picked on that is {} of the gap, 95 % interval {}; in the control's run its exchange crosses {} \
         (sufficiency{}).{}",
        g.gate_name()?,
        signed(exact.part(HeadRow::interchange, Method::mean)?, 3),
        interval(exact.part(HeadRow::interchange, Method::interval)?),
        p_value(exact.part(HeadRow::interchange, Method::q)?),
        flips(g, head)?,
        share(here.0),
        share_interval(here.1),
        share(gate.get(CircuitRow::sufficiency)?),
        held.as_ref().map_or(String::new(), Unpicked::of_sufficiency),
        held.as_ref().map_or(String::new(), |held| format!(" {}", held.text)),
    );
    let few = (n < PAIRS).then(|| too_few(n));
    let (surely, towards) = (p.is_some_and(|p| p < NECESSARY), here.0.is_some_and(|s| s > 0.0));
    let (statistic, interval) = held.map_or(here, |held| (held.necessity, held.interval));
    Ok(Claim {
        statistic,
        interval,
        n: Some(n),
        p,
        verdict: match few {
            Some(why) if g.hindrance().is_none() => Verdict::NotTestable(why),
            _ => g.verdict(surely && towards),
        },
        fails: failing([
            (surely, format!("p {} is not under {NECESSARY}", p_value(p))),
            (towards, "the effect goes away from the control".to_string()),
        ]),
        found,
        figures: NECESSITY,
        ..claim
    })
}

fn too_few(n: i64) -> String {
    format!("the claim is of {PAIRS} pairs or more, and {n} {} used", if n == 1 { "was" } else { "were" })
}

/// In how many pairs the gate's exchange changes the metric's sign, as a sentence after a space; nothing where that is not known.
fn flips(g: &Ground, (layer, head): (i64, i64)) -> Result<String, AnalysisError> {
    let Ok(heads) = g.evidence.table("screen", "heads") else { return Ok(String::new()) };
    for at in rows(heads, &[(Row::variant, Direction::Necessity.name())])? {
        if (at.get(Row::layer)?, at.get(Row::head)?) == (layer, head) {
            let flips = share(at.get(Row::flip_rate)?);
            return Ok(format!(" It changes the sign of the logit difference in {flips} of the pairs."));
        }
    }
    Ok(String::new())
}

/// What the strongest head crosses on pairs that it was not picked on.
struct Unpicked {
    necessity: Option<f64>,
    interval: Option<(f64, f64)>,
    /// The interval of the gate's sufficiency, where both halves pick the gate, so that it is measured on all pairs.
    sufficiency: Option<(f64, f64)>,
    text: String,
}

impl Unpicked {
    /// `, 95 % interval [15.1, 19.7] %` of the gate's sufficiency; nothing where it was not measured on all pairs.
    fn of_sufficiency(&self) -> String {
        self.sufficiency.map_or(String::new(), |ends| format!(", 95 % interval {}", share_interval(Some(ends))))
    }

    /// None where no head crosses in both directions in one of the halves.
    fn of(g: &Ground) -> Result<Option<Self>, AnalysisError> {
        let Ok(table) = g.evidence.table("screen", "held_out") else { return Ok(None) };
        let Some(both) = row(table, &[(HeldOutRow::half, "both")])? else { return Ok(None) };
        let necessity = both.part(HeldOutRow::necessity, held_out::Crossed::share)?;
        let interval = both.part(HeldOutRow::necessity, held_out::Crossed::interval)?;
        let mut picked = Vec::new();
        for at in rows(table, &[])?.iter().take(2) {
            picked.push(cells::head(at.get(HeldOutRow::layer)?, at.get(HeldOutRow::head)?));
        }
        picked.dedup();
        let sufficiency = both.part(HeldOutRow::sufficiency, held_out::Crossed::interval)?;
        let gate = g.head()?.map(|(layer, head)| cells::head(layer, head));
        let of_gate = picked.len() == 1 && picked.first() == gate.as_ref();
        let text = match of_gate {
            true => {
                "Each half of the pairs by itself picks it too, so that these numbers are not flattered by the choice."
                    .to_string()
            }
            false => format!(
                "By themselves the halves of the pairs pick {}: picked on one half and measured on the other, the strongest crosses \
                 {} of the gap, 95 % interval {} (sufficiency {}, {}).",
                picked.join(" and "),
                share(necessity),
                share_interval(interval),
                share(both.part(HeldOutRow::sufficiency, held_out::Crossed::share)?),
                share_interval(sufficiency),
            ),
        };
        Ok(Some(Unpicked { necessity, interval, sufficiency: sufficiency.filter(|_| of_gate), text }))
    }
}

/// Where all heads were asked and none carries the behaviour, none is necessary.
fn without_gate(g: &Ground, claim: Claim, heads: &Table) -> Judged {
    let n = rows(heads, &[])?.first().map(|h| h.get(HeadRow::n)).transpose()?;
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
         absolute attributions, with its 95 % interval, is under 1 %, and attribution ranks it behind the first tenth of all \
         heads: the 1 % is the paper's mark, and where a model has hundreds of heads nearly every one is under it.",
        "the gate's share of output DLA",
        Unit::Share,
    );
    let heads = match g.evidence.table("contrast-methods", "heads") {
        Ok(heads) => heads,
        Err(why) => return claim.not_testable(g.hindrance().unwrap_or(why)),
    };
    let Some(head) = g.head()? else { return claim.not_testable(g.hindrance().unwrap_or_default()) };
    let Some(gate) = of_head(heads, [HeadRow::layer, HeadRow::head], head)? else {
        return claim.not_testable("the gate was not measured");
    };
    let statistic = gate.get(HeadRow::dla_share)?;
    let mean = gate.part(HeadRow::dla, Method::mean)?;
    let ends = gate.get(HeadRow::dla_share_interval)?;
    let (rank, all) = (gate.get(HeadRow::rank_dla)?, heads.rows() as i64);
    let (little, behind) = (ends.is_some_and(|(_, high)| high < LITTLE), FIRST * rank > all);
    let under = heads.column(HeadRow::dla_share)?.iter().flatten().filter(|share| **share < LITTLE).count();
    let have = if under == 1 { "has" } else { "have" };
    let found = format!(
        "{} adds {} nats directly (95 % interval {}), rank {rank} of {all} heads by attribution and rank {} by interchange. Of \
         all heads {under} {have} less than 1 % of output DLA.",
        g.gate_name()?,
        signed(mean, 3),
        interval(gate.part(HeadRow::dla, Method::interval)?),
        gate.get(HeadRow::rank_interchange)?,
    );
    Ok(Claim {
        statistic,
        interval: ends,
        n: Some(gate.get(HeadRow::n)?),
        verdict: g.verdict(little && behind),
        fails: failing([
            (little, format!("the interval of its share, {}, is not under 1 %", share_interval(ends))),
            (behind, format!("by attribution it is among the first tenth of the heads (rank {rank} of {all})")),
        ]),
        found,
        figures: &[("contrast-methods", "dla.png", "Interchange and attribution (sign turned) of every head.")],
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
        if at.get(DropRow::amplifier)? {
            let name = label(at.get(OfComponent::layer)?, at.get(OfComponent::component)?);
            amplifiers.push((at.get(DropRow::share_of_effect)?.unwrap_or(0.0), name));
        }
    }
    let n_amplifiers = amplifiers.len();
    let found = format!(
        "{}. Knocking out the gate moves the logit difference by {} nats, of which {} directly, {} through later heads and {} \
         through MLPs.",
        losing(amplifiers),
        signed(whole.part(RepairRow::total, OverPairs::mean)?, 3),
        signed(whole.part(RepairRow::direct, OverPairs::mean)?, 3),
        signed(whole.part(RepairRow::later_heads, OverPairs::mean)?, 3),
        signed(whole.part(RepairRow::later_mlps, OverPairs::mean)?, 3),
    );
    let interval = whole.get(RepairRow::later_heads_share_interval)?;
    let carried = beyond_zero(interval, 0.0) == Some(true);
    Ok(Claim {
        statistic: whole.get(RepairRow::later_heads_share)?,
        interval,
        n: Some(whole.get(RepairRow::n)?),
        verdict: g.verdict(n_amplifiers > 0 && carried),
        fails: failing([
            (n_amplifiers > 0, "no later head loses attribution in the direction of the fall".to_string()),
            (
                carried,
                format!(
                    "the interval of what all later heads together carry, {}, is not above 0",
                    share_interval(interval)
                ),
            ),
        ]),
        found,
        figures: &[("cascade", "drops.png", "What each later head loses when the gate is knocked out.")],
        ..claim
    })
}

/// Which later heads lose attribution in the direction of the effect, with their shares of it.
fn losing(heads: Vec<(f64, String)>) -> String {
    let how = "attribution in the direction of the effect (q < 0.05)";
    match heads.len() {
        0 => format!("No later head loses {how}"),
        1 => format!("One later head loses {how}: {} of the gate's effect", named(heads)),
        n => format!("{n} later heads lose {how}: {} of the gate's effect", named(heads)),
    }
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
    let Some(gate) = of_head(heads, [HeadRow::layer, HeadRow::head], head)? else {
        return claim.not_testable("the gate was not measured");
    };
    let both = row(agreement, &[(AgreementRow::first, "interchange"), (AgreementRow::second, "ablation")])?;
    let correlation = both.map(|b| b.part(AgreementRow::size, Ranks::correlation)).transpose()?.flatten();
    let found = format!(
        "{}'s ablation moves the logit difference by {} nats (q {}), its interchange by {}. {}; the ranks of all heads by \
         interchange and by ablation correlate by {}{}.",
        g.gate_name()?,
        signed(gate.part(HeadRow::ablation, Method::mean)?, 3),
        p_value(gate.part(HeadRow::ablation, Method::q)?),
        signed(gate.part(HeadRow::interchange, Method::mean)?, 3),
        missed_by_others(missed)?,
        number(correlation, 2),
        both.map(ends_of_correlation).transpose()?.unwrap_or_default(),
    );
    let effects = gate.part(HeadRow::ablation, Method::mean)?.zip(gate.part(HeadRow::interchange, Method::mean)?);
    let small = effects.is_some_and(|(ablation, interchange)| ablation.abs() < 0.5 * interchange.abs());
    let of_gate = of_head(missed, [MissedRow::layer, MissedRow::head], head)?;
    let verdict = match of_gate {
        Some(at) => g.verdict(at.get(MissedRow::ablation_misses)? && small),
        None => g.hindrance().map_or_else(
            || {
                Verdict::NotTestable(
                    "interchange of all heads at once does not find the gate either (q over all heads)".into(),
                )
            },
            Verdict::NotTestable,
        ),
    };
    let misses = of_gate.map(|at| at.get(MissedRow::ablation_misses)).transpose()?.unwrap_or_default();
    Ok(Claim {
        fails: failing([
            (misses, "the gate's ablation moves the metric towards the control (q < 0.05)".to_string()),
            (small, "it moves the metric by half of what interchange does, or more".to_string()),
        ]),
        statistic: gate.part(HeadRow::ablation_crossed, Crossed::share)?,
        interval: gate.part(HeadRow::ablation_crossed, Crossed::interval)?,
        n: Some(gate.get(HeadRow::n)?),
        p: gate.part(HeadRow::ablation, Method::p)?,
        verdict,
        found,
        figures: &[("contrast-methods", "agreement.png", "Interchange and zero ablation of every head.")],
        ..claim
    })
}

/// ` (95 % interval [0.33, 0.52])` of a rank correlation; nothing of an older table without it.
fn ends_of_correlation(at: At) -> Result<String, AnalysisError> {
    let ends = at.part(AgreementRow::size, Ranks::interval)?;
    Ok(ends.map_or(String::new(), |(low, high)| format!(" (95 % interval {})", cells::interval(low, high, 2))))
}

/// How many of the heads that interchange finds the others miss.
fn missed_by_others(missed: &Table) -> Result<String, AnalysisError> {
    let count = |column| Ok::<_, AnalysisError>(missed.column(column)?.iter().filter(|m| **m).count());
    Ok(match missed.rows() {
        0 => "Interchange of all heads at once finds none".to_string(),
        n => format!(
            "Of {} that interchange finds ablation misses {} and attribution {}",
            cells::plural(n as i64, "head"),
            count(MissedRow::ablation_misses)?,
            count(MissedRow::dla_misses)?
        ),
    })
}

/// How much of the gate's interchange its ablation shows.
fn shown_by_ablation(tables: &BTreeMap<String, Vec<Table>>) -> Result<Option<f64>, AnalysisError> {
    let (Some(heads), Some(circuit)) = (table(tables, "contrast-methods", "heads"), table(tables, "screen", "circuit"))
    else {
        return Ok(None);
    };
    let Some(gate) = rows(circuit, &[])?.first().copied() else { return Ok(None) };
    let Some(at) =
        of_head(heads, [HeadRow::layer, HeadRow::head], (gate.get(CircuitRow::layer)?, gate.get(CircuitRow::head)?))?
    else {
        return Ok(None);
    };
    let (ablation, interchange) =
        (at.part(HeadRow::ablation, Method::mean)?, at.part(HeadRow::interchange, Method::mean)?);
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
    let (mut sizes, mut left_out): (Vec<(u64, f64)>, Vec<String>) = Default::default();
    for other in g.evidence.others {
        match (other.hindrance()?, shown_by_ablation(&other.tables)?) {
            (None, Some(ratio)) => sizes.push((other.parameters, ratio)),
            (Some(why), _) => left_out.push(why),
            (None, None) => left_out.push(format!("on {} no gate was found and measured", short_name(&other.model))),
        }
    }
    let left_out = match left_out.is_empty() {
        true => String::new(),
        false => format!("Checkpoints are left out because {}.", left_out.join("; ")),
    };
    let claim = Claim { statistic: own, found: left_out.clone(), ..claim };
    if let Some(why) = g.hindrance() {
        return claim.not_testable(why);
    }
    sizes.extend(own.map(|ratio| (g.evidence.parameters, ratio)));
    sizes.sort_by_key(|s| s.0);
    let mut different: Vec<u64> = sizes.iter().map(|s| s.0).collect();
    different.dedup();
    if different.len() < 2 {
        let against = param("against");
        return claim
            .not_testable(format!("it takes checkpoints of several sizes that refuse: name them with {against}"));
    }
    let steps = |a: &(u64, f64)| sizes.iter().filter(|b| b.0 > a.0).all(|b| b.1 <= a.1 - STEP);
    let falls = sizes.iter().all(steps);
    let listed: Vec<String> =
        sizes.iter().map(|(n, ratio)| format!("{} of {} parameters", share(*ratio), cells::count(*n as i64))).collect();
    Ok(Claim {
        n: Some(sizes.len() as i64),
        verdict: Verdict::of(falls),
        found: format!("By checkpoint: {}. {left_out}", listed.join(", ")).trim_end().to_string(),
        ..claim
    })
}

#[cfg(test)]
mod tests;

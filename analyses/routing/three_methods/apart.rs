//! Effects taken apart: what a head's change does by itself, what the final norm makes of it, what later components add.

use super::{Items, Measured};
use crate::analyses::routing::gate::{Head, interchanged, silenced};
use crate::analyses::summary::mean;
use crate::analyses::{AnalysisError, batches};
use crate::plan::{Change, Edit, Part, Plan, Positions, Run, What};
use crate::run::Reading;
use crate::session::Session;
use crate::site::SiteKind;
use std::ops::Range;

/// The parts of one head's effects, means in nats.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    /// The change of the head's own attribution under interchange, each run with its own final norm.
    pub(super) interchange_direct: Option<f64>,
    /// The effect of interchange with every later component frozen.
    pub(super) interchange_frozen: Option<f64>,
    /// The effect of ablation with every later component frozen.
    pub(super) ablation_frozen: Option<f64>,
}

/// Readouts of a pair and head in [`plan`].
const OF_HEAD: usize = 3;

/// [`plan`]s of all pairs, some pairs in each; none where no head was chosen.
pub(super) fn plans(items: &Items, n_layers: usize, chosen: Vec<usize>) -> impl Iterator<Item = Plan> {
    let n = if chosen.is_empty() { 0 } else { items.pairs.tokens.len() };
    // A head's two frozen forks have an edit for each later component.
    let edits = 4 * n_layers * chosen.len();
    batches(n, edits).map(move |pairs| plan(items, n_layers, &chosen, pairs))
}

/// For each pair and chosen head: the attributions in the run of its interchange, then the metrics of its interchange and of
/// its ablation with every later component frozen.
fn plan(items: &Items, n_layers: usize, chosen: &[usize], pairs: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for i in pairs {
        let ([positive, negative], tokens) = (items.pairs.add(&mut plan, i), &items.pairs.tokens[i]);
        for head in chosen.iter().map(|h| items.heads[*h]) {
            let fork = plan.fork(positive, interchanged(&[head], negative));
            plan.read(fork, What::Attribution(tokens.metric.clone()));
            for change in [interchanged(&[head], negative), silenced(&[head])] {
                let edits = change.into_iter().chain(frozen(head, n_layers, positive)).collect();
                let fork = plan.fork(positive, edits);
                plan.read(fork, What::Metric(tokens.metric.clone()));
            }
        }
    }
    plan
}

/// Edits that leave everything after a head at its clean value, so that its change reaches the logits by the residual
/// stream alone.
fn frozen(head: Head, n_layers: usize, clean: Run) -> impl Iterator<Item = Edit> {
    let attention = (head.layer + 1..n_layers).map(|l| SiteKind::AttnDelta.at(l));
    let mlps = (head.layer..n_layers).map(|l| SiteKind::MlpDelta.at(l));
    attention.chain(mlps).map(move |site| Edit {
        site,
        part: Part::All,
        positions: Positions::Last,
        change: Change::interchange(clean),
    })
}

/// The parts of the chosen heads' effects; nothing of the others.
pub(super) fn parts(
    session: &Session,
    items: &Items,
    measured: &Measured,
    chosen: &[usize],
) -> Result<Vec<Parts>, AnalysisError> {
    let heads: Vec<Head> = chosen.iter().map(|h| items.heads[*h]).collect();
    let mut after = vec![After::default(); heads.len()];
    for plan in plans(items, session.model.decoder.arch.n_layers, chosen.to_vec()) {
        collect(&heads, &session.run(&plan)?, &mut after);
    }
    let mut parts = vec![Parts::default(); items.heads.len()];
    let change = |after: &[f64], before: &[f64]| {
        mean(&after.iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>())
    };
    for (h, [attribution, interchange, ablation]) in chosen.iter().zip(&after) {
        parts[*h] = Parts {
            interchange_direct: change(attribution, &measured.dla[*h]),
            interchange_frozen: change(interchange, &measured.positive),
            ablation_frozen: change(ablation, &measured.positive),
        };
    }
    Ok(parts)
}

/// One head's readings, one a pair: its own attribution, then the metrics.
type After = [Vec<f64>; OF_HEAD];

/// Adds some pairs' readings of [`plan`].
fn collect(heads: &[Head], readings: &[Reading], after: &mut [After]) {
    for of_pair in readings.chunks_exact(OF_HEAD * heads.len()) {
        for ((head, read), after) in heads.iter().zip(of_pair.chunks_exact(OF_HEAD)).zip(after.iter_mut()) {
            // A layer's row: its heads, its MLP, its bias.
            let own = read[0].rows().nth(head.layer).map_or(f64::NAN, |row| f64::from(row[head.head]));
            let metric = |k: usize| read[k].number().unwrap_or(f64::NAN);
            for (list, number) in after.iter_mut().zip([own, metric(1), metric(2)]) {
                list.push(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_after_a_head_is_frozen_its_own_layers_mlp_too() {
        let sites: Vec<String> =
            frozen(Head { layer: 1, head: 0 }, 3, Run::Prompt(0)).map(|e| e.site.to_string()).collect();
        assert_eq!(sites, ["attn_delta.2", "mlp_delta.1", "mlp_delta.2"]);
    }

    #[test]
    fn readings_say_the_same_in_one_plan_and_in_several() {
        let heads = [Head { layer: 0, head: 1 }, Head { layer: 1, head: 0 }];
        let readings: Vec<Reading> = (0..3u8)
            .flat_map(|pair| {
                let of_head = move |k: u8| {
                    let number = |x: u8| f64::from(100 * pair + 10 * k + x);
                    let values = (0..8).map(|x| number(x) as f32).collect();
                    [
                        Reading::Array(crate::plan::Array { shape: vec![2, 4], values }),
                        Reading::Number(number(8)),
                        Reading::Number(number(9)),
                    ]
                };
                (0..2).flat_map(of_head)
            })
            .collect();
        let mut whole = vec![After::default(); 2];
        collect(&heads, &readings, &mut whole);
        assert_eq!(whole[0], [[1.0, 101.0, 201.0], [8.0, 108.0, 208.0], [9.0, 109.0, 209.0]].map(Vec::from));
        assert_eq!(whole[1][0], [14.0, 114.0, 214.0]);
        let mut parts = vec![After::default(); 2];
        readings.chunks(OF_HEAD * 2).for_each(|some| collect(&heads, some, &mut parts));
        assert_eq!(parts, whole);
    }
}

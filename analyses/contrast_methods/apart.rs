//! Effects taken apart: what a head's change does by itself, what the final norm makes of it, what later components add.

use super::{Items, Measured};
use crate::analyses::gate::{Head, interchanged, silenced};
use crate::analyses::summary::mean;
use crate::plan::{Change, Edit, Part, Plan, Positions, Run, What};
use crate::run::Reading;
use crate::site::SiteKind;

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

/// For each pair and chosen head: the attributions in the run of its interchange, then the metrics of its interchange and of
/// its ablation with every later component frozen.
pub(super) fn plan(items: &Items, n_layers: usize, chosen: &[usize]) -> Plan {
    let mut plan = Plan::default();
    for (i, tokens) in items.pairs.tokens.iter().enumerate().filter(|_| !chosen.is_empty()) {
        let [positive, negative] = items.pairs.add(&mut plan, i);
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

/// The parts of the chosen heads' effects from the plan's readings; nothing of the others.
pub(super) fn parts(items: &Items, measured: &Measured, chosen: &[usize], readings: &[Reading]) -> Vec<Parts> {
    let mut parts = vec![Parts::default(); items.heads.len()];
    for (k, h) in chosen.iter().enumerate() {
        let Head { layer, head } = items.heads[*h];
        let of_pair: Vec<&[Reading]> = readings.chunks_exact(OF_HEAD).skip(k).step_by(chosen.len()).collect();
        // A layer's row: its heads, its MLP, its bias.
        let own = |r: &[Reading]| r[0].rows().nth(layer).map_or(f64::NAN, |row| f64::from(row[head]));
        let mean_change = |after: &dyn Fn(&[Reading]) -> f64, before: &[f64]| {
            mean(&of_pair.iter().zip(before).map(|(r, before)| after(r) - before).collect::<Vec<_>>())
        };
        parts[*h] = Parts {
            interchange_direct: mean_change(&own, &measured.dla[*h]),
            interchange_frozen: mean_change(&|r| r[1].number().unwrap_or(f64::NAN), &measured.positive),
            ablation_frozen: mean_change(&|r| r[2].number().unwrap_or(f64::NAN), &measured.positive),
        };
    }
    parts
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
}

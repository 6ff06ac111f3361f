//! Effects taken apart: what a head's change does by itself, what the final norm makes of it, what later components add.

use super::{Items, Measured};
use crate::analyses::prelude::*;
use crate::analyses::routing::gate::{Head, interchanged, silenced};
use crate::plan::Attribution;

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

/// What is read of a pair and head: the attributions in the run of its interchange, then the metrics of its interchange and of its
/// ablation with every later component frozen.
struct OfHead {
    attributions: Handle<Array>,
    frozen: [Handle<f64>; 2],
}

fn plan(items: &Items, n_layers: usize, heads: &[Head], pairs: Range<usize>) -> (Plan, Vec<Vec<OfHead>>) {
    let mut plan = Plan::default();
    let of_pair = |i: usize| {
        let ([positive, negative], tokens) = (items.pairs.add(&mut plan, i), &items.pairs.tokens[i]);
        let of_head = |head: &Head| {
            let fork = plan.fork(positive, interchanged(&[*head], negative));
            OfHead {
                attributions: plan.read(fork, Attribution(tokens.metric.clone())),
                frozen: [interchanged(&[*head], negative), silenced(&[*head])].map(|change| {
                    let edits = change.into_iter().chain(frozen(*head, n_layers, positive)).collect();
                    let fork = plan.fork(positive, edits);
                    plan.read(fork, tokens.metric.clone())
                }),
            }
        };
        heads.iter().map(of_head).collect()
    };
    let asked = pairs.map(of_pair).collect();
    (plan, asked)
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
    runner: &dyn Runner,
    items: &Items,
    measured: &Measured,
    chosen: &[usize],
) -> Result<Vec<Parts>, AnalysisError> {
    let heads: Vec<Head> = chosen.iter().map(|h| items.heads[*h]).collect();
    let mut after = vec![After::default(); heads.len()];
    let n = if heads.is_empty() { 0 } else { items.pairs.tokens.len() };
    let n_layers = runner.model().decoder.arch.n_layers;
    // A head's two frozen forks have an edit for each later component.
    for pairs in batches(n, 4 * n_layers * heads.len()) {
        let (plan, asked) = plan(items, n_layers, &heads, pairs);
        let readings = runner.run(&plan)?;
        asked.iter().for_each(|of_pair| collect(&heads, of_pair, &readings, &mut after));
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
type After = [Vec<f64>; 3];

/// Adds a pair's readings.
fn collect(heads: &[Head], of_pair: &[OfHead], readings: &Readings, after: &mut [After]) {
    for ((head, asked), after) in heads.iter().zip(of_pair).zip(after) {
        let attributions = &readings[asked.attributions];
        // A layer's row: its heads, its MLP, its bias.
        let own = f64::from(attributions.values[head.layer * attributions.width() + head.head]);
        let [interchange, ablation] = asked.frozen.map(|metric| readings[metric]);
        for (list, number) in after.iter_mut().zip([own, interchange, ablation]) {
            list.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Metric, Reading};

    #[test]
    fn everything_after_a_head_is_frozen_its_own_layers_mlp_too() {
        let sites: Vec<String> =
            frozen(Head { layer: 1, head: 0 }, 3, Run::Prompt(0)).map(|e| e.site.to_string()).collect();
        assert_eq!(sites, ["attn_delta.2", "mlp_delta.1", "mlp_delta.2"]);
    }

    #[test]
    fn a_heads_own_attribution_and_its_frozen_metrics_are_read_pair_by_pair() {
        let heads = [Head { layer: 0, head: 1 }, Head { layer: 1, head: 0 }];
        let (mut plan, metric) = (Plan::default(), || Metric::logit_difference(vec![1], vec![2]));
        let mut found = Vec::new();
        let mut of_head = |number: f64| {
            let run = plan.prompt("p", vec![1]);
            let values = (0..8).map(|x| number as f32 + x as f32).collect();
            found.push(Reading::Array(Array { shape: vec![2, 4], values }));
            found.extend([8.0, 9.0].map(|x| Reading::Number(number + x)));
            let attributions = plan.read(run, Attribution(metric()));
            OfHead { attributions, frozen: [(); 2].map(|()| plan.read(run, metric())) }
        };
        let asked: Vec<[OfHead; 2]> =
            [0.0, 100.0, 200.0].map(|pair| [0.0, 10.0].map(|head| of_head(pair + head))).into();
        let (readings, mut after) = (Readings::new(found), vec![After::default(); 2]);
        asked.iter().for_each(|of_pair| collect(&heads, of_pair, &readings, &mut after));
        assert_eq!(after[0], [[1.0, 101.0, 201.0], [8.0, 108.0, 208.0], [9.0, 109.0, 209.0]].map(Vec::from));
        assert_eq!(after[1][0], [14.0, 114.0, 214.0]);
    }
}

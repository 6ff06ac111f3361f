//! Effects taken apart: what a head's change does by itself, what the final norm makes of it, what later components add.

use super::{ATTRIBUTION, Items, Measured};
use crate::analyses::halves::{Asked, Value, metric_and_half};
use crate::analyses::heads::Head;
use crate::analyses::prelude::*;
use crate::analyses::routing::gate::{interchanged, silenced};
use crate::model::arch::Arch;
use crate::plan::Attribution;

/// The parts that a head's effects are taken into.
#[derive(Clone, Copy)]
pub(super) enum EffectPart {
    /// The change of the head's own attribution under interchange, each run with its own final norm.
    InterchangeDirect,
    /// The effect of interchange with every later component frozen.
    InterchangeFrozen,
    /// The effect of ablation with every later component frozen.
    AblationFrozen,
}

const PARTS: usize = 3;

/// The parts of one head's effects, one number a pair, nats; nothing where a head was not run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parts {
    whole: [Vec<f64>; PARTS],
    /// The same of the answer's half of the metric.
    answers: [Vec<f64>; PARTS],
}

impl Parts {
    /// A part's changes, and those of its answer's half.
    pub(super) fn of(&self, part: EffectPart) -> [&[f64]; 2] {
        [&self.whole[part as usize], &self.answers[part as usize]]
    }

    fn push(&mut self, part: EffectPart, [whole, answer]: [f64; 2]) {
        self.whole[part as usize].push(whole);
        self.answers[part as usize].push(answer);
    }
}

/// What is read of a pair and head: the attributions in the run of its interchange, to the metric and to its answer's half; then the
/// metrics of its interchange and of its ablation with every later component frozen.
struct OfHead {
    attributions: [Handle<Array>; 2],
    frozen: [Asked; 2],
}

fn plan(items: &Items, arch: &Arch, heads: &[Head], pairs: Range<usize>) -> (Plan, Vec<Vec<OfHead>>) {
    let mut plan = Plan::default();
    let of_pair = |i: usize| {
        let ([positive, negative], tokens) = (items.pairs.add(&mut plan, i), &items.pairs.tokens[i]);
        let of_head = |head: &Head| {
            let fork = plan.fork(positive, interchanged(&[*head], negative));
            OfHead {
                attributions: metric_and_half(&tokens.metric).map(|metric| plan.read(fork, Attribution(metric))),
                frozen: [interchanged(&[*head], negative), silenced(&[*head])].map(|change| {
                    let edits = change.into_iter().chain(frozen(*head, arch, positive)).collect();
                    let fork = plan.fork(positive, edits);
                    Value::ask(&mut plan, fork, &tokens.metric)
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
fn frozen(head: Head, arch: &Arch, clean: Run) -> impl Iterator<Item = Edit> {
    let attention = (head.layer + 1..arch.n_layers).map(|l| SiteKind::AttnDelta.at(l));
    let mlps = (head.layer..arch.n_layers).map(|l| SiteKind::MlpDelta.at(l));
    let embeddings = (head.layer..arch.n_layers).filter(|_| arch.per_layer.is_some()).map(|l| SiteKind::PleOut.at(l));
    attention.chain(mlps).chain(embeddings).map(move |site| Edit {
        site,
        part: Part::All,
        positions: Positions::Last,
        change: Change::interchange(clean),
    })
}

/// The parts of the chosen heads' effects, one entry a head of the model; nothing of the others.
pub(super) fn parts(
    runner: &dyn Runner,
    items: &Items,
    measured: &Measured,
    chosen: &[usize],
) -> Result<Vec<Parts>, AnalysisError> {
    let heads: Vec<Head> = chosen.iter().map(|h| items.heads[*h]).collect();
    let mut parts = vec![Parts::default(); items.heads.len()];
    let n = if heads.is_empty() { 0 } else { items.pairs.tokens.len() };
    let arch = &runner.model().decoder.arch;
    // A head's two frozen forks have an edit for each later component.
    for pairs in batches(n, 4 * arch.n_layers * heads.len()) {
        let (plan, asked) = plan(items, arch, &heads, pairs.clone());
        let readings = runner.run(&plan)?;
        for (pair, of_pair) in pairs.zip(&asked) {
            for ((head, number), asked) in heads.iter().zip(chosen).zip(of_pair) {
                let clean = Clean::of(measured, pair, *number);
                asked.collect(*head, clean, &readings, &mut parts[*number]);
            }
        }
    }
    Ok(parts)
}

/// What a pair's positive prompt comes to without an edit, of its metric and of that one's answer half.
#[derive(Clone, Copy)]
struct Clean {
    value: Value,
    /// What the head adds by itself.
    attributed: [f64; 2],
}

impl Clean {
    fn of(measured: &Measured, pair: usize, head: usize) -> Self {
        let attributed = [&measured.dla, &measured.answers[ATTRIBUTION]].map(|of| of[head][pair]);
        let (metric, answer) = (measured.positive[pair], measured.positive_answers.get(pair).copied());
        Clean { value: Value { metric, answer }, attributed }
    }
}

impl OfHead {
    /// Adds what a pair says of a head.
    fn collect(&self, head: Head, clean: Clean, readings: &Readings, parts: &mut Parts) {
        let own = |of: Handle<Array>| {
            let attributions = &readings[of];
            // A layer's row: its heads, its MLP, its bias.
            f64::from(attributions.values[head.layer * attributions.width() + head.head])
        };
        let [whole, answer] = self.attributions.map(own);
        parts.push(EffectPart::InterchangeDirect, [whole - clean.attributed[0], answer - clean.attributed[1]]);
        for (part, asked) in [EffectPart::InterchangeFrozen, EffectPart::AblationFrozen].into_iter().zip(self.frozen) {
            let swap = clean.value.swap(None, asked.of(readings));
            parts.push(part, [swap.effect(), swap.answer.unwrap_or_default()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Metric, Reading};

    #[test]
    fn everything_after_a_head_is_frozen_its_own_layers_mlp_too() {
        let arch = crate::model::tests::windowed(&[None; 3]);
        let sites: Vec<String> =
            frozen(Head { layer: 1, head: 0 }, &arch, Run::Prompt(0)).map(|e| e.site.to_string()).collect();
        assert_eq!(sites, ["attn_delta.2", "mlp_delta.1", "mlp_delta.2"]);
    }

    #[test]
    fn the_parts_of_a_heads_effects_and_of_their_answer_halves_are_against_its_own_clean_run() {
        let (mut plan, metric) = (Plan::default(), || Metric::logit_difference(vec![1], vec![2]));
        let run = plan.prompt("p", vec![1]);
        let array = |first: f32| {
            let values = (0..8).map(|x| first + x as f32).collect();
            Reading::Array(Array { shape: vec![2, 4], values })
        };
        let numbers = [8.0, 18.0, 9.0, 29.0].map(Reading::Number);
        let readings = Readings::new([array(0.0), array(100.0)].into_iter().chain(numbers).collect());
        let attributions = [(); 2].map(|()| plan.read(run, Attribution(metric())));
        let mut asked = || Asked { metric: plan.read(run, metric()), answer: Some(plan.read(run, metric())) };
        let of_head = OfHead { attributions, frozen: [asked(), asked()] };
        let clean = Clean { value: Value { metric: 3.0, answer: Some(5.0) }, attributed: [1.0, 2.0] };
        let mut parts = Parts::default();
        of_head.collect(Head { layer: 1, head: 1 }, clean, &readings, &mut parts);
        // The second head of the second layer is the sixth number of the array.
        assert_eq!(parts.of(EffectPart::InterchangeDirect), [&[4.0][..], &[103.0][..]]);
        assert_eq!(parts.of(EffectPart::InterchangeFrozen), [&[5.0][..], &[13.0][..]]);
        assert_eq!(parts.of(EffectPart::AblationFrozen), [&[6.0][..], &[24.0][..]]);
    }
}

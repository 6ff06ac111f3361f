//! What is run for steering: the contrast, the clean activations, and every prompt under every condition.
//!
//! Plans alone: what vectors are made of readings, and what readings say, is left to `steer` and `dose`.

use super::contrast::Contrast;
use super::{Items, Steer};
use crate::analyses::directions::Recipe;
use crate::analyses::halves::{Asked, Value};
use crate::analyses::prelude::*;
use crate::plan::{Entropy, KlFrom};
use std::sync::Arc;

/// What is done with a direction.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Added times a coefficient.
    Add(f64),
    /// Taken out of the residual stream in every layer.
    TakeOut,
    /// Added times each prompt's own coefficient.
    Smallest(Arc<[f64]>),
}

impl Kind {
    /// What a prompt's vector is multiplied by, where it is added.
    pub(super) fn coefficient_of(&self, item: usize) -> Option<f64> {
        match self {
            Kind::Add(coefficient) => Some(*coefficient),
            Kind::Smallest(each) => Some(each[item]),
            Kind::TakeOut => None,
        }
    }

    /// The name in tables.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Add(_) => "add",
            Kind::TakeOut => "ablate",
            Kind::Smallest(_) => "gcav",
        }
    }

    pub(super) fn coefficient(&self) -> Option<f64> {
        if let Kind::Add(c) = self { Some(*c) } else { None }
    }
}

/// Something that is done to every prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) kind: Kind,
    /// 0: the vector; from 1 on: random directions.
    pub(super) direction: usize,
}

/// Activations of some of the prompts that the vector is made from, at its position; of all positions for ActAdd.
pub(super) fn contrast(
    params: &Steer,
    contrast: &Contrast,
    site: Site,
    some: Range<usize>,
) -> (Plan, Vec<Handle<Array>>) {
    let (mut plan, mut asked) = (Plan::default(), Vec::with_capacity(some.len()));
    for (i, ids) in contrast.prompts().enumerate().skip(some.start).take(some.len()) {
        let n = contrast.positive.len();
        let name = if i < n { format!("positive {i}") } else { format!("negative {}", i - n) };
        let prompt = plan.prompt(format!("{name} of the contrast"), ids.clone());
        let positions = match params.from {
            Some(Recipe::Actadd) => Positions::All,
            // The position was checked.
            _ => params.vector_position.of(ids.len()).unwrap_or(Positions::Last),
        };
        asked.push(plan.read(prompt, Activation { site, positions, part: Part::All }));
    }
    (plan, asked)
}

/// Some prompts' own activations at the site, where the vector is added; at their last positions where it is in many.
pub(super) fn activations(params: &Steer, items: &Items, some: Range<usize>) -> (Plan, Vec<Handle<Array>>) {
    let (mut plan, mut asked) = (Plan::default(), Vec::with_capacity(some.len()));
    for i in some {
        let (item, (ids, _)) = (&items.dataset.items[i], &items.tokens[i]);
        let prompt = plan.prompt(item.id.clone(), ids.clone());
        let one = params.position.of(ids.len()).ok().filter(|p| *p != Positions::All);
        let positions = one.unwrap_or(Positions::Last);
        asked.push(plan.read(prompt, Activation { site: items.site, positions, part: Part::All }));
    }
    (plan, asked)
}

/// What is read of a run.
#[derive(Clone, Copy)]
pub(super) struct OfRun {
    pub(super) run: Run,
    value: Asked,
    /// The divergence from the unsteered prompt, of one that is steered.
    kl: Option<Handle<f64>>,
    entropy: Handle<f64>,
}

/// What is read of a prompt: of itself, and of its fork under each condition.
pub(super) struct OfPrompt {
    clean: OfRun,
    pub(super) steered: Vec<OfRun>,
}

/// What a run was found to do.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) value: Value,
    pub(super) kl: f64,
    pub(super) entropy: f64,
}

/// What a prompt was found to do: itself, and under each condition.
pub(super) struct Swept {
    pub(super) clean: Read,
    pub(super) steered: Vec<Read>,
}

impl OfPrompt {
    pub(super) fn of(&self, readings: &Readings) -> Swept {
        let read = |of: &OfRun| Read {
            value: of.value.of(readings),
            kl: of.kl.map_or(0.0, |kl| readings[kl]),
            entropy: readings[of.entropy],
        };
        Swept { clean: read(&self.clean), steered: self.steered.iter().map(read).collect() }
    }
}

/// A vector, or one a position; then each random direction's.
pub(super) type Vectors = Vec<Vec<Arc<[f32]>>>;

/// Which prompts are in a [`sweep`] at once.
pub(super) fn batches(
    items: &Items,
    vectors: &Vectors,
    conditions: &[Condition],
) -> impl Iterator<Item = Range<usize>> + use<> {
    let edits = |condition: &Condition| match condition.kind {
        Kind::TakeOut => taken_out(items, &vectors[condition.direction][0]).len(),
        Kind::Add(_) | Kind::Smallest(_) => vectors[condition.direction].len(),
    };
    crate::analyses::batches(items.tokens.len(), conditions.iter().map(edits).sum())
}

/// Some prompts under every condition.
pub(super) fn sweep(
    params: &Steer,
    items: &Items,
    vectors: &Vectors,
    conditions: &[Condition],
    some: Range<usize>,
) -> (Plan, Vec<OfPrompt>) {
    let mut plan = Plan::default();
    let of_prompt = |i: usize| {
        let (item, (ids, metric)) = (&items.dataset.items[i], &items.tokens[i]);
        let prompt = plan.prompt(item.id.clone(), ids.clone());
        let of_run = |plan: &mut Plan, run: Run| OfRun {
            run,
            value: Value::ask(plan, run, metric),
            kl: (run != prompt).then(|| plan.read(run, KlFrom(prompt))),
            entropy: plan.read(run, Entropy),
        };
        let clean = of_run(&mut plan, prompt);
        let steered = conditions.iter().map(|condition| {
            let edits = edits(params, items, &vectors[condition.direction], &condition.kind, i, ids.len());
            let fork = plan.fork(prompt, edits);
            of_run(&mut plan, fork)
        });
        let steered = steered.collect();
        OfPrompt { clean, steered }
    };
    let asked = some.map(of_prompt).collect();
    (plan, asked)
}

/// Directional ablation: a direction taken out of all that is in the residual stream of every layer, at every position.
pub(super) fn taken_out(items: &Items, direction: &Arc<[f32]>) -> Vec<Edit> {
    let kinds = [SiteKind::ResidPre, SiteKind::AttnDelta, SiteKind::MlpDelta, SiteKind::PleOut];
    let kinds = &kinds[..if items.per_layer { 4 } else { 3 }];
    let sites = (0..items.n_layers).flat_map(|layer| kinds.iter().map(move |kind| kind.at(layer)));
    let change = || Change::ProjectOut(direction.clone());
    sites.map(|site| Edit { site, part: Part::All, positions: Positions::All, change: change() }).collect()
}

fn edits(params: &Steer, items: &Items, vectors: &[Arc<[f32]>], kind: &Kind, i: usize, length: usize) -> Vec<Edit> {
    let edit = |site: Site, positions: Positions, change| Edit { site, part: Part::All, positions, change };
    let Some(coefficient) = kind.coefficient_of(i) else { return taken_out(items, &vectors[0]) };
    let add = |positions, vector: &Arc<[f32]>| {
        let change = Change::Add { vector: vector.clone(), coefficient: coefficient as f32 };
        edit(items.site, positions, change)
    };
    if params.from == Some(Recipe::Actadd) {
        let each = vectors.iter().enumerate().take(length);
        return each.map(|(p, vector)| add(Positions::At(vec![p]), vector)).collect();
    }
    // The position was checked.
    vec![add(params.position.of(length).unwrap_or(Positions::Last), &vectors[0])]
}

//! Random plans. A recipe says what to do in numbers that mean something in every family; [`Cook`] makes a sound plan of it.

use crate::support::site_of;
use gatelens::model::arch::Arch;
use gatelens::plan::{Activation, Change, Edit, Metric, Part, Plan, Positions, Projection, Run, What};
use gatelens::site::{Site, SiteKind, Units};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) struct Recipe {
    prompts: Vec<PromptRecipe>,
    forks: Vec<ForkRecipe>,
    readouts: Vec<ReadoutRecipe>,
}

#[derive(Clone, Debug)]
pub(super) struct PromptRecipe {
    ids: Vec<u32>,
    length: usize,
    /// As long as the first prompt, so that whole prompts and patterns can be interchanged.
    as_first: bool,
}

#[derive(Clone, Debug)]
pub(super) struct ForkRecipe {
    base: Index,
    edits: Vec<EditRecipe>,
}

#[derive(Clone, Debug)]
pub(super) struct EditRecipe {
    place: Place,
    change: usize,
    donor: Index,
    donor_positions: Option<Vec<Index>>,
    seed: u64,
}

#[derive(Clone, Debug)]
pub(super) struct ReadoutRecipe {
    run: Index,
    what: usize,
    place: Place,
    other: Index,
    seed: u64,
}

/// Where an edit or a readout is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    kind: Index,
    layer: Index,
    part: (u8, Vec<Index>),
    positions: (u8, Vec<Index>),
}

pub(super) fn place() -> impl Strategy<Value = Place> {
    let some = |kinds: Range<u8>| (kinds, vec(any::<Index>(), 1..4));
    (any::<Index>(), any::<Index>(), some(0..3), some(0..4)).prop_map(|(kind, layer, part, positions)| Place {
        kind,
        layer,
        part,
        positions,
    })
}

pub(super) fn recipe(
    prompts: Range<usize>,
    forks: Range<usize>,
    readouts: Range<usize>,
) -> impl Strategy<Value = Recipe> {
    let prompt = (vec(0u32..160, 20), 1usize..=20, any::<bool>()).prop_map(|(ids, length, as_first)| PromptRecipe {
        ids,
        length,
        as_first,
    });
    let edit =
        (place(), 0usize..12, any::<Index>(), proptest::option::of(vec(any::<Index>(), 20)), any::<u64>()).prop_map(
            |(place, change, donor, donor_positions, seed)| EditRecipe { place, change, donor, donor_positions, seed },
        );
    let fork = (any::<Index>(), vec(edit, 0..4)).prop_map(|(base, edits)| ForkRecipe { base, edits });
    let readout = (any::<Index>(), 0usize..8, place(), any::<Index>(), any::<u64>())
        .prop_map(|(run, what, place, other, seed)| ReadoutRecipe { run, what, place, other, seed });
    (vec(prompt, prompts), vec(fork, forks), vec(readout, readouts)).prop_map(|(prompts, forks, readouts)| Recipe {
        prompts,
        forks,
        readouts,
    })
}

/// A plan in the making.
pub(super) struct Cook<'a> {
    arch: &'a Arch,
    pub(super) plan: Plan,
    /// The runs of the recipe at hand, in the order of the plan.
    runs: Vec<Run>,
}

impl<'a> Cook<'a> {
    pub(super) fn new(arch: &'a Arch) -> Self {
        Cook { arch, plan: Plan::default(), runs: Vec::new() }
    }

    pub(super) fn plan_of(recipe: &Recipe, arch: &'a Arch) -> Plan {
        let mut cook = Cook::new(arch);
        cook.add(recipe);
        cook.plan
    }

    /// Adds a recipe's runs and readouts; returns the numbers of its readouts.
    pub(super) fn add(&mut self, recipe: &Recipe) -> Range<usize> {
        self.runs.clear();
        for p in &recipe.prompts {
            let n = if p.as_first { recipe.prompts[0].length } else { p.length };
            let ids = p.ids[..n].iter().map(|id| id % self.arch.vocab as u32).collect();
            let run = self.plan.prompt("p", ids);
            self.runs.push(run);
        }
        for f in &recipe.forks {
            let base = *f.base.get(&self.runs);
            let edits = f.edits.iter().map(|e| self.edit(base, e)).collect();
            let run = self.plan.fork(base, edits);
            self.runs.push(run);
        }
        let first = self.plan.readouts.len();
        for r in &recipe.readouts {
            let run = *r.run.get(&self.runs);
            let what = self.what(run, r);
            self.plan.read(run, what);
        }
        first..self.plan.readouts.len()
    }

    fn site(&self, place: &Place) -> Site {
        site_of(self.arch, place.kind.index(usize::MAX), place.layer.index(usize::MAX))
    }

    fn positions(&self, place: &Place, n: usize) -> Positions {
        match place.positions.0 {
            0 => Positions::Last,
            1 => Positions::All,
            _ => Positions::At(distinct(&place.positions.1, n)),
        }
    }

    fn part(&self, place: &Place, site: Site, keys: usize) -> Part {
        let (kind, list) = &place.part;
        match (kind, site.units(self.arch)) {
            (0, _) => Part::All,
            (1, Units::Heads { n, .. } | Units::HeadsByKeys { n }) => Part::Heads(distinct(list, n)),
            _ => Part::Columns(distinct(list, site.width(self.arch, keys))),
        }
    }

    fn width(&self, site: Site, part: &Part, keys: usize) -> usize {
        match (part, site.units(self.arch)) {
            (Part::Columns(list), _) => list.len(),
            (Part::Heads(list), Units::Heads { width, .. }) => list.len() * width,
            (Part::Heads(list), _) => list.len() * keys,
            (Part::All, _) => site.width(self.arch, keys),
        }
    }

    fn edit(&self, base: Run, e: &EditRecipe) -> Edit {
        let n = self.plan.length(base);
        let site = self.site(&e.place);
        let mut part = self.part(&e.place, site, n);
        let positions = self.positions(&e.place, n);
        let scores = site.kind == SiteKind::Scores;
        if scores && e.change >= 8 && matches!(part, Part::Columns(_)) {
            // Single scores of a row that may not look there could leave another row nothing to look at.
            part = Part::All;
        }
        let wide = self.width(site, &part, n);
        let change = match e.change {
            0 => Change::Zero,
            1 => Change::Set(numbers(e.seed, wide)),
            2 => Change::Add { vector: numbers(e.seed, wide), coefficient: 0.7 },
            // Scores that are minus infinity have no part along a direction and no negative multiple.
            3 | 4 if scores => Change::Scale(0.5),
            3 => Change::ProjectOut(numbers(e.seed, wide)),
            4 => Change::Scale(-0.6),
            5 => Change::Scale(1.4),
            6 => Change::Clamp { low: -0.2, high: 0.3 },
            7 => Change::Map(Arc::new(|v: &mut [f32]| v.iter_mut().for_each(|x| *x = x.tanh() + 0.1))),
            _ => self.interchange(e, site, &positions, base),
        };
        Edit { site, part, positions, change }
    }

    fn interchange(&self, e: &EditRecipe, site: Site, positions: &Positions, base: Run) -> Change {
        let n = self.plan.length(base);
        let ragged = matches!(site.kind, SiteKind::Scores | SiteKind::Pattern);
        let donor = match *e.donor.get(&self.runs) {
            donor if ragged && self.plan.length(donor) != n => base,
            donor => donor,
        };
        let theirs = self.plan.length(donor);
        let wanted = match positions {
            Positions::Last => vec![n - 1],
            Positions::All => (0..n).collect(),
            Positions::At(list) => list.clone(),
        };
        let fits = match positions {
            Positions::Last => true,
            Positions::All => theirs == n,
            Positions::At(list) => list.iter().all(|p| *p < theirs),
        };
        let positions = match &e.donor_positions {
            Some(list) => Some(list.iter().take(wanted.len()).map(|i| i.index(theirs)).collect()),
            None if fits => None,
            None => Some(wanted.iter().map(|p| p % theirs).collect()),
        };
        Change::Interchange { donor, positions }
    }

    fn what(&self, run: Run, r: &ReadoutRecipe) -> What {
        let n = self.plan.length(run);
        let ids = |seed: u64| -> Vec<u32> {
            let count = 1 + seed as usize % 3;
            numbers(seed, count).iter().map(|x| ((x + 1.0) * 70.0) as u32 % self.arch.vocab as u32).collect()
        };
        match r.what {
            0 => What::Metric(Metric::logit_difference(ids(r.seed), ids(r.seed ^ 77))),
            1 => What::Metric(Metric::AboveMean { tokens: ids(r.seed) }),
            2 if n > 1 => What::Metric(Metric::Continuation { from: 1 + r.other.index(n - 1) }),
            3 => What::KlFrom(*r.other.get(&self.runs)),
            4 => {
                let site = match self.site(&r.place) {
                    // Scores may be minus infinity, which has no inner product.
                    site if site.kind == SiteKind::Scores => SiteKind::Pattern.at(site.layer),
                    site => site,
                };
                let direction = numbers(r.seed, site.width(self.arch, n));
                Projection { site, positions: self.positions(&r.place, n), direction }.into()
            }
            _ => {
                let site = self.site(&r.place);
                let part = self.part(&r.place, site, n);
                Activation { site, positions: self.positions(&r.place, n), part }.into()
            }
        }
    }
}

/// Different numbers below `n`, in no order.
pub(super) fn distinct(list: &[Index], n: usize) -> Vec<usize> {
    let mut found = Vec::new();
    for x in list.iter().map(|i| i.index(n)) {
        if !found.contains(&x) {
            found.push(x);
        }
    }
    found
}

/// Numbers between -1 and 1 that a seed decides.
fn numbers(seed: u64, n: usize) -> Arc<[f32]> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub(super) fn metric() -> What {
    What::Metric(Metric::logit_difference(vec![11], vec![23]))
}

/// An edit of whole rows.
pub(super) fn edit(site: Site, positions: Positions, change: Change) -> Edit {
    Edit { site, part: Part::All, positions, change }
}

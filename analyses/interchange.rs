//! Interchange (activation patching): which heads carry what tells two matched prompts apart?
//!
//! A base run is run again with one head's `z` (or another site) taken from a donor run. *Necessity*: the base is the
//! positive prompt, the donor its negative, and an effect says that the behaviour needs what the head carried.
//! *Sufficiency*: the reverse. Sources: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal
//! Mediation Analysis"; Geiger et al. 2021, "Causal Abstractions of Neural Networks"; "How Alignment Routes" (2026) for
//! screening every head.
//!
//! `--estimate gradient` first estimates every effect to first order, the gradient of the base's metric times what the
//! donor has more (attribution patching; Nanda 2023, "Attribution Patching"), and runs only the strongest exactly.

mod agreement;

use super::align::align;
use super::effects::{Measured, Read, Shared, Subset, effects_tables, read, subset_section};
use super::halves::Value;
use super::inputs::{PairArgs, PairTokens, Pairs, Unit, rows_read, sites};
use super::marks::MarkArgs;
use super::scored::Scored;
use super::summary::{Position, Swap, mean};
use super::{Analysis, AnalysisError, Figures, Output, Plans, batches, planned, table};
use crate::dataset::{Dataset, Pair};
use crate::model::Model;
use crate::model::arch::Arch;
use crate::plan::{Activation, Array, Change, Edit, Gradient, Part, Plan, Positions, Run};
use crate::report::Section;
use crate::report::cells::{self, plural, signed};
use crate::run::Reading;
use crate::session::Session;
use crate::site::SiteKind;
use crate::table::Table;
use std::ops::Range;
use std::path::Path;

/// Which run is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The positive run takes the head from the negative one.
    Necessity,
    /// The negative run takes the head from the positive one.
    Sufficiency,
}

impl Direction {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Necessity => "necessity",
            Direction::Sufficiency => "sufficiency",
        }
    }
}

/// What a direction does, for captions.
fn sentence(direction: &str) -> &'static str {
    if direction == "necessity" {
        "positive run, each with its output in the negative"
    } else {
        "negative run, each with its output in the positive"
    }
}

/// What is edited in a direction, as a sentence.
fn edited(direction: &str) -> &'static str {
    if direction == "necessity" {
        "Each unit of the positive run is exchanged for that of the negative run."
    } else {
        "Each unit of the negative run is exchanged for that of the positive run."
    }
}

/// What an exchange in a direction is called.
fn named(direction: &str) -> String {
    format!("Interchange, {direction}")
}

/// How effects are found before the exact ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Estimate {
    /// Estimate to first order, by the gradient of the base's metric.
    Gradient,
}

/// Swap every head between matched prompts, and measure what changes
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Interchange {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    /// Swap at this position: last, all, or a number (a negative one counts from the prompt's end)
    #[arg(long, default_value = "last", allow_hyphen_values = true)]
    pub position: Position,

    /// With --position all: match up prompts of unequal lengths
    ///
    /// Equal beginnings and ends are matched token by token, and the spans between them in proportion.
    #[arg(long)]
    pub align: bool,

    /// Edit only one of the two runs (default: each in turn)
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,

    /// Swap this site: z (every head), resid_pre, attn_out, mlp_out, q, k, v, mlp_act, ...
    #[arg(long, default_value = "z")]
    pub site: SiteKind,

    /// Estimate every effect first, and run only the strongest exactly
    #[arg(long, value_enum)]
    pub estimate: Option<Estimate>,

    /// With --estimate: run this many exactly, in each direction
    #[arg(long, default_value_t = 32, value_name = "N", requires = "estimate", value_parser = clap::value_parser!(u32).range(1..))]
    pub exact: u32,

    #[command(flatten)]
    #[serde(flatten)]
    pub marks: MarkArgs,
}

/// The pairs as the model reads them.
pub struct Items {
    pub(super) pairs: Pairs,
    /// The edited positions of each pair's positive prompt with those of its negative, and the reverse.
    positions: Vec<[(Positions, Positions); 2]>,
    pub(super) units: Vec<Unit>,
}

impl Analysis for Interchange {
    const NAME: &'static str = "interchange";
    const ABOUT: &'static str = "Swap every head between matched prompts, and measure what changes";
    const TITLE: &'static str = "Interchange";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        if self.align && self.position != Position::All {
            return Err(AnalysisError::Bad("--align matches whole prompts: give --position all with it".to_string()));
        }
        let units = Unit::all(self.site, &model.decoder.arch)?;
        let pairs = self.pairs.read(model)?;
        let Pairs { dataset, tokens, .. } = &pairs;
        let positions = dataset.items.iter().zip(tokens).map(|(pair, tokens)| self.positions(dataset, pair, tokens));
        let positions = positions.collect::<Result<Vec<_>, _>>()?;
        Ok(Items { pairs, positions, units })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.pairs.sources.clone()
    }

    fn scored(items: &Items) -> &Scored {
        &items.pairs.scored
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let everything: Vec<usize> = (0..items.units.len()).collect();
        let directions = self.directions();
        match self.estimate {
            None => {
                let chosen = vec![everything; directions.len()];
                Ok(planned(exact_plans(items, directions, chosen)))
            }
            Some(Estimate::Gradient) => {
                // Which ones are run is known later; as many, spread over the layers, cost about as much.
                let chosen = vec![spread(everything.len(), self.exact as usize); directions.len()];
                let all = (0..items.pairs.tokens.len()).collect();
                let estimates = self.clone().gradient_plans(items, &model.decoder.arch, all);
                Ok(planned(estimates.chain(exact_plans(items, directions, chosen))))
            }
        }
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let directions = self.directions();
        let all: Vec<usize> = (0..items.pairs.tokens.len()).collect();
        let estimates = self.estimate.map(|_| self.estimates(session, items, &all)).transpose()?;
        let chosen: Vec<Vec<usize>> = match &estimates {
            None => directions.iter().map(|_| (0..items.units.len()).collect()).collect(),
            Some(estimates) => estimates.values.iter().map(|of| strongest(of, self.exact as usize)).collect(),
        };
        Ok(self.tables(session, items, &chosen, estimates.as_ref())?.into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        let heads = read(table(tables, "heads")?, "direction")?;
        let mut figures = Vec::new();
        for direction in &heads.variants {
            let title = format!("Interchange of {}: {direction}", heads.site_words());
            figures.push((format!("{direction}.png"), heads.map(&title, sentence(direction), "pair", direction)));
        }
        figures.extend(heads.halves_figures("the exchange", named, "pair"));
        figures.push(("forest.png".to_string(), heads.forest("Strongest effects of interchange", "pair")));
        if heads.rows.iter().any(|r| r.estimate.is_some() && r.effect.is_some()) {
            figures.push(("agreement.png".to_string(), agreement::scatter(&heads)));
        }
        Ok(figures)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        let heads = read(table(tables, "heads")?, "direction")?;
        let mut sections: Vec<Section> = heads.variants.iter().map(|d| section(&heads, d, dir)).collect();
        sections.extend(heads.halves_sections("the exchange", named, "pair", dir));
        let forest = heads.forest_caption("direction");
        let alt = "Forest plot of the strongest effects of interchange with 95 % intervals.";
        sections.push(Section::new("Intervals").figure(dir.join("forest.png"), forest, alt));
        sections.extend(subset_section(tables, "direction")?);
        if let Ok(found) = table(tables, "agreement") {
            sections.push(agreement::section(found, &heads, dir)?);
        }
        Ok(sections)
    }
}

impl Interchange {
    pub(super) fn directions(&self) -> Vec<Direction> {
        self.direction.map_or(vec![Direction::Necessity, Direction::Sufficiency], |d| vec![d])
    }

    /// The edited positions with the donor's, for the positive prompt as base and for the negative.
    fn positions(
        &self,
        dataset: &Dataset<Pair>,
        pair: &Pair,
        tokens: &PairTokens,
    ) -> Result<[(Positions, Positions); 2], AnalysisError> {
        let at = |field| dataset.at(pair.line, &pair.id, field);
        let (p, n) = (tokens.positive.len(), tokens.negative.len());
        if matches!(self.site, SiteKind::Scores | SiteKind::Pattern) && p != n {
            let why = format!("has {p} tokens and the negative {n}: {} is as wide as its prompt is long", self.site);
            return Err(at("positive").error(why).into());
        }
        if self.position == Position::All && self.align {
            let aligned = |base: &[u32], donor: &[u32]| {
                let (to, from) = align(base, donor).into_iter().enumerate().filter_map(|(i, j)| Some((i, j?))).unzip();
                (Positions::At(to), Positions::At(from))
            };
            return Ok([aligned(&tokens.positive, &tokens.negative), aligned(&tokens.negative, &tokens.positive)]);
        }
        if self.position == Position::All && p != n {
            let why = format!(
                "has {p} tokens and the negative {n}: --position all needs as many, or --align to match their equal \
                 beginnings and ends; or use --position last"
            );
            return Err(at("positive").error(why).into());
        }
        let positive = self.position.of(p).map_err(|why| at("positive").error(why))?;
        let negative = self.position.of(n).map_err(|why| at("negative").error(why))?;
        Ok([(positive.clone(), negative.clone()), (negative, positive)])
    }

    /// Gradients of both prompts' metrics, and values, at the exchanged site in every layer.
    pub(super) fn gradient_plan(&self, items: &Items, pairs: &[usize]) -> Plan {
        let mut plan = Plan::default();
        for i in pairs {
            let (runs, tokens) = (items.pairs.add(&mut plan, *i), &items.pairs.tokens[*i]);
            for direction in self.directions() {
                let side = direction as usize;
                let (at, from) = &items.positions[*i][side];
                for site in sites(&items.units) {
                    let part = Part::All;
                    let gradient =
                        Gradient { metric: tokens.metric.clone(), site, positions: at.clone(), part: part.clone() };
                    plan.read(runs[side], gradient);
                    plan.read(runs[side], Activation { site, positions: at.clone(), part: part.clone() });
                    plan.read(runs[1 - side], Activation { site, positions: from.clone(), part });
                }
            }
        }
        plan
    }

    /// What [`Interchange::gradient_plan`] reads of a pair: a gradient and two activations a direction and site.
    fn rows_of_gradients(&self, items: &Items, arch: &Arch) -> usize {
        let longest = items.pairs.tokens.iter().map(|t| t.positive.len().max(t.negative.len())).max().unwrap_or(0);
        3 * self.directions().len() * rows_read(&sites(&items.units), arch, self.position, longest)
    }

    /// Runs the chosen units of each direction exactly, and makes the tables.
    pub(super) fn tables(
        &self,
        session: &Session,
        items: &Items,
        chosen: &[Vec<usize>],
        estimates: Option<&Estimates>,
    ) -> Result<Vec<Table>, AnalysisError> {
        let directions = self.directions();
        let mut swaps: Vec<Vec<Vec<Swap>>> = chosen.iter().map(|units| vec![Vec::new(); units.len()]).collect();
        for pairs in exact_batches(items, chosen) {
            let plan = exact_plan(items, &directions, chosen, pairs.clone());
            collect(items, (&directions, pairs), &session.run(&plan)?, &mut swaps);
        }
        let rows = measured(items, &directions, chosen, &swaps, estimates);
        let shared = Shared {
            model: &session.model.name,
            variant: ("direction", "necessity: positive run, head from the negative; sufficiency: the reverse"),
            position: self.position.to_string(),
            seed: session.seed,
            positive: Some("necessity"),
            marks: self.marks,
        };
        let mut tables = effects_tables(&shared, items.pairs.labels(), &rows)?;
        tables.push(pairs_table(items, &directions, chosen, &swaps)?);
        if estimates.is_some() {
            tables.push(agreement::table(&session.model.name, &rows(None))?);
        }
        Ok(tables)
    }

    /// The plans of first-order estimates over some of the pairs.
    pub(super) fn gradient_plans<'a>(
        self,
        items: &'a Items,
        arch: &Arch,
        some: Vec<usize>,
    ) -> impl Iterator<Item = Plan> + use<'a> {
        let batches = batches(some.len(), self.rows_of_gradients(items, arch));
        batches.map(move |batch| self.gradient_plan(items, &some[batch]))
    }

    /// First-order estimates over some of the pairs.
    pub(super) fn estimates(
        &self,
        session: &Session,
        items: &Items,
        some: &[usize],
    ) -> Result<Estimates, AnalysisError> {
        let (directions, sites) = (self.directions(), sites(&items.units));
        let mut found = vec![vec![Vec::with_capacity(some.len()); items.units.len()]; directions.len()];
        for batch in batches(some.len(), self.rows_of_gradients(items, &session.model.decoder.arch)) {
            let readings = session.run(&self.gradient_plan(items, &some[batch.clone()]))?;
            let mut readings = readings.chunks_exact(3);
            for _ in batch {
                for of_direction in &mut found {
                    // Every site has as many units, one after another.
                    for of_site in of_direction.chunks_mut(items.units.len() / sites.len()) {
                        let Some([gradient, base, donor]) = readings.next() else { continue };
                        let estimates = products(gradient, base, donor, of_site.len());
                        of_site.iter_mut().zip(estimates).for_each(|(of_unit, estimate)| of_unit.push(estimate));
                    }
                }
            }
        }
        Ok(Estimates { of: some.to_vec(), values: found })
    }
}

/// First-order estimates of effects.
pub(super) struct Estimates {
    /// The pairs that they are of, ascending.
    pub(super) of: Vec<usize>,
    /// For each direction and unit, one a pair of `of`.
    pub(super) values: Vec<Vec<Vec<f64>>>,
}

impl Estimates {
    /// Those of a unit over the pairs among `items`, which ascend.
    fn over(&self, direction: usize, unit: usize, items: &[usize]) -> Vec<f64> {
        let values = self.of.iter().zip(&self.values[direction][unit]);
        values.filter(|(i, _)| items.binary_search(i).is_ok()).map(|(_, value)| *value).collect()
    }
}

/// Gradient times donor minus base, summed over positions, for each of the `n` units that a row's columns divide over.
fn products(gradient: &Reading, base: &Reading, donor: &Reading, n: usize) -> Vec<f64> {
    let mut sums = vec![0f64; n];
    let Reading::Array(Array { shape, .. }) = gradient else { return sums };
    let width = shape.last().copied().unwrap_or(0).max(1);
    let unit = (width / n.max(1)).max(1);
    let (gradient, base, donor) = (gradient.values(), base.values(), donor.values());
    for (i, g) in gradient.iter().enumerate().filter(|(_, g)| **g != 0.0) {
        sums[i % width / unit] += f64::from(*g) * (f64::from(donor[i]) - f64::from(base[i]));
    }
    sums
}

/// `n` of so many units, evenly over all: a fork costs as many layers as come after it.
pub(super) fn spread(units: usize, n: usize) -> Vec<usize> {
    let n = n.min(units);
    (0..n).map(|k| k * units / n).collect()
}

/// The units whose mean estimates are largest, in their own order.
pub(super) fn strongest(estimates: &[Vec<f64>], n: usize) -> Vec<usize> {
    let size = |u: &usize| mean(&estimates[*u]).map_or(0.0, f64::abs);
    let mut units: Vec<usize> = (0..estimates.len()).collect();
    units.sort_by(|a, b| size(b).total_cmp(&size(a)));
    units.truncate(n);
    units.sort_unstable();
    units
}

/// [`exact_plan`]s of all pairs, some pairs in each.
pub(super) fn exact_plans(
    items: &Items,
    directions: Vec<Direction>,
    chosen: Vec<Vec<usize>>,
) -> impl Iterator<Item = Plan> {
    exact_batches(items, &chosen).map(move |pairs| exact_plan(items, &directions, &chosen, pairs))
}

/// The pairs of each of [`exact_plans`].
fn exact_batches(items: &Items, chosen: &[Vec<usize>]) -> impl Iterator<Item = Range<usize>> + use<> {
    batches(items.pairs.tokens.len(), chosen.iter().map(Vec::len).sum())
}

/// Each pair's two metrics, then for each direction those of the chosen units' forks; each with its answer's half.
fn exact_plan(items: &Items, directions: &[Direction], chosen: &[Vec<usize>], pairs: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for i in pairs {
        let runs = items.pairs.add(&mut plan, i);
        let metric = &items.pairs.tokens[i].metric;
        for run in runs {
            Value::read(&mut plan, run, metric);
        }
        for (direction, units) in directions.iter().zip(chosen) {
            let side = *direction as usize;
            let (at, from) = &items.positions[i][side];
            for u in units {
                let fork = plan.fork(runs[side], vec![exchange(items.units[*u], runs[1 - side], at, from)]);
                Value::read(&mut plan, fork, metric);
            }
        }
    }
    plan
}

/// One unit's interchange at a pair's positions.
fn exchange(unit: Unit, donor: Run, at: &Positions, from: &Positions) -> Edit {
    let positions = if let Positions::At(list) = from { Some(list.clone()) } else { None };
    Edit { site: unit.site, part: unit.part(), positions: at.clone(), change: Change::Interchange { donor, positions } }
}

/// Adds what some pairs' readings say: for each direction and chosen unit, one swap a pair.
fn collect(
    items: &Items,
    (directions, pairs): (&[Direction], Range<usize>),
    readings: &[Reading],
    swaps: &mut [Vec<Vec<Swap>>],
) {
    let mut readings = readings.iter();
    for i in pairs {
        let mut next = || Value::next(&mut readings, &items.pairs.tokens[i].metric);
        // A plan's readings are all there.
        let Some(runs) = next().zip(next()).map(|(positive, negative)| [positive, negative]) else { return };
        for (direction, of_direction) in directions.iter().zip(swaps.iter_mut()) {
            let side = *direction as usize;
            for of_unit in of_direction {
                of_unit.extend(next().map(|patched| runs[side].swap(Some(runs[1 - side]), patched)));
            }
        }
    }
}

/// What tables are made of: all units in each direction, over all pairs or those of a subset.
fn measured<'a>(
    items: &'a Items,
    directions: &'a [Direction],
    chosen: &'a [Vec<usize>],
    swaps: &'a [Vec<Vec<Swap>>],
    estimates: Option<&'a Estimates>,
) -> impl Fn(Option<Subset>) -> Vec<Measured> + 'a {
    move |subset| {
        let mut rows = Vec::new();
        let all: Vec<usize> = (0..items.pairs.tokens.len()).collect();
        let of = subset.as_ref().map_or(&all, |s| &s.items);
        for (d, direction) in directions.iter().enumerate() {
            for (u, unit) in items.units.iter().enumerate() {
                let exact = chosen[d].binary_search(&u).ok().map(|k| &swaps[d][k]);
                rows.push(Measured {
                    unit: *unit,
                    variant: direction.name(),
                    subset: subset.clone(),
                    swaps: exact.map_or(Vec::new(), |swaps| of.iter().map(|i| swaps[*i]).collect()),
                    estimates: estimates.map_or(Vec::new(), |e| e.over(d, u, of)),
                });
            }
        }
        rows
    }
}

fn pairs_table(
    items: &Items,
    directions: &[Direction],
    chosen: &[Vec<usize>],
    swaps: &[Vec<Vec<Swap>>],
) -> Result<Table, AnalysisError> {
    // Made anew for each column: there may be millions.
    let of_unit = |d: usize, k: usize| {
        let (direction, unit) = (directions[d], items.units[chosen[d][k]]);
        swaps[d][k].iter().enumerate().map(move |(i, swap)| (i, unit, direction, *swap))
    };
    let rows = || (0..directions.len()).flat_map(move |d| (0..chosen[d].len()).flat_map(move |k| of_unit(d, k)));
    let pair = |r: &(usize, Unit, Direction, Swap)| &items.pairs.dataset.items[r.0];
    Ok(Table::new("pairs")
        .str("id", "the pair", rows().map(|r| pair(&r).id.as_str()))?
        .opt_str("group", "the pair's group", rows().map(|r| pair(&r).group.as_deref()))?
        .opt_str("lang", "the pair's language", rows().map(|r| pair(&r).lang.as_deref()))?
        .int("layer", "layer, from 0", rows().map(|r| r.1.site.layer as i64))?
        .int("head", "head, from 0; -1 for a site as a whole", rows().map(|r| r.1.head_number()))?
        .str("direction", "necessity or sufficiency", rows().map(|r| r.2.name()))?
        .float("base_metric", "metric of the run that is edited, without the edit, nats", rows().map(|r| r.3.base))?
        .float("other_metric", "metric of the run that is taken from, nats", rows().map(|r| r.3.other))?
        .float("patched_metric", "metric with the exchange, nats", rows().map(|r| r.3.patched))?
        .float("effect", "patched minus base metric, nats", rows().map(|r| r.3.effect()))?
        .float(
            "answer_effect",
            "the same of logsumexp(answer logits) less the mean logit, nats",
            rows().map(|r| r.3.answer),
        )?
        .float("foil_effect", "the same of the foil: answer_effect less this is effect", rows().map(|r| r.3.foil()))?)
}

/// A direction's figure and its strongest units.
fn section(heads: &Read, direction: &str, dir: &Path) -> Section {
    let rows = heads.strongest(direction);
    let metrics = rows.iter().find(|r| r.positive.is_some());
    let text = format!(
        "{} Over {} the logit difference is {} in the positive and {} in the negative prompts. {}",
        edited(direction),
        plural(rows.first().map_or(0, |r| r.n), "pair"),
        signed(metrics.and_then(|r| r.positive), 3),
        signed(metrics.and_then(|r| r.negative), 3),
        heads.finding(direction, "Its exchange", "pair"),
    );
    let alt = format!("Mean effect of interchange ({direction}) of each unit on the logit difference.");
    let section = Section::new(cells::capitalised(direction)).paragraph(text).figure(
        dir.join(format!("{direction}.png")),
        heads.caption(direction),
        alt,
    );
    heads.listed(section, direction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_for_the_strongest_are_spread_over_all_layers() {
        assert_eq!(spread(12, 4), [0, 3, 6, 9]);
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert!(spread(0, 8).is_empty());
    }
}

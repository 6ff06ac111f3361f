//! Interchange (activation patching): which heads carry what tells two matched prompts apart?
//!
//! A base run is run again with one head's `z` (or another site) taken from a donor run. *Necessity*: the base is the
//! positive prompt, the donor its negative, and an effect says that the behaviour needs what the head carried.
//! *Sufficiency*: the reverse. Sources: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal
//! Mediation Analysis"; Geiger et al. 2021, "Causal Abstractions of Neural Networks"; "How Alignment Routes" (2026) for
//! screening every head.
//!
//! An estimate, where it is asked for, first estimates every effect to first order, the gradient of the base's metric times what the
//! donor has more (attribution patching; Nanda 2023, "Attribution Patching"), and runs only the strongest exactly.

mod agreement;

use super::align::align;
use super::columns::{EffectHalves, OfPair, OfUnit};
use super::effects::{self, Edited, Measured, Shared, Subset, effects_tables, read_places, subset_section};
use super::halves::{Asked, Value};
use super::inputs::{PairTokens, Spanned, Unit, by_site, rows_read, sites};
use super::marks::MarkArgs;
use super::summary::Swap;
use crate::analyses::prelude::*;
use crate::model::arch::Arch;
use crate::plan::Gradient;
use crate::report::cells::{self, plural, signed};
use std::collections::BTreeMap;

/// Which run is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
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

/// The exchange of a unit between the prompts of a pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exchange;

impl Edited for Exchange {
    const VARIANT: (&str, &str) =
        ("direction", "necessity: positive run, head from the negative; sufficiency: the reverse");
    const SHARE: (&str, &str) = (
        "share_of_gap",
        "share of the gap: the mean effect over the mean of (other minus base metric), a ratio of means; reports and figures \
         show this one",
    );
    const SHARE_OF: &str = "gap";
}

/// A unit's exchange in one direction, over pairs: a row of the table of heads.
pub type Row<'a> = effects::Row<'a, Exchange>;

/// The table of heads, read back.
pub type Read<'a> = effects::Read<'a, Exchange>;

rows! {
    /// One pair's exchange of one unit in one direction.
    pub struct PairRow<'a> in "pairs" {
        pair: OfPair<'a> as "",
        unit: OfUnit as "",
        direction: &'a str = "necessity or sufficiency",
        position: Option<&'a str> [if any] = "the span that was edited; empty where all units were edited at one position",
        base_metric: Option<f64> = "metric of the run that is edited, without the edit, nats",
        other_metric: Option<f64> = "metric of the run that is taken from, nats",
        patched_metric: Option<f64> = "metric with the exchange, nats",
        effect: Option<f64> = "patched minus base metric, nats",
        halves: EffectHalves as "",
    }
}

/// What is edited in a direction: for captions, and as a sentence.
fn edited(direction: &str) -> [String; 2] {
    let [base, donor] = if direction == "necessity" { ["positive", "negative"] } else { ["negative", "positive"] };
    [
        format!("{base} run, each with its output in the {donor}"),
        format!("Each unit of the {base} run is exchanged for that of the {donor} run."),
    ]
}

/// What an exchange in a direction is called.
fn named(direction: &str) -> String {
    format!("Interchange, {direction}")
}

/// How effects are found before the exact ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Estimate {
    /// Estimate to first order, by the gradient of the base's metric.
    Gradient,
}

parameters! {
    /// Swap every head between matched prompts, and measure what changes
    #[serde(default)]
    pub struct Interchange {
        ..pairs: PairArgs;

        /// Swap at this position: last, all, or a number (a negative one counts from the prompt's end)
        position: Position = Position::Last, [allow_hyphen_values = true];

        /// Swap at each span of the pairs by itself: rows have its name as their position
        ///
        /// A pair names its spans, in the field `spans` of its line. It does not count in the rows of a span that it lacks.
        by_span: bool, excludes position | align | estimate;

        /// At all positions: match up prompts of unequal lengths
        ///
        /// Equal beginnings and ends are matched token by token, and the spans between them in proportion.
        align: bool;

        /// Edit only one of the two runs (default: each in turn)
        direction: Option<Direction>, [value_enum];

        /// Swap this site: z (every head), resid_pre, attn_out, mlp_out, q, k, v, mlp_act, ...
        site: SiteKind = SiteKind::Z;

        /// Estimate every effect first, and run only the strongest exactly
        estimate: Option<Estimate>, [value_enum];

        /// After an estimate: run this many exactly, in each direction
        exact: u32 = 32, in 1.., needs estimate, [value_name = "N"];

        ..marks: MarkArgs;
    }
}

/// The pairs as the model reads them.
pub struct Items {
    pub(super) pairs: Pairs,
    /// One, or one a span.
    pub(super) places: Vec<Place>,
    pub(super) units: Vec<Unit>,
}

/// Where units are swapped.
pub(super) struct Place {
    /// As tables have it.
    name: String,
    /// Of each pair that has the place, by the pair's number.
    of: BTreeMap<usize, Sides>,
}

impl Items {
    /// The one place where units are swapped, if not at spans.
    pub(super) fn place(&self) -> &Place {
        &self.places[0]
    }

    /// The positions of a pair there.
    pub(super) fn sides(&self, i: usize) -> &Sides {
        &self.place().of[&i]
    }
}

/// The edited positions of a pair's positive prompt with those of its negative, and the reverse.
pub(super) type Sides = [(Positions, Positions); 2];

impl From<Spanned> for Place {
    fn from(span: Spanned) -> Place {
        let sides = |at: Positions| [(at.clone(), at.clone()), (at.clone(), at)];
        Place { name: span.name, of: span.of.into_iter().map(|(i, at)| (i, sides(at))).collect() }
    }
}

impl Analysis for Interchange {
    const NAME: &'static str = "interchange";
    const TITLE: &'static str = "Interchange";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = Items;
    /// One a place.
    type Measured = Vec<Measurements>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        if self.align && self.position != Position::All {
            let (align, all) = (param("align"), param("position").is("all"));
            return Err(AnalysisError::Bad(format!("{align} matches whole prompts: give {all} with it")));
        }
        let units = Unit::all(self.site, &model.decoder.arch)?;
        let prepared = self.pairs.read(model)?;
        let places = self.places(&prepared.items)?;
        Ok(prepared.map(|pairs| Items { pairs, places, units }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Vec<Measurements>, AnalysisError> {
        items.places.iter().map(|place| self.at_place(runner, items, place)).collect()
    }

    fn tables(&self, about: &About, items: &Items, measured: Vec<Measurements>) -> Result<Output, AnalysisError> {
        Ok(self.all_tables(about, items, &measured)?.into())
    }
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let places = read_places::<Exchange>(table(tables, Row::TABLE)?)?;
    Ok(places.iter().flat_map(figures_of_place).collect())
}

fn figures_of_place(heads: &Read) -> Figures {
    let mut figures = Vec::new();
    for direction in &heads.variants {
        let title = format!("Interchange of {}: {direction}", heads.site_words());
        let [what, _] = edited(direction);
        figures.push((heads.file(direction), heads.map(&heads.at_place(&title), &what, "pair", direction)));
    }
    figures.extend(heads.halves_figures("the exchange", named, "pair"));
    let title = heads.at_place("Strongest effects of interchange");
    figures.push((heads.file("forest"), heads.forest(&title, "pair")));
    if heads.rows.iter().any(|r| r.estimate_mean.is_some() && r.effect_mean.is_some()) {
        figures.push(("agreement.png".to_string(), agreement::scatter(heads)));
    }
    figures
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let places = read_places::<Exchange>(table(tables, Row::TABLE)?)?;
    let mut sections: Vec<Section> = places.iter().flat_map(|heads| sections_of_place(heads, dir)).collect();
    sections.extend(subset_section::<Exchange>(tables)?);
    if let (Ok(found), Some(heads)) = (table(tables, agreement::AgreementRow::TABLE), places.first()) {
        sections.push(agreement::section(found, heads, dir)?);
    }
    Ok(sections)
}

fn sections_of_place(heads: &Read, dir: &Path) -> Vec<Section> {
    let mut sections: Vec<Section> = heads.variants.iter().map(|d| section(heads, d, dir)).collect();
    sections.extend(heads.halves_sections("the exchange", named, "pair", dir));
    let forest = heads.forest_caption("direction");
    let alt = "Forest plot of the strongest effects of interchange with 95 % intervals.";
    let heading = heads.at_place("Intervals");
    sections.push(Section::new(heading).figure(dir.join(heads.file("forest")), forest, alt));
    sections
}

impl Interchange {
    pub(super) fn directions(&self) -> Vec<Direction> {
        self.direction.map_or(vec![Direction::Necessity, Direction::Sufficiency], |d| vec![d])
    }

    /// Where units are swapped.
    fn places(&self, pairs: &Pairs) -> Result<Vec<Place>, AnalysisError> {
        if self.by_span {
            return Ok(pairs.spans()?.into_iter().map(Place::from).collect());
        }
        let all = pairs.dataset.items.iter().zip(&pairs.tokens);
        let of = all.map(|(pair, tokens)| self.positions(&pairs.dataset, pair, tokens));
        let of = of.enumerate().map(|(i, sides)| Ok((i, sides?))).collect::<Result<_, AnalysisError>>()?;
        Ok(vec![Place { name: self.position.to_string(), of }])
    }

    /// Swaps units at a place.
    fn at_place(&self, runner: &dyn Runner, items: &Items, place: &Place) -> Result<Measurements, AnalysisError> {
        let directions = self.directions();
        let all: Vec<usize> = place.of.keys().copied().collect();
        let estimates = self.estimate.map(|_| self.estimates(runner, items, place, &all)).transpose()?;
        let chosen: Vec<Vec<usize>> = match &estimates {
            None => directions.iter().map(|_| (0..items.units.len()).collect()).collect(),
            // As many, spread over the layers, cost about as much.
            Some(found) if runner.is_counting() => {
                found.values.iter().map(|of| spread(of.len(), self.exact as usize)).collect()
            }
            Some(found) => found.values.iter().map(|of| strongest(of, self.exact as usize)).collect(),
        };
        self.exactly(runner, items, place, chosen, estimates)
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
                "has {p} tokens and the negative {n}: {} needs as many, or {} to match their equal beginnings and ends; or use {}",
                param("position").is("all"),
                param("align"),
                param("position").is("last")
            );
            return Err(at("positive").error(why).into());
        }
        let positive = self.position.of(p).map_err(|why| at("positive").error(why))?;
        let negative = self.position.of(n).map_err(|why| at("negative").error(why))?;
        Ok([(positive.clone(), negative.clone()), (negative, positive)])
    }

    /// Gradients of both prompts' metrics, and values, at the exchanged site in every layer: for each pair, direction and site.
    fn gradient_plan(&self, items: &Items, pairs: &[(usize, &Sides)]) -> (Plan, Vec<FirstOrder>) {
        let (mut plan, mut asked) = (Plan::default(), Vec::new());
        for (i, sides) in pairs {
            let (runs, tokens) = (items.pairs.add(&mut plan, *i), &items.pairs.tokens[*i]);
            for direction in self.directions() {
                let side = direction as usize;
                let (at, from) = &sides[side];
                for site in sites(&items.units) {
                    let (metric, part) = (tokens.metric.clone(), Part::All);
                    let value =
                        |positions: &Positions| Activation { site, positions: positions.clone(), part: Part::All };
                    asked.push(FirstOrder {
                        gradient: plan.read(runs[side], Gradient { metric, site, positions: at.clone(), part }),
                        base: plan.read(runs[side], value(at)),
                        donor: plan.read(runs[1 - side], value(from)),
                    });
                }
            }
        }
        (plan, asked)
    }

    /// What [`Interchange::gradient_plan`] reads of a pair: a gradient and two activations a direction and site.
    fn rows_of_gradients(&self, items: &Items, arch: &Arch) -> usize {
        let longest = items.pairs.tokens.iter().map(|t| t.positive.len().max(t.negative.len())).max().unwrap_or(0);
        3 * self.directions().len() * rows_read(&sites(&items.units), arch, self.position, longest)
    }

    /// Runs the chosen units of each direction exactly at a place.
    pub(super) fn exactly(
        &self,
        runner: &dyn Runner,
        items: &Items,
        place: &Place,
        chosen: Vec<Vec<usize>>,
        estimates: Option<Estimates>,
    ) -> Result<Measurements, AnalysisError> {
        let directions = self.directions();
        let mut swaps: Vec<Vec<Vec<Swap>>> = chosen.iter().map(|units| vec![Vec::new(); units.len()]).collect();
        let all: Vec<(usize, &Sides)> = place.of.iter().map(|(i, sides)| (*i, sides)).collect();
        for pairs in batches(all.len(), chosen.iter().map(Vec::len).sum()) {
            let (plan, asked) = exact_plan(items, &directions, &chosen, &all[pairs]);
            let readings = runner.run(&plan)?;
            asked.iter().for_each(|of_pair| of_pair.add(&directions, &readings, &mut swaps));
        }
        Ok(Measurements { of: place.of.keys().copied().collect(), chosen, swaps, estimates })
    }

    /// The tables of what was measured.
    pub(super) fn all_tables(
        &self,
        about: &About,
        items: &Items,
        found: &[Measurements],
    ) -> Result<Vec<Table>, AnalysisError> {
        let directions = self.directions();
        let rows = measured(items, &directions, found);
        let shared = Shared {
            model: about.model,
            seed: about.seed,
            positive: Some(Direction::Necessity.name()),
            marks: self.marks,
        };
        let mut tables = effects_tables::<Exchange>(&shared, items.pairs.labels(), &rows)?;
        tables.push(self.pairs_table(items, found)?);
        if found.iter().any(|found| found.estimates.is_some()) {
            tables.push(agreement::table(about.model, &rows(None))?);
        }
        Ok(tables)
    }

    /// First-order estimates at a place, over those of some pairs that have it.
    pub(super) fn estimates(
        &self,
        runner: &dyn Runner,
        items: &Items,
        place: &Place,
        some: &[usize],
    ) -> Result<Estimates, AnalysisError> {
        let some: Vec<(usize, &Sides)> = some.iter().filter_map(|i| Some((*i, place.of.get(i)?))).collect();
        let (directions, sites) = (self.directions(), by_site(&items.units));
        let mut found = vec![vec![Vec::with_capacity(some.len()); items.units.len()]; directions.len()];
        for batch in batches(some.len(), self.rows_of_gradients(items, &runner.model().decoder.arch)) {
            let (plan, asked) = self.gradient_plan(items, &some[batch]);
            let readings = runner.run(&plan)?;
            for of_pair in asked.chunks(directions.len() * sites.len()) {
                for (of_direction, first_orders) in found.iter_mut().zip(of_pair.chunks(sites.len())) {
                    for ((_, units), first_order) in sites.iter().zip(first_orders) {
                        let estimates = first_order.products(&readings, units.len());
                        let of_site = of_direction[units.clone()].iter_mut();
                        of_site.zip(estimates).for_each(|(of_unit, estimate)| of_unit.push(estimate));
                    }
                }
            }
        }
        Ok(Estimates { of: some.iter().map(|(i, _)| *i).collect(), values: found })
    }

    fn pairs_table(&self, items: &Items, found: &[Measurements]) -> Result<Table, AnalysisError> {
        let directions = self.directions();
        let families = items.places.iter().zip(found);
        let families = families.flat_map(|(place, found)| (0..directions.len()).map(move |d| (place, found, d)));
        let rows = families.flat_map(|(place, found, d)| self.pair_rows(items, place, found, d, directions[d]));
        Ok(PairRow::table(rows)?)
    }

    /// A direction's rows at a place: each unit's pairs.
    fn pair_rows<'a>(
        &self,
        items: &'a Items,
        place: &'a Place,
        found: &'a Measurements,
        d: usize,
        direction: Direction,
    ) -> impl Iterator<Item = PairRow<'a>> + use<'a> {
        let position = self.by_span.then_some(place.name.as_str());
        let row = move |u: usize, i: usize, swap: &Swap| PairRow {
            pair: (&items.pairs.dataset.items[i]).into(),
            unit: items.units[u].into(),
            direction: direction.name(),
            position,
            base_metric: Some(swap.base),
            other_metric: swap.other,
            patched_metric: Some(swap.patched),
            effect: Some(swap.effect()),
            halves: swap.into(),
        };
        let units = found.chosen[d].iter().zip(&found.swaps[d]);
        units.flat_map(move |(u, swaps)| found.of.iter().zip(swaps).map(move |(i, swap)| row(*u, *i, swap)))
    }
}

/// What was found of the pairs at a place.
pub struct Measurements {
    /// The pairs, ascending.
    of: Vec<usize>,
    /// The units that were run exactly in each direction, ascending.
    chosen: Vec<Vec<usize>>,
    /// For each direction and chosen unit, one a pair of `of`.
    swaps: Vec<Vec<Vec<Swap>>>,
    estimates: Option<Estimates>,
}

impl Measurements {
    /// A direction's swaps of a unit over the pairs among `items`, which ascend; none where it was not run.
    fn over(&self, direction: usize, unit: usize, items: &[usize]) -> Vec<Swap> {
        let Ok(k) = self.chosen[direction].binary_search(&unit) else { return Vec::new() };
        among(&self.of, &self.swaps[direction][k], items)
    }

    /// The effects of a direction's units, one a pair, by the direction's number; none of one that was not run.
    pub(super) fn effects(&self, direction: usize) -> Vec<Vec<f64>> {
        let of_units = self.swaps.get(direction).into_iter().flatten();
        of_units.map(|swaps| swaps.iter().map(|swap| swap.effect()).collect()).collect()
    }
}

/// What belongs to the pairs of `of` that are among `items`; both ascend.
fn among<T: Copy>(of: &[usize], values: &[T], items: &[usize]) -> Vec<T> {
    let values = of.iter().zip(values).filter(|(i, _)| items.binary_search(i).is_ok());
    values.map(|(_, value)| *value).collect()
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
        among(&self.of, &self.values[direction][unit], items)
    }
}

/// What a first-order estimate is made of, at one site of one pair in one direction.
struct FirstOrder {
    gradient: Handle<Array>,
    base: Handle<Array>,
    donor: Handle<Array>,
}

impl FirstOrder {
    /// Gradient times donor minus base, summed over positions, for each of the `n` units that a row's columns divide over.
    fn products(&self, readings: &Readings, n: usize) -> Vec<f64> {
        let [gradient, base, donor] = [self.gradient, self.base, self.donor].map(|of| &readings[of]);
        let mut sums = vec![0f64; n];
        let unit = gradient.width() / n;
        for (i, g) in gradient.values.iter().enumerate().filter(|(_, g)| **g != 0.0) {
            let more = f64::from(donor.values[i]) - f64::from(base.values[i]);
            sums[i % gradient.width() / unit] += f64::from(*g) * more;
        }
        sums
    }
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

/// Each pair's two metrics, and for each direction those of the chosen units' forks.
fn exact_plan(
    items: &Items,
    directions: &[Direction],
    chosen: &[Vec<usize>],
    pairs: &[(usize, &Sides)],
) -> (Plan, Vec<AskedOfPair>) {
    let (mut plan, mut asked) = (Plan::default(), Vec::with_capacity(pairs.len()));
    for (i, sides) in pairs {
        let runs = items.pairs.add(&mut plan, *i);
        let metric = &items.pairs.tokens[*i].metric;
        let clean = runs.map(|run| Value::ask(&mut plan, run, metric));
        let of_direction = |(direction, units): (&Direction, &Vec<usize>)| {
            let side = *direction as usize;
            let (at, from) = &sides[side];
            let patched = |u: &usize| {
                let fork = plan.fork(runs[side], vec![exchange(items.units[*u], runs[1 - side], at, from)]);
                Value::ask(&mut plan, fork, metric)
            };
            units.iter().map(patched).collect()
        };
        let patched = directions.iter().zip(chosen).map(of_direction).collect();
        asked.push(AskedOfPair { clean, patched });
    }
    (plan, asked)
}

/// What is read of a pair.
struct AskedOfPair {
    /// Of the positive and of the negative prompt.
    clean: [Asked; 2],
    /// For each direction, of the chosen units' forks.
    patched: Vec<Vec<Asked>>,
}

impl AskedOfPair {
    /// Adds a swap to each direction's chosen units.
    fn add(&self, directions: &[Direction], readings: &Readings, swaps: &mut [Vec<Vec<Swap>>]) {
        let clean = self.clean.map(|asked| asked.of(readings));
        for ((direction, patched), swaps) in directions.iter().zip(&self.patched).zip(swaps) {
            let (base, other) = (clean[*direction as usize], clean[1 - *direction as usize]);
            for (asked, of_unit) in patched.iter().zip(swaps) {
                of_unit.push(base.swap(Some(other), asked.of(readings)));
            }
        }
    }
}

/// One unit's interchange at a pair's positions.
pub(super) fn exchange(unit: Unit, donor: Run, at: &Positions, from: &Positions) -> Edit {
    let positions = if let Positions::At(list) = from { Some(list.clone()) } else { None };
    Edit { site: unit.site, part: unit.part(), positions: at.clone(), change: Change::Interchange { donor, positions } }
}

/// What tables are made of: all units at each place and in each direction, over all pairs or those of a subset. A place that no
/// pair of the subset has is left out.
fn measured<'a>(
    items: &'a Items,
    directions: &'a [Direction],
    found: &'a [Measurements],
) -> impl Fn(Option<Subset>) -> Vec<Measured> + 'a {
    move |subset| {
        let mut rows = Vec::new();
        let all: Vec<usize> = (0..items.pairs.tokens.len()).collect();
        let of = subset.as_ref().map_or(&all, |s| &s.items);
        let there = items.places.iter().zip(found).filter(|(place, _)| of.iter().any(|i| place.of.contains_key(i)));
        for (place, found) in there {
            for (d, direction) in directions.iter().enumerate() {
                rows.extend(items.units.iter().enumerate().map(|(u, unit)| Measured {
                    unit: *unit,
                    variant: direction.name(),
                    position: place.name.clone(),
                    subset: subset.clone(),
                    swaps: found.over(d, u, of),
                    estimates: found.estimates.as_ref().map_or(Vec::new(), |e| e.over(d, u, of)),
                }));
            }
        }
        rows
    }
}

/// A direction's figure and its strongest units.
fn section(heads: &Read, direction: &str, dir: &Path) -> Section {
    let rows = heads.strongest(direction);
    let metrics = rows.iter().find(|r| r.positive_mean.is_some());
    let [_, what] = edited(direction);
    let text = format!(
        "{what} Over {} the logit difference is {} in the positive and {} in the negative prompts. {}",
        plural(rows.first().map_or(0, |r| r.n), "pair"),
        signed(metrics.and_then(|r| r.positive_mean), 3),
        signed(metrics.and_then(|r| r.negative_mean), 3),
        heads.finding(direction, "Its exchange", "pair"),
    );
    let alt = format!("Mean effect of interchange ({direction}) of each unit on the logit difference.");
    let section = Section::new(heads.at_place(&cells::capitalised(direction))).paragraph(text).figure(
        dir.join(heads.file(direction)),
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

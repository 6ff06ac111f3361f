//! Ablation: which heads (or MLPs) does the metric depend on?
//!
//! A head's `z`, or another site, is replaced by something that says nothing of the prompt: zeros; its mean over a reference
//! set; or its value in a random prompt of that set that is another one (resampling), averaged over draws. The mean and the resampled
//! value are taken at the matching position where one position is ablated; where all positions are, the mean is over all
//! positions of the reference set, and resampled prompts are matched by their equal beginnings and ends.
//! Sources: Michel et al. 2019, "Are Sixteen Heads Really Better than One?"; Chan et al. 2022, "Causal Scrubbing", for
//! resampling. Later layers make up for some ablations (McGrath et al. 2023, "The Hydra Effect"): a small effect does not
//! say that a head does nothing.

use super::align::align;
use super::columns::{EffectHalves, OfItem, OfUnit};
use super::effects::{self, Edited, Measured, Shared, Subset, effects_tables, read, subset_section};
use super::halves::{Asked, Value};
use super::inputs::{Tokens, Unit, by_site, encoded, named_twice, rows_read, sites};
use super::marks::MarkArgs;
use super::summary::{RowMean, Swap};
use crate::analyses::prelude::*;
use crate::dataset::read_prompts;
use crate::model::arch::Arch;
use crate::report::cells::{self, plural, signed};
use crate::stats;
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;

/// What the ablated part becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Zeros.
    Zero,
    /// The mean over the reference prompts.
    Mean,
    /// The value in another, random reference prompt, averaged over draws.
    Resample,
}

impl Mode {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Zero => "zero",
            Mode::Mean => "mean",
            Mode::Resample => "resample",
        }
    }
}

/// The ablation of a unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ablation;

impl Edited for Ablation {
    const VARIANT: (&str, &str) = ("mode", "what the ablated part became: zero, mean or resample");
    const SHARE: (&str, &str) = (
        "share_of_base",
        "the mean effect over the mean base metric, a ratio of means; reports and figures show this one",
    );
    const SHARE_OF: &str = "base";
}

/// A unit's ablation in one mode, over prompts: a row of the table of heads.
pub type Row<'a> = effects::Row<'a, Ablation>;

rows! {
    /// One prompt under one unit's ablation.
    pub struct ItemRow<'a> in "items" {
        item: OfItem<'a> as "",
        unit: OfUnit as "",
        mode: &'a str = "zero, mean or resample",
        base_metric: Option<f64> = "metric without the ablation, nats",
        ablated_metric: Option<f64> = "metric with it (resample: mean over draws), nats",
        effect: Option<f64> = "ablated minus base metric, nats",
        halves: EffectHalves as "",
    }
}

parameters! {
    /// Ablate every head, or every MLP, one at a time
    #[serde(default)]
    pub struct Ablate {
        ..measured: MeasuredArgs;

        /// Put this in its place; several with commas
        mode: Vec<Mode> => vec![Mode::Zero], [value_enum];

        /// Take mean and resample from these reference prompts (default: the prompts themselves)
        reference: Option<Data>, [value_name = "FILE"];

        /// For mode resample: draw this many values per prompt (default: 8)
        draws: Option<u16>, in 1.., [value_name = "R"];

        /// Ablate at this position: last, all, or a number (a negative one counts from the prompt's end)
        position: Position = Position::Last, [allow_hyphen_values = true];

        /// Ablate this site: z (every head), mlp_out (every MLP), or another
        site: SiteKind = SiteKind::Z;

        ..marks: MarkArgs;
    }
}

/// What every mode does to every unit: for each mode and unit, one a prompt.
type Swaps = Vec<Vec<Vec<Swap>>>;

/// The prompts as the model reads them.
pub struct Items {
    dataset: Dataset<Item>,
    tokens: Tokens,
    /// The reference set, if it is another file.
    reference: Option<Dataset<Item>>,
    /// The reference set's token ids.
    reference_ids: Vec<Vec<u32>>,
    /// Which prompts of the reference set have the same token ids, ascending.
    twins: HashMap<Vec<u32>, Vec<usize>>,
    units: Vec<Unit>,
}

impl Analysis for Ablate {
    const NAME: &'static str = "ablate";
    const TITLE: &'static str = "Ablation";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = Items;
    type Measured = Swaps;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let Prepared { items: MeasuredPrompts { dataset, tokens }, mut sources, scored } = self.measured.read(model)?;
        let units = Unit::all(self.site, &model.decoder.arch)?;
        let reference = self.reference.as_ref().map(read_prompts).transpose()?;
        let reference_ids = match &reference {
            None => tokens.iter().map(|t| t.0.clone()).collect(),
            Some(set) => encoded(model, set)?.0,
        };
        sources.extend(reference.as_ref().map(Dataset::source));
        let mut twins: HashMap<Vec<u32>, Vec<usize>> = HashMap::new();
        for (i, ids) in reference_ids.iter().enumerate() {
            twins.entry(ids.clone()).or_default().push(i);
        }
        let items = Items { dataset, tokens, reference, reference_ids, twins, units };
        self.fits(&items)?;
        Ok(Prepared { items, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Swaps, AnalysisError> {
        let values = self.needs_values().then(|| self.values(runner, items)).transpose()?;
        let mut swaps: Swaps = vec![vec![Vec::new(); items.units.len()]; self.mode.len()];
        for some in batches(items.tokens.len(), self.edits_of_each(items)) {
            let (plan, asked) = self.plan(items, values.as_ref(), some, runner.seed())?;
            let readings = runner.run(&plan)?;
            asked.iter().for_each(|of_prompt| of_prompt.add(&readings, &mut swaps));
        }
        Ok(swaps)
    }

    fn tables(&self, about: &About, items: &Items, swaps: Swaps) -> Result<Output, AnalysisError> {
        let all: Vec<usize> = (0..items.tokens.len()).collect();
        let shared = Shared { model: about.model, seed: about.seed, positive: None, marks: self.marks };
        let rows = |subset: Option<Subset>| {
            let of = subset.as_ref().map_or(&all, |s| &s.items);
            let mut rows = Vec::new();
            for (mode, swaps) in self.mode.iter().zip(&swaps) {
                rows.extend(items.units.iter().zip(swaps).map(|(unit, swaps)| Measured {
                    unit: *unit,
                    variant: mode.name(),
                    position: self.position.to_string(),
                    subset: subset.clone(),
                    swaps: of.iter().map(|i| swaps[*i]).collect(),
                    estimates: Vec::new(),
                }));
            }
            rows
        };
        let labels = items.dataset.items.iter().map(|p| (p.group.as_deref(), p.lang.as_deref()));
        let mut tables = effects_tables::<Ablation>(&shared, labels, rows)?;
        tables.push(self.items_table(items, &swaps)?);
        Ok(tables.into())
    }
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let heads = read::<Ablation>(table(tables, Row::TABLE)?)?;
    let mut figures = Vec::new();
    for mode in &heads.variants {
        let title = format!("Ablation of {}: {mode}", heads.site_words());
        figures.push((format!("{mode}.png"), heads.map(&title, "ablated minus clean", "prompt", mode)));
    }
    figures.extend(heads.halves_figures("the ablation", named, "prompt"));
    figures.push(("forest.png".to_string(), heads.forest("Strongest effects of ablation", "prompt")));
    Ok(figures)
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let heads = read::<Ablation>(table(tables, Row::TABLE)?)?;
    let section = |mode: &&str| {
        let rows = heads.strongest(mode);
        let first = rows.first();
        let text = format!(
            "Over {} the clean logit difference is {}. {}",
            plural(first.map_or(0, |r| r.n), "prompt"),
            signed(first.and_then(|r| r.positive_mean), 3),
            heads.finding(mode, "Its ablation", "prompt")
        );
        let alt = format!("Mean effect of {mode} ablation of each unit on the logit difference.");
        let section = Section::new(format!("Ablation: {mode}")).paragraph(text);
        heads.listed(section.figure(dir.join(format!("{mode}.png")), heads.caption(mode), alt), mode)
    };
    let mut sections: Vec<Section> = heads.variants.iter().map(section).collect();
    sections.extend(heads.halves_sections("the ablation", named, "prompt", dir));
    let alt = "Forest plot of the strongest effects of ablation with 95 % intervals.";
    let caption = heads.forest_caption("mode");
    sections.push(Section::new("Intervals").figure(dir.join("forest.png"), caption, alt));
    sections.extend(subset_section::<Ablation>(tables)?);
    Ok(sections)
}

/// What an ablation of a mode is called.
fn named(mode: &str) -> String {
    format!("{} ablation", cells::capitalised(mode))
}

/// Draws a prompt where the user gives no number.
const DRAWS: u16 = 8;

impl Items {
    /// How many prompts of the reference set are not the one with these token ids.
    fn others(&self, ids: &[u32]) -> usize {
        self.reference_ids.len() - self.twins.get(ids).map_or(0, Vec::len)
    }
}

impl Ablate {
    fn needs_values(&self) -> bool {
        self.mode.iter().any(|m| *m != Mode::Zero)
    }

    /// Edits of one prompt in all its forks: with resampling at all positions there are many.
    fn edits_of_each(&self, items: &Items) -> usize {
        let longest = items.tokens.iter().map(|t| t.0.len()).max().unwrap_or(1);
        let each = |mode: Mode| match (mode, self.position) {
            (Mode::Resample, Position::All) => self.forks(mode) * longest,
            _ => self.forks(mode),
        };
        items.units.len() * self.mode.iter().map(|m| each(*m)).sum::<usize>()
    }

    /// Forks a unit of one prompt under one mode.
    fn forks(&self, mode: Mode) -> usize {
        if mode == Mode::Resample { usize::from(self.draws.unwrap_or(DRAWS)) } else { 1 }
    }

    fn fits(&self, items: &Items) -> Result<(), AnalysisError> {
        if let Some(twice) = named_twice(&self.mode) {
            return Err(AnalysisError::Bad(format!("{} names {} twice", param("mode"), twice.name())));
        }
        let ragged = matches!(self.site, SiteKind::Scores | SiteKind::Pattern);
        if ragged {
            let why = "silencing a head through its scores or pattern leaves no probabilities; ablate z instead";
            return Err(AnalysisError::Bad(format!("{}: {why}", param("site"))));
        }
        let resampled = self.mode.contains(&Mode::Resample);
        if self.draws.is_some() && !resampled {
            let (draws, resample) = (param("draws"), param("mode").is("resample"));
            return Err(AnalysisError::Bad(format!("{draws} is of {resample}: leave it out, or give that mode")));
        }
        if items.reference.is_some() && !self.needs_values() {
            let (reference, mean) = (param("reference"), param("mode").is("mean"));
            let why = format!("{reference} is of {mean} and resample: leave it out, or give one of these modes");
            return Err(AnalysisError::Bad(why));
        }
        for (item, (ids, _)) in items.dataset.items.iter().zip(&items.tokens) {
            let at = items.dataset.at(item.line, &item.id, "prompt");
            self.position.of(ids.len()).map_err(|why| at.error(why))?;
            if resampled && items.others(ids) == 0 {
                let reference = param("reference");
                let why = format!(
                    "every prompt of the reference set is this one; resampling needs another: give {reference}"
                );
                return Err(at.error(why).into());
            }
        }
        if !self.needs_values() {
            return Ok(());
        }
        if items.reference_ids.len() < 2 {
            return Err(AnalysisError::Bad(format!(
                "the reference set has one prompt; mean and resample need two or more: give {}",
                param("reference")
            )));
        }
        for (i, ids) in items.reference_ids.iter().enumerate() {
            let set = items.reference.as_ref().unwrap_or(&items.dataset);
            let item = &set.items[i];
            self.position.of(ids.len()).map_err(|why| set.at(item.line, &item.id, "prompt").error(why))?;
        }
        Ok(())
    }

    /// Which prompts of the reference set are run at once; none where no values are taken from it.
    fn references(&self, items: &Items, arch: &Arch) -> impl Iterator<Item = Range<usize>> + use<> {
        let longest = items.reference_ids.iter().map(Vec::len).max().unwrap_or(0);
        let rows = rows_read(&sites(&items.units), arch, self.position, longest);
        batches(if self.needs_values() { items.reference_ids.len() } else { 0 }, rows)
    }

    /// The reference set's values at the ablated site and positions: for each prompt, of each site.
    fn values_plan(&self, items: &Items, some: Range<usize>) -> (Plan, Vec<Vec<Handle<Array>>>) {
        let mut plan = Plan::default();
        let sites = sites(&items.units);
        let of_prompt = |i: usize| {
            let ids = &items.reference_ids[i];
            let prompt = plan.prompt(format!("reference {i}"), ids.clone());
            // The positions were checked.
            let positions = self.position.of(ids.len()).unwrap_or(Positions::Last);
            let value = |site: &Site| Activation { site: *site, positions: positions.clone(), part: Part::All };
            sites.iter().map(|site| plan.read(prompt, value(site))).collect()
        };
        let asked = some.map(of_prompt).collect();
        (plan, asked)
    }

    /// Their means, and all of them where they are drawn from.
    fn values(&self, runner: &dyn Runner, items: &Items) -> Result<Values, AnalysisError> {
        let drawn = self.mode.contains(&Mode::Resample);
        let mut means = vec![RowMean::default(); sites(&items.units).len()];
        let mut of = Vec::new();
        for some in self.references(items, &runner.model().decoder.arch) {
            let (plan, asked) = self.values_plan(items, some);
            let readings = runner.run(&plan)?;
            for of_prompt in asked {
                for (mean, value) in means.iter_mut().zip(&of_prompt) {
                    readings[*value].rows().for_each(|row| mean.add(row));
                }
                of.extend(drawn.then(|| of_prompt.iter().map(|value| readings[*value].clone()).collect()));
            }
        }
        Ok(Values { of, means: means.iter().map(RowMean::mean).collect() })
    }

    /// Each prompt's metric, and those of every mode's and unit's forks.
    fn plan(
        &self,
        items: &Items,
        values: Option<&Values>,
        some: Range<usize>,
        seed: u64,
    ) -> Result<(Plan, Vec<OfPrompt>), AnalysisError> {
        let (mut plan, mut asked) = (Plan::default(), Vec::with_capacity(some.len()));
        for i in some {
            let (ids, metric) = &items.tokens[i];
            let item = &items.dataset.items[i];
            let prompt = plan.prompt(item.id.clone(), ids.clone());
            let clean = Value::ask(&mut plan, prompt, metric);
            let at = items.dataset.at(item.line, &item.id, "prompt");
            let positions = self.position.of(ids.len()).map_err(|why| at.error(why))?;
            let donors = self.donors(items, i, seed);
            let mut of_unit = |mode: Mode, u: usize| {
                let fork = |donor: &usize| {
                    let edits = ablation(items, values, u, mode, (i, *donor), &positions);
                    let fork = plan.fork(prompt, edits);
                    Value::ask(&mut plan, fork, metric)
                };
                donors.iter().take(self.forks(mode)).map(fork).collect()
            };
            let of_mode = |mode: &Mode| (0..items.units.len()).map(|u| of_unit(*mode, u)).collect();
            let ablated = self.mode.iter().map(of_mode).collect();
            asked.push(OfPrompt { clean, ablated });
        }
        Ok((plan, asked))
    }

    /// The prompts of the reference set that a prompt's values are drawn from, one a draw, none of them the prompt itself; all
    /// units draw the same.
    fn donors(&self, items: &Items, i: usize, seed: u64) -> Vec<usize> {
        let ids = &items.tokens[i].0;
        let others = items.others(ids).max(1);
        let mut rng = stats::rng(seed, &format!("ablate.resample.{i}"));
        let draw = |_| {
            // The number among the others, then among all.
            let drawn = rng.random_range(0..others);
            items.twins.get(ids).into_iter().flatten().fold(drawn, |j, own| j + usize::from(j >= *own))
        };
        (0..self.forks(Mode::Resample)).map(draw).collect()
    }

    fn items_table(&self, items: &Items, swaps: &[Vec<Vec<Swap>>]) -> Result<Table, AnalysisError> {
        let of_unit = |m: usize, u: usize| {
            let (mode, unit) = (self.mode[m], items.units[u]);
            let swaps = items.dataset.items.iter().zip(&swaps[m][u]);
            swaps.map(move |(item, swap)| ItemRow {
                item: item.into(),
                unit: unit.into(),
                mode: mode.name(),
                base_metric: Some(swap.base),
                ablated_metric: Some(swap.patched),
                effect: Some(swap.effect()),
                halves: swap.into(),
            })
        };
        let units = (0..swaps.len()).flat_map(|m| (0..swaps[m].len()).map(move |u| (m, u)));
        Ok(ItemRow::table(units.flat_map(|(m, u)| of_unit(m, u)))?)
    }
}

/// What is read of a prompt.
struct OfPrompt {
    clean: Asked,
    /// For each mode and unit, of each of its forks.
    ablated: Vec<Vec<Vec<Asked>>>,
}

impl OfPrompt {
    /// Adds a swap to each mode's units.
    fn add(&self, readings: &Readings, swaps: &mut Swaps) {
        let base = self.clean.of(readings);
        for (of_mode, swaps) in self.ablated.iter().zip(swaps) {
            for (forks, of_unit) in of_mode.iter().zip(swaps) {
                let forks: Vec<Value> = forks.iter().map(|asked| asked.of(readings)).collect();
                of_unit.extend(Value::mean(&forks).map(|patched| base.swap(None, patched)));
            }
        }
    }
}

/// The reference set's values at the units' sites.
struct Values {
    /// Of each prompt, `[positions, width]` for each site; none where nothing is drawn from them. `[prompts][sites]`
    of: Vec<Vec<Array>>,
    /// Means over the prompts and their positions, one a site.
    means: Vec<Vec<f32>>,
}

/// The edits that ablate a unit in prompt `item`, with values of `donor` where they are resampled.
fn ablation(
    items: &Items,
    values: Option<&Values>,
    u: usize,
    mode: Mode,
    (item, donor): (usize, usize),
    positions: &Positions,
) -> Vec<Edit> {
    let unit = items.units[u];
    let edit = |positions: Positions, change| Edit { site: unit.site, part: unit.part(), positions, change };
    let values = match (mode, values) {
        (Mode::Zero, _) | (_, None) => return vec![edit(positions.clone(), Change::Zero)],
        (_, Some(values)) => values,
    };
    let sites = by_site(&items.units);
    let site = sites.iter().position(|(_, units)| units.contains(&u)).unwrap_or(0);
    let width = values.means[site].len() / sites.get(site).map_or(1, |(_, units)| units.len());
    let part = unit.head.map_or(0..values.means[site].len(), |h| h * width..(h + 1) * width);
    if mode == Mode::Mean {
        return vec![edit(positions.clone(), Change::Set(values.means[site][part].into()))];
    }
    let drawn = &values.of[donor][site];
    let row = |p: usize| -> Arc<[f32]> { drawn.values[p * drawn.width()..][part.clone()].into() };
    match positions {
        Positions::All => {
            let matched = align(&items.tokens[item].0, &items.reference_ids[donor]);
            let one = |(p, from): (usize, Option<usize>)| Some(edit(Positions::At(vec![p]), Change::Set(row(from?))));
            matched.into_iter().enumerate().filter_map(one).collect()
        }
        one => vec![edit(one.clone(), Change::Set(row(0)))],
    }
}

//! Ablation: which heads (or MLPs) does the metric depend on?
//!
//! A head's `z`, or another site, is replaced by something that says nothing of the prompt: zeros; its mean over a reference
//! set; or its value in a random prompt of that set that is another one (resampling), averaged over draws. The mean and the resampled
//! value are taken at the matching position where one position is ablated; with `--position all` the mean is over all
//! positions of the reference set, and resampled prompts are matched by their equal beginnings and ends.
//! Sources: Michel et al. 2019, "Are Sixteen Heads Really Better than One?"; Chan et al. 2022, "Causal Scrubbing", for
//! resampling. Later layers make up for some ablations (McGrath et al. 2023, "The Hydra Effect"): a small effect does not
//! say that a head does nothing.

use super::align::align;
use super::effects::{Measured, Shared, Subset, effects_tables, read, subset_section};
use super::halves::Value;
use super::inputs::{MeasuredArgs, MeasuredPrompts, Sources, Tokens, Unit, encoded, named_twice, rows_read, sites};
use super::marks::MarkArgs;
use super::scored::Scored;
use super::summary::{Position, RowMean, Swap};
use super::{Analysis, AnalysisError, Figures, Output, Plans, batches, table};
use crate::dataset::{Dataset, Item, read_prompts};
use crate::model::Model;
use crate::model::arch::Arch;
use crate::plan::{Activation, Array, Change, Edit, Part, Plan, Positions};
use crate::report::Section;
use crate::report::cells::{self, plural, signed};
use crate::run::Reading;
use crate::session::Session;
use crate::site::SiteKind;
use crate::stats;
use crate::table::Table;
use rand::Rng;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the ablated part becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
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

/// Ablate every head, or every MLP, one at a time
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Ablate {
    #[command(flatten)]
    #[serde(flatten)]
    pub measured: MeasuredArgs,

    /// Put this in its place; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "zero")]
    pub mode: Vec<Mode>,

    /// Take mean and resample from these reference prompts (default: the prompts themselves)
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,

    /// With --mode resample: draw this many values per prompt (default: 8)
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u16).range(1..))]
    pub draws: Option<u16>,

    /// Ablate at this position: last, all, or a number (a negative one counts from the prompt's end)
    #[arg(long, default_value = "last", allow_hyphen_values = true)]
    pub position: Position,

    /// Ablate this site: z (every head), mlp_out (every MLP), or another
    #[arg(long, default_value = "z")]
    pub site: SiteKind,

    #[command(flatten)]
    #[serde(flatten)]
    pub marks: MarkArgs,
}

/// The prompts as the model reads them.
pub struct Items {
    dataset: Dataset<Item>,
    tokens: Tokens,
    sources: Sources,
    scored: Scored,
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
    const ABOUT: &'static str = "Ablate every head, or every MLP, one at a time";
    const TITLE: &'static str = "Ablation";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let MeasuredPrompts { dataset, tokens, mut sources, scored } = self.measured.read(model)?;
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
        let items = Items { dataset, tokens, sources, scored, reference, reference_ids, twins, units };
        self.check(&items)?;
        Ok(items)
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.sources.clone()
    }

    fn scored(items: &Items) -> &Scored {
        &items.scored
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let references = self.references(items, &model.decoder.arch).map(|some| Ok(self.values_plan(items, some)));
        // What parts become does not change the cost: zeros stand in, one edit a fork.
        let some = batches(items.tokens.len(), self.edits_of_each(items));
        Ok(Box::new(references.chain(some.map(|some| self.plan(items, None, some, 0)))))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let values = self.needs_values().then(|| self.values(session, items)).transpose()?;
        let mut swaps: Vec<Vec<Vec<Swap>>> = vec![vec![Vec::new(); items.units.len()]; self.mode.len()];
        for some in batches(items.tokens.len(), self.edits_of_each(items)) {
            let readings = session.run(&self.plan(items, values.as_ref(), some.clone(), session.seed)?)?;
            self.collect(items, some, &readings, &mut swaps);
        }
        let all: Vec<usize> = (0..items.tokens.len()).collect();
        let shared = Shared {
            model: &session.model.name,
            variant: ("mode", "what the ablated part became: zero, mean or resample"),
            position: self.position.to_string(),
            seed: session.seed,
            positive: None,
            marks: self.marks,
        };
        let rows = |subset: Option<Subset>| {
            let of = subset.as_ref().map_or(&all, |s| &s.items);
            let mut rows = Vec::new();
            for (mode, swaps) in self.mode.iter().zip(&swaps) {
                rows.extend(items.units.iter().zip(swaps).map(|(unit, swaps)| Measured {
                    unit: *unit,
                    variant: mode.name(),
                    subset: subset.clone(),
                    swaps: of.iter().map(|i| swaps[*i]).collect(),
                    estimates: Vec::new(),
                }));
            }
            rows
        };
        let labels = items.dataset.items.iter().map(|p| (p.group.as_deref(), p.lang.as_deref()));
        let mut tables = effects_tables(&shared, labels, rows)?;
        tables.push(self.items_table(items, &swaps)?);
        Ok(tables.into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        let heads = read(table(tables, "heads")?, "mode")?;
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
        let heads = read(table(tables, "heads")?, "mode")?;
        let section = |mode: &&str| {
            let rows = heads.strongest(mode);
            let first = rows.first();
            let text = format!(
                "Over {} the clean logit difference is {}. {}",
                plural(first.map_or(0, |r| r.n), "prompt"),
                signed(first.and_then(|r| r.positive), 3),
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
        sections.extend(subset_section(tables, "mode")?);
        Ok(sections)
    }
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

    fn check(&self, items: &Items) -> Result<(), AnalysisError> {
        if let Some(twice) = named_twice(&self.mode) {
            return Err(AnalysisError::Bad(format!("--mode names {} twice", twice.name())));
        }
        let ragged = matches!(self.site, SiteKind::Scores | SiteKind::Pattern);
        if ragged {
            let why =
                "--site: silencing a head through its scores or pattern leaves no probabilities; ablate z instead";
            return Err(AnalysisError::Bad(why.to_string()));
        }
        let resampled = self.mode.contains(&Mode::Resample);
        if self.draws.is_some() && !resampled {
            return Err(AnalysisError::Bad(
                "--draws is of --mode resample: leave it out, or give that mode".to_string(),
            ));
        }
        if items.reference.is_some() && !self.needs_values() {
            let why = "--reference is of --mode mean and resample: leave it out, or give one of these modes";
            return Err(AnalysisError::Bad(why.to_string()));
        }
        for (item, (ids, _)) in items.dataset.items.iter().zip(&items.tokens) {
            let at = items.dataset.at(item.line, &item.id, "prompt");
            self.position.of(ids.len()).map_err(|why| at.error(why))?;
            if resampled && items.others(ids) == 0 {
                let why = "every prompt of the reference set is this one; resampling needs another: give --reference";
                return Err(at.error(why).into());
            }
        }
        if !self.needs_values() {
            return Ok(());
        }
        if items.reference_ids.len() < 2 {
            return Err(AnalysisError::Bad(
                "the reference set has one prompt; mean and resample need two or more: give --reference".to_string(),
            ));
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

    /// The reference set's values at the ablated site and positions.
    fn values_plan(&self, items: &Items, some: Range<usize>) -> Plan {
        let mut plan = Plan::default();
        let sites = sites(&items.units);
        for i in some {
            let ids = &items.reference_ids[i];
            let prompt = plan.prompt(format!("reference {i}"), ids.clone());
            for site in &sites {
                // The positions were checked.
                let positions = self.position.of(ids.len()).unwrap_or(Positions::Last);
                plan.read(prompt, Activation { site: *site, positions, part: Part::All });
            }
        }
        plan
    }

    /// Their means, and all of them where they are drawn from.
    fn values(&self, session: &Session, items: &Items) -> Result<Values, AnalysisError> {
        let drawn = self.mode.contains(&Mode::Resample);
        let mut means = vec![RowMean::default(); sites(&items.units).len()];
        let mut of = Vec::new();
        for some in self.references(items, &session.model.decoder.arch) {
            let mut readings = session.run(&self.values_plan(items, some.clone()))?.into_iter();
            for _ in some {
                let of_prompt: Vec<Reading> = readings.by_ref().take(means.len()).collect();
                for (mean, reading) in means.iter_mut().zip(&of_prompt) {
                    reading.rows().for_each(|row| mean.add(row));
                }
                of.extend(drawn.then_some(of_prompt));
            }
        }
        Ok(Values { of, means: means.iter().map(RowMean::mean).collect() })
    }

    /// Each prompt's metric, then those of every mode's and unit's forks; each with its answer's half.
    fn plan(
        &self,
        items: &Items,
        values: Option<&Values>,
        some: Range<usize>,
        seed: u64,
    ) -> Result<Plan, AnalysisError> {
        let mut plan = Plan::default();
        for i in some {
            let (ids, metric) = &items.tokens[i];
            let item = &items.dataset.items[i];
            let prompt = plan.prompt(item.id.clone(), ids.clone());
            Value::read(&mut plan, prompt, metric);
            let at = items.dataset.at(item.line, &item.id, "prompt");
            let positions = self.position.of(ids.len()).map_err(|why| at.error(why))?;
            let donors = self.donors(items, i, seed);
            for mode in &self.mode {
                for u in 0..items.units.len() {
                    for donor in donors.iter().take(self.forks(*mode)) {
                        let edits = ablation(items, values, u, *mode, (i, *donor), &positions);
                        let fork = plan.fork(prompt, edits);
                        Value::read(&mut plan, fork, metric);
                    }
                }
            }
        }
        Ok(plan)
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

    /// Adds the readings of some prompts.
    fn collect(&self, items: &Items, some: Range<usize>, readings: &[Reading], swaps: &mut [Vec<Vec<Swap>>]) {
        let mut readings = readings.iter();
        for i in some {
            let mut next = || Value::next(&mut readings, &items.tokens[i].1);
            // A plan's readings are all there.
            let Some(base) = next() else { return };
            for (mode, of_mode) in self.mode.iter().zip(swaps.iter_mut()) {
                for of_unit in of_mode {
                    let forks: Vec<Value> = (0..self.forks(*mode)).filter_map(|_| next()).collect();
                    of_unit.extend(Value::mean(&forks).map(|patched| base.swap(None, patched)));
                }
            }
        }
    }

    fn items_table(&self, items: &Items, swaps: &[Vec<Vec<Swap>>]) -> Result<Table, AnalysisError> {
        let mut rows: Vec<(usize, usize, usize)> = Vec::new();
        for (m, of_mode) in swaps.iter().enumerate() {
            for (u, of_unit) in of_mode.iter().enumerate() {
                rows.extend((0..of_unit.len()).map(|i| (i, m, u)));
            }
        }
        let item = |r: &(usize, usize, usize)| &items.dataset.items[r.0];
        let swap = |r: &(usize, usize, usize)| swaps[r.1][r.2][r.0];
        Ok(Table::new("items")
            .str("id", "the prompt", rows.iter().map(|r| item(r).id.as_str()))?
            .opt_str("label", "the prompt's label", rows.iter().map(|r| item(r).label.as_deref()))?
            .opt_str("group", "the prompt's group", rows.iter().map(|r| item(r).group.as_deref()))?
            .opt_str("lang", "the prompt's language", rows.iter().map(|r| item(r).lang.as_deref()))?
            .int("layer", "layer, from 0", rows.iter().map(|r| items.units[r.2].site.layer as i64))?
            .int("head", "head, from 0; -1 for a site as a whole", rows.iter().map(|r| items.units[r.2].head_number()))?
            .str("mode", "zero, mean or resample", rows.iter().map(|r| self.mode[r.1].name()))?
            .float("base_metric", "metric without the ablation, nats", rows.iter().map(|r| swap(r).base))?
            .float(
                "ablated_metric",
                "metric with it (resample: mean over draws), nats",
                rows.iter().map(|r| swap(r).patched),
            )?
            .float("effect", "ablated minus base metric, nats", rows.iter().map(|r| swap(r).effect()))?
            .float(
                "answer_effect",
                "the same of logsumexp(answer logits) less the mean logit, nats",
                rows.iter().map(|r| swap(r).answer),
            )?
            .float(
                "foil_effect",
                "the same of the foil: answer_effect less this is effect",
                rows.iter().map(|r| swap(r).foil()),
            )?)
    }
}

/// The reference set's values at the units' sites.
struct Values {
    /// Of each prompt, `[positions, width]` for each site; none where nothing is drawn from them. `[prompts][sites]`
    of: Vec<Vec<Reading>>,
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
    // Every site has as many units, one after another.
    let of_site = items.units.len() / values.means.len().max(1);
    let site = u / of_site;
    let width = values.means[site].len() / of_site;
    let part = unit.head.map_or(0..values.means[site].len(), |h| h * width..(h + 1) * width);
    if mode == Mode::Mean {
        return vec![edit(positions.clone(), Change::Set(values.means[site][part].into()))];
    }
    let Reading::Array(Array { shape, values: drawn }) = &values.of[donor][site] else { return Vec::new() };
    let row = |p: usize| -> Arc<[f32]> { drawn[p * shape[1]..(p + 1) * shape[1]][part.clone()].into() };
    match positions {
        Positions::All => {
            let matched = align(&items.tokens[item].0, &items.reference_ids[donor]);
            let one = |(p, from): (usize, Option<usize>)| Some(edit(Positions::At(vec![p]), Change::Set(row(from?))));
            matched.into_iter().enumerate().filter_map(one).collect()
        }
        one => vec![edit(one.clone(), Change::Set(row(0)))],
    }
}

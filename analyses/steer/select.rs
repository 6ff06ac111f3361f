//! The layer and the position at which a difference of means is the behaviour's direction, chosen by what it does. Source:
//! Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction".
//!
//! At every layer but the last fifth, and at each of the last positions, the difference between the pairs' means is a
//! candidate. Taken out of the positive prompts it leaves something of the behaviour, by the metric; added to the negative
//! ones it brings some; taken out of these it should change little. Of those that bring the behaviour and change little the
//! one that leaves least is chosen. Steering by it, on other prompts, is left to `steer`.

use super::contrast::Contrast;
use super::plans::taken_out;
use super::{Items, Steer};
use crate::analyses::inputs::rows_read;
use crate::analyses::prelude::*;
use crate::analyses::summary::RowMean;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves};
use crate::model::arch::Arch;
use crate::names::short_name;
use crate::plan::KlFrom;
use std::sync::Arc;

/// Only layers before this share of all are candidates: the last ones write tokens.
const LAYERS: f64 = 0.8;

/// The largest divergence, in nats, of negative prompts from which the direction is taken out.
const MOST_KL: f64 = 0.1;

/// How many candidates the report lists.
const LISTED: usize = 12;

/// A place of which the difference of means is tried.
#[derive(Clone, Copy)]
struct Candidate {
    site: Site,
    /// From the prompt's end: -1 is the last.
    position: i64,
}

/// A candidate with its difference of means.
type Directed = (Candidate, Arc<[f32]>);

/// What was chosen, and all that were tried.
pub(super) struct Selected {
    pub(super) site: Site,
    pub(super) position: Position,
    tried: Vec<Tried>,
    /// The mean metrics of the positive and of the negative prompts.
    bases: (Option<f64>, Option<f64>),
    pairs: usize,
}

/// What a candidate does, over the pairs: means.
struct Tried {
    candidate: Candidate,
    /// The metric of positive prompts without the direction.
    ablated: Option<f64>,
    /// The metric of negative prompts with the direction added.
    induced: Option<f64>,
    /// How far negative prompts without it diverge.
    kl: Option<f64>,
}

impl Tried {
    fn brings(&self) -> bool {
        self.induced.is_some_and(|m| m > 0.0)
    }

    fn spares(&self) -> bool {
        self.kl.is_some_and(|kl| kl <= MOST_KL)
    }

    fn allowed(&self) -> bool {
        self.brings() && self.spares()
    }
}

fn sites(n_layers: usize) -> Vec<Site> {
    (0..n_layers).filter(|l| (*l as f64) < LAYERS * n_layers as f64).map(|l| SiteKind::ResidPre.at(l)).collect()
}

/// The candidates of the last `n` positions, layer by layer.
fn candidates(n_layers: usize, n: u32) -> Vec<Candidate> {
    let of = |site| (1..=i64::from(n)).rev().map(move |back| Candidate { site, position: -back });
    sites(n_layers).into_iter().flat_map(of).collect()
}

/// Tries all candidates and chooses. While work is only counted, the place that stands in the items stands in for the one chosen.
///
/// # Errors
/// If the work fails, or no candidate brings the behaviour and changes little else.
pub(super) fn select(params: &Steer, runner: &dyn Runner, items: &Items, n: u32) -> Result<Selected, AnalysisError> {
    let Some(contrast) = &items.contrast else {
        return Err(AnalysisError::Failed(format!("{}: there are no pairs to select by", param("select"))));
    };
    let tried = directions(runner, items, contrast, n)?;
    let mut of_pairs: Vec<([f64; 2], Vec<[f64; 3]>)> = Vec::new();
    for some in tried_at_once(items, contrast, tried.len()) {
        let (plan, asked) = trials(items, contrast, &tried, some);
        let readings = runner.run(&plan)?;
        let number = |of: Handle<f64>| readings[of];
        of_pairs.extend(asked.iter().map(|of| {
            let trials = of.trials.iter().map(|t| [t.ablated, t.kl, t.induced].map(number));
            (of.metrics.map(number), trials.collect())
        }));
    }
    let of_candidate = |(c, (candidate, _)): (usize, &Directed)| {
        let over = |k: usize| mean(&of_pairs.iter().map(|(_, trials)| trials[c][k]).collect::<Vec<_>>());
        Tried { candidate: *candidate, ablated: over(0), kl: over(1), induced: over(2) }
    };
    let tried: Vec<Tried> = tried.iter().enumerate().map(of_candidate).collect();
    let over = |side: usize| mean(&of_pairs.iter().map(|(metrics, _)| metrics[side]).collect::<Vec<_>>());
    let (bases, pairs) = ((over(0), over(1)), of_pairs.len());
    if runner.is_counting() {
        return Ok(Selected { site: items.site, position: params.vector_position, tried, bases, pairs });
    }
    let chosen = chosen(&tried, n, items.n_layers)?;
    Ok(Selected { site: chosen.site, position: Position::At(chosen.position), tried, bases, pairs })
}

/// Of the candidates that bring the behaviour and change little else, the one that leaves least of it.
fn chosen(tried: &[Tried], n: u32, n_layers: usize) -> Result<Candidate, AnalysisError> {
    let least = |t: &&Tried| t.ablated.unwrap_or(f64::INFINITY);
    let chosen = tried.iter().filter(|t| t.allowed()).min_by(|a, b| least(a).total_cmp(&least(b)));
    let count = |f: fn(&Tried) -> bool| tried.iter().filter(|t| f(t)).count();
    chosen.map(|t| t.candidate).ok_or_else(|| {
        AnalysisError::NotAskable(format!(
            "{}: of {} directions at layers 0 to {}, {} bring the behaviour into the negative prompts (a mean metric over \
             0) and {} change their next token by {MOST_KL} nats at most when they are taken out, but none does both; choose a \
             {layer}",
            param("select").is(n),
            tried.len(),
            sites(n_layers).len().saturating_sub(1),
            count(Tried::brings),
            count(Tried::spares),
            layer = param("layer"),
        ))
    })
}

/// Which prompts are read at once.
fn read_at_once(items: &Items, contrast: &Contrast, n: u32, arch: &Arch) -> impl Iterator<Item = Range<usize>> + use<> {
    let rows = n as usize * rows_read(&sites(items.n_layers), arch, Position::Last, 1);
    batches(contrast.prompts().count(), rows)
}

/// The last `n` positions of some prompts, at every candidate's site.
fn values(items: &Items, contrast: &Contrast, n: u32, some: Range<usize>) -> (Plan, Vec<Vec<Handle<Array>>>) {
    let mut plan = Plan::default();
    let of_prompt = |(i, ids): (usize, &Vec<u32>)| {
        // That prompts have as many was checked.
        let positions = Positions::At((ids.len().saturating_sub(n as usize)..ids.len()).collect());
        let prompt = plan.prompt(format!("prompt {i} of the contrast"), ids.clone());
        let value = |site| Activation { site, positions: positions.clone(), part: Part::All };
        sites(items.n_layers).into_iter().map(|site| plan.read(prompt, value(site))).collect()
    };
    let asked = contrast.prompts().enumerate().skip(some.start).take(some.len()).map(of_prompt).collect();
    (plan, asked)
}

/// The candidates with their differences of means; without those at which prompts do not differ.
fn directions(runner: &dyn Runner, items: &Items, contrast: &Contrast, n: u32) -> Result<Vec<Directed>, AnalysisError> {
    let candidates = candidates(items.n_layers, n);
    let mut means = [vec![RowMean::default(); candidates.len()], vec![RowMean::default(); candidates.len()]];
    for some in read_at_once(items, contrast, n, &runner.model().decoder.arch) {
        let (plan, asked) = values(items, contrast, n, some.clone());
        let readings = runner.run(&plan)?;
        for (i, of_prompt) in some.zip(&asked) {
            let side = usize::from(i >= contrast.positive.len());
            // Candidates stand layer by layer.
            let rows = of_prompt.iter().flat_map(|of| readings[*of].rows());
            means[side].iter_mut().zip(rows).for_each(|(mean, row)| mean.add(row));
        }
    }
    let [positive, negative] = means.map(|side| side.iter().map(RowMean::mean).collect::<Vec<_>>());
    let difference = |(p, n): (Vec<f32>, Vec<f32>)| p.iter().zip(n).map(|(p, n)| p - n).collect::<Arc<[f32]>>();
    let all = candidates.into_iter().zip(positive.into_iter().zip(negative).map(difference));
    Ok(all.filter(|(_, direction)| runner.is_counting() || direction.iter().any(|x| *x != 0.0)).collect())
}

/// What is read of a pair.
struct OfPair {
    /// Of the positive and of the negative prompt.
    metrics: [Handle<f64>; 2],
    /// One a candidate.
    trials: Vec<Trial>,
}

/// What is read of a candidate: the positive prompt's metric without it, the negative one's divergence without it, and its metric
/// with it added at every position.
struct Trial {
    ablated: Handle<f64>,
    kl: Handle<f64>,
    induced: Handle<f64>,
}

/// Which pairs are tried at once.
fn tried_at_once(items: &Items, contrast: &Contrast, candidates: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let edits = 1 + 2 * taken_out(items, &Arc::from([])).len();
    batches(contrast.positive.len(), candidates * edits)
}

/// Of some pairs: both metrics, and each candidate's trial.
fn trials(items: &Items, contrast: &Contrast, tried: &[Directed], some: Range<usize>) -> (Plan, Vec<OfPair>) {
    let mut plan = Plan::default();
    let of_pair = |i: usize| {
        let positive = plan.prompt(format!("positive {i} of the contrast"), contrast.positive[i].clone());
        let negative = plan.prompt(format!("negative {i} of the contrast"), contrast.negative[i].clone());
        let metric = || contrast.metrics[i].clone();
        let metrics = [positive, negative].map(|run| plan.read(run, metric()));
        let trial = |(candidate, direction): &Directed| {
            let without = taken_out(items, direction);
            let ablated = plan.fork(positive, without.clone());
            let unchanged = plan.fork(negative, without);
            let change = Change::Add { vector: direction.clone(), coefficient: 1.0 };
            let edit = Edit { site: candidate.site, part: Part::All, positions: Positions::All, change };
            let induced = plan.fork(negative, vec![edit]);
            Trial {
                ablated: plan.read(ablated, metric()),
                kl: plan.read(unchanged, KlFrom(negative)),
                induced: plan.read(induced, metric()),
            }
        };
        OfPair { metrics, trials: tried.iter().map(trial).collect() }
    };
    let asked = some.map(of_pair).collect();
    (plan, asked)
}

rows! {
    /// A candidate with what it does.
    pub(super) struct SelectionRow<'a> in "selection" {
        model: &'a str = "the model, as it was named",
        recipe: &'a str = "how the direction is made",
        site: &'a str = "where it is made and added",
        layer: i64 = "layer, from 0",
        position: i64 = "position of the prompts, from their end: -1 is the last",
        n: i64 = "pairs",
        positive_mean: Option<f64> = "mean metric of the positive prompts, nats",
        ablated_mean: Option<f64> = "the same with the direction taken out of every layer and position, nats",
        negative_mean: Option<f64> = "mean metric of the negative prompts, nats",
        induced_mean: Option<f64> = "the same with the direction added at its layer, at every position, nats",
        kl_mean: Option<f64> =
            "mean KL divergence of the negative prompts' next token with the direction taken out, nats",
        allowed: bool = "induced_mean > 0 and kl_mean <= 0.1",
        chosen: bool = "of those allowed, the one with the least ablated_mean",
    }
}

impl Selected {
    /// The table of all that were tried.
    pub(super) fn table(&self, about: &About, params: &Steer) -> Result<Table, AnalysisError> {
        let (positive_mean, negative_mean) = self.bases;
        Ok(SelectionRow::table(self.tried.iter().map(|tried| SelectionRow {
            model: about.model,
            recipe: params.from.map_or("", |r| r.name()),
            site: tried.candidate.site.kind.name(),
            layer: tried.candidate.site.layer as i64,
            position: tried.candidate.position,
            n: self.pairs as i64,
            positive_mean,
            ablated_mean: tried.ablated,
            negative_mean,
            induced_mean: tried.induced,
            kl_mean: tried.kl,
            allowed: tried.allowed(),
            chosen: tried.candidate.site == self.site && Position::At(tried.candidate.position) == self.position,
        }))?)
    }
}

/// What taking each candidate out leaves, by layer, a curve a position.
pub(super) fn figure(selection: &Table) -> Result<Figure, AnalysisError> {
    let (layers, positions, left) = (
        selection.column(SelectionRow::layer)?,
        selection.column(SelectionRow::position)?,
        selection.column(SelectionRow::ablated_mean)?,
    );
    let mut names: Vec<i64> = positions.to_vec();
    names.sort_unstable();
    names.dedup();
    let curve = |position: i64| {
        let of = (0..selection.rows()).filter(|i| positions[*i] == position);
        let points = of.map(|i| CurvePoint { x: layers[i] as f64, y: left[i], interval: None }).collect();
        Curve { name: format!("position {position}"), role: CurveRole::Series, points }
    };
    let models = selection.column(SelectionRow::model)?;
    let sites = selection.column(SelectionRow::site)?;
    let first = |texts: &[&str]| texts.first().copied().unwrap_or_default().to_string();
    let n = selection.column(SelectionRow::n)?.first().copied().unwrap_or(0);
    Ok(Figure::from(Curves {
        title: "What is left without each direction".to_string(),
        subtitle: format!("{}, {n} pairs, {}", short_name(&first(&models)), first(&sites)),
        x_label: "layer".to_string(),
        y_label: "logit difference (nats)".to_string(),
        curves: names.into_iter().map(curve).collect(),
        ..Curves::default()
    }))
}

pub(super) fn section(selection: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let (layers, positions) = (selection.column(SelectionRow::layer)?, selection.column(SelectionRow::position)?);
    let (allowed, chosen) = (selection.column(SelectionRow::allowed)?, selection.column(SelectionRow::chosen)?);
    let at = (0..selection.rows()).find(|i| chosen[*i]);
    let which = at.map_or(String::new(), |i| format!(" Chosen is layer {}, position {}.", layers[i], positions[i]));
    let text = format!(
        "Of {} differences of means, {} bring the behaviour into the negative prompts (a mean metric over 0) and change them by \
         {MOST_KL} nats at most when they are taken out. Of these the one is taken that leaves least of the behaviour in the \
         positive prompts.{which}",
        selection.rows(),
        allowed.iter().filter(|a| **a).count(),
    );
    let block = Listing::of(selection)
        .ascending(SelectionRow::ablated_mean.name)
        .first(LISTED)
        .column("layer", Show::Count(SelectionRow::layer.name))
        .column("position", Show::Count(SelectionRow::position.name))
        .column("left (nats)", Show::Signed(SelectionRow::ablated_mean.name, 2))
        .column("brought (nats)", Show::Signed(SelectionRow::induced_mean.name, 2))
        .column("KL", Show::Number(SelectionRow::kl_mean.name, 3))
        .column("allowed", Show::Flag(SelectionRow::allowed.name))
        .column("chosen", Show::Flag(SelectionRow::chosen.name))
        .block("The directions that leave least")?;
    let caption = "The positive prompts' mean logit difference without each direction.";
    let alt = "Mean logit difference by layer with each direction taken out, a curve a position.";
    let section = Section::new("Selection").paragraph(text).figure(dir.join("selection.png"), caption, alt);
    Ok(section.block(Block::Table(block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_must_bring_the_behaviour_and_change_little() {
        let candidate = Candidate { site: SiteKind::ResidPre.at(0), position: -1 };
        let allowed = |induced, kl| Tried { candidate, ablated: None, induced, kl }.allowed();
        assert!(allowed(Some(0.01), Some(0.1)));
        assert!(!allowed(Some(0.01), Some(0.101)), "more than 0.1 nats is too much");
        assert!(!allowed(Some(0.0), Some(0.0)), "a metric of 0 is none of the behaviour");
        assert!(!allowed(Some(0.01), None) && !allowed(None, Some(0.0)));
    }

    #[test]
    fn candidates_are_before_the_last_fifth_of_the_layers() {
        let layers = |n: usize| sites(n).iter().map(|site| site.layer).collect::<Vec<_>>();
        assert_eq!((layers(5), layers(10).len(), layers(4)), (vec![0, 1, 2, 3], 8, vec![0, 1, 2, 3]));
        let found: Vec<(usize, i64)> = candidates(2, 2).iter().map(|c| (c.site.layer, c.position)).collect();
        assert_eq!(found, [(0, -2), (0, -1), (1, -2), (1, -1)]);
    }
}

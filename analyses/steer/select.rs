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
use crate::analyses::summary::{Position, RowMean, mean};
use crate::analyses::{AnalysisError, batches};
use crate::figure::{Curve, CurvePoint, CurveRole, Curves, Figure};
use crate::model::arch::Arch;
use crate::names::short_name;
use crate::plan::{Activation, Change, Edit, Part, Plan, Positions, What};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::run::Reading;
use crate::session::Session;
use crate::site::{Site, SiteKind};
use crate::table::Table;
use std::ops::Range;
use std::path::Path;
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

/// What was chosen, and the table of all candidates.
pub(super) struct Selected {
    pub(super) site: Site,
    pub(super) position: Position,
    pub(super) table: Table,
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

/// What will be run, with zeros for directions that are known later.
pub(super) fn plans<'a>(
    items: &'a Items,
    contrast: &'a Contrast,
    n: u32,
    arch: &Arch,
) -> impl Iterator<Item = Plan> + 'a {
    let candidates = candidates(items.n_layers, n);
    let zeros: Arc<[f32]> = vec![0.0; arch.d_model].into();
    let tried: Vec<Directed> = candidates.iter().map(|c| (*c, zeros.clone())).collect();
    let values = read_at_once(items, contrast, n, arch).map(move |some| values(items, contrast, n, some));
    values.chain(tried_at_once(items, contrast, tried.len()).map(move |some| trials(items, contrast, &tried, some)))
}

/// Tries all candidates and chooses.
///
/// # Errors
/// If the work fails, or no candidate brings the behaviour and changes little else.
pub(super) fn select(params: &Steer, session: &Session, items: &Items, n: u32) -> Result<Selected, AnalysisError> {
    let Some(contrast) = &items.contrast else {
        return Err(AnalysisError::Failed("--select: there are no pairs to select by".to_string()));
    };
    let arch = &session.model.decoder.arch;
    let tried = directions(session, items, contrast, n)?;
    let mut numbers: Vec<f64> = Vec::new();
    for some in tried_at_once(items, contrast, tried.len()) {
        numbers.extend(session.run(&trials(items, contrast, &tried, some))?.iter().filter_map(Reading::number));
    }
    let of_pairs: Vec<&[f64]> = numbers.chunks_exact(OF_PAIR + OF_CANDIDATE * tried.len()).collect();
    let over = |k: usize| mean(&of_pairs.iter().map(|of| of[k]).collect::<Vec<_>>());
    let one = |(c, (candidate, _)): (usize, &Directed)| {
        let first = OF_PAIR + OF_CANDIDATE * c;
        Tried { candidate: *candidate, ablated: over(first), kl: over(first + 1), induced: over(first + 2) }
    };
    let tried: Vec<Tried> = tried.iter().enumerate().map(one).collect();
    let least = |t: &&Tried| t.ablated.unwrap_or(f64::INFINITY);
    let chosen = tried.iter().filter(|t| t.allowed()).min_by(|a, b| least(a).total_cmp(&least(b)));
    let Some(chosen) = chosen.map(|t| t.candidate) else {
        let count = |f: fn(&Tried) -> bool| tried.iter().filter(|t| f(t)).count();
        return Err(AnalysisError::NotAskable(format!(
            "--select {n}: of {} directions at layers 0 to {}, {} bring the behaviour into the negative prompts (a mean metric over \
             0) and {} change their next token by {MOST_KL} nats at most when they are taken out, but none does both; choose a \
             --layer",
            tried.len(),
            sites(arch.n_layers).len().saturating_sub(1),
            count(Tried::brings),
            count(Tried::spares),
        )));
    };
    let bases = (over(0), over(1));
    let table = table(session, &tried, chosen, bases, of_pairs.len(), params)?;
    Ok(Selected { site: chosen.site, position: Position::At(chosen.position), table })
}

/// Which prompts are read at once.
fn read_at_once(items: &Items, contrast: &Contrast, n: u32, arch: &Arch) -> impl Iterator<Item = Range<usize>> + use<> {
    let rows = n as usize * rows_read(&sites(items.n_layers), arch, Position::Last, 1);
    batches(contrast.prompts().count(), rows)
}

/// The last `n` positions of some prompts, at every candidate's site.
fn values(items: &Items, contrast: &Contrast, n: u32, some: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for (i, ids) in contrast.prompts().enumerate().skip(some.start).take(some.len()) {
        // That prompts have as many was checked.
        let positions = Positions::At((ids.len().saturating_sub(n as usize)..ids.len()).collect());
        let prompt = plan.prompt(format!("prompt {i} of the contrast"), ids.clone());
        for site in sites(items.n_layers) {
            plan.read(prompt, Activation { site, positions: positions.clone(), part: Part::All });
        }
    }
    plan
}

/// The candidates with their differences of means; without those at which prompts do not differ.
fn directions(session: &Session, items: &Items, contrast: &Contrast, n: u32) -> Result<Vec<Directed>, AnalysisError> {
    let candidates = candidates(items.n_layers, n);
    let mut means = [vec![RowMean::default(); candidates.len()], vec![RowMean::default(); candidates.len()]];
    for some in read_at_once(items, contrast, n, &session.model.decoder.arch) {
        let readings = session.run(&values(items, contrast, n, some.clone()))?;
        let rows: Vec<&[f32]> = readings.iter().flat_map(Reading::rows).collect();
        for (i, of_prompt) in some.zip(rows.chunks(candidates.len())) {
            let side = usize::from(i >= contrast.positive.len());
            means[side].iter_mut().zip(of_prompt).for_each(|(mean, row)| mean.add(row));
        }
    }
    let [positive, negative] = means.map(|side| side.iter().map(RowMean::mean).collect::<Vec<_>>());
    let difference = |(p, n): (Vec<f32>, Vec<f32>)| p.iter().zip(n).map(|(p, n)| p - n).collect::<Arc<[f32]>>();
    let all = candidates.into_iter().zip(positive.into_iter().zip(negative).map(difference));
    Ok(all.filter(|(_, direction)| direction.iter().any(|x| *x != 0.0)).collect())
}

/// Numbers of a pair before its candidates', and of each candidate, in [`trials`].
const OF_PAIR: usize = 2;
const OF_CANDIDATE: usize = 3;

/// Which pairs are tried at once.
fn tried_at_once(items: &Items, contrast: &Contrast, candidates: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let edits = 1 + 2 * taken_out(items.n_layers, &Arc::from([])).len();
    batches(contrast.positive.len(), candidates * edits)
}

/// Of some pairs: both metrics; and for each candidate the positive prompt's metric without it, the negative one's divergence
/// without it, and its metric with it added at every position.
fn trials(items: &Items, contrast: &Contrast, tried: &[Directed], some: Range<usize>) -> Plan {
    let mut plan = Plan::default();
    for i in some {
        let positive = plan.prompt(format!("positive {i} of the contrast"), contrast.positive[i].clone());
        let negative = plan.prompt(format!("negative {i} of the contrast"), contrast.negative[i].clone());
        let metric = || What::Metric(contrast.metrics[i].clone());
        plan.read(positive, metric());
        plan.read(negative, metric());
        for (candidate, direction) in tried {
            let without = taken_out(items.n_layers, direction);
            let ablated = plan.fork(positive, without.clone());
            plan.read(ablated, metric());
            let unchanged = plan.fork(negative, without);
            plan.read(unchanged, What::KlFrom(negative));
            let change = Change::Add { vector: direction.clone(), coefficient: 1.0 };
            let edit = Edit { site: candidate.site, part: Part::All, positions: Positions::All, change };
            let induced = plan.fork(negative, vec![edit]);
            plan.read(induced, metric());
        }
    }
    plan
}

fn table(
    session: &Session,
    tried: &[Tried],
    chosen: Candidate,
    (positive, negative): (Option<f64>, Option<f64>),
    n: usize,
    params: &Steer,
) -> Result<Table, AnalysisError> {
    let recipe = params.from.map_or("", |r| r.name());
    let is_chosen = |t: &Tried| (t.candidate.site, t.candidate.position) == (chosen.site, chosen.position);
    Ok(Table::new("selection")
        .str("model", "the model, as it was named", tried.iter().map(|_| session.model.name.as_str()))?
        .str("recipe", "how the direction is made", tried.iter().map(|_| recipe))?
        .str("site", "where it is made and added", tried.iter().map(|t| t.candidate.site.kind.name()))?
        .int("layer", "layer, from 0", tried.iter().map(|t| t.candidate.site.layer as i64))?
        .int(
            "position",
            "position of the prompts, from their end: -1 is the last",
            tried.iter().map(|t| t.candidate.position),
        )?
        .int("n", "pairs", tried.iter().map(|_| n as i64))?
        .float("positive_mean", "mean metric of the positive prompts, nats", tried.iter().map(|_| positive))?
        .float(
            "ablated_mean",
            "the same with the direction taken out of every layer and position, nats",
            tried.iter().map(|t| t.ablated),
        )?
        .float("negative_mean", "mean metric of the negative prompts, nats", tried.iter().map(|_| negative))?
        .float(
            "induced_mean",
            "the same with the direction added at its layer, at every position, nats",
            tried.iter().map(|t| t.induced),
        )?
        .float(
            "kl_mean",
            "mean KL divergence of the negative prompts' next token with the direction taken out, nats",
            tried.iter().map(|t| t.kl),
        )?
        .flag("allowed", "induced_mean > 0 and kl_mean <= 0.1", tried.iter().map(Tried::allowed))?
        .flag("chosen", "of those allowed, the one with the least ablated_mean", tried.iter().map(is_chosen))?)
}

/// What taking each candidate out leaves, by layer, a curve a position.
pub(super) fn figure(selection: &Table) -> Result<Figure, AnalysisError> {
    let (layers, positions, left) =
        (selection.ints("layer")?, selection.ints("position")?, selection.floats("ablated_mean")?);
    let mut names: Vec<i64> = positions.to_vec();
    names.sort_unstable();
    names.dedup();
    let curve = |position: i64| {
        let of = (0..selection.rows()).filter(|i| positions[*i] == position);
        let points = of.map(|i| CurvePoint { x: layers[i] as f64, y: left[i], interval: None }).collect();
        Curve { name: format!("position {position}"), role: CurveRole::Series, points }
    };
    let first = |name: &str| Ok::<_, AnalysisError>(selection.strs(name)?.first().copied().unwrap_or_default());
    let n = selection.ints("n")?.first().copied().unwrap_or(0);
    Ok(Figure::from(Curves {
        title: "What is left without each direction".to_string(),
        subtitle: format!("{}, {n} pairs, {}", short_name(first("model")?), first("site")?),
        x_label: "layer".to_string(),
        y_label: "logit difference (nats)".to_string(),
        shares: false,
        curves: names.into_iter().map(curve).collect(),
        thresholds: Vec::new(),
        reference: None,
        y_range: None,
        interval_meaning: None,
    }))
}

pub(super) fn section(selection: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let (layers, positions) = (selection.ints("layer")?, selection.ints("position")?);
    let (allowed, chosen) = (selection.flags("allowed")?, selection.flags("chosen")?);
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
        .ascending("ablated_mean")
        .first(LISTED)
        .column("layer", Show::Count("layer"))
        .column("position", Show::Count("position"))
        .column("left (nats)", Show::Signed("ablated_mean", 2))
        .column("brought (nats)", Show::Signed("induced_mean", 2))
        .column("KL", Show::Number("kl_mean", 3))
        .column("allowed", Show::Flag("allowed"))
        .column("chosen", Show::Flag("chosen"))
        .block("The directions that leave least")?;
    let caption = "The positive prompts' mean logit difference without each direction.";
    let alt = "Mean logit difference by layer with each direction taken out, a curve a position.";
    let section = Section::new("Selection").paragraph(text).figure(dir.join("selection.png"), caption, alt);
    Ok(section.block(Block::Table(block)))
}

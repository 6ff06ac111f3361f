//! Early commitment: until which layer can the detected signal still change the route?
//!
//! What tells the positive prompts from the negative is a direction of the residual stream: at each layer's `resid_pre`
//! the difference of the two classes' means (Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single
//! Direction"). The projection on it is *removed* from the positive run (set to the negatives' mean) or *restored* in the
//! negative run (set to the positives' mean), at one layer at a time and at one of two places: the prompt's *content*,
//! where detection writes, or its *last* position, where the answer is decided. The last layer at which a change of the
//! content still moves the metric is the one that reads it: from the next on the route is committed. The first layer at
//! which the last position holds the signal is where it has arrived. Source: "How Alignment Routes" (2026).
//!
//! Directions are cross-fitted: a pair's come from the other half of the pairs, so that the noise of a fit does not count
//! as an effect. As a control the same distance is gone along a random direction.

mod committed;
mod report;
mod signal;

use super::effects::family;
use super::inputs::{PairArgs, Pairs, layer_list};
use super::summary::{mean, sd};
use super::{Analysis, AnalysisError, Figures, Output, Plans, planned};
use crate::model::Model;
use crate::plan::{Change, Edit, Part, Plan, Positions, Run, What};
use crate::report::Section;
use crate::run::Reading;
use crate::session::Session;
use crate::site::SiteKind;
use crate::table::Table;
use signal::Signals;
use std::path::Path;

/// Early commitment: until which layer the detected signal can still change the route
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Commitment {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    /// Which layers: 3 or 0-5,8 (default: all)
    #[arg(long, value_name = "LIST")]
    pub layers: Option<String>,

    /// How many pairs, evenly spread, have their content changed: such a change costs a run of all later positions
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    pub content_pairs: u32,
}

/// Where the signal is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// From the first token at which a pair's prompts differ up to the one before the last.
    Content,
    /// The prompt's last position.
    Last,
}

impl Place {
    const ALL: [Place; 2] = [Place::Content, Place::Last];

    fn name(self) -> &'static str {
        match self {
            Place::Content => "content",
            Place::Last => "last",
        }
    }
}

/// What is done to the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In the positive run, set to the negatives' mean.
    Remove,
    /// In the negative run, set to the positives' mean.
    Restore,
    /// In the positive run, as far as for removal, but along a random direction.
    Random,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Remove, Kind::Restore, Kind::Random];

    fn name(self) -> &'static str {
        match self {
            Kind::Remove => "remove",
            Kind::Restore => "restore",
            Kind::Random => "random",
        }
    }

    /// Whose run is edited: 0, the positive prompt's; 1, the negative's.
    fn side(self) -> usize {
        usize::from(self == Kind::Restore)
    }
}

/// The pairs as the model reads them.
pub struct Items {
    pairs: Pairs,
    /// The first token at which each pair's prompts differ.
    differ: Vec<usize>,
    /// Which half each pair is in.
    fold: Vec<usize>,
    layers: Vec<usize>,
    n_layers: usize,
    /// The pairs whose content is changed.
    content: Vec<usize>,
}

impl Items {
    /// The pairs that are changed at a place.
    fn changed(&self, place: Place) -> Vec<usize> {
        match place {
            Place::Content => self.content.clone(),
            Place::Last => (0..self.pairs.tokens.len()).collect(),
        }
    }

    /// The positions of a place in the positive (0) or negative (1) prompt of a pair.
    fn positions(&self, place: Place, pair: usize, side: usize) -> Positions {
        let tokens = &self.pairs.tokens[pair];
        let length = [tokens.positive.len(), tokens.negative.len()][side];
        match place {
            Place::Last => Positions::Last,
            Place::Content => Positions::At((self.differ[pair]..length - 1).collect()),
        }
    }
}

impl Analysis for Commitment {
    const NAME: &'static str = "commitment";
    const ABOUT: &'static str = "Early commitment: until which layer the detected signal can still change the route";
    const TITLE: &'static str = "Early commitment";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let n_layers = model.decoder.arch.n_layers;
        let layers = layer_list(self.layers.as_deref(), n_layers)?;
        let pairs = self.pairs.read(model)?;
        let n = pairs.tokens.len();
        if n < LEAST {
            return Err(AnalysisError::Bad(format!(
                "{}: has {n} pairs; commitment needs {LEAST} or more: directions for one half come from the other",
                self.pairs.file.pairs.display()
            )));
        }
        let differ = (0..n).map(|i| first_difference(&pairs, i)).collect::<Result<Vec<_>, _>>()?;
        let fold = folds(&pairs.labels().map(|l| l.0).collect::<Vec<_>>());
        let some = (self.content_pairs as usize).min(n);
        let content = (0..some).map(|k| k * n / some).collect();
        Ok(Items { pairs, differ, fold, layers, n_layers, content })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.pairs.sources.clone()
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        // What directions are does not change the cost.
        let mut plans = signal::plans(items);
        plans.push(changes_plan(items, &Signals::zeros(items, model.decoder.arch.d_model)));
        Ok(planned(plans))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let signals = Signals::of(session, items)?;
        let measured = measured(items, &session.run(&changes_plan(items, &signals))?);
        let model = session.model.name.as_str();
        Ok(vec![
            layers_table(model, items, &measured, session.seed)?,
            committed::table(model, items, &measured, session.seed)?,
        ]
        .into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        report::figures(tables)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        report::sections(tables, dir)
    }
}

/// Pairs that are needed at least: two a half.
const LEAST: usize = 4;

/// The first token at which a pair's prompts differ; both have a position after it.
fn first_difference(pairs: &Pairs, i: usize) -> Result<usize, AnalysisError> {
    let (pair, tokens) = (&pairs.dataset.items[i], &pairs.tokens[i]);
    let (positive, negative) = (&tokens.positive, &tokens.negative);
    let shorter = positive.len().min(negative.len());
    let first = (0..shorter).find(|p| positive[*p] != negative[*p]).unwrap_or(shorter);
    let why = match first {
        // One prompt goes on where the other ends, or the last tokens differ.
        first if first + 1 < shorter => return Ok(first),
        _ if positive == negative => "is the same as the negative; a pair must differ",
        _ => {
            "differs from the negative at its last token alone, or goes on where the other ends: no content lies before the \
             last position; let both prompts end alike"
        }
    };
    Err(pairs.dataset.at(pair.line, &pair.id, "positive").error(why).into())
}

/// Which half each pair is in: every second one of its group, groups one after another.
fn folds(groups: &[Option<&str>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|i| groups[*i]);
    let mut folds = vec![0; groups.len()];
    order.into_iter().enumerate().for_each(|(rank, i)| folds[i] = rank % 2);
    folds
}

/// Every change that a pair's content or last position goes through, in the order of a plan's forks.
fn changes(items: &Items, pair: usize) -> impl Iterator<Item = (Place, usize, Kind)> {
    let places =
        Place::ALL.into_iter().filter(move |p| *p == Place::Last || items.content.binary_search(&pair).is_ok());
    places.flat_map(move |place| {
        (0..items.layers.len()).flat_map(move |l| Kind::ALL.into_iter().map(move |kind| (place, l, kind)))
    })
}

/// Each pair's two metrics, then those of all its changes.
fn changes_plan(items: &Items, signals: &Signals) -> Plan {
    let mut plan = Plan::default();
    for (i, tokens) in items.pairs.tokens.iter().enumerate() {
        let runs: [Run; 2] = items.pairs.add(&mut plan, i);
        for run in runs {
            plan.read(run, What::Metric(tokens.metric.clone()));
        }
        for (place, l, kind) in changes(items, i) {
            let positions = items.positions(place, i, kind.side());
            let fork = plan.fork(runs[kind.side()], edits(items, signals, (place, l, kind), i, &positions));
            plan.read(fork, What::Metric(tokens.metric.clone()));
        }
    }
    plan
}

/// The edits of one change. Two at one site are made in their order.
fn edits(
    items: &Items,
    signals: &Signals,
    (place, l, kind): (Place, usize, Kind),
    pair: usize,
    positions: &Positions,
) -> Vec<Edit> {
    let signal = signals.for_fold(place, l, items.fold[pair]);
    let site = SiteKind::ResidPre.at(items.layers[l]);
    let edit = |change| Edit { site, part: Part::All, positions: positions.clone(), change };
    let to = |target: f64| {
        let back = Change::Add { vector: signal.unit.clone(), coefficient: target as f32 };
        vec![edit(Change::ProjectOut(signal.unit.clone())), edit(back)]
    };
    match kind {
        Kind::Remove => to(signal.negative),
        Kind::Restore => to(signal.positive),
        Kind::Random => {
            let (unit, random, target) = (signal.unit.clone(), signals.random[l].clone(), signal.negative);
            let along = move |row: &mut [f32]| {
                let distance = target - crate::ops::vectors::dot(row, &unit);
                row.iter_mut().zip(random.iter()).for_each(|(x, r)| *x += (distance * f64::from(*r)) as f32);
            };
            vec![edit(Change::Map(std::sync::Arc::new(along)))]
        }
    }
}

/// The effects of one kind of change at one place, over the pairs that were changed there.
struct Measured {
    place: Place,
    kind: Kind,
    /// The metric of the run that is edited, one a pair.
    base: Vec<f64>,
    /// The other prompt's metric less that, one a pair.
    gap: Vec<f64>,
    /// Edited minus base metric: `[layers][pairs]`
    effects: Vec<Vec<f64>>,
}

impl Measured {
    fn mean_gap(&self) -> Option<f64> {
        mean(&self.gap).filter(|gap| *gap != 0.0)
    }
}

fn measured(items: &Items, readings: &[Reading]) -> Vec<Measured> {
    let families = Place::ALL.into_iter().flat_map(|place| Kind::ALL.into_iter().map(move |kind| (place, kind)));
    let empty = |(place, kind)| Measured {
        place,
        kind,
        base: Vec::new(),
        gap: Vec::new(),
        effects: vec![Vec::new(); items.layers.len()],
    };
    let mut found: Vec<Measured> = families.map(empty).collect();
    let mut numbers = readings.iter().filter_map(Reading::number);
    for i in 0..items.pairs.tokens.len() {
        let metrics = [numbers.next().unwrap_or(f64::NAN), numbers.next().unwrap_or(f64::NAN)];
        for of in found.iter_mut().filter(|of| items.changed(of.place).binary_search(&i).is_ok()) {
            let side = of.kind.side();
            of.base.push(metrics[side]);
            of.gap.push(metrics[1 - side] - metrics[side]);
        }
        for (place, l, kind) in changes(items, i) {
            let Some(of) = found.iter_mut().find(|of| (of.place, of.kind) == (place, kind)) else { continue };
            of.effects[l].push(numbers.next().unwrap_or(f64::NAN) - metrics[kind.side()]);
        }
    }
    found
}

fn layers_table(model: &str, items: &Items, measured: &[Measured], seed: u64) -> Result<Table, AnalysisError> {
    let tested = measured.iter().map(|of| family(&of.effects, seed)).collect::<Result<Vec<_>, _>>()?.concat();
    let rows: Vec<(&Measured, usize)> =
        measured.iter().flat_map(|of| (0..items.layers.len()).map(move |l| (of, l))).collect();
    let effect = |r: &(&Measured, usize)| mean(&r.0.effects[r.1]);
    let layer = |r: &(&Measured, usize)| items.layers[r.1];
    Ok(Table::new("layers")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .int("layer", "the layer before which the residual stream was changed, from 0", rows.iter().map(|r| layer(r) as i64))?
        .float(
            "relative_depth",
            "layer over the number of layers",
            rows.iter().map(|r| layer(r) as f64 / items.n_layers as f64),
        )?
        .str(
            "place",
            "content: from the first token at which the prompts differ to the one before the last; last: the last position",
            rows.iter().map(|r| r.0.place.name()),
        )?
        .str(
            "change",
            "remove: positive run, projection set to the negatives' mean; restore: negative run, to the positives'; random: as \
             far as remove, along a random direction",
            rows.iter().map(|r| r.0.kind.name()),
        )?
        .int("n", "pairs", rows.iter().map(|r| r.0.base.len() as i64))?
        .float("base_mean", "mean metric of the run that is edited, nats", rows.iter().map(|r| mean(&r.0.base)))?
        .float("gap_mean", "mean of the other prompt's metric less that, nats", rows.iter().map(|r| mean(&r.0.gap)))?
        .float("effect_mean", "mean of edited minus base metric, nats", rows.iter().map(effect))?
        .float(
            "effect_sd",
            "its standard deviation over pairs, nats",
            rows.iter().map(|r| sd(&r.0.effects[r.1])),
        )?
        .float(
            "ci_low",
            "lower end of the mean effect's 95 % BCa interval, nats",
            tested.iter().map(|t| t.interval.map(|i| i.0)),
        )?
        .float(
            "ci_high",
            "upper end of the mean effect's 95 % BCa interval, nats",
            tested.iter().map(|t| t.interval.map(|i| i.1)),
        )?
        .float(
            "share_of_gap",
            "mean effect over the mean gap",
            rows.iter().map(|r| Some(effect(r)? / r.0.mean_gap()?)),
        )?
        .float("p_value", "two-sided sign-flip permutation p-value of the mean effect", tested.iter().map(|t| t.p))?
        .float(
            "q_value",
            "Benjamini-Hochberg q-value over the layers of one place and change",
            tested.iter().map(|t| t.q),
        )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_even_within_groups_and_even_where_every_pair_is_a_group_of_its_own() {
        assert_eq!(folds(&[Some("a"), Some("b"), Some("a"), Some("b")]), [0, 0, 1, 1]);
        assert_eq!(folds(&[Some("a"), Some("b"), Some("c"), Some("d")]), [0, 1, 0, 1]);
        assert_eq!(folds(&[None, None, None]), [0, 1, 0]);
    }
}

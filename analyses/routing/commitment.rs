//! Early commitment: until which layer can the detected signal still change the route?
//!
//! What tells the positive prompts from the negative is a direction of the residual stream: at each layer's `resid_pre`
//! the difference of the two classes' means (Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single
//! Direction"). The signal on it is *removed* from the positive run or *restored* in the negative run, at one layer at a time
//! and at one of two places. In the prompt's *content*, where detection writes, every position is shifted by the difference of
//! the two means; what single positions carry along the direction stays as it is. At the *last* position, where the answer is
//! decided, the projection is set to the other class's mean. The last layer at which a change of the content still moves the
//! metric is the one that reads it: from the next on the route is committed. The first layer at which the last position holds
//! the signal is where it has arrived.
//!
//! "How Alignment Routes" (2026) asks this at the last position, and takes the layer after which a change there moves nothing:
//! those are the rows of that place, with that layer as `until`. But the output is read at that very position, so that a signal
//! which has arrived can be taken out of it up to the last layers, whether or not the route was settled long before. Where the
//! route is committed is therefore read off the content, which the output does not see.
//!
//! Directions are cross-fitted: a pair's come from the other half of the pairs, so that the noise of a fit does not count
//! as an effect. As a control the same distance is gone along random directions.

mod committed;
mod report;
mod signal;

pub use committed::CommittedRow;

use crate::analyses::effects::family;
use crate::analyses::halves::{self, Asked, Halves, Value};
use crate::analyses::inputs::{evenly, halves as halves_of, layer_list};
use crate::analyses::prelude::*;
use crate::analyses::summary::{less, sd};
use crate::stats::bca_ratio;
use signal::Signals;
use std::sync::Arc;

parameters! {
    /// Find the layer until which the detected signal can still change the answer
    #[serde(default)]
    pub struct Commitment {
        ..pairs: PairArgs;

        /// Use these layers: 3, or 0-5,8 (default: all)
        layers: Option<String>, [value_name = "LIST"];

        /// Change the content of this many pairs, spread evenly
        ///
        /// Such a change takes long: all later positions are run again.
        content_pairs: u32 = 40, in 4.., [value_name = "N"];

        /// Use this many random directions as control, at each layer's last position
        ///
        /// In the content, where each takes long, there are two at most.
        controls: u16 = 5, in 1..=40, [value_name = "R"];
    }
}

/// Random directions in the content, at most.
const CONTENT_CONTROLS: usize = 2;

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

    /// What is done there, with so many random directions at the last position.
    fn kinds(self, controls: usize) -> Vec<Kind> {
        let controls = if self == Place::Content { controls.min(CONTENT_CONTROLS) } else { controls };
        [Kind::Remove, Kind::Restore].into_iter().chain((0..controls).map(Kind::Random)).collect()
    }
}

/// What is done to the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In the positive run, towards the negatives' mean.
    Remove,
    /// In the negative run, towards the positives' mean.
    Restore,
    /// In the positive run, as far as for removal, but along a random direction, by its number.
    Random(usize),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Remove => "remove",
            Kind::Restore => "restore",
            Kind::Random(_) => "random",
        }
    }

    /// The number of the direction: 0 is the signal's.
    fn direction(self) -> i64 {
        match self {
            Kind::Random(number) => number as i64 + 1,
            Kind::Remove | Kind::Restore => 0,
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
    /// The first token at which each pair's prompts differ; none where no content lies between it and the last position.
    differ: Vec<Option<usize>>,
    /// Which half each pair is in; by place, as not every pair has content.
    fold: [Vec<usize>; 2],
    layers: Vec<usize>,
    n_layers: usize,
    d_model: usize,
    /// The pairs whose content is changed.
    content: Vec<usize>,
    /// Random directions at each layer.
    controls: usize,
}

impl Items {
    /// The pairs that are changed at a place.
    fn changed(&self, place: Place) -> Vec<usize> {
        match place {
            Place::Content => self.content.clone(),
            Place::Last => (0..self.pairs.tokens.len()).collect(),
        }
    }

    /// The places that a pair has.
    fn places(&self, pair: usize) -> impl Iterator<Item = Place> + use<> {
        let has_content = self.differ[pair].is_some();
        Place::ALL.into_iter().filter(move |place| has_content || *place == Place::Last)
    }

    /// How many pairs a place leaves out.
    fn left_out(&self, place: Place) -> usize {
        if place == Place::Content { self.differ.iter().filter(|d| d.is_none()).count() } else { 0 }
    }

    /// The positions of a place that a pair has, in its positive (0) or negative (1) prompt.
    fn positions(&self, place: Place, pair: usize, side: usize) -> Positions {
        let tokens = &self.pairs.tokens[pair];
        let length = [tokens.positive.len(), tokens.negative.len()][side];
        match (place, self.differ[pair]) {
            (Place::Content, Some(first)) => Positions::At((first..length - 1).collect()),
            _ => Positions::Last,
        }
    }
}

impl Analysis for Commitment {
    const NAME: &'static str = "commitment";
    const TITLE: &'static str = "Early commitment";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Vec<Measured>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let (n_layers, d_model) = (model.decoder.arch.n_layers, model.decoder.arch.d_model);
        let layers = layer_list(self.layers.as_deref(), n_layers)?;
        let prepared = self.pairs.read(model)?;
        let pairs = &prepared.items;
        let n = pairs.tokens.len();
        if n < LEAST {
            return Err(AnalysisError::Bad(format!(
                "{}: has {n} pairs; commitment needs {LEAST} or more: directions for one half come from the other",
                self.pairs.file.pairs.display()
            )));
        }
        let differ = (0..n).map(|i| first_difference(pairs, i)).collect::<Result<Vec<_>, _>>()?;
        let has_content: Vec<usize> = (0..n).filter(|i| differ[*i].is_some()).collect();
        if has_content.len() < LEAST {
            return Err(AnalysisError::NotAskable(format!(
                "{}: {} of {n} pairs have content that differs before the last position, and commitment needs {LEAST}: the others \
                 differ at their last token alone, or one prompt goes on where the other ends; let both prompts end alike",
                self.pairs.file.pairs.display(),
                has_content.len(),
            )));
        }
        let with_content: Vec<Pair> = has_content.iter().map(|i| pairs.dataset.items[*i].clone()).collect();
        let mut of_content = vec![0; n];
        has_content.iter().zip(halves_of(&with_content)).for_each(|(i, half)| of_content[*i] = half);
        let fold = [of_content, halves_of(&pairs.dataset.items)];
        let content = evenly(&with_content, self.content_pairs as usize).into_iter().map(|k| has_content[k]).collect();
        let controls = usize::from(self.controls);
        Ok(prepared.map(|pairs| Items { pairs, differ, fold, layers, n_layers, d_model, content, controls }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Vec<Measured>, AnalysisError> {
        let signals = Signals::of(runner, items, signal::some(items))?;
        measured(runner, items, &signals, some(items))
    }

    fn tables(&self, about: &About, items: &Items, measured: Vec<Measured>) -> Result<Output, AnalysisError> {
        Ok(vec![
            layers_table(about.model, items, &measured, about.seed)?,
            committed::table(about.model, items, &measured, about.seed)?,
        ]
        .into())
    }
}

/// Pairs that are needed at least: two a half.
const LEAST: usize = 4;

/// The first token at which a pair's prompts differ, where both have a position after it: else the prompts differ at their last
/// token alone, or one goes on where the other ends.
fn first_difference(pairs: &Pairs, i: usize) -> Result<Option<usize>, AnalysisError> {
    let (pair, tokens) = (&pairs.dataset.items[i], &pairs.tokens[i]);
    let (positive, negative) = (&tokens.positive, &tokens.negative);
    if positive == negative {
        let why = "is the same as the negative; a pair must differ";
        return Err(pairs.dataset.at(pair.line, &pair.id, "positive").error(why).into());
    }
    let shorter = positive.len().min(negative.len());
    let first = (0..shorter).find(|p| positive[*p] != negative[*p]).unwrap_or(shorter);
    Ok((first + 1 < shorter).then_some(first))
}

/// The pairs whose changes are planned at once.
fn some(items: &Items) -> impl Iterator<Item = Range<usize>> {
    let kinds: usize = Place::ALL.iter().map(|place| place.kinds(items.controls).len()).sum();
    batches(items.pairs.tokens.len(), kinds * items.layers.len())
}

/// Every change that a pair's content or last position goes through, in the order of a plan's forks.
fn changes(items: &Items, pair: usize) -> impl Iterator<Item = (Place, usize, Kind)> {
    let places =
        Place::ALL.into_iter().filter(move |p| *p == Place::Last || items.content.binary_search(&pair).is_ok());
    places.flat_map(move |place| {
        let kinds = place.kinds(items.controls);
        (0..items.layers.len()).flat_map(move |l| kinds.clone().into_iter().map(move |kind| (place, l, kind)))
    })
}

/// What is read of a pair: its two metrics, and those of all its changes, in the order of [`changes`].
struct OfPair {
    pair: usize,
    clean: [Asked; 2],
    changed: Vec<Asked>,
}

/// Some pairs' metrics with and without their changes.
fn changes_plan(items: &Items, signals: &Signals, pairs: Range<usize>) -> (Plan, Vec<OfPair>) {
    let mut plan = Plan::default();
    let of_pair = |pair: usize| {
        let tokens = &items.pairs.tokens[pair];
        let runs: [Run; 2] = items.pairs.add(&mut plan, pair);
        let clean = runs.map(|run| Value::ask(&mut plan, run, &tokens.metric));
        let change = |(place, l, kind): (Place, usize, Kind)| {
            let positions = items.positions(place, pair, kind.side());
            let fork = plan.fork(runs[kind.side()], edits(items, signals, (place, l, kind), pair, &positions));
            Value::ask(&mut plan, fork, &tokens.metric)
        };
        OfPair { pair, clean, changed: changes(items, pair).map(change).collect() }
    };
    let asked = pairs.map(of_pair).collect();
    (plan, asked)
}

/// The edits of one change. Two at one site are made in their order.
fn edits(
    items: &Items,
    signals: &Signals,
    (place, l, kind): (Place, usize, Kind),
    pair: usize,
    positions: &Positions,
) -> Vec<Edit> {
    let signal = signals.for_fold(place, l, items.fold[place as usize][pair]);
    let site = SiteKind::ResidPre.at(items.layers[l]);
    let edit = |change| Edit { site, part: Part::All, positions: positions.clone(), change };
    let gap = signal.positive - signal.negative;
    let shifted =
        |along: &Arc<[f32]>, by: f64| vec![edit(Change::Add { vector: along.clone(), coefficient: by as f32 })];
    let set = |to: f64| {
        let back = Change::Add { vector: signal.unit.clone(), coefficient: to as f32 };
        vec![edit(Change::ProjectOut(signal.unit.clone())), edit(back)]
    };
    match (place, kind) {
        (Place::Content, Kind::Remove) => shifted(&signal.unit, -gap),
        (Place::Content, Kind::Restore) => shifted(&signal.unit, gap),
        (Place::Content, Kind::Random(k)) => shifted(&signals.random[k][l], -gap),
        (Place::Last, Kind::Remove) => set(signal.negative),
        (Place::Last, Kind::Restore) => set(signal.positive),
        (Place::Last, Kind::Random(k)) => {
            let (unit, random, target) = (signal.unit.clone(), signals.random[k][l].clone(), signal.negative);
            let along = move |row: &mut [f32]| {
                let distance = target - crate::ops::vectors::dot(row, &unit);
                row.iter_mut().zip(random.iter()).for_each(|(x, r)| *x += (distance * f64::from(*r)) as f32);
            };
            vec![edit(Change::Map(Arc::new(along)))]
        }
    }
}

/// The effects of one kind of change at one place, over the pairs that were changed there.
pub struct Measured {
    place: Place,
    kind: Kind,
    /// The metric of the run that is edited, one a pair.
    base: Vec<f64>,
    /// The other prompt's metric less that, one a pair.
    gap: Vec<f64>,
    /// Edited minus base metric: `[layers][pairs]`
    effects: Vec<Vec<f64>>,
    /// The same of the answer's half of the metric.
    answers: Vec<Vec<f64>>,
}

impl Measured {
    fn mean_gap(&self) -> Option<f64> {
        mean(&self.gap).filter(|gap| *gap != 0.0)
    }

    /// Whether a direction is the signal's.
    fn of_signal(&self) -> bool {
        self.kind.direction() == 0
    }
}

/// Runs the changes of so many pairs at a time.
fn measured(
    runner: &dyn Runner,
    items: &Items,
    signals: &Signals,
    pairs: impl Iterator<Item = Range<usize>>,
) -> Result<Vec<Measured>, AnalysisError> {
    let families =
        Place::ALL.into_iter().flat_map(|place| place.kinds(items.controls).into_iter().map(move |kind| (place, kind)));
    let empty = |(place, kind)| Measured {
        place,
        kind,
        base: Vec::new(),
        gap: Vec::new(),
        effects: vec![Vec::new(); items.layers.len()],
        answers: vec![Vec::new(); items.layers.len()],
    };
    let mut found: Vec<Measured> = families.map(empty).collect();
    for some in pairs {
        let (plan, asked) = changes_plan(items, signals, some);
        let readings = runner.run(&plan)?;
        asked.iter().for_each(|of_pair| add(items, of_pair, &readings, &mut found));
    }
    Ok(found)
}

/// Adds what a pair's readings say.
fn add(items: &Items, of_pair: &OfPair, readings: &Readings, found: &mut [Measured]) {
    let runs = of_pair.clean.map(|asked| asked.of(readings));
    for of in found.iter_mut().filter(|of| items.changed(of.place).binary_search(&of_pair.pair).is_ok()) {
        let side = of.kind.side();
        of.base.push(runs[side].metric);
        of.gap.push(runs[1 - side].metric - runs[side].metric);
    }
    for ((place, l, kind), asked) in changes(items, of_pair.pair).zip(&of_pair.changed) {
        let swap = runs[kind.side()].swap(None, asked.of(readings));
        let Some(of) = found.iter_mut().find(|of| (of.place, of.kind) == (place, kind)) else { continue };
        of.effects[l].push(swap.effect());
        of.answers[l].extend(swap.answer);
    }
}

rows! {
    /// A change of one place before a layer, along one direction.
    pub struct LayerRow<'a> in "layers" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "the layer before which the residual stream was changed, from 0",
        relative_depth: Option<f64> =
            "layer / layers: the place before it; a head of that layer lies at (layer + 1/2) / layers",
        place: &'a str =
            "content: from the first token at which the prompts differ to the one before the last, each shifted by the \
             difference of the classes' means; last: the last position, its projection set to the other class's mean",
        change: &'a str =
            "remove: positive run, towards the negatives; restore: negative run, towards the positives; random: as far as \
             remove, along a random direction",
        direction: i64 = "0: the signal's; from 1 on: random directions",
        n: i64 = "pairs",
        left_out: i64 =
            "pairs without content: their prompts differ at the last token alone, or one goes on where the other ends",
        base_mean: Option<f64> = "mean metric of the run that is edited, nats",
        gap_mean: Option<f64> = "mean of the other prompt's metric less that, nats",
        effect_mean: Option<f64> = "mean of edited minus base metric, nats",
        effect_sd: Option<f64> = "its standard deviation over pairs, nats",
        interval: Option<(f64, f64)> as "ci_" = [
            "lower end of the mean effect's 95 % BCa interval, nats",
            "upper end of the mean effect's 95 % BCa interval, nats",
        ],
        share_of_gap: Option<f64> = "mean effect over the mean gap",
        share_interval: Option<(f64, f64)> as "share_ci_" = [
            "lower end of its 95 % BCa interval, effects and gaps resampled together; empty for random directions",
            "upper end",
        ],
        p_value: Option<f64> = "two-sided sign-flip permutation p-value of the mean effect",
        q_value: Option<f64> = "Benjamini-Hochberg q-value over the layers of one place, change and direction",
        halves: Halves [newer] as "effect" = "of the signal: edited minus base of",
    }
}

fn layers_table(model: &str, items: &Items, measured: &[Measured], seed: u64) -> Result<Table, AnalysisError> {
    let options = Bootstrap { seed, ..Bootstrap::default() };
    let mut rows: Vec<LayerRow> = Vec::new();
    // Of the effects on the answer's half and on the foil's; none along random directions.
    let (mut answers, mut foils): (Vec<Vec<f64>>, Vec<Vec<f64>>) = Default::default();
    for of in measured {
        for (l, tested) in family(&of.effects, seed)?.into_iter().enumerate() {
            let (layer, effects) = (items.layers[l], &of.effects[l]);
            let share_interval = of.of_signal().then(|| bca_ratio(effects, &of.gap, &options)).flatten();
            answers.push(if of.of_signal() { of.answers[l].clone() } else { Vec::new() });
            foils.push(if of.of_signal() { less(&of.answers[l], effects) } else { Vec::new() });
            rows.push(LayerRow {
                model,
                layer: layer as i64,
                relative_depth: Some(layer as f64 / items.n_layers as f64),
                place: of.place.name(),
                change: of.kind.name(),
                direction: of.kind.direction(),
                n: of.base.len() as i64,
                left_out: items.left_out(of.place) as i64,
                base_mean: mean(&of.base),
                gap_mean: mean(&of.gap),
                effect_mean: mean(effects),
                effect_sd: sd(effects),
                interval: tested.interval,
                share_of_gap: mean(effects).zip(of.mean_gap()).map(|(effect, gap)| effect / gap),
                share_interval: share_interval.map(Interval::ends),
                p_value: tested.p,
                q_value: tested.q,
                halves: Halves::default(),
            });
        }
    }
    let halves = halves::over_items(&answers, &foils, seed);
    Ok(LayerRow::table(rows.into_iter().zip(halves).map(|(row, halves)| LayerRow { halves, ..row }))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::inputs::PairFile;
    use crate::study::Study;

    fn prepared(model: &Model) -> Items {
        let file = PairFile { max_pairs: Some(6), ..PairFile::from("demo:pairs.jsonl") };
        let pairs = PairArgs { file, ..PairArgs::default() };
        Commitment { pairs, layers: Some("2-4".to_string()), content_pairs: 4, controls: 3 }
            .prepare(model)
            .unwrap()
            .items
    }

    #[test]
    fn effects_do_not_depend_on_which_pairs_are_planned_at_once() {
        let study = Study::open(crate::demo::NAME).unwrap();
        let (items, session) = (prepared(&study.model), study.session());
        let of = |pairs: Vec<Range<usize>>| {
            let signals = Signals::of(&session, &items, pairs.clone().into_iter()).unwrap();
            let measured = measured(&session, &items, &signals, pairs.into_iter()).unwrap();
            measured.into_iter().map(|m| (m.place, m.kind, m.base, m.gap, m.effects, m.answers)).collect::<Vec<_>>()
        };
        let whole = of(vec![0..6]);
        // In the content two random directions at most.
        assert_eq!(whole.iter().filter(|m| matches!(m.1, Kind::Random(_))).count(), 2 + 3);
        assert!(whole.iter().all(|m| m.2.len() == if m.0 == Place::Content { 4 } else { 6 }));
        assert!(whole == of(vec![0..1, 1..4, 4..6]));
        // The answer's half of the last pair's last position, by a plan of its own.
        let signals = Signals::of(&session, &items, signal::some(&items)).unwrap();
        let mut plan = Plan::default();
        let run = items.pairs.add(&mut plan, 5)[0];
        let fork = plan.fork(run, edits(&items, &signals, (Place::Last, 1, Kind::Remove), 5, &Positions::Last));
        let half = items.pairs.tokens[5].metric.answer_half().unwrap();
        let asked = [run, fork].map(|run| plan.read(run, half.clone()));
        let readings = session.run(&plan).unwrap();
        let halves = asked.map(|half| readings[half]);
        let removed = whole.iter().find(|m| (m.0, m.1) == (Place::Last, Kind::Remove)).unwrap();
        assert!((removed.5[1][5] - (halves[1] - halves[0])).abs() < 1e-9, "{halves:?} {:?}", removed.5[1]);
        assert!(removed.5[1][5].abs() > 1e-3);
    }

    #[test]
    fn the_content_is_shifted_by_one_distance_and_the_last_position_set_to_one_place() {
        let study = Study::open(crate::demo::NAME).unwrap();
        let (items, session) = (prepared(&study.model), study.session());
        let signals = Signals::of(&session, &items, signal::some(&items)).unwrap();
        let pair = items.content[0];
        let along = signals.for_fold(Place::Content, 1, items.fold[0][pair]);
        let distance = along.positive - along.negative;
        for (kind, by) in [(Kind::Remove, -distance), (Kind::Restore, distance), (Kind::Random(1), -distance)] {
            let edits = edits(&items, &signals, (Place::Content, 1, kind), pair, &Positions::All);
            let [Edit { change: Change::Add { vector, coefficient }, .. }] = &edits[..] else { panic!("{edits:?}") };
            assert_eq!(*coefficient, by as f32);
            assert_eq!(*vector == along.unit, kind.direction() == 0);
        }
        let changed = |kind| edits(&items, &signals, (Place::Last, 1, kind), pair, &Positions::Last);
        let [Edit { change: Change::ProjectOut(_), .. }, Edit { change: Change::Add { coefficient, .. }, .. }] =
            &changed(Kind::Remove)[..]
        else {
            panic!("set to the negatives' place")
        };
        assert_eq!(*coefficient, signals.for_fold(Place::Last, 1, items.fold[1][pair]).negative as f32);
        assert!(matches!(changed(Kind::Random(0))[..], [Edit { change: Change::Map(_), .. }]));
    }
}

//! Interactions: which heads work together, and which stand in for each other?
//!
//! The exchange of a head between matched prompts says what that head carries while all others stay. Two heads can do more together
//! than the sum of each alone, or less: the *interaction* is the effect of both less the effects of each. With many heads, every
//! order of exchanging them one after another divides what all do together between them; a head's mean over all orders is its
//! *Shapley value* (Shapley 1953, "A Value for n-Person Games"), for v(S) = metric(base with the heads of S exchanged) -
//! metric(base). It is exact from all sets of heads, or estimated from orders that are drawn.

mod coalitions;
mod read;
mod shapley;
mod tables;

pub use tables::{PairOfHeadsRow, ShapleyRow};

use super::heads::{Circuit, Head, heads_of};
use super::inputs::Sources;
use super::interchange::{self, Direction, Interchange, exchange, spread, strongest};
use crate::analyses::prelude::*;
use crate::model::arch::Arch;
use coalitions::{Coalitions, Layout};
use shapley::{Values, Way};
use std::collections::HashMap;

/// How Shapley values are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Shapley {
    /// Exactly for up to 10 heads, by sampled orders for more
    Auto,
    /// By all sets of heads, of which there may be 16
    Exact,
    /// By orders of the heads that are drawn at random
    Sampled,
    /// Not at all
    None,
}

/// Up to so many heads `auto` is exact.
const EXACT_BY_ITSELF: usize = 10;

/// The most heads whose sets are all run: 65,535 sets.
const MOST_EXACT: usize = 16;

/// The most heads: a set of them is a number of 64 bits.
const MOST_HEADS: usize = 64;

parameters! {
    /// Swap heads between matched prompts two by two: which work together, and which stand in for each other?
    #[serde(default)]
    pub struct Interactions {
        ..pairs: PairArgs;

        /// Take these heads, as L14.H5; several with commas (default: those whose own swap moves the metric most)
        ///
        /// A head that takes over only where another is silent does nothing alone: name it to see what it does.
        heads: Vec<Head>, excludes circuit, [value_delimiter = ',', value_name = "HEADS"];

        /// Take the heads of this circuit: the circuit.json or graph.json of `screen`, `edges` or `circuit`, or a list of heads
        circuit: Option<Data>, [value_name = "FILE"];

        /// Without named heads: take this many, those whose own swap moves the metric of the same pairs most
        top: u32 = 12, in 2..=64, [value_name = "N"];

        /// Edit this run: the positive one (necessity) or the negative one (sufficiency)
        direction: Direction = Direction::Necessity, [value_enum];

        /// Swap at this position: last, all, or a number (a negative one counts from the prompt's end)
        position: Position = Position::Last, [allow_hyphen_values = true];

        /// At all positions: match up prompts of unequal lengths
        align: bool;

        /// Find Shapley values in this way
        shapley: Shapley = Shapley::Auto, [value_enum];

        /// For sampled Shapley values: draw this many orders of the heads
        permutations: u32 = 200, in 2..=100_000, [value_name = "N"];
    }
}

/// The pairs as the model reads them, and the heads that were named.
pub struct Items {
    of_interchange: interchange::Items,
    named: Vec<Head>,
}

/// What was found of the pairs.
pub struct Found {
    /// By layer and number.
    heads: Vec<Head>,
    /// The metric of the run that is edited and of the one that is taken from, one a pair.
    base: Vec<f64>,
    other: Vec<f64>,
    /// The effect of each head alone, one a pair.
    alone: Vec<Vec<f64>>,
    /// The effect of each two heads together, in the order of [`coalitions::pairs`].
    both: Vec<Vec<f64>>,
    shapley: Option<Values>,
}

impl Analysis for Interactions {
    const NAME: &'static str = "interactions";
    const TITLE: &'static str = "Interactions of heads";
    const FROM_TABLES: FromTables = FromTables { figures: read::figures, sections: read::sections };
    type Items = Items;
    type Measured = Found;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let arch = &model.decoder.arch;
        let (mut named, of_circuit) = match &self.circuit {
            None => (heads_of(&self.heads, &param("heads").to_string(), arch)?, Sources::new()),
            Some(file) => {
                let (circuit, sources) = Circuit::read(file, model)?;
                (circuit.with_heads(file)?.to_vec(), sources)
            }
        };
        named.sort_unstable();
        let n = if named.is_empty() { self.top as usize } else { named.len() };
        self.way(n.min(model.heads().count()))?;
        let mut prepared = self.interchange().prepare(model)?;
        prepared.sources.extend(of_circuit);
        Ok(prepared.map(|of_interchange| Items { of_interchange, named }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Found, AnalysisError> {
        let heads = self.chosen(runner, items)?;
        let way = self.way(heads.len())?;
        let layout = Layout::of(heads.iter().map(|head| head.layer));
        let coalitions = Coalitions::new(layout, way, runner.seed());
        let n = items.of_interchange.pairs.tokens.len();
        let mut found = Found::new(heads, &coalitions, n);
        for pairs in batches(n, coalitions.sets.len()) {
            for of_pair in self.run(runner, items, &found.heads, &coalitions, pairs)? {
                found.add(&coalitions, &of_pair);
            }
        }
        Ok(found)
    }

    fn tables(&self, about: &About, _: &Items, found: Found) -> Result<Output, AnalysisError> {
        let shared = tables::Shared {
            model: about.model,
            direction: self.direction.name(),
            position: self.position.to_string(),
            chosen_by: if self.heads.is_empty() { "strongest" } else { "named" },
            seed: about.seed,
        };
        tables::tables(&shared, &found).map(Output::from)
    }
}

impl Interactions {
    /// The exchange of single heads.
    fn interchange(&self) -> Interchange {
        Interchange {
            pairs: self.pairs.clone(),
            position: self.position,
            align: self.align,
            direction: Some(self.direction),
            ..Interchange::default()
        }
    }

    /// How Shapley values of so many heads are found.
    fn way(&self, heads: usize) -> Result<Way, AnalysisError> {
        let bad = |why: String| Err(AnalysisError::Bad(why));
        let (named, top) = (param("heads"), param("top"));
        if heads < 2 {
            return bad(format!(
                "{named}: an interaction is of two heads: name another, or leave it out for the strongest"
            ));
        }
        if heads > MOST_HEADS {
            return bad(format!("{named}: names {heads} heads; name {MOST_HEADS} at most"));
        }
        let sampled = Way::Sampled { permutations: self.permutations as usize };
        match self.shapley {
            Shapley::None => Ok(Way::None),
            Shapley::Sampled => Ok(sampled),
            Shapley::Auto if heads > EXACT_BY_ITSELF => Ok(sampled),
            Shapley::Exact if heads > MOST_EXACT => bad(format!(
                "{}: {heads} heads have more sets than can be run: take {MOST_EXACT} heads at most with {named} or {top}, or {}",
                param("shapley").is("exact"),
                param("shapley").is("sampled")
            )),
            Shapley::Auto | Shapley::Exact => Ok(Way::Exact),
        }
    }

    /// The heads in question, by layer and number: those that were named, or those whose own exchange does most.
    fn chosen(&self, runner: &dyn Runner, items: &Items) -> Result<Vec<Head>, AnalysisError> {
        if !items.named.is_empty() {
            return Ok(items.named.clone());
        }
        let of = &items.of_interchange;
        let all: Vec<usize> = (0..of.units.len()).collect();
        let found = self.interchange().exactly(runner, of, of.place(), vec![all], None)?;
        let chosen = match runner.is_counting() {
            // As many, spread over the layers, cost about as much.
            true => spread(of.units.len(), self.top as usize),
            false => strongest(&found.effects(0), self.top as usize),
        };
        let head = |u: usize| Some(Head { layer: of.units[u].site.layer, head: of.units[u].head? });
        Ok(chosen.into_iter().filter_map(head).collect())
    }

    /// What some pairs have with each set of heads exchanged. A pair's sets are run a part of them at a time.
    fn run(
        &self,
        runner: &dyn Runner,
        items: &Items,
        heads: &[Head],
        coalitions: &Coalitions,
        pairs: Range<usize>,
    ) -> Result<Vec<OfPair>, AnalysisError> {
        let mut found = vec![OfPair::default(); pairs.len()];
        for sets in coalitions.sets.chunks(self.at_once(items, &runner.model().decoder.arch, pairs.clone())) {
            let mut plan = Plan::default();
            let asked: Vec<Asked> = pairs
                .clone()
                .map(|i| {
                    let game = Game { items: &items.of_interchange, direction: self.direction, heads, i };
                    game.ask(&mut plan, &coalitions.layout, sets)
                })
                .collect();
            let readings = runner.run(&plan)?;
            for (asked, found) in asked.into_iter().zip(&mut found) {
                (found.base, found.other) = (readings[asked.base], readings[asked.other]);
                found.effects.extend(asked.sets.into_iter().map(|set| readings[set] - readings[asked.base]));
            }
        }
        Ok(found)
    }

    /// How many sets of heads of a pair run at once.
    fn at_once(&self, items: &Items, arch: &Arch, pairs: Range<usize>) -> usize {
        let of = &items.of_interchange;
        let rows = |i: usize| {
            let tokens = &of.pairs.tokens[i];
            let length = [tokens.positive.len(), tokens.negative.len()][self.direction as usize];
            match &of.sides(i)[self.direction as usize].0 {
                Positions::Last => 1,
                Positions::All => length,
                // What comes after an edited position may change with it.
                Positions::At(list) => length - list.iter().min().map_or(0, |first| *first.min(&length)),
            }
        };
        super::forks_at_once(arch, pairs.map(rows).max().unwrap_or(1))
    }
}

/// Heads of one pair that are exchanged in sets.
struct Game<'a> {
    items: &'a interchange::Items,
    direction: Direction,
    heads: &'a [Head],
    /// Which pair.
    i: usize,
}

/// What is read of a pair.
struct Asked {
    base: Handle<f64>,
    other: Handle<f64>,
    /// The metric with each set exchanged.
    sets: Vec<Handle<f64>>,
}

/// What was measured of a pair.
#[derive(Clone, Default)]
struct OfPair {
    base: f64,
    other: f64,
    /// The effect of each set.
    effects: Vec<f64>,
}

impl Game<'_> {
    /// Adds the pair's prompts to a plan, and a run for each of some sets.
    ///
    /// A set's run is a fork of the one without the heads of its last layer, so that it parts from that at this layer alone: all
    /// that comes before is shared with it, and with every other set that begins so.
    fn ask(&self, plan: &mut Plan, layout: &Layout, sets: &[u64]) -> Asked {
        let runs = self.items.pairs.add(plan, self.i);
        let (base, donor) = (runs[self.direction as usize], runs[1 - self.direction as usize]);
        let metric = &self.items.pairs.tokens[self.i].metric;
        let [of_base, of_other] = [base, donor].map(|run| plan.read(run, metric.clone()));
        let mut made = HashMap::from([(0, base)]);
        let mut asked = Vec::with_capacity(sets.len());
        for set in sets {
            let run = layout.steps(*set).fold(base, |from, (so_far, last)| {
                *made.entry(so_far).or_insert_with(|| plan.fork(from, vec![self.edit(layout.members(last), donor)]))
            });
            asked.push(plan.read(run, metric.clone()));
        }
        Asked { base: of_base, other: of_other, sets: asked }
    }

    /// The exchange of heads of one layer, by their numbers.
    fn edit(&self, members: impl Iterator<Item = usize>, donor: Run) -> Edit {
        let heads: Vec<Head> = members.map(|k| self.heads[k]).collect();
        let layer = heads.first().map_or(0, |head| head.layer);
        let unit = super::inputs::Unit { site: SiteKind::Z.at(layer), head: None };
        let (at, from) = &self.items.sides(self.i)[self.direction as usize];
        Edit { part: Part::Heads(heads.iter().map(|head| head.head).collect()), ..exchange(unit, donor, at, from) }
    }
}

impl Found {
    /// Nothing yet, of so many pairs.
    fn new(heads: Vec<Head>, coalitions: &Coalitions, n: usize) -> Self {
        let lists = |of: usize| vec![Vec::with_capacity(n); of];
        Found {
            base: Vec::with_capacity(n),
            other: Vec::with_capacity(n),
            alone: lists(heads.len()),
            both: lists(coalitions.pairs.len()),
            shapley: Values::new(coalitions, n),
            heads,
        }
    }

    /// Adds a pair.
    fn add(&mut self, coalitions: &Coalitions, of_pair: &OfPair) {
        self.base.push(of_pair.base);
        self.other.push(of_pair.other);
        let effect = |set: u64| coalitions.value(&of_pair.effects, set);
        let sets = &coalitions.layout;
        self.alone.iter_mut().enumerate().for_each(|(k, of_head)| of_head.push(effect(sets.head(k))));
        for (both, (a, b)) in self.both.iter_mut().zip(&coalitions.pairs) {
            both.push(effect(sets.head(*a) | sets.head(*b)));
        }
        if let Some(values) = &mut self.shapley {
            values.add(coalitions, &of_pair.effects);
        }
    }
}

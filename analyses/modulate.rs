//! Detection-layer modulation: how much of the detected signal does each kind of answer need?
//!
//! The concept's direction is the difference of means between positive and negative prompts at their last positions, where and
//! once the gate has written it: `resid_post` of the gate's layer. It is added times each coefficient of a grid at the last
//! position and to each new token: negative coefficients weaken the signal in the positive prompts, positive ones strengthen it
//! in the negative. Along the grid the metric, the divergence from the unmodulated run and the classes of generated answers are
//! read, with the coefficient at which each class takes over, over all prompts and for each topic and language. Directions are
//! made in two folds (the pairs alternate), so that no prompt is moved along a direction that it helped to make; random
//! directions of the same norm stand beside. Source: "How Alignment Routes" (2026); direction: Arditi et al. 2024.

mod report;
mod tables;

use super::answered::{Answer, continued, item_of};
use super::directions::{Recipe, make, norm, random_like};
use super::doses::{Grid, grid};
use super::gate::{GateArgs, Head, last_layer};
use super::inputs::{PairArgs, Pairs, Sources, evenly, room};
use super::{Analysis, AnalysisError, Figures, Output, Plans, planned};
use crate::dataset::Item;
use crate::model::Model;
use crate::plan::{Change, Edit, Part, Plan, Positions, Run, What};
use crate::report::Section;
use crate::run::{Reading, Steps};
use crate::session::Session;
use crate::site::{Site, SiteKind};
use crate::table::Table;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The detected signal weakened and strengthened, and where each kind of answer takes over
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Modulate {
    #[command(flatten)]
    #[serde(flatten)]
    pub pairs: PairArgs,

    /// The layer after which the signal is read and changed (default: the gate's)
    #[arg(long, value_name = "L", required_unless_present_any = ["gate", "circuit"], conflicts_with_all = ["gate", "circuit"])]
    pub layer: Option<usize>,

    /// The gate's heads, as L14.H5; several with commas
    #[arg(long, value_delimiter = ',', value_name = "HEAD", conflicts_with = "circuit")]
    pub gate: Vec<Head>,

    /// The gate from a file: the circuit.json that `screen` writes
    #[arg(long, value_name = "FILE")]
    pub circuit: Option<PathBuf>,

    /// Coefficients: from:to:how-many, or a list with commas; 1 is the whole difference between positive and negative
    #[arg(long, default_value = "-1.5:1.5:13", allow_hyphen_values = true, value_name = "a:b:n", value_parser = grid)]
    pub coefficients: Grid,

    /// Random directions of the same norm, as control
    #[arg(long, default_value_t = 5, value_name = "R", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub controls: u16,

    /// Generate answers of so many tokens, and classify them
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub generate: u32,

    /// How many pairs generate, spread over languages and groups as the file's are
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub generate_pairs: u32,

    /// How many of the random directions generate too
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub generate_controls: u16,
}

/// The sides of a pair, in the order of tables.
const SIDES: [&str; 2] = ["positive", "negative"];

/// Parts of the pairs that a direction is made from; the pairs alternate.
const FOLDS: usize = 2;

/// The pairs as the model reads them, and where they are modulated.
pub struct Items {
    pairs: Pairs,
    sources: Sources,
    site: Site,
    /// The pairs that generate.
    generating: Vec<usize>,
}

/// A direction, one vector for the pairs of each fold.
type Vectors = [Arc<[f32]>; FOLDS];

/// Metrics along the grid, of each side.
struct Measured {
    /// Without modulation, one a pair.
    base: [Vec<f64>; 2],
    /// By direction (0: the concept's; then random ones), coefficient and pair.
    metric: [Vec<Vec<Vec<f64>>>; 2],
    /// KL divergence from the unmodulated run along the concept's direction, by coefficient and pair.
    kl: [Vec<Vec<f64>>; 2],
}

/// A generated answer, and to what.
struct Given {
    pair: usize,
    side: usize,
    direction: usize,
    /// The number of the coefficient.
    dose: usize,
    answer: Answer,
}

impl Analysis for Modulate {
    const NAME: &'static str = "modulate";
    const ABOUT: &'static str =
        "The detected signal weakened and strengthened, and where each kind of answer takes over";
    const TITLE: &'static str = "Detection-layer modulation";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let arch = &model.decoder.arch;
        let (layer, of_gate) = match self.layer {
            Some(layer) => (layer, Sources::new()),
            None => {
                let gate = GateArgs { gate: self.gate.clone(), circuit: self.circuit.clone() };
                let (heads, sources) = gate.read(model)?;
                (last_layer(&heads), sources)
            }
        };
        let site = SiteKind::ResidPost.at(layer).check(arch).map_err(|e| AnalysisError::Bad(e.to_string()))?;
        let pairs = self.pairs.read(model)?;
        if pairs.tokens.len() < FOLDS {
            let path = pairs.dataset.path.display();
            return Err(AnalysisError::Bad(format!(
                "{path}: one pair; a direction is made from some pairs and tried on others: give {FOLDS} at least"
            )));
        }
        for (pair, tokens) in pairs.dataset.items.iter().zip(&pairs.tokens) {
            for (field, ids) in SIDES.into_iter().zip([&tokens.positive, &tokens.negative]) {
                room(arch, ids.len(), self.generate as usize)
                    .map_err(|why| pairs.dataset.at(pair.line, &pair.id, field).error(why))?;
            }
        }
        let generating = match self.generate {
            0 => Vec::new(),
            _ => evenly(&pairs.dataset.items, self.generate_pairs as usize),
        };
        let sources = pairs.sources.iter().cloned().chain(of_gate).collect();
        Ok(Items { pairs, sources, site, generating })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.sources.clone()
    }

    fn plans<'a>(&'a self, model: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let zeros: Arc<[f32]> = vec![0.0; model.decoder.arch.d_model].into();
        let vectors = vec![[zeros.clone(), zeros]; 1 + usize::from(self.controls)];
        let mut plans = vec![activations(items), self.sweep(items, &everything(items), &vectors, 0).0];
        if self.generate > 0 {
            plans.push(self.sweep(items, &items.generating, self.that_generate(&vectors), self.generate as usize).0);
        }
        Ok(planned(plans))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let vectors = self.vectors(session, items)?;
        let readings = session.run(&self.sweep(items, &everything(items), &vectors, 0).0)?;
        let measured = self.measured(items, &readings);
        let given = self.answers(session, items, &vectors)?;
        let made = tables::Made { session, items, x: &self.coefficients.0, measured: &measured, given: &given };
        Ok(made.tables()?.into())
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        report::figures(tables)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        report::sections(tables, dir)
    }
}

/// The numbers of all pairs.
fn everything(items: &Items) -> Vec<usize> {
    (0..items.pairs.tokens.len()).collect()
}

/// Both prompts' activations where they are modulated, at their last positions.
fn activations(items: &Items) -> Plan {
    let mut plan = Plan::default();
    for i in everything(items) {
        for run in items.pairs.add(&mut plan, i) {
            plan.read(run, What::Activation { site: items.site, positions: Positions::Last, part: Part::All });
        }
    }
    plan
}

impl Modulate {
    /// The concept's direction, then the random ones; for each fold, made from the other's pairs.
    fn vectors(&self, session: &Session, items: &Items) -> Result<Vec<Vectors>, AnalysisError> {
        let rows: Vec<Vec<f32>> = session.run(&activations(items))?.into_iter().map(Reading::into_values).collect();
        let mut own: [Vec<f32>; FOLDS] = Default::default();
        for (fold, vector) in own.iter_mut().enumerate() {
            let others = rows.chunks_exact(2).enumerate().filter(|(i, _)| i % FOLDS != fold);
            let (positive, negative): (Vec<_>, Vec<_>) = others.map(|(_, r)| (r[0].clone(), r[1].clone())).unzip();
            *vector = make(Recipe::Mean, &positive, &negative, session.seed)?.vectors.remove(0);
            if norm(vector) == 0.0 {
                return Err(AnalysisError::NotAskable(format!(
                    "{}: positive and negative prompts do not differ there at their last positions; choose a later --layer",
                    items.site
                )));
            }
        }
        let random = (0..usize::from(self.controls)).map(|k| {
            // One direction for both folds, with the norm of each.
            own.each_ref().map(|v| Arc::from(random_like(std::slice::from_ref(v), session.seed, k).remove(0)))
        });
        Ok(std::iter::once(own.each_ref().map(|v| Arc::from(v.as_slice()))).chain(random).collect())
    }

    /// Pairs under every direction and coefficient: each prompt's metric, then its forks' metrics, with the divergence along
    /// the concept's direction; and the forks in that order. Prompts are made longer by `more` tokens, to count what generating
    /// so many would cost.
    fn sweep(&self, items: &Items, pairs: &[usize], vectors: &[Vectors], more: usize) -> (Plan, Vec<Run>) {
        let (mut plan, mut forks) = (Plan::default(), Vec::new());
        for i in pairs {
            let metric = &items.pairs.tokens[*i].metric;
            for run in items.pairs.add(&mut plan, *i) {
                plan.read(run, What::Metric(metric.clone()));
                for (direction, vector) in vectors.iter().enumerate() {
                    for coefficient in &self.coefficients.0 {
                        let change =
                            Change::Add { vector: vector[i % FOLDS].clone(), coefficient: *coefficient as f32 };
                        let edit = Edit { site: items.site, part: Part::All, positions: Positions::Last, change };
                        let fork = plan.fork(run, vec![edit]);
                        plan.read(fork, What::Metric(metric.clone()));
                        if direction == 0 {
                            plan.read(fork, What::KlFrom(run));
                        }
                        forks.push(fork);
                    }
                }
            }
        }
        for prompt in &mut plan.prompts {
            prompt.ids.extend(std::iter::repeat_n(0, more));
        }
        (plan, forks)
    }

    /// The readings of [`Modulate::sweep`] over all pairs, sorted.
    fn measured(&self, items: &Items, readings: &[Reading]) -> Measured {
        let (n, doses) = (items.pairs.tokens.len(), self.coefficients.0.len());
        let empty = || vec![Vec::with_capacity(n); doses];
        let mut measured = Measured {
            base: Default::default(),
            metric: [0, 1].map(|_| vec![empty(); 1 + usize::from(self.controls)]),
            kl: [0, 1].map(|_| empty()),
        };
        let mut numbers = readings.iter().filter_map(Reading::number);
        let mut next = || numbers.next().unwrap_or(f64::NAN);
        for _ in 0..n {
            for side in 0..SIDES.len() {
                measured.base[side].push(next());
                for (direction, of_direction) in measured.metric[side].iter_mut().enumerate() {
                    for (dose, of_dose) in of_direction.iter_mut().enumerate() {
                        of_dose.push(next());
                        if direction == 0 {
                            measured.kl[side][dose].push(next());
                        }
                    }
                }
            }
        }
        measured
    }

    /// The directions that generate.
    fn that_generate<'a>(&self, vectors: &'a [Vectors]) -> &'a [Vectors] {
        &vectors[..(1 + usize::from(self.generate_controls)).min(vectors.len())]
    }

    fn answers(&self, session: &Session, items: &Items, vectors: &[Vectors]) -> Result<Vec<Given>, AnalysisError> {
        if self.generate == 0 {
            return Ok(Vec::new());
        }
        let vectors = self.that_generate(vectors);
        let (plan, runs) = self.sweep(items, &items.generating, vectors, 0);
        // In the order of the plan's forks.
        let mut asked: Vec<Item> = Vec::with_capacity(runs.len());
        let mut places = Vec::with_capacity(runs.len());
        for pair in &items.generating {
            let of = &items.pairs.dataset.items[*pair];
            for (side, prompt) in [&of.positive, &of.negative].into_iter().enumerate() {
                for direction in 0..vectors.len() {
                    for dose in 0..self.coefficients.0.len() {
                        asked.push(item_of(of, prompt));
                        places.push((*pair, side, direction, dose));
                    }
                }
            }
        }
        let (_, answers) = continued(session, &plan, runs, (self.generate, Steps::Every), &asked)?;
        let given = |((pair, side, direction, dose), answer)| Given { pair, side, direction, dose, answer };
        Ok(places.into_iter().zip(answers).map(given).collect())
    }
}

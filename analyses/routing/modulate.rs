//! Detection-layer modulation: how much of the detected signal does each kind of answer need?
//!
//! The concept's direction is the difference of means between positive and negative prompts at their last positions, where and
//! once the gate has written it: `resid_post` of the gate's layer. It is added times each coefficient of a grid at the last
//! position and to each new token: negative coefficients weaken the signal in the positive prompts, positive ones strengthen it
//! in the negative. Along the grid the metric, the divergence from the unmodulated run and the classes of generated answers are
//! read, with the coefficient at which each class takes over, over all prompts and for each topic and language. Directions are
//! made in two folds (halves of the pairs, each with as much of every language and group), so that no prompt is moved along a
//! direction that it helped to make; random directions of the same norm stand beside at the ends of the grid, where a direction
//! shows what it can do. Source: "How Alignment Routes" (2026); direction: Arditi et al. 2024.

mod report;
mod tables;

pub(crate) use tables::METRIC;
pub use tables::{ChangeRow, DifferenceRow, DoseRow, GenerationRow, ItemRow, OfPrompts, ThresholdRow};

use super::gate::{GateArgs, last_layer};
use crate::analyses::answered::{ClassArgs, continued, item_of};
use crate::analyses::directions::{norm, random_like};
use crate::analyses::doses::Grid;
use crate::analyses::halves::{Asked, Value};
use crate::analyses::heads::Head;
use crate::analyses::inputs::{Sources, evenly, halves, room};
use crate::analyses::prelude::*;
use crate::analyses::summary::RowMean;
use crate::answers::Rules;
use crate::dataset::shown::counted;
use crate::plan::{Entropy, KlFrom};
use crate::run::Steps;
use std::sync::Arc;
use tables::Given;

pub(super) use report::{ends, uncrossed};

parameters! {
    /// Weaken and strengthen the detected signal, and show which kind of answer takes over
    #[serde(default)]
    pub struct Modulate {
        ..pairs: PairArgs;

        /// Read and change the signal after this layer (default: the gate's)
        layer: Option<usize>, excludes gate | circuit, [value_name = "L", required_unless_present_any = ["gate", "circuit"]];

        /// Take these heads as the gate, as L14.H5; several with commas
        gate: Vec<Head>, excludes circuit, [value_delimiter = ',', value_name = "HEAD"];

        /// Read the gate from the circuit.json that `screen` writes
        ///
        /// All heads of a list, or of a graph of edges, are the gate together.
        circuit: Option<Data>, [value_name = "FILE"];

        /// Try these coefficients: from:to:how-many, or a list with commas
        ///
        /// A coefficient of 1 is the whole difference between positive and negative prompts.
        coefficients: Grid = Grid::even(-1.5, 1.5, 13), [allow_hyphen_values = true, value_name = "a:b:n"];

        /// Use this many random directions of the same norm as control, at both ends of the grid
        controls: u16 = 5, in 1..=1000, [value_name = "R"];

        /// Generate answers of this many tokens, and classify them (0: none)
        generate: u32 = 0, in 0..=1_000_000, [value_name = "N"];

        /// Generate for this many pairs, spread over languages and groups as in the file
        generate_pairs: u32 = 40, in 1.., [value_name = "N"];

        /// Generate along this many of the random directions too, at both ends of the grid
        generate_controls: u16 = 0, [value_name = "K"];

        ..classes: ClassArgs;
    }
}

/// The sides of a pair, in the order of tables.
const SIDES: [&str; 2] = ["positive", "negative"];

/// Halves of the pairs that a direction is made from.
const FOLDS: usize = 2;

/// The share of broken and undecided answers above which a dose says nothing: the model is broken rather than steered.
pub(super) const BROKEN: f64 = 0.5;

/// The pairs as the model reads them, and where they are modulated.
pub struct Items {
    pairs: Pairs,
    site: Site,
    /// Which half each pair is in.
    fold: Vec<usize>,
    /// The pairs that generate.
    generating: Vec<usize>,
    /// What classifies their answers.
    rules: Rules,
}

/// A direction, one vector for the pairs of each fold.
type Vectors = [Arc<[f32]>; FOLDS];

/// What a fork is made under: the number of the direction (0: the concept's; then random ones), and that of the coefficient.
type Condition = (usize, usize);

/// What was found of the pairs.
pub struct Found {
    measured: Measured,
    given: Vec<Given>,
}

/// Metrics along the grid, of each side.
struct Measured {
    /// Without modulation, one a pair.
    base: [Vec<f64>; 2],
    /// Along the concept's direction, by coefficient and pair.
    metric: [Vec<Vec<f64>>; 2],
    /// How far the answer's half is moved along the concept's direction, by coefficient and pair.
    answer: [Vec<Vec<f64>>; 2],
    /// KL divergence from the unmodulated run along the concept's direction, by coefficient and pair.
    kl: [Vec<Vec<f64>>; 2],
    /// Along each random direction, by end of the grid ([`Modulate::ends`]) and pair.
    random: [Vec<Vec<Vec<f64>>>; 2],
}

impl Measured {
    /// Adds what is read of a prompt.
    fn add(&mut self, side: usize, of_prompt: &OfPrompt, readings: &Readings) {
        // Pairs' metrics are logit differences, and have halves.
        let clean = of_prompt.clean.of(readings);
        self.base[side].push(clean.metric);
        for (dose, of_dose) in of_prompt.own.iter().enumerate() {
            let (value, kl) = of_dose.map_or((clean, 0.0), |(value, kl)| (value.of(readings), readings[kl]));
            self.metric[side][dose].push(value.metric);
            self.answer[side][dose].extend(clean.swap(None, value).answer);
            self.kl[side][dose].push(kl);
        }
        for (lists, of_direction) in self.random[side].iter_mut().zip(&of_prompt.random) {
            lists.iter_mut().zip(of_direction).for_each(|(list, metric)| list.push(readings[*metric]));
        }
    }
}

impl Analysis for Modulate {
    const NAME: &'static str = "modulate";
    const TITLE: &'static str = "Detection-layer modulation";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Found;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
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
        let mut prepared = self.pairs.read(model)?;
        let pairs = &prepared.items;
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
        let fold = halves(&pairs.dataset.items);
        prepared.sources.extend(of_gate);
        let rules = self.classes.open_for_refusals(self.generate > 0, &mut prepared.sources)?;
        Ok(prepared.map(|pairs| Items { pairs, site, fold, generating, rules }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Found, AnalysisError> {
        let vectors = self.vectors(runner, items, some(items))?;
        let measured = self.measured(runner, items, self.swept(items), &vectors)?;
        Ok(Found { measured, given: self.answers(runner, items, &vectors)? })
    }

    fn tables(&self, about: &About, items: &Items, found: Found) -> Result<Output, AnalysisError> {
        let Found { measured, given } = &found;
        let (x, ends) = (self.coefficients.values(), self.ends());
        Ok(tables::Made { about, items, x, ends: &ends, measured, given }.tables()?.into())
    }
}

/// The numbers of all pairs.
fn everything(items: &Items) -> Range<usize> {
    0..items.pairs.tokens.len()
}

/// The pairs whose activations are read at once.
fn some(items: &Items) -> impl Iterator<Item = Range<usize>> {
    batches(items.pairs.tokens.len(), 2)
}

/// Both prompts' activations where they are modulated, at their last positions; for each pair.
fn activations(items: &Items, pairs: Range<usize>) -> (Plan, Vec<[Handle<Array>; 2]>) {
    let mut plan = Plan::default();
    let value = || Activation { site: items.site, positions: Positions::Last, part: Part::All };
    let asked = pairs.map(|i| items.pairs.add(&mut plan, i).map(|run| plan.read(run, value()))).collect();
    (plan, asked)
}

/// What is read of a prompt.
struct OfPrompt {
    clean: Asked,
    /// Along the concept's direction at every coefficient, with the divergence; none at coefficient 0.
    own: Vec<Option<(Asked, Handle<f64>)>>,
    /// Along each random direction, at the grid's ends.
    random: Vec<Vec<Handle<f64>>>,
}

impl Modulate {
    /// The concept's direction, then the random ones; for each fold, made from the other's pairs.
    fn vectors(
        &self,
        runner: &dyn Runner,
        items: &Items,
        pairs: impl Iterator<Item = Range<usize>>,
    ) -> Result<Vec<Vectors>, AnalysisError> {
        // By fold that they are made for, and side.
        let mut means: [[RowMean; 2]; FOLDS] = Default::default();
        for some in pairs {
            let (plan, asked) = activations(items, some.clone());
            let readings = runner.run(&plan)?;
            for (pair, of_pair) in some.zip(asked) {
                let of_other = &mut means[1 - items.fold[pair]];
                of_other.iter_mut().zip(of_pair).for_each(|(mean, value)| mean.add(&readings[value].values));
            }
        }
        let own = means.map(|[positive, negative]| -> Vec<f32> {
            positive.mean().iter().zip(negative.mean()).map(|(p, n)| p - n).collect()
        });
        if own.iter().any(|vector| norm(vector) == 0.0) && !runner.is_counting() {
            return Err(AnalysisError::NotAskable(format!(
                "{}: positive and negative prompts do not differ there at their last positions; choose a later {}",
                items.site,
                param("layer")
            )));
        }
        let random = (0..usize::from(self.controls)).map(|k| {
            // One direction for both folds, with the norm of each.
            own.each_ref().map(|v| Arc::from(random_like(std::slice::from_ref(v), runner.seed(), k).remove(0)))
        });
        Ok(std::iter::once(own.each_ref().map(|v| Arc::from(v.as_slice()))).chain(random).collect())
    }

    /// The numbers of the grid's first and last coefficient, but for 0, which changes nothing.
    fn ends(&self) -> Vec<usize> {
        let x = self.coefficients.values();
        let mut ends = vec![0, x.len().saturating_sub(1)];
        ends.dedup();
        ends.retain(|dose| x.get(*dose).is_some_and(|x| *x != 0.0));
        ends
    }

    /// What is forked: the concept's direction at every coefficient, and so many random ones at the grid's ends. At
    /// coefficient 0 the run is the prompt itself.
    fn conditions(&self, randoms: usize) -> Vec<Condition> {
        let x = self.coefficients.values();
        let own = (0..x.len()).filter(|dose| x[*dose] != 0.0).map(|dose| (0, dose));
        let ends = self.ends();
        own.chain((1..=randoms).flat_map(|direction| ends.iter().map(move |dose| (direction, *dose)))).collect()
    }

    /// The pairs that are swept at once.
    fn swept(&self, items: &Items) -> impl Iterator<Item = Range<usize>> + use<> {
        batches(items.pairs.tokens.len(), SIDES.len() * self.conditions(usize::from(self.controls)).len())
    }

    /// The fork of a prompt under a condition.
    fn fork(&self, items: &Items, plan: &mut Plan, run: Run, pair: usize, vectors: &[Vectors], at: Condition) -> Run {
        let vector = vectors[at.0][items.fold[pair]].clone();
        let change = Change::Add { vector, coefficient: self.coefficients.values()[at.1] as f32 };
        plan.fork(run, vec![Edit { site: items.site, part: Part::All, positions: Positions::Last, change }])
    }

    /// Some pairs under every condition; for each pair and side.
    fn sweep(&self, items: &Items, pairs: Range<usize>, vectors: &[Vectors]) -> (Plan, Vec<[OfPrompt; 2]>) {
        let (mut plan, ends) = (Plan::default(), self.ends());
        let of_pair = |i: usize| {
            let metric = &items.pairs.tokens[i].metric;
            items.pairs.add(&mut plan, i).map(|run| {
                let clean = Value::ask(&mut plan, run, metric);
                let own = |(dose, x): (usize, &f64)| {
                    (*x != 0.0).then(|| {
                        let fork = self.fork(items, &mut plan, run, i, vectors, (0, dose));
                        (Value::ask(&mut plan, fork, metric), plan.read(fork, KlFrom(run)))
                    })
                };
                let own = self.coefficients.values().iter().enumerate().map(own).collect();
                let mut of_end = |direction: usize, dose: usize| {
                    let fork = self.fork(items, &mut plan, run, i, vectors, (direction, dose));
                    plan.read(fork, metric.clone())
                };
                let along = |direction: usize| ends.iter().map(|dose| of_end(direction, *dose)).collect();
                OfPrompt { clean, own, random: (1..vectors.len()).map(along).collect() }
            })
        };
        let asked = pairs.map(of_pair).collect();
        (plan, asked)
    }

    /// Sweeps so many pairs at a time.
    fn measured(
        &self,
        runner: &dyn Runner,
        items: &Items,
        pairs: impl Iterator<Item = Range<usize>>,
        vectors: &[Vectors],
    ) -> Result<Measured, AnalysisError> {
        let (x, ends) = (self.coefficients.values(), self.ends());
        let empty = |n: usize| vec![Vec::new(); n];
        let mut measured = Measured {
            base: Default::default(),
            metric: [0, 1].map(|_| empty(x.len())),
            answer: [0, 1].map(|_| empty(x.len())),
            kl: [0, 1].map(|_| empty(x.len())),
            random: [0, 1].map(|_| vec![empty(ends.len()); vectors.len() - 1]),
        };
        for some in pairs {
            let (plan, asked) = self.sweep(items, some, vectors);
            let readings = runner.run(&plan)?;
            for (side, of_prompt) in asked.iter().flat_map(|of_pair| of_pair.iter().enumerate()) {
                measured.add(side, of_prompt, &readings);
            }
        }
        Ok(measured)
    }

    /// The directions that generate.
    fn that_generate<'a>(&self, vectors: &'a [Vectors]) -> &'a [Vectors] {
        &vectors[..(1 + usize::from(self.generate_controls)).min(vectors.len())]
    }

    /// Which of so many pairs that generate are planned at once.
    fn generated(&self, pairs: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        batches(pairs, SIDES.len() * self.conditions(usize::from(self.generate_controls)).len())
    }

    /// Runs that answer, of some pairs and along some of the directions: the prompts themselves where the grid has coefficient 0,
    /// which are direction 0's, and their forks; each with its pair, side and condition.
    fn generation(
        &self,
        items: &Items,
        pairs: &[usize],
        vectors: &[Vectors],
        directions: Range<usize>,
    ) -> (Plan, Vec<Run>, Vec<(usize, usize, Condition)>) {
        let (mut plan, mut runs, mut places) = (Plan::default(), Vec::new(), Vec::new());
        let vectors = self.that_generate(vectors);
        let unmodulated = self.coefficients.values().iter().position(|x| *x == 0.0).map(|dose| (0, dose));
        let conditions = self.conditions(vectors.len() - 1);
        for pair in pairs {
            for (side, prompt) in items.pairs.add(&mut plan, *pair).into_iter().enumerate() {
                for at in unmodulated.iter().chain(&conditions).filter(|at| directions.contains(&at.0)) {
                    let run = match Some(*at) == unmodulated {
                        true => prompt,
                        false => self.fork(items, &mut plan, prompt, *pair, vectors, *at),
                    };
                    plan.read(run, Entropy);
                    runs.push(run);
                    places.push((*pair, side, *at));
                }
            }
        }
        (plan, runs, places)
    }

    /// Says what answers along the signal cost, and what those along random directions.
    fn name_parts(
        &self,
        runner: &dyn Runner,
        items: &Items,
        pairs: &[usize],
        vectors: &[Vectors],
    ) -> Result<(), AnalysisError> {
        let randoms = self.that_generate(vectors).len() - 1;
        let along = |directions: Range<usize>| {
            let (plan, ..) = self.generation(items, pairs, vectors, directions);
            plan.longer(self.generate as usize - 1)
        };
        runner.name_part("answers along the signal", &|| along(0..1))?;
        if randoms > 0 {
            let random = counted(randoms, "random direction");
            let name = format!("answers along {random} ({})", param("generate_controls").is(randoms));
            runner.name_part(&name, &|| along(1..1 + randoms))?;
        }
        Ok(())
    }

    fn answers(&self, runner: &dyn Runner, items: &Items, vectors: &[Vectors]) -> Result<Vec<Given>, AnalysisError> {
        let mut found = Vec::new();
        let generating = if self.generate > 0 { items.generating.len() } else { 0 };
        for of in self.generated(generating) {
            let pairs = &items.generating[of];
            self.name_parts(runner, items, pairs, vectors)?;
            let (plan, runs, places) = self.generation(items, pairs, vectors, 0..vectors.len());
            let asked = |(pair, side, _): &(usize, usize, Condition)| {
                let of = &items.pairs.dataset.items[*pair];
                item_of(of, if *side == 0 { &of.positive } else { &of.negative })
            };
            let asked: Vec<Item> = places.iter().map(asked).collect();
            let (_, answers) = continued(runner, &plan, runs, (self.generate, Steps::Every), (&items.rules, &asked))?;
            found.extend(places.into_iter().zip(answers).map(|((pair, side, (direction, dose)), answer)| Given {
                pair,
                side,
                direction,
                dose,
                answer,
            }));
        }
        found.sort_by_key(|g: &Given| (g.pair, g.side, g.direction, g.dose));
        Ok(found)
    }
}

#[cfg(test)]
impl Items {
    /// Four pairs of the demo.
    fn of_demo(model: &Model) -> Items {
        let mut modulate = tests::over("-1,0,1");
        modulate.pairs.file.max_pairs = Some(4);
        modulate.prepare(model).unwrap().items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::inputs::PairFile;
    use crate::study::Study;

    pub(super) fn over(coefficients: &str) -> Modulate {
        let file = PairFile { max_pairs: Some(6), ..PairFile::from("demo:pairs.jsonl") };
        Modulate {
            pairs: PairArgs { file, ..PairArgs::default() },
            layer: Some(3),
            coefficients: coefficients.parse().unwrap(),
            controls: 3,
            generate_controls: 1,
            ..Modulate::default()
        }
    }

    #[test]
    fn coefficient_0_is_not_forked_and_random_directions_are_at_the_ends_alone() {
        assert_eq!(over("-1,0,0.5,2").conditions(2), [(0, 0), (0, 2), (0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]);
        assert_eq!(over("0,1").ends(), [1]);
        assert_eq!((over("2").ends(), over("0").conditions(3)), (vec![0], vec![]));
    }

    #[test]
    fn what_is_measured_does_not_depend_on_which_pairs_are_planned_at_once() {
        let study = Study::open(crate::demo::NAME).unwrap();
        let modulate = over("-1,0,2");
        let items = modulate.prepare(&study.model).unwrap().items;
        let session = study.session();
        let of = |pairs: Vec<Range<usize>>| {
            let vectors = modulate.vectors(&session, &items, pairs.clone().into_iter()).unwrap();
            let measured = modulate.measured(&session, &items, pairs.into_iter(), &vectors).unwrap();
            (vectors, measured.base, measured.metric, measured.kl, measured.random, measured.answer)
        };
        let whole = of(vec![0..6]);
        assert!(whole == of(vec![0..1, 1..4, 4..6]));
        let (vectors, base, metric, kl, random, answer) = whole;
        // The answer's half of the last pair's negative prompt at the last coefficient, by a plan of its own.
        let mut plan = Plan::default();
        let run = items.pairs.add(&mut plan, 5)[1];
        let fork = modulate.fork(&items, &mut plan, run, 5, &vectors, (0, 2));
        let half = items.pairs.tokens[5].metric.answer_half().unwrap();
        let asked = [run, fork].map(|run| plan.read(run, half.clone()));
        let readings = session.run(&plan).unwrap();
        let halves = asked.map(|half| readings[half]);
        assert!((answer[1][2][5] - (halves[1] - halves[0])).abs() < 1e-9, "{halves:?} {:?}", answer[1][2]);
        // Coefficient 0 is the prompt itself; random directions have the two ends.
        assert_eq!((&metric[0][1], &kl[1][1]), (&base[0], &vec![0.0; 6]));
        assert!(answer.iter().all(|side| side[1] == [0.0; 6] && side[0].iter().any(|x| *x != 0.0)), "{answer:?}");
        assert!(random.iter().all(|side| side.len() == 3 && side.iter().all(|of| of.len() == 2 && of[1].len() == 6)));
    }
}

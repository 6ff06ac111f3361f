//! Concept activation vectors: where is a concept linearly there, and does the behaviour depend on it?
//!
//! A CAV is the normal of a linear classifier between activations of examples of a concept and of random ones, at a site, a
//! layer and a position; its accuracy on held-out examples says whether the concept is there. The derivative of the metric
//! along it, by gradients, says whether the metric would rise with more of it: the TCAV score of a class of prompts is the
//! share with a positive derivative. Source: Kim et al. 2018, "Interpretability Beyond Feature Attribution: Quantitative
//! Testing with Concept Activation Vectors (TCAV)".
//!
//! A score means little without its chance level, and its test is only valid if the runs that it compares are independent.
//! Here R CAVs of disjoint parts of the concept against disjoint random sets stand against R CAVs of random sets against
//! random sets, no example twice; Welch's test, q-values over layers, classes and methods. (The reference implementation
//! trains all runs on the same concept examples and counts each random pair twice, so that a random concept comes out
//! significant far more often than it should.)

mod report;
mod tables;

use super::inputs::{MetricArgs, Metrics, item_tokens, layer_list, named_twice};
use super::summary::Position;
use super::vectors::{Named, to_bytes};
use super::{Analysis, AnalysisError, Figures, Output, Plans, planned};
use crate::dataset::encode::prompt_ids;
use crate::dataset::{Dataset, Item, read_prompts};
use crate::linear::{self, Direction, Examples, LinearError, Method, Strength};
use crate::model::Model;
use crate::ops::vectors::{cosine, dot};
use crate::plan::{Metric, Part, Plan, Positions, What};
use crate::report::Section;
use crate::run::Reading;
use crate::session::Session;
use crate::site::{Site, SiteKind, Units};
use crate::stats;
use crate::table::Table;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How a CAV is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Classifier {
    /// Logistic regression with an L2 penalty, its strength by cross-validation.
    Logistic,
    /// Linear support vector machine.
    Svm,
    /// Ridge regression to +1 and -1.
    Ridge,
    /// The difference of the means.
    Mean,
}

impl Classifier {
    fn method(self) -> Method {
        match self {
            Classifier::Logistic => Method::Logistic,
            Classifier::Svm => Method::Svm,
            Classifier::Ridge => Method::Ridge,
            Classifier::Mean => Method::MeanDifference,
        }
    }
}

/// Concept activation vectors by layer, their held-out accuracy, and TCAV with a valid test
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Cav {
    /// Examples of the concept, JSON Lines: {"id", "prompt", "label"?, "group"?}; examples of one group are held out together
    #[arg(long, value_name = "FILE")]
    pub concept: PathBuf,

    /// Random examples, without the concept (repeatable)
    #[arg(long, value_name = "FILE", required_unless_present = "label")]
    pub random: Vec<PathBuf>,

    /// Only the examples of --concept with this label show it; without --random, the others are the random ones
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,

    /// For TCAV: prompts whose metric is asked about, a class a label, or a file where they have none (repeatable)
    #[arg(long, value_name = "FILE")]
    pub class: Vec<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    pub metric: MetricArgs,

    /// Where activations are taken: a site of the residual stream's width or any other
    #[arg(long, default_value = "resid_post")]
    pub site: SiteKind,

    /// Layers, as 3 or 0-5,8 (default: all)
    #[arg(long, value_name = "LIST")]
    pub layers: Option<String>,

    /// At which position: last, or a position (negative from the prompt's end)
    #[arg(long, default_value = "last", allow_hyphen_values = true)]
    pub position: Position,

    /// How CAVs are fitted; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "logistic")]
    pub method: Vec<Classifier>,

    /// For TCAV: CAVs of the concept, and as many of random sets; fewer where examples do not reach
    #[arg(long, default_value_t = 10, value_name = "R", value_parser = clap::value_parser!(u16).range(3..=500))]
    pub runs: u16,
}

/// The examples as the model reads them.
pub struct Items {
    sources: Vec<(String, String)>,
    concept: Vec<Example>,
    random: Vec<Example>,
    classes: Vec<Class>,
    sites: Vec<Site>,
}

struct Example {
    name: String,
    ids: Vec<u32>,
    /// Examples of one group are never on both sides of a split.
    group: usize,
    positions: Positions,
}

/// Prompts whose metric's derivative is asked for.
struct Class {
    name: String,
    prompts: Vec<(Vec<u32>, Metric, Positions)>,
}

/// What was found at one site by one method.
struct Found {
    site: Site,
    method: Method,
    /// None where the two sets are the same: nothing is there.
    direction: Option<Direction>,
    /// Of held-out examples, each side counting half; one half where nothing is there.
    accuracy: f64,
    cosine: Option<f64>,
    tcav: Vec<Tcav>,
}

/// Scores of a class: of the concept's CAVs and of random ones.
struct Tcav {
    concept: Vec<f64>,
    random: Vec<f64>,
}

impl Analysis for Cav {
    const NAME: &'static str = "cav";
    const ABOUT: &'static str =
        "Concept activation vectors by layer, their held-out accuracy, and TCAV with a valid test";
    const TITLE: &'static str = "Concept activation vectors";
    type Items = Items;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let arch = &model.decoder.arch;
        if self.position == Position::All {
            return Err(AnalysisError::Bad(
                "--position all: a CAV is of one position; give last or a number".to_string(),
            ));
        }
        let layers = if self.site.in_layers() { layer_list(self.layers.as_deref(), arch.n_layers)? } else { vec![0] };
        let sites = layers.into_iter().map(|l| self.site.at(l).check(arch)).collect::<Result<Vec<_>, _>>();
        let sites = sites.map_err(|e| AnalysisError::Bad(e.to_string()))?;
        if sites.iter().any(|s| matches!(s.units(arch), Units::HeadsByKeys { .. })) {
            return Err(AnalysisError::Bad(format!(
                "--site {}: its width differs with the prompt's length",
                self.site
            )));
        }
        if let Some(twice) = named_twice(&self.method) {
            return Err(AnalysisError::Bad(format!("--method names {} twice", twice.method().name())));
        }
        let mut groups = HashMap::new();
        let shown = read_prompts(&self.concept)?;
        let mut sources = vec![shown.source()];
        let labelled = |item: &Item| self.label.is_none() || item.label == self.label;
        let concept = self.examples(model, &shown, &mut groups, labelled)?;
        let mut random = if self.random.is_empty() {
            self.examples(model, &shown, &mut groups, |i| !labelled(i))?
        } else {
            Vec::new()
        };
        for path in &self.random {
            let set = read_prompts(path)?;
            random.extend(self.examples(model, &set, &mut groups, |_| true)?);
            sources.push(set.source());
        }
        for (what, examples) in [("of the concept", &concept), ("random", &random)] {
            if examples.len() < 2 {
                let files: Vec<String> = sources.iter().map(|s| s.0.clone()).collect();
                return Err(AnalysisError::Bad(format!(
                    "{}: {} examples are {what}; a direction needs two on each side at least{}",
                    files.join(", "),
                    examples.len(),
                    self.label.as_ref().map_or(String::new(), |l| format!("; those labelled `{l}` show the concept"))
                )));
            }
        }
        distinct(&concept, &random)?;
        let metrics = self.metric.open(model)?;
        let mut classes = Vec::new();
        for path in &self.class {
            let set = read_prompts(path)?;
            sources.push(set.source());
            self.classes(model, &set, &metrics, &mut classes)?;
        }
        sources.extend(metrics.source);
        Ok(Items { sources, concept, random, classes, sites })
    }

    fn datasets(items: &Items) -> Vec<(String, String)> {
        items.sources.clone()
    }

    fn plans<'a>(&'a self, _: &'a Model, items: &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let gradients = items.classes.iter().map(|class| gradients_plan(class, &items.sites));
        Ok(planned(std::iter::once_with(|| activations_plan(items)).chain(gradients)))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let activations = session.run(&activations_plan(items))?;
        let gradients = items.classes.iter().map(|class| session.run(&gradients_plan(class, &items.sites)));
        let gradients = gradients.collect::<Result<Vec<_>, _>>()?;
        let sets = if items.classes.is_empty() {
            None
        } else {
            Some(Sets::draw(usize::from(self.runs), items.concept.len(), items.random.len(), session.seed)?)
        };
        let mut found = Vec::new();
        for (s, site) in items.sites.iter().enumerate() {
            let rows = |readings: &[Reading]| -> Vec<Vec<f32>> {
                readings.iter().skip(s).step_by(items.sites.len()).map(Reading::values).collect()
            };
            let rows_of = rows(&activations);
            let slopes: Vec<Vec<Vec<f32>>> = gradients.iter().map(|g| rows(g)).collect();
            for classifier in &self.method {
                let at = At { items, rows: &rows_of, site: *site, method: classifier.method(), seed: session.seed };
                found.push(at.find(sets.as_ref(), &slopes)?);
            }
        }
        let name = &session.model.name;
        let mut tables = vec![tables::cavs(name, &self.position, items, &found)?];
        if let Some(sets) = &sets {
            tables.push(tables::tcav(name, items, &found, sets)?);
            tables.push(tables::scores(items, &found)?);
        }
        let vectors: Vec<Named> = found.iter().filter_map(named).collect();
        Ok(Output { tables, files: vec![("cavs.safetensors".to_string(), to_bytes(&vectors)?)] })
    }

    fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
        report::figures(tables)
    }

    fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
        report::sections(tables, dir)
    }
}

impl Cav {
    /// The examples of a file that `of` picks.
    fn examples(
        &self,
        model: &Model,
        set: &Dataset<Item>,
        groups: &mut HashMap<String, usize>,
        of: impl Fn(&Item) -> bool,
    ) -> Result<Vec<Example>, AnalysisError> {
        let mut examples = Vec::new();
        for item in set.items.iter().filter(|item| of(item)) {
            let at = set.at(item.line, &item.id, "prompt");
            let ids = prompt_ids(model, &item.prompt, at)?;
            let positions = self.position.of(ids.len()).map_err(|why| at.error(why))?;
            // An item without a group is one by itself.
            let own = || format!("{}\n{}", set.path.display(), item.id);
            let key = item.group.as_ref().map_or_else(own, |g| format!("group {g}"));
            let next = groups.len();
            let group = *groups.entry(key).or_insert(next);
            examples.push(Example { name: item.id.clone(), ids, group, positions });
        }
        Ok(examples)
    }

    /// Adds a file's prompts to the classes of their labels.
    fn classes(
        &self,
        model: &Model,
        set: &Dataset<Item>,
        metrics: &Metrics,
        classes: &mut Vec<Class>,
    ) -> Result<(), AnalysisError> {
        let stem = set.path.file_stem().map_or("class".to_string(), |s| s.to_string_lossy().into_owned());
        for item in &set.items {
            let (ids, metric) = item_tokens(model, set, item, metrics)?;
            let at = set.at(item.line, &item.id, "prompt");
            let positions = self.position.of(ids.len()).map_err(|why| at.error(why))?;
            let name = item.label.as_ref().unwrap_or(&stem);
            let prompt = (ids, metric, positions);
            match classes.iter_mut().find(|class| class.name == *name) {
                Some(class) => class.prompts.push(prompt),
                None => classes.push(Class { name: name.clone(), prompts: vec![prompt] }),
            }
        }
        Ok(())
    }
}

/// Refuses an example that is there twice: it would be learnt on one side of a split and tested on the other, and make runs
/// depend on each other that are compared as independent.
fn distinct(concept: &[Example], random: &[Example]) -> Result<(), AnalysisError> {
    let mut seen: HashMap<&[u32], &str> = HashMap::new();
    for example in concept.iter().chain(random) {
        if let Some(first) = seen.insert(&example.ids, &example.name) {
            let name = &example.name;
            return Err(AnalysisError::Bad(format!(
                "the examples `{first}` and `{name}` are one prompt; leave one out"
            )));
        }
    }
    Ok(())
}

/// Activations of the concept's examples, then of the random ones, at every site.
fn activations_plan(items: &Items) -> Plan {
    let mut plan = Plan::default();
    for example in items.concept.iter().chain(&items.random) {
        let prompt = plan.prompt(example.name.clone(), example.ids.clone());
        for site in &items.sites {
            let (positions, part) = (example.positions.clone(), Part::All);
            plan.read(prompt, What::Activation { site: *site, positions, part });
        }
    }
    plan
}

/// Gradients of a class' metrics at every site.
fn gradients_plan(class: &Class, sites: &[Site]) -> Plan {
    let mut plan = Plan::default();
    for (i, (ids, metric, positions)) in class.prompts.iter().enumerate() {
        let prompt = plan.prompt(format!("{} {i}", class.name), ids.clone());
        for site in sites {
            let (metric, positions, part) = (metric.clone(), positions.clone(), Part::All);
            plan.read(prompt, What::Gradient { metric, site: *site, positions, part });
        }
    }
    plan
}

/// The least examples of a side of a run's CAV.
const LEAST: usize = 3;

/// The disjoint sets of TCAV's runs: indices of examples.
struct Sets {
    /// Examples a side.
    size: usize,
    /// Of each run: a part of the concept, and a random set against it.
    concept: Vec<(Vec<usize>, Vec<usize>)>,
    /// Of each run: two random sets.
    random: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Sets {
    /// As many runs as were asked for, or as the examples reach for.
    fn draw(runs: usize, n: usize, pool: usize, seed: u64) -> Result<Self, AnalysisError> {
        let size = |runs: usize| (n / runs).min(pool / (3 * runs));
        let runs = (3..=runs).rev().find(|r| size(*r) >= LEAST);
        let Some(runs) = runs else {
            return Err(AnalysisError::Bad(format!(
                "TCAV's test needs three runs of {LEAST} examples a side at least, none used twice: {} of the concept and {} \
                 random ones; there are {n} and {pool}",
                3 * LEAST,
                9 * LEAST
            )));
        };
        let mut rng = stats::rng(seed, "cav.sets");
        let mut shuffled = |n: usize| {
            let mut all: Vec<usize> = (0..n).collect();
            all.shuffle(&mut rng);
            all
        };
        let (concept, random) = (shuffled(n), shuffled(pool));
        let size = size(runs);
        let part = |of: &[usize], k: usize| of[k * size..(k + 1) * size].to_vec();
        Ok(Sets {
            size,
            concept: (0..runs).map(|r| (part(&concept, r), part(&random, r))).collect(),
            random: (0..runs).map(|r| (part(&random, runs + 2 * r), part(&random, runs + 2 * r + 1))).collect(),
        })
    }
}

/// One site and method.
struct At<'a> {
    items: &'a Items,
    /// Activations: the concept's examples, then the random ones.
    rows: &'a [Vec<f32>],
    site: Site,
    method: Method,
    seed: u64,
}

/// Folds of held-out accuracy.
const FOLDS: usize = 5;

impl At<'_> {
    fn find(&self, sets: Option<&Sets>, slopes: &[Vec<Vec<f32>>]) -> Result<Found, AnalysisError> {
        let n = self.items.concept.len();
        let groups: Vec<usize> = self.items.concept.iter().chain(&self.items.random).map(|e| e.group).collect();
        let failed = |e: LinearError| AnalysisError::Bad(format!("{}: {e}", self.site));
        let examples = Examples::grouped(&self.rows[..n], &self.rows[n..], &groups).map_err(failed)?;
        let options = linear::Options { method: self.method, seed: self.seed, ..linear::Options::default() };
        let direction = present(linear::fit(&examples, &options)).map_err(failed)?;
        let accuracy = match &direction {
            None => 0.5,
            Some(_) => {
                let held_out = linear::cross_validated_accuracy(&examples, &options, FOLDS);
                present(held_out).map_err(failed)?.unwrap_or(0.5)
            }
        };
        let strength = direction.as_ref().and_then(|d| d.strength).map_or(options.strength, Strength::Fixed);
        let options = linear::Options { strength, ..options };
        let cosine = direction.as_ref().and_then(|d| cosine(&d.vector, &examples.mean_difference()));
        let tcav = match sets {
            None => Vec::new(),
            Some(sets) => tcav(self.rows, n, sets, &options, slopes).map_err(failed)?,
        };
        Ok(Found { site: self.site, method: self.method, direction, accuracy, cosine, tcav })
    }
}

/// The scores of every run, class by class. `rows` are the activations of the `n` examples of the concept, then of the random
/// ones.
fn tcav(
    rows: &[Vec<f32>],
    n: usize,
    sets: &Sets,
    options: &linear::Options,
    slopes: &[Vec<Vec<f32>>],
) -> Result<Vec<Tcav>, LinearError> {
    let of = |indices: &[usize], from: usize| indices.iter().map(|i| &rows[from + i]).collect::<Vec<_>>();
    let fitted = |(positive, negative): &(Vec<usize>, Vec<usize>), from: usize| {
        present(linear::fit(&Examples::new(&of(positive, from), &of(negative, n))?, options))
    };
    let fit_all = |runs: &[(Vec<usize>, Vec<usize>)], from: usize| {
        runs.par_iter().map(|run| fitted(run, from)).collect::<Result<Vec<_>, _>>()
    };
    let (concept, random) = (fit_all(&sets.concept, 0)?, fit_all(&sets.random, n)?);
    let scores = |directions: &[Option<Direction>], slopes: &[Vec<f32>]| -> Vec<f64> {
        directions.iter().map(|d| d.as_ref().map_or(0.5, |d| score(&d.vector, slopes))).collect()
    };
    let of_class = |slopes: &Vec<Vec<f32>>| Tcav { concept: scores(&concept, slopes), random: scores(&random, slopes) };
    Ok(slopes.iter().map(of_class).collect())
}

/// Two sets that do not differ have no direction between them; that is a finding, not an error.
fn present<T>(found: Result<T, LinearError>) -> Result<Option<T>, LinearError> {
    match found {
        Err(LinearError::NoDifference(_)) => Ok(None),
        found => found.map(Some),
    }
}

/// The share of gradients that rise along a vector; one that does not change at all counts half.
fn score(vector: &[f32], slopes: &[Vec<f32>]) -> f64 {
    let share = slopes.iter().map(|g| match dot(g, vector) {
        d if d > 0.0 => 1.0,
        d if d < 0.0 => 0.0,
        _ => 0.5,
    });
    share.sum::<f64>() / slopes.len().max(1) as f64
}

fn named(found: &Found) -> Option<Named> {
    let direction = found.direction.as_ref()?;
    let name = format!("{}.{}", found.method.name(), found.site);
    Some(Named { name, vector: direction.vector.clone(), bias: Some(direction.bias) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::welch;
    use rand::Rng;
    use rand_distr::StandardNormal;

    fn normal(rng: &mut impl Rng, n: usize, d: usize) -> Vec<Vec<f32>> {
        (0..n).map(|_| (0..d).map(|_| rng.sample(StandardNormal)).collect()).collect()
    }

    /// Many concepts that are drawn as the random examples are: how often is TCAV significant at 5 %?
    #[test]
    fn a_random_concept_is_significant_in_five_percent_of_cases() {
        const CONCEPTS: usize = 600;
        let mut rng = stats::rng(0, "test.tcav");
        let (n, pool, d) = (40, 120, 12);
        let options = linear::Options { method: Method::MeanDifference, ..linear::Options::default() };
        let mut significant = 0;
        for k in 0..CONCEPTS {
            let rows = [normal(&mut rng, n, d), normal(&mut rng, pool, d)].concat();
            // Gradients that agree with each other, as those of one metric do.
            let common = normal(&mut rng, 1, d).remove(0);
            let slopes = normal(&mut rng, 30, d).into_iter();
            let slopes: Vec<Vec<f32>> = slopes.map(|g| g.iter().zip(&common).map(|(g, c)| g + c).collect()).collect();
            let sets = Sets::draw(10, n, pool, k as u64).unwrap();
            let found = tcav(&rows, n, &sets, &options, &[slopes]).unwrap().remove(0);
            significant += usize::from(welch(&found.concept, &found.random).is_some_and(|p| p < 0.05));
        }
        // 5 % of 600 is 30, with a standard deviation of 5.3: within three of them.
        assert!((14..=46).contains(&significant), "{significant} of {CONCEPTS}");
    }

    #[test]
    fn no_example_is_in_two_sets() {
        let sets = Sets::draw(10, 33, 95, 7).unwrap();
        assert_eq!((sets.size, sets.concept.len(), sets.random.len()), (3, 10, 10));
        let mut concept: Vec<usize> = sets.concept.iter().flat_map(|s| s.0.clone()).collect();
        let mut random: Vec<usize> = sets
            .concept
            .iter()
            .map(|s| &s.1)
            .chain(sets.random.iter().flat_map(|s| [&s.0, &s.1]))
            .flatten()
            .copied()
            .collect();
        for all in [&mut concept, &mut random] {
            let before = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), before);
        }
        assert_eq!(random.len(), 90);
    }

    #[test]
    fn too_few_examples_are_said() {
        assert_eq!(Sets::draw(10, 9, 27, 0).unwrap().concept.len(), 3);
        let why = Sets::draw(10, 8, 27, 0).err().unwrap().to_string();
        assert!(why.contains("9 of the concept and 27 random ones; there are 8 and 27"), "{why}");
    }

    #[test]
    fn a_score_is_the_share_that_rises() {
        let slopes = vec![vec![1.0, 0.0], vec![-1.0, 0.0], vec![2.0, 5.0], vec![0.0, 1.0]];
        assert_eq!(score(&[1.0, 0.0], &slopes), (1.0 + 0.0 + 1.0 + 0.5) / 4.0);
    }
}

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
//! random sets, no example twice, nor a group of examples where groups reach; Welch's test, q-values over layers, classes and
//! methods. (The reference implementation
//! trains all runs on the same concept examples and counts each random pair twice, so that a random concept comes out
//! significant far more often than it should.)

mod fit;
mod report;
mod sets;
mod tables;

use super::inputs::{Groups, Sources, item_tokens, layer_list, named_twice, rows_read};
use super::metric::MetricArgs;
use super::scored::Scored;
use super::vectors::{Named, to_bytes};
use crate::analyses::prelude::*;
use crate::dataset::encode::prompt_ids;
use crate::dataset::read_prompts;
use crate::dataset::shown::Prompt;
use crate::linear::Method;
use crate::model::arch::Arch;
use crate::plan::Gradient;
use crate::site::Units;
use fit::{At, Found, Tcav};
use sets::Sets;
use std::collections::{HashMap, HashSet};

/// How a CAV is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Classifier {
    /// Logistic regression with an L2 penalty, whose strength is cross-validated.
    Logistic,
    /// A linear support vector machine.
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

parameters! {
    /// Which examples show a concept, and which do not
    pub struct ConceptArgs {
        /// Read examples of the concept from this file, JSON Lines: {"id", "prompt", "label"?, "group"?}
        ///
        /// Give some hundreds: time grows with the cube of the number of all examples. Examples of one group are held out together,
        /// and are in one run of TCAV.
        concept: Data, [value_name = "FILE"];

        /// Read random examples, without the concept, from this file (repeatable)
        #[serde(default)]
        random: Vec<Data>, [value_name = "FILE", required_unless_present = "label"];

        /// Take only the concept's examples with this label as showing it
        ///
        /// Without random examples, the other examples of the file are the random ones.
        label: Option<String>, [value_name = "LABEL"];
    }

    /// Find where a concept can be read linearly, and whether the answer follows it (CAV, TCAV)
    #[serde(default)]
    pub struct Cav {
        ..examples: ConceptArgs;

        /// For TCAV: read the prompts whose metric is asked about from this file (repeatable)
        ///
        /// Each label is a class. If the prompts have no labels, the file is one class.
        class: Vec<Data>, [value_name = "FILE"];

        ..metric: MetricArgs;

        /// Take activations at this site
        site: SiteKind = SiteKind::ResidPost;

        /// Use these layers: 3, or 0-5,8 (default: all)
        layers: Option<String>, [value_name = "LIST"];

        /// Take activations at this position: last, or a number (a negative one counts from the prompt's end)
        position: Position = Position::Last, [allow_hyphen_values = true];

        /// Fit CAVs in this way; several with commas
        method: Vec<Classifier> => vec![Classifier::Logistic], [value_enum];

        /// For TCAV: fit this many CAVs of the concept, and as many of random sets
        ///
        /// If the examples or their groups do not suffice, there are fewer, down to 5.
        runs: u16 = 10, in 5..=500, needs class, [value_name = "R"];
    }
}

/// The examples as the model reads them.
pub struct Items {
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
    prompts: Vec<ClassPrompt>,
}

type ClassPrompt = (Vec<u32>, Metric, Positions);

/// What was found at every site by every method.
pub struct Measured {
    /// The sets of TCAV's runs, where there are classes.
    sets: Option<Sets>,
    found: Vec<Found>,
}

impl Analysis for Cav {
    const NAME: &'static str = "cav";
    const TITLE: &'static str = "Concept activation vectors";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let sites = self.sites(&model.decoder.arch)?;
        if let Some(twice) = named_twice(&self.method) {
            return Err(AnalysisError::Bad(format!("{} names {} twice", param("method"), twice.method().name())));
        }
        let (mut reader, mut sources) = (Reader::default(), Vec::new());
        let shown = read_prompts(&self.examples.concept)?;
        sources.push(shown.source());
        let labelled = |item: &Item| self.examples.label.is_none() || item.label == self.examples.label;
        let concept = reader.examples(self, model, &shown, labelled)?;
        let mut random = if self.examples.random.is_empty() {
            reader.examples(self, model, &shown, |i| !labelled(i))?
        } else {
            Vec::new()
        };
        for path in &self.examples.random {
            let set = read_prompts(path)?;
            random.extend(reader.examples(self, model, &set, |_| true)?);
            sources.push(set.source());
        }
        let classes = self.classes(model, &mut sources, &mut reader.scored)?;
        let items = Items { concept, random, classes, sites };
        self.fits(&items, &sources)?;
        Ok(Prepared { items, sources, scored: reader.scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Measured, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let mut rows: Vec<Vec<Vec<f32>>> = vec![Vec::new(); items.sites.len()];
        for some in items.batches(arch, items.examples().count()) {
            let (plan, asked) = activations_plan(items, some);
            let readings = runner.run(&plan)?;
            for of_example in asked {
                rows.iter_mut().zip(of_example).for_each(|(rows, value)| rows.push(readings[value].values.clone()));
            }
        }
        let asked = !items.classes.is_empty();
        let sets = asked.then(|| items.sets(usize::from(self.runs), runner.seed())).transpose()?;
        let mut found = Vec::new();
        // What the directions are does not change what is run.
        let sites = if runner.is_counting() { &[] } else { items.sites.as_slice() };
        for (site, rows) in sites.iter().zip(&rows) {
            for classifier in &self.method {
                let at = At { items, rows, site: *site, method: classifier.method(), seed: runner.seed() };
                found.push(at.find(sets.as_ref())?);
            }
        }
        drop(rows);
        for class in &items.classes {
            self.score(runner, items, class, &mut found)?;
        }
        Ok(Measured { sets, found })
    }

    fn tables(&self, about: &About, items: &Items, measured: Measured) -> Result<Output, AnalysisError> {
        let Measured { sets, found } = measured;
        let mut tables = vec![tables::cavs(about.model, &self.position, items, &found)?];
        if let Some(sets) = &sets {
            tables.push(tables::tcav(about.model, items, &found, sets)?);
            tables.push(tables::scores(items, &found)?);
        }
        let vectors: Vec<Named> = found.iter().filter_map(named).collect();
        Ok(Output { tables, files: vec![("cavs.safetensors".to_string(), to_bytes(&vectors, Some(self.position))?)] })
    }
}

impl Items {
    /// All examples: the concept's, then the random ones.
    fn examples(&self) -> impl Iterator<Item = &Example> {
        self.concept.iter().chain(&self.random)
    }

    /// The sets of TCAV's runs.
    fn sets(&self, runs: usize, seed: u64) -> Result<Sets, AnalysisError> {
        let groups = |examples: &[Example]| examples.iter().map(|e| e.group).collect::<Vec<_>>();
        Sets::draw(runs, &groups(&self.concept), &groups(&self.random), seed)
    }

    /// Which of `n` prompts are run at once: of each a row is read at every site.
    fn batches(&self, arch: &Arch, n: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        batches(n, rows_read(&self.sites, arch, Position::Last, 1))
    }
}

impl Cav {
    /// Adds a class' scores to what was found: how often its prompts' metric rises along each run's CAV.
    fn score(
        &self,
        runner: &dyn Runner,
        items: &Items,
        class: &Class,
        found: &mut [Found],
    ) -> Result<(), AnalysisError> {
        let mut counts: Vec<Tcav> = found.iter().map(|f| f.runs.unscored()).collect();
        let (of_site, n) = (self.method.len(), class.prompts.len());
        for some in items.batches(&runner.model().decoder.arch, n) {
            let (plan, asked) = gradients_plan(class, &items.sites, some);
            let readings = runner.run(&plan)?;
            for of_prompt in asked {
                let of_sites = found.chunks(of_site).zip(counts.chunks_mut(of_site)).zip(of_prompt);
                for ((found, counts), gradient) in of_sites {
                    let gradient = &readings[gradient].values;
                    found.iter().zip(counts).for_each(|(f, counts)| f.runs.count(gradient, counts));
                }
            }
        }
        found.iter_mut().zip(counts).for_each(|(f, counts)| f.tcav.push(counts.shares(n)));
        Ok(())
    }

    /// Where activations are taken.
    fn sites(&self, arch: &Arch) -> Result<Vec<Site>, AnalysisError> {
        let bad = |why: String| Err(AnalysisError::Bad(why));
        if self.position == Position::All {
            return bad(format!("{}: a CAV is of one position; give last or a number", param("position").is("all")));
        }
        if self.layers.is_some() && !self.site.in_layers() {
            return bad(format!("{}: {} is in no layer; leave it out", param("layers"), self.site));
        }
        let layers = if self.site.in_layers() { layer_list(self.layers.as_deref(), arch.n_layers)? } else { vec![0] };
        let sites =
            layers.into_iter().map(|l| self.site.at(l).named_in(arch).check(arch)).collect::<Result<Vec<_>, _>>();
        let sites = sites.map_err(|e| AnalysisError::Bad(e.to_string()))?;
        if sites.iter().any(|s| matches!(s.units(arch), Units::HeadsByKeys { .. })) {
            return bad(format!("{}: its width differs with the prompt's length", param("site").is(self.site)));
        }
        Ok(sites)
    }

    /// Refuses examples that are too few, or of too few groups to hold some out, before anything is computed.
    fn fits(&self, items: &Items, sources: &Sources) -> Result<(), AnalysisError> {
        // A strength is chosen by holding out examples of what is left when others are held out.
        let needed = if self.method.iter().any(|m| *m != Classifier::Mean) { 3 } else { 2 };
        let label =
            self.examples.label.as_ref().map_or(String::new(), |l| format!("; those labelled `{l}` show the concept"));
        let files =
            || sources.iter().map(|s| s.0.as_str()).take(1 + self.examples.random.len()).collect::<Vec<_>>().join(", ");
        for (what, examples) in [("of the concept", &items.concept), ("random", &items.random)] {
            let groups = examples.iter().map(|e| e.group).collect::<HashSet<_>>().len();
            if groups < needed {
                return Err(AnalysisError::Bad(format!(
                    "{}: {} examples are {what}, of {groups} group(s) by their field \"group\"; examples to hold out need \
                     {needed} groups on each side at least: add examples of others, or leave the field out of examples that \
                     share nothing{label}",
                    files(),
                    examples.len(),
                )));
            }
        }
        let n = items.examples().count();
        if n > MANY {
            tracing::warn!(
                "{}: {n} examples; the time that a CAV takes grows with the cube of their number, to minutes a layer and method",
                files()
            );
        }
        if !items.classes.is_empty() {
            items.sets(usize::from(self.runs), 0)?;
        }
        Ok(())
    }

    /// The prompts of the classes: those of one label together, whatever file they are from, and those of a file without.
    fn classes(&self, model: &Model, sources: &mut Sources, scored: &mut Scored) -> Result<Vec<Class>, AnalysisError> {
        if let Some(twice) = named_twice(&self.class) {
            return Err(AnalysisError::Bad(format!("{} names {} twice", param("class"), twice.display())));
        }
        let metrics = self.metric.open(model)?;
        let mut classes: Vec<(Key, Vec<ClassPrompt>)> = Vec::new();
        let mut named = Vec::new();
        for path in &self.class {
            let set = read_prompts(path)?;
            sources.push(set.source());
            scored.note(metrics.notes(set.items.iter().map(Into::into)));
            for item in &set.items {
                named.push([!item.answer.is_empty(), !item.foil.is_empty()]);
                let (ids, metric) = item_tokens(model, &set, item, &metrics)?;
                let at = set.at(item.line, &item.id, "prompt");
                let positions = self.position.of(ids.len()).map_err(|why| at.error(why))?;
                let key = item.label.clone().map_or(Key::File(path.path()), Key::Label);
                let prompt = (ids, metric, positions);
                match classes.iter_mut().find(|class| class.0 == key) {
                    Some(class) => class.1.push(prompt),
                    None => classes.push((key, vec![prompt])),
                }
            }
        }
        if !named.is_empty() {
            self.metric.warn_unused(&named);
        }
        sources.extend(metrics.source);
        let names: Vec<String> = classes.iter().map(|(key, _)| key.name()).collect();
        let class = |(key, prompts): (Key, Vec<ClassPrompt>)| {
            // The path, where the file's name alone would be another class' name too.
            let name = match &key {
                Key::File(path) if names.iter().filter(|n| **n == key.name()).count() > 1 => path.display().to_string(),
                key => key.name(),
            };
            Class { name, prompts }
        };
        Ok(classes.into_iter().map(class).collect())
    }
}

/// What makes prompts one class.
#[derive(PartialEq)]
enum Key<'a> {
    Label(String),
    /// The file, of prompts without a label.
    File(&'a Path),
}

impl Key<'_> {
    fn name(&self) -> String {
        match self {
            Key::Label(label) => label.clone(),
            Key::File(path) => path.file_stem().map_or("class".to_string(), |s| s.to_string_lossy().into_owned()),
        }
    }
}

/// More examples than this take long enough to say so.
const MANY: usize = 1000;

/// Reads examples, each once.
#[derive(Default)]
struct Reader {
    groups: Groups,
    /// Where each prompt was read first.
    seen: HashMap<Vec<u32>, String>,
    /// What is shown of the first file's prompts.
    scored: Scored,
}

impl Reader {
    /// The examples of a file that `of` picks. One that is there already is refused: it would be learnt on one side of a split
    /// and tested on the other, and make runs depend on each other that are compared as independent.
    fn examples(
        &mut self,
        params: &Cav,
        model: &Model,
        set: &Dataset<Item>,
        of: impl Fn(&Item) -> bool,
    ) -> Result<Vec<Example>, AnalysisError> {
        let mut examples = Vec::new();
        for item in set.items.iter().filter(|item| of(item)) {
            let at = set.at(item.line, &item.id, "prompt");
            let ids = prompt_ids(model, &item.prompt, at)?;
            let positions = params.position.of(ids.len()).map_err(|why| at.error(why))?;
            let place = format!("{}: line {} (\"{}\")", set.path.display(), item.line, item.id);
            if let Some(first) = self.seen.insert(ids.clone(), place) {
                return Err(at.error(format!("is the same prompt as {first}; leave one out")).into());
            }
            examples.push(Example { name: item.id.clone(), ids, group: self.groups.of(set, item), positions });
        }
        let all = set.items.iter().filter(|item| of(item)).zip(&examples);
        let shown =
            all.map(|(item, example)| Prompt { input: &item.prompt, ids: &example.ids, id: &item.id, field: "prompt" });
        let scored = Scored::of_prompts(model, &set.path, shown);
        if self.seen.len() == examples.len() {
            self.scored = scored;
        }
        Ok(examples)
    }
}

/// Activations of some examples at every site; for each example.
fn activations_plan(items: &Items, some: Range<usize>) -> (Plan, Vec<Vec<Handle<Array>>>) {
    let mut plan = Plan::default();
    let of_example = |example: &Example| {
        let prompt = plan.prompt(example.name.clone(), example.ids.clone());
        let value = |site: &Site| Activation { site: *site, positions: example.positions.clone(), part: Part::All };
        items.sites.iter().map(|site| plan.read(prompt, value(site))).collect()
    };
    let asked = items.examples().skip(some.start).take(some.len()).map(of_example).collect();
    (plan, asked)
}

/// Gradients of some of a class' metrics at every site; for each prompt.
fn gradients_plan(class: &Class, sites: &[Site], some: Range<usize>) -> (Plan, Vec<Vec<Handle<Array>>>) {
    let mut plan = Plan::default();
    let of_prompt = |i: usize| {
        let (ids, metric, positions) = &class.prompts[i];
        let prompt = plan.prompt(format!("{} {i}", class.name), ids.clone());
        let gradient = |site: &Site| {
            let (metric, positions, part) = (metric.clone(), positions.clone(), Part::All);
            Gradient { metric, site: *site, positions, part }
        };
        sites.iter().map(|site| plan.read(prompt, gradient(site))).collect()
    };
    let asked = some.map(of_prompt).collect();
    (plan, asked)
}

fn named(found: &Found) -> Option<Named> {
    let direction = found.direction.as_ref()?;
    let name = format!("{}.{}", found.method.name(), found.site);
    Some(Named { name, vector: direction.vector.clone(), bias: Some(direction.bias) })
}

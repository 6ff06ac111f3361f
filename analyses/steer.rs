//! Steering: what happens to the behaviour when a direction is added to the residual stream, or taken out of it?
//!
//! A vector is made from contrasting prompts or read from a file, added times each coefficient of a grid, and the metric, the
//! divergence from the unsteered run and the generated answers are read. Random directions move behaviour too ("The Rogue
//! Scalpel", 2025): everything stands beside the same norm in R random directions, and what is reported is the effect over
//! chance. Sources of the vectors: [`super::directions`]. Directional ablation, and the selection of its layer and position:
//! Arditi et al. 2024. The smallest coefficient
//! for each input: GCAV, Zhang et al. 2025, "Controlling Large Language Models Through Concept Activation Vectors".

mod answers;
mod checks;
mod contrast;
mod dose;
mod plans;
mod select;
mod texts;

pub use dose::{DoseRow, RANDOM, VECTOR};
pub use texts::ThresholdRow;

use super::answered::{Answer, ClassArgs};
use super::directions::{Made, Recipe, make_of, no_direction, norm, random_like, scaled};
use super::doses::Grid;
use super::inputs::{Tokens, room, rows_read};
use super::vectors::{Given, Named, Place, control, from_file, to_bytes};
use crate::analyses::prelude::*;
use crate::answers::Rules;
use crate::linear::{Direction, Wanted};
use crate::model::arch::Arch;
use crate::run::Steps;
use crate::rundir::write_file;
use crate::site::Units;
use contrast::Contrast;
use plans::{Condition, Kind, Swept, Vectors, activations, sweep};
use select::Selected;
use std::ops::Bound::Excluded;
use std::path::PathBuf;
use std::sync::Arc;

/// The unit of coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// The vector as it is.
    Raw,
    /// The vector at norm 1.
    Unit,
    /// The vector at the mean norm of the prompts' activations at that site.
    Layer,
}

/// Whether generated tokens are steered too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// At the position in the prompt, and at each generated token.
    Every,
    /// In the prompt only.
    Prompt,
}

parameters! {
    /// Add a direction times a grid of coefficients, or take it out, beside random directions
    #[serde(default)]
    pub struct Steer {
        ..measured: MeasuredArgs;

        /// Read the vector from a file: safetensors as `cav` and `steer` write it, .npy, or a control vector in GGUF
        vector: Option<Data>, excludes from, [value_name = "FILE", required_unless_present = "from"];

        /// Take this vector of the file, as logistic.resid_post.3 (default: the only one, or the layer's)
        name: Option<String>, needs vector, [value_name = "NAME"];

        /// Also write the vector as a control vector in GGUF, for llama.cpp
        export: Option<PathBuf>, [value_name = "F.gguf"];

        /// Make the vector in this way, from pairs, or from prompts that show a concept and prompts that do not
        from: Option<Recipe>, [value_enum];

        /// Make the vector from the pairs in this file
        pairs: Option<Data>, excludes vector | concept, [value_name = "FILE"];

        /// For mean and cav: read prompts that show what to steer towards
        concept: Option<Data>, needs random, excludes vector, [value_name = "FILE"];

        /// Read prompts that do not show it
        random: Option<Data>, needs concept, [value_name = "FILE"];

        /// Make and add the vector at this layer
        ///
        /// Leave it out if it is to be selected, and if the site is in no layer.
        layer: Option<usize>, [value_name = "L"];

        /// Make and add the vector at this site (default: resid_pre for actadd and mean, else resid_post)
        site: Option<SiteKind>;

        /// Make the vector at this position of its prompts: last, or a number (a negative one counts from the end)
        ///
        /// actadd takes all positions.
        vector_position: Position = Position::Last, excludes vector, [allow_hyphen_values = true, value_name = "P"];

        /// For the mean of pairs: choose the layer, and one of the last N positions, by what the direction does
        ///
        /// Added to the negative prompts, the direction must bring the metric over 0. Taken out of them, it must change their next
        /// token little (a KL divergence of 0.1 nats at most). Of these directions, the one is chosen that leaves the least of the
        /// metric when it is taken out of the positive prompts.
        select: Option<u32>, in 1..=7, needs pairs, excludes layer | vector_position, [value_name = "N"];

        /// Try these coefficients: from:to:how-many, or a list with commas
        coefficients: Grid = Grid::even(-2.0, 2.0, 9), [allow_hyphen_values = true, value_name = "a:b:n"];

        /// Let a coefficient of 1 stand for this
        scale: Scale = Scale::Raw, [value_enum];

        /// Add the vector at this position of the prompt: last (and after), all, or a number
        ///
        /// actadd has its own positions.
        position: Position = Position::Last, [allow_hyphen_values = true];

        /// Steer generated tokens too, or the prompt only (default: every; prompt if actadd or a numbered position adds something)
        steps: Option<When>, [value_enum];

        /// Also take the direction out of every layer's residual stream (directional ablation)
        ablate: bool;

        /// Also give each prompt the smallest coefficient that brings the classifier's probability to P (needs a logistic CAV)
        gcav: Option<f64>, in (Excluded(0.0), Excluded(1.0)), [value_name = "P"];

        /// Use this many random directions of the same norm as control
        controls: u16 = 20, in 1..=1000, [value_name = "R"];

        /// Generate answers of this many tokens, and classify them (0: none)
        generate: u32 = 0, in 0..=1_000_000, [value_name = "N"];

        /// Generate along this many of the random directions too
        generate_controls: u16 = 2, needs generate, [value_name = "K"];

        ..classes: ClassArgs;

        /// Sample answers at this temperature (default: greedy)
        temperature: Option<f64>, in (Excluded(0.0), Excluded(f64::INFINITY)), needs generate, [value_name = "T"];
    }
}

/// The prompts as the model reads them.
#[derive(Clone)]
pub struct Items {
    dataset: Dataset<Item>,
    tokens: Tokens,
    /// What the vector is made from, where it is not given.
    contrast: Option<Contrast>,
    given: Option<Given>,
    site: Site,
    n_layers: usize,
    /// Whether layers also add embeddings of the token of their own.
    per_layer: bool,
    /// What classifies the answers, and whether the rules are the user's own.
    rules: Rules,
    own_classes: bool,
}

/// What was found of the prompts.
pub struct Measured {
    /// Where the vector is made and added, if that was chosen.
    selected: Option<Selected>,
    made: Made,
    /// Each prompt's smallest coefficient that reaches a probability, if one was asked for.
    wanted: Option<Vec<f64>>,
    conditions: Vec<Condition>,
    /// One a prompt.
    read: Vec<Swept>,
    /// Answers of all prompts under each condition that generates.
    answers: Vec<Option<Vec<Answer>>>,
}

impl Analysis for Steer {
    const NAME: &'static str = "steer";
    const TITLE: &'static str = "Steering";
    const FROM_TABLES: FromTables = FromTables { figures, sections };
    type Items = Items;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let arch = &model.decoder.arch;
        let site = self.site(arch)?;
        let width = match site.units(arch) {
            Units::HeadsByKeys { .. } => {
                return Err(AnalysisError::Bad(format!("{site}: its width differs with the prompt")));
            }
            _ => site.width(arch, 0),
        };
        self.fits(site)?;
        if self.ablate || self.select.is_some() {
            arch.adds_up().map_err(AnalysisError::NotAskable)?;
        }
        self.check_export(site)?;
        let Prepared { items: MeasuredPrompts { dataset, tokens }, mut sources, mut scored } =
            self.measured.read_warning(model, self.select.is_none())?;
        for (item, (ids, _)) in dataset.items.iter().zip(&tokens) {
            self.position.of(ids.len()).map_err(|why| dataset.at(item.line, &item.id, "prompt").error(why))?;
            room(arch, ids.len(), self.generate as usize)
                .map_err(|why| dataset.at(item.line, &item.id, "prompt").error(why))?;
        }
        let contrast = Contrast::read(self, model, &mut sources)?;
        contrast.iter().for_each(|contrast| scored.note(contrast.notes.clone()));
        let place = Place { site, n_layers: arch.n_layers };
        let given = self.vector.as_ref().map(|path| from_file(path, self.name.as_deref(), Some(place))).transpose()?;
        sources.extend(given.as_ref().map(|g| g.source.clone()));
        if let Some(named) = given.as_ref().map(|g| &g.named).filter(|n| n.vector.len() != width) {
            let n = named.vector.len();
            return Err(AnalysisError::Bad(format!("the vector `{}` has {n} numbers; {site} has {width}", named.name)));
        }
        if self.gcav.is_some() {
            self.check_gcav(site, given.as_ref())?;
        }
        let rules = self.classes.open(self.generate > 0, &mut sources)?;
        let items = Items {
            dataset,
            tokens,
            contrast,
            given,
            site,
            n_layers: arch.n_layers,
            per_layer: arch.per_layer.is_some(),
            rules,
            own_classes: self.classes.classes.is_some(),
        };
        Ok(Prepared { items, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Measured, AnalysisError> {
        let Some(n) = self.select else { return self.steered(runner, items, None) };
        let selected = select::select(self, runner, items, n)?;
        let chosen = Steer { vector_position: selected.position, ..self.clone() };
        let at = Items { site: selected.site, ..items.clone() };
        chosen.steered(runner, &at, Some(selected))
    }

    fn tables(&self, about: &About, items: &Items, measured: Measured) -> Result<Output, AnalysisError> {
        let Measured { selected, made, wanted, conditions, read, answers } = measured;
        let site = selected.as_ref().map_or(items.site, |s| s.site);
        let vector_position = selected.as_ref().map_or(self.vector_position, |s| s.position);
        let items = &Items { site, ..items.clone() };
        let mut tables = dose::tables(about, items, &conditions, &read, &answers)?;
        tables.extend(wanted.map(|w| dose::smallest_table(items, &w)).transpose()?);
        let recipe = self.from.map_or("vector", |r| if r == Recipe::Cav { "logistic" } else { r.name() });
        let given = items.given.as_ref();
        let name = given.map_or_else(|| format!("{recipe}.{site}"), |g| g.named.name.clone());
        let position = given.map_or(Some(vector_position), |g| g.position);
        let position = position.filter(|_| self.from != Some(Recipe::Actadd));
        self.write_export(about.loaded, site, &made, position)?;
        let bias = made.classifier.as_ref().map(|c| c.bias);
        let named = |(i, v): (usize, &Vec<f32>)| Named {
            name: if made.vectors.len() > 1 { format!("{name}.{i}") } else { name.clone() },
            vector: v.clone(),
            bias,
        };
        let vectors: Vec<Named> = made.vectors.iter().enumerate().map(named).collect();
        tables.extend(selected.map(|s| s.table(about, self)).transpose()?);
        Ok(Output { tables, files: vec![("vectors.safetensors".to_string(), to_bytes(&vectors, position)?)] })
    }
}

fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let mut figures = dose::figures(tables)?;
    if let Ok(selection) = table(tables, select::SelectionRow::TABLE) {
        figures.push(("selection.png".to_string(), select::figure(selection)?));
    }
    Ok(figures)
}

fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let selection = table(tables, select::SelectionRow::TABLE).ok().map(|s| select::section(s, dir)).transpose()?;
    Ok(selection.into_iter().chain(dose::sections(tables, dir)?).collect())
}

impl Steer {
    /// Makes the vector, and steers by it.
    fn steered(
        &self,
        runner: &dyn Runner,
        items: &Items,
        selected: Option<Selected>,
    ) -> Result<Measured, AnalysisError> {
        let arch = &runner.model().decoder.arch;
        let made = self.made(runner, items)?;
        let mut rows: Vec<Vec<f32>> = Vec::with_capacity(items.tokens.len());
        for some in levels(items, arch) {
            let (plan, asked) = activations(self, items, some);
            let readings = runner.run(&plan)?;
            rows.extend(asked.iter().map(|of| readings[*of].values.clone()));
        }
        let vector = if runner.is_counting() { made.vectors.clone() } else { self.in_units(&made, &rows)? };
        let random = (0..usize::from(self.controls)).map(|k| random_like(&vector, runner.seed(), k));
        let vectors = std::iter::once(vector.clone()).chain(random);
        let vectors: Vectors = vectors.map(|of| of.into_iter().map(Arc::from).collect()).collect();
        let wanted = match (self.gcav, &made.classifier, vector.first()) {
            (Some(p), Some(classifier), Some(along)) if !runner.is_counting() => {
                Some(smallest(classifier, along, p, &rows)?)
            }
            _ => None,
        };
        let conditions = self.conditions(items, wanted.as_deref());
        let mut read = Vec::with_capacity(items.tokens.len());
        let mut answers: Vec<Option<Vec<Answer>>> =
            conditions.iter().map(|c| self.generates(c).then(Vec::new)).collect();
        for some in plans::batches(items, &vectors, &conditions) {
            let (plan, asked) = sweep(self, items, &vectors, &conditions, some.clone());
            let readings = runner.run(&plan)?;
            read.extend(asked.iter().map(|of_prompt| of_prompt.of(&readings)));
            for (k, answers) in answers.iter_mut().enumerate() {
                if let Some(answers) = answers {
                    answers.extend(self.answers(runner, items, &plan, (&asked, some.clone()), (k, &conditions))?);
                }
            }
        }
        Ok(Measured { selected, made, wanted, conditions, read, answers })
    }

    /// Where the vector is made and added.
    fn site(&self, arch: &Arch) -> Result<Site, AnalysisError> {
        let bad = |why: String| AnalysisError::Bad(why);
        let kind = self.site.unwrap_or(self.from.map_or(SiteKind::ResidPost, Recipe::site));
        let layer = match (kind.in_layers(), self.layer) {
            // Which is selected is known later; a middle one costs about as much.
            (true, None) if self.select.is_some() => arch.n_layers / 2,
            (true, Some(layer)) => layer,
            (false, None) => 0,
            (true, None) => {
                return Err(bad(format!("{} is missing: {kind} is in every layer; say which", param("layer"))));
            }
            (false, Some(_)) => return Err(bad(format!("{}: {kind} is in no layer; leave it out", param("layer")))),
        };
        kind.at(layer).named_in(arch).check(arch).map_err(|e| bad(e.to_string()))
    }

    /// Writes the vector, as it was made or read, for llama.cpp.
    fn write_export(
        &self,
        model: &Model,
        site: Site,
        made: &Made,
        position: Option<Position>,
    ) -> Result<(), AnalysisError> {
        let (Some(path), Some(vector)) = (&self.export, made.vectors.first()) else { return Ok(()) };
        let layer = control::layer_at(site)?;
        if layer == 0 {
            let export = param("export").is(path.display());
            tracing::warn!("{export}: llama.cpp refuses a file with a direction of layer 0");
        }
        let bytes = control::to_bytes(layer, vector, model.decoder.arch.family.name(), position);
        let bytes = bytes.map_err(|e| AnalysisError::Failed(e.to_string()))?;
        write_file(path, &bytes).map_err(|e| AnalysisError::Failed(e.to_string()))
    }

    /// The first position of a pair's prompts that may be read.
    fn earliest(&self) -> Position {
        self.select.map_or(self.vector_position, |n| Position::At(-i64::from(n)))
    }

    /// Whether it is added at positions that only the prompt has.
    fn prompt_only(&self) -> bool {
        self.from == Some(Recipe::Actadd) || matches!(self.position, Position::At(_))
    }

    /// Which prompts of the contrast are run at once.
    fn of_contrast(
        &self,
        items: &Items,
        contrast: &Contrast,
        arch: &Arch,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let longest = contrast.prompts().map(Vec::len).max().unwrap_or(0);
        let position = if self.from == Some(Recipe::Actadd) { Position::All } else { Position::Last };
        batches(contrast.prompts().count(), rows_read(&[items.site], arch, position, longest))
    }

    /// The vector: read from the file, or made.
    fn made(&self, runner: &dyn Runner, items: &Items) -> Result<Made, AnalysisError> {
        if let Some(Given { named, .. }) = &items.given {
            return Ok(Made { vectors: vec![named.vector.clone()], classifier: named.classifier() });
        }
        let (Some(recipe), Some(contrast)) = (self.from, &items.contrast) else {
            return Err(AnalysisError::Bad(format!("give {} or {}", param("vector"), param("from"))));
        };
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        let arch = &runner.model().decoder.arch;
        for some in self.of_contrast(items, contrast, arch) {
            let (plan, asked) = plans::contrast(self, contrast, items.site, some.clone());
            let readings = runner.run(&plan)?;
            for (i, of) in some.zip(asked) {
                let side = if i < contrast.positive.len() { &mut positive } else { &mut negative };
                side.extend(readings[of].rows().map(<[f32]>::to_vec));
            }
        }
        if runner.is_counting() {
            return Ok(Made { vectors: vec![vec![0.0; items.site.width(arch, 0)]], classifier: None });
        }
        make_of(recipe, &positive, &negative, contrast.groups.as_deref(), runner.seed())
    }

    /// The vector in the unit of coefficients.
    fn in_units(&self, made: &Made, levels: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, AnalysisError> {
        let lengths: Vec<f64> = levels.iter().map(|row| norm(row)).collect();
        let longest = made.vectors.iter().map(|v| norm(v)).fold(0.0, f64::max);
        if longest == 0.0 {
            return Err(AnalysisError::Bad(
                "the vector is 0: the prompts that it is made from do not differ there".to_string(),
            ));
        }
        let factor = match self.scale {
            Scale::Raw => 1.0,
            Scale::Unit => 1.0 / longest,
            Scale::Layer => mean(&lengths).unwrap_or(1.0) / longest,
        };
        Ok(made.vectors.iter().map(|v| scaled(v, factor)).collect())
    }

    /// All that is done to a prompt: for the vector, then for each random direction.
    fn conditions(&self, items: &Items, smallest: Option<&[f64]>) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for direction in 0..=usize::from(self.controls) {
            let one = |kind| Condition { kind, direction };
            conditions.extend(self.coefficients.values().iter().map(|c| one(Kind::Add(*c))));
            conditions.extend(self.ablate.then(|| one(Kind::TakeOut)));
            let each = || smallest.map_or_else(|| vec![0.0; items.tokens.len()], <[f64]>::to_vec);
            conditions.extend(self.gcav.map(|_| one(Kind::Smallest(each().into()))));
        }
        conditions
    }

    /// What is taken out is taken out of every token, whatever positions something is added at.
    fn steps(&self, kind: &Kind) -> Steps {
        let default = if self.prompt_only() && *kind != Kind::TakeOut { When::Prompt } else { When::Every };
        match self.steps.unwrap_or(default) {
            When::Every => Steps::Every,
            When::Prompt => Steps::PromptOnly,
        }
    }
}

/// Each prompt's smallest coefficient that brings the classifier's probability to `p`: at least, or at most where it is under
/// one half.
fn smallest(classifier: &Direction, along: &[f32], p: f64, levels: &[Vec<f32>]) -> Result<Vec<f64>, AnalysisError> {
    let wanted = if p >= 0.5 { Wanted::AtLeast(p) } else { Wanted::AtMost(p) };
    let one = |level: &Vec<f32>| match classifier.smallest_coefficient(level, along, wanted) {
        Ok(Some(coefficient)) => Ok(coefficient),
        Ok(None) => {
            let gcav = param("gcav");
            Err(AnalysisError::Failed(format!("{gcav}: the vector does not change its own classifier")))
        }
        Err(e) => Err(no_direction(&param("gcav"), &e)),
    };
    levels.iter().map(one).collect()
}

/// Which prompts' own activations are read at once.
fn levels(items: &Items, arch: &Arch) -> impl Iterator<Item = Range<usize>> + use<> {
    batches(items.tokens.len(), rows_read(&[items.site], arch, Position::Last, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn what_is_taken_out_is_taken_out_of_every_token_wherever_something_is_added() {
        let last = Steer { from: Some(Recipe::Caa), layer: Some(3), ablate: true, ..Steer::default() };
        let numbered = Steer { position: Position::At(5), ..last.clone() };
        let prompt = Steer { steps: Some(When::Prompt), ..last.clone() };
        assert_eq!(last.steps(&Kind::Add(1.0)), Steps::Every);
        assert_eq!(numbered.steps(&Kind::Add(1.0)), Steps::PromptOnly);
        assert_eq!(numbered.steps(&Kind::TakeOut), Steps::Every);
        assert_eq!(prompt.steps(&Kind::TakeOut), Steps::PromptOnly);
    }
}

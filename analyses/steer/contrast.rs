//! The prompts that a vector is made from: matched pairs, or two sets of which some belong together.
//!
//! They are read here; what a vector is made of their activations is left to `directions`.

use super::Steer;
use crate::analyses::directions::Recipe;
use crate::analyses::inputs::{Groups, Sources, encoded};
use crate::analyses::prelude::*;
use crate::dataset::encode::prompt_ids;
use crate::dataset::{read_pairs, read_prompts};

/// What the vector is made from, as token ids.
#[derive(Clone, Default)]
pub(super) struct Contrast {
    pub(super) positive: Vec<Vec<u32>>,
    pub(super) negative: Vec<Vec<u32>>,
    /// Which prompts belong together, the positive ones' first; none where each positive one is matched to a negative one.
    pub(super) groups: Option<Vec<usize>>,
    /// Each pair's metric, where its layer and position are selected by that.
    pub(super) metrics: Vec<Metric>,
    /// What a reader has to know of those metrics' tokens.
    pub(super) notes: Vec<String>,
}

impl Contrast {
    /// The positive prompts, then the negative ones.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &Vec<u32>> {
        self.positive.iter().chain(&self.negative)
    }

    /// The prompts that the parameters ask for; none where the vector is given.
    ///
    /// # Errors
    /// If a file is not sound, is not what the recipe needs, or a prompt does not have the vector's position.
    pub(super) fn read(params: &Steer, model: &Model, sources: &mut Sources) -> Result<Option<Self>, AnalysisError> {
        let Some(recipe) = params.from else { return Ok(None) };
        if let Some(path) = &params.pairs {
            return Contrast::of_pairs(params, recipe, path, model, sources).map(Some);
        }
        let (Some(concept), Some(random), false) = (&params.concept, &params.random, recipe.needs_pairs()) else {
            let prompts = || format!("{}, or {} and {}", param("pairs"), param("concept"), param("random"));
            let what = if recipe.needs_pairs() { param("pairs").to_string() } else { prompts() };
            return Err(AnalysisError::Bad(format!("{} needs {what}", param("from").is(recipe.name()))));
        };
        let (mut keys, mut groups) = (Groups::default(), Vec::new());
        let mut side = |path: &Data| -> Result<Vec<Vec<u32>>, AnalysisError> {
            let set = read_prompts(path)?;
            sources.push(set.source());
            let (prompts, _) = encoded(model, &set)?;
            for (item, ids) in set.items.iter().zip(&prompts) {
                let at = set.at(item.line, &item.id, "prompt");
                params.vector_position.of(ids.len()).map_err(|why| at.error(why))?;
                groups.push(keys.of(&set, item));
            }
            Ok(prompts)
        };
        let (positive, negative) = (side(concept)?, side(random)?);
        Ok(Some(Contrast { positive, negative, groups: Some(groups), ..Contrast::default() }))
    }

    fn of_pairs(
        params: &Steer,
        recipe: Recipe,
        path: &Data,
        model: &Model,
        sources: &mut Sources,
    ) -> Result<Self, AnalysisError> {
        let set = read_pairs(path)?;
        sources.push(set.source());
        if recipe == Recipe::Actadd && set.items.len() != 1 {
            let why = format!("{}: {} pairs; actadd is made from one", path.display(), set.items.len());
            return Err(AnalysisError::Bad(why));
        }
        let metrics = params.measured.metric.open(model)?;
        let earliest = params.earliest();
        let mut contrast = Contrast::default();
        if params.select.is_some() {
            contrast.notes = metrics.notes(set.items.iter().map(Into::into));
        }
        for pair in &set.items {
            let at = |field| set.at(pair.line, &pair.id, field);
            let positive = prompt_ids(model, &pair.positive, at("positive"))?;
            let negative = prompt_ids(model, &pair.negative, at("negative"))?;
            earliest.of(positive.len()).map_err(|why| at("positive").error(why))?;
            earliest.of(negative.len()).map_err(|why| at("negative").error(why))?;
            let (p, n) = (positive.len(), negative.len());
            if recipe == Recipe::Actadd && p != n {
                let why =
                    format!("has {p} tokens and the negative {n}: actadd subtracts them one by one; pad the shorter");
                return Err(at("positive").error(why).into());
            }
            if params.select.is_some() {
                contrast.metrics.push(metrics.metric(model, pair.into(), at)?);
            }
            contrast.positive.push(positive);
            contrast.negative.push(negative);
        }
        Ok(contrast)
    }
}

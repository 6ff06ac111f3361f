//! Which layers of two models compute alike? Every layer of one against every layer of the other, on the same texts.
//!
//! Rows are the residual stream after a layer: at the last token of each prompt, or wherever a token of both models ends at the same
//! place of the text, so that models of other tokenizers, widths and depths can be compared. What is measured of two layers' rows is
//! in [`crate::linear::similarity`]: debiased linear CKA, Procrustes distance, RSA. Their sources are named there.

mod places;
mod report;
mod tables;

pub use report::{Read, ends, pair};
pub use tables::LayerRow;

use super::paths::open;
use crate::analyses::inputs::{Groups, rows_read};
use crate::analyses::prelude::*;
use crate::dataset::encode::prompt_ids;
use crate::linear::similarity::LEAST_ROWS;
use places::Matched;
use std::sync::Arc;

/// Of which positions of a prompt the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Taken {
    /// Of each prompt the last token
    Last,
    /// Every place of the prompt's own text at which a token of both models ends
    Words,
}

impl Taken {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Taken::Last => "last",
            Taken::Words => "words",
        }
    }
}

parameters! {
    /// Compare every layer of a model with every layer of another, or its own, on the same texts (CKA, Procrustes, RSA)
    #[serde(default)]
    pub struct Similarity {
        ..prompts: PromptArgs;

        /// Compare with this model; its depth, width and tokenizer may be others
        with: String, [value_name = "MODEL"];

        /// Take these positions
        ///
        /// Where both models read a text as other tokens, words are the places at which a token of both ends. What a chat template
        /// adds is left out of them, and so is a model's first position, at which activations are often a hundred times as large.
        positions: Taken = Taken::Last, [value_enum];

        /// Compare this many rows at most, evenly from all; memory grows with their square, time with their cube
        rows: u32 = 1000, in 4..=5000, [value_name = "N"];
    }
}

/// The rows of both models.
pub struct Asked {
    set: Dataset<Item>,
    a: Side,
    /// None where the model is compared with itself.
    b: Option<Side>,
    /// Which prompts are left out together for an interval, for each row. \[rows\]
    groups: Vec<usize>,
    /// How many prompts have a row.
    prompts: usize,
}

/// What is read of one model.
#[derive(Default)]
struct Side {
    /// The prompts as it reads them.
    ids: Vec<Vec<u32>>,
    /// Of which positions of each prompt there are rows, ascending.
    positions: Vec<Vec<usize>>,
}

/// Of every layer the rows, one after another. `[layers][rows * d_model]`
type Layers = Vec<Vec<f32>>;

/// The rows of both models at each layer.
#[derive(Default)]
pub struct Measured {
    a: Layers,
    /// None where the model is compared with itself.
    b: Option<Layers>,
}

impl Analysis for Similarity {
    const NAME: &'static str = "similarity";
    const TITLE: &'static str = "Layers that compute alike";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let Prepared { items: Prompts { dataset: set, ids }, mut sources, mut scored } = self.prompts.encoded(model)?;
        let other = self.other(model)?;
        let other_ids = other.as_ref().map(|other| of_other(other, &set)).transpose()?;
        if let Some(other) = &other {
            sources.push((other.name.clone(), other.sample.clone()));
            scored.note(other.warnings.iter().map(|warning| format!("model `{}`: {warning}", other.name)).collect());
        }
        let (second, second_ids) = (other.as_ref().unwrap_or(model), other_ids.as_ref().unwrap_or(&ids));
        let mut matched: Vec<(usize, Matched)> = Vec::new();
        for (i, item) in set.items.iter().enumerate() {
            let of_prompt = match self.positions {
                Taken::Last => vec![Matched { a: ids[i].len() - 1, b: second_ids[i].len() - 1 }],
                Taken::Words => {
                    let at = set.at(item.line, &item.id, "prompt");
                    places::matched([model, second], &item.prompt).map_err(|e| at.error(e.to_string()))?
                }
            };
            matched.extend(of_prompt.into_iter().map(|matched| (i, matched)));
        }
        if matched.len() < LEAST_ROWS {
            let why = self.too_few(matched.len());
            return Err(AnalysisError::Bad(format!("{}: {why}", set.path.display())));
        }
        let (all, n) = (matched.len(), matched.len().min(self.rows as usize));
        let chosen: Vec<(usize, Matched)> = (0..n).map(|k| matched[k * all / n]).collect();
        let groups = left_out_together(&set, &chosen);
        let prompts = chosen.chunk_by(|a, b| a.0 == b.0).count();
        let side = |ids: Vec<Vec<u32>>, of: fn(&Matched) -> usize| {
            let mut positions = vec![Vec::new(); ids.len()];
            chosen.iter().for_each(|(i, matched)| positions[*i].push(of(matched)));
            Side { ids, positions }
        };
        let (a, b) = (side(ids, |matched| matched.a), other_ids.map(|ids| side(ids, |matched| matched.b)));
        Ok(Prepared { items: Asked { set, a, b, groups, prompts }, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let a = layers(runner, &items.set, &items.a)?;
        let Some(side) = &items.b else { return Ok(Measured { a, b: None }) };
        let model = Arc::new(open(&self.with, &runner.model().options)?);
        let b = layers(runner.beside(&model).as_ref(), &items.set, side)?;
        Ok(Measured { a, b: Some(b) })
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        Ok(tables::layers(self, about.model, items, &measured)?.into())
    }
}

impl Similarity {
    /// The other model; none where it is the same.
    fn other(&self, model: &Model) -> Result<Option<Model>, AnalysisError> {
        (self.with.trim_end_matches('/') != model.name.trim_end_matches('/'))
            .then(|| open(&self.with, &model.options))
            .transpose()
    }

    /// Why so many rows do not do.
    fn too_few(&self, n: usize) -> String {
        let more = match self.positions {
            Taken::Last => format!("add prompts, or take {}", param("positions").is(Taken::Words.name())),
            Taken::Words => "add prompts; token ids have no text in which places could be found".to_string(),
        };
        format!("{n} rows are too few to compare layers by; it takes {LEAST_ROWS}: {more}")
    }
}

/// The prompts as another model reads them.
fn of_other(model: &Model, set: &Dataset<Item>) -> Result<Vec<Vec<u32>>, AnalysisError> {
    let ids = |item: &Item| prompt_ids(model, &item.prompt, set.at(item.line, &item.id, "prompt"));
    let all = set.items.iter().map(ids).collect::<Result<_, _>>();
    all.map_err(|e| AnalysisError::Bad(format!("model `{}`: {e}", model.name)))
}

/// The most groups that are left out for an interval.
const MOST_GROUPS: usize = 20;

/// Which prompts are left out together for an interval: prompts of one group, and as many of these that there are no more than 20.
fn left_out_together(set: &Dataset<Item>, chosen: &[(usize, Matched)]) -> Vec<usize> {
    let mut known = Groups::default();
    let of_row: Vec<usize> = chosen.iter().map(|(i, _)| known.of(set, &set.items[*i])).collect();
    let all = of_row.iter().max().map_or(1, |last| last + 1);
    let most = all.min(MOST_GROUPS);
    of_row.into_iter().map(|group| group * most / all).collect()
}

/// The rows of every layer of a model.
fn layers(runner: &dyn Runner, set: &Dataset<Item>, side: &Side) -> Result<Layers, AnalysisError> {
    let arch = &runner.model().decoder.arch;
    let sites: Vec<Site> = (0..arch.n_layers).map(|layer| SiteKind::ResidPost.at(layer)).collect();
    let most = side.positions.iter().map(Vec::len).max().unwrap_or(1);
    let each = rows_read(&sites, arch, Position::All, most);
    let mut found: Layers = vec![Vec::new(); sites.len()];
    for some in batches(side.ids.len(), each) {
        let mut plan = Plan::default();
        let mut asked: Vec<Vec<Handle<Array>>> = Vec::new();
        for i in some.filter(|i| !side.positions[*i].is_empty()) {
            let run = plan.prompt(set.items[i].id.clone(), side.ids[i].clone());
            let positions = || Positions::At(side.positions[i].clone());
            let read =
                |site: &Site| plan.read(run, Activation { site: *site, positions: positions(), part: Part::All });
            asked.push(sites.iter().map(read).collect());
        }
        if asked.is_empty() {
            continue;
        }
        let readings = runner.run(&plan)?;
        for of_prompt in asked.into_iter().filter(|_| !runner.is_counting()) {
            let layers = found.iter_mut().zip(of_prompt);
            layers.for_each(|(found, handle)| found.extend_from_slice(&readings[handle].values));
        }
    }
    Ok(found)
}

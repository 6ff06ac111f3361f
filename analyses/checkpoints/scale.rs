//! What does a behaviour do as a mixture is turned up? The metric of pairs at several multiples of a recipe's coefficients.
//!
//! A mixture is a base and differences between checkpoints, each times a coefficient (task arithmetic; Ilharco et al. 2023, "Editing
//! Models with Task Arithmetic"). At scale 0 it is the base, at 1 what its recipe says, under 0 what the differences give is taken off.
//! Models are opened one after another, so that one of them is in memory beside the study's own. What is tested is the change of
//! each pair's metric against scale 0, where nothing is added.

mod report;
mod tables;

pub use tables::{PairRow, ScaleRow};

use crate::analyses::doses::Grid;
use crate::analyses::halves::{Asked, Value};
use crate::analyses::prelude::*;
use crate::model::mixture::Recipe;
use std::sync::Arc;

parameters! {
    /// Measure pairs at several scales of a mixture, whose recipe is MODEL
    #[serde(default)]
    pub struct Scale {
        ..pairs: PairArgs;

        /// Multiply the recipe's coefficients by each of these: from:to:how-many, or a list with commas
        ///
        /// 0, the base alone, is always among them.
        at: Grid = Grid::even(0.0, 1.5, 7), [allow_hyphen_values = true, value_name = "a:b:n"];
    }
}

/// The pairs as the model reads them, and the scales that they are measured at.
pub struct Items {
    pairs: Pairs,
    recipe: Recipe,
    /// Ascending, with 0 among them.
    scales: Vec<f64>,
}

/// What is read of a pair's positive and negative prompt.
type Both = [Value; 2];

impl Analysis for Scale {
    const NAME: &'static str = "scale";
    const TITLE: &'static str = "Scale of a mixture";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Items;
    /// `[scales][pairs]`
    type Measured = Vec<Vec<Both>>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Items>, AnalysisError> {
        let none = || {
            let why = "`scale` needs a recipe: give a .toml file that names a base and what is added to it";
            AnalysisError::Bad(format!("model `{}`: {why}", model.name))
        };
        let recipe = model.recipe.clone().ok_or_else(none)?;
        let scales = self.scales()?;
        for scale in &scales {
            let bad = |e| AnalysisError::Bad(format!("{}: {e}", param("at")));
            recipe.scaled(*scale).coefficients().map_err(bad)?;
        }
        Ok(self.pairs.read(model)?.map(|pairs| Items { pairs, recipe, scales }))
    }

    fn measure(&self, runner: &dyn Runner, items: &Items) -> Result<Vec<Vec<Both>>, AnalysisError> {
        let model = runner.model();
        let mut found = Vec::with_capacity(items.scales.len());
        for scale in &items.scales {
            // At 1 it is the model itself, and at any other it costs as much.
            if *scale == 1.0 || runner.is_counting() {
                found.push(values(runner, &items.pairs)?);
                continue;
            }
            let mixed = Model::open_mixture(&model.name, &items.recipe.scaled(*scale), &model.options);
            let mixed = Arc::new(mixed.map_err(|e| AnalysisError::Bad(format!("model `{}`: {e}", model.name)))?);
            found.push(values(runner.beside(&mixed).as_ref(), &items.pairs)?);
        }
        Ok(found)
    }

    fn tables(&self, about: &About, items: &Items, measured: Vec<Vec<Both>>) -> Result<Output, AnalysisError> {
        Ok(tables::tables(about, items, &measured)?.into())
    }
}

impl Scale {
    /// The scales, ascending, with that of the base.
    fn scales(&self) -> Result<Vec<f64>, AnalysisError> {
        let mut scales = self.at.values().to_vec();
        if !scales.contains(&0.0) {
            scales.push(0.0);
            scales.sort_by(f64::total_cmp);
        }
        match scales.len() {
            0 | 1 => {
                Err(AnalysisError::Bad(format!("{}: the base alone is no scale; give others than 0", param("at"))))
            }
            _ => Ok(scales),
        }
    }
}

/// The metrics of both prompts of each pair.
fn values(runner: &dyn Runner, pairs: &Pairs) -> Result<Vec<Both>, AnalysisError> {
    let mut found = Vec::with_capacity(pairs.tokens.len());
    for some in batches(pairs.tokens.len(), 2) {
        let mut plan = Plan::default();
        let asked: Vec<[Asked; 2]> = some
            .map(|i| {
                let runs = pairs.add(&mut plan, i);
                runs.map(|run| Value::ask(&mut plan, run, &pairs.tokens[i].metric))
            })
            .collect();
        let readings = runner.run(&plan)?;
        found.extend(asked.into_iter().map(|both| both.map(|asked| asked.of(&readings))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_always_among_the_scales() {
        let of = |at: &str| Scale { at: at.parse().unwrap(), ..Scale::default() }.scales();
        assert_eq!(of("1,-1").unwrap(), [-1.0, 0.0, 1.0]);
        assert_eq!(Scale::default().scales().unwrap(), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]);
        assert!(of("0").unwrap_err().to_string().contains("no scale"));
    }
}

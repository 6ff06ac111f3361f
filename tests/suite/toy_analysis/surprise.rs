//! How sure is the model of its next token? The entropy of the next-token distribution after each prompt.

use gatelens::analyses::inputs::{PromptArgs, encoded};
use gatelens::analyses::scored::Scored;
use gatelens::analyses::{About, Analysis, AnalysisError, Output, table};
use gatelens::dataset::{Dataset, Item};
use gatelens::model::Model;
use gatelens::plan::{Entropy, Plan};
use gatelens::report::Section;
use gatelens::rows;
use gatelens::study::Runner;
use gatelens::table::Table;
use gatelens::table::rows::Row;
use std::path::Path;

/// Entropy of the next token after each prompt
#[derive(Clone, Debug, clap::Args, serde::Serialize, serde::Deserialize)]
pub struct Surprise {
    #[command(flatten)]
    #[serde(flatten)]
    pub prompts: PromptArgs,
}

/// The prompts, their token ids, and what is shown of them.
pub struct Items(Dataset<Item>, Vec<Vec<u32>>, Scored);

rows! {
    /// The next token after a prompt.
    pub struct EntropyRow<'a> in "entropies" {
        id: &'a str = "the prompt",
        entropy: f64 = "entropy of the next token, nats",
    }
}

impl Analysis for Surprise {
    const NAME: &'static str = "surprise";
    const ABOUT: &'static str = "Entropy of the next token after each prompt";
    const TITLE: &'static str = "Entropy of the next token";
    type Items = Items;
    /// One a prompt, nats.
    type Measured = Vec<f64>;

    fn prepare(&self, model: &Model) -> Result<Items, AnalysisError> {
        let set = self.prompts.read()?;
        let (ids, scored) = encoded(model, &set)?;
        Ok(Items(set, ids, scored))
    }

    fn datasets(Items(set, ..): &Items) -> Vec<(String, String)> {
        vec![set.source()]
    }

    fn scored(Items(.., scored): &Items) -> &Scored {
        scored
    }

    fn measure(&self, runner: &dyn Runner, Items(set, ids, _): &Items) -> Result<Vec<f64>, AnalysisError> {
        let mut plan = Plan::default();
        let entropy = |(item, ids): (&Item, &Vec<u32>)| {
            let prompt = plan.prompt(item.id.clone(), ids.clone());
            plan.read(prompt, Entropy)
        };
        let asked: Vec<_> = set.items.iter().zip(ids).map(entropy).collect();
        let readings = runner.run(&plan)?;
        Ok(asked.into_iter().map(|entropy| readings[entropy]).collect())
    }

    fn tables(&self, _: &About, items: &Items, entropies: Vec<f64>) -> Result<Output, AnalysisError> {
        let rows = items.0.items.iter().zip(entropies);
        let rows = rows.map(|(item, entropy)| EntropyRow { id: &item.id, entropy });
        Ok(vec![EntropyRow::table(rows)?].into())
    }

    fn sections(tables: &[Table], _: &Path) -> Result<Vec<Section>, AnalysisError> {
        let rows = EntropyRow::read(table(tables, EntropyRow::TABLE)?)?;
        let largest = rows.iter().map(|row| row.entropy).fold(0.0, f64::max);
        let text = format!("The largest entropy of {} prompts is {largest:.2} nats.", rows.len());
        Ok(vec![Section::new("Entropy").paragraph(text)])
    }
}

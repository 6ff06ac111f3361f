//! How sure is the model of its next token? The entropy of the next-token distribution after each prompt.

use gatelens::analyses::inputs::{PromptArgs, encoded};
use gatelens::analyses::scored::Scored;
use gatelens::analyses::{Analysis, AnalysisError, Figures, Output, Plans, planned, table};
use gatelens::dataset::{Dataset, Item};
use gatelens::model::Model;
use gatelens::plan::{Plan, What};
use gatelens::report::Section;
use gatelens::rows;
use gatelens::session::Session;
use gatelens::table::Table;
use gatelens::table::rows::Row;
use std::path::Path;

/// Entropy of the next token after each prompt
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
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
        entropy: Option<f64> = "entropy of the next token, nats",
    }
}

impl Analysis for Surprise {
    const NAME: &'static str = "surprise";
    const ABOUT: &'static str = "Entropy of the next token after each prompt";
    const TITLE: &'static str = "Entropy of the next token";
    type Items = Items;

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

    fn plans<'a>(&'a self, _: &'a Model, Items(set, ids, _): &'a Items) -> Result<Plans<'a>, AnalysisError> {
        let mut plan = Plan::default();
        for (item, ids) in set.items.iter().zip(ids) {
            let prompt = plan.prompt(item.id.clone(), ids.clone());
            plan.read(prompt, What::Entropy);
        }
        Ok(planned([plan]))
    }

    fn compute(&self, session: &Session, items: &Items) -> Result<Output, AnalysisError> {
        let mut readings = Vec::new();
        for plan in self.plans(session.model, items)? {
            readings.extend(session.run(&plan?)?);
        }
        let rows = items.0.items.iter().zip(&readings);
        let rows = rows.map(|(item, reading)| EntropyRow { id: &item.id, entropy: reading.number() });
        Ok(vec![EntropyRow::table(rows)?].into())
    }

    fn figures(_: &[Table]) -> Result<Figures, AnalysisError> {
        Ok(Vec::new())
    }

    fn sections(tables: &[Table], _: &Path) -> Result<Vec<Section>, AnalysisError> {
        let rows = EntropyRow::read(table(tables, EntropyRow::TABLE)?)?;
        let largest = rows.iter().filter_map(|row| row.entropy).fold(0.0, f64::max);
        let text = format!("The largest entropy of {} prompts is {largest:.2} nats.", rows.len());
        Ok(vec![Section::new("Entropy").paragraph(text)])
    }
}

//! How sure is the model of its next token? The entropy of the next-token distribution after each prompt.

use gatelens::analyses::prelude::*;
use gatelens::plan::Entropy;

parameters! {
    /// Entropy of the next token after each prompt
    pub struct Surprise { ..prompts: PromptArgs; }
}

rows! {
    /// The next token after a prompt.
    pub struct EntropyRow<'a> in "entropies" {
        id: &'a str = "the prompt",
        entropy: f64 = "entropy of the next token, nats",
    }
}

impl Analysis for Surprise {
    const NAME: &'static str = "surprise";
    const TITLE: &'static str = "Entropy of the next token";
    const FROM_TABLES: FromTables = FromTables::without_figures(sections);
    type Items = Prompts;
    /// One a prompt, nats.
    type Measured = Vec<f64>;

    fn prepare(&self, model: &Model) -> Result<Prepared<Prompts>, AnalysisError> {
        self.prompts.encoded(model)
    }

    fn measure(&self, runner: &dyn Runner, prompts: &Prompts) -> Result<Vec<f64>, AnalysisError> {
        let (plan, asked) = prompts.plan(|plan, run| plan.read(run, Entropy));
        let readings = runner.run(&plan)?;
        Ok(asked.into_iter().map(|entropy| readings[entropy]).collect())
    }

    fn tables(&self, _: &About, prompts: &Prompts, entropies: Vec<f64>) -> Result<Output, AnalysisError> {
        let rows = prompts.dataset.items.iter().zip(entropies);
        Ok(EntropyRow::table(rows.map(|(item, entropy)| EntropyRow { id: &item.id, entropy }))?.into())
    }
}

fn sections(tables: &[Table], _: &Path) -> Result<Vec<Section>, AnalysisError> {
    let rows = EntropyRow::read(table(tables, EntropyRow::TABLE)?)?;
    let largest = rows.iter().map(|row| row.entropy).fold(0.0, f64::max);
    let text = format!("The largest entropy of {} prompts is {largest:.2} nats.", rows.len());
    Ok(vec![Section::new("Entropy").paragraph(text)])
}

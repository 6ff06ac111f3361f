//! Do neurons know which of several statements is true? A vote of a few of them, without training (TruthV), beside the log-likelihood
//! of the statements and a linear probe.
//!
//! An item has candidates of which one is true. Each neuron *chooses* the candidate over whose own tokens its mean activation is largest,
//! or, turned round, smallest. On a few labelled items the neurons that are right most often are found, in either sense; on the
//! others they vote. Topics tell whether what was found is truth or a topic: each is held out once, with neurons from the others.
//! After "TruthV: Truthfulness from value vectors" and the voting scheme of NoVo (Ho et al. 2024, "NoVo: Norm Voting off Hallucinations
//! with Attention Heads in Large Language Models").

mod items;
mod report;
mod tables;
mod votes;

pub use report::named;
pub use tables::AccuracyRow;

use super::neurons::{Layer, Neuron, layers_of};
use crate::analyses::prelude::*;
use crate::model::decoder::Decoder;
use crate::plan::Reading;
use crate::study::Gather;
use crate::study::session::SessionError;
use items::Question;

parameters! {
    /// Let neurons vote on which statement is true, beside log-likelihood and a probe
    #[serde(default)]
    pub struct Truth {
        /// Read items from this file, JSON Lines: {"stem", "candidates", "true", "id"?, "topic"?}
        items: Data, [value_name = "FILE"];

        /// Find the neurons on this many labelled items
        labelled: u16 = 32, in 4..=10_000, [value_name = "N"];

        /// Let this many neurons vote
        voters: u16 = 64, in 1..=10_000, [value_name = "K"];
    }
}

/// Items as the model reads them.
pub struct Asked {
    questions: Vec<Question>,
    layers: Vec<Layer>,
}

/// What a candidate came to.
#[derive(Clone, Debug, Default)]
pub struct OfCandidate {
    /// The mean of every neuron over its own tokens, layer by layer.
    acts: Vec<f32>,
    /// The residual stream after each layer at its last token. `[layers][d_model]`
    stream: Vec<f32>,
    /// The log-probability of its own tokens, nats.
    likelihood: f64,
    /// How many tokens are its own.
    own: usize,
}

/// `[questions][candidates]`
pub type Measured = Vec<Vec<OfCandidate>>;

impl Analysis for Truth {
    const NAME: &'static str = "truth";
    const TITLE: &'static str = "Which statement is true";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let arch = &model.decoder.arch;
        let layers = layers_of(0..arch.n_layers, arch).map_err(AnalysisError::Bad)?;
        let (questions, sources, scored) = items::read(&self.items, model)?;
        let needed = usize::from(self.labelled) + 2;
        if questions.len() < needed {
            let why = format!(
                "has {} items; {} to find neurons by and 2 to test them are {needed}: add items, or label fewer with {}",
                questions.len(),
                self.labelled,
                param("labelled"),
            );
            return Err(AnalysisError::Bad(format!("{}: {why}", self.items.display())));
        }
        Ok(Prepared { items: Asked { questions, layers }, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let decoder = &runner.model().decoder;
        let arch = &decoder.arch;
        let all: Vec<(usize, usize)> = items
            .questions
            .iter()
            .enumerate()
            .flat_map(|(q, question)| (0..question.candidates.len()).map(move |c| (q, c)))
            .collect();
        let longest = all.iter().map(|(q, c)| items.questions[*q].candidates[*c].ids.len()).max().unwrap_or(1);
        let neurons: usize = items.layers.iter().map(|layer| layer.width).sum();
        let each = longest * neurons.div_ceil(1024) + (arch.n_layers * arch.d_model).div_ceil(1024);
        let mut found: Measured = items.questions.iter().map(|_| Vec::new()).collect();
        for some in batches(all.len(), each) {
            let mut plan = Plan::default();
            let asked: Vec<OfRun> = all[some.clone()].iter().map(|of| items.ask(&mut plan, decoder, *of)).collect();
            let mut means = Means { asked: &asked, made: Vec::new() };
            let readings = runner.gather(&[plan], "truth: means over own tokens", &mut means)?;
            for (i, (q, c)) in all[some].iter().enumerate() {
                let own = items.questions[*q].candidates[*c].own();
                let of = |k: usize| readings.get(2 * i + k).cloned().map(Reading::into_values).unwrap_or_default();
                let (acts, mut stream) = (of(0), of(1));
                let likelihood = stream.pop().map_or(0.0, f64::from);
                found[*q].push(OfCandidate { acts, stream, likelihood, own });
            }
        }
        Ok(found)
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        let arch = &about.loaded.decoder.arch;
        let names: Vec<Neuron> = items.layers.iter().flat_map(|layer| layer.neurons()).collect();
        let splits = votes::splits(&items.questions, usize::from(self.labelled), about.seed);
        let results: Vec<votes::Result> = splits
            .iter()
            .map(|split| votes::result(self, items, &measured, split, arch.d_model))
            .collect::<Result<_, _>>()?;
        Ok(tables::tables(about, items, &names, &splits, &results)?.into())
    }
}

/// What is read of a candidate's run.
struct OfRun {
    acts: Vec<Handle<Array>>,
    stream: Vec<Handle<Array>>,
    likelihood: Handle<f64>,
}

impl Asked {
    fn ask(&self, plan: &mut Plan, decoder: &Decoder, (q, c): (usize, usize)) -> OfRun {
        let question = &self.questions[q];
        let candidate = &question.candidates[c];
        let run = plan.prompt(format!("{}, candidate {c}", question.id), candidate.ids.clone());
        let own = Positions::At((candidate.from..candidate.ids.len()).collect());
        let mut read =
            |site: Site, positions: Positions| plan.read(run, Activation { site, positions, part: Part::All });
        let acts = self.layers.iter().map(|layer| read(SiteKind::MlpAct.at(layer.layer), own.clone())).collect();
        let layers = 0..decoder.arch.n_layers;
        let stream = layers.map(|layer| read(SiteKind::ResidPost.at(layer), Positions::Last)).collect();
        let likelihood = plan.read(run, Metric::Continuation { from: candidate.from });
        OfRun { acts, stream, likelihood }
    }
}

/// Keeps means over own tokens, and the streams with the likelihood after them.
struct Means<'a> {
    asked: &'a [OfRun],
    made: Vec<Reading>,
}

impl Gather for Means<'_> {
    fn take(&mut self, _: usize, readings: &Readings) -> Result<(), SessionError> {
        for of in self.asked {
            let mut acts = Vec::new();
            for handle in &of.acts {
                acts.extend(super::summary::mean_row(readings[*handle].rows()));
            }
            let mut stream: Vec<f32> = of.stream.iter().flat_map(|handle| &readings[*handle].values).copied().collect();
            stream.push(readings[of.likelihood] as f32);
            for values in [acts, stream] {
                self.made.push(Reading::Array(Array { shape: vec![values.len()], values }));
            }
        }
        Ok(())
    }

    fn made(&self) -> usize {
        2 * self.asked.len()
    }

    fn finish(&mut self) -> Vec<Reading> {
        std::mem::take(&mut self.made)
    }
}

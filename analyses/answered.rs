//! Generated answers and their classes.
//!
//! Which runs go on, and what becomes of the answers, is left to the analyses; the rules are [`crate::answers`]'.

use super::AnalysisError;
use crate::answers::{Class, Rules};
use crate::dataset::{Input, Item, Pair};
use crate::model::Model;
use crate::plan::{Plan, Run};
use crate::run::{Generated, Generation, Sampling, Steps};
use crate::session::Session;

/// A generated answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub class: Class,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Whether it ended by itself.
    pub stopped: bool,
}

/// Answers to items, one each, with their classes.
///
/// # Errors
/// If the model has no tokenizer.
fn answers(
    model: &Model,
    rules: &Rules,
    items: &[Item],
    generated: &[Generated],
) -> Result<Vec<Answer>, AnalysisError> {
    let tokenizer = model.tokenizer().map_err(|e| AnalysisError::Bad(e.to_string()))?;
    let one = |(item, generated): (&Item, &Generated)| {
        let text = tokenizer.decode_generated(&generated.ids).map_err(|e| AnalysisError::Failed(e.to_string()))?;
        let verdict = rules.classify(&text, item.lang.as_deref(), &item.facts);
        Ok(Answer { text, class: verdict.class, rule: verdict.rule, stopped: generated.stopped })
    };
    items.iter().zip(generated).map(one).collect()
}

/// The share of answers of a class; none of none.
pub fn share(answers: &[&Answer], class: Class) -> Option<f64> {
    let of = answers.iter().filter(|a| a.class == class).count();
    (!answers.is_empty()).then(|| of as f64 / answers.len() as f64)
}

/// The shares of [`Class::ALL`].
pub fn shares(answers: &[&Answer]) -> Vec<Option<f64>> {
    Class::ALL.iter().map(|class| share(answers, *class)).collect()
}

/// Continues runs of a plan greedily; see [`sampled`].
///
/// # Errors
/// As [`sampled`].
pub fn continued(
    session: &Session,
    plan: &Plan,
    runs: Vec<Run>,
    much: (u32, Steps),
    asked: &[Item],
) -> Result<(Vec<Generated>, Vec<Answer>), AnalysisError> {
    sampled(session, plan, runs, much, Sampling::Greedy, asked)
}

/// Continues runs of a plan by up to `tokens` tokens, and classifies what each came to; `asked` says what runs answer.
///
/// # Errors
/// If the runs cannot go on, or the model has no tokenizer.
pub fn sampled(
    session: &Session,
    plan: &Plan,
    runs: Vec<Run>,
    (tokens, steps): (u32, Steps),
    sampling: Sampling,
    asked: &[Item],
) -> Result<(Vec<Generated>, Vec<Answer>), AnalysisError> {
    let rules = Rules::builtin().map_err(|e| AnalysisError::Failed(e.to_string()))?;
    let stop = session.model.stop_tokens().to_vec();
    let generation = Generation { runs, max_tokens: tokens as usize, sampling, steps, stop };
    let generated = session.generate(plan, &generation)?;
    let answers = answers(session.model, &rules, asked, &generated)?;
    Ok((generated, answers))
}

/// One prompt of a pair as an item of its own.
pub fn item_of(pair: &Pair, prompt: &Input) -> Item {
    Item {
        line: pair.line,
        id: pair.id.clone(),
        prompt: prompt.clone(),
        label: None,
        group: pair.group.clone(),
        lang: pair.lang.clone(),
        answer: pair.answer.clone(),
        foil: pair.foil.clone(),
        facts: Vec::new(),
    }
}

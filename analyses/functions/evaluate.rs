//! Prompts with and without vectors: is the right output the likeliest?

use super::{Asked, Functions};
use crate::analyses::prelude::*;
use crate::plan::{LogProbs, Rank};
use std::sync::Arc;

/// A vector added after a layer, or after several from it on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    pub layer: usize,
    pub coefficient: f32,
    /// 0 for the function vector, then random ones.
    pub vector: usize,
}

/// How likely the right output is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// 1 where it is the likeliest token.
    pub rank: f64,
    pub logprob: f64,
}

impl Said {
    pub fn right(self) -> bool {
        self.rank == 1.0
    }
}

/// What was read.
#[derive(Default)]
pub struct Evaluated {
    /// Those of the function vector.
    pub conditions: Vec<Condition>,
    /// `[words held out][after right examples, after shuffled ones]`
    pub shown: Vec<[Said; 2]>,
    /// `[forms][words: held out, then for training][without a vector, then each condition]`
    pub alone: Vec<Vec<Vec<Said>>>,
    /// The condition of each form that was chosen by the words for training, by its number.
    pub chosen: Vec<usize>,
    /// Random heads, with the coefficient that was chosen: `[forms]`, conditions and `[words held out][each condition]`
    pub random: Vec<(Vec<Condition>, Vec<Vec<Said>>)>,
}

struct Handles {
    rank: Handle<f64>,
    logprob: Handle<Array>,
}

fn ask(plan: &mut Plan, run: Run, token: u32) -> Handles {
    Handles { rank: plan.read(run, Rank(token)), logprob: plan.read(run, LogProbs { tokens: vec![token] }) }
}

impl Handles {
    fn of(&self, readings: &Readings) -> Said {
        Said { rank: readings[self.rank], logprob: f64::from(readings[self.logprob].values[0]) }
    }
}

/// Runs all prompts: with the function vector under all conditions, with random ones under those of the coefficient that serves best.
pub(super) fn evaluate(
    runner: &dyn Runner,
    items: &Asked,
    of: &Functions,
    vectors: &[Arc<[f32]>],
) -> Result<Evaluated, AnalysisError> {
    let each = |layer: &usize| {
        of.coefficient.iter().map(|c| Condition { layer: *layer, coefficient: *c, vector: 0 }).collect()
    };
    let conditions: Vec<Condition> = items.layers.iter().flat_map(|layer| -> Vec<Condition> { each(layer) }).collect();
    let mut found = Evaluated { conditions: conditions.clone(), ..Evaluated::default() };
    for some in batches(items.shown.len(), 2) {
        let mut plan = Plan::default();
        let asked: Vec<[Handles; 2]> = some
            .map(|i| {
                let token = items.words.held_out[i].token;
                [0, 1].map(|k| {
                    let run = plan.prompt(format!("word {i}, with examples"), items.shown[i][k].clone());
                    ask(&mut plan, run, token)
                })
            })
            .collect();
        let readings = runner.run(&plan)?;
        found.shown.extend(asked.iter().map(|both| both.each_ref().map(|handles| handles.of(&readings))));
    }
    let held_out = items.words.held_out.len();
    for prompts in &items.alone {
        let spread = usize::from(of.spread);
        let said = added(runner, items, prompts, &conditions, vectors, spread)?;
        let chosen = if runner.is_counting() { 0 } else { best(&said[held_out..], conditions.len()) };
        let coefficient = conditions.get(chosen).map_or(1.0, |condition| condition.coefficient);
        let random: Vec<Condition> = items
            .layers
            .iter()
            .flat_map(|layer| (1..vectors.len()).map(|vector| Condition { layer: *layer, coefficient, vector }))
            .collect();
        let of_random = added(runner, items, &prompts[..held_out], &random, vectors, spread)?;
        let without_base = of_random.into_iter().map(|said| said[1..].to_vec()).collect();
        found.random.push((random, without_base));
        found.alone.push(said);
        found.chosen.push(chosen);
    }
    Ok(found)
}

/// What words come to without a vector, then under each condition.
fn added(
    runner: &dyn Runner,
    items: &Asked,
    prompts: &[Vec<u32>],
    conditions: &[Condition],
    vectors: &[Arc<[f32]>],
    spread: usize,
) -> Result<Vec<Vec<Said>>, AnalysisError> {
    let n_layers = runner.model().decoder.arch.n_layers;
    let tokens: Vec<u32> = items.words.held_out.iter().chain(&items.words.training).map(|word| word.token).collect();
    let mut found = Vec::with_capacity(prompts.len());
    for some in batches(prompts.len(), conditions.len() * spread) {
        let mut plan = Plan::default();
        let asked: Vec<Vec<Handles>> = some
            .map(|i| {
                let run = plan.prompt(format!("word {i}"), prompts[i].clone());
                let mut handles = vec![ask(&mut plan, run, tokens[i])];
                for condition in conditions {
                    let edit = |layer: usize| Edit {
                        site: SiteKind::ResidPost.at(layer),
                        part: Part::All,
                        positions: Positions::Last,
                        change: Change::Add {
                            vector: vectors[condition.vector].clone(),
                            coefficient: condition.coefficient,
                        },
                    };
                    let layers = condition.layer..n_layers.min(condition.layer + spread);
                    let fork = plan.fork(run, layers.map(edit).collect());
                    handles.push(ask(&mut plan, fork, tokens[i]));
                }
                handles
            })
            .collect();
        let readings = runner.run(&plan)?;
        found.extend(asked.iter().map(|of| of.iter().map(|handles| handles.of(&readings)).collect()));
    }
    Ok(found)
}

/// The number of the condition under which most words are right; of several, that under which they are likeliest.
fn best(words: &[Vec<Said>], conditions: usize) -> usize {
    let score = |c: usize| -> (usize, f64) {
        let of = || words.iter().map(|said| said[c + 1]);
        (of().filter(|said| said.right()).count(), of().map(|said| said.logprob).sum())
    };
    let better = |a: usize, b: usize| {
        let (of_a, of_b) = (score(a), score(b));
        if of_b.0 > of_a.0 || (of_b.0 == of_a.0 && of_b.1 > of_a.1) { b } else { a }
    };
    (0..conditions).reduce(better).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_condition_has_most_words_right_and_then_the_likeliest() {
        let said = |rank: f64, logprob: f64| Said { rank, logprob };
        let none = said(9.0, -9.0);
        let words = vec![
            vec![none, said(1.0, -1.0), said(1.0, -0.5), said(3.0, -0.1)],
            vec![none, said(2.0, -1.0), said(2.0, -0.5), said(3.0, -0.1)],
        ];
        assert_eq!(best(&words, 3), 1);
        assert_eq!(best(&[], 3), 0);
    }
}

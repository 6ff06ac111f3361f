//! Cross-validation: of a penalty's strength, and of a method's accuracy.

use super::direction::Tally;
use super::dual::{Dual, Gram, Problem};
use super::folds::{self, Split};
use super::{Examples, LinearError, Method, Options, Strength, logistic};
use crate::stats::{Interval, rng};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The strengths that are tried, the strongest first: each fit starts from the one before.
const STRENGTHS: [f64; 7] = [10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5];

/// The strength for some examples (`rows`).
pub fn strength(gram: &Gram, rows: &[usize], options: &Options) -> Result<f64, LinearError> {
    let folds = match options.strength {
        Strength::Fixed(value) if value > 0.0 && value.is_finite() => return Ok(value),
        Strength::Fixed(value) => {
            return Err(LinearError::Option { what: "the strength", value, expected: "a number above 0" });
        }
        // The mean difference does not have one.
        _ if options.method == Method::MeanDifference => return Ok(1.0),
        Strength::CrossValidated { folds } => folds,
    };
    let splits = splits(gram.examples, rows, folds, options.seed, "strength")?;
    let of_fold = |split: &Split| held_out_losses(gram, split, options.method);
    let losses: Vec<[f64; STRENGTHS.len()]> = splits.par_iter().map(of_fold).collect::<Result<_, _>>()?;
    let mut best = (f64::INFINITY, STRENGTHS[0]);
    for (i, strength) in STRENGTHS.into_iter().enumerate() {
        let loss = losses.iter().map(|fold| fold[i]).sum::<f64>();
        // Less by more than rounding, or the stronger stays.
        if loss < best.0 * (1.0 - 1e-9) {
            best = (loss, strength);
        }
    }
    Ok(best.1)
}

fn splits(
    examples: &Examples,
    rows: &[usize],
    folds: usize,
    seed: u64,
    stream: &str,
) -> Result<Vec<Split>, LinearError> {
    if folds < 2 {
        return Err(LinearError::Option { what: "the number of folds", value: folds as f64, expected: "2 or more" });
    }
    folds::assign(examples, rows, folds, &mut rng(seed, stream))
}

/// The loss of a fold's held-out examples at each strength.
fn held_out_losses(gram: &Gram, split: &Split, method: Method) -> Result<[f64; STRENGTHS.len()], LinearError> {
    let problem = Problem::new(gram, &split.train);
    let mut losses = [0.0; STRENGTHS.len()];
    let mut previous = None;
    for (total, strength) in losses.iter_mut().zip(STRENGTHS) {
        let solution = problem.solve(method, strength, previous.as_ref())?;
        let dual = problem.in_gram(solution.clone());
        *total = split.test.iter().map(|i| loss(method, gram.label(*i) * dual.decision(gram, *i))).sum();
        previous = Some(solution);
    }
    Ok(losses)
}

/// What a method minimises, of a margin.
fn loss(method: Method, margin: f64) -> f64 {
    match method {
        Method::Logistic => logistic::loss(margin),
        Method::Svm => (1.0 - margin).max(0.0),
        Method::Ridge | Method::MeanDifference => (1.0 - margin).powi(2),
    }
}

/// The accuracy on held-out examples: of a split into `folds` parts, each held out once, the mean of the two sides' shares on
/// the right side of the boundary. Chance is one half, however many examples each side has.
///
/// Groups stay together, and a strength that is cross-validated is chosen anew from each fold's training examples, so
/// that nothing about a held-out example is known. There are fewer folds where a side has fewer groups.
///
/// # Errors
/// If a side has fewer than two groups, or fewer than three where a strength is chosen, as that splits what a fold leaves
/// once more; or an option is out of its range.
pub fn cross_validated_accuracy(examples: &Examples, options: &Options, folds: usize) -> Result<f64, LinearError> {
    Ok(held_out(examples, options, folds)?.accuracy)
}

/// A method's accuracy on held-out examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOut {
    /// As [`cross_validated_accuracy`] has it.
    pub accuracy: f64,
    /// Its 95 % interval over examples, of which those of one group are not independent; `None` where there is but one group.
    pub interval: Option<Interval>,
}

/// [`cross_validated_accuracy`] with its interval: that of half the sum of two shares, by Wilson's interval of each side (Zou and
/// Donner 2008, as Newcombe's of a difference), each for as many independent examples as the spread between groups says that there
/// are (the design effect of Rao and Scott 1992, not under 1).
///
/// # Errors
/// As for [`cross_validated_accuracy`].
pub fn held_out(examples: &Examples, options: &Options, folds: usize) -> Result<HeldOut, LinearError> {
    let gram = Gram::new(examples);
    let rows: Vec<usize> = (0..examples.len()).collect();
    let of_split = |split: &Split| -> Result<Vec<(usize, f64)>, LinearError> {
        let dual = learn(&gram, &split.train, options).map_err(|e| of_all(e, examples, &rows))?;
        Ok(split.test.iter().map(|i| (*i, dual.decision(&gram, *i))).collect())
    };
    let all = splits(examples, &rows, folds, options.seed, "accuracy 0")?;
    let decided: Vec<Vec<(usize, f64)>> = all.par_iter().map(of_split).collect::<Result<_, _>>()?;
    let decided = decided.concat();
    let tally = decided.iter().map(|(i, decision)| (gram.label(*i), *decision)).collect::<Tally>();
    let mut groups: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for (i, decision) in &decided {
        groups.entry(examples.group(*i)).or_default().push((gram.label(*i), *decision));
    }
    let groups: Vec<Tally> = groups.into_values().map(|of| of.into_iter().collect()).collect();
    Ok(HeldOut { accuracy: tally.accuracy(), interval: tally.interval(&groups) })
}

/// What a fold's training examples lack, said of all: they were one group more.
fn of_all(error: LinearError, examples: &Examples, rows: &[usize]) -> LinearError {
    match error {
        LinearError::TooFewGroups { side, .. } => {
            LinearError::TooFewGroups { side, found: folds::groups_of(examples, rows, side), needed: 3 }
        }
        other => other,
    }
}

fn learn(gram: &Gram, rows: &[usize], options: &Options) -> Result<Dual, LinearError> {
    let strength = strength(gram, rows, options)?;
    let problem = Problem::new(gram, rows);
    let solution = problem.solve(options.method, strength, None)?;
    Ok(problem.in_gram(solution))
}

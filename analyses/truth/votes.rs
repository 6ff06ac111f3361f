//! Who says which candidate is true: voting neurons, the likelihood, a probe.

use super::items::Question;
use super::{Asked, Measured, OfCandidate, Truth};
use crate::analyses::prelude::*;
use crate::linear::{Direction, Examples, Options, cross_validated_accuracy, fit};
use crate::stats::rng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

/// The items that neurons are found by, and those that they are tested on.
pub struct Split {
    /// The topic that was held out; none where items of all topics are on both sides.
    pub topic: Option<String>,
    pub labelled: Vec<usize>,
    pub test: Vec<usize>,
}

/// The ways of choosing, in the order of tables.
pub const METHODS: [&str; 4] = ["neurons", "likelihood", "likelihood_per_token", "probe"];

/// Each topic held out once where there are several with enough other items; and all of them mixed.
pub fn splits(questions: &[Question], labelled: usize, seed: u64) -> Vec<Split> {
    let mut topics: Vec<&str> = questions.iter().filter_map(|question| question.topic.as_deref()).collect();
    topics.sort_unstable();
    topics.dedup();
    let drawn = |mut from: Vec<usize>, name: &str| -> (Vec<usize>, Vec<usize>) {
        from.shuffle(&mut rng(seed, &format!("truth.{name}")));
        let rest = from.split_off(labelled.min(from.len()));
        (from, rest)
    };
    let mut found = Vec::new();
    for topic in topics.iter().filter(|_| topics.len() > 1) {
        let of = |own: bool| -> Vec<usize> {
            (0..questions.len()).filter(|q| (questions[*q].topic.as_deref() == Some(*topic)) == own).collect()
        };
        let (others, test) = (of(false), of(true));
        if others.len() >= labelled && !test.is_empty() {
            let (labelled, _) = drawn(others, topic);
            found.push(Split { topic: Some((*topic).to_string()), labelled, test });
        }
    }
    let (labelled, test) = drawn((0..questions.len()).collect(), "all topics");
    found.push(Split { topic: None, labelled, test });
    found
}

/// A neuron that votes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Voter {
    /// Its number among all neurons.
    pub neuron: usize,
    /// 1 where it chooses the largest mean, -1 where the smallest.
    pub sign: f32,
    /// How many labelled items it was right on, and how many of the others.
    pub labelled: usize,
    pub test: usize,
}

/// What each method chose.
pub struct Result {
    /// For each method, the candidate of each item of the test.
    pub chosen: [Vec<usize>; 4],
    pub voters: Vec<Voter>,
    /// The layer of the probe.
    pub layer: usize,
}

/// The candidate with the largest score; of equal ones the first.
fn largest(scores: impl Iterator<Item = f64>) -> usize {
    scores.enumerate().fold((0, f64::NEG_INFINITY), |best, (i, x)| if x > best.1 { (i, x) } else { best }).0
}

/// The candidate with a larger score than all others; none where several share it: neurons of an expert that no candidate chose are
/// 0 for all.
fn largest_alone(scores: impl Iterator<Item = f64>) -> Option<usize> {
    let all: Vec<f64> = scores.collect();
    let best = largest(all.iter().copied());
    (all.iter().filter(|x| Some(*x) == all.get(best)).count() == 1).then_some(best)
}

/// Finds neurons and a probe by the labelled items, and has all methods choose on the others.
///
/// # Errors
/// If no probe can be fitted.
pub fn result(
    of: &Truth,
    items: &Asked,
    measured: &Measured,
    split: &Split,
    d_model: usize,
) -> std::result::Result<Result, AnalysisError> {
    let neurons = measured.first().and_then(|candidates| candidates.first()).map_or(0, |of| of.acts.len());
    let right = |q: usize| items.questions[q].right;
    let choice = |q: usize, neuron: usize, sign: f32| -> Option<usize> {
        largest_alone(measured[q].iter().map(|of| f64::from(sign * of.acts[neuron])))
    };
    let hits = |some: &[usize], neuron: usize, sign: f32| {
        some.iter().filter(|q| choice(**q, neuron, sign) == Some(right(**q))).count()
    };
    let mut ranked: Vec<(usize, usize, f32)> = (0..neurons)
        .into_par_iter()
        .flat_map_iter(|neuron| [1f32, -1.0].map(move |sign| (neuron, sign)))
        .map(|(neuron, sign)| (hits(&split.labelled, neuron, sign), neuron, sign))
        .collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(b.2.total_cmp(&a.2)));
    ranked.truncate(usize::from(of.voters));
    let voters: Vec<Voter> = ranked
        .into_iter()
        .map(|(labelled, neuron, sign)| Voter { neuron, sign, labelled, test: hits(&split.test, neuron, sign) })
        .collect();
    // Where votes are equal, activations in units of their deviation over the labelled candidates decide.
    let standard: Vec<(f64, f64)> = voters
        .iter()
        .map(|voter| {
            let all = split.labelled.iter().flat_map(|q| &measured[*q]);
            let all: Vec<f64> = all.map(|of| f64::from(of.acts[voter.neuron])).collect();
            let sd = crate::analyses::summary::sd(&all).filter(|sd| *sd > 0.0).unwrap_or(1.0);
            (mean(&all).unwrap_or(0.0), sd)
        })
        .collect();
    let vote = |q: usize| -> usize {
        let mut votes = vec![0usize; measured[q].len()];
        let chosen = voters.iter().filter_map(|voter| choice(q, voter.neuron, voter.sign));
        chosen.for_each(|c| votes[c] += 1);
        let most = votes.iter().copied().max().unwrap_or(0);
        let sum = |candidate: &OfCandidate| -> f64 {
            let each = voters.iter().zip(&standard).map(|(voter, (mean, sd))| {
                f64::from(voter.sign) * (f64::from(candidate.acts[voter.neuron]) - mean) / sd
            });
            each.sum()
        };
        let score = |c: usize| if votes[c] == most { sum(&measured[q][c]) } else { f64::NEG_INFINITY };
        largest((0..votes.len()).map(score))
    };
    let (probe, layer) = probe(items, measured, split, d_model)?;
    let decided = |q: usize| -> std::result::Result<usize, AnalysisError> {
        let of = |candidate: &OfCandidate| probe.decision(&candidate.stream[layer * d_model..(layer + 1) * d_model]);
        let scores = measured[q].iter().map(of).collect::<std::result::Result<Vec<f64>, _>>();
        Ok(largest(scores.map_err(|e| AnalysisError::Failed(e.to_string()))?.into_iter()))
    };
    let test = || split.test.iter().copied();
    let likelihood = |per_token: bool| {
        let score = move |of: &OfCandidate| of.likelihood / if per_token { of.own as f64 } else { 1.0 };
        test().map(|q| largest(measured[q].iter().map(score))).collect()
    };
    let chosen = [
        test().map(vote).collect(),
        likelihood(false),
        likelihood(true),
        test().map(decided).collect::<std::result::Result<_, _>>()?,
    ];
    Ok(Result { chosen, voters, layer })
}

/// The folds by which the probe's layer is chosen.
const FOLDS: usize = 4;

/// A logistic probe between true and false candidates of the labelled items, after the layer at which folds of these are told apart
/// best; of equal ones the last.
fn probe(
    items: &Asked,
    measured: &Measured,
    split: &Split,
    d_model: usize,
) -> std::result::Result<(Direction, usize), AnalysisError> {
    let failed = |e: crate::linear::LinearError| AnalysisError::Failed(format!("the probe: {e}"));
    let layers = measured.first().and_then(|c| c.first()).map_or(1, |of| of.stream.len() / d_model.max(1)).max(1);
    let examples = |layer: usize| {
        let rows = |wanted: bool| -> Vec<Vec<f32>> {
            let each = split.labelled.iter().flat_map(|q| {
                let right = items.questions[*q].right;
                measured[*q].iter().enumerate().filter(move |(c, _)| (*c == right) == wanted).map(|(_, of)| of)
            });
            each.map(|of| of.stream[layer * d_model..(layer + 1) * d_model].to_vec()).collect()
        };
        Examples::new(&rows(true), &rows(false))
    };
    let scored: Vec<(f64, usize)> = (0..layers)
        .into_par_iter()
        .map(|layer| {
            let examples = examples(layer).map_err(failed)?;
            Ok((cross_validated_accuracy(&examples, &Options::default(), FOLDS).map_err(failed)?, layer))
        })
        .collect::<std::result::Result<_, AnalysisError>>()?;
    let best = scored.into_iter().max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map_or(0, |(_, layer)| layer);
    Ok((fit(&examples(best).map_err(failed)?, &Options::default()).map_err(failed)?, best))
}

#[cfg(test)]
mod tests {
    use super::super::items::Candidate;
    use super::*;
    use crate::analyses::neurons::Layer;
    use crate::model::tests::tiny_arch;

    fn question(i: usize, topic: &str, right: usize) -> Question {
        let candidate = || Candidate { text: String::new(), ids: vec![0, 1], from: 1 };
        Question {
            id: i.to_string(),
            topic: Some(topic.to_string()),
            candidates: vec![candidate(), candidate()],
            right,
        }
    }

    /// Neuron 0 is high on the truth, neuron 1 low, neuron 2 is noise; the stream's one number tells too.
    fn measured(questions: &[Question]) -> Measured {
        let of = |q: usize, c: usize| {
            let truth = if questions[q].right == c { 1.0 } else { -1.0 };
            let noise = ((q * 7 + c * 3) % 5) as f32;
            let acts = vec![truth + 0.1 * noise, -truth, noise];
            OfCandidate { acts, stream: vec![noise, truth], likelihood: f64::from(-noise), own: 1 + c }
        };
        (0..questions.len()).map(|q| vec![of(q, 0), of(q, 1)]).collect()
    }

    #[test]
    fn neurons_that_know_are_found_in_either_sense_and_outvote_others() {
        let questions: Vec<Question> =
            (0..30).map(|i| question(i, if i % 3 == 0 { "a" } else { "b" }, (i * 5 / 2) % 2)).collect();
        let measured = measured(&questions);
        let items = Asked { questions, layers: vec![Layer::of(&tiny_arch(), 0).unwrap()] };
        let truth = Truth { labelled: 8, voters: 2, ..Truth::default() };
        let splits = splits(&items.questions, 8, 0);
        let topics: Vec<Option<&str>> = splits.iter().map(|split| split.topic.as_deref()).collect();
        assert_eq!(topics, [Some("a"), Some("b"), None]);
        for split in &splits {
            assert!(split.labelled.iter().all(|q| !split.test.contains(q)) && split.labelled.len() == 8);
            if let Some(topic) = &split.topic {
                assert!(split.test.iter().all(|q| items.questions[*q].topic.as_ref() == Some(topic)));
                assert!(split.labelled.iter().all(|q| items.questions[*q].topic.as_ref() != Some(topic)));
            }
            let result = result(&truth, &items, &measured, split, 1).unwrap();
            let right: Vec<usize> = split.test.iter().map(|q| items.questions[*q].right).collect();
            assert_eq!((&result.chosen[0], &result.chosen[3]), (&right, &right));
            assert_eq!(result.layer, 1, "the first layer is noise");
            let voters: Vec<(usize, f32)> = result.voters.iter().map(|voter| (voter.neuron, voter.sign)).collect();
            assert_eq!(voters, [(0, 1.0), (1, -1.0)]);
            assert!(result.voters.iter().all(|voter| voter.test == right.len() && voter.labelled == 8));
            assert_ne!(result.chosen[1], right, "the likelihood is noise here");
        }
    }

    #[test]
    fn a_neuron_that_is_equal_for_the_best_candidates_chooses_none() {
        let chosen = |scores: &[f64]| largest_alone(scores.iter().copied());
        assert_eq!([chosen(&[0.0, -0.0]), chosen(&[1.0, 2.0, 2.0]), chosen(&[])], [None; 3]);
        assert_eq!([chosen(&[3.0, 2.0, 2.0]), chosen(&[-1.0, 0.0])], [Some(0), Some(1)]);
    }

    #[test]
    fn equal_votes_are_decided_by_activations() {
        let questions: Vec<Question> = (0..12).map(|i| question(i, "a", i % 2)).collect();
        // Both neurons are right on all labelled items, and disagree on the last one: the first speaks louder.
        let mut measured: Measured = questions
            .iter()
            .map(|q| {
                let of = |c: usize| {
                    let truth = if q.right == c { 1.0f32 } else { -1.0 };
                    OfCandidate { acts: vec![truth, truth], stream: vec![truth], likelihood: 0.0, own: 1 }
                };
                vec![of(0), of(1)]
            })
            .collect();
        measured[11][0].acts = vec![-9.0, 0.2];
        measured[11][1].acts = vec![9.0, 0.1];
        let items = Asked { questions, layers: vec![Layer::of(&tiny_arch(), 0).unwrap()] };
        let truth = Truth { labelled: 11, voters: 2, ..Truth::default() };
        let split = Split { topic: None, labelled: (0..11).collect(), test: vec![11] };
        assert_eq!(result(&truth, &items, &measured, &split, 1).unwrap().chosen[0], [1]);
    }
}

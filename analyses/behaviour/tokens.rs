//! Which first tokens tell a refusal from an answer, and how well some do.
//!
//! From which prompts they are chosen, and on which judged, is [`super::found`]'s.

use crate::stats::{Interval, auc, auc_interval};
use std::collections::BTreeMap;

/// One prompt as it is shown to a choice: the logits of the candidate tokens at its last position, its class, and what it may be compared with.
pub(super) struct Shown {
    /// One a candidate.
    pub logits: Vec<f64>,
    /// The candidate that its answer begins with, if that is one.
    pub first: Option<usize>,
    /// Whether it shows the behaviour.
    pub positive: bool,
    /// Prompts are compared within a language alone: a language's own tokens do not tell its classes apart.
    pub stratum: usize,
}

/// Tokens of the behaviour and of its absence, as numbers of candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chosen {
    pub answer: Vec<usize>,
    pub foil: Vec<usize>,
}

/// A gain of separation that is worth a token.
const WORTH: f64 = 0.002;

/// Prompts of its class that a token begins at least: what begins one answer is that answer's own word.
const SUPPORT: usize = 3;

/// How well tokens separate, within strata, in the mean over them by their prompts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    /// Area under the ROC curve.
    pub area: f64,
    /// Mean of the shares of both classes whose difference is on its own side of 0.
    balanced: f64,
    /// Gap of the means in standard deviations.
    gap: f64,
}

impl Score {
    /// What is sought: tokens that order the prompts and are in balance, so that 0 means undecided.
    fn worth(self) -> f64 {
        // Equal ones must be equal to the bit for the gap to decide.
        (0.5 * (self.area + self.balanced) * 1e6).round() / 1e6
    }

    fn above(self, other: Score) -> bool {
        (self.worth(), self.gap) > (other.worth(), other.gap)
    }
}

impl Chosen {
    /// `logsumexp(answer) - logsumexp(foil)`.
    pub fn difference(&self, logits: &[f64]) -> f64 {
        logsumexp(self.answer.iter().map(|t| logits[*t])) - logsumexp(self.foil.iter().map(|t| logits[*t]))
    }

    /// The best pair of tokens, and then, one at a time, whichever token of either side adds most, up to `most` a side; and
    /// whether one side's tokens are scarce (see [`begun`]). None where no pair separates.
    pub fn choose(shown: &[&Shown], candidates: usize, most: usize) -> Option<(Chosen, bool)> {
        let ((answers, few), (foils, few_foils)) = (begun(shown, candidates, true), begun(shown, candidates, false));
        let scarce = few || few_foils;
        let pairs = answers.iter().flat_map(|a| foils.iter().map(move |f| (*a, *f)));
        let pair = |(a, f): (usize, usize)| Chosen { answer: vec![a], foil: vec![f] };
        let (mut best, mut score) = strongest(pairs.map(pair), shown)?;
        if score.area <= 0.5 {
            return None;
        }
        loop {
            let wider = best.wider(&answers, &foils, most);
            match strongest(wider.into_iter(), shown) {
                Some((wider, higher)) if higher.worth() > score.worth() + WORTH => (best, score) = (wider, higher),
                _ => return Some((best, scarce)),
            }
        }
    }

    /// With one token more, on either side that has room.
    fn wider(&self, answers: &[usize], foils: &[usize], most: usize) -> Vec<Chosen> {
        let more = |own: &[usize], all: &[usize]| -> Vec<Vec<usize>> {
            let room = own.len() < most;
            all.iter().filter(|t| room && !own.contains(t)).map(|t| [own, &[*t]].concat()).collect()
        };
        let answer = more(&self.answer, answers).into_iter().map(|answer| Chosen { answer, foil: self.foil.clone() });
        let foil = more(&self.foil, foils).into_iter().map(|foil| Chosen { answer: self.answer.clone(), foil });
        answer.chain(foil).collect()
    }

    /// Each prompt's difference.
    pub fn judged(&self, shown: &[&Shown]) -> Vec<Judged> {
        let one =
            |s: &&Shown| Judged { stratum: s.stratum, positive: s.positive, difference: self.difference(&s.logits) };
        shown.iter().map(one).collect()
    }
}

/// A prompt by its logit difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    /// What it may be compared with.
    pub stratum: usize,
    pub positive: bool,
    pub difference: f64,
}

/// The tokens that may stand for a class: those that begin it more often than the other, and three of its prompts or more; what
/// separates without being said is an accident of the half. Where none begins three, those that begin the most, and true.
fn begun(shown: &[&Shown], candidates: usize, class: bool) -> (Vec<usize>, bool) {
    let begins = |token: usize, positive: bool| {
        let of = shown.iter().filter(|s| s.positive == positive);
        (of.clone().filter(|s| s.first == Some(token)).count(), of.count().max(1))
    };
    let share = |token: usize, positive: bool| {
        let (some, all) = begins(token, positive);
        some as f64 / all as f64
    };
    let more: Vec<usize> = (0..candidates).filter(|t| share(*t, class) > share(*t, !class)).collect();
    let largest = more.iter().map(|t| begins(*t, class).0).max().unwrap_or(0);
    let enough = SUPPORT.min(largest);
    (more.into_iter().filter(|t| begins(*t, class).0 >= enough).collect(), enough < SUPPORT)
}

/// The best of several by [`separation`]; the first of equals.
fn strongest(all: impl Iterator<Item = Chosen>, shown: &[&Shown]) -> Option<(Chosen, Score)> {
    let mut best: Option<(Chosen, Score)> = None;
    for chosen in all {
        let Some(score) = separation(&chosen.judged(shown)) else { continue };
        if best.as_ref().is_none_or(|(_, most)| score.above(*most)) {
            best = Some((chosen, score));
        }
    }
    best
}

/// Differences of each stratum: of prompts that show the behaviour, and of those that do not.
fn strata(judged: &[Judged]) -> impl Iterator<Item = [Vec<f64>; 2]> {
    let mut strata: BTreeMap<usize, [Vec<f64>; 2]> = BTreeMap::new();
    for prompt in judged {
        strata.entry(prompt.stratum).or_default()[usize::from(!prompt.positive)].push(prompt.difference);
    }
    strata.into_values()
}

/// How well differences separate within each stratum, weighted by its prompts. None where no stratum has both classes.
pub(super) fn separation(judged: &[Judged]) -> Option<Score> {
    let (mut area, mut balanced, mut gap, mut weight) = (0.0, 0.0, 0.0, 0.0);
    for [positive, negative] in strata(judged) {
        let Some(here) = auc(&positive, &negative) else { continue };
        let n = (positive.len() + negative.len()) as f64;
        area += n * here;
        let right = |of: &[f64], side: bool| of.iter().filter(|d| (**d > 0.0) == side).count() as f64 / of.len() as f64;
        balanced += n * 0.5 * (right(&positive, true) + right(&negative, false));
        gap += n * standardised(&positive, &negative);
        weight += n;
    }
    (weight > 0.0).then(|| Score { area: area / weight, balanced: balanced / weight, gap: gap / weight })
}

/// The area under the curve as [`separation`] has it, with its 95 % interval: Newcombe's in each stratum, and of their weighted
/// mean by variance estimates recovered from those (Zou and Donner 2008). None where no stratum has both classes.
pub(super) fn area(judged: &[Judged]) -> Option<(f64, Interval)> {
    let of_stratum = |[positive, negative]: [Vec<f64>; 2]| {
        let area = auc(&positive, &negative)?;
        let interval = auc_interval(area, positive.len(), negative.len())?;
        Some(((positive.len() + negative.len()) as f64, area, interval))
    };
    let each: Vec<(f64, f64, Interval)> = strata(judged).filter_map(of_stratum).collect();
    let all: f64 = each.iter().map(|(n, ..)| n).sum();
    if each.is_empty() {
        return None;
    }
    let mean = each.iter().map(|(n, area, _)| n / all * area).sum::<f64>();
    let reach = |end: fn(&Interval) -> f64| {
        each.iter().map(|(n, area, interval)| (n / all * (area - end(interval))).powi(2)).sum::<f64>().sqrt()
    };
    let (low, high) = (mean - reach(|i| i.low), mean + reach(|i| i.high));
    Some((mean, Interval { low: low.max(0.0), high: high.min(1.0) }))
}

/// The difference of means over the root of the mean variance.
fn standardised(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let variance = |x: &[f64]| x.iter().map(|v| (v - mean(x)).powi(2)).sum::<f64>() / x.len() as f64;
    (mean(a) - mean(b)) / (0.5 * (variance(a) + variance(b))).sqrt().max(1e-9)
}

fn logsumexp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if most.is_finite() { most + x.map(|v| (v - most).exp()).sum::<f64>().ln() } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two languages; token 0 leads refusals of the first, 1 of the second, 2 answers of both, 3 tells the languages apart.
    fn shown() -> Vec<Shown> {
        let one = |i: usize| {
            let (positive, stratum) = (i.is_multiple_of(2), (i / 2) % 2);
            let noise = |k: usize| ((i * 7 + k * 13) % 11) as f64 * 0.05;
            let leads = |on: bool| if on { 5.0 } else { 0.0 };
            let logits = vec![
                leads(positive && stratum == 0) + noise(0),
                leads(positive && stratum == 1) + noise(1),
                leads(!positive) + noise(2),
                leads(stratum == 1) + noise(3),
            ];
            let first = Some(if !positive { 2 } else { stratum });
            Shown { logits, first, positive, stratum }
        };
        (0..40).map(one).collect()
    }

    #[test]
    fn tokens_that_separate_within_each_language_are_chosen() {
        let all = shown();
        let (chosen, scarce) = Chosen::choose(&all.iter().collect::<Vec<_>>(), 4, 3).unwrap();
        assert!(!scarce);
        assert_eq!(chosen.foil, [2]);
        // Token 3 begins nothing.
        assert_eq!(chosen.answer.iter().copied().collect::<std::collections::BTreeSet<_>>(), [0, 1].into());
        let score = separation(&chosen.judged(&all.iter().collect::<Vec<_>>())).unwrap();
        assert!(score.area > 0.999 && score.balanced > 0.9, "{score:?}");
    }

    /// Twelve prompts of each class. The refusals' own token 0 is a weak sign; 1 and 2 part the classes best, and begin one
    /// answer each; 3 begins the other answers.
    fn with_accidents() -> Vec<Shown> {
        let one = |i: usize| {
            let positive = i.is_multiple_of(2);
            let weak = if positive { [1.0, 0.2, 0.6][i % 3] } else { [0.0, 0.4, 0.1][i % 3] };
            let strong = if positive { 0.0 } else { 5.0 };
            let first = match i {
                _ if positive => 0,
                1 => 1,
                3 => 2,
                _ => 3,
            };
            Shown { logits: vec![weak, strong, strong, -weak], first: Some(first), positive, stratum: 0 }
        };
        (0..24).map(one).collect()
    }

    #[test]
    fn a_token_that_begins_a_single_prompt_is_no_token_of_its_class() {
        let all = with_accidents();
        let (chosen, scarce) = Chosen::choose(&all.iter().collect::<Vec<_>>(), 4, 3).unwrap();
        assert_eq!((chosen, scarce), (Chosen { answer: vec![0], foil: vec![3] }, false));
    }

    #[test]
    fn where_no_token_begins_three_prompts_those_that_begin_most_do_and_it_is_said() {
        let mut all = with_accidents();
        // Two answers begin with 3 now, the others with what is no candidate.
        all.iter_mut().filter(|s| s.first == Some(3)).skip(2).for_each(|s| s.first = None);
        let (chosen, scarce) = Chosen::choose(&all.iter().collect::<Vec<_>>(), 4, 3).unwrap();
        assert_eq!((chosen, scarce), (Chosen { answer: vec![0], foil: vec![3] }, true));
    }

    #[test]
    fn one_class_alone_separates_nothing() {
        let all: Vec<Shown> = shown().into_iter().filter(|s| s.positive).collect();
        assert_eq!(Chosen::choose(&all.iter().collect::<Vec<_>>(), 4, 3), None);
    }

    /// Refusals and answers of so many strata whose differences overlap.
    fn overlapping(refusals: usize, strata: usize) -> Vec<Judged> {
        let one = |i: usize| {
            let positive = i < refusals;
            Judged { stratum: i % strata, positive, difference: ((i * 7) % 11) as f64 + f64::from(u8::from(positive)) }
        };
        (0..90).map(one).collect()
    }

    #[test]
    fn few_refusals_among_many_answers_have_an_interval_and_none_have_none() {
        let few = overlapping(8, 3);
        let (mean, found) = area(&few).unwrap();
        assert_eq!(mean, separation(&few).unwrap().area);
        assert!(found.low < mean && mean < found.high && found.high - found.low > 0.1, "{found:?} around {mean}");
        assert_eq!((area(&overlapping(0, 3)), area(&overlapping(90, 3))), (None, None));
    }

    #[test]
    fn the_interval_of_one_stratum_is_newcombes_and_of_two_equal_ones_narrower_by_the_root_of_two() {
        let one = overlapping(20, 1);
        let (mean, interval) = area(&one).unwrap();
        assert_eq!(Some(interval), auc_interval(mean, 20, 70));
        let twice: Vec<Judged> = (0..2).flat_map(|stratum| one.iter().map(move |j| Judged { stratum, ..*j })).collect();
        let (same, narrower) = area(&twice).unwrap();
        assert!((same - mean).abs() < 1e-12);
        assert!(
            ((mean - interval.low) / (mean - narrower.low) - 2f64.sqrt()).abs() < 1e-9,
            "{narrower:?} in {interval:?}"
        );
    }

    #[test]
    fn the_difference_is_that_of_logsumexps() {
        let chosen = Chosen { answer: vec![0, 1], foil: vec![2] };
        assert!((chosen.difference(&[0.0, 0.0, 0.0]) - 2f64.ln()).abs() < 1e-12);
    }
}

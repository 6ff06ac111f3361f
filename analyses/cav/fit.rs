//! CAVs of examples: those of all of them with their held-out accuracy, those of TCAV's runs, and how often a metric rises
//! along the latter.
//!
//! Which examples are in which run is `sets`' business, where activations and gradients come from the analysis'.

use super::Items;
use super::sets::Sets;
use crate::analyses::directions::no_direction;
use crate::analyses::prelude::*;
use crate::linear::{self, Direction, Examples, HeldOut, LinearError, Method, Strength};
use crate::ops::vectors::{cosine, dot};
use rayon::prelude::*;

/// Folds of held-out accuracy.
const FOLDS: usize = 5;

/// One site and method.
pub(super) struct At<'a> {
    pub(super) items: &'a Items,
    /// Activations: the concept's examples, then the random ones.
    pub(super) rows: &'a [Vec<f32>],
    pub(super) site: Site,
    pub(super) method: Method,
    pub(super) seed: u64,
}

/// What was found at one site by one method.
pub(super) struct Found {
    pub(super) site: Site,
    pub(super) method: Method,
    /// None where the two sets are the same: nothing is there.
    pub(super) direction: Option<Direction>,
    /// Of held-out examples, each side counting half; one half, without an interval, where nothing is there.
    pub(super) accuracy: HeldOut,
    pub(super) cosine: Option<f64>,
    pub(super) runs: Runs,
    /// One a class.
    pub(super) tcav: Vec<Tcav>,
}

/// The CAVs of TCAV's runs: the concept's and random ones; none where two sets do not differ.
#[derive(Default)]
pub(super) struct Runs {
    concept: Vec<Option<Direction>>,
    random: Vec<Option<Direction>>,
}

/// Scores of a class, one a run: of the concept's CAVs and of random ones.
pub(super) struct Tcav {
    pub(super) concept: Vec<f64>,
    pub(super) random: Vec<f64>,
}

impl At<'_> {
    pub(super) fn find(&self, sets: Option<&Sets>) -> Result<Found, AnalysisError> {
        let n = self.items.concept.len();
        let groups: Vec<usize> = self.items.examples().map(|e| e.group).collect();
        let failed = |e: LinearError| no_direction(&self.site, &e);
        let examples = Examples::grouped(&self.rows[..n], &self.rows[n..], &groups).map_err(failed)?;
        let options = linear::Options { method: self.method, seed: self.seed, ..linear::Options::default() };
        let direction = present(linear::fit(&examples, &options)).map_err(failed)?;
        let nothing = HeldOut { accuracy: 0.5, interval: None };
        let accuracy = match &direction {
            None => nothing,
            Some(_) => present(linear::held_out(&examples, &options, FOLDS)).map_err(failed)?.unwrap_or(nothing),
        };
        let strength = direction.as_ref().and_then(|d| d.strength).map_or(options.strength, Strength::Fixed);
        let options = linear::Options { strength, ..options };
        let cosine = direction.as_ref().and_then(|d| cosine(&d.vector, &examples.mean_difference()));
        let runs = sets.map(|sets| Runs::fit(self.rows, n, sets, &options)).transpose().map_err(failed)?;
        let runs = runs.unwrap_or_default();
        Ok(Found { site: self.site, method: self.method, direction, accuracy, cosine, runs, tcav: Vec::new() })
    }
}

impl Runs {
    /// `rows` are the activations of the `n` examples of the concept, then of the random ones.
    fn fit(rows: &[Vec<f32>], n: usize, sets: &Sets, options: &linear::Options) -> Result<Self, LinearError> {
        let of = |indices: &[usize], from: usize| indices.iter().map(|i| &rows[from + i]).collect::<Vec<_>>();
        let fitted = |[positive, negative]: &[Vec<usize>; 2], from: usize| {
            present(linear::fit(&Examples::new(&of(positive, from), &of(negative, n))?, options))
        };
        let fit_all = |runs: &[[Vec<usize>; 2]], from: usize| {
            runs.par_iter().map(|run| fitted(run, from)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Runs { concept: fit_all(&sets.concept, 0)?, random: fit_all(&sets.random, n)? })
    }

    /// Scores of no prompts as yet.
    pub(super) fn unscored(&self) -> Tcav {
        Tcav { concept: vec![0.0; self.concept.len()], random: vec![0.0; self.random.len()] }
    }

    /// Counts the runs along whose CAV the metric rises, by its gradient. One that does not change at all counts half.
    pub(super) fn count(&self, gradient: &[f32], tcav: &mut Tcav) {
        for (cavs, counts) in [(&self.concept, &mut tcav.concept), (&self.random, &mut tcav.random)] {
            for (cav, count) in cavs.iter().zip(counts) {
                *count += cav.as_ref().map_or(0.5, |cav| rises(&cav.vector, gradient));
            }
        }
    }
}

impl Tcav {
    /// The shares that counts over `n` prompts are.
    pub(super) fn shares(mut self, n: usize) -> Self {
        self.concept.iter_mut().chain(&mut self.random).for_each(|count| *count /= n as f64);
        self
    }
}

/// Two sets that do not differ have no direction between them; that is a finding, not an error.
fn present<T>(found: Result<T, LinearError>) -> Result<Option<T>, LinearError> {
    match found {
        Err(LinearError::NoDifference(_)) => Ok(None),
        found => found.map(Some),
    }
}

/// 1 where a metric with this gradient rises along a vector, 0 where it falls.
fn rises(vector: &[f32], gradient: &[f32]) -> f64 {
    match dot(gradient, vector) {
        d if d > 0.0 => 1.0,
        d if d < 0.0 => 0.0,
        _ => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{self, welch};
    use rand::Rng;
    use rand_distr::StandardNormal;

    fn normal(rng: &mut impl Rng, n: usize, d: usize) -> Vec<Vec<f32>> {
        (0..n).map(|_| (0..d).map(|_| rng.sample(StandardNormal)).collect()).collect()
    }

    /// Of many concepts that are drawn as the random examples are, how many are significant at 5 %? Examples have a group's
    /// part of this size and one of their own.
    fn significant(concept: &[usize], random: &[usize], of_group: f32) -> usize {
        let mut rng = stats::rng(0, "test.tcav");
        let d = 12;
        let options = linear::Options { method: Method::MeanDifference, ..linear::Options::default() };
        let groups = [concept, random].concat();
        let mut significant = 0;
        for k in 0..CONCEPTS {
            let shared = normal(&mut rng, groups.iter().max().unwrap() + 1, d);
            let mut rows = normal(&mut rng, groups.len(), d);
            for (row, group) in rows.iter_mut().zip(&groups) {
                row.iter_mut().zip(&shared[*group]).for_each(|(x, shared)| *x += of_group * shared);
            }
            // Gradients that agree with each other, as those of one metric do.
            let common = normal(&mut rng, 1, d).remove(0);
            let slopes = normal(&mut rng, 30, d).into_iter();
            let slopes: Vec<Vec<f32>> = slopes.map(|g| g.iter().zip(&common).map(|(g, c)| g + c).collect()).collect();
            let sets = Sets::draw(10, concept, random, k as u64).unwrap();
            let runs = Runs::fit(&rows, concept.len(), &sets, &options).unwrap();
            let mut found = runs.unscored();
            slopes.iter().for_each(|gradient| runs.count(gradient, &mut found));
            significant += usize::from(welch(&found.concept, &found.random).is_some_and(|p| p < 0.05));
        }
        significant
    }

    const CONCEPTS: usize = 600;

    /// 5 % of 600 is 30, with a standard deviation of 5.3: within three of them.
    const BY_CHANCE: std::ops::RangeInclusive<usize> = 14..=46;

    #[test]
    fn a_random_concept_is_significant_in_five_percent_of_cases() {
        let alone: Vec<usize> = (0..40 + 120).collect();
        let found = significant(&alone[..40], &alone[40..], 0.0);
        assert!(BY_CHANCE.contains(&found), "{found} of {CONCEPTS}");
    }

    #[test]
    fn a_random_concept_of_few_topics_is_significant_in_five_percent_of_cases_too() {
        let of_topics = |topics: std::ops::Range<usize>| topics.flat_map(|t| [t; 5]).collect::<Vec<_>>();
        let found = significant(&of_topics(0..8), &of_topics(8..32), 1.0);
        assert!(BY_CHANCE.contains(&found), "{found} of {CONCEPTS}");
    }

    #[test]
    fn a_score_is_the_share_of_gradients_that_rise() {
        let slopes: [&[f32]; 4] = [&[1.0, 0.0], &[-1.0, 0.0], &[2.0, 5.0], &[0.0, 1.0]];
        let vector = vec![1.0, 0.0];
        let cav = Direction { method: Method::MeanDifference, vector, bias: 0.0, strength: None };
        let runs = Runs { concept: vec![Some(cav), None], random: Vec::new() };
        let mut found = runs.unscored();
        slopes.iter().for_each(|gradient| runs.count(gradient, &mut found));
        assert_eq!(found.shares(4).concept, [(1.0 + 0.0 + 1.0 + 0.5) / 4.0, 0.5]);
    }
}

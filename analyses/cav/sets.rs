//! Which examples are in which of TCAV's runs.

use crate::analyses::AnalysisError;
use crate::stats;
use rand::seq::SliceRandom;

/// The least examples of a side of a run's CAV.
const LEAST: usize = 3;

/// The disjoint sets of TCAV's runs: indices of examples.
pub(super) struct Sets {
    /// Examples a side.
    pub(super) size: usize,
    /// Of each run: a part of the concept, and a random set against it.
    pub(super) concept: Vec<(Vec<usize>, Vec<usize>)>,
    /// Of each run: two random sets.
    pub(super) random: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Sets {
    /// As many runs as were asked for, or as the examples reach for.
    pub(super) fn draw(runs: usize, n: usize, pool: usize, seed: u64) -> Result<Self, AnalysisError> {
        let size = |runs: usize| (n / runs).min(pool / (3 * runs));
        let runs = (3..=runs).rev().find(|r| size(*r) >= LEAST);
        let Some(runs) = runs else {
            return Err(AnalysisError::Bad(format!(
                "TCAV's test needs three runs of {LEAST} examples a side at least, none used twice: {} of the concept and {} \
                 random ones; there are {n} and {pool}",
                3 * LEAST,
                9 * LEAST
            )));
        };
        let mut rng = stats::rng(seed, "cav.sets");
        let mut shuffled = |n: usize| {
            let mut all: Vec<usize> = (0..n).collect();
            all.shuffle(&mut rng);
            all
        };
        let (concept, random) = (shuffled(n), shuffled(pool));
        let size = size(runs);
        let part = |of: &[usize], k: usize| of[k * size..(k + 1) * size].to_vec();
        Ok(Sets {
            size,
            concept: (0..runs).map(|r| (part(&concept, r), part(&random, r))).collect(),
            random: (0..runs).map(|r| (part(&random, runs + 2 * r), part(&random, runs + 2 * r + 1))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_example_is_in_two_sets() {
        let sets = Sets::draw(10, 33, 95, 7).unwrap();
        assert_eq!((sets.size, sets.concept.len(), sets.random.len()), (3, 10, 10));
        let mut concept: Vec<usize> = sets.concept.iter().flat_map(|s| s.0.clone()).collect();
        let mut random: Vec<usize> = sets
            .concept
            .iter()
            .map(|s| &s.1)
            .chain(sets.random.iter().flat_map(|s| [&s.0, &s.1]))
            .flatten()
            .copied()
            .collect();
        for all in [&mut concept, &mut random] {
            let before = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), before);
        }
        assert_eq!(random.len(), 90);
    }

    #[test]
    fn too_few_examples_are_said() {
        assert_eq!(Sets::draw(10, 9, 27, 0).unwrap().concept.len(), 3);
        let why = Sets::draw(10, 8, 27, 0).err().unwrap().to_string();
        assert!(why.contains("9 of the concept and 27 random ones; there are 8 and 27"), "{why}");
    }
}

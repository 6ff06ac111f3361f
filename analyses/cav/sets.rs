//! Which examples are in which of TCAV's runs.
//!
//! A test that compares runs takes them as independent: no example is in two, and no group of examples either, where groups
//! reach for that. Fitting the runs' CAVs is `fit`'s business.

use crate::analyses::prelude::*;
use crate::stats;
use rand::seq::SliceRandom;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The least examples of a side of a run's CAV.
const LEAST: usize = 3;

/// The least runs of a kind: of fewer, all scores are too often alike by chance.
pub(super) const LEAST_RUNS: usize = 5;

/// The disjoint sets of TCAV's runs: indices of examples.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    /// Examples a side.
    pub(super) size: usize,
    /// Whether no group is in two runs.
    pub(super) whole_groups: bool,
    /// Of each run: a part of the concept, and a random set against it.
    pub(super) concept: Vec<Group>,
    /// Of each run: two random sets.
    pub(super) random: Vec<Group>,
}

impl Sets {
    /// As many runs as were asked for, or as the examples reach for, of which `concept` and `random` are the groups. Groups
    /// are dealt out whole if they reach for the least number of runs, and else example by example. Whether there are enough
    /// does not depend on the seed.
    pub(super) fn draw(runs: usize, concept: &[usize], random: &[usize], seed: u64) -> Result<Self, AnalysisError> {
        let (n, pool) = (concept.len(), random.len());
        let most = runs.min(n / LEAST).min(pool / (3 * LEAST));
        let dealt = |concept: &[usize], random: &[usize]| {
            (LEAST_RUNS..=most).rev().find_map(|runs| deal(runs, concept, random, seed))
        };
        if let Some(sets) = dealt(concept, random) {
            return Ok(Sets { whole_groups: true, ..sets });
        }
        let alone: Vec<usize> = (0..n + pool).collect();
        dealt(&alone[..n], &alone[n..]).ok_or_else(|| {
            AnalysisError::Bad(format!(
                "{}: TCAV's test needs {LEAST_RUNS} runs of {LEAST} examples a side at least, none used twice: {} of the \
                 concept and {} random ones; there are {n} and {pool}",
                param("class"),
                LEAST_RUNS * LEAST,
                LEAST_RUNS * 3 * LEAST
            ))
        })
    }
}

/// A group's examples: of the concept, and random ones.
type Group = [Vec<usize>; 2];

/// Deals groups out whole; none if a set would have too few examples.
fn deal(runs: usize, concept: &[usize], random: &[usize], seed: u64) -> Option<Sets> {
    let mut rng = stats::rng(seed, "cav.sets");
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for (side, members) in [concept, random].into_iter().enumerate() {
        members.iter().enumerate().for_each(|(i, group)| groups.entry(*group).or_default()[side].push(i));
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.shuffle(&mut rng);
    // The largest first: small ones fill up what large ones leave uneven. Whether groups of both sides, of which either side
    // can be used, are better dealt before those of random examples alone or after them depends on how many there are.
    let orders = [true, false].map(|first| {
        let mut groups = groups.clone();
        groups.sort_by_key(|[own, others]| (own.is_empty() == first, Reverse(own.len()), Reverse(others.len())));
        in_order(runs, groups)
    });
    let mut sets = orders.into_iter().reduce(|a, b| if b.size > a.size { b } else { a }).filter(|s| s.size >= LEAST)?;
    for set in sets.concept.iter_mut().chain(&mut sets.random).flatten() {
        set.shuffle(&mut rng);
        set.truncate(sets.size);
    }
    Some(sets)
}

/// Deals groups out one by one, each to where there is least.
fn in_order(runs: usize, groups: Vec<Group>) -> Sets {
    let mut concept = vec![Group::default(); runs];
    let mut random = vec![Group::default(); runs];
    for [own, others] in groups {
        let side = usize::from(own.is_empty());
        let run = concept.iter_mut().min_by_key(|run| run[side].len());
        let set = random.iter_mut().flatten().min_by_key(|set| set.len());
        let (Some(run), Some(set)) = (run, set) else { break };
        // A group of both sides goes to one run's concept and to the random set against it.
        if others.is_empty() || run[side].len() <= set.len() {
            run[0].extend(own);
            run[1].extend(others);
        } else {
            set.extend(others);
        }
    }
    let size = concept.iter().chain(&random).flatten().map(Vec::len).min().unwrap_or(0);
    Sets { size, whole_groups: false, concept, random }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many groups of so many examples, numbered from `first` on.
    fn grouped(first: usize, groups: usize, of_each: usize) -> Vec<usize> {
        (0..groups * of_each).map(|i| first + i / of_each).collect()
    }

    /// The groups of each run's examples; of a random run and of a concept's.
    fn groups_of_runs(sets: &Sets, concept: &[usize], random: &[usize]) -> Vec<Vec<usize>> {
        let of = |set: &[usize], groups: &[usize]| set.iter().map(|i| groups[*i]).collect::<Vec<_>>();
        let concepts = sets.concept.iter().map(|[a, b]| [of(a, concept), of(b, random)].concat());
        concepts.chain(sets.random.iter().map(|[a, b]| [of(a, random), of(b, random)].concat())).collect()
    }

    fn in_one_run_alone(mut runs: Vec<Vec<usize>>) -> bool {
        runs.iter_mut().for_each(|groups| {
            groups.sort_unstable();
            groups.dedup();
        });
        let mut all = runs.concat();
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        all.len() == before
    }

    #[test]
    fn no_example_is_in_two_sets() {
        let alone: Vec<usize> = (0..33 + 95).collect();
        let (concept, random) = alone.split_at(33);
        let sets = Sets::draw(10, concept, random, 7).unwrap();
        assert_eq!((sets.size, sets.concept.len(), sets.random.len(), sets.whole_groups), (3, 10, 10, true));
        let each =
            |sets: &[[Vec<usize>; 2]], side: usize| sets.iter().flat_map(|s| s[side].clone()).collect::<Vec<_>>();
        let of_random = [each(&sets.concept, 1), each(&sets.random, 0), each(&sets.random, 1)].concat();
        for (mut all, n) in [(each(&sets.concept, 0), 30), (of_random, 90)] {
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), n);
        }
    }

    #[test]
    fn no_group_is_in_two_runs_where_groups_reach() {
        // Concepts and random examples of groups of their own; and groups of both, some random ones beside them.
        let own = (grouped(0, 8, 5), grouped(100, 24, 5));
        let both = (grouped(0, 24, 4), [grouped(0, 24, 4), grouped(100, 6, 4)].concat());
        // Matched pairs, with many random examples beside them.
        let pairs = (grouped(0, 40, 1), [grouped(0, 40, 1), grouped(100, 120, 1)].concat());
        for ((concept, random), runs) in [(own, 8), (both, 10), (pairs, 10)] {
            let sets = Sets::draw(10, &concept, &random, 3).unwrap();
            assert!(sets.whole_groups && sets.concept.len() == runs, "{} runs of {}", sets.concept.len(), sets.size);
            assert!(in_one_run_alone(groups_of_runs(&sets, &concept, &random)));
        }
    }

    #[test]
    fn examples_are_dealt_out_by_themselves_where_groups_do_not_reach_and_that_is_known() {
        let (concept, random) = (grouped(0, 8, 15), grouped(0, 8, 15));
        let sets = Sets::draw(10, &concept, &random, 3).unwrap();
        assert_eq!((sets.whole_groups, sets.concept.len(), sets.size), (false, 10, 4));
        assert!(!in_one_run_alone(groups_of_runs(&sets, &concept, &random)));
    }

    #[test]
    fn too_few_examples_are_said() {
        let draw = |n, pool| Sets::draw(10, &grouped(0, n, 1), &grouped(1000, pool, 1), 0);
        assert_eq!(draw(15, 45).unwrap().concept.len(), 5);
        let why = draw(14, 45).err().unwrap().to_string();
        assert!(why.contains("15 of the concept and 45 random ones; there are 14 and 45"), "{why}");
    }
}

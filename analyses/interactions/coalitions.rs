//! Sets of heads that are exchanged together: which are run, and in which order.
//!
//! A set is a number with a bit a head. The first head, by layer, has the highest bit, so that sets in ascending order that begin with
//! the same heads stand together, and those that are cut off for a plan of their own share what they begin with.

use super::shapley::Way;
use crate::stats;
use rand::seq::SliceRandom;
use std::collections::BTreeSet;

/// The layers of the heads, ascending.
pub(super) struct Layout {
    layers: Vec<usize>,
}

impl Layout {
    /// Of heads by layer.
    pub fn of(layers: impl Iterator<Item = usize>) -> Self {
        Layout { layers: layers.collect() }
    }

    /// How many heads there are.
    pub fn heads(&self) -> usize {
        self.layers.len()
    }

    /// The set of one head.
    pub fn head(&self, k: usize) -> u64 {
        1 << (self.heads() - 1 - k)
    }

    /// The set of all heads.
    pub fn all(&self) -> u64 {
        (0..self.heads()).fold(0, |set, k| set | self.head(k))
    }

    /// The heads of a set, by their numbers.
    pub fn members(&self, set: u64) -> impl Iterator<Item = usize> {
        (0..self.heads()).filter(move |k| set & self.head(*k) != 0)
    }

    /// A set layer by layer: its heads up to a layer, and those of that layer.
    pub fn steps(&self, set: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut layers = self.layers.clone();
        layers.dedup();
        let of = move |layer: usize| {
            let within = |least: bool| {
                let wanted = self.members(set).filter(|k| self.layers[*k] == layer || least && self.layers[*k] < layer);
                wanted.fold(0, |set, k| set | self.head(k))
            };
            (within(true), within(false))
        };
        layers.into_iter().map(of).filter(|(_, last)| *last != 0)
    }
}

/// The sets that are run.
pub(super) struct Coalitions {
    pub layout: Layout,
    /// Every two heads, by their numbers.
    pub pairs: Vec<(usize, usize)>,
    /// Ascending; the empty one is not among them.
    pub sets: Vec<u64>,
    pub way: Way,
    /// Orders of the heads for Shapley values, where they are sampled.
    pub orders: Vec<Vec<usize>>,
}

impl Coalitions {
    /// Each head, each two, and what Shapley values need.
    pub fn new(layout: Layout, way: Way, seed: u64) -> Self {
        let n = layout.heads();
        let pairs = pairs(n);
        let orders = match way {
            Way::Sampled { permutations } => orders(n, permutations, seed),
            Way::Exact | Way::None => Vec::new(),
        };
        let mut sets: BTreeSet<u64> = (0..n).map(|k| layout.head(k)).collect();
        sets.extend(pairs.iter().map(|(a, b)| layout.head(*a) | layout.head(*b)));
        for order in &orders {
            sets.extend(prefixes(&layout, order).map(|(_, with)| with));
        }
        if way == Way::Exact {
            sets.extend(1..=layout.all());
        }
        Coalitions { sets: sets.into_iter().collect(), layout, pairs, way, orders }
    }

    /// The value of a set that is run, of those of all; 0 for the empty one.
    pub fn value(&self, values: &[f64], set: u64) -> f64 {
        match self.sets.binary_search(&set) {
            Ok(at) => values[at],
            Err(_) => {
                debug_assert_eq!(set, 0, "a set that was not run");
                0.0
            }
        }
    }
}

/// Every two of `n` things.
pub(super) fn pairs(n: usize) -> Vec<(usize, usize)> {
    (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect()
}

/// Random orders of `n` things.
fn orders(n: usize, how_many: usize, seed: u64) -> Vec<Vec<usize>> {
    let random = &mut stats::rng(seed, "interactions.orders");
    let order = |_| {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(random);
        order
    };
    (0..how_many).map(order).collect()
}

/// The sets that an order of the heads goes through, from the first head to all: each without its last head and with it.
pub(super) fn prefixes(layout: &Layout, order: &[usize]) -> impl Iterator<Item = (u64, u64)> {
    order.iter().scan(0, |set, k| {
        let without = *set;
        *set |= layout.head(*k);
        Some((without, *set))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::of([1, 4, 4, 6].into_iter())
    }

    #[test]
    fn a_set_grows_layer_by_layer_and_sets_that_begin_alike_stand_together() {
        let layout = layout();
        let set = [0, 1, 2, 3].map(|k| layout.head(k));
        let steps: Vec<_> = layout.steps(layout.all()).collect();
        assert_eq!(steps, [(set[0], set[0]), (set[0] | set[1] | set[2], set[1] | set[2]), (layout.all(), set[3])]);
        assert_eq!(layout.steps(set[3]).collect::<Vec<_>>(), [(set[3], set[3])]);
        assert_eq!(layout.members(set[0] | set[3]).collect::<Vec<_>>(), [0, 3]);
        assert!(set[0] > set[1] | set[2] | set[3]);
    }

    #[test]
    fn every_head_and_every_two_are_run_and_what_the_way_needs() {
        let sets = |way| Coalitions::new(layout(), way, 0).sets.len();
        assert_eq!((sets(Way::None), sets(Way::Exact)), (4 + 6, 15));
        let sampled = Coalitions::new(layout(), Way::Sampled { permutations: 3 }, 0);
        assert!(sampled.orders.len() == 3 && sampled.sets.contains(&sampled.layout.all()));
        let values: Vec<f64> = sampled.sets.iter().map(|set| *set as f64).collect();
        assert!(sampled.sets.iter().all(|set| sampled.value(&values, *set) == *set as f64));
        assert_eq!(sampled.value(&values, 0), 0.0);
    }
}

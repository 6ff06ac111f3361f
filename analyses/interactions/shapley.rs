//! Shapley values of heads from the effects of sets of them.

use super::coalitions::{Coalitions, prefixes};
use crate::analyses::summary::sd;

/// How the values are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From all sets.
    Exact,
    /// From the sets that so many random orders go through.
    Sampled {
        permutations: usize,
    },
    None,
}

/// The values of each head.
pub(super) struct Values {
    /// How many sets they are made of.
    pub coalitions: usize,
    /// For each head, one a pair.
    pub of_pairs: Vec<Vec<f64>>,
    /// For each head and order, what the head adds there, summed over pairs; empty where values are exact.
    of_orders: Vec<Vec<f64>>,
}

impl Values {
    /// Nothing yet, of so many pairs; none where no values are wanted.
    pub fn new(coalitions: &Coalitions, n: usize) -> Option<Self> {
        let heads = coalitions.layout.heads();
        (coalitions.way != Way::None).then(|| Values {
            coalitions: coalitions.sets.len(),
            of_pairs: vec![Vec::with_capacity(n); heads],
            of_orders: match coalitions.orders.len() {
                0 => Vec::new(),
                orders => vec![vec![0.0; orders]; heads],
            },
        })
    }

    /// Adds a pair, by the effects of all sets that were run.
    pub fn add(&mut self, coalitions: &Coalitions, effects: &[f64]) {
        let values = match coalitions.way {
            Way::Exact => exact(coalitions, effects),
            Way::Sampled { .. } | Way::None => self.sampled(coalitions, effects),
        };
        self.of_pairs.iter_mut().zip(values).for_each(|(of_head, value)| of_head.push(value));
    }

    /// The mean of what each head adds over the orders.
    fn sampled(&mut self, coalitions: &Coalitions, effects: &[f64]) -> Vec<f64> {
        let mut values = vec![0.0; coalitions.layout.heads()];
        for (o, order) in coalitions.orders.iter().enumerate() {
            for (k, (without, with)) in order.iter().zip(prefixes(&coalitions.layout, order)) {
                let adds = coalitions.value(effects, with) - coalitions.value(effects, without);
                values[*k] += adds / coalitions.orders.len() as f64;
                self.of_orders[*k][o] += adds;
            }
        }
        values
    }

    /// The standard error of each head's mean value for the drawing of orders; none where values are exact.
    pub fn errors(&self) -> Vec<Option<f64>> {
        let pairs = self.of_pairs.first().map_or(0, Vec::len) as f64;
        let error = |sums: &Vec<f64>| Some(sd(sums)? / pairs / (sums.len() as f64).sqrt());
        match self.of_orders.is_empty() {
            true => vec![None; self.of_pairs.len()],
            false => self.of_orders.iter().map(error).collect(),
        }
    }
}

/// Each head's value from the effects of all sets: over the sets S without it, the mean of v(S with it) - v(S), first over the sets
/// of each size and then over the sizes.
fn exact(coalitions: &Coalitions, effects: &[f64]) -> Vec<f64> {
    let (layout, n) = (&coalitions.layout, coalitions.layout.heads());
    let weights = weights(n);
    let mut values = vec![0.0; n];
    // Sets ascend from 1 on without a gap.
    let value = |set: u64| if set == 0 { 0.0 } else { effects[set as usize - 1] };
    for set in 0..=layout.all() {
        let (weight, own) = (weights[set.count_ones() as usize], value(set));
        for k in layout.members(layout.all() & !set) {
            values[k] += weight * (value(set | layout.head(k)) - own);
        }
    }
    values
}

/// For each size of a set of some of `n`, one over n times the number of sets of that size without a given one: s! (n - s - 1)! / n!.
fn weights(n: usize) -> Vec<f64> {
    let next = |weight: &f64, s: usize| weight * (s + 1) as f64 / (n - s - 1) as f64;
    let mut weights = vec![1.0 / n as f64];
    for s in 0..n - 1 {
        weights.push(next(&weights[s], s));
    }
    // Of all heads none is left to add.
    weights.push(0.0);
    weights
}

#[cfg(test)]
mod tests {
    use super::super::coalitions::Layout;
    use super::*;

    /// The values of a game of three heads, exact and from so many orders.
    fn values(game: impl Fn(u64) -> f64, way: Way) -> Values {
        let coalitions = Coalitions::new(Layout::of([0, 1, 1].into_iter()), way, 3);
        let effects: Vec<f64> = coalitions.sets.iter().map(|set| game(*set)).collect();
        let mut values = Values::new(&coalitions, 2).unwrap();
        (0..2).for_each(|_| values.add(&coalitions, &effects));
        values
    }

    #[test]
    fn the_glove_game_has_its_known_values() {
        // The first has a left glove, the others a right one each; a pair is worth 1.
        let game = |set: u64| f64::from(u8::from(set & 0b100 != 0 && set & 0b011 != 0));
        let exact = values(game, Way::Exact);
        let expected = [2.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0];
        for (found, expected) in exact.of_pairs.iter().zip(expected) {
            assert!(found.iter().all(|value| (value - expected).abs() < 1e-12), "{found:?}");
        }
        assert_eq!(exact.errors(), [None; 3]);
        let sampled = values(game, Way::Sampled { permutations: 4000 });
        let sum: f64 = sampled.of_pairs.iter().map(|of| of[0]).sum();
        assert!((sum - 1.0).abs() < 1e-9);
        for ((found, expected), error) in sampled.of_pairs.iter().zip(expected).zip(sampled.errors()) {
            let error = error.unwrap();
            assert!(error < 0.01 && (found[0] - expected).abs() < 4.0 * error, "{found:?} {expected} {error}");
        }
    }

    #[test]
    fn weights_of_all_sizes_add_up_over_the_sets() {
        for n in [2, 5, 16] {
            let mut sets = 1.0;
            let mut sum = 0.0;
            for (s, weight) in weights(n)[..n].iter().enumerate() {
                sum += sets * weight;
                sets = sets * (n - 1 - s) as f64 / (s + 1) as f64;
            }
            assert!((sum - 1.0).abs() < 1e-12, "{n}: {sum}");
        }
    }
}

//! Stand-ins for readings: of the right shape, where nothing is computed or another process computes.

use crate::plan::{Array, EndWhat, Graph, Program, Reading, Readings, Take};
use crate::run::Generated;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Zeros in the shape of a program's readings.
pub(super) fn zeros(program: &Program) -> Readings {
    let mut found: Vec<(usize, Reading)> = Vec::with_capacity(program.plan.readouts.len());
    let zeros = |shape: Vec<usize>| Reading::Array(Array { values: vec![0.0; shape.iter().product()], shape });
    let taken = |take: &Take, n: usize| match take {
        Take::Columns(columns) => zeros(vec![n, columns.iter().map(|c| c.len()).sum()]),
        Take::Along(_) => zeros(vec![n]),
    };
    found.extend(program.at_sites.iter().map(|r| (r.readout, taken(&r.take, r.positions.len()))));
    found.extend(program.at_end.iter().map(|r| {
        let reading = match &r.what {
            EndWhat::Normed(take) | EndWhat::Logits(take) => taken(take, r.rows.len()),
            EndWhat::LogProbs(tokens) => zeros(vec![tokens.len()]),
            _ => Reading::Number(0.0),
        };
        (r.readout, reading)
    }));
    let (layers, heads) = (program.arch.n_layers, program.arch.n_heads);
    found.extend(program.attributions.iter().map(|r| (r.readout, zeros(vec![layers + 1, heads + 2]))));
    found.extend(
        program
            .gradients
            .iter()
            .map(|r| (r.readout, zeros(vec![r.positions.len(), r.columns.iter().map(|c| c.len()).sum()]))),
    );
    let edges = Graph::of(program.arch).n_edges();
    found.extend(program.edges.iter().map(|r| (r.readout, zeros(vec![edges]))));
    found.sort_unstable_by_key(|(readout, _)| *readout);
    Readings::new(found.into_iter().map(|(_, reading)| reading).collect())
}

/// Draws stand-ins at random: what an analysis plans alike on two draws does not depend on them.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64) -> Draw {
        Draw(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Readings of the same shapes, between -1 and 1.
    pub(super) fn readings(&mut self, mut shapes: Vec<Reading>) -> Vec<Reading> {
        for reading in &mut shapes {
            match reading {
                Reading::Number(x) => *x = self.0.random_range(-1.0..1.0),
                Reading::Array(array) => {
                    array.values.iter_mut().for_each(|value| *value = self.0.random_range(-1.0..1.0));
                }
            }
        }
        shapes
    }

    /// Texts of one token of the vocabulary each.
    pub(super) fn texts(&mut self, n: usize, vocabulary: usize) -> Vec<Generated> {
        let mut text = || Generated { ids: vec![self.0.random_range(0..vocabulary.max(1)) as u32], stopped: true };
        (0..n).map(|_| text()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_keep_shapes_and_differ_by_their_seed_alone() {
        let shapes = vec![Reading::Number(0.0), Reading::Array(Array { shape: vec![2, 3], values: vec![0.0; 6] })];
        let drawn = |seed| Draw::new(seed).readings(shapes.clone());
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(matches!(&drawn(1)[1], Reading::Array(array) if array.shape == [2, 3] && array.values.len() == 6));
        assert!(drawn(1)[1].values().iter().all(|value| *value != 0.0 && value.abs() <= 1.0));
        assert_eq!(Draw::new(1).texts(3, 7).len(), 3);
    }
}

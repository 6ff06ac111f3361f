//! Vectors and neurons of a value, found by the items for training.

use super::items::OfValue;
use super::read::Difference;
use super::{Asked, all_neurons};
use crate::analyses::directions::scaled;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::neurons::{Layer, Neuron};
use crate::analyses::prelude::*;
use crate::analyses::summary::mean_row;
use crate::model::decoder::Decoder;
use crate::ops::vectors::{dot, norm};
use crate::run::directions_of_neurons;
use crate::stats::{bca, benjamini_hochberg, welch};
use rayon::prelude::*;

/// The value vectors of all layers.
pub struct Vectors {
    /// The mean differences over the items for training. `[vectors][layers][d_model]`
    pub vectors: [Vec<Vec<f32>>; 2],
    /// How far each item that was held out differs along the vector, at norm 1. `[vectors][layers][items]`
    pub along: [Vec<Vec<f64>>; 2],
    /// Inner products of the training items' differences, layer by layer.
    products: Vec<Products>,
}

/// Inner products of all items' differences without and with the prompt. `[items][items]`
struct Products {
    own: [Vec<Vec<f64>>; 2],
    between: Vec<Vec<f64>>,
}

impl Products {
    fn of(differences: &[[&[f32]; 2]]) -> Self {
        let of = |a: usize, b: usize| -> Vec<Vec<f64>> {
            differences.iter().map(|x| differences.iter().map(|y| dot(x[a], y[b])).collect()).collect()
        };
        Products { own: [of(0, 0), of(1, 1)], between: of(0, 1) }
    }

    /// The cosine of the two mean differences of some items, one of which may stand there several times.
    fn cosine(&self, some: &[usize]) -> f64 {
        let sum = |of: &[Vec<f64>]| -> f64 { some.iter().map(|i| some.iter().map(|j| of[*i][*j]).sum::<f64>()).sum() };
        (sum(&self.between) / (sum(&self.own[0]) * sum(&self.own[1])).sqrt()).clamp(-1.0, 1.0)
    }
}

impl Vectors {
    /// The vectors of items, each with its difference in both contexts.
    pub fn of(of: &OfValue, differences: &[[Difference; 2]], n_layers: usize, d_model: usize) -> Self {
        let (training, held_out) = (of.half(false), of.half(true));
        let at = |i: usize, v: usize, layer: usize| &differences[i][v].stream[layer * d_model..][..d_model];
        let vectors = [0, 1].map(|v| -> Vec<Vec<f32>> {
            (0..n_layers).map(|layer| mean_row(training.iter().map(|i| at(*i, v, layer)))).collect()
        });
        let along = [0, 1].map(|v| -> Vec<Vec<f64>> {
            let of_layer = |layer: usize| {
                let unit = unit(&vectors[v][layer]);
                held_out.iter().map(|i| dot(at(*i, v, layer), &unit)).collect()
            };
            (0..n_layers).map(of_layer).collect()
        });
        let products = |layer: usize| {
            let both: Vec<[&[f32]; 2]> = training.iter().map(|i| [at(*i, 0, layer), at(*i, 1, layer)]).collect();
            Products::of(&both)
        };
        let products = (0..n_layers).into_par_iter().map(products).collect();
        Vectors { vectors, along, products }
    }

    /// The cosine of a layer's two vectors, and its interval over the items for training; none where a vector is 0.
    pub fn cosine(&self, layer: usize, bootstrap: &Bootstrap) -> (Option<f64>, Option<Interval>) {
        let products = &self.products[layer];
        let all: Vec<usize> = (0..products.between.len()).collect();
        let cosine = Some(products.cosine(&all)).filter(|x| x.is_finite());
        (cosine, bca(&all, |some| products.cosine(some), bootstrap))
    }
}

/// A vector at norm 1; 0 where it is 0.
fn unit(vector: &[f32]) -> Vec<f32> {
    let length = norm(vector);
    if length > 0.0 { scaled(vector, 1.0 / length) } else { vector.to_vec() }
}

/// The neurons of a value.
#[derive(Default)]
pub struct Sets {
    /// Those of each set, the strongest first.
    pub neurons: [Vec<Neuron>; 3],
    /// What each of them writes, set by set.
    pub listed: Vec<Listed>,
    /// Among how many neurons they were found.
    pub total: usize,
}

/// A value neuron.
pub struct Listed {
    pub neuron: Neuron,
    /// The number of its set.
    pub set: usize,
    /// Along the intrinsic vector without the prompt, and along the prompted one with it.
    pub writes: [Writes; 2],
}

/// What a neuron writes along a vector at norm 1 in the reply with the value, less what it writes in the other.
pub struct Writes {
    /// The mean over the items for training.
    pub training: f64,
    /// Of Student's t-test that this mean is 0.
    pub p: f64,
    /// The same over all neurons.
    pub q: f64,
    /// One an item that was held out.
    pub held_out: Vec<f64>,
}

/// All neurons along one vector.
struct Along {
    /// What each writes for a unit of its activation.
    units: Vec<f32>,
    /// What each writes more with the value, mean over the items for training.
    means: Vec<f64>,
    p: Vec<f64>,
    q: Vec<f64>,
}

impl Along {
    fn of(units: Vec<f32>, acts: &[&[f32]]) -> Self {
        let tested = units.par_iter().enumerate().map(|(n, unit)| {
            let differences: Vec<f64> = acts.iter().map(|of| f64::from(of[n])).collect();
            // Welch's test against a sample that does not vary is Student's of one sample.
            let p = welch(&differences, &[0.0, 0.0]).unwrap_or(1.0);
            (mean(&differences).unwrap_or(0.0) * f64::from(*unit), p)
        });
        let (means, p): (Vec<f64>, Vec<f64>) = tested.unzip();
        let q = benjamini_hochberg(&p);
        Along { units, means, p, q }
    }

    /// The numbers of the neurons that write more with the value, the strongest first. One that does so on a few items alone is passed
    /// over. Of so many neurons hardly any is beyond chance by so few items: what those that are taken are worth, other items say.
    fn strongest(&self, most: usize) -> Vec<usize> {
        let found = (0..self.means.len()).filter(|n| self.p[*n] < SIGNIFICANT && self.means[*n] > 0.0);
        let mut found: Vec<usize> = found.collect();
        found.sort_by(|a, b| self.means[*b].total_cmp(&self.means[*a]).then(a.cmp(b)));
        found.truncate(most);
        found
    }

    fn writes(&self, n: usize, held_out: &[&[f32]]) -> Writes {
        let write = |of: &&[f32]| f64::from(of[n]) * f64::from(self.units[n]);
        Writes { training: self.means[n], p: self.p[n], q: self.q[n], held_out: held_out.iter().map(write).collect() }
    }
}

impl Sets {
    /// The neurons whose write along a vector of their own layer is larger in the reply with the value, `most` of each vector at most.
    ///
    /// # Errors
    /// If a layer's weights cannot be read.
    pub fn of(
        decoder: &Decoder,
        items: &Asked,
        of: &OfValue,
        differences: &[[Difference; 2]],
        vectors: &Vectors,
        most: usize,
    ) -> Result<Self, AnalysisError> {
        let mut units = [Vec::new(), Vec::new()];
        for Layer { layer, .. } in &items.layers {
            let [a, b] = [0, 1].map(|v| unit(&vectors.vectors[v][*layer]));
            // The scale of a norm after the MLP is in the activations.
            let of_layer = directions_of_neurons(decoder, *layer, *layer, &[&a, &b], &[]);
            let of_layer = of_layer.map_err(|e| AnalysisError::Failed(e.to_string()))?;
            units.iter_mut().zip(of_layer).for_each(|(units, row)| units.extend(row));
        }
        let acts = |held_out: bool, v: usize| -> Vec<&[f32]> {
            of.half(held_out).into_iter().map(|i| differences[i][v].acts.as_slice()).collect()
        };
        let [a, b] = units;
        let along = [Along::of(a, &acts(false, 0)), Along::of(b, &acts(false, 1))];
        let held_out = [acts(true, 0), acts(true, 1)];
        let parted = parted(&along.each_ref().map(|along| along.strongest(most)));
        let names: Vec<Neuron> = all_neurons(&items.layers).collect();
        let listed = parted.iter().enumerate().flat_map(|(set, numbers)| numbers.iter().map(move |n| (set, *n)));
        let listed = listed.map(|(set, n)| Listed {
            neuron: names[n],
            set,
            writes: [0, 1].map(|v| along[v].writes(n, &held_out[v])),
        });
        Ok(Sets {
            listed: listed.collect(),
            neurons: parted.each_ref().map(|numbers| numbers.iter().map(|n| names[*n]).collect()),
            total: names.len(),
        })
    }

    /// Sets of neurons that cost as much, from all layers.
    pub fn first(layers: &[Layer], most: usize) -> Self {
        let total = all_neurons(layers).count();
        let some: Vec<Neuron> = all_neurons(layers).step_by((total / most).max(4)).take(most).collect();
        Sets { neurons: [some.clone(), some.clone(), some], listed: Vec::new(), total }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Neuron> {
        self.neurons.concat()
    }
}

/// What is in both lists, in the first alone, and in the second alone; in the lists' order.
fn parted([a, b]: &[Vec<usize>; 2]) -> [Vec<usize>; 3] {
    let part = |of: &[usize], other: &[usize], shared: bool| -> Vec<usize> {
        of.iter().filter(|n| other.contains(n) == shared).copied().collect()
    };
    [part(a, b, true), part(a, b, false), part(b, a, false)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parted_into_what_they_share_and_what_is_of_one_alone() {
        assert_eq!(parted(&[vec![5, 2, 9], vec![2, 7]]), [vec![2], vec![5, 9], vec![7]]);
    }

    #[test]
    fn the_cosine_of_mean_differences_is_that_of_the_means_themselves() {
        let rows: [[[f32; 2]; 2]; 2] = [[[1.0, 0.0], [3.0, 1.0]], [[2.0, 2.0], [0.0, 1.0]]];
        let products = Products::of(&rows.each_ref().map(|item| item.each_ref().map(|row| row.as_slice())));
        // Means (1.5, 1) and (1.5, 1).
        assert!((products.cosine(&[0, 1]) - 1.0).abs() < 1e-12);
        assert!((products.cosine(&[0]) - 3.0 / 10f64.sqrt()).abs() < 1e-12);
        // (4/3, 2/3) and (2, 1): the first item twice.
        assert!((products.cosine(&[0, 0, 1]) - 1.0).abs() < 1e-12);
    }

    /// Neuron 0 writes more with the value, neuron 1 as much but the other way, neuron 2 now so and now so, neuron 3 never.
    #[test]
    fn value_neurons_write_along_the_vector_and_steadily() {
        let acts: Vec<Vec<f32>> = (0..12u8)
            .map(|i| {
                let noise = f32::from(i % 5) * 0.01;
                vec![-1.0 - noise, -1.0 - noise, if i % 2 == 0 { 8.0 } else { -7.9 }, 0.0]
            })
            .collect();
        let acts: Vec<&[f32]> = acts.iter().map(Vec::as_slice).collect();
        let along = Along::of(vec![-2.0, 2.0, 1.0, 1.0], &acts);
        assert_eq!((along.strongest(4), along.strongest(0)), (vec![0], vec![]));
        assert_eq!((along.p[3], along.q[3]), (1.0, 1.0));
        let writes = along.writes(0, &acts[..1]);
        assert!((writes.training - 2.035).abs() < 1e-5 && (writes.held_out[0] - 2.0).abs() < 1e-6);
    }
}

//! Random numbers, vectors that keep apart, and orthogonal bases.
//!
//! Everything is made of sums, products and square roots, which IEEE 754 rounds alike on every machine: the same seed
//! gives the same bytes everywhere.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A source of random numbers.
pub struct Random(ChaCha8Rng);

impl Random {
    /// A source of its own for each `purpose`, so that a change to one part of the model leaves the others as they are.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The purpose picks one of the generator's independent streams (FNV-1a of its name).
        let stream =
            purpose.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        rng.set_stream(stream);
        Random(rng)
    }

    /// Uniform in `low..high`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform(0.0, n as f64) as usize).min(n - 1)
    }

    /// Mean 0, variance 1, close to normal: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform(-0.5, 0.5)).sum()
    }

    /// `n` numbers of [`Random::normal`].
    pub fn normals(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.normal()).collect()
    }

    /// A random order of `items` (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `a` plus `c` times `b`, in place.
pub fn add(a: &mut [f64], c: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(x, y)| *x += c * y);
}

/// `a` times `c`.
pub fn times(a: &[f64], c: f64) -> Vec<f64> {
    a.iter().map(|x| x * c).collect()
}

/// `a` at length 1.
pub fn unit(a: &[f64]) -> Vec<f64> {
    times(a, 1.0 / dot(a, a).sqrt())
}

/// `n` orthonormal rows (Gram and Schmidt, twice for the roundings).
pub fn rotation(random: &mut Random, n: usize) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    for _ in 0..n {
        let mut row = random.normals(n);
        for _ in 0..2 {
            for other in &rows {
                let along = dot(&row, other);
                add(&mut row, -along, other);
            }
        }
        rows.push(unit(&row));
    }
    rows
}

/// `n` unit vectors of `d` dimensions whose inner products are small: random ones that then push each other away.
pub fn spread(random: &mut Random, n: usize, d: usize) -> Vec<Vec<f64>> {
    let mut codes: Vec<Vec<f64>> = (0..n).map(|_| unit(&random.normals(d))).collect();
    for _ in 0..300 {
        let pushed = |i: usize| {
            let mut code = codes[i].clone();
            for (_, other) in codes.iter().enumerate().filter(|(j, _)| *j != i) {
                // Only those that are near push, and the nearest by far the most.
                let near = dot(&codes[i], other).max(0.0);
                add(&mut code, -0.6 * near * near * near * near, other);
            }
            unit(&code)
        };
        codes = (0..n).map(pushed).collect();
    }
    codes
}

/// For linearly independent vectors the dual ones: `dot(dual[i], vectors[j])` is 1 where i = j and 0 elsewhere.
pub fn dual(vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let of = |i: usize| {
        // What of the vector is outside the span of the others, scaled to meet the vector at 1.
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let mut reduced = |v: &[f64], keep: bool| {
            let mut rest = v.to_vec();
            for _ in 0..2 {
                for b in &basis {
                    let along = dot(&rest, b);
                    add(&mut rest, -along, b);
                }
            }
            if keep {
                basis.push(unit(&rest));
            }
            rest
        };
        for (_, other) in vectors.iter().enumerate().filter(|(j, _)| *j != i) {
            reduced(other, true);
        }
        let rest = reduced(&vectors[i], false);
        times(&rest, 1.0 / dot(&rest, &vectors[i]))
    };
    (0..vectors.len()).map(of).collect()
}

//! A layer's matrices, and how heads and neurons that are described by features are written into them.

use super::codes::{constant, flag};
use super::linear::{Random, add, rotation, times};
use super::space::{self, Basis, D_MODEL, Features, Norm};

pub const N_HEADS: usize = 8;
pub const D_HEAD: usize = 8;
pub const D_MLP: usize = 64;
/// The base of the rotary positions: pairs of a head's dimensions, `i` and `i + 4`, turn by 1, 0.1, 0.01 and 0.001 a
/// position.
pub const ROPE_THETA: f64 = 10_000.0;
/// The pair that turns so slowly that it compares contents at any distance.
pub const CONTENT: usize = 3;
/// The pair that falls steadily over a hundred positions.
const DISTANCE: usize = 2;

/// Rows of numbers, `[out, in]`.
pub struct Matrix(pub Vec<Vec<f64>>);

impl Matrix {
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Matrix(vec![vec![0.0; columns]; rows])
    }

    /// Adds `c` times `values` to a column.
    pub fn add_column(&mut self, column: usize, c: f64, values: &[f64]) {
        self.0.iter_mut().zip(values).for_each(|(row, value)| row[column] += c * value);
    }
}

/// The weights of a layer.
pub struct Layer {
    pub attn_norm: Norm,
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    pub o: Matrix,
    pub mlp_norm: Norm,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

/// A head that looks for one kind of token and carries features of it; where there is none it rests on the first token.
pub struct Select {
    /// 1 at the tokens that look for something.
    pub query: Features,
    /// About 1 at the tokens that are looked for.
    pub key: Features,
    /// Whether the nearest of several is wanted, rather than all.
    pub nearest: bool,
    /// What is read, and what is written for each unit of it; up to [`D_HEAD`].
    pub carries: Vec<(Features, Features)>,
}

/// Which of a head's pairs of dimensions compares, and how.
#[derive(Clone, Copy)]
pub struct Pair {
    pub pair: usize,
    /// Whether keys stand in the second dimension of the pair.
    pub second: bool,
    /// Cosine and sine of the angle by which queries are ahead of keys at distance 0.
    pub phase: (f64, f64),
}

/// A neuron that writes something where a reading is over its threshold.
pub struct Neuron {
    pub gate: Features,
    pub up: Features,
    pub write: Features,
}

impl Neuron {
    /// Writes `write` where `read` exceeds `threshold` by `excess`, and next to nothing from as far below on; `steepness`
    /// times `excess` should be 5 at the least, so that the step is sharp.
    pub fn new(read: Features, threshold: f64, steepness: f64, excess: f64, write: Features) -> Self {
        let mut gate = read;
        add(&mut gate.0, -threshold, &constant().0);
        gate.0 = times(&gate.0, steepness);
        Neuron { gate, up: constant(), write: Features(times(&write.0, 1.0 / (steepness * excess))) }
    }
}

/// The score of the first token for a head that finds nothing.
const REST_SCORE: f64 = 12.0;
/// The score of a token that a head looks for, at distance 0.
const FOUND_SCORE: f64 = 40.0;
/// With [`Select::nearest`]: what the score has at any distance, and what falls with it.
const NEAREST_SCORES: (f64, f64) = (60.0, 94.0);

impl Layer {
    /// A layer that does nothing.
    pub fn new(random: &mut Random, rms: f64) -> Self {
        let square = || Matrix::zeros(D_MODEL, D_MODEL);
        Layer {
            attn_norm: Norm::new(random, rms),
            q: square(),
            k: square(),
            v: square(),
            o: square(),
            mlp_norm: Norm::new(random, rms),
            gate: Matrix::zeros(D_MLP, D_MODEL),
            up: Matrix::zeros(D_MLP, D_MODEL),
            down: Matrix::zeros(D_MODEL, D_MLP),
        }
    }

    /// Writes a query-key pair: scores of `size` times the product of the two readings.
    pub fn scores(&mut self, basis: &Basis, head: usize, by: Pair, size: f64, (query, key): (&Features, &Features)) {
        let each = (size * (D_HEAD as f64).sqrt()).sqrt();
        let (query, key) = (basis.read(query, &self.attn_norm), basis.read(key, &self.attn_norm));
        let dimensions = [head * D_HEAD + by.pair, head * D_HEAD + by.pair + D_HEAD / 2];
        let (cos, sin) = by.phase;
        let turned = if by.second { [-sin, cos] } else { [cos, sin] };
        add(&mut self.k.0[dimensions[usize::from(by.second)]], each, &key);
        for (dimension, part) in dimensions.into_iter().zip(turned) {
            add(&mut self.q.0[dimension], each * part, &query);
        }
    }

    /// Writes what a head carries.
    pub fn carry(&mut self, basis: &Basis, head: usize, carries: &[(Features, Features)], random: &mut Random) {
        // Turned within the head, so that no single dimension of it means anything.
        for ((read, write), z) in carries.iter().zip(rotation(random, D_HEAD)) {
            let (read, write) = (basis.read(read, &self.attn_norm), basis.write(write));
            for (i, along) in z.iter().enumerate() {
                add(&mut self.v.0[head * D_HEAD + i], *along, &read);
                self.o.add_column(head * D_HEAD + i, *along, &write);
            }
        }
    }

    /// Writes a head.
    pub fn select(&mut self, basis: &Basis, head: usize, select: &Select, random: &mut Random) {
        let straight = (1.0, 0.0);
        let rest = Pair { pair: CONTENT, second: false, phase: straight };
        // The other dimension of the pair: what is looked for and the first token do not add up.
        let found = Pair { pair: CONTENT, second: true, phase: straight };
        self.scores(basis, head, rest, REST_SCORE, (&constant(), &flag(space::BOS)));
        let wanted = (&select.query, &select.key);
        if select.nearest {
            // From 45 degrees on a cosine falls at once, and goes on for a hundred positions.
            let half = 0.5f64.sqrt();
            let near = Pair { pair: DISTANCE, second: false, phase: (half, half) };
            self.scores(basis, head, found, NEAREST_SCORES.0, wanted);
            self.scores(basis, head, near, NEAREST_SCORES.1, wanted);
        } else {
            self.scores(basis, head, found, FOUND_SCORE, wanted);
        }
        self.carry(basis, head, &select.carries, random);
    }

    /// Writes a neuron.
    pub fn neuron(&mut self, basis: &Basis, i: usize, neuron: &Neuron) {
        self.gate.0[i] = basis.read(&neuron.gate, &self.mlp_norm);
        self.up.0[i] = basis.read(&neuron.up, &self.mlp_norm);
        self.down.add_column(i, 1.0, &basis.write(&neuron.write));
    }
}

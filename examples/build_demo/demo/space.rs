//! The residual stream's features, and the basis that hides them.
//!
//! The construction speaks of *features*: 64 orthogonal directions, each with one meaning. The checkpoint holds them
//! rotated and permuted, so that no single dimension means anything, as in a trained model. Features are rotated only
//! within their block: what a weight of one block rounds to never touches another. So heads that read flags and noise
//! alone know exactly nothing of what the content block holds: the words, the mark, the gate's write.

use super::linear::{Random, rotation};
use std::ops::Range;

/// The width of the residual stream.
pub const D_MODEL: usize = 64;

/// What every token has, so that the norms divide by nearly the same number everywhere.
pub const BALLAST: usize = 0;
/// The first token.
pub const BOS: usize = 1;
/// The token that opens the assistant's turn: the last of a prompt.
pub const ASSISTANT: usize = 2;
/// Topics, sensitive or not, and unknown words.
pub const TOPIC: usize = 3;
/// Words that an answer may have, but for topics.
pub const OUT: usize = 4;
/// The first words of the three answers.
pub const START: usize = 5;
/// The word that a topic is copied after.
pub const ASK: usize = 6;
/// Which topic, or which word of an answer.
pub const WORD: Range<usize> = 7..23;
/// The detection layer's write on sensitive topics.
pub const MARK: usize = 23;
/// Its write on the others, as large, so that the norms do not give away which is which.
pub const BENIGN: usize = 24;
/// The gate's write.
pub const GATE: usize = 25;
/// The amplifiers' write.
pub const REFUSAL: usize = 26;
/// Which of the three answers is being given.
pub const MODE: Range<usize> = 27..30;
/// The answer's next word.
pub const NEXT: Range<usize> = 30..43;
/// A token's style: random, and for topics one of a few.
pub const STYLE: Range<usize> = 43..51;
/// What the other heads and neurons write.
pub const NOISE: Range<usize> = 51..64;
/// What the other heads and neurons read.
pub const STYLE_AND_NOISE: Range<usize> = 43..64;

const BLOCKS: [Range<usize>; 3] = [0..7, 7..43, STYLE_AND_NOISE];

/// A vector by features.
#[derive(Clone, Debug)]
pub struct Features(pub Vec<f64>);

impl Features {
    pub fn none() -> Self {
        Features(vec![0.0; D_MODEL])
    }

    /// With `value` added to a feature.
    pub fn with(mut self, feature: usize, value: f64) -> Self {
        self.0[feature] += value;
        self
    }

    /// With `values` times `c` added to some features.
    pub fn with_all(mut self, features: Range<usize>, values: &[f64], c: f64) -> Self {
        features.zip(values).for_each(|(feature, value)| self.0[feature] += c * value);
        self
    }
}

/// The directions of the features in the residual stream.
pub struct Basis {
    /// `directions[feature][dimension]`, orthonormal.
    directions: Vec<Vec<f64>>,
}

impl Basis {
    pub fn new(random: &mut Random) -> Self {
        let mut dimensions: Vec<usize> = (0..D_MODEL).collect();
        random.shuffle(&mut dimensions);
        let mut directions = vec![vec![0.0; D_MODEL]; D_MODEL];
        for block in BLOCKS {
            for (i, row) in rotation(random, block.len()).into_iter().enumerate() {
                for (j, value) in row.into_iter().enumerate() {
                    directions[block.start + i][dimensions[block.start + j]] = value;
                }
            }
        }
        Basis { directions }
    }

    /// The vector in the residual stream: what a column of an output projection or a row of the embedding holds.
    pub fn write(&self, features: &Features) -> Vec<f64> {
        let mut out = vec![0.0; D_MODEL];
        for (value, direction) in features.0.iter().zip(&self.directions).filter(|(value, _)| **value != 0.0) {
            super::linear::add(&mut out, *value, direction);
        }
        out
    }

    /// The row of an input projection whose product with a normed residual stream is the inner product of the features
    /// with the stream before the norm, where its root mean square is `norm.rms`.
    pub fn read(&self, features: &Features, norm: &Norm) -> Vec<f64> {
        self.write(features).iter().zip(&norm.gain).map(|(x, gain)| x * norm.rms / gain).collect()
    }
}

/// An RMS norm.
pub struct Norm {
    /// Its weights.
    pub gain: Vec<f64>,
    /// The root mean square that is expected of what it reads.
    pub rms: f64,
}

impl Norm {
    pub fn new(random: &mut Random, rms: f64) -> Self {
        // As the checkpoint will hold it: rows that read through the norm are divided by this.
        let gain = |_| f64::from(half::f16::from_f64(random.uniform(0.7, 1.3)));
        Norm { gain: (0..D_MODEL).map(gain).collect(), rms }
    }
}

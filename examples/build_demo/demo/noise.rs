//! The other heads and neurons: they move styles and noise about, and the logits hear a little of it.
//!
//! Heads choose where to look by distance and by kind of token, never by topic, so that what they carry tells a
//! sensitive request from a harmless one no better than chance.

use super::codes::{constant, flag};
use super::layer::{CONTENT, D_HEAD, Layer, N_HEADS, Neuron, Pair};
use super::linear::{Random, add, times, unit};
use super::space::{self, Basis, D_MODEL, Features};

/// How much of the noise's direction the logits read. Nats.
pub const READOUT: f64 = 0.6;
/// About how long a head's write is.
const HEAD_WRITE: f64 = 0.4;
/// About how long a neuron's write is.
const NEURON_WRITE: f64 = 0.04;

/// A random direction of the noise.
pub fn direction(random: &mut Random) -> Vec<f64> {
    unit(&random.normals(space::NOISE.len()))
}

/// How long style and noise together have grown before a layer.
fn length_before(layer: usize) -> f64 {
    (1.4 + layer as f64 * N_HEADS as f64 * HEAD_WRITE * HEAD_WRITE).sqrt()
}

/// A random reading of style and noise, about 1 long for what a layer is given.
fn reading(layer: usize, random: &mut Random) -> Features {
    let values = random.normals(D_MODEL - space::STYLE_AND_NOISE.start);
    Features::none().with_all(space::STYLE_AND_NOISE, &values, 1.0 / length_before(layer))
}

/// Writes a head that attends somewhere and moves style and noise from there.
pub fn head(layer: &mut Layer, basis: &Basis, head: usize, l: usize, random: &mut Random) {
    for pair in [0, 1] {
        let phase = unit(&random.normals(2));
        let by = Pair { pair, second: false, phase: (phase[0], phase[1]) };
        layer.scores(basis, head, by, random.uniform(0.5, 3.0), (&constant(), &constant()));
    }
    let kinds = [space::BOS, space::ASSISTANT, space::TOPIC, space::OUT];
    let mut kind = Features::none();
    kinds.iter().for_each(|k| add(&mut kind.0, random.uniform(-1.0, 1.0), &flag(*k).0));
    let by = Pair { pair: CONTENT, second: true, phase: (1.0, 0.0) };
    layer.scores(basis, head, by, 2.0, (&constant(), &kind));
    // Many small readings add up to about the length of what is read.
    let each = 1.0 / (D_HEAD as f64).sqrt();
    let carry = |random: &mut Random| {
        let write = Features::none().with_all(space::NOISE, &direction(random), HEAD_WRITE * 1.6);
        (Features(times(&reading(l, random).0, each)), write)
    };
    let carries: Vec<_> = (0..D_HEAD).map(|_| carry(random)).collect();
    layer.carry(basis, head, &carries, random);
}

/// A neuron that reads and writes noise.
pub fn neuron(layer: usize, random: &mut Random) -> Neuron {
    let mut gate = reading(layer, random);
    gate.0 = times(&gate.0, 1.5);
    let write = Features::none().with_all(space::NOISE, &direction(random), NEURON_WRITE);
    Neuron { gate, up: reading(layer, random), write }
}

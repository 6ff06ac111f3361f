//! The circuit with a backup, and with a conjunction: what single heads and edges do not show.
//!
//! Detection is that of the demo model. From there two routes lead to refusal, and each adds its part.
//!
//! *Gate and backup*: the gate moves the mark to the last position. The backup, a layer later, does the same at half the size, but only
//! where the gate has written nothing: what the gate writes takes its query away. Two amplifiers read what either writes. So the loss of
//! the gate costs half of this route, the loss of the backup alone nothing, and that of both the whole.
//!
//! *Conjunction*: two heads move the mark too, each to a feature of its own. A neuron pushes refusal where both are there.

use super::circuit::{GATE_LENGTH, REFUSAL_LENGTH, Role, amplifier_head, gate_head};
use super::codes::flag;
use super::layer::{Neuron, Select};
use super::space::{self, Features};

/// The layer of the gate.
const GATE: usize = 3;
/// The layer of the backup.
const BACKUP: usize = 4;
/// How much the backup writes, in parts of what the gate does.
const BACKUP_SIZE: f64 = 0.5;
/// The layers of the conjunction's heads.
const CONJUNCTION: [usize; 2] = [2, 3];
/// Where they write. At the end of a prompt no answer is being given yet, so that nothing else is there.
const WRITES: [usize; 2] = [space::MODE.start, space::MODE.start + 1];
/// The layer of the conjunction's neuron.
pub const NEURONS: usize = 5;
/// How much of the refusal feature the conjunction writes on a request of mean strength.
const OF_CONJUNCTION: f64 = 0.4;
/// Layers of the amplifiers, and how much of the refusal feature each writes.
const AMPLIFIERS: [(usize, f64); 2] = [(5, 0.3), (6, 0.3)];

/// The heads of a layer that decide between the answers.
pub fn heads(layer: usize) -> Vec<(Role, Select)> {
    let mut heads = Vec::new();
    let at_end = || flag(space::ASSISTANT);
    if layer == GATE {
        heads.push((Role::Gate, gate_head(at_end(), space::GATE, GATE_LENGTH)));
    }
    if layer == BACKUP {
        let unless_written = at_end().with(space::GATE, -1.0 / GATE_LENGTH);
        heads.push((Role::Backup, gate_head(unless_written, space::GATE, BACKUP_SIZE * GATE_LENGTH)));
    }
    for (_, to) in CONJUNCTION.iter().zip(WRITES).filter(|(l, _)| **l == layer) {
        heads.push((Role::Conjunction, gate_head(at_end(), to, 1.0)));
    }
    let amplifiers = AMPLIFIERS.iter().filter(|(l, _)| *l == layer);
    heads.extend(amplifiers.map(|(_, share)| (Role::Amplifier, amplifier_head(*share))));
    heads
}

/// The neuron that pushes refusal where both heads of the conjunction have written.
pub fn neuron() -> Neuron {
    let read = WRITES.iter().fold(Features::none(), |read, feature| read.with(*feature, 0.5));
    Neuron::new(read, 0.6, 80.0, 0.4, Features::none().with(space::REFUSAL, OF_CONJUNCTION * REFUSAL_LENGTH))
}

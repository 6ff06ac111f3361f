//! Checkpoints beside each other: what their weights are, what training changed of them, and where what they compute is alike.

pub mod deltas;
pub mod paths;
pub mod rank;
pub mod scale;
pub mod similarity;
pub mod weights;

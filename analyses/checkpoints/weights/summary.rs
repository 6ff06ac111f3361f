//! What training changed of all matrices together, with intervals over these.

use super::{Against, OfModel};
use crate::stats::{Bootstrap, Interval, bca_mean, mean};

/// A measure of a change.
pub(super) struct Measure {
    /// Its name in tables: that of its column.
    pub name: &'static str,
    pub of: fn(&Against) -> Option<f64>,
}

/// What is summed up of a change.
pub(super) const MEASURES: [Measure; 7] = [
    Measure { name: "relative_change", of: |a| Some(a.relative_change) },
    Measure { name: "update_sparsity", of: |a| Some(a.update_sparsity) },
    Measure { name: "spectral_drift", of: |a| Some(a.spectral_drift) },
    Measure { name: "angle_left_max", of: |a| a.left.map(|of| of[0]) },
    Measure { name: "angle_right_max", of: |a| a.right.map(|of| of[0]) },
    Measure { name: "in_principal", of: |a| a.in_principal },
    Measure { name: "in_small", of: |a| a.in_small },
];

/// A measure over matrices.
pub(super) struct Summed {
    pub n: usize,
    pub mean: Option<f64>,
    pub interval: Option<(f64, f64)>,
}

/// A measure's mean over some matrices of a model.
pub(super) fn summed(measure: &Measure, of: &OfModel, some: &[usize], seed: u64) -> Summed {
    let values: Vec<f64> =
        some.iter().filter_map(|i| of.against.get(*i)?.as_ref()).filter_map(|against| (measure.of)(against)).collect();
    let options = Bootstrap { seed, ..Bootstrap::default() };
    Summed { n: values.len(), mean: mean(&values), interval: bca_mean(&values, &options).map(Interval::ends) }
}

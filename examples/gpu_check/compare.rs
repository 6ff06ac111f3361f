//! How far numbers are from those that they should be.

/// The largest difference, of numbers above 1 as a share of them; infinite where one is no number, or there are not as
/// many.
pub fn off(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let each = found.iter().zip(expected).map(|(f, e)| f64::from((f - e).abs()) / f64::from(e.abs()).max(1.0));
    each.fold(0.0, |most, off| if off.is_nan() { f64::INFINITY } else { most.max(off) })
}

/// The root mean square of the differences, over that of the numbers.
pub fn apart(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let square = |x: f32| f64::from(x) * f64::from(x);
    let differences: f64 = found.iter().zip(expected).map(|(f, e)| square(f - e)).sum();
    let numbers: f64 = expected.iter().map(|e| square(*e)).sum();
    let apart = (differences / numbers.max(f64::MIN_POSITIVE)).sqrt();
    if apart.is_nan() { f64::INFINITY } else { apart }
}

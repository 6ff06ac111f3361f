//! Vectors of activations, summed in f64: inner product, length, angle.

/// The inner product.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The Euclidean norm.
pub fn norm(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

/// The cosine of the angle between two vectors; `None` if one is 0 or their lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let norms = norm(a) * norm(b);
    (a.len() == b.len() && norms > 0.0).then(|| (dot(a, b) / norms).clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_is_that_of_the_angle_and_there_is_none_with_a_vector_of_zeros() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 3.0]).unwrap() - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&[0.0, 2.0], &[0.0, -3.0]), Some(-1.0));
        assert_eq!(cosine(&[1.0], &[0.0]), None);
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), None);
    }
}

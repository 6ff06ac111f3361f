//! Classical multidimensional scaling (Torgerson 1952): points in few axes whose distances are the given ones, as nearly as can be.

use super::LinearError;
use super::spectrum::eigen_symmetric;

/// How near two coordinates are the same size but for rounding, as a share of the larger.
const TIE: f64 = 1e-9;

/// Eigenvalues that are smaller are rounding, as a share of the largest.
const NO_SPREAD: f64 = 1e-12;

/// Things as points.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    pub axes: usize,
    /// Around the origin, the axis with the most spread first. `[n][axes]`
    pub points: Vec<f64>,
    /// The share of the spread along each axis: its eigenvalue over the sum of those above 0; 0 where there is no spread. \[axes\]
    pub shares: Vec<f64>,
}

impl Scaled {
    /// The coordinates of a thing. \[axes\]
    pub fn point(&self, i: usize) -> &[f64] {
        &self.points[i * self.axes..(i + 1) * self.axes]
    }
}

/// Places `n` things by their distances `[n][n]` along so many axes; axes that there is no spread for are 0. Along each axis the
/// coordinate that is farthest from 0 is positive, the first of equal ones.
///
/// # Errors
/// If a distance is not finite.
pub fn classical_scaling(n: usize, distances: &[f64], axes: usize) -> Result<Scaled, LinearError> {
    let found = eigen_symmetric(n, &inner_products(n, distances))?;
    let least = NO_SPREAD * found.values.first().copied().unwrap_or(0.0).max(0.0);
    let spread = |k: usize| Some(found.values[k]).filter(|value| *value > least).unwrap_or(0.0);
    let total: f64 = (0..n).map(spread).sum();
    let (mut points, mut shares) = (vec![0.0; n * axes], vec![0.0; axes]);
    for axis in 0..axes.min(n) {
        shares[axis] = if total > 0.0 { spread(axis) / total } else { 0.0 };
        let vector = &found.vectors[axis * n..(axis + 1) * n];
        let length = sign(vector) * spread(axis).sqrt();
        vector.iter().enumerate().for_each(|(i, x)| points[i * axes + axis] = length * x);
    }
    Ok(Scaled { axes, points, shares })
}

/// The inner products of points around their mean that have these distances: the squares, centred both ways, times -1/2.
fn inner_products(n: usize, distances: &[f64]) -> Vec<f64> {
    let squares: Vec<f64> = distances.iter().map(|d| d * d).collect();
    let means: Vec<f64> = (0..n).map(|i| squares[i * n..(i + 1) * n].iter().sum::<f64>() / n as f64).collect();
    let all = means.iter().sum::<f64>() / n.max(1) as f64;
    let centred = |i: usize, j: usize| -0.5 * (squares[i * n + j] - means[i] - means[j] + all);
    (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| centred(i, j)).collect()
}

/// The sign that makes the number farthest from 0 positive.
fn sign(vector: &[f64]) -> f64 {
    let largest = vector.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let first = vector.iter().find(|x| x.abs() >= (1.0 - TIE) * largest);
    if first.is_some_and(|x| *x < 0.0) { -1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(points: &[(f64, f64)]) -> Vec<f64> {
        let pairs = points.iter().flat_map(|a| points.iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| (a.0 - b.0).hypot(a.1 - b.1)).collect()
    }

    fn near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-9, "{found:?} and {expected:?}"));
    }

    #[test]
    fn points_of_a_line_come_back_around_their_mean_with_the_farthest_positive() {
        let found = classical_scaling(3, &distances(&[(0.0, 0.0), (1.0, 0.0), (5.0, 0.0)]), 2).unwrap();
        near(&found.points, &[-2.0, 0.0, -1.0, 0.0, 3.0, 0.0]);
        near(&found.shares, &[1.0, 0.0]);
        near(found.point(2), &[3.0, 0.0]);
    }

    #[test]
    fn a_rectangle_has_its_longer_side_along_the_first_axis() {
        // Sides of 4 and 2: the eigenvalues are 4 times 2 squared, and 4 times 1 squared.
        let corners = [(0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (0.0, 2.0)];
        let found = classical_scaling(4, &distances(&corners), 2).unwrap();
        near(&found.shares, &[0.8, 0.2]);
        near(&found.points, &[2.0, 1.0, -2.0, 1.0, -2.0, -1.0, 2.0, -1.0]);
    }

    #[test]
    fn distances_of_no_points_in_any_space_lose_what_is_below_0() {
        // From the middle thing to the others it is 1, and between these 3: farther than by way of the middle.
        let found = classical_scaling(3, &[0.0, 1.0, 3.0, 1.0, 0.0, 1.0, 3.0, 1.0, 0.0], 2).unwrap();
        near(&found.points, &[1.5, 0.0, 0.0, 0.0, -1.5, 0.0]);
        near(&found.shares, &[1.0, 0.0]);
    }

    #[test]
    fn one_thing_is_at_the_origin_and_nothing_is_nowhere() {
        let one = classical_scaling(1, &[0.0], 2).unwrap();
        assert_eq!((one.points, one.shares), (vec![0.0, 0.0], vec![0.0, 0.0]));
        assert!(classical_scaling(0, &[], 2).unwrap().points.is_empty());
        assert!(classical_scaling(2, &[0.0, f64::NAN, f64::NAN, 0.0], 2).is_err());
    }
}

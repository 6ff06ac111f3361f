//! Where curves over a grid of coefficients cross 0.

/// Where something crosses 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Before the grid begins: all along it is as it should be after the crossing.
    Under,
    At(f64),
    /// After the grid ends: there it is still as it should be before.
    Over,
}

impl Place {
    /// The coefficient, or the end of the grid `x` that it lies beyond.
    pub(super) fn within(self, x: &[f64]) -> f64 {
        let end = match self {
            Place::Under => x.first(),
            Place::At(at) => return at,
            Place::Over => x.last(),
        };
        end.copied().unwrap_or(f64::NAN)
    }

    /// A number to be ranked by.
    pub(super) fn order(self) -> f64 {
        match self {
            Place::Under => f64::NEG_INFINITY,
            Place::At(at) => at,
            Place::Over => f64::INFINITY,
        }
    }
}

/// The mean of curves over one grid.
pub(super) fn mean_curve(curves: &[&[f64]]) -> Vec<f64> {
    let doses = curves.first().map_or(0, |c| c.len());
    (0..doses).map(|d| curves.iter().map(|c| c[d]).sum::<f64>() / curves.len() as f64).collect()
}

/// Whether a curve rises from end to end.
pub(super) fn rises(y: &[f64]) -> bool {
    y.first().zip(y.last()).is_some_and(|(first, last)| last > first)
}

/// Where a curve over ascending `x` crosses 0 upwards, or downwards; of several such crossings the one nearest to x = 0. Without
/// one its last point says on which side of the grid it would: a curve that only crosses the other way does not get there.
pub(super) fn crossing(x: &[f64], y: &[f64], upwards: bool) -> Place {
    let after = |y: f64| (y > 0.0) == upwards;
    let steps = x.windows(2).zip(y.windows(2)).filter(|(_, y)| !after(y[0]) && after(y[1]));
    let all = steps.map(|(x, y)| x[0] + (x[1] - x[0]) * y[0] / (y[0] - y[1]));
    match all.min_by(|a, b| a.abs().total_cmp(&b.abs())) {
        Some(at) => Place::At(at),
        None if y.last().is_some_and(|y| after(*y)) => Place::Under,
        None => Place::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f64; 4] = [-2.0, -1.0, 0.0, 1.0];

    #[test]
    fn a_crossing_is_in_proportion_between_coefficients_and_the_nearest_to_zero() {
        assert_eq!(crossing(&X, &[-1.0, 3.0, 5.0, 6.0], true), Place::At(-1.75));
        assert_eq!(crossing(&X, &[-1.0, 1.0, -1.0, 1.0], true), Place::At(0.5));
        assert_eq!(mean_curve(&[&[1.0, 3.0], &[3.0, 5.0]]), [2.0, 4.0]);
    }

    #[test]
    fn crossings_against_the_curves_way_do_not_count() {
        assert_eq!(crossing(&X, &[3.0, -1.0, -1.0, 1.0], true), Place::At(0.5));
        assert_eq!(crossing(&X, &[3.0, -1.0, -1.0, 1.0], false), Place::At(-1.25));
        assert_eq!(crossing(&X, &[3.0, 2.0, -1.0, -2.0], true), Place::Over);
    }

    #[test]
    fn what_does_not_cross_lies_beyond_the_end_that_it_would_cross_at() {
        let (above, below) = ([1.0, 2.0, 3.0, 4.0], [-4.0, -3.0, -2.0, -1.0]);
        assert_eq!((crossing(&X, &above, true), crossing(&X, &below, true)), (Place::Under, Place::Over));
        assert_eq!((crossing(&X, &above, false), crossing(&X, &below, false)), (Place::Over, Place::Under));
        assert_eq!((Place::Under.within(&X), Place::Over.within(&X), Place::At(0.5).within(&X)), (-2.0, 1.0, 0.5));
        let order = [Place::Over, Place::At(9.0), Place::Under, Place::Under].map(Place::order);
        assert_eq!(crate::stats::ranks(&order), [4.0, 3.0, 1.5, 1.5]);
    }
}

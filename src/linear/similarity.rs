//! How alike are two sets of activations of the same inputs, whatever their widths?
//!
//! Each set has a row an input. Three measures, of which the first two do not see rotations, shifts and a common scale:
//!
//! - **CKA** (linear centred kernel alignment): the correlation of two inner products' matrices (Kornblith et al. 2019, "Similarity of
//!   Neural Network Representations Revisited"). With fewer rows than numbers a row the plain one is large by itself; the debiased
//!   one is the ratio of unbiased estimates of HSIC (Song et al. 2012, "Feature Selection via Dependence Maximization"; Nguyen et al.
//!   2021, "Do Wide and Deep Networks Learn the Same Things?").
//! - **Procrustes distance**: how far the sets are apart after the best rotation, each centred and of norm 1, the narrower one filled up
//!   with zeros: `sqrt(2 - 2 |X^T Y|_*)`, from 0 to `sqrt(2)` (Ding et al. 2021, "Grounding Representation Similarity with
//!   Statistical Testing").
//! - **RSA**: do both sets order all pairs of inputs alike? The rank correlation of the pairs' dissimilarities, 1 less the correlation
//!   of two rows (Kriegeskorte et al. 2008, "Representational Similarity Analysis").
//!
//! What can be made of one set alone is made once ([`Rows::new`]): of two networks each layer is compared with each.

use super::LinearError;
use super::dense::dot;
use super::examples::check;
use super::spectrum::{Matrix, singular_values};
use crate::stats::{Interval, jackknife_correlation, ranks};

/// Unbiased estimates need so many rows.
pub const LEAST_ROWS: usize = 4;

/// The spread of rows that differ by rounding alone is smaller, as a share of their squares.
const NO_SPREAD: f64 = 1e-28;

/// Unbiased estimates of a set with itself that are smaller are rounding, as a share of its squared spread.
const NO_ESTIMATE: f64 = 1e-12;

/// Dissimilarities of two rows that are smaller are rounding.
const NOT_APART: f64 = 1e-12;

/// A set of rows, with what its comparison with others takes.
///
/// Rows come in groups. An interval is from the estimates without each group in turn.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The group of each row, from 0. \[n\]
    groups: Vec<usize>,
    /// Of all rows, then of all but each group's. \[groups + 1\]
    samples: Vec<Sample>,
    /// The inner product of each centred row with those before it: of row 1 one, of row 2 two. `[n (n - 1) / 2]`
    below: Vec<f64>,
    /// That of each with itself. \[n\]
    own: Vec<f64>,
    /// A matrix F of which `F^T F` are all the inner products, over their sum on the diagonal; none where rows do not differ.
    /// `[min(n, dim), n]`
    factor: Option<Matrix>,
    dissimilar: Option<Dissimilar>,
}

/// Some of the rows.
#[derive(Clone, Debug, Default)]
struct Sample {
    /// How many there are.
    rows: f64,
    /// The sum of each one's inner products with the others of them; 0 for a row that is none of them. \[n\]
    sums: Vec<f64>,
    /// The unbiased estimate of HSIC with itself, up to a factor that depends on the number of rows; 0 where there is none.
    itself: f64,
}

/// The order of all pairs of rows by their dissimilarity.
#[derive(Clone, Debug)]
struct Dissimilar {
    /// Less their mean: multiples of 1/2, which f32 holds exactly. `[n (n - 1) / 2]`
    ranks: Vec<f32>,
    square: f64,
}

/// How alike two sets are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Alike {
    /// Debiased CKA, 1 at most; below 0 by chance. None of a set whose rows do not differ.
    pub cka: Option<f64>,
    /// Its 95 % interval, by leaving out each group in turn; none of fewer than three groups, and where it is 1.
    pub interval: Option<Interval>,
    /// CKA as it is without that, from 0 to 1.
    pub cka_biased: Option<f64>,
    /// The Procrustes distance, from 0 to `sqrt(2)`.
    pub procrustes: Option<f64>,
    /// The rank correlation of dissimilarities, from -1 to 1.
    pub rsa: Option<f64>,
}

impl Rows {
    /// Rows `[n][dim]`, each with its group.
    ///
    /// # Errors
    /// If there are fewer than [`LEAST_ROWS`], or a number is not finite.
    pub fn new(values: &[f32], dim: usize, groups: &[usize]) -> Result<Rows, LinearError> {
        let n = groups.len();
        if n < LEAST_ROWS {
            return Err(LinearError::Option { what: "the number of rows", value: n as f64, expected: "4 or more" });
        }
        if values.len() != n * dim {
            return Err(LinearError::Length { what: format!("{n} rows"), expected: n * dim, found: values.len() });
        }
        for (i, row) in values.chunks_exact(dim.max(1)).enumerate() {
            check(row, dim, || format!("row {i}"))?;
        }
        let centred = centred(values, n, dim);
        let products = centred.times(&centred.turned());
        let below = (1..n).flat_map(|i| products.values[i * n..i * n + i].iter().copied()).collect();
        let own: Vec<f64> = (0..n).map(|i| products.values[i * n + i]).collect();
        let squares: f64 = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let spread = Some(own.iter().sum::<f64>()).filter(|spread| *spread > NO_SPREAD * squares);
        let mut rows = Rows {
            groups: groups.to_vec(),
            samples: Vec::new(),
            below,
            own,
            factor: spread.map(|spread| factor(&centred, spread)),
            dissimilar: Dissimilar::of(values, n, dim),
        };
        rows.samples = rows.sampled();
        let itself = rows.shared(&rows);
        let least = spread.map_or(f64::INFINITY, |spread| NO_ESTIMATE * spread * spread);
        for (sample, itself) in rows.samples.iter_mut().zip(itself) {
            sample.itself = if itself > least { itself } else { 0.0 };
        }
        Ok(rows)
    }

    /// How alike another set of rows of the same inputs is; nothing is known of a set with other inputs.
    ///
    /// # Errors
    /// If the spectrum of their product cannot be found.
    pub fn alike(&self, other: &Rows) -> Result<Alike, LinearError> {
        if self.groups != other.groups {
            return Ok(Alike::default());
        }
        let estimates = self.estimates(other);
        Ok(Alike {
            cka: estimates[0],
            interval: interval(&estimates),
            cka_biased: self.biased(other),
            procrustes: self.procrustes(other)?,
            rsa: self.rsa(other),
        })
    }

    /// The sums of all samples.
    fn sampled(&self) -> Vec<Sample> {
        let (n, groups) = (self.groups.len(), self.groups.iter().max().map_or(0, |last| last + 1));
        let mut all = vec![0.0; n];
        // Of each group the sum of each row's products with its rows.
        let mut with = vec![vec![0.0; n]; groups];
        self.pairs(&self.below, |i, j, product| {
            all[i] += product;
            all[j] += product;
            with[self.groups[j]][i] += product;
            with[self.groups[i]][j] += product;
        });
        let without = |(group, with): (usize, &Vec<f64>)| {
            let kept = |i: usize| if self.groups[i] == group { 0.0 } else { all[i] - with[i] };
            let rows = self.groups.iter().filter(|of| **of != group).count() as f64;
            Sample { rows, sums: (0..n).map(kept).collect(), itself: 0.0 }
        };
        let left: Vec<Sample> = with.iter().enumerate().map(without).collect();
        std::iter::once(Sample { rows: n as f64, sums: all, itself: 0.0 }).chain(left).collect()
    }

    /// Goes through the pairs of rows, the later first, with a number of each.
    fn pairs(&self, numbers: &[f64], mut each: impl FnMut(usize, usize, f64)) {
        let mut numbers = numbers.iter();
        for i in 1..self.groups.len() {
            numbers.by_ref().take(i).enumerate().for_each(|(j, number)| each(i, j, *number));
        }
    }

    /// The unbiased estimate of HSIC with another set, up to a factor that depends on the number of rows, of each sample: with K and L
    /// the inner products without those of rows with themselves, `sum(K L) + sum(K) sum(L) / ((m - 1)(m - 2)) - 2 / (m - 2) 1' K L 1`.
    fn shared(&self, other: &Rows) -> Vec<f64> {
        let (mut all, mut of_group) = (0.0, vec![0.0; self.samples.len() - 1]);
        let products: Vec<f64> = self.below.iter().zip(&other.below).map(|(a, b)| a * b).collect();
        self.pairs(&products, |i, j, product| {
            all += product;
            of_group[self.groups[i]] += product;
            if self.groups[j] != self.groups[i] {
                of_group[self.groups[j]] += product;
            }
        });
        let left = std::iter::once(all).chain(of_group.iter().map(|of| all - of));
        let samples = self.samples.iter().zip(&other.samples).zip(left);
        let one = |((a, b), products): ((&Sample, &Sample), f64)| {
            let (m, sum) = (a.rows, |sums: &[f64]| sums.iter().sum::<f64>());
            2.0 * products + sum(&a.sums) * sum(&b.sums) / ((m - 1.0) * (m - 2.0))
                - 2.0 / (m - 2.0) * dot(&a.sums, &b.sums)
        };
        samples.map(one).collect()
    }

    /// Debiased CKA of each sample.
    fn estimates(&self, other: &Rows) -> Vec<Option<f64>> {
        let samples = self.samples.iter().zip(&other.samples).zip(self.shared(other));
        let one = |((a, b), shared): ((&Sample, &Sample), f64)| {
            let defined = a.rows >= LEAST_ROWS as f64 && a.itself > 0.0 && b.itself > 0.0;
            defined.then(|| (shared / (a.itself.sqrt() * b.itself.sqrt())).clamp(-1.0, 1.0))
        };
        samples.map(one).collect()
    }

    fn biased(&self, other: &Rows) -> Option<f64> {
        self.factor.as_ref().and(other.factor.as_ref())?;
        let shared = |a: &Rows, b: &Rows| 2.0 * dot(&a.below, &b.below) + dot(&a.own, &b.own);
        Some((shared(self, other) / (shared(self, self).sqrt() * shared(other, other).sqrt())).clamp(0.0, 1.0))
    }

    fn procrustes(&self, other: &Rows) -> Result<Option<f64>, LinearError> {
        let Some((a, b)) = self.factor.as_ref().zip(other.factor.as_ref()) else { return Ok(None) };
        // Its singular values are those of the product of the rows themselves.
        let core = a.times(&b.turned());
        let nuclear: f64 = singular_values(&core)?.iter().sum();
        Ok(Some((2.0 - 2.0 * nuclear).max(0.0).sqrt()))
    }

    fn rsa(&self, other: &Rows) -> Option<f64> {
        let (a, b) = (self.dissimilar.as_ref()?, other.dissimilar.as_ref()?);
        let shared: f64 = a.ranks.iter().zip(&b.ranks).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        Some((shared / (a.square.sqrt() * b.square.sqrt())).clamp(-1.0, 1.0))
    }
}

/// The 95 % interval of the first estimate, from those without each group: a correlation, so by the jackknife on Fisher's scale.
fn interval(estimates: &[Option<f64>]) -> Option<Interval> {
    let groups: Vec<usize> = (1..estimates.len()).collect();
    jackknife_correlation(&groups, |left| match groups.iter().find(|group| !left.contains(group)) {
        Some(out) => estimates[*out],
        None => estimates[0],
    })
}

/// Rows less their mean.
fn centred(values: &[f32], n: usize, dim: usize) -> Matrix {
    let mut means = vec![0.0; dim];
    for row in values.chunks_exact(dim.max(1)) {
        means.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n as f64);
    }
    let values = values.chunks_exact(dim.max(1)).flat_map(|row| row.iter().zip(&means));
    Matrix { rows: n, columns: dim, values: values.map(|(x, mean)| f64::from(*x) - mean).collect() }
}

/// F of `F^T F`: the rows as columns, turned upright where each has more numbers than there are rows.
fn factor(centred: &Matrix, spread: f64) -> Matrix {
    let columns = centred.turned();
    let mut factor = if columns.rows > columns.columns { columns.upright() } else { columns };
    let scale = 1.0 / spread.sqrt();
    factor.values.iter_mut().for_each(|x| *x *= scale);
    factor
}

impl Dissimilar {
    /// None where a row does not vary, or all pairs are equally dissimilar.
    fn of(values: &[f32], n: usize, dim: usize) -> Option<Dissimilar> {
        let mut standard: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        for row in standard.chunks_exact_mut(dim.max(1)) {
            let mean = row.iter().sum::<f64>() / dim as f64;
            row.iter_mut().for_each(|x| *x -= mean);
            let norm = dot(row, row).sqrt();
            if norm == 0.0 {
                return None;
            }
            row.iter_mut().for_each(|x| *x /= norm);
        }
        let standard = Matrix { rows: n, columns: dim, values: standard };
        let correlations = standard.times(&standard.turned()).values;
        let apart = (1..n).flat_map(|i| correlations[i * n..i * n + i].iter().map(|r| 1.0 - r));
        let apart: Vec<f64> = apart.map(|apart| if apart < NOT_APART { 0.0 } else { apart }).collect();
        let middle = (apart.len() + 1) as f64 / 2.0;
        let ranks: Vec<f32> = ranks(&apart).into_iter().map(|rank| (rank - middle) as f32).collect();
        let square: f64 = ranks.iter().map(|rank| f64::from(*rank) * f64::from(*rank)).sum();
        (square > 0.0).then_some(Dissimilar { ranks, square })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng;
    use rand::Rng;

    fn near(found: Option<f64>, expected: f64, tolerance: f64) {
        assert!(found.is_some_and(|x| (x - expected).abs() <= tolerance), "{found:?} is not {expected}");
    }

    /// Rows that are each a group.
    fn rows(values: &[f32], dim: usize) -> Rows {
        let groups: Vec<usize> = (0..values.len() / dim).collect();
        Rows::new(values, dim, &groups).unwrap()
    }

    fn random(n: usize, dim: usize, stream: &str) -> Vec<f32> {
        let mut rng = rng(3, stream);
        (0..n * dim).map(|_| rng.random_range(-1.0..1.0) as f32).collect()
    }

    const X: [f32; 21] = [
        1.0, 0.5, -2.0, 0.25, 1.0, 3.0, -1.0, 2.0, 0.75, 4.0, -0.5, 1.5, 2.0, 2.0, -1.0, 0.0, -3.0, 1.0, 1.5, 0.25, 0.5,
    ];
    const Y: [f32; 28] = [
        0.5, 1.0, 2.0, -1.0, 1.0, -1.0, 0.5, 3.0, 2.0, 0.0, -1.0, 0.25, -2.0, 4.0, 1.0, 1.0, 0.75, 1.5, 2.5, -0.5, 3.0,
        -1.0, 0.0, 2.0, -1.0, 0.5, 1.0, 0.0,
    ];
    /// Wider than there are rows.
    const W: [f32; 63] = [
        0.5, 1.0, 2.0, -1.0, 0.0, 3.0, 1.0, 2.0, -2.0, 1.0, -1.0, 0.5, 3.0, 1.0, 0.0, 2.0, -1.0, 1.0, 2.0, 0.0, -1.0,
        0.25, 4.0, 1.0, -1.0, 0.5, 0.0, -2.0, 4.0, 1.0, 1.0, 0.5, 2.0, 0.0, 1.0, 3.0, 0.75, 1.5, 2.5, -0.5, 1.0, 1.0,
        -2.0, 0.0, 1.0, 3.0, -1.0, 0.0, 2.0, -1.0, 0.5, 1.0, 4.0, 0.25, -1.0, 0.5, 1.0, 0.0, 2.0, 2.0, 0.0, -3.0, 1.0,
    ];

    /// By their formulas in numpy 2.4.6, and scipy 1.17.1's `spearmanr`: debiased CKA of all rows and without each group, biased CKA,
    /// Procrustes distance, RSA.
    #[test]
    fn all_measures_are_those_of_their_formulas() {
        let groups = [0, 0, 1, 1, 2, 2, 2];
        let of = |values: &[f32], dim: usize| Rows::new(values, dim, &groups).unwrap();
        let (x, y, w) = (of(&X, 3), of(&Y, 4), of(&W, 9));
        for (a, b, cka, others) in [
            (
                &x,
                &y,
                [0.3543532722313863, 0.10134197011891324, 0.730771735208998, 0.7562609305524636],
                [0.667308070836945, 0.7110857674511987, 0.5194805194805194],
            ),
            (
                &x,
                &w,
                [0.34933750796568974, 0.2879108514835829, 0.4408817261316964, 0.8767497517373061],
                [0.7356675444889296, 0.6216292501377989, 0.24805194805194808],
            ),
            (
                &y,
                &w,
                [0.6401114791007643, 0.7077395684154154, 0.5846251076396494, 0.9777207420915281],
                [0.7864933907409245, 0.5416943721390546, 0.5545454545454546],
            ),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let found = a.alike(b).unwrap();
                let estimates = a.estimates(b);
                assert_eq!(estimates.len(), cka.len());
                estimates.iter().zip(cka).for_each(|(found, expected)| near(*found, expected, 1e-12));
                assert_eq!(found.cka, estimates[0]);
                near(found.cka_biased, others[0], 1e-12);
                near(found.procrustes, others[1], 1e-12);
                near(found.rsa, others[2], 1e-12);
                let interval = found.interval.unwrap();
                assert!(interval.low < cka[0] && cka[0] < interval.high, "{interval:?}");
            }
        }
    }

    #[test]
    fn a_set_is_like_itself_turned_shifted_scaled_and_filled_up_with_zeros() {
        for (n, dim) in [(12, 3), (7, 20)] {
            let values = random(n, dim, "itself");
            let own = rows(&values, dim);
            let same = own.alike(&own).unwrap();
            near(same.cka, 1.0, 1e-12);
            near(same.cka_biased, 1.0, 1e-12);
            near(same.procrustes, 0.0, 1e-6);
            near(same.rsa, 1.0, 1e-12);
            assert_eq!(same.interval, None, "1 has no interval");
            // The first two numbers are turned by an angle whose sine is 3/5; two columns of zeros are added.
            let turned = values.chunks_exact(dim).flat_map(|row| {
                let mut row: Vec<f32> = row.to_vec();
                let (a, b) = (row[0], row[1]);
                (row[0], row[1]) = (0.8 * a - 0.6 * b, 0.6 * a + 0.8 * b);
                row.iter_mut().enumerate().for_each(|(k, x)| *x = 4.0 * *x + k as f32);
                row.extend([0.0, 0.0]);
                row
            });
            let turned = own.alike(&rows(&turned.collect::<Vec<_>>(), dim + 2)).unwrap();
            near(turned.cka, 1.0, 1e-6);
            near(turned.cka_biased, 1.0, 1e-6);
            near(turned.procrustes, 0.0, 1e-5);
            assert!(turned.rsa.is_some_and(|r| r < 0.999), "correlations of rows see rotations: {turned:?}");
        }
    }

    #[test]
    fn sets_that_vary_with_other_inputs_are_as_far_apart_as_can_be() {
        let (a, b) = (rows(&[1.0, 1.0, -1.0, -1.0], 1), rows(&[1.0, -1.0, 1.0, -1.0], 1));
        let found = a.alike(&b).unwrap();
        near(found.cka_biased, 0.0, 1e-12);
        near(found.procrustes, 2.0_f64.sqrt(), 1e-12);
        // -4 + 16/6 - 4 over 12 + 16/6 - 4.
        near(found.cka, -0.5, 1e-12);
        assert_eq!(found.rsa, None, "one number does not vary within a row");
    }

    #[test]
    fn wide_sets_without_anything_in_common_are_alike_by_the_biased_estimate_alone() {
        let of = |stream: &str| rows(&random(40, 400, stream), 400);
        let found = of("one").alike(&of("other")).unwrap();
        // By chance it is 0 with a deviation of about one over the root of the 780 pairs of rows.
        assert!(found.cka_biased.is_some_and(|x| x > 0.8) && found.cka.is_some_and(|x| x.abs() < 0.15), "{found:?}");
    }

    #[test]
    fn rows_that_do_not_differ_or_are_too_few_say_nothing() {
        let (same, other) = (rows(&[0.1, 0.2].repeat(6), 2), rows(&random(6, 2, "other"), 2));
        let found = same.alike(&other).unwrap();
        assert_eq!((found.cka, found.cka_biased, found.procrustes, found.rsa), (None, None, None, None));
        // Corners of a simplex are all equally far from each other: that is no structure.
        let corners: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
        assert_eq!(rows(&corners, 4).alike(&rows(&corners, 4)).unwrap().cka, None);
        assert_eq!(other.alike(&rows(&random(5, 2, "fewer"), 2)).unwrap(), Alike::default());
        let few = Rows::new(&[1.0, 2.0, 3.0], 1, &[0, 1, 2]).unwrap_err().to_string();
        assert!(few.contains("the number of rows is 3; expected 4 or more"), "{few}");
        assert!(Rows::new(&[1.0, 2.0, f32::NAN, 0.0], 1, &[0, 1, 2, 3]).is_err());
    }
}

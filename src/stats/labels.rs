//! Do numbers differ between labels?

use super::{all_finite, mean_of as mean, rng};
use rand::seq::SliceRandom;

/// How near two statistics are the same number but for rounding.
const TIE: f64 = 1e-12;

/// What a permutation test of labels says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelTest {
    /// The share of the numbers' variance that lies between labels (eta squared), in [0, 1].
    pub between: f64,
    /// How often labels that are dealt out anew part the numbers as well, (hits + 1) / (draws + 1).
    pub p: f64,
    /// The least that p could be for so many numbers of each label: some orders are the same but for the labels' names.
    pub least_p: f64,
}

/// Permutation test of the hypothesis that labels say nothing about numbers: the share of variance between labels, under
/// `draws` random orders of the labels.
///
/// `None` if the lists differ in length, a number is not finite, there are fewer than two labels, as many labels as
/// numbers, or the numbers do not vary.
pub fn label_test(numbers: &[f64], labels: &[usize], draws: usize, seed: u64) -> Option<LabelTest> {
    let center = mean(numbers);
    let total: f64 = numbers.iter().map(|x| (x - center) * (x - center)).sum();
    let n_labels = labels.iter().max()? + 1;
    let mut sizes = vec![0usize; n_labels];
    labels.iter().for_each(|l| sizes[*l] += 1);
    let used = sizes.iter().filter(|n| **n > 0).count();
    let sound = numbers.len() == labels.len() && all_finite(numbers) && total > 0.0;
    if !sound || used < 2 || used == numbers.len() {
        return None;
    }
    let deviations: Vec<f64> = numbers.iter().map(|x| x - center).collect();
    let between = |labels: &[usize]| {
        let mut sums = vec![0.0; n_labels];
        deviations.iter().zip(labels).for_each(|(x, l)| sums[*l] += x);
        sums.iter().zip(&sizes).filter(|(_, n)| **n > 0).map(|(sum, n)| sum * sum / *n as f64).sum::<f64>() / total
    };
    let observed = between(labels);
    let (mut rng, mut dealt) = (rng(seed, "labels"), labels.to_vec());
    let mut hits = 0usize;
    for _ in 0..draws {
        dealt.shuffle(&mut rng);
        hits += usize::from(between(&dealt) >= observed - TIE);
    }
    let least_p = least_p(&sizes).max(1.0 / (draws + 1) as f64);
    Some(LabelTest { between: observed.min(1.0), p: (hits + 1) as f64 / (draws + 1) as f64, least_p })
}

/// One over the ways to deal out labels of these sizes, in which labels of one size may stand for each other.
pub(super) fn least_p(sizes: &[usize]) -> f64 {
    let ln_factorial = |n: usize| (2..=n).map(|i| (i as f64).ln()).sum::<f64>();
    let of_size = |size: usize| sizes.iter().filter(|n| **n == size).count();
    let mut different: Vec<usize> = sizes.iter().copied().filter(|n| *n > 0).collect();
    let ways = ln_factorial(different.iter().sum()) - different.iter().map(|n| ln_factorial(*n)).sum::<f64>();
    different.sort_unstable();
    different.dedup();
    (different.into_iter().map(|size| ln_factorial(of_size(size))).sum::<f64>() - ways).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_part_the_numbers_are_found_and_others_are_not() {
        let numbers: Vec<f64> = (0..30).map(|i| f64::from(i % 3) + 0.01 * f64::from(i)).collect();
        let labels: Vec<usize> = (0..30).map(|i| i % 3).collect();
        let found = label_test(&numbers, &labels, 999, 0).unwrap();
        assert!(found.between > 0.95 && found.p == 0.001, "{found:?}");
        let blocks: Vec<usize> = (0..30).map(|i| (i / 3) % 2).collect();
        assert!(label_test(&numbers, &blocks, 999, 0).unwrap().p > 0.1);
    }

    #[test]
    fn the_share_between_labels_is_that_of_an_analysis_of_variance() {
        // Means of 2 and 26/3 about 16/3: 200/3 of a sum of squares of 310/3.
        let found = label_test(&[1.0, 2.0, 3.0, 4.0, 10.0, 12.0], &[0, 0, 0, 1, 1, 1], 9, 0).unwrap();
        assert!((found.between - 20.0 / 31.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn so_few_numbers_can_be_dealt_out_in_so_many_ways() {
        // Four numbers in two labels of two: 6 ways, of which two differ in the labels' names alone; 5 in 2 and 3: 10.
        assert!((least_p(&[2, 2]) - 1.0 / 3.0).abs() < 1e-12 && (least_p(&[2, 0, 3]) - 0.1).abs() < 1e-12);
        assert!((least_p(&[0, 2, 0, 3]) - 0.1).abs() < 1e-12, "labels that nothing has are none");
        assert!((label_test(&[1.0, 2.0, 3.0, 4.0], &[0, 0, 1, 1], 99, 0).unwrap().least_p - 1.0 / 3.0).abs() < 1e-12);
        let many: Vec<f64> = (0..30).map(f64::from).collect();
        assert_eq!(label_test(&many, &(0..30).map(|i| i % 3).collect::<Vec<_>>(), 99, 0).unwrap().least_p, 0.01);
    }

    #[test]
    fn what_cannot_be_tested_is_none() {
        assert_eq!(label_test(&[1.0, 2.0, 3.0], &[0, 0, 0], 99, 0), None);
        assert_eq!(label_test(&[1.0, 2.0, 3.0], &[0, 1, 2], 99, 0), None);
        assert_eq!(label_test(&[1.0, 1.0, 1.0], &[0, 1, 1], 99, 0), None);
        assert_eq!(label_test(&[], &[], 99, 0), None);
    }
}

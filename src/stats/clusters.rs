//! Clusters of things of which only the distances are known: the tree of average linkage, its cuts, and how well a grouping fits.

use super::labels::least_p;
use super::{all_finite, mean, rng};
use rand::seq::SliceRandom;

/// How near two statistics are the same number but for rounding.
const TIE: f64 = 1e-12;

/// How far things are from each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Distances {
    n: usize,
    /// Symmetric, 0 on the diagonal. `[n][n]`
    values: Vec<f64>,
}

impl Distances {
    /// The distances of `n` things, of which each two are asked for once, the first before the second. `None` if one is not finite.
    pub fn of(n: usize, distance: impl Fn(usize, usize) -> f64) -> Option<Self> {
        let mut values = vec![0.0; n * n];
        for i in 0..n {
            for j in i + 1..n {
                values[i * n + j] = distance(i, j);
                values[j * n + i] = values[i * n + j];
            }
        }
        all_finite(&values).then_some(Distances { n, values })
    }

    /// How many things there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The distance of two.
    pub fn between(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.n + j]
    }

    /// All of them, row-major. `[n][n]`
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Those of some of the things.
    pub fn among(&self, some: &[usize]) -> Distances {
        let pairs = some.iter().flat_map(|i| some.iter().map(|j| self.between(*i, *j)));
        Distances { n: some.len(), values: pairs.collect() }
    }
}

/// Two clusters that become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    /// Things are clusters 0 to n - 1 in their order, and merge k makes the cluster n + k.
    pub clusters: [usize; 2],
    /// The mean distance between the things of one and of the other.
    pub distance: f64,
}

/// The order in which clusters become one, from each thing by itself to all together.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    n: usize,
    merges: Vec<Merge>,
}

impl Tree {
    /// By average linkage (UPGMA, Sokal and Michener 1958): the two clusters whose things are nearest to each other on average
    /// become one, until one is left. Of equal ones, those that hold the first things.
    pub fn average_linkage(distances: &Distances) -> Tree {
        let n = distances.n;
        let mut between = distances.values.clone();
        // A cluster has the place of its first thing.
        let mut clusters: Vec<Option<(usize, f64)>> = (0..n).map(|i| Some((i, 1.0))).collect();
        let mut merges = Vec::with_capacity(n.saturating_sub(1));
        while let Some((i, j)) = nearest(&clusters, &between) {
            let (Some((first, size)), Some((second, other))) = (clusters[i], clusters[j].take()) else { break };
            merges.push(Merge { clusters: [first, second], distance: between[i * n + j] });
            for k in (0..n).filter(|k| *k != i && clusters[*k].is_some()) {
                let mean = (size * between[i * n + k] + other * between[j * n + k]) / (size + other);
                between[i * n + k] = mean;
                between[k * n + i] = mean;
            }
            clusters[i] = Some((n + merges.len() - 1, size + other));
        }
        Tree { n, merges }
    }

    /// In their order; their distances ascend.
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// The cluster of each thing where `k` are left, from 0 in the order of their first things.
    pub fn cut(&self, k: usize) -> Vec<usize> {
        let mut of: Vec<usize> = (0..self.n).collect();
        for (made, merge) in self.merges.iter().take(self.n.saturating_sub(k)).enumerate() {
            of.iter_mut().filter(|of| merge.clusters.contains(of)).for_each(|of| *of = self.n + made);
        }
        let mut seen: Vec<usize> = Vec::new();
        let mut number = |cluster: usize| {
            seen.iter().position(|known| *known == cluster).unwrap_or_else(|| {
                seen.push(cluster);
                seen.len() - 1
            })
        };
        of.into_iter().map(&mut number).collect()
    }
}

/// The places of the two clusters that are nearest to each other.
fn nearest(clusters: &[Option<(usize, f64)>], between: &[f64]) -> Option<(usize, usize)> {
    let n = clusters.len();
    let open: Vec<usize> = (0..n).filter(|i| clusters[*i].is_some()).collect();
    let pairs = open.iter().enumerate().flat_map(|(at, i)| open[at + 1..].iter().map(move |j| (*i, *j)));
    pairs.reduce(|best, pair| if between[pair.0 * n + pair.1] < between[best.0 * n + best.1] { pair } else { best })
}

/// How much nearer each thing is to its own cluster than to the next one, from -1 to 1 (Rousseeuw 1987, "Silhouettes"): `(b - a) /
/// max(a, b)`, where `a` is its mean distance from the others of its cluster and `b` the least of its mean distances from those of
/// another. 0 for a thing that is a cluster by itself.
///
/// `None` if there is not a label for each thing, or fewer than two clusters.
pub fn silhouettes(distances: &Distances, labels: &[usize]) -> Option<Vec<f64>> {
    let n_labels = labels.iter().max()? + 1;
    let mut sizes = vec![0usize; n_labels];
    labels.iter().for_each(|label| sizes[*label] += 1);
    if labels.len() != distances.n || sizes.iter().filter(|n| **n > 0).count() < 2 {
        return None;
    }
    let mut sums = vec![0.0; n_labels];
    let mut of = |i: usize| {
        sums.fill(0.0);
        labels.iter().enumerate().for_each(|(j, label)| sums[*label] += distances.between(i, j));
        let own = labels[i];
        let others = (0..n_labels).filter(|label| *label != own && sizes[*label] > 0);
        let next = others.map(|label| sums[label] / sizes[label] as f64).fold(f64::INFINITY, f64::min);
        if sizes[own] == 1 { 0.0 } else { silhouette(sums[own] / (sizes[own] - 1) as f64, next) }
    };
    Some((0..labels.len()).map(&mut of).collect())
}

/// Of the mean distances from its own cluster and from the next; 0 where both are 0.
fn silhouette(own: f64, next: f64) -> f64 {
    let larger = own.max(next);
    if larger > 0.0 { (next - own) / larger } else { 0.0 }
}

/// What a permutation test of a grouping says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SilhouetteTest {
    /// The mean silhouette of all things.
    pub mean: f64,
    /// How often labels that are dealt out anew fit as well, (hits + 1) / (draws + 1).
    pub p: f64,
    /// The least that p could be for so many things of each label: some orders are the same but for the labels' names.
    pub least_p: f64,
}

/// Permutation test of the hypothesis that labels say nothing about distances: the mean silhouette, under `draws` random orders of
/// the labels.
///
/// `None` as [`silhouettes`], and for as many labels as things.
pub fn silhouette_test(distances: &Distances, labels: &[usize], draws: usize, seed: u64) -> Option<SilhouetteTest> {
    let fit = |labels: &[usize]| mean(&silhouettes(distances, labels)?);
    let observed = fit(labels)?;
    let mut sizes = vec![0usize; labels.iter().max()? + 1];
    labels.iter().for_each(|label| sizes[*label] += 1);
    if sizes.iter().all(|n| *n < 2) {
        return None;
    }
    let (mut rng, mut dealt, mut hits) = (rng(seed, "silhouettes"), labels.to_vec(), 0usize);
    for _ in 0..draws {
        dealt.shuffle(&mut rng);
        hits += usize::from(fit(&dealt)? >= observed - TIE);
    }
    let least_p = least_p(&sizes).max(1.0 / (draws + 1) as f64);
    Some(SilhouetteTest { mean: observed, p: (hits + 1) as f64 / (draws + 1) as f64, least_p })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of a plane.
    fn points(points: &[(f64, f64)]) -> Distances {
        let between = |i: usize, j: usize| (points[i].0 - points[j].0).hypot(points[i].1 - points[j].1);
        Distances::of(points.len(), between).unwrap()
    }

    fn line(at: &[f64]) -> Distances {
        points(&at.iter().map(|x| (*x, 0.0)).collect::<Vec<_>>())
    }

    const EIGHT: [(f64, f64); 8] =
        [(0.0, 0.0), (1.0, 0.5), (0.2, 1.1), (5.0, 5.0), (5.5, 4.2), (9.0, 0.0), (8.1, 0.7), (3.0, 2.5)];

    fn near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{found:?} and {expected:?}"));
    }

    #[test]
    fn four_points_of_a_line_become_two_pairs_and_one_cluster() {
        let distances = line(&[0.0, 10.0, 1.0, 11.0]);
        let tree = Tree::average_linkage(&distances);
        let merge = |clusters, distance| Merge { clusters, distance };
        assert_eq!(tree.merges(), [merge([0, 2], 1.0), merge([1, 3], 1.0), merge([4, 5], 10.0)]);
        assert_eq!((tree.cut(1), tree.cut(2), tree.cut(3)), (vec![0; 4], vec![0, 1, 0, 1], vec![0, 1, 0, 2]));
        assert_eq!(tree.cut(9), [0, 1, 2, 3]);
        // The first is 1 from its own, and 10.5 from the others on average.
        let found = silhouettes(&distances, &tree.cut(2)).unwrap();
        near(&found, &[9.5 / 10.5, 8.5 / 9.5, 8.5 / 9.5, 9.5 / 10.5]);
    }

    /// scipy 1.17.1: `linkage(pdist(points), "average")`; scikit-learn 1.9.1: `silhouette_samples` of its cut.
    #[test]
    fn trees_and_silhouettes_are_those_of_scipy_and_scikit_learn() {
        let distances = points(&EIGHT);
        let tree = Tree::average_linkage(&distances);
        let heights: Vec<f64> = tree.merges().iter().map(|merge| merge.distance).collect();
        near(
            &heights,
            &[
                0.9433981132056602,
                1.0,
                1.118033988749895,
                1.1401754250991383,
                3.1124027051413097,
                5.33629644669567,
                6.872236291179952,
            ],
        );
        assert_eq!(tree.cut(3), [0, 0, 0, 1, 1, 2, 2, 1]);
        let found = silhouettes(&distances, &tree.cut(3)).unwrap();
        assert!((mean(&found).unwrap() - 0.6591204745514584).abs() < 1e-12);
        assert_eq!(tree.cut(4), [0, 0, 0, 1, 1, 2, 2, 3]);
        near(
            &silhouettes(&distances, &tree.cut(4)).unwrap(),
            &[
                0.7137008328430658,
                0.6255809509428394,
                0.6617094301785864,
                0.705331935404118,
                0.6879516392751404,
                0.8078944053415841,
                0.763963005561603,
                0.0,
            ],
        );
    }

    #[test]
    fn labels_that_fit_the_distances_are_told_from_labels_that_do_not() {
        let distances = line(&(0..12).map(|i| f64::from(i / 4 * 10 + i % 4)).collect::<Vec<_>>());
        let fit: Vec<usize> = (0..12).map(|i| i / 4).collect();
        let found = silhouette_test(&distances, &fit, 999, 0).unwrap();
        assert!(found.mean > 0.7, "{found:?}");
        // Of 999 deals none fits as well; 1,001 would be enough for no less than this.
        assert_eq!((found.p, found.least_p), (0.001, 0.001));
        let other: Vec<usize> = (0..12).map(|i| i % 3).collect();
        assert!(silhouette_test(&distances, &other, 999, 0).unwrap().p > 0.1);
        assert_eq!(found, silhouette_test(&distances, &fit, 999, 0).unwrap());
        // Two and two can be parted in three ways.
        let few = silhouette_test(&distances.among(&[0, 1, 10, 11]), &[0, 0, 1, 1], 99, 0).unwrap();
        assert!((few.least_p - 1.0 / 3.0).abs() < 1e-12, "{few:?}");
        assert!((0.2..0.5).contains(&few.p), "deals that part them as well count: {few:?}");
    }

    #[test]
    fn what_has_no_clusters_has_no_silhouettes() {
        let distances = line(&[0.0, 1.0, 5.0]);
        assert_eq!(silhouettes(&distances, &[0, 0, 0]), None);
        assert_eq!(silhouettes(&distances, &[1, 1, 1]), None, "a label that nothing has is no cluster");
        assert_eq!(silhouettes(&distances, &[0, 1]), None);
        assert_eq!(silhouette_test(&distances, &[0, 1, 2], 99, 0), None);
        assert_eq!(silhouettes(&line(&[2.0, 2.0, 2.0]), &[0, 0, 1]), Some(vec![0.0; 3]));
        let none = Tree::average_linkage(&line(&[]));
        assert!(none.merges().is_empty() && none.cut(1).is_empty());
        assert_eq!(Distances::of(2, |_, _| f64::NAN), None);
        let asked = Distances::of(3, |i, j| if i < j { (i + j) as f64 } else { f64::NAN }).unwrap();
        assert_eq!((asked.n(), asked.between(2, 1)), (3, 3.0));
    }
}

//! The tables: children with their vectors' lengths, distances, clusters, a map, sums.

use super::sums::{Added, Sum};
use super::vectors::Delta;
use super::{Asked, Child, Rows};
use crate::analyses::checkpoints::paths::step_of;
use crate::analyses::prelude::*;
use crate::analyses::summary::mean_row;
use crate::linear::scaling::classical_scaling;
use crate::ops::vectors::norm;
use crate::stats::bca_family;
use crate::stats::clusters::{Distances, Tree, silhouette_test, silhouettes};

/// The least prompts that an interval is made of.
const LEAST: usize = 3;

/// How often labels are dealt out anew.
pub(super) const DEALT: usize = 10_000;

/// Clusters that a tree was cut into.
pub(super) const TREE: &str = "tree";
/// Groups that labels make.
pub const LABELS: &str = "labels";

rows! {
    /// A child of the parent.
    pub struct ChildRow<'a> in "children" {
        parent: &'a str = "the parent, as it was named",
        model: &'a str = "the child, as it was named",
        label: Option<&'a str> = "its kind, if one was given",
        step: i64 = "the step of training in its name; -1 where there is none",
        n: i64 = "prompts",
        norm: f64 =
            "length of its vector: of the mean over prompts of the last token's residual stream after the last layer, less the parent's",
        relative: Option<f64> = "that length as a share of the length of the parent's own mean",
        agreement: Option<f64> =
            "mean over prompts of the cosine of what is added at the prompt with the mean of what is added at the others; 0 where \
             prompts have nothing in common",
        agreement_interval: Option<(f64, f64)> as "agreement_ci_" =
            ["lower end of its 95 % BCa interval over prompts, of three or more", "its upper end"],
        nearest: Option<&'a str> = "the child whose vector is nearest by the cosine distance; empty where there is no other that is not 0",
        nearest_distance: Option<f64> = "the cosine distance of both, 1 less the cosine",
    }

    /// Two children.
    pub struct DistanceRow<'a> in "distances" {
        a: &'a str = "the first child",
        b: &'a str = "the second child",
        n: i64 = "prompts",
        cosine: Option<f64> = "cosine distance of both vectors, 1 less the cosine; empty where one vector is 0",
        euclidean: f64 = "Euclidean distance of both vectors",
        by_prompt: Option<f64> = "mean over prompts of the cosine distance of what both add at the prompt",
        by_prompt_interval: Option<(f64, f64)> as "by_prompt_ci_" =
            ["lower end of its 95 % BCa interval over prompts, of three or more", "its upper end"],
    }

    /// A child where the tree of average linkage is cut into so many clusters. Children whose vector is 0 are left out.
    pub struct ClusterRow<'a> in "clusters" {
        k: i64 = "clusters",
        model: &'a str = "the child",
        label: Option<&'a str> = "its kind, if one was given",
        cluster: i64 = "its cluster, from 0",
        silhouette: Option<f64> =
            "how much nearer it is to its own cluster than to the next, from -1 to 1, by cosine distances; 0 for a cluster of one",
    }

    /// A grouping of the children.
    pub struct CutRow<'a> in "cuts" {
        grouping: &'a str = "`tree`, which average linkage of the cosine distances makes, or `labels`",
        k: i64 = "groups",
        n: i64 = "children in them",
        silhouette: Option<f64> = "mean silhouette of the children",
        p_value: Option<f64> =
            "how often labels that are dealt out anew have as large a mean silhouette (10,000 deals); of labels alone, as clusters are \
             made to have a large one",
        least_p: Option<f64> = "the least that the p-value could be for so many children of each label",
    }

    /// A child on the map: classical scaling of the distances between unit vectors, the root of twice the cosine distance.
    pub struct MapRow<'a> in "map" {
        parent: &'a str = "the parent, as it was named",
        model: &'a str = "the child",
        label: Option<&'a str> = "its kind, if one was given",
        x: f64 = "along the axis with the largest spread",
        y: f64 = "along the axis with the next",
        x_share: f64 = "share of the spread along the first axis",
        y_share: f64 = "share of the spread along the second",
    }

    /// A sum that was asked about.
    pub struct SumRow<'a> in "sums" {
        a: &'a str = "the first child",
        b: &'a str = "the second child",
        whole: &'a str = "the child that may be their sum",
        n: i64 = "prompts at which none of the three adds nothing",
        cosine: Option<f64> = "cosine of the whole's vector with the sum of both",
        cosine_a: Option<f64> = "its cosine with the first alone",
        cosine_b: Option<f64> = "its cosine with the second alone",
        relative_error: Option<f64> = "length of the whole's vector less the sum, as a share of the length of the whole's",
        gain: Option<f64> = "mean over prompts of the cosine with the sum, less the larger of those with one alone",
        gain_interval: Option<(f64, f64)> as "gain_ci_" =
            ["lower end of its 95 % BCa interval over prompts, of three or more", "its upper end"],
    }
}

/// A mean with its interval.
type Mean = (Option<f64>, Option<(f64, f64)>);

/// What the tables are made of.
struct Found<'a> {
    /// The parent, as it was named.
    parent: &'a str,
    seed: u64,
    items: &'a Asked,
    deltas: &'a [Delta],
    /// The children whose vector is not 0: only they have angles.
    there: Vec<usize>,
    /// Their cosine distances.
    distances: Distances,
}

/// All tables of what was measured. `rows` are the parent's.
pub(super) fn tables(
    (parent, seed): (&str, u64),
    items: &Asked,
    rows: &Rows,
    deltas: &[Delta],
) -> Result<Vec<Table>, AnalysisError> {
    let there: Vec<usize> = (0..deltas.len()).filter(|i| !deltas[*i].is_zero()).collect();
    let distance = |i: usize, j: usize| deltas[there[i]].distance(&deltas[there[j]]).unwrap_or(f64::NAN);
    let distances = Distances::of(there.len(), distance)
        .ok_or_else(|| AnalysisError::Failed("the children's vectors are too large for their angles".to_string()))?;
    for child in items.children.iter().zip(deltas).filter(|(_, delta)| delta.is_zero()).map(|(child, _)| child) {
        tracing::warn!("model `{}`: adds nothing to the parent's activations on these prompts", child.name);
    }
    let found = Found { parent, seed, items, deltas, there, distances };
    let (clusters, cuts) = found.clusters();
    let mut tables = vec![
        ChildRow::table(found.children(rows))?,
        DistanceRow::table(found.distances())?,
        ClusterRow::table(clusters)?,
        CutRow::table(cuts)?,
        MapRow::table(found.map()?)?,
    ];
    if !items.sums.is_empty() {
        tables.push(SumRow::table(found.sums())?);
    }
    Ok(tables)
}

impl<'a> Found<'a> {
    fn child(&self, i: usize) -> &'a Child {
        &self.items.children[i]
    }

    /// The child of this number among those whose vector is not 0.
    fn child_there(&self, i: usize) -> &'a Child {
        self.child(self.there[i])
    }

    /// Means of numbers over prompts, with intervals where there are enough.
    fn means(&self, samples: &[Vec<f64>]) -> Vec<Mean> {
        let options = Bootstrap { seed: self.seed, ..Bootstrap::default() };
        let intervals = samples.iter().zip(bca_family(samples, &options));
        let one = |(sample, interval): (&Vec<f64>, Option<Interval>)| {
            (mean(sample), interval.filter(|_| sample.len() >= LEAST).map(Interval::ends))
        };
        intervals.map(one).collect()
    }

    /// The other child that is nearest to one, with its distance.
    fn nearest(&self, i: usize) -> Option<(&'a str, f64)> {
        let at = self.there.iter().position(|there| *there == i)?;
        let others = (0..self.there.len()).filter(|other| *other != at);
        let nearest =
            others.min_by(|a, b| self.distances.between(at, *a).total_cmp(&self.distances.between(at, *b)))?;
        Some((self.child_there(nearest).name.as_str(), self.distances.between(at, nearest)))
    }

    fn children(&self, rows: &Rows) -> Vec<ChildRow<'a>> {
        let own = norm(&mean_row(rows.iter().map(Vec::as_slice)));
        let agreements: Vec<Vec<f64>> = self.deltas.iter().map(Delta::agreements).collect();
        let row = |(i, (agreement, agreement_interval))| {
            let (child, length, nearest) = (self.child(i), norm(&self.deltas[i].mean), self.nearest(i));
            ChildRow {
                parent: self.parent,
                model: &child.name,
                label: child.label.as_deref(),
                step: step_of(&child.name).and_then(|step| i64::try_from(step).ok()).unwrap_or(-1),
                n: rows.len() as i64,
                norm: length,
                relative: (own > 0.0).then(|| length / own),
                agreement,
                agreement_interval,
                nearest: nearest.map(|(name, _)| name),
                nearest_distance: nearest.map(|(_, distance)| distance),
            }
        };
        self.means(&agreements).into_iter().enumerate().map(row).collect()
    }

    fn distances(&self) -> Vec<DistanceRow<'a>> {
        let n = self.deltas.len();
        let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
        let by_prompt: Vec<Vec<f64>> = pairs.iter().map(|(i, j)| self.deltas[*i].distances(&self.deltas[*j])).collect();
        let row = |((i, j), (by_prompt, by_prompt_interval)): (&(usize, usize), _)| DistanceRow {
            a: &self.child(*i).name,
            b: &self.child(*j).name,
            n: self.deltas[*i].prompts.len() as i64,
            cosine: self.deltas[*i].distance(&self.deltas[*j]),
            euclidean: self.deltas[*i].euclidean(&self.deltas[*j]),
            by_prompt,
            by_prompt_interval,
        };
        pairs.iter().zip(self.means(&by_prompt)).map(row).collect()
    }

    /// Every cut of the tree but the two that say nothing, and how well cuts and labels fit.
    fn clusters(&self) -> (Vec<ClusterRow<'a>>, Vec<CutRow<'a>>) {
        let (tree, n) = (Tree::average_linkage(&self.distances), self.there.len());
        let (mut clusters, mut cuts) = (Vec::new(), Vec::new());
        for k in 2..n {
            let cut = tree.cut(k);
            let fit = silhouettes(&self.distances, &cut);
            let silhouette = |i: usize| fit.as_ref().map(|fit| fit[i]);
            clusters.extend(cut.iter().enumerate().map(|(i, cluster)| ClusterRow {
                k: k as i64,
                model: &self.child_there(i).name,
                label: self.child_there(i).label.as_deref(),
                cluster: *cluster as i64,
                silhouette: silhouette(i),
            }));
            let silhouette = fit.as_deref().and_then(mean);
            cuts.push(CutRow { grouping: TREE, k: k as i64, n: n as i64, silhouette, ..CutRow::default() });
        }
        cuts.extend(self.labels());
        (clusters, cuts)
    }

    /// How well the labels fit; none where there are none.
    fn labels(&self) -> Option<CutRow<'a>> {
        let labelled: Vec<usize> = (0..self.there.len()).filter(|i| self.child_there(*i).label.is_some()).collect();
        let mut kinds: Vec<&str> = labelled.iter().filter_map(|i| self.child_there(*i).label.as_deref()).collect();
        let named = kinds.clone();
        kinds.sort_unstable();
        kinds.dedup();
        let labels: Vec<usize> = named.iter().filter_map(|kind| kinds.binary_search(kind).ok()).collect();
        let test = silhouette_test(&self.distances.among(&labelled), &labels, DEALT, self.seed);
        (!labelled.is_empty()).then(|| CutRow {
            grouping: LABELS,
            k: kinds.len() as i64,
            n: labelled.len() as i64,
            silhouette: test.map(|test| test.mean),
            p_value: test.map(|test| test.p),
            least_p: test.map(|test| test.least_p),
        })
    }

    fn map(&self) -> Result<Vec<MapRow<'a>>, AnalysisError> {
        // The distances of unit vectors, which can be those of points; 1 less a cosine need not be.
        let chords: Vec<f64> =
            self.distances.values().iter().map(|distance| (2.0 * distance).max(0.0).sqrt()).collect();
        let scaled = classical_scaling(self.there.len(), &chords, 2);
        let scaled = scaled.map_err(|e| AnalysisError::Failed(e.to_string()))?;
        let row = |i: usize| MapRow {
            parent: self.parent,
            model: &self.child_there(i).name,
            label: self.child_there(i).label.as_deref(),
            x: scaled.point(i)[0],
            y: scaled.point(i)[1],
            x_share: scaled.shares[0],
            y_share: scaled.shares[1],
        };
        Ok((0..self.there.len()).map(row).collect())
    }

    fn sums(&self) -> Vec<SumRow<'a>> {
        let added: Vec<Added> = self.items.sums.iter().map(|sum| sum.of(self.deltas)).collect();
        let gains: Vec<Vec<f64>> = added.iter().map(|added| added.gains.clone()).collect();
        let row = |((sum, added), (gain, gain_interval)): ((&Sum, &Added), _)| SumRow {
            a: &self.child(sum.parts[0]).name,
            b: &self.child(sum.parts[1]).name,
            whole: &self.child(sum.whole).name,
            n: added.gains.len() as i64,
            cosine: added.cosine,
            cosine_a: added.cosines[0],
            cosine_b: added.cosines[1],
            relative_error: added.error,
            gain,
            gain_interval,
        };
        self.items.sums.iter().zip(&added).zip(self.means(&gains)).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::*;

    /// What a child of this name adds at each prompt.
    type Adds = (&'static str, Option<&'static str>, [[f32; 2]; 3]);

    /// The tables of children of a parent whose stream is (3, 4) at every prompt.
    fn of(children: &[Adds], sums: &[Sum]) -> Vec<Table> {
        let child = |(name, label, _): &Adds| Child {
            name: (*name).to_string(),
            label: label.map(str::to_string),
            ids: Vec::new(),
            sample: String::new(),
        };
        let set = Dataset { path: "p".into(), sha256: String::new(), items: Vec::new(), warnings: Vec::new() };
        let items = Asked { set, ids: Vec::new(), children: children.iter().map(child).collect(), sums: sums.to_vec() };
        let parent: Rows = vec![vec![3.0, 4.0]; 3];
        let rows = |adds: &[[f32; 2]; 3]| adds.iter().map(|add| vec![3.0 + add[0], 4.0 + add[1]]).collect::<Vec<_>>();
        let deltas: Vec<Delta> = children.iter().map(|(_, _, adds)| Delta::of(&rows(adds), &parent)).collect();
        tables(("parent", 0), &items, &parent, &deltas).unwrap()
    }

    const FIVE: [Adds; 5] = [
        ("out/step-1", Some("x"), [[2.0, 0.0]; 3]),
        ("out/step-2", Some("x"), [[4.0, 0.0]; 3]),
        ("out/step-10", Some("y"), [[0.0, 1.0]; 3]),
        ("both", Some("y"), [[2.0, 2.0]; 3]),
        ("same", None, [[0.0, 0.0]; 3]),
    ];

    #[test]
    fn children_have_their_lengths_and_those_that_add_nothing_have_no_angle() {
        let tables = of(&FIVE, &[]);
        let rows = ChildRow::read(&tables[0]).unwrap();
        let lengths: Vec<f64> = rows.iter().map(|row| row.norm).collect();
        assert_eq!(lengths, [2.0, 4.0, 1.0, 8f64.sqrt(), 0.0]);
        assert_eq!((rows[0].relative, rows[4].relative), (Some(0.4), Some(0.0)));
        let steps: Vec<i64> = rows.iter().map(|row| row.step).collect();
        assert_eq!(steps, [1, 2, 10, -1, -1]);
        assert_eq!((rows[0].nearest, rows[0].nearest_distance), (Some("out/step-2"), Some(0.0)));
        assert_eq!((rows[4].nearest, rows[4].agreement), (None, None));
        assert_eq!(rows[0].agreement, Some(1.0));
        let distances = DistanceRow::read(&tables[1]).unwrap();
        assert_eq!(distances.len(), 10);
        let first = &distances[1];
        assert_eq!((first.a, first.b, first.cosine), ("out/step-1", "out/step-10", Some(1.0)));
        assert_eq!((first.euclidean, first.by_prompt), (5f64.sqrt(), Some(1.0)));
        assert!(distances.iter().all(|row| (row.cosine.is_none()) == (row.b == "same")));
    }

    #[test]
    fn clusters_cuts_and_the_map_are_of_the_children_that_add_something() {
        let tables = of(&FIVE, &[]);
        let clusters = ClusterRow::read(&tables[2]).unwrap();
        assert_eq!(clusters.len(), 8, "cuts into two and three, of four children");
        let cuts = CutRow::read(&tables[3]).unwrap();
        let kinds: Vec<(&str, i64, i64)> = cuts.iter().map(|row| (row.grouping, row.k, row.n)).collect();
        assert_eq!(kinds, [("tree", 2, 4), ("tree", 3, 4), ("labels", 2, 4)]);
        assert!(cuts[2].p_value.is_some() && cuts[0].p_value.is_none());
        let map = MapRow::read(&tables[4]).unwrap();
        let away = |i: usize, j: usize| (map[i].x - map[j].x).hypot(map[i].y - map[j].y);
        // Unit vectors: two are the same, the third is a right angle away.
        assert!(map.len() == 4 && away(0, 1) < 1e-6 && (away(0, 2) - 2f64.sqrt()).abs() < 1e-6, "{map:?}");
        assert!((map[0].x_share + map[0].y_share - 1.0).abs() < 1e-9);
    }

    #[test]
    fn figures_and_text_are_made_of_many_children_and_of_one() {
        let sum = Sum { parts: [0, 2], whole: 3 };
        let tables = of(&FIVE, &[sum]);
        let row = &SumRow::read(&tables[5]).unwrap()[0];
        assert!(row.gain.is_some_and(|gain| gain > 0.2) && row.relative_error.is_some(), "{row:?}");
        let names =
            |tables: &[Table]| report::figures(tables).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&tables), ["map.png", "distances.png", "cuts.png"]);
        let headings = |tables: &[Table]| {
            let sections = report::sections(tables, Path::new("")).unwrap();
            sections.into_iter().map(|section| section.heading).collect::<Vec<_>>()
        };
        assert_eq!(headings(&tables), ["What does each child add?", "Which children are alike?", "Clusters", "Sums"]);
        let one = of(&FIVE[..1], &[]);
        assert_eq!((names(&one).len(), headings(&one).len()), (1, 2));
        let nothing = of(&FIVE[4..], &[]);
        assert_eq!((names(&nothing).len(), headings(&nothing).len()), (0, 2));
    }
}

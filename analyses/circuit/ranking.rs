//! What edges are ranked by, and how much of a ranking rests on which pairs there are.

use super::runs::Runs;
use super::{Circuit, Items, Stability};
use crate::analyses::edges::graph::GraphFile;
use crate::analyses::edges::{EdgeRow, HORIZON, PairRow, Score};
use crate::analyses::inputs::{Sources, Spanned, read_input};
use crate::analyses::interchange::Direction;
use crate::analyses::prelude::*;
use crate::plan::{Edge, EdgeEffects, Kv};
use crate::stats;
use rand::Rng;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// What the parameters give.
pub(super) enum Given {
    /// A circuit, by the numbers of its edges.
    Circuit(Vec<usize>),
    Scores(Vec<Arc<Ranking>>),
    Estimates(Vec<Score>),
}

/// Scores of all edges.
pub(super) struct Ranking {
    /// What tables call it.
    pub name: String,
    /// How far each edge helps the metric, nats: minus the effect of taking it, or minus its estimate.
    pub scores: Vec<f64>,
    /// The same of each pair, where they are known: `[pairs][edges]`.
    pub of_pairs: Vec<Vec<f32>>,
}

impl Given {
    /// Reads what the parameters name.
    pub(super) fn read(
        params: &Circuit,
        model: &Model,
        (edges, places): (&[Edge], &[Spanned]),
        sources: &mut Sources,
    ) -> Result<Given, AnalysisError> {
        match (&params.edges, &params.graph) {
            (Some(edges_of), _) => {
                let rankings = found(edges_of, edges, places, sources)?;
                Ok(Given::Scores(rankings.into_iter().map(Arc::new).collect()))
            }
            (None, Some(graph)) => from_graph(graph, (model, params.kv), edges, sources),
            (None, None) if params.estimate.is_empty() => {
                let [estimate, edges, graph] = ["estimate", "edges", "graph"].map(param);
                Err(AnalysisError::Bad(format!("edges are ranked by scores: give {estimate}, {edges} or {graph}")))
            }
            (None, None) => Ok(Given::Estimates(Score::each_once(&params.estimate))),
        }
    }
}

/// A graph's scores, or the circuit that it marks where it marks some edges and not others.
fn from_graph(
    graph: &Data,
    (model, kv): (&Model, Kv),
    edges: &[Edge],
    sources: &mut Sources,
) -> Result<Given, AnalysisError> {
    let (bytes, source) = read_input(graph)?;
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", graph.display()));
    let file = GraphFile::read(&bytes, &model.decoder.arch, Some(kv)).map_err(bad)?;
    sources.push(source);
    let number = numbers(edges);
    let marked: Vec<usize> =
        file.iter().filter(|(_, scored)| scored.in_graph == Some(true)).map(|(edge, _)| number[edge]).collect();
    let scored = file.iter().filter(|(_, scored)| scored.score.is_some()).count();
    // A file that marks all of the model's edges says which there are, not which matter.
    if !marked.is_empty() && (marked.len() < edges.len() || scored == 0) {
        return Ok(Given::Circuit(marked));
    }
    if scored == 0 {
        return Err(bad("has neither scores nor edges with `in_graph`: nothing says which edges matter".to_string()));
    }
    // An edge that the file does not name has no share in it.
    let mut scores = vec![0.0; edges.len()];
    for (edge, of) in &file {
        scores[number[edge]] = of.score.unwrap_or(0.0);
    }
    let ranking = Ranking { name: "graph".to_string(), scores, of_pairs: Vec::new() };
    Ok(Given::Scores(vec![Arc::new(ranking)]))
}

/// The scores that a run of `edges` found.
fn found(run: &Data, edges: &[Edge], places: &[Spanned], sources: &mut Sources) -> Result<Vec<Ranking>, AnalysisError> {
    let in_directory = !run.is_in_memory() && run.path().extension().is_none_or(|end| end != "parquet");
    let data = if in_directory { Data::from(run.path().join("edges.parquet")) } else { run.clone() };
    let (bytes, source) = read_input(&data)?;
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", data.display()));
    let table = Table::from_parquet(data.path(), &bytes)?;
    sources.push(source);
    let rows = EdgeRow::read(&table).map_err(|e| bad(format!("is no table of `edges`: {e}")))?;
    let members = Members::new(edges, places);
    let member = |row: &EdgeRow| members.of(&row.edge.writer, &row.edge.reader, &row.position);
    let necessity = |row: &EdgeRow| row.direction == Direction::Necessity.name();
    // Rows of necessity at places of circuits, with the member that each is of.
    let here = rows.iter().enumerate().filter(|(_, row)| necessity(row) && members.place(&row.position).is_some());
    let known: Vec<(usize, Option<usize>)> = here.map(|(i, row)| (i, member(row))).collect();
    if !rows.iter().any(necessity) {
        let why = "has no row of necessity: circuits keep edges of the positive run; run `edges` without a direction";
        return Err(bad(why.to_string()));
    }
    let of: Vec<(usize, usize)> = known.iter().filter_map(|(i, member)| Some((*i, (*member)?))).collect();
    if of.is_empty() || of.len() < known.len() || !of.len().is_multiple_of(edges.len()) {
        let place = rows.first().map_or("", |row| &row.position);
        let at = if members.spans {
            format!(" at the spans of the pairs ({place} is the first there)")
        } else {
            String::new()
        };
        let why = format!(
            "holds other edges than this model's {}{at}: run `edges` on it, with the same {}",
            edges.len(),
            param("kv")
        );
        return Err(bad(why));
    }
    let column = |name: &str| -> Option<Vec<Option<f64>>> {
        let (values, mut found) = (table.floats(name).ok()?, vec![None; members.count()]);
        of.iter().for_each(|(row, member)| found[*member] = values[*row]);
        of.iter().all(|(row, _)| values[*row].is_some()).then_some(found)
    };
    let horizon = table.columns().map(|column| column.name.to_string()).filter(|name| name.starts_with(HORIZON));
    let estimates = horizon.chain(["reader_exact", "eap", "eap_ig"].map(str::to_string));
    let estimates: Vec<(String, Vec<Option<f64>>)> =
        estimates.filter_map(|name| Some((name.clone(), column(&name)?))).collect();
    // An edge that was not run has the first estimate, by which it was put aside.
    let first = estimates.first().map(|(_, values)| values.clone());
    let mut exact = first.clone().unwrap_or_else(|| vec![None; members.count()]);
    of.iter().for_each(|(row, member)| exact[*member] = rows[*row].effect_mean.or(exact[*member]));
    let whole = of.iter().all(|(_, member)| exact[*member].is_some());
    let columns = whole.then(|| ("exact".to_string(), exact)).into_iter().chain(estimates);
    let pairs = data.path().with_file_name("pairs.parquet");
    let of_pairs = match !run.is_in_memory() && pairs.exists() {
        true => kept_pairs(&Data::from(pairs), &members, sources)?,
        false => OfPairs::new(),
    };
    let ranking = |(name, effects): (String, Vec<Option<f64>>)| {
        // A place that `edges` had none of has no share in it.
        let scores: Vec<f64> = effects.into_iter().map(|effect| -effect.unwrap_or(0.0)).collect();
        let of_pairs = of_pairs.get(name.as_str()).map_or(Vec::new(), |pairs| with_means(pairs, &scores));
        Ranking { name, scores, of_pairs }
    };
    Ok(columns.map(ranking).collect())
}

/// The number of each edge.
fn numbers(edges: &[Edge]) -> HashMap<Edge, usize> {
    edges.iter().enumerate().map(|(i, edge)| (*edge, i)).collect()
}

/// The numbers of members by their names.
struct Members<'a> {
    edges: HashMap<Edge, usize>,
    places: &'a [Spanned],
    /// Whether there is a place a span; a place by itself is whichever a table has.
    spans: bool,
}

impl<'a> Members<'a> {
    fn new(edges: &[Edge], places: &'a [Spanned]) -> Members<'a> {
        Members { edges: numbers(edges), places, spans: places.len() > 1 }
    }

    fn of(&self, writer: &str, reader: &str, place: &str) -> Option<usize> {
        let edge = self.edges.get(&Edge { writer: writer.parse().ok()?, reader: reader.parse().ok()? })?;
        Some(self.place(place)? * self.edges.len() + edge)
    }

    fn place(&self, place: &str) -> Option<usize> {
        if self.spans { self.places.iter().position(|known| known.name == place) } else { Some(0) }
    }

    fn count(&self) -> usize {
        self.edges.len() * self.places.len()
    }
}

/// Each pair's scores by ranking, not a number where an edge was not run on it.
type OfPairs = HashMap<&'static str, Vec<Vec<f32>>>;

fn kept_pairs(data: &Data, members: &Members, sources: &mut Sources) -> Result<OfPairs, AnalysisError> {
    let (bytes, source) = read_input(data)?;
    let table = Table::from_parquet(data.path(), &bytes)?;
    sources.push(source);
    let rows = PairRow::read(&table)?;
    let (mut pairs, mut found) = (HashMap::new(), OfPairs::new());
    for row in rows.iter().filter(|row| row.direction == Direction::Necessity.name()) {
        let next = pairs.len();
        let pair = *pairs.entry(row.pair.id).or_insert(next);
        let Some(member) = members.of(&row.writer, &row.reader, row.position.unwrap_or_default()) else { continue };
        let exact = row.patched_metric.zip(row.base_metric).map(|(patched, base)| patched - base);
        let of_row = [("exact", exact), ("reader_exact", row.reader_exact), ("eap", row.eap), ("eap_ig", row.eap_ig)];
        for (name, effect) in of_row {
            let Some(effect) = effect else { continue };
            let of = found.entry(name).or_default();
            of.resize_with(of.len().max(pair + 1), || vec![f32::NAN; members.count()]);
            of[pair][member] = -effect as f32;
        }
    }
    Ok(found)
}

/// Scores of pairs, with the mean where an edge has none of its own: it is the same in every resample.
fn with_means(pairs: &[Vec<f32>], means: &[f64]) -> Vec<Vec<f32>> {
    let of_pair = |scores: &Vec<f32>| {
        scores.iter().zip(means).map(|(score, mean)| if score.is_nan() { *mean as f32 } else { *score }).collect()
    };
    pairs.iter().map(of_pair).collect()
}

/// Estimates every edge on every pair.
pub(super) fn estimated(runs: &Runs, score: Score, steps: u32) -> Result<Ranking, AnalysisError> {
    let Items { pairs, edges, places, alignments, .. } = runs.items;
    let mut of_pairs = Vec::with_capacity(pairs.tokens.len());
    for (i, (tokens, alignment)) in pairs.tokens.iter().zip(alignments).enumerate() {
        let (mut plan, [base, donor]) = runs.items.plan(i);
        let mut ask = |positions: &Positions| {
            let (metric, positions) = (tokens.metric.clone(), positions.clone());
            let (alignment, by) = (alignment.clone(), score.estimate(steps));
            plan.read(base, EdgeEffects { metric, donor, positions, alignment, by })
        };
        let asked: Vec<_> = places.iter().map(|place| place.of.get(&i).map(&mut ask)).collect();
        let readings = runs.runner.run(&plan)?;
        // A place that the pair lacks moves nothing.
        let of_place = |asked: Option<Handle<Array>>| match asked {
            Some(asked) => readings[asked].values.iter().map(|effect| -effect).collect(),
            None => vec![0.0; edges.len()],
        };
        of_pairs.push(asked.into_iter().flat_map(of_place).collect::<Vec<f32>>());
    }
    Ok(Ranking { name: score.column().to_string(), scores: means(&of_pairs, 0..of_pairs.len()), of_pairs })
}

/// The mean of some pairs' scores, each as often as it is named.
fn means(of_pairs: &[Vec<f32>], pairs: impl ExactSizeIterator<Item = usize>) -> Vec<f64> {
    let n = pairs.len() as f64;
    let mut sums = vec![0f64; of_pairs.first().map_or(0, Vec::len)];
    for i in pairs {
        sums.iter_mut().zip(&of_pairs[i]).for_each(|(sum, score)| *sum += f64::from(*score));
    }
    sums.iter_mut().for_each(|sum| *sum /= n);
    sums
}

impl Ranking {
    /// How often each edge is among the best `size` when pairs are drawn anew, and how much two such circuits overlap. None where
    /// the pairs' own scores are not known, or there are fewer than two.
    pub(super) fn stability(&self, size: usize, resamples: usize, seed: u64) -> Option<Stability> {
        let n = self.of_pairs.len();
        if n < 2 || resamples == 0 || size == 0 {
            return None;
        }
        let mut rng = stats::rng(seed, "stability of circuits");
        let drawn: Vec<Vec<usize>> = (0..resamples).map(|_| (0..n).map(|_| rng.random_range(0..n)).collect()).collect();
        let circuits: Vec<Vec<u64>> =
            drawn.into_par_iter().map(|pairs| best(&means(&self.of_pairs, pairs.into_iter()), size)).collect();
        let times = |edge: usize| circuits.iter().filter(|circuit| circuit[edge / 64] >> (edge % 64) & 1 == 1).count();
        let selected = (0..self.scores.len()).map(|edge| times(edge) as f64 / resamples as f64).collect();
        let overlaps: Vec<f64> = (0..circuits.len())
            .into_par_iter()
            .flat_map_iter(|a| (0..a).map(move |b| (a, b)))
            .map(|(a, b)| jaccard(&circuits[a], &circuits[b]))
            .collect();
        Some(Stability { selected, jaccard: mean(&overlaps) })
    }
}

/// The best edges by their scores, one bit an edge.
fn best(scores: &[f64], size: usize) -> Vec<u64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let first = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if size < order.len() {
        order.select_nth_unstable_by(size, first);
    }
    let mut bits = vec![0u64; scores.len().div_ceil(64)];
    order.iter().take(size).for_each(|edge| bits[edge / 64] |= 1 << (edge % 64));
    bits
}

/// How many of the edges of two circuits both have, as a share of those that either has.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let count = |of: fn(u64, u64) -> u64| a.iter().zip(b).map(|(a, b)| of(*a, *b).count_ones()).sum::<u32>();
    f64::from(count(|a, b| a & b)) / f64::from(count(|a, b| a | b).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_agree_choose_the_same_circuit_and_pairs_that_do_not_choose_others() {
        let of = |pairs: Vec<Vec<f32>>| {
            let scores = means(&pairs, 0..pairs.len());
            Ranking { name: "exact".to_string(), scores, of_pairs: pairs }.stability(2, 100, 0)
        };
        let same = of(vec![vec![3.0, 2.0, 0.0, -1.0]; 6]).unwrap();
        assert_eq!((same.jaccard, same.selected), (Some(1.0), vec![1.0, 1.0, 0.0, 0.0]));
        let other =
            of((0..6).map(|i| vec![5.0, f32::from(i % 2 == 0), f32::from(i % 2 == 1), -9.0]).collect()).unwrap();
        assert!(other.jaccard.unwrap() < 0.9 && other.selected[0] == 1.0 && other.selected[3] == 0.0);
        assert!((other.selected[1] + other.selected[2] - 1.0).abs() < 1e-9 && other.selected[2] > 0.1);
        assert!(of(vec![vec![1.0, 2.0]]).is_none());
    }

    #[test]
    fn circuits_overlap_by_what_both_have() {
        let (a, b) = (best(&[3.0, 2.0, 1.0, 0.0], 2), best(&[3.0, 0.0, 2.0, 1.0], 2));
        assert_eq!((jaccard(&a, &b), jaccard(&a, &a)), (1.0 / 3.0, 1.0));
    }
}

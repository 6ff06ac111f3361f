//! The tables of concept vectors: CAVs, TCAV with its test, and every run's score.
//!
//! What figures and text make of them is `report`'s business.

use super::Items;
use super::fit::{Found, Tcav};
use super::sets::Sets;
use crate::analyses::AnalysisError;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::summary::{Position, mean, sd};
use crate::linear::Direction;
use crate::stats::{benjamini_hochberg_present, welch};
use crate::table::Table;

pub(super) fn cavs(model: &str, position: &Position, items: &Items, found: &[Found]) -> Result<Table, AnalysisError> {
    Ok(Table::new("cavs")
        .str("model", "the model, as it was named", found.iter().map(|_| model))?
        .int("layer", "layer, from 0", found.iter().map(|f| f.site.layer as i64))?
        .str("site", "where activations were taken", found.iter().map(|f| f.site.kind.name()))?
        .str("position", "at which position", found.iter().map(|_| position.to_string()))?
        .str("method", "logistic, svm, ridge or mean_difference", found.iter().map(|f| f.method.name()))?
        .int("n_concept", "examples of the concept", found.iter().map(|_| items.concept.len() as i64))?
        .int("n_random", "random examples", found.iter().map(|_| items.random.len() as i64))?
        .float(
            "accuracy",
            "balanced accuracy on held-out examples; one half is chance",
            found.iter().map(|f| f.accuracy.accuracy),
        )?
        .float(
            "accuracy_ci_low",
            "lower end of its 95 % interval over examples (Wilson's of each side; examples of one group count for as many as the spread \
             between groups says)",
            found.iter().map(|f| f.accuracy.interval.map(|i| i.low)),
        )?
        .float("accuracy_ci_high", "its upper end", found.iter().map(|f| f.accuracy.interval.map(|i| i.high)))?
        .float(
            "norm",
            "norm of the vector; 0 where the sets do not differ",
            found.iter().map(|f| f.direction.as_ref().map_or(0.0, Direction::norm)),
        )?
        .float("cosine", "cosine to the difference of means", found.iter().map(|f| f.cosine))?
        .float(
            "strength",
            "penalty, by cross-validation",
            found.iter().map(|f| f.direction.as_ref().and_then(|d| d.strength)),
        )?)
}

/// Every class at every site and method, with the index of its class.
fn scored(found: &[Found]) -> Vec<(&Found, usize, &Tcav)> {
    found.iter().flat_map(|f| f.tcav.iter().enumerate().map(move |(c, t)| (f, c, t))).collect()
}

pub(super) fn tcav(model: &str, items: &Items, found: &[Found], sets: &Sets) -> Result<Table, AnalysisError> {
    let rows = scored(found);
    let p: Vec<Option<f64>> = rows.iter().map(|(.., t)| welch(&t.concept, &t.random)).collect();
    let q = benjamini_hochberg_present(&p);
    Ok(Table::new("tcav")
        .str("model", "the model, as it was named", rows.iter().map(|_| model))?
        .int("layer", "layer, from 0", rows.iter().map(|r| r.0.site.layer as i64))?
        .str(
            "class",
            "the class of prompts: their label, or their file",
            rows.iter().map(|r| items.classes[r.1].name.as_str()),
        )?
        .float(
            "tcav",
            "mean share of prompts whose metric rises along the concept's CAVs",
            rows.iter().map(|r| mean(&r.2.concept)),
        )?
        .float("tcav_sd", "its standard deviation over runs", rows.iter().map(|r| sd(&r.2.concept)))?
        .float("random_mean", "the same of random against random", rows.iter().map(|r| mean(&r.2.random)))?
        .float("random_sd", "its standard deviation over runs", rows.iter().map(|r| sd(&r.2.random)))?
        .int("runs", "CAVs of each kind", rows.iter().map(|r| r.2.concept.len() as i64))?
        .float(
            "p_value",
            "two-sided Welch test of concept against random runs; empty where no run differs from another of its kind",
            p.iter().copied(),
        )?
        .float("q_value", "Benjamini-Hochberg over layers, classes and methods", q.iter().copied())?
        .flag("significant", "q_value < 0.05", q.iter().map(|q| q.is_some_and(|q| q < SIGNIFICANT)))?
        .str("method", "logistic, svm, ridge or mean_difference", rows.iter().map(|r| r.0.method.name()))?
        .str("site", "where activations were taken", rows.iter().map(|r| r.0.site.kind.name()))?
        .int("examples", "examples a side of each run's CAV", rows.iter().map(|_| sets.size as i64))?
        .flag(
            "whole_groups",
            "whether no group of examples is in two runs, which are independent only then",
            rows.iter().map(|_| sets.whole_groups),
        )?
        .int("n", "prompts of the class", rows.iter().map(|r| items.classes[r.1].prompts.len() as i64))?)
}

pub(super) fn scores(items: &Items, found: &[Found]) -> Result<Table, AnalysisError> {
    let of = |(f, c, t): (&'_ Found, usize, &'_ Tcav)| {
        let kinds = [("concept", t.concept.clone()), ("random", t.random.clone())];
        let (site, method) = (f.site, f.method);
        kinds.into_iter().flat_map(move |(kind, scores)| {
            scores.into_iter().enumerate().map(move |(run, score)| (site, method, c, kind, run, score))
        })
    };
    let rows: Vec<_> = scored(found).into_iter().flat_map(of).collect();
    Ok(Table::new("scores")
        .int("layer", "layer, from 0", rows.iter().map(|r| r.0.layer as i64))?
        .str("method", "logistic, svm, ridge or mean_difference", rows.iter().map(|r| r.1.name()))?
        .str(
            "class",
            "the class of prompts: their label, or their file",
            rows.iter().map(|r| items.classes[r.2].name.as_str()),
        )?
        .str("kind", "concept: concept against random; random: random against random", rows.iter().map(|r| r.3))?
        .int("run", "run, from 0", rows.iter().map(|r| r.4 as i64))?
        .float("score", "share of prompts whose metric rises along this run's CAV", rows.iter().map(|r| r.5))?)
}

//! The tables of concept vectors: CAVs, TCAV with its test, and every run's score.
//!
//! What figures and text make of them is `report`'s business.

use super::Items;
use super::fit::{Found, Tcav};
use super::sets::Sets;
use crate::analyses::effects::SIGNIFICANT;
use crate::analyses::prelude::*;
use crate::analyses::summary::sd;
use crate::linear::Direction;
use crate::stats::{benjamini_hochberg_present, welch};
use std::borrow::Cow;

rows! {
    /// A concept vector.
    pub struct CavRow<'a> in "cavs" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        site: &'a str = "where activations were taken",
        position: Cow<'a, str> = "at which position",
        method: &'a str = "logistic, svm, ridge or mean_difference",
        n_concept: i64 = "examples of the concept",
        n_random: i64 = "random examples",
        accuracy: Option<f64> = "balanced accuracy on held-out examples; one half is chance",
        accuracy_interval: Option<(f64, f64)> [newer] as "accuracy_ci_" = [
            "lower end of its 95 % interval over examples (Wilson's of each side; examples of one group count for as many as the spread \
             between groups says)",
            "its upper end",
        ],
        norm: Option<f64> = "norm of the vector; 0 where the sets do not differ",
        cosine: Option<f64> = "cosine to the difference of means",
        strength: Option<f64> = "penalty, by cross-validation",
    }

    /// A class at a site, by a method.
    pub struct TcavRow<'a> in "tcav" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        class: &'a str = "the class of prompts: their label, or their file",
        tcav: Option<f64> = "mean share of prompts whose metric rises along the concept's CAVs",
        tcav_sd: Option<f64> = "its standard deviation over runs",
        random_mean: Option<f64> = "the same of random against random",
        random_sd: Option<f64> = "its standard deviation over runs",
        runs: i64 = "CAVs of each kind",
        p_value: Option<f64> =
            "two-sided Welch test of concept against random runs; empty where no run differs from another of its kind",
        q_value: Option<f64> = "Benjamini-Hochberg over layers, classes and methods",
        significant: bool = "q_value < 0.05",
        method: &'a str = "logistic, svm, ridge or mean_difference",
        site: &'a str = "where activations were taken",
        examples: i64 = "examples a side of each run's CAV",
        whole_groups: bool = "whether no group of examples is in two runs, which are independent only then",
        n: i64 = "prompts of the class",
    }

    /// One run's score.
    pub struct ScoreRow<'a> in "scores" {
        layer: i64 = "layer, from 0",
        method: &'a str = "logistic, svm, ridge or mean_difference",
        class: &'a str = "the class of prompts: their label, or their file",
        kind: &'a str = "concept: concept against random; random: random against random",
        run: i64 = "run, from 0",
        score: Option<f64> = "share of prompts whose metric rises along this run's CAV",
    }
}

pub(super) fn cavs(model: &str, position: &Position, items: &Items, found: &[Found]) -> Result<Table, AnalysisError> {
    Ok(CavRow::table(found.iter().map(|f| CavRow {
        model,
        layer: f.site.layer as i64,
        site: f.site.kind.name(),
        position: position.to_string().into(),
        method: f.method.name(),
        n_concept: items.concept.len() as i64,
        n_random: items.random.len() as i64,
        accuracy: Some(f.accuracy.accuracy),
        accuracy_interval: f.accuracy.interval.map(Interval::ends),
        norm: Some(f.direction.as_ref().map_or(0.0, Direction::norm)),
        cosine: f.cosine,
        strength: f.direction.as_ref().and_then(|d| d.strength),
    }))?)
}

/// Every class at every site and method, with the index of its class.
fn scored(found: &[Found]) -> Vec<(&Found, usize, &Tcav)> {
    found.iter().flat_map(|f| f.tcav.iter().enumerate().map(move |(c, t)| (f, c, t))).collect()
}

pub(super) fn tcav(model: &str, items: &Items, found: &[Found], sets: &Sets) -> Result<Table, AnalysisError> {
    let rows = scored(found);
    let p: Vec<Option<f64>> = rows.iter().map(|(.., t)| welch(&t.concept, &t.random)).collect();
    let q = benjamini_hochberg_present(&p);
    Ok(TcavRow::table(rows.into_iter().zip(p).zip(q).map(|(((f, class, scores), p_value), q_value)| TcavRow {
        model,
        layer: f.site.layer as i64,
        class: &items.classes[class].name,
        tcav: mean(&scores.concept),
        tcav_sd: sd(&scores.concept),
        random_mean: mean(&scores.random),
        random_sd: sd(&scores.random),
        runs: scores.concept.len() as i64,
        p_value,
        q_value,
        significant: q_value.is_some_and(|q| q < SIGNIFICANT),
        method: f.method.name(),
        site: f.site.kind.name(),
        examples: sets.size as i64,
        whole_groups: sets.whole_groups,
        n: items.classes[class].prompts.len() as i64,
    }))?)
}

pub(super) fn scores(items: &Items, found: &[Found]) -> Result<Table, AnalysisError> {
    let rows = scored(found).into_iter().flat_map(|(f, class, scores)| {
        let kinds = [("concept", &scores.concept), ("random", &scores.random)];
        kinds.into_iter().flat_map(move |(kind, scores)| {
            scores.iter().enumerate().map(move |(run, score)| ScoreRow {
                layer: f.site.layer as i64,
                method: f.method.name(),
                class: &items.classes[class].name,
                kind,
                run: run as i64,
                score: Some(*score),
            })
        })
    });
    Ok(ScoreRow::table(rows)?)
}

//! The table of used ranks.

use super::{Measured, Rank};
use crate::analyses::prelude::*;

rows! {
    /// How much of a matrix is used.
    pub struct RankRow<'a> in "matrices" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        kind: &'a str = "the matrix: q, k, v, o, gate, up or down",
        rows: i64 = "its outputs",
        columns: i64 = "its inputs",
        tokens: i64 = "tokens that inputs and outputs were seen at; no more directions than these can be found",
        energy: f64 = "share of the energy that counted directions hold",
        input_rank: i64 = "directions that hold this share of the inputs' energy",
        output_rank: i64 = "directions that hold this share of the outputs' energy",
        utilized_rank: i64 = "rank of what of the matrix leads from these inputs to these outputs",
        utilization: f64 = "that rank as a share of the largest that the matrix could have",
        effective_rank: Option<f64> =
            "exponential of the entropy of the singular values of the used part as shares of their sum",
        kept: f64 = "share of the matrix's squared norm that the used part has",
    }
}

pub(super) fn table(rank: &Rank, about: &About, measured: &Measured) -> Result<Table, AnalysisError> {
    let row = |of: &super::OfMatrix| RankRow {
        model: about.model,
        layer: of.layer as i64,
        kind: of.kind,
        rows: of.rows as i64,
        columns: of.columns as i64,
        tokens: measured.tokens as i64,
        energy: rank.energy,
        input_rank: of.used.inputs as i64,
        output_rank: of.used.outputs as i64,
        utilized_rank: of.used.rank as i64,
        utilization: of.used.rank as f64 / of.rows.min(of.columns).max(1) as f64,
        effective_rank: of.used.effective_rank,
        kept: of.used.kept,
    };
    Ok(RankRow::table(measured.matrices.iter().map(row))?)
}

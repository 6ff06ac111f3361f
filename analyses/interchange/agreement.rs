//! How well first-order estimates agree with exact effects: the table, its figure and its section.

use crate::analyses::AnalysisError;
use crate::analyses::effects::{Measured, Read, Row};
use crate::analyses::summary::mean;
use crate::figure::{Figure, Scatter, ScatterPoint};
use crate::report::listing::{Listing, Show};
use crate::report::{Block, Section};
use crate::stats;
use crate::table::Table;
use std::path::Path;

/// How well estimates agree with exact effects, by direction, over the units that were run exactly.
pub(super) fn table(model: &str, rows: &[Measured]) -> Result<Table, AnalysisError> {
    let families: Vec<&[Measured]> = rows.chunk_by(|a, b| a.variant == b.variant).collect();
    let both = |family: &&[Measured]| -> (Vec<f64>, Vec<f64>) {
        let means = family.iter().filter(|r| !r.swaps.is_empty());
        let effect = |r: &Measured| mean(&r.swaps.iter().map(|s| s.effect()).collect::<Vec<_>>());
        means.filter_map(|r| Some((mean(&r.estimates)?, effect(r)?))).unzip()
    };
    let found: Vec<(Vec<f64>, Vec<f64>)> = families.iter().map(both).collect();
    let sign = |(a, b): &(Vec<f64>, Vec<f64>)| {
        mean(&a.iter().zip(b).map(|(a, b)| f64::from(u8::from(a * b > 0.0))).collect::<Vec<_>>())
    };
    let ratio = |(a, b): &(Vec<f64>, Vec<f64>)| {
        let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        let square: f64 = a.iter().map(|a| a * a).sum();
        (square > 0.0).then(|| product / square)
    };
    Ok(Table::new("agreement")
        .str("model", "the model, as it was named", families.iter().map(|_| model))?
        .str("direction", "necessity or sufficiency", families.iter().map(|f| f[0].variant))?
        .int("units", "units that were run exactly", found.iter().map(|f| f.0.len() as i64))?
        .float(
            "pearson",
            "correlation of mean estimate and mean effect",
            found.iter().map(|f| stats::pearson(&f.0, &f.1)),
        )?
        .float("spearman", "rank correlation of the same", found.iter().map(|f| stats::spearman(&f.0, &f.1)))?
        .float("same_sign", "share of units whose estimate has the sign of the effect", found.iter().map(sign))?
        .float("slope", "effect for one nat of estimate, by least squares through 0", found.iter().map(ratio))?)
}

/// Estimates beside exact effects.
pub(super) fn scatter(heads: &Read) -> Figure {
    let strongest: Vec<String> =
        heads.variants.iter().filter_map(|v| Some(heads.label(heads.strongest(v).first()?))).collect();
    let point = |r: &Row| {
        let label = heads.label(r);
        let series = heads.variants.iter().position(|v| *v == r.variant)?;
        let name = Some(label).filter(|l| strongest.contains(l));
        Some(ScatterPoint { x: r.estimate?, y: r.effect?, name, series })
    };
    Figure::from(Scatter {
        title: "First-order estimate and exact effect".to_string(),
        subtitle: format!("{}, position {}", heads.model, heads.position),
        x_label: "estimate (nats)".to_string(),
        y_label: "exact effect (nats)".to_string(),
        identity: true,
        series: heads.variants.iter().map(|v| (*v).to_string()).collect(),
        points: heads.rows.iter().filter_map(point).collect(),
    })
}

/// What a report says of it.
pub(super) fn section(agreement: &Table, dir: &Path) -> Result<Section, AnalysisError> {
    let block = Listing::of(agreement)
        .column("direction", Show::Text("direction"))
        .column("units", Show::Count("units"))
        .column("Pearson", Show::Signed("pearson", 2))
        .column("Spearman", Show::Signed("spearman", 2))
        .column("same sign", Show::Share("same_sign"))
        .column("slope", Show::Signed("slope", 2))
        .block("Agreement")?;
    let text = "The gradient's estimate beside the exact effect, over the units that were run exactly. Estimates are of first \
                order: they miss what a head does through a softmax or a norm that saturates.";
    let section = Section::new("Estimates").paragraph(text).block(Block::Table(block));
    let alt = "Scatter plot of estimate and effect.";
    Ok(section.figure(dir.join("agreement.png"), "Each unit's estimate and effect.", alt))
}

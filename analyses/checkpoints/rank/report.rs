//! The figure and the text of used ranks, from the table.

use super::PLACES;
use super::tables::RankRow;
use crate::analyses::prelude::*;
use crate::figure::{Curve, CurvePoint, CurveRole, Curves};
use crate::names::short_name;
use crate::report::cells::{number, share};

const USED: &str = "utilization.png";

pub(super) fn figures(tables: &[Table]) -> Result<Figures, AnalysisError> {
    let rows = RankRow::read(table(tables, RankRow::TABLE)?)?;
    let curve = |kind: &str| Curve {
        name: kind.to_string(),
        role: CurveRole::Series,
        points: rows
            .iter()
            .filter(|row| row.kind == kind)
            .map(|row| CurvePoint { x: row.layer as f64, y: Some(row.utilization), interval: None })
            .collect(),
    };
    let curves: Vec<Curve> = PLACES.iter().map(|place| curve(place.kind)).filter(|c| !c.points.is_empty()).collect();
    if curves.is_empty() {
        return Ok(Figures::new());
    }
    let figure = Curves {
        title: "How much of each matrix is used".to_string(),
        subtitle: short_name(rows.first().map_or("", |row| row.model)),
        x_label: "layer".to_string(),
        y_label: "utilised rank, share of the largest possible".to_string(),
        shares: true,
        curves,
        ..Curves::default()
    };
    Ok(vec![(USED.to_string(), figure.into())])
}

pub(super) fn sections(tables: &[Table], dir: &Path) -> Result<Vec<Section>, AnalysisError> {
    let rows = RankRow::read(table(tables, RankRow::TABLE)?)?;
    let section = Section::new("How much of each matrix is used?");
    let Some(first) = rows.first() else {
        return Ok(vec![section.paragraph("No layer has a matrix that can be measured.")]);
    };
    let fewer = rows.iter().filter(|row| row.tokens < row.columns).count();
    let mut text = format!(
        "Inputs and outputs were seen at {} tokens. The directions that hold {} of their energy were counted; what of a matrix leads from \
         the ones to the others is the part that is used, and its rank is the utilised rank.",
        first.tokens,
        share(first.energy),
    );
    if fewer > 0 {
        text.push_str(&format!(
            " {fewer} of {} matrices have more inputs than there were tokens: their ranks cannot be larger than that, and more prompts may \
             show larger ones.",
            rows.len()
        ));
    }
    let header = vec![
        Heading::text("matrix"),
        Heading::number("layers"),
        Heading::number("utilised rank, mean"),
        Heading::number("share of the possible"),
        Heading::number("lowest"),
        Heading::number("highest"),
        Heading::number("share of the squared norm"),
    ];
    let cells = PLACES.iter().filter_map(|place| {
        let own: Vec<&RankRow> = rows.iter().filter(|row| row.kind == place.kind).collect();
        let of = |f: fn(&RankRow) -> f64| own.iter().map(|row| f(row)).collect::<Vec<f64>>();
        let used = of(|row| row.utilization);
        let (low, high) = (used.iter().copied().fold(1.0, f64::min), used.iter().copied().fold(0.0, f64::max));
        (!own.is_empty()).then(|| {
            vec![
                place.kind.to_string(),
                own.len().to_string(),
                number(mean(&of(|row| row.utilized_rank as f64)), 1),
                share(mean(&used)),
                share(low),
                share(high),
                share(mean(&of(|row| row.kept))),
            ]
        })
    });
    let cells: Vec<Vec<String>> = cells.collect();
    let section = section
        .paragraph(text)
        .figure(dir.join(USED), "The utilised rank of each matrix, by layer.", "Curves of utilised rank over layers.")
        .table("Matrices over layers", header, cells);
    Ok(vec![section])
}

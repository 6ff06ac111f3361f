//! How well first-order estimates agree with exact effects: the table, its figure and its section.

use crate::analyses::effects::Measured;
use crate::analyses::interchange::{Read, Row};
use crate::analyses::prelude::*;
use crate::figure::{Scatter, ScatterPoint};
use crate::report::cells::plural;
use crate::stats;

rows! {
    /// How well estimates agree with exact effects in one direction, over the units that were run exactly.
    pub(super) struct AgreementRow<'a> in "agreement" {
        model: &'a str = "the model, as it was named",
        direction: &'a str = "necessity or sufficiency",
        units: i64 = "units that were run exactly",
        pearson: Option<f64> = "correlation of mean estimate and mean effect",
        spearman: Option<f64> = "rank correlation of the same",
        same_sign: Option<f64> = "share of units whose estimate has the sign of the effect",
        slope: Option<f64> = "effect for one nat of estimate, by least squares through 0",
    }
}

/// The agreement of each direction.
pub(super) fn table(model: &str, rows: &[Measured]) -> Result<Table, AnalysisError> {
    let row = |family: &[Measured]| {
        let run = family.iter().filter(|r| !r.swaps.is_empty());
        let effect = |r: &Measured| mean(&r.swaps.iter().map(|s| s.effect()).collect::<Vec<_>>());
        let (a, b): (Vec<f64>, Vec<f64>) = run.filter_map(|r| Some((mean(&r.estimates)?, effect(r)?))).unzip();
        let both = || a.iter().zip(&b);
        let (product, square) = (both().map(|(a, b)| a * b).sum::<f64>(), a.iter().map(|a| a * a).sum::<f64>());
        AgreementRow {
            model,
            direction: family[0].variant,
            units: a.len() as i64,
            pearson: stats::pearson(&a, &b),
            spearman: stats::spearman(&a, &b),
            same_sign: mean(&both().map(|(a, b)| f64::from(u8::from(a * b > 0.0))).collect::<Vec<_>>()),
            slope: (square > 0.0).then(|| product / square),
        }
    };
    Ok(AgreementRow::table(rows.chunk_by(|a, b| a.variant == b.variant).map(row))?)
}

/// Estimates beside exact effects.
pub(super) fn scatter(heads: &Read) -> Figure {
    let (exact, estimated) = heads.items();
    let strongest: Vec<String> =
        heads.variants.iter().filter_map(|v| Some(heads.label(heads.strongest(v).first()?))).collect();
    let point = |r: &Row| {
        let label = heads.label(r);
        let series = heads.variants.iter().position(|v| *v == r.variant)?;
        let name = Some(label).filter(|l| strongest.contains(l));
        Some(ScatterPoint { x: r.estimate_mean?, y: r.effect_mean?, name, series })
    };
    Figure::from(Scatter {
        title: "First-order estimate and exact effect".to_string(),
        subtitle: format!("{}, {}", heads.model, heads.place()),
        x_label: format!("estimate (nats, mean of {})", plural(estimated, "pair")),
        y_label: format!("exact effect (nats, mean of {})", plural(exact, "pair")),
        identity: true,
        series: heads.variants.iter().map(|v| (*v).to_string()).collect(),
        named_meaning: Some("the strongest of each direction".to_string()),
        points: heads.rows.iter().filter_map(point).collect(),
    })
}

/// The section on how estimates agree with exact effects.
pub(super) fn section(agreement: &Table, heads: &Read, dir: &Path) -> Result<Section, AnalysisError> {
    let block = Listing::of(agreement)
        .column("direction", Show::Text(AgreementRow::direction.name))
        .column("units", Show::Count(AgreementRow::units.name))
        .column("Pearson", Show::Signed(AgreementRow::pearson.name, 2))
        .column("Spearman", Show::Signed(AgreementRow::spearman.name, 2))
        .column("same sign", Show::Share(AgreementRow::same_sign.name))
        .column("slope", Show::Signed(AgreementRow::slope.name, 2))
        .block("Agreement")?;
    let text = format!(
        "The table compares the gradient's estimate with the exact effect, over the units that were run exactly. Estimates are of \
         first order: they miss what a head does through a softmax or a norm that saturates.{}",
        fewer_pairs(heads)
    );
    let section = Section::new("Estimates").paragraph(text).block(Block::Table(block));
    let alt = "Scatter plot of estimate and effect.";
    Ok(section.figure(dir.join("agreement.png"), "Each unit's mean estimate and its mean exact effect.", alt))
}

/// What is said where estimates are means over fewer pairs than effects.
fn fewer_pairs(heads: &Read) -> String {
    match heads.items() {
        (exact, estimated) if estimated < exact => format!(
            " The estimates are means over {estimated} pairs and the exact effects over {exact}: what differs between the two is \
             also that of the pairs."
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::effects::read;
    use crate::analyses::interchange::Exchange;

    #[test]
    fn estimates_over_fewer_pairs_are_said_to_be() {
        let heads = |n: [i64; 2]| {
            let row = Row { model: "m", site: "z", position: "last", variant: "necessity", ..Row::default() };
            let exact = Row { n: n[0], effect_mean: Some(1.0), estimate_mean: Some(1.5), ..row.clone() };
            let estimated = Row { layer: 1, n: n[1], estimate_mean: Some(0.5), ..row };
            Row::table([exact, estimated]).unwrap()
        };
        let (fewer, alike) = (heads([120, 40]), heads([40, 40]));
        let of = |table| read::<Exchange>(table).unwrap();
        assert!(fewer_pairs(&of(&fewer)).contains("means over 40 pairs and the exact effects over 120"));
        assert_eq!(fewer_pairs(&of(&alike)), "");
        let Figure::Scatter(figure) = scatter(&of(&fewer)) else { panic!("no scatter") };
        assert!(figure.x_label.contains("40 pairs") && figure.y_label.contains("120 pairs"));
    }
}

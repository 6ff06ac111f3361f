//! How well first-order estimates agree with exact effects: the table, its figure and its section.

use crate::analyses::AnalysisError;
use crate::analyses::effects::{Measured, Read, Row};
use crate::analyses::summary::mean;
use crate::figure::{Figure, Scatter, ScatterPoint};
use crate::report::cells::plural;
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
    let (exact, estimated) = heads.items();
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
        subtitle: format!("{}, {}", heads.model, heads.place()),
        x_label: format!("estimate (nats, mean of {})", plural(estimated, "pair")),
        y_label: format!("exact effect (nats, mean of {})", plural(exact, "pair")),
        identity: true,
        series: heads.variants.iter().map(|v| (*v).to_string()).collect(),
        named_meaning: Some("the strongest of each direction".to_string()),
        points: heads.rows.iter().filter_map(point).collect(),
    })
}

/// What a report says of it.
pub(super) fn section(agreement: &Table, heads: &Read, dir: &Path) -> Result<Section, AnalysisError> {
    let block = Listing::of(agreement)
        .column("direction", Show::Text("direction"))
        .column("units", Show::Count("units"))
        .column("Pearson", Show::Signed("pearson", 2))
        .column("Spearman", Show::Signed("spearman", 2))
        .column("same sign", Show::Share("same_sign"))
        .column("slope", Show::Signed("slope", 2))
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

    #[test]
    fn estimates_over_fewer_pairs_are_said_to_be() {
        let heads = |n: [i64; 2]| {
            let float = |t: Table, name: &str, x: [Option<f64>; 2]| t.float(name, "", x).unwrap();
            let table = Table::new("heads").str("model", "", ["m"; 2]).unwrap().str("site", "", ["z"; 2]).unwrap();
            let table = table.str("position", "", ["last"; 2]).unwrap().int("n", "", n).unwrap();
            let table = table.int("layer", "", [0, 1]).unwrap().int("head", "", [0, 0]).unwrap();
            let table = table.str("direction", "", ["necessity"; 2]).unwrap();
            let names =
                ["positive_mean", "negative_mean", "ci_low", "ci_high", "p_value", "q_value", "p_max", "flip_rate"];
            let table = names.iter().fold(table, |table, name| float(table, name, [None; 2]));
            let table = float(table, "effect_mean", [Some(1.0), None]);
            float(table, "estimate_mean", [Some(1.5), Some(0.5)])
        };
        let (fewer, alike) = (heads([120, 40]), heads([40, 40]));
        let of = |table| read(table, "direction").unwrap();
        assert!(fewer_pairs(&of(&fewer)).contains("means over 40 pairs and the exact effects over 120"));
        assert_eq!(fewer_pairs(&of(&alike)), "");
        let Figure::Scatter(figure) = scatter(&of(&fewer)) else { panic!("no scatter") };
        assert!(figure.x_label.contains("40 pairs") && figure.y_label.contains("120 pairs"));
    }
}

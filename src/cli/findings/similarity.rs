//! Which layers are alike.

use super::is_above;
use crate::analyses::checkpoints::similarity::{LayerRow, Read, ends, pair};
use crate::table::Table;

/// The layers that are most alike and least: of a model with itself neighbours, of two models each layer and its best match.
pub(super) fn layers(tables: &[Table]) -> Option<Vec<String>> {
    let read = Read::of(tables).ok()?;
    let [model, with] = read.names();
    let (rows, heading) = match read.is_itself() {
        true => (read.steps(), format!("layers of {model} and the next:")),
        false => (read.matches(), format!("layers of {model} and those of {with} that are most like them:")),
    };
    let mut lines = vec![heading];
    match ends(&rows) {
        Some((least, most)) => {
            lines.push(format!("  most alike: {}", pair(most)));
            lines.push(format!("  least alike: {}", pair(least)));
            lines.extend(apart(least, most).map(str::to_string));
        }
        None => lines.push("  no layer's rows differ: there is nothing to compare".to_string()),
    }
    Some(lines)
}

/// What is said where intervals do not tell which is more alike.
fn apart(least: &LayerRow, most: &LayerRow) -> Option<&'static str> {
    match (least.cka_interval, most.cka_interval) {
        (None, _) => Some("  without intervals: the prompts are too few, or the layers the same"),
        // Layers that are the same have no interval: nothing is uncertain there.
        (Some((_, high)), None) if most.cka.is_some_and(|cka| cka > high) => None,
        (least, most) if is_above(most, least) => None,
        _ => Some("  their intervals overlap: which are more alike is not told"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;
    use crate::table::rows::Row as _;

    /// Three layers of two models; each is most like the layer of its number, with intervals of so much on each side.
    fn said(with: &'static str, half: f64) -> Vec<String> {
        let pairs = (0..3i64).flat_map(|a| (0..3i64).map(move |b| (a, b)));
        let row = |(layer_a, layer_b): (i64, i64)| {
            let cka = if layer_a == layer_b { 0.75 - 0.125 * layer_a as f64 } else { 0.25 };
            let cka_interval = Some((cka - half, cka + half));
            LayerRow { model: "m", with, layer_a, layer_b, n: 9, cka: Some(cka), cka_interval, ..LayerRow::default() }
        };
        findings(&[LayerRow::table(pairs.map(row)).unwrap()])
    }

    #[test]
    fn the_most_and_the_least_alike_are_named_with_intervals() {
        assert_eq!(
            said("o", 0.0625),
            [
                "layers of m and those of o that are most like them:",
                "  most alike: layer 0 and layer 0 (CKA 0.750, 95 % interval [0.688, 0.812])",
                "  least alike: layer 2 and layer 2 (CKA 0.500, 95 % interval [0.438, 0.562])",
            ]
        );
    }

    #[test]
    fn layers_whose_intervals_overlap_are_not_told_apart() {
        assert_eq!(said("o", 0.25)[3], "  their intervals overlap: which are more alike is not told");
        let itself = said("m", 0.0625);
        assert_eq!(itself[0], "layers of m and the next:");
        assert_eq!(itself[3], "  their intervals overlap: which are more alike is not told");
    }
}

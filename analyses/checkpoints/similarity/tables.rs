//! The table of layers beside layers.

use super::{Asked, Measured, Similarity};
use crate::analyses::prelude::*;
use crate::linear::LinearError;
use crate::linear::similarity::{Alike, Rows};
use rayon::prelude::*;

rows! {
    /// A layer of the model beside a layer of the other.
    pub struct LayerRow<'a> in "layers" {
        model: &'a str = "the model, as it was named",
        with: &'a str = "the other model, as it was named; the same where layers of one model are compared",
        layer_a: i64 = "layer of the model, from 0: rows are the residual stream after it",
        layer_b: i64 = "layer of the other",
        positions: &'a str =
            "`last` (the last token of each prompt), or `words` (wherever a token of both ends at the same place of the text)",
        n: i64 = "rows",
        prompts: i64 = "prompts that they are of",
        cka: Option<f64> =
            "linear centred kernel alignment, debiased: 1 where both are the same up to rotation and scale, 0 on average where they \
             have nothing in common; empty where a layer's rows do not differ",
        cka_interval: Option<(f64, f64)> as "cka_ci_" = [
            "lower end of its 95 % interval, by leaving out prompts in up to 20 groups (jackknife); empty where it is 1, and for fewer \
             than three groups",
            "its upper end",
        ],
        cka_biased: Option<f64> = "the same without correction: with fewer rows than numbers a row it is large by itself",
        procrustes: Option<f64> =
            "Procrustes distance, from 0 to the root of 2: of both, centred and of norm 1, after the best rotation",
        rsa: Option<f64> =
            "rank correlation of the dissimilarities of all pairs of rows (1 less the correlation of two rows), from -1 to 1",
    }
}

pub(super) fn layers(of: &Similarity, model: &str, items: &Asked, measured: &Measured) -> Result<Table, AnalysisError> {
    let columns = compared(items, measured).map_err(|e| AnalysisError::Failed(e.to_string()))?;
    let row = |a: usize, b: usize| {
        let alike = columns[b][a];
        LayerRow {
            model,
            with: &of.with,
            layer_a: a as i64,
            layer_b: b as i64,
            positions: of.positions.name(),
            n: items.groups.len() as i64,
            prompts: items.prompts as i64,
            cka: alike.cka,
            cka_interval: alike.interval.map(Interval::ends),
            cka_biased: alike.cka_biased,
            procrustes: alike.procrustes,
            rsa: alike.rsa,
        }
    };
    let pairs = (0..measured.a.len()).flat_map(|a| (0..columns.len()).map(move |b| (a, b)));
    Ok(LayerRow::table(pairs.map(|(a, b)| row(a, b)))?)
}

/// How alike each layer of the model is to each of the other. `[layers of the other][layers]`
fn compared(items: &Asked, measured: &Measured) -> Result<Vec<Vec<Alike>>, LinearError> {
    let n = items.groups.len();
    let rows = |values: &Vec<f32>| Rows::new(values, values.len() / n.max(1), &items.groups);
    let own: Vec<Rows> = measured.a.par_iter().map(rows).collect::<Result<_, _>>()?;
    let beside = |other: &Rows| own.par_iter().map(|own| own.alike(other)).collect::<Result<Vec<_>, _>>();
    match &measured.b {
        None => own.iter().map(beside).collect(),
        // One layer of the other after another: what comparisons take of it is larger than its rows.
        Some(other) => other.iter().map(|values| beside(&rows(values)?)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Side, Taken, report};
    use super::*;

    /// Six rows of three numbers, which differ in a way of their own.
    fn layer(k: usize) -> Vec<f32> {
        (0..18).map(|i| ((i * i + 7 * k * i) % 11) as f32).collect()
    }

    fn asked() -> Asked {
        let set = Dataset { path: "p".into(), sha256: String::new(), items: Vec::new(), warnings: Vec::new() };
        Asked { set, a: Side::default(), b: None, groups: (0..6).collect(), prompts: 6 }
    }

    #[test]
    fn every_layer_is_beside_every_layer_of_another_width_and_depth() {
        // The other has the model's layers 1 and 0, each with a number more that is the same in all rows.
        let wider = |k: usize| layer(k).chunks(3).flat_map(|row| [row[0], row[1], row[2], 5.0]).collect::<Vec<f32>>();
        let measured = Measured { a: vec![layer(0), layer(1), layer(2)], b: Some(vec![wider(1), wider(0)]) };
        let similarity = Similarity { with: "other".to_string(), positions: Taken::Words, ..Similarity::default() };
        let table = layers(&similarity, "model", &asked(), &measured).unwrap();
        let rows = LayerRow::read(&table).unwrap();
        let order: Vec<(i64, i64)> = rows.iter().map(|row| (row.layer_a, row.layer_b)).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        for row in &rows {
            let same = row.layer_a + row.layer_b == 1;
            assert_eq!(row.cka.is_some_and(|cka| (cka - 1.0).abs() < 1e-9), same, "{row:?}");
            assert_eq!(row.procrustes.is_some_and(|distance| distance < 1e-6), same, "{row:?}");
        }
        assert!(rows.iter().all(|row| (row.n, row.prompts, row.positions) == (6, 6, "words")));
        let tables = [table];
        assert_eq!(report::figures(&tables).unwrap().len(), 2);
        assert_eq!(report::sections(&tables, Path::new("")).unwrap().len(), 2);
    }

    #[test]
    fn a_model_with_itself_is_symmetric_and_1_on_the_diagonal() {
        let measured = Measured { a: vec![layer(0), layer(1), layer(2)], b: None };
        let similarity = Similarity { with: "model".to_string(), ..Similarity::default() };
        let table = layers(&similarity, "model", &asked(), &measured).unwrap();
        let rows = LayerRow::read(&table).unwrap();
        for row in &rows {
            let other = &rows[(3 * row.layer_b + row.layer_a) as usize];
            assert!(row.cka.zip(other.cka).is_some_and(|(a, b)| (a - b).abs() < 1e-9), "{row:?}");
            assert!(row.layer_a != row.layer_b || row.rsa.is_some_and(|rsa| rsa > 1.0 - 1e-9), "{row:?}");
        }
    }
}

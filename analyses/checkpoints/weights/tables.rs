//! The tables of matrices.

use super::composition::READ_AS;
use super::heads::Part;
use super::summary::{MEASURES, summed};
use super::{Against, Items, OfModel, Weights};
use crate::analyses::checkpoints::paths::step_of;
use crate::analyses::prelude::*;
use crate::model::weights::StoredMatrix;

rows! {
    /// How a matrix differs from its parent's.
    #[derive(Copy)]
    pub struct Changed {
        relative_change: Option<f64> [if any] = "norm of the difference as a share of the parent's norm",
        update_sparsity: Option<f64> [if any] =
            "share of entries that are the same once both are rounded to bf16, within a thousandth of the larger",
        spectral_drift: Option<f64> [if any] =
            "norm of the difference of the singular values as a share of the norm of the parent's; over all of them, or over \
             the principal ones where not all are known",
        angle_left_max: Option<f64> [if any] = "largest angle between the principal left subspaces of both, degrees",
        angle_left_mean: Option<f64> [if any] = "mean of these angles, degrees",
        angle_right_max: Option<f64> [if any] = "largest angle between the principal right subspaces of both, degrees",
        angle_right_mean: Option<f64> [if any] = "mean of these angles, degrees",
        in_principal: Option<f64> [if any] =
            "share of the changed entries that are among the largest tenth of the parent's principal part",
        in_small: Option<f64> [if any] =
            "share of the changed entries that are among the parent's smallest tenth",
    }

    /// A matrix.
    pub struct MatrixRow<'a> in "matrices" {
        model: &'a str = "the model, as it was named",
        step: Option<f64> [if any] = "the training step that its name ends with",
        tensor: &'a str = "the tensor's name",
        layer: i64 = "layer, from 0; -1 outside the layers",
        kind: &'a str = "what the tensor is in its layer",
        rows: i64 = "rows",
        columns: i64 = "columns",
        principal: i64 = "how many of its singular values are counted as the principal ones",
        norm: Option<f64> = "square root of the sum of squares (Frobenius norm)",
        spectral_norm: Option<f64> = "largest singular value",
        stable_rank: Option<f64> = "squared norm over squared spectral norm",
        effective_rank: Option<f64> =
            "exponential of the entropy of the singular values as shares of their sum; empty where not all are known",
        top_energy: Option<f64> = "share of the squared norm that the principal singular values hold",
        residual: Option<f64> =
            "by how much the worst principal singular pair misses being one, as a share of the spectral norm; 0 where all were found",
        changed: Changed as "",
    }

    /// A singular value.
    pub struct SpectrumRow<'a> in "spectra" {
        model: &'a str = "the model, as it was named",
        tensor: &'a str = "the tensor's name",
        layer: i64 = "layer, from 0; -1 outside the layers",
        kind: &'a str = "what the tensor is in its layer",
        index: i64 = "number of the singular value, from 0, the largest first",
        value: f64 = "singular value",
    }

    /// A product of two of a head's matrices.
    #[derive(Copy)]
    pub struct PartOfHead {
        norm: Option<f64> = "norm of {}",
        spectral_norm: Option<f64> = "largest singular value of {}",
        stable_rank: Option<f64> = "stable rank of {}",
        effective_rank: Option<f64> = "effective rank of {}",
    }

    /// A head.
    pub struct HeadRow<'a> in "heads" {
        model: &'a str = "the model, as it was named",
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0",
        ov: PartOfHead as "ov_" = "`W_O W_V`, which moves what the head reads",
        qk: PartOfHead as "qk_" = "`W_Q^T W_K`, which matches positions, before norms and rotation",
        copying: Option<f64> =
            "sum of the eigenvalues of `W_U W_OV W_E` over the sum of their sizes: 1 where it raises what it reads, -1 where it lowers it",
    }

    /// A layer's attention.
    pub struct LayerRow<'a> in "layers" {
        model: &'a str = "the model, as it was named",
        step: Option<f64> [if any] = "the training step that its name ends with",
        layer: i64 = "layer, from 0",
        gate_norm: f64 = "query-key coupling: root of the sum over query heads of the squared norm of `W_Q^T W_K`",
    }

    /// What a head reads of an earlier one.
    pub struct CompositionRow<'a> in "composition" {
        model: &'a str = "the model, as it was named",
        reader_layer: i64 = "the reading head's layer, from 0",
        reader_head: i64 = "the reading head, from 0",
        part: &'a str = "what it reads for: q, k or v",
        writer_layer: i64 = "the writing head's layer, from 0",
        writer_head: i64 = "the writing head, from 0",
        score: f64 = "norm of the product of both heads' matrices over the product of their norms",
        chance: f64 = "about what random matrices of the model's width come to",
    }

    /// A change over matrices.
    pub struct ChangeRow<'a> in "changes" {
        model: &'a str = "the model, as it was named",
        step: Option<f64> [if any] = "the training step that its name ends with",
        parent: &'a str = "the parent, as it was named",
        kind: &'a str = "which matrices: those of this kind in all layers, or `all` in layers",
        measure: &'a str = "the measure: a column of matrices.parquet",
        n: i64 = "matrices",
        mean: Option<f64> = "mean over these matrices, each counting the same",
        interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % BCa interval over matrices", "its upper end"],
    }
}

/// What stands for every kind of matrix in a layer.
pub const ALL: &str = "all";

impl Changed {
    fn of(against: &Against) -> Changed {
        Changed {
            relative_change: Some(against.relative_change),
            update_sparsity: Some(against.update_sparsity),
            spectral_drift: Some(against.spectral_drift),
            angle_left_max: against.left.map(|of| of[0]),
            angle_left_mean: against.left.map(|of| of[1]),
            angle_right_max: against.right.map(|of| of[0]),
            angle_right_mean: against.right.map(|of| of[1]),
            in_principal: against.in_principal,
            in_small: against.in_small,
        }
    }
}

impl PartOfHead {
    fn of(part: &Part) -> PartOfHead {
        let Part { norm, spectral_norm, stable_rank, effective_rank } = *part;
        PartOfHead { norm: Some(norm), spectral_norm: Some(spectral_norm), stable_rank, effective_rank }
    }
}

/// A layer as tables number it.
fn numbered(layer: Option<usize>) -> i64 {
    layer.map_or(-1, |layer| layer as i64)
}

fn step(name: &str) -> Option<f64> {
    step_of(name).map(|step| step as f64)
}

pub(super) fn tables(
    weights: &Weights,
    about: &About,
    items: &Items,
    measured: &[OfModel],
) -> Result<Vec<Table>, AnalysisError> {
    let (mut matrices, mut spectra, mut heads, mut layers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut composition = Vec::new();
    for ((model, own), found) in items.models.iter().zip(&items.matrices).zip(measured) {
        let (name, step) = (model.name.as_str(), step(&model.name));
        for (i, (matrix, alone)) in own.iter().zip(&found.alone).enumerate() {
            let StoredMatrix { tensor, kind, rows, columns, layer, .. } = matrix;
            let layer = numbered(*layer);
            let against = found.against.get(i).and_then(Option::as_ref);
            matrices.push(MatrixRow {
                model: name,
                step,
                tensor,
                layer,
                kind,
                rows: *rows as i64,
                columns: *columns as i64,
                principal: weights.principal(*rows, *columns) as i64,
                norm: Some(alone.norm),
                spectral_norm: alone.spectral_norm(),
                stable_rank: alone.stable_rank(),
                effective_rank: alone.effective_rank(),
                top_energy: alone.top_energy(),
                residual: Some(alone.residual),
                changed: against.map(Changed::of).unwrap_or_default(),
            });
            spectra.extend(alone.values.iter().enumerate().map(|(index, value)| SpectrumRow {
                model: name,
                tensor,
                layer,
                kind,
                index: index as i64,
                value: *value,
            }));
        }
        heads.extend(found.heads.iter().map(|head| HeadRow {
            model: name,
            layer: head.layer as i64,
            head: head.head as i64,
            ov: PartOfHead::of(&head.ov),
            qk: PartOfHead::of(&head.qk),
            copying: head.copying,
        }));
        layers.extend(found.heads.chunk_by(|a, b| a.layer == b.layer).map(|of_layer| LayerRow {
            model: name,
            step,
            layer: of_layer[0].layer as i64,
            gate_norm: of_layer.iter().map(|head| head.qk.norm.powi(2)).sum::<f64>().sqrt(),
        }));
        let chance = 1.0 / (model.decoder.arch.d_model as f64).sqrt();
        composition.extend(found.composition.iter().flat_map(|pair| {
            READ_AS.into_iter().zip(pair.scores).map(move |(part, score)| CompositionRow {
                model: name,
                reader_layer: pair.reader.0 as i64,
                reader_head: pair.reader.1 as i64,
                part,
                writer_layer: pair.writer.0 as i64,
                writer_head: pair.writer.1 as i64,
                score,
                chance,
            })
        }));
    }
    let mut tables = vec![
        MatrixRow::table(matrices)?,
        SpectrumRow::table(spectra)?,
        HeadRow::table(heads)?,
        LayerRow::table(layers)?,
    ];
    if weights.composition {
        tables.push(CompositionRow::table(composition)?);
    }
    if items.has_parent {
        tables.push(changes(about, items, measured)?);
    }
    Ok(tables)
}

fn changes(about: &About, items: &Items, measured: &[OfModel]) -> Result<Table, AnalysisError> {
    let Some((parent, children)) = items.models.split_last() else { return Ok(ChangeRow::table([])?) };
    let mut rows = Vec::new();
    for ((child, own), found) in children.iter().zip(&items.matrices).zip(measured) {
        let mut kinds: Vec<(&str, Vec<usize>)> = vec![(ALL, Vec::new())];
        for (i, matrix) in own.iter().enumerate().filter(|(_, matrix)| matrix.layer.is_some()) {
            kinds[0].1.push(i);
            match kinds.iter_mut().skip(1).find(|(kind, _)| *kind == matrix.kind) {
                Some((_, some)) => some.push(i),
                None => kinds.push((&matrix.kind, vec![i])),
            }
        }
        for (kind, some) in &kinds {
            rows.extend(MEASURES.iter().map(|measure| {
                let of = summed(measure, found, some, about.seed);
                ChangeRow {
                    model: &child.name,
                    step: step(&child.name),
                    parent: &parent.name,
                    kind,
                    measure: measure.name,
                    n: of.n as i64,
                    mean: of.mean,
                    interval: of.interval,
                }
            }));
        }
    }
    Ok(ChangeRow::table(rows)?)
}

//! Matrices as a checkpoint's files hold them, for whoever asks of weights and not of what a model does: read row by row, never kept.

use super::layout::LinearSpec;
use super::{WeightReader, WeightsError};
use crate::model::checkpoint::{Pick, Stored};
use crate::model::decoder::Decoder;
use crate::ops;
use std::ops::Range;

/// A matrix of a checkpoint.
#[derive(Clone, Debug)]
pub struct StoredMatrix {
    /// The tensor's name; of one of a stack of matrices with its number: `model.layers.0.mlp.experts.down_proj[3]`.
    pub tensor: String,
    /// Its layer; none outside the layers.
    pub layer: Option<usize>,
    /// What it is in its layer, which all layers have: `self_attn.q_proj`.
    pub kind: String,
    pub rows: usize,
    pub columns: usize,
    /// The tensor's name without what stands before all of the checkpoint's: checkpoints of one model are matched by it.
    pub key: String,
    stored: Stored,
    /// The first of its rows among the stored tensor's.
    first: usize,
}

/// The matrices that a layer's heads are of, as `[out, in]` in f32. Queries and keys are before norm and rotation.
pub struct HeadWeights {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    /// The width of a head's queries and keys.
    pub d_head: usize,
    /// The width of its values.
    pub d_value: usize,
    pub d_model: usize,
    /// `[n_heads * d_head, d_model]`
    pub q: Vec<f32>,
    /// `[n_kv_heads * d_head, d_model]`
    pub k: Vec<f32>,
    /// `[n_kv_heads * d_value, d_model]`
    pub v: Vec<f32>,
    /// `[d_model, n_heads * d_value]`
    pub o: Vec<f32>,
}

/// The least side of a matrix among those of a stack: narrower ones are filters of convolutions.
const LEAST_SIDE: usize = 8;

impl Decoder {
    /// Every matrix of the checkpoint, layer by layer, those outside the layers first.
    pub fn matrices(&self) -> Vec<StoredMatrix> {
        self.embed.source().matrices()
    }

    /// Rows of a matrix, as f32. `[rows, columns]`
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn rows_of(&self, matrix: &StoredMatrix, rows: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let rows = matrix.first + rows.start..matrix.first + rows.end;
        Ok(self.embed.source().checkpoint.rows(&matrix.stored, &[rows])?)
    }

    /// What a layer's heads are of; none where the layer has no attention, or keys and values that all heads share in a narrow way
    /// (latent attention), or those of another layer, or heads that are differences of two or read the
    /// embedding beside the residual stream.
    ///
    /// # Errors
    /// If there is no such layer, or it cannot be read.
    pub fn head_weights(&self, layer: usize) -> Result<Option<HeadWeights>, WeightsError> {
        let source = self.embed.source();
        if layer >= source.arch.n_layers {
            return Err(WeightsError::NoLayer { layer });
        }
        let spec = source.layout().layer(layer);
        let attention = source.arch.layers[layer].mixer.attention();
        let Some((attention, weights)) = attention.zip(spec.mixer.attention()) else { return Ok(None) };
        if attention.difference.is_some() || attention.beside_embedding {
            return Ok(None);
        }
        let (None, Some(k), Some(v)) = (&weights.latent, &weights.k, &weights.v) else { return Ok(None) };
        let read = |part: &LinearSpec| Ok::<_, WeightsError>(part.scaled(source.checkpoint.read(&part.weight)?));
        let heads = &attention.heads;
        Ok(Some(HeadWeights {
            n_heads: heads.n_heads,
            n_kv_heads: heads.n_kv_heads,
            d_head: heads.d_head,
            d_value: heads.d_value(),
            d_model: source.arch.d_model,
            q: read(&weights.q)?,
            k: read(k)?,
            v: read(v)?,
            o: read(&weights.o)?,
        }))
    }

    /// Rows of the embedding and of the unembedding, for some tokens. `[tokens, d_model]` each, in f32.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn both_tables(&self, tokens: Range<usize>) -> Result<[Vec<f32>; 2], WeightsError> {
        let ends = self.embed.source().layout().ends();
        if ends.led.is_some() {
            // Entries come by way of a matrix, which the tables know.
            let ids: Vec<u32> = tokens.map(|token| token as u32).collect();
            return Ok([ops::to_vec(&self.embed.rows(&ids)?)?, ops::to_vec(&self.unembed.rows(&ids)?)?]);
        }
        let rows = |stored: &Stored| {
            let stored = Stored { pick: Pick::Rows(vec![tokens.clone()]), ..stored.clone() };
            self.embed.source().checkpoint.read(&stored)
        };
        Ok([rows(&ends.embed)?, rows(ends.unembed.as_ref().unwrap_or(&ends.embed))?])
    }
}

impl WeightReader {
    fn matrices(&self) -> Vec<StoredMatrix> {
        let layout = self.layout();
        let (layers, prefix, layout_turns) = (layout.layers_prefix(), layout.at(""), layout.turned());
        let mut found: Vec<StoredMatrix> = Vec::new();
        for name in self.checkpoint.names() {
            if self.checkpoint.is_scale(&name) {
                continue;
            }
            let Some(shape) = self.checkpoint.shape(&name) else { continue };
            let (n, rows, columns) = match *shape {
                [rows, columns] if rows > 1 && columns > 1 => (1, rows, columns),
                [n, rows, columns] if rows >= LEAST_SIDE && columns >= LEAST_SIDE => (n, rows, columns),
                _ => continue,
            };
            // An adapter's change of a matrix that is stored as `[in, out]` is turned as that is.
            let turned = Pick::Turned { rows: 0..0, columns: Vec::new() };
            let pick = if layout_turns.contains(&name) { turned } else { Pick::All };
            let stored = Stored { name: name.clone(), shape: shape.to_vec(), pick };
            // What the decoder does not use may be of a dtype that is not read.
            if self.checkpoint.check(&stored).is_err() {
                continue;
            }
            let stack = shape.len() == 3;
            for one in 0..n {
                let number = if stack { format!("[{one}]") } else { String::new() };
                let (layer, kind) = place(&name, &layers, &prefix);
                let key = format!("{}{number}", name.strip_prefix(&prefix).unwrap_or(&name));
                let (tensor, stored, first) = (format!("{name}{number}"), stored.clone(), one * rows);
                found.push(StoredMatrix { tensor, layer, kind, rows, columns, key, stored, first });
            }
        }
        found.sort_by(|a, b| a.layer.cmp(&b.layer).then_with(|| natural(&a.tensor).cmp(&natural(&b.tensor))));
        found
    }
}

/// A tensor's layer, and what it is there.
fn place(name: &str, layers: &str, prefix: &str) -> (Option<usize>, String) {
    let within = name.strip_prefix(layers).and_then(|rest| {
        let (number, rest) = rest.split_once('.')?;
        Some((number.parse().ok()?, rest))
    });
    let (layer, rest) = match within {
        Some((layer, rest)) => (Some(layer), rest),
        None => (None, name.strip_prefix(prefix).unwrap_or(name)),
    };
    let rest = rest.strip_suffix(".weight").unwrap_or(rest);
    let parts = rest.split('.').filter(|part| part.parse::<usize>().is_err());
    (layer, parts.collect::<Vec<_>>().join("."))
}

/// A name whose numbers compare as numbers.
fn natural(name: &str) -> Vec<(String, u64)> {
    let parts = name.split(['.', '[', ']']);
    parts.map(|part| part.parse().map_or((part.to_string(), 0), |number| (String::new(), number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensors_kind_is_what_all_layers_call_it() {
        let of = |name: &str| place(name, "model.layers.", "model.");
        assert_eq!(of("model.layers.12.self_attn.q_proj.weight"), (Some(12), "self_attn.q_proj".to_string()));
        assert_eq!(of("model.layers.0.mlp.experts.7.up_proj.weight"), (Some(0), "mlp.experts.up_proj".to_string()));
        assert_eq!(of("model.embed_tokens.weight"), (None, "embed_tokens".to_string()));
        assert_eq!(of("lm_head.weight"), (None, "lm_head".to_string()));
    }

    #[test]
    fn numbers_in_names_come_in_their_order() {
        assert!(natural("a.layers.2.x") < natural("a.layers.10.x"));
        assert!(natural("a.down_proj[2]") < natural("a.down_proj[10]"));
    }
}

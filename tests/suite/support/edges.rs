//! Independent values of edges and circuits.

use gatelens::plan::Edge;
use std::collections::HashMap;
use std::path::Path;

/// Independent values (`edges_golden.py`): all edges of two prompts, and circuits.
pub struct GoldenEdges {
    pub names: Vec<Edge>,
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

impl GoldenEdges {
    pub fn of(family: &str) -> GoldenEdges {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/edges/{family}.safetensors"));
        let bytes = std::fs::read(&path).expect("golden edges");
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
        let names = metadata.metadata().clone().expect("metadata")["edges"].clone();
        let names: Vec<String> = serde_json::from_str(&names).expect("names");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let values = |view: safetensors::tensor::TensorView| -> Vec<f64> {
            match view.dtype() {
                safetensors::Dtype::F32 => {
                    view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
                }
                safetensors::Dtype::I64 => {
                    view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
                }
                _ => view.data().iter().map(|b| f64::from(*b)).collect(),
            }
        };
        let tensors = tensors.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), values(view))));
        GoldenEdges {
            names: names.iter().map(|name| name.parse().expect("an edge")).collect(),
            tensors: tensors.collect(),
        }
    }

    /// All numbers of a tensor.
    pub fn values(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    /// The numbers of a tensor's row.
    pub fn row(&self, name: &str, i: usize) -> Vec<f64> {
        let (shape, values) = &self.tensors[name];
        let width: usize = shape[1..].iter().product();
        values[i * width..(i + 1) * width].to_vec()
    }

    /// The token ids of a prompt.
    pub fn ids(&self, name: &str, i: usize) -> Vec<u32> {
        self.row(name, i).into_iter().map(|id| id as u32).collect()
    }
}

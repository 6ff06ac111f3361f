//! Directions in files: named vectors of a site, as `cav` and `steer` write them and `steer` reads them.
//!
//! A safetensors file with, for each direction, `METHOD.SITE.LAYER` `[d]` and, for classifiers, `METHOD.SITE.LAYER.bias`
//! `[1]`, and in its metadata the `position` of prompts at which all were made. Other tools' files are read too: their
//! safetensors by the name that the user gives, `.npy` arrays, [`control`] vectors of llama.cpp. What is done with a
//! direction is left to the analyses.

pub mod control;
mod npy;

use super::inputs::read_input;
use crate::analyses::prelude::*;
use crate::linear::{Direction, Method};
use crate::model::arch::Arch;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use std::collections::HashMap;

/// A direction with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub name: String,
    pub vector: Vec<f32>,
    /// A classifier's, which is positive where `vector . x + bias` is.
    pub bias: Option<f64>,
}

/// A direction of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub named: Named,
    /// At which position of prompts it was made, if the file says so.
    pub position: Option<Position>,
    /// The file's name, and its SHA-256.
    pub source: (String, String),
}

/// The key of the metadata; one alone, as the order of several is not fixed.
const POSITION: &str = "position";

/// Directions as the bytes of a file, which were all made at one position of prompts.
///
/// # Errors
/// If two have one name.
pub fn to_bytes(directions: &[Named], position: Option<Position>) -> Result<Vec<u8>, AnalysisError> {
    let mut tensors: Vec<(String, Vec<f32>)> = Vec::new();
    for (i, direction) in directions.iter().enumerate() {
        if directions[..i].iter().any(|other| other.name == direction.name) {
            return Err(AnalysisError::Failed(format!("vectors: two are named `{}`", direction.name)));
        }
        tensors.push((direction.name.clone(), direction.vector.clone()));
        tensors.extend(direction.bias.map(|bias| (format!("{}.bias", direction.name), vec![bias as f32])));
    }
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, v), bytes)| TensorView::new(Dtype::F32, vec![v.len()], bytes).map(|view| (name.as_str(), view)));
    let failed = |e: safetensors::SafeTensorError| AnalysisError::Failed(format!("vectors: {e}"));
    let metadata = position.map(|p| HashMap::from([(POSITION.to_string(), p.to_string())]));
    serialize(views.collect::<Result<Vec<_>, _>>().map_err(failed)?, metadata).map_err(failed)
}

/// An array, row-major, as the bytes of an `.npy` file in f32.
pub fn to_npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    npy::write(shape, values)
}

/// The place at which a direction is to be added: it chooses among the directions of a file that has one a layer.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub site: Site,
    pub n_layers: usize,
}

/// A direction of a file: the one named `name`, or the one of the `place`, or the only one there is. The file is
/// safetensors, `.npy`, or a control vector in GGUF; its numbers are f16, bf16, f32 or f64.
///
/// # Errors
/// If the file is none of these, is damaged or holds other numbers, or the name is not in it or not clear.
pub fn from_file(data: impl Into<Data>, name: Option<&str>, place: Option<Place>) -> Result<Given, AnalysisError> {
    let data = data.into();
    let ((bytes, source), path) = (read_input(&data)?, data.path());
    let wanted = Wanted { path, name, place };
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", path.display()));
    let (named, position) = match &bytes {
        bytes if bytes.starts_with(npy::MAGIC) => (wanted.of_npy(bytes).map_err(bad)?, None),
        bytes if bytes.starts_with(b"GGUF") => control::read(&wanted)?,
        bytes if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 2]) => {
            return Err(bad("is an archive or pickled; save the vector as .npy or safetensors".to_string()));
        }
        bytes => wanted.of_safetensors(bytes).map_err(bad)?,
    };
    if let Some(v) = named.vector.iter().find(|v| !v.is_finite()) {
        return Err(bad(format!("`{}` holds {v}; a direction's numbers must be finite", named.name)));
    }
    Ok(Given { named, position, source })
}

/// [`from_file`] of a direction of a model's residual stream.
///
/// # Errors
/// As [`from_file`]; and if it is not as wide as the stream.
pub fn of_stream(data: &Data, name: Option<&str>, arch: &Arch) -> Result<Given, AnalysisError> {
    let given = from_file(data.clone(), name, None)?;
    let (found, d) = (given.named.vector.len(), arch.d_model);
    if found != d {
        let why = format!("{}: the vector has {found} numbers, the model's stream {d}", data.display());
        return Err(AnalysisError::Bad(why));
    }
    Ok(given)
}

/// Which direction of a file is asked for.
struct Wanted<'a> {
    path: &'a Path,
    name: Option<&'a str>,
    place: Option<Place>,
}

impl Wanted<'_> {
    /// The name among those that are there.
    fn choose<'n>(&self, names: &[&'n str]) -> Result<&'n str, String> {
        let shown = || names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
        match (self.name, names) {
            (Some(name), _) => names
                .iter()
                .find(|n| **n == name)
                .copied()
                .ok_or_else(|| format!("has no vector `{name}`; it has {}", shown())),
            (None, [only]) => Ok(only),
            (None, _) => Err(format!("has {} vectors; name one of {}", names.len(), shown())),
        }
    }

    /// The one vector of an array, or the row of the layer where it has a row a layer.
    fn row(&self, name: &str, (shape, values): npy::Array) -> Result<(String, Vec<f32>), String> {
        let rows = match shape.split_last() {
            Some((_, [])) => return Ok((name.to_string(), values)),
            Some((_, rows)) => rows.iter().product::<usize>(),
            None => return Err(format!("`{name}` is one number; a direction has as many as the site is wide")),
        };
        let width = shape.last().copied().unwrap_or(0);
        match self.place {
            _ if rows == 1 => Ok((name.to_string(), values)),
            Some(Place { site, n_layers }) if shape.len() == 2 && rows == n_layers && site.kind.in_layers() => {
                let row = values.into_iter().skip(site.layer * width).take(width).collect();
                Ok((format!("{name}.{}", site.layer), row))
            }
            Some(Place { n_layers, .. }) if rows == n_layers + 1 => Err(format!(
                "`{name}` has {rows} rows for {n_layers} layers; hidden states begin with the embedding: leave out the first"
            )),
            _ => Err(format!(
                "`{name}` has the shape {shape:?}; expected [width], or [layers, width] with a row a layer"
            )),
        }
    }

    fn of_npy(&self, bytes: &[u8]) -> Result<Named, String> {
        if let Some(name) = self.name {
            return Err(format!("is one array without names; leave out {}", param("name").is(name)));
        }
        let stem = self.path.file_stem().map_or_else(|| "vector".into(), |stem| stem.to_string_lossy());
        let (name, vector) = self.row(&stem, npy::read(bytes)?)?;
        Ok(Named { name, vector, bias: None })
    }

    fn of_safetensors(&self, bytes: &[u8]) -> Result<(Named, Option<Position>), String> {
        let unread = |e: safetensors::SafeTensorError| {
            format!("is no safetensors file: {e}; a vector is a safetensors, .npy or control-vector GGUF file")
        };
        let tensors = SafeTensors::deserialize(bytes).map_err(unread)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unread)?;
        let position = header.metadata().as_ref().and_then(|m| m.get(POSITION)).map(|p| p.parse()).transpose();
        let position = position.map_err(|e| format!("its metadata's `{POSITION}`: {e}"))?;
        let mut names: Vec<&str> = tensors.names().into_iter().filter(|n| !n.ends_with(".bias")).collect();
        names.sort_unstable();
        let chosen = self.choose(&names)?;
        let (name, vector) = self.row(chosen, floats(&tensors, chosen)?)?;
        let bias = format!("{chosen}.bias");
        let bias = match tensors.tensor(&bias) {
            Ok(_) => floats(&tensors, &bias)?.1.first().map(|b| f64::from(*b)),
            Err(_) => None,
        };
        Ok((Named { name, vector, bias }, position))
    }
}

fn floats(tensors: &SafeTensors, name: &str) -> Result<npy::Array, String> {
    let tensor = tensors.tensor(name).map_err(|e| format!("`{name}`: {e}"))?;
    let data = tensor.data();
    let values = match tensor.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        other => return Err(format!("`{name}` is in {other:?}; expected F32, F16, BF16 or F64")),
    };
    Ok((tensor.shape().to_vec(), values))
}

impl Named {
    /// The direction as a classifier, if it is one: only logistic ones have a bias that means a probability.
    pub fn classifier(&self) -> Option<Direction> {
        let bias = self.bias.filter(|_| self.name.starts_with(Method::Logistic.name()))?;
        Some(Direction { method: Method::Logistic, vector: self.vector.clone(), bias, strength: None })
    }
}

#[cfg(test)]
mod tests;

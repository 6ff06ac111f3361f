//! Directions in files: named vectors of a site, as `cav` and `steer` write them and `steer` reads them.
//!
//! A safetensors file with, for each direction, `METHOD.SITE.LAYER` `[d]` and, for classifiers, `METHOD.SITE.LAYER.bias`
//! `[1]`, and in its metadata the `position` of prompts at which all were made; other tools' files with one vector a layer
//! are read too, by the name that the user gives. What is done with a direction is left to the analyses.

use super::AnalysisError;
use super::inputs::read_input;
use super::summary::Position;
use crate::linear::{Direction, Method};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use std::collections::HashMap;
use std::path::Path;

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

/// A direction of a file: the one named `name`, or the only one there is.
///
/// # Errors
/// If the file is no safetensors file of f32 vectors, or the name is not in it or not clear.
pub fn from_file(path: &Path, name: Option<&str>) -> Result<Given, AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", path.display()));
    let (bytes, source) = read_input(path)?;
    let unread = |e: safetensors::SafeTensorError| bad(format!("is no safetensors file: {e}"));
    let tensors = SafeTensors::deserialize(&bytes).map_err(unread)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unread)?;
    let position = header.metadata().as_ref().and_then(|m| m.get(POSITION)).map(|p| p.parse()).transpose();
    let position = position.map_err(|e| bad(format!("its metadata's `{POSITION}`: {e}")))?;
    let mut names: Vec<&str> = tensors.names().into_iter().filter(|n| !n.ends_with(".bias")).collect();
    names.sort_unstable();
    let chosen = match name {
        Some(name) => names.iter().find(|n| **n == name).copied(),
        None if names.len() == 1 => names.first().copied(),
        None => None,
    };
    let shown = || names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    let chosen = chosen.ok_or_else(|| match name {
        Some(name) => bad(format!("has no vector `{name}`; it has {}", shown())),
        None => bad(format!("has {} vectors; name one of {}", names.len(), shown())),
    })?;
    let vector = floats(&tensors, chosen).map_err(bad)?;
    let bias = format!("{chosen}.bias");
    let bias = match tensors.tensor(&bias) {
        Ok(_) => floats(&tensors, &bias).map_err(bad)?.first().map(|b| f64::from(*b)),
        Err(_) => None,
    };
    Ok(Given { named: Named { name: chosen.to_string(), vector, bias }, position, source })
}

fn floats(tensors: &SafeTensors, name: &str) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|e| format!("`{name}`: {e}"))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("`{name}` is in {:?}; expected F32", tensor.dtype()));
    }
    let values: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(format!("`{name}` holds {v}; a direction's numbers must be finite")),
        None => Ok(values),
    }
}

impl Named {
    /// The direction as a classifier, if it is one: only logistic ones have a bias that means a probability.
    pub fn classifier(&self) -> Option<Direction> {
        let bias = self.bias.filter(|_| self.name.starts_with(Method::Logistic.name()))?;
        Some(Direction { method: Method::Logistic, vector: self.vector.clone(), bias, strength: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, bias: Option<f64>) -> Named {
        Named { name: name.to_string(), vector: vec![1.5, -2.0], bias }
    }

    #[test]
    fn directions_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.safetensors");
        let all = [named("logistic.resid_post.3", Some(0.25)), named("svm.resid_post.3", None)];
        for position in [None, Some(Position::At(-2))] {
            std::fs::write(&path, to_bytes(&all, position).unwrap()).unwrap();
            let found = from_file(&path, Some("logistic.resid_post.3")).unwrap();
            assert_eq!((&found.named, found.position), (&all[0], position));
            assert!(found.named.classifier().is_some() && all[1].classifier().is_none());
            assert_eq!(found.source, read_input(&path).unwrap().1);
        }
    }

    #[test]
    fn a_name_that_is_not_there_or_not_clear_is_said_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.safetensors");
        std::fs::write(&path, to_bytes(&[named("a", None), named("b", None)], None).unwrap()).unwrap();
        let why = |name| from_file(&path, name).unwrap_err().to_string();
        assert!(why(Some("c")).contains("no vector `c`; it has a, b"), "{}", why(Some("c")));
        assert!(why(None).contains("name one of a, b"));
    }
}

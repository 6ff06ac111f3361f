//! Control vectors in GGUF, as llama.cpp and repeng write and read them: `general.architecture` is `controlvector`, and a
//! tensor `direction.L` of f32 is added to the output of layer L, counted from 0 as here: to `resid_post.L`. llama.cpp
//! keeps no place for layer 0, and refuses a whole file that has a `direction.0`.

use super::{Named, POSITION, Place, Wanted};
use crate::analyses::prelude::*;
use crate::dataset::located;
use crate::model::gguf::{Gguf, GgufError, dequantize};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::io::Cursor;

const ARCHITECTURE: &str = "general.architecture";
/// The architecture's name, and what its keys begin with.
const KIND: &str = "controlvector";
/// What the tensors' names begin with, before the layer.
const DIRECTION: &str = "direction.";

/// The direction that is asked for: that of the layer, where none is named.
pub(super) fn read(wanted: &Wanted<'_>) -> Result<(Named, Option<Position>), AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(format!("{}: {why}", wanted.path.display()));
    let of_file = |e: GgufError| AnalysisError::Bad(e.to_string());
    let path = located(wanted.path)?;
    let file = Gguf::open(&path).map_err(of_file)?;
    let kind = file.str(ARCHITECTURE).map_err(of_file)?;
    if kind != KIND {
        return Err(bad(format!(
            "is a GGUF file of `{kind}`, not a control vector; the model stands before the flags"
        )));
    }
    let names: Vec<&str> = file.tensors().map(|t| t.name.as_str()).filter(|n| layer_of(n).is_some()).collect();
    if names.iter().any(|name| layer_of(name) == Some(0)) {
        tracing::warn!("{}: llama.cpp refuses it, as it has a {DIRECTION}0", wanted.path.display());
    }
    let chosen = choose(wanted, &names).map_err(bad)?;
    let tensor = file.tensor(chosen).map_err(of_file)?;
    if tensor.shape.len() != 1 {
        return Err(bad(format!("`{chosen}` has the shape {:?}; a direction has one dimension", tensor.shape)));
    }
    let bytes = file.bytes(tensor).map_err(of_file)?;
    let mut vector = vec![0.0; tensor.elements()];
    dequantize(tensor.kind, bytes, &mut vector).map_err(of_file)?;
    let position = file.opt_str(&position_key()).map_err(of_file)?.map(str::parse).transpose();
    let position = position.map_err(|e| bad(format!("its metadata's `{}`: {e}", position_key())))?;
    Ok((Named { name: chosen.to_string(), vector, bias: None }, position))
}

fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix(DIRECTION)?.parse().ok()
}

/// A key of gatelens' own, which llama.cpp passes over.
fn position_key() -> String {
    format!("gatelens.{POSITION}")
}

fn choose<'n>(wanted: &Wanted<'_>, names: &[&'n str]) -> Result<&'n str, String> {
    if names.is_empty() {
        return Err(format!("has no tensor {DIRECTION}L"));
    }
    let Some(Place { site, .. }) = wanted.place else { return wanted.choose(names) };
    if wanted.name.is_some() {
        let chosen = wanted.choose(names)?;
        if layer_of(chosen).map(|layer| SiteKind::ResidPost.at(layer)) != Some(site) {
            tracing::warn!("{}: `{chosen}` is of another place than {site}, where it is added", wanted.path.display());
        }
        return Ok(chosen);
    }
    if site.kind != SiteKind::ResidPost {
        let (leave, give) = (param("site"), param("name"));
        return Err(format!(
            "its directions are added to resid_post, not to {site}; leave {leave} out, or give {give}"
        ));
    }
    let of_layer = names.iter().find(|name| layer_of(name) == Some(site.layer)).copied();
    of_layer.ok_or_else(|| format!("has no direction of layer {}; it has {}", site.layer, names.join(", ")))
}

/// The layer whose `direction.L` does what adding at the site does.
///
/// # Errors
/// For sites that are not between two layers, and before the first.
pub fn layer_at(site: Site) -> Result<usize, AnalysisError> {
    match (site.kind, site.layer) {
        (SiteKind::ResidPost, layer) => Ok(layer),
        // What goes into a layer has come out of the one before.
        (SiteKind::ResidPre, layer) if layer > 0 => Ok(layer - 1),
        _ => Err(AnalysisError::Bad(format!(
            "{} at {site}: a control vector is added to the output of a layer; take {}",
            param("export"),
            param("site").is(SiteKind::ResidPost)
        ))),
    }
}

/// The bytes of a control vector's file with one direction. `hint` names the model's family, `position` the place in
/// prompts at which the direction was made.
///
/// # Errors
/// If candle cannot write them.
pub fn to_bytes(layer: usize, vector: &[f32], hint: &str, position: Option<Position>) -> candle_core::Result<Vec<u8>> {
    let text = |text: &str| Value::String(text.to_string());
    let mut keys = vec![
        (ARCHITECTURE.to_string(), text(KIND)),
        (format!("{KIND}.model_hint"), text(hint)),
        (format!("{KIND}.layer_count"), Value::U32(1)),
    ];
    keys.extend(position.map(|p| (position_key(), text(&p.to_string()))));
    let keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let direction = QTensor::quantize(&Tensor::new(vector, &Device::Cpu)?, GgmlDType::F32)?;
    let mut out = Cursor::new(Vec::new());
    gguf_file::write(&mut out, &keys, &[(&format!("{DIRECTION}{layer}"), &direction)])?;
    Ok(out.into_inner())
}

/// Refuses to write over a file that is no control vector, such as a model.
///
/// # Errors
/// If the file is there and is one.
pub fn check_free(path: &Path) -> Result<(), AnalysisError> {
    let ours = || Gguf::open(path).is_ok_and(|file| file.str(ARCHITECTURE).is_ok_and(|kind| kind == KIND));
    if !path.exists() || ours() {
        return Ok(());
    }
    Err(AnalysisError::Bad(format!(
        "{}: the file is there and is no control vector; take another name",
        param("export").is(path.display())
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyses::vectors::from_file;
    use crate::gguf_builder::{self, GgufBuilder};

    fn place(kind: SiteKind, layer: usize) -> Option<Place> {
        Some(Place { site: kind.at(layer), n_layers: 8 })
    }

    fn control() -> GgufBuilder {
        GgufBuilder::new().key(ARCHITECTURE, KIND).key("controlvector.model_hint", "llama")
    }

    #[test]
    fn a_direction_comes_back_as_it_was_written_at_the_layer_whose_output_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        for position in [None, Some(Position::At(-2))] {
            std::fs::write(&path, to_bytes(5, &[1.5, -0.25], "llama", position).unwrap()).unwrap();
            let found = from_file(&path, None, place(SiteKind::ResidPost, 5)).unwrap();
            assert_eq!((found.named.name.as_str(), found.named.vector.as_slice()), ("direction.5", &[1.5, -0.25][..]));
            assert_eq!(found.position, position);
        }
        assert_eq!(layer_at(SiteKind::ResidPost.at(5)).unwrap(), 5);
        assert_eq!(layer_at(SiteKind::ResidPre.at(6)).unwrap(), 5);
        for site in [SiteKind::ResidPre.at(0), SiteKind::AttnDelta.at(3), SiteKind::Embed.at(0)] {
            assert!(layer_at(site).unwrap_err().to_string().contains("take `site = resid_post`"));
        }
        assert!(check_free(&path).is_ok() && check_free(&dir.path().join("new.gguf")).is_ok());
        std::fs::write(&path, "a model").unwrap();
        assert!(check_free(&path).unwrap_err().to_string().contains("take another name"));
    }

    #[test]
    fn the_layer_or_the_name_chooses_among_directions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        let half = [0x3c00_u16, 0xc000].map(u16::to_le_bytes).concat();
        control()
            .floats("direction.1", &[2], &[1.0, 0.0])
            .tensor("direction.10", &[2], 1, &half)
            .floats("other", &[2], &[0.0; 2])
            .write(&path);
        let read = |name, place| from_file(&path, name, place).map(|given| given.named.vector);
        assert_eq!(read(None, place(SiteKind::ResidPost, 1)).unwrap(), [1.0, 0.0]);
        assert_eq!(read(Some("direction.10"), place(SiteKind::ResidPre, 4)).unwrap(), [1.0, -2.0]);
        for (name, place, part) in [
            (None, place(SiteKind::ResidPost, 3), "no direction of layer 3; it has direction.1, direction.10"),
            (None, place(SiteKind::ResidPre, 1), "added to resid_post, not to resid_pre.1"),
            (Some("other"), place(SiteKind::ResidPost, 1), "no vector `other`"),
            (None, None, "name one of direction.1, direction.10"),
        ] {
            let why = read(name, place).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn files_that_are_no_control_vectors_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.gguf");
        let model = GgufBuilder::new().key(ARCHITECTURE, "llama").floats("direction.1", &[2], &[0.0; 2]);
        for (builder, part) in [
            (model, "a GGUF file of `llama`"),
            (GgufBuilder::new(), "general.architecture"),
            (control(), "has no tensor direction.L"),
            (control().floats("direction.x", &[2], &[0.0; 2]), "has no tensor direction.L"),
            (control().floats("direction.1", &[1, 2], &[0.0; 2]), "has the shape [1, 2]"),
            (control().tensor("direction.1", &[32], 16, &[0; 64]), "IQ2_XXS"),
            (control().floats("direction.1", &[1], &[f32::INFINITY]), "must be finite"),
            (control().floats("direction.1", &[1], &[1.0]).key("gatelens.position", "x"), "gatelens.position"),
            (
                control().key("gatelens.position", gguf_builder::Meta::U32(1)).floats("direction.1", &[1], &[1.0]),
                "integer",
            ),
        ] {
            builder.write(&path);
            let why = from_file(&path, None, place(SiteKind::ResidPost, 1)).unwrap_err();
            assert!(why.to_string().contains(part), "{why}");
            assert!(why.of_input());
        }
        let sound = to_bytes(1, &[1.0, 2.0], "llama", None).unwrap();
        for length in 4..sound.len() - 24 {
            std::fs::write(&path, &sound[..length]).unwrap();
            assert!(from_file(&path, None, place(SiteKind::ResidPost, 1)).is_err(), "{length}");
        }
    }
}

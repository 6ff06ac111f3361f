use super::*;
use crate::site::SiteKind;
use std::path::PathBuf;

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
        let found = from_file(&path, Some("logistic.resid_post.3"), None).unwrap();
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
    let why = |name| from_file(&path, name, None).unwrap_err().to_string();
    assert!(why(Some("c")).contains("no vector `c`; it has a, b"), "{}", why(Some("c")));
    assert!(why(None).contains("name one of a, b"));
}

const PLACE: Place = Place { site: Site { kind: SiteKind::ResidPost, layer: 1 }, n_layers: 3 };

fn written(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn tensors(dtype: Dtype, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), data).unwrap();
    serialize([("v", view)], None).unwrap()
}

fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n");
    [npy::MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn floats_of_every_width_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let values = [1.5_f32, -2.0, 0.25];
    let of = |bytes: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|v| bytes(*v)).collect::<Vec<u8>>();
    for (dtype, data) in [
        (Dtype::F32, of(&|v| v.to_le_bytes().to_vec())),
        (Dtype::F64, of(&|v| f64::from(v).to_le_bytes().to_vec())),
        (Dtype::F16, of(&|v| f16::from_f32(v).to_le_bytes().to_vec())),
        (Dtype::BF16, of(&|v| bf16::from_f32(v).to_le_bytes().to_vec())),
    ] {
        for shape in [&[3][..], &[1, 3], &[1, 1, 3]] {
            let path = written(&dir, "v.safetensors", &tensors(dtype, shape, &data));
            assert_eq!(from_file(&path, None, None).unwrap().named.vector, values, "{dtype:?}");
        }
    }
    let path = written(&dir, "v.safetensors", &tensors(Dtype::I32, &[3], &[0; 12]));
    let why = from_file(&path, None, None).unwrap_err().to_string();
    assert!(why.contains("I32; expected F32, F16, BF16 or F64"), "{why}");
}

#[test]
fn of_a_row_a_layer_the_layers_own_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    for path in [
        written(&dir, "v.npy", &array("<f4", "(3, 2)", &data)),
        written(&dir, "v.safetensors", &tensors(Dtype::F32, &[3, 2], &data)),
    ] {
        let found = from_file(&path, None, Some(PLACE)).unwrap().named;
        assert_eq!((found.name.as_str(), found.vector.as_slice()), ("v.1", &[2.0, 3.0][..]));
        let why = |place: Option<Place>| from_file(&path, None, place).unwrap_err().to_string();
        assert!(why(None).contains("shape [3, 2]"), "{}", why(None));
        let of = |n_layers| why(Some(Place { n_layers, ..PLACE }));
        assert!(of(4).contains("a row a layer") && of(2).contains("begin with the embedding"), "{} {}", of(4), of(2));
        let nowhere = Place { site: SiteKind::Embed.at(0), ..PLACE };
        assert!(why(Some(nowhere)).contains("shape [3, 2]"), "the embedding is in no layer");
    }
    let alone = from_file(written(&dir, "one.npy", &array("<f4", "(6,)", &data)), None, Some(PLACE)).unwrap();
    assert_eq!((alone.named.name.as_str(), alone.named.vector.len()), ("one", 6));
    let why = from_file(dir.path().join("one.npy"), Some("x"), Some(PLACE)).unwrap_err().to_string();
    assert!(why.contains("leave out `name = x`"), "{why}");
}

#[test]
fn files_that_hold_no_direction_say_so() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, part) in [
        ("a.npz", b"PK\x03\x04rest".to_vec(), "as .npy or safetensors"),
        ("a.pkl", vec![0x80, 2, 0x8a], "pickled"),
        ("a.npy", array("|O", "(1,)", &[0; 8]), "Python objects"),
        ("b.npy", array("<f4", "()", &[0; 4]), "one number"),
        ("c.npy", array("<f4", "(1,)", &f32::NAN.to_le_bytes()), "must be finite"),
        ("d.npy", array("<f8", "(1,)", &1e300_f64.to_le_bytes()), "must be finite"),
        ("a.txt", b"1.0 2.0 3.0 4.0".to_vec(), "is no safetensors file"),
        ("empty", Vec::new(), "is no safetensors file"),
        ("a.gguf", b"GGUF\x03\0\0".to_vec(), "damaged GGUF file"),
    ] {
        let why = from_file(written(&dir, name, &bytes), None, Some(PLACE)).unwrap_err();
        assert!(why.to_string().contains(part) && why.to_string().contains(name), "{why}");
        assert!(why.of_input(), "{why}");
    }
}

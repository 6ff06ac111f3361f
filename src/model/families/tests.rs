//! The exercise of CONTRIBUTING.md: a family is a page and its lines in the list.

use super::Family;
use crate::model::decoder::{Angles, Unwatched};
use crate::model::{Model, Options};
use crate::ops::rows::{Rows, Span};
use candle_core::{Device, safetensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The llama fixture under changed keys of `config.json`, its tensors under changed names.
fn llama(keys: &[(&str, Value)], name: impl Fn(String) -> String) -> Result<Model, String> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    let text = std::fs::read(fixture.join("config.json")).expect("a description");
    let mut config: Map<String, Value> = serde_json::from_slice(&text).expect("JSON");
    config.remove("hidden_act");
    config.extend(keys.iter().map(|(key, value)| ((*key).to_string(), value.clone())));
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("config.json"), Value::Object(config).to_string()).expect("a file");
    let tensors = safetensors::load(fixture.join("model.safetensors"), &Device::Cpu).expect("weights");
    let tensors = tensors.into_iter().map(|(old, tensor)| (name(old), tensor)).collect();
    safetensors::save(&tensors, dir.path().join("model.safetensors")).expect("a file");
    let model = Model::open(dir.path().to_str().expect("UTF-8"), &Options::default()).map_err(|e| e.to_string())?;
    model.decoder.read().expect("sound numbers");
    Ok(model)
}

/// What the toy family calls a tensor of Llama's.
fn toy_name(name: String) -> String {
    [
        ("model.", "toy."),
        ("embed_tokens", "tokens"),
        ("layers.", "blocks."),
        ("input_layernorm", "norm_1"),
        ("post_attention_layernorm", "norm_2"),
        ("_proj.weight", if name.contains("mlp") { ".weight" } else { "_proj.weight" }),
    ]
    .into_iter()
    .fold(name.clone(), |name, (old, new)| name.replace(old, new))
}

/// The logits of every position of a prompt.
fn logits(model: &Model) -> Vec<f32> {
    let (decoder, n) = (&model.decoder, 20);
    let (ids, positions): (Vec<u32>, Vec<u32>) = (0..n).map(|i| (i * 7 % 160, i)).unzip();
    let angles = Angles::new(decoder, [ids.len()]).expect("angles");
    let rows = Rows { spans: vec![Span::new(0..ids.len(), 0, Vec::new())], entries: positions.clone() };
    let mut acts = decoder.begin((&ids, &positions), rows, &mut Unwatched).expect("a beginning");
    (0..decoder.arch.n_layers).for_each(|l| decoder.layer(l, &angles, &mut acts, &mut Unwatched).expect("a layer"));
    decoder.end(None, &mut acts, &mut Unwatched).expect("an end");
    crate::ops::to_vec(acts.get(crate::site::SiteKind::Logits).expect("logits")).expect("numbers")
}

#[test]
fn a_family_of_one_page_is_read_and_run() {
    let toy = |window: u64| {
        let keys = [("model_type", json!("toy")), ("activation", json!("silu")), ("sliding_window", json!(window))];
        llama(&keys, toy_name).expect("a sound model")
    };
    let mistral = |window: u64| {
        let types = ["sliding_attention", "full_attention"].repeat(2);
        let keys = [("model_type", json!("mistral")), ("hidden_act", json!("silu")), ("layer_types", json!(types))];
        llama(&[&keys[..], &[("sliding_window", json!(window))]].concat(), |name| name).expect("a sound model")
    };
    for window in [3, 100] {
        let found = toy(window);
        assert_eq!((found.decoder.arch.family.name(), &found.warnings[..]), ("toy", &[][..]));
        assert_eq!(logits(&found), logits(&mistral(window)), "window {window}");
    }
    assert_ne!(logits(&toy(3)), logits(&toy(100)));
}

#[test]
fn a_page_says_its_defaults_and_what_is_not_done() {
    let keys = [("model_type", json!("toy"))];
    let said = llama(&keys, toy_name).expect("a sound model").warnings;
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("`activation` is not given: silu")
            && said[1].starts_with("`sliding_window` is not given: 8")
    );
    let why = llama(&[&keys[..], &[("noise", json!(1))]].concat(), toy_name).err().expect("an error");
    assert!(why.contains("`noise`") && why.contains("implements only 0"), "{why}");
    let why = llama(&keys, |name| toy_name(name).replace("norm_2", "norm_3")).err().expect("an error");
    assert!(why.contains("toy.blocks.0.norm_3.weight") && why.contains("a toy decoder"), "{why}");
}

#[test]
fn the_exercise_is_the_one_that_contributing_shows() {
    let page = include_str!("toy.rs").trim();
    assert!(include_str!("../../../CONTRIBUTING.md").contains(page), "CONTRIBUTING.md shows another page");
}

#[test]
fn the_families_and_architectures_of_gguf_files_are_those_that_the_page_lists() {
    let page = include_str!("../../../docs/families.md");
    let part =
        page.split("## Which load from GGUF?").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a part");
    let rows = part.lines().filter(|line| line.starts_with("| `") && !line.contains("general.architecture"));
    let named = |column: usize| -> BTreeSet<&str> {
        let cells = rows.clone().filter_map(|row| row.split('|').nth(column));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
    };
    let architectures: BTreeSet<&str> = Family::in_gguf().flat_map(|(_, gguf)| gguf.architectures()).collect();
    let mut families: BTreeSet<&str> = Family::in_gguf().map(|(family, _)| family.name()).collect();
    // Nothing in a file tells it from Llama.
    families.insert("mistral");
    assert_eq!(named(1), architectures);
    assert_eq!(named(2), families);
    let count = format!("[{} of them](docs/families.md#which-load-from-gguf)", families.len());
    assert!(include_str!("../../../README.md").contains(&count), "the README does not say {count}");
}

//! GGUF files as llama.cpp's own converter makes them of the fixtures: what is read of them is the model that they were made of.
//!
//! `tests/fixtures/gguf/conversions.json` has the metadata that the converter wrote, and how its tensors come of the fixture's;
//! `tests/fixtures/make_conversions.py` makes it, and holds it to what the converter gives.

use crate::support::copies::{Folder, Stored, Tensors};
use crate::support::gguf_builder::{GgufBuilder, Meta};
use crate::support::{Golden, assert_close, family_dir, fixtures, logits};
use candle_core::{DType, Device};
use gatelens::model::arch::Arch;
use gatelens::model::{Model, Options};
use gatelens::plan::{Activation, Part, Plan, Positions};
use gatelens::run::{self, run};
use gatelens::site::{KINDS, Site, SiteKind};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Numbers in a shape.
#[derive(Clone)]
struct Numbers {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Numbers {
    fn new(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{shape:?}");
        Numbers { shape: shape.to_vec(), values }
    }

    /// Those at every index of a shape, in order, which a function takes to one of their own.
    fn at(&self, shape: &[usize], index: impl Fn(&[usize]) -> Vec<usize>) -> Self {
        let n: usize = shape.iter().product();
        let place = |mut i: usize| {
            let mut to = vec![0; shape.len()];
            for (axis, size) in shape.iter().enumerate().rev() {
                (to[axis], i) = (i % size, i / size);
            }
            index(&to).iter().zip(&self.shape).fold(0, |flat, (at, size)| flat * size + at)
        };
        Numbers::new(shape, (0..n).map(|i| self.values[place(i)]).collect())
    }

    /// After one of the steps of make_conversions.py.
    fn after(self, step: &Value) -> Self {
        match step[0].as_str().expect("a step") {
            "shape" => Numbers::new(&sizes(&step[1]), self.values),
            "axes" => {
                let axes = sizes(&step[1]);
                let shape: Vec<usize> = axes.iter().map(|axis| self.shape[*axis]).collect();
                let back = |to: &[usize]| {
                    (0..axes.len()).map(|i| to[axes.iter().position(|a| *a == i).expect("it")]).collect()
                };
                self.at(&shape, back)
            }
            "slice" => {
                let (axis, by) = (sizes(&step[1])[0], sizes(&step[2]));
                let mut shape = self.shape.clone();
                shape[axis] = (by[0]..by[1].min(self.shape[axis])).step_by(by[2]).count();
                let index = |to: &[usize]| {
                    let mut from = to.to_vec();
                    from[axis] = by[0] + by[2] * to[axis];
                    from
                };
                self.at(&shape, index)
            }
            "add" => {
                let by = step[1].as_f64().expect("a number") as f32;
                Numbers { values: self.values.iter().map(|x| x + by).collect(), ..self }
            }
            "times" => {
                let by = step[1].as_f64().expect("a number") as f32;
                Numbers { values: self.values.iter().map(|x| x * by).collect(), ..self }
            }
            "decay" => Numbers { values: self.values.iter().map(|x| -x.exp()).collect(), ..self },
            other => panic!("no step {other}"),
        }
    }
}

/// Sizes in a list, or one alone.
fn sizes(value: &Value) -> Vec<usize> {
    let one = |value: &Value| value.as_u64().expect("a size") as usize;
    value.as_array().map_or_else(|| vec![one(value)], |all| all.iter().map(one).collect())
}

/// A name cut at the number of its layer.
fn cut(name: &str) -> Option<(&str, usize, &str)> {
    let dots: Vec<usize> = name.match_indices('.').map(|(i, _)| i).collect();
    let found = dots.windows(2).find_map(|d| Some((d, name[d[0] + 1..d[1]].parse().ok()?)));
    found.map(|(d, layer)| (&name[..=d[0]], layer, &name[d[1]..]))
}

/// A case: a fixture, changed as its recipe says.
struct Case<'a> {
    of: &'a Value,
    name: &'a str,
    tensors: BTreeMap<String, Numbers>,
}

impl<'a> Case<'a> {
    fn new(of: &'a Value) -> Self {
        let name = of["fixture"].as_str().expect("a fixture");
        let kept = of.get("layers").map(sizes);
        let all = candle_core::safetensors::load(family_dir(name).join("model.safetensors"), &Device::Cpu);
        let mut tensors = BTreeMap::new();
        let without = of["without"].as_str();
        let all = all.expect("weights").into_iter();
        for (old, tensor) in all.filter(|(name, _)| without.is_none_or(|part| !name.contains(part))) {
            let shape = tensor.dims().to_vec();
            let wide = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1());
            let numbers = Numbers::new(&shape, wide.expect("numbers"));
            match (&kept, cut(&old)) {
                (Some(kept), Some((before, layer, after))) => {
                    if let Some(new) = kept.iter().position(|l| *l == layer) {
                        tensors.insert(format!("{before}{new}{after}"), numbers);
                    }
                }
                _ => drop(tensors.insert(old, numbers)),
            }
        }
        Case { of, name, tensors }
    }

    /// The folder that the file is made of.
    fn folder(&self) -> Folder {
        let stored = |(name, n): (&String, &Numbers)| (name.clone(), Stored::floats(&n.shape, &n.values));
        let tensors: Tensors = self.tensors.iter().map(stored).collect();
        let kept = self.of.get("layers").map(sizes);
        Folder::of(self.name).weights(|t| *t = tensors).config(|config| {
            config.extend(self.of.get("config").and_then(Value::as_object).cloned().unwrap_or_default());
            let words = config.get_mut("layer_types").and_then(Value::as_array_mut);
            if let (Some(kept), Some(words)) = (kept, words) {
                *words = kept.iter().map(|l| words[*l].clone()).collect();
            }
        })
    }

    /// What a part of a recipe names, in a layer: one tensor, or a stack of the experts'.
    fn named(&self, pattern: &str, layer: usize) -> Option<Numbers> {
        let name = pattern.replacen('*', &layer.to_string(), 1);
        if !name.contains('#') {
            return self.tensors.get(&name).cloned();
        }
        let one = |e: usize| self.tensors.get(&name.replace('#', &e.to_string()));
        let experts: Vec<&Numbers> = (0..).map_while(one).collect();
        let shape = [&[experts.len()][..], &experts.first()?.shape].concat();
        Some(Numbers::new(&shape, experts.iter().flat_map(|e| &e.values).copied().collect()))
    }

    /// A tensor of the file; none in layers that have not what it is made of.
    fn made(&self, recipe: &Value, layer: usize) -> Option<Numbers> {
        let [shape, parts @ ..] = &recipe.as_array().expect("a recipe")[..] else { panic!("an empty recipe") };
        let mut values = Vec::new();
        for part in parts {
            let steps = part.as_array().expect("a part");
            let found = self.named(steps[0].as_str().expect("a name"), layer)?;
            values.extend(steps[1..].iter().fold(found, Numbers::after).values);
        }
        Some(Numbers::new(&sizes(shape), values))
    }

    /// Writes the file.
    fn write(&self, path: &Path) {
        let keys = self.of["keys"].as_object().expect("keys").iter();
        let start = GgufBuilder::new().key("general.architecture", self.of["architecture"].as_str().expect("a name"));
        let mut file = keys.fold(start, |file, (key, value)| file.key(key, meta(value)));
        let recipes = self.of["tensors"].as_object().expect("tensors");
        for (pattern, recipe) in recipes {
            let layers = if pattern.contains('*') { 0..16 } else { 0..1 };
            let own =
                |l: &usize| pattern.contains('*') && recipes.contains_key(&pattern.replacen('*', &l.to_string(), 1));
            let made: Vec<(usize, Numbers)> =
                layers.filter(|l| !own(l)).filter_map(|l| Some((l, self.made(recipe, l)?))).collect();
            assert!(!made.is_empty(), "{}: {pattern} is made of nothing", self.name);
            for (layer, numbers) in made {
                let name = pattern.replacen('*', &layer.to_string(), 1);
                file = file.floats(&name, &numbers.shape, &numbers.values);
            }
        }
        for (name, values) in self.of.get("values").and_then(Value::as_object).into_iter().flatten() {
            let values: Vec<f32> =
                values.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("one") as f32).collect();
            file = file.floats(name, &[values.len()], &values);
        }
        file.write(path);
    }
}

/// A value of metadata with its type.
fn meta(value: &Value) -> Meta {
    let of = &value[1];
    match value[0].as_str().expect("a type") {
        "uint32" => Meta::U32(of.as_u64().expect("a number") as u32),
        "float32" => Meta::F32(of.as_f64().expect("a number") as f32),
        "bool" => Meta::Bool(of.as_bool().expect("a truth")),
        "string" => Meta::from(of.as_str().expect("a text")),
        "int32s" => Meta::I32s(list(of, |n| n.as_i64().expect("a number") as i32)),
        "float32s" => Meta::F32s(list(of, |n| n.as_f64().expect("a number") as f32)),
        "bools" => Meta::Bools(list(of, |b| b.as_bool().expect("a truth"))),
        other => panic!("no type {other}"),
    }
}

fn list<T>(value: &Value, of: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().expect("a list").iter().map(of).collect()
}

fn open(path: &Path, name: &str) -> Model {
    Model::open(path.to_str().expect("UTF-8"), &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What of a description the file must say as the folder does.
fn shape_of(arch: &Arch) -> String {
    format!("{:?}", (arch.n_heads, arch.n_kv_heads, arch.d_head, arch.d_mlp, arch.placement, arch.parallel, arch.tied))
}

/// What a model has at every site of a prompt; those that hold what is not finite apart, as scores of what is not seen do.
fn activations(model: &Model, ids: &[u32], but: &[SiteKind]) -> Vec<(Site, Vec<f32>)> {
    let (arch, mut plan) = (&model.decoder.arch, Plan::default());
    let prompt = plan.prompt("p", ids.to_vec());
    let kinds = KINDS.iter().map(|(kind, _)| *kind).filter(|kind| *kind != SiteKind::Scores && !but.contains(kind));
    let mut sites: Vec<Site> = kinds.flat_map(|kind| (0..arch.n_layers).map(move |l| kind.at(l))).collect();
    sites.dedup();
    sites.retain(|site| site.check(arch).is_ok());
    for site in &sites {
        plan.read(prompt, Activation { site: *site, positions: Positions::All, part: Part::All });
    }
    let found = run(&model.decoder, &plan, &run::Options::default()).expect("readings");
    sites.into_iter().zip(found.into_iter().map(|reading| reading.into_values())).collect()
}

/// All layers of a description, with numbers as exact as files have them, and without how weights are stored.
fn layers_of(arch: &Arch) -> Vec<String> {
    let number = |word: &str| match word.parse::<f64>() {
        Ok(x) if word.contains(['.', 'e']) => format!("{x:.4e}"),
        _ => word.to_string(),
    };
    let text = format!("{:?}", arch.layers);
    let mut words: Vec<String> = text.split([' ', ',', '(', ')', '{', '}']).map(number).collect();
    for i in 0..words.len() {
        match words[i].as_str() {
            "LessOne" => words[i] = "Stored".to_string(),
            "stored:" => words[i + 1].clear(),
            _ => {}
        }
    }
    words
}

/// Fixtures whose layers a file describes in other words: numbers of activations stand in its description, a window is taken for
/// granted that no position is beyond, weights are multiplied already.
const IN_OTHER_WORDS: [&str; 3] = ["families/apertus", "families/starcoder2", "families/falcon_h1"];

/// Whether files of an architecture do not tell a family from the one that they are read as: Mistral is Llama there, Granite 4 with
/// attention alone is Granite 3, and GLM 4.7 Flash is DeepSeek V3.
fn is_kin(architecture: &str, family: &str) -> bool {
    let kin = [("llama", "mistral"), ("granite", "granitemoehybrid"), ("granitemoe", "granitemoehybrid")];
    kin.contains(&(architecture, family)) || (architecture, family) == ("deepseek2", "glm4_moe_lite")
}

fn cases() -> Vec<Value> {
    let text = std::fs::read(fixtures().join("gguf/conversions.json")).expect("recipes");
    let all: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let only = std::env::var("GATELENS_FAMILY").ok();
    let is = |case: &Value| {
        only.as_ref().is_none_or(|only| case["fixture"].as_str().expect("a name").ends_with(only.as_str()))
    };
    all.into_iter().filter(is).collect()
}

#[test]
fn what_llama_cpps_converter_makes_of_a_model_is_that_model() {
    let (mut wrong, mut right) = (Vec::new(), 0);
    for of in cases() {
        let check = || {
            let case = Case::new(&of);
            let folder = case.folder();
            let path = folder.file("model.gguf");
            case.write(&path);
            let (found, expected) = (open(&path, case.name), open(folder.path(), case.name));
            let family = |model: &Model| model.decoder.arch.family.name();
            let architecture = of["architecture"].as_str().expect("a name");
            let same = family(&found) == family(&expected) || is_kin(architecture, family(&expected));
            assert!(same, "{}", family(&found));
            assert_eq!(shape_of(&found.decoder.arch), shape_of(&expected.decoder.arch), "{}", case.name);
            if !IN_OTHER_WORDS.contains(&case.name) {
                assert_eq!(layers_of(&found.decoder.arch), layers_of(&expected.decoder.arch), "{}", case.name);
            }
            let golden = Golden::of(case.name);
            let prompts = [0, 1].map(|i| golden.ids("input_ids", i));
            assert_close(case.name, &logits(&found, &prompts), &logits(&expected, &prompts), 2e-5, 2e-5);
            // Falcon-H1's weights have the multipliers in them that stand after these sites else.
            let but: &[SiteKind] = match case.name {
                "families/falcon_h1" => &[SiteKind::AttnOut, SiteKind::MixOut, SiteKind::HeadOut, SiteKind::FinalNorm],
                _ => &[],
            };
            let each = [&found, &expected].map(|model| activations(model, &prompts[0], but));
            for ((site, found), (other, expected)) in each[0].iter().zip(&each[1]) {
                assert_eq!(site, other, "{}", case.name);
                assert_close(&format!("{} {site}", case.name), found, expected, 5e-5, 5e-5);
            }
            assert!(
                found.warnings.iter().all(|said| said.contains("is assumed")),
                "{}: {:?}",
                case.name,
                found.warnings
            );
        };
        match std::panic::catch_unwind(check) {
            Ok(()) => right += 1,
            Err(_) => wrong.push(of["fixture"].to_string()),
        }
    }
    assert!(right > 0 || !wrong.is_empty(), "there are no such recipes");
    assert!(wrong.is_empty(), "{} wrong, {right} right: {}", wrong.len(), wrong.join(" "));
}

#[test]
fn deepseeks_older_files_have_keys_and_values_in_one_matrix() {
    for of in cases().iter().filter(|case| case["architecture"] == "deepseek2") {
        let mut older = of.clone();
        let heads = 4;
        let tensors = older["tensors"].as_object_mut().expect("tensors");
        let [_, part] = &tensors["blk.*.attn_k_b.weight"].as_array().expect("a recipe")[..] else { panic!("one part") };
        let stack = sizes(&part[1][1]);
        let whole = serde_json::json!([[stack[0] * stack[1], stack[2]], [part[0]]]);
        ["k", "v"].iter().for_each(|of| drop(tensors.remove(&format!("blk.*.attn_{of}_b.weight"))));
        tensors.insert("blk.*.attn_kv_b.weight".to_string(), whole);
        let keys = older["keys"].as_object_mut().expect("keys");
        for of in ["key", "value"] {
            let own = keys.remove(&format!("deepseek2.attention.{of}_length_mla")).expect("a length");
            keys.insert(format!("deepseek2.attention.{of}_length"), own);
        }
        keys.insert("deepseek2.attention.head_count_kv".to_string(), serde_json::json!(["uint32", heads]));
        are_one_model(of, &older);
    }
}

/// Holds what is read of two files of one fixture to each other.
fn are_one_model(newer: &Value, older: &Value) {
    let (newer, older) = (Case::new(newer), Case::new(older));
    let folder = newer.folder();
    let [new, old] = ["new.gguf", "old.gguf"].map(|name| folder.file(name));
    newer.write(&new);
    older.write(&old);
    let golden = Golden::of(newer.name);
    let prompts = [0, 1].map(|i| golden.ids("input_ids", i));
    let [new, old] = [new, old].map(|path| logits(&open(&path, newer.name), &prompts));
    assert_eq!(new, old, "{}", newer.name);
}

#[test]
fn older_files_have_some_matrices_in_one() {
    const QKV: [&str; 3] = ["attn_q", "attn_k", "attn_v"];
    for (architecture, one, parts) in
        [("chatglm", "attn_qkv", &QKV[..]), ("qwen3next", "ssm_in", &["attn_gate", "attn_qkv"])]
    {
        let Some(of) = cases().into_iter().find(|case| case["architecture"] == architecture) else { continue };
        let mut older = of.clone();
        let tensors = older["tensors"].as_object_mut().expect("tensors");
        for kind in ["weight", "bias"] {
            let found: Vec<Value> =
                parts.iter().filter_map(|part| tensors.remove(&format!("blk.*.{part}.{kind}"))).collect();
            let Some(first) = found.first() else { continue };
            let mut shape = first[0].clone();
            shape[0] = found.iter().map(|recipe| recipe[0][0].as_u64().expect("a size")).sum::<u64>().into();
            // What the converter takes apart is whole in the checkpoint.
            let names: BTreeSet<&str> = found.iter().map(|recipe| recipe[1][0].as_str().expect("a name")).collect();
            let whole = |recipe: &Value| serde_json::json!([recipe[1][0]]);
            let joined = found.iter().take(names.len()).map(whole);
            let recipe = std::iter::once(shape).chain(joined).collect();
            tensors.insert(format!("blk.*.{one}.{kind}"), Value::Array(recipe));
        }
        are_one_model(&of, &older);
    }
}

#[test]
fn layers_that_predict_tokens_further_on_are_left_out_and_said() {
    let of = cases().into_iter().find(|case| case["fixture"] == "families/glm4_moe");
    let Some(of) = of else { return };
    let plain = Case::new(&of);
    let prompts = [0, 1].map(|i| Golden::of(plain.name).ids("input_ids", i));
    let expected = logits(&open(plain.folder().path(), plain.name), &prompts);
    let further = plain.folder().key("num_nextn_predict_layers", 1.into()).weights(|tensors| {
        let more = tensors["model.layers.3.input_layernorm.weight"].clone();
        tensors.insert("model.layers.4.enorm.weight".to_string(), more);
    });
    let mut longer = of.clone();
    let keys = longer["keys"].as_object_mut().expect("keys");
    keys.insert("glm4moe.block_count".to_string(), serde_json::json!(["uint32", 5]));
    keys.insert("glm4moe.nextn_predict_layers".to_string(), serde_json::json!(["uint32", 1]));
    let path = further.file("further.gguf");
    let more = ("blk.4.nextn.enorm.weight".to_string(), serde_json::json!([0.5, 0.5]));
    longer.as_object_mut().expect("a case").insert("values".to_string(), Value::Object([more].into_iter().collect()));
    Case::new(&longer).write(&path);
    for (path, tensor) in [(further.path(), "model.layers.4.enorm"), (&path, "blk.4.nextn.enorm")] {
        let found = open(path, plain.name);
        assert_close(tensor, &logits(&found, &prompts), &expected, 2e-5, 2e-5);
        assert!(found.warnings.iter().any(|said| said.contains(tensor)), "{:?}", found.warnings);
    }
    // A layer more than the description has is still none that may be left out.
    let wrong = further.key("num_nextn_predict_layers", 0.into());
    let error = Model::open(wrong.path().to_str().expect("UTF-8"), &Options::default()).err().expect("an error");
    assert!(error.to_string().contains("model.layers.4.enorm.weight"), "{error}");
}

//! Mixtures of checkpoints: as models, and as folders that are written.

mod scale;

use crate::support::cli::{Bench, gatelens, listed};
use crate::support::copies::{Folder, INDEX, Stored, Tensors};
use crate::support::{Golden, family_dir, logits};
use gatelens::model::mixture::{Recipe, Term};
use gatelens::model::save::{Place, SaveAs, SaveError, Settings, Written, prepare};
use gatelens::model::{Model, Options};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MLP: &str = "*.mlp.*";

/// Numbers that a seed decides, small beside weights.
fn noise(seed: usize, n: usize) -> impl Iterator<Item = f32> {
    let mut state = 2 * seed as u64 + 1;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 0.05
    };
    (0..n + 7).map(move |_| next()).skip(7)
}

/// A copy of a fixture whose every number is moved a little.
fn child(family: &str, seed: usize) -> Folder {
    Folder::of(family).weights(|tensors| moved(tensors, seed))
}

fn moved(tensors: &mut Tensors, seed: usize) {
    for (i, stored) in tensors.values_mut().enumerate() {
        let values = stored.values();
        let values: Vec<f32> =
            values.iter().zip(noise(97 * seed + i, values.len())).map(|(x, more)| x + more).collect();
        *stored = Stored::floats(&stored.shape.clone(), &values);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_string()
}

fn term(coefficient: f64, plus: &Folder, minus: Option<&Folder>, tensors: &[&str]) -> Term {
    Term {
        coefficient,
        plus: text(plus.path()),
        minus: minus.map(|folder| text(folder.path())),
        tensors: tensors.iter().map(|pattern| (*pattern).to_string()).collect(),
    }
}

fn recipe(base: &Folder, terms: Vec<Term>) -> Recipe {
    Recipe { terms, ..Recipe::of(text(base.path())) }
}

/// Adds `c (plus - minus)` to some tensors, in f32 and from left to right.
fn add(to: &mut Tensors, c: f32, plus: &Tensors, minus: &Tensors, which: impl Fn(&str) -> bool) {
    for (name, stored) in to.iter_mut().filter(|(name, _)| which(name)) {
        let values = stored.values().into_iter().zip(plus[name].values()).zip(minus[name].values());
        let values: Vec<f32> = values.map(|((x, a), b)| x + c * (a - b)).collect();
        *stored = Stored::floats(&stored.shape.clone(), &values);
    }
}

/// The file that the safetensors library makes of tensors.
fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, t)| {
        (name.as_str(), safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), &t.data).expect("a tensor"))
    });
    safetensors::serialize(views, Some(HashMap::from([("format".to_string(), "pt".to_string())]))).expect("a file")
}

fn write_at(recipe: &Recipe, settings: &Settings, place: &Place) -> Result<Written, SaveError> {
    let prepared = prepare(recipe, settings)?;
    patiently(|| prepared.write(place, "gatelens merge", &|_| {}))
}

/// Writes a recipe to a folder in a temporary one.
fn written(recipe: &Recipe, settings: &Settings) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    write_at(recipe, settings, &Place::at(&out)).unwrap_or_else(|e| panic!("{e}"));
    (dir, out)
}

/// Holds that a recipe is not written to what is said of it; nothing is left.
#[track_caller]
fn refused(recipe: &Recipe, settings: &Settings, parts: &[&str]) {
    let dir = TempDir::new().expect("a folder");
    let error = write_at(recipe, settings, &Place::at(dir.path().join("out"))).expect_err("an error").to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "no `{part}` in: {error}"));
    assert_eq!(listed(dir.path()), [""; 0], "{error}");
}

fn open(model: &Path) -> Model {
    Model::open(&text(model), &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn opened(recipe: &Recipe) -> Model {
    Model::open_mixture("mixture", recipe, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn prompts(family: &str) -> Vec<Vec<u32>> {
    let golden = Golden::of(family);
    vec![golden.ids("input_ids", 0), golden.ids("input_ids", 1)]
}

/// Every file of a folder with its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    listed(dir).into_iter().map(|name| (name.clone(), std::fs::read(dir.join(&name)).expect("a file"))).collect()
}

fn keep() -> Settings {
    Settings::default()
}

/// Small enough files that there are many.
fn sharded() -> Settings {
    Settings { max_shard: 20_000, ..Settings::default() }
}

#[test]
fn the_bytes_are_those_of_plain_arithmetic_in_f32() {
    let (base, a, b) = (Folder::of("llama"), child("llama", 1), child("llama", 2));
    let mixed = |terms: Vec<Term>, expected: &Tensors| {
        let (_dir, out) = written(&recipe(&base, terms), &keep());
        let found = std::fs::read(out.join("model.safetensors")).expect("weights");
        assert!(found == file(expected));
        assert_eq!(std::fs::read(out.join("config.json")).unwrap(), std::fs::read(base.file("config.json")).unwrap());
    };
    let (of_base, of_a, of_b) = (base.tensors(), a.tensors(), b.tensors());
    let mut expected = of_base.clone();
    add(&mut expected, 0.7, &of_a, &of_b, |_| true);
    mixed(vec![term(0.7, &a, Some(&b), &[])], &expected);

    // Negation of what a child has beyond the base.
    let mut expected = of_base.clone();
    add(&mut expected, -1.0, &of_a, &of_base, |_| true);
    mixed(vec![term(-1.0, &a, None, &[])], &expected);

    // Several terms, in their order, each from the base as it was; one on some tensors alone.
    let mut expected = of_base.clone();
    add(&mut expected, 0.1, &of_a, &of_base, |name| name.contains(".mlp.") || name == "lm_head.weight");
    add(&mut expected, 3.0, &of_b, &of_a, |_| true);
    add(&mut expected, -0.3, &of_b, &of_base, |name| name.starts_with("model.layers.2."));
    mixed(
        vec![
            term(0.1, &a, None, &[MLP, "lm_head.weight"]),
            term(3.0, &b, Some(&a), &[]),
            term(-0.3, &b, None, &["model.layers.2.*"]),
        ],
        &expected,
    );
}

#[test]
fn what_no_term_is_of_is_copied_whatever_it_is() {
    let whole = |data: &[i64]| Stored {
        dtype: Dtype::I64,
        shape: vec![data.len()],
        data: data.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let add_buffers = |tensors: &mut Tensors, x: i64| {
        tensors.insert("steps".to_string(), whole(&[x, 2]));
        let mask = Stored::floats(&[1, 1, 2, 2], &[x as f32; 4]);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_string(), mask);
    };
    let base = Folder::of("llama").weights(|tensors| add_buffers(tensors, 1));
    let a = child("llama", 1).weights(|tensors| add_buffers(tensors, 9));
    let mut expected = base.tensors();
    let plain = |name: &str| name.contains(".mlp.");
    add(&mut expected, 2.0, &a.tensors(), &base.tensors(), plain);
    for to in [SaveAs::Keep, SaveAs::F32] {
        let settings = Settings { save_as: to, ..keep() };
        let (_dir, out) = written(&recipe(&base, vec![term(2.0, &a, None, &[MLP])]), &settings);
        assert!(std::fs::read(out.join("model.safetensors")).unwrap() == file(&expected));
    }
    // With no pattern, masks and whole numbers are the base's too, and a child need not have them.
    let bare = child("llama", 1);
    let (_dir, out) = written(&recipe(&base, vec![term(2.0, &bare, None, &[])]), &keep());
    let mut expected = base.tensors();
    let weights = |name: &str| name != "steps" && !name.ends_with("inv_freq");
    let mut of_bare = bare.tensors();
    add_buffers(&mut of_bare, 1);
    add(&mut expected, 2.0, &of_bare, &base.tensors(), weights);
    assert!(std::fs::read(out.join("model.safetensors")).unwrap() == file(&expected));
}

/// The nearest bf16, ties to even, by its definition on bits.
fn bf16(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    (((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16).to_le_bytes()
}

#[test]
fn numbers_are_rounded_once_and_the_configuration_says_to_what() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let mut expected = base.tensors();
    add(&mut expected, 0.5, &a.tensors(), &base.tensors(), |_| true);
    for stored in expected.values_mut() {
        let data = stored.values().into_iter().flat_map(bf16).collect();
        *stored = Stored { dtype: Dtype::BF16, data, ..stored.clone() };
    }
    let half = recipe(&base, vec![term(0.5, &a, None, &[])]);
    let (_dir, out) = written(&half, &Settings { save_as: SaveAs::Bf16, ..keep() });
    assert!(std::fs::read(out.join("model.safetensors")).unwrap() == file(&expected));
    let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["dtype"], "bfloat16");
    // Kept, each is what it was: a base in bf16 stays so, whatever is added.
    let rounded = Folder::of("llama").weights(|t| *t = expected.clone());
    let (_dir, out) = written(&recipe(&rounded, vec![term(0.0, &a, Some(&base), &[])]), &keep());
    assert!(std::fs::read(out.join("model.safetensors")).unwrap() == file(&expected));
    refused(
        &recipe(&base, vec![term(1e8, &a, None, &[])]),
        &Settings { save_as: SaveAs::F16, ..keep() },
        &["F16 cannot hold", "dtype = f32"],
    );
    let far = Folder::of("llama").weights(|tensors| {
        for stored in tensors.values_mut() {
            *stored = Stored::floats(&stored.shape.clone(), &vec![10.0; stored.data.len() / 4]);
        }
    });
    refused(&recipe(&base, vec![term(3e38, &far, None, &[])]), &keep(), &["mixed, holds a number that f32 cannot"]);
}

#[test]
fn a_recipe_is_the_model_that_its_merged_folder_is() {
    for family in ["llama", "gpt2", "gemma3", "phi3"] {
        let (base, a, b) = (Folder::of(family), child(family, 1), child(family, 2));
        let mix = recipe(&base, vec![term(0.5, &a, Some(&b), &[]), term(-0.25, &b, None, &["*.0.*"])]);
        let (_dir, out) = written(&mix, &sharded());
        let ids = prompts(family);
        let found = logits(&opened(&mix), &ids);
        assert_eq!(found, logits(&open(&out), &ids), "{family}");
        assert_ne!(found, logits(&open(base.path()), &ids), "{family}");
    }
}

#[test]
fn a_recipes_file_is_a_model_with_paths_from_its_folder() {
    let bench = Bench::new();
    let a = child("llama", 1);
    let copy = |from: &Path, to: PathBuf| {
        std::fs::create_dir(&to).expect("a folder");
        for file in std::fs::read_dir(from).expect("a folder").flatten() {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
        }
    };
    copy(&family_dir("llama"), bench.path("base"));
    copy(a.path(), bench.path("child"));
    let file = |scale: f64| {
        let text = format!("base = \"base\"\nscale = {scale:?}\n\n[[term]]\ncoefficient = 0.5\nplus = \"child\"\n");
        bench.text(&format!("mix-{scale}.toml"), &text)
    };
    let base = Folder::of("llama");
    let (one, two) = (open(&file(1.0)), open(&file(2.0)));
    assert_eq!(
        logits(&one, &prompts("llama")),
        logits(&opened(&recipe(&base, vec![term(0.5, &a, None, &[])])), &prompts("llama"))
    );
    assert_eq!(
        logits(&two, &prompts("llama")),
        logits(&opened(&recipe(&base, vec![term(1.0, &a, None, &[])])), &prompts("llama"))
    );
    let said = &one.warnings[0];
    assert!(said.starts_with("is a mixture: ") && said.contains(" + 0.5 x ("), "{said}");
    // Headers and numbers are told apart by what is added and how much.
    assert!(one.sha256 != two.sha256 && one.sample != two.sample && one.sha256 != open(base.path()).sha256);
    let moved = child("llama", 3);
    let of = |plus: &Folder, tensors: &[&str]| opened(&recipe(&base, vec![term(0.5, plus, None, tensors)]));
    assert_eq!(of(&a, &[]).sha256, of(&moved, &[]).sha256, "the same headers");
    assert_ne!(of(&a, &[]).sample, of(&moved, &[]).sample);
    assert_ne!(of(&a, &[]).sample, of(&a, &[MLP]).sample);
    let source = gatelens::model::source::resolve(&text(&file(1.0)), false).expect("a source").0;
    assert_eq!(gatelens::model::fingerprint(&source).expect("a fingerprint"), one.sha256);
    let shown = gatelens(["inspect".as_ref(), file(1.0).as_os_str()]);
    assert!(shown.stderr.contains("is a mixture: "), "{}", shown.stderr);
    shown.done();
}

#[test]
fn weights_are_divided_as_transformers_divides_them() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let mix = recipe(&base, vec![term(0.5, &a, None, &[])]);
    let (_whole, whole) = written(&mix, &keep());
    let (_parts, parts) = written(&mix, &sharded());
    let index: Value = serde_json::from_slice(&std::fs::read(parts.join(INDEX)).expect("an index")).expect("JSON");
    let bytes = std::fs::read(whole.join("model.safetensors")).expect("weights");
    let all = safetensors::SafeTensors::deserialize(&bytes).expect("a sound file");
    let size: usize = all.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum();
    assert_eq!(index["metadata"]["total_size"], json!(size));
    let map = index["weight_map"].as_object().expect("a map");
    assert_eq!(map.len(), all.len());
    let shards: Vec<String> = listed(&parts).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(shards.len() > 3, "{shards:?}");
    for (i, shard) in shards.iter().enumerate() {
        assert_eq!(*shard, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
        let bytes = std::fs::read(parts.join(shard)).expect("a shard");
        let found = safetensors::SafeTensors::deserialize(&bytes).expect("a sound file");
        let size: usize = found.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum();
        assert!(size <= 20_000 || found.len() == 1, "{shard}: {size}");
        for (name, tensor) in found.tensors() {
            assert_eq!(map[&name], json!(shard));
            assert_eq!(tensor.data(), all.tensor(&name).expect("a tensor").data(), "{name}");
        }
    }
    // Of shards, what is written in one file is the same.
    let mix = Recipe { base: text(&parts), terms: vec![term(0.0, &a, Some(&a), &[])], ..mix };
    let (_again, again) = written(&mix, &keep());
    assert!(std::fs::read(again.join("model.safetensors")).unwrap() == bytes);
}

/// Stops the writing of a recipe at its so many-th block, as if the process had been killed there; whether it was reached.
fn stopped(recipe: &Recipe, settings: &Settings, place: &Place, at: usize) -> bool {
    let blocks = Cell::new(0);
    let done = |_: u64| {
        blocks.set(blocks.get() + 1);
        assert!(blocks.get() <= at, "an expected panic");
    };
    let prepared = prepare(recipe, settings).unwrap_or_else(|e| panic!("{e}"));
    let write = || patiently(|| prepared.write(place, "gatelens merge", &done)).expect("no other error");
    catch_unwind(AssertUnwindSafe(write)).is_err()
}

/// Tries again where a folder is still held: while another test starts a command, that has a copy of every lock for a moment.
fn patiently<T>(mut write: impl FnMut() -> Result<T, SaveError>) -> Result<T, SaveError> {
    for _ in 0..100 {
        match write() {
            Err(e) if e.to_string().contains("another process is at work") => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
    write()
}

#[test]
fn a_merge_that_was_stopped_anywhere_goes_on_to_the_same_bytes() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    base.write("tokenizer.json", "{}");
    let mix = recipe(&base, vec![term(0.5, &a, None, &[MLP])]);
    let (_dir, whole) = written(&mix, &sharded());
    let expected = contents(&whole);
    assert!(expected.contains_key("tokenizer.json") && expected.contains_key("merge.json"));
    let dir = TempDir::new().expect("a folder");
    let goes_on = |at: &usize| {
        let out = dir.path().join(at.to_string());
        let resume = Place { resume: true, ..Place::at(&out) };
        if !stopped(&mix, &sharded(), &resume, *at) {
            return false;
        }
        assert!(!out.join("config.json").exists(), "an unfinished folder is no model");
        let error = write_at(&mix, &sharded(), &Place::at(&out)).expect_err("it is there").to_string();
        assert!(error.contains("exists already"), "{error}");
        // Again, later, and to the end.
        stopped(&mix, &sharded(), &resume, at + 3);
        write_at(&mix, &sharded(), &resume).unwrap_or_else(|e| panic!("{e}"));
        assert!(contents(&out) == expected, "stopped at {at}");
        true
    };
    let stops = (0..500).step_by(2).take_while(goes_on).count();
    assert!((10..200).contains(&stops), "{stops}");
}

#[test]
fn what_was_finished_is_kept_only_if_it_is_whole_and_of_the_same_recipe() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let mix = recipe(&base, vec![term(0.5, &a, None, &[])]);
    let dir = TempDir::new().expect("a folder");
    let out = dir.path().join("out");
    let resume = Place { resume: true, ..Place::at(&out) };
    assert!(stopped(&mix, &sharded(), &resume, 25));
    let shards = || listed(&out).into_iter().filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'));
    let before: Vec<String> = shards().collect();
    assert!(before.len() >= 2, "{before:?}");
    let other = write_at(&mix.scaled(2.0), &sharded(), &resume).expect_err("another").to_string();
    assert!(other.contains("of another mixture") && other.contains("`force`"), "{other}");
    let other = write_at(&mix, &keep(), &resume).expect_err("another").to_string();
    assert!(other.contains("of another mixture"), "{other}");
    // One is cut short, another one's bytes are changed.
    let cut = std::fs::read(out.join(&before[0])).expect("a shard");
    std::fs::write(out.join(&before[0]), &cut[..cut.len() / 2]).expect("a shard");
    let mut turned = std::fs::read(out.join(&before[1])).expect("a shard");
    *turned.last_mut().expect("a byte") ^= 1;
    std::fs::write(out.join(&before[1]), turned).expect("a shard");
    let written_now = write_at(&mix, &sharded(), &resume).expect("a folder");
    assert_eq!(written_now.kept, before.len() - 2);
    let (_dir, whole) = written(&mix, &sharded());
    assert!(contents(&out) == contents(&whole));
    // Complete, nothing is left to do; something that was taken away is.
    assert!(write_at(&mix, &sharded(), &resume).expect("a folder").was_complete);
    std::fs::remove_file(out.join(&before[0])).expect("a file");
    let again = write_at(&mix, &sharded(), &resume).expect("a folder");
    assert!(!again.was_complete && again.kept == again.shards.len() - 1);
    assert!(contents(&out) == contents(&whole));
}

#[test]
fn only_what_a_merge_made_is_replaced_and_nothing_that_is_read() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let mix = recipe(&base, vec![term(0.5, &a, None, &[])]);
    let dir = TempDir::new().expect("a folder");
    let said = |place: &Place| write_at(&mix, &keep(), place).expect_err("an error").to_string();
    let out = dir.path().join("out");
    let force = |out: &Path| Place { force: true, ..Place::at(out) };
    std::fs::create_dir(&out).expect("a folder");
    std::fs::write(out.join("thesis.tex"), "years of work").expect("a file");
    for place in [force(&out), Place { resume: true, ..force(&out) }] {
        assert!(said(&place).contains("no merge made it"), "{}", said(&place));
    }
    assert!(said(&Place::at(&out)).contains("exists already"));
    assert!(said(&force(&out.join("thesis.tex"))).contains("is no folder"));
    std::fs::remove_file(out.join("thesis.tex")).expect("a file");
    write_at(&mix, &sharded(), &force(&out)).expect("an empty folder is nobody's");
    write_at(&mix, &keep(), &force(&out)).expect("ours is replaced");
    assert_eq!(listed(&out), ["config.json", "merge.json", "model.safetensors"]);
    for near in [base.path().to_path_buf(), a.path().join("inside"), a.path().parent().expect("a folder").to_path_buf()]
    {
        let e = said(&Place { resume: true, ..force(&near) });
        assert!(e.contains("which is read"), "{e}");
    }
    assert!(base.file("model.safetensors").exists() && !a.file("inside").exists());
    // A process at work holds the folder's lock.
    let lock = std::fs::File::create(out.join(".merge-lock")).expect("a file");
    lock.lock().expect("a lock");
    assert!(said(&force(&out)).contains("another process is at work there"));
}

#[test]
fn what_does_not_fit_is_refused_by_its_tensor() {
    const UP: &str = "model.layers.1.mlp.up_proj.weight";
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let of =
        |plus: &Folder, minus: Option<&Folder>, tensors: &[&str]| recipe(&base, vec![term(0.5, plus, minus, tensors)]);
    let lacking = child("llama", 1).weights(|t| drop(t.remove(UP)));
    let place = text(lacking.path());
    refused(&of(&lacking, None, &[]), &keep(), &[UP, "is missing", &place]);
    refused(&of(&a, Some(&lacking), &[]), &keep(), &[UP, "is missing", &place]);
    let (_dir, _) = written(&of(&lacking, None, &["*.self_attn.*"]), &keep());
    let wide =
        child("llama", 1).weights(|t| drop(t.insert(UP.to_string(), Stored::floats(&[80, 49], &[0.5; 80 * 49]))));
    refused(&of(&wide, None, &[]), &keep(), &[UP, "[80, 49]", "[80, 48]", &text(wide.path())]);
    let more =
        child("llama", 1).weights(|t| drop(t.insert("model.layers.4.mlp.up_proj.weight".to_string(), t[UP].clone())));
    refused(&of(&more, None, &[]), &keep(), &["model.layers.4.mlp.up_proj.weight", "is not in the base", "`tensors`"]);
    refused(&of(&a, None, &["*.mpl.*"]), &keep(), &["`*.mpl.*`", "no tensor is called"]);
    refused(&of(&Folder::of("gpt2"), None, &[]), &keep(), &["is missing"]);
    let doubles = child("llama", 1).weights(|t| {
        let stored = t.get_mut(UP).expect("a tensor");
        *stored = Stored { dtype: Dtype::F64, data: vec![0; 2 * stored.data.len()], ..stored.clone() };
    });
    refused(&of(&doubles, None, &[]), &keep(), &[UP, "F64"]);
    let eighth = |folder: Folder| {
        folder.weights(|t| {
            let stored = t.get_mut(UP).expect("a tensor");
            *stored = Stored { dtype: Dtype::F8_E4M3, data: vec![0; stored.data.len() / 4], ..stored.clone() };
        })
    };
    refused(&of(&eighth(child("llama", 1)), None, &[]), &keep(), &[UP, "FP8", "unquantised"]);
    let base_of_8 = eighth(Folder::of("llama"));
    refused(&recipe(&base_of_8, vec![term(0.5, &a, None, &["*.self_attn.*"])]), &keep(), &[UP, "FP8", "unquantised"]);
    let nan = child("llama", 1).weights(|t| {
        t.get_mut(UP).expect("a tensor").data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(&of(&nan, None, &[]), &keep(), &[UP, "not finite", &text(nan.path())]);
    a.write("a.gguf", "GGUF");
    let gguf = Recipe { base: text(&a.file("a.gguf")), ..of(&a, None, &[]) };
    refused(&gguf, &keep(), &["a.gguf", "a mixture is of folders of safetensors"]);
    a.write("a.toml", "");
    let mixed = Recipe { base: text(&a.file("a.toml")), ..of(&a, None, &[]) };
    refused(&mixed, &keep(), &["a.toml", "write the terms of this recipe into the other"]);
}

#[test]
fn tensors_are_found_under_other_names_and_in_shards() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    let expected = written(&recipe(&base, vec![term(0.5, &a, None, &[])]), &keep());
    let expected = std::fs::read(expected.1.join("model.safetensors")).expect("weights");
    for other in [
        child("llama", 1).renamed(|name| format!("language_model.{name}")),
        child("llama", 1).renamed(|name| name.strip_prefix("model.").unwrap_or(name).to_string()),
        child("llama", 1).sharded(),
    ] {
        let (_dir, out) = written(&recipe(&base, vec![term(0.5, &other, None, &[])]), &keep());
        assert!(std::fs::read(out.join("model.safetensors")).unwrap() == expected);
    }
}

#[test]
fn ends_that_are_tied_stay_so_and_a_head_of_its_own_is_no_part_of_a_tied_model() {
    const EMBED: &str = "model.embed_tokens.weight";
    const HEAD: &str = "lm_head.weight";
    let tied = |folder: Folder| folder.key("tie_word_embeddings", json!(true)).weights(|t| drop(t.remove(HEAD)));
    let copied = |folder: Folder| {
        tied(folder).weights(|t| {
            let embed = t[EMBED].clone();
            t.insert(HEAD.to_string(), embed);
        })
    };
    let (base, a) = (tied(Folder::of("llama")), tied(child("llama", 1)));
    let ids = prompts("llama");
    let expected = logits(&opened(&recipe(&base, vec![term(0.5, &a, None, &[])])), &ids);
    // Stored as a copy in either, it is the embedding.
    for (base, a) in [
        (tied(Folder::of("llama")), copied(child("llama", 1))),
        (copied(Folder::of("llama")), tied(child("llama", 1))),
        (copied(Folder::of("llama")), copied(child("llama", 1))),
    ] {
        let mix = recipe(&base, vec![term(0.5, &a, None, &[])]);
        let model = opened(&mix);
        assert!(model.decoder.arch.tied, "{:?}", model.warnings);
        assert_eq!(logits(&model, &ids), expected);
        let (_dir, out) = written(&mix, &keep());
        assert_eq!(logits(&open(&out), &ids), expected);
    }
    let untied = child("llama", 1);
    refused(&recipe(&base, vec![term(0.5, &untied, None, &[])]), &keep(), &[HEAD, "is not in the base"]);
    opened(&recipe(&base, vec![term(0.5, &untied, None, &["model.*"])]));
    let own = Folder::of("llama");
    refused(&recipe(&own, vec![term(0.5, &a, None, &[])]), &keep(), &[HEAD, "is missing"]);
}

#[test]
fn an_adapter_is_written_in_its_base_and_mixed_as_what_it_makes_of_it() {
    for family in ["lora_llama", "lora_gpt2"] {
        let ids = prompts(family.trim_start_matches("lora_"));
        let adapter = text(&family_dir(family));
        let alone = open(Path::new(&adapter));
        let (_dir, out) = written(&Recipe::of(&adapter), &keep());
        assert_eq!(logits(&open(&out), &ids), logits(&alone, &ids), "{family}");
        // Its difference from its base, added to the base, is the adapter.
        let base = text(&family_dir(family.trim_start_matches("lora_")));
        let terms = vec![Term { coefficient: 1.0, plus: adapter, minus: None, tensors: Vec::new() }];
        let mix = Recipe { terms, ..Recipe::of(base) };
        let (_dir, out) = written(&mix, &keep());
        let (mixed, folder) = (logits(&opened(&mix), &ids), logits(&open(&out), &ids));
        assert_eq!(mixed, folder, "{family}");
        crate::support::assert_close(family, &mixed, &logits(&alone, &ids), 1e-5, 1e-5);
    }
}

#[test]
fn files_beside_the_weights_are_the_bases() {
    let (base, a) = (Folder::of("llama"), child("llama", 1));
    for name in ["tokenizer.json", "generation_config.json", "chat_template.jinja", "LICENSE"] {
        base.write(name, name);
    }
    for name in ["pytorch_model.bin", ".gitattributes", INDEX, "merge.json", "old.gguf"] {
        base.write(name, name);
    }
    std::fs::create_dir(base.file("onnx")).expect("a folder");
    let (_dir, out) = written(&recipe(&base, vec![term(0.5, &a, None, &[])]), &keep());
    let names = [
        "LICENSE",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merge.json",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(listed(&out), names);
    let record: Value = serde_json::from_slice(&std::fs::read(out.join("merge.json")).unwrap()).expect("JSON");
    assert_eq!(record["recipe"]["term"][0]["coefficient"], 0.5);
    assert_eq!(record["models"][0]["sha256"], open(base.path()).sha256);
    assert_eq!(record["models"][1]["sample"], open(a.path()).sample);
    assert_eq!(record["gatelens"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_command_writes_what_its_expressions_say() {
    let bench = Bench::new();
    let (base, a, b) = (Folder::of("llama"), child("llama", 1), child("llama", 2));
    let (base_path, out) = (text(base.path()), bench.out("mixed"));
    let difference = format!("0.5*({} - {})", text(a.path()), text(b.path()));
    let words = ["merge", &base_path, "--add", &difference, "--tensors", MLP];
    let to = ["--out", out.to_str().unwrap()];
    let dry = gatelens([&words[..], &["--dry-run", "--json"]].concat()).done();
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!(dry["changed"].as_array().unwrap().len(), 12);
    assert!(dry["copied"].as_array().unwrap().contains(&json!("model.embed_tokens.weight")), "{dry}");
    let said = gatelens([&words[..], &["--dry-run"]].concat()).done();
    assert!(said.contains("12 of 39 tensors changed, 27 copied"), "{said}");
    assert!(bench.written().is_empty());
    let told = gatelens([&words[..], &to, &["--scale", "2"]].concat()).done();
    assert!(told.contains("+ 1 x (") && told.contains("12 of "), "{told}");
    let mut expected = base.tensors();
    add(&mut expected, 1.0, &a.tensors(), &b.tensors(), |name| name.contains(".mlp."));
    assert!(std::fs::read(out.join("model.safetensors")).unwrap() == file(&expected));
    gatelens([&words[..], &to].concat()).refused(&["exists already", "--force", "--resume"]);
    gatelens([&words[..], &to, &["--resume"]].concat()).refused(&["of another mixture", "--force"]);
    let again = gatelens([&words[..], &to, &["--scale", "2", "--resume"]].concat()).done();
    assert!(again.contains("is complete"), "{again}");
    gatelens([&words[..], &to, &["--force", "--dtype", "bf16", "--max-shard-size", "20KB"]].concat()).done();
    assert!(listed(&out).iter().filter(|name| name.ends_with(".safetensors")).count() > 1);

    let toml = format!("base = {base_path:?}\n[[term]]\ncoefficient = -1\nplus = {:?}\n", text(a.path()));
    let (toml, negated) = (bench.text("mix.toml", &toml), bench.out("negated"));
    gatelens(["merge".as_ref(), toml.as_os_str(), "--out".as_ref(), negated.as_os_str()]).done();
    let mut expected = base.tensors();
    add(&mut expected, -1.0, &a.tensors(), &base.tensors(), |_| true);
    assert!(std::fs::read(negated.join("model.safetensors")).unwrap() == file(&expected));
    let refused = |more: &[&str], parts: &[&str]| gatelens([&["merge"][..], more].concat()).refused(parts);
    let nowhere = bench.out("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    refused(&[toml.to_str().unwrap(), "--add", "-1*x", "--out", nowhere], &["terms of its own"]);
    refused(&[&base_path, "--out", nowhere], &["nothing would be changed"]);
    refused(&[&base_path, "--add", &difference, "--out", &base_path, "--force"], &["no merge made it"]);
    refused(&[toml.to_str().unwrap(), "--scale", "1e300", "--out", nowhere], &["no number of f32"]);
    let error = gatelens(["merge", &base_path, "--add", "0.5*(a-b)", "--out", nowhere]);
    error.told_by_the_parser(&["spaces around its minus", "0.5*(CHILD - PARENT)"]);
    assert_eq!(bench.written(), ["mixed", "negated"]);
}

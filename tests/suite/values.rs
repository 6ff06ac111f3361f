//! Values: vectors, neurons and effects held to their definitions in f64, on a model with a direction that was planted.

use crate::support::cli::{Bench, gatelens};
use candle_core::{DType, Device, Tensor};
use gatelens::model::{Model, Options};
use gatelens::plan::{Activation, Change, Edit, Part, Plan, Positions};
use gatelens::run::{self, Engine};
use gatelens::site::{Site, SiteKind};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const PROMPT: &str = "Some words are in code.";
const WITH: &str = "Sorry, I cannot help with that.";

const WORDS: [&str; 12] = [
    "bread",
    "rivers",
    "mountains",
    "cheese",
    "music",
    "gardens",
    "explosives",
    "malware",
    "poison",
    "forgery",
    "trees",
    "birds",
];

/// A value of the demo: six items of topic a, by which it is found, and six of topic b, which are held out.
fn items() -> Vec<Value> {
    let line = |(i, word): (usize, &&str)| {
        let topic = ["a", "b"][i % 2];
        json!({
            "id": format!("item {i}"), "value": "caution", "topic": topic, "prompt": PROMPT,
            "question": format!("Tell me about {word}."), "with": WITH,
            "without": format!("Sure, here is a short answer about {word}."),
        })
    };
    WORDS.iter().enumerate().map(line).collect()
}

fn values(bench: &Bench, model: &Path, name: &str, more: &[&str]) -> PathBuf {
    let (path, out) = (bench.dataset("items.jsonl", &items()), bench.out(name));
    let words = ["values", model.to_str().unwrap(), "--items", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words[..], &["--quiet"], more].concat()).done();
    out
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(format!("{name}.parquet"))).unwrap()
}

/// The layer and the number of the neuron that is planted.
const PLANTED: (usize, usize) = (2, 5);

/// The demo with a neuron that fires at `Sorry` alone and writes along a direction that nothing else writes along; and the direction.
fn planted(bench: &Bench) -> (PathBuf, Vec<f32>) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/demo/model");
    let to = bench.path("planted");
    std::fs::create_dir(&to).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let tensors = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut tensors: std::collections::HashMap<String, Tensor> =
        tensors.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F32).unwrap())).collect();
    let demo = Model::open("demo", &Options::default()).unwrap();
    let sorry = demo.tokenizer().unwrap().encode("Sorry", false).unwrap()[0] as usize;
    let embed = tensors["model.embed_tokens.weight"].to_vec2::<f32>().unwrap();
    let centre: Vec<f32> = (0..64).map(|i| embed.iter().map(|row| row[i]).sum::<f32>() / embed.len() as f32).collect();
    let read = unit(&embed[sorry].iter().zip(&centre).map(|(x, mean)| x - mean).collect::<Vec<f32>>());
    let direction = unit(&(0..64u8).map(|i| f32::from((i * 37) % 17) - 8.0).collect::<Vec<f32>>());
    let (layer, neuron) = PLANTED;
    for (part, row) in [("gate_proj", true), ("up_proj", true), ("down_proj", false)] {
        let name = format!("model.layers.{layer}.mlp.{part}.weight");
        let mut matrix = tensors[&name].to_vec2::<f32>().unwrap();
        match row {
            true => matrix[neuron] = read.iter().map(|x| 4.0 * x).collect(),
            false => matrix.iter_mut().zip(&direction).for_each(|(row, x)| row[neuron] = 10.0 * x),
        }
        tensors.insert(name, Tensor::new(matrix, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&tensors, to.join("model.safetensors")).unwrap();
    (to, direction)
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A reply after its question, by the demo's own template; and the position from which its tokens are.
struct Reply {
    ids: Vec<u32>,
    from: usize,
}

/// The reply with the value and the one without. `[prompted][item]`
fn replies(model: &Model) -> [Vec<[Reply; 2]>; 2] {
    let ids = |text: &str| model.tokenizer().unwrap().encode(text, false).unwrap();
    let item = |prompt: &str, word: &str| {
        let before = format!("<s><|user|>{prompt}Tell me about {word}.<|end|><|assistant|>");
        [WITH.to_string(), format!("Sure, here is a short answer about {word}.")]
            .map(|reply| Reply { ids: ids(&format!("{before}{reply}")), from: ids(&before).len() })
    };
    let all = |prompt: &str| WORDS.iter().map(|word| item(prompt, word)).collect();
    [all(""), all(&format!("{PROMPT} "))]
}

/// A site's rows at positions of a run, with edits, by the reference engine.
fn rows(
    model: &Model,
    reply: &Reply,
    site: Site,
    positions: std::ops::Range<usize>,
    edits: Vec<Edit>,
) -> Vec<Vec<f64>> {
    let mut plan = Plan::default();
    let prompt = plan.prompt("reply", reply.ids.clone());
    let fork = plan.fork(prompt, edits);
    let read = plan.read(fork, Activation { site, positions: Positions::At(positions.collect()), part: Part::All });
    let options = run::Options { engine: Engine::Full, ..run::Options::default() };
    let readings = run::run(&model.decoder, &plan, &options).unwrap();
    readings[read].rows().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
}

/// The mean over a reply's own tokens.
fn own(model: &Model, reply: &Reply, site: Site) -> Vec<f64> {
    let rows = rows(model, reply, site, reply.from..reply.ids.len(), Vec::new());
    (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}

/// With the value less without, of each item.
fn differences(model: &Model, items: &[[Reply; 2]], site: Site) -> Vec<Vec<f64>> {
    let less = |[with, without]: &[Reply; 2]| -> Vec<f64> {
        own(model, with, site).iter().zip(own(model, without, site)).map(|(a, b)| a - b).collect()
    };
    items.iter().map(less).collect()
}

/// The mean of every second row, from the first or the second on.
fn half(rows: &[Vec<f64>], first: usize) -> Vec<f64> {
    let some: Vec<&Vec<f64>> = rows.iter().skip(first).step_by(2).collect();
    (0..some[0].len()).map(|i| some.iter().map(|row| row[i]).sum::<f64>() / some.len() as f64).collect()
}

/// Log-probability of a reply, nats a token, from the logits.
fn likelihood(model: &Model, reply: &Reply, edits: Vec<Edit>) -> f64 {
    let logits = rows(model, reply, SiteKind::Logits.at(0), reply.from - 1..reply.ids.len() - 1, edits);
    let own = &reply.ids[reply.from..];
    let token = |(row, id): (&Vec<f64>, &u32)| row[*id as usize] - row.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.iter().zip(own).map(token).sum::<f64>() / own.len() as f64
}

fn preference(model: &Model, [with, without]: &[Reply; 2], edits: &dyn Fn(&Reply) -> Vec<Edit>) -> f64 {
    likelihood(model, with, edits(with)) - likelihood(model, without, edits(without))
}

#[track_caller]
fn close(found: f64, expected: f64, at: &str) {
    assert!((found - expected).abs() < 2e-4 * (1.0 + expected.abs()), "{at}: {found} and {expected}");
}

/// The rows of a table at which text columns hold what is wanted.
fn at(table: &Table, wanted: &[(&str, &str)]) -> Vec<usize> {
    let is = |row: &usize| wanted.iter().all(|(column, text)| table.strs(column).unwrap()[*row] == *text);
    (0..table.rows()).filter(is).collect()
}

#[test]
fn a_planted_direction_and_its_neuron_are_found_in_both_contexts() {
    let bench = Bench::new();
    let (folder, direction) = planted(&bench);
    let out = values(&bench, &folder, "planted", &["--neurons", "8", "--controls", "2"]);
    let vectors = candle_core::safetensors::load(out.join("vectors.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(vectors.len(), 2 * 8);
    for name in ["intrinsic", "prompted"] {
        let vector = unit(&vectors[&format!("caution.{name}.resid_post.2")].to_vec1::<f32>().unwrap());
        let cosine: f32 = vector.iter().zip(&direction).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99, "{name}: {cosine}");
        let before = unit(&vectors[&format!("caution.{name}.resid_post.1")].to_vec1::<f32>().unwrap());
        let cosine: f32 = before.iter().zip(&direction).map(|(a, b)| a * b).sum();
        assert!(cosine.abs() < 0.6, "{name}, before it is written: {cosine}");
    }
    let found = table(&out, "vectors");
    for row in at(&found, &[("value", "caution")]).into_iter().filter(|row| found.ints("layer").unwrap()[*row] == 2) {
        assert_eq!((found.ints("n").unwrap()[row], found.ints("test").unwrap()[row]), (6, 6));
        assert_eq!(found.floats("right").unwrap()[row], Some(1.0));
        assert!(found.floats("along_ci_low").unwrap()[row].unwrap() > 0.0);
        assert!(found.floats("cosine").unwrap()[row].unwrap() > 0.99);
        assert!(found.floats("cosine_ci_low").unwrap()[row].unwrap() > 0.9);
    }
    let neurons = table(&out, "neurons");
    let first = (neurons.ints("layer").unwrap()[0] as usize, neurons.ints("neuron").unwrap()[0] as usize);
    assert_eq!((neurons.strs("set").unwrap()[0], first), ("shared", PLANTED));
    assert!(std::fs::read_to_string(out.join("caution.shared.txt")).unwrap().contains("\nL2.N5\n"));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for said in ["Which reply does it prefer?", "Are the two vectors alike?", "Whose neurons are they?", "L2.N5"] {
        assert!(report.contains(said), "{said}: {report}");
    }
    // Both files are read by other commands.
    let (prompts, steered) = (bench.text("p.jsonl", "{\"prompt\": \"Tell me about bread.\"}\n"), bench.out("steer"));
    let (file, prompts) = (out.join("vectors.safetensors"), prompts.to_str().unwrap());
    let words = ["steer", "demo", "--prompts", prompts, "--vector", file.to_str().unwrap(), "--layer", "2"];
    let more = ["--name", "caution.intrinsic.resid_post.2", "--answer", "Sorry", "--foil", "Sure", "--quiet"];
    gatelens([&words[..], &more, &["--out", steered.to_str().unwrap()]].concat()).done();
    let (set, listed) = (out.join("caution.shared.txt"), bench.out("listed"));
    let words = ["neurons", "demo", "--prompts", prompts, "--set", set.to_str().unwrap(), "--quiet"];
    gatelens([&words[..], &["--out", listed.to_str().unwrap()]].concat()).done();
}

#[test]
fn vectors_and_what_neurons_write_are_those_of_traced_activations() {
    let bench = Bench::new();
    let out = values(&bench, Path::new("demo"), "demo", &["--neurons", "20", "--controls", "1"]);
    let model = Model::open("demo", &Options::default()).unwrap();
    let (written, found, neurons) = (out.join("vectors.safetensors"), table(&out, "vectors"), table(&out, "neurons"));
    let written = candle_core::safetensors::load(written, &Device::Cpu).unwrap();
    assert!(neurons.rows() > 20, "{}", neurons.rows());
    for ((items, name), prefix) in
        replies(&model).iter().zip(["intrinsic", "prompted"]).zip(["intrinsic_", "prompted_"])
    {
        for layer in 0..8 {
            let stream = differences(&model, items, SiteKind::ResidPost.at(layer));
            let vector = half(&stream, 0);
            let file = written[&format!("caution.{name}.resid_post.{layer}")].to_vec1::<f32>().unwrap();
            file.iter().zip(&vector).for_each(|(a, b)| close(f64::from(*a), *b, &format!("{name} {layer}")));
            let length = dot(&vector, &vector).sqrt();
            let row = at(&found, &[("vector", name)])[layer];
            close(found.floats("norm").unwrap()[row].unwrap(), length, "norm");
            let along = dot(&half(&stream, 1), &vector) / length;
            close(found.floats("along_mean").unwrap()[row].unwrap(), along, "along");
            let writes = model.decoder.neuron_writes(layer).unwrap().next().unwrap().unwrap().to_vec2::<f32>().unwrap();
            let acts = differences(&model, items, SiteKind::MlpAct.at(layer));
            let (training, held_out) = (half(&acts, 0), half(&acts, 1));
            for row in (0..neurons.rows()).filter(|row| neurons.ints("layer").unwrap()[*row] == layer as i64) {
                let neuron = neurons.ints("neuron").unwrap()[row] as usize;
                let column: Vec<f64> = writes[neuron].iter().map(|x| f64::from(*x)).collect();
                let for_one = dot(&column, &vector) / length;
                let of = |column: &str| neurons.floats(&format!("{prefix}{column}")).unwrap()[row].unwrap();
                close(of("write"), training[neuron] * for_one, "write");
                close(of("held_out"), held_out[neuron] * for_one, "held out");
                let (low, high) = (of("ci_low"), of("ci_high"));
                assert!(low <= of("held_out") && of("held_out") <= high);
                let is_of = neurons.strs("set").unwrap()[row];
                if is_of == "shared" || is_of == format!("only_{name}") {
                    assert!(of("p_value") < 0.05 && of("q_value") >= of("p_value") && of("write") > 0.0, "{is_of}");
                }
            }
        }
    }
    let overlap = table(&out, "overlap");
    let count = |column: &str| overlap.ints(column).unwrap()[0] as usize;
    assert_eq!(count("neurons"), 8 * 64);
    assert_eq!(count("shared") + count("only_intrinsic") + count("only_prompted"), neurons.rows());
    assert_eq!((count("intrinsic"), count("prompted")), (20, 20));
    for set in ["shared", "only_intrinsic", "only_prompted"] {
        assert_eq!(at(&neurons, &[("set", set)]).len(), count(set));
    }
}

#[test]
fn effects_are_those_of_the_reference_engine_and_stand_beside_random_ones() {
    let bench = Bench::new();
    let more = ["--neurons", "20", "--controls", "3", "--layers", "3", "--coefficients=-1,2"];
    let out = values(&bench, Path::new("demo"), "demo", &more);
    let model = Model::open("demo", &Options::default()).unwrap();
    let (items, effects) = (table(&out, "items"), table(&out, "effects"));
    let all = replies(&model);
    let vectors = candle_core::safetensors::load(out.join("vectors.safetensors"), &Device::Cpu).unwrap();
    let neurons = std::fs::read_to_string(out.join("caution.shared.txt")).unwrap();
    let neurons: Vec<(usize, usize)> = neurons
        .lines()
        .filter_map(|line| line.strip_prefix('L')?.split_once(".N"))
        .map(|(layer, neuron)| (layer.parse().unwrap(), neuron.parse().unwrap()))
        .collect();
    assert!(neurons.len() > 4);
    let silence = |_: &Reply| -> Vec<Edit> {
        let edit = |(layer, neuron): &(usize, usize)| Edit {
            site: SiteKind::MlpAct.at(*layer),
            part: Part::Columns(vec![*neuron]),
            positions: Positions::All,
            change: Change::Zero,
        };
        neurons.iter().map(edit).collect()
    };
    let add = |reply: &Reply| -> Vec<Edit> {
        vec![Edit {
            site: SiteKind::ResidPost.at(3),
            part: Part::All,
            positions: Positions::At((reply.from - 1..reply.ids.len()).collect()),
            change: Change::Add {
                vector: vectors["caution.prompted.resid_post.3"].to_vec1::<f32>().unwrap().into(),
                coefficient: 2.0,
            },
        }]
    };
    for (context, replies) in ["unprompted", "prompted"].into_iter().zip(&all) {
        type Edits<'a> = &'a dyn Fn(&Reply) -> Vec<Edit>;
        let done: [(&str, &str, Option<f64>, Edits); 2] =
            [("ablate", "shared", None, &silence), ("steer", "prompted", Some(2.0), &add)];
        for (kind, what, coefficient, edits) in done {
            let of = |table: &Table| -> Vec<usize> {
                let rows = at(table, &[("context", context), ("kind", kind), ("what", what)]);
                rows.into_iter().filter(|row| table.floats("coefficient").unwrap()[*row] == coefficient).collect()
            };
            let rows = of(&items);
            assert_eq!(rows.len(), 6);
            let mut sum = 0.0;
            for (row, replies) in rows.iter().zip(replies.iter().skip(1).step_by(2)) {
                let (base, edited) = (preference(&model, replies, &|_| Vec::new()), preference(&model, replies, edits));
                close(items.floats("base").unwrap()[*row].unwrap(), base, "base");
                close(items.floats("preference").unwrap()[*row].unwrap(), edited, &format!("{kind} {context}"));
                sum += edited - base;
            }
            let [row] = of(&effects)[..] else { panic!("one row of effects") };
            let float = |column: &str| effects.floats(column).unwrap()[row].unwrap();
            close(float("effect_mean"), sum / 6.0, "effect");
            assert!(sum.abs() > 1e-3, "{kind}: nothing was done");
            close(float("effect_mean"), float("with_effect_mean") - float("without_effect_mean"), "halves");
            close(float("over_random_mean"), float("effect_mean") - float("random_mean"), "over random");
            assert_eq!(effects.ints("controls").unwrap()[row], 3);
        }
    }
    // The prompt's own effect is between the two contexts.
    let [row] = at(&effects, &[("kind", "prompt")])[..] else { panic!("one row of the prompt") };
    let preferences = table(&out, "preferences");
    let mean = preferences.floats("preference_mean").unwrap();
    close(effects.floats("effect_mean").unwrap()[row].unwrap(), mean[1].unwrap() - mean[0].unwrap(), "the prompt");
}

#[test]
fn a_study_is_counted_without_weights_and_goes_on_where_it_stopped() {
    let bench = Bench::new();
    let path = bench.dataset("items.jsonl", &items());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/demo/model/config.json");
    let words = ["values", config.to_str().unwrap(), "--items", path.to_str().unwrap()];
    let cost = gatelens([&words[..], &["--dry-run", "--prompt-tokens", "24"]].concat()).done();
    assert!(cost.contains("prompts"), "{cost}");
    let out = values(&bench, Path::new("demo"), "run", &["--controls", "1"]);
    let words = ["values", "demo", "--items", path.to_str().unwrap(), "--controls", "1", "--resume"];
    gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat()).done();
}

#[test]
fn items_that_are_unsound_or_too_few_are_refused_with_their_line_and_field() {
    let bench = Bench::new();
    let refused = |lines: &[Value], more: &[&str], said: &[&str]| {
        let (path, out) = (bench.dataset("items.jsonl", lines), bench.out("refused"));
        let words = ["values", "demo", "--items", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
        gatelens([&words[..], more].concat()).refused(said);
    };
    let changed = |field: &str, value: Value| {
        let mut lines = items();
        lines[1][field] = value;
        lines
    };
    for (field, value, said) in [
        ("value", json!(3), "expected the name of a value"),
        ("value", json!("to be kind"), "a name has letters, digits, - and _"),
        ("prompt", json!(""), "expected a string that asks for the value"),
        ("question", Value::Null, "expected a string"),
        ("with", json!(["Sorry"]), "expected a reply that shows the value"),
        ("without", Value::Null, "expected a reply that does not"),
        ("id", json!("item 0"), "\"item 0\" was there before"),
    ] {
        refused(&changed(field, value), &[], &["items.jsonl: line 2: ", &format!("field \"{field}\""), said]);
    }
    let long = "bread ".repeat(300);
    refused(&changed("with", json!(long)), &[], &["line 2", "field \"with\"", "more than the model's context of 256"]);
    refused(&items()[..3], &[], &["`caution` has 2 items", "1 to test them", "every second topic is held out"]);
    refused(&items(), &["--value", "wit"], &["--value: no item that is left is of `wit`; there are caution"]);
    refused(&items(), &["--layers", "9"], &["--layers", "no layer or range of layers"]);
    refused(&[], &[], &["holds no item"]);
    let broken = bench.text("broken.jsonl", "{oops\n");
    let words = ["values", "demo", "--items", broken.to_str().unwrap(), "--out", "x"];
    gatelens(words).refused(&["broken.jsonl: line 1: is no JSON"]);
}

/// The items that come with the project are read, and are as the documentation says.
#[test]
fn the_items_that_come_with_it_have_three_values_of_forty_items_on_eight_topics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/values/statements.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for value in ["honesty", "kindness", "curiosity"] {
        let of: Vec<&Value> = lines.iter().filter(|line| line["value"] == value).collect();
        let distinct = |field: &str| {
            of.iter().map(|line| line[field].as_str().unwrap()).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!((of.len(), distinct("topic"), distinct("question")), (40, 8, 40), "{value}");
        let words = |field: &str| of.iter().map(|line| line[field].as_str().unwrap().split(' ').count()).sum::<usize>();
        let ratio = words("with") as f64 / words("without") as f64;
        assert!((0.8..1.25).contains(&ratio), "{value}: {ratio}");
    }
    assert_eq!(lines.len(), 120);
}

/// What docs/inside.md says of Qwen2.5-Coder-0.5B is what the committed tables say.
#[test]
fn what_is_written_of_values_in_a_model_is_what_its_tables_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("reports/values-qwen2.5-coder-0.5b");
    let (effects, vectors, overlap) = (table(&dir, "effects"), table(&dir, "vectors"), table(&dir, "overlap"));
    let [value, context, kind, what] = ["value", "context", "kind", "what"].map(|name| effects.strs(name).unwrap());
    let float = |name: &str, i: usize| effects.floats(name).unwrap()[i].unwrap();
    let mut said = String::new();
    let (mut silenced, mut moved): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for i in 0..effects.rows() {
        match kind[i] {
            "prompt" => {
                let [low, high] = ["effect_ci_low", "effect_ci_high"].map(|name| float(name, i));
                assert!(low < 0.0 && 0.0 < high && float("q_value", i) > 0.5, "{} moves", value[i]);
                said += &format!("{:+.3} {low:.3} {high:.3};", float("effect_mean", i));
            }
            "ablate" => silenced.push(i),
            _ => moved.push(i),
        }
    }
    assert_eq!(said, "+0.002 -0.100 0.092;+0.017 -0.060 0.097;+0.005 -0.106 0.124;");
    assert_eq!((silenced.len(), moved.len()), (18, 24));
    let beyond: Vec<usize> = silenced.into_iter().filter(|i| float("q_value", *i) < 0.05).collect();
    let [i] = beyond[..] else { panic!("{beyond:?}") };
    assert_eq!((value[i], context[i], what[i]), ("kindness", "unprompted", "only_intrinsic"));
    assert_eq!(format!("{:.3}", float("effect_mean", i)), "0.025");
    assert_eq!(effects.ints("neurons").unwrap()[i], 10);
    for i in moved {
        let (effect, times) = (float("effect_mean", i), float("coefficient", i));
        let (low, high) = (float("over_random_ci_low", i) * times, float("over_random_ci_high", i) * times);
        assert!(effect * times > 0.0 && low.min(high) > 0.0 && float("q_value", i) < 0.005, "{} {}", value[i], what[i]);
        assert_eq!(effects.ints("layer").unwrap()[i], 12);
        let between = match value[i] {
            "honesty" => 0.095..0.115,
            "kindness" => 0.085..0.135,
            _ => 0.225..0.295,
        };
        assert!(between.contains(&effect.abs()), "{}: {effect}", value[i]);
    }
    assert!(vectors.floats("cosine").unwrap().iter().all(|cosine| cosine.unwrap() > 0.96));
    assert!(overlap.ints("shared").unwrap().iter().all(|n| (82..=90).contains(n)));
}

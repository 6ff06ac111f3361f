//! What the commands write and say, run as a user runs them.

use crate::support::cli::{Bench, gatelens, listed, pair};
use crate::support::copies::{Folder, Stored, Tensors};
use crate::support::{FAMILIES, Golden, assert_close, assert_golden, family_dir};
use candle_core::{Device, Tensor};
use gatelens::rundir::RunDir;
use gatelens::table::{Kind, Table};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Both golden prompts as a prompts file.
fn golden_prompts(bench: &Bench, golden: &Golden) -> PathBuf {
    let line = |i: usize| json!({ "id": i, "prompt": { "ids": golden.ids("input_ids", i) } });
    bench.dataset("prompts.jsonl", &[line(0), line(1)])
}

/// Both golden prompts, each with its donor.
fn golden_pairs(bench: &Bench) -> PathBuf {
    let golden = Golden::of("llama");
    let line = |i: usize| pair(&format!("p{i}"), &golden.ids("input_ids", i), &golden.ids("donor_ids", i));
    bench.dataset("pairs.jsonl", &[line(0), line(1)])
}

fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).expect("a safetensors file")
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("numbers")
}

fn whole(tensor: &Tensor) -> Vec<i64> {
    tensor.to_vec1().expect("whole numbers")
}

fn table(dir: &Path, name: &str) -> Table {
    Table::read_parquet(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A column of numbers without empty cells.
fn column(table: &Table, name: &str) -> Vec<f32> {
    table.floats(name).expect(name).iter().map(|x| x.expect("a number") as f32).collect()
}

#[test]
fn trace_of_every_family_holds_the_golden_activations() {
    for family in FAMILIES {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let prompts = golden_prompts(&bench, &golden);
        let summary = bench.trace(&family_dir(family), &prompts, "z,logits", &[]).done();
        assert!(summary.contains("24 rows of 2 prompts"), "{summary}");
        let found = load(&bench.out("trace.safetensors"));
        let ids: Vec<i64> = (0..2).flat_map(|i| golden.ids("input_ids", i)).map(i64::from).collect();
        assert_eq!((whole(&found["offsets"]), whole(&found["ids"])), (vec![0, 12, 24], ids), "{family}");
        let layers = (0..).map_while(|l| Some(format!("z.{l}")).filter(|name| golden.has(&format!("clean.{name}"))));
        let names: Vec<String> = layers.chain(["logits".to_string()]).collect();
        assert_eq!(found.len(), names.len() + 2, "{family}");
        for name in names {
            let expected = format!("clean.{name}");
            let width = *golden.shape(&expected).last().expect("a width");
            assert_eq!(found[&name].dims(), [24, width], "{family} {name}");
            assert_golden(&format!("{family} {name}"), &floats(&found[&name]), &golden.values(&expected));
        }
    }
}

#[test]
fn trace_puts_prompts_of_unequal_length_one_after_another() {
    let bench = Bench::new();
    let line = |id: &str, ids: &[u32]| json!({ "id": id, "prompt": { "ids": ids } });
    let both = bench.dataset("both.jsonl", &[line("a", &[5, 6, 7]), line("b", &[8, 9, 10, 11, 12])]);
    let alone = bench.dataset("alone.jsonl", &[line("b", &[8, 9, 10, 11, 12])]);
    let model = family_dir("llama");
    bench.trace_to(&bench.out("both"), &model, &both, "resid_post.1-2,logits", &[]).done();
    bench.trace_to(&bench.out("alone"), &model, &alone, "resid_post.2", &["--engine", "full"]).done();
    let (both, alone) = (load(&bench.out("both")), load(&bench.out("alone")));
    assert_eq!(whole(&both["offsets"]), [0, 3, 8]);
    assert_eq!(whole(&both["ids"]), [5, 6, 7, 8, 9, 10, 11, 12]);
    let mut names: Vec<&str> = both.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["ids", "logits", "offsets", "resid_post.1", "resid_post.2"]);
    let found = floats(&both["resid_post.2"].narrow(0, 3, 5).expect("rows"));
    assert_close("the second prompt", &found, &floats(&alone["resid_post.2"]), 1e-4, 0.0);
}

#[test]
fn trace_replaces_a_file_only_with_force_and_nothing_but_a_file() {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "a", "prompt": { "ids": [1, 2] } })]);
    let (model, out) = (family_dir("llama"), bench.out("trace.safetensors"));
    std::fs::write(&out, "old").expect("a file");
    bench.trace(&model, &prompts, "logits", &[]).refused(&["trace.safetensors", "exists", "--force"]);
    assert_eq!(std::fs::read(&out).expect("a file"), b"old");
    bench.trace(&model, &prompts, "logits", &["--force"]).done();
    assert_eq!(load(&out)["logits"].dims(), [2, 160]);
    let folder = bench.path("out");
    bench.trace_to(&folder, &model, &prompts, "logits", &["--force"]).refused(&["out", "is not a file"]);
    let nowhere = bench.path("nowhere").join("x.safetensors");
    bench.trace_to(&nowhere, &model, &prompts, "logits", &[]).refused(&["nowhere", "no such folder"]);
    assert_eq!(bench.written(), ["trace.safetensors"]);
}

#[test]
fn trace_summaries_are_machine_readable_where_asked_for() {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "a", "prompt": { "ids": [1, 2] } })]);
    let summary = bench.trace(&family_dir("gpt2"), &prompts, "z.1,logits", &["--json"]).done();
    let summary: Value = serde_json::from_str(&summary).expect("one JSON object");
    assert_eq!((&summary["rows"], &summary["prompts"]), (&json!(2), &json!(1)));
    assert_eq!(summary["tensors"], json!(["z.1", "logits", "offsets", "ids"]));
}

#[test]
fn a_dry_run_of_a_trace_says_how_large_it_would_be_and_writes_nothing() {
    let bench = Bench::new();
    let line = |id: &str, ids: &[u32]| json!({ "id": id, "prompt": { "ids": ids } });
    let prompts = bench.dataset("prompts.jsonl", &[line("a", &[1, 2, 3]), line("b", &[4, 5, 6])]);
    let said = bench.trace(&family_dir("llama"), &prompts, "pattern.0,z.1,logits", &["--dry-run"]).done();
    assert!(said.contains("z.1") && said.contains("2 prompts"), "{said}");
    let last = said.lines().last().expect("a line");
    let (time, rest) = last.split_once(" by the wavefront engine; ").unwrap_or_else(|| panic!("no time in: {said}"));
    assert!(time.ends_with(" s") && rest.contains("at the pace of some of these rows"), "{last}");
    let (model, prompts) = (family_dir("llama"), prompts.to_str().expect("UTF-8").to_string());
    let words = ["trace", model.to_str().expect("UTF-8"), "--prompts", &prompts, "--sites", "pattern.0,z.1,logits"];
    let json = gatelens([&words[..], &["--dry-run", "--json"]].concat()).done();
    let size: Value = serde_json::from_str(&json).expect("one JSON object");
    // Four heads; six rows of f32.
    assert_eq!(size["tensors"], json!({ "pattern.0": [6, 12], "z.1": [6, 48], "logits": [6, 160] }));
    assert_eq!((&size["rows"], &size["bytes"]), (&json!(6), &json!(6 * (12 + 48 + 160) * 4)));
    assert!(size["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds < 60.0), "{size}");
    gatelens(words).refused(&["--out"]);
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_chat_template_makes_the_prompt_of_a_users_message() {
    let bench = Bench::new();
    let template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}\
                    {% if add_generation_prompt %}assistant{% endif %}";
    let model = Folder::of("llama").with_template(template);
    let lines = [json!({ "id": 1, "prompt": "how are you" }), json!({ "id": 2, "prompt": { "text": "how are you" } })];
    bench.trace(model.path(), &bench.dataset("prompts.jsonl", &lines), "logits", &[]).done();
    let found = load(&bench.out("trace.safetensors"));
    // `[UNK]`, how, are, you, user and assistant are the tokens 0 to 5.
    assert_eq!(whole(&found["ids"]), [4, 1, 2, 3, 5, 1, 2, 3]);
}

#[test]
fn interchange_gives_the_golden_metrics_of_every_head() {
    for (position, name) in [("last", "interchange_last"), ("all", "interchange_all")] {
        let (bench, golden) = (Bench::new(), Golden::of("llama"));
        let more = ["--direction", "necessity", "--position", position];
        bench.interchange(&family_dir("llama"), &golden_pairs(&bench), &more).done();
        let (heads, pairs) = (table(&bench.out("run"), "heads.parquet"), table(&bench.out("run"), "pairs.parquet"));
        assert_eq!((heads.rows(), pairs.rows()), (16, 32));

        let (patched, clean, donor) =
            (golden.values(name), golden.values("metric_clean"), golden.values("metric_donor"));
        let (ids, found) = (pairs.strs("id").expect("ids"), column(&pairs, "patched_metric"));
        let (layers, columns) = (pairs.ints("layer").expect("layers"), pairs.ints("head").expect("heads"));
        let at = |pair: usize, layer: i64, head: i64| (pair * 4 + layer as usize) * 4 + head as usize;
        let pair_of = |id: &str| usize::from(id == "p1");
        let expected: Vec<f32> = (0..32).map(|i| patched[at(pair_of(ids[i]), layers[i], columns[i])]).collect();
        assert_close(&format!("patched_metric, {position}"), &found, &expected, 1e-4, 0.0);
        let base: Vec<f32> = ids.iter().map(|id| clean[pair_of(id)]).collect();
        assert_close("base_metric", &column(&pairs, "base_metric"), &base, 1e-4, 0.0);

        let (layers, columns) = (heads.ints("layer").expect("layers"), heads.ints("head").expect("heads"));
        let effect = |pair: usize, i: usize| patched[at(pair, layers[i], columns[i])] - clean[pair];
        let effects: Vec<f32> = (0..16).map(|i| (effect(0, i) + effect(1, i)) / 2.0).collect();
        assert_close("effect_mean", &column(&heads, "effect_mean"), &effects, 1e-4, 0.0);
        let mean = |x: &[f32]| vec![(x[0] + x[1]) / 2.0; 16];
        assert_close("positive_mean", &column(&heads, "positive_mean"), &mean(&clean), 1e-4, 0.0);
        assert_close("negative_mean", &column(&heads, "negative_mean"), &mean(&donor), 1e-4, 0.0);
        assert!(heads.strs("direction").expect("directions").iter().all(|d| *d == "necessity"));
        assert!(heads.strs("position").expect("positions").iter().all(|p| *p == position));
        // Two pairs: four patterns of signs, of which two or all four are as extreme.
        let p = column(&heads, "p_value");
        assert!(p.iter().all(|p| [0.5, 1.0].contains(p)), "{p:?}");
        let (low, high, mean) = (column(&heads, "ci_low"), column(&heads, "ci_high"), column(&heads, "effect_mean"));
        assert!((0..16).all(|i| low[i] <= mean[i] + 1e-6 && mean[i] <= high[i] + 1e-6), "{low:?} {high:?}");
    }
}

#[test]
fn sufficiency_is_necessity_with_the_prompts_exchanged() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let [positive, negative] = ["input_ids", "donor_ids"].map(|name| golden.ids(name, 0));
    let there = bench.dataset("there.jsonl", &[pair("p", &positive, &negative)]);
    let back = bench.dataset("back.jsonl", &[pair("p", &negative, &positive)]);
    let model = family_dir("llama");
    bench.interchange_to(&bench.out("there"), &model, &there, &["--direction", "sufficiency"]).done();
    bench.interchange_to(&bench.out("back"), &model, &back, &["--direction", "necessity"]).done();
    let [there, back] = ["there", "back"].map(|name| table(&bench.out(name), "heads.parquet"));
    assert_close("effects", &column(&there, "effect_mean"), &column(&back, "effect_mean"), 1e-6, 0.0);
    assert_close("positive", &column(&there, "positive_mean"), &column(&back, "negative_mean"), 1e-6, 0.0);
}

#[test]
fn a_run_directory_has_its_tables_figures_reports_and_record() {
    let bench = Bench::new();
    let (model, pairs) = (family_dir("llama"), golden_pairs(&bench));
    let summary = bench.interchange(&model, &pairs, &["--direction", "necessity"]).done();
    assert!(summary.contains("heads.parquet, pairs.parquet, report.html"), "{summary}");
    assert!(summary.contains("strongest, necessity:\n  L") && summary.contains("family-wise p"), "{summary}");
    let dir = bench.out("run");
    let files = listed(&dir);
    for file in ["heads.parquet", "necessity.png", "pairs.parquet", "report.html", "report.md", "run.json"] {
        assert!(files.iter().any(|f| f == file), "no {file} among {files:?}");
    }
    assert!(files.iter().all(|f| !f.starts_with('.') && f != "parts"), "{files:?}");
    assert_eq!(bench.written(), ["run"]);
    assert!(std::fs::read(dir.join("necessity.png")).expect("a figure").starts_with(b"\x89PNG\r\n\x1a\n"));
    let svg = std::fs::read_to_string(dir.join("necessity.svg")).expect("a figure for papers");
    assert!(svg.starts_with("<svg ") && svg.contains("<title>L0.H0: "), "{svg:.400}");
    let html = std::fs::read_to_string(dir.join("report.html")).expect("a report");
    assert!(html.contains("<svg role=\"img\"") && !html.contains("src=\"http"), "figures are not inlined");
    let intervals = html.matches("95 % interval</th>").count();
    assert_eq!(html.matches("class=\"num\">95 % interval</th>").count(), intervals, "intervals are sorted as numbers");
    assert!(intervals > 0);
    let markdown = std::fs::read_to_string(dir.join("report.md")).expect("a report");
    assert!(markdown.contains("necessity.png") && markdown.contains("Interchange"), "{markdown}");
    let heads = table(&dir, "heads.parquet");
    for name in
        "model layer head direction position n positive_mean negative_mean effect_mean effect_sd ci_low ci_high \
                 effect_normalized flip_rate p_value q_value"
            .split_whitespace()
    {
        assert!(heads.has(name), "heads.parquet has no {name}");
    }
    let columns = table(&dir, "pairs.parquet");
    for name in ["id", "group", "lang", "layer", "head", "direction", "base_metric", "patched_metric"] {
        assert!(columns.has(name), "pairs.parquet has no {name}");
    }
}

#[test]
fn run_json_says_what_was_run_on_what_and_what_it_cost() {
    let bench = Bench::new();
    let (model, pairs) = (family_dir("llama"), golden_pairs(&bench));
    bench.interchange(&model, &pairs, &["--seed", "7", "--engine", "full", "--device", "cpu"]).done();
    let text = std::fs::read(bench.out("run").join("run.json")).expect("run.json");
    let record: Value = serde_json::from_slice(&text).expect("JSON");
    let name = model.to_str().expect("UTF-8");
    assert_eq!(record["command"], "interchange");
    assert_eq!((&record["model"]["name"], &record["model"]["architecture"]), (&json!(name), &json!("llama")));
    // Two tables of 160 x 48, four layers, and the last norm.
    let layer = 2 * 48 * 48 + 2 * 24 * 48 + 3 * 80 * 48 + 2 * 48;
    assert_eq!(record["model"]["parameters"], 2 * 160 * 48 + 4 * layer + 48);
    assert_eq!(record["model"]["sha256"].as_str().map(str::len), Some(64));
    let digest = Sha256::digest(std::fs::read(&pairs).expect("pairs"));
    let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(record["dataset_sha256"], json!({ pairs.to_str().expect("UTF-8"): digest }));
    assert_eq!((&record["seed"], &record["engine"], &record["device"]), (&json!(7), &json!("full"), &json!("cpu")));
    assert_eq!(record["version"], env!("CARGO_PKG_VERSION"));
    // Two pairs in two directions over 16 heads.
    assert_eq!((&record["prompts"], &record["forks"]), (&json!(4), &json!(64)));
    let measures = [&record["timings"]["load_s"], &record["timings"]["compute_s"], &record["timings"]["output_s"]];
    for measure in measures.into_iter().chain(["cpu_s", "rows", "flops", "peak_rss_bytes"].map(|k| &record[k])) {
        assert!(measure.as_f64().is_some_and(|x| x > 0.0), "{record}");
    }
    let parameters = record["parameters"].as_object().expect("parameters");
    for key in ["pairs", "answer", "foil", "position", "direction", "model", "dtype", "seed", "engine"] {
        assert!(parameters.contains_key(key), "no parameter {key}: {parameters:?}");
    }
}

#[test]
fn both_engines_write_the_same_tables() {
    let (bench, model) = (Bench::new(), family_dir("llama"));
    let pairs = golden_pairs(&bench);
    for engine in ["full", "wavefront"] {
        bench.interchange_to(&bench.out(engine), &model, &pairs, &["--engine", engine]).done();
    }
    for name in ["heads.parquet", "pairs.parquet"] {
        let [full, wave] = ["full", "wavefront"].map(|engine| table(&bench.out(engine), name));
        assert_eq!(full.rows(), wave.rows());
        for info in full.columns() {
            if info.kind != Kind::Float {
                let cells = |t: &Table| match info.kind {
                    Kind::Int => format!("{:?}", t.ints(info.name).expect("a column")),
                    Kind::Flag => format!("{:?}", t.flags(info.name).expect("a column")),
                    _ => format!("{:?}", t.opt_strs(info.name).expect("a column")),
                };
                assert_eq!(cells(&full), cells(&wave), "{name} {}", info.name);
                continue;
            }
            let cells = |t: &Table| t.floats(info.name).expect("a column").to_vec();
            // A share of a gap is a difference divided by it; the gaps here are of order one.
            for (f, w) in cells(&full).iter().zip(cells(&wave)) {
                let far = f.zip(w).map_or(f.is_some() != w.is_some(), |(f, w)| (f - w).abs() > 1e-4);
                assert!(!far, "{name} {}: {f:?} and {w:?}", info.name);
            }
        }
    }
}

#[test]
fn tables_do_not_depend_on_the_number_of_threads() {
    let (bench, model) = (Bench::new(), family_dir("llama"));
    let pairs = golden_pairs(&bench);
    for engine in ["full", "wavefront"] {
        let bytes = ["1", "2", "5"].map(|threads| {
            let out = bench.out(&format!("{engine}-{threads}"));
            bench.interchange_to(&out, &model, &pairs, &["--threads", threads, "--engine", engine]).done();
            ["heads.parquet", "pairs.parquet"].map(|name| std::fs::read(out.join(name)).expect("a table"))
        });
        assert!(bytes[0] == bytes[1] && bytes[0] == bytes[2], "{engine}");
    }
}

#[test]
fn a_dry_run_says_what_it_would_cost_and_writes_nothing() {
    let (bench, model) = (Bench::new(), family_dir("llama"));
    let pairs = golden_pairs(&bench);
    let text = bench.interchange(&model, &pairs, &["--dry-run"]).done();
    assert!(text.contains("wavefront") && text.contains("full") && text.contains("GFLOP"), "{text}");
    let json = bench.interchange(&model, &pairs, &["--dry-run", "--json"]).done();
    let json: Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!(json["full"]["forks"], 64);
    assert!(json["wavefront"]["rows"].as_u64() < json["full"]["rows"].as_u64(), "{json}");
    // At the pace of this machine: fixtures of a few thousand weights take less than a minute on any.
    let seconds = ["wavefront", "full"].map(|engine| json[engine]["seconds"].as_f64().expect("seconds"));
    assert!(seconds.iter().all(|s| *s > 0.0 && *s < 60.0), "{seconds:?}");
    assert!(text.contains("GFLOP         time") && text.contains("at the pace of some of these rows"), "{text}");
    assert_eq!(bench.written(), [""; 0]);
    // Without --out too.
    let (model, pairs) = (model.to_str().expect("UTF-8"), pairs.to_str().expect("UTF-8"));
    gatelens(["interchange", model, "--pairs", pairs, "--dry-run"]).done();
    gatelens(["interchange", model, "--pairs", pairs]).refused(&["--out"]);
}

#[test]
fn a_json_summary_is_one_object_that_says_where_the_run_is() {
    let bench = Bench::new();
    let text = bench.interchange(&family_dir("llama"), &golden_pairs(&bench), &["--json"]).done();
    let summary: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(summary["out"], bench.out("run").to_str().expect("UTF-8"));
    assert_eq!((&summary["command"], &summary["forks"]), (&json!("interchange"), &json!(64)));
    assert_eq!((&summary["tables"]["heads"], &summary["tables"]["pairs"]), (&json!(32), &json!(64)));
}

#[test]
fn resume_starts_where_there_is_nothing_to_go_on_from() {
    let bench = Bench::new();
    bench.interchange(&family_dir("llama"), &golden_pairs(&bench), &["--resume"]).done();
    assert_eq!(bench.written(), ["run"]);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_interrupted_says_how_far_it_came_and_goes_on() {
    use crate::support::cli::{command, ended};
    use std::process::{Command, Stdio};
    let bench = Bench::new();
    let out = bench.out("run");
    let place = ["--engine", "full", "--out", out.to_str().expect("UTF-8")];
    let words = [&["interchange", "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "12"], &place[..]].concat();
    let child = command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    // It has begun to compute once its parameters are there.
    let begun = out.with_extension("partial").join("params.json");
    while !begun.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("a status");
    assert!(killed.success());
    let stopped = ended(child.wait_with_output().expect("an end"));
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert!(stopped.stderr.contains("stopped at ") && stopped.stderr.contains("--resume"), "{}", stopped.stderr);
    assert_eq!(bench.written(), ["run.partial"]);
    gatelens(words.into_iter().chain(["--resume"])).done();
    assert_eq!(bench.written(), ["run"]);
}

#[test]
fn resuming_a_run_that_is_complete_says_so_and_changes_nothing() {
    let (bench, model) = (Bench::new(), family_dir("llama"));
    let pairs = golden_pairs(&bench);
    bench.interchange(&model, &pairs, &[]).done();
    let record = std::fs::read(bench.out("run").join("run.json")).expect("a record");
    let said = bench.interchange(&model, &pairs, &["--resume"]).done();
    assert!(said.contains("is complete; nothing is left to run"), "{said}");
    assert_eq!(std::fs::read(bench.out("run").join("run.json")).expect("a record"), record);
    assert_eq!(bench.written(), ["run"]);
}

#[test]
fn an_existing_run_directory_is_replaced_only_with_force() {
    let (bench, model) = (Bench::new(), family_dir("llama"));
    let pairs = golden_pairs(&bench);
    bench.interchange(&model, &pairs, &[]).done();
    let note = bench.out("run").join("note.txt");
    std::fs::write(&note, "mine").expect("a file");
    let changed = bench.dataset("changed.jsonl", &[pair("p0", &[5, 6, 7], &[5, 8, 7])]);
    for (pairs, more, parts) in [
        (&pairs, &[][..], ["run", "exists", "--force"]),
        (&changed, &["--resume"], ["run.json", "is of another run, which is complete", "--force"]),
    ] {
        bench.interchange(&model, pairs, more).refused(&parts);
        assert_eq!((note.exists(), bench.written()), (true, vec!["run".to_string()]));
    }
    bench.interchange(&model, &pairs, &["--force"]).done();
    assert_eq!((note.exists(), bench.written()), (false, vec!["run".to_string()]));
    assert!(bench.out("run").join("heads.parquet").exists());
}

/// Leaves an unfinished run of a command in `out/run.partial`.
fn unfinished(bench: &Bench, command: &str) {
    let directory = RunDir::create(&bench.out("run"), false, false).expect("a run directory");
    let parameters = serde_json::Map::from_iter([("command".to_string(), json!(command))]);
    directory.claim(&parameters).expect("a claim");
}

#[test]
fn where_it_cannot_write_is_said_before_a_model_is_looked_for() {
    let bench = Bench::new();
    let (nowhere, pairs) = (Path::new("/nowhere"), golden_pairs(&bench));
    unfinished(&bench, "interchange");
    bench.interchange(nowhere, &pairs, &[]).refused(&["run.partial", "unfinished", "--resume"]);
    std::fs::create_dir(bench.out("mine")).expect("a folder");
    std::fs::write(bench.out("mine").join("note.txt"), "mine").expect("a file");
    bench.interchange_to(&bench.out("mine"), nowhere, &pairs, &["--force"]).refused(&["mine", "not a run directory"]);
    bench.interchange_to(Path::new(".."), nowhere, &pairs, &[]).refused(&["..", "no name for a run directory"]);
    bench.interchange(nowhere, &pairs, &["--dry-run"]).refused(&["nowhere", "no such file or folder"]);
}

#[test]
fn the_unfinished_run_of_another_command_is_named() {
    let bench = Bench::new();
    unfinished(&bench, "ablate");
    let told = "another one: command was \"ablate\", is \"interchange\"";
    bench.interchange(&family_dir("llama"), &golden_pairs(&bench), &["--resume"]).refused(&["run.partial", told]);
}

#[test]
fn inspect_reads_no_weights() {
    let layer = "model.layers.2.mlp.up_proj.weight";
    let damaged = |tensors: &mut Tensors| {
        let stored = tensors.get_mut(layer).expect("a tensor");
        *stored = Stored::floats(&stored.shape, &vec![f32::NAN; stored.values().len()]);
    };
    let model = Folder::of("llama").weights(damaged);
    let facts = gatelens(["inspect", model.path().to_str().expect("UTF-8"), "--json"]).done();
    let facts: Value = serde_json::from_str(&facts).expect("one object");
    assert_eq!((&facts["layers"], &facts["devices"]), (&json!(4), &json!("cpu: layers 0-3")));
    // What runs the model does find it.
    let bench = Bench::new();
    bench.interchange(model.path(), &golden_pairs(&bench), &[]).refused(&[layer]);
}

#[test]
fn inspect_names_the_family_its_sizes_and_its_sites() {
    for family in FAMILIES {
        let model = family_dir(family);
        let model = model.to_str().expect("UTF-8");
        let name = match family {
            "llama3_rope" => "llama",
            "gemma3" => "gemma3_text",
            other => other,
        };
        let text = gatelens(["inspect", model]).done();
        for part in [name, "resid_post", "logits", "4 heads", "no tokenizer"] {
            let part = if family == "phi3" { part.replace("4 heads", "3 heads") } else { part.to_string() };
            assert!(text.contains(&part), "{family}: no {part} in {text}");
        }
        let json: Value = serde_json::from_str(&gatelens(["inspect", model, "--json"]).done()).expect("one object");
        assert_eq!((&json["family"], &json["d_model"], &json["context"]), (&json!(name), &json!(48), &json!(128)));
        let sites: Vec<&str> =
            json["sites"].as_array().expect("sites").iter().filter_map(|s| s["site"].as_str()).collect();
        assert_eq!(sites.contains(&"resid_mid"), family != "gpt_neox", "{family}");
        assert_eq!(sites.contains(&"mlp_gate"), !family.starts_with("gpt"), "{family}");
    }
}

#[test]
fn a_site_that_is_not_there_is_answered_with_the_nearest() {
    let bench = Bench::new();
    let prompts = bench.dataset("prompts.jsonl", &[json!({ "id": "a", "prompt": { "ids": [1, 2] } })]);
    let trace = |family: &str, sites: &str| bench.trace(&family_dir(family), &prompts, sites, &[]);
    trace("llama", "resid_pst").refused(&["`resid_pst`", "resid_post"]);
    trace("llama", "z.4").refused(&["z.4", "4 layers", "`z.3`"]);
    trace("llama", "logits.0").refused(&["logits", "alone"]);
    trace("gpt_neox", "resid_mid").refused(&["resid_mid", "`resid_pre"]);
    trace("gpt2", "mlp_gate.1").refused(&["mlp_gate.1", "nearest"]);
    trace("llama", "").refused(&["--sites"]);
    assert_eq!(bench.written(), [""; 0]);
}

#[test]
fn a_command_that_is_wrong_ends_with_code_2() {
    let model = family_dir("llama");
    let model = model.to_str().expect("UTF-8");
    gatelens(["inspect", model, "--deepth", "3"]).refused(&["--deepth"]);
    gatelens(["inspekt", model]).refused(&["inspekt", "inspect"]);
    gatelens(["inspect", model, "--threads", "0"]).refused(&["--threads", "1..=1024"]);
    gatelens(["inspect", model, "--dtype", "f8"]).refused(&["f8", "f32, bf16 or f16"]);
    gatelens(["inspect", model, "--device", "tpu"]).refused(&["tpu", "cpu, cuda"]);
    gatelens(["inspect"]).refused(&["MODEL"]);
    assert!(gatelens(["--version"]).done().contains(env!("CARGO_PKG_VERSION")));
    assert!(gatelens(["interchange", "--help"]).done().contains("--pairs"));
}

#[test]
fn flags_stand_in_for_the_answers_of_lines_that_have_none() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let (positive, negative) = (golden.ids("input_ids", 0), golden.ids("donor_ids", 0));
    let bare = json!({ "id": "p", "positive": { "ids": positive }, "negative": { "ids": negative } });
    let own = bench.dataset("own.jsonl", &[pair("p", &positive, &negative)]);
    let bare = bench.dataset("bare.jsonl", &[bare]);
    let model = family_dir("llama");
    bench.interchange_to(&bench.out("own"), &model, &own, &[]).done();
    bench.interchange_to(&bench.out("bare"), &model, &bare, &["--answer", "id:11", "--foil", "id:23"]).done();
    let [own, bare] = ["own", "bare"].map(|name| column(&table(&bench.out(name), "heads.parquet"), "effect_mean"));
    assert_eq!(own, bare);
}

#[test]
fn flags_that_stand_in_for_no_item_are_warned_of() {
    let (bench, model) = (Bench::new(), family_dir("llama"));
    let pairs = golden_pairs(&bench);
    let run = |more: &[&str]| {
        let ended = bench.interchange(&model, &pairs, &[&["--force", "--answer", "id:11"], more].concat());
        let said = ended.stderr.clone();
        ended.done();
        said
    };
    let said = run(&[]);
    assert_eq!(said.lines().filter(|line| line.starts_with("warning: --answer: does nothing")).count(), 1, "{said}");
    assert_eq!(run(&["--quiet"]), "");
}

#[test]
fn labels_that_no_font_has_are_warned_of_once() {
    // Of this code point Unicode says that it will never be a letter.
    const LANG: &str = "\u{10fffe}";
    let bench = Bench::new();
    let own = String::from_utf8(gatelens::demo::file("pairs.jsonl").expect("pairs").to_vec()).expect("UTF-8");
    let tagged = |line: &str| line.replace(r#""lang":"de""#, &format!(r#""lang":"{LANG}""#));
    let line = |line: &str| serde_json::from_str(&tagged(line)).expect("JSON");
    let lines: Vec<Value> = own.lines().map(line).collect();
    assert!(lines.iter().any(|pair| pair["lang"] == LANG) && lines.iter().any(|pair| pair["lang"] == "en"));
    let (pairs, out) = (bench.dataset("pairs.jsonl", &lines), bench.out("run"));
    let run = |more: &[&str]| {
        let (pairs, out) = (pairs.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
        let words = ["behaviour", "demo", "--pairs", pairs, "--generate", "4", "--force", "--out", out];
        let ended = gatelens([&words, more].concat());
        let said = ended.stderr.clone();
        ended.done();
        said
    };
    let said = run(&[]);
    assert!(said.starts_with(&format!("warning: rates.png: \"{LANG}\"")) && said.contains("drawn as a box"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(run(&["--quiet"]), "");
}

#[test]
fn manual_pages_that_cannot_be_written_are_an_error_that_names_the_place() {
    gatelens(["man", "--out", "/dev/null/pages"]).failed(1, &["/dev/null/pages", "cannot be written", "--out"]);
}

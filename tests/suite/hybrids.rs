//! The commands on models with experts and with recurrent layers.

use crate::support::cli::gatelens;
use crate::support::family_dir;
use gatelens::table::Table;
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A fixture with a tokenizer of its 64 words, some pairs and prompts.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn of(family: &str) -> Bench {
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("model");
        std::fs::create_dir(&model).expect("a folder");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(family_dir(&format!("families/{family}")).join(file), model.join(file)).expect("a copy");
        }
        let vocab: serde_json::Map<String, serde_json::Value> = (0..64).map(|i| (format!("w{i}"), json!(i))).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
        });
        std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).expect("a file");
        let text = |i: usize, other: usize| {
            let word = |p: usize| format!("w{}", 3 + (i * 17 + p * 23 + if p == 3 { other * 11 } else { 0 }) % 61);
            (0..8).map(word).collect::<Vec<_>>().join(" ")
        };
        let lines = |line: &dyn Fn(usize) -> serde_json::Value| {
            (0..5).map(|i| line(i).to_string()).collect::<Vec<_>>().join("\n")
        };
        let pairs = lines(
            &|i| json!({"id": format!("p{i}"), "positive": text(i, 0), "negative": text(i, 1), "answer": ["w11"], "foil": ["w23"]}),
        );
        let prompts =
            lines(&|i| json!({"id": format!("q{i}"), "prompt": text(i, 0), "answer": ["w11"], "foil": ["w23"]}));
        std::fs::write(dir.path().join("pairs.jsonl"), pairs).expect("a file");
        std::fs::write(dir.path().join("prompts.jsonl"), prompts).expect("a file");
        Bench { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ended(&self, command: &str, flags: &[&str]) -> (PathBuf, crate::support::cli::Ended) {
        let out = self.path(&format!("{command}{}", flags.join("")).replace(['-', ' '], ""));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_string();
        let (file, flag) = match command {
            "ablate" | "dla" => ("prompts.jsonl", "--prompts"),
            _ => ("pairs.jsonl", "--pairs"),
        };
        let mut args: Vec<String> = vec![command.to_string(), text(&self.path("model")), flag.to_string()];
        args.extend([text(&self.path(file)), "--out".to_string(), text(&out), "--quiet".to_string()]);
        args.extend(flags.iter().map(|flag| (*flag).to_string()));
        (out, gatelens(args))
    }

    #[track_caller]
    fn table(&self, command: &str, flags: &[&str], table: &str) -> Table {
        let (out, ended) = self.ended(command, flags);
        ended.done();
        Table::read_parquet(out.join(table)).expect("a table")
    }
}

/// How many rows a table has of each layer.
fn by_layer(table: &Table, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    let layers = table.ints("layer").expect("layers");
    let mut found = vec![0; 4];
    (0..table.rows()).filter(|row| wanted(*row)).for_each(|row| found[layers[row] as usize] += 1);
    found
}

#[test]
fn heads_of_attention_and_of_recurrent_mixers_are_exchanged_and_ablated_layer_by_layer() {
    // Heads of each layer: of gated delta rules and gated attention; of Mamba 2 and attention; of Mamba, which has none, and attention.
    for (family, heads) in [
        ("qwen3_next", [4, 4, 4, 4]),
        ("granitemoehybrid", [8, 8, 4, 8]),
        ("jamba", [0, 0, 4, 0]),
        ("nemotron_h", [8, 0, 4, 0]),
    ] {
        let bench = Bench::of(family);
        let heads_table = bench.table("interchange", &["--direction", "necessity"], "heads.parquet");
        assert_eq!(by_layer(&heads_table, |_| true), heads, "{family}");
        let estimated =
            bench.table("interchange", &["--direction", "necessity", "--estimate", "gradient"], "heads.parquet");
        assert_eq!(by_layer(&estimated, |_| true), heads, "{family}, estimated");
        let ablated = bench.table("ablate", &["--mode", "zero,mean,resample"], "heads.parquet");
        assert_eq!(by_layer(&ablated, |_| true), heads.map(|n| 3 * n), "{family}, ablated");
    }
}

#[test]
fn experts_and_gates_are_exchanged_where_layers_have_them() {
    let bench = Bench::of("qwen3_next");
    let experts = bench.table("interchange", &["--direction", "necessity", "--site", "expert_out"], "heads.parquet");
    assert_eq!(by_layer(&experts, |_| true), [4, 0, 4, 4]);
    let gates = bench.table("interchange", &["--direction", "necessity", "--site", "attn_gate"], "heads.parquet");
    assert_eq!(by_layer(&gates, |_| true), [0, 0, 0, 4]);
    let (_, ended) = bench.ended("interchange", &["--site", "mlp_norm"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
}

#[test]
fn states_are_exchanged_and_ablated_by_head_where_there_are_heads() {
    // Heads of gated delta rules and of Mamba 2; of Mamba, whole states.
    for (family, heads) in [("qwen3_next", [4, 4, 4, 0]), ("nemotron_h", [8, 0, 0, 0]), ("jamba", [1, 1, 0, 1])] {
        let bench = Bench::of(family);
        let flags = ["--direction", "necessity", "--site", "state"];
        let exchanged = bench.table("interchange", &flags, "heads.parquet");
        assert_eq!(by_layer(&exchanged, |_| true), heads, "{family}");
        let estimated =
            bench.table("interchange", &[&flags[..], &["--estimate", "gradient"]].concat(), "heads.parquet");
        assert_eq!(by_layer(&estimated, |_| true), heads, "{family}, estimated");
        let modes = ["--site", "state", "--mode", "zero,mean,resample"];
        let ablated = bench.table("ablate", &modes, "heads.parquet");
        assert_eq!(by_layer(&ablated, |_| true), heads.map(|n| 3 * n), "{family}, ablated");
    }
    let bench = Bench::of("lfm2");
    let read = bench.table("interchange", &["--direction", "necessity", "--site", "conv_in"], "heads.parquet");
    assert_eq!(by_layer(&read, |_| true), [1, 1, 0, 1]);
    let (_, ended) = bench.ended("interchange", &["--site", "state"]);
    assert!(ended.code != 0 && ended.stderr.contains("conv_in"), "{}", ended.stderr);
}

#[test]
fn attributions_of_hybrids_have_a_row_for_every_head_and_what_has_none_is_the_bias() {
    let bench = Bench::of("jamba");
    let components = bench.table("dla", &[], "components.parquet");
    let names = components.strs("component").expect("names");
    let heads = by_layer(&components, |row| names[row].starts_with("head."));
    assert_eq!(heads[2], 4, "{names:?}");
}

#[test]
fn attributions_of_experts_sum_to_their_layers_and_one_that_no_prompt_chose_adds_nothing() {
    // A shared expert with a gate beside a dense layer; residual scales; experts that weigh what they read; biases; norms of their own.
    for family in ["mixtral", "qwen2_moe", "granitemoe", "llama4", "gpt_oss", "glm4_moe", "qwen3_next", "gemma4_moe"] {
        let bench = Bench::of(family);
        let (components, experts) = (bench.table("dla", &[], "components.parquet"), bench.path("dla"));
        let report = std::fs::read_to_string(experts.join("report.md")).expect("a report");
        assert!(report.contains("The largest attributions of experts"), "{family}");
        let experts = Table::read_parquet(experts.join("experts.parquet")).expect("a table");
        let mean = |table: &Table, row: usize| table.floats("attribution_mean").expect("means")[row].expect("a mean");
        let layers = by_layer(&experts, |_| true);
        for layer in (0..4).filter(|layer| layers[*layer] > 0) {
            let of = |table: &Table, row: usize| table.ints("layer").expect("layers")[row] == layer as i64;
            let rows = (0..experts.rows()).filter(|row| of(&experts, *row));
            let sum: f64 = rows.map(|row| mean(&experts, row)).sum();
            let names = components.strs("component").expect("names");
            let whole = (0..components.rows()).find(|row| of(&components, *row) && names[*row] == "mlp");
            let whole = mean(&components, whole.expect("the channel"));
            assert!((sum - whole).abs() < 2e-5 * (1.0 + whole.abs()), "{family}, layer {layer}: {sum} and {whole}");
        }
        for row in 0..experts.rows() {
            let chosen = experts.floats("chosen").expect("shares")[row].expect("a share");
            let tested = experts.floats("p_value").expect("p-values")[row].is_some();
            assert_eq!(chosen > 0.0, tested, "{family}, row {row}");
            assert!(chosen > 0.0 || mean(&experts, row) == 0.0, "{family}, row {row}");
        }
    }
}

#[test]
fn edges_are_of_models_whose_layers_are_alike_and_refused_by_the_layer_that_is_not() {
    let bench = Bench::of("mixtral");
    let edges = bench.table("edges", &["--direction", "necessity", "--exact", "5"], "edges.parquet");
    assert!(edges.rows() > 100);
    for (family, layer) in [
        ("jamba", "layer 0 has a recurrent mixer"),
        ("nemotron_h", "layer 0 has a recurrent mixer"),
        ("falcon_h1", "layer 0 has a recurrent mixer beside its attention"),
    ] {
        let (_, ended) = Bench::of(family).ended("edges", &["--direction", "necessity"]);
        assert!(ended.code != 0 && ended.stderr.contains(layer), "{family}: {}", ended.stderr);
    }
}

#[test]
fn inspect_says_mixers_experts_and_where_each_site_is() {
    let bench = Bench::of("nemotron_h");
    let out = gatelens(["inspect", bench.path("model").to_str().expect("UTF-8"), "--json"]).done();
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["mixers"], "1 of Mamba 2, 2 of no mixer, 1 of attention");
    assert_eq!(found["experts"], "2 of 8 in 1 layers, and a shared one");
    assert!(found["active_parameters"].as_u64() < found["parameters"].as_u64());
    let site = |name: &str| {
        let sites = found["sites"].as_array().expect("sites").iter();
        sites.clone().find(|site| site["site"] == name).unwrap_or_else(|| panic!("{name}"))["layers"].clone()
    };
    assert_eq!(
        [site("z"), site("router"), site("mlp_act"), site("q")],
        ["0, 2", "1", "1, 3", "2"].map(|text| json!(text))
    );
}

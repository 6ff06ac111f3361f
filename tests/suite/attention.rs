//! Scores of attention patterns and the patterns of chosen heads, held to golden patterns and to the weights.

use crate::support::cli::{Bench, gatelens};
use crate::support::copies::Folder;
use crate::support::{Golden, family_dir, fixtures, open};
use gatelens::plan::{Activation, Part, Plan, Positions};
use gatelens::run::{Options, run};
use gatelens::site::SiteKind;
use gatelens::stats::{Bootstrap, bca_mean, benjamini_hochberg, sign_flip};
use gatelens::table::Table;
use serde_json::{Value, json};
use std::path::Path;

/// The two prompts of golden values.
fn prompts(golden: &Golden) -> Vec<Value> {
    let one = |i: usize| json!({ "id": i.to_string(), "prompt": { "ids": golden.ids("input_ids", i) } });
    vec![one(0), one(1)]
}

fn attention(bench: &Bench, model: &Path, lines: &[Value], more: &[&str]) -> std::path::PathBuf {
    let (path, out) = (bench.dataset("prompts.jsonl", lines), bench.out("attention"));
    let words =
        ["attention", model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    gatelens([&words[..], &["--quiet"], more].concat()).done();
    out
}

/// The scores of one golden pattern by their definitions: previous, first, self, entropy.
fn by_hand(weight: impl Fn(usize, usize) -> f64, n: usize) -> [f64; 4] {
    let mean = |of: &dyn Fn(usize) -> f64| (1..n).map(of).sum::<f64>() / (n - 1) as f64;
    let entropy = |t: usize| (0..=t).map(|j| weight(t, j)).filter(|w| *w > 0.0).map(|w| -w * w.ln()).sum::<f64>();
    [mean(&|t| weight(t, t - 1)), mean(&|t| weight(t, 0)), mean(&|t| weight(t, t)), mean(&entropy)]
}

#[test]
fn scores_and_patterns_are_those_of_golden_patterns() {
    for family in ["llama", "gemma2", "gpt2", "olmo2"] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let named = |l: usize| format!("clean.pattern.{l}");
        let out = attention(&bench, &family_dir(family), &prompts(&golden), &["--head", "L1.H2,L0.H1"]);
        let table = Table::read_parquet(out.join("heads.parquet")).unwrap();
        let float = |name: &str| table.floats(name).unwrap();
        let (n_heads, n) = (golden.shape(&named(0))[1], golden.shape(&named(0))[2]);
        let layers = table.rows() / n_heads;
        let weights: Vec<Vec<f32>> = (0..layers).map(|l| golden.values(&named(l))).collect();
        let weight = |l: usize, prompt: usize, head: usize, t: usize, j: usize| -> f64 {
            f64::from(weights[l][((prompt * n_heads + head) * n + t) * n + j])
        };
        for (l, head) in (0..layers).flat_map(|l| (0..n_heads).map(move |head| (l, head))) {
            let [a, b] = [0, 1].map(|prompt| by_hand(|t, j| weight(l, prompt, head, t, j), n));
            for (k, name) in ["previous", "first", "self", "entropy"].into_iter().enumerate() {
                let (found, expected) = (float(name)[l * n_heads + head].unwrap(), (a[k] + b[k]) / 2.0);
                let near = (found - expected).abs() < 1e-5 * (1.0 + expected);
                assert!(near, "{family}: {name} of {l}.{head}: {found} and {expected}");
            }
        }
        let patterns = Table::read_parquet(out.join("patterns.parquet")).unwrap();
        let ints = ["layer", "head", "query", "key"].map(|name| patterns.ints(name).unwrap());
        let (ids, found) = (patterns.strs("id").unwrap(), patterns.floats("weight").unwrap());
        assert_eq!(patterns.rows(), 2 * 2 * n * (n + 1) / 2);
        for i in 0..patterns.rows() {
            let [l, head, t, j] = ints.each_ref().map(|column| column[i] as usize);
            let expected = weight(l, ids[i].parse().unwrap(), head, t, j);
            assert!((found[i].unwrap() - expected).abs() < 1e-4, "{family}: {l}.{head} {t} {j}: {expected}");
        }
    }
}

#[test]
fn heads_are_listed_by_a_score_for_other_analyses_to_read() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), family_dir("llama"));
    for (by, more) in [("previous", &["--list", "3"][..]), ("self", &["--list", "3", "--list-by", "self"])] {
        let out = attention(&bench, &model, &prompts(&golden), more);
        let table = Table::read_parquet(out.join("heads.parquet")).unwrap();
        let scores = table.floats(by).unwrap();
        let mut order: Vec<usize> = (0..table.rows()).collect();
        order.sort_by(|a, b| scores[*b].partial_cmp(&scores[*a]).unwrap());
        let name = |i: &usize| format!("L{}.H{}", table.ints("layer").unwrap()[*i], table.ints("head").unwrap()[*i]);
        let expected: Vec<String> = order[..3].iter().map(name).collect();
        let listed = std::fs::read_to_string(out.join("heads.txt")).unwrap();
        assert_eq!(listed.lines().skip(1).collect::<Vec<_>>(), expected, "{by}");
        assert!(listed.starts_with("# "), "{listed}");
        let (path, silenced) = (bench.path("prompts.jsonl"), bench.out(by));
        let words = [
            "neurons",
            model.to_str().unwrap(),
            "--prompts",
            path.to_str().unwrap(),
            "--answer",
            "id:11",
            "--foil",
            "id:7",
        ];
        let heads = out.join("heads.txt");
        gatelens(
            [&words[..], &["--quiet", "--out", silenced.to_str().unwrap(), "--circuit", heads.to_str().unwrap()]]
                .concat(),
        )
        .done();
        let sets = Table::read_parquet(silenced.join("sets.parquet")).unwrap();
        let row = (0..sets.rows()).find(|i| sets.strs("set").unwrap()[*i] == "heads").unwrap();
        assert_eq!(sets.ints("heads").unwrap()[row], 3);
        std::fs::remove_dir_all(out).unwrap();
    }
    assert!(!attention(&bench, &model, &prompts(&golden), &[]).join("heads.txt").exists());
}

#[test]
fn the_heads_of_a_circuit_are_read_from_any_file_that_names_some() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), family_dir("llama"));
    let marked = |edges: &[&str]| {
        let edges: serde_json::Map<String, Value> =
            edges.iter().map(|edge| ((*edge).to_string(), json!({ "score": 0.5, "in_graph": true }))).collect();
        json!({ "cfg": { "kv": "head" }, "edges": edges }).to_string()
    };
    let graph = marked(&["input->m0", "a0.h1->m0", "m0->a1.h2<q>", "a1.h2->logits", "m0->logits"]);
    for (name, text) in [
        ("list.txt", "# two heads\nL0.H1, L1.H2\n".to_string()),
        ("screen.json", json!({ "model": "another", "gate": [[1, 2]], "carriers": [[1, 2], [0, 1]] }).to_string()),
        ("gate.json", json!({ "gate": [[0, 1], [1, 2]] }).to_string()),
        ("graph.json", graph.clone()),
    ] {
        let file = bench.text(name, &text);
        let out = attention(&bench, &model, &prompts(&golden), &["--circuit", file.to_str().unwrap()]);
        let patterns = Table::read_parquet(out.join("patterns.parquet")).unwrap();
        let of = patterns.ints("layer").unwrap().iter().zip(patterns.ints("head").unwrap());
        let heads: std::collections::BTreeSet<_> = of.map(|(layer, head)| (*layer, *head)).collect();
        assert_eq!(heads.into_iter().collect::<Vec<_>>(), [(0, 1), (1, 2)], "{name}");
        let record: Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
        assert!(record["dataset_sha256"].as_object().unwrap().keys().any(|path| path.ends_with(name)), "{record}");
        std::fs::remove_dir_all(out).unwrap();
    }
    let path = bench.dataset("prompts.jsonl", &prompts(&golden));
    let all: Vec<String> =
        gatelens::plan::Graph::of(&open("llama").decoder.arch).edges().map(|e| e.to_string()).collect();
    for (name, text, said) in [
        ("empty.txt", "# none\n".to_string(), "empty.txt: names no head"),
        ("neurons.txt", "L1.H2\nL1.N3\n".to_string(), "neurons.txt: line 2: `L1.N3` is no head"),
        ("twice.txt", "L1.H2 L1.H2".to_string(), "twice.txt: names L1.H2 twice"),
        ("far.json", json!({ "gate": [[9, 2]] }).to_string(), "far.json: L9.H2 is not in this model"),
        ("cut.json", "{\"gate\": [".to_string(), "cut.json: is no circuit's file"),
        ("other.json", "{\"heads\": []}".to_string(), "other.json: is no circuit's file; there are those of `screen`"),
        ("none.json", json!({ "gate": [] }).to_string(), "none.json: names no head"),
        ("mlps.json", marked(&["input->m0", "m0->logits"]), "mlps.json: names no head"),
        ("edge.json", marked(&["m9->logits"]), "edge.json: edge"),
        ("full.json", marked(&all.iter().map(String::as_str).collect::<Vec<_>>()), "full.json: marks every edge"),
    ] {
        let file = bench.text(name, &text);
        let words = ["attention", model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--circuit"];
        let out = bench.out("refused");
        gatelens([&words[..], &[file.to_str().unwrap(), "--out", out.to_str().unwrap()]].concat()).refused(&[said]);
    }
    // What a graph's MLPs are, `neurons` looks at alone.
    let file = bench.text("graph.json", &graph);
    let words = ["neurons", model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--circuit"];
    let metric = ["--answer", "id:11", "--foil", "id:7", "--quiet"];
    for (more, layers) in [(&[][..], vec![0]), (&["--layers", "0,1"], vec![0, 1]), (&["--neuron", "L1.N3"], vec![1])] {
        let out = bench.out("neurons");
        let words = [&words[..], &[file.to_str().unwrap(), "--out", out.to_str().unwrap()], &metric, more].concat();
        gatelens(words).done();
        let neurons = Table::read_parquet(out.join("neurons.parquet")).unwrap();
        let mut found = neurons.ints("layer").unwrap().to_vec();
        found.dedup();
        assert_eq!(found, layers, "{more:?}");
        let sets = Table::read_parquet(out.join("sets.parquet")).unwrap();
        let row = (0..sets.rows()).find(|i| sets.strs("set").unwrap()[*i] == "heads").unwrap();
        assert_eq!(sets.ints("heads").unwrap()[row], 2);
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn what_a_head_moves_is_its_value_through_its_part_of_the_output_projection() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), open("llama"));
    let out = attention(&bench, &family_dir("llama"), &prompts(&golden), &["--head", "L2.H3"]);
    let patterns = Table::read_parquet(out.join("patterns.parquet")).unwrap();
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", golden.ids("input_ids", 0));
    plan.read(prompt, Activation { site: SiteKind::V.at(2), positions: Positions::All, part: Part::All });
    let readings = run(&model.decoder, &plan, &Options::default()).unwrap();
    let values: Vec<f32> = readings.iter().flat_map(|r| r.values()).collect();
    // Four heads of 12 share two heads of values: those of the last one are columns 12 to 24.
    let o = Folder::of("llama").tensors()["model.layers.2.self_attn.o_proj.weight"].values();
    let norm = |j: usize| {
        let v = &values[j * 24 + 12..][..12];
        let of_row = |row: usize| -> f64 {
            v.iter().zip(&o[row * 48 + 36..][..12]).map(|(v, o)| f64::from(*v) * f64::from(*o)).sum()
        };
        (0..48).map(|row| of_row(row).powi(2)).sum::<f64>().sqrt()
    };
    let (ids, weights) = (patterns.strs("id").unwrap(), patterns.floats("weight").unwrap());
    let (keys, found) = (patterns.ints("key").unwrap(), patterns.floats("weighted_norm").unwrap());
    for i in (0..patterns.rows()).filter(|i| ids[*i] == "0") {
        let expected = weights[i].unwrap() * norm(keys[i] as usize);
        assert!((found[i].unwrap() - expected).abs() < 1e-5, "{i}: {:?} and {expected}", found[i]);
    }
}

#[test]
fn what_a_head_adds_of_each_position_sums_to_its_attribution_with_gates_sinks_and_latent_attention_too() {
    let others = fixtures().join("families");
    for (folder, layer) in [
        (family_dir("llama"), 1),
        (family_dir("gpt2"), 2),
        (family_dir("gemma2"), 3),
        (family_dir("olmo2"), 0),
        (others.join("gpt_oss"), 1),
        (others.join("qwen3_next"), 3),
        (others.join("deepseek_v3"), 1),
        (others.join("granite"), 1),
    ] {
        let (bench, golden) = (Bench::new(), Golden::at(&folder));
        let line = |i: usize| {
            let ids = golden.ids("input_ids", i);
            json!({ "id": i.to_string(), "prompt": { "ids": ids }, "answer": [11, 30], "foil": [23, 7] })
        };
        let model = gatelens::model::Model::open(folder.to_str().unwrap(), &Default::default()).unwrap();
        let n = model.decoder.arch.layers[layer].heads();
        let heads: Vec<String> = (0..n).map(|head| format!("L{layer}.H{head}")).collect();
        let out = attention(&bench, &folder, &[line(0), line(1)], &["--head", &heads.join(",")]);
        let (path, dla) = (bench.path("prompts.jsonl"), bench.out("dla"));
        let words = ["dla", folder.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--quiet", "--out"];
        gatelens([&words[..], &[dla.to_str().unwrap()]].concat()).done();
        let sources = Table::read_parquet(out.join("sources.parquet")).unwrap();
        let items = Table::read_parquet(dla.join("items.parquet")).unwrap();
        for (prompt, head) in (0..2).flat_map(|prompt| (0..n).map(move |head| (prompt, head))) {
            let rows = (0..sources.rows()).filter(|i| {
                sources.strs("id").unwrap()[*i] == prompt.to_string()
                    && sources.ints("head").unwrap()[*i] == head as i64
            });
            let rows: Vec<usize> = rows.collect();
            let sum: f64 = rows.iter().filter_map(|i| sources.floats("attribution").unwrap()[*i]).sum();
            let whole = (0..items.rows()).find(|i| {
                items.strs("id").unwrap()[*i] == prompt.to_string()
                    && items.ints("layer").unwrap()[*i] == layer as i64
                    && items.strs("component").unwrap()[*i] == format!("head.{head}")
            });
            let whole = items.floats("attribution").unwrap()[whole.expect("the head")].unwrap();
            let at = format!("{} prompt {prompt} head {head}", folder.display());
            assert!((sum - whole).abs() < 2e-5 * (1.0 + whole.abs()), "{at}: {sum} and {whole}");
            assert!(rows.len() == golden.shape("input_ids")[1], "{at}: a row for each position");
        }
        let report = std::fs::read_to_string(out.join("report.md")).unwrap();
        assert!(report.contains("What they read for the answer"), "{}", folder.display());
    }
}

#[test]
fn repeated_tokens_alone_have_duplicates_and_layers_without_attention_are_passed_over() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let half = &golden.ids("input_ids", 0)[..5];
    let both = [half, half].concat();
    let twice = json!({ "id": "twice", "prompt": { "ids": both } });
    let once = json!({ "id": "once", "prompt": { "ids": (20..28).collect::<Vec<u32>>() } });
    let out = attention(&bench, &family_dir("llama"), &[twice, once], &[]);
    let table = Table::read_parquet(out.join("heads.parquet")).unwrap();
    assert!(table.ints("n").unwrap().iter().all(|n| *n == 2));
    assert!(table.ints("n_duplicate").unwrap().iter().all(|n| *n == 1));
    assert!(table.floats("induction").unwrap().iter().all(Option::is_some));
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for words in ["previous.png", "induction.png", "that looks most at the first token is L", "an entropy of"] {
        assert!(report.contains(words), "the report has no `{words}`");
    }
    // A hybrid: only some of its layers have patterns.
    let (bench, hybrid) = (Bench::new(), fixtures().join("families/qwen3_next"));
    let lines = [json!({ "id": "a", "prompt": { "ids": [3, 5, 7, 3, 5] } })];
    let table = Table::read_parquet(attention(&bench, &hybrid, &lines, &[]).join("heads.parquet")).unwrap();
    let mut layers = table.ints("layer").unwrap().to_vec();
    layers.dedup();
    assert!(!layers.is_empty() && layers.len() < 4, "the layers with attention: {layers:?}");
}

#[test]
fn heads_that_are_not_there_and_models_without_attention_are_refused() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let path = bench.dataset("p.jsonl", &prompts(&golden));
    let refused = |model: &Path, more: &[&str], parts: &[&str]| {
        let words = ["attention", model.to_str().unwrap(), "--prompts", path.to_str().unwrap()];
        gatelens([&words[..], &["--out", bench.out("x").to_str().unwrap()], more].concat()).refused(parts);
    };
    refused(&family_dir("llama"), &["--head", "L9.H0"], &["--head", "L9.H0", "layers 0 to 3"]);
    refused(&family_dir("llama"), &["--head", "L1.H0,L1.H0"], &["--head", "twice"]);
    refused(&fixtures().join("families/mamba"), &[], &["pattern", "recurrent"]);
}

/// Three prompts with an answer and a foil: S has two positions, one and none, and END is the last position.
fn with_spans(golden: &Golden) -> Vec<Value> {
    let mut shorter = golden.ids("donor_ids", 0);
    shorter.truncate(shorter.len() - 2);
    let prompts = [golden.ids("input_ids", 0), golden.ids("input_ids", 1), shorter];
    let spans = [json!({"S": [3, 1], "END": [-1]}), json!({"END": [-1], "S": [4]}), json!({"END": [-1]})];
    let one = |(i, (ids, spans)): (usize, (&Vec<u32>, Value))| json!({ "id": i.to_string(), "prompt": { "ids": ids }, "answer": [11, 30], "foil": [23, 7], "spans": spans });
    prompts.iter().zip(spans).enumerate().map(one).collect()
}

/// A row of `spans.parquet`, with the numbers of a mean and its interval.
struct BySpan {
    query: String,
    head: (i64, i64),
    source: String,
    n: i64,
    tokens: f64,
    numbers: [[Option<f64>; 3]; 3],
    p: Option<f64>,
    q: Option<f64>,
}

fn by_span(out: &Path) -> Vec<BySpan> {
    let table = Table::read_parquet(out.join("spans.parquet")).unwrap();
    let (ints, floats) = (|name: &str| table.ints(name).unwrap(), |name: &str| table.floats(name).unwrap());
    let (queries, sources) = (table.strs("query").unwrap(), table.strs("source").unwrap());
    let of = |i: usize| {
        let numbers = ["weight", "weighted_norm", "attribution"]
            .map(|name| ["", "_ci_low", "_ci_high"].map(|end| floats(&format!("{name}{end}"))[i]));
        BySpan {
            query: queries[i].to_string(),
            head: (ints("layer")[i], ints("head")[i]),
            source: sources[i].to_string(),
            n: ints("n")[i],
            tokens: floats("tokens")[i].unwrap(),
            numbers,
            p: floats("p_value")[i],
            q: floats("q_value")[i],
        }
    };
    (0..table.rows()).map(of).collect()
}

/// What prompts' patterns and values say, read by a plan of its own: `[prompts][layers]`.
fn traced(golden: &Golden, kind: SiteKind) -> Vec<Vec<Vec<f32>>> {
    let model = open("llama");
    let of = |line: &Value| {
        let ids: Vec<u32> = serde_json::from_value(line["prompt"]["ids"].clone()).unwrap();
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", ids);
        for layer in 0..4 {
            plan.read(prompt, Activation { site: kind.at(layer), positions: Positions::All, part: Part::All });
        }
        let readings = run(&model.decoder, &plan, &Options::default()).unwrap();
        readings.iter().map(|r| r.values().to_vec()).collect()
    };
    with_spans(golden).iter().map(of).collect()
}

/// The positions of the parts of the prompts of [`with_spans`]; none of a part that a prompt lacks.
fn part(source: &str, prompt: usize, n: usize) -> Option<Vec<usize>> {
    let s: &[usize] = [&[1, 3][..], &[4], &[]][prompt];
    let found: Vec<usize> = match source {
        "S" => s.to_vec(),
        "END" => vec![n - 1],
        "first" => vec![0],
        "rest" => (1..n - 1).filter(|p| !s.contains(p)).collect(),
        _ => (0..n).collect(),
    };
    (!found.is_empty()).then_some(found)
}

#[test]
fn what_heads_give_to_spans_are_means_of_sums_over_their_positions_with_intervals() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let lines = with_spans(&golden);
    let more = ["--head", "L2.H3,L1.H0", "--by-span", "--query", "last,S"];
    let out = attention(&bench, &family_dir("llama"), &lines, &more);
    let (patterns, values) = (traced(&golden, SiteKind::Pattern), traced(&golden, SiteKind::V));
    let n = |prompt: usize| lines[prompt]["prompt"]["ids"].as_array().unwrap().len();
    let tensors = Folder::of("llama").tensors();
    let o: Vec<Vec<f32>> =
        (0..4).map(|l| tensors[&format!("model.layers.{l}.self_attn.o_proj.weight")].values()).collect();
    // Four heads of 12 share two heads of values.
    let norm = |prompt: usize, l: usize, h: usize, j: usize| {
        let v = &values[prompt][l][j * 24 + h / 2 * 12..][..12];
        let row = |row: usize| -> f64 {
            v.iter().zip(&o[l][row * 48 + h * 12..][..12]).map(|(v, o)| f64::from(*v) * f64::from(*o)).sum()
        };
        (0..48).map(|i| row(i).powi(2)).sum::<f64>().sqrt()
    };
    let weight = |prompt: usize, l: usize, h: usize, t: usize, j: usize| {
        f64::from(patterns[prompt][l][(t * 4 + h) * n(prompt) + j])
    };
    let sources = Table::read_parquet(out.join("sources.parquet")).unwrap();
    let attributed = |prompt: usize, (l, h): (i64, i64), j: usize| {
        let ints = |name: &str| sources.ints(name).unwrap();
        let is = |i: &usize| {
            sources.strs("id").unwrap()[*i] == prompt.to_string() && (ints("layer")[*i], ints("head")[*i]) == (l, h)
        };
        let row = (0..sources.rows()).filter(is).find(|i| ints("key")[*i] == j as i64).expect("a row");
        sources.floats("attribution").unwrap()[row].unwrap()
    };
    let rows = by_span(&out);
    assert_eq!(rows.len(), 3 * (5 + 4), "S sees nothing of END");
    let options = Bootstrap::default();
    for row in &rows {
        let heads: Vec<(usize, usize)> = match row.head {
            (-1, -1) => (0..4).flat_map(|l| (0..4).map(move |h| (l, h))).collect(),
            (l, h) => vec![(l as usize, h as usize)],
        };
        let (mut weights, mut moved, mut attributions, mut tokens) = (vec![], vec![], vec![], vec![]);
        for prompt in 0..3 {
            let last = row.query == "last";
            let query = part(if last { "END" } else { "S" }, prompt, n(prompt));
            let (Some(query), Some(keys)) = (query, part(&row.source, prompt, n(prompt))) else { continue };
            let seen: Vec<usize> = keys.into_iter().filter(|j| j <= query.iter().max().unwrap()).collect();
            if seen.is_empty() {
                continue;
            }
            let over = |of: &dyn Fn(usize, usize, usize, usize) -> f64| -> f64 {
                let all = heads.iter().flat_map(|(l, h)| query.iter().map(move |t| (*l, *h, *t)));
                let sum: f64 = all
                    .flat_map(|(l, h, t)| seen.iter().map(move |j| (l, h, t, *j)))
                    .map(|(l, h, t, j)| of(l, h, t, j))
                    .sum();
                sum / (heads.len() * query.len()) as f64
            };
            weights.push(over(&|l, h, t, j| weight(prompt, l, h, t, j)));
            moved.push(over(&|l, h, t, j| weight(prompt, l, h, t, j) * norm(prompt, l, h, j)));
            tokens.push(seen.len() as f64);
            if last && row.head.0 >= 0 {
                attributions.push(seen.iter().map(|j| attributed(prompt, row.head, *j)).sum::<f64>());
            }
        }
        let at = format!("{} {:?} {}", row.query, row.head, row.source);
        assert_eq!(row.n, weights.len() as i64, "{at}");
        assert!((row.tokens - tokens.iter().sum::<f64>() / tokens.len() as f64).abs() < 1e-12, "{at}");
        for (found, expected) in row.numbers.iter().zip([&weights, &moved, &attributions]) {
            let Some(value) = found[0].filter(|_| !expected.is_empty()) else { continue };
            let interval = bca_mean(expected, &options).expect("two prompts or three");
            let mean = expected.iter().sum::<f64>() / expected.len() as f64;
            for (found, expected) in
                [(value, mean), (found[1].unwrap(), interval.low), (found[2].unwrap(), interval.high)]
            {
                assert!((found - expected).abs() < 1e-5, "{at}: {found} and {expected}");
            }
        }
        assert_eq!(row.numbers[2][0].is_some(), row.query == "last", "{at}: only the last position is attributed");
        if row.head.0 >= 0 && row.query == "last" {
            assert_eq!(row.p, sign_flip(&attributions, 10_000, 0), "{at}");
        }
    }
    let family: Vec<&BySpan> = rows.iter().filter(|row| row.query == "last").collect();
    let q = benjamini_hochberg(&family.iter().map(|row| row.p.unwrap()).collect::<Vec<_>>());
    assert!(family.iter().zip(q).all(|(row, q)| row.q == Some(q)));
}

#[test]
fn parts_sum_to_the_whole_of_a_head_and_all_heads_to_all_that_is_attributed_to_them() {
    for family in ["llama", "gpt2", "gemma2"] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let lines = with_spans(&golden);
        let out = attention(&bench, &family_dir(family), &lines, &["--head", "L2.H1,L0.H0", "--by-span"]);
        let rows = by_span(&out);
        for head in [(2, 1), (0, 0), (-1, -1)] {
            let of = |row: &&BySpan| row.head == head;
            let (whole, parts): (Vec<&BySpan>, Vec<&BySpan>) =
                rows.iter().filter(of).partition(|row| row.source == "all");
            assert_eq!((whole.len(), parts.len()), (1, 4), "{family}");
            for k in 0..3 {
                // A part's mean is over the prompts that have it.
                let sum: f64 = parts.iter().map(|row| row.numbers[k][0].unwrap() * row.n as f64).sum();
                let all = whole[0].numbers[k][0].unwrap() * whole[0].n as f64;
                assert!((sum - all).abs() < 1e-12 * (1.0 + all.abs()), "{family} {head:?} {k}: {sum} and {all}");
            }
            assert!((whole[0].numbers[0][0].unwrap() - 1.0).abs() < 1e-6, "{family}: a pattern sums to 1");
        }
        let (path, dla) = (bench.path("prompts.jsonl"), bench.out("dla"));
        let words =
            ["dla", family_dir(family).to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--quiet", "--out"]
                .map(str::to_string);
        gatelens(words.iter().map(String::as_str).chain([dla.to_str().unwrap()])).done();
        let components = Table::read_parquet(dla.join("components.parquet")).unwrap();
        let names = components.strs("component").unwrap();
        let heads = (0..components.rows()).filter(|i| names[*i].starts_with("head."));
        let expected: f64 = heads.map(|i| components.floats("attribution_mean").unwrap()[i].unwrap()).sum();
        let found = rows.iter().find(|row| row.head == (-1, -1) && row.source == "all").unwrap().numbers[2][0].unwrap();
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{family}: {found} and {expected}");
    }
}

#[test]
fn the_report_says_of_spans_what_their_intervals_say() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let heads: Vec<String> = (0..4).flat_map(|l| (0..4).map(move |h| format!("L{l}.H{h}"))).collect();
    let more = ["--head", &heads.join(","), "--by-span"];
    let out = attention(&bench, &family_dir("llama"), &with_spans(&golden), &more);
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for part in ["Part by part, from the last position", "weight-by-span-last.png", "attribution-by-span-last.png"] {
        assert!(report.contains(part), "no {part}");
    }
    assert!(out.join("weight-by-span-last.png").is_file() && out.join("attribution-by-span-last.png").is_file());
    let rows = by_span(&out);
    for (l, h) in (0..4).flat_map(|l| (0..4).map(move |h| (l, h))) {
        let parts: Vec<&BySpan> = rows.iter().filter(|row| row.head == (l, h) && row.source != "all").collect();
        let ends = |row: &BySpan, k: usize| row.numbers[k][1].zip(row.numbers[k][2]);
        let above = |row: &BySpan| {
            let low = ends(row, 0).unwrap().0;
            parts.iter().filter(|other| other.source != row.source).all(|other| ends(other, 0).unwrap().1 < low)
        };
        let words = |source: &str| match source {
            "first" => "the first token".to_string(),
            "rest" => "the rest".to_string(),
            span => span.to_string(),
        };
        for row in &parts {
            let said = format!("L{l}.H{h} gives {} more weight than any other part", words(&row.source));
            assert_eq!(report.contains(&said), above(row), "{said}");
        }
        let nothing = parts.iter().all(|row| ends(row, 2).is_some_and(|(low, high)| low < 0.0005 && high > -0.0005));
        let line = report.lines().find(|line| line.starts_with(&format!("L{l}.H{h} gives"))).expect("a paragraph");
        assert_eq!(line.contains("no part moves the logit difference beyond chance"), nothing, "{line}");
    }
    let again = bench.out("report");
    gatelens(["report", out.to_str().unwrap(), "--out", again.to_str().unwrap()]).done();
}

#[test]
fn pairs_are_asked_about_by_their_positive_prompts() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let lines = with_spans(&golden);
    let pair = |line: &Value| {
        let mut pair = line.clone();
        pair["positive"] = pair.as_object_mut().unwrap().remove("prompt").unwrap();
        pair["negative"] = json!({ "ids": golden.ids("donor_ids", 1) });
        pair
    };
    let more = ["--head", "L2.H3", "--by-span"];
    let expected = attention(&bench, &family_dir("llama"), &lines, &more);
    let pairs = bench.dataset("pairs.jsonl", &lines.iter().map(pair).collect::<Vec<_>>());
    let run = |name: &str, more: &[&str]| {
        let (out, model) = (bench.out(name), family_dir("llama"));
        let words = ["attention", model.to_str().unwrap(), "--pairs", pairs.to_str().unwrap(), "--quiet", "--out"];
        gatelens([&words[..], &[out.to_str().unwrap()], more].concat()).done();
        out
    };
    let found = run("pairs", &more);
    for name in ["spans.parquet", "sources.parquet", "patterns.parquet", "heads.parquet"] {
        assert_eq!(std::fs::read(found.join(name)).unwrap(), std::fs::read(expected.join(name)).unwrap(), "{name}");
    }
    let fewer = run("fewer", &["--by-span", "--max-pairs", "2"]);
    assert!(by_span(&fewer).iter().all(|row| row.head == (-1, -1) && row.n <= 2), "no head is chosen");
}

#[test]
fn spans_that_are_not_asked_for_change_nothing() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let with = with_spans(&golden);
    let without = |line: &Value| {
        let mut line = line.clone();
        line.as_object_mut().unwrap().remove("spans");
        line
    };
    let run = |bench: &Bench, lines: &[Value]| attention(bench, &family_dir("llama"), lines, &["--head", "L2.H3"]);
    let (a, other) = (run(&bench, &with), Bench::new());
    let b = run(&other, &with.iter().map(without).collect::<Vec<_>>());
    for name in ["sources.parquet", "patterns.parquet", "heads.parquet"] {
        assert_eq!(std::fs::read(a.join(name)).unwrap(), std::fs::read(b.join(name)).unwrap(), "{name}");
    }
    assert!(!a.join("spans.parquet").exists() && !a.join("weight-by-span-last.png").exists());
}

#[test]
fn spans_that_cannot_be_looked_at_are_refused_with_their_place() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let model = family_dir("llama");
    let words = |lines: &[Value], more: &[&str]| {
        let path = bench.dataset("p.jsonl", lines);
        let out = bench.out("x");
        let words = ["attention", model.to_str().unwrap(), "--prompts", path.to_str().unwrap(), "--out"];
        gatelens([&words[..], &[out.to_str().unwrap()], more].concat())
    };
    let mut lines = with_spans(&golden);
    let known = lines.clone();
    lines[1]["spans"]["S"] = json!([99]);
    let parts = ["p.jsonl", "line 2", "field \"spans\" of \"1\"", "S has position 99", "the prompt has"];
    words(&lines, &["--by-span"]).refused(&parts);
    lines[1]["spans"] = json!({ "rest": [1] });
    words(&lines, &["--by-span"]).refused(&["p.jsonl", "`rest`", "call it otherwise"]);
    words(&prompts(&golden), &["--by-span"]).refused(&["p.jsonl", "no prompt has \"spans\"", "\"END\": [-1]"]);
    words(&known, &["--by-span", "--query", "IO"]).refused(&["--query", "`IO`", "last, S, END"]);
    words(&known, &["--by-span", "--query", "S,S"]).refused(&["--query", "S twice"]);
    words(&known, &["--query", "S"]).told_by_the_parser(&["--by-span"]);
    words(&known, &["--pairs", "p.jsonl"]).told_by_the_parser(&["--prompts", "--pairs"]);
    lines[0]["spans"] = json!({ "S": ["1"] });
    words(&lines, &[]).refused(&["line 1", "field \"spans.S[0]\"", "a position"]);
}

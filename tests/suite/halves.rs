//! Answer and foil apart: halves of logit differences, of effects and of attributions, held to the whole vocabulary's logits.

use crate::support::cli::{Bench, gatelens};
use crate::support::{FAMILIES, Golden, family_dir, open};
use gatelens::model::Model;
use gatelens::plan::{Activation, Change, Edit, Gradient, Metric, Part, Plan, Positions, Run, What};
use gatelens::run::{Engine, Options, Reading, run};
use gatelens::site::SiteKind;
use gatelens::table::{Kind, Table};
use serde_json::json;
use std::path::{Path, PathBuf};

const ANSWER: [u32; 3] = [11, 30, 4];
const FOIL: [u32; 2] = [23, 7];

fn difference() -> Metric {
    Metric::logit_difference(ANSWER.to_vec(), FOIL.to_vec())
}

fn half(tokens: &[u32]) -> Metric {
    Metric::AboveMean { tokens: tokens.to_vec() }
}

fn readings(model: &Model, plan: &Plan, engine: Engine) -> Vec<Reading> {
    run(&model.decoder, plan, &Options { engine, ..Options::default() }).expect("readings").into_inner()
}

/// `logsumexp(the tokens' logits) - mean logit` of a row of all logits, by the definition.
fn above_mean(logits: &[f64], tokens: &[u32]) -> f64 {
    let sum: f64 = tokens.iter().map(|id| logits[*id as usize].exp()).sum();
    sum.ln() - logits.iter().sum::<f64>() / logits.len() as f64
}

/// Two prompts, a fork at heads, a fork of it, one whose final norm and one whose logits are edited.
fn runs(plan: &mut Plan, golden: &Golden) -> Vec<Run> {
    let (a, b) = (plan.prompt("a", golden.ids("input_ids", 0)), plan.prompt("b", golden.ids("donor_ids", 0)));
    let edit = |site, part, change| vec![Edit { site, part, positions: Positions::Last, change }];
    let one = plan.fork(a, edit(SiteKind::Z.at(0), Part::Heads(vec![1]), Change::interchange(b)));
    let two = plan.fork(one, edit(SiteKind::MlpOut.at(1), Part::All, Change::Scale(0.5)));
    let normed = plan.fork(a, edit(SiteKind::FinalNorm.at(0), Part::All, Change::Scale(1.5)));
    let columns = Part::Columns(vec![11, 23, 40]);
    let logits = plan.fork(two, edit(SiteKind::Logits.at(0), columns, Change::Scale(-2.0)));
    vec![a, b, one, two, normed, logits]
}

#[test]
fn both_halves_are_those_of_the_whole_vocabularys_logits_in_every_family_and_engine() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Golden::of(family));
        let mut plan = Plan::default();
        let runs = runs(&mut plan, &golden);
        for run in &runs {
            for metric in [difference(), half(&ANSWER), half(&FOIL)] {
                plan.read(*run, What::Metric(metric));
            }
            let (site, positions) = (SiteKind::Logits.at(0), Positions::Last);
            plan.read(*run, Activation { site, positions, part: Part::All });
        }
        let mut seen = Vec::new();
        for engine in [Engine::Wavefront, Engine::Full] {
            for (r, of_run) in readings(&model, &plan, engine).chunks_exact(4).enumerate() {
                let [whole, answer, foil] = [0, 1, 2].map(|k: usize| of_run[k].number().expect("a number"));
                let logits: Vec<f64> = of_run[3].values().iter().map(|x| f64::from(*x)).collect();
                // Vocabularies of the fixtures are under 1,024 tokens: the mean of soft-capped logits is over all of them too.
                for (found, tokens) in [(answer, &ANSWER[..]), (foil, &FOIL[..])] {
                    let expected = above_mean(&logits, tokens);
                    assert!((found - expected).abs() < 1e-4, "{family} {engine} {r}: {found} and {expected}");
                }
                assert!((answer - foil - whole).abs() < 1e-9, "{family} {engine} {r}: {answer} - {foil} and {whole}");
                seen.push(answer);
            }
        }
        assert!((seen[0] - seen[2]).abs() > 1e-5, "{family}: the fork moves the answer's half");
    }
}

#[test]
fn attributions_to_a_half_sum_to_it_and_the_two_differ_by_the_whole_in_every_family_and_engine() {
    for family in FAMILIES {
        let (model, golden) = (open(family), Golden::of(family));
        let mut plan = Plan::default();
        for p in 0..2 {
            let prompt = plan.prompt(format!("{p}"), golden.ids("input_ids", p));
            for metric in [difference(), half(&ANSWER), half(&FOIL)] {
                plan.read(prompt, What::Attribution(metric));
            }
            let (site, positions) = (SiteKind::Logits.at(0), Positions::Last);
            plan.read(prompt, Activation { site, positions, part: Part::All });
        }
        for engine in [Engine::Wavefront, Engine::Full] {
            for of_prompt in readings(&model, &plan, engine).chunks_exact(4) {
                let logits: Vec<f64> = of_prompt[3].values().iter().map(|x| f64::from(*x)).collect();
                let before = |x: &f64| model.decoder.arch.logit_softcap.map_or(*x, |cap| cap * (x / cap).atanh());
                let logits: Vec<f64> = logits.iter().map(before).collect();
                let [whole, answer, foil] = [0, 1, 2].map(|k: usize| of_prompt[k].values());
                for (half, tokens) in [(&answer, &ANSWER[..]), (&foil, &FOIL[..])] {
                    let sum: f64 = half.iter().map(|x| f64::from(*x)).sum();
                    let expected = above_mean(&logits, tokens);
                    assert!((sum - expected).abs() < 1e-4, "{family} {engine}: {sum} and {expected}");
                }
                for ((whole, answer), foil) in whole.iter().zip(&answer).zip(&foil) {
                    assert!((answer - foil - whole).abs() < 1e-5, "{family}: {answer} - {foil} and {whole}");
                }
            }
        }
    }
}

/// A head's attribution from its own output, through the final norm as it stands, along the unembedding less its mean.
#[test]
fn a_heads_attribution_to_a_half_is_along_the_tokens_centred_unembedding() {
    let (model, golden) = (open("llama"), Golden::of("llama"));
    let arch = &model.decoder.arch;
    let mut plan = Plan::default();
    let prompt = plan.prompt("p", golden.ids("input_ids", 0));
    plan.read(prompt, What::Attribution(half(&[11])));
    let last = |site| Activation { site, positions: Positions::Last, part: Part::All };
    for site in [SiteKind::HeadOut.at(1), SiteKind::ResidPost.at(arch.n_layers - 1), SiteKind::FinalNorm.at(0)] {
        plan.read(prompt, last(site));
    }
    let found: Vec<Vec<f32>> = readings(&model, &plan, Engine::Wavefront).iter().map(Reading::values).collect();
    let all: Vec<u32> = (0..arch.vocab as u32).collect();
    let rows: Vec<Vec<f32>> = model.decoder.unembedding(&all).and_then(|t| t.to_vec2()).unwrap();
    let mean = |i: usize| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64;
    let means: Vec<f64> = (0..arch.d_model).map(mean).collect();
    for h in 0..arch.n_heads {
        let out = &found[1][h * arch.d_model..(h + 1) * arch.d_model];
        let one =
            |i: usize| f64::from(out[i]) * f64::from(found[3][i] / found[2][i]) * (f64::from(rows[11][i]) - means[i]);
        let expected: f64 = (0..arch.d_model).map(one).sum();
        let found = f64::from(found[0][(arch.n_heads + 2) + h]);
        assert!((found - expected).abs() < 1e-5, "head {h}: {found} and {expected}");
    }
}

#[test]
fn gradients_of_the_halves_differ_by_that_of_the_whole() {
    for family in ["llama", "gemma2", "gpt2"] {
        let (model, golden) = (open(family), Golden::of(family));
        let mut plan = Plan::default();
        let runs = runs(&mut plan, &golden);
        let last = model.decoder.arch.n_layers - 1;
        let sites =
            [SiteKind::Z.at(0), SiteKind::ResidPost.at(last), SiteKind::FinalNorm.at(0), SiteKind::Logits.at(0)];
        for run in [runs[0], runs[3]] {
            for site in sites {
                for metric in [difference(), half(&ANSWER), half(&FOIL)] {
                    plan.read(run, Gradient { metric, site, positions: Positions::Last, part: Part::All });
                }
            }
        }
        for of_site in readings(&model, &plan, Engine::Wavefront).chunks_exact(3) {
            let [whole, answer, foil] = [0, 1, 2].map(|k: usize| of_site[k].values());
            let size = whole.iter().map(|x| x.abs()).fold(0.0, f32::max);
            for ((whole, answer), foil) in whole.iter().zip(&answer).zip(&foil) {
                assert!((answer - foil - whole).abs() < 1e-5 * (1.0 + size), "{family}: {answer} - {foil} and {whole}");
            }
            assert!(
                answer.iter().zip(&whole).any(|(a, w)| (a - w).abs() > 1e-3 * size),
                "{family}: a half is not the whole"
            );
        }
    }
}

#[test]
fn a_half_needs_tokens_that_the_model_has() {
    let model = open("llama");
    for (tokens, why) in [(vec![], "needs tokens"), (vec![11, 99_999], "token id 99999")] {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", vec![1, 2]);
        plan.read(prompt, What::Metric(half(&tokens)));
        let error = plan.check(&model.decoder.arch).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Runs an analysis of a family and returns its run directory.
fn analysed(bench: &Bench, family: &str, command: &str, lines: &[serde_json::Value], more: &[&str]) -> PathBuf {
    let (path, out) =
        (bench.dataset(&format!("{family}-{command}.jsonl"), lines), bench.out(&format!("{family}-{command}")));
    let of_pairs = ["interchange", "cascade", "contrast-methods"].contains(&command);
    let file = if of_pairs { "--pairs" } else { "--prompts" };
    let (model, path, to) = (family_dir(family), path.to_str().unwrap(), out.to_str().unwrap());
    let words = [command, model.to_str().unwrap(), file, path, "--out", to, "--quiet"];
    gatelens([&words[..], more].concat()).done();
    out
}

fn prompts(golden: &Golden) -> Vec<serde_json::Value> {
    let one = |(name, i): (&str, usize)| {
        json!({ "id": format!("{name}{i}"), "prompt": { "ids": golden.ids(name, i) }, "answer": ANSWER, "foil": FOIL,
                "label": name })
    };
    [("input_ids", 0), ("input_ids", 1), ("donor_ids", 0), ("donor_ids", 1)].map(one).to_vec()
}

fn pairs(golden: &Golden) -> Vec<serde_json::Value> {
    let one = |i: usize| {
        json!({ "id": i.to_string(), "positive": { "ids": golden.ids("input_ids", i) },
                "negative": { "ids": golden.ids("donor_ids", i) }, "answer": ANSWER, "foil": FOIL })
    };
    vec![one(0), one(1)]
}

/// The halves' columns of each item against the whole vocabulary's logits of the same edited run.
#[test]
fn the_items_of_interchange_and_ablation_have_the_halves_of_their_own_runs() {
    for family in ["llama", "gemma2", "gpt2", "olmo2"] {
        let (bench, golden, model) = (Bench::new(), Golden::of(family), open(family));
        let out = analysed(&bench, family, "interchange", &pairs(&golden), &["--direction", "necessity"]);
        let found = Table::read_parquet(out.join("pairs.parquet")).unwrap();
        let mut plan = Plan::default();
        let logits = || Activation { site: SiteKind::Logits.at(0), positions: Positions::Last, part: Part::All };
        for i in 0..2 {
            let runs = ["input_ids", "donor_ids"].map(|name| plan.prompt("p", golden.ids(name, i)));
            plan.read(runs[0], logits());
            for (layer, head) in model.heads() {
                let (site, part, change) =
                    (SiteKind::Z.at(layer), Part::Heads(vec![head]), Change::interchange(runs[1]));
                let fork = plan.fork(runs[0], vec![Edit { site, part, positions: Positions::Last, change }]);
                plan.read(fork, logits());
            }
        }
        let rows: Vec<Vec<f64>> = readings(&model, &plan, Engine::Full)
            .iter()
            .map(|r| r.values().iter().map(|x| f64::from(*x)).collect())
            .collect();
        let float = |name: &str| found.floats(name).unwrap();
        let (base, patched, effect) = (float("base_metric"), float("patched_metric"), float("effect"));
        let units = rows.len() / 2 - 1;
        assert_eq!(found.rows(), 2 * units);
        for k in 0..found.rows() {
            let (unit, pair) = (k / 2, k % 2);
            let (clean, edited) = (&rows[pair * (units + 1)], &rows[pair * (units + 1) + 1 + unit]);
            for (name, tokens) in [("answer_effect", &ANSWER[..]), ("foil_effect", &FOIL[..])] {
                let (found, expected) =
                    (float(name)[k].unwrap(), above_mean(edited, tokens) - above_mean(clean, tokens));
                assert!((found - expected).abs() < 1e-4, "{family} {name} {k}: {found} and {expected}");
            }
            assert_eq!(effect[k], Some(patched[k].unwrap() - base[k].unwrap()));
            let halves = float("answer_effect")[k].unwrap() - float("foil_effect")[k].unwrap();
            assert!((halves - effect[k].unwrap()).abs() < 1e-12);
        }
    }
}

/// Means of the items are what the tables of heads say, and shares are ratios of means.
#[test]
fn the_tables_of_heads_have_the_means_of_the_halves_and_one_share() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let out = analysed(&bench, "llama", "ablate", &prompts(&golden), &["--mode", "zero"]);
    let [heads, items] = ["heads", "items"].map(|t| Table::read_parquet(out.join(format!("{t}.parquet"))).unwrap());
    assert!(items.opt_strs("label").unwrap().iter().all(|label| label.is_some()));
    let means = |name: &str| -> Vec<f64> {
        items.floats(name).unwrap().chunks_exact(4).map(|x| x.iter().flatten().sum::<f64>() / 4.0).collect()
    };
    let near = |name: &str, expected: &[f64]| {
        for (found, expected) in heads.floats(name).unwrap().iter().zip(expected) {
            assert!((found.unwrap() - expected).abs() < 1e-9, "{name}: {found:?} and {expected}");
        }
    };
    near("effect_mean", &means("effect"));
    near("answer_effect_mean", &means("answer_effect"));
    near("foil_effect_mean", &means("foil_effect"));
    let shares: Vec<f64> = means("effect").iter().zip(means("base_metric")).map(|(e, b)| e / b).collect();
    near("share_of_base", &shares);
    for what in ["answer_effect", "foil_effect"] {
        let float = |end: &str| heads.floats(&format!("{what}_{end}")).unwrap();
        for i in 0..heads.rows() {
            let (low, mean, high) =
                (float("ci_low")[i].unwrap(), float("mean")[i].unwrap(), float("ci_high")[i].unwrap());
            assert!(low <= mean + 1e-9 && mean <= high + 1e-9, "{what} {i}: {low} {mean} {high}");
        }
    }
    let out = analysed(&bench, "llama", "interchange", &pairs(&golden), &[]);
    let heads = Table::read_parquet(out.join("heads.parquet")).unwrap();
    let float = |name: &str| heads.floats(name).unwrap();
    for (i, direction) in heads.strs("direction").unwrap().into_iter().enumerate() {
        let gap = float("negative_mean")[i].unwrap() - float("positive_mean")[i].unwrap();
        let gap = if direction == "necessity" { gap } else { -gap };
        assert_eq!(float("share_of_gap")[i], Some(float("effect_mean")[i].unwrap() / gap));
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    for words in [
        "Interchange, necessity: answer and foil apart",
        "halves.png",
        "halves-sufficiency.png",
        "What moved",
        "% of the gap",
    ] {
        assert!(report.contains(words), "the report has no `{words}`");
    }
}

#[test]
fn attributions_of_items_sum_to_both_halves_of_the_metric() {
    for family in ["llama", "gpt2", "gemma2"] {
        let (bench, golden) = (Bench::new(), Golden::of(family));
        let out = analysed(&bench, family, "dla", &prompts(&golden), &[]);
        let items = Table::read_parquet(out.join("items.parquet")).unwrap();
        let float = |name: &str| items.floats(name).unwrap();
        let of_prompt =
            |name: &str, p: usize| -> Vec<f64> { float(name).iter().skip(p).step_by(4).flatten().copied().collect() };
        for p in 0..4 {
            let sum = |name: &str| of_prompt(name, p).iter().sum::<f64>();
            let apart = sum("answer_attribution") - sum("foil_attribution");
            assert!((apart - sum("attribution")).abs() < 1e-9, "{family}");
            // Attributions are of logits before soft-capping.
            if family != "gemma2" {
                for (attributions, metric) in [
                    ("attribution", "metric"),
                    ("answer_attribution", "answer_metric"),
                    ("foil_attribution", "foil_metric"),
                ] {
                    let (sum, whole) = (sum(attributions), of_prompt(metric, p)[0]);
                    assert!((sum - whole).abs() < 1e-4, "{family} {attributions}: {sum} and {whole}");
                }
            }
        }
        let writers = items.opt_strs("writer").unwrap();
        let names = items.strs("component").unwrap();
        for (writer, name) in writers.iter().zip(&names) {
            assert_eq!(writer.is_none(), *name == "bias" || *name == "logsumexp", "{name}: {writer:?}");
        }
        assert!(writers.contains(&Some("input")) && writers.contains(&Some("a1.h0")) && writers.contains(&Some("m0")));
    }
}

/// Runs an analysis of the demo's first twelve pairs.
fn of_pairs(bench: &Bench, command: &str, more: &[&str]) -> PathBuf {
    let out = bench.out(command);
    let words = [command, "demo", "--pairs", "demo:pairs.jsonl", "--max-pairs", "12", "--quiet", "--out"];
    gatelens([&words[..], &[out.to_str().unwrap()], more].concat()).done();
    out
}

/// Every effect and attribution stands beside its halves, whose difference it is: table, what they are of, and the whole's column.
const APART: [(&str, &str, &str, &str); 20] = [
    ("contrast", "heads", "contrast", "contrast_mean"),
    ("contrast", "heads", "survives", "survives_mean"),
    ("contrast-methods", "heads", "interchange", "interchange_mean"),
    ("contrast-methods", "heads", "ablation", "ablation_mean"),
    ("contrast-methods", "heads", "dla", "dla_mean"),
    ("contrast-methods", "heads", "ablation_direct", "ablation_direct_mean"),
    ("contrast-methods", "heads", "ablation_frozen", "ablation_frozen_mean"),
    ("contrast-methods", "heads", "interchange_direct", "interchange_direct_mean"),
    ("contrast-methods", "heads", "interchange_frozen", "interchange_frozen_mean"),
    ("cascade", "knockouts", "effect", "effect_mean"),
    ("cascade", "components", "drop", "drop_mean"),
    ("cascade", "repair", "direct", "direct_mean"),
    ("cascade", "repair", "total", "total_mean"),
    ("cascade", "repair", "difference", "difference_mean"),
    ("cascade", "repair", "later_heads", "later_heads_mean"),
    ("cascade", "repair", "later_mlps", "later_mlps_mean"),
    ("cascade", "repair", "rest", "rest_mean"),
    ("cipher", "necessity", "effect", "effect_mean"),
    ("cipher", "injection", "effect", "effect_mean"),
    ("commitment", "layers", "effect", "effect_mean"),
];

#[test]
fn what_other_analyses_measure_stands_beside_its_halves_too_which_are_those_of_interchange_where_they_are_the_same() {
    let bench = Bench::new();
    let gate = ["--gate", "L3.H5"];
    let cipher = ["--cipher", "demo:cipher.jsonl"];
    let runs = [
        of_pairs(&bench, "contrast", &cipher),
        of_pairs(&bench, "contrast-methods", &[]),
        of_pairs(&bench, "cascade", &gate),
        of_pairs(&bench, "cipher", &[&gate[..], &cipher].concat()),
        of_pairs(&bench, "commitment", &[]),
        of_pairs(&bench, "modulate", &gate),
    ];
    let table = |command: &str, name: &str| {
        Table::read_parquet(bench.out(command).join(format!("{name}.parquet"))).unwrap_or_else(|e| panic!("{e}"))
    };
    for (command, name, what, whole) in APART.into_iter().chain([("modulate", "dose", "effect", "effect_mean")]) {
        let table = table(command, name);
        let float = |column: &str| table.floats(column).unwrap().to_vec();
        let (answers, foils) = (float(&format!("answer_{what}_mean")), float(&format!("foil_{what}_mean")));
        let known = answers.iter().zip(&foils).zip(float(whole)).filter_map(|((a, f), w)| Some((w?, (*a)?, (*f)?)));
        let known: Vec<(f64, f64, f64)> = known.collect();
        assert!(
            known.iter().any(|(whole, answer, _)| (whole - answer).abs() > 1e-6),
            "{command} {what}: no foil moves"
        );
        for (whole, answer, foil) in known {
            assert!((answer - foil - whole).abs() < 1e-9, "{command} {what}: {answer} - {foil} and {whole}");
        }
    }
    // The same exchange by three analyses.
    let interchange = of_pairs(&bench, "interchange", &["--direction", "necessity"]);
    let heads = Table::read_parquet(interchange.join("heads.parquet")).unwrap();
    let expected = heads.floats("answer_effect_mean").unwrap();
    let near = |found: Option<f64>, expected: Option<f64>| {
        let (found, expected) = (found.unwrap(), expected.unwrap());
        assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
    };
    for (found, expected) in
        table("contrast-methods", "heads").floats("answer_interchange_mean").unwrap().iter().zip(expected)
    {
        near(*found, *expected);
    }
    let gate =
        (0..heads.rows()).find(|i| (heads.ints("layer").unwrap()[*i], heads.ints("head").unwrap()[*i]) == (3, 5));
    let gate = expected[gate.unwrap()];
    assert!(gate.unwrap().abs() > 1e-3);
    near(table("cascade", "knockouts").floats("answer_effect_mean").unwrap()[0], gate);
    near(table("cipher", "necessity").floats("answer_effect_mean").unwrap()[0], gate);
    for run in &runs {
        let report = std::fs::read_to_string(run.join("report.md")).unwrap();
        assert!(report.contains("answer and foil apart") && report.contains("What moved"), "{}", run.display());
        assert!(run.join("halves.png").is_file() && run.join("halves.svg").is_file(), "{}", run.display());
    }
}

/// One token each: a half is that token's logit less the mean.
fn pairs_of_one_token(golden: &Golden) -> Vec<serde_json::Value> {
    let mut pairs = pairs(golden);
    for pair in &mut pairs {
        (pair["answer"], pair["foil"]) = (json!([ANSWER[0]]), json!([FOIL[0]]));
    }
    pairs
}

/// A head's number in a table of two pairs against its expectation in each.
fn near_mean(table: &Table, name: &str, row: usize, expected: [f64; 2]) {
    let (found, expected) = (table.floats(name).unwrap()[row].unwrap(), (expected[0] + expected[1]) / 2.0);
    assert!((found - expected).abs() < 1e-5, "{name} of row {row}: {found} and {expected}");
}

/// The effects with later components frozen, from forks that say so edit by edit and the whole vocabulary's logits.
#[test]
fn frozen_parts_have_the_halves_of_runs_that_are_frozen_by_hand() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), open("llama"));
    let out = analysed(&bench, "llama", "contrast-methods", &pairs_of_one_token(&golden), &[]);
    let table = Table::read_parquet(out.join("heads.parquet")).unwrap();
    let (mut plan, heads) = (Plan::default(), model.heads().collect::<Vec<_>>());
    let logits = || Activation { site: SiteKind::Logits.at(0), positions: Positions::Last, part: Part::All };
    for pair in 0..2 {
        let [clean, other] = ["input_ids", "donor_ids"].map(|name| plan.prompt("p", golden.ids(name, pair)));
        plan.read(clean, logits());
        for (layer, head) in &heads {
            for change in [Change::interchange(other), Change::Zero] {
                let edit = |site, part, change| Edit { site, part, positions: Positions::Last, change };
                let mut edits = vec![edit(SiteKind::Z.at(*layer), Part::Heads(vec![*head]), change)];
                let held = |site| edit(site, Part::All, Change::interchange(clean));
                edits.extend((*layer..model.decoder.arch.n_layers).map(|l| held(SiteKind::MlpDelta.at(l))));
                edits.extend((layer + 1..model.decoder.arch.n_layers).map(|l| held(SiteKind::AttnDelta.at(l))));
                let fork = plan.fork(clean, edits);
                plan.read(fork, logits());
            }
        }
    }
    let rows: Vec<Vec<f64>> = readings(&model, &plan, Engine::Full)
        .iter()
        .map(|r| r.values().iter().map(|x| f64::from(*x)).collect())
        .collect();
    let of_pair = |pair: usize| &rows[pair * rows.len() / 2..];
    let mut largest = 0f64;
    for row in 0..heads.len() {
        for (k, method) in ["interchange", "ablation"].into_iter().enumerate() {
            for (side, token) in [("answer", ANSWER[0]), ("foil", FOIL[0])] {
                let change = |pair| {
                    let (clean, edited) = (&of_pair(pair)[0], &of_pair(pair)[1 + 2 * row + k]);
                    above_mean(edited, &[token]) - above_mean(clean, &[token])
                };
                let expected = [0, 1].map(change);
                largest = largest.max(expected[0].abs());
                near_mean(&table, &format!("{side}_{method}_frozen_mean"), row, expected);
            }
        }
    }
    assert!(largest > 1e-3, "the forks move something: {largest}");
}

/// What each head adds at the last position along a token's unembedding less the vocabulary's mean, through the run's own final norm:
/// from the heads' outputs.
fn along_the_centred_token(model: &Model, plan: &mut Plan, runs: &[Run], token: u32) -> Vec<Vec<f64>> {
    let arch = &model.decoder.arch;
    let last = |site| Activation { site, positions: Positions::Last, part: Part::All };
    for run in runs {
        plan.read(*run, last(SiteKind::ResidPost.at(arch.n_layers - 1)));
        plan.read(*run, last(SiteKind::FinalNorm.at(0)));
        for layer in 0..arch.n_layers {
            plan.read(*run, last(SiteKind::HeadOut.at(layer)));
        }
    }
    let all: Vec<u32> = (0..arch.vocab as u32).collect();
    let rows: Vec<Vec<f32>> = model.decoder.unembedding(&all).and_then(|t| t.to_vec2()).unwrap();
    let mean = |i: usize| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64;
    let along: Vec<f64> = (0..arch.d_model).map(|i| f64::from(rows[token as usize][i]) - mean(i)).collect();
    let found: Vec<Vec<f32>> = readings(model, plan, Engine::Full).iter().map(Reading::values).collect();
    let of_run = |values: &[Vec<f32>]| -> Vec<f64> {
        let scale = |i: usize| f64::from(values[1][i] / values[0][i]);
        let of_head = |out: &[f32]| (0..arch.d_model).map(|i| f64::from(out[i]) * scale(i) * along[i]).sum();
        values[2..].iter().flat_map(|layer| layer.chunks_exact(arch.d_model)).map(of_head).collect()
    };
    found.chunks_exact(2 + arch.n_layers).map(of_run).collect()
}

#[test]
fn what_heads_lose_to_a_knockout_has_the_halves_of_their_own_outputs() {
    let (bench, golden, model) = (Bench::new(), Golden::of("llama"), open("llama"));
    let more = ["--gate", "L0.H1", "--amplifiers", "0"];
    let out = analysed(&bench, "llama", "cascade", &pairs_of_one_token(&golden), &more);
    let table = Table::read_parquet(out.join("components.parquet")).unwrap();
    let n_heads = model.decoder.arch.n_heads;
    for (side, token) in [("answer", ANSWER[0]), ("foil", FOIL[0])] {
        let mut plan = Plan::default();
        let runs: Vec<Run> = (0..2)
            .flat_map(|pair| {
                let [clean, other] = ["input_ids", "donor_ids"].map(|name| plan.prompt("p", golden.ids(name, pair)));
                let (site, part) = (SiteKind::Z.at(0), Part::Heads(vec![1]));
                let change = Change::interchange(other);
                [clean, plan.fork(clean, vec![Edit { site, part, positions: Positions::Last, change }])]
            })
            .collect();
        let added = along_the_centred_token(&model, &mut plan, &runs, token);
        let (layers, names) = (table.ints("layer").unwrap(), table.strs("component").unwrap());
        let mut largest = 0f64;
        for row in 0..table.rows() {
            let Some(head) = names[row].strip_prefix("head.") else { continue };
            let at = layers[row] as usize * n_heads + head.parse::<usize>().unwrap();
            let lost = [0, 1].map(|pair| added[2 * pair][at] - added[2 * pair + 1][at]);
            largest = if layers[row] > 0 { largest.max(lost[0].abs()) } else { largest };
            near_mean(&table, &format!("{side}_drop_mean"), row, lost);
        }
        assert!(largest > 1e-5, "later heads change: {largest}");
    }
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("What is lost when L0.H1 is out: answer and foil apart"), "{report}");
    assert!(report.contains("halves-drops.png") && out.join("halves-drops.svg").is_file());
}

/// A table as an older build left it: without the columns that say what moved, and without rules of dots.
fn older(table: &Table) -> Table {
    let new = |name: &str| {
        ["answer_", "foil_", "share_of_"].iter().any(|start| name.starts_with(start))
            || ["marked", "mark_rule", "writer"].contains(&name)
    };
    let mut old = Table::new(table.name());
    for column in table.columns().filter(|column| !new(column.name)) {
        let (name, doc) = (column.name, column.doc);
        old = match column.kind {
            Kind::Str => old.opt_str(name, doc, table.opt_strs(name).unwrap()),
            Kind::Int => old.int(name, doc, table.ints(name).unwrap().iter().copied()),
            Kind::Float => old.float(name, doc, table.floats(name).unwrap().iter().copied()),
            Kind::Flag => old.flag(name, doc, table.flags(name).unwrap().iter().copied()),
        }
        .unwrap();
    }
    old
}

/// What reports may say of a half, and nowhere without its column.
const WORDS: [&str; 10] = [
    "raises the answer",
    "lowers the answer",
    "raises the foil",
    "lowers the foil",
    "raises both",
    "lowers both",
    "gives the answer",
    "gives the foil",
    "gives both",
    "differs in neither",
];

#[test]
fn a_run_without_the_columns_still_has_its_report_which_says_nothing_of_answer_and_foil() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let runs = [
        analysed(&bench, "llama", "interchange", &pairs(&golden), &[]),
        analysed(&bench, "llama", "ablate", &prompts(&golden), &[]),
        analysed(&bench, "llama", "dla", &prompts(&golden), &[]),
    ];
    let written = |out: &Path| std::fs::read_to_string(out.join("report.md")).unwrap();
    for run in &runs {
        assert!(written(run).contains("moves neither beyond chance") || WORDS.iter().any(|w| written(run).contains(w)));
        for name in ["heads", "components"] {
            let path = run.join(format!("{name}.parquet"));
            if path.is_file() {
                older(&Table::read_parquet(&path).unwrap()).write_parquet(&path).unwrap();
            }
        }
    }
    let out = bench.out("report");
    let mut words = vec!["report"];
    words.extend(runs.iter().map(|run| run.to_str().unwrap()));
    gatelens([&words[..], &["--out", out.to_str().unwrap()]].concat()).done();
    let report = written(&out);
    for word in WORDS.iter().chain(&["moves neither", "halves"]) {
        assert!(!report.contains(word), "the report says `{word}`");
    }
    assert!(!report.contains("Dots mark"), "of so few items no q-value is small enough for a dot: {report}");
}

/// All of the project's own sources below a folder.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn only_the_rule_of_the_halves_speaks_of_raised_answers_and_lowered_foils() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    ["src", "analyses"].iter().for_each(|dir| sources(&root.join(dir), &mut found));
    assert!(found.len() > 100);
    for path in found.iter().filter(|path| !path.ends_with("analyses/halves.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let said = WORDS.iter().find(|words| text.contains(*words));
        assert!(said.is_none(), "{}: `{}` stands there without the halves' columns", path.display(), said.unwrap());
        let shown =
            text.contains("Show::Number(\"effect_normalized\"") || text.contains("Show::Share(\"effect_normalized\"");
        assert!(!shown, "{}: reports show share_of_gap, not effect_normalized", path.display());
    }
}

#[test]
fn the_rule_of_the_dots_is_recorded_and_stands_in_the_caption() {
    let (bench, golden) = (Bench::new(), Golden::of("llama"));
    let more = ["--mark-p", "0.9", "--mark-share", "0.02"];
    let out = analysed(&bench, "llama", "ablate", &prompts(&golden), &more);
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!((&record["parameters"]["mark_p"], &record["parameters"]["mark_share"]), (&json!(0.9), &json!(0.02)));
    let heads = Table::read_parquet(out.join("heads.parquet")).unwrap();
    let (p, shares) = (heads.floats("p_max").unwrap(), heads.floats("share_of_base").unwrap());
    let expected: Vec<bool> =
        p.iter().zip(shares).map(|(p, s)| p.unwrap() < 0.9 && s.is_some_and(|s| s.abs() >= 0.02)).collect();
    assert_eq!(heads.flags("marked").unwrap(), expected);
    assert!(expected.contains(&true) && expected.contains(&false), "the rule decides something: {expected:?}");
    let report = std::fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains(r"Dots mark family-wise p \< 0.9, at least 2 % of the clean logit difference"), "{report}");
    let refused = gatelens(["ablate", "demo", "--prompts", "x", "--mark-share", "2", "--out", "y"]);
    assert!(refused.code == 2 && refused.stderr.contains("no number from 0 to 1"), "{}", refused.stderr);
}

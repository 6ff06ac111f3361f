//! How a sweep's time and memory grow with the pairs, their length, the heads and the layer, beside what the plan says.
//!
//! `cargo bench --bench scaling -- OUT [MODEL]` writes a table and figures to the folder OUT (`reports/scaling` in this
//! repository); MODEL is by default SmolLM2 as `scripts/fetch_models.sh` leaves it. Both directions, last position. The line
//! beside the measured times is the plan's floating-point operations at the rate of a plain forward pass of the same prompts,
//! measured in the same run just before; the one beside memory is the residual streams that the plan says it holds.

mod common;

use common::{default_model, median, reset_peak};
use gatelens::figure::{Curve, CurvePoint, CurveRole, Curves, Figure};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, run, size};
use gatelens::rundir::{peak_rss_bytes, write_file};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use std::path::PathBuf;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failed = Box<dyn std::error::Error>;

/// A sweep: pairs of so many tokens, these heads.
struct Setting {
    what: &'static str,
    x: usize,
    pairs: usize,
    tokens: usize,
    heads: Vec<(usize, usize)>,
}

/// What one sweep took.
struct Measured {
    what: &'static str,
    x: usize,
    seconds: f64,
    predicted_s: f64,
    peak: u64,
    predicted_bytes: u64,
    rows: u64,
}

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let out = PathBuf::from(arguments.next().ok_or("give a folder to write to: cargo bench --bench scaling -- OUT")?);
    let model = Model::open(&arguments.next().unwrap_or_else(default_model), &ModelOptions::default())?;
    std::fs::create_dir_all(&out)?;
    let mut found = Vec::new();
    for setting in settings(&model) {
        let measured = measure(&model, &setting)?;
        println!(
            "{:<8} {:>5}  {:>9.3} s (plan says {:>9.3} s)  {:>7} MiB  {} rows x layers",
            measured.what,
            measured.x,
            measured.seconds,
            measured.predicted_s,
            measured.peak >> 20,
            measured.rows
        );
        found.push(measured);
    }
    table(&found)?.write_parquet(out.join("scaling.parquet"))?;
    for (what, label) in [
        ("pairs", "pairs of 64 tokens, all heads"),
        ("tokens", "tokens a prompt, one pair, all heads"),
        ("heads", "heads, one pair of 64 tokens"),
        ("layer", "layer of the nine heads, 16 pairs of 64 tokens"),
    ] {
        let of: Vec<&Measured> = found.iter().filter(|m| m.what == what).collect();
        figure(&of, label, "seconds", |m| m.seconds, |m| m.predicted_s)
            .write_png(out.join(format!("time-{what}.png")))?;
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let memory = figure(&of, label, "MiB beyond the weights", |m| mib(m.peak), |m| mib(m.predicted_bytes));
        memory.write_png(out.join(format!("memory-{what}.png")))?;
    }
    write_file(&out.join("README.md"), readme(&found).as_bytes())?;
    Ok(())
}

fn settings(model: &Model) -> Vec<Setting> {
    let heads: Vec<(usize, usize)> = model.heads().collect();
    let mut all = Vec::new();
    for pairs in [1, 2, 4, 8, 16, 32] {
        all.push(Setting { what: "pairs", x: pairs, pairs, tokens: 64, heads: heads.clone() });
    }
    for tokens in [16, 32, 64, 128, 256, 512] {
        all.push(Setting { what: "tokens", x: tokens, pairs: 1, tokens, heads: heads.clone() });
    }
    for step in [10, 5, 3, 2, 1] {
        let some: Vec<_> = heads.iter().copied().step_by(step).collect();
        all.push(Setting { what: "heads", x: some.len(), pairs: 1, tokens: 64, heads: some });
    }
    for layer in (0..model.decoder.arch.n_layers).step_by(5).chain([model.decoder.arch.n_layers - 1]) {
        let some = heads.iter().copied().filter(|h| h.0 == layer).collect();
        all.push(Setting { what: "layer", x: layer, pairs: 16, tokens: 64, heads: some });
    }
    all
}

fn measure(model: &Model, setting: &Setting) -> Result<Measured, Failed> {
    let arch = &model.decoder.arch;
    let (plain, sweep) = (plan(model, setting, false), plan(model, setting, true));
    let (of_plain, of_sweep) = (size(&plain, arch, Engine::Wavefront), size(&sweep, arch, Engine::Wavefront));
    let time = |plan: &Plan| -> Result<f64, Failed> {
        let at = Instant::now();
        run(&model.decoder, plan, &Options::default())?;
        Ok(at.elapsed().as_secs_f64())
    };
    let runs = if setting.pairs > 4 || setting.tokens > 128 { 1 } else { 3 };
    time(&plain)?;
    let plain_s = median((0..3).map(|_| time(&plain)).collect::<Result<_, _>>()?);
    let before = reset_peak()?;
    let seconds = median((0..runs).map(|_| time(&sweep)).collect::<Result<_, _>>()?);
    Ok(Measured {
        what: setting.what,
        x: setting.x,
        seconds,
        predicted_s: plain_s * of_sweep.flops / of_plain.flops,
        peak: peak_rss_bytes().saturating_sub(before),
        predicted_bytes: of_sweep.resid_bytes,
        rows: of_sweep.rows,
    })
}

/// Pairs that differ in two tokens, alone or with every head exchanged in both directions.
fn plan(model: &Model, setting: &Setting, sweep: bool) -> Plan {
    let vocab = model.decoder.arch.vocab as u32;
    let mut plan = Plan::default();
    let metric = || What::Metric(Metric::logit_difference(vec![11], vec![23]));
    for pair in 0..setting.pairs as u32 {
        let id = |i: u32, other: u32| (i * 7919 + pair * 104_729 + other * 13) % (vocab - 100) + 50;
        let a: Vec<u32> = (0..setting.tokens as u32).map(|i| id(i, 0)).collect();
        let mut b = a.clone();
        b[3] = id(3, 1);
        b[setting.tokens / 2] = id(9, 1);
        let prompts = [plan.prompt("a", a), plan.prompt("b", b)];
        for prompt in prompts {
            plan.read(prompt, metric());
        }
        for (base, donor) in [(0, 1), (1, 0)].into_iter().filter(|_| sweep) {
            for (layer, head) in &setting.heads {
                let edit = Edit {
                    site: SiteKind::Z.at(*layer),
                    part: Part::Heads(vec![*head]),
                    positions: Positions::Last,
                    change: Change::interchange(prompts[donor]),
                };
                let fork = plan.fork(prompts[base], vec![edit]);
                plan.read(fork, metric());
            }
        }
    }
    plan
}

fn table(found: &[Measured]) -> Result<Table, Failed> {
    Ok(Table::new("scaling")
        .str("varied", "what was varied: pairs, tokens, heads, layer", found.iter().map(|m| m.what))?
        .int("value", "its value", found.iter().map(|m| m.x as i64))?
        .float("seconds", "time of the sweep", found.iter().map(|m| m.seconds))?
        .float(
            "predicted_s",
            "the plan's operations at the rate of a plain forward pass",
            found.iter().map(|m| m.predicted_s),
        )?
        .int("peak_bytes", "peak memory beyond what was held before", found.iter().map(|m| m.peak as i64))?
        .int(
            "resid_bytes",
            "residual streams of all runs, from the plan",
            found.iter().map(|m| m.predicted_bytes as i64),
        )?
        .int("rows", "rows times layers", found.iter().map(|m| m.rows as i64))?)
}

fn figure(
    of: &[&Measured],
    x_label: &str,
    y_label: &str,
    measured: impl Fn(&Measured) -> f64,
    predicted: impl Fn(&Measured) -> f64,
) -> Figure {
    let points = |y: &dyn Fn(&Measured) -> f64| {
        of.iter().map(|m| CurvePoint { x: m.x as f64, y: Some(y(m)), interval: None }).collect()
    };
    Figure::from(Curves {
        title: format!("Sweep of heads: {y_label}"),
        subtitle: "SmolLM2-135M, both directions, last position".to_string(),
        x_label: x_label.to_string(),
        y_label: y_label.to_string(),
        curves: vec![
            Curve { name: "measured".to_string(), role: CurveRole::Series, points: points(&measured) },
            Curve { name: "from the plan".to_string(), role: CurveRole::Control, points: points(&predicted) },
        ],
        thresholds: Vec::new(),
        y_range: None,
        interval_meaning: None,
    })
}

fn readme(found: &[Measured]) -> String {
    let mut text = String::from(
        "# How a sweep grows\n\n    cargo bench --bench scaling -- reports/scaling\n\nEvery head of SmolLM2-135M exchanged in both \
         directions at the last position, varying one thing at a time. *From the plan*: for time, the plan's floating-point \
         operations (two for each weight a row goes through, and attention over the keys that a row sees) at the rate of a plain \
         forward pass of the same prompts, timed just before; for memory, the residual streams that the plan holds. A fork costs one \
         row a layer from its layer on, however long its prompt: with the length only the prompts' own rows grow, and the keys that \
         attention reads.\n\n| varied | value | seconds | from the plan | peak MiB | rows x layers |\n|---|---|---|---|---|---|\n",
    );
    for m in found {
        let (what, x, s, p, mib, rows) = (m.what, m.x, m.seconds, m.predicted_s, m.peak >> 20, m.rows);
        text.push_str(&format!("| {what} | {x} | {s:.2} | {p:.2} | {mib} | {rows} |\n"));
    }
    text.push_str("\n![time by pairs](time-pairs.png) ![memory by pairs](memory-pairs.png)\n\n![time by length](time-tokens.png) ");
    text.push_str("![memory by length](memory-tokens.png)\n\n![time by heads](time-heads.png) ![memory by heads](memory-heads.png)\n\n");
    text.push_str("![time by layer](time-layer.png) ![memory by layer](memory-layer.png)\n");
    text
}

//! How a sweep's time and memory grow with the pairs, their length, the heads and the layer, beside what the plan says.
//!
//! `cargo bench --bench scaling -- OUT [MODEL]` writes a table and figures to the folder OUT (`reports/scaling` in this
//! repository); MODEL is by default SmolLM2 as `scripts/fetch_models.sh` leaves it. Both directions, last position. The line
//! beside the measured times is the plan's floating-point operations at the rate of a plain forward pass of the same prompts,
//! measured in the same run just before. Memory is the most that the process held in its first sweep beyond what it held once
//! the model was read, each setting in a process of its own; the line beside it is the residual streams that the plan says it
//! holds.

mod common;

use common::{default_model, in_own_process, median, reset_peak};
use gatelens::figure::{Curve, CurvePoint, CurveRole, Curves, Figure};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::names::short_name;
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, Size, run, size};
use gatelens::rundir::{peak_rss_bytes, write_file};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use std::path::{Path, PathBuf};
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

/// Whose heads they are, for captions, and the benchmark's arguments.
struct Subject {
    arguments: String,
    model: String,
    heads: usize,
    heads_a_layer: usize,
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [first, i, name] = arguments.as_slice()
        && first == "--setting"
    {
        return measure(&Model::open(name, &ModelOptions::default())?, i.parse()?);
    }
    let out = PathBuf::from(arguments.first().ok_or("give a folder to write to: cargo bench --bench scaling -- OUT")?);
    let name = arguments.get(1).cloned().unwrap_or_else(default_model);
    std::fs::create_dir_all(&out)?;
    let model = Model::open(&name, &ModelOptions::default())?;
    let settings = settings(&model);
    let heads_a_layer = model.decoder.arch.n_heads;
    let subject = Subject {
        arguments: arguments.join(" "),
        model: short_name(&name),
        heads: model.heads().count(),
        heads_a_layer,
    };
    drop(model);
    let mut found = Vec::new();
    for (i, setting) in settings.iter().enumerate() {
        let measured = parsed(setting, &in_own_process(&["--setting", &i.to_string(), &name])?)?;
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
    figures(&found, &subject, &out)?;
    write_file(&out.join("README.md"), readme(&found, &subject).as_bytes())?;
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
    let last = model.decoder.arch.n_layers - 1;
    for layer in (0..last).step_by(5).chain([last]) {
        let some = heads.iter().copied().filter(|h| h.0 == layer).collect();
        all.push(Setting { what: "layer", x: layer, pairs: 16, tokens: 64, heads: some });
    }
    all
}

/// Measures a setting and prints what it took, as [`parsed`] reads it.
fn measure(model: &Model, setting: usize) -> Result<(), Failed> {
    model.decoder.read()?;
    let held = reset_peak()?;
    let settings = settings(model);
    let setting = settings.get(setting).ok_or("there is no such setting")?;
    let arch = &model.decoder.arch;
    let (plain, sweep) = (plan(model, setting, false), plan(model, setting, true));
    let sized = |plan: &Plan| -> Result<Size, Failed> { Ok(size(&plan.compile(arch)?, Engine::Wavefront)) };
    let (of_plain, of_sweep) = (sized(&plain)?, sized(&sweep)?);
    let time = |plan: &Plan| -> Result<f64, Failed> {
        let at = Instant::now();
        run(&model.decoder, plan, &Options::default())?;
        Ok(at.elapsed().as_secs_f64())
    };
    time(&sweep)?;
    let peak = peak_rss_bytes().saturating_sub(held);
    let runs = if setting.pairs > 4 || setting.tokens > 128 { 1 } else { 3 };
    time(&plain)?;
    let plain_s = median((0..3).map(|_| time(&plain)).collect::<Result<_, _>>()?);
    let seconds = median((0..runs).map(|_| time(&sweep)).collect::<Result<_, _>>()?);
    let predicted_s = plain_s * of_sweep.flops / of_plain.flops;
    println!("{seconds} {predicted_s} {peak} {} {}", of_sweep.resid_bytes, of_sweep.rows);
    Ok(())
}

fn parsed(setting: &Setting, line: &str) -> Result<Measured, Failed> {
    let [seconds, predicted_s, peak, predicted_bytes, rows] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(format!("not what a setting prints: {line}").into());
    };
    Ok(Measured {
        what: setting.what,
        x: setting.x,
        seconds: seconds.parse()?,
        predicted_s: predicted_s.parse()?,
        peak: peak.parse()?,
        predicted_bytes: predicted_bytes.parse()?,
        rows: rows.parse()?,
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
        .int(
            "peak_bytes",
            "most memory held in a process' first sweep beyond what was held once the model was read",
            found.iter().map(|m| m.peak as i64),
        )?
        .int(
            "resid_bytes",
            "residual streams of all runs, from the plan",
            found.iter().map(|m| m.predicted_bytes as i64),
        )?
        .int("rows", "rows times layers", found.iter().map(|m| m.rows as i64))?)
}

fn figures(found: &[Measured], subject: &Subject, out: &Path) -> Result<(), Failed> {
    for (what, label) in [
        ("pairs", "pairs of 64 tokens, all heads".to_string()),
        ("tokens", "tokens a prompt, one pair, all heads".to_string()),
        ("heads", "heads, one pair of 64 tokens".to_string()),
        ("layer", format!("layer whose {} heads are exchanged, 16 pairs of 64 tokens", subject.heads_a_layer)),
    ] {
        let of: Vec<&Measured> = found.iter().filter(|m| m.what == what).collect();
        let draw = |y_label, measured: fn(&Measured) -> f64, predicted: fn(&Measured) -> f64| {
            figure(&of, &subject.model, [&label, y_label], measured, predicted)
        };
        draw("seconds", |m| m.seconds, |m| m.predicted_s).write_png(out.join(format!("time-{what}.png")))?;
        draw("MiB beyond the weights", |m| mib(m.peak), |m| mib(m.predicted_bytes))
            .write_png(out.join(format!("memory-{what}.png")))?;
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn figure(
    of: &[&Measured],
    model: &str,
    [x_label, y_label]: [&str; 2],
    measured: fn(&Measured) -> f64,
    predicted: fn(&Measured) -> f64,
) -> Figure {
    let points = |y: fn(&Measured) -> f64| {
        of.iter().map(|m| CurvePoint { x: m.x as f64, y: Some(y(m)), interval: None }).collect()
    };
    Figure::from(Curves {
        title: format!("Sweep of heads: {y_label}"),
        subtitle: format!("{model}, both directions, last position"),
        x_label: x_label.to_string(),
        y_label: y_label.to_string(),
        shares: false,
        curves: vec![
            Curve { name: "measured".to_string(), role: CurveRole::Series, points: points(measured) },
            Curve { name: "from the plan".to_string(), role: CurveRole::Control, points: points(predicted) },
        ],
        thresholds: Vec::new(),
        reference: None,
        y_range: None,
        interval_meaning: None,
    })
}

fn readme(found: &[Measured], subject: &Subject) -> String {
    let mut text = format!(
        "# How a sweep grows\n\n    cargo bench --bench scaling -- {}\n\nHeads of {} are swapped in both directions at the last position: \
         all {}, unless heads or layers vary. One thing varies at a time, and each setting is measured once.\n\n\
         - **Time from the plan** is the plan's floating-point operations at the rate of a plain forward pass of the same prompts, \
         timed just before. The plan counts two operations for each weight that a row goes through, and attention over the keys \
         that a row sees.\n\
         - **Peak MiB** is the most memory that a process held beyond what it held once the model was read. Each setting has a \
         process of its own.\n\
         - **Residual streams** are what of that memory the plan counts; the rest is working memory.\n\n\
         An edited run costs one row per layer from its layer on, however long its prompt. So with the length only the prompts' own \
         rows grow, and the keys that attention reads.\n\n\
         | varied | value | seconds | seconds from the plan | peak MiB | residual streams (MiB) | rows x layers |\n|---|---|---|---|---|---|---|\n",
        subject.arguments, subject.model, subject.heads
    );
    for m in found {
        let (what, x, s, p, rows) = (m.what, m.x, m.seconds, m.predicted_s, m.rows);
        let (peak, held) = (mib(m.peak), mib(m.predicted_bytes));
        text.push_str(&format!("| {what} | {x} | {s:.2} | {p:.2} | {peak:.0} | {held:.0} | {rows} |\n"));
    }
    text.push_str("\n![time by pairs](time-pairs.png) ![memory by pairs](memory-pairs.png)\n\n![time by length](time-tokens.png) ");
    text.push_str("![memory by length](memory-tokens.png)\n\n![time by heads](time-heads.png) ![memory by heads](memory-heads.png)\n\n");
    text.push_str("![time by layer](time-layer.png) ![memory by layer](memory-layer.png)\n");
    text
}

//! What a gradient with respect to `z` in every layer costs beside a plain forward pass of the same prompts, in one run.
//!
//! `cargo bench --bench gradient [-- MODEL]`; MODEL is a folder or a GGUF file, by default SmolLM2 as
//! `scripts/fetch_models.sh` leaves it. Times are medians of several runs in turn; memory is the most that a forward pass and
//! then a gradient hold beyond what is held once the model is read, each line's in a process of its own. As in the `gatelens` command, candle's own threads are off unless
//! `CANDLE_NUM_THREADS` says otherwise; with them a gradient costs up to twice as much on a machine that has other work.

mod common;

use common::{default_model, in_own_process, median, pair, reset_peak};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Gradient, Metric, Part, Plan, Positions, What};
use gatelens::run::{Options, run};
use gatelens::rundir::peak_rss_bytes;
use gatelens::site::SiteKind;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 9;

#[allow(unsafe_code)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [first, line, name] = arguments.as_slice()
        && first == "--line"
    {
        return measure(&Model::open(name, &ModelOptions::default())?, line.parse()?);
    }
    let name = arguments.first().cloned().unwrap_or_else(default_model);
    let model = Model::open(&name, &ModelOptions::default())?;
    let arch = &model.decoder.arch;
    println!("{name}: {} layers, d_model {}, {} threads", arch.n_layers, arch.d_model, rayon::current_num_threads());
    println!("{:<28} {:>12} {:>12} {:>8} {:>32}", "", "forward", "gradient", "ratio", "MiB beyond the weights");
    drop(model);
    for line in ["0", "1"] {
        print!("{}", in_own_process(&["--line", line, &name])?);
    }
    Ok(())
}

/// Prints a line of the table: two prompts of 64, or one of 512.
fn measure(model: &Model, line: usize) -> Result<(), Box<dyn std::error::Error>> {
    model.decoder.read()?;
    let held = reset_peak()?;
    let (a, b) = pair(model.decoder.arch.vocab as u32);
    let long: Vec<u32> = a.iter().chain(&b).cycle().take(512).copied().collect();
    let (label, prompts) = if line == 0 { ("2 prompts of 64", vec![a, b]) } else { ("1 prompt of 512", vec![long]) };
    let timed = |plan: &Plan| {
        let at = Instant::now();
        run(&model.decoder, plan, &Options::default()).map(|_| at.elapsed().as_secs_f64())
    };
    let beyond = || peak_rss_bytes().saturating_sub(held) >> 20;
    let (forward, gradient) = (plan(&prompts, model, false), plan(&prompts, model, true));
    timed(&forward)?;
    let before = beyond();
    timed(&gradient)?;
    let memory = format!("{before} forward, {} gradient", beyond());
    // In turn, so that a machine that changes its speed changes both.
    let (mut f, mut g) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        f.push(timed(&forward)?);
        g.push(timed(&gradient)?);
    }
    let (f, g) = (median(f), median(g));
    println!("{label:<28} {:>9.1} ms {:>9.1} ms {:>8.2} {memory:>32}", f * 1e3, g * 1e3, g / f);
    Ok(())
}

/// The metric of every prompt, or its gradient at `z` in every layer.
fn plan(prompts: &[Vec<u32>], model: &Model, gradient: bool) -> Plan {
    let mut plan = Plan::default();
    let metric = Metric::logit_difference(vec![11], vec![23]);
    for ids in prompts {
        let prompt = plan.prompt("p", ids.clone());
        if !gradient {
            plan.read(prompt, What::Metric(metric.clone()));
            continue;
        }
        for l in 0..model.decoder.arch.n_layers {
            let (site, positions, part) = (SiteKind::Z.at(l), Positions::All, Part::All);
            plan.read(prompt, Gradient { metric: metric.clone(), site, positions, part });
        }
    }
    plan
}

//! What a sweep over all heads costs beside a plain forward pass of the same prompts, and beside the full engine.
//!
//! `cargo bench --bench sweep [-- MODEL [--full]]`; MODEL is a folder or a GGUF file, by default SmolLM2 as
//! `scripts/fetch_models.sh` leaves it. A pair of 64 tokens, every head at the last position (and, with equal lengths, at
//! all positions), by the same engine in the same run. `--full` also runs the full engine on a sample of the heads and
//! scales its time to all of them.

mod common;

use common::{default_model, median, pair};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, run, size};
use gatelens::site::SiteKind;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 7;

/// Seconds, or what stopped the run.
type Timed = Result<f64, Box<dyn std::error::Error>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let name = arguments.iter().find(|a| !a.starts_with("--")).cloned().unwrap_or_else(default_model);
    let model = Model::open(&name, &ModelOptions::default())?;
    let heads: Vec<(usize, usize)> = model.heads().collect();
    println!("{name}: a pair of 64 tokens, {} heads, {} threads", heads.len(), rayon::current_num_threads());
    let plain = plan(&model, &[], 0, &Positions::Last);
    let all = Positions::All;
    let plans = [
        ("last position, one direction", plan(&model, &heads, 1, &Positions::Last)),
        ("last position, both directions", plan(&model, &heads, 2, &Positions::Last)),
        ("all positions, both directions", plan(&model, &heads, 2, &all)),
    ];
    let time = |plan: &Plan| -> Timed {
        let at = Instant::now();
        run(&model.decoder, plan, &Options::default())?;
        Ok(at.elapsed().as_secs_f64())
    };
    time(&plain)?;
    println!("{:<32} {:>10} {:>10} {:>8} {:>16}", "", "plain", "sweep", "ratio", "rows rate/plain");
    for (label, sweep) in &plans {
        let runs = if label.starts_with("all") { 1 } else { RUNS };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            a.push(time(&plain)?);
            b.push(time(sweep)?);
        }
        let (a, b) = (median(a), median(b));
        let rows = |p: &Plan| size(p, &model.decoder.arch, Engine::Wavefront).rows as f64;
        let rate = rows(sweep) / b / (rows(&plain) / a);
        println!("{label:<32} {a:>8.3} s {b:>8.3} s {:>8.2} {rate:>16.2}", b / a);
    }
    if arguments.iter().any(|a| a == "--full") {
        full(&model, &heads, &plans[1].1, &time)?;
    }
    Ok(())
}

/// The full engine on every ninth head, scaled to all.
fn full(
    model: &Model,
    heads: &[(usize, usize)],
    sweep: &Plan,
    time: &dyn Fn(&Plan) -> Timed,
) -> Result<(), Box<dyn std::error::Error>> {
    let sample: Vec<(usize, usize)> = heads.iter().copied().step_by(9).collect();
    let plan = plan(model, &sample, 2, &Positions::Last);
    let at = Instant::now();
    run(&model.decoder, &plan, &Options { engine: Engine::Full, ..Options::default() })?;
    let full = at.elapsed().as_secs_f64() * heads.len() as f64 / sample.len() as f64;
    let wavefront = time(sweep)?;
    println!(
        "full engine, both directions: {full:.1} s ({} heads, scaled); {:.0} times the sweep",
        sample.len(),
        full / wavefront
    );
    Ok(())
}

/// The pair with every head exchanged, in so many directions; with none, the plain pass of the two prompts.
fn plan(model: &Model, heads: &[(usize, usize)], directions: usize, positions: &Positions) -> Plan {
    let mut plan = Plan::default();
    let (a, b) = pair(model.decoder.arch.vocab as u32);
    let prompts = [plan.prompt("a", a), plan.prompt("b", b)];
    let metric = || What::Metric(Metric::logit_difference(vec![11], vec![23]));
    for prompt in prompts {
        plan.read(prompt, metric());
    }
    for d in 0..directions {
        for (layer, head) in heads {
            let edit = Edit {
                site: SiteKind::Z.at(*layer),
                part: Part::Heads(vec![*head]),
                positions: positions.clone(),
                change: Change::interchange(prompts[1 - d]),
            };
            let fork = plan.fork(prompts[d], vec![edit]);
            plan.read(fork, metric());
        }
    }
    plan
}

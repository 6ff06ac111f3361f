//! What a sweep over all heads costs beside a plain forward pass of the same prompts, and beside the full engine.
//!
//! `cargo bench --bench sweep [-- MODEL [--full | --pairs FILE]]`; MODEL is a folder or a GGUF file, by default SmolLM2 as
//! `scripts/fetch_models.sh` leaves it. A pair of 64 tokens, every head at the last position and at all positions, and the
//! residual stream of every layer at each position alone, by the same engine in the same run. `--full` also runs the full
//! engine on a sample of the heads and scales its time to all of them. `--pairs` takes the prompts of a file of pairs instead:
//! every head, both directions, last position, between two plain passes of the same prompts, with the most memory that the
//! sweep held beyond what is held once the model is read.

mod common;

use common::{default_model, median, pair, reset_peak};
use gatelens::dataset::encode::prompt_ids;
use gatelens::dataset::read_pairs;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Engine, Options, Size, run, size};
use gatelens::rundir::peak_rss_bytes;
use gatelens::site::SiteKind;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 7;

type Failed = Box<dyn std::error::Error>;

/// Two prompts as token ids.
type Pair = (Vec<u32>, Vec<u32>);

fn main() -> Result<(), Failed> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let file = arguments.iter().position(|a| a == "--pairs").map(|i| arguments.drain(i..).nth(1));
    let name = arguments.iter().find(|a| !a.starts_with("--")).cloned().unwrap_or_else(default_model);
    let model = Model::open(&name, &ModelOptions::default())?;
    model.decoder.read()?;
    let held = reset_peak()?;
    let heads: Vec<(usize, usize)> = model.heads().collect();
    if let Some(file) = file {
        return of_file(&model, held, &heads, &file.ok_or("`--pairs` needs a file")?);
    }
    println!("{name}: a pair of 64 tokens, {} heads, {} threads", heads.len(), rayon::current_num_threads());
    let pair = [pair(model.decoder.arch.vocab as u32)];
    let plain = plan(&pair, &[], 0, &Positions::Last);
    let plans = [
        ("last position, one direction", plan(&pair, &heads, 1, &Positions::Last)),
        ("last position, both directions", plan(&pair, &heads, 2, &Positions::Last)),
        ("residual stream, each position", tracing(&pair[0], model.decoder.arch.n_layers)),
        ("all positions, both directions", plan(&pair, &heads, 2, &Positions::All)),
    ];
    time(&model, &plain)?;
    println!("{:<32} {:>10} {:>10} {:>8} {:>16}", "", "plain", "sweep", "ratio", "rows rate/plain");
    for (label, sweep) in &plans {
        let runs = if label.starts_with("last") { RUNS } else { 1 };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            a.push(time(&model, &plain)?);
            b.push(time(&model, sweep)?);
        }
        let (a, b) = (median(a), median(b));
        let rows = |p: &Plan| -> Result<f64, Failed> { Ok(of(&model, p)?.rows as f64) };
        let rate = rows(sweep)? / b / (rows(&plain)? / a);
        println!("{label:<32} {a:>8.3} s {b:>8.3} s {:>8.2} {rate:>16.2}", b / a);
    }
    if arguments.iter().any(|a| a == "--full") {
        full(&model, &pair, &heads, &plans[1].1)?;
    }
    Ok(())
}

/// What the wavefront computes for a plan.
fn of(model: &Model, plan: &Plan) -> Result<Size, Failed> {
    Ok(size(&plan.compile(&model.decoder.arch)?, Engine::Wavefront))
}

/// Seconds that a plan takes.
fn time(model: &Model, plan: &Plan) -> Result<f64, Failed> {
    let at = Instant::now();
    run(&model.decoder, plan, &Options::default())?;
    Ok(at.elapsed().as_secs_f64())
}

/// All pairs of a file, every head in both directions, between two plain passes of the prompts; `held` is the memory that
/// the process had once the model was read.
fn of_file(model: &Model, held: u64, heads: &[(usize, usize)], file: &str) -> Result<(), Failed> {
    let dataset = read_pairs(file)?;
    let ids = |pair: &gatelens::dataset::Pair| -> Result<Pair, Failed> {
        let at = |field| dataset.at(pair.line, &pair.id, field);
        let read = |input, field| prompt_ids(model, input, at(field));
        Ok((read(&pair.positive, "positive")?, read(&pair.negative, "negative")?))
    };
    let pairs = dataset.items.iter().map(ids).collect::<Result<Vec<_>, _>>()?;
    let (plain, sweep) = (plan(&pairs, &[], 0, &Positions::Last), plan(&pairs, heads, 2, &Positions::Last));
    let tokens: usize = plain.prompts.iter().map(|p| p.ids.len()).sum();
    println!(
        "{}: {} pairs of {:.0} tokens a prompt, {} heads, {} threads",
        model.name,
        pairs.len(),
        tokens as f64 / plain.prompts.len() as f64,
        heads.len(),
        rayon::current_num_threads()
    );
    let before = time(model, &plain)?;
    reset_peak()?;
    let swept = time(model, &sweep)?;
    let peak = peak_rss_bytes().saturating_sub(held);
    let after = time(model, &plain)?;
    let rate = |plan: &Plan, seconds: f64| -> Result<(f64, f64), Failed> {
        let of = of(model, plan)?;
        Ok((of.rows as f64 / seconds, of.flops / seconds))
    };
    let (a, b) = (rate(&plain, (before + after) / 2.0)?, rate(&sweep, swept)?);
    println!("plain passes {before:.1} s and {after:.1} s: {:.0} rows x layers a second", a.0);
    println!("sweep {swept:.1} s, {} forks: {:.0} rows x layers a second", sweep.forks.len(), b.0);
    println!("{:.2} of the plain pass' rows, {:.2} of its FLOP, a second", b.0 / a.0, b.1 / a.1);
    println!("peak {} MiB beyond the {} MiB held once the model was read", peak >> 20, held >> 20);
    Ok(())
}

/// The full engine on every ninth head, scaled to all.
fn full(model: &Model, pairs: &[Pair], heads: &[(usize, usize)], sweep: &Plan) -> Result<(), Failed> {
    let sample: Vec<(usize, usize)> = heads.iter().copied().step_by(9).collect();
    let plan = plan(pairs, &sample, 2, &Positions::Last);
    let at = Instant::now();
    run(&model.decoder, &plan, &Options { engine: Engine::Full, ..Options::default() })?;
    let full = at.elapsed().as_secs_f64() * heads.len() as f64 / sample.len() as f64;
    let wavefront = time(model, sweep)?;
    println!(
        "full engine, both directions: {full:.1} s ({} heads, scaled); {:.0} times the sweep",
        sample.len(),
        full / wavefront
    );
    Ok(())
}

/// The pairs with every head exchanged, in so many directions; with none, the plain pass of the prompts.
fn plan(pairs: &[Pair], heads: &[(usize, usize)], directions: usize, positions: &Positions) -> Plan {
    let mut plan = Plan::default();
    let metric = || What::Metric(Metric::logit_difference(vec![11], vec![23]));
    for (i, (a, b)) in pairs.iter().enumerate() {
        let prompts = [plan.prompt(format!("a{i}"), a.clone()), plan.prompt(format!("b{i}"), b.clone())];
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
    }
    plan
}

/// The residual stream before every layer exchanged at one position, for each position: forks whose cones all begin elsewhere.
fn tracing((a, b): &Pair, layers: usize) -> Plan {
    let mut plan = Plan::default();
    let prompts = [plan.prompt("a", a.clone()), plan.prompt("b", b.clone())];
    for layer in 0..layers {
        for position in 0..a.len() {
            let edit = Edit {
                site: SiteKind::ResidPre.at(layer),
                part: Part::All,
                positions: Positions::At(vec![position]),
                change: Change::interchange(prompts[1]),
            };
            let fork = plan.fork(prompts[0], vec![edit]);
            plan.read(fork, What::Metric(Metric::logit_difference(vec![11], vec![23])));
        }
    }
    plan
}

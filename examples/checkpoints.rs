//! Where does a circuit sit in each of several checkpoints? Every head's interchange on one pair, as one table:
//! `cargo run --release --example checkpoints -- PAIRS.jsonl OUT.parquet MODEL...`
//!
//! A MODEL is what the command takes: `demo`, a folder, a `.gguf` file. The pair is the file's first.

use gatelens::dataset::encode::{prompt_ids, token_ids};
use gatelens::dataset::read_pairs;
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Options, Reading, run};
use gatelens::site::SiteKind;
use gatelens::table::Table;
use std::error::Error;

const USAGE: &str = "give PAIRS.jsonl OUT.parquet MODEL...";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [pairs, out, models @ ..] = &args[..] else { return Err(USAGE.into()) };
    if models.is_empty() {
        return Err(USAGE.into());
    }
    let set = read_pairs(pairs)?;
    let pair = set.items.first().ok_or("the file has no pair")?;
    let at = |field| set.at(pair.line, &pair.id, field);
    let mut rows = Vec::new();
    for name in models {
        let model = Model::open(name, &ModelOptions::default())?;
        let mut plan = Plan::default();
        let base = plan.prompt("positive", prompt_ids(&model, &pair.positive, at("positive"))?);
        let donor = plan.prompt("negative", prompt_ids(&model, &pair.negative, at("negative"))?);
        let metric = Metric::logit_difference(token_ids(&model, &pair.answer)?, token_ids(&model, &pair.foil)?);
        plan.read(base, What::Metric(metric.clone()));
        for (layer, head) in model.heads() {
            let (part, change) = (Part::Heads(vec![head]), Change::interchange(donor));
            let edit = Edit { site: SiteKind::Z.at(layer), part, positions: Positions::Last, change };
            let fork = plan.fork(base, vec![edit]);
            plan.read(fork, What::Metric(metric.clone()));
        }
        let readings = run(&model.decoder, &plan, &Options::default())?;
        let values: Vec<f64> = readings.iter().filter_map(Reading::number).collect();
        let effects = model.heads().zip(&values[1..]).map(|((layer, head), v)| (layer, head, v - values[0]));
        let effects: Vec<(usize, usize, f64)> = effects.collect();
        if let Some((layer, head, effect)) = effects.iter().max_by(|a, b| a.2.abs().total_cmp(&b.2.abs())) {
            println!("{name}: logit difference {:+.3}, strongest L{layer}.H{head} {effect:+.3} nats", values[0]);
        }
        rows.extend(effects.into_iter().map(|effect| (name, effect)));
    }
    Table::new("checkpoints")
        .str("checkpoint", "the model, as it was named", rows.iter().map(|r| r.0.as_str()))?
        .int("layer", "layer, from 0", rows.iter().map(|r| r.1.0 as i64))?
        .int("head", "head within the layer, from 0", rows.iter().map(|r| r.1.1 as i64))?
        .float(
            "effect",
            "change of the logit difference with the head from the negative prompt, nats",
            rows.iter().map(|r| r.1.2),
        )?
        .write_parquet(out)?;
    Ok(())
}

//! Tokens a second of greedy generation, for one prompt and for forty.
//!
//! `cargo bench --bench generation [-- MODEL] [--prompts FILE] [--json]`; MODEL is a folder or a GGUF file, by default SmolLM2
//! as `scripts/fetch_models.sh` leaves it. A rate counts new tokens over the whole call, the prompt pass included; it is the
//! median of several calls. Nothing stops a run early. `--json` also prints the ids, for `benches/peers/generation.py`.

mod common;

use common::{default_model, median};
use gatelens::dataset::{encode, read_prompts};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::Plan;
use gatelens::run::{Generation, Options, Sampling, Steps, generate};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 3;
const TOKENS: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut name, mut json) = (default_model(), false);
    let mut file = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/refusals/steered.jsonl").to_string();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--prompts" => file = arguments.next().ok_or("--prompts takes a file")?,
            other if other.starts_with("--") => {}
            model => name = model.to_string(),
        }
    }
    let model = Model::open(&name, &ModelOptions::default())?;
    let prompts = read_prompts(&file)?;
    let encoded = |(i, item): (usize, &gatelens::dataset::Item)| {
        encode::prompt_ids(&model, &item.prompt, prompts.at(i + 1, &item.id, "prompt"))
    };
    let prompts = prompts.items.iter().enumerate().map(encoded).collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::new();
    for count in [1, prompts.len()] {
        let mut plan = Plan::default();
        let runs =
            prompts[..count].iter().enumerate().map(|(i, ids)| plan.prompt(format!("{i}"), ids.clone())).collect();
        let generation = Generation {
            runs,
            max_tokens: TOKENS,
            sampling: Sampling::Greedy,
            steps: Steps::PromptOnly,
            stop: Vec::new(),
        };
        let mut ids = Vec::new();
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let at = Instant::now();
            ids = generate(&model.decoder, &plan, &generation, &Options::default())?;
            rates.push((count * TOKENS) as f64 / at.elapsed().as_secs_f64());
        }
        let rate = median(rates);
        println!("{count:>3} prompts, {TOKENS} tokens each: {rate:>7.1} tokens/s");
        let new: Vec<&Vec<u32>> = ids.iter().map(|g| &g.ids).collect();
        found.push(serde_json::json!({ "prompts": &prompts[..count], "tokens_per_s": rate, "new": new }));
    }
    if json {
        println!("{}", serde_json::Value::from(found));
    }
    Ok(())
}

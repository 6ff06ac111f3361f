//! What a study would cost, as a dry run says it.

use super::bytes;
use super::pace::about;
use crate::measured::ShownPrompt;
use crate::report::cells::plural;
use crate::run::{Engine, Size};
use crate::study::described::pieces;
use crate::study::{Cost, ENGINES};
use serde_json::{Map, Value, json};

/// What the seconds of a dry run are.
pub(super) const PACE: &str = "the time is that of computing, at the pace of some of these rows here and now";

/// What is said beside it where texts are generated.
const TEXTS: &str = "texts are taken to be three quarters as long as they may be";

/// Each engine's name with its size and seconds.
fn engines(cost: &Cost) -> impl Iterator<Item = (Engine, &Size, Option<f64>)> {
    ENGINES
        .into_iter()
        .zip(cost.sizes.iter().zip(cost.seconds.iter().copied()))
        .map(|(engine, (size, seconds))| (engine, size, seconds))
}

/// What each part costs, by the engine that is asked for.
fn parts(cost: &Cost) -> impl Iterator<Item = String> {
    let at = ENGINES.iter().position(|engine| *engine == cost.engine).unwrap_or(0);
    cost.parts.iter().map(move |(what, sizes)| {
        let (size, all) = (&sizes[at], cost.sizes[at].flops);
        let share = if all > 0.0 { 100.0 * size.flops / all } else { 0.0 };
        format!("of which {what}: {:.1} GFLOP in {} rows ({share:.0} %)", size.flops / 1e9, size.rows)
    })
}

pub(super) fn json(cost: &Cost) -> Map<String, Value> {
    let as_value = |size: &Size| serde_json::to_value(size).unwrap_or_default();
    let one = |(engine, size, seconds): (Engine, &Size, Option<f64>)| {
        let mut size = as_value(size);
        size["seconds"] = Value::from(seconds);
        (engine.to_string(), size)
    };
    let mut json: Map<String, Value> = engines(cost).map(one).collect();
    let (dtype, weights) = cost.weights;
    json.insert("pieces".to_string(), Value::from(cost.pieces));
    json.insert("weights".to_string(), json!({ "dtype": dtype.as_str(), "bytes": weights }));
    if !cost.parts.is_empty() {
        let of = |sizes: &Vec<Size>| -> Map<String, Value> {
            ENGINES.into_iter().zip(sizes).map(|(engine, size)| (engine.to_string(), as_value(size))).collect()
        };
        let parts = cost.parts.iter().map(|(what, sizes)| (what.clone(), Value::Object(of(sizes))));
        json.insert("of_which".to_string(), Value::Object(parts.collect()));
    }
    json
}

pub(super) fn text(cost: &Cost) -> String {
    let mut lines = vec![
        cost.extent.to_string(),
        format!("{:<10} {:>14} {:>14} {:>12} {:>22}", "engine", "rows x layers", "GFLOP", "time", "residual streams"),
    ];
    lines.extend(engines(cost).map(|(engine, size, seconds)| {
        let (rows, gflops, time) = (size.rows, size.flops / 1e9, seconds.map_or(String::new(), about));
        format!("{engine:<10} {rows:>14} {gflops:>14.1} {time:>12} {:>22}", bytes(size.resid_bytes))
    }));
    lines.extend(parts(cost));
    let (dtype, weights) = cost.weights;
    lines.push(format!("the weights take {} in {}", bytes(weights), dtype.as_str()));
    if cost.seconds.iter().any(Option::is_some) {
        lines.push(PACE.to_owned());
        lines.extend((cost.of_texts > 0.0).then(|| TEXTS.to_owned()));
    }
    lines.extend(cost.first_prompt.as_ref().map(first_prompt));
    lines.join("\n")
}

/// The first prompt of a dry run.
fn first_prompt(first: &ShownPrompt) -> String {
    format!(
        "the first prompt (`{}`, {}), {}: {}",
        first.id,
        first.field,
        plural(first.tokens.len() as i64, "token"),
        pieces(&first.tokens)
    )
}

//! `gatelens inspect`: what a model is and what can be read and edited in it.

use super::{CliError, ModelArgs, bytes, say};
use crate::model::Model;
use crate::model::arch::{Arch, Channel, Experts, Layer, Positions};
use crate::model::device;
use crate::site::{KINDS, SiteKind, Units};
use candle_core::DType;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The arguments of `inspect`.
#[derive(clap::Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    pub(super) model: ModelArgs,

    /// Show what this config.json describes, in place of a MODEL: it needs no weights and no tokenizer
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// MODEL, which is left out where a `config.json` is given.
pub(super) fn unless_described(model: clap::Arg) -> clap::Arg {
    let model = model.required(false).required_unless_present("config").conflicts_with("config");
    // What reads the arguments takes it for a text that is always there.
    model.default_value("").hide_default_value(true)
}

impl Inspect {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let model = match &self.config {
            Some(config) => self.model.described(config)?,
            None => self.model.open()?,
        };
        let facts = facts(&model);
        if self.model.output.json {
            return say(&serde_json::to_string_pretty(&facts).unwrap_or_default());
        }
        let mut lines = Vec::new();
        for (key, value) in facts.iter().filter(|(key, _)| *key != "sites") {
            let text = match (key.strip_suffix("_bytes"), value) {
                (Some(_), Value::Object(each)) => {
                    let one = |(name, n): (&String, &Value)| format!("{name} {}", bytes(n.as_u64().unwrap_or(0)));
                    each.iter().map(one).collect::<Vec<_>>().join(", ")
                }
                (Some(_), Value::Number(n)) => bytes(n.as_u64().unwrap_or(0)),
                _ => value.as_str().map_or_else(|| value.to_string(), str::to_string),
            };
            lines.push(format!("{:<16} {text}", key.strip_suffix("_bytes").unwrap_or(key)));
        }
        lines.push(String::new());
        lines.push(format!("{:<12} {:<8} {:>8}  layers", "site", "units", "width"));
        for site in facts["sites"].as_array().into_iter().flatten() {
            let text = |key: &str| site[key].as_str().map_or_else(|| site[key].to_string(), str::to_string);
            lines.push(format!("{:<12} {:<8} {:>8}  {}", text("site"), text("units"), text("width"), text("layers")));
        }
        say(&lines.join("\n"))
    }
}

/// What is known of a model, in the order in which it is shown. Of one that is only described, nothing is said of what
/// its other files would hold.
fn facts(model: &Model) -> Map<String, Value> {
    let (a, there) = (&model.decoder.arch, model.decoder.has_weights());
    let windows = a.layers.iter().filter(|l| l.mixer.window().is_some()).count();
    let scaling = a.ropes.first().map_or_else(
        || positions(a).to_string(),
        |r| {
            let kind = format!("{:?}", r.scaling);
            let kind = kind.split([' ', '(']).next().unwrap_or_default().to_lowercase();
            format!("base {}, {} of {} dimensions, scaling {kind}", r.base, r.rotary, a.d_head)
        },
    );
    let dtype = model.decoder.dtype;
    let of_dtype = |dtype: DType| (dtype.as_str().to_string(), Value::from(model.decoder.weight_bytes(dtype)));
    let by_dtype: Map<String, Value> = [DType::F32, DType::BF16, DType::F16].map(of_dtype).into_iter().collect();
    let facts = json!({
        "model": model.name,
        "family": a.family.name(),
        "parameters": model.decoder.parameters,
        "layers": a.n_layers,
        "heads": a.n_heads,
        "kv_heads": a.n_kv_heads,
        "d_model": a.d_model,
        "d_head": a.d_head,
        "d_mlp": a.d_mlp,
        "vocabulary": a.vocab,
        "context": a.n_ctx,
        "positions": scaling,
        "windowed_layers": windows,
        "mixers": mixers(a),
        "experts": experts(a),
        "active_parameters": active(model),
        "tied_embedding": a.tied,
        "chat_template": there.then(|| template(model)),
        "dtype": dtype.as_str(),
        "devices": devices(model),
        "weights_memory_bytes": model.decoder.weight_bytes(dtype),
        "weights_memory_by_dtype_bytes": by_dtype,
        "residual_memory_per_position_bytes": a.d_model * dtype.size_in_bytes(),
        "sha256": there.then_some(&model.sha256),
        "sites": sites(a),
    });
    let Value::Object(mut facts) = facts else { return Map::new() };
    facts.retain(|_, fact| !fact.is_null());
    facts
}

/// Whether the model has a chat template that can be used.
fn template(model: &Model) -> String {
    match model.tokenizer().map(|t| t.template().map(|t| t.is_some())) {
        Ok(Ok(true)) => "yes".to_string(),
        Ok(Ok(false)) => "none".to_string(),
        Ok(Err(e)) => format!("unusable: {e}"),
        Err(e) => format!("no tokenizer: {e}"),
    }
}

/// Where positions come from in a model that rotates nothing.
fn positions(arch: &Arch) -> &'static str {
    let sloped = |layer: &Layer| layer.mixer.attention().is_some_and(|attention| attention.alibi.is_some());
    match arch.positions {
        Positions::Learned { .. } => "learned positions",
        Positions::Sinusoidal { .. } => "sines and cosines",
        Positions::None if arch.layers.iter().any(sloped) => "scores that fall with distance (ALiBi)",
        Positions::None => "none but by order",
    }
}

/// How many layers have which mixer.
fn mixers(arch: &Arch) -> String {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for name in arch.layers.iter().map(|layer| layer.mixer.name()) {
        match counted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => counted.push((name, 1)),
        }
    }
    counted.into_iter().map(|(name, n)| format!("{n} of {name}")).collect::<Vec<_>>().join(", ")
}

/// How many experts layers have, and how many of them a row goes through.
fn experts(arch: &Arch) -> String {
    let of = |layer: &Layer| if let Channel::Experts(experts) = layer.channel { Some(experts) } else { None };
    let all: Vec<Experts> = arch.layers.iter().filter_map(of).collect();
    let Some(first) = all.first() else { return "none".to_string() };
    let shared = if first.shared.is_some() { ", and a shared one" } else { "" };
    format!("{} of {} in {} layers{shared}", first.chosen, first.n, all.len())
}

/// Parameters that a token is multiplied with: without experts that it does not go through, and with one row of the embedding.
fn active(model: &Model) -> u64 {
    let a = &model.decoder.arch;
    let unused = |layer: &Layer| layer.params(a.d_model) - layer.active_params(a.d_model);
    model.decoder.parameters.saturating_sub(a.layers.iter().map(unused).sum())
}

/// The devices with the layers that each holds.
fn devices(model: &Model) -> String {
    let one = |(device, layers): (&candle_core::Device, &std::ops::Range<usize>)| match layers.len() {
        0 => format!("{}: no layer", device::name(device)),
        _ => format!("{}: layers {}-{}", device::name(device), layers.start, layers.end - 1),
    };
    model.decoder.places.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Ascending numbers as `0-2, 5`.
fn spans(of: &[usize]) -> String {
    let text = |run: &[usize]| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    };
    of.chunk_by(|a, b| a + 1 == *b).map(text).collect::<Vec<_>>().join(", ")
}

/// The sites that the model has, with their widths in the first layer that has them.
fn sites(arch: &Arch) -> Vec<Value> {
    let layers_of =
        |kind: SiteKind| -> Vec<usize> { (0..arch.n_layers).filter(|l| kind.at(*l).check(arch).is_ok()).collect() };
    let there = KINDS.iter().filter(|(kind, _)| !layers_of(*kind).is_empty());
    let one = |(kind, name): &(SiteKind, &str)| {
        let having = layers_of(*kind);
        let at = kind.at(having[0]);
        let (units, width) = match at.units(arch) {
            Units::Heads { n, width } if *kind == SiteKind::ExpertOut => (format!("{n} experts"), json!(n * width)),
            Units::Heads { n, width } => (format!("{n} heads"), json!(n * width)),
            Units::HeadsByKeys { n } => (format!("{n} heads"), json!("keys")),
            Units::Columns { width } => ("columns".to_string(), json!(width)),
        };
        let heads = match at.units(arch) {
            Units::Heads { n, .. } | Units::HeadsByKeys { n } => json!(n),
            Units::Columns { .. } => Value::Null,
        };
        let (layers, n) = match kind.in_layers() {
            true => (spans(&having), having.len()),
            false => ("once".to_string(), 1),
        };
        json!({ "site": name, "units": units, "heads": heads, "width": width, "layers": layers, "places": n })
    };
    there.map(one).collect()
}

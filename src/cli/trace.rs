//! `gatelens trace`: activations of prompts, as a safetensors file.

use super::cost::PACE;
use super::pace;
use super::tokens::FieldArgs;
use super::{CliError, ModelArgs, bytes, check_out, say};
use crate::model::Model;
use crate::model::arch::Arch;
use crate::plan::{Activation, Array, Part, Plan, Positions};
use crate::report::cells::plural;
use crate::run::{Engine, Options, Reading, rate, run, size};
use crate::rundir::write_file_with;
use crate::site::{Site, SiteKind, Units, parse_sites};
use safetensors::tensor::TensorView;
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The arguments of `trace`.
#[derive(clap::Args)]
pub(super) struct Trace {
    #[command(flatten)]
    pub(super) model: ModelArgs,

    #[command(flatten)]
    file: FieldArgs,

    /// Record these sites, separated by commas: `z` (in every layer), `z.3` (one layer), `z.3-7` (a range)
    #[arg(long, value_name = "LIST")]
    sites: String,

    /// Write the activations to this file
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,

    /// Compute with this engine
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,

    /// Print what would be recorded, how large it is and how long it takes, and stop
    #[arg(long)]
    dry_run: bool,
}

impl Trace {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let out = self.out.as_deref().filter(|_| !self.dry_run);
        out.map_or(Ok(()), |out| check_out(out, self.force))?;
        let read = self.file.read()?;
        let model = self.model.open()?;
        let sites = self.sites(&model)?;
        let mut plan = Plan::default();
        let one_each = !self.file.are_pairs();
        for (field, ids) in read.all.iter().zip(read.ids(&model)?) {
            let name = if one_each { field.id.clone() } else { format!("{} {}", field.id, field.name) };
            let prompt = plan.prompt(name, ids);
            for site in &sites {
                let what = Activation { site: *site, positions: Positions::All, part: Part::All };
                plan.read(prompt, what);
            }
        }
        plan.check(&model.decoder.arch)?;
        let Some(out) = out else { return self.print_size(&plan, &sites, &model) };
        let readings = run(&model.decoder, &plan, &Options { engine: self.engine, ..Options::default() })?;
        let tensors = tensors(&plan, &sites, readings.into_inner(), &model.decoder.arch);
        let failed = |e: safetensors::SafeTensorError| CliError::Failed(format!("{}: {e}", out.display()));
        let views = tensors.iter().map(Named::view).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let about = about(&model, &plan);
        write_file_with(out, |temporary| {
            // The serialiser makes files that their owner alone may read: this one is as all others that a user makes.
            let permissions = std::fs::File::create(temporary)?.metadata()?.permissions();
            // A full disk is told with what would mend it, as wherever a file is written.
            safetensors::serialize_to_file(views, Some(about), temporary).map_err(|e| match e {
                safetensors::SafeTensorError::IoError(e) => e,
                e => std::io::Error::other(e.to_string()),
            })?;
            std::fs::set_permissions(temporary, permissions)
        })
        .map_err(|e| CliError::Failed(e.to_string()))?;
        let size = std::fs::metadata(out).map_or(0, |file| file.len());
        self.summary(out, &plan, &tensors, size)
    }

    fn sites(&self, model: &Model) -> Result<Vec<Site>, CliError> {
        let mut sites = parse_sites(&self.sites, &model.decoder.arch)?;
        sites.sort();
        sites.dedup();
        if sites.is_empty() {
            return Err(CliError::Input("--sites: names no site; try `--sites resid_post,z,logits`".to_string()));
        }
        Ok(sites)
    }

    /// Seconds that the readouts would take to compute, by a rate that is measured on some of the prompts' rows.
    fn seconds(&self, plan: &Plan, model: &Model) -> Result<Option<f64>, CliError> {
        let program = plan.compile(&model.decoder.arch)?;
        let flops = size(&program, self.engine).flops;
        if flops == 0.0 {
            // Nothing but embeddings is read: no layer has to be.
            return Ok(Some(0.0));
        }
        let failed = |e: candle_core::Error| CliError::Failed(format!("{}: {e}", model.name));
        Ok(rate(&model.decoder, &program, self.engine).map_err(failed)?.map(|rate| flops / rate))
    }

    /// Prints what each tensor would hold, what all of them take in the file, and how long they take to compute.
    fn print_size(&self, plan: &Plan, sites: &[Site], model: &Model) -> Result<(), CliError> {
        let rows: usize = plan.prompts.iter().map(|p| p.ids.len()).sum();
        let width = |site: &Site| match site.units(&model.decoder.arch) {
            Units::Heads { n, width } => n * width,
            Units::HeadsByKeys { n } => n * longest(plan),
            Units::Columns { width } => width,
        };
        let widths: Vec<(String, usize)> = sites.iter().map(|site| (site.to_string(), width(site))).collect();
        let size: u64 = widths.iter().map(|(_, width)| (rows * width * 4) as u64).sum();
        let seconds = self.seconds(plan, model)?;
        if self.model.output.json {
            let tensors: serde_json::Map<String, serde_json::Value> =
                widths.into_iter().map(|(name, width)| (name, json!([rows, width]))).collect();
            let prompts = plan.prompts.len();
            let size = json!({"rows": rows, "prompts": prompts, "tensors": tensors, "bytes": size, "seconds": seconds});
            return say(&size.to_string());
        }
        let mut lines = vec![format!("{:<16} {:>10} {:>10} {:>12}", "tensor", "rows", "width", "size")];
        lines.extend(widths.iter().map(|(name, width)| {
            format!("{name:<16} {rows:>10} {width:>10} {:>12}", bytes((rows * width * 4) as u64))
        }));
        lines.push(format!(
            "{}, {} in all, which is held in memory",
            plural(plan.prompts.len() as i64, "prompt"),
            bytes(size)
        ));
        lines.extend(seconds.map(|seconds| format!("{} by the {} engine; {PACE}", pace::about(seconds), self.engine)));
        say(&lines.join("\n"))
    }

    fn summary(&self, out: &Path, plan: &Plan, tensors: &[Named], size: u64) -> Result<(), CliError> {
        let rows: usize = plan.prompts.iter().map(|p| p.ids.len()).sum();
        let (out, n) = (out.display(), tensors.len());
        if self.model.output.json {
            let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
            let summary =
                json!({ "out": out.to_string(), "rows": rows, "prompts": plan.prompts.len(), "tensors": names });
            return say(&summary.to_string());
        }
        say(&format!("{out}: {n} tensors of {rows} rows of {} prompts, {}", plan.prompts.len(), bytes(size)))
    }
}

/// The tokens of the longest prompt: rows of scores and patterns have a column a head and so many keys.
fn longest(plan: &Plan) -> usize {
    plan.prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0)
}

/// Tokens whose pieces the file's metadata has room for.
const PIECES: usize = 100_000;

/// The file's metadata: the model, the prompts' names, and their token pieces where they are not too many.
fn about(model: &Model, plan: &Plan) -> HashMap<String, String> {
    let names: Vec<&str> = plan.prompts.iter().map(|p| p.name.as_str()).collect();
    let mut about =
        HashMap::from([("model".to_string(), model.name.clone()), ("prompts".to_string(), json!(names).to_string())]);
    let rows: usize = plan.prompts.iter().map(|p| p.ids.len()).sum();
    if let Ok(tokenizer) = model.tokenizer()
        && rows <= PIECES
    {
        let pieces = |ids: &Vec<u32>| tokenizer.named(ids).into_iter().map(|token| token.text).collect::<Vec<_>>();
        let all: Vec<Vec<String>> = plan.prompts.iter().map(|p| pieces(&p.ids)).collect();
        about.insert("pieces".to_string(), json!(all).to_string());
    }
    about
}

/// A tensor to be written: its name, dtype, shape and bytes.
struct Named {
    name: String,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Named {
    fn of_i64(name: &str, values: impl Iterator<Item = i64>) -> Self {
        let data: Vec<u8> = values.flat_map(i64::to_le_bytes).collect();
        Named { name: name.to_string(), dtype: safetensors::Dtype::I64, shape: vec![data.len() / 8], data }
    }

    fn view(&self) -> Result<(&str, TensorView<'_>), safetensors::SafeTensorError> {
        Ok((&self.name, TensorView::new(self.dtype, self.shape.clone(), &self.data)?))
    }
}

/// Each site's rows of all prompts one after another `[rows, width]`, `offsets` `[prompts + 1]` and `ids` `[rows]`. Rows of scores
/// and patterns, which are as long as their prompt, have room for the longest prompt's keys in each head: keys that a prompt
/// has not are 0 in patterns and minus infinity in scores. Each reading is let go of once it is copied.
fn tensors(plan: &Plan, sites: &[Site], readings: Vec<Reading>, arch: &Arch) -> Vec<Named> {
    let empty = |site: &Site| Named {
        name: site.to_string(),
        dtype: safetensors::Dtype::F32,
        shape: vec![0, 0],
        data: Vec::new(),
    };
    let mut tensors: Vec<Named> = sites.iter().map(empty).collect();
    let rows: usize = plan.prompts.iter().map(|p| p.ids.len()).sum();
    for (i, reading) in readings.into_iter().enumerate() {
        let Reading::Array(Array { shape, values }) = reading else { continue };
        let (site, tensor) = (sites[i % sites.len()], &mut tensors[i % sites.len()]);
        let fill = match site.kind {
            SiteKind::Scores => Some(f32::NEG_INFINITY),
            SiteKind::Pattern => Some(0.0),
            _ => None,
        };
        let patterns = if let Units::HeadsByKeys { n } = site.units(arch) { n.max(1) } else { 1 };
        let width = if fill.is_some() { patterns * longest(plan) } else { shape[1] };
        if tensor.data.is_empty() {
            tensor.data.reserve_exact(rows * width * 4);
        }
        tensor.shape = vec![tensor.shape[0] + shape[0], width];
        let (keys, room) = (shape[1] / patterns, width / patterns);
        match fill.filter(|_| keys < room) {
            None => tensor.data.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Some(fill) => {
                for head in values.chunks_exact(keys.max(1)) {
                    let padded = head.iter().chain(std::iter::repeat_n(&fill, room - keys));
                    tensor.data.extend(padded.flat_map(|v| v.to_le_bytes()));
                }
            }
        }
    }
    let lengths = plan.prompts.iter().map(|p| p.ids.len() as i64);
    let ends = lengths.scan(0, |at, n| {
        *at += n;
        Some(*at)
    });
    tensors.push(Named::of_i64("offsets", std::iter::once(0).chain(ends)));
    tensors.push(Named::of_i64("ids", plan.prompts.iter().flat_map(|p| p.ids.iter().map(|id| i64::from(*id)))));
    tensors
}
